"""What the service manager is told (sd_notify), by a daemon that was built with libsystemd."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from harness import DEADLINE, HPKVD, Case, Daemon, FakeService, black_hole, eventually


@unittest.skipUnless(b"libsystemd" in subprocess.run(["ldd", HPKVD], stdout=subprocess.PIPE, check=False).stdout,
                     "built without libsystemd")
class Notify(Case):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="hpkvd-test-")
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "notify")
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        self.manager.bind(self.path)
        self.manager.settimeout(DEADLINE)

    def hear(self, *wanted):
        """Waits until each of these has been said, in whatever order."""
        missing, until = set(wanted), time.monotonic() + DEADLINE
        while missing:
            said = self.manager.recv(4096).decode()
            missing -= {text for text in missing if text in said}
            self.assertTrue(not missing or time.monotonic() < until, f"never said: {missing}")

    def heard_until(self, last):
        """All that is said up to this."""
        said = ""
        while last not in said:
            said += self.manager.recv(4096).decode() + "\n"
        return said

    def test_ready_when_the_socket_answers_whether_the_service_does_or_not(self):
        with FakeService() as service:
            service.stop_listening()
            with Daemon(service, env={"NOTIFY_SOCKET": self.path}, wait=False) as daemon:
                self.hear("READY=1", "STATUS=")
                with daemon.client() as client:
                    self.assertEqual(200, client.ask({"op": "ping"})["code"])
                self.hear("backoff")

    def test_the_first_status_says_that_it_connects(self):
        with black_hole("127.0.0.1") as port, Daemon(f"http://127.0.0.1:{port}", env={"NOTIFY_SOCKET": self.path}):
            self.assertIn(": connecting", self.heard_until("STATUS="))

    def test_status_follows_the_connection_and_stopping_is_announced(self):
        with FakeService() as service, Daemon(service, env={"NOTIFY_SOCKET": self.path}) as daemon:
            self.hear("connected")
            service.hang_up()
            self.hear("backoff")
            daemon.process.signal(signal.SIGTERM)
            self.hear("STOPPING=1")

    def stop_listening(self):
        """From now on whoever says something waits until it is heard."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, contextlib.suppress(BlockingIOError):
            other.setblocking(False)
            while True:
                other.sendto(b"something", self.path)

    def test_hangups_during_a_reload_are_one_more_together(self):
        """It says first that it reloads, and so waits for us."""
        begun = rb"SIGHUP: reading the settings again"
        with FakeService() as service, Daemon(service, env={"NOTIFY_SOCKET": self.path}) as daemon:
            self.hear("connected")
            self.stop_listening()
            for _ in range(5):
                daemon.process.signal(signal.SIGHUP)
                daemon.process.wait_output(begun)
                eventually(lambda: not daemon.is_pending(signal.SIGHUP), "it was taken")
            for _ in range(2):
                self.heard_until("READY=1")
            with daemon.client() as client:
                client.barrier()
                client.barrier()
            self.assertEqual(2, len(re.findall(begun, daemon.log())))

    def test_the_watchdog_is_petted_while_the_loop_turns_whatever_the_service_does(self):
        with FakeService() as service:
            service.stop_listening()
            with Daemon(service, env={"NOTIFY_SOCKET": self.path, "WATCHDOG_USEC": "100000"}, wait=False):
                for _ in range(3):
                    self.hear("WATCHDOG=1")

    def test_the_watchdog_of_another_process_is_not(self):
        env = {"NOTIFY_SOCKET": self.path, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
        with FakeService() as service, Daemon(service, env=env) as daemon:
            self.hear("connected")
            daemon.process.signal(signal.SIGTERM)
            self.assertNotIn("WATCHDOG", self.heard_until("STOPPING=1"))

    def test_a_reload_is_announced_with_its_time_and_ends(self):
        with FakeService() as service, Daemon(service, env={"NOTIFY_SOCKET": self.path}) as daemon:
            self.hear("connected")
            before = time.monotonic_ns() // 1000
            daemon.process.signal(signal.SIGHUP)
            said = self.heard_until("READY=1")
            times = re.findall(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", said)
            self.assertEqual(1, len(times), said)
            self.assertTrue(before <= int(times[0]) <= time.monotonic_ns() // 1000)
