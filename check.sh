#!/bin/sh
# check.sh - builds hpkvd and runs all its tests, each as a user, a developer or a packager would: with gcc, with sanitizers,
# with clang, and from the tarball. Installs what is missing first (Debian; as root or through sudo). A second run is quick.
#
#   ./check.sh [--no-install] [STEP...]     steps: gcc sanitizers clang distcheck; without one, all of these
#                                           packages: only when named; builds and tries the Debian packages
#
# Everything is built in build-check/. The last line says "N passed, N failed" over all steps; the status is 0 when none failed.
set -u
cd "$(dirname "$0")" || exit 1
build=$(pwd)/build-check
jobs=$(nproc)
passed=0 failed=0 skipped=0

say() {
	printf '%s\n' "$*"
}

# run LOG COMMAND... - its output goes to the log, and the end of that to the screen when it fails.
run() {
	output=$1
	shift
	"$@" >"$output" 2>&1 || {
		say "failed: $*" "(all of it is in $output)"
		grep -vE '^  (CC|CCLD|AR) ' "$output" | tail -n 60
		return 1
	}
}

# A step that can't be done counts as one failed test.
broken() {
	failed=$((failed + 1))
	say "$1: broken"
	return 1
}

# configure_step STEP OPTION... - configures build-check/STEP, unless it is and with the same options; make sees to the rest.
configure_step() {
	step=$1 dir=$build/$1
	shift
	mkdir -p "$dir"
	[ -e "$dir/Makefile" ] && [ "$(cat "$dir/options" 2>/dev/null)" = "$*" ] && return
	(cd "$dir" && run "$dir/configure.log" ../../configure -q "$@") || broken "$step" || return
	say "$*" >"$dir/options"
}

# make_step STEP ARGUMENT...
make_step() {
	dir=$build/$1
	shift
	make -C "$dir" -s --no-print-directory -j"$jobs" "$@"
}

# build_step STEP ARGUMENT-OF-MAKE...
build_step() {
	run "$build/$1/make.log" make_step "$@" || broken "$1"
}

# sum LOG RESULT... - adds up the lines "# PASS:  12" of one or more kinds of result.
sum() {
	from=$1
	shift
	awk -v kinds="$*" '$1 == "#" && NF == 3 && index(" " kinds " ", " " $2 " ") { n += $3 } END { print n + 0 }' "$from"
}

# count STEP LOG - what "make check" said in a log.
count() {
	p=$(sum "$2" PASS: XFAIL:) f=$(sum "$2" FAIL: XPASS: ERROR:) s=$(sum "$2" SKIP:)
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	say "$1: $p passed, $f failed$([ "$s" -eq 0 ] || echo ", $s skipped")"
}

# What the tests below a directory that failed since its file "started" was written have to say.
show_failures() {
	find "$1" -name '*.trs' -newer "$1/started" -exec grep -lE '^:test-result: (FAIL|XPASS|ERROR)' {} + | sort | while read -r trs; do
		say "--- ${trs%.trs}.log"
		grep -vE '^(ok |PASS: |1\.\.)' "${trs%.trs}.log" | tail -n 200
	done
}

# test_step STEP ARGUMENT-OF-MAKE... - runs tests, counts them, and shows what failed.
test_step() {
	step=$1
	log=$build/$1/check.log
	: >"$build/$1/started"
	if make_step "$@" >"$log" 2>&1; then
		count "$step" "$log"
		return
	fi
	count "$step" "$log"
	show_failures "$build/$step"
	# When no test failed, the making of one did.
	[ "$f" -gt 0 ] || { tail -n 60 "$log"; broken "$step"; }
}

step_gcc() {
	say "== gcc: build and test"
	configure_step gcc --enable-werror CC=gcc && build_step gcc all && test_step gcc check
}

step_sanitizers() {
	say "== sanitizers: build with AddressSanitizer and UBSan, and test"
	# To look at the sources once more would bring nothing new: no lint.
	configure_step sanitizers --enable-werror --enable-sanitizers CC=gcc CFLAGS='-O1 -g' &&
		build_step sanitizers all && test_step sanitizers check LINT_TESTS=
}

step_clang() {
	say "== clang: compile everything"
	configure_step clang --enable-werror CC=clang && build_step clang check TESTS= || return
	passed=$((passed + 1))
	say "clang: 1 passed, 0 failed"
}

# In a source tree that can't be written to, with install and uninstall. The slow tests have been run by the other steps.
step_distcheck() {
	say "== distcheck: make the tarball; build, test and install from it"
	configure_step distcheck CC=gcc && test_step distcheck distcheck DISTCHECK_CONFIGURE_FLAGS='--enable-werror --disable-slow-tests'
}

# From the tarball, as a packager would; then on a machine of their own, as an administrator.
step_packages() {
	say "== packages: build the Debian packages; install, upgrade, remove and purge them"
	configure_step packages CC=gcc || return
	dir=$build/packages
	rm -rf "$dir/debian" "$dir"/hpkvd-*.tar.xz
	mkdir "$dir/debian"
	run "$dir/dist.log" make_step packages dist || broken packages || return
	tar -xJf "$dir"/hpkvd-*.tar.xz -C "$dir/debian"
	(cd "$dir"/debian/hpkvd-* && run "$dir/package.log" dpkg-buildpackage -us -uc -b "-j$jobs") || broken packages || return
	DEBS=$dir/debian
	export DEBS
	test_step packages check-TESTS TESTS=tests/packages/test_packages.py
	unset DEBS
}

usage() {
	sed -n '2,/^[^#]/s/^# \{0,1\}//p' check.sh
	exit 2
}

main() {
	install=yes
	[ "${1-}" != --no-install ] || { install=no; shift; }
	[ $# -gt 0 ] || set -- gcc sanitizers clang distcheck
	groups="build check"
	for step in "$@"; do
		case $step in
		gcc | sanitizers | clang | distcheck) ;;
		packages) groups="$groups package" ;;
		*) usage ;;
		esac
	done
	# shellcheck disable=SC2086 # the groups are words
	[ "$install" = no ] || tests/install-packages.sh $groups || exit 1
	mkdir -p "$build"
	# What npm fetches is kept here, so that the next run needs no network; HOME may be read-only.
	export npm_config_cache="$build/npm-cache"
	if run "$build/autoreconf.log" autoreconf -i; then
		for step in "$@"; do
			"step_$step"
		done
	else
		broken autoreconf
	fi
	say "$passed passed, $failed failed$([ "$skipped" -eq 0 ] || echo ", $skipped skipped")"
	[ "$failed" -eq 0 ]
}

main "$@"
