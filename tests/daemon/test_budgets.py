"""Budgets: the clients of an access section share its rate, its places in flight, its clients and its subscriptions."""

import contextlib
import subprocess
import time
import unittest

from harness import HPKVD, MISSING, Case, Daemon, FakeService, echo, eventually, get, need_root, put

ANN, BOB, EVE = 20001, 20002, 20003 # users that need no account
ALL = {"read": "*", "write": "*"}


class BudgetCase(Case):
    @classmethod
    def setUpClass(cls):
        need_root()

    def scene(self, access, service=(), **settings):
        """A service and a daemon that is connected to it."""
        s = self.enter(FakeService(**dict(service)))
        d = self.enter(Daemon(s, access={name: ALL | rule for name, rule in access.items()}, **settings))
        d.wait_state("connected")
        return s, d

    def enter(self, context):
        result = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return result

    def client(self, daemon, user):
        return self.enter(daemon.client(who=(user,)))

    def refused(self, client, request):
        """Asks, with no time to wait, until the rate refuses it, which is soon where none was saved up; the refusal."""
        error = eventually(lambda: (a := client.ask(request | {"timeoutMs": 1}))["code"] == 429 and a, "a refusal by the rate")
        self.assert_error(error, 429, "rate_limited", "no", request.get("messageId", MISSING))
        return error

    def figures(self, daemon, section):
        """The figures of the section, by their names without what all begin with."""
        stats, label = daemon.stats(), f'section="{section}"'
        return {name.removeprefix("access_").replace("{" + label, "").replace(",", "{").removesuffix("}").rstrip("{"): value
                for name, value in stats.items() if label in name}


class Rate(BudgetCase):
    def test_a_second_is_had_at_once_and_the_rest_evenly(self):
        arrivals = []

        def answer(request):
            arrivals.append(time.monotonic())
            return request.reply(value="v")

        _, daemon = self.scene({"web": {"user": ANN, "rate": 20}}, {"answer": answer})
        client = self.client(daemon, ANN)
        began = time.monotonic()
        client.send(*(get("k", n) for n in range(50)))
        self.assertEqual(set(range(50)), {answer["messageId"] for answer in client.answers(50)})
        # Each beyond the first twenty needs its part of a second. More time is always possible, less is not.
        self.assertGreater(arrivals[-1] - began, 30 / 20 * 0.9)
        self.assertGreater(arrivals[39] - began, 20 / 20 * 0.9)
        self.assertEqual(50, self.figures(daemon, "web")["requests_total"])

    def test_what_can_not_be_had_in_time_is_refused(self):
        service, daemon = self.scene({"web": {"user": ANN, "rate": 2}})
        client = self.client(daemon, ANN)
        client.send(*(put("k", "v", n, timeoutMs=300) for n in range(200)))
        answers = client.answers(200)
        refused = [answer for answer in answers if answer["code"] == 429]
        service.wait(lambda: len(service.requests) == 200 - len(refused), "all others")
        self.assertGreater(len(refused), 100) # two a second are not; a machine may stand still meanwhile
        for answer in refused:
            self.assert_error(answer, 429, "rate_limited", "no", answer["messageId"])
            self.assertGreater(answer["retryAfterMs"], 0)
            self.assertIn("[access web]", answer["error"])
        self.assertEqual(len(refused), self.figures(daemon, "web")["refused_total{reason=\"rate_limited\""])

    def test_retryAfterMs_is_long_enough(self):
        _, daemon = self.scene({"web": {"user": ANN, "rate": 2}})
        client = self.client(daemon, ANN)
        wait = self.refused(client, get("k"))["retryAfterMs"]
        self.assertIn(wait, range(1, 600))
        time.sleep(wait / 1000)
        self.assertNotEqual(429, client.ask(get("k", timeoutMs=1))["code"]) # in so short a time the service may not have answered

    def test_all_clients_of_a_section_share_it_in_turns(self):
        service, daemon = self.scene({"web": {"user": f"{ANN} {BOB}", "rate": 10}})
        greedy, modest = self.client(daemon, ANN), self.client(daemon, BOB)
        greedy.send(*(get("greedy", n) for n in range(200)))
        greedy.answers(10)
        modest.send(get("modest"), get("modest"))
        self.assertEqual({200}, {answer["code"] for answer in modest.answers(2)})
        order = [request.key for request in service.requests]
        first, second = (n for n, key in enumerate(order) if key == "modest")
        self.assertLess(first, 150) # ten a second go before it, as long as this process stands still
        self.assertLessEqual(second - first, 2) # one of the other's between them

    def test_a_section_over_its_budget_delays_no_other(self):
        service, daemon = self.scene({"web": {"user": ANN, "rate": 1}, "batch": {"user": BOB, "rate": 1000}, "free": {"user": EVE}})
        over = self.client(daemon, ANN)
        over.send(*(get("k", n, timeoutMs=600000) for n in range(100)))
        over.answer()
        for user in (BOB, EVE):
            other = self.client(daemon, user)
            other.send(*(get("k", n) for n in range(100)))
            self.assertEqual({200}, {answer["code"] for answer in other.answers(100)})
        self.assertLess(self.figures(daemon, "web")["requests_total"], 100)
        self.assertEqual(1, self.figures(daemon, "web")["clients_waiting"])

    def test_sections_take_turns_however_many_clients_they_have(self):
        service, daemon = self.scene({"many": {"user": ANN, "rate": 1000}, "one": {"user": BOB, "rate": 1000}},
                                     {"answer": None}, max_in_flight=1)
        many, one = [self.client(daemon, ANN) for _ in range(20)], self.client(daemon, BOB)
        many[0].send(get("first"))
        first = service.next_request()
        for client in many:
            client.send(*(get("many", n) for n in range(10)))
        one.send(*(get("one", n) for n in range(10)))
        for client in many:
            client.barrier_by(daemon)
        eventually(lambda: daemon.status()["upstream"]["queued"] == 210, "all of them wait")
        service.answer = echo
        first.reply(value="v")
        one.answers(10)
        many[-1].answers(10)
        keys = [request.key for request in service.requests]
        self.assertLess(len(keys) - keys[::-1].index("one"), 25) # one of each section in turn, and it was the last to ask

    def test_what_is_not_for_the_service_is_free(self):
        _, daemon = self.scene({"web": {"user": ANN, "rate": 1}})
        client = self.client(daemon, ANN)
        self.assertEqual(200, client.ask(get("k"))["code"])
        for op in ("ping", "status", "stats"):
            client.send(*({"op": op} for _ in range(20)))
            self.assertEqual({200}, {answer["code"] for answer in client.answers(20)})
        self.assertEqual(1, self.figures(daemon, "web")["requests_total"])
        client.send(*(get("k", n) for n in range(50)), {"op": "status", "messageId": "status"})
        while (answer := client.answer())["messageId"] != "status":
            pass
        self.assertGreater(answer["upstream"]["waitMs"], 2000)

    def test_order_is_kept(self):
        service, daemon = self.scene({"web": {"user": ANN, "rate": 20}})
        client = self.client(daemon, ANN)
        client.send(*(put("k", str(n)) for n in range(30)))
        client.answers(30)
        self.assertEqual([str(n) for n in range(30)], [request.obj["value"] for request in service.requests])

    def test_a_request_is_paid_for_once(self):
        """The service refuses it twice because of its own limit, and it is sent again."""
        refusals = [2]

        def answer(request):
            refusals[0] -= 1
            return request.reply(code=429, error="too many") if refusals[0] >= 0 else echo(request)

        service, daemon = self.scene({"web": {"user": ANN, "rate": 5}}, {"answer": answer})
        client = self.client(daemon, ANN)
        self.assertEqual(200, client.ask(get("k"))["code"])
        self.assertEqual(3, len(service.requests))
        self.assertEqual(1, self.figures(daemon, "web")["requests_total"])

    def test_a_client_of_two_sections_counts_in_each(self):
        _, daemon = self.scene({"staff": {"user": f"{ANN} {BOB}", "rate": 3}, "ann": {"user": ANN, "rate": 1000}})
        ann, bob = self.client(daemon, ANN), self.client(daemon, BOB)
        ann.send(*(get("k", n) for n in range(3)))
        self.assertEqual({200}, {answer["code"] for answer in ann.answers(3)})
        self.assertEqual((3, 3), tuple(self.figures(daemon, name)["requests_total"] for name in ("staff", "ann")))
        self.assertIn("[access staff]", self.refused(bob, get("k"))["error"])
        self.assertIn("[access staff]", self.refused(ann, get("k"))["error"])

    def test_tokens_are_paid_for(self):
        service, daemon = self.scene({"web": {"user": ANN, "rate": 2, "token": "any"}})
        client = self.client(daemon, ANN)
        token = {"op": "token", "subscribeKeys": ["a"]}
        began = time.monotonic()
        client.send(*(token | {"messageId": n} for n in range(4)))
        self.assertEqual({200}, {answer["code"] for answer in client.answers(4)})
        self.assertGreater(time.monotonic() - began, 2 / 2 * 0.9)
        self.assertEqual(4, self.figures(daemon, "web")["requests_total"])
        late = self.refused(client, token)
        self.assertIn(late["retryAfterMs"], range(1, 600))
        self.assertLessEqual(len(service.token_requests), self.figures(daemon, "web")["requests_total"]) # nothing of it was sent

    def test_what_waits_when_the_daemon_ends_is_refused_unsent(self):
        service, daemon = self.scene({"web": {"user": ANN, "rate": 1}})
        client = self.client(daemon, ANN)
        client.send(*(get("k", n) for n in range(5)))
        client.answer()
        daemon.process.signal(15)
        rest = client.answers(4)
        self.assertEqual({"shutting_down"}, {answer.get("reason", "shutting_down") for answer in rest})
        self.assertEqual(5 - len(service.requests), sum("reason" in answer for answer in rest))


class InFlight(BudgetCase):
    def test_no_more_are_in_flight(self):
        service, daemon = self.scene({"web": {"user": f"{ANN} {BOB}", "max_in_flight": 2}, "free": {"user": EVE}}, {"answer": None})
        ann, bob, eve = (self.client(daemon, user) for user in (ANN, BOB, EVE))
        ann.send(*(get(f"a{n}", n) for n in range(2)))
        first = service.next_requests(2)
        bob.send(get("b", "b"))
        ann.send(get("a2", 2, timeoutMs=300))
        eve.send(get("e")) # of another section
        self.assertEqual("e", service.next_request().key)
        refused = ann.answer()
        self.assert_error(refused, 503, "queue_full", "no", 2)
        self.assertIn("max_in_flight of [access web]", refused["error"])
        figures = self.figures(daemon, "web")
        self.assertEqual((2, 1, 1), (figures["requests_in_flight"], figures["refused_total{reason=\"queue_full\""], figures["clients_waiting"]))
        first[0].reply(value="v")
        self.assertEqual("b", service.next_request().key)

    def test_a_client_that_has_left_keeps_its_places_until_they_are_answered(self):
        service, daemon = self.scene({"web": {"user": f"{ANN} {BOB}", "max_in_flight": 2}}, {"answer": None})
        ann, bob = self.client(daemon, ANN), self.client(daemon, BOB)
        ann.send(get("a"), get("b"))
        requests = service.next_requests(2)
        ann.close()
        eventually(lambda: self.figures(daemon, "web")["clients"] == 1, "the client's leaving")
        bob.send(get("c"))
        self.client(daemon, BOB).barrier_by(daemon)
        self.assertEqual(2, len(service.requests))
        requests[1].reply(value="v")
        self.assertEqual("c", service.next_request().key)

    def test_a_lost_connection_frees_the_places(self):
        service, daemon = self.scene({"web": {"user": ANN, "max_in_flight": 1}}, {"answer": None})
        client = self.client(daemon, ANN)
        client.send(put("k", "v", 1), get("other", 2))
        service.next_request()
        service.connections[-1].reset()
        self.assert_error(client.answer(), 504, "outcome_unknown", "unknown", 1)
        service.next_request().reply(value="v")
        self.assertEqual(2, client.answer()["messageId"])
        self.assertEqual(0, self.figures(daemon, "web")["requests_in_flight"])


class Clients(BudgetCase):
    def test_no_more_clients_than_that(self):
        _, daemon = self.scene({"web": {"user": f"{ANN} {BOB}", "max_clients": 2}, "free": {"user": EVE}})
        one, two = self.client(daemon, ANN), self.client(daemon, BOB)
        one.barrier()
        two.barrier()
        three = self.client(daemon, BOB)
        line = three.answer()
        self.assert_error(line, 503, "too_many_clients", "no")
        self.assertIn("[access web]", line["error"])
        self.assertTrue(three.at_end())
        self.client(daemon, EVE).barrier()
        figures = self.figures(daemon, "web")
        self.assertEqual((2, 1), (figures["clients"], figures["refused_total{reason=\"too_many_clients\""]))
        one.close()
        eventually(lambda: self.figures(daemon, "web")["clients"] == 1, "the client's leaving")
        self.client(daemon, ANN).barrier()


class Subscriptions(BudgetCase):
    def test_taken_whole_or_not_at_all(self):
        service, daemon = self.scene({"web": {"user": f"{ANN} {BOB}", "max_subscriptions": 3}, "free": {"user": EVE}})
        ann, bob, eve = (self.client(daemon, user) for user in (ANN, BOB, EVE))
        ann.subscribe(keys=["a", "b"])
        refused = bob.ask({"op": "subscribe", "key": "c", "pattern": "d:*"})
        self.assert_error(refused, 503, "queue_full", "no")
        self.assertIn("max_subscriptions", refused["error"])
        self.assertIn("[access web]", refused["error"])
        service.publish("c", "nobody's")
        bob.barrier() # it has nothing of it
        ann.subscribe(keys=["a", "b"]) # what it holds costs nothing
        bob.subscribe(key="c")
        ann.subscribe(keys=["b", "a"])
        self.assertEqual(3, self.figures(daemon, "web")["subscriptions"])
        self.assert_error(ann.ask({"op": "subscribe", "key": "c"}), 503, "queue_full", "no") # that is bob's
        eve.subscribe(keys=[f"e{n}" for n in range(10)])
        ann.unsubscribe(key="a")
        bob.subscribe(pattern="d:*")
        ann.close()
        eventually(lambda: self.figures(daemon, "web")["subscriptions"] == 2, "the client's leaving")
        bob.subscribe(key="e")
        self.assertEqual(2, self.figures(daemon, "web")["refused_total{reason=\"queue_full\""])

    def test_those_that_wait_count(self):
        _, daemon = self.scene({"web": {"user": ANN, "max_subscriptions": 2}}, subscribe_batch="10s")
        client = self.client(daemon, ANN)
        client.send({"op": "subscribe", "keys": ["a", "b"], "messageId": 1})
        self.assert_error(client.ask({"op": "subscribe", "key": "c", "messageId": 2}), 503, "queue_full", "no", 2)
        daemon.reload(subscribe_batch="10ms")
        self.assertEqual({"code": 200, "messageId": 1}, client.answer())
        self.assertEqual(2, self.figures(daemon, "web")["subscriptions"])


class NewSettings(BudgetCase):
    def test_a_higher_rate_lets_what_waits_go(self):
        _, daemon = self.scene({"web": {"user": ANN, "rate": 1}})
        client = self.client(daemon, ANN)
        client.send(*(get("k", n, timeoutMs=600000) for n in range(100)))
        client.answer()
        self.assertTrue(daemon.reload(access={"web": ALL | {"user": ANN}}))
        client.answers(99)
        self.assertEqual(100, self.figures(daemon, "web")["requests_total"]) # it is the same section
        self.assertIn(b"[access ...]", daemon.log())

    def test_a_client_of_another_section_has_that_ones_budget(self):
        service, daemon = self.scene({"web": {"user": ANN, "max_in_flight": 1}}, {"answer": None})
        client = self.client(daemon, ANN)
        client.send(*(get("k", n, timeoutMs=600000) for n in range(20)))
        first = service.next_request()
        self.assertTrue(daemon.reload(access={"other": ALL | {"user": ANN, "rate": 1000}}))
        service.next_requests(19)
        first.reply(value="v") # is counted in a section that is no more
        client.answer()
        self.assertEqual(19, self.figures(daemon, "other")["requests_in_flight"])
        self.assertEqual({}, self.figures(daemon, "web"))

    def test_fewer_places_end_nothing(self):
        _, daemon = self.scene({"web": {"user": ANN}})
        clients = [self.client(daemon, ANN) for _ in range(3)]
        clients[0].subscribe(keys=["a", "b", "c"])
        clients[1].barrier()
        clients[2].barrier()
        self.assertTrue(daemon.reload(access={"web": ALL | {"user": ANN, "max_clients": 1, "max_subscriptions": 1}}))
        for client in clients:
            client.barrier()
        figures = self.figures(daemon, "web")
        self.assertEqual((3, 3), (figures["clients"], figures["subscriptions"]))
        self.assertEqual("too_many_clients", self.client(daemon, ANN).answer()["reason"])
        clients[0].subscribe(key="b")
        self.assert_error(clients[1].ask({"op": "subscribe", "key": "a"}), 503, "queue_full", "no")

    def test_without_rules_there_are_no_budgets(self):
        _, daemon = self.scene({"web": {"user": ANN, "rate": 1}}, mode="0666")
        client = self.client(daemon, ANN)
        client.send(*(get("k", n, timeoutMs=600000) for n in range(50)))
        self.assertTrue(daemon.reload(access={}))
        client.answers(50)
        self.assertFalse([name for name in daemon.stats() if name.startswith("access_")])


class WrongValues(Case):
    def test_each_is_named(self):
        for setting, value, told in (("rate", "fast", "'fast'"), ("rate", "0", "'0'"), ("rate", "1.5", "'1.5'"), ("rate", "-1", "'-1'"),
                                     ("rate", "1000001", "'1000001'"), ("max_in_flight", "65536", "'65536'"),
                                     ("max_clients", "many", "'many'"), ("max_subscriptions", "", "''"), ("rates", "1", "no such setting")):
            with self.subTest(setting=setting, value=value), contextlib.ExitStack() as stack:
                daemon = Daemon("https://localhost:1", access={"web": {"user": "0", setting: value}}, wait=False)
                stack.callback(daemon._clean_up, False)
                path = daemon._write_files()
                done = subprocess.run([HPKVD, "-c", path, "-t"], env=daemon.env, capture_output=True, text=True)
                self.assertEqual(78, done.returncode, done.stderr)
                self.assertIn(f"[access web] {setting}: ", done.stderr)
                self.assertIn(told, done.stderr)
                self.assertRegex(done.stderr, r"hpkvd\.conf:\d+:")


if __name__ == "__main__":
    unittest.main()
