"""REST on the Unix socket: HPKV's table of requests, keys true to the byte, and the daemon's own answers as responses."""

import json
import os
import subprocess
import unittest
import urllib.parse

from gateway import GatewayCase, eventually, get

WITHHELD = {"answer": None}


def quoted(key):
    return urllib.parse.quote(key, safe="")


class Table(GatewayCase):
    """Every row of it, with the service's own answers."""

    def setUp(self):
        self.gateway = self.sandbox(tcp=False)
        self.c = self.http(self.gateway)

    def ask(self, *args, **more):
        return self.c.ask(*args, **more)

    def test_set_get_patch_delete(self):
        r = self.ask("POST", "/record", {"key": "user:1", "value": '{"a":1}'})
        self.assertEqual((200, True), (r.status, r.json["success"]))
        self.assertEqual({"success", "message"}, set(r.json))
        r = self.ask("GET", "/record/user%3A1")
        self.assertEqual((200, {"key": "user:1", "value": '{"a":1}'}), (r.status, r.json))
        self.assertEqual("application/json", r.header("Content-Type"))
        self.assertEqual("no-store", r.header("Cache-Control"))
        r = self.ask("POST", "/record", {"key": "user:1", "value": '{"b":2}', "partialUpdate": True})
        self.assertEqual(200, r.status)
        self.assertEqual({"a": 1, "b": 2}, json.loads(self.ask("GET", "/record/user:1").json["value"]))
        r = self.ask("POST", "/record", {"key": "user:1", "value": "new", "partialUpdate": False})
        self.assertEqual("new", self.ask("GET", "/record/user:1").json["value"])
        r = self.ask("DELETE", "/record/user:1")
        self.assertEqual((200, True), (r.status, r.json["success"]))
        r = self.ask("GET", "/record/user:1")
        self.assertEqual((404, {"error": "Record not found"}), (r.status, r.json))

    def test_increment_says_result_and_newValue(self):
        r = self.ask("POST", "/record/atomic", {"key": "n", "increment": 5})
        self.assertEqual((200, 5, 5, True), (r.status, r.json["result"], r.json["newValue"], r.json["success"]))
        r = self.ask("POST", "/record/atomic", {"key": "n", "increment": -2})
        self.assertEqual(3, r.json["result"])
        r = self.ask("GET", "/record/atomic") # a key like any other
        self.assertEqual(404, r.status)

    def test_range(self):
        for key in "abc":
            self.ask("POST", "/record", {"key": f"k:{key}", "value": key})
        r = self.ask("GET", "/records?startKey=k%3Aa&endKey=k%3Az&limit=2")
        self.assertEqual((200, ["k:a", "k:b"], 2, True), (r.status, [x["key"] for x in r.json["records"]], r.json["count"], r.json["truncated"]))
        r = self.ask("GET", "/records?startKey=k:a&endKey=k:z")
        self.assertEqual(3, r.json["count"])

    def test_values_that_are_no_strings_go_as_their_text(self):
        self.ask("POST", "/record", '{"key":"o", "value":\n{ "a" : [1, 2.50] } }')
        self.assertEqual('{"a":[1,2.50]}', self.ask("GET", "/record/o").json["value"])

    def test_head_is_get_without_a_body(self):
        self.ask("POST", "/record", {"key": "h", "value": "x"})
        r = self.ask("HEAD", "/record/h")
        self.assertEqual((200, str(len('{"key":"h","value":"x"}'))), (r.status, r.header("Content-Length")))
        self.assertEqual(404, self.ask("HEAD", "/record/none").status)
        self.assertEqual(200, self.ask("GET", "/record/h").status) # and nothing of a body is left behind

    def test_status_stats_and_ready(self):
        r = self.ask("GET", "/hpkvd/status")
        self.assertEqual((200, 1, "connected"), (r.status, r.json["protocol"], r.json["upstream"]["state"]))
        self.assertEqual(200, r.json["code"])
        r = self.ask("GET", "/hpkvd/stats")
        self.assertIn("hpkvd_requests_total", r.json["stats"])
        r = self.ask("GET", "/hpkvd/ready")
        self.assertEqual((200, {"ready": True}), (r.status, r.json))

    def test_status_tells_doors(self):
        with self.gateway.client() as lines:
            lines.ask({"op": "ping"})
            doors = self.ask("GET", "/hpkvd/status").json["doors"]
        self.assertEqual(1, doors["http"]["clients"])
        self.assertEqual(1, doors["lines"]["clients"])
        self.assertGreaterEqual(doors["http"]["requests"], 1)
        self.assertGreaterEqual(doors["lines"]["requests"], 1)
        top = self.ask("GET", "/hpkvd/status?top=true").json["top"]
        self.assertIn("http", {client["door"] for client in top})

    def test_curl(self):
        def curl(*args):
            return subprocess.run(["curl", "-sS", "--unix-socket", self.gateway.socket, *args], capture_output=True,
                                  check=True, timeout=60).stdout
        curl("-H", "Content-Type: application/json", "-d", '{"key":"c","value":"1"}', "http://hpkv/record")
        self.assertEqual({"key": "c", "value": "1"}, json.loads(curl("http://hpkv/record/c")))


class Keys(GatewayCase):
    """What the service is asked for is what the client has meant, byte for byte."""

    KEYS = ["a/b", "a//b", "/a", "a/", "/../x", "./x", "a b", "a+b", "a%2Fb", "%", "%zz", "a?b#c", "a\0b", "\0", "ключ", "🔑",
            "a&b=c", '"\\\n\r\t', "\x7f", "a%20b", "a;b", "[]"]

    def test_in_paths(self):
        s, g = self.scene(tcp=False)
        c = self.http(g)
        for key in self.KEYS:
            with self.subTest(key=key):
                for method in ("GET", "DELETE"):
                    self.assertEqual(200, c.ask(method, "/record/" + quoted(key)).status)
                    self.assertEqual(key, s.next_request().key)

    def test_written_as_they_are(self):
        s, g = self.scene(tcp=False)
        c = self.http(g)
        for path, key in (("a//b", "a//b"), ("/../x", "/../x"), ("../../etc", "../../etc"), ("a+b", "a+b"), ("a%2fb", "a/b"),
                          ("ключ", "ключ"), ("a;b&c=d", "a;b&c=d"), ("atomic", "atomic")):
            with self.subTest(path=path):
                self.assertEqual(200, c.ask("GET", "/record/" + path).status)
                self.assertEqual(key, s.next_request().key)

    def test_in_bodies(self):
        s, g = self.scene(tcp=False)
        c = self.http(g)
        for key in self.KEYS:
            with self.subTest(key=key):
                self.assertEqual(200, c.ask("POST", "/record", {"key": key, "value": key}).status)
                r = s.next_request()
                self.assertEqual((key, key), (r.key, r.obj["value"]))

    def test_ranges_decode_twice_where_that_is_meant(self):
        s, g = self.scene(tcp=False)
        c = self.http(g)
        rows = [(key, quoted(quoted(key))) for key in self.KEYS] # as the published client sends them
        rows += [("a/b", quoted("a/b")), ("a+b", "a+b"), ("a b", "a%20b"), ("a", "a"), ("%", "%25"), ("a%2Gb", "a%252Gb"),
                 ("a%2Fb/", "a%252Fb/"), # a / is not left alone by encodeURIComponent(): this was encoded once
                 ("a/b", "a%252Fb"), ("a%20b+", "a%2520b%2B")]
        for key, encoded in rows:
            with self.subTest(encoded=encoded):
                self.assertEqual(200, c.ask("GET", f"/records?startKey={encoded}&endKey={encoded}").status)
                r = s.next_request()
                self.assertEqual((key, key), (r.key, r.obj["endKey"]))

    def test_what_is_no_key_is_refused(self):
        _, g = self.scene(tcp=False)
        c = self.http(g)
        for target in ("/record/%", "/record/%4", "/record/%zz", "/record/%ff", "/record/a%c3", "/records?startKey=%&endKey=a",
                       "/records?startKey=%ff&endKey=a", "/records?startKey=a", "/records?endKey=a", "/records?startKey=a&startKey=b&endKey=c",
                       "/records?startKey=a&endKey=b&limit=x", "/records?startKey=a&endKey=b&limit=01", "/records?startKey=a&endKey=b&limit=",
                       "/records?%zz=1&startKey=a&endKey=b"):
            with self.subTest(target=target):
                self.assert_refused(c.ask("GET", target), 400, "bad_request")


class Bodies(GatewayCase):
    def test_wrong_ones_are_refused(self):
        _, g = self.scene(tcp=False)
        c = self.http(g)
        for path, body, reason, part in (
                ("/record", "", "bad_json", "body"), ("/record", "[]", "bad_json", "body"), ("/record", '{"key":', "bad_json", "body"),
                ("/record", "\ufeff{}", "bad_json", "body"), ("/record", "{}", "bad_request", "key"),
                ("/record", {"key": "a"}, "bad_request", "value"), ("/record", {"key": 1, "value": "x"}, "bad_request", "key"),
                ("/record", {"key": "a", "value": None}, "bad_request", "value"),
                ("/record", '{"key":"a","key":"b","value":"c"}', "bad_request", "key"),
                ("/record", {"key": "a", "value": "b", "partialUpdate": "yes"}, "bad_request", "partialUpdate"),
                ("/record/atomic", {"key": "a"}, "bad_request", "increment"),
                ("/record/atomic", {"key": "a", "increment": "1"}, "bad_request", "increment"),
                ("/token/websocket", {"subscribeKeys": "a"}, "bad_request", "subscribeKeys")):
            with self.subTest(body=body):
                r = c.ask("POST", path, body)
                self.assert_refused(r, 400, reason)
                self.assertIn(part, r.json["error"])

    def test_bytes_that_are_not_utf8(self):
        _, g = self.scene(tcp=False)
        self.assert_refused(self.http(g).ask("POST", "/record", b'{"key":"\xff","value":"x"}'), 400, "bad_json")

    def test_other_members_are_ignored(self):
        s, g = self.scene(tcp=False)
        c = self.http(g)
        self.assertEqual(200, c.ask("POST", "/record", {"op": "delete", "messageId": 7, "timeoutMs": 1, "key": "a", "value": "b", "x": {}}).status)
        r = s.next_request()
        self.assertEqual((2, "a", "b"), (r.op, r.key, r.obj["value"]))


class Outcomes(GatewayCase):
    """The same as those of lines, in the dress of HTTP."""

    def test_codes_of_the_service_are_the_status(self):
        s, g = self.scene(WITHHELD, tcp=False)
        c = self.http(g)
        for code in (200, 201, 400, 403, 404, 409, 500, 599):
            with self.subTest(code=code):
                c.request("GET", "/record/a")
                s.next_request().reply(code=code, **({"key": "a", "value": "v"} if code < 300 else {"error": "no"}))
                r = c.response()
                self.assertEqual(200 if code < 300 else code, r.status)
                if code >= 300:
                    self.assertEqual({"error": "no"}, r.json)
        s.answer = lambda request: request.reply(code=429, error="no")
        r = eventually(lambda: (r := c.ask("GET", "/record/a?timeoutMs=3000")).status != 504 and r, # is tried again until its time is up
                       "a request whose last refusal is in time")
        self.assertEqual((429, "rate_limited"), (r.status, r.json["reason"]))

    def test_no_connection(self):
        s, g = self.scene(tcp=False)
        c = self.http(g)
        s.stop_listening()
        s.hang_up()
        eventually(lambda: c.ask("GET", "/hpkvd/status").json["upstream"]["state"] != "connected")
        r = c.ask("GET", "/record/a?timeoutMs=50")
        self.assertEqual((503, "upstream_down", "no"), (r.status, r.json["reason"], r.json["executed"]))
        if "retryAfterMs" in r.json:
            self.assertGreaterEqual(int(r.header("Retry-After")), 1)
        r = c.ask("GET", "/hpkvd/ready")
        self.assertEqual((503, "upstream_down"), (r.status, r.json["reason"]))

    def test_a_write_whose_outcome_is_unknown(self):
        s, g = self.scene(WITHHELD, tcp=False)
        c = self.http(g)
        c.request("POST", "/record?timeoutMs=100", {"key": "a", "value": "b"})
        s.next_request()
        r = c.response()
        self.assertEqual((504, "timeout", "unknown"), (r.status, r.json["reason"], r.json["executed"]))

    def test_timeoutMs_is_checked(self):
        _, g = self.scene(tcp=False)
        c = self.http(g)
        for value in ("0", "600001", "x", "", "1.5", "-1"):
            with self.subTest(value=value):
                r = c.ask("GET", "/record/a?timeoutMs=" + value)
                self.assert_refused(r, 400, "bad_request")
                self.assertIn("timeoutMs", r.json["error"])

    def test_too_long_for_the_service(self):
        _, g = self.scene(tcp=False, max_frame="1K")
        r = self.http(g).ask("POST", "/record", {"key": "a", "value": "x" * 2000})
        self.assertEqual((413, "too_large", "no"), (r.status, r.json["reason"], r.json["executed"]))

    def test_rules_forbid(self):
        _, g = self.scene(tcp=False, access={"me": {"user": os.geteuid(), "read": "app:*"}})
        c = self.http(g)
        self.assertEqual(200, c.ask("GET", "/record/app:1").status)
        r = c.ask("GET", "/record/other")
        self.assertEqual((403, "forbidden"), (r.status, r.json["reason"]))
        r = c.ask("POST", "/token/websocket", {"subscribeKeys": ["other"]})
        self.assertEqual(403, r.status)

    def test_lines_and_http_are_one_queue(self):
        s, g = self.scene(WITHHELD, tcp=False, max_in_flight="1")
        c = self.http(g)
        with g.client() as lines:
            lines.send(get("a", 1))
            first = s.next_request()
            c.request("GET", "/record/b")
            eventually(lambda: g.status()["upstream"]["queued"] == 1)
            first.reply(key="a", value="1")
            lines.answer()
            second = s.next_request()
            self.assertEqual("b", second.key)
            second.reply(key="b", value="2")
        self.assertEqual({"key": "b", "value": "2"}, c.response().json)


if __name__ == "__main__":
    unittest.main()
