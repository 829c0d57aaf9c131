"""The service's own rate limit: what it refuses was not executed, and is tried again within its time."""

import collections

from harness import Case, Daemon, FakeService, Sandbox, eventually
from test_access import ME


class Refusals:
    """Answers 429 to the first requests of each key, then does as asked."""

    def __init__(self, times):
        self.times = times
        self.asked = collections.Counter()

    def __call__(self, request):
        self.asked[request.key] += 1
        if self.asked[request.key] <= self.times:
            return request.reply_raw('{"code":429,"error":"Rate limit exceeded","messageId":%d}' % request.id)
        return request.reply(value=f"after {self.asked[request.key]}")


class Refused(Case):
    def test_it_is_tried_again_and_the_client_sees_only_the_outcome(self):
        refusals = Refusals(1)
        with FakeService(answer=refusals) as service, Daemon(service) as daemon, daemon.client() as client:
            daemon.wait_state("connected")
            for n, op in enumerate(("get", "set", "increment")):
                request = {"op": op, "key": op, "messageId": n}
                answer = client.ask(request | ({"value": "v"} if op in ("set", "patch") else {}))
                self.assertEqual((200, n, "after 2"), (answer["code"], answer["messageId"], answer["value"]))
            self.assertEqual({2}, set(refusals.asked.values()))
            self.assertEqual(3, daemon.stats()["upstream_refused"])
            self.assertEqual(len(service.requests), len({request.id for request in service.requests}))

    def test_when_its_time_is_up_it_ends_as_rate_limited(self):
        with FakeService(answer=Refusals(10**6)) as service, Daemon(service) as daemon, daemon.client() as client:
            daemon.wait_state("connected")

            def refused():
                answer = client.ask({"op": "set", "key": "k", "value": "v", "messageId": 1, "timeoutMs": 3000})
                if answer["code"] != 504:
                    return answer
                self.assert_error(answer, 504, "timeout", "unknown", 1) # the last refusal came too late on this machine
                return None

            answer = eventually(refused, "a refusal in time")
            self.assert_error(answer, 429, "rate_limited", "no", 1)
            self.assertGreater(answer["retryAfterMs"], 0)
            self.assertGreater(daemon.status()["upstream"]["pace"], 0)

    def test_a_refused_token_lowers_the_pace_of_requests(self):
        """Tokens count against the same limit, be they the daemon's or its clients'."""
        ask = {"subscription": {"op": "subscribe", "key": "k"}, "token": {"op": "token", "subscribeKeys": ["k"]}}
        for what, request in ask.items():
            with self.subTest(what), FakeService(mint=lambda request: (429, {"Retry-After": "100"}, b"")) as service, \
                    Daemon(service, access={"all": ME | {"read": "*", "token": "any"}}) as daemon, daemon.client() as client:
                daemon.wait_state("connected")
                self.assertIsNone(daemon.status()["upstream"]["pace"])
                client.send(request)
                eventually(lambda: daemon.status()["upstream"]["pace"], "a pace") # noqa: B023
                self.assertEqual(1, len(service.token_requests))

    def test_a_later_write_of_the_same_key_is_not_overtaken_by_the_repetition(self):
        """The service refuses the first of two writes and takes the second: the first must not come after it."""
        taken = []

        def answer(request):
            if request.obj["value"] == "first":
                return request.reply_raw('{"code":429,"error":"Rate limit exceeded","messageId":%d}' % request.id)
            taken.append(request.obj["value"])
            return request.reply()

        with FakeService(answer=answer) as service, Daemon(service) as daemon, daemon.client() as client:
            daemon.wait_state("connected")
            client.send(*({"op": "set", "key": "k", "value": v, "messageId": v} for v in ("first", "second")))
            answers = {a["messageId"]: a for a in client.answers(2)}
            self.assert_error(answers["first"], 429, "rate_limited", "no", "first")
            self.assertEqual(200, answers["second"]["code"])
            self.assertEqual(["second"], taken)


    def test_a_burst_for_one_key_that_is_refused_as_a_whole_is_executed_in_order(self):
        taken, refused = [], []

        def answer(request):
            value = request.obj["value"]
            if value not in refused:
                refused.append(value)
                return request.reply_raw('{"code":429,"error":"Rate limit exceeded","messageId":%d}' % request.id)
            taken.append(value)
            return request.reply()

        with FakeService(answer=answer) as service, Daemon(service) as daemon, daemon.client() as client:
            daemon.wait_state("connected")
            values = [str(n) for n in range(10)]
            client.send(*({"op": "set", "key": "k", "value": v, "messageId": v, "timeoutMs": 60000} for v in values))
            self.assertEqual([(v, 200) for v in values], [(a["messageId"], a["code"]) for a in client.answers(10)])
            self.assertEqual(values, taken)


class Limited(Case):
    """A real limit: the sandbox's."""

    def test_a_burst_beyond_the_limit_is_all_executed(self):
        with Sandbox("--rate", "40") as sandbox, Daemon(sandbox) as daemon, daemon.client() as client:
            daemon.wait_state("connected")
            client.send(*({"op": "set", "key": f"k{n}", "value": "v", "messageId": n, "timeoutMs": 60000} for n in range(100)))
            self.assertEqual([(n, 200) for n in range(100)], sorted((a["messageId"], a["code"]) for a in client.answers(100)))
            self.assertGreater(daemon.stats()["upstream_refused"], 0)

    def test_increments_are_executed_once_each_or_said_not_to_be(self):
        with Sandbox("--rate", "40") as sandbox, Daemon(sandbox) as daemon, daemon.client() as client:
            daemon.wait_state("connected")
            client.send(*({"op": "increment", "key": "n", "messageId": n, "timeoutMs": 60000} for n in range(80)))
            answers = client.answers(80)
            done = sum(a["code"] == 200 for a in answers)
            for answer in answers:
                if answer["code"] != 200:
                    self.assert_error(answer, 429, "rate_limited", "no", answer["messageId"])
            value = client.ask({"op": "get", "key": "n", "timeoutMs": 60000})["value"]
            self.assertEqual(done, int(value))
