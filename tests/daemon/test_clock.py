"""The wall clock jumps, or the machine sleeps: no harm is done, and what has ended meanwhile is noticed.

The daemon's clocks are shift-clock.c's, so that this machine's stay as they are."""

import contextlib
import os
import socket
import time
import unittest

from harness import DEADLINE, WITHHELD, Case, Daemon, FakeService, eventually, get, sanitized

SHIFT_CLOCK = os.path.join(os.environ["BUILDDIR"], "tests", "daemon", ".libs", "shift-clock.so")

SECOND = 1000
HOUR = 3600 * SECOND
DAY = 24 * HOUR


class Clock:
    """The clocks of a Daemon that is started with its env."""

    def __init__(self, folder):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.settimeout(DEADLINE)
        self.listener.bind(folder + "/clock")
        self.listener.listen()
        self.env = {"LD_PRELOAD": SHIFT_CLOCK, "SHIFT_CLOCK": folder + "/clock"}
        if sanitized(): # which wants to be the first library
            self.env["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
        self.ahead_ms = 0 # the wall clock
        self.stream = None

    def wait(self):
        self.stream = self.listener.accept()[0].makefile("rw")

    def _say(self, what, ms):
        self.stream.write(f"{what} {ms}\n")
        self.stream.flush()
        assert self.stream.readline() == "done\n"
        self.ahead_ms += ms

    def jump(self, ms):
        self._say("wall", ms)

    def sleep(self, ms):
        self._say("sleep", ms)

    def wall_ms(self):
        return time.time() * 1000 + self.ahead_ms

    def close(self):
        if self.stream:
            self.stream.close()
        self.listener.close()


@unittest.skipUnless(os.path.exists(SHIFT_CLOCK), "shared libraries are not built")
class ClockCase(Case):
    def begin(self, *, service=(), **settings):
        """self.service, .daemon, .clock and .c, a client; they end with the case."""
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        self.service = stack.enter_context(FakeService(tls=False, **dict(service)))
        daemon = Daemon(self.service, **settings)
        self.clock = stack.enter_context(contextlib.closing(Clock(daemon.folder)))
        daemon.env |= self.clock.env
        self.daemon = stack.enter_context(daemon)
        self.clock.wait()
        self.daemon.wait_state("connected")
        self.c = stack.enter_context(self.daemon.client())

    def lose(self):
        """The connection; it can't come back before the service listens again."""
        self.service.stop_listening()
        self.service.connections[-1].reset()
        line = self.c.answer()
        self.assertEqual(("connection", "disconnected"), (line["type"], line["state"]))

    def gap(self):
        """How long what is not known about the client's pattern lasted, in ms. It is until now."""
        line = self.c.answer()
        self.assertEqual(("connection", "connected"), (line["type"], line["state"]))
        line = self.c.answer()
        self.assertEqual("gap", line["type"])
        self.assertAlmostEqual(self.clock.wall_ms(), line["until"], delta=DEADLINE * SECOND)
        return line["until"] - line["since"]

    def assert_as_ever(self, connections):
        """On these connections, with the last one's token; changes come, and nobody was told anything else."""
        self.service.publish("k", "v")
        self.assertEqual(("k", "v"), self.c.change())
        self.c.barrier()
        status = self.daemon.status()
        upstream = status["upstream"]
        self.assertEqual(("connected", "token", 0), (upstream["state"], upstream["auth"], upstream["reconnects"]))
        self.assertTrue(0 < upstream["tokenExpiresInMs"] <= 2 * HOUR, upstream)
        self.assertTrue(0 <= upstream["sinceMs"] <= status["uptimeMs"] < 10 * DEADLINE * SECOND, status)
        self.assertEqual(connections, len(self.service.connections))


class WallClock(ClockCase):
    def jumps(self, ms):
        self.begin(service=WITHHELD)
        self.c.subscribe(key="k")
        self.service.connection(2)
        self.c.send(get("late", 1, timeoutMs=60 * SECOND))
        request = self.service.next_request()
        self.clock.jump(ms)
        self.c.barrier()
        self.c.send(get("never", 2, timeoutMs=300))
        self.service.next_request()
        self.assert_error(self.c.answer(), 504, "timeout", "unknown", 2)
        request.reply(key="late", value="v")
        self.assertEqual({"code": 200, "key": "late", "value": "v", "messageId": 1}, self.c.answer())
        self.assert_as_ever(2)

    def test_a_jump_ahead(self):
        self.jumps(DAY)

    def test_a_jump_back(self):
        self.jumps(-DAY)

    def test_a_jump_while_there_is_no_connection(self):
        """NTP has put it right: the gap lasted no longer, and no shorter, for that."""
        for ms in (DAY, -DAY):
            with self.subTest(ms=ms):
                self.begin()
                self.c.subscribe(pattern="k*")
                self.lose()
                self.clock.jump(ms)
                self.service.listen()
                self.assertTrue(0 <= self.gap() < DEADLINE * SECOND)
                self.service.publish("k", "v")
                self.assertEqual(("k", "v"), self.c.change())


class Sleep(ClockCase):
    def test_the_token_is_renewed_at_once(self):
        """Its time is nearly over, or quite; those who are subscribed notice nothing."""
        for ms in (100 * 60 * SECOND, 3 * HOUR):
            with self.subTest(ms=ms):
                self.begin(keepalive="1h")
                self.c.subscribe(key="k")
                self.clock.sleep(ms)
                self.service.connection(3)
                self.daemon.wait_status(lambda s: s["upstream"]["tokenExpiresInMs"] > HOUR, "the new token is in force")
                self.assert_as_ever(3)

    def test_a_short_sleep_changes_nothing(self):
        self.begin(keepalive="1h")
        self.c.subscribe(key="k")
        self.clock.sleep(30 * 60 * SECOND)
        self.c.barrier()
        self.assert_as_ever(2)
        self.assertEqual(1, len(self.service.token_requests))

    def test_requests_have_their_time_while_it_is_awake(self):
        self.begin(service=WITHHELD, keepalive="1h")
        self.c.send(get("k", 1, timeoutMs=60 * SECOND))
        request = self.service.next_request()
        self.clock.sleep(HOUR)
        self.c.send(get("never", 2, timeoutMs=300))
        self.assert_error(self.c.answer(), 504, "timeout", "unknown", 2) # whose time is over is looked for now
        request.reply(key="k", value="v")
        self.assertEqual({"code": 200, "key": "k", "value": "v", "messageId": 1}, self.c.answer())

    def test_the_connection_is_tried_at_once(self):
        """Nobody waits until keepalive is over."""
        self.begin(keepalive="1m")
        connection = self.service.connection()
        pings = connection.pings
        self.clock.sleep(HOUR)
        self.service.wait(lambda: connection.pings > pings, "a ping")
        self.c.barrier()
        self.assertEqual("connected", self.daemon.status()["upstream"]["state"])

    def test_a_connection_that_has_not_survived_is_left(self):
        self.begin(keepalive="5s")
        self.c.subscribe(pattern="k*")
        connection = self.service.connection(2)
        connection.pong = False
        self.clock.sleep(HOUR)
        self.service.connection(3)
        self.assertEqual(["disconnected"], [self.c.answer()["state"]])
        self.assertTrue(HOUR <= self.gap() < HOUR + DEADLINE * SECOND)

    def test_what_was_missed_began_before_it(self):
        self.begin(keepalive="1h")
        self.c.subscribe(pattern="k*")
        self.clock.sleep(30 * 60 * SECOND)
        self.lose()
        self.service.listen()
        self.assertTrue(HOUR / 2 <= self.gap() < HOUR / 2 + DEADLINE * SECOND)

    def test_what_came_after_it_was_not_missed(self):
        self.begin(keepalive="1m")
        self.c.subscribe(pattern="k*")
        connection = self.service.connection(2)
        pings = connection.pings
        self.clock.sleep(HOUR)
        self.service.wait(lambda: connection.pings > pings, "a ping")
        until = time.monotonic() + 0.1 # the clock that the daemon reads then is a coarse one
        while time.monotonic() < until:
            self.service.publish("k", "v")
            self.assertEqual(("k", "v"), self.c.change())
        self.lose()
        self.service.listen()
        self.assertTrue(0 <= self.gap() < DEADLINE * SECOND)

    def test_what_is_remembered_grows_old(self):
        self.begin(keepalive="1h", keys="k:*", mirror="m:*", max_age="10m",
                   service={"answer": lambda r: r.reply(records=[], count=0, truncated=False) if r.op == 5 else
                            r.reply(key=r.key, value="v")})
        eventually(lambda: self.daemon.status()["cache"]["mirrors"][0]["state"] == "whole", "a whole mirror")
        eventually(lambda: self.c.ask(get("k:1")).get("cached"), "a value to be remembered")
        self.assertTrue(self.c.ask(get("m:1")).get("cached"))
        connections = len(self.service.connections)
        self.clock.sleep(HOUR)
        asked = len(self.service.requests)
        # Not with the first: this machine's sleep takes no time, and the boot clock is read once in a tick of another.
        eventually(lambda: "cached" not in self.c.ask(get("k:1")), "the value to be read again")
        self.service.wait(lambda: [r for r in self.service.requests[asked:] if r.op == 5], "the mirror to be read again")
        self.assertTrue(eventually(lambda: self.c.ask(get("m:1")).get("cached"), "the mirror to be whole again"))
        self.assertEqual(connections, len(self.service.connections))

    def test_a_notification_that_sleep_has_delayed_is_not_taken(self):
        """With trust: it may be older than what was told before."""
        self.begin(keepalive="1h", keys="k:*", notification_values="trust", service={"answer": lambda r: r.reply(key=r.key, value="b")})
        eventually(lambda: self.c.ask(get("k:1")).get("cached"), "a value to be remembered")
        self.clock.sleep(HOUR)
        time.sleep(0.05) # the boot clock is read once in a tick of another
        self.service.publish("k:1", "a")
        self.service.all_told()
        self.assertEqual({"code": 200, "key": "k:1", "value": "b"}, self.c.ask(get("k:1")))

    def test_a_pause_goes_on_meanwhile(self):
        self.begin(backoff_min="24h", backoff_max="24h", keepalive="1s")
        self.service.stop_listening()
        self.service.connections[-1].reset()
        self.daemon.wait_state("backoff")
        self.service.listen()
        with self.daemon.client() as client:
            before = client.ask(get("k", timeoutMs=1))["retryAfterMs"]
            self.clock.sleep(2 * SECOND)
            self.daemon.process.wait_output(rb"the machine has slept for 2 s")
            shorter = before - client.ask(get("k", timeoutMs=1))["retryAfterMs"]
            self.assertTrue(2 * SECOND <= shorter < (2 + DEADLINE) * SECOND, shorter)
        self.clock.sleep(DAY)
        self.daemon.wait_state("connected")
