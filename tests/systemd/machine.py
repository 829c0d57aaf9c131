"""machine.py - a real systemd for tests, in namespaces of its own (boot.sh), as root only.

    with Machine() as machine:
        machine.install(here, "/usr/sbin/hpkvd", 0o755)
        machine.run("systemctl", "start", "hpkvd")

It is skipped where it can't be: unittest.SkipTest says why. The calling process enters the machine's network, whose
loopback is then its own: a service that a test starts is found at localhost from both sides. PrivateUsers= can't work in
such a machine.

Environment: HPKVD_TEST_SYSTEM, the root of another system to boot in the place of this one (as debootstrap makes it), for
which hpkvd was built; HPKVD_TEST_BOOT_S, how long booting may take.
"""

import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
NAMESPACES = ("--mount", "--cgroup", "--ipc", "--uts", "--net")
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)
SYSTEM = os.environ.get("HPKVD_TEST_SYSTEM", "/")
BOOT_S = int(os.environ.get("HPKVD_TEST_BOOT_S", 60))


def need(condition, why):
    if not condition:
        raise unittest.SkipTest(f"a systemd to test with can't be booted here: {why}")


def children(pid):
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as f:
                if int(f.read().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(name))
        except OSError: # it has just ended
            pass
    return found


class Machine:
    def __enter__(self):
        need(os.geteuid() == 0, "only root can")
        for program in ("unshare", "nsenter", "ip", "chroot", "systemctl", "systemd-analyze"):
            need(shutil.which(program), f"there is no {program}")
        # Two of them would share the control groups below ours, and be in each other's way.
        self.lock = os.open("/sys/fs/cgroup", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.base = tempfile.mkdtemp(prefix="hpkvd-machine-")
        self.log = tempfile.TemporaryFile()
        self.init = None
        self.outer = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", *NAMESPACES, "sh", HERE + "/boot.sh", self.base, SYSTEM],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True,
            preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
        try:
            self._wait_for_boot()
            self._enter_network()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind, value, trace):
        if kind and not issubclass(kind, unittest.SkipTest):
            self.show()
        self.close()

    def close(self):
        """The init takes everything in its namespaces along."""
        if self.init:
            try:
                os.kill(self.init, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.outer.kill()
        self.outer.wait()
        os.close(self.lock)
        self.log.close()
        shutil.rmtree(self.base, ignore_errors=True)

    def _boot_log(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace").strip()[-2000:]

    def _wait_for_boot(self):
        until = time.monotonic() + BOOT_S
        while True:
            need(self.outer.poll() is None, self._boot_log())
            self.init = next(iter(children(self.outer.pid)), None)
            if self.init and self.status("systemctl", "is-system-running") in ("running", "degraded"):
                return
            need(time.monotonic() < until, f"it takes longer than {BOOT_S} s\n{self._boot_log()}")
            time.sleep(0.05)

    def _enter_network(self):
        with open(f"/proc/{self.init}/ns/net", "rb") as namespace:
            if LIBC.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    # -- what tests do with it

    def _inside(self, argv):
        return ["nsenter", "-t", str(self.init), "-m", "-p", "-u", "-i", "-C", "-n", "-r", "-w", "--",
                "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", *argv]

    def status(self, *argv):
        """What a command says, whatever its status."""
        return subprocess.run(self._inside(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False).stdout.decode(errors="replace").strip()

    def run(self, *argv):
        """What a command says; it must succeed."""
        done = subprocess.run(self._inside(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False)
        said = done.stdout.decode(errors="replace").strip()
        assert done.returncode == 0, f"{' '.join(argv)}: status {done.returncode}\n{said}"
        return said

    def start(self, *argv):
        """A command that runs on its own."""
        return subprocess.Popen(self._inside(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)

    def path(self, path):
        """Where a path of the machine is found from here."""
        return f"/proc/{self.init}/root{path}"

    def write(self, path, text, mode=0o644):
        there = self.path(path)
        os.makedirs(os.path.dirname(there), exist_ok=True)
        with open(os.open(there, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(there, mode)

    def install(self, source, path, mode=0o644):
        there = self.path(path)
        os.makedirs(os.path.dirname(there), exist_ok=True)
        shutil.copyfile(source, there)
        os.chmod(there, mode)

    def show(self):
        print("---- the machine's journal:", self.status("journalctl", "--no-pager", "-n", "80"), "----", sep="\n",
              file=sys.stderr, flush=True)
