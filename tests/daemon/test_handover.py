"""A connection takes the place of another: nobody notices, whatever happens to either of them meanwhile."""

import itertools
import json
import threading
import time

from wsproto.frame_protocol import Opcode

from harness import (DEADLINE, WITHHELD, Case, Daemon, FakeService, Listener, Sandbox, Stream, eventually, get, put,
                     scene, steady)


def subscribe(message_id=None, **members):
    return {"op": "subscribe"} | members | ({} if message_id is None else {"messageId": message_id})


class Bursts(Case):
    """How many tokens are asked for."""

    @steady(0.5)
    @scene(subscribe_batch="2s")
    def test_a_burst_shares_one_handover(self, service, daemon, client):
        clients = [daemon.client() for _ in range(10)]
        for n, c in enumerate(clients):
            c.send(*(subscribe(i, key=f"k{n}.{i}", pattern=f"p{n}.{i}:*") for i in range(10)))
        for c in clients:
            self.assertEqual({200}, {a["code"] for a in c.answers(10)})
            c.close()
        self.assertEqual(1, len(service.token_requests))
        self.assertEqual(200, len(service.token_requests[0].list))
        self.assertEqual(2, len(service.connections))

    @scene()
    def test_what_comes_during_a_handover_shares_the_next(self, service, daemon, client):
        service.mint = lambda request: "never"
        client.send(subscribe("first", key="a"))
        first = service.wait_token_requests(1)
        client.send(*(subscribe(i, key=f"k{i}") for i in range(100)))
        client.barrier()
        service.mint = lambda request: "second"
        first.connection.answer_token(first, "first")
        self.assertEqual(["first", *range(100)], [a["messageId"] for a in client.answers(101)])
        self.assertEqual(2, len(service.token_requests))
        self.assertEqual(101, len(service.token_requests[1].list))

    @scene()
    def test_shrinking_needs_none(self, service, daemon, client):
        client.subscribe(keys=["a", "b"], pattern="p*")
        with daemon.client() as other:
            other.subscribe(keys=["b", "p1"], pattern="p1*") # within what is covered, too
            client.unsubscribe()
            other.unsubscribe(key="b")
        daemon.wait_status(lambda s: s["subscriptions"]["total"] == 0, "all are gone")
        client.subscribe(keys=["b", "a"]) # the token is still good for these
        self.assertEqual((1, 2), (len(service.token_requests), len(service.connections)))
        service.publish("a", "v")
        self.assertEqual(("a", "v"), client.change())

    @scene(subscribe_batch="0")
    def test_it_may_be_off(self, service, daemon, client):
        client.subscribe(key="a")
        self.assertEqual(1, len(service.token_requests))

    @scene(subscribe_batch="300ms")
    def test_a_first_subscription_waits_for_the_batch(self, service, daemon, client):
        began = daemon.status()["uptimeMs"]
        client.subscribe(key="a")
        self.assertGreaterEqual(daemon.status()["uptimeMs"] - began, 290)


class Requests(Case):
    """Those that are on their way on the old connection, and those behind them."""

    @scene(service=WITHHELD)
    def test_they_are_answered_and_then_it_is_closed(self, service, daemon, client):
        client.send(*(put(str(i), "v", i) for i in range(30)))
        requests = service.next_requests(30)
        with daemon.client() as other:
            other.subscribe(key="k")
            old, new = service.connection(1), service.connection(2)
            other.send(get("by the new one"))
            request = service.next_request()
            self.assertIs(new, request.connection)
            request.reply(value="v")
            self.assertEqual("v", other.answer()["value"])
            self.assertEqual(30, daemon.status()["upstream"]["inFlight"])
            for request in requests:
                self.assertIs(old, request.connection)
                self.assertTrue(old.open)
                request.reply(success=True)
                self.assertEqual({"code": 200, "messageId": int(request.key), "success": True}, client.answer())
        old.wait_gone()
        self.assertEqual(1000, old.close_code)
        self.assertTrue(new.open)
        stats = daemon.stats()
        self.assertEqual((0, 0, 1), tuple(stats[n] for n in ("upstream_disconnects", "requests_outcome_unknown",
                                                            "upstream_handovers")))

    @scene(service=WITHHELD)
    def test_they_outlast_ten_handovers(self, service, daemon, client):
        client.send(put("k", "v", "slow"))
        slow = service.next_request()
        with daemon.client() as other:
            for n in range(10):
                other.subscribe(key=f"k{n}")
                client.send(put(f"slow{n}", "v", n))
                service.next_request()
            client.barrier()
            for request in [slow, *service.requests[1:]]:
                request.reply(success=True)
            answers = client.answers(11)
        self.assertEqual([200] * 11, [a["code"] for a in answers], answers)

    @scene(service=WITHHELD)
    def test_of_one_client_and_key_the_next_waits(self, service, daemon, client):
        """The new connection may be faster than the old one."""
        client.send(put("k", "1", 1))
        first = service.next_request()
        with daemon.client() as other:
            other.subscribe(key="x")
            client.send(put("k", "2", 2), put("k", "3", 3))
            client.barrier()
            self.assertTrue(service.no_more_requests())
            first.reply()
            self.assertEqual(["2", "3"], [r.obj["value"] for r in service.next_requests(2)])
            for request in service.requests[-2:]:
                request.reply()
            self.assertEqual([1, 2, 3], [a["messageId"] for a in client.answers(3)])

    @scene(service=WITHHELD, request_timeout="10m")
    def test_nobody_else_waits_for_that(self, service, daemon, client):
        client.send(put("k", "1", 1))
        first = service.next_request()
        with daemon.client() as other:
            other.subscribe(key="x")
            client.send(put("k", "2", 2))
            client.barrier()
            other.send(put("k", "other's", "other"))
            request = service.next_request()
            self.assertEqual("other's", request.obj["value"])
            request.reply()
            self.assertEqual(200, other.answer()["code"])
        first.reply()
        service.next_request().reply()
        self.assertEqual([1, 2], [a["messageId"] for a in client.answers(2)])

    @scene(service=WITHHELD)
    def test_the_old_one_is_lost_after_the_handover(self, service, daemon, client):
        client.send(put("k", "v", "set"), get("l", "get"))
        service.next_requests(2)
        with daemon.client() as other:
            other.subscribe(key="x")
            service.connections[0].reset()
            self.assert_error(client.answer(), 504, "outcome_unknown", "unknown", "set")
            again = service.next_request()
            self.assertIs(service.connections[1], again.connection)
            again.reply(value="v")
            self.assertEqual(("get", "v"), ((a := client.answer())["messageId"], a["value"]))
            other.barrier() # told of nothing: what counts is there

    @scene()
    def test_nobody_fails_while_others_subscribe(self, service, daemon, client):
        """A stream of requests over twenty handovers."""
        stop = threading.Event()
        counts = []

        def ask():
            with daemon.client() as c:
                for n in itertools.count():
                    for request in (put("k", str(n)), get("l")):
                        answer = c.ask(request)
                        if answer["code"] != 200:
                            counts.append(answer)
                            return
                    if stop.is_set():
                        counts.append(n)
                        return

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for n in range(20):
            client.subscribe(key=f"k{n}")
        stop.set()
        for thread in threads:
            thread.join()
        self.assertEqual([], [a for a in counts if not isinstance(a, int)])
        self.assertEqual(20, daemon.stats()["upstream_handovers"])


class Dying(Case):
    """One of the two dies on the way."""

    def follow(self, client):
        client.subscribe(key="s")
        return Listener(client)

    def silent(self, service, daemon, listener, stream):
        """Nobody was told, and the stream is whole."""
        service.all_told()
        listener.barrier()
        self.assertEqual([str(n) for n in range(stream.n)], listener.values("s"))
        self.assertEqual([], listener.of_type("connection"))
        self.assertEqual(0, daemon.status()["upstream"]["reconnects"])

    def told(self, service, listener, stream):
        """Whoever subscribes was told, and the stream goes on."""
        listener.find(type="connection", state="connected")
        self.assertEqual(["disconnected", "connected"], [line["state"] for line in listener.of_type("connection")])
        stream.go_on()

    def ends_right(self, service, daemon, listener, stream):
        service.all_told()
        daemon.wait_status(lambda s: s["subscriptions"]["rereading"] == 0, "all keys are read")
        listener.barrier()
        values = [int(v) for v in listener.values("s") if v.isdigit()]
        self.assertEqual(sorted(set(values)), values)
        self.assertEqual(stream.n - 1, values[-1])

    @scene()
    def test_the_new_one_before_it_is_open(self, service, daemon, client):
        listener = self.follow(client)
        failures = iter([(503, {}, b""), (502, {}, b"bad"), (500, {}, b"")])
        service.upgrade = lambda event: next(failures, None)
        with Stream(service, "s") as stream, daemon.client() as other:
            stream.go_on()
            other.subscribe(key="x")
            stream.go_on()
        self.silent(service, daemon, listener, stream)
        self.assertEqual(3, daemon.stats()["upstream_handover_failures"])

    @scene(connect_timeout="200ms")
    def test_the_new_one_is_never_open(self, service, daemon, client):
        listener = self.follow(client)
        answers = iter(["never"])
        service.upgrade = lambda event: next(answers, None)
        with Stream(service, "s") as stream, daemon.client() as other:
            other.subscribe(key="x")
            stream.go_on()
        self.silent(service, daemon, listener, stream)

    @scene()
    def test_the_new_one_after_it_is_open(self, service, daemon, client):
        listener = self.follow(client)
        service.pong = False
        with Stream(service, "s") as stream, daemon.client() as other:
            other.send(subscribe(key="x"))
            for n in range(3, 6):
                new = service.connection(n)
                service.wait(lambda c=new: c.pings, "a ping")
                stream.go_on(20)
                if n == 5:
                    service.pong = True
                new.reset()
            self.assertEqual({"code": 200}, other.answer())
            stream.go_on()
        self.silent(service, daemon, listener, stream)

    @scene()
    def test_the_new_one_after_it_has_answered(self, service, daemon, client):
        """While the old one's answer is waited for."""
        listener = self.follow(client)
        old = service.connection(2)
        old.pong, pings = False, old.pings
        with Stream(service, "s") as stream, daemon.client() as other:
            other.send(subscribe(key="x"))
            service.wait(lambda: old.pings > pings, "a ping")
            stream.go_on()
            old.pong = True # the next time
            service.connection(3).reset()
            self.assertEqual({"code": 200}, other.answer())
            stream.go_on()
        self.silent(service, daemon, listener, stream)

    @scene()
    def test_the_new_one_dies_as_soon_as_it_has_taken_over(self, service, daemon, client):
        listener = self.follow(client)
        with Stream(service, "s") as stream, daemon.client() as other:
            other.subscribe(key="x")
            service.answer = lambda request: request.reply(value=str(stream.n - 1))
            service.connections[-1].reset()
            self.told(service, listener, stream)
        self.ends_right(service, daemon, listener, stream)

    def old_dies(self, service, daemon, client, reach):
        """reach: brings the handover to a phase; returns what lets it go on."""
        listener = self.follow(client)
        old = service.connection(2)
        with Stream(service, "s") as stream, daemon.client() as other:
            service.answer = lambda request: request.reply(value=str(stream.n - 1)) # the key, read again
            go_on = reach(service, other, old)
            stream.go_on()
            old.reset()
            old.wait_gone()
            go_on()
            self.told(service, listener, stream)
            self.assertEqual({"code": 200}, other.answer())
            self.assertEqual(200, other.ask(get("k"))["code"])
            stream.go_on()
        self.ends_right(service, daemon, listener, stream)

    @scene()
    def test_the_old_one_while_the_token_is_minted(self, service, daemon, client):
        def reach(service, other, old):
            service.mint = lambda request: "never"
            other.send(subscribe(key="x"))
            request = service.wait_token_requests(2)
            service.mint = lambda request: "later"
            return lambda: request.connection.answer_token(request, "now")

        self.old_dies(service, daemon, client, reach)

    @scene(connect_timeout="30s")
    def test_the_old_one_while_the_new_one_connects(self, service, daemon, client):
        def reach(service, other, old):
            answers = iter(["never"])
            service.upgrade = lambda event: next(answers, None)
            other.send(subscribe(key="x"))
            service.wait(lambda: len(service.upgrades) >= 3, "an upgrade")
            return next(c for c in service.all if c.target and not c.open).hang_up

        self.old_dies(service, daemon, client, reach)

    @scene()
    def test_the_old_one_while_the_new_one_is_asked(self, service, daemon, client):
        def reach(service, other, old):
            service.pong = False
            other.send(subscribe(key="x"))
            new = service.connection(3)
            service.wait(lambda: new.pings, "a ping")

            def go_on():
                service.pong = True
                new.send_frame(Opcode.PONG, str(new.pings).encode())

            return go_on

        self.old_dies(service, daemon, client, reach)

    @scene()
    def test_the_old_one_while_it_is_asked_itself(self, service, daemon, client):
        def reach(service, other, old):
            old.pong, pings = False, old.pings
            other.send(subscribe(key="x"))
            service.wait(lambda: old.pings > pings, "a ping")
            return lambda: None

        self.old_dies(service, daemon, client, reach)

    @scene()
    def test_the_old_one_with_a_message_between_whose_parts_it_has_answered(self, service, daemon, client):
        """It has not brought that, so it is missed."""
        listener = self.follow(client)
        old = service.connection(2)
        old.pong, pings = False, old.pings
        service.answer = lambda request: request.reply(value="missed")
        with daemon.client() as other:
            other.send(subscribe(key="x"))
            service.wait(lambda: old.pings > pings, "a ping of the old one")
            text = service.change("s", "missed").encode()
            old.send_frame(Opcode.TEXT, text[:20], final=False)
            old.send_frame(Opcode.PONG, str(old.pings).encode())
            old.hang_up()
            listener.find(type="connection", state="connected")
            listener.find(value="missed", resync=True)

    @steady(0.1)
    @scene()
    def test_the_old_one_when_it_has_answered_is_not_missed(self, service, daemon, client):
        """What it has not brought by then the new one has."""
        listener = self.follow(client)
        old = service.connection(2)
        for n in range(5):
            service.publish("s", str(n))
        listener.wait(lambda lines: len(lines) >= 5, "the first changes")
        with daemon.client() as other:
            pings, old.late_changes.ms = old.pings, 3_600_000
            service.prepare = lambda new: setattr(new.late, "ms", 200) # time to tell it before it is asked
            other.send(subscribe(key="x"))
            new = service.connection(3)
            for n in range(5, 10):
                service.publish("s", str(n))
            service.wait(lambda: old.pings > pings, "a ping of the old one")
            self.assertEqual({"code": 200}, other.answer())
            listener.find(key="s", value="9")
            old.reset()
            service.publish("s", "10")
            listener.find(key="s", value="10")
            listener.barrier()
            self.assertEqual([str(n) for n in range(11)], listener.values("s"))
            self.assertEqual([], listener.of_type("connection"))


class TokenRefused(Case):
    """No token for now, or never: what works goes on."""

    @scene(subscribe_batch="300ms")
    def test_one_bad_key_in_a_batch_costs_only_its_subscriber(self, service, daemon, client):
        service.mint = lambda request: (400, {}, b"bad pattern") if "bad" in request.list else "t"
        clients = [daemon.client() for _ in range(12)]
        for n, c in enumerate(clients):
            c.send(subscribe(n, key="bad" if n == 7 else f"good{n}"))
        for n, c in enumerate(clients):
            answer = c.answer()
            if n == 7:
                self.assert_error(answer, 503, "upstream_down", "no", 7)
                self.assertIn("400", answer["error"])
            else:
                self.assertEqual({"code": 200, "messageId": n}, answer)
                service.publish(f"good{n}", "v")
                self.assertEqual((f"good{n}", "v"), c.change())
        self.assertLess(len(service.token_requests), 16)
        clients[7].subscribe(key="good again")
        for c in clients:
            c.close()

    @scene()
    def test_a_refused_list_is_no_end_for_those_before(self, service, daemon, client):
        service.mint = lambda request: (422, {}, b"") if "bad" in request.list else f"t{request.number}"
        client.subscribe(key="s")
        with daemon.client() as other:
            for _ in range(3):
                self.assert_error(other.ask(subscribe(1, keys=["fine", "bad"])), 503, "upstream_down", "no", 1)
            other.subscribe(key="fine")
        service.publish("s", "v")
        self.assertEqual(("s", "v"), client.change())
        client.barrier()

    def test_the_key_may_have_none(self):
        for status in (401, 403):
            with self.subTest(status), FakeService(mint=lambda request, s=status: (s, {}, b"no")) as service, \
                    Daemon(service) as daemon, daemon.client() as client:
                daemon.wait_state("connected")
                answer = client.ask(subscribe(1, key="k"))
                self.assertIn(str(status), answer["error"])
                self.assertGreaterEqual(answer.pop("retryAfterMs"), 0)
                self.assert_error(answer, 503, "upstream_down", "no", 1)
                upstream = daemon.status()["upstream"]
                self.assertEqual(("connected", "apiKey"), (upstream["state"], upstream["auth"]))
                self.assertEqual(200, client.ask(get("k"))["code"])
                service.mint = lambda request: "right"
                eventually(lambda: client.ask(subscribe(key="k"))["code"] == 200, "a subscription once it has rights")
                service.publish("k", "v")
                self.assertEqual(("k", "v"), client.change())

    def test_later(self):
        for status in (429, 503):
            asked = [] # when
            mint = lambda request: asked.append(time.monotonic()) or ((status, {"Retry-After": "1"}, b"later") if len(asked) == 1 else "t")
            with self.subTest(status), FakeService(mint=mint) as service, Daemon(service) as daemon, \
                    daemon.client() as client:
                daemon.wait_state("connected")
                client.send(subscribe(1, key="k"))
                service.wait_token_requests(1)
                client.send(get("k", 2))
                answers = {a["messageId"]: a["code"] for a in client.answers(2)}
                self.assertEqual({1: 200, 2: 200}, answers)
                self.assertEqual(2, len(asked))
                self.assertGreater(asked[1] - asked[0], 0.9)

    @scene(service={"mint": lambda request: (503, {}, b"down")})
    def test_a_subscribe_says_why_when_its_time_is_up(self, service, daemon, client):
        answer = client.ask(subscribe(1, key="k", timeoutMs=3000))
        answer.pop("retryAfterMs", None)
        self.assert_error(answer, 503, "upstream_down", "no", 1)
        self.assertIn("503", answer["error"])
        self.assertIn("503", daemon.status()["upstream"]["tokenError"])
        self.assertEqual("connected", daemon.status()["upstream"]["state"])

    def comes_after(self, service, daemon, client):
        """The first attempt fails; requests are answered meanwhile."""
        mint, answered = service.mint, threading.Event()
        service.mint = lambda request: (request.number == 1 or answered.wait(DEADLINE)) and mint(request)
        client.send(subscribe(1, key="k"), get("k", 2))
        self.assertEqual(2, client.answer()["messageId"])
        answered.set()
        self.assertEqual({"code": 200, "messageId": 1}, client.answer())
        service.publish("k", "v")
        self.assertEqual(("k", "v"), client.change())
        self.assertEqual(2, len(service.token_requests))

    @scene(connect_timeout="2s")
    def test_the_endpoint_hangs(self, service, daemon, client):
        service.mint = lambda request: "never" if request.number == 1 else "t"
        self.comes_after(service, daemon, client)

    @scene()
    def test_the_endpoint_hangs_up(self, service, daemon, client):
        service.mint = lambda request: request.connection.reset() or "never" if request.number == 1 else "t"
        self.comes_after(service, daemon, client)

    def test_garbage(self):
        for name, status, body in (("empty", 200, b""), ("null", 200, b"null"), ("no_token", 200, b"{}"),
                                   ("a_number", 200, b'{"token":5}'), ("empty_token", 200, b'{"token":""}'),
                                   ("cut", 200, b'{"token":"abc'), ("line_end", 200, b'{"token":"a\\r\\nX: y"}'),
                                   ("nul", 200, b'{"token":"a\\u0000b"}'), ("html", 200, b"<html>" * 1000),
                                   ("huge", 200, b'{"token":"' + b"x" * 1_000_000 + b'"}'),
                                   ("redirect", 302, b""), ("error", 500, b'{"token":"abc"}'),
                                   ("no_content", 204, b"")):
            with self.subTest(name), FakeService() as service, Daemon(service) as daemon, daemon.client() as client:
                service.mint = lambda request, s=status, b=body: (s, {}, b) if request.number == 1 else "t"
                daemon.wait_state("connected")
                self.comes_after(service, daemon, client)


class TooLong(Case):
    """A token travels in a request line, and those have an end."""

    KEYS = [f"app:{kind}:{n:03}" for kind in ("item", "user") for n in range(100)]

    def all_live(self, service, client):
        client.subscribe(keys=self.KEYS, timeoutMs=60000)
        for key in self.KEYS:
            service.publish(key, "v")
            service.publish(key + "x", "nobody has asked for it")
        self.assertEqual(self.KEYS, [client.change()[0] for _ in self.KEYS])
        client.barrier()
        listed = service.connections[-1].list
        self.assertTrue(any(x.endswith("*") for x in listed), listed)
        self.assertNotIn("*", listed)
        return listed

    def test_the_upgrade_is_refused_for_its_length(self):
        for status in (414, 431):
            with self.subTest(status), FakeService() as service:
                service.mint = lambda request: "t" * len(json.dumps(request.list))
                service.upgrade = lambda event, s=status: (s, {}, b"too long") if len(event.target) > 1500 else None
                with Daemon(service) as daemon, daemon.client() as client:
                    daemon.wait_state("connected")
                    listed = self.all_live(service, client)
                    self.assertGreater(len(json.dumps(listed)), 300) # the room that there is was used
                    self.assertEqual(200, client.ask(get("k"))["code"])

    @scene(service={"mint": lambda request: "t" * (8 * len(json.dumps(request.list)))})
    def test_the_token_is_longer_than_any_line(self, service, daemon, client):
        listed = self.all_live(service, client)
        self.assertGreater(len(service.token_requests[0].token), 15000)
        self.assertGreater(len(listed), 5)
        before = len(service.token_requests)
        client.subscribe(key="one more")
        self.assertLessEqual(len(service.token_requests), before + 2) # it has learnt how tokens grow

    def test_two_hundred_keys_with_the_sandbox(self):
        keys = [f"tenant:{n % 7}:{'x' * 30}:{n}" for n in range(200)]
        with Sandbox() as sandbox, Daemon(sandbox) as daemon, daemon.client() as client, daemon.client() as writer:
            client.subscribe(keys=keys, timeoutMs=60000)
            listener = Listener(client)
            for key in keys:
                self.assertEqual(200, writer.ask(put(key, "v"))["code"])
            listener.wait(lambda lines: len(lines) >= len(keys), "all changes")
            self.assertEqual(keys, [line["key"] for line in listener.lines])
            self.assertEqual(0, daemon.status()["subscriptions"]["leftOut"])

    @scene()
    def test_nothing_fits(self, service, daemon, client):
        client.subscribe(key="s")
        service.mint = lambda request: "t" * 20000
        with daemon.client() as other:
            answer = other.ask(subscribe(1, key="x", timeoutMs=60000))
            self.assert_error(answer, 503, "queue_full", "no", 1)
            self.assertIn("token", answer["error"])
            self.assertEqual(200, other.ask(get("k"))["code"])
            service.publish("s", "v")
            self.assertEqual(("s", "v"), client.change())
        client.barrier()

    @scene()
    def test_tokens_that_were_too_long_for_a_while(self, service, daemon, client):
        """What the daemon has learnt from them is no truth for ever."""
        client.subscribe(key="s")
        service.mint = lambda request: "t" * 20000
        self.assert_error(client.ask(subscribe(1, key="x")), 503, "queue_full", "no", 1)
        service.mint = lambda request: f"t{request.number}"
        eventually(lambda: client.ask(subscribe(key="x"))["code"] == 200, "room")
        service.publish("x", "v")
        self.assertEqual(("x", "v"), client.change())

    @scene()
    def test_one_key_that_is_too_long_costs_no_other_its_place(self, service, daemon, client):
        with daemon.client() as other:
            other.send(subscribe(1, key="x" * 20000), subscribe(2, key="short"))
            answers = {a["messageId"]: a for a in other.answers(2)}
            self.assert_error(answers[1], 503, "queue_full", "no", 1)
            self.assertEqual(200, answers[2]["code"])
            service.publish("short", "v")
            self.assertEqual(("short", "v"), other.change())

    def test_the_last_one_has_no_room_any_more(self):
        """A list that is empty though something is wanted is no reason to make the next one at once."""
        long, limit = "x" * 1200, None
        with FakeService() as service, Daemon(service) as daemon, daemon.client() as client:
            service.mint = lambda request: "t" * len(json.dumps(request.list))
            service.upgrade = lambda event: (431, {}, b"") if limit and len(event.target) > limit else None
            client.subscribe(key=long)
            limit = 1000
            with daemon.client() as other:
                other.subscribe(key="short")
                gap = client.answer()
                self.assertEqual(("gap", long), (gap["type"], gap["key"]))
                other.unsubscribe(key="short") # so there may be room for the long one, and there is not
                daemon.wait_status(lambda s: "no room" in (s["upstream"]["tokenError"] or ""), "the reason")
                before, asked = daemon.process.cpu_seconds(), len(service.token_requests)
                until = time.monotonic() + 1
                while time.monotonic() < until:
                    time.sleep(0.1)
                    other.barrier()
                self.assertLess(daemon.process.cpu_seconds() - before, 0.5)
                self.assertEqual(asked, len(service.token_requests))
                self.assertEqual(200, other.ask(get("k"))["code"])
            client.barrier()


class Renewal(Case):
    """A token is replaced well before it ends."""

    def test_well_before_its_end(self):
        """The service ends a token 7 s after its renewal is due, so that a machine that stands still does no harm."""
        with Sandbox("--token-ttl", "10") as sandbox, Daemon(sandbox, token_lifetime="3s") as daemon, \
                daemon.client() as client, daemon.client() as writer:
            client.subscribe(key="s")
            listener = Listener(client)
            for n in itertools.count():
                self.assertEqual(200, writer.ask(put("s", str(n)))["code"])
                stats = daemon.stats()
                if stats["upstream_handovers"] >= 5:
                    break
            listener.find(value=str(n))
            listener.barrier()
            self.assertEqual([str(i) for i in range(n + 1)], listener.values("s"))
            self.assertIn(stats["tokens_minted"] - stats["upstream_handovers"], (0, 1))  # the next one may be on its way
            self.assertEqual(0, daemon.stats()["upstream_disconnects"])

    @scene(token_lifetime="1s")
    def test_a_failed_one_is_tried_again(self, service, daemon, client):
        service.mint = lambda request: (503, {}, b"") if request.number in (2, 3, 5) else f"t{request.number}"
        client.subscribe(key="s")
        listener = Listener(client)
        with Stream(service, "s") as stream:
            service.wait_token_requests(6)
            service.connection(4)
            stream.go_on()
        service.all_told()
        listener.barrier()
        self.assertEqual([str(n) for n in range(stream.n)], listener.values("s"))
        self.assertEqual(0, daemon.status()["upstream"]["reconnects"])

    def test_a_service_that_ends_it_early(self):
        """Closed with 1008, the token not accepted any more: told, and healed with a fresh one."""
        with Sandbox("--token-ttl", "4") as sandbox, Daemon(sandbox) as daemon, daemon.client() as client, \
                daemon.client() as writer:
            client.subscribe(key="s")
            listener = Listener(client)
            listener.find(type="connection", state="disconnected")
            listener.find(type="connection", state="connected")
            self.assertEqual(200, writer.ask(put("s", "after"))["code"])
            listener.find(key="s", value="after")
            self.assertGreaterEqual(daemon.stats()["tokens_minted"], 2)

    def test_a_service_that_lets_it_live(self):
        with Sandbox("--token-ttl", "3600") as sandbox, Daemon(sandbox, token_lifetime="1s") as daemon, \
                daemon.client() as client:
            client.subscribe(key="s")
            daemon.wait_status(lambda s: daemon.stats()["tokens_minted"] >= 3, "two renewals")
            client.barrier()
            self.assertEqual(0, daemon.status()["upstream"]["reconnects"])
