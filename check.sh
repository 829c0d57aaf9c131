#!/bin/sh
# check.sh - builds hpkvd and runs all its tests, each as a user, a developer or a packager would: with gcc, with sanitizers,
# with clang, and from the tarball. Installs what is missing first (Debian; as root or through sudo). A second run is quicker.
#
#   ./check.sh [--no-install] [STEP...]     steps: gcc sanitizers clang distcheck; without one, all of these
#                                           quick: the unit tests, lint and the main tests of the daemon, with gcc
#                                           packages: builds and tries the Debian packages
#
# Everything is built in build-check/, one step after the other; the tests of two steps run at the same time. A test that fails is
# shown at once. The last line says "N passed, N failed" over all steps; the status is 0 when none failed.
#
# CHECK_JOBS=N runs N tests of each step at once. The default is four for each processor, as tests mostly wait, and sixteen at
# most.
set -u
cd "$(dirname "$0")" || exit 1
build=$(pwd)/build-check
cores=$(nproc)
jobs=${CHECK_JOBS:-$((cores < 4 ? cores * 4 : 16))}
job='' builder='' testers=''

# On a terminal, the line that tells the progress is written over by the next.
over=
if [ -t 1 ] && [ "${TERM:-dumb}" != dumb ]; then
	over=$(printf '\r\033[K')
fi

say() {
	printf '%s%s\n' "$over" "$*"
}

# progress STEP TEXT - shows how far this step is, beside those that run at the same time; on a terminal only.
progress() {
	[ -n "$over" ] || return 0
	printf '%s; ' "$2" >"$build/progress/$1"
	printf '%s%s' "$over" "$(cat "$build"/progress/*)"
}

now() {
	date +%s
}

# Each step leaves its counts in a file of its own, for the last line.
result() { # result STEP PASSED FAILED SKIPPED
	echo "$2 $3 $4" >"$build/results/$1"
}

# A step that can't be done counts as one failed test.
broken() { # broken STEP
	result "$1" 0 1 0
	say "$1: broken"
}

# do_job LOG PROGRAM... - runs it so that a signal to this shell ends it and all that it has started.
do_job() {
	output=$1
	shift
	setsid "$@" >"$output" 2>&1 &
	job=$!
	wait "$job"
	status=$?
	job=
	return "$status"
}

# run LOG PROGRAM... - its output goes to the log, and the end of that to the screen when it fails.
run() {
	do_job "$@" || {
		log=$1
		shift
		say "failed: $*" "(all of it is in $log)"
		grep -vE '^  (CC|CCLD|AR) ' "$log" | tail -n 60
		return 1
	}
}

stop() {
	[ -z "$job" ] || kill -s TERM -- "-$job"
	[ -z "$builder" ] || [ -e "$build/built/all" ] || kill "$builder"
	# shellcheck disable=SC2086 # process IDs
	[ -z "$testers" ] || kill $testers
	exit 1
} 2>/dev/null

# --- building

# configure_in DIR OPTION... - configures build-check/DIR, unless it is and with the same options; make sees to the rest.
configure_in() {
	dir=$build/$1
	shift
	mkdir -p "$dir"
	[ -e "$dir/Makefile" ] && [ "$(cat "$dir/options" 2>/dev/null)" = "$*" ] && return
	# shellcheck disable=SC2016 # the inner shell's
	run "$dir/configure.log" sh -c 'cd "$0" && exec ../../configure -q "$@"' "$dir" "$@" || return
	echo "$*" >"$dir/options"
}

# build_in DIR OPTION... - configures, and builds all that "make check" needs.
build_in() {
	configure_in "$@" || return
	dir=$build/$1
	run "$dir/make.log" make -C "$dir" -s -j"$cores" all && run "$dir/make-check.log" make -C "$dir" -s -j"$cores" check TESTS=
}

build_gcc() {
	build_in gcc --enable-werror CC=gcc
}

build_quick() {
	build_gcc
}

build_sanitizers() {
	build_in sanitizers --enable-werror --enable-sanitizers CC=gcc CFLAGS='-O1 -g'
}

# What clang warns of does not depend on how much it optimises.
build_clang() {
	command -v clang >/dev/null || return 0
	build_in clang --enable-werror CC=clang CFLAGS=-O0
}

build_distcheck() {
	configure_in distcheck CC=gcc --disable-slow-tests
}

# From the tarball, as a packager would.
build_packages() {
	configure_in packages CC=gcc || return
	dir=$build/packages
	rm -rf "$dir/debian" "$dir"/hpkvd-*.tar.xz
	mkdir "$dir/debian"
	run "$dir/dist.log" make -C "$dir" -s dist || return
	tar -xJf "$dir"/hpkvd-*.tar.xz -C "$dir/debian"
	# shellcheck disable=SC2016 # the inner shell's
	run "$dir/package.log" sh -c 'cd "$0"/debian/hpkvd-* && exec dpkg-buildpackage -us -uc -b "$@"' "$dir" "-j$cores"
}

# build_steps STEP... - builds them in this order, and leaves "yes" or "no" in build-check/built/STEP.
build_steps() {
	trap stop TERM
	for step in "$@"; do
		began=$(now)
		built=no
		if "build_$step"; then
			say "$step: built in $(($(now) - began)) s"
			built=yes
		fi
		echo "$built" >"$build/built/new"
		mv "$build/built/new" "$build/built/$step"
	done
	: >"$build/built/all"
}

# is_built STEP - waits until it is, or can't be.
is_built() {
	while [ ! -e "$build/built/$1" ]; do
		kill -0 "$builder" 2>/dev/null || [ -e "$build/built/$1" ] || {
			say "$1: what builds it was ended"
			return 1
		}
		sleep 1
	done
	[ "$(cat "$build/built/$1")" = yes ]
}

# --- testing

# sum LOG RESULT... - adds up the lines "# PASS:  12" of one or more kinds of result.
sum() {
	from=$1
	shift
	awk -v kinds="$*" '$1 == "#" && NF == 3 && index(" " kinds " ", " " $2 " ") { n += $3 } END { print n + 0 }' "$from"
}

# test_ended STEP DIR NAME.trs - shows it if it failed, and notes why cases were skipped.
test_ended() {
	log=${3%.trs}.log
	sed -n 's/^ok .* # SKIP //p; s/^1\.\.0 # SKIP //p; s/^skipped: //p' "$log" >>"$2/skipped"
	grep -qE '^:test-result: (FAIL|XPASS|ERROR)' "$3" || return 0
	bad=$((bad + 1))
	say "$1: FAILED: $log"
	{
		echo "$1: $log"
		sed -n 's/^not ok [0-9]* - /  /p' "$log"
	} >>"$build/failed"
	grep -vE '^(ok |PASS: |1\.\.)' "$log" | tail -n 200
}

# list_ended DIR - writes the names of the .trs files of those tests in DIR that have ended since DIR/started was written.
list_ended() {
	find "$1" -name node_modules -prune -o -name '*.trs' -newer "$1/started" -exec grep -l '^:copy-in-global-log:' {} + >"$1/ended-tests"
}

# watch_tests STEP DIR TOTAL - until DIR/ended is there, says how far the tests in DIR are: on a terminal in one line, else every
# ten seconds. A log may be whole a moment after its .trs file, so a test is looked at a second after it was listed.
watch_tests() {
	seen=' ' count=0 bad=0 told=$(now)
	: >"$2/ended-tests"
	while kill -0 $$; do
		end=$([ ! -e "$2/ended" ] || echo yes)
		[ -z "$end" ] || list_ended "$2"
		while read -r trs; do
			case $seen in *" $trs "*) continue ;; esac
			seen="$seen$trs " count=$((count + 1))
			test_ended "$1" "$2" "$trs"
		done <"$2/ended-tests"
		[ -z "$end" ] || break
		list_ended "$2"
		progress "$1" "$1: $count of $3 tests, $bad failed"
		if [ -z "$over" ] && [ $(($(now) - told)) -ge 10 ]; then
			say "$1: $count of $3 tests, $bad failed"
			told=$(now)
		fi
		sleep 1
	done 2>/dev/null
}

# run_tests STEP DIR GOAL VARIABLE-OF-MAKE... - runs tests, shows how far they are and what failed, and counts the cases.
run_tests() {
	step=$1 dir=$build/$2 goal=$3
	shift 3
	total=$(make -C "$dir" -s --no-print-directory list-tests "$@" | wc -l)
	rm -f "$dir/ended" "$dir/skipped"
	: >"$dir/started"
	began=$(now)
	watch_tests "$step" "$dir" "$total" &
	watcher=$!
	do_job "$dir/check.log" make -C "$dir" -s --no-print-directory -j"$jobs" "$goal" "$@"
	ended=$?
	: >"$dir/ended"
	wait "$watcher"
	rm -f "$build/progress/$step"
	p=$(sum "$dir/check.log" PASS: XFAIL:) f=$(sum "$dir/check.log" FAIL: XPASS: ERROR:) s=$(sum "$dir/check.log" SKIP:)
	result "$step" "$p" "$f" "$s"
	say "$step: $p passed, $f failed$([ "$s" -eq 0 ] || echo ", $s skipped") in $(($(now) - began)) s"
	sort "$dir/skipped" | uniq -c | sed 's/^ *\([0-9]*\) /  \1 skipped: /'
	# When no test failed, the making of one did.
	[ "$ended" -eq 0 ] || [ "$f" -gt 0 ] || {
		tail -n 60 "$dir/check.log"
		say "make ended with status $ended"
		broken "$step"
	}
}

test_gcc() {
	run_tests gcc gcc check
}

# shellcheck disable=SC2016 # make's variable
test_quick() {
	run_tests quick gcc check TESTS='$(QUICK_TESTS)'
}

# To look at the sources once more would bring nothing new: no lint.
test_sanitizers() {
	run_tests sanitizers sanitizers check LINT_TESTS=
}

# That all of it compiles is the test.
test_clang() {
	command -v clang >/dev/null || {
		result clang 0 0 1
		say "clang: skipped: there is no clang"
		return
	}
	result clang 1 0 0
	say "clang: 1 passed, 0 failed"
}

# In a source tree that can't be written to, with install and uninstall. The other steps have run the slow tests, and have seen
# to warnings and optimisation.
test_distcheck() {
	run_tests distcheck distcheck distcheck DISTCHECK_CONFIGURE_FLAGS='--disable-slow-tests CFLAGS=-O0'
}

# On a machine of their own, as an administrator.
test_packages() {
	DEBS=$build/packages/debian
	export DEBS
	run_tests packages packages check-TESTS TESTS=tests/packages/test_packages.py
	unset DEBS
}

# test_step STEP N - when it is built, and no more than one of the N steps before it has not ended.
test_step() {
	trap stop TERM
	testers=
	while [ "$(find "$build/results" -type f | wc -l)" -lt $(($2 - 1)) ]; do
		sleep 1
	done
	if is_built "$1"; then
		"test_$1"
	else
		broken "$1"
	fi
}

# --- all of it

usage() {
	sed -n '2,/^[^#]/s/^# \{0,1\}//p' check.sh
	exit 2
}

main() {
	exec </dev/null
	install=yes
	[ "${1-}" != --no-install ] || { install=no; shift; }
	[ $# -gt 0 ] || set -- gcc sanitizers clang distcheck
	groups="build check"
	for step in "$@"; do
		case $step in
		gcc | sanitizers | clang | distcheck | quick) ;;
		packages) groups="$groups package" ;;
		*) usage ;;
		esac
	done
	# shellcheck disable=SC2086 # the groups are words
	[ "$install" = no ] || tests/install-packages.sh $groups || exit 1
	rm -rf "$build/results" "$build/built" "$build/progress" "$build/failed"
	mkdir -p "$build/results" "$build/built" "$build/progress"
	trap stop INT TERM HUP
	# What npm fetches is kept here, so that the next run needs no network; HOME may be read-only.
	export npm_config_cache="$build/npm-cache"
	if run "$build/autoreconf.log" autoreconf -i; then
		build_steps "$@" &
		builder=$!
		say "$1: is being built"
		before=0
		for step in "$@"; do
			test_step "$step" "$before" &
			testers="$testers $!" before=$((before + 1))
		done
		# shellcheck disable=SC2086 # process IDs
		wait $testers
	else
		broken autoreconf
	fi
	if [ -e "$build/failed" ]; then
		say "failed:"
		cat "$build/failed"
	fi
	cat "$build"/results/* | awk '
		{ passed += $1; failed += $2; skipped += $3 }
		END { printf "%d passed, %d failed%s\n", passed, failed, skipped ? ", " skipped " skipped" : ""; exit (failed > 0) }'
}

main "$@"
