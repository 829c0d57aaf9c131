"""The Debian packages on a machine of their own: installed, configured, upgraded, removed, purged.

DEBS is the folder where dpkg-buildpackage has left them ("./check.sh packages" sees to it). The machine is a throw-away copy of
this one, with a systemd of its own (tests/systemd/machine.py); what the packages depend on must be installed here.
"""

import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "daemon"), os.path.join(HERE, "..", "systemd")]
from harness import KEY, Case, Client, FakeService, certs, eventually, get # noqa: E402
from machine import Machine # noqa: E402

DEBS = os.environ.get("DEBS", "")
SOCKET = "/run/hpkvd/hpkvd.sock"
CONF = "/etc/hpkvd/hpkvd.conf"
API_KEY = "/etc/hpkvd/api-key"


def deb(name):
    """The newest package of that name."""
    return max(glob.glob(f"{DEBS}/{name}_*.deb"), key=os.path.getmtime)


def setUpModule():
    if not DEBS:
        raise unittest.SkipTest("no packages were built: ./check.sh packages does")


class Lintian(unittest.TestCase):
    @unittest.skipUnless(shutil.which("lintian"), "there is no lintian")
    def test_it_finds_no_error(self):
        done = subprocess.run(["lintian", "--no-cfg", "--allow-root", "--fail-on", "error", *glob.glob(DEBS + "/*.changes")],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        self.assertEqual(0, done.returncode, done.stdout)


class Package(Case):
    """The cases are one story: each begins with a machine on which nothing is installed."""

    def setUp(self):
        self.machine = Machine()
        self.machine.__enter__()
        self.addCleanup(self.end_machine)
        if self.exists("/usr/sbin/policy-rc.d"): # of a container: here services may be started
            os.unlink(self.machine.path("/usr/sbin/policy-rc.d"))
        self.service = FakeService()
        self.service.__enter__()
        self.addCleanup(self.service.__exit__, None, None, None)

    def run(self, result=None):
        self.result, self.failed_before = result, len(result.failures) + len(result.errors)
        super().run(result)

    def end_machine(self):
        failed = len(self.result.failures) + len(self.result.errors) > self.failed_before
        self.machine.__exit__(AssertionError if failed else None, None, None)

    # -- what an administrator does

    def dpkg(self, *args):
        return self.machine.run("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--force-confold", *args)

    def install(self, path):
        self.machine.install(path, "/tmp/package.deb")
        return self.dpkg("-i", "/tmp/package.deb")

    def configure(self):
        self.machine.install(certs() + "/ca.pem", "/etc/hpkvd/ca.pem")
        with open(self.machine.path(CONF), encoding="utf-8") as f:
            text = f.read()
        text, n = re.subn(r"^;url = .*$", f"url = {self.service.url}\nca_file = ca.pem", text, flags=re.M)
        self.assertEqual(1, n)
        self.machine.write(CONF, text)
        self.machine.write(API_KEY, KEY + "\n", 0o600)
        return text

    def newer(self):
        """The same package, but of a later version, whose default configuration has changed."""
        folder = tempfile.mkdtemp(prefix="hpkvd-deb-")
        self.addCleanup(shutil.rmtree, folder)
        subprocess.run(["dpkg-deb", "-R", deb("hpkvd"), folder + "/tree"], check=True)
        with open(folder + "/tree/DEBIAN/control", "r+", encoding="utf-8") as f:
            text = re.sub(r"^Version: .*$", "Version: 99", f.read(), flags=re.M)
            f.seek(0)
            f.truncate()
            f.write(text)
        with open(folder + "/tree" + CONF, "a", encoding="utf-8") as f:
            f.write("; of a later version\n")
        subprocess.run(["dpkg-deb", "--root-owner-group", "-b", folder + "/tree", folder + "/newer.deb"], check=True,
                       stdout=subprocess.DEVNULL)
        return folder + "/newer.deb"

    # -- what is seen

    def show(self, name, unit="hpkvd.service"):
        return self.machine.run("systemctl", "show", "--property", name, "--value", unit)

    def exists(self, path):
        return os.path.lexists(self.machine.path(path))

    def ask(self):
        """A client of the package's socket gets an answer of the service."""
        with Client(self.machine.path(SOCKET)) as c:
            eventually(lambda: c.ask({"op": "status"})["upstream"]["state"] == "connected", "connected")
            self.assertEqual(200, c.ask(get("k"))["code"])

    def test_install_waits_for_the_key_and_then_starts(self):
        self.install(deb("hpkvd"))
        self.machine.run("getent", "group", "hpkv")
        for unit in ("hpkvd.socket", "hpkvd.service"):
            self.assertEqual("enabled", self.machine.run("systemctl", "is-enabled", unit))
            self.assertEqual(("inactive", "success"), (self.show("ActiveState", unit), self.show("Result", unit)))
        self.assertEqual(0o644, os.stat(self.machine.path(CONF)).st_mode & 0o7777)
        self.assertEqual("78", self.machine.run("sh", "-c", "hpkvd -t >&2; echo $?").split()[-1])
        self.configure()
        self.assertIn(": ok", self.machine.run("hpkvd", "-t"))
        self.machine.run("systemctl", "start", "hpkvd")
        self.ask()
        self.assertNotEqual("", self.machine.run("man", "-w", "hpkvd", "hpkvd.conf", "hpkvd-protocol"))

    def test_upgrade_keeps_settings_and_socket(self):
        self.install(deb("hpkvd"))
        text = self.configure()
        self.machine.run("systemctl", "start", "hpkvd")
        self.ask()
        pid, inode = self.show("MainPID"), os.stat(self.machine.path(SOCKET)).st_ino
        self.install(self.newer())
        with open(self.machine.path(CONF), encoding="utf-8") as f:
            self.assertEqual(text, f.read())
        self.assertTrue(self.exists(API_KEY))
        self.ask()
        self.assertNotEqual(pid, self.show("MainPID"))
        self.assertEqual(inode, os.stat(self.machine.path(SOCKET)).st_ino)

    def test_an_upgrade_of_what_was_never_configured(self):
        self.install(deb("hpkvd"))
        self.install(self.newer())
        for unit in ("hpkvd.socket", "hpkvd.service"):
            self.assertEqual(("inactive", "success"), (self.show("ActiveState", unit), self.show("Result", unit)))
        with open(self.machine.path(CONF), encoding="utf-8") as f:
            self.assertIn("of a later version", f.read())

    def test_remove_keeps_the_settings_and_purge_does_not(self):
        self.install(deb("hpkvd"))
        self.configure()
        self.machine.run("systemctl", "start", "hpkvd")
        self.ask()
        self.dpkg("-r", "hpkvd")
        self.assertEqual((True, True, False, False), tuple(map(self.exists, (CONF, API_KEY, SOCKET, "/usr/sbin/hpkvd"))))
        self.assertNotEqual("active", self.machine.status("systemctl", "is-active", "hpkvd.service"))
        self.assertEqual("", self.machine.status("systemctl", "list-units", "--failed", "--quiet", "hpkvd*"))
        self.install(deb("hpkvd")) # again: all is as it was
        self.ask()
        self.dpkg("-r", "hpkvd")
        os.unlink(self.machine.path("/etc/hpkvd/ca.pem"))
        self.dpkg("-P", "hpkvd")
        self.assertFalse(self.exists("/etc/hpkvd"))
        self.assertFalse(glob.glob(self.machine.path("/etc/systemd/system/*/hpkvd*")))
        self.machine.run("getent", "group", "hpkv")

    def test_the_client_and_the_library_are_packages_of_their_own(self):
        self.install(deb("hpkv"))
        self.assertRegex(self.machine.run("hpkv", "--version"), r"^hpkv \d")
        self.assertIn("complete -F _hpkv hpkv", self.machine.run("cat", "/usr/share/bash-completion/completions/hpkv"))
        self.install(deb("libhpkv0"))
        self.install(deb("libhpkv-dev"))
        self.assertTrue(self.exists("/usr/include/hpkv.h"))
        self.dpkg("-P", "hpkv", "libhpkv-dev", "libhpkv0")
        self.assertFalse(self.exists("/usr/bin/hpkv") or self.exists("/usr/include/hpkv.h"))

    def test_the_python_package(self):
        self.install(deb("python3-hpkvd"))
        code = "import hpkvd; print(hpkvd.__version__)"
        self.assertRegex(self.machine.run("/usr/bin/python3", "-c", code), r"^\d")
        self.dpkg("-P", "python3-hpkvd")
        self.assertFalse(self.exists("/usr/lib/python3/dist-packages/hpkvd"))

    def test_the_sandbox_is_a_package_of_its_own(self):
        self.install(deb("hpkv-sandbox"))
        self.machine.run("hpkv-sandbox", "--version")
        self.dpkg("-P", "hpkv-sandbox")
        self.assertFalse(self.exists("/usr/bin/hpkv-sandbox"))
