"""The answers to status and stats, in the form that programs rely on."""

import os
import re
import time

from harness import WITHHELD, Case, Daemon, FakeService, eventually, free_port, get, put, scene

NONE = type(None)

STATUS = {
    "code": int, "version": str, "protocol": int, "pid": int, "uptimeMs": int, "clients": int,
    "upstream": {
        "state": str, "auth": str, "url": str, "sinceMs": int, "reconnects": int, "lastError": (str, NONE),
        "tokenExpiresInMs": (int, NONE), "inFlight": int, "queued": int, "pace": (int, float, NONE),
        "waitMs": (int, NONE), "handovers": int, "tokens": int, "nextHandoverMs": (int, NONE), "tokenError": (str, NONE),
    },
    "subscriptions": {
        "keys": int, "patterns": int, "total": int, "waiting": int, "leftOut": int, "rereading": int,
    },
    "limits": {
        "maxLine": int, "maxPipeline": int, "maxClients": int, "maxInFlight": int, "outputSoft": int, "outputHard": int,
        "maxQueued": int, "maxClientQueued": int, "maxSubscriptions": int, "maxClientSubscriptions": int, "maxTopics": int,
        "subscriptionMemory": int, "maxTokenRequests": int, "maxMessage": int, "maxHeld": int, "requestTimeoutMs": int,
    },
}


class Status(Case):
    def assert_shape(self, shape, value, path="status"):
        if isinstance(shape, dict):
            self.assertIsInstance(value, dict, path)
            self.assertEqual(set(), set(shape) - set(value), f"missing in {path}")
            for name, inner in shape.items():
                self.assert_shape(inner, value[name], f"{path}.{name}")
        else:
            self.assertIsInstance(value, shape, path)
            self.assertNotIsInstance(value, bool, path)

    @scene()
    def test_connected(self, service, daemon, client):
        before = client.ask({"op": "status"})
        status = client.ask({"op": "status", "messageId": "s"})
        self.assert_shape(STATUS, status)
        self.assertEqual(("s", 1, daemon.pid), (status["messageId"], status["protocol"], status["pid"]))
        self.assertGreaterEqual(status["uptimeMs"], before["uptimeMs"])
        self.assertRegex(status["version"], r"^\d+\.\d+")
        upstream = status["upstream"]
        self.assertLessEqual(upstream.pop("sinceMs"), status["uptimeMs"])
        self.assertEqual({"state": "connected", "auth": "apiKey", "url": service.url, "reconnects": 0, "lastError": None,
                          "tokenExpiresInMs": None, "tokenError": None, "inFlight": 0, "queued": 0, "pace": None,
                          "waitMs": 0, "handovers": 0, "tokens": 0, "nextHandoverMs": None}, upstream)
        self.assertEqual({"keys": 0, "patterns": 0, "total": 0, "waiting": 0, "leftOut": 0, "rereading": 0,
                          "live": False}, status["subscriptions"])

    def test_not_connected(self):
        with Daemon(f"https://localhost:{free_port()}") as daemon:
            status = daemon.wait_status(lambda s: s["upstream"]["lastError"], "an error")
            self.assert_shape(STATUS, status)
            self.assertIn(status["upstream"]["state"], ("connecting", "backoff"))
            self.assertEqual(0, status["upstream"]["reconnects"])

    @scene(max_line="2K", max_pipeline=7, max_clients=9, max_in_flight=11, output_soft="5K", output_hard="6K",
           request_timeout="13s", max_queued="7M", max_client_queued="8K", max_subscriptions=14, max_client_subscriptions=15,
           max_topics=16, subscription_memory="9M", max_token_requests=17, max_message="1M", max_held="2M", max_frame="3K")
    def test_limits_are_those_of_the_configuration(self, service, daemon, client):
        self.assertEqual({"maxLine": 2048, "maxPipeline": 7, "maxClients": 9, "maxInFlight": 11, "outputSoft": 5120,
                          "outputHard": 6144, "requestTimeoutMs": 13000, "maxQueued": 7 << 20, "maxClientQueued": 8192,
                          "maxSubscriptions": 14, "maxClientSubscriptions": 15, "maxTopics": 16, "subscriptionMemory": 9 << 20,
                          "maxTokenRequests": 17, "maxFrame": 3072, "maxMessage": 1 << 20, "maxHeld": 2 << 20}, client.ask({"op": "status"})["limits"])

    @scene(service=WITHHELD, max_in_flight=2)
    def test_counts(self, service, daemon, client):
        with daemon.client() as other:
            other.barrier()
            client.send(*(get("k", i) for i in range(5)))
            requests = service.next_requests(2)
            status = client.ask({"op": "status"})
            self.assertEqual((2, 3), (status["upstream"]["inFlight"], status["upstream"]["queued"]))
            self.assertGreaterEqual(status["clients"], 2)
            for request in requests:
                request.reply()
            for request in service.next_requests(2):
                request.reply()
            service.next_request().reply()
            client.answers(5)
        upstream = daemon.wait_status(lambda s: s["clients"] == 2, "it has left")["upstream"]
        self.assertEqual((0, 0), (upstream["inFlight"], upstream["queued"]))


class Top(Case):
    @scene(service=WITHHELD)
    def test_the_busiest_clients_for_whoever_asks(self, service, daemon, client):
        self.assertNotIn("top", client.ask({"op": "status"}))
        self.assertNotIn("top", client.ask({"op": "status", "top": False}))
        self.assert_error(client.ask({"op": "status", "top": 1}), 400, "bad_request", "no")
        with daemon.client() as busy:
            busy.send(*({"op": "ping"} for _ in range(50)), "nonsense", get("k"), get("k"))
            busy.answers(51)
            service.next_requests(2)
            top = client.ask({"op": "status", "top": True, "messageId": 1})["top"]
            self.assertEqual({"pid": os.getpid(), "uid": os.getuid(), "door": "lines", "tcp": False, "requests": 53, "unanswered": 2, "subscriptions": 0,
                              "outputBytes": 0}, {name: top[0][name] for name in top[0] if name != "id"})
            self.assertEqual(4, top[1]["requests"])
            self.assertNotEqual(top[0]["id"], top[1]["id"])

    @scene()
    def test_ten_at_most_and_the_busy_ones_of_late_first(self, service, daemon, client):
        others = [daemon.client() for _ in range(15)]
        for n, other in enumerate(others):
            other.send(*({"op": "ping"} for _ in range(100 - n)))
            other.answers(100 - n)
        top = lambda: [c["requests"] for c in client.ask({"op": "status", "top": True})["top"]]
        self.assertEqual([100 - n for n in range(10)], top())
        others[14].send(*({"op": "ping"} for _ in range(5)))
        others[14].answers(5)
        self.assertEqual(91, eventually(lambda: (t := top())[0] == 91 and t, "the last one comes first")[0])
        for other in others:
            other.close()
        eventually(lambda: len(top()) == 1, "they have left")


class Stats(Case):
    NAMES = """clients_accepted clients_refused clients_dropped_slow accept_pauses client_bytes_in client_bytes_out
        requests requests_refused requests_sent requests_resent requests_answered requests_timeout requests_unsent
        requests_outcome_unknown requests_queue_full requests_abandoned upstream_connects
        upstream_disconnects""".split()

    @scene()
    def test_a_flat_object_of_numbers(self, service, daemon, client):
        answer = client.ask({"op": "stats", "messageId": 1})
        self.assertEqual({"code", "stats", "messageId"}, set(answer))
        for name, value in answer["stats"].items():
            self.assertTrue(re.fullmatch(r'(hpkvd|process)_[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})?', name), name)
            self.assertIsInstance(value, int if name.startswith("hpkvd_") and "_total" in name else (int, float))
            self.assertGreaterEqual(value, 0)
        self.assertLessEqual({f"hpkvd_{name}_total" for name in self.NAMES}, set(answer["stats"]))

    @scene()
    def test_they_count(self, service, daemon, client):
        counters = lambda: client.ask({"op": "stats"})["stats"]
        before = counters()
        client.send(get("k"), {"op": "ping"}, "nonsense", {"op": "get"}, put("k", "v"))
        client.answers(5)
        after = counters()
        grown = {name.removeprefix("hpkvd_").removesuffix("_total"): after[name] - before[name]
                 for name in after if re.fullmatch(r"hpkvd_\w+_total", name) and after[name] != before[name]}
        for name in ("client_bytes_in", "client_bytes_out", "upstream_bytes_in", "upstream_bytes_out"):
            self.assertGreater(grown.pop(name), 0)
        self.assertEqual({"requests": 6, "requests_refused": 2, "requests_sent": 2, "requests_answered": 2,
                          "upstream_messages_in": 2}, grown)


class Idle(Case):
    def test_idle_means_idle(self):
        """At most one wake-up a second, connected or not, however many clients are there."""
        with FakeService() as service, Daemon(service) as connected, \
                Daemon(f"https://localhost:{free_port()}", backoff_min="1h", backoff_max="1h") as alone:
            connected.wait_state("connected")
            alone.wait_state("backoff")
            clients = [connected.client() for _ in range(50)]
            for client in clients:
                client.send(get("k"))
                client.answer()
            seconds = 8
            daemons = (connected, alone)
            before = [(d.process.wakeups(), d.process.cpu_seconds()) for d in daemons]
            time.sleep(seconds) # the time that is measured
            for daemon, (wakeups, cpu) in zip(daemons, before):
                self.assertLessEqual(daemon.process.wakeups() - wakeups, seconds + 5)
                self.assertLess(daemon.process.cpu_seconds() - cpu, 0.5)
            for client in clients:
                client.close()
