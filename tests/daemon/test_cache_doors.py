"""Reads from memory over HTTP, WebSocket and server-sent events: what is true of lines is true of them."""

import contextlib
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "gateway"))

import websocket  # noqa: E402
from gateway import GatewayCase, Http  # noqa: E402
from harness import FakeService, eventually, get, put  # noqa: E402
from test_cache import Store, live  # noqa: E402
from test_mirror import Records, whole  # noqa: E402


class Doors(GatewayCase):
    def begin(self, store, **settings):
        """A daemon in front of the store, whose cache is live, with all its doors open."""
        store.service = self.open(FakeService(answer=store))
        gateway = websocket.Gateway(store.service)
        gateway.settings.update(settings)
        self.gateway = self.open(gateway)
        live(self.gateway)
        self.line = self.open(self.gateway.client())

    def ws(self, *args, **options):
        connection = self.gateway.ws(*args, **options)
        self.addCleanup(connection.close)
        return connection

    def http(self, gateway=None):
        return self.open(contextlib.closing(Http(self.gateway.socket)))

    def lose(self, store):
        store.service.stop_listening()
        store.service.hang_up()
        self.gateway.wait_status(lambda s: s["upstream"]["state"] != "connected", "the loss")


class WebSocket(Doors):
    def test_answers_from_memory_say_so_on_both_doors(self):
        store = Store(**{"k:1": "a"})
        self.begin(store, keys="k:*", max_stale="1h")
        for unix in False, True:
            ws = self.ws(unix=unix)
            eventually(lambda: ws.ask(op=1, key="k:1", messageId=1).get("cached"), "a value to be remembered") # noqa: B023
            self.assertEqual(["code", "messageId", "key", "value", "cached"], list(ws.ask(op=1, key="k:1", messageId=2)))
            n = store.n()
            self.assertNotIn("cached", ws.ask(op=1, key="k:1", fresh=True, messageId=3))
            self.assertEqual(n + 1, store.n())
            self.assertEqual(400, ws.ask(op=1, key="k:1", fresh="true", messageId=4)["code"])
        self.lose(store)
        for unix in False, True:
            answer = self.ws(unix=unix).ask(op=1, key="k:1", messageId=5)
            self.assertEqual((5, "a", True, True), tuple(answer[name] for name in ("messageId", "value", "cached", "stale")))

    def test_writes_of_one_door_are_read_at_the_others(self):
        store = Store(**{"k:1": "0"})
        self.begin(store, keys="k:*")
        ws, http = self.ws(), self.http()
        for n in range(30):
            write, value = n % 3, f"v{n}"
            if write == 0:
                ws.ask(op=2, key="k:1", value=value, messageId=n)
            elif write == 1:
                self.assertEqual(200, http.ask("POST", "/record", {"key": "k:1", "value": value}).status)
            else:
                self.line.ask(put("k:1", value, n))
            self.assertEqual(value, ws.ask(op=1, key="k:1", messageId=0)["value"])
            self.assertEqual(value, http.ask("GET", "/record/k:1").json["value"])
            self.assertEqual(value, self.line.ask(get("k:1"))["value"])

    def test_a_token_reads_no_more_from_memory_than_from_the_service(self):
        self.begin(Store(**{"k:1": "a", "k:2": "b"}), keys="k:*")
        for key in "k:1", "k:2":
            eventually(lambda: self.line.ask(get(key)).get("cached"), "a value to be remembered") # noqa: B023
        token = self.gateway.token(accessPattern="^k:2$")
        ws = self.ws(f"/ws?token={token}")
        self.assertEqual((403, "forbidden"), (lambda a: (a["code"], a["reason"]))(ws.ask(op=1, key="k:1", messageId=1)))
        self.assertTrue(ws.ask(op=1, key="k:2", messageId=2)["cached"])

    def test_ranges_and_misses_of_a_mirror(self):
        self.begin(Records({"m:1": "a", "m:2": "b"}), mirror="m:*")
        whole(self.gateway)
        ws = self.ws()
        answer = ws.ask(op=5, key="m:", endKey="m:~", messageId=1)
        self.assertEqual({"code": 200, "records": [{"key": "m:1", "value": "a"}, {"key": "m:2", "value": "b"}], "count": 2,
                          "truncated": False, "messageId": 1, "cached": True}, answer)
        self.assertEqual((404, True), (lambda a: (a["code"], a["cached"]))(ws.ask(op=1, key="m:3", messageId=2)))


class Rest(Doors):
    def test_ranges_misses_and_heads_tell_where_they_come_from(self):
        self.begin(Records({"m:1": "a"}), mirror="m:*", max_stale="1h")
        whole(self.gateway)
        http = self.http()
        for method, target, status, header in (
                ("GET", "/record/m:1", 200, "hit"), ("HEAD", "/record/m:1", 200, "hit"), ("GET", "/record/m:2", 404, "hit"),
                ("GET", "/records?startKey=m:&endKey=m:~", 200, "hit"), ("HEAD", "/records?startKey=m:&endKey=m:~", 200, "hit"),
                ("GET", "/records?startKey=m:&endKey=m:~&fresh=true", 200, "miss"),
                ("GET", "/records?startKey=m:&endKey=m:~&fresh=false", 200, "hit"),
                ("GET", "/records?startKey=l&endKey=m:~", 200, "miss"), ("GET", "/record/m:1?fresh=true", 200, "miss"),
                ("GET", "/record/m:1?fresh=false", 200, "hit"), ("GET", "/record/m:1?fresh=", 400, None),
                ("GET", "/record/m:1?fresh=1", 400, None), ("GET", "/record/m:1?fresh=TRUE", 400, None),
                ("GET", "/records?startKey=m:&endKey=m:~&fresh=no", 400, None)):
            with self.subTest(method=method, target=target):
                response = http.ask(method, target)
                self.assertEqual((status, header), (response.status, response.header("x-hpkvd-cache")))
        self.assertIsNone(http.ask("POST", "/record", {"key": "m:1", "value": "b"}).header("x-hpkvd-cache"))

    def test_requests_sent_ahead_are_answered_in_order_and_read_the_own_write(self):
        self.begin(Store(**{"k:1": "a"}), keys="k:*")
        eventually(lambda: self.line.ask(get("k:1")).get("cached"), "a value to be remembered")
        http, body = self.http(), json.dumps({"key": "k:1", "value": "b"}).encode()
        read = b"GET /record/k:1 HTTP/1.1\r\nHost: hpkv\r\n\r\n"
        http.sock.sendall(read + b"POST /record HTTP/1.1\r\nHost: hpkv\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                          % len(body) + body + read)
        first, write, last = (http.response() for _ in range(3))
        self.assertEqual(("a", "hit", 200, "b", "miss"), (first.json["value"], first.header("x-hpkvd-cache"), write.status,
                                                          last.json["value"], last.header("x-hpkvd-cache")))


class Events(Doors):
    def watch(self, query):
        http = self.http()
        http.request("GET", "/hpkvd/watch?" + query)
        self.assertEqual(200, http.head()[0])
        return http

    def test_nobody_reads_an_older_value_than_an_event_has_told(self):
        store = Store(**{"k:1": "0"})
        self.begin(store, keys="k:*")
        events = self.watch("key=k:1")
        for n in range(1, 30):
            eventually(lambda: self.line.ask(get("k:1")).get("cached"), "a value to be remembered")
            store.change("k:1", str(n))
            self.assertEqual(str(n), events.event()[1]["value"])
            self.assertEqual(str(n), self.line.ask(get("k:1"))["value"])

    def test_an_initial_value_is_the_services_and_ends_an_older_one(self):
        store = Store(**{"k:1": "a"})
        self.begin(store, keys="k:*")
        eventually(lambda: self.line.ask(get("k:1")).get("cached"), "a value to be remembered")
        store.records["k:1"] = "b" # and the service forgets to say so
        self.assertEqual("b", self.watch("key=k:1&initial=true").event()[1]["value"])
        self.assertEqual("b", self.line.ask(get("k:1"))["value"])
        self.assertEqual("b", self.ws().ask(op=1, key="k:1", messageId=1)["value"])
