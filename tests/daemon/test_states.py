"""The upstream's states: each change is logged once with its cause and how long the state lasted; pauses between attempts."""

import re
import signal
import time
from email.utils import formatdate

from harness import KEY, Case, Daemon, FakeService, eventually, free_port, get, scene

CHANGE = re.compile(r"hpkvd: (\w+): upstream: (\w+) -> (\w+) after (\d+) ms: (.+)")


def changes(daemon):
    """Level, from, to, ms, cause of each change that was logged."""
    whole = daemon.log().rpartition(b"\n")[0].decode()
    return [CHANGE.fullmatch(line).groups() for line in whole.split("\n") if "upstream: " in line and " -> " in line]


def wait_change(daemon, before, after, n=1):
    """The nth change from one to the other. What was logged may still be on its way to us."""
    found = lambda: [c for c in changes(daemon) if c[1:3] == (before, after)][n - 1:]
    return eventually(found, f"{before} -> {after} in the log")[0]


def pauses(daemon):
    """How long each pause was, in ms."""
    return [int(ms) for _, before, _, ms, _ in changes(daemon) if before in ("backoff", "unauthorized")]


class Log(Case):
    def test_each_change_once_with_its_cause_and_duration(self):
        with FakeService() as service:
            service.stop_listening()
            with Daemon(service, level="notice") as daemon:
                daemon.wait_state("backoff")
                service.listen()
                daemon.wait_state("connected")
                service.upgrade = lambda event: (401, {}, b"who is " + event.target.encode())
                service.connections[0].close(1001)
                daemon.wait_state("unauthorized")
                service.upgrade = None
                daemon.wait_state("connected")
                wait_change(daemon, "connecting", "connected", 2)
                state = "connecting"
                for level, before, after, ms, cause in changes(daemon):
                    self.assertEqual(state, before)
                    self.assertNotEqual(state, after)
                    self.assertEqual("error" if after == "unauthorized" else "notice", level)
                    self.assertTrue(cause)
                    state = after
                self.assertEqual("connected", state)
                causes = {(before, after): cause for _, before, after, _, cause in changes(daemon)}
                self.assertIn("refused", causes["connecting", "backoff"])
                self.assertIn("1001", causes["connected", "backoff"])
                self.assertIn("401", causes["connecting", "unauthorized"])
                self.assertNotIn(KEY.encode(), daemon.log())
                # Nothing else is said of them.
                self.assertEqual(len(changes(daemon)), daemon.log().count(b"upstream: "))

    def test_the_duration_is_that_of_the_state(self):
        with FakeService() as service, Daemon(service) as daemon:
            daemon.wait_state("connected")
            daemon.wait_status(lambda s: s["upstream"]["sinceMs"] >= 300, "some time")
            service.connections[0].reset()
            self.assertGreaterEqual(int(wait_change(daemon, "connected", "backoff")[3]), 300)


class Unauthorized(Case):
    def refused_with(self, named, **options):
        with FakeService(upgrade=lambda event: (403, {}, b"no")) as service, Daemon(service, **options) as daemon:
            upstream = daemon.wait_state("unauthorized")["upstream"]
            self.assertNotIn(KEY, upstream["lastError"])
            self.assertIn(named(daemon), wait_change(daemon, "connecting", "unauthorized")[4])
            self.assertNotIn(KEY.encode(), daemon.log())

    def test_the_keys_file_is_named(self):
        self.refused_with(lambda daemon: daemon.folder + "/api-key:")

    def test_or_the_variable(self):
        self.refused_with(lambda daemon: "HPKV_API_KEY:", key_from="environment")

    def test_the_key_is_tried_again_once_in_backoff_max(self):
        with FakeService(upgrade=lambda event: (401, {}, b"no")) as service, \
                Daemon(service, backoff_min="1ms", backoff_max="200ms") as daemon:
            daemon.wait_status(lambda s: s["upstream"]["state"] == "unauthorized" and s["upstream"]["waitMs"] > 0, "a pause")
            service.wait(lambda: len(service.upgrades) >= 4, "attempts")
            # Without jitter: it is not the many daemons that lost the service at once that come back.
            self.assertGreaterEqual(min(eventually(lambda: pauses(daemon), "a pause")), 150) # a loaded loop counts from when it looked at the clock


class Backoff(Case):
    def test_pauses_are_anything_up_to_the_limit(self):
        """Full jitter: half of them are shorter than half of the limit. (2^-40 that they are not.)"""
        with Daemon(f"https://localhost:{free_port()}", backoff_min="60ms", backoff_max="60ms") as daemon:
            daemon.wait_status(lambda s: len(pauses(daemon)) >= 40, "forty pauses")
            self.assertLess(min(pauses(daemon)), 30)
            self.assertGreaterEqual(max(pauses(daemon)), 30)

    def test_they_are_short_again_after_a_stable_connection(self):
        """Of five that start anew each is 1 ms at most, and what the machine takes; of five that do not, 400 ms on average."""
        with FakeService() as service, Daemon(service, backoff_min="1ms", backoff_max="800ms") as daemon:
            for n in range(1, 12): # up to the limit
                service.connection(n).reset()
            stable = []
            for n in range(12, 17):
                connection = service.connection(n)
                daemon.wait_status(lambda s: s["upstream"]["state"] == "connected" and s["upstream"]["sinceMs"] >= 800,
                                   "a stable connection")
                before = len(pauses(daemon))
                connection.reset()
                stable += eventually(lambda: pauses(daemon)[before:], "a pause")[:1]
            self.assertLess(sorted(stable)[2], 100, stable)


class RetryAfter(Case):
    """What the service asks for is obeyed, within limits."""

    def wait_after(self, status, text):
        with FakeService(upgrade=lambda event: (status, {"Retry-After": text}, b"later")) as service, \
                Daemon(service, backoff_min="1ms", backoff_max="2ms") as daemon, daemon.client() as client:
            wait = daemon.wait_state("backoff")["upstream"]["waitMs"]
            answer = client.ask(get("k", timeoutMs=20))
            self.assert_error(answer, 503, "upstream_down", "no")
            self.assertLessEqual(answer["retryAfterMs"], wait)
            self.assertEqual(1, len(service.upgrades))
            return wait

    def test_in_seconds(self):
        for status in (429, 503):
            with self.subTest(status):
                self.assertIn(self.wait_after(status, "60"), range(30000, 60001))

    def test_until_a_date(self):
        for status in (429, 503):
            with self.subTest(status):
                self.assertIn(self.wait_after(status, formatdate(time.time() + 60, usegmt=True)), range(30000, 60001))

    def test_ten_minutes_at_most(self):
        for text in ("86400", "99999999999999999999", formatdate(time.time() + 10 ** 8, usegmt=True)):
            with self.subTest(text):
                self.assertIn(self.wait_after(503, text), range(500000, 600001))

    @scene(connected=False, service={"upgrade": lambda event: (503, {"Retry-After": "-7"}, b"later")})
    def test_what_makes_no_sense_is_no_wait(self, service, daemon, client):
        for text in ("-7", "soon", "", "1e9", formatdate(time.time() - 1000, usegmt=True), "x" * 1000):
            service.upgrade = lambda event, text=text: (503, {"Retry-After": text}, b"later")
            n = len(service.upgrades)
            service.wait(lambda: len(service.upgrades) >= n + 3, f"attempts after {text[:20]}")

    @scene()
    def test_of_the_token_endpoint(self, service, daemon, client):
        """Requests go on meanwhile; subscriptions wait for it."""
        service.mint = lambda request: (429, {"Retry-After": formatdate(time.time() + 60, usegmt=True)}, b"later")
        client.send({"op": "subscribe", "key": "k", "messageId": 1, "timeoutMs": 600000})
        service.wait_token_requests(1)
        daemon.wait_status(lambda s: s["upstream"]["tokenError"], "the refusal")
        client.send({"op": "subscribe", "key": "l", "messageId": 2, "timeoutMs": 100})
        self.assertEqual(2, client.answer()["messageId"])
        self.assertEqual(200, client.ask(get("k"))["code"])
        self.assertEqual(1, len(service.token_requests))

    @scene(service={"mint": lambda request: (503, {"Retry-After": "60"}, b"later")})
    def test_of_the_token_endpoint_whatever_becomes_of_the_connection(self, service, daemon, client):
        client.send({"op": "subscribe", "key": "k", "messageId": 1, "timeoutMs": 600000})
        daemon.wait_status(lambda s: s["upstream"]["tokenError"], "the refusal")
        for n in range(1, 4):
            service.connection(n).reset()
            service.connection(n + 1)
            self.assertEqual(200, client.ask(get("k"))["code"])
        self.assertEqual(1, len(service.token_requests))

    def test_of_the_token_endpoint_without_a_connection(self):
        """Nor is a key that was refused a token tried again sooner than backoff_max for that."""
        for answer, more in ((429, {"Retry-After": "60"}), {}), ((401, {}), {"backoff_max": "1m"}):
            with self.subTest(answer[0]), \
                    FakeService(mint=lambda request, a=answer: (*a, b""), upgrade=lambda event: (500, {}, b"")) as service:
                service.stop_listening()
                with Daemon(service, backoff_min="1ms", **more) as daemon, daemon.client() as client:
                    client.send({"op": "subscribe", "key": "k", "messageId": 1, "timeoutMs": 600000})
                    client.barrier()
                    service.listen()
                    service.wait_token_requests(1)
                    n = len(service.upgrades)
                    service.wait(lambda: len(service.upgrades) >= n + 3, "attempts to connect")
                    self.assertEqual(1, len(service.token_requests))
                    daemon.process.signal(signal.SIGHUP) # whoever has changed something wants to see what comes of it
                    service.wait_token_requests(2)
                    service.upgrade = None
                    daemon.wait_state("connected")
