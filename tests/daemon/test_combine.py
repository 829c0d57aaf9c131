"""Requests for one key that wait for their turn go as one: each client is told what it would have been told alone."""

import contextlib

from harness import WITHHELD, Case, Daemon, FakeService, eventually, get, put, scene


def increment(key, by=1, message_id=None, **more):
    return {"op": "increment", "key": key, "value": by} | more | ({} if message_id is None else {"messageId": message_id})


ONE = dict(max_in_flight=1, combine="gets")


def busy(service, client, key="busy"):
    """Takes the one slot, so that what comes waits; the request that has it."""
    client.send(get(key, "busy"))
    request = service.next_request()
    assert request.key == key
    return request


def waiting(daemon, n):
    return daemon.wait_status(lambda s: s["upstream"]["queued"] == n, f"{n} requests that wait")


@contextlib.contextmanager
def two_gets(service, daemon, client):
    """The clients of two gets of a key, which have waited for their turn and have it now."""
    first = busy(service, client)
    with daemon.client() as a, daemon.client() as b:
        a.send(get("k", 1))
        b.send(get("k", 2))
        waiting(daemon, 2)
        first.reply(key="busy", value="b")
        yield a, b


class Gets(Case):
    @scene(WITHHELD, **ONE)
    def test_the_turn_of_one_serves_all_who_wait(self, service, daemon, client):
        first = busy(service, client)
        clients = [daemon.client() for _ in range(5)]
        for i, c in enumerate(clients):
            c.send(get("k", i), get("k"), get("other", "o"))
        waiting(daemon, 15)
        first.reply(key="busy", value="b")
        request = service.next_request()
        self.assertEqual("k", request.key)
        waiting(daemon, 5)
        request.reply(key="k", value="v")
        for i, c in enumerate(clients):
            self.assertEqual([{"code": 200, "messageId": i, "key": "k", "value": "v"}, {"code": 200, "key": "k", "value": "v"}],
                             c.answers(2))
        service.next_request().reply(key="other", value="w")
        for c in clients:
            self.assertEqual("w", c.answer()["value"])
            c.close()
        self.assertEqual(3, len(service.requests))
        stats = daemon.stats()
        self.assertEqual((13, 13, 3), (stats["combined"], stats["requests_saved"], stats["requests_sent"]))

    @scene(WITHHELD, max_in_flight=2, combine="gets")
    def test_one_that_was_sent_is_not_joined(self, service, daemon, client):
        client.send(get("k", 1))
        sent = service.next_request()
        with daemon.client() as other:
            other.send(get("k", 2))
            later = service.next_request()
            sent.reply(key="k", value="old")
            later.reply(key="k", value="new")
            self.assertEqual("old", client.answer()["value"])
            self.assertEqual("new", other.answer()["value"])

    @scene(WITHHELD, **ONE)
    def test_a_get_behind_the_own_write_that_waits_does_not_overtake_it(self, service, daemon, client):
        first = busy(service, client)
        with daemon.client() as other, daemon.client() as third:
            third.send(get("k", 3))
            waiting(daemon, 1)
            other.send(put("k", "v", 1), get("k", 2))
            waiting(daemon, 3)
            first.reply(key="busy", value="b")
            service.next_request().reply(key="k", value="before")
            self.assertEqual("before", third.answer()["value"])
            write = service.next_request()
            self.assertEqual(2, write.op)
            write.reply(success=True)
            service.next_request().reply(key="k", value="v")
            self.assertEqual([1, 2], [a["messageId"] for a in other.answers(2)])

    @scene(WITHHELD, **ONE)
    def test_one_that_leaves_or_whose_time_is_up_takes_none_with_it(self, service, daemon, client):
        first = busy(service, client)
        clients = [daemon.client() for _ in range(4)]
        clients[0].send(get("k", 0))
        waiting(daemon, 1)
        clients[1].send(get("k", 1, timeoutMs=4000))
        clients[2].send(get("k", 2, timeoutMs=4000))
        clients[3].send(get("k", 3))
        waiting(daemon, 4)
        first.reply(key="busy", value="b")
        request = service.next_request()
        clients[0].close() # whose turn it was
        for c in clients[1:3]:
            self.assert_error(c.answer(), 504, "timeout", "unknown", 1 if c is clients[1] else 2)
        request.reply(key="k", value="v")
        self.assertEqual({"code": 200, "messageId": 3, "key": "k", "value": "v"}, clients[3].answer())
        for c in clients[1:]:
            c.close()
        client.answer()
        client.send(get("free", 9))
        service.next_request().reply(key="free", value="f")
        self.assertEqual("f", client.answer()["value"])

    @scene(WITHHELD, **ONE)
    def test_the_slot_of_one_whose_time_is_up_is_kept_for_the_others(self, service, daemon, client):
        first = busy(service, client)
        with daemon.client() as a, daemon.client() as b:
            a.send(get("k", 0, timeoutMs=4000))
            waiting(daemon, 1)
            b.send(get("k", 1))
            waiting(daemon, 2)
            first.reply(key="busy", value="b")
            request = service.next_request()
            self.assert_error(a.answer(), 504, "timeout", "unknown", 0)
            self.assertEqual(1, daemon.status()["upstream"]["inFlight"])
            request.reply(key="k", value="v")
            self.assertEqual("v", b.answer()["value"])
            self.assertEqual(0, daemon.status()["upstream"]["inFlight"])

    @scene(WITHHELD, **ONE)
    def test_refused_by_the_rate_limit_they_wait_again(self, service, daemon, client):
        with two_gets(service, daemon, client) as (a, b):
            service.next_request().reply(code=429, error="slow down")
            service.next_request().reply(key="k", value="v")
            self.assertEqual(["v", "v"], [a.answer()["value"], b.answer()["value"]])

    @scene(WITHHELD, **ONE)
    def test_after_a_loss_they_are_sent_again(self, service, daemon, client):
        with two_gets(service, daemon, client) as (a, b):
            service.next_request()
            service.answer = lambda request: request.reply(key="k", value="v")
            service.hang_up()
            self.assertEqual(["v", "v"], [a.answer()["value"], b.answer()["value"]])

    @scene(WITHHELD, **ONE | {"combine": ""})
    def test_it_can_be_switched_off(self, service, daemon, client):
        first = busy(service, client)
        client.send(get("k", 1), get("k", 2))
        waiting(daemon, 2)
        first.reply(key="busy", value="b")
        for _ in range(2):
            service.next_request().reply(key="k", value="v")
        client.answers(3)
        self.assertEqual(0, daemon.stats()["combined"])


class Increments(Case):
    def gather(self, service, daemon, client, steps):
        first = busy(service, client)
        clients = []
        for i, step in enumerate(steps):
            clients.append(daemon.client())
            clients[-1].send(increment("n", step, i))
            waiting(daemon, i + 1)
        first.reply(key="busy", value="b")
        client.answer()
        return clients

    @scene(WITHHELD, **ONE | {"combine": "gets increments"})
    def test_each_is_told_its_own_sum(self, service, daemon, client):
        for stored, told in ((100, lambda n: n), (100.25, lambda n: n)):
            steps = [1, 5, -3, 0, 7]
            clients = self.gather(service, daemon, client, steps)
            request = service.next_request()
            self.assertEqual((6, "n", sum(steps)), (request.op, request.key, request.obj["value"]))
            request.reply(success=True, newValue=told(stored + sum(steps)))
            values = []
            for i, c in enumerate(clients):
                answer = c.answer()
                self.assertEqual((200, i), (answer["code"], answer["messageId"]))
                values.append(answer["newValue"])
                c.close()
            total = stored
            for step, value in zip(steps, values):
                total += step
                self.assertEqual(total, value)

    @scene(WITHHELD, **ONE | {"combine": "gets increments"})
    def test_an_error_is_everybodys(self, service, daemon, client):
        clients = self.gather(service, daemon, client, [1, 2])
        service.next_request().reply(code=400, error="Value is not a number")
        for i, c in enumerate(clients):
            self.assertEqual({"code": 400, "messageId": i, "error": "Value is not a number"}, c.answer())
            c.close()

    @scene(WITHHELD, **ONE | {"combine": "gets increments"})
    def test_an_unknown_outcome_is_everybodys_and_nothing_is_sent_twice(self, service, daemon, client):
        clients = self.gather(service, daemon, client, [1, 2])
        service.next_request()
        service.hang_up()
        for i, c in enumerate(clients):
            self.assert_error(c.answer(), 504, "outcome_unknown", "unknown", i)
            c.close()
        self.assertEqual(1, sum(r.op == 6 for r in service.requests))

    @scene(WITHHELD, **ONE | {"combine": "gets increments"})
    def test_only_whole_numbers_that_add_up_go_together(self, service, daemon, client):
        clients = self.gather(service, daemon, client, [1, 0.5, 2])
        request = service.next_request()
        self.assertEqual(3, request.obj["value"])
        request.reply(success=True, newValue=13)
        request = service.next_request()
        self.assertEqual(0.5, request.obj["value"])
        request.reply(success=True, newValue=13.5)
        self.assertEqual([11, 13.5, 13], [c.answer()["newValue"] for c in clients])
        for c in clients:
            c.close()

    @scene(WITHHELD, **ONE)
    def test_by_default_each_goes_by_itself(self, service, daemon, client):
        clients = self.gather(service, daemon, client, [1, 2])
        for n in (1, 3):
            service.next_request().reply(success=True, newValue=n)
        self.assertEqual([1, 3], [c.answer()["newValue"] for c in clients])
        for c in clients:
            c.close()

    @scene(WITHHELD, **ONE | {"combine": "gets increments", "keys": "n*"})
    def test_what_is_remembered_of_the_key_is_forgotten(self, service, daemon, client):
        daemon.wait_status(lambda s: s["cache"]["live"], "a cache that is live")
        client.send(get("n", 0))
        service.next_request().reply(key="n", value="10")
        client.answer()
        self.assertTrue(client.ask(get("n", 0))["cached"])
        clients = self.gather(service, daemon, client, [1, 2])
        service.next_request().reply(success=True, newValue=13)
        for c in clients:
            c.answer()
            c.close()
        client.send(get("n", 0))
        service.next_request().reply(key="n", value="13")
        self.assertEqual("13", client.answer()["value"])
