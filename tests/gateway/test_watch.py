"""/hpkvd/watch: a subscription as server-sent events."""

import subprocess
import time
import unittest

from gateway import DEADLINE, LOCAL_KEY, GatewayCase, eventually

WITHHELD = {"answer": None}


class Watch(GatewayCase):
    def watch(self, gateway, query, connection=None):
        c = connection or self.http(gateway)
        c.request("GET", "/hpkvd/watch?" + query)
        status, headers = c.head()
        headers = dict(headers)
        self.assertEqual((200, "text/event-stream", "no-store", "close"),
                         (status, headers["Content-Type"], headers["Cache-Control"], headers["Connection"]))
        self.assertNotIn("Content-Length", headers)
        return c

    def test_changes_of_keys_and_patterns(self):
        s, g = self.scene(tcp=False)
        c = self.watch(g, "key=a%2F1&key=b&pattern=user:*&pattern=x*y")
        for key in ("a/1", "b", "user:7", "xy", "other", "a"):
            s.publish(key, "v")
        seen = [c.event() for _ in range(4)]
        self.assertEqual(["notification"] * 4, [kind for kind, _ in seen])
        self.assertEqual(["a/1", "b", "user:7", "xy"], [event["key"] for _, event in seen])
        self.assertEqual("v", seen[0][1]["value"])
        self.assertEqual({"keys": 2, "patterns": 2}, {name: g.status()["subscriptions"][name] for name in ("keys", "patterns")})

    def test_initial_values(self):
        _, g = self.scene(tcp=False)
        c = self.watch(g, "key=a&key=b&initial=true")
        events = [c.event()[1] for _ in range(2)]
        self.assertEqual([("a", "value of a", True), ("b", "value of b", True)],
                         sorted((e["key"], e["value"], e["initial"]) for e in events))

    def test_no_initial_values(self):
        s, g = self.scene(tcp=False)
        c = self.watch(g, "key=a&initial=false")
        s.publish("a", "1")
        self.assertEqual("1", c.event()[1]["value"])

    def test_changes_of_the_sandbox(self):
        g = self.sandbox(tcp=False)
        c, other = self.watch(g, "key=a"), self.http(g)
        other.ask("POST", "/record", {"key": "a", "value": "1"})
        self.assertEqual("1", c.event()[1]["value"])
        other.ask("DELETE", "/record/a")
        self.assertIsNone(c.event()[1]["value"])

    def test_an_outage_is_told(self):
        s, g = self.scene(tcp=False)
        c = self.watch(g, "key=a&pattern=b*")
        s.hang_up()
        kinds = [c.event() for _ in range(4)]
        self.assertEqual([("connection", "disconnected"), ("connection", "connected")],
                         [(kind, e["state"]) for kind, e in kinds if kind == "connection"])
        self.assertEqual(["b*"], [e["pattern"] for kind, e in kinds if kind == "gap"])
        self.assertEqual([("a", True)], [(e["key"], e["resync"]) for kind, e in kinds if kind == "notification"])

    def test_behind_other_requests_of_its_connection(self):
        s, g = self.scene(WITHHELD, tcp=False)
        c = self.http(g)
        c.request("GET", "/record/first")
        c.request("GET", "/hpkvd/watch?key=a")
        request = s.next_request()
        eventually(lambda: g.status()["subscriptions"]["waiting"] <= 1)
        request.reply(key="first", value="1")
        self.assertEqual("first", c.response().json["key"])
        self.assertEqual(200, c.head()[0])
        s.publish("a", "1")
        self.assertEqual("1", c.event()[1]["value"])

    def test_wrong_parameters(self):
        _, g = self.scene(tcp=False)
        c = self.http(g)
        for query, part in (("", "key"), ("key=", "key"), ("pattern=", "pattern"), ("key=a&initial=yes", "initial"), ("key=a&initial=true&initial=true", "initial"),
                            ("key=%ff", "UTF-8"), ("key=%", "percent"), ("key=a&timeoutMs=0", "timeoutMs")):
            with self.subTest(query=query):
                r = c.ask("GET", "/hpkvd/watch?" + query)
                self.assert_refused(r, 400, "bad_request")
                self.assertIn(part, r.json["error"])

    def test_what_cannot_be_had_in_time_is_503(self):
        s, g = self.scene({"mint": lambda request: "never"}, tcp=False)
        c = self.http(g)
        r = c.ask("GET", "/hpkvd/watch?key=a&timeoutMs=200")
        self.assertEqual((503, "upstream_down"), (r.status, r.json["reason"]))
        self.assertEqual(200, c.ask("GET", "/hpkvd/ready").status) # and the connection goes on

    def test_no_room_is_503(self):
        _, g = self.scene(tcp=False, max_client_subscriptions="1")
        r = self.http(g).ask("GET", "/hpkvd/watch?key=a&key=b")
        self.assertEqual((503, "queue_full"), (r.status, r.json["reason"]))

    def test_further_requests_are_not_read(self):
        _, g = self.scene(tcp=False)
        c = self.http(g)
        c.send("GET /hpkvd/watch?key=a HTTP/1.1\r\nHost: h\r\n\r\nGET /hpkvd/ready HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertEqual(200, c.head()[0])
        c.send("GET /hpkvd/ready HTTP/1.1\r\nHost: h\r\n\r\n" * 10000)
        g.wait_status(lambda s: s["subscriptions"]["keys"] == 1)
        self.assertEqual(b"", bytes(c.received))

    def test_half_closed_it_goes_on_and_gone_it_ends(self):
        s, g = self.scene(tcp=False)
        c = self.watch(g, "key=a")
        c.half_close()
        s.publish("a", "1")
        self.assertEqual("1", c.event()[1]["value"])
        c.close()
        g.wait_status(lambda status: status["subscriptions"]["keys"] == 0)

    def test_of_a_tcp_client_that_is_gone_it_ends_soon(self):
        _, g = self.scene()
        c = self.tcp(g)
        c.request("GET", "/hpkvd/watch?key=a", headers={"x-api-key": LOCAL_KEY}, host="localhost")
        self.assertEqual(200, c.head()[0])
        began = time.monotonic()
        c.half_close()
        self.assertEqual((None, None), c.event()) # a sign of life, which finds out whether there still is one
        c.close()
        g.wait_status(lambda status: status["subscriptions"]["keys"] == 0)
        self.assertLess(time.monotonic() - began, 14)

    def test_a_comment_every_15_seconds(self):
        _, g = self.scene(tcp=False)
        began = time.monotonic()
        c = self.watch(g, "key=a")
        c.sock.settimeout(DEADLINE)
        self.assertEqual((None, None), c.event())
        self.assertGreaterEqual(time.monotonic() - began, 13)

    def test_a_slow_reader_gets_the_latest(self):
        s, g = self.scene(tcp=False, output_soft="16K")
        c = self.watch(g, "key=a")
        for n in range(3000):
            s.publish("a", f"{n} " + "x" * 500)
        s.all_told()
        last, skipped = None, 0
        while not (last or "").startswith("2999 "):
            event = c.event()[1]
            last, skipped = event["value"], skipped + event.get("skipped", 0)
        self.assertGreater(skipped, 0)

    def test_beyond_output_hard_it_is_dropped(self):
        s, g = self.scene(tcp=False, output_soft="16K", output_hard="64K")
        c = self.watch(g, "pattern=k*")
        for n in range(2000):
            s.publish(f"k{n}", "x" * 1000)
        s.all_told()
        eventually(lambda: g.stats()["clients_dropped_slow"] == 1)
        data = b""
        while more := c.sock.recv(65536):
            data += more
        self.assertIn(b"event: notification\n", data)

    def test_the_daemon_ends(self):
        _, g = self.scene(tcp=False)
        c = self.watch(g, "key=a")
        g.process.signal(15)
        c.sock.settimeout(DEADLINE)
        while c.sock.recv(65536):
            pass
        self.assertEqual(0, g.process.wait_exit())
        g.killed = True

    def test_curl_shows_it(self):
        s, g = self.scene(tcp=False)
        curl = subprocess.Popen(["curl", "-sSN", "--max-time", str(DEADLINE), "--unix-socket", g.socket, "http://hpkv/hpkvd/watch?key=a"], stdout=subprocess.PIPE)
        self.addCleanup(curl.stdout.close)
        self.addCleanup(curl.wait)
        self.addCleanup(curl.kill)
        g.wait_status(lambda status: status["subscriptions"]["keys"] == 1)
        s.publish("a", "1")
        self.assertEqual(b"event: notification\n", curl.stdout.readline())
        self.assertIn(b'"key": "a"', curl.stdout.readline())


if __name__ == "__main__":
    unittest.main()
