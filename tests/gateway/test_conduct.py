"""HTTP/1.1 as it has to be: connections that stay, requests sent ahead, bodies in chunks, limits, and input that must not be
taken for something else."""

import email.utils
import threading
import time
import unittest

from gateway import DEADLINE, LOCAL_KEY, GatewayCase, eventually

WITHHELD = {"answer": None}
GET = "GET /record/{} HTTP/1.1\r\nHost: hpkv\r\n\r\n"
POST = "POST /record HTTP/1.1\r\nHost: hpkv\r\nContent-Type: application/json\r\n"
BODY = '{"key":"a","value":"b"}'


class Conduct(GatewayCase):
    def setUp(self):
        self.service, self.gateway = self.scene(tcp=False)
        self.c = self.http(self.gateway)


class Connections(Conduct):
    def test_stays_for_further_requests(self):
        for key in "abc":
            r = self.c.ask("GET", "/record/" + key)
            self.assertEqual((200, None), (r.status, r.header("Connection")))

    def test_closes_when_the_client_wants_it(self):
        r = self.c.ask("GET", "/record/a", headers={"Connection": "close"})
        self.assertEqual((200, "close"), (r.status, r.header("Connection")))
        self.assertTrue(self.c.at_end())

    def test_http_1_0(self):
        r = self.c.ask("GET", "/record/a", host=None, version="HTTP/1.0", headers={"Connection": "keep-alive"})
        self.assertEqual((200, "keep-alive"), (r.status, r.header("Connection")))
        r = self.c.ask("GET", "/record/a", host=None, version="HTTP/1.0")
        self.assertEqual((200, "close"), (r.status, r.header("Connection")))
        self.assertTrue(self.c.at_end())

    def test_close_counts_whatever_else_is_asked_for(self):
        for version, headers in (("HTTP/1.0", {"Connection": "keep-alive, close"}), ("HTTP/1.0", {"Proxy-Connection": "keep-alive"}),
                                 ("HTTP/1.1", {"Connection": "keep-alive, Close"})):
            with self.subTest(version=version, headers=headers):
                c = self.http(self.gateway)
                r = c.ask("GET", "/record/a", version=version, headers=headers)
                self.assertEqual((200, "close"), (r.status, r.header("Connection")))
                self.assertTrue(c.at_end())

    def test_every_response_has_a_date(self):
        for method, target, status in (("GET", "/record/a", 200), ("HEAD", "/record/a", 200), ("GET", "/none", 404), ("OPTIONS", "*", 204),
                                       ("GET", "/hpkvd/ready", 200), ("GET", "/records", 400), ("BREW", "/", 501)):
            with self.subTest(target=target):
                r = self.c.ask(method, target)
                self.assertEqual(status, r.status)
                self.assertRegex(r.header("Date"), r"^[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$")
                told = email.utils.parsedate_to_datetime(r.header("Date")).timestamp()
                self.assertLess(abs(told - time.time()), 60)

    def test_requests_sent_ahead_are_answered_in_order(self):
        self.c.send("".join(GET.format(n) for n in range(300)))
        for n in range(300):
            self.assertEqual(str(n), self.c.response().json["key"])

    def test_what_is_known_at_once_waits_for_those_before_it(self):
        self.service.answer = None
        self.c.send(GET.format("a") + "GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n" + GET.format("b") + "PUT /record/a HTTP/1.1\r\nHost: h\r\n\r\n")
        first, second = self.service.next_requests(2)
        second.reply(key="b", value="2")
        first.reply(key="a", value="1")
        statuses = [self.c.response().status for _ in range(4)]
        self.assertEqual([200, 404, 200, 405], statuses)

    def test_more_than_max_pipeline_are_answered_as_well(self):
        s, g = self.scene(tcp=False, max_pipeline="3")
        c = self.http(g)
        c.send("".join(GET.format(n) for n in range(50)))
        for n in range(50):
            self.assertEqual(str(n), c.response().json["key"])

    def test_more_than_max_pipeline_that_are_known_at_once(self):
        s, g = self.scene(tcp=False, max_pipeline="3")
        c = self.http(g)
        c.send("GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n" * 50)
        self.assertEqual([404] * 50, [c.response().status for _ in range(50)])

    def test_an_upgrade_behind_more_than_max_pipeline(self):
        s, g = self.scene(tcp=False, max_pipeline="1")
        c = self.http(g)
        c.send(GET.format("a") + "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        self.assertEqual([200, 101], [c.response().status for _ in range(2)])

    def test_half_close_as_for_lines(self):
        self.service.answer = None
        self.c.send(GET.format("a") + GET.format("b") + "GET /record/c HTT")
        self.c.half_close()
        for request in self.service.next_requests(2):
            request.reply(key=request.key, value="v")
        self.assertEqual(["a", "b"], [self.c.response().json["key"] for _ in range(2)])
        self.assertTrue(self.c.at_end()) # the third one never came

    def test_a_client_that_leaves(self):
        self.service.answer = None
        self.c.send(GET.format("a"))
        request = self.service.next_request()
        self.c.close()
        eventually(lambda: self.gateway.status()["clients"] == 1) # the one that asks
        request.reply(key="a", value="1")
        self.assertEqual(200, self.http(self.gateway).ask("GET", "/hpkvd/status").status)

    def test_empty_lines_between_requests_do_no_harm(self):
        self.c.send(GET.format("a") + "\r\n\r\n" + GET.format("b") + "\r")
        self.assertEqual(["a", "b"], [self.c.response().json["key"] for _ in range(2)])
        self.c.send("\n" + GET.format("c"))
        self.assertEqual("c", self.c.response().json["key"])

    def test_max_clients(self):
        _, g = self.scene(tcp=False, max_clients="2")
        g.wait_status(lambda status: status["clients"] == 1, "no client but the one that asks")
        eventually(lambda: not self.two_of(g), "room for two")

    def two_of(self, g):
        """False once two were there, and more were refused."""
        with g.http() as first, g.http() as second:
            for c in (first, second):
                if c.ask("GET", "/hpkvd/ready").status != 200:
                    return True
            with g.still(): # what is refused has 20 ms to say by its first byte that it is HTTP
                third, lines = self.http(g), self.open(g.client())
                third.send(GET.format("a"))
            r = third.response()
            self.assertEqual((503, "too_many_clients", "close"), (r.status, r.json["reason"], r.header("Connection")))
            self.assertIsNotNone(r.header("Date"))
            self.assertEqual("too_many_clients", lines.answer()["reason"])
            return False

    def test_an_upgrade_to_something_unknown_is_ignored(self):
        upgrade = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQCAAAAAAIAAAAA"}
        for _ in range(2):
            self.assertEqual("a", self.c.ask("GET", "/record/a", headers=upgrade).json["key"])
            self.assertEqual(200, self.c.ask("POST", "/record", BODY, headers=upgrade).status)

    def test_absolute_target(self):
        self.assertEqual("a", self.c.ask("GET", "http://hpkv/record/a").json["key"])
        self.assertEqual("a", self.c.ask("GET", "http://[::1]:7480/record/a?timeoutMs=1000").json["key"])
        self.assert_refused(self.c.ask("GET", "http://user:pw@hpkv/record/a"), 400)

    def test_slow_reader(self):
        _, g = self.scene({"answer": lambda r: r.reply(key=r.key, value="x" * 3000)}, tcp=False, output_soft="16K")
        c = self.http(g)
        n = 5000
        c.sock.setblocking(False)
        data, sent = b"".join(GET.format(i).encode() for i in range(n)), 0
        while sent < len(data):
            try:
                sent += c.sock.send(data[sent:])
            except BlockingIOError:
                break
        c.sock.settimeout(DEADLINE)
        eventually(lambda: g.stats()["client_reads_held"] >= 1)
        rest = threading.Thread(target=lambda: c.sock.sendall(data[sent:]))
        rest.start()
        for i in range(n):
            self.assertEqual(str(i), c.response().json["key"])
        rest.join()


class FirstByte(Conduct):
    def test_alone_and_the_rest_later(self):
        self.c.send("G")
        self.assertEqual(200, self.http(self.gateway).ask("GET", "/hpkvd/ready").status)
        time.sleep(1)
        self.c.send(GET.format("a")[1:])
        self.assertEqual("a", self.c.response().json["key"])

    def test_a_line_comes_byte_by_byte_too(self):
        with self.gateway.client() as lines:
            for byte in b'{"op":"ping"}\n':
                lines.send_raw(bytes([byte]))
            self.assertEqual("pong", lines.answer()["message"])

    def test_drip_feed(self):
        for byte in GET.format("a").encode():
            self.c.send(bytes([byte]))
        self.assertEqual("a", self.c.response().json["key"])
        for byte in (POST + f"Content-Length: {len(BODY)}\r\n\r\n{BODY}").encode():
            self.c.send(bytes([byte]))
        self.assertEqual(200, self.c.response().status)
        for byte in (POST + f"Transfer-Encoding: chunked\r\n\r\n17;x=y\r\n{BODY}\r\n0\r\nT: x\r\n\r\n").encode():
            self.c.send(bytes([byte]))
        self.assertEqual(200, self.c.response().status)

    def test_other_first_bytes_are_lines(self):
        for first in ("get / HTTP/1.1", " GET / HTTP/1.1", "\u00c4", "[1]", "1"):
            with self.gateway.client() as lines:
                lines.send_raw((first + "\n").encode())
                self.assertEqual("bad_json", lines.answer()["reason"])

    def test_http_no(self):
        _, g = self.scene(tcp=False, http="no")
        with g.client() as lines:
            lines.send_raw(b"GET / HTTP/1.1\n")
            self.assertEqual("bad_json", lines.answer()["reason"])

    def test_nothing_but_an_end(self):
        self.c.half_close()
        self.assertTrue(self.c.at_end())


class Bodies(Conduct):
    def test_chunked(self):
        for chunks in (f"17\r\n{BODY}\r\n0\r\n\r\n", f"017\r\n{BODY}\r\n00\r\n\r\n", f"17;name=value\r\n{BODY}\r\n0\r\nTrailer: x\r\n\r\n",
                       "".join(f"1\r\n{c}\r\n" for c in BODY) + "0\r\n\r\n"):
            with self.subTest(chunks=chunks):
                self.c.send(POST + "Transfer-Encoding: Chunked\r\n\r\n" + chunks)
                self.assertEqual(200, self.c.response().status)
                self.assertEqual("a", self.service.next_request().key)
        self.assertEqual(200, self.c.ask("GET", "/record/a").status)

    def test_expect_100_continue(self):
        self.c.send(POST + f"Expect: 100-continue\r\nContent-Length: {len(BODY)}\r\n\r\n")
        self.assertEqual((100, []), self.c.head())
        self.c.send(BODY)
        self.assertEqual(200, self.c.response().status)

    def test_leave_to_send_comes_behind_the_responses_before_it(self):
        self.service.answer = None
        self.c.send(GET.format("x") + POST + f"Expect: 100-continue\r\nContent-Length: {len(BODY)}\r\n\r\n")
        self.service.next_request().reply(key="x", value="1")
        self.assertEqual("x", self.c.response().json["key"])
        self.assertEqual(100, self.c.head()[0])
        self.c.send(BODY)
        self.service.next_request().reply(success=True)
        self.assertEqual(200, self.c.response().status)

    def test_no_leave_to_send_what_is_refused(self):
        for head, status in ((POST + "Content-Length: 70000\r\n", 413), ("POST /nothing HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n", 404),
                             ("POST /record HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n", 415)):
            with self.subTest(status=status):
                c = self.http(self.gateway)
                c.send(head + "Expect: 100-continue\r\n\r\n")
                r = c.response()
                self.assert_refused(r, status)
                self.assertEqual("close", r.header("Connection"))
                self.assertTrue(c.at_end())

    def test_other_expectations(self):
        self.assert_refused(self.c.ask("GET", "/record/a", headers={"Expect": "42"}), 417)

    def test_longer_than_max_line(self):
        long = "x" * 65536
        r = self.c.ask("POST", "/record", {"key": "a", "value": long})
        self.assert_refused(r, 413, "too_large")
        self.assertTrue(self.c.at_end())
        c = self.http(self.gateway)
        c.send(POST + f"Transfer-Encoding: chunked\r\n\r\n10001\r\n")
        self.assert_refused(c.response(), 413, "too_large")
        c = self.http(self.gateway)
        c.send(POST + "Transfer-Encoding: chunked\r\n\r\n" + f"8000\r\n{'x' * 32768}\r\n" * 2 + "1\r\nx\r\n0\r\n\r\n")
        self.assert_refused(c.response(), 413, "too_large")

    def test_as_long_as_max_line(self):
        _, g = self.scene(tcp=False, max_line="1K", max_frame="8K")
        c = self.http(g)
        body = '{"key":"a","value":"%s"}'
        body %= "x" * (1024 - len(body) + 2)
        self.assertEqual(1024, len(body))
        self.assertEqual(200, c.ask("POST", "/record", body).status)
        self.assertEqual(413, c.ask("POST", "/record", body + " ").status)

    def test_another_max_line_after_a_reload(self):
        body = {"key": "a", "value": "x" * 2000}
        self.assertEqual(200, self.c.ask("POST", "/record", body).status)
        self.assertTrue(self.gateway.reload(max_line="1K"))
        self.assertEqual(413, self.c.ask("POST", "/record", body).status)

    def test_the_refusal_of_a_long_body_arrives_although_it_is_still_being_sent(self):
        self.c.send(POST + "Content-Length: 300000\r\n\r\n" + "x" * 300000)
        self.assert_refused(self.c.response(), 413)

    def test_types(self):
        for kind, status in (("application/json", 200), ("Application/JSON; charset=utf-8", 200), ("text/json", 200),
                             ("application/merge-patch+json", 200), ("text/plain", 415), ("application/x-www-form-urlencoded", 415),
                             ("application/jsonx", 415), ("json", 415), ("", 415)):
            with self.subTest(kind=kind):
                c = self.http(self.gateway)
                r = c.ask("POST", "/record", BODY, headers={"Content-Type": kind})
                self.assertEqual(status, r.status)
        self.c.send(f"POST /record HTTP/1.1\r\nHost: h\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}") # none at all
        self.assertEqual(200, self.c.response().status)

    def test_compressed(self):
        self.assert_refused(self.c.ask("POST", "/record", BODY, headers={"Content-Encoding": "gzip"}), 415)

    def test_a_body_that_nobody_needs(self):
        r = self.c.ask("GET", "/record/a", BODY)
        self.assertEqual("a", r.json["key"])
        self.assertEqual("b", self.c.ask("GET", "/record/b").json["key"])


class Refusals(Conduct):
    def test_paths_and_methods(self):
        rows = [("GET", "/", 404), ("GET", "/nothing", 404), ("POST", "/nothing", 404), ("GET", "/recordx", 404), ("GET", "/records/", 404),
                ("GET", "/Record/a", 404), ("GET", "/search", 405), ("GET", "/record", 405), ("POST", "/record/a", 405),
                ("PUT", "/record/a", 405), ("PATCH", "/record/a", 405), ("POST", "/records", 405), ("DELETE", "/hpkvd/status", 405),
                ("BREW", "/record/a", 501), ("TRACE", "/record/a", 501), ("CONNECT", "hpkv:80", 501), ("PROPFIND", "/record/a", 501),
                ("get", "/record/a", 501)]
        for method, target, status in rows:
            with self.subTest(method=method, target=target):
                c = self.http(self.gateway)
                if method == "get": # the first byte would make it a line
                    self.assertEqual(200, c.ask("GET", "/record/a").status)
                r = c.ask(method, target)
                self.assert_refused(r, status)
                self.assertEqual(status == 405, r.header("Allow") is not None)

    def test_allow(self):
        for method, target, allow in (("PUT", "/record/a", "GET, HEAD, DELETE, OPTIONS"), ("GET", "/record", "POST, OPTIONS"),
                                      ("DELETE", "/records", "GET, HEAD, OPTIONS"), ("PUT", "/record/atomic", "POST, GET, HEAD, DELETE, OPTIONS"),
                                      ("HEAD", "/hpkvd/watch?key=a", "GET, OPTIONS")):
            with self.subTest(target=target):
                r = self.c.ask(method, target)
                self.assertEqual((405, allow), (r.status, r.header("Allow")))
                r = self.c.ask("OPTIONS", target)
                self.assertEqual((204, allow), (r.status, r.header("Allow")))

    def test_versions(self):
        for version, status in (("HTTP/2.0", 505), ("HTTP/0.9", 505), ("HTTP/1.2", 505), ("HTTP/1", 400), ("http/1.1", 400), ("HTTP/1.1x", 400), ("", 400)):
            with self.subTest(version=version):
                c = self.http(self.gateway)
                c.send(f"GET /record/a {version}\r\nHost: h\r\n\r\n")
                self.assert_refused(c.response(), status)
                self.assertTrue(c.at_end())

    def test_head_floods(self):
        rows = [("GET /record/" + "a" * 17000, 414), ("GET /record/" + "a" * 17000 + " HTTP/1.1\r\nHost: h\r\n\r\n", 414),
                ("GET / HTTP/1.1\r\nHost: h\r\nX: " + "x" * 17000, 431),
                ("GET / HTTP/1.1\r\nHost: h\r\n" + "X: y\r\n" * 101 + "\r\n", 431),
                ("GET / HTTP/1.1\r\nHost: h\r\n" + "X: y\r\n" * 4000, 431),
                ("A" * 20000, 414)]
        for data, status in rows:
            with self.subTest(status=status, data=data[:40]):
                c = self.http(self.gateway)
                c.send(data)
                self.assert_refused(c.response(), status, "too_large")

    def test_a_head_of_almost_16_KiB(self):
        key = "a" * 10000
        self.assertEqual(key, self.c.ask("GET", "/record/" + key).json["key"])
        self.assertEqual(200, self.c.ask("GET", "/record/a", headers={f"X-{n}": "y" for n in range(99)}).status)

    def test_trailer_and_chunk_line_floods(self):
        for data, status in ((POST + "Transfer-Encoding: chunked\r\n\r\n1;" + "x" * 1000, 400),
                             (POST + f"Transfer-Encoding: chunked\r\n\r\n17\r\n{BODY}\r\n0\r\n" + "X: y\r\n" * 4000, 431)):
            c = self.http(self.gateway)
            c.send(data)
            self.assertEqual(status, c.response().status)


class Smuggling(Conduct):
    """Bytes that others may read as another request than we would: 4xx, the end, and nothing of them reaches the service."""

    INNER = "GET /record/smuggled HTTP/1.1\r\nHost: h\r\n\r\n"

    def refused(self, data, status=400):
        c = self.http(self.gateway)
        c.send(data + self.INNER if isinstance(data, str) else data + self.INNER.encode())
        self.assert_refused(c.response(), status)
        self.assertTrue(c.at_end())

    def tearDown(self):
        self.assertEqual([], [r.text for r in self.service.requests])

    def test_lengths(self):
        for headers in ("Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5\r\nContent-Length: 6", "Content-Length: 5, 5",
                        "Content-Length: +5", "Content-Length: 0x5", "Content-Length: -1", "Content-Length: 5 5", "Content-Length: ",
                        "Content-Length: 99999999999999999999", "Content-Length: 5\r\nTransfer-Encoding: chunked",
                        "Transfer-Encoding: chunked\r\nContent-Length: 5", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                        "Transfer-Encoding : chunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"):
            with self.subTest(headers=headers):
                self.refused(POST + headers + "\r\n\r\nhello")

    def test_codings(self):
        for coding in ("gzip", "gzip, chunked", "chunked, gzip", "identity", "xchunked", "chunked;q=1", '"chunked"', "chunked, chunked", ""):
            with self.subTest(coding=coding):
                self.refused(POST + f"Transfer-Encoding: {coding}\r\n\r\n0\r\n\r\n", 501)
        self.refused(POST.replace("1.1", "1.0") + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")

    def test_line_ends_and_control_characters(self):
        rows = ["GET /record/a HTTP/1.1\nHost: h\n\n", "GET /record/a HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", "GET /record/a HTTP/1.1\r\nHost: h\r\n\n",
                "GET /record/a HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", "GET /record/a HTTP/1.1\rHost: h\r\n\r\n",
                "GET /record/a HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", "GET /record/\0 HTTP/1.1\r\nHost: h\r\n\r\n",
                "GET /record/a HTTP/1.1\r\nHost: h\r\nX: a\x0bb\r\n\r\n", "GET /record/a\x7f HTTP/1.1\r\nHost: h\r\n\r\n"]
        for data in rows:
            with self.subTest(data=data):
                self.refused(data)

    def test_headers(self):
        rows = ["Host: h\r\nX: a\r\n b", "Host: h\r\nX: a\r\n\tb", "Host: h\r\n: x", "Host: h\r\nX", "Host: h\r\nX y: z", "Host: h\r\nX : z",
                " Host: h", "Host: h\r\nX\"y: z", "Host: h\r\nHost: h", "X: y", "Host: h\r\nX(y): z", "Host: h\r\nÄ: z"]
        for headers in rows:
            with self.subTest(headers=headers):
                self.refused(f"GET /record/a HTTP/1.1\r\n{headers}\r\n\r\n")

    def test_request_lines(self):
        for line in ("GET  /record/a HTTP/1.1", "GET /record/a  HTTP/1.1", "GET\t/record/a HTTP/1.1", "GET /record/a HTTP/1.1 ", "GET /record/a",
                     "GET /record/a b HTTP/1.1", "GET record/a HTTP/1.1", "GET * HTTP/1.1", "GET /record/a#b HTTP/1.1", "G(T /record/a HTTP/1.1",
                     "GET http:///record/a HTTP/1.1", "GET http://h:99999999/ HTTP/1.1", "GET ://h/ HTTP/1.1"):
            with self.subTest(line=line):
                self.refused(line + "\r\nHost: h\r\n\r\n")

    def test_chunks(self):
        for chunks in ("5\nhello\r\n0\r\n\r\n", "5\r\nhelloXX0\r\n\r\n", "5\rXhello\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "g\r\n", "-5\r\n", "\r\n",
                       "5;a=\nb\r\nhello\r\n0\r\n\r\n", "5;\0\r\nhello\r\n0\r\n\r\n", " 5\r\nhello\r\n", "0x5\r\nhello\r\n", "5\r\nhello\r\n0\r\nX: y\n\r\n",
                       "5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n", "fffffffffffffffff\r\n"):
            with self.subTest(chunks=chunks):
                self.refused(POST + "Transfer-Encoding: chunked\r\n\r\n" + chunks)


class Many(GatewayCase):
    def test_idle_connections_by_both_doors(self):
        _, g = self.scene()
        idle = [self.http(g) if n % 2 else self.tcp(g) for n in range(600)]
        for n, c in enumerate(idle):
            c.request("GET", f"/record/{n}", headers={"x-api-key": LOCAL_KEY}, host="localhost")
        for n, c in enumerate(idle):
            self.assertEqual(str(n), c.response().json["key"])
        status = g.status()
        self.assertEqual((600, 1, 300), (status["doors"]["http"]["clients"], status["doors"]["lines"]["clients"], status["tcpClients"]))
        for c in idle[:500]:
            c.close()
        g.wait_status(lambda status: status["doors"]["http"]["clients"] == 100)
        self.assertEqual("x", idle[599].ask("GET", "/record/x").json["key"])


class Deadlines(GatewayCase):
    def test_a_head_that_does_not_come(self):
        _, g = self.scene()
        slow, idle, stranger, probe, known = self.http(g), self.http(g), self.tcp(g), self.tcp(g), self.tcp(g)
        self.assertEqual(200, idle.ask("GET", "/hpkvd/ready").status)
        self.assertEqual(200, probe.ask("GET", "/hpkvd/ready", host="localhost").status)
        self.assertEqual(404, known.ask("GET", "/none", headers={"x-api-key": LOCAL_KEY}, host="localhost").status)
        began = time.monotonic()
        slow.send("GET /hpkvd/ready HTTP/1.1\r\n")
        while time.monotonic() < began + 5: # each byte is too little
            slow.send("X")
            time.sleep(1)
        self.assert_refused(slow.response(), 408)
        self.assertGreaterEqual(time.monotonic() - began, 8)
        self.assertTrue(slow.at_end())
        self.assertTrue(stranger.at_end()) # nobody who has shown no key stays without asking
        self.assertTrue(probe.at_end())
        self.assertEqual(200, idle.ask("GET", "/hpkvd/ready").status) # between requests there is time
        self.assertEqual(200, known.ask("GET", "/hpkvd/ready", host="localhost").status)

    def test_a_body_that_does_not_come(self):
        _, g = self.scene(tcp=False)
        rows = {"Content-Length: 100\r\n\r\n": b"x", "Transfer-Encoding: chunked\r\n\r\n": b"1\r\nx\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\nX: ": b"y"}
        slow = {self.http(g): drop for drop in rows.values()}
        for c, head in zip(slow, rows):
            c.send(POST + head)
        began = time.monotonic()
        while time.monotonic() < began + 25: # each byte is too little
            for c, drop in slow.items():
                c.send(drop)
            time.sleep(1)
        for c in slow:
            self.assert_refused(c.response(), 408)
            self.assertGreaterEqual(time.monotonic() - began, 28)
            self.assertTrue(c.at_end())

    def test_requests_that_never_pause_are_no_slow_head(self):
        _, g = self.scene(tcp=False)
        c = self.http(g)
        began, data = time.monotonic(), GET.format("a").encode()
        c.send(data[:10])
        while time.monotonic() < began + 12: # there is always a part of a head
            c.send(data[10:] + data[:10])
            self.assertEqual(200, c.response().status)
            time.sleep(0.2)


if __name__ == "__main__":
    unittest.main()
