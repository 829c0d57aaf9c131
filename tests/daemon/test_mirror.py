"""Mirrors: loaded in pages, kept whole; gets, misses and ranges are answered from memory."""

import threading
import time

from harness import WITHHELD, Case, Daemon, FakeService, Sandbox, echo, eventually, get, put, scene


def fetch(first, last, message_id=None, **more):
    return {"op": "range", "key": first, "endKey": last} | more | ({} if message_id is None else {"messageId": message_id})


class Records:
    """A FakeService's answers, from records in memory whose changes it makes known. most: records of a page."""

    def __init__(self, records, most=1000):
        self.records, self.most = dict(records), most
        self.service = None
        self.lock = threading.Lock()
        self.asked = []

    def range(self, request):
        limit = min(int(request.obj.get("limit", 100)), self.most)
        inside = sorted((k for k in self.records if request.key <= k <= request.obj["endKey"]), key=lambda k: k.encode())
        return request.reply(records=[{"key": k, "value": self.records[k]} for k in inside[:limit]],
                             count=len(inside[:limit]), truncated=len(inside) > limit)

    def __call__(self, request):
        with self.lock:
            self.asked.append((request.op, request.key))
            if request.op == 5:
                return self.range(request)
            if request.op == 1 and request.key in self.records:
                return request.reply(key=request.key, value=self.records[request.key])
            if request.op in (1, 4) and request.key not in self.records:
                return request.reply_raw('{"code":404,"error":"Record not found","messageId":<id>}')
            if request.op == 4:
                del self.records[request.key]
            elif request.op == 2:
                self.records[request.key] = request.obj["value"]
            else:
                return echo(request)
            request.reply(success=True, message="done")
            return self.service.publish(request.key, self.records.get(request.key))

    def change(self, key, value):
        with self.lock:
            if value is None:
                self.records.pop(key, None)
            else:
                self.records[key] = value
            self.service.publish(key, value)

    def n(self, op=1):
        return sum(o == op for o, _ in self.asked)


def mirrored(records, most=1000, mirror="m:*", **settings):
    """Runs a case with the records, a daemon that has loaded them, and a client."""

    def decorate(test):
        def run(self):
            store = Records(records, most)
            with FakeService(answer=store) as store.service, Daemon(store.service, mirror=mirror, **settings) as daemon, \
                    daemon.client() as client:
                whole(daemon)
                test(self, store, daemon, client)
        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate


def state(daemon, i=0):
    return daemon.status()["cache"]["mirrors"][i]


def whole(daemon, i=0):
    return eventually(lambda: (m := state(daemon, i))["state"] == "whole" and m, "a whole mirror")


def cached(answer):
    return answer.get("cached", False)


def settled(client, request, probe=lambda a: True):
    """Asks until the answer is from memory and right: a changed key is asked of the service until it was read again."""
    return eventually(lambda: cached(a := client.ask(request)) and probe(a) and a, "an answer from memory")


MANY = {f"m:{i:05}": f"value {i}" for i in range(2500)}


class Reads(Case):
    @mirrored(MANY | {"l": "before", "n": "behind"})
    def test_gets_misses_and_ranges_are_local(self, store, daemon, client):
        self.assertEqual({"pattern": "m:*", "state": "whole", "keys": 2500}, state(daemon))
        self.assertEqual(3, store.n(5))
        store.asked.clear()
        self.assertEqual({"code": 200, "key": "m:00007", "value": "value 7", "messageId": 1, "cached": True},
                         client.ask(get("m:00007", 1)))
        self.assertEqual({"code": 404, "error": "Record not found", "messageId": 2, "cached": True}, client.ask(get("m:x", 2)))
        client.send(fetch("m:00007", "m:00008", 3))
        self.assertEqual(b'{"code":200,"records":[{"key":"m:00007","value":"value 7"},{"key":"m:00008","value":"value 8"}],'
                         b'"count":2,"truncated":false,"messageId":3,"cached":true}', client.line().rstrip())
        self.assertEqual((100, True), (lambda a: (a["count"], a["truncated"]))(client.ask(fetch("m:", "m:~"))))
        self.assertEqual((1000, True), (lambda a: (a["count"], a["truncated"]))(client.ask(fetch("m:", "m:~", limit=5000))))
        self.assertEqual([], store.asked)
        self.assertFalse(cached(client.ask(get("l"))))
        self.assertFalse(cached(client.ask(fetch("l", "m:~"))))
        self.assertFalse(cached(client.ask(fetch("m:2", "m:1"))))
        for wrong in (0, -1, 1.5):
            self.assertFalse(cached(client.ask(fetch("m:", "m:~", limit=wrong))))
        self.assertFalse(cached(client.ask(fetch("m:", "m:~", fresh=True))))

    @mirrored({f"m:{i:03}": "v" for i in range(300)}, most=70)
    def test_a_service_that_answers_with_fewer_records_lowers_the_maximum(self, store, daemon, client):
        self.assertEqual(300, state(daemon)["keys"])
        answer = client.ask(fetch("m:", "m:~", limit=200))
        self.assertEqual((70, True, True), (answer["count"], answer["truncated"], answer["cached"]))

    @mirrored({"m:é\u0001\"": "a\"\\\u0007", "m:\U0001f600": "b", "m:": "empty", "m;": "behind"})
    def test_all_keys_with_the_prefix_and_no_others_belong_to_it(self, store, daemon, client):
        self.assertEqual(3, state(daemon)["keys"])
        for key in ("m:é\u0001\"", "m:\U0001f600", "m:"):
            self.assertEqual((store.records[key], True), (lambda a: (a["value"], cached(a)))(client.ask(get(key))))
        self.assertFalse(cached(client.ask(get("m;"))))

    def test_the_whole_service_may_be_mirrored(self):
        store = Records({"a": "1", "\U0010fffe": "2", "z": "3"})
        with FakeService(answer=store) as store.service, Daemon(store.service, mirror="*") as daemon, daemon.client() as client:
            self.assertEqual(3, whole(daemon)["keys"])
            self.assertTrue(cached(client.ask(get("z"))))
            self.assertEqual(404, settled(client, get("none"))["code"])


class Changes(Case):
    @mirrored(MANY)
    def test_a_change_is_read_again_once_and_then_local(self, store, daemon, client):
        store.asked.clear()
        for key, value in (("m:00001", "new"), ("m:other", "created"), ("m:00002", None)):
            store.change(key, value)
        store.service.all_told()
        self.assertEqual("new", settled(client, get("m:00001"), lambda a: a["value"] == "new")["value"])
        settled(client, get("m:other"), lambda a: a.get("value") == "created")
        settled(client, get("m:00002"), lambda a: a["code"] == 404)
        self.assertEqual(2500, state(daemon)["keys"])
        self.assertGreaterEqual(daemon.stats()["cache_rereads"], 3)
        answer = settled(client, fetch("m:00001", "m:00003"))
        self.assertEqual([("m:00001", "new"), ("m:00003", "value 3")], [(r["key"], r["value"]) for r in answer["records"]])

    @mirrored({"m:1": "a", "m:2": "b"})
    def test_own_writes_are_read(self, store, daemon, client):
        for i in range(20):
            self.assertEqual(200, client.ask(put("m:1", f"v{i}"))["code"])
            self.assertEqual(f"v{i}", client.ask(get("m:1"))["value"])
            self.assertEqual([f"v{i}", "b"], [r["value"] for r in client.ask(fetch("m:", "m:~"))["records"]])
        self.assertEqual(200, client.ask({"op": "delete", "key": "m:2"})["code"])
        self.assertEqual(404, client.ask(get("m:2"))["code"])
        self.assertEqual(200, client.ask(put("m:3", "c"))["code"])
        self.assertEqual(["m:1", "m:3"], [r["key"] for r in client.ask(fetch("m:", "m:~"))["records"]])

    @mirrored({"m:1": "a"})
    def test_a_range_over_a_write_that_is_not_answered_is_asked_for(self, store, daemon, client):
        store.service.answer = lambda request: None if request.op == 2 else store(request)
        with daemon.client() as writer:
            writer.send(put("m:2", "b", 1))
            store.service.wait(lambda: store.service.requests[-1].op == 2, "the write")
            self.assertFalse(cached(client.ask(fetch("m:", "m:~"))))
            self.assertFalse(cached(client.ask(get("m:2"))))
            self.assertTrue(cached(client.ask(get("m:1"))))

    @scene(WITHHELD, mirror="m:*")
    def test_a_change_that_crosses_with_its_page_is_not_overwritten_by_it(self, service, daemon, client):
        page = service.next_request()
        for key in ("m:1", "m:new"):
            service.publish(key, "b")
        page.reply(records=[{"key": "m:1", "value": "a"}, {"key": "m:2", "value": "a"}], count=2, truncated=False)
        reads = {r.key: r for r in service.next_requests(2)}
        self.assertEqual({"m:1", "m:new"}, set(reads))
        client.send(get("m:1", 1), get("m:new", 2))
        for r in [*reads.values(), *service.next_requests(2)]:
            r.reply(key=r.key, value="b")
        self.assertEqual(["b", "b"], [a["value"] for a in client.answers(2)])
        self.assertTrue(cached(client.ask(get("m:2", 3))))
        self.assertEqual("b", settled(client, get("m:new", 4))["value"])


class Whole(Case):
    """404 is said only by a mirror that is whole."""

    @scene(WITHHELD, mirror="m:*")
    def test_until_it_is_loaded_what_is_missing_is_asked_for(self, service, daemon, client):
        first = service.next_request()
        self.assertEqual((5, "m:", "m;", 1000), (first.op, first.key, first.obj["endKey"], first.obj["limit"]))
        self.assertEqual("loading", state(daemon)["state"])
        first.reply(records=[{"key": "m:1", "value": "a"}], count=1, truncated=True)
        second = service.next_request()
        self.assertEqual("m:1\u0000", second.key)
        self.assertEqual("a", settled(client, get("m:1"))["value"]) # is known already
        client.send(get("m:0", 1), fetch("m:", "m:~", 2))
        for r in service.next_requests(2):
            r.reply(code=404, error="Record not found")
        self.assertEqual([False, False], [cached(a) for a in client.answers(2)])
        second.reply(records=[], count=0, truncated=False)
        whole(daemon)
        self.assertEqual(404, client.ask(get("m:2", 3))["code"])
        self.assertTrue(cached(client.ask(get("m:2", 3))))

    def broken(self, **page):
        with FakeService(answer=lambda r: r.reply(**page) if r.op == 5 else echo(r)) as service, \
                Daemon(service, mirror="m:*", keys="k:*") as daemon, daemon.client() as client:
            eventually(lambda: state(daemon)["state"] == "too big", "the mirror to be given up")
            for _ in range(2):
                self.assertFalse(cached(client.ask(get("m:1"))))
            settled(client, get("k:1"))
            return daemon.log()

    def test_a_mirror_that_cannot_be_read_says_so_and_asks(self):
        self.assertIn(b"truncated and has no record", self.broken(records=[], count=0, truncated=True))
        self.assertIn(b"order of their keys", self.broken(
            records=[{"key": "m:2", "value": "a"}, {"key": "m:1", "value": "a"}], count=2, truncated=False))
        self.assertIn(b"out of its bounds", self.broken(records=[{"key": "z", "value": "a"}], count=1, truncated=False))

    def test_pages_that_the_service_fails_to_answer_are_asked_for_again(self):
        store, failures = Records({"m:1": "a"}), iter(range(6))

        def answer(request):
            if request.op == 5 and next(failures, None) is not None:
                return request.reply(code=500, error="Internal error")
            return store(request)

        with FakeService(answer=answer) as store.service, Daemon(store.service, mirror="m:*") as daemon, \
                daemon.client() as client:
            eventually(lambda: b'mirror "m:*": a page was answered with 500' in daemon.log(), "a line in the log")
            self.assertEqual("loading", state(daemon)["state"])
            whole(daemon)
            self.assertTrue(cached(client.ask(get("m:1"))))

    def test_a_page_that_does_not_say_whether_more_come_is_not_the_last(self):
        records = Records({f"m:{i:04}": f"{i}" for i in range(1500)})

        def answer(request):
            if request.op != 5:
                return records(request)
            inside = [k for k in sorted(records.records) if request.key <= k <= request.obj["endKey"]][:400]
            return request.reply(records=[{"key": k, "value": records.records[k]} for k in inside], count=len(inside))

        with FakeService(answer=answer) as records.service, Daemon(records.service, mirror="m:*") as daemon, \
                daemon.client() as client:
            self.assertEqual(1500, whole(daemon)["keys"])
            self.assertEqual("1400", client.ask(get("m:1400"))["value"])

    def test_pages_that_are_too_long_become_shorter(self):
        store = Records({f"m:{i:04}": "v" * 200 for i in range(900)})
        with FakeService(answer=store) as store.service, Daemon(store.service, mirror="m:*", max_message="64K") as daemon, \
                daemon.client() as client:
            self.assertEqual(900, whole(daemon)["keys"])
            self.assertIn(b'mirror "m:*": a page got no usable answer; it is asked for again', daemon.log())
            self.assertEqual(200, client.ask(fetch("m:", "m:~", limit=200))["count"])

    def test_pages_that_the_service_refuses_end_the_mirror(self):
        with FakeService(answer=lambda r: r.reply(code=403, error="no") if r.op == 5 else echo(r)) as service, \
                Daemon(service, mirror="m:*") as daemon:
            eventually(lambda: state(daemon)["state"] == "too big", "the mirror to be given up")
            self.assertIn(b"the service refuses its pages", daemon.log())

    def test_one_that_does_not_fit_takes_no_other_with_it(self):
        store = Records({f"big:{i:03}": "v" * 1000 for i in range(200)} | {f"m:{i}": "a" for i in range(10)})
        with FakeService(answer=store) as store.service, \
                Daemon(store.service, mirror="m:* big:*", memory="1M") as daemon, daemon.client() as client:
            whole(daemon, 0)
            whole(daemon, 1)
            daemon.reload(memory="100K") # the second is too big, and only that
            self.assertEqual(["whole", "too big"], [state(daemon)["state"], state(daemon, 1)["state"]])
            for i in range(10):
                store.change(f"m:{i}", f"b{i}")
            store.service.all_told()
            for i in range(10):
                self.assertEqual(f"b{i}", settled(client, get(f"m:{i}"))["value"])
            self.assertEqual(["whole", "too big"], [state(daemon)["state"], state(daemon, 1)["state"]])

    def test_one_that_does_not_fit_says_so_asks_and_is_tried_again_after_a_reload(self):
        store = Records({f"m:{i:03}": "v" * 1000 for i in range(200)} | {"k:1": "a"})
        with FakeService(answer=store) as store.service, \
                Daemon(store.service, mirror="m:*", keys="k:*", memory="100K") as daemon, daemon.client() as client:
            eventually(lambda: state(daemon)["state"] == "too big", "the mirror to be given up")
            self.assertIn(b'mirror "m:*": too big for [cache] memory', daemon.log())
            eventually(lambda: daemon.status()["cache"]["bytes"] < 10000, "its memory to be freed")
            for _ in range(2):
                self.assertFalse(cached(client.ask(get("m:000"))))
            settled(client, get("k:1"))
            daemon.reload(memory="1M")
            whole(daemon)
            self.assertTrue(cached(client.ask(get("m:000"))))
            daemon.reload(memory="100K")
            eventually(lambda: state(daemon)["state"] == "too big", "the mirror to be given up")
            self.assertFalse(cached(client.ask(get("m:000"))))

    def test_one_that_grows_too_big_is_given_up(self):
        store = Records({"m:0": "v"})
        with FakeService(answer=store) as store.service, Daemon(store.service, mirror="m:*", memory="64K") as daemon, \
                daemon.client() as client:
            whole(daemon)
            for i in range(40):
                client.ask(put(f"m:{i}", "v" * 3000))
            eventually(lambda: state(daemon)["state"] == "too big", "the mirror to be given up")
            self.assertEqual("v" * 3000, client.ask(get("m:39"))["value"])

    @mirrored({"m:1": "a"}, max_age="1s")
    def test_it_is_read_again_within_max_age(self, store, daemon, client):
        self.assertTrue(cached(client.ask(get("m:1"))))
        with store.lock: # the service forgets to say so
            store.records.update({"m:1": "b", "m:2": "c"})
        eventually(lambda: client.ask(get("m:1"))["value"] == "b" and client.ask(get("m:2")).get("value") == "c", "the truth")
        settled(client, get("m:2"), lambda a: a["value"] == "c")

    @mirrored(MANY)
    def test_a_loss_begins_it_anew(self, store, daemon, client):
        store.service.hang_up()
        with store.lock:
            store.records["m:00001"] = "meanwhile"
            store.records["m:new"] = "too"
            del store.records["m:00002"]
        daemon.wait_status(lambda s: s["upstream"]["reconnects"], "another connection")
        self.assertEqual(2500, whole(daemon)["keys"])
        self.assertEqual("meanwhile", settled(client, get("m:00001"))["value"])
        self.assertEqual("too", settled(client, get("m:new"))["value"])
        self.assertEqual(404, settled(client, get("m:00002"))["code"])

    @mirrored({"m:1": "a"}, max_stale="1h")
    def test_while_the_connection_is_down_it_may_serve_marked(self, store, daemon, client):
        store.service.stop_listening()
        store.service.hang_up()
        eventually(lambda: state(daemon)["state"] == "stale", "the loss")
        for request in (get("m:1", 1), get("m:2", 1), fetch("m:", "m:~", 1)):
            answer = client.ask(request)
            self.assertEqual(["messageId", "cached", "stale", "ageMs"], list(answer)[-4:])
        self.assertEqual([("m:1", "a")], [(r["key"], r["value"]) for r in client.ask(fetch("m:", "m:~"))["records"]])

    @mirrored({"m:1": "a"}, notification_values="trust", request_timeout="200ms")
    def test_with_trust_changes_are_taken_from_notifications(self, store, daemon, client):
        for key in ("m:new", "m:1"):
            def taken():
                store.change(key, None if key != "m:1" else "a")
                settled(client, get(key))
                time.sleep(0.25) # behind what the answers have told
                store.asked.clear()
                store.change(key, "b")
                store.service.all_told()
                answer = client.ask(get(key, 1))
                return answer if not store.n() else None

            answer = eventually(taken, "a value from a notification")
            self.assertEqual({"code": 200, "key": key, "value": "b", "messageId": 1, "cached": True}, answer)

    @scene(WITHHELD, mirror="m:*", notification_values="trust", request_timeout="10m")
    def test_with_trust_a_key_that_a_page_or_a_range_does_not_have_is_asked_for(self, service, daemon, client):
        """A notification of it may be of before."""
        service.next_request().reply(records=[], count=0, truncated=False)
        whole(daemon)
        for key in ("m:1", "m:2"):
            self.assertEqual((404, True), (lambda a: (a["code"], cached(a)))(client.ask(get(key, 1))))
            service.publish(key, "gone since")
            service.all_told()
            client.send(get(key, 2))
            for request in service.next_requests(2): # one for the mirror
                request.reply_raw('{"code":404,"error":"Record not found","messageId":<id>}')
            self.assertEqual((404, False), (lambda a: (a["code"], cached(a)))(client.answer()))


class AgainstTheSandbox(Case):
    """What is unsure of the service does not matter: the order of answer and notification, and what a patch's carries."""

    def writes_are_read(self, *switches, **settings):
        with Sandbox(*switches) as service, Daemon(service, mirror="m:*", keys="k:*", **settings) as daemon, \
                daemon.client() as client:
            whole(daemon)
            for i in range(50):
                client.send(put(f"m:{i}", f"v{i}", i))
            client.answers(50)
            for i in range(50):
                self.assertEqual(f"v{i}", client.ask(get(f"m:{i}"))["value"])
            for key in ("m:1", "k:1"):
                client.ask(put(key, "start"))
                expected = "start"
                for i in range(30):
                    self.assertEqual(200, client.ask({"op": "patch", "key": key, "value": f";{i}"})["code"])
                    expected += f";{i}"
                    self.assertEqual(expected, client.ask(get(key))["value"], (key, i))
            answer = settled(client, fetch("m:", "m:~"), lambda a: a["count"] == 50)
            self.assertEqual({f"m:{i}": f"v{i}" for i in range(50) if i != 1} | {"m:1": expected},
                             {r["key"]: r["value"] for r in answer["records"]})
            settled(client, get("k:1"), lambda a: a["value"] == expected)

    def test_the_notification_behind_the_answer(self):
        self.writes_are_read()

    def test_the_notification_before_the_answer(self):
        self.writes_are_read("--notify-first")

    def test_a_notification_that_carries_the_patch(self):
        self.writes_are_read("--notify-patch")

    def test_such_a_notification_before_the_answer(self):
        self.writes_are_read("--notify-first", "--notify-patch", "--delay-ms", "5")

    def test_values_of_notifications_that_are_trusted(self):
        self.writes_are_read("--notify-first", notification_values="trust")
        self.writes_are_read(notification_values="trust")


class Quota(Case):
    def test_hot_keys_cost_one_read_each_under_a_rate_limit(self):
        """So do those who wait for their turn."""
        with Sandbox("--rate", "50") as service, Daemon(service, keys="hot:*", rate_limit="40", combine="gets") as daemon:
            daemon.wait_status(lambda s: s["cache"]["live"], "a cache that is live")
            clients = [daemon.client() for _ in range(20)]
            with daemon.still():
                for c in clients:
                    c.send(*(get(f"hot:{i}", 100 * n + i) for n in range(5) for i in range(20)))
            for c in clients:
                self.assertEqual({404}, {a["code"] for a in c.answers(100)})
                c.close()
            stats = daemon.stats()
            # What was sent already is joined by nobody, so a slow service is asked once more for those that came meanwhile.
            self.assertIn(stats["requests_sent"], range(20, 61))
            self.assertEqual(2000, stats["requests_sent"] + stats["requests_saved"])
