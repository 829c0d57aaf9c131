"""A host without an API key: tokens come from an endpoint that has it ([upstream] token_url)."""

import contextlib
import json
import os
import unittest

from harness import Case, Daemon, FakeService, eventually, get, put
from test_access import ME

PATH = "/my/app/token"
SECRET = "Bearer of-bad-news"


class Endpoint(FakeService):
    """A service, and at another path the customer's endpoint, which has its key."""

    def __init__(self, **options):
        super().__init__(**options)
        self.token_path = PATH


class TokenUrl(Case):
    @contextlib.contextmanager
    def scene(self, service=(), headers=None, **settings):
        with Endpoint(**dict(service)) as s:
            d = Keyless(s, token_url=s.url + PATH, **settings)
            if headers is not None:
                d.settings["token_header_file"] = "headers"
                d._write_file("headers", headers)
            with d:
                yield s, d

    def test_requests_go_over_a_tokens_connection(self):
        with self.scene() as (service, daemon):
            daemon.wait_state("connected")
            with daemon.client() as client:
                self.assertEqual(200, client.ask(get("k"))["code"])
            request = service.token_requests[0]
            self.assertEqual({"subscribeKeys": [], "subscribePatterns": [], "accessPattern": ".*"}, request.obj)
            self.assertNotIn("x-api-key", request.headers)
            self.assertEqual("application/json", request.headers["content-type"])
            self.assertEqual("token", daemon.status()["upstream"]["auth"])
            self.assertEqual([f"/ws?token={request.token}"], service.upgrades)

    def test_subscriptions_take_over_as_ever(self):
        with self.scene() as (service, daemon), daemon.client() as client:
            daemon.wait_state("connected")
            client.subscribe(key="k")
            service.publish("k", "1")
            self.assertEqual(("k", "1"), client.change())
            client.unsubscribe(key="k")
            self.assertEqual(200, client.ask(put("k", "2"))["code"])
            self.assertEqual(["k"], service.token_requests[1].obj["subscribeKeys"])

    def test_headers_are_read_for_each_request(self):
        with self.scene(headers=f"Authorization: {SECRET}\nX-Team: a b\n") as (service, daemon), daemon.client() as client:
            daemon.wait_state("connected")
            self.assertEqual((SECRET, "a b"), tuple(service.token_requests[0].headers[name] for name in ("authorization", "x-team")))
            daemon._write_file("headers", "Authorization: Bearer of-good-news\r\n")
            client.subscribe(key="k")
            self.assertEqual("Bearer of-good-news", service.token_requests[1].headers["authorization"])
            self.assertNotIn("x-team", service.token_requests[1].headers)
            os.unlink(daemon.folder + "/headers")
            client.send({"op": "subscribe", "key": "l", "messageId": 1, "timeoutMs": 300})
            self.assertEqual(503, client.answer()["code"])
            self.assertEqual(200, client.ask(get("k"))["code"]) # the connection stays
            self.assertIn(b"the header file does not exist", daemon.log())
            self.assertNotIn(b"of-bad-news", daemon.log())

    def test_refusals_are_tried_again_slowly(self):
        for status in (401, 403):
            with self.scene(service={"mint": lambda request, status=status: (status, {}, b"no way")}, backoff_max="200ms") as (service, daemon):
                found = daemon.wait_state("unauthorized")
                self.assertIn(f"HTTP status {status}", found["upstream"]["lastError"])
                self.assertNotIn(b"no way", daemon.log())
                with daemon.client() as client:
                    client.send(get("k", 1) | {"timeoutMs": 100})
                    self.assert_error(client.answer(), 503, "upstream_down", "no", 1)
                service.mint = lambda request: f"token-{request.number}"
                daemon.wait_state("connected")
                self.assertEqual([], [u for u in service.upgrades if "apiKey" in u])

    def test_failures_back_off(self):
        answers = [(500, {}, b""), (429, {"Retry-After": "0"}, b""), (302, {"Location": "https://elsewhere.example/"}, b""), (200, {}, b'{"no":"token"}'),
                   (200, {}, b"not JSON")]
        with self.scene(service={"mint": lambda request: answers[request.number - 1] if request.number <= len(answers) else "good"}) as (service, daemon):
            daemon.wait_state("connected")
            self.assertEqual(len(answers) + 1, len(service.token_requests))
            log = daemon.log()
            for words in (b"HTTP status 500", b"HTTP status 302", b"no usable token"):
                self.assertIn(words, log)

    def test_its_rate_limit_is_another_than_the_services(self):
        with self.scene(service={"mint": lambda request: (429, {"Retry-After": "0"}, b"")}) as (service, daemon):
            eventually(lambda: len(service.token_requests) > 1, "tried again")
            self.assertIsNone(daemon.status()["upstream"]["pace"])

    def test_what_the_answer_says_of_its_life(self):
        with self.scene(service={"mint": lambda request: (200, {}, json.dumps({"token": f"t{request.number}", "expiresIn": 1}).encode())}) as (service, daemon):
            daemon.wait_state("connected")
            service.wait_token_requests(3) # renewed after three quarters of it
            self.assertLess(daemon.wait_state("connected")["upstream"]["tokenExpiresInMs"], 1001)
            daemon.killed = True # who ends it now would wait for tokens in vain

    def test_clients_tokens(self):
        with self.scene() as (service, daemon), daemon.client() as client:
            self.assert_error(client.ask({"op": "token"}), 403, "forbidden", "no")
            self.assertIn("this hpkvd has no API key", client.ask({"op": "token"})["error"])
        with self.scene(access={"me": ME | {"read": "*", "token": "any"}}) as (service, daemon), daemon.client() as client:
            daemon.wait_state("connected")
            answer = client.ask({"op": "token", "subscribeKeys": ["a"]})
            self.assertEqual(service.token_requests[-1].token, answer["token"])
            service.mint = lambda request: (403, {}, b"")
            self.assert_error(client.ask({"op": "token", "subscribeKeys": ["a"]}), 403, "forbidden", "no")
            self.assertEqual("connected", daemon.status()["upstream"]["state"])

    def test_a_reload_from_key_to_endpoint_and_back(self):
        with Endpoint() as service, Daemon(service) as daemon, daemon.client() as client:
            daemon.wait_state("connected")
            self.assertIn("apiKey", service.upgrades[0])
            daemon.key_from = None
            self.assertTrue(daemon.reload(token_url=service.url + PATH))
            eventually(lambda: daemon.status()["upstream"]["auth"] == "token", "a token")
            self.assertEqual(200, client.ask(get("k"))["code"])
            daemon.key_from = "file"
            self.assertTrue(daemon.reload(token_url=None))
            eventually(lambda: daemon.status()["upstream"]["auth"] == "apiKey", "the key")
            service.token_path = "/token/websocket" # where a subscriber's token is asked for from now on
            self.assertEqual(200, client.ask(get("k"))["code"])


class WrongConfigurations(Case):
    def refused(self, *words, key_from=None, headers=None, mode=0o600, **settings):
        with Endpoint() as service:
            daemon = Keyless(service, wait=False, key_from=key_from, **settings)
            if headers is not None:
                daemon._write_file("headers", headers)
                os.chmod(daemon.folder + "/headers", mode)
            with daemon:
                self.assertEqual(78, daemon.process.wait_exit())
                for word in words:
                    self.assertIn(word, daemon.log().decode())

    def test_a_key_beside_it(self):
        self.refused("api_key_file: is set beside token_url", key_from="file", token_url="https://localhost/t")
        self.refused("HPKV_API_KEY: is set beside [upstream] token_url", key_from="environment", token_url="https://localhost/t")

    def test_urls(self):
        self.refused("token_url: is not encrypted", token_url="http://example.org/t")
        self.refused("token_url: has a query", token_url="https://example.org/t?key=1")
        self.refused("token_url: has a user name", token_url="https://a:b@example.org/t")

    def test_headers(self):
        self.refused("token_header_file: means nothing without token_url", key_from="file", headers="A: b\n", token_header_file="headers")
        url = {"token_url": "https://localhost/t", "token_header_file": "headers"}
        self.refused("headers does not exist", **url)
        for text, why in (("", "is empty"), ("no header\n", "not a header"), (": x\n", "not a header"), ("A B: x\n", "not a header"),
                          ("A: b\x01\n", "control character"), ("Host: x\n", "sends itself"), ("content-LENGTH: 1\n", "sends itself"),
                          ("x-api-key: " + SECRET, "sends itself"), ("accept-encoding: " + SECRET, "sends itself"), ("A: " + "b" * 5000, "longer than 4096 bytes")):
            self.refused(why, headers=text, **url)
        self.refused("can be used by others", headers="A: b\n", mode=0o644, **url)


class Keyless(Daemon):
    def __init__(self, service, key_from=None, **options):
        super().__init__(service, key_from=key_from, **options)


if __name__ == "__main__":
    unittest.main()
