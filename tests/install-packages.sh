#!/bin/sh
# install-packages.sh build|try|check|package ... - installs the Debian packages that this needs, as far as they are missing; quick and
# silent when none is. As root, or through sudo. "check" includes /etc/hosts, if there is none.
set -eu

# COMMAND:PACKAGE is a package that is wanted only where there is no such command.
build="gcc libc6-dev make autoconf automake libtool pkg-config:pkg-config libevent-dev libssl-dev libcjson-dev
	libcurl4-openssl-dev libc-ares-dev libhttp-parser-dev libinih-dev libpcre2-dev libncurses-dev libwslay-dev"
try="openssl socat curl"
package="build-essential debhelper dh-python lintian libcmocka-dev python3 systemd"
check="xz-utils git libcmocka-dev clang openssl socat curl python3 python3-wsproto ca-certificates node:nodejs npm:npm shellcheck mandoc zsh fish
	python3-pip python3-setuptools python3-wheel mypy pyflakes3"
# Other versions of clang-format lay code out in other ways: tests/lint/format.test runs only with Debian 12's.
if grep -q '^VERSION_CODENAME=bookworm' /etc/os-release 2>/dev/null; then
	check="$check clang-format"
fi

wanted=
for group in "$@"; do
	case $group in
	build) wanted="$wanted $build" ;;
	try) wanted="$wanted $try" ;;
	package) wanted="$wanted $build $package" ;;
	check) wanted="$wanted $check" ;;
	*)
		sed -n '2,3s/^# //p' "$0" >&2
		exit 2
		;;
	esac
done

is_there() {
	case $1 in
	*:*) command -v "${1%%:*}" >/dev/null ;;
	*) [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ] ;;
	esac
}

# A bare root may lack even this, and then node and python can't find "localhost".
case " $* " in
*" check "*)
	if [ ! -e /etc/hosts ] && [ "$(id -u)" = 0 ]; then
		echo "Writing /etc/hosts, which is missing: localhost is 127.0.0.1 and ::1"
		printf '127.0.0.1 localhost\n::1 localhost\n' >/etc/hosts
	fi
	;;
esac

missing=
for word in $wanted; do
	case " $missing " in
	*" ${word#*:} "*) ;; # two groups want it
	*) is_there "$word" || missing="$missing ${word#*:}" ;;
	esac
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
	echo "Packages are installed by this script on Debian and its relatives only, and here is no apt-get." >&2
	echo "Install what these packages of Debian hold, then use --no-install:$missing" >&2
	exit 1
fi

root=
if [ "$(id -u)" != 0 ]; then
	root=sudo
	if ! command -v sudo >/dev/null; then
		echo "Packages are missing, and here is no sudo to install them with. As root:" >&2
		echo "  apt-get update && apt-get install --no-install-recommends$missing" >&2
		exit 1
	fi
fi

apt() {
	$root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "Installing packages (this may take some minutes):$missing"
# An update that fails is not the end: the lists that are there may do.
apt update >"$log" 2>&1 || echo "(apt-get update failed; going on with the package lists that are there)"
# shellcheck disable=SC2086 # the names are words
if ! apt install -y --no-install-recommends $missing >>"$log" 2>&1; then
	cat "$log" >&2
	echo "The packages could not be installed." >&2
	exit 1
fi
