"""Messages to the service manager (sd_notify), for which clients never wait."""

import contextlib
import os
import re
import signal
import socket
import tempfile
import time

from harness import DEADLINE, Case, Daemon, FakeService, black_hole, eventually


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

    def fill(self):
        """Fills the socket, so that there is no room for messages."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, contextlib.suppress(BlockingIOError):
            other.setblocking(False)
            while True:
                other.sendto(b"something", self.path)

    def test_hangups_during_a_reload_are_one_more_together(self):
        begun = rb"SIGHUP: reading the settings again"
        with FakeService() as service, Daemon(service, env={"NOTIFY_SOCKET": self.path}) as daemon:
            self.hear("connected")
            # Each reload reads a configuration that takes a while: more than a few signals do.
            rules = {f"rule{n}": {"user": 0, "read": " ".join(f"key{n}:{i}*" for i in range(40))} for n in range(900)}
            daemon.change(access=rules)
            daemon.process.signal(signal.SIGHUP)
            daemon.process.wait_output(begun)
            for _ in range(5):
                daemon.process.signal(signal.SIGHUP)
                eventually(lambda: not daemon.is_pending(signal.SIGHUP), "it was taken")
            daemon.process.wait_output(rb"(?s)(new settings are in force|no setting).*(new settings are in force|no setting)")
            with daemon.client() as client:
                client.ask({"op": "ping"})
            self.assertLessEqual(len(re.findall(begun, daemon.log())), 3)

    def test_a_manager_that_does_not_listen_keeps_nobody_waiting(self):
        """It is told later, and the latest."""
        self.fill()
        with FakeService() as service, Daemon(service, env={"NOTIFY_SOCKET": self.path, "WATCHDOG_USEC": "200000"}) as daemon:
            daemon.wait_state("connected")
            self.assertTrue(daemon.reload(max_line="32K"))
            self.assertTrue(daemon.reload(max_line="16K"))
            service.hang_up()
            daemon.wait_state("connected")
            said = self.heard_until("WATCHDOG=1")
            messages = [line for line in said.splitlines() if line != "something" and not line.startswith("MONOTONIC_USEC=")]
            self.assertEqual(["RELOADING=1", "READY=1", "STATUS=", "WATCHDOG=1"], [re.sub("(STATUS=).*", r"\1", m) for m in messages])
            self.assertIn("connected", said)

    def test_its_end_is_not_waited_for_either(self):
        with FakeService() as service, Daemon(service, env={"NOTIFY_SOCKET": self.path}) as daemon:
            daemon.wait_state("connected")
            self.fill()
            daemon.process.signal(signal.SIGTERM)
            self.assertEqual(0, daemon.process.wait_exit())

    def test_an_abstract_socket(self):
        name = f"hpkvd-test-{os.getpid()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind("\0" + name)
            manager.settimeout(DEADLINE)
            with FakeService() as service, Daemon(service, env={"NOTIFY_SOCKET": "@" + name}):
                self.assertEqual(b"READY=1", manager.recv(4096))

    def test_a_socket_that_nobody_has(self):
        for path in (self.path + "-not-there", "vsock:2:1234", "relative", "/" + "x" * 200):
            with self.subTest(path), FakeService() as service, Daemon(service, env={"NOTIFY_SOCKET": path}) as daemon:
                daemon.wait_state("connected")
                self.assertEqual(1, daemon.log().count(b"warning: NOTIFY_SOCKET: "))

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
