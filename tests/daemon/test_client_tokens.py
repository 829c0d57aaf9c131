"""The token op: who gets one, what it can do, and what becomes of the request when the service is away."""

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import unittest

from harness import DEADLINE, KEY, ROOT, Daemon, FakeService, Sandbox, certs, eventually, get, need_root, put, sanitized, scene, steady
from test_access import ANN, BOB, ME, AccessCase

sys.path.insert(0, os.path.join(ROOT, "tests", "sandbox"))
from sandbox import WebSocket # pylint: disable=wrong-import-position

GET, SET, PATCH, DELETE, RANGE, INCREMENT = 1, 2, 3, 4, 5, 6


def token(message_id=None, **members):
    return {"op": "token"} | members | ({} if message_id is None else {"messageId": message_id})


def rule(token_right, **more):
    return {"me": ME | {"token": token_right, "read": "app:* shared:*", "write": "app:*"} | more}


class Granted(AccessCase):
    def test_nobody_without_rules(self):
        service, daemon = self.scene()
        self.assert_forbidden(self.client(daemon).ask(token(1)), "token: no access rule lets this client mint tokens", message_id=1)
        self.assertEqual([], service.token_requests)

    def test_nobody_whose_rules_say_no(self):
        for more in ({}, {"token": "no"}):
            service, daemon = self.scene(access={"me": ME | {"read": "*", "write": "*"} | more})
            self.assert_forbidden(self.client(daemon).ask(token(subscribeKeys=["a"])), "no access rule lets this client mint tokens")
            self.assertEqual([], service.token_requests)

    def test_any_gets_what_it_asks_for(self):
        service, daemon = self.scene(access={"me": ME | {"token": "any"}})
        client = self.client(daemon)
        for n, members in enumerate([{}, {"subscribeKeys": ["a", "b*", "^c"]}, {"subscribePatterns": ["x:*"]}, {"accessPattern": "^k\\d\"$"},
                                     {"subscribeKeys": [], "subscribePatterns": ["\u00e9\0"], "accessPattern": ""}]):
            answer = client.ask(token(n, **members))
            self.assertEqual({"code": 200, "token": f"token-{n + 1}", "messageId": n}, answer)
            request = service.token_requests[n]
            self.assertEqual(members, request.obj)
            self.assertEqual(KEY, request.headers["x-api-key"])
        self.assertEqual(5, daemon.stats()["tokens_for_clients"])

    def test_own_gets_subscriptions_inside_what_it_may_read(self):
        service, daemon = self.scene(access=rule("own"))
        client = self.client(daemon)
        for members in ({"subscribeKeys": ["app:1", "shared:*"]}, {"subscribePatterns": ["app:*", "app:*:x", "shared:1"]},
                        {"subscribeKeys": ["app:1"], "subscribePatterns": ["shared:2"]}, {}):
            self.assertEqual(200, client.ask(token(**members))["code"])
            self.assertEqual(members | {"accessPattern": "^(?:app:[\\s\\S]*)$"}, service.token_requests[-1].obj)

    def test_own_gets_nothing_else(self):
        service, daemon = self.scene(access=rule("own", read="app:* ^* shared"))
        client = self.client(daemon)
        for members in ({"subscribeKeys": ["x"]}, {"subscribeKeys": ["*"]}, {"subscribeKeys": ["app*"]}, {"subscribePatterns": ["*"]},
                        {"subscribePatterns": ["app:*", "ap*"]}, {"subscribePatterns": ["shared*"]}, {"subscribeKeys": ["app:1", ""]},
                        {"subscribePatterns": ["^app:.*"]}, {"subscribeKeys": ["^"]}, {"subscribePatterns": ["app:1", "^.*"]},
                        {"subscribeKeys": ["app:1"], "subscribePatterns": ["x"]}, {"accessPattern": "^app:1$"}, {"accessPattern": ""}):
            self.assert_forbidden(client.ask(token(**members)), "token: ")
        client.send('{"op":"token","subscribePatterns":["\\u005eapp:1"]}')
        self.assert_forbidden(client.answer(), "regular expression")
        self.assertEqual([], service.token_requests)

    def test_several_sections_give_the_farthest_right_of_them(self):
        me = {"a": ME | {"read": "a:*", "token": "own"}, "b": ME | {"write": "b:* a:1"}, "c": {"user": 1, "token": "any", "write": "c:*"}}
        service, daemon = self.scene(access=me)
        self.assertEqual(200, self.client(daemon).ask(token(subscribeKeys=["a:1"]))["code"])
        self.assertEqual("^(?:a:1)$", service.token_requests[0].obj["accessPattern"])
        service, daemon = self.scene(access=me | {"d": ME | {"token": "any"}})
        self.assertEqual(200, self.client(daemon).ask(token(subscribeKeys=["x"]))["code"])
        self.assertEqual({"subscribeKeys": ["x"]}, service.token_requests[0].obj)

    def test_each_user_its_own(self):
        need_root()
        _, daemon = self.scene(access={"ann": {"user": ANN, "token": "own", "read": "ann:*"}, "bob": {"user": BOB, "read": "*", "write": "*"}})
        ann, bob = self.client(daemon, who=(ANN,)), self.client(daemon, who=(BOB,))
        self.assertEqual(200, ann.ask(token(subscribeKeys=["ann:1"]))["code"])
        self.assert_forbidden(bob.ask(token(subscribeKeys=["ann:1"])))

    def test_a_section_with_more_to_write_than_tokens_are_for_is_told_of(self):
        _, daemon = self.scene(access=rule("own", write="inbox:* app:*"))
        daemon.process.wait_output(rb"warning: \[access me\] token: inbox:\* is to be written, but not all of it to be read")
        _, daemon = self.scene(access=rule("own"))
        self.assertNotIn(b"[access me]", daemon.log())


SPECIAL = "".join(chr(c) for c in range(0x20, 0x7f) if chr(c) not in " ;*")


class Patterns(AccessCase):
    """The regular expression that the daemon writes means the globs and nothing else."""

    GLOBS = {
        "app:*": (["app:", "app:x", "app:\n", "app:x\ny\n"], ["app", "xapp:", "\napp:1", "app;1"]),
        "exact": (["exact"], ["exact1", "xexact", "exac", "exact\nx", "x\nexact"]),
        "a*z": (["az", "a\nz", "aazz"], ["a", "za", "azb"]),
        "*": (["", "anything", "\n"], []),
        "*:log": ([":log", "x:log"], [":logs"]),
        "a.c": (["a.c"], ["abc"]),
        "a|b": (["a|b"], ["a", "b"]),
        "(a)": (["(a)"], ["a"]),
        "[ab]{2}": (["[ab]{2}"], ["aa", "ab"]),
        "\\d+": (["\\d+"], ["1", "dd", "\\dd"]),
        "^a$": (["^a$"], ["a"]),
        "a-z_#/'\"~&": (["a-z_#/'\"~&"], ["b", "a-z"]),
        "\u00e9\U0001f600*": (["\u00e9\U0001f600", "\u00e9\U0001f600x"], ["\u00e9", "e"]),
        SPECIAL: ([SPECIAL], [SPECIAL[1:], SPECIAL[:-1]]),
        " ".join(["app:*", "b"]): (["app:1", "b"], ["bapp:1", "app", "b\napp:1", "bb", "xb"]),
        "": ([], ["", "a", "a^", "^", "\n", "a\n"]),
    }

    def patterns(self):
        for globs, (yes, no) in self.GLOBS.items():
            service, daemon = self.scene(access={"me": ME | {"token": "own", "read": "*", "write": globs}})
            self.assertEqual(200, self.client(daemon).ask(token())["code"])
            yield service.token_requests[0].obj["accessPattern"], yes, no

    def test_in_several_dialects(self):
        """Python's is much like PCRE; JavaScript has two."""
        rows = list(self.patterns())
        for pattern, yes, no in rows:
            self.assertTrue(pattern.startswith("^(?:") and pattern.endswith(")$"), pattern)
            self.assertEqual([True] * len(yes) + [False] * len(no), [re.search(pattern, key) is not None for key in yes + no], pattern)
        if shutil.which("node"):
            program = ("const rows = JSON.parse(require('fs').readFileSync(0));"
                       "console.log(JSON.stringify(['', 'u'].map(f => rows.map(([p, keys]) => keys.map(k => new RegExp(p, f).test(k))))))")
            run = subprocess.run(["node", "-e", program], input=json.dumps([(p, yes + no) for p, yes, no in rows]), capture_output=True,
                                 text=True, check=True, timeout=60)
            wanted = [[True] * len(yes) + [False] * len(no) for _, yes, no in rows]
            self.assertEqual([wanted, wanted], json.loads(run.stdout))

    def test_globs_that_others_contain_are_left_out(self):
        service, daemon = self.scene(access={"a": ME | {"token": "own", "read": "*", "write": "app:1 app:* b b**c b*c"}, "b": ME | {"write": "app:*:x b d*"}})
        self.assertEqual(200, self.client(daemon).ask(token())["code"])
        self.assertEqual("^(?:app:[\\s\\S]*|b|b[\\s\\S]*c|d[\\s\\S]*)$", service.token_requests[0].obj["accessPattern"])


class WithTheSandbox(AccessCase):
    """What such a token can really do."""

    def begin(self, **rules):
        self.sandbox = self.enterContext(Sandbox())
        self.daemon = self.enterContext(Daemon(self.sandbox, access={"me": ME | rules}))
        self.daemon.wait_state("connected")
        self.c = self.client(self.daemon)

    def connect(self, **members):
        answer = self.c.ask(token(**members))
        self.assertEqual(200, answer["code"], answer)
        context = ssl.create_default_context(cafile=certs() + "/ca.pem")
        sock = context.wrap_socket(socket.create_connection(("127.0.0.1", self.sandbox.port), DEADLINE), server_hostname="localhost")
        self.addCleanup(sock.close)
        return WebSocket(sock, f"/ws?token={answer['token']}")

    def codes(self, ws, key):
        return [ws.ask(op=op, key=key, **members)["code"]
                for op, members in ((SET, {"value": "v"}), (GET, {}), (PATCH, {"value": "w"}), (RANGE, {"endKey": key}), (DELETE, {}),
                                    (INCREMENT, {"value": 1}))]

    def test_own(self):
        self.begin(token="own", read="app:* shared:* lone inbox:mine", write="app:* lone inbox:*")
        ws = self.connect(subscribeKeys=["shared:1"])
        for key in ("app:1", "app:", "app:\n", "lone", "inbox:mine"):
            self.assertEqual([200] * 6, self.codes(ws, key), key)
        for key in ("shared:1", "x", "app", "xapp:1", "lone1", "x\nlone", "inbox:yours"):
            self.assertEqual([403] * 6, self.codes(ws, key), key)

    def test_own_is_told_what_it_asked_for(self):
        self.begin(token="own", read="app:* shared:*", write="*")
        ws = self.connect(subscribePatterns=["shared:*"], subscribeKeys=["app:1"])
        for key in ("other", "app:2", "shared:1", "app:1"):
            self.assertEqual(200, self.c.ask(put(key, "v"))["code"])
        self.assertEqual([("shared:1", "v"), ("app:1", "v")], [ws.notification(), ws.notification()])

    def test_own_that_may_write_nothing_can_touch_nothing(self):
        self.begin(token="own", read="*")
        ws = self.connect(subscribeKeys=["k"])
        for key in ("k", "a", "a^", "\n"):
            self.assertEqual({403}, set(self.codes(ws, key)))

    def test_own_with_keys_that_look_like_patterns(self):
        self.begin(token="own", read="*", write="a.c a{500}b{500} [x] (y|z) \\d $ ^")
        ws = self.connect()
        for key in ("a.c", "a{500}b{500}", "[x]", "(y|z)", "\\d", "$", "^"):
            self.assertEqual([200] * 6, self.codes(ws, key), key)
        for key in ("abc", "x", "y", "z", "1", "d", "a"):
            self.assertEqual([403] * 6, self.codes(ws, key), key)

    def test_any(self):
        self.begin(token="any")
        ws = self.connect(subscribePatterns=["^t:[0-9]$"], accessPattern="^t:")
        self.assertEqual(200, ws.ask(op=SET, key="t:x", value="v")["code"])
        self.assertEqual(403, ws.ask(op=SET, key="u", value="v")["code"])
        ws.send(op=SET, key="t:1", value="v")
        self.assertEqual({200, "notification"}, {m.get("code") or m["type"] for m in (ws.next(), ws.next())})

    def test_a_request_that_the_service_refuses(self):
        self.begin(token="any")
        self.assert_error(self.c.ask(token(accessPattern="^(")), 400, "bad_request", "no")
        self.assert_error(self.c.ask(token(subscribeKeys=[""], messageId=None)), 400, "bad_request", "no")


class Order(AccessCase):
    @scene(access=rule("any"), service={"mint": lambda request: "never", "answer": None})
    def test_without_ids_answers_keep_their_order(self, service, daemon, client):
        client.send(get("app:1"), token(subscribeKeys=["1"]), get("app:2"), token(subscribeKeys=["2"]), token(7, subscribeKeys=["3"]),
                    {"op": "ping"})
        service.wait_token_requests(3)
        by_key = {r.obj["subscribeKeys"][0]: r for r in service.token_requests}
        for name in ("3", "2", "1"):
            by_key[name].connection.answer_token(by_key[name], f"token of {name}".replace(" ", "-"))
        self.assertEqual({"code": 200, "token": "token-of-3", "messageId": 7}, client.answer())
        eventually(lambda: daemon.stats()["tokens_for_clients"] == 3, "three tokens")
        first, second = service.next_requests(2)
        second.reply(value="2")
        client.barrier()
        first.reply(value="1")
        self.assertEqual(["1", "token-of-1", "2", "token-of-2", "pong"],
                         [a.get("value") or a.get("token") or a["message"] for a in client.answers(5)])

    @scene(access=rule("any"), service={"mint": lambda request: "never"})
    def test_a_subscribe_behind_a_token_waits_for_its_turn(self, service, daemon, client):
        client.send(token(subscribeKeys=["t"]), {"op": "subscribe", "key": "app:1"})
        asked = service.wait_token_requests(2)
        mine = next(r for r in service.token_requests if r.obj.get("subscribeKeys") == ["t"])
        other = next(r for r in service.token_requests if r is not mine)
        other.connection.answer_token(other, "of-the-daemon")
        service.connection(2)
        client.barrier()
        mine.connection.answer_token(mine, "of-the-client")
        self.assertEqual([{"code": 200, "token": "of-the-client"}, {"code": 200}], client.answers(2))
        self.assertTrue(asked)

    @scene(access=rule("any"), service={"mint": lambda request: "never"})
    def test_few_are_minted_at_once(self, service, daemon, client):
        client.send(*[token(n, subscribeKeys=[f"{n}"]) for n in range(12)])
        for n in range(12):
            request = service.wait_token_requests(n + 1)
            client.barrier()
            self.assertLessEqual(len(service.token_requests), n + 4)
            request.connection.answer_token(request, f"t{n}")
            self.assertEqual(f"t{n}", client.answer()["token"])

    @scene(access=rule("any"), service={"mint": lambda request: "never"})
    def test_clients_take_turns(self, service, daemon, client):
        soon = 10
        client.send(*[token(n, subscribeKeys=[f"flood {n}"]) for n in range(50)])
        service.wait_token_requests(4)
        with daemon.client() as other:
            other.send(token(subscribeKeys=["other"]))
            other.barrier_by(daemon)
            for n in range(soon): # they come by connections of their own, and may overtake each other
                request = service.wait_token_requests(n + 1)
                request.connection.answer_token(request, f"t{n}")
            self.assertIn(["other"], [r.obj["subscribeKeys"] for r in service.token_requests[:soon]])
            self.assertEqual(200, other.answer()["code"])

    @scene(access=rule("any"), service={"mint": lambda request: "never"})
    def test_one_client_may_have_so_many_waiting(self, service, daemon, client):
        client.send(*[token(n) for n in range(65)])
        self.assert_error(client.answer(), 503, "queue_full", "no", 64)
        with daemon.client() as other:
            other.send(token(1))
            other.barrier()

    @scene(access=rule("any"), service={"mint": lambda request: "never"})
    def test_a_client_that_leaves_waits_for_nothing(self, service, daemon, client):
        with daemon.client() as other:
            other.send(*[token(n, subscribeKeys=["gone"]) for n in range(10)])
            service.wait_token_requests(4)
        client.send(token(1, subscribeKeys=["mine"]))
        eventually(lambda: ["mine"] in [r.obj["subscribeKeys"] for r in service.token_requests], "the token of the one that stays")
        request = service.token_requests[-1]
        request.connection.answer_token(request, "t")
        self.assertEqual("t", client.answer()["token"])


class Reload(AccessCase):
    @scene(access=rule("own"), service={"mint": lambda request: "never"})
    def test_requests_that_wait_are_judged_by_the_new_rules(self, service, daemon, client):
        client.send(token(1, subscribeKeys=["app:1"]), token(2, subscribeKeys=["shared:1"]), token(3), token(4), token(5))
        service.wait_token_requests(4)
        service.mint = lambda request: "t"
        daemon.reload(access=rule("own", read="shared:* less:*", write="less:*"))
        answers = {a["messageId"]: a for a in client.answers(5)}
        self.assert_forbidden(answers[1], 'token: no access rule lets this client read "app:1"', message_id=1)
        self.assertEqual(["t"] * 4, [answers[n].get("token") for n in (2, 3, 4, 5)])
        self.assertEqual({"^(?:less:[\\s\\S]*)$"}, {r.obj["accessPattern"] for r in service.token_requests[4:]})

    @scene(access=rule("any"), service={"mint": lambda request: "never"})
    def test_the_right_is_taken_away(self, service, daemon, client):
        client.send(token(1, subscribeKeys=["a"]), token(2))
        service.wait_token_requests(2)
        daemon.reload(access=rule("no"))
        for answer in client.answers(2):
            self.assert_forbidden(answer, "mint tokens", message_id=answer["messageId"])

    @scene(access=rule("any"), service={"mint": lambda request: (401, {}, b"")})
    def test_another_key_counts_at_once(self, service, daemon, client):
        self.assert_error(client.ask(token(1)), 503, "upstream_down", "no", 1)
        client.send(token(2))
        service.mint = lambda request: "t" if request.headers["x-api-key"] == "an0ther-key" else (401, {}, b"")
        daemon.reload(key="an0ther-key")
        self.assertEqual("t", client.answer()["token"])
        self.assertEqual("an0ther-key", service.token_requests[-1].headers["x-api-key"])

    @scene(access=rule("any"))
    def test_another_service_is_asked(self, service, daemon, client):
        self.assertEqual("token-1", client.ask(token(1))["token"])
        other = self.enterContext(FakeService(mint=lambda request: "of-the-other"))
        daemon.reload(url=other.url)
        self.assertEqual("of-the-other", client.ask(token(2))["token"])


class Trouble(AccessCase):
    @scene(access=rule("any"), service={"mint": lambda request: "never"})
    def test_no_answer_in_time(self, service, daemon, client):
        self.assert_error(client.ask(token(1, timeoutMs=1000)), 504, "timeout", "unknown", 1)
        client.send(*(token(n, timeoutMs=3000 if n < 4 else 1000) for n in range(6))) # four are minted at once
        errors = {a["messageId"]: a for a in client.answers(6)}
        self.assertEqual([504] * 4 + [503] * 2, [errors[n]["code"] for n in range(6)])
        self.assert_error(errors[5], 503, "queue_full", "no", 5)

    @scene(access=rule("any"))
    def test_what_passes_by_itself_is_tried_again(self, service, daemon, client):
        refusals = [(503, {}, b""), (500, {}, b"{}"), (429, {"Retry-After": "0"}, b"")]
        service.mint = lambda request: refusals.pop(0) if refusals else "at-last"
        self.assertEqual("at-last", client.ask(token(1))["token"])
        self.assertEqual(4, len(service.token_requests))
        self.assertEqual(3, daemon.stats()["token_failures"])

    @scene(access=rule("any"), service={"mint": lambda request: (429, {"Retry-After": "100"}, b"")})
    def test_a_pause_that_is_longer_than_its_time(self, service, daemon, client):
        answer = client.ask(token(1))
        self.assert_error(answer, 429, "rate_limited", "no", 1)
        self.assertTrue(95000 <= answer["retryAfterMs"] <= 100000, answer)
        self.assert_error(client.ask(token(2)), 429, "rate_limited", "no", 2)
        self.assertEqual(1, len(service.token_requests), "the service is left in peace")

    @steady(0.1)
    @scene(access=rule("any"), service={"mint": lambda request: (429, {}, b"")})
    def test_a_rate_limit_without_a_word_about_time(self, service, daemon, client):
        answer = client.ask(token(1, timeoutMs=500))
        self.assert_error(answer, 429, "rate_limited", "no", 1)
        self.assertTrue(0 < answer["retryAfterMs"] <= 1000, answer)

    @steady(0.3)
    @scene(access=rule("any"), service={"mint": lambda request: (503, {}, b"")})
    def test_a_service_that_stays_away(self, service, daemon, client):
        # It is tried at 0, 0.25, 0.75, 1.75 and 3.75 s; its time is up while nothing is under way.
        answer = client.ask(token(1, timeoutMs=2700))
        self.assert_error(answer, 503, "upstream_down", "no", 1)
        self.assertIn("503", answer["error"])

    @scene(access=rule("any"), service={"mint": lambda request: (401, {}, b"")})
    def test_a_key_that_the_service_refuses(self, service, daemon, client):
        self.assert_error(client.ask(token(1)), 503, "upstream_down", "no", 1)

    @scene(access=rule("any"))
    def test_answers_that_are_of_no_use(self, service, daemon, client):
        for answer in ((200, {}, b"{}"), (200, {}, b"not json"), (200, {}, b'{"token":7}'), (404, {}, b""), (302, {"Location": "/x"}, b"")):
            service.mint = lambda request, answer=answer: answer
            self.assert_error(client.ask(token(1)), 502, "bad_upstream", "unknown", 1)
        for status in (400, 413, 422):
            service.mint = lambda request, status=status: (status, {}, b"")
            self.assert_error(client.ask(token(1)), 400, "bad_request", "no", 1)

    @scene(access=rule("any"), service={"mint": lambda request: "never"})
    def test_a_daemon_that_is_told_to_stop(self, service, daemon, client):
        client.send(*[token(n) for n in range(6)], get("app:1", 6))
        service.wait_token_requests(4)
        daemon.process.signal(15)
        answers = {a["messageId"]: a for a in client.answers(7)}
        for n in range(6):
            self.assert_error(answers[n], 503, "shutting_down", "no", n)

    @scene(access=rule("any"), service={"mint": lambda request: "s3cret-T0ken"})
    def test_tokens_stay_out_of_the_log_and_the_status(self, service, daemon, client):
        for n in range(3):
            self.assertEqual("s3cret-T0ken", client.ask(token(n))["token"])
        client.send({"op": "status"}, {"op": "stats"})
        self.assertFalse([line for line in client.lines(2) if b"s3cret" in line])
        self.assertNotIn(b"s3cret", daemon.log())

    @scene(access=rule("any"), service={"mint": lambda request: "s3cret-T0ken-0f-th1s-cl1ent"})
    def test_tokens_are_wiped_once_they_are_handed_on(self, service, daemon, client):
        client.send(get("app:1"), token(), token(1), token(), get("app:2"))
        self.assertEqual(3, len([a for a in client.answers(5) if "token" in a]))
        client.barrier()
        # Neither as we write it nor as it came to the libraries.
        self.assertEqual([], memory_with(daemon.pid, b"s3cret-T0ken"))


def memory_with(pid, text):
    """The writable mappings of a process in which a text is found."""
    if sanitized():
        raise unittest.SkipTest("a sanitizer maps more than can be read, and keeps what was freed")
    found = []
    try:
        with open(f"/proc/{pid}/maps", encoding="ascii") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
            for line in maps:
                fields = line.split()
                first, last = (int(n, 16) for n in fields[0].split("-"))
                if fields[1].startswith("rw"):
                    memory.seek(first)
                    if text in memory.read(last - first):
                        found.append(line.strip())
    except PermissionError as error:
        raise unittest.SkipTest("this machine does not let us look into the daemon") from error
    return found


if __name__ == "__main__":
    unittest.main()
