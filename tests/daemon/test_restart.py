"""SIGUSR2: the program takes its own place. The socket never goes away, and clients only have to connect again."""

import contextlib
import os
import re
import shutil
import signal
import stat
import unittest

from harness import WITHHELD, Case, Client, Daemon, FakeService, eventually, get, put, scene


class RestartCase(Case):
    def restart(self, daemon, times=1):
        """Asks for it; the daemon counts how often it has begun to listen."""
        for _ in range(times):
            before = self.starts(daemon)
            daemon.process.signal(signal.SIGUSR2)
            eventually(lambda: self.starts(daemon) > before, "the next program")

    @staticmethod
    def starts(daemon):
        return daemon.log().count(b"listens on")

    def refused(self, daemon, *words):
        daemon.process.signal(signal.SIGUSR2)
        daemon.process.wait_output(rb"SIGUSR2: no restart: ")
        for word in words:
            self.assertIn(word, daemon.log())
        self.assertEqual(1, self.starts(daemon))


class Restart(RestartCase):
    @scene()
    def test_the_process_and_the_socket_stay(self, service, daemon, client):
        before = os.stat(daemon.socket)
        self.assertEqual(200, client.ask(get("k"))["code"])
        self.restart(daemon, 3)
        self.assertTrue(client.at_end())
        after = os.stat(daemon.socket)
        self.assertEqual((before.st_dev, before.st_ino, before.st_mode), (after.st_dev, after.st_ino, after.st_mode))
        status = daemon.wait_state("connected")
        self.assertEqual(daemon.pid, status["pid"])
        with daemon.client() as other:
            self.assertEqual(200, other.ask(get("k"))["code"])

    @scene(service=WITHHELD)
    def test_who_connects_meanwhile_is_served(self, service, daemon, client):
        client.send(put("k", "v", 1))
        request = service.next_request()
        daemon.process.signal(signal.SIGUSR2)
        daemon.process.wait_output(rb"SIGUSR2: restarting")
        with contextlib.ExitStack() as stack:
            waiting = [stack.enter_context(daemon.client()) for _ in range(50)]
            for one in waiting:
                one.send({"op": "ping", "messageId": 5})
            self.assertEqual(1, self.starts(daemon)) # a request in flight is waited for
            request.reply(success=True)
            self.assertEqual(200, client.answer()["code"])
            self.assertTrue(client.at_end())
            for one in waiting:
                self.assertEqual(200, one.answer()["code"])
        self.assertEqual(2, self.starts(daemon))

    @scene()
    def test_the_last_line_of_a_subscriber_says_why(self, service, daemon, client):
        client.subscribe(key="k")
        self.restart(daemon)
        last = client.answer()
        self.assertEqual(("connection", "disconnected", "shutting_down"), (last["type"], last["state"], last["reason"]))
        self.assertTrue(client.at_end())

    @scene(service=WITHHELD, max_in_flight=1)
    def test_unsent_requests_may_be_repeated_soon(self, service, daemon, client):
        client.send(put("k", "v", 1), put("l", "v", 2))
        request = service.next_request()
        daemon.wait_status(lambda s: s["upstream"]["queued"] == 1)
        daemon.process.signal(signal.SIGUSR2)
        answer = client.answer()
        self.assert_error(answer, 503, "shutting_down", "no", 2)
        self.assertTrue(0 < answer["retryAfterMs"] <= 1000, answer)
        request.reply(success=True)
        self.assertEqual(200, client.answer()["code"])
        eventually(lambda: self.starts(daemon) == 2, "the next program")

    def test_the_key_of_the_environment_goes_across(self):
        with FakeService() as service, Daemon(service, key_from="environment") as daemon:
            daemon.wait_state("connected")
            self.restart(daemon, 2)
            daemon.wait_state("connected")
            for name in ("environ", "cmdline"):
                with open(f"/proc/{daemon.pid}/{name}", "rb") as file:
                    self.assertNotIn(daemon.key.encode(), file.read())
            self.assertNotIn(b"api-key", daemon.log())

    @scene()
    def test_other_settings_are_taken(self, service, daemon, client):
        daemon.change(max_line="2K", mode="0600")
        self.restart(daemon)
        self.assertEqual(0o600, stat.S_IMODE(os.stat(daemon.socket).st_mode))
        with daemon.client() as other:
            other.send({"op": "ping", "messageId": "x" * 3000})
            self.assert_error(other.answer(), 413, "too_large", "no")

    @scene()
    def test_another_socket(self, service, daemon, client):
        former = daemon.socket
        daemon.change(socket=former + "2")
        self.restart(daemon)
        daemon.socket += "2"
        self.assertFalse(os.path.exists(former))
        self.assertEqual(200, daemon.status()["code"])

    @scene()
    def test_several_signals_are_one_restart(self, service, daemon, client):
        for _ in range(5):
            daemon.process.signal(signal.SIGUSR2)
        eventually(lambda: self.starts(daemon) == 2, "the next program")
        self.assertEqual(200, daemon.status()["code"])

    @scene(service=WITHHELD)
    def test_sigterm_during_a_restart_ends_it(self, service, daemon, client):
        client.send(put("k", "v", 1))
        service.next_request()
        daemon.process.signal(signal.SIGUSR2)
        daemon.process.wait_output(rb"SIGUSR2: restarting")
        daemon.process.signal(signal.SIGTERM)
        daemon.process.wait_output(rb"without a restart")
        service.hang_up()
        self.assertEqual(0, daemon.process.wait_exit())
        self.assertEqual(1, self.starts(daemon))
        self.assertFalse(os.path.exists(daemon.socket))


class Refused(RestartCase):
    @scene()
    def test_wrong_settings(self, service, daemon, client):
        daemon.change(max_line="much")
        self.refused(daemon, b"max_line", b"does not accept its settings")
        self.assertEqual(200, client.ask(get("k"))["code"])
        daemon.change(max_line="64K")

    def test_a_program_that_is_not_there_any_more(self):
        with FakeService() as service, Replaced(service) as daemon:
            os.unlink(daemon.program)
            self.refused(daemon, b"No such file or directory")
            self.assertEqual(200, daemon.status()["code"])

    def test_a_program_that_says_nothing_is_not_waited_for_long(self):
        with FakeService() as service, Replaced(service) as daemon:
            daemon.put_program("#!/bin/sh\nexec sleep 600\n")
            daemon.process.signal(signal.SIGUSR2)
            with daemon.client() as client:
                self.assertEqual(200, client.ask(get("k"))["code"])
            daemon.process.signal(signal.SIGTERM) # and ends it with us
            self.assertEqual(0, daemon.process.wait_exit())

    def test_another_program_takes_over(self):
        with FakeService() as service, Replaced(service) as daemon:
            daemon.put_program(f'#!/bin/sh\nexport HPKVD_TEST_SECOND=1\nexec {daemon.original} "$@"\n')
            self.restart(daemon)
            with open(f"/proc/{daemon.pid}/environ", "rb") as file:
                self.assertIn(b"HPKVD_TEST_SECOND=1", file.read())
            self.assertEqual(200, daemon.status()["code"])


class Replaced(Daemon):
    """A program of its own, which can be replaced."""

    def start(self):
        self.original = os.path.realpath(os.environ["HPKVD"])
        self.program = self.folder + "/hpkvd"
        shutil.copy2(self.original, self.program)
        super().start()

    def _with_etc(self, argv):
        return [self.program, *argv[1:]]

    def put_program(self, text):
        with open(self.program + ".new", "w", encoding="ascii") as file:
            file.write(text)
        os.chmod(self.program + ".new", 0o755)
        os.replace(self.program + ".new", self.program)


if __name__ == "__main__":
    unittest.main()
