"""HPKV Nexus, passed on: /search and /query, with the daemon's API key and without the client's."""

import http.server
import itertools
import json
import os
import signal
import threading
import unittest

from gateway import KEY, LOCAL_KEY, FakeService, Gateway, GatewayCase, eventually, free_port

BODY = '{"query": "who?",\n "topK": 5, "minScore": 0.5, "new": [1]}'


class Nexus:
    """A service that answers as it is told: (status, headers, body)."""

    def __init__(self):
        self.requests, self.answer, self.may_answer = [], (200, {}, '{"results":[{"key":"a","score":0.9}]}'), threading.Event()
        self.may_answer.set()
        nexus = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                nexus.requests.append((self.path, dict(self.headers), body))
                nexus.may_answer.wait(60)
                status, headers, text = nexus.answer
                if status is None:
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in ({"Content-Type": "application/json", "Content-Length": len(text)} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *ignored):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *ignored):
        self.may_answer.set()
        self.server.shutdown()
        self.server.server_close()


class PassedOn(GatewayCase):
    def setUp(self):
        self.nexus = self.open(Nexus())
        self.service = self.open(FakeService())
        access = {"a": {"user": os.geteuid(), "local_key_file": "local-key", "nexus": "yes", "read": "held"}, "b": {"local_key_file": "key-b", "read": "*"}}
        self.gateway = Gateway(self.service, nexus_url=self.nexus.url, access=access)
        self.gateway.write_key("key-b", "a-key-without-nexus-0123")
        self.open(self.gateway)
        self.gateway.wait_state("connected")
        self.c = self.http(self.gateway)

    def test_bodies_and_keys(self):
        for path in ("/search", "/query"):
            r = self.c.ask("POST", path, BODY)
            self.assertEqual((200, {"results": [{"key": "a", "score": 0.9}]}), (r.status, r.json))
            seen = self.nexus.requests[-1]
            self.assertEqual((path, KEY, BODY), (seen[0], seen[1]["x-api-key"], seen[2]))
        r = self.gateway.ask_tcp("POST", "/search", BODY)
        self.assertEqual(200, r.status)
        self.assertNotIn(LOCAL_KEY, str(self.nexus.requests))

    def test_only_who_may(self):
        r = self.gateway.ask_tcp("POST", "/search", BODY, key="a-key-without-nexus-0123")
        self.assertEqual((403, "forbidden"), (r.status, r.json["reason"]))
        self.assertEqual([], self.nexus.requests)

    def test_its_errors(self):
        for answer, status, part in (((429, {"Retry-After": "7"}, '{"error":"quota"}'), 429, "quota"), ((500, {}, "not json"), 500, "500"),
                                     ((200, {}, "[]"), 502, "no JSON object"), ((401, {}, "{}"), 502, "API key"), ((403, {}, "{}"), 502, "API key"),
                                     ((302, {"Location": "http://127.0.0.1:1/"}, "{}"), 502, "302"), ((404, {}, '{"error":"x","code":1}'), 404, "x")):
            with self.subTest(answer=answer):
                self.nexus.answer = answer
                r = self.c.ask("POST", "/query", BODY)
                self.assertEqual(status, r.status)
                self.assertIn(part, r.json["error"])
                self.assertEqual("7" if status == 429 else None, r.header("Retry-After"))

    def test_a_lost_connection(self):
        self.nexus.answer = (None, {}, "")
        r = self.c.ask("POST", "/query", BODY)
        self.assertEqual((504, "outcome_unknown", "unknown"), (r.status, r.json["reason"], r.json["executed"]))
        self.assertEqual(1, len(self.nexus.requests)) # not again
        self.nexus.server.shutdown()
        self.nexus.server.server_close()
        r = self.c.ask("POST", "/query", BODY)
        self.assertEqual((503, "upstream_down", "no"), (r.status, r.json["reason"], r.json["executed"]))

    def test_its_time_is_up(self):
        self.nexus.may_answer.clear()
        r = self.c.ask("POST", "/query?timeoutMs=200", BODY)
        self.assertEqual((504, "timeout"), (r.status, r.json["reason"]))

    def test_order_and_bounds(self):
        self.nexus.may_answer.clear()
        for _ in range(17):
            self.c.request("POST", "/search", BODY)
        self.c.request("GET", "/record/a")
        eventually(lambda: len(self.nexus.requests) == 8)
        other = self.http(self.gateway)
        other.request("POST", "/query", BODY)
        self.nexus.may_answer.set()
        self.assertEqual(200, other.response().status)
        self.assertEqual([200] * 16 + [503, 403], [self.c.response().status for _ in range(18)])

    def test_a_client_that_leaves(self):
        self.nexus.may_answer.clear()
        self.c.request("POST", "/search", BODY)
        eventually(lambda: self.nexus.requests)
        self.c.close()
        self.gateway.wait_status(lambda status: status["clients"] == 1)
        self.nexus.may_answer.set()
        self.assertEqual(200, self.http(self.gateway).ask("POST", "/search", BODY).status)

    def test_lines_have_it_too(self):
        with self.gateway.client() as lines:
            a = lines.ask({"op": "search", "body": json.loads(BODY), "messageId": 7})
            self.assertEqual((200, 7, [{"key": "a", "score": 0.9}]), (a["code"], a["messageId"], a["results"]))
            self.assert_error(lines.ask({"op": "search", "body": "x"}), 400, "bad_request", "no")

    def test_a_reload(self):
        self.nexus.may_answer.clear()
        self.c.request("POST", "/search", BODY)
        eventually(lambda: self.nexus.requests)
        access = {name: dict(rules) for name, rules in self.gateway.access.items()}
        access["a"]["nexus"] = "no"
        self.assertTrue(self.gateway.reload(access=access))
        r = self.c.response() # it was under way
        self.assertEqual((504, "outcome_unknown", "unknown"), (r.status, r.json["reason"], r.json["executed"]))
        access["a"]["nexus"] = "yes"
        self.assertTrue(self.gateway.reload(access=access, nexus_url=None))
        self.assertEqual(404, self.c.ask("POST", "/search", BODY).status)

    def test_a_reload_sends_it_again_in_vain(self):
        self.nexus.may_answer.clear()
        self.c.request("POST", "/search?timeoutMs=600000", BODY)
        eventually(lambda: self.nexus.requests)
        self.assertTrue(self.gateway.reload(nexus_url=f"http://127.0.0.1:{free_port()}"))
        r = self.c.response()
        self.assertEqual((504, "outcome_unknown", "unknown"), (r.status, r.json["reason"], r.json["executed"]))

    def begin(self, c, path, *, tcp=False):
        """Asks, and waits until the daemon has read it. Each look at its figures is a request, too."""
        before, looks = self.gateway.stats()["requests"], itertools.count(1)
        if tcp:
            c.request("POST", path, BODY, {"x-api-key": "a-key-without-nexus-0123"}, host=f"127.0.0.1:{self.gateway.port}")
        else:
            c.request("POST", path, BODY)
        eventually(lambda: self.gateway.stats()["requests"] - before - next(looks) == 1)

    def test_a_reload_judges_all_before_any_is_sent(self):
        access = {name: dict(rules) for name, rules in self.gateway.access.items()}
        access["b"]["nexus"] = "yes"
        self.assertTrue(self.gateway.reload(access=access))
        self.nexus.may_answer.clear()
        loser, others = self.tcp(self.gateway), [self.http(self.gateway) for _ in range(8)]
        self.begin(loser, "/search", tcp=True)
        for other in others:
            self.begin(other, "/search")
        self.begin(loser, "/query", tcp=True)
        eventually(lambda: len(self.nexus.requests) == 8) # two wait
        access["b"]["nexus"] = "no"
        self.assertTrue(self.gateway.reload(access=access))
        self.nexus.may_answer.set()
        self.assertEqual([200] * 8, [other.response().status for other in others])
        loser.response()
        self.assertEqual(403, loser.response().status)
        self.assertNotIn("/query", [path for path, _, _ in self.nexus.requests])

    def test_the_end(self):
        """What is under way is answered; it is waited for."""
        with self.gateway.client() as lines:
            self.nexus.may_answer.clear()
            self.c.request("POST", "/search", BODY)
            eventually(lambda: self.nexus.requests)
            self.gateway.process.signal(signal.SIGTERM)
            self.gateway.process.wait_output(rb"stopping")
            late = lines.ask({"op": "query", "body": {}, "messageId": 2})
            self.assert_error(late, 503, "shutting_down", "no", 2)
            self.assertEqual(100, late["retryAfterMs"])
        self.nexus.may_answer.set()
        self.assertEqual(200, self.c.response().status)
        self.assertEqual(["/search"], [path for path, _, _ in self.nexus.requests])


class NotHere(GatewayCase):
    def test_without_nexus_url(self):
        _, g = self.scene(tcp=False)
        self.assert_refused(self.http(g).ask("POST", "/search", BODY), 404, "not_found")
        with g.client() as lines:
            self.assert_error(lines.ask({"op": "query", "body": {}}), 403, "forbidden", "no")

    def test_without_rules_nobody_may(self):
        nexus = self.open(Nexus())
        _, g = self.scene(nexus_url=nexus.url)
        self.assertEqual(403, self.http(g).ask("POST", "/search", BODY).status)
        self.assertEqual(403, g.ask_tcp("POST", "/query", BODY).status)
        self.assertEqual([], nexus.requests)


if __name__ == "__main__":
    unittest.main()
