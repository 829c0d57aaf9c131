"""The connection is lost while clients are subscribed: who is told, what is read again, and that all end up right."""

import json
import threading
import time

from wsproto.frame_protocol import Opcode

from harness import DEADLINE, WITHHELD, Case, Daemon, Listener, Sandbox, eventually, get, put, scene


def subscribe(message_id=None, **members):
    return {"op": "subscribe"} | members | ({} if message_id is None else {"messageId": message_id})


class Store:
    """What a FakeService answers gets with, and can be told otherwise: .values; .read: the keys in their order."""

    def __init__(self, service, **values):
        self.values = values
        self.read = []
        service.answer = self

    def __call__(self, request):
        if request.op != 1:
            return request.reply(success=True)
        self.read.append(request.key)
        if request.key in self.values:
            return request.reply(key=request.key, value=self.values[request.key])
        return request.reply(code=404, error="Record not found")


def lose(service, daemon):
    """Resets the connection with the token, and waits until subscriptions are live again."""
    reconnects = daemon.status()["upstream"]["reconnects"]
    service.connections[-1].reset()
    return healed(daemon, reconnects + 1)


def healed(daemon, reconnects):
    """Connected again so many times, subscriptions live, and all keys read."""
    return daemon.wait_status(lambda s: s["upstream"]["reconnects"] >= reconnects and s["subscriptions"]["live"]
                              and not s["subscriptions"]["rereading"], "subscriptions are live again")


class Told(Case):
    """The two lines, and to whom they go."""

    def connection_lines(self, client, n=2):
        lines = client.answers(n)
        for line in lines:
            self.assertEqual({"type", "state", "timestamp"}, set(line))
            self.assertEqual("connection", line["type"])
            self.assertAlmostEqual(time.time() * 1000, line["timestamp"], delta=DEADLINE * 1000)
        return [line["state"] for line in lines]

    @scene()
    def test_that_it_is_back_once_the_service_tells_of_changes_for_certain(self, service, daemon, client):
        """A connection may be open before the service knows its subscriptions: it is believed when it has answered a
        ping."""
        store = Store(service, k="before")
        client.subscribe(key="k", initial=True)
        client.answer()
        service.prepare = lambda connection: setattr(connection, "pong", False)
        service.connections[-1].reset()
        self.assertEqual(["disconnected"], self.connection_lines(client, 1))
        new = service.connection(3)
        service.wait(lambda: new.pings, "a ping")
        client.send(subscribe(1, key="k"))
        client.barrier()
        store.values["k"] = "changed"
        new.send_frame(Opcode.PONG, str(new.pings).encode())
        self.assertEqual(["connected"], self.connection_lines(client, 1))
        self.assertEqual({"code": 200, "messageId": 1}, client.answer())
        line = client.answer()
        self.assertEqual(("changed", True), (line["value"], line["resync"]))

    @scene()
    def test_only_subscribers_are_told(self, service, daemon, client):
        Store(service, k="v")
        with daemon.client() as other, daemon.client() as ended:
            client.subscribe(key="k", initial=True)
            client.answer()
            ended.subscribe(key="k")
            ended.unsubscribe()
            lose(service, daemon)
            self.assertEqual(["disconnected", "connected"], self.connection_lines(client))
            for c in (client, other, ended):
                c.barrier()

    @scene()
    def test_at_once_and_when_it_is_back(self, service, daemon, client):
        Store(service, k="v")
        client.subscribe(key="k", initial=True)
        client.answer()
        service.stop_listening()
        service.connections[-1].reset()
        self.assertEqual(["disconnected"], self.connection_lines(client, 1))
        daemon.wait_state("backoff")
        client.barrier()
        service.listen()
        self.assertEqual(["connected"], self.connection_lines(client, 1))
        healed(daemon, 1)
        client.barrier()

    @scene()
    def test_each_loss_once(self, service, daemon, client):
        Store(service, k="v")
        client.subscribe(key="k", initial=True)
        client.answer()
        for _ in range(5):
            lose(service, daemon)
        self.assertEqual(["disconnected", "connected"] * 5, self.connection_lines(client, 10))
        client.barrier()

    @scene()
    def test_an_attempt_that_fails_is_no_loss(self, service, daemon, client):
        Store(service, k="v")
        client.subscribe(key="k", initial=True)
        client.answer()
        failures = iter([(503, {}, b"")] * 4)
        service.upgrade = lambda event: next(failures, None)
        lose(service, daemon)
        self.assertEqual(["disconnected", "connected"], self.connection_lines(client))
        client.barrier()

    @scene()
    def test_a_close_by_the_service_is_a_loss(self, service, daemon, client):
        Store(service, k="v")
        client.subscribe(key="k", initial=True)
        client.answer()
        service.connections[-1].close(1008, "expired")
        self.assertEqual(["disconnected", "connected"], self.connection_lines(client))

    @scene()
    def test_who_subscribes_while_it_is_away_is_not_told_of_that(self, service, daemon, client):
        Store(service, k="v", l="v")
        client.subscribe(key="k", initial=True)
        client.answer()
        service.stop_listening()
        service.connections[-1].reset()
        self.assertEqual(["disconnected"], self.connection_lines(client, 1))
        with daemon.client() as other:
            other.send(subscribe(1, keys=["k", "l"]))
            other.barrier()
            service.listen()
            self.assertEqual({"code": 200, "messageId": 1}, other.answer())
            healed(daemon, 1)
            other.barrier()
            service.publish("l", "new")
            self.assertEqual(("l", "new"), other.change())
        self.assertEqual(["connected"], self.connection_lines(client, 1))


class Resync(Case):
    """Keys are read again, and told if they are not what the client knows."""

    def lines(self, client):
        """All up to now, but for those of the connection."""
        client.send({"op": "ping", "messageId": "end"})
        lines = []
        while (line := client.answer()).get("messageId") != "end":
            if line.get("type") != "connection":
                lines.append(line)
        return lines

    def resyncs(self, client):
        lines = self.lines(client)
        for line in lines:
            self.assertEqual({"type", "key", "value", "timestamp", "resync"}, set(line), line)
            self.assertEqual(("notification", True), (line["type"], line["resync"]))
            self.assertAlmostEqual(time.time() * 1000, line["timestamp"], delta=DEADLINE * 1000)
        return {line["key"]: line["value"] for line in lines}

    @scene()
    def test_only_what_has_changed(self, service, daemon, client):
        store = Store(service, same="1", changed="1", deleted="1", back="1")
        keys = ["same", "changed", "deleted", "never there", "made", "told", "told and changed"]
        client.subscribe(keys=keys, initial=True)
        client.answers(len(keys))
        for key in ("told", "told and changed"):
            service.publish(key, "by a change")
            client.change()
        store.values |= {"changed": "2", "made": "1", "told": "by a change", "told and changed": "later"}
        del store.values["deleted"]
        lose(service, daemon)
        self.assertEqual({"changed": "2", "deleted": None, "made": "1", "told and changed": "later"}, self.resyncs(client))
        self.assertEqual(4, daemon.stats()["resyncs"])
        lose(service, daemon) # now it knows these
        self.assertEqual({}, self.resyncs(client))

    @scene()
    def test_what_a_client_was_never_told(self, service, daemon, client):
        Store(service, k="v")
        client.subscribe(keys=["k", "missing"])
        lose(service, daemon)
        self.assertEqual({"k": "v", "missing": None}, self.resyncs(client))

    @scene()
    def test_each_client_by_what_it_was_told_itself(self, service, daemon, client):
        store = Store(service, k="1")
        with daemon.client() as late, daemon.client() as pattern:
            client.subscribe(key="k", initial=True)
            client.answer()
            pattern.subscribe(pattern="k*")
            service.publish("k", "2")
            self.assertEqual(("k", "2"), client.change())
            self.assertEqual(("k", "2"), pattern.change())
            late.subscribe(key="k")
            store.values["k"] = "2"
            lose(service, daemon)
            self.assertEqual({}, self.resyncs(client))
            self.assertEqual({"k": "2"}, self.resyncs(late))
            self.assertEqual(["gap"], [line["type"] for line in self.lines(pattern)])

    @scene()
    def test_a_value_counts_by_what_it_means(self, service, daemon, client):
        """The same string with other escapes is no change."""
        client.subscribe(key="k")
        service.publish_text("k", r'{"type":"notification","key":"k","value":"\u00e9\/A","timestamp":1}')
        client.line()
        service.answer = lambda request: request.reply_raw('{"code":200,"messageId":<id>,"key":"k","value":"é/\\u0041"}')
        lose(service, daemon)
        self.assertEqual({}, self.resyncs(client))

    @scene()
    def test_the_value_is_the_services_bytes(self, service, daemon, client):
        client.subscribe(key="k\u0000é")
        value = r'"\u00e9\/\u0000é\ud83d\ude00"'
        service.answer = lambda request: request.reply_raw('{"code":200,"messageId":<id>,"value":%s}' % value)
        lose(service, daemon)
        client.answers(2)
        line = client.line().decode()
        self.assertIn(f'"value":{value},', line)
        self.assertEqual("k\u0000é", json.loads(line)["key"])

    @scene(service=WITHHELD)
    def test_a_change_that_comes_while_it_is_read_is_newer(self, service, daemon, client):
        client.subscribe(key="k")
        service.connections[-1].reset()
        read = service.next_request()
        service.publish("k", "3")
        service.publish("k", "4")
        read.reply(value="2")
        client.answers(2)
        self.assertEqual([("2", True), ("3", None), ("4", None)],
                         [(line["value"], line.get("resync")) for line in client.answers(3)])

    @scene(service=WITHHELD)
    def test_a_value_that_a_change_has_brought_is_not_told_again(self, service, daemon, client):
        client.subscribe(key="k")
        service.connections[-1].reset()
        read = service.next_request()
        service.publish("k", "3")
        read.reply(value="3")
        client.answers(2)
        self.assertEqual(("k", "3"), client.change())
        healed(daemon, 1)
        client.barrier()

    @scene(service=WITHHELD)
    def test_lost_again_while_it_is_read(self, service, daemon, client):
        client.subscribe(key="k")
        for n in range(2, 5):
            service.connections[-1].reset()
            read = service.next_request()
            self.assertIs(service.connection(n + 1), read.connection)
        read.reply(value="v")
        lines = client.answers(7)
        self.assertEqual(["disconnected", "connected"] * 3, [line["state"] for line in lines[:6]])
        self.assertEqual(("v", True), (lines[6]["value"], lines[6]["resync"]))
        healed(daemon, 3)
        client.barrier()

    @scene()
    def test_who_has_unsubscribed_meanwhile(self, service, daemon, client):
        store = Store(service, a="v", b="v")
        client.subscribe(keys=["a", "b"])
        service.stop_listening()
        service.connections[-1].reset()
        self.assertEqual("disconnected", client.answer()["state"])
        client.unsubscribe(key="a")
        service.listen()
        healed(daemon, 1)
        self.assertEqual({"b": "v"}, self.resyncs(client))
        self.assertEqual(["b"], store.read)


class Gap(Case):
    """What can't be known is said to be unknown."""

    @scene()
    def test_of_each_pattern(self, service, daemon, client):
        patterns = ["a*", "*\u0000é", "^x*"]
        began = time.time() * 1000
        with daemon.client() as other:
            client.subscribe(patterns=patterns)
            other.subscribe(pattern="a*")
            lose(service, daemon)
            for c, expected in ((client, patterns), (other, ["a*"])):
                lines = c.answers(2 + len(expected))
                self.assertEqual(["disconnected", "connected"], [line["state"] for line in lines[:2]])
                self.assertEqual(set(expected), {line["pattern"] for line in lines[2:]})
                for line in lines[2:]:
                    self.assertEqual({"type", "pattern", "since", "until"}, set(line))
                    self.assertEqual("gap", line["type"])
                    self.assertLessEqual(line["since"], line["until"])
                    self.assertGreaterEqual(line["since"], began - 1000)
                    self.assertLessEqual(line["since"], lines[0]["timestamp"])
                    self.assertLessEqual(line["until"], time.time() * 1000 + 1000)
                c.barrier()

    @scene()
    def test_since_the_service_was_heard_of_last(self, service, daemon, client):
        """... which was before the loss was noticed."""
        client.subscribe(pattern="a*")
        service.publish("a", "v")
        client.change()
        heard = time.time() * 1000
        eventually(lambda: time.time() * 1000 > heard + 300, "a third of a second of silence")
        service.connections[-1].reset()
        lines = client.answers(3)
        self.assertLess(lines[2]["since"], heard + 200)
        self.assertGreater(lines[2]["until"], heard + 200)

    @scene()
    def test_of_a_key_that_can_not_be_read(self, service, daemon, client):
        for code in (403, 400, 500):
            with self.subTest(code):
                service.answer = lambda request, code=code: request.reply(code=code, error="no")
                with daemon.client() as c:
                    c.subscribe(key="k")
                    lose(service, daemon)
                    c.answers(2)
                    self.assertEqual({"type": "gap", "key": "k"}, c.answer())
                    c.barrier()

    @scene(service=WITHHELD, request_timeout="100ms")
    def test_of_a_key_whose_reading_is_never_answered(self, service, daemon, client):
        client.subscribe(key="k", timeoutMs=20000)
        service.connections[-1].reset()
        client.answers(2)
        self.assertEqual({"type": "gap", "key": "k"}, client.answer())
        healed(daemon, 1)
        client.barrier()

    @scene()
    def test_of_no_key_that_is_read_at_the_second_attempt(self, service, daemon, client):
        answers = iter([500])
        service.answer = lambda request: request.reply(**({"code": code} if (code := next(answers, None)) else {"value": "v"}))
        client.subscribe(key="k")
        lose(service, daemon)
        client.answers(2)
        self.assertEqual(("v", True), ((line := client.answer())["value"], line["resync"]))
        client.barrier()


class Reading(Case):
    """Reading again must not be at the cost of those who work."""

    @scene(service=WITHHELD, max_in_flight=4)
    def test_it_stays_behind_clients_requests(self, service, daemon, client):
        keys = [f"k{n}" for n in range(50)]
        client.subscribe(keys=keys)
        service.stop_listening()
        service.connections[-1].reset()
        self.assertEqual("disconnected", client.answer()["state"])
        with daemon.client() as other:
            other.send(*(get(f"other{n}", n) for n in range(40)))
            other.barrier()
            service.listen()
            order = []
            for _ in range(90):
                request = service.next_request()
                order.append(request.key)
                request.reply(value="v")
            self.assertEqual(40, len(other.answers(40)))
        theirs = [i for i, key in enumerate(order) if key.startswith("other")]
        # Readings never take more than a part of the places, and there are some only once nobody else waits.
        self.assertLessEqual(theirs[-1], 44, order)
        self.assertEqual(set(keys), {key for key in order if key.startswith("k")})

    @scene(service=WITHHELD, max_in_flight=8)
    def test_it_leaves_places_free(self, service, daemon, client):
        client.subscribe(keys=[f"k{n}" for n in range(50)])
        service.connections[-1].reset()
        service.wait(lambda: len(service.requests) >= 2, "readings")
        with daemon.client() as other:
            other.send(*(get(f"other{n}", n) for n in range(5)))
            service.wait(lambda: sum(r.key.startswith("other") for r in service.requests) == 5, "the others' requests")
            for request in service.requests:
                if request.key.startswith("other"):
                    request.reply(value="v")
            self.assertEqual(5, len(other.answers(5)))

    @scene(rate_limit=50)
    def test_it_keeps_to_the_rate_limit(self, service, daemon, client):
        store = Store(service)
        client.subscribe(keys=[f"k{n}" for n in range(100)])
        before = daemon.status()["uptimeMs"]
        lose(service, daemon)
        took = daemon.status()["uptimeMs"] - before
        self.assertEqual(100, len(store.read))
        self.assertGreater(took, 900) # 50 may go at once, 50 more take a second
        with daemon.client() as other:
            self.assertEqual(404, other.ask(get("k"))["code"])

    @scene()
    def test_a_429_is_no_answer(self, service, daemon, client):
        refused = set()

        def answer(request):
            if len(refused) < 5 and request.key not in refused:
                refused.add(request.key)
                request.reply(code=429, error="rate limit")
            else:
                request.reply(value="v")

        service.answer = answer
        client.subscribe(keys=[f"k{n}" for n in range(20)])
        lose(service, daemon)
        lines = client.answers(22)[2:]
        self.assertEqual({(f"k{n}", "v") for n in range(20)}, {(line.get("key"), line.get("value")) for line in lines})
        client.barrier()


class Coming(Case):
    """With which token the connection comes back, and what if there is none."""

    @scene()
    def test_with_the_old_one_without_minting_again(self, service, daemon, client):
        client.subscribe(key="k")
        for n in range(3):
            lose(service, daemon)
            self.assertEqual("token-1", service.connections[-1].token)
        self.assertEqual(1, len(service.token_requests))

    @scene()
    def test_with_a_fresh_one_if_that_is_refused(self, service, daemon, client):
        client.subscribe(key="k")
        for status in (401, 403):
            with self.subTest(status):
                old = service.connections[-1].token
                service.upgrade = lambda event, old=old, s=status: (s, {}, b"") if event.target.endswith(old) else None
                lose(service, daemon)
                self.assertNotEqual(old, service.connections[-1].token)
                self.assertEqual("connected", daemon.status()["upstream"]["state"])
                service.publish("k", "v")
                while client.answer().get("value") != "v":
                    pass
        self.assertEqual(3, len(service.token_requests))

    @scene()
    def test_with_a_fresh_one_if_more_is_wanted_by_then(self, service, daemon, client):
        client.subscribe(key="k")
        service.stop_listening()
        service.connections[-1].reset()
        self.assertEqual("disconnected", client.answer()["state"])
        with daemon.client() as other:
            other.send(subscribe(1, key="l"))
            other.barrier()
            service.listen()
            self.assertEqual({"code": 200, "messageId": 1}, other.answer())
        self.assertEqual(["k", "l"], sorted(service.connections[-1].list))

    @scene()
    def test_an_overloaded_service_is_given_the_time_it_asks_for(self, service, daemon, client):
        """That the upgrade was refused for another reason than the token is no reason to mint another."""
        client.subscribe(key="k")
        refused = [] # when
        service.upgrade = lambda event: refused.append(time.monotonic()) or (503, {"Retry-After": "1"}, b"later")
        service.connections[-1].reset()
        service.wait(lambda: len(service.upgrades) > 3, "another upgrade") # behind one with the key, one with the token, one refused
        service.upgrade = None
        eventually(lambda: len(refused) > 1, "its refusal")
        self.assertGreater(refused[1] - refused[0], 0.9)
        healed(daemon, 1)
        self.assertEqual(1, len(service.token_requests))

    @scene(connect_timeout="200ms")
    def test_with_one_that_lists_what_is_subscribed_to(self, service, daemon, client):
        """Not with one that was minted for others meanwhile, and whose connection was never open."""
        Store(service, k="v")
        client.subscribe(key="k")
        client.unsubscribe(key="k")
        with daemon.client() as other:
            service.upgrade = lambda event: "never"
            other.send(subscribe(key="l"))
            service.wait(lambda: any("token-2" in target for target in service.upgrades), "an upgrade for the other")
        daemon.wait_status(lambda s: s["subscriptions"]["waiting"] == 0, "the other has left")
        client.send(subscribe("again", key="k", initial=True))
        self.assertEqual({"code": 200, "messageId": "again"}, client.answer())
        self.assertEqual("v", client.answer()["value"])
        service.upgrade = None
        lose(service, daemon)
        self.assertEqual(["disconnected", "connected"], [line["state"] for line in client.answers(2)])
        self.assertIn("k", service.connections[-1].list)

    @scene()
    def test_without_a_token_requests_work_and_subscriptions_come_back_later(self, service, daemon, client):
        store = Store(service, k="v")
        client.subscribe(key="k", pattern="p*")
        service.upgrade = lambda event: (403, {}, b"") if "token-1" in event.target else None
        service.mint = lambda request: (503, {}, b"down")
        service.connections[-1].reset()
        self.assertEqual("disconnected", client.answer()["state"])
        daemon.wait_status(lambda s: s["upstream"]["reconnects"] == 1, "it is back, with the key")
        status = daemon.status()
        self.assertEqual(("connected", "apiKey"), (status["upstream"]["state"], status["upstream"]["auth"]))
        self.assertIn("503", status["upstream"]["tokenError"])
        self.assertFalse(status["subscriptions"]["live"])
        for n in range(20):
            self.assertEqual("v", client.ask(get("k", n))["value"])
        service.mint = lambda request: "fresh"
        self.assertEqual("connected", client.answer()["state"])
        lines = client.answers(2)
        self.assertEqual({"gap", "notification"}, {line["type"] for line in lines})
        service.publish("p1", "v")
        self.assertEqual(("p1", "v"), client.change())
        self.assertIsNone(daemon.status()["upstream"]["tokenError"])

    @scene()
    def test_lost_in_that_state_too(self, service, daemon, client):
        """The connection with the key is lost as well: that is nothing new to the clients."""
        Store(service, k="v")
        client.subscribe(key="k")
        service.upgrade = lambda event: (403, {}, b"") if "token-1" in event.target else None
        service.mint = lambda request: (503, {}, b"down")
        service.connections[-1].reset()
        for n in (1, 2, 3):
            daemon.wait_status(lambda s, n=n: s["upstream"]["reconnects"] == n, "it is back, with the key")
            service.connections[-1].reset()
        service.mint = lambda request: "fresh"
        self.assertEqual(["disconnected", "connected"], [line["state"] for line in client.answers(2)])
        self.assertEqual(("v", True), ((line := client.answer())["value"], line["resync"]))

    @scene(token_lifetime="1s")
    def test_an_old_one_that_has_ended_is_not_tried(self, service, daemon, client):
        client.subscribe(key="k")
        service.mint = lambda request: (503, {}, b"down")
        daemon.wait_status(lambda s: s["upstream"]["tokenExpiresInMs"] == 0, "the token's end")
        service.mint = lambda request: "fresh"
        upgrades = len(service.upgrades)
        service.connections[-1].reset()
        healed(daemon, 1)
        self.assertTrue(all("fresh" in target for target in service.upgrades[upgrades:]), service.upgrades[upgrades:])


class Killed(Case):
    def test_the_sandbox_is_killed_in_mid_stream(self):
        """Each subscriber is told, and ends with the value that the key has."""
        with Sandbox() as sandbox, Daemon(sandbox, level="info") as daemon, daemon.client() as writer:
            keys = [f"k{n}" for n in range(20)]
            listeners = []
            for n in range(10):
                client = daemon.client()
                client.subscribe(keys=keys[n:n + 10], **({"pattern": "k1*"} if n % 2 else {}), timeoutMs=60000)
                listeners.append(Listener(client))
            stop = threading.Event()
            fault = []

            def write():
                i = 0
                while not stop.is_set():
                    i += 1
                    answer = writer.ask(put(keys[i % 20], str(i)))
                    if answer["code"] != 200 and answer.get("reason") not in ("outcome_unknown", "upstream_down"):
                        fault.append(answer)

            thread = threading.Thread(target=write, daemon=True)
            thread.start()
            for n in (1, 2):
                for listener in listeners:
                    before = len(listener.lines)
                    listener.wait(lambda lines, b=before: len(lines) > b + 20, "changes")
                sandbox.kill()
                for listener in listeners:
                    listener.wait(lambda lines, n=n: sum(x.get("state") == "disconnected" for x in lines) == n, "the loss")
                sandbox.start()
                for listener in listeners:
                    listener.wait(lambda lines, n=n: sum(x.get("state") == "connected" for x in lines) == n, "the return")
            healed(daemon, 2)
            stop.set()
            thread.join(DEADLINE)
            self.assertEqual([], fault)
            with daemon.client() as reader:
                truth = {key: reader.ask(get(key)).get("value") for key in keys}
            for n, listener in enumerate(listeners):
                self.assertEqual(["disconnected", "connected"] * 2, [x["state"] for x in listener.of_type("connection")])
                for key in keys[n:n + 10]:
                    eventually(lambda k=key: listener.values(k) and listener.values(k)[-1] == truth[k],
                               f"{key} being {truth[key]}")
                gaps = listener.of_type("gap")
                self.assertEqual((["k1*"] * 2) if n % 2 else [], [gap.get("pattern") for gap in gaps])
                listener.client.close()
