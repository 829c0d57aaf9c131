#!/bin/sh
# try.sh - builds hpkvd and shows it at work: starts an HPKV of its own (hpkv-sandbox, with TLS) and hpkvd, and talks to hpkvd's
# socket with socat. ">" is what goes in, "<" what comes back. Installs what is missing first (Debian; as root or through
# sudo), builds in build-try/, and leaves nothing running.
#
#   ./try.sh [--no-install] [--keep]        --keep: leaves both running, to go on by hand
set -eu
cd "$(dirname "$0")"
source=$(pwd)
build=$source/build-try
install=yes keep=no
dir='' sandbox='' daemon='' watcher=''

say() {
	printf '%s\n' "$*"
}

usage() {
	sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$source/try.sh"
	exit 2
}

# However it ends, nothing stays; with --keep that is called off at the very end.
clean_up() {
	status=$?
	trap - EXIT
	# Above 128 it was told to end.
	[ "$status" = 0 ] || [ "$status" -gt 128 ] || show_logs
	# shellcheck disable=SC2086 # any may be missing
	[ -z "$daemon$sandbox" ] || { kill $watcher $daemon $sandbox; wait $watcher $daemon $sandbox; } 2>/dev/null || :
	[ -z "$dir" ] || rm -rf "$dir"
	exit "$status"
}

show_logs() {
	[ -n "$dir" ] || return 0
	for log in "$dir/sandbox.log" "$dir/hpkvd.log" "$dir/socat.log"; do
		[ ! -s "$log" ] || { say "--- ${log##*/}"; tail -n 20 "$log"; } >&2
	done
}

fail() {
	say "try.sh: $*" >&2
	exit 1
}

# run COMMAND... - silently, unless it fails.
run() {
	"$@" >"$build/try.log" 2>&1 || {
		tail -n 60 "$build/try.log" >&2
		fail "failed: $*"
	}
}

build() {
	mkdir -p "$build"
	[ -e "$build/Makefile" ] || say "Building in build-try/ (a minute, the first time) ..."
	[ -e configure ] || run autoreconf -i
	cd "$build"
	[ -e Makefile ] || run ../configure -q
	run make -s -j"$(nproc)"
}

make_folder() {
	dir=$(mktemp -d "${XDG_RUNTIME_DIR:-/tmp}/hpkvd-try.XXXXXX" 2>/dev/null || mktemp -d /tmp/hpkvd-try.XXXXXX)
	"$source/tests/make-certs.sh" "$dir/certs"
	(umask 077 && echo "a-key-to-try-with" >"$dir/api-key")
	mkfifo "$dir/says"
}

# nohup and the log files let --keep outlive this terminal.
start_sandbox() {
	nohup ./hpkv-sandbox --port 0 --api-key "$(cat "$dir/api-key")" --tls-cert "$dir/certs/server.pem" \
		--tls-key "$dir/certs/server.key" </dev/null >"$dir/says" 2>"$dir/sandbox.log" &
	sandbox=$!
	read -r says <"$dir/says" || fail "the sandbox did not start"
	url=${says#listening on }
	say "hpkv-sandbox (pid $sandbox) is an HPKV at $url"
}

start_daemon() {
	socket=$dir/hpkvd.sock
	cat >"$dir/hpkvd.conf" <<-CONF
		[upstream]
		url = $url
		api_key_file = api-key
		ca_file = $dir/certs/ca.pem
		[listen]
		socket = $socket
	CONF
	nohup ./hpkvd -c "$dir/hpkvd.conf" </dev/null >"$dir/hpkvd.log" 2>&1 &
	daemon=$!
	tries=200
	until send '{"op":"status"}' 2>/dev/null | grep -q '"state":"connected"'; do
		kill -0 "$daemon" 2>/dev/null || fail "hpkvd did not start"
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || fail "hpkvd did not connect"
		sleep 0.1
	done
	say "hpkvd (pid $daemon) is connected to it and listens on $socket"
}

# One line in, its answer out: this is all that a client needs.
send() {
	printf '%s\n' "$1" | socat -t 10 - "UNIX-CONNECT:$socket"
}

ask() {
	say "> $1"
	answer=$(send "$1")
	say "< $answer"
	case $answer in
	*'"code":200'*) ;;
	*) fail "that is not the answer that was expected" ;;
	esac
}

# A client that stays: what it is sent goes to a file. It is there when its first line, the answer, is. Newer versions of socat tell
# of the signal that ends them, which is nothing to be shown.
watch() {
	say "> $1"
	mkfifo "$dir/asks"
	socat -lf "$dir/socat.log" - "UNIX-CONNECT:$socket" <"$dir/asks" >"$dir/watched" &
	watcher=$!
	exec 3>"$dir/asks"
	printf '%s\n' "$1" >&3
	wait_lines 1
}

wait_lines() {
	tries=200
	until [ "$(wc -l <"$dir/watched")" -ge "$1" ]; do
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || fail "what was watched did not come"
		sleep 0.1
	done
}

# Shows what it was sent, this many lines, and ends it.
watched() {
	wait_lines "$1"
	say "(and the one that watches has got:)"
	sed 's/^/< /' "$dir/watched"
	exec 3>&-
	kill "$watcher"
	wait "$watcher" 2>/dev/null || :
	watcher=''
}

# rest PATH: a request by HTTP, and the body of its response.
rest() {
	say "> curl --unix-socket ... http://hpkv$1"
	say "< $(curl -sS --max-time 10 --unix-socket "$socket" "http://hpkv$1")"
}

tour() {
	say
	say "# Store a value, read it, merge something into it."
	ask '{"op":"set","key":"user:1","value":{"name":"Ada"},"messageId":1}'
	ask '{"op":"get","key":"user:1","messageId":2}'
	ask '{"op":"patch","key":"user:1","value":{"city":"London"},"messageId":3}'
	ask '{"op":"get","key":"user:1","messageId":"any text"}'
	say "# Count. A messageId is needed only where several requests are on their way at once."
	ask '{"op":"increment","key":"visits"}'
	ask '{"op":"increment","key":"visits","value":41}'
	say "# All keys from one to another."
	ask '{"op":"set","key":"user:2","value":"Grace"}'
	ask '{"op":"range","key":"user:","endKey":"user:~","limit":10}'
	say "# Watch: every change of these keys from now on, whoever makes it."
	watch '{"op":"subscribe","pattern":"user:*","messageId":"w"}'
	ask '{"op":"patch","key":"user:1","value":{"city":"Paris"}}'
	ask '{"op":"delete","key":"user:2"}'
	watched 3
	say "# The same by HTTP, as HPKV's own REST interface: programs that speak that need another base URL, and no key."
	rest /record/user%3A1
	say "# How is it?"
	ask '{"op":"status"}'
	say
}

main() {
	for word in "$@"; do
		case $word in
		--keep) keep=yes ;;
		--no-install) install=no ;;
		*) usage ;;
		esac
	done
	[ "$install" = no ] || tests/install-packages.sh build try
	trap clean_up EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	build
	make_folder
	start_sandbox
	start_daemon
	tour
	if [ "$keep" = yes ]; then
		trap - EXIT
		say "Both are still running. Paste this, and go on by hand:"
		say "export HPKVD_SOCKET=$socket PATH=$build:\$PATH PYTHONPATH=$source/bindings/python"
		say "Their logs are beside the socket. To stop them:    kill $daemon $sandbox; rm -r $dir   (the sandbox alone: kill $sandbox)"
	else
		say "That was it; stopping both. (./try.sh --keep leaves them running.)"
	fi
}

main "$@"
