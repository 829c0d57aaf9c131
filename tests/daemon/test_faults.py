"""What a bad network does to single requests, with the sandbox behind a proxy that plays it."""

import collections
import functools
import threading
import time

from fault_proxy import FaultProxy, swallow
from harness import DEADLINE, Case, Daemon, Sandbox, get, mebibytes, put, steady
from test_backpressure import Sending, fill_for_good, lines_of


def scene(**settings):
    """Runs a case with a FaultProxy in front of a Sandbox, a Daemon that is connected to it, and a Client of that."""

    def decorate(test):
        @functools.wraps(test)
        def run(self):
            with Sandbox() as sandbox, FaultProxy(sandbox, receive_buffer=8192) as proxy, \
                    Daemon(proxy, **settings) as daemon, daemon.client() as client:
                daemon.wait_state("connected")
                test(self, proxy, daemon, client)

        return run

    return decorate


class Silence(Case):
    """The peer is dead and nobody says so: no FIN, no RST. That is noticed within keepalive and a half, also by whoever
    only sends; what is late on this machine is not the daemon's fault, but to wait for ever would be."""

    def noticed(self, proxy, daemon, client, *ways):
        stop = threading.Event()

        def go_on():
            n = 0
            while not stop.wait(0.01):
                n += 1
                client.send(put(f"k{n % 7}", "v", n))

        sender = threading.Thread(target=go_on, daemon=True)
        sender.start()
        try:
            client.line()
            proxy.lane().stall(*ways)
            began = time.monotonic()
            proxy.lane(2)
            self.assertLess(time.monotonic() - began, 0.6 + DEADLINE / 4)
            self.assertIn("no answer to a ping", daemon.status()["upstream"]["lastError"])
        finally:
            stop.set()
            sender.join(DEADLINE)

    @scene(keepalive="400ms", request_timeout="10m")
    def test_both_ways(self, proxy, daemon, client):
        self.noticed(proxy, daemon, client)

    @scene(keepalive="400ms", request_timeout="10m")
    def test_nothing_comes_but_all_is_taken(self, proxy, daemon, client):
        self.noticed(proxy, daemon, client, proxy.lane().down)

    @scene(keepalive="400ms", request_timeout="10m")
    def test_nothing_is_taken(self, proxy, daemon, client):
        self.noticed(proxy, daemon, client, proxy.lane().up)

    @scene(keepalive="400ms", request_timeout="10m")
    def test_while_more_waits_than_the_network_takes(self, proxy, daemon, client):
        proxy.lane().stall()
        client.fill(lines_of(put(f"k{n}", "x" * 60000, n) for n in range(200)))
        proxy.lane(2)


class Cut(Case):
    @scene()
    def test_what_was_not_sent_is_sent_once_and_what_was_is_not_sent_again(self, proxy, daemon, client):
        counts = collections.Counter()

        def meddle(message):
            if message.kind == "request":
                counts[message.obj["value"]] += 1

        proxy.lane().stall()
        client.send(*(put(f"k{n}", str(n), n) for n in range(400))) # more than max_in_flight
        client.barrier()
        proxy.meddle = meddle
        proxy.lane().reset()
        answers = {a["messageId"]: a for a in client.answers(400)}
        done = {str(n) for n, a in answers.items() if a["code"] == 200}
        self.assertEqual(400 - 256, len(done))
        self.assertEqual(dict.fromkeys(done, 1), dict(counts))
        for n, answer in answers.items():
            if answer["code"] != 200:
                self.assert_error(answer, 504, "outcome_unknown", "unknown", n)

    @scene()
    def test_what_was_executed_and_not_answered_is_not_executed_again(self, proxy, daemon, client):
        executed = threading.Event()

        def meddle(message):
            if message.kind == "answer":
                executed.set()
                return swallow
            return None

        proxy.meddle = meddle
        client.send({"op": "patch", "key": "k", "value": "once;", "messageId": 1})
        self.assertTrue(executed.wait(DEADLINE))
        proxy.meddle = None
        proxy.lane().cut()
        self.assert_error(client.answer(), 504, "outcome_unknown", "unknown", 1)
        self.assertEqual("once;", client.ask(get("k"))["value"])


class Late(Case):
    """Answers that come when nobody waits for them any more."""

    def hold(self, proxy):
        """Holds back the answers to all that names the key "late"; the list of them."""
        held = []

        def note(message):
            with proxy.changed:
                held.append(message)
                proxy.changed.notify_all()

        proxy.meddle = lambda m: note if m.kind == "answer" and m.request.obj.get("key") == "late" else None
        return held

    def ask_in_vain(self, client, n):
        for i in range(n):
            answer = client.ask(put("late", str(i), i, timeoutMs=300))
            self.assert_error(answer, 504, "timeout", "unknown", i)

    @scene()
    def test_they_are_for_nobody(self, proxy, daemon, client):
        held = self.hold(proxy)
        self.ask_in_vain(client, 5)
        proxy.wait(lambda: len(held) == 5, "the answers")
        for message in held:
            proxy.call(message.pass_on)
        self.assertEqual(404, client.ask(get("k"))["code"]) # comes behind them
        client.barrier()
        self.assertEqual(5, daemon.stats()["upstream_late"])

    @scene()
    def test_on_a_connection_that_has_been_replaced(self, proxy, daemon, client):
        """New requests for the key wait for them, and then go out on the new one."""
        held = self.hold(proxy)
        self.ask_in_vain(client, 5)
        with daemon.client() as other:
            other.subscribe(key="x")
            client.send(*(put("late", str(i), i) for i in range(5)))
            daemon.wait_status(lambda s: s["upstream"]["queued"] == 5, "that they wait")
            proxy.wait(lambda: len(held) == 5, "the late answers")
            for message in held[:5]:
                proxy.call(message.pass_on)
            daemon.wait_status(lambda s: daemon.stats()["upstream_late"] == 5, "that they have come")
            proxy.wait(lambda: len(held) == 10, "the answers")
            self.assertEqual([1] * 5 + [2] * 5, [proxy.lanes.index(message.lane) + 1 for message in held])
            client.barrier()
            for message in held[5:]:
                proxy.call(message.pass_on)
            self.assertEqual(list(range(5)), sorted(a["messageId"] for a in client.answers(5)))


class Slow(Case):
    @steady(0.5)
    @scene(keepalive="2s", request_timeout="10m", max_in_flight=65535, max_pipeline=100000)
    def test_a_slow_network_makes_the_client_wait_and_is_not_given_up(self, proxy, daemon, client):
        proxy.lane().up.bytes_per_s = 64 << 10
        data = lines_of(put(f"k{n}", "x" * 3000, n) for n in range(8000))
        sent = fill_for_good(client, daemon, data)
        self.assertLess(sent, len(data) * 3 // 4)
        self.assertLess(daemon.process.resident_bytes(), mebibytes(100))
        answers = client.answers(100) # four seconds and more of it
        proxy.lane().up.bytes_per_s = 0
        with Sending(client, data[sent:]):
            answers += client.answers(8000 - 100)
        self.assertEqual({200}, {a["code"] for a in answers})
        self.assertEqual(0, daemon.status()["upstream"]["reconnects"])

    @steady(1)
    @scene(keepalive="10s", request_timeout="10m", max_in_flight=65535)
    def test_a_ping_is_answered_before_what_waits(self, proxy, daemon, client):
        """A handover needs that of the old connection in half of keepalive. What waits takes three times as long."""
        proxy.lane().up.bytes_per_s = 128 << 10
        with Sending(client, lines_of(put(f"k{n}", "x" * 3000, n) for n in range(700))):
            answers = client.answers(5)
            with daemon.client() as other:
                other.subscribe(key="k", timeoutMs=60000)
            proxy.lane().up.bytes_per_s = 0
            answers += client.answers(695)
        self.assertEqual({200}, {a["code"] for a in answers})
        self.assertEqual(0, daemon.status()["upstream"]["reconnects"])
