#!/bin/sh
# install-packages.sh PACKAGE... - installs those Debian packages that are missing; quick and silent when none is.
# A word COMMAND:PACKAGE stands for a package that is wanted only when there is no such command. Uses sudo unless it is root.
set -eu

missing=
for word in "$@"; do
	package=${word#*:}
	case $word in
	*:*) command -v "${word%%:*}" >/dev/null && continue ;;
	esac
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
	echo "This script installs packages on Debian and its relatives only, and here is no apt-get." >&2
	echo "Install what these Debian packages hold, then run it again with --no-install:$missing" >&2
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
echo "Installing packages:$missing"
# An update that fails is not the end: the lists that are there may do.
apt update >"$log" 2>&1 || echo "(apt-get update failed; going on with the package lists that are there)"
# shellcheck disable=SC2086 # the names are words
if ! apt install -y --no-install-recommends $missing >>"$log" 2>&1; then
	cat "$log" >&2
	echo "The packages could not be installed." >&2
	exit 1
fi
