"""Tokens: subscriptions, access and expiry."""

import json
import unittest

from sandbox import DELETE, GET, INCREMENT, PATCH, RANGE, SET, API_KEY, Refused, Sandbox, sandbox_case


class Subscriptions(sandbox_case()):
    def expect(self, patterns, yes, no):
        """Changes all these keys. Only changes of yes are notified, in order."""
        subscriber = self.subscribe(*patterns)
        writer = self.ws()
        for key in no + yes:
            self.assertEqual(200, writer.ask(op=SET, key=key, value="v")["code"])
        for key in yes:
            self.assertEqual((key, "v"), subscriber.notification())
        self.assertEqual(404, subscriber.ask(op=GET, key="none")["code"])  # no other message was in flight

    def test_patterns(self):
        for patterns, yes, no in [
            (["a"], ["a"], ["b", "aa", "A", "a\0"]),
            (["a\0b"], ["a\0b"], ["a", "a\0c"]),
            (["p:*"], ["p:", "p:1", "p:\0"], ["p", "q:1"]),
            (["*:s"], [":s", "x:s"], ["x:s1"]),
            (["*"], ["anything", "\n"], []),
            (["a*b*c"], ["abc", "a1b2c", "abbcbc"], ["ab", "ac", "abcd"]),
            (["**x"], ["x", "xx"], ["y"]),
            (["^u:[0-9]+$"], ["u:1", "u:42"], ["u:", "u:1x", "xu:1"]),
            (["^u:\\d{2}"], ["u:12", "u:123"], ["u:1"]),
            (["^(?:x|y)[\\d_]$"], ["x1", "y_"], ["xd", "z1"]),
            (["^a.b"], ["a\0b"], ["ab"]),
            (["a.c", "["], ["a.c", "["], ["abc"]),
            (["ä*"], ["äö"], ["a"]),
            (["o", "o*", "^o"], ["o"], []),
            ([], [], ["a"]),
        ]:
            with self.subTest(patterns=patterns):
                self.expect(patterns, yes, no)

    def test_what_is_told(self):
        subscriber = self.subscribe("k*")
        writer = self.ws()
        for request, key, value in [
            ({"op": SET, "key": "k\0ä", "value": "\0\ud800"}, "k\0ä", "\0\ud800"),
            ({"op": SET, "key": "k", "value": '{"a":1}'}, "k", '{"a":1}'),
            ({"op": PATCH, "key": "k", "value": '{"b":2}'}, "k", '{"a":1,"b":2}'),
            ({"op": DELETE, "key": "k"}, "k", None),
            ({"op": INCREMENT, "key": "k", "value": 3}, "k", "3"),
        ]:
            writer.send(**request)
            self.assertEqual((key, value), subscriber.notification())

    def test_what_changes_nothing_is_not_told(self):
        subscriber = self.subscribe("n*")
        writer = self.ws()
        for request in [
            {"op": DELETE, "key": "n"}, {"op": SET, "key": "n", "value": ""}, {"op": SET, "key": "n", "value": "x" * 4000},
            {"op": INCREMENT, "key": "n", "value": "x"}, {"op": GET, "key": "n"}, {"op": RANGE, "key": "n", "endKey": "o"},
        ]:
            writer.ask(**request)
        writer.ask(op=SET, key="n1", value="x")
        self.assertEqual(("n1", "x"), subscriber.notification())

    def test_the_writer_gets_its_answer_and_then_the_notification(self):
        subscriber = self.subscribe("w")
        subscriber.send(op=SET, key="w", value="x", messageId=1)
        self.assertEqual(1, subscriber.next()["messageId"])
        self.assertEqual(("w", "x"), subscriber.notification())

    def test_many_subscribers_come_and_go(self):
        subscribers = [self.subscribe("m") for _ in range(20)]
        for gone in subscribers[::2]:
            gone.close()
        self.ws().ask(op=SET, key="m", value="x")
        for subscriber in subscribers[1::2]:
            self.assertEqual(("m", "x"), subscriber.notification())



class NotifyFirst(sandbox_case("--notify-first")):
    def test_the_writer_gets_the_notification_and_then_its_answer(self):
        hpkv = self.subscribe("w")
        hpkv.send(op=SET, key="w", value="x", messageId=1)
        self.assertEqual(("w", "x"), hpkv.notification())
        self.assertEqual(200, hpkv.next()["code"])


class NotifyPatch(sandbox_case("--notify-patch")):
    def test_the_notification_of_a_patch_carries_the_patch(self):
        hpkv = self.subscribe("w")
        for op, value in ((SET, "a"), (PATCH, "b"), (SET, "c")):
            self.assertEqual(200, hpkv.ask(op=op, key="w", value=value)["code"])
            self.assertEqual(("w", value), hpkv.notification())


class Rights(sandbox_case()):
    def test_an_access_pattern_bounds_every_operation(self):
        self.ws().ask(op=SET, key="out", value="x")
        inside = self.subscribe(access="^in:")
        for request in [
            {"op": GET, "key": "out"}, {"op": SET, "key": "out", "value": "y"}, {"op": PATCH, "key": "out", "value": "y"},
            {"op": DELETE, "key": "out"}, {"op": INCREMENT, "key": "out", "value": 1},
            {"op": RANGE, "key": "in:", "endKey": "out"}, {"op": RANGE, "key": "a", "endKey": "in:"},
        ]:
            answer = inside.ask(**request, messageId=2)
            self.assertEqual((403, 2), (answer["code"], answer["messageId"]), request)
        self.assertEqual(200, inside.ask(op=SET, key="in:1", value="x")["code"])
        self.assertEqual("x", self.ws().ask(op=GET, key="out")["value"])

    def test_a_range_leaves_out_what_is_not_allowed(self):
        for key in "r1", "r1x", "r2":
            self.ws().ask(op=SET, key=key, value="v")
        answer = self.subscribe(access="^r[0-9]$").ask(op=RANGE, key="r1", endKey="r2", limit=2)
        self.assertEqual((["r1", "r2"], False), ([record["key"] for record in answer["records"]], answer["truncated"]))

    def test_without_an_access_pattern_everything_is_allowed(self):
        self.assertEqual(200, self.subscribe("x").ask(op=SET, key="any", value="x")["code"])

    def test_an_access_pattern_may_match_anywhere(self):
        self.assertEqual(200, self.subscribe(access="b").ask(op=SET, key="abc", value="x")["code"])


class Requests(sandbox_case()):
    def mint(self, body):
        return self.rest("POST", "/token/websocket", body)

    def test_wrong_requests(self):
        for body in [
            "", "x", "[]", '{"subscribeKeys":"x"}', '{"subscribeKeys":[1]}', '{"subscribePatterns":[""]}', '{"accessPattern":7}',
            {"accessPattern": "("}, {"subscribePatterns": ["^("]}, {"accessPattern": "x" * 2000}, {"accessPattern": "a\0"},
            {"accessPattern": "(((a{200}){200}){200}){200}"}, {"subscribePatterns": ["x" * 2000]},
            '{"accessPattern":"a","accessPattern":"b"}', {"subscribeKeys": ["k" * 1000] * 60},
        ]:
            with self.subTest(body=str(body)[:60]):
                status, answer = self.mint(body)
                self.assertEqual(400, status, answer)
                self.assertIn("error", answer)

    def test_both_names_of_the_list_count(self):
        token = self.mint({"subscribeKeys": ["a*"], "subscribePatterns": ["b*"], "accessPattern": None})[1]["token"]
        subscriber = self.ws(f"/ws?token={token}")
        for key in "a1", "b1":
            self.ws().ask(op=SET, key=key, value="x")
            self.assertEqual((key, "x"), subscriber.notification())

    def test_nobody_sets_the_expiry_but_the_sandbox(self):
        token = self.mint('{"exp":1,"other":[2]}')[1]["token"]
        self.assertEqual(404, self.ws(f"/ws?token={token}").ask(op=GET, key="none")["code"])

    def test_a_token_carries_what_it_needs_and_no_more(self):
        self.assertLess(len(self.mint({"junk": "x" * 1000})[1]["token"]), 500)

    def test_a_long_token_gets_through(self):
        token = self.mint({"subscribePatterns": [f"key:{i:04}" for i in range(3000)]})[1]["token"]
        self.assertGreater(len(token), 40000)
        subscriber = self.ws(f"/ws?token={token}")
        self.ws().ask(op=SET, key="key:2999", value="x")
        self.assertEqual(("key:2999", "x"), subscriber.notification())

    def test_upgrades_that_are_refused(self):
        token = self.mint({})[1]["token"]
        head, payload, mac = token.split(".")
        for path, status in [
            ("/ws", 401), ("/ws?apiKey=", 401), ("/ws?apiKey=wrong", 401), ("/ws?apikey=" + API_KEY, 401),
            ("/ws?token=", 403), ("/ws?token=.", 403), ("/ws?token=..", 403), ("/ws?token=a.b.c", 403),
            (f"/ws?token={token[:-1]}", 403), (f"/ws?token={head}.{payload}A.{mac}", 403), (f"/ws?token={token}&x=1", None),
            ("/?apiKey=" + API_KEY, 404), ("/wss?apiKey=" + API_KEY, 404), (f"/ws?x=1&apiKey={API_KEY}", None),
        ]:
            with self.subTest(path=path[:40]):
                if status is None:
                    self.ws(path)
                    continue
                with self.assertRaises(Refused) as refused:
                    self.ws(path)
                self.assertEqual(status, refused.exception.status)
                self.assertIn("error", json.loads(refused.exception.args[0].split(" ", 1)[1].removeprefix("b'")[:-1]))


class Expiry(unittest.TestCase):
    def test_a_token_ends_with_its_time(self):
        sandbox = Sandbox("--token-ttl", "3")
        self.addCleanup(sandbox.stop)
        token = sandbox.token("x")
        subscriber = sandbox.ws(f"/ws?token={token}")
        self.addCleanup(subscriber.close)
        by_key = sandbox.ws()
        self.addCleanup(by_key.close)
        self.assertEqual(1008, subscriber.wait_closed())
        with self.assertRaises(Refused) as refused:
            sandbox.ws(f"/ws?token={token}")
        self.assertEqual(403, refused.exception.status)
        self.assertEqual(200, by_key.ask(op=SET, key="x", value="x")["code"])

    def test_another_key_does_not_know_the_token(self):
        sandbox, other = Sandbox(), Sandbox("--api-key", "other")
        self.addCleanup(sandbox.stop)
        self.addCleanup(other.stop)
        with self.assertRaises(Refused):
            other.ws(f"/ws?token={sandbox.token('x')}")


if __name__ == "__main__":
    unittest.main()
