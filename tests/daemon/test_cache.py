"""Reads that are answered from memory: what is remembered, and what ends that."""

import json
import time

from harness import WITHHELD, Case, Daemon, FakeService, echo, eventually, get, put, scene


def fresh(key, message_id=None, **more):
    return get(key, message_id, fresh=True, **more)


class Store:
    """What a FakeService answers with: records in memory, whose changes it makes known."""

    def __init__(self, **records):
        self.records = dict(records)
        self.service = None
        self.notify = True
        self.asked = []

    def __call__(self, request):
        self.asked.append((request.op, request.key))
        if request.op == 1:
            if request.key not in self.records:
                return request.reply_raw('{"code":404,"error":"Record not found","messageId":<id>}')
            return request.reply(key=request.key, value=self.records[request.key])
        if request.op == 2:
            self.records[request.key] = request.obj["value"]
            request.reply(success=True)
            if self.notify:
                self.service.publish(request.key, request.obj["value"])
            return None
        return echo(request)

    def change(self, key, value):
        """Somebody else's."""
        self.records[key] = value
        self.service.publish(key, value)

    def n(self, op=1):
        return sum(o == op for o, _ in self.asked)


def live(daemon):
    """Waits until reads are remembered."""
    return daemon.wait_status(lambda s: s["cache"]["live"], "a cache that is live")


def cached(answer):
    return answer.get("cached", False)


def remember(client, key):
    """Gets it until it is served from memory: what comes late may end the first."""
    eventually(lambda: cached(client.ask(get(key))), f"{key} to be remembered")


class Memory(Case):
    """What is remembered, and how it is told."""

    def test_the_second_answer_is_the_first_one_byte_for_byte_and_says_so(self):
        def answer(request):
            request.reply_raw('{ "more" : [1, {"messageId":2}],"messageId": <id> ,"code":200,"key":"k:1","value":"\\u00e9 \\/"} ')

        with FakeService(answer=answer) as service, Daemon(service, keys="k:*") as daemon, daemon.client() as client:
            live(daemon)
            for message_id in ("seven", 7):
                client.send(fresh("k:1", message_id))
                first = client.line()
                client.send(get("k:1", message_id))
                self.assertEqual(first.rstrip()[:-1] + b',"cached":true}', client.line().rstrip())
            client.send(fresh("k:1"))
            first = client.line()
            client.send(get("k:1"))
            second = client.line()
            self.assertEqual(first.rstrip()[:-1] + b',"cached":true}', second.rstrip())
            self.assertNotIn("messageId", json.loads(second))
            self.assertEqual(3, len(service.requests))

    def test_a_missing_key_is_remembered_like_a_value(self):
        store = Store()
        with FakeService(answer=store) as store.service, Daemon(store.service, keys="k:*") as daemon, daemon.client() as client:
            live(daemon)
            self.assertEqual({"code": 404, "error": "Record not found", "messageId": 1}, client.ask(get("k:1", 1)))
            self.assertEqual({"code": 404, "error": "Record not found", "messageId": 2, "cached": True}, client.ask(get("k:1", 2)))
            store.change("k:1", "now")
            eventually(lambda: client.ask(get("k:1"))["code"] == 200, "the new value")

    def test_other_keys_and_errors_are_asked_for_each_time(self):
        codes = {"k:bad": 500}

        def answer(request):
            if request.key in codes:
                return request.reply(code=codes[request.key], error="no")
            return echo(request)

        with FakeService(answer=answer) as service, Daemon(service, keys="k:*") as daemon, daemon.client() as client:
            live(daemon)
            for key in ("other", "k:bad"):
                for _ in range(3):
                    self.assertFalse(cached(client.ask(get(key))))
            self.assertEqual(6, len(service.requests))

    def test_without_keys_and_mirrors_nothing_is_subscribed_to_or_remembered(self):
        with FakeService() as service, Daemon(service) as daemon, daemon.client() as client:
            daemon.wait_state("connected")
            for _ in range(2):
                self.assertFalse(cached(client.ask(get("k:1"))))
            self.assertEqual([], service.token_requests)

    def test_fresh_is_true_or_false(self):
        store = Store(**{"k:1": "a"})
        with FakeService(answer=store) as store.service, Daemon(store.service, keys="k:*") as daemon, daemon.client() as client:
            live(daemon)
            remember(client, "k:1")
            self.assertFalse(cached(client.ask(fresh("k:1"))))
            self.assertTrue(cached(client.ask(get("k:1", fresh=False))))
            for wrong in (1, "true", None, []):
                self.assert_error(client.ask(get("k:1", 5, fresh=wrong)), 400, "bad_request", "no", 5)
            self.assertTrue(all("fresh" not in r.obj for r in store.service.requests))

    @scene(WITHHELD, keys="k:*")
    def test_fresh_renews_what_is_remembered(self, service, daemon, client):
        """Even if the service has forgotten to tell of the change."""
        live(daemon)
        OwnWrites.fill(self, service, client)
        for value in ("b", "c"):
            client.send(fresh("k:1", 1))
            service.next_request().reply(key="k:1", value=value)
            self.assertEqual({"code": 200, "messageId": 1, "key": "k:1", "value": value}, client.answer())
            client.send(get("k:1", 2))
            self.assertTrue(service.no_more_requests())
            self.assertEqual((value, True), (lambda a: (a["value"], cached(a)))(client.answer()))

    @scene(WITHHELD, keys="k:*")
    def test_a_fresh_get_that_crosses_with_another_answer_renews_nothing(self, service, daemon, client):
        """Which of the two is newer is not known."""
        live(daemon)
        with daemon.client() as other:
            client.send(fresh("k:1", 1))
            first = service.next_request()
            other.send(fresh("k:1", 2))
            service.next_request().reply(key="k:1", value="b")
            self.assertEqual("b", other.answer()["value"])
            first.reply(key="k:1", value="a")
            self.assertEqual("a", client.answer()["value"])
            client.send(get("k:1", 3))
            service.next_request().reply(key="k:1", value="b")
            self.assertFalse(cached(client.answer()))

    def test_a_value_beyond_memory_is_not_remembered_and_ends_nothing(self):
        store = Store(**{"k:1": "a", "k:big": "v" * 70000})
        with FakeService(answer=store) as store.service, Daemon(store.service, keys="k:*", memory="64K") as daemon, \
                daemon.client() as client:
            live(daemon)
            remember(client, "k:1")
            for _ in range(2):
                self.assertFalse(cached(client.ask(get("k:big"))))
            self.assertTrue(cached(client.ask(get("k:1"))))

    def test_the_subscriptions_of_the_cache_are_not_among_those_of_clients(self):
        with FakeService() as service, Daemon(service, keys="k:* exact", mirror="m:*") as daemon, daemon.client() as client:
            status = live(daemon)
            self.assertEqual({"keys": 0, "patterns": 0, "total": 0, "waiting": 0},
                             {k: status["subscriptions"][k] for k in ("keys", "patterns", "total", "waiting")})
            client.subscribe(keys=["exact", "k:1"], pattern="k:*")
            status = daemon.status()["subscriptions"]
            self.assertEqual((2, 1, 3), (status["keys"], status["patterns"], status["total"]))
            self.assertIn("k:*", service.token_requests[0].list)

    def test_what_was_used_last_is_kept(self):
        store = Store(**{f"k:{i}": "v" * 3000 for i in range(60)})
        with FakeService(answer=store) as store.service, Daemon(store.service, keys="k:*", memory="64K") as daemon, \
                daemon.client() as client:
            live(daemon)
            for i in range(20):
                client.ask(get(f"k:{i}"))
            for _ in range(2):
                self.assertTrue(cached(client.ask(get("k:0"))))
                for i in range(20, 30):
                    client.ask(get(f"k:{i}"))
            self.assertTrue(cached(client.ask(get("k:0"))))
            self.assertFalse(cached(client.ask(get("k:1"))))
            self.assertLessEqual(daemon.status()["cache"]["bytes"], 65536)

    def test_nothing_is_believed_for_longer_than_max_age(self):
        store = Store(**{"k:1": "a"})
        with FakeService(answer=store) as store.service, Daemon(store.service, keys="k:*", max_age="1s") as daemon, \
                daemon.client() as client:
            live(daemon)
            remember(client, "k:1")
            store.records["k:1"] = "b" # and the service forgets to say so
            eventually(lambda: client.ask(get("k:1"))["value"] == "b", "the value to be read again")

    def test_access_rules_hold(self):
        store = Store(**{"k:1": "a"})
        with FakeService(answer=store) as store.service, \
                Daemon(store.service, keys="k:*", access={"all": {"user": "root", "read": "k:*", "write": "k:*"}}) as daemon, \
                daemon.client() as client:
            live(daemon)
            remember(client, "k:1")
            daemon.reload(access={"all": {"user": "root", "read": "other", "write": "k:*"}})
            self.assert_error(client.ask(get("k:1", 1)), 403, "forbidden", "no", 1)

    def test_hits_and_misses_are_counted(self):
        store = Store(**{"k:1": "a"})
        with FakeService(answer=store) as store.service, Daemon(store.service, keys="k:*") as daemon, daemon.client() as client:
            live(daemon)
            for _ in range(4):
                client.ask(get("k:1"))
            client.ask(get("other"))
            stats = daemon.stats()
            self.assertEqual((3, 1, 3), (stats["cache_hits"], stats["cache_misses"], stats["requests_saved"]))
            self.assertEqual(1, stats["cache_entries"])


class Http(Case):
    @staticmethod
    def fetch(daemon, path):
        """Status, the header about memory, and the body of one GET."""
        with daemon.client() as c:
            c.send_raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            data = b""
            while more := c.sock.recv(65536):
                data += more
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        header = [line.split(": ")[1] for line in lines if line.lower().startswith("x-hpkvd-cache:")]
        return int(lines[0].split()[1]), header, json.loads(body)

    def test_a_header_tells_and_a_parameter_asks_the_service(self):
        store = Store(**{"k:1": "a"})
        with FakeService(answer=store) as store.service, Daemon(store.service, keys="k:*", max_stale="1h") as daemon:
            live(daemon)
            self.assertEqual((200, ["miss"], "a"), (lambda s, h, b: (s, h, b["value"]))(*self.fetch(daemon, "/record/k:1")))
            self.assertEqual((200, ["hit"], True), (lambda s, h, b: (s, h, b["cached"]))(*self.fetch(daemon, "/record/k:1")))
            self.assertEqual(["miss"], self.fetch(daemon, "/record/k:1?fresh=true")[1])
            self.assertEqual((404, ["miss"]), self.fetch(daemon, "/record/k:2")[:2])
            self.assertEqual((404, ["hit"]), self.fetch(daemon, "/record/k:2")[:2])
            self.assertEqual(400, self.fetch(daemon, "/record/k:1?fresh=maybe")[0])
            store.service.stop_listening()
            store.service.hang_up()
            daemon.wait_status(lambda s: s["upstream"]["state"] != "connected", "the loss")
            self.assertEqual((200, ["stale"]), self.fetch(daemon, "/record/k:1")[:2])


class OwnWrites(Case):
    """From its acceptance until its answer a write forbids the old value, and then only what was read later is served."""

    @scene(WITHHELD, keys="k:*")
    def test_a_write_that_is_not_answered_yet_forbids_the_old_value(self, service, daemon, client):
        live(daemon)
        self.fill(service, client)
        with daemon.client() as writer:
            writer.send(put("k:1", "b", 1))
            write = service.next_request()
            client.send(get("k:1", 2))
            read = service.next_request() # it is asked of the service
            read.reply(key="k:1", value="a") # and may have come before the write
            self.assertEqual("a", client.answer()["value"])
            client.send(get("k:1", 3))
            service.next_request().reply(key="k:1", value="b")
            self.assertFalse(cached(client.answer()))
            write.reply(success=True)
            writer.answer()
            client.send(get("k:1", 4)) # nothing of what was read meanwhile is served
            service.next_request().reply(key="k:1", value="b")
            self.assertEqual({"code": 200, "messageId": 4, "key": "k:1", "value": "b"}, client.answer())
            self.assertTrue(cached(client.ask(get("k:1", 5))))

    @scene(WITHHELD, keys="k:*")
    def test_a_get_that_was_sent_before_the_answer_to_a_write_is_not_remembered(self, service, daemon, client):
        live(daemon)
        with daemon.client() as writer:
            writer.send(put("k:1", "b", 1))
            write = service.next_request()
            client.send(get("k:1", 2))
            read = service.next_request()
            write.reply(success=True)
            writer.answer()
            read.reply(key="k:1", value="a")
            self.assertEqual("a", client.answer()["value"])
            client.send(get("k:1", 3))
            service.next_request().reply(key="k:1", value="b")
            self.assertFalse(cached(client.answer()))

    @scene(WITHHELD, keys="k:*")
    def test_a_write_with_unknown_outcome_forbids_the_old_value(self, service, daemon, client):
        live(daemon)
        self.fill(service, client)
        with daemon.client() as writer:
            writer.send(put("k:1", "b", 1, timeoutMs=300))
            service.next_request()
            self.assert_error(writer.answer(), 504, "timeout", "unknown", 1)
        client.send(get("k:1", 3))
        service.next_request().reply(key="k:1", value="b")
        self.assertFalse(cached(client.answer()))

    @scene(WITHHELD, keys="k:*")
    def test_the_write_of_a_client_that_has_left_still_counts(self, service, daemon, client):
        live(daemon)
        self.fill(service, client)
        with daemon.client() as writer:
            writer.send(put("k:1", "b", 1))
            write = service.next_request()
        daemon.wait_status(lambda s: s["clients"] <= 2, "the writer to be gone")
        client.send(get("k:1", 2))
        service.next_request().reply(key="k:1", value="a")
        self.assertFalse(cached(client.answer()))
        write.reply(success=True)
        client.send(get("k:1", 3))
        service.next_request().reply(key="k:1", value="b")
        self.assertEqual("b", client.answer()["value"])

    @scene(WITHHELD, keys="k:*")
    def test_writes_that_are_under_way_when_the_cache_is_turned_on_count(self, service, daemon, client):
        daemon.reload(keys="other:*")
        with daemon.client() as writer:
            writer.send(put("k:1", "b", 1))
            write = service.next_request()
            daemon.reload(keys="k:*")
            live(daemon)
            client.send(get("k:1", 2))
            service.next_request().reply(key="k:1", value="a")
            client.answer()
            client.send(get("k:1", 3))
            service.next_request().reply(key="k:1", value="a")
            self.assertFalse(cached(client.answer()))
            write.reply(success=True)
            writer.answer()
            client.send(get("k:1", 4))
            service.next_request().reply(key="k:1", value="b")
            self.assertEqual("b", client.answer()["value"])

    @scene(WITHHELD, keys="k:*")
    def test_a_get_behind_the_own_get_that_is_on_its_way_waits_its_turn(self, service, daemon, client):
        """Else the later one could be told an older value than the earlier."""
        live(daemon)
        client.send(get("k:1", 1))
        slow = service.next_request()
        with daemon.client() as other:
            other.send(get("k:1", 2))
            service.next_request().reply(key="k:1", value="a")
            other.answer()
            self.assertTrue(cached(other.ask(get("k:1", 3))))
            client.send(get("k:1", 4))
            behind = service.next_request()
            slow.reply(key="k:1", value="b") # newer, and its notification is late
            self.assertEqual("b", client.answer()["value"])
            behind.reply(key="k:1", value="b")
            self.assertEqual("b", client.answer()["value"])
            other.send(get("k:1", 5)) # nobody is told the older one again
            service.next_request().reply(key="k:1", value="b")
            self.assertEqual("b", other.answer()["value"])

    def fill(self, service, client):
        client.send(get("k:1", 0))
        service.next_request().reply(key="k:1", value="a")
        client.answer()
        self.assertTrue(cached(client.ask(get("k:1", 0))))


class Elsewhere(Case):
    """Changes by others."""

    @scene(WITHHELD, keys="k:*")
    def test_a_notification_ends_the_value(self, service, daemon, client):
        live(daemon)
        OwnWrites.fill(self, service, client)
        service.publish("k:1", "b")
        service.all_told()
        client.send(get("k:1", 1))
        service.next_request().reply(key="k:1", value="b")
        self.assertFalse(cached(client.answer()))
        self.assertTrue(cached(client.ask(get("k:1", 2))))

    @scene(WITHHELD, keys="k:*")
    def test_a_get_that_crosses_with_a_notification_is_not_remembered(self, service, daemon, client):
        live(daemon)
        client.send(get("k:1", 1))
        read = service.next_request()
        service.publish("k:1", "b")
        read.reply(key="k:1", value="a")
        client.answer()
        client.send(get("k:1", 2))
        service.next_request().reply(key="k:1", value="b")
        self.assertFalse(cached(client.answer()))

    @scene(WITHHELD, keys="k:*")
    def test_a_key_written_with_escapes_is_the_same(self, service, daemon, client):
        live(daemon)
        OwnWrites.fill(self, service, client)
        client.send_raw(b'{"op":"get","key":"\\u006b:1","messageId":9}\n')
        self.assertTrue(cached(client.answer()))
        with service.publishing:
            service.publish_text("k:1", service.change("k:1", "b").replace('"k:1"', '"k\\u003a1"'))
        service.all_told()
        client.send(get("k:1", 1))
        service.next_request().reply(key="k:1", value="b")
        self.assertFalse(cached(client.answer()))

    @scene(WITHHELD, keys="k:*")
    def test_an_unreadable_message_ends_all(self, service, daemon, client):
        for text in ('{"type":"notification","key":"k:1","value":', '{"type":"notification"', "nonsense", "[]"):
            live(daemon)
            client.send(fresh("k:1", 0))
            service.next_request().reply(key="k:1", value="a")
            client.answer()
            self.assertTrue(cached(client.ask(get("k:1", 0))), text)
            service.audience("k:1")[-1].send_text(text)
            service.all_told()
            client.send(get("k:1", 1))
            service.next_request().reply(key="k:1", value="a")
            self.assertFalse(cached(client.answer()), text)

    @scene(WITHHELD, keys="k:*")
    def test_a_range_that_tells_another_value_ends_the_remembered_one(self, service, daemon, client):
        live(daemon)
        for i, records in enumerate(([{"key": "k:0", "value": "b"}], [{"key": "k:2", "value": "b"}])):
            client.send(get(f"k:{i}", 0))
            service.next_request().reply(key=f"k:{i}", value="a")
            client.answer()
            self.assertTrue(cached(client.ask(get(f"k:{i}", 0))))
            client.send({"op": "range", "key": "k:", "endKey": "k:~", "messageId": 1})
            service.next_request().reply(records=records, count=len(records), truncated=False)
            client.answer()
            client.send(get(f"k:{i}", 2))
            service.next_request().reply(key=f"k:{i}", value="c")
            self.assertFalse(cached(client.answer()))

    @scene(WITHHELD, keys="k:*")
    def test_what_the_next_connection_brings_counts_when_it_arrives(self, service, daemon, client):
        """In a handover changes of the next connection are held back until the present one has brought them."""
        live(daemon)
        OwnWrites.fill(self, service, client)
        first = service.connection(len(service.connections))
        service.pong = False # the handover does not come to its end
        with daemon.client() as other:
            other.send({"op": "subscribe", "key": "other", "messageId": 1})
            service.wait(lambda: len([c for c in service.connections if c.open]) > 1, "the next connection")
            following = service.connections[-1]
            self.assertIsNot(first, following)
            following.send_change(service.change("k:1", "b"))
            following.send_frame(9, b"behind it")
            service.wait(lambda: following.pongs > 0, "a pong")
            client.send(get("k:1", 1))
            service.next_request().reply(key="k:1", value="b")
            self.assertFalse(cached(client.answer()))


class Loss(Case):
    """Without a connection nothing is known."""

    @scene(WITHHELD, keys="k:*")
    def test_after_a_loss_nothing_is_served_of_before(self, service, daemon, client):
        live(daemon)
        OwnWrites.fill(self, service, client)
        service.hang_up()
        eventually(lambda: daemon.status()["upstream"]["reconnects"], "another connection")
        live(daemon)
        client.send(get("k:1", 1))
        service.next_request().reply(key="k:1", value="b")
        self.assertEqual({"code": 200, "messageId": 1, "key": "k:1", "value": "b"}, client.answer())

    def test_max_stale_serves_marked_values_until_the_connection_is_back(self):
        store = Store(**{"k:1": "a"})
        with FakeService(answer=store) as store.service, \
                Daemon(store.service, keys="k:*", max_stale="1h", backoff_min="20ms") as daemon, daemon.client() as client:
            live(daemon)
            remember(client, "k:1")
            store.service.stop_listening()
            store.service.hang_up()
            daemon.wait_status(lambda s: s["upstream"]["state"] != "connected", "the loss")
            answer = client.ask(get("k:1", 1))
            self.assertEqual(["code", "messageId", "key", "value", "cached", "stale", "ageMs"], list(answer))
            self.assertEqual((True, True), (answer["cached"], answer["stale"]))
            self.assertGreaterEqual(answer["ageMs"], 0)
            store.records["k:1"] = "b"
            store.service.listen()
            daemon.wait_state("connected")
            self.assertEqual("b", client.ask(get("k:1"))["value"])
            self.assertGreaterEqual(daemon.stats()["cache_stale_hits"], 1)

    def test_max_stale_ends(self):
        store = Store(**{"k:1": "a"})
        with FakeService(answer=store) as store.service, \
                Daemon(store.service, keys="k:*", max_stale="50ms") as daemon, daemon.client() as client:
            live(daemon)
            remember(client, "k:1")
            store.service.stop_listening()
            store.service.hang_up()
            daemon.wait_status(lambda s: s["upstream"]["state"] != "connected", "the loss")
            eventually(lambda: client.ask(get("k:1", 1, timeoutMs=1)).get("reason") == "upstream_down", "the end of it")

    def test_an_own_write_ends_a_stale_value_too(self):
        store = Store(**{"k:1": "a"})
        with FakeService(answer=store) as store.service, \
                Daemon(store.service, keys="k:*", max_stale="1h") as daemon, daemon.client() as client:
            live(daemon)
            remember(client, "k:1")
            store.service.stop_listening()
            store.service.hang_up()
            daemon.wait_status(lambda s: s["upstream"]["state"] != "connected", "the loss")
            self.assert_error(client.ask(put("k:1", "b", 1, timeoutMs=1)), 503, "upstream_down", "no", 1)
            self.assert_error(client.ask(get("k:1", 2, timeoutMs=1)), 503, "upstream_down", "no", 2)


class Reload(Case):
    def test_other_globs_take_effect(self):
        store = Store(**{"k:1": "a", "l:1": "b"})
        with FakeService(answer=store) as store.service, Daemon(store.service, keys="k:*") as daemon, daemon.client() as client:
            live(daemon)
            remember(client, "k:1")
            self.assertTrue(daemon.reload(keys="l:*"))
            remember(client, "l:1")
            self.assertFalse(cached(client.ask(get("k:1"))))
            self.assertTrue(daemon.reload(keys=None))
            for _ in range(2):
                self.assertFalse(cached(client.ask(get("l:1"))))

    @scene(WITHHELD, keys="other:*")
    def test_what_a_get_of_before_has_told_counts(self, service, daemon, client):
        """The older answer to a later get, which the globs concern already, is not remembered."""
        live(daemon)
        client.send(get("k:1", 1))
        before = service.next_request()
        daemon.reload(keys="k:*")
        live(daemon)
        with daemon.client() as other:
            other.send(get("k:1", 2))
            later = service.next_request()
            before.reply(key="k:1", value="b")
            self.assertEqual("b", client.answer()["value"])
            later.reply(key="k:1", value="a")
            self.assertEqual("a", other.answer()["value"])
            other.send(get("k:1", 3))
            service.next_request().reply(key="k:1", value="b")
            self.assertFalse(cached(other.answer()))

    def test_another_service_is_another_truth(self):
        old, new = Store(**{"k:1": "old"}), Store(**{"k:1": "new"})
        with FakeService(answer=old) as old.service, FakeService(answer=new) as new.service, \
                Daemon(old.service, keys="k:*") as daemon, daemon.client() as client:
            live(daemon)
            remember(client, "k:1")
            daemon.reload(url=new.service.url)
            self.assertFalse(cached(client.ask(get("k:1")))) # of whichever it is asked
            daemon.wait_status(lambda s: str(new.service.port) in s["upstream"]["url"], "the new service")
            self.assertEqual("new", client.ask(get("k:1"))["value"])
            live(daemon)
            remember(client, "k:1")
            self.assertEqual("new", client.ask(get("k:1"))["value"])

    def test_wrong_settings_are_named(self):
        with FakeService() as service, Daemon(service, keys="k:*") as daemon:
            for wrong, text in ((dict(mirror="a*b"), b"[cache] mirror: 'a*b' is not a text with one * at its end"),
                                (dict(mirror="a:* a:b:*"), b"'a:*' and 'a:b:*': one lies inside the other"),
                                (dict(notification_values="maybe"), b"reread trust"),
                                (dict(memory="1"), b"[cache] memory"), (dict(max_age="0"), b"[cache] max_age")):
                before = dict(daemon.settings)
                self.assertFalse(daemon.reload(**wrong))
                self.assertIn(text, daemon.log())
                daemon.settings = before


class Trust(Case):
    """The value of a notification, where the settings say that it is the stored one."""

    def test_a_changed_value_is_not_read_again(self):
        store = Store(**{"k:1": "a"})
        with FakeService(answer=store) as store.service, \
                Daemon(store.service, keys="k:*", notification_values="trust", request_timeout="100ms") as daemon, \
                daemon.client() as client:
            live(daemon)
            remember(client, "k:1")
            n = store.n()

            def taken():
                time.sleep(0.12)
                store.change("k:1", f"b{time.monotonic()}")
                store.service.all_told()
                answer = client.ask(get("k:1"))
                return cached(answer) and answer["value"] == store.records["k:1"]

            eventually(taken, "a value from a notification")
            self.assertGreaterEqual(store.n(), n)

    @scene(WITHHELD, keys="k:*", notification_values="trust")
    def test_a_notification_behind_another_answer_is_asked_for(self, service, daemon, client):
        """It may be of before."""
        live(daemon)
        OwnWrites.fill(self, service, client)
        service.publish("k:1", "older")
        service.all_told()
        client.send(get("k:1", 1))
        service.next_request().reply(key="k:1", value="a")
        self.assertFalse(cached(client.answer()))

    @scene(WITHHELD, keys="k:*", notification_values="trust")
    def test_a_notification_of_the_same_value_changes_nothing(self, service, daemon, client):
        live(daemon)
        OwnWrites.fill(self, service, client)
        service.publish("k:1", "a")
        service.all_told()
        self.assertTrue(cached(client.ask(get("k:1", 1))))

    @scene(WITHHELD, keys="k:*", notification_values="trust")
    def test_one_that_comes_while_the_key_is_read_is_not_taken(self, service, daemon, client):
        """It may be older than what an answer has told that is forgotten."""
        live(daemon)
        OwnWrites.fill(self, service, client)
        client.send({"op": "range", "key": "k:", "endKey": "k:~", "messageId": 1})
        service.next_request().reply(records=[{"key": "k:1", "value": "b"}], count=1, truncated=False)
        client.answer()
        with daemon.client() as other:
            other.send(get("k:1", 2))
            read = service.next_request()
            service.publish("k:1", "a") # of before b
            service.all_told()
            client.send(get("k:1", 3))
            behind = service.next_request()
            read.reply(key="k:1", value="b")
            behind.reply(key="k:1", value="b")
            self.assertEqual(["b", "b"], [other.answer()["value"], client.answer()["value"]])

    @scene(WITHHELD, keys="k:*", notification_values="trust", request_timeout="10m")
    def test_an_answer_that_is_not_remembered_still_counts(self, service, daemon, client):
        """A get of before the notification has told another value than that, and later ones may be older."""
        live(daemon)
        client.send(get("k:1", 1))
        read = service.next_request()
        service.publish("k:1", "a")
        service.all_told()
        read.reply(key="k:1", value="b") # was executed behind the next change
        self.assertEqual("b", client.answer()["value"])
        service.publish("k:1", "between")
        service.all_told()
        client.send(get("k:1", 2))
        service.next_request().reply(key="k:1", value="b")
        self.assertFalse(cached(client.answer()))
