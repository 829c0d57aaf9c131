"""A listening socket that the service manager passes (sd_listen_fds(3)) is served in the place of the configured one."""

import os
import re
import signal
import socket
import subprocess
import sys
import unittest

from harness import HPKVD, Case, Client, Daemon, FakeService

# Opens sockets as told, at the numbers that a service manager uses, and becomes the daemon.
MANAGER = """
import os, socket, sys
kinds, path, argv = sys.argv[1].split(), sys.argv[2], sys.argv[3:]
held = []
for i, kind in enumerate(kinds):
    family = socket.AF_INET if kind == "tcp" else socket.AF_UNIX
    s = socket.socket(family, socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM)
    s.bind(("127.0.0.1", 0) if kind == "tcp" else "\\0" * (kind == "abstract") + f"{path}{i or ''}")
    if kind in ("unix", "abstract", "tcp"):
        s.listen(100)
    held.append(os.dup(s.fileno()))
for i, fd in enumerate([os.dup2(fd, 100 + i) for i, fd in enumerate(held)]):
    os.dup2(fd, 3 + i)
    os.close(fd)
pid = os.getpid() + (os.environ.get("OTHER_PID") is not None)
os.environ |= {"LISTEN_PID": str(pid), "LISTEN_FDS": str(len(kinds))}
os.execv(argv[0], argv)
"""


class Passed(Daemon):
    """Started with sockets: "unix", "abstract", "bound" (it does not listen), "datagram", "tcp", or several."""

    def __init__(self, service, kinds, **options):
        super().__init__(service, **options)
        self.kinds = kinds
        self.passed = self.folder + "/passed"

    def _with_etc(self, argv):
        return [sys.executable, "-c", MANAGER, self.kinds, self.passed, *argv]


class Activation(Case):
    def test_it_is_served_and_left_behind(self):
        with FakeService() as service, Passed(service, "unix") as daemon:
            with Client(daemon.passed) as c:
                self.assertEqual(200, c.ask({"op": "ping"})["code"])
            self.assertIn(b"listens on " + daemon.passed.encode(), daemon.log())
            self.assertFalse(os.path.exists(daemon.socket), "the configured socket is nobody's then")
            daemon.process.signal(signal.SIGTERM)
            self.assertEqual(0, daemon.process.wait_exit())
            self.assertTrue(os.path.exists(daemon.passed), "whoever made it removes it")

    @staticmethod
    def access(path):
        st = os.stat(path)
        return st.st_ino, st.st_mode, st.st_uid, st.st_gid

    def test_it_is_nobodys_to_configure(self):
        """Neither path nor mode nor group of the configuration touch it, not on a reload either."""
        with FakeService() as service, Passed(service, "unix", mode="0600") as daemon:
            with Client(daemon.passed) as c:
                self.assertEqual(200, c.ask({"op": "ping"})["code"])
                before = self.access(daemon.passed)
                self.assertNotEqual(0o600, before[1] & 0o777)
                daemon.reload(mode="0640", socket=daemon.folder + "/other")
                self.assertEqual(200, c.ask({"op": "ping"})["code"])
            with Client(daemon.passed) as c:
                self.assertEqual(200, c.ask({"op": "ping"})["code"])
            self.assertEqual(before, self.access(daemon.passed))
            self.assertFalse(os.path.exists(daemon.folder + "/other"))

    def test_settings_that_are_refused_do_not_touch_it_either(self):
        with FakeService() as service, Passed(service, "unix") as daemon, socket.create_server(("127.0.0.1", 0)) as taken:
            before = self.access(daemon.passed)
            self.assertFalse(daemon.reload(mode="0640", listen=f"127.0.0.1:{taken.getsockname()[1]}"))
            self.assertEqual([b"another program is listening", b"the new settings are not used"],
                             re.findall(rb"error: .*(another program is listening|the new settings are not used|null)", daemon.log()))
            self.assertEqual(before, self.access(daemon.passed))
            with Client(daemon.passed) as c:
                self.assertEqual(200, c.ask({"op": "ping"})["code"])

    def test_one_that_every_user_may_open_is_told_of(self):
        """An abstract one has no mode; rules tell users apart even so."""
        warning = rb"warning: @\S+/passed is an abstract socket, to which every user may connect: without access rules"
        with FakeService() as service, Passed(service, "abstract") as daemon, Client("\0" + daemon.passed) as c:
            self.assertEqual(200, c.ask({"op": "ping"})["code"])
            daemon.process.wait_output(warning)
            log = len(daemon.log())
            daemon.reload(access={"nobody": {"user": 1}})
            self.assertEqual(403, c.ask({"op": "get", "key": "k"})["code"])
            self.assertNotRegex(daemon.log()[log:], warning)
            daemon.reload(access={})
            self.assertRegex(daemon.log()[log:], warning)
        with FakeService() as service, Passed(service, "unix") as daemon, Client(daemon.passed) as c:
            self.assertEqual(200, c.ask({"op": "ping"})["code"])
            self.assertNotIn(b"abstract", daemon.log())

    def refused(self, kinds, why):
        with FakeService() as service:
            daemon = Passed(service, kinds, wait=False)
            self.addCleanup(daemon._clean_up, False)
            daemon.start()
            self.assertEqual(1, daemon.process.wait_exit())
            self.assertRegex(daemon.log(), why)

    def test_two_are_too_many(self):
        self.refused("unix unix", rb"error: the service manager passes more than one socket")

    def test_others_are_refused(self):
        for kind in ("datagram", "tcp", "bound"):
            with self.subTest(kind):
                self.refused(kind, rb"error: the service manager passes something else")

    def test_one_that_is_meant_for_another_process_is_not_taken(self):
        with FakeService() as service, Passed(service, "unix", env={"OTHER_PID": "1"}) as daemon, daemon.client() as c:
            self.assertEqual(200, c.ask({"op": "ping"})["code"])
