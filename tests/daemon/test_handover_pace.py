"""New subscriptions cost tokens and connections of the service, so handovers keep a distance from each other, and coming
back to what was just left costs nothing."""

import contextlib
import itertools
import time

from harness import Case, Daemon, FakeService, steady


class Stopwatch:
    """Counts the tokens that are asked for meanwhile."""

    def __init__(self, service):
        self.service, self.began, self.before = service, time.monotonic(), len(service.token_requests)

    def seconds(self):
        return time.monotonic() - self.began

    def tokens(self):
        return len(self.service.token_requests) - self.before


class HandoverPace(Case):
    def test_a_client_that_alternates_costs_few_tokens(self):
        with FakeService() as service, Daemon(service) as daemon, daemon.client() as client:
            daemon.wait_state("connected")
            watch = Stopwatch(service)
            longest = 0
            for n in itertools.count():
                asked = watch.seconds()
                if asked > 5:
                    break
                client.subscribe(key=f"k{n}", timeoutMs=10000) # each in its time
                longest = max(longest, watch.seconds() - asked)
                client.unsubscribe(key=f"k{n}")
            # Its last subscribe may have taken it beyond the five seconds.
            self.assertLessEqual(watch.tokens(), 20)
            self.assertEqual(n, watch.tokens())
            self.assertLess(longest, 9)

    @steady(0.5)
    def test_a_hundred_within_a_second_share_few_tokens(self):
        with FakeService() as service, Daemon(service) as daemon, contextlib.ExitStack() as stack:
            clients = [stack.enter_context(daemon.client()) for _ in range(100)]
            daemon.wait_state("connected")
            watch = Stopwatch(service)
            for n, client in enumerate(clients):
                client.send({"op": "subscribe", "key": f"k{n}"})
                time.sleep(max(0, (n + 1) / 100 - watch.seconds()))
            for client in clients:
                self.assertEqual(200, client.answer()["code"])
            self.assertLessEqual(watch.tokens(), 12)
            self.assertEqual({f"k{n}" for n in range(100)}, set(service.token_requests[-1].list))

    def test_coming_back_to_what_was_just_left_is_free(self):
        with FakeService() as service, Daemon(service) as daemon, daemon.client() as client:
            daemon.wait_state("connected")
            watch = Stopwatch(service)
            for n in range(26):
                name = "ab"[n % 2]
                client.subscribe(key=name)
                service.publish(name, str(n))
                self.assertEqual((name, str(n)), client.change())
                client.unsubscribe(key=name)
            self.assertLessEqual(watch.tokens(), 5)

    def test_a_client_that_comes_back_finds_its_subscriptions_covered(self):
        with FakeService() as service, Daemon(service) as daemon, daemon.client() as other:
            with daemon.client() as client:
                client.subscribe(keys=["a", "b"], pattern="c:*")
            daemon.wait_status(lambda s: s["subscriptions"]["total"] == 0, "the client has left")
            other.subscribe(key="other") # another list is made meanwhile
            before = len(service.token_requests)
            with daemon.client() as client:
                client.subscribe(keys=["b", "a"], pattern="c:*")
                service.publish("c:1", "v")
                self.assertEqual(("c:1", "v"), client.change())
            self.assertEqual(before, len(service.token_requests))

    def test_what_was_left_does_not_hold_up_a_list_that_is_refused(self):
        """The service takes a name no longer that nobody is subscribed to any more."""
        refused = []

        def mint(request):
            if set(refused) & set(request.list):
                return 400, {}, b'{"error":"not this one"}'
            return f"token{request.number}"

        with FakeService(mint=mint) as service, Daemon(service) as daemon, daemon.client() as client:
            client.subscribe(key="old")
            client.unsubscribe(key="old")
            refused.append("old")
            client.subscribe(key="new")
            self.assertEqual(["new"], service.token_requests[-1].list)

    def test_tokens_count_against_the_rate_limit(self):
        sent = []

        def answer(request):
            sent.append(("request", time.monotonic()))
            return request.reply(value="v")

        def mint(request):
            sent.append(("token", time.monotonic()))
            return f"token{request.number}"

        rate, n, names = 10, 10, 4
        with FakeService(answer=answer, mint=mint) as service, Daemon(service, rate_limit=rate) as daemon, daemon.client() as client:
            daemon.wait_state("connected")
            began = time.monotonic()
            with daemon.client() as other:
                with daemon.still(): # so the requests have not all been sent when there is a subscriber
                    client.send(*({"op": "get", "key": "k", "messageId": i} for i in range(n)))
                    other.send({"op": "subscribe", "key": "k0"})
                self.assertEqual(200, other.answer()["code"])
                for name in range(1, names):
                    other.subscribe(key=f"k{name}")
            client.answers(n)
        kinds, times = zip(*sent)
        self.assertIn("token", kinds[:n]) # it has its turn among the requests
        # One may go at once; each of the others needs its part of a second.
        self.assertEqual(n + names, len(sent))
        self.assertGreater(max(times) - began, (n + names - 1) / rate * 0.9)

    def test_tokens_for_clients_count_against_the_rate_limit(self):
        import os

        access = {"all": {"user": str(os.getuid()), "read": "*", "write": "*", "token": "any"}}
        rate, n = 10, 8
        with FakeService() as service, Daemon(service, rate_limit=rate, access=access) as daemon, daemon.client() as client:
            daemon.wait_state("connected")
            began = time.monotonic()
            client.send(*({"op": "token", "subscribeKeys": ["a"], "messageId": i} for i in range(n)))
            self.assertEqual({200}, {answer["code"] for answer in client.answers(n)})
            self.assertGreater(time.monotonic() - began, (n - 1) / rate * 0.9)

    def test_status_and_stats_tell_handovers_and_tokens(self):
        with FakeService() as service, Daemon(service, subscribe_batch="10s") as daemon, daemon.client() as client:
            status = daemon.wait_state("connected")["upstream"]
            self.assertEqual((0, 0, None), (status["handovers"], status["tokens"], status["nextHandoverMs"]))
            client.send({"op": "subscribe", "key": "k"})
            due = daemon.wait_status(lambda s: s["upstream"]["nextHandoverMs"] is not None)["upstream"]["nextHandoverMs"]
            self.assertLessEqual(due, 10000)
            daemon.reload(subscribe_batch="10ms")
            self.assertEqual(200, client.answer()["code"])
            status = daemon.wait_status(lambda s: s["upstream"]["handovers"] == 1)["upstream"]
            self.assertEqual((1, None), (status["tokens"], status["nextHandoverMs"]))
            stats = daemon.stats()
            self.assertEqual((1, 1), (stats["upstream_handovers"], stats["tokens_minted"]))

    def test_a_subscribe_that_can_not_wait_is_told_when_it_could_be_live(self):
        with FakeService() as service, Daemon(service, subscribe_batch="10s") as daemon, daemon.client() as client:
            daemon.wait_state("connected")
            answer = client.ask({"op": "subscribe", "key": "k", "timeoutMs": 100})
            self.assert_error(answer, 503, "upstream_down", "no")
            self.assertIn("handover", answer["error"])
            self.assertIn(answer["retryAfterMs"], range(1, 10001))


if __name__ == "__main__":
    import unittest

    unittest.main()
