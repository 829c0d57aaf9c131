#!/bin/sh
# check.sh - builds hpkvd and runs all its tests, each as a new user or packager would: with gcc, with sanitizers, with clang,
# and from the tarball. Installs what is missing first (Debian; as root or through sudo). A second run is quick.
#
#   ./check.sh [--no-install] [STEP...]     steps: gcc sanitizers clang distcheck; all of them without an argument
#
# Everything is built in build-check/. The last line says "N passed, N failed" over all steps; the status is 0 when none failed.
set -u
cd "$(dirname "$0")" || exit 1
source=$(pwd)
build=$source/build-check
jobs=$(nproc)
passed=0 failed=0 skipped=0

# What is needed to build, to test the programs as processes, and to look at the sources.
build_packages="gcc libc6-dev make autoconf automake pkg-config xz-utils libevent-dev libssl-dev libwebsockets-dev libcjson-dev
	libcurl4-openssl-dev libinih-dev libsystemd-dev"
test_packages="libcmocka-dev clang openssl socat python3 python3-wsproto ca-certificates node:nodejs npm:npm"
lint_packages="shellcheck"

say() {
	printf '%s\n' "$*"
}

finish() {
	line="$passed passed, $failed failed"
	[ "$skipped" -eq 0 ] || line="$line, $skipped skipped"
	say "$line"
	[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
	exit
}

install_packages() {
	# Other versions of clang-format lay out code in other ways: tests/lint/format.test runs only with Debian 12's.
	if grep -q '^VERSION_CODENAME=bookworm' /etc/os-release 2>/dev/null; then
		lint_packages="$lint_packages clang-format"
	fi
	# shellcheck disable=SC2086 # the names are words
	tests/install-packages.sh $build_packages $test_packages $lint_packages || exit 1
}

# run LOG COMMAND... - its output goes to the log, and to the screen when it fails.
run() {
	log=$1
	shift
	if ! "$@" >"$log" 2>&1; then
		say "failed: $*"
		tail -n 60 "$log"
		return 1
	fi
}

# Adds up what "make check" said in a log: lines such as "# PASS:  12".
count() {
	sum() { awk -v what="$1" '$1 == "#" && what ~ $2 { n += $3 } END { print n + 0 }' "$2"; }
	p=$(sum 'PASS: XFAIL:' "$1") f=$(sum 'FAIL: XPASS: ERROR:' "$1") s=$(sum 'SKIP:' "$1")
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	say "  $p passed, $f failed, $s skipped"
}

# The logs of all tests below a directory that failed.
show_failures() {
	find "$1" -name '*.trs' -exec grep -lE '^:test-result: (FAIL|XPASS|ERROR)' {} + 2>/dev/null | while read -r trs; do
		say "--- ${trs%.trs}.log"
		tail -n 200 "${trs%.trs}.log"
	done
}

# configure DIRECTORY OPTION... - configures once, and again when ./configure is newer or the options are others.
configure() {
	mkdir -p "$1" && cd "$1" || return 1
	shift
	if [ ! -e Makefile ] || [ "$source/configure" -nt Makefile ] || [ "$(cat options 2>/dev/null)" != "$*" ]; then
		run configure.log "$source/configure" -q "$@" || return 1
		say "$*" >options
	fi
}

# A build that fails is one failed test.
broken() {
	failed=$((failed + 1))
	cd "$source" || exit 1
}

# build_and_test STEP OPTION...
build_and_test() {
	step=$1
	shift
	if ! configure "$build/$step" --enable-werror "$@" || ! run make.log make -s -j"$jobs" all; then
		broken
		return
	fi
	make -s -k -j"$jobs" check >check.log 2>&1
	status=$?
	before=$((passed + failed))
	count check.log
	if [ "$status" -ne 0 ]; then
		show_failures .
		# Without a single result it was not a test that failed, but the making of one.
		[ "$((passed + failed))" -gt "$before" ] || { tail -n 60 check.log; broken; }
	fi
	cd "$source" || exit 1
}

step_gcc() {
	say "== gcc: build and test"
	build_and_test gcc CC=gcc
}

step_sanitizers() {
	say "== sanitizers: build with AddressSanitizer and UBSan, and test"
	build_and_test sanitizers CC=gcc --enable-sanitizers CFLAGS="-O1 -g"
}

step_clang() {
	say "== clang: compile everything"
	if configure "$build/clang" --enable-werror CC=clang && run make.log make -s -j"$jobs" all check TESTS=; then
		passed=$((passed + 1))
		say "  1 passed, 0 failed, 0 skipped"
		cd "$source" || exit 1
	else
		broken
	fi
}

# From the tarball, in a tree that can't be written to, installed and uninstalled; without the tests that the steps before ran.
step_distcheck() {
	say "== distcheck: make the tarball, build, test and install from it"
	if ! configure "$build/distcheck" CC=gcc; then
		broken
	elif make -s -j"$jobs" distcheck DISTCHECK_CONFIGURE_FLAGS="--enable-werror --disable-slow-tests" >distcheck.log 2>&1; then
		count distcheck.log
		cd "$source" || exit 1
	else
		count distcheck.log
		show_failures .
		tail -n 60 distcheck.log
		broken
	fi
}

install=yes
if [ "${1-}" = --no-install ]; then
	install=no
	shift
fi
case "${1-}" in
-*)
	sed -n '2,/^[^#]/s/^# \{0,1\}//p' check.sh
	exit 2
	;;
esac
[ "$install" = no ] || install_packages
mkdir -p "$build"
# What npm fetches is kept here, so that the next run needs no network; HOME may be read-only.
export npm_config_cache="$build/npm-cache"

if ! run "$build/autoreconf.log" autoreconf -fi; then
	broken
	finish
fi
for step in ${*:-gcc sanitizers clang distcheck}; do
	case $step in
	gcc | sanitizers | clang | distcheck) "step_$step" ;;
	*)
		say "there is no step $step" >&2
		exit 2
		;;
	esac
done
finish
