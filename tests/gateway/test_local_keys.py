"""HTTP on TCP: local keys, names of this machine, web pages, and what a reload does to them."""

import http.client
import os
import select
import signal
import socket
import subprocess
import time
import unittest

import need
from gateway import KEY, LOCAL_KEY, FakeService, Gateway, GatewayCase, Http, free_port
from harness import eventually, raise_descriptor_limit
from websocket import WebSocket

OTHER_KEY = "another-local-key-0123456789"
WITHHELD = {"answer": None}


class Keys(GatewayCase):
    def setUp(self):
        self.service, self.gateway = self.scene()

    def test_where_a_key_may_stand(self):
        for headers, query in (({"x-api-key": LOCAL_KEY}, ""), ({"X-API-KEY": LOCAL_KEY}, ""), ({"Authorization": "Bearer " + LOCAL_KEY}, ""),
                               ({"authorization": "bearer " + LOCAL_KEY}, ""), ({"Authorization": "Bearer   " + LOCAL_KEY}, ""), ({}, "?apiKey=" + LOCAL_KEY), ({}, "?x=y&apiKey=%61" + LOCAL_KEY[1:])):
            with self.subTest(headers=headers, query=query):
                self.assertEqual(200, self.gateway.ask_tcp("GET", "/record/a" + query, headers=headers, key=None).status)

    def test_missing_or_wrong(self):
        for headers, query in (({}, ""), ({"x-api-key": ""}, ""), ({"x-api-key": LOCAL_KEY + "x"}, ""), ({"x-api-key": LOCAL_KEY[:-1]}, ""),
                               ({"x-api-key": KEY}, ""), ({"Authorization": "Basic " + LOCAL_KEY}, ""), ({"Authorization": "Bearer"}, ""),
                               ({}, "?apiKey="), ({}, "?apikey=" + LOCAL_KEY), ({}, "?apiKey=%zz"), ({"x-api-key": OTHER_KEY}, "?apiKey=" + LOCAL_KEY)):
            with self.subTest(headers=headers, query=query):
                began = time.monotonic()
                r = self.gateway.ask_tcp("GET", "/record/a" + query, headers=headers, key=None)
                self.assert_refused(r, 401, "unauthorized")
                self.assertEqual("Bearer", r.header("WWW-Authenticate"))
                self.assertGreaterEqual(time.monotonic() - began, 0.09)
        self.assertEqual([], self.service.requests)

    def test_the_delay_holds_up_nobody(self):
        def answered_meanwhile():
            """Is an answer there before any of those that are held up? Where this machine stands still, not each time."""
            strangers = [self.tcp(self.gateway) for _ in range(50)]
            good = self.tcp(self.gateway)
            with self.gateway.still():
                for c in strangers:
                    c.request("GET", "/record/a", host="localhost")
                good.request("GET", "/record/a", headers={"x-api-key": LOCAL_KEY}, host="localhost")
            self.assertEqual(200, good.response().status)
            before = not select.select([c.sock for c in strangers], [], [], 0)[0]
            for c in strangers:
                self.assertEqual(401, c.response().status)
                c.close()
            return before

        eventually(answered_meanwhile, "an answer that waits for none of theirs")

    def test_guesses_on_one_connection_come_one_after_another(self):
        c = self.tcp(self.gateway)
        began = time.monotonic()
        c.send("GET /record/a HTTP/1.1\r\nHost: localhost\r\nx-api-key: wrong\r\n\r\n" * 5)
        for _ in range(5):
            self.assertEqual(401, c.response().status)
        self.assertGreaterEqual(time.monotonic() - began, 0.45)
        self.assertEqual(200, c.ask("GET", "/record/a", headers={"x-api-key": LOCAL_KEY}, host="localhost").status)

    def test_a_wrong_key_with_a_body(self):
        c = self.tcp(self.gateway)
        r = c.ask("POST", "/record", {"key": "a", "value": "b"}, headers={"x-api-key": "wrong"}, host="localhost")
        self.assertEqual((401, "close"), (r.status, r.header("Connection")))
        self.assertTrue(c.at_end())

    def test_ready_needs_none(self):
        self.assertEqual(200, self.gateway.ask_tcp("GET", "/hpkvd/ready", key=None).status)
        self.assertEqual(200, self.gateway.ask_tcp("HEAD", "/hpkvd/ready", key=None).status)
        for path in ("/hpkvd/status", "/hpkvd/stats", "/hpkvd/watch?key=a", "/hpkvd/ready/", "/nothing"):
            self.assertEqual(401, self.gateway.ask_tcp("GET", path, key=None).status)

    def test_never_lines_there(self):
        for first in (b'{"op":"ping"}\n', b"get / HTTP/1.1\r\n\r\n", b"\n", b"\x16\x03\x01\x00\xa5\x01\x00\x00"):
            c = self.tcp(self.gateway)
            c.send(first + b"\r\n\r\n")
            self.assertIn(c.response().status, (400, 501))

    def test_the_unix_socket_takes_any_key(self):
        c = self.http(self.gateway)
        for headers in ({"x-api-key": "anything"}, {"Authorization": "Bearer x"}, {"Host": "evil.example", "Origin": "https://evil.example"}):
            self.assertEqual(200, c.ask("GET", "/record/a?apiKey=whatever", headers=headers).status)

    def test_no_key_reaches_log_status_or_errors(self):
        wrong = "a-wrong-key-that-nobody-may-see"
        for key in (LOCAL_KEY, wrong):
            self.gateway.ask_tcp("GET", "/record/a?apiKey=" + key, key=None)
            self.gateway.ask_tcp("GET", "/record/%zz?apiKey=" + key, key=key)
            r = self.gateway.ask_tcp("GET", "/nothing/?apiKey=" + key, key=key)
            self.assertNotIn(key.encode(), r.body)
        text = self.gateway.log() + str(self.gateway.status()).encode() + str(self.gateway.stats()).encode()
        for key in (LOCAL_KEY, wrong, KEY):
            self.assertNotIn(key.encode(), text)

    def test_no_key_stays_in_memory(self):
        """A core file would have it. The kernel leaves out of one what the key's own pages are marked for."""
        wrong = "a-wrong-key-0123456789-that-was-presented"
        for key in (LOCAL_KEY, wrong):
            c = self.tcp(self.gateway)
            for byte in f"GET /record/a HTTP/1.1\r\nHost: localhost\r\nX-1: y\r\nx-api-key: {key}\r\n\r\n".encode():
                c.send(bytes([byte]))
            c.response()
            c.ask("GET", "/record/a?apiKey=" + key, host="localhost")
        found = memory_has(self.gateway.pid, LOCAL_KEY.encode()) + memory_has(self.gateway.pid, wrong.encode())
        self.assertEqual([], found)


class Strangers(GatewayCase):
    def test_who_shows_no_key_keeps_nobody_out(self):
        """However many connections he has, and however often he asks what needs no key."""
        raise_descriptor_limit(1000)
        _, g = self.scene(max_clients=400)
        known = self.tcp(g)
        token = known.ask("POST", "/token/websocket", {"subscribeKeys": ["a"]}, {"x-api-key": LOCAL_KEY}, host="localhost").json["token"]
        with self.tcp(g).sock as sock:
            by_token = WebSocket(sock, "/ws?token=" + token)
            strangers = [self.tcp(g) for _ in range(600)]
            for c in strangers[:344]: # all but 256
                self.assertTrue(c.at_end())
            self.assertEqual(200, strangers[-1].ask("GET", "/hpkvd/ready", host="localhost").status)
            with g.client() as client:
                client.barrier()
            self.assertEqual(200, g.ask_tcp("GET", "/record/a").status)
            self.assertEqual(200, known.ask("GET", "/hpkvd/ready", host="localhost").status)
            self.assertEqual("pong", by_token.ask(op="ping")["message"])
        self.assertGreater(g.stats()["clients_refused"], 0)


def memory_has(pid, text):
    """Where this process has the text in memory that it may write to and that a core file would have."""
    found = []
    try:
        with open(f"/proc/{pid}/smaps", encoding="utf-8") as f:
            lines = f.read().splitlines()
        memory = open(f"/proc/{pid}/mem", "rb", buffering=0)
    except PermissionError as error:
        raise unittest.SkipTest(f"another process's memory can't be read: {error}") from error
    with memory:
        for i, line in enumerate(lines):
            parts = line.split()
            if "-" not in parts[0] or len(parts) < 5 or not parts[1].startswith("rw"):
                continue
            flags = next(l for l in lines[i + 1:] if l.startswith("VmFlags"))
            if " dd" in flags:
                continue
            start, end = (int(x, 16) for x in parts[0].split("-"))
            if end - start > 1 << 30: # a sanitizer's
                continue
            try:
                memory.seek(start)
                if text in memory.read(end - start):
                    found.append(line)
            except OSError:
                continue
    return found


class Sections(GatewayCase):
    """Who presents a key has its section's rights, and no other."""

    ACCESS = {"a": {"user": os.geteuid(), "local_key_file": "key-a", "read": "a:*", "write": "a:*"},
              "b": {"local_key_file": "key-b", "read": "b:*"}}

    def setUp(self):
        self.service = self.open(FakeService())
        self.gateway = Gateway(self.service, access=self.ACCESS)
        self.gateway.write_key("key-a", LOCAL_KEY)
        self.gateway.write_key("key-b", OTHER_KEY)
        self.open(self.gateway)
        self.gateway.wait_state("connected")

    def status(self, key, method, path, body=None):
        return self.gateway.ask_tcp(method, path, body, key=key).status

    def test_rights(self):
        self.assertEqual(200, self.status(LOCAL_KEY, "GET", "/record/a:1"))
        self.assertEqual(403, self.status(LOCAL_KEY, "GET", "/record/b:1"))
        self.assertEqual(200, self.status(OTHER_KEY, "GET", "/record/b:1"))
        self.assertEqual(403, self.status(OTHER_KEY, "GET", "/record/a:1"))
        self.assertEqual(403, self.status(OTHER_KEY, "POST", "/record", {"key": "b:1", "value": "x"}))
        self.assertEqual(200, self.status(LOCAL_KEY, "POST", "/record", {"key": "a:1", "value": "x"}))
        self.assertIn(b"(the local key of [access b]): forbidden: get: no access rule lets this client read \"a:1\"", self.gateway.log())

    def test_two_keys_on_one_connection_never_mix(self):
        self.service.answer = None
        c = self.tcp(self.gateway)
        for n in range(10):
            for key, path in ((LOCAL_KEY, f"a:{n}"), (OTHER_KEY, f"b:{n}"), (OTHER_KEY, f"a:{n}"), (LOCAL_KEY, f"b:{n}")):
                c.request("GET", "/record/" + path, headers={"x-api-key": key}, host="localhost")
        for n in range(10):
            for path in (f"a:{n}", f"b:{n}"):
                request = self.service.next_request()
                self.assertEqual(path, request.key)
                request.reply(key=path, value="v")
        self.assertEqual([200, 200, 403, 403] * 10, [c.response().status for _ in range(40)])

    def test_a_key_that_is_gone_closes_its_connections(self):
        mine, theirs, stream = self.tcp(self.gateway), self.tcp(self.gateway), self.tcp(self.gateway)
        self.assertEqual(200, mine.ask("GET", "/record/a:1", headers={"x-api-key": LOCAL_KEY}, host="localhost").status)
        self.assertEqual(200, theirs.ask("GET", "/record/b:1", headers={"x-api-key": OTHER_KEY}, host="localhost").status)
        stream.request("GET", "/hpkvd/watch?key=b:1", headers={"x-api-key": OTHER_KEY}, host="localhost")
        self.assertEqual(200, stream.head()[0])
        self.gateway.write_key("key-b", "a-new-key-of-section-b-0123")
        self.assertTrue(self.gateway.hang_up())
        self.assertTrue(theirs.at_end())
        stream.until(b"\n\n") # what it is told at last
        self.assertTrue(stream.at_end())
        self.assertEqual(401, self.status(OTHER_KEY, "GET", "/record/b:1"))
        self.assertEqual(200, self.status("a-new-key-of-section-b-0123", "GET", "/record/b:1"))
        self.assertEqual(200, mine.ask("GET", "/record/a:1", headers={"x-api-key": LOCAL_KEY}, host="localhost").status)
        # Of one that moves to another section the rights are that one's at once.
        self.gateway.write_key("key-a", "a-new-key-of-section-a-0123")
        self.gateway.write_key("key-b", LOCAL_KEY)
        self.assertTrue(self.gateway.hang_up())
        self.assertEqual(200, mine.ask("GET", "/record/b:1", headers={"x-api-key": LOCAL_KEY}, host="localhost").status)
        self.assertEqual(403, mine.ask("GET", "/record/a:1", headers={"x-api-key": LOCAL_KEY}, host="localhost").status)

    def test_rules_that_change_end_a_stream(self):
        stream = self.tcp(self.gateway)
        stream.request("GET", "/hpkvd/watch?key=a:1", headers={"x-api-key": LOCAL_KEY}, host="localhost")
        self.assertEqual(200, stream.head()[0])
        access = {name: dict(rules) for name, rules in self.ACCESS.items()}
        access["a"]["read"] = "c:*"
        self.assertTrue(self.gateway.reload(access=access))
        kind, event = stream.event()
        self.assertEqual(("unsubscribed", "a:1", "forbidden"), (kind, event["key"], event["reason"]))
        self.assertTrue(stream.at_end())


class Budgets(GatewayCase):
    """A key's clients share the budget of its section."""

    def test_the_rate_is_refused_with_a_time(self):
        _, g = self.scene(access={"web": {"local_key_file": "local-key", "read": "*", "rate": 1}})
        # One a second is granted, or its time is up before the service answers; all others are refused.
        r = eventually(lambda: (r := g.ask_tcp("GET", "/record/a?timeoutMs=1")).status == 429 and r, "a refusal")
        self.assert_refused(r, 429, "rate_limited")
        self.assertIn("[access web]", r.json["error"])
        self.assertIn(r.header("Retry-After"), ("1", "2"))

    def test_no_more_clients_than_that(self):
        _, g = self.scene(access={"web": {"local_key_file": "local-key", "read": "*", "max_clients": 1}})
        first, second = self.tcp(g), self.tcp(g)
        key = {"x-api-key": LOCAL_KEY}
        self.assertEqual(200, first.ask("GET", "/record/a", headers=key, host="localhost").status)
        r = second.ask("GET", "/record/a", headers=key, host="localhost")
        self.assert_refused(r, 503, "too_many_clients")
        self.assertIn("[access web]", r.json["error"])
        self.assertTrue(second.at_end())
        self.assertEqual(200, first.ask("GET", "/record/a", headers=key, host="localhost").status)
        first.close()

        def free():
            with self.tcp(g) as c:
                return c.ask("GET", "/record/a", headers=key, host="localhost").status == 200

        eventually(free, "the place of the client that has left")


class Browsers(GatewayCase):
    def setUp(self):
        self.service, self.gateway = self.scene(http_origins="http://localhost:3000 https://app.example")

    def test_hosts(self):
        for host, status in (("localhost", 200), ("LocalHost:1", 200), ("127.0.0.1:7480", 200), ("127.1.2.3", 200), ("[::1]", 200), ("[::1]:80", 200),
                             ("localhost.", 200), ("[0:0:0:0:0:0:0:1]", 200),
                             ("evil.example", 403), ("localhost.evil.example", 403), ("127.0.0.1.evil.example", 403), ("", 403), ("10.0.0.1", 403),
                             ("0.0.0.0", 403), ("[::]", 403), ("::1", 403), ("[::1", 403), ("localhost:", 200), ("localhost:x", 403), ("127.1", 403),
                             ("[::ffff:127.0.0.1]", 403), ("2130706433", 403), ("localhost@evil.example", 403)):
            with self.subTest(host=host):
                r = self.gateway.ask_tcp("GET", "/hpkvd/status", headers={"Host": host})
                self.assertEqual(status, r.status)
        self.assertEqual(403, self.gateway.ask_tcp("GET", "http://evil.example/hpkvd/status", headers={"Host": "localhost"}).status)
        self.assertEqual(403, self.gateway.ask_tcp("GET", "/hpkvd/ready", headers={"Host": "evil.example"}, key=None).status)

    def test_origins(self):
        for origin, status in (("http://localhost:3000", 200), ("https://app.example", 200), ("HTTPS://APP.EXAMPLE", 200), ("https://app.example:443", 403),
                               ("http://app.example", 403), ("https://evil.example", 403), ("null", 403), ("", 403),
                               ("https://app.example.evil.example", 403), ("http://127.0.0.1:3000", 403)):
            with self.subTest(origin=origin):
                r = self.gateway.ask_tcp("GET", "/record/a", headers={"Origin": origin})
                self.assertEqual(status, r.status)
                self.assertEqual(origin if status == 200 else None, r.header("Access-Control-Allow-Origin"))
                if status == 200:
                    self.assertEqual("Origin", r.header("Vary"))
        self.assertIsNone(self.gateway.ask_tcp("GET", "/record/a").header("Access-Control-Allow-Origin"))

    def test_errors_can_be_read_by_the_page(self):
        r = self.gateway.ask_tcp("GET", "/record/a", headers={"Origin": "https://app.example"}, key="wrong")
        self.assertEqual((401, "https://app.example"), (r.status, r.header("Access-Control-Allow-Origin")))

    def test_preflight(self):
        asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key,content-type"}
        r = self.gateway.ask_tcp("OPTIONS", "/record", headers=asked, key=None)
        self.assertEqual((204, "https://app.example"), (r.status, r.header("Access-Control-Allow-Origin")))
        self.assertIn("POST", r.header("Access-Control-Allow-Methods"))
        self.assertIn("x-api-key", r.header("Access-Control-Allow-Headers"))
        self.assertIn("content-type", r.header("Access-Control-Allow-Headers"))
        self.assertIsNone(r.header("Access-Control-Allow-Private-Network"))
        r = self.gateway.ask_tcp("OPTIONS", "/record", headers=asked | {"Access-Control-Request-Private-Network": "true"}, key=None)
        self.assertEqual("true", r.header("Access-Control-Allow-Private-Network"))
        r = self.gateway.ask_tcp("OPTIONS", "/record", headers=asked | {"Origin": "https://evil.example"}, key=None)
        self.assertEqual((403, None), (r.status, r.header("Access-Control-Allow-Origin")))
        self.assertEqual(401, self.gateway.ask_tcp("OPTIONS", "/record", key=None).status) # no browser's

    def test_origins_are_read_again(self):
        self.assertTrue(self.gateway.reload(http_origins="https://evil.example"))
        self.assertEqual(200, self.gateway.ask_tcp("GET", "/record/a", headers={"Origin": "https://evil.example"}).status)
        self.assertEqual(403, self.gateway.ask_tcp("GET", "/record/a", headers={"Origin": "https://app.example"}).status)


class Addresses(GatewayCase):
    def test_both_families(self):
        need.ipv6()
        ports = free_port(), free_port()
        _, g = self.scene(http_address=f"127.0.0.1:{ports[0]} [::1]:{ports[1]}")
        for where in (("127.0.0.1", ports[0]), ("::1", ports[1])):
            with Http(where) as c:
                self.assertEqual(200, c.ask("GET", "/record/a", headers={"x-api-key": LOCAL_KEY}, host="localhost").status)
        self.assertIn(f" and 127.0.0.1:{ports[0]} and [::1]:{ports[1]} for".encode(), g.log())

    def test_moves_with_a_reload(self):
        _, g = self.scene()
        before, port = g.port, free_port()
        old = self.tcp(g)
        self.assertEqual(200, old.ask("GET", "/record/a", headers={"x-api-key": LOCAL_KEY}, host="localhost").status)
        self.assertTrue(g.reload(http_address=f"127.0.0.1:{port}"))
        with Http(("127.0.0.1", port)) as c:
            self.assertEqual(200, c.ask("GET", "/record/a", headers={"x-api-key": LOCAL_KEY}, host="localhost").status)
        with self.assertRaises(ConnectionRefusedError):
            Http(("127.0.0.1", before))
        self.assertEqual(200, old.ask("GET", "/record/a", headers={"x-api-key": LOCAL_KEY}, host="localhost").status)
        self.assertTrue(g.reload(http_address=None))
        with self.assertRaises(ConnectionRefusedError):
            Http(("127.0.0.1", port))

    def test_taken_is_an_error_at_the_start_and_a_refused_reload(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = f"127.0.0.1:{other.getsockname()[1]}"
            s, g = self.scene()
            self.assertFalse(g.reload(http_address=f"127.0.0.1:{free_port()} {taken}"))
            self.assertIn(f"[listen] http_address: can't listen on {taken}".encode(), g.log())
            self.assertEqual(200, g.ask_tcp("GET", "/record/a").status) # all is as before
            late = Gateway(s, http_address=taken, wait=False)
            late.start()
            self.addCleanup(late._clean_up, False)
            self.assertEqual(1, late.process.wait_exit())
            self.assertIn(f"can't listen on {taken}".encode(), late.log())
            late.killed = True

    def test_the_metrics_page_taken_too_leaves_all_as_it_was(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            _, g = self.scene()
            self.assertFalse(g.reload(http_address=f"127.0.0.1:{free_port()}", listen=f"127.0.0.1:{other.getsockname()[1]}"))
            self.assertEqual(200, g.ask_tcp("GET", "/record/a").status)

    def test_a_restart_keeps_the_sockets(self):
        s, g = self.scene()
        before = self.tcp(g)
        self.assertEqual(200, before.ask("GET", "/record/a", headers={"x-api-key": LOCAL_KEY}, host="localhost").status)
        for n in (1, 2):
            g.process.signal(signal.SIGUSR2)
            while g.log().count(b"listens on") <= n:
                self.tcp(g).close() # never refused meanwhile
            self.assertEqual(200, g.ask_tcp("GET", "/hpkvd/status").status)
        self.assertTrue(before.at_end())
        # And they are its own: they go with the setting.
        self.assertTrue(g.reload(http_address=None))
        with self.assertRaises(ConnectionRefusedError):
            self.tcp(g)

    def test_pythons_own_client(self):
        _, g = self.scene()
        c = http.client.HTTPConnection("127.0.0.1", g.port, timeout=60)
        for n in range(3):
            c.request("GET", f"/record/{n}", headers={"x-api-key": LOCAL_KEY})
            r = c.getresponse()
            self.assertEqual(200, r.status)
            r.read()
        c.request("POST", "/record", iter([b'{"key":"a",', b'"value":"b"}']), {"x-api-key": LOCAL_KEY, "Content-Type": "application/json"},
                  encode_chunked=True)
        self.assertEqual(200, c.getresponse().status)
        c.close()

    def test_curl(self):
        _, g = self.scene()
        r = subprocess.run(["curl", "-sS", "-H", "x-api-key: " + LOCAL_KEY, f"http://127.0.0.1:{g.port}/record/a"], capture_output=True, check=True, timeout=60)
        self.assertIn(b'"key":"a"', r.stdout.replace(b" ", b""))


if __name__ == "__main__":
    unittest.main()
