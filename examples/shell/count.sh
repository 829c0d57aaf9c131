#!/bin/bash
# count.sh KEY - counts: adds one to KEY and prints what it is now.
#
# Exit status: 0 done, 1 not counted, 2 perhaps counted.
set -u
socket=${HPKVD_SOCKET:-/run/hpkvd/hpkvd.sock}

# [ask]
# Prints a text as a JSON string. (Of the control characters, only newline and tab are escaped.)
quote() {
	local s=${1//\\/\\\\}
	s=${s//\"/\\\"}
	s=${s//$'\n'/\\n}
	printf '"%s"' "${s//$'\t'/\\t}"
}

# Sends lines and prints the answers. hpkvd closes the connection after the last one; -t is how long socat waits for that.
ask() {
	printf '%s\n' "$@" | socat -t 30 - "UNIX-CONNECT:$socket"
}
# [end]

fail() {
	printf '%s\n' "$2" >&2
	exit "$1"
}

[ -S "$socket" ] || fail 1 "not counted: $socket: there is no socket"
answer=$(ask "{\"op\":\"increment\",\"key\":$(quote "$1")}") || fail 2 "perhaps counted: socat has ended with $?"
case $answer in
*'"newValue":'*)
	number=${answer##*'"newValue":'}
	printf '%s\n' "${number%%[,\}]*}"
	;;
*'"executed":"unknown"'* | '') fail 2 "perhaps counted: ${answer:-hpkvd has closed the connection}" ;;
*) fail 1 "not counted: $answer" ;;
esac
