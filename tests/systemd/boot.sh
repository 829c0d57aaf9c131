#!/bin/sh
# boot.sh FOLDER SYSTEM - becomes the init of a machine for tests: systemd, over a throw-away overlay of a system: / or
# another root.
#
# machine.py starts it in namespaces of its own (mount, pid, cgroup, ipc, uts, net); what is changed below / lies in a tmpfs
# on FOLDER and vanishes with them. /run, /tmp and /var/tmp are fresh, the network is a loopback, nothing but basic.target
# is started.
set -eu
base=$1 system=$2 root=$1/root
mount --make-rprivate /
ip link set lo up
mount -t tmpfs tmpfs "$base"
mkdir "$base/upper" "$base/work" "$root"
mount -t overlay overlay -o "lowerdir=$system,upperdir=$base/upper,workdir=$base/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
for folder in run tmp var/tmp; do
	mount -t tmpfs tmpfs "$root/$folder"
	chmod 1777 "$root/$folder"
done
chmod 755 "$root/run"
rm -f "$root/etc/machine-id"
tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
mkdir -p "$root/var/log/journal" "$root/run/systemd/system"
mount --make-rshared "$root"
for init in /usr/lib/systemd/systemd /lib/systemd/systemd; do
	[ ! -x "$root$init" ] || exec chroot "$root" /usr/bin/env -i PATH="$PATH" container=lxc "$init" --system --unit=basic.target
done
echo "there is no systemd"
exit 1
