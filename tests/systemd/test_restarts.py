"""Restarts on a real systemd (machine.py) while clients are connected and others connect: a pause to each, and no error.

The clients are hpkv watch, a writer that uses libhpkv, and programs that connect anew for each request, as socat does in a
loop. They run outside of the machine, on its socket. Environment: HPKVD_TEST_RESTARTS, how often each way is taken."""

import contextlib
import json
import os
import re
import sys
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "cli"))
from cli import Driver, Run # noqa: E402 (the path comes first)
import test_units # noqa: E402
from harness import DEADLINE, Client, Sandbox, eventually # noqa: E402
from test_units import SOCKET, MachineCase, client, journal, main_pid, setUpModule, show # noqa: E402,F401 (setUpModule is run by unittest)

TIMES = int(os.environ.get("HPKVD_TEST_RESTARTS", 3))
EVERY_S = 0.005 # a write of the library's


def run(*words):
    return test_units.machine.run(*words)


class Loop:
    """A client that connects, asks one thing, and ends, again and again: its number of errors is 0."""

    def __init__(self, path, key):
        self.path, self.key = path, key
        self.done, self.faults, self.longest = 0, [], 0.0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self.over.is_set():
            begin = time.monotonic()
            try:
                self._ask()
            except (OSError, AssertionError, ValueError) as fault:
                self.faults.append(repr(fault))
            self.longest = max(self.longest, time.monotonic() - begin)
            time.sleep(EVERY_S)

    def _ask(self):
        """A request that was not executed is repeated, as the protocol says. An end without an answer came before the
        request was read: then it may be repeated as well."""
        while True:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError), Client(self.path) as c:
                c.send({"op": "increment", "key": self.key, "value": 1})
                answer = self._line(c)
                if answer and answer["code"] == 200:
                    self.done += 1
                    return
                if answer and answer.get("executed") != "no":
                    raise AssertionError(answer)

    @staticmethod
    def _line(c):
        while b"\n" not in c.received:
            if not (chunk := c.sock.recv(65536)):
                assert not c.received, f"half a line: {bytes(c.received)}"
                return None
            c.received += chunk
        return json.loads(c.received)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *ignored):
        self.over.set()
        self.thread.join(DEADLINE)


class Restarts(MachineCase):
    def setUp(self):
        self.sandbox = self.enterContext(Sandbox())
        test_units.configure(url=self.sandbox.url, level="notice")
        self.addCleanup(test_units.configure)
        self.stop()
        test_units.machine.status("systemctl", "reset-failed", "hpkvd.service", "hpkvd.socket")
        run("systemctl", "start", "hpkvd.socket")
        self.addCleanup(self.stop)
        self.path = test_units.machine.path(SOCKET)
        with client() as c:
            self.assert_connected(c)
            for key in ("loop", "writer"):
                c.ask({"op": "delete", "key": key})

    @staticmethod
    def stop():
        run("systemctl", "stop", "hpkvd.service", "hpkvd.socket")

    def through(self, restart, *, crash=False, times=TIMES):
        """All clients, while it is restarted so many times; each sees the end of it."""
        with Run(self.path, "watch", "writer", "--json") as watch, Driver(self.path) as driver, Loop(self.path, "loop") as loop:
            driver.tell("timeout", str(DEADLINE * 1000))
            sent, over = [], threading.Event()

            def write():
                while not over.wait(EVERY_S):
                    driver.tell("send", "w", "increment", "writer")
                    sent.append(True)

            writer = threading.Thread(target=write, daemon=True)
            writer.start()
            try:
                watch.wait_output(rb'"notification"')
                for number in range(times):
                    done = loop.done
                    restart()
                    eventually(lambda: loop.done > done + 1, "loop goes on") # noqa: B023
                    watch.wait_output(rb'(?s)("state":"disconnected".*"state":"connected".*){%d}' % (number + 1))
            finally:
                over.set()
                writer.join(DEADLINE)
            results = [driver.answer()[1]["result"] for _ in sent]
            if crash:
                self.assertLessEqual(set(results), {"ok", "unknown"})
            else:
                self.assertEqual({"ok"}, set(results))
            self.finish(watch, loop, results, crash, times)

    def finish(self, watch, loop, results, crash, times):
        loop.__exit__()
        written, looped = self.number_of("writer"), self.number_of("loop")
        self.assertLessEqual(results.count("ok"), written)
        self.assertLessEqual(written, len(results))
        self.assertEqual([], loop.faults)
        if not crash: # of a crash a client without a library can't know
            self.assertEqual(loop.done, looped)
        watch.wait_output(rb'"value":"?%d"?[,}]' % written)
        lines = [json.loads(line) for line in watch.output.splitlines()]
        states = [line["state"] for line in lines if line["type"] == "connection"]
        self.assertEqual(["disconnected", "connected"] * (len(states) // 2), states)
        self.assertIsNone(watch.process.poll())
        print(f"{self.id().rpartition('.')[2]}: {len(results)} writes, {loop.done} connections; longest {loop.longest:.3f} s",
              file=sys.stderr, flush=True)

    def test_systemctl_restart(self):
        self.through(lambda: run("systemctl", "restart", "hpkvd.service"), times=TIMES + 4) # more than systemd allows by default
        self.assertEqual("0", show("NRestarts"))

    def test_sigusr2(self):
        """What the unit forbids does not forbid this. The process stays, and so does its manager's view of it."""
        pid = main_pid()

        def restart():
            before = self.starts()
            run("systemctl", "kill", "--signal=USR2", "hpkvd.service")
            eventually(lambda: self.starts() > before and show("ActiveState") == "active", "the next program")

        self.through(restart)
        self.assertEqual((pid, "active", "running"), (main_pid(), show("ActiveState"), show("SubState")))
        self.assertEqual("0", show("NRestarts"))

    @staticmethod
    def starts():
        return sum("listens on" in str(text) for text, in journal("MESSAGE"))

    def test_a_crash(self):
        test_units.machine.write("/run/systemd/system/hpkvd.service.d/soon.conf", "[Service]\nRestartSec=10ms\n")
        run("systemctl", "daemon-reload")
        self.addCleanup(run, "systemctl", "daemon-reload")
        self.addCleanup(os.unlink, test_units.machine.path("/run/systemd/system/hpkvd.service.d/soon.conf"))

        def restart():
            pid = main_pid()
            run("systemctl", "kill", "--signal=KILL", "hpkvd.service")
            eventually(lambda: main_pid() not in (0, pid) and show("ActiveState") == "active", "the next one")

        self.through(restart, crash=True)

    def test_a_watchdog(self):
        test_units.machine.write("/run/systemd/system/hpkvd.service.d/dog.conf", "[Service]\nWatchdogSec=3s\nRestartSec=10ms\n")
        run("systemctl", "daemon-reload")
        run("systemctl", "restart", "hpkvd.service")
        self.addCleanup(run, "systemctl", "daemon-reload")
        self.addCleanup(os.unlink, test_units.machine.path("/run/systemd/system/hpkvd.service.d/dog.conf"))

        def restart():
            pid = main_pid()
            run("kill", "-STOP", str(pid))
            eventually(lambda: main_pid() not in (0, pid) and show("ActiveState") == "active", "the next one")

        self.through(restart, crash=True, times=1)

    def test_stop_and_start(self):
        """Both units: the socket is gone for a while, which only clients that heal themselves survive."""
        with Run(self.path, "watch", "k", "--json") as watch, Driver(self.path) as driver:
            driver.tell("timeout", str(DEADLINE * 1000))
            with client() as c:
                eventually(lambda: c.ask({"op": "status"})["subscriptions"]["live"] == 1, "the watch is live")
            self.assertEqual("ok", driver.do("set", "k", "before")[0])
            watch.wait_output(rb"before")
            self.stop()
            watch.wait_output(rb'"disconnected"')
            driver.tell("send", "w", "set", "k", "after")
            run("systemctl", "start", "hpkvd.socket", "hpkvd.service")
            self.assertEqual("ok", driver.answer()[1]["result"])
            watch.wait_output(rb"after")
            self.assertIsNone(watch.process.poll())

    def test_another_version(self):
        """As a package upgrade does it: another file at the path, then try-restart."""
        program = re.search(r"^ExecStart=(\S+)", test_units.unit_text(), re.M)[1]
        there = test_units.machine.path(program)
        former = os.stat(there).st_ino

        def upgrade():
            test_units.machine.install(there, program + ".new", 0o755)
            os.rename(there + ".new", there)
            run("systemctl", "try-restart", "hpkvd.service")

        self.through(upgrade)
        self.assertNotEqual(former, os.stat(there).st_ino)
        self.assertEqual(os.stat(there).st_ino, os.stat(test_units.machine.path(f"/proc/{main_pid()}/exe")).st_ino)


if __name__ == "__main__":
    unittest.main()
