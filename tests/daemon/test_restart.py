"""SIGUSR2: the program takes its own place. The socket never goes away, and clients only have to connect again."""

import contextlib
import os
import re
import shutil
import signal
import stat
import tempfile
import time
import unittest

from harness import WITHHELD, Case, Client, Daemon, FakeService, eventually, free_port, get, need_root, put, scene
from test_activation import Passed


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

    @scene(service=WITHHELD)
    def test_several_signals_are_one_restart(self, service, daemon, client):
        client.send(put("k", "v", 1))
        request = service.next_request() # is waited for, so all signals come within one restart
        daemon.process.signal(signal.SIGUSR2)
        daemon.process.wait_output(rb"SIGUSR2: restarting")
        for _ in range(5):
            daemon.process.signal(signal.SIGUSR2)
            eventually(lambda: not daemon.is_pending(signal.SIGUSR2), "the signal's being taken")
        request.reply(success=True)
        eventually(lambda: self.starts(daemon) > 1, "the next program")
        self.assertEqual(200, daemon.status()["code"])
        self.assertEqual(2, self.starts(daemon))
        self.assertEqual(1, daemon.log().count(b"asking the program"))

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


    @scene()
    def test_nothing_is_left_over(self, service, daemon, client):
        """Neither descriptors nor blocked signals, nor variables that were for the next program alone."""
        daemon.wait_state("connected")
        self.restart(daemon)
        daemon.wait_state("connected")
        before = self.possessions(daemon)
        self.assertEqual(0, before["SigBlk"])
        self.restart(daemon, 3)
        daemon.wait_state("connected")

        def no_more():
            now = self.possessions(daemon)
            open_now, open_before = now.pop("descriptors"), before["descriptors"] # one may have been about to be closed
            return now == {name: before[name] for name in now} and (open_now is None or open_now <= open_before)

        eventually(no_more, "no more than before")

    @staticmethod
    def possessions(daemon):
        with open(f"/proc/{daemon.pid}/status", encoding="ascii") as file:
            signals = {name: int(mask, 16) for name, mask in re.findall(r"^(Sig(?:Blk|Ign|Cgt)):\s*(\w+)", file.read(), re.M)}
        try:
            descriptors = len(os.listdir(f"/proc/{daemon.pid}/fd"))
        except PermissionError: # only root may look
            descriptors = None
        return signals | {"descriptors": descriptors}

    @scene()
    def test_a_socket_of_another_daemon_at_the_path_is_left_alone(self, service, daemon, client):
        with FakeService() as other_service, FifoProgram(service) as daemon:
            daemon.process.signal(signal.SIGUSR2)
            daemon.wait_for_question()
            os.unlink(daemon.socket)
            with Daemon(other_service, folder=daemon.folder, key_from="environment", wait=True) as other:
                daemon.answer_question()
                daemon.process.wait_output(rb"another daemon is listening there")
                self.assertEqual(1, daemon.process.wait_exit())
                daemon.killed = True
                self.assertEqual(200, other.status()["code"])

    def test_the_group_of_the_folder_stays(self):
        need_root()
        folder = self.enterContext(tempfile.TemporaryDirectory())
        os.chown(folder, -1, 30001)
        os.chmod(folder, 0o2755)
        with FakeService() as service, Daemon(service, socket=folder + "/sock") as daemon:
            self.assertEqual(30001, os.stat(daemon.socket).st_gid)
            self.restart(daemon)
            self.assertEqual(30001, os.stat(daemon.socket).st_gid)

    def test_a_passed_socket_is_passed_on(self):
        with FakeService() as service, Passed(service, "unix") as daemon:
            for _ in range(3):
                self.restart(daemon)
                with Client(daemon.passed) as client:
                    self.assertEqual(200, client.ask(get("k"))["code"])
            daemon.process.signal(signal.SIGTERM)
            self.assertEqual(0, daemon.process.wait_exit())
            self.assertTrue(os.path.exists(daemon.passed), "whoever made it removes it")

    @scene(service=WITHHELD)
    def test_sigterm_before_the_program_has_answered(self, service, daemon, client):
        with FifoProgram(service) as daemon, daemon.client() as client:
            client.send(put("k", "v", 1))
            request = service.next_request()
            daemon.process.signal(signal.SIGUSR2)
            pid = daemon.wait_for_question()
            daemon.process.signal(signal.SIGTERM)
            daemon.process.wait_output(rb"signal 15: stopping")
            eventually(lambda: not os.path.exists(f"/proc/{pid}"), "the end of the other program")
            request.reply(success=True)
            self.assertEqual(200, client.answer()["code"])
            self.assertTrue(client.at_end())
            self.assertEqual(0, daemon.process.wait_exit())
            self.assertEqual(1, self.starts(daemon))

    def test_signals_to_all_processes_of_the_service(self):
        """As systemctl kill and pkill send them: the other program is not asked twice, nor ended."""
        with FakeService() as service, FifoProgram(service) as daemon:
            daemon.process.signal(signal.SIGUSR2)
            pid = daemon.wait_for_question()
            for number in (signal.SIGUSR2, signal.SIGHUP):
                os.kill(pid, number)
            daemon.answer_question()
            eventually(lambda: self.starts(daemon) == 2, "the next program")

    def test_nothing_else_is_open_in_the_next_program(self):
        """Neither when it is asked nor when it takes over: no client, no connection to the service, no event queue."""
        with FakeService() as service, Replaced(service, key_from="environment", http_address=f"127.0.0.1:{free_port()}",
                                                local_key_file="local-key", listen=f"127.0.0.1:{free_port()}") as daemon:
            daemon.wait_state("connected")
            daemon.put_program(f'#!/bin/sh\nls -l /proc/self/fd >{daemon.folder}/fds.new\necho "listen $LISTEN_FDS" >>{daemon.folder}/fds.new\n'
                               f'cat {daemon.folder}/fds.new >>{daemon.folder}/fds\nexec {daemon.original} "$@"\n')
            with daemon.client() as client, daemon.client() as subscriber:
                self.assertEqual(200, client.ask(get("k"))["code"])
                subscriber.subscribe(key="k")
                self.restart(daemon)
            with open(daemon.folder + "/fds", encoding="ascii") as file:
                asked, taken = re.findall(r"((?:.* -> .*\n)+)listen (\d*)\n", file.read())
            for (text, passed), sockets in ((asked, 0), (taken, 2)):
                files = dict(re.findall(r" (\d+) -> (.+)\n", text))
                others = [name for n, name in files.items() if int(n) > 2 and not name.startswith("/proc/")] # ls itself
                self.assertEqual(sockets, int(passed or 0))
                self.assertEqual(sockets, sum(name.startswith("socket:") for name in others), files)
                self.assertEqual(1, sum(name.startswith("pipe:") for name in others), files) # the key
                self.assertEqual(sockets + 1, len(others), files)
            daemon.wait_state("connected") # with the key

    def test_the_learned_pace_stays(self):
        """In the state directory, for a minute: later it says nothing of the service's limit."""
        refuse = [True]

        def answer(request):
            if refuse.pop() if refuse else False:
                return request.reply_raw('{"code":429,"error":"Rate limit exceeded","messageId":%d}' % request.id)
            return request.reply()

        with tempfile.TemporaryDirectory() as state, FakeService(answer=answer) as service, \
                Daemon(service, env={"STATE_DIRECTORY": state}) as daemon:
            pace = lambda: daemon.status()["upstream"]["pace"] # noqa: E731
            daemon.wait_state("connected")
            self.assertIsNone(pace())
            with daemon.client() as client:
                self.assertEqual(200, client.ask(get("k"))["code"])
            self.assertIsNotNone(pace())
            self.restart(daemon)
            self.assertIsNotNone(pace())
            self.assertEqual([], [name for name in os.listdir(state) if "pace" in name])
            for text, age_s, kept in (("1 5000 50000 {}\n", 0, True), ("1 5000 50000 {}\n", 70, False), ("1 5000 50000 {}\n", -70, False),
                                      ("2 5000 50000 {}\n", 0, False), ("1 5000", 0, False), ("1 500 50000 {}\n", 0, False),
                                      ("1 5000 4000 {}\n", 0, False), ("1 5000 50000 {} 1\n", 0, False), ("1 5000 50000\n", 0, False),
                                      ("1 5000 50000 {}\n" + 80 * "1", 0, False), ("", 0, False)):
                with self.subTest(text=text, age=age_s):
                    self.end(daemon)
                    with open(state + "/pace", "w", encoding="ascii", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                        file.write(text.format(int((time.time() - age_s) * 1000)))
                    daemon.start()
                    self.assertEqual(kept, (pace() or 0) >= 5)
                    self.assertEqual(kept, pace() is not None)

    @staticmethod
    def end(daemon):
        daemon.process.signal(signal.SIGTERM)
        daemon.process.wait_exit()
        daemon.process.close()

    def test_a_program_behind_a_link(self):
        """As with several versions beside each other, of which a link chooses one."""
        with FakeService() as service, Linked(service) as daemon:
            daemon.link_to("second")
            self.restart(daemon)
            self.assertTrue(daemon.runs().endswith("/second"))
            daemon.link_to("hpkvd")
            self.restart(daemon)
            self.assertTrue(daemon.runs().endswith("/hpkvd"))


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

    @scene(service=WITHHELD)
    def test_a_program_that_is_gone_when_its_turn_comes(self, service, daemon, client):
        with Replaced(service) as daemon, daemon.client() as client:
            client.send(put("k", "v", 1))
            request = service.next_request()
            before = os.stat(daemon.socket).st_ino
            daemon.process.signal(signal.SIGUSR2)
            daemon.process.wait_output(rb"SIGUSR2: restarting")
            os.unlink(daemon.program)
            request.reply(success=True)
            daemon.process.wait_output(re.escape(daemon.program.encode()) + rb" can't be run: No such file or directory: the former")
            eventually(lambda: self.starts(daemon) == 2, "the former program")
            self.assertEqual(200, daemon.status()["code"])
            self.assertEqual(before, os.stat(daemon.socket).st_ino)
            shutil.copy2(daemon.original, daemon.program)
            self.restart(daemon)
            self.assertEqual(daemon.program, os.readlink(f"/proc/{daemon.pid}/exe"))

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

    def _write_files(self):
        self._write_file("local-key", "a-local-key-of-some-length\n")
        return super()._write_files()

    def put_program(self, text):
        with open(self.program + ".new", "w", encoding="ascii") as file:
            file.write(text)
        os.chmod(self.program + ".new", 0o755)
        os.replace(self.program + ".new", self.program)


class FifoProgram(Replaced):
    """The next program answers when it may."""

    def start(self):
        super().start()
        os.mkfifo(self.folder + "/fifo")
        self.fifo = os.open(self.folder + "/fifo", os.O_RDWR)
        self.put_program(f'#!/bin/sh\necho $$ >{self.folder}/pid.new && mv {self.folder}/pid.new {self.folder}/pid\n'
                         f'read line <{self.folder}/fifo\nexec {self.original} "$@"\n')

    def wait_for_question(self):
        eventually(lambda: os.path.exists(self.folder + "/pid"), "the other program")
        with open(self.folder + "/pid", encoding="ascii") as file:
            return int(file.read())

    def answer_question(self):
        os.write(self.fifo, b"yes\nyes\n")

    def _clean_up(self, failed):
        os.close(self.fifo)
        super()._clean_up(failed)


class Linked(Replaced):
    """Started through a link."""

    def start(self):
        self.folder_of_versions = self.folder + "/versions"
        os.mkdir(self.folder_of_versions)
        for name in ("hpkvd", "second"):
            shutil.copy2(os.path.realpath(os.environ["HPKVD"]), f"{self.folder_of_versions}/{name}")
        self.link_to("hpkvd")
        super().start()

    def _with_etc(self, argv):
        return [self.folder + "/link", *argv[1:]]

    def link_to(self, name):
        os.symlink(f"{self.folder_of_versions}/{name}", self.folder + "/link.new")
        os.rename(self.folder + "/link.new", self.folder + "/link")

    def runs(self):
        return os.readlink(f"/proc/{self.pid}/exe")


if __name__ == "__main__":
    unittest.main()
