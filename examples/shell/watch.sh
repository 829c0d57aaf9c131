#!/bin/bash
# watch.sh PATTERN - prints each change of the keys that match PATTERN, and says when some may have been missed.
set -u
socket=${HPKVD_SOCKET:-/run/hpkvd/hpkvd.sock}

quote() {
	local s=${1//\\/\\\\}
	printf '"%s"' "${s//\"/\\\"}"
}

# [watch]
# Takes a line of JSON. Quotes within keys and values are escaped, so no value matches these patterns.
take() {
	case $1 in
	*'"type":"notification"'*) printf '%s\n' "$1" ;;
	*'"type":"gap"'*) echo "changes may have been missed: read the keys again" >&2 ;;
	*'"type":"unsubscribed"'*) echo "the access rules have ended the subscription" >&2 ;;
	*'"type":"connection"'*) echo "the service is ${1#*\"state\":}" >&2 ;;
	'{"code":200}') pause=1 ;; # from here on no change is missed
	*) echo "hpkvd says: $1" >&2 ;;
	esac
}

# socat has nothing more to send, but waits for lines: -t, in seconds.
pause=1
while true; do
	while IFS= read -r line; do
		take "$line"
	done < <(printf '{"op":"subscribe","pattern":%s}\n' "$(quote "$1")" | socat -t 2000000000 - "UNIX-CONNECT:$socket")
	echo "no connection to hpkvd: trying again" >&2
	sleep "$pause"
	pause=$((pause < 16 ? pause * 2 : 30))
done
# [end]
