"""Subscriptions as clients see them: what the answers promise, who gets which change, and in which words."""

import contextlib
import json
import time

from harness import DEADLINE, KEY, WITHHELD, Case, Daemon, FakeService, Sandbox, echo, eventually, get, put, raise_descriptor_limit, scene


def subscribe(message_id=None, **members):
    return {"op": "subscribe"} | members | ({} if message_id is None else {"messageId": message_id})


def unsubscribe(message_id=None, **members):
    return subscribe(message_id, **members) | {"op": "unsubscribe"}


def one_batch(client, *requests):
    """Subscribes by several requests at once, and sees that all are live."""
    client.send(*requests)
    answers = client.answers(len(requests))
    assert all(a["code"] == 200 for a in answers), answers


class Live(Case):
    """From the answer on, changes come; until the end of the subscription, and no longer."""

    @scene()
    def test_changes_reach_those_who_have_subscribed_and_nobody_else(self, service, daemon, client):
        with daemon.client() as other:
            client.subscribe(key="mine")
            other.subscribe(key="yours")
            service.publish("mine", "1")
            service.publish("yours", "2")
            self.assertEqual(("yours", "2"), other.change())
            self.assertEqual(("mine", "1"), client.change())
            other.barrier()
            client.barrier()

    @scene()
    def test_the_answer_is_the_code_and_the_id(self, service, daemon, client):
        for request in (subscribe(key="k"), unsubscribe(key="k"), unsubscribe()):
            self.assertEqual({"code": 200}, client.ask(request))
            for message_id in (7, "seven", ""):
                self.assertEqual({"code": 200, "messageId": message_id}, client.ask(request | {"messageId": message_id}))

    @scene()
    def test_key_keys_pattern_and_patterns_in_one_request(self, service, daemon, client):
        client.subscribe(key="a", keys=["b", "c"], pattern="d:*", patterns=["e:*", "*:f"])
        self.assertEqual({"a", "b", "c", "d:*", "e:*", "*:f"}, set(service.token_requests[-1].list))
        self.assertEqual(1, len(service.token_requests))
        keys = ["a", "b", "c", "d:", "d:1", "e:1", "x:f"]
        for key in keys:
            service.publish(key, "v")
        self.assertEqual(keys, [client.change()[0] for _ in keys])

    @scene()
    def test_of_a_change_one_line_comes_however_many_match(self, service, daemon, client):
        one_batch(client, subscribe(1, key="app:user:1"), subscribe(2, pattern="app:*"), subscribe(3, pattern="*:1"),
                  subscribe(4, keys=["app:user:1", "app:user:1"]), subscribe(5, patterns=["*", "app:*:1", "app:*"]))
        for i in range(3):
            service.publish("app:user:1", str(i))
        self.assertEqual([("app:user:1", str(i)) for i in range(3)], [client.change() for _ in range(3)])
        client.barrier()

    @scene()
    def test_subscribing_again_succeeds_and_needs_no_new_token(self, service, daemon, client):
        client.subscribe(key="k", pattern="p*")
        with daemon.client() as other:
            for c in (client, client, other):
                c.subscribe(key="k")
                c.subscribe(pattern="p*", keys=["k", "p1"])
            self.assertEqual(1, len(service.token_requests))
            service.publish("k", "v")
            for c in (client, other):
                self.assertEqual(("k", "v"), c.change())
                c.barrier()

    @scene()
    def test_after_unsubscribe_nothing_more_comes_of_that(self, service, daemon, client):
        client.subscribe(keys=["a", "b", "c"], patterns=["p*", "q*"])
        client.unsubscribe(key="a", pattern="p*")
        for key in ("a", "b", "p1", "q1", "c"):
            service.publish(key, "v")
        self.assertEqual(["b", "q1", "c"], [client.change()[0] for _ in range(3)])
        client.barrier()

    @scene()
    def test_a_key_goes_on_coming_by_a_pattern_that_is_left(self, service, daemon, client):
        client.subscribe(key="ab", patterns=["a*", "*b"])
        for ended in ({"key": "ab"}, {"pattern": "a*"}):
            client.unsubscribe(**ended)
            service.publish("ab", str(ended))
            self.assertEqual(("ab", str(ended)), client.change())
        client.unsubscribe(pattern="*b")
        service.publish("ab", "nobody's")
        service.no_more_requests()
        client.barrier()

    @scene()
    def test_unsubscribe_without_members_ends_all(self, service, daemon, client):
        client.subscribe(keys=["a", "b"], patterns=["p*", "*"])
        with daemon.client() as other:
            other.subscribe(key="a")
            client.unsubscribe()
            service.publish("a", "v")
            self.assertEqual(("a", "v"), other.change())
            client.barrier()
            self.assertEqual((1, 0), self.counts(daemon))

    @scene()
    def test_unsubscribe_from_what_was_never_subscribed_to(self, service, daemon, client):
        with daemon.client() as other:
            other.subscribe(key="k", pattern="p*")
            client.unsubscribe(key="k", keys=["x"], pattern="p*", patterns=["never"])
            client.unsubscribe()
            service.publish("k", "v")
            self.assertEqual(("k", "v"), other.change())

    @scene()
    def test_unsubscribe_ends_also_what_is_not_yet_live(self, service, daemon, client):
        """Both are answered, and nothing comes."""
        service.mint = lambda request: "never"
        client.send(subscribe(1, key="a"))
        request = service.wait_token_requests(1)
        client.send(unsubscribe(2, key="a"))
        answers = {client.answer()["messageId"] for _ in range(2)}
        self.assertEqual({1, 2}, answers)
        request.connection.answer_token(request, "late")
        service.connection(2)
        service.publish("a", "v")
        service.mint = lambda request: "again"
        client.subscribe(key="b")
        service.publish("b", "v")
        self.assertEqual(("b", "v"), client.change())
        client.barrier()

    def counts(self, daemon):
        s = daemon.status()["subscriptions"]
        return s["keys"], s["patterns"]

    @scene()
    def test_closing_ends(self, service, daemon, client):
        with daemon.client() as other:
            other.subscribe(keys=["a", "b"], pattern="p*")
            client.subscribe(key="a")
            self.assertEqual((2, 1), self.counts(daemon))
        daemon.wait_status(lambda s: s["subscriptions"]["keys"] == 1, "the key of who has left is gone")
        self.assertEqual((1, 0), self.counts(daemon))
        service.publish("a", "v")
        self.assertEqual(("a", "v"), client.change())

    @scene()
    def test_closing_ends_what_is_not_yet_live_too(self, service, daemon, client):
        service.mint = lambda request: "never"
        with daemon.client() as other:
            other.send(subscribe(1, key="a"))
            request = service.wait_token_requests(1)
            self.assertEqual(1, daemon.status()["subscriptions"]["waiting"])
        daemon.wait_status(lambda s: s["subscriptions"]["waiting"] == 0, "its request is gone")
        request.connection.answer_token(request, "late")
        service.mint = lambda request: "again"
        client.subscribe(key="b")
        service.publish("b", "v")
        self.assertEqual(("b", "v"), client.change())

    @scene()
    def test_half_closed_it_stays(self, service, daemon, client):
        client.send(subscribe(key="k"))
        client.half_close()
        self.assertEqual({"code": 200}, client.answer())
        for i in range(20):
            service.publish("k", str(i))
            self.assertEqual(("k", str(i)), client.change())
        self.assertEqual((1, 0), self.counts(daemon))

    @scene()
    def test_half_closed_with_an_ended_subscription_it_ends(self, service, daemon, client):
        client.send(subscribe(key="k"), unsubscribe())
        client.half_close()
        self.assertEqual([{"code": 200}] * 2, client.answers(2))
        self.assertTrue(client.at_end())

    @scene()
    def test_a_whole_close_is_noticed_within_five_seconds(self, service, daemon, client):
        """Of one that is half-closed no end of file tells, and nothing is sent to it."""
        with daemon.client() as other:
            other.send(subscribe(key="k"))
            other.half_close()
            other.answer()
            began = daemon.status()["uptimeMs"]
        status = daemon.wait_status(lambda s: s["subscriptions"]["keys"] == 0, "its subscription has ended")
        self.assertLess(status["uptimeMs"] - began, 5000 + DEADLINE * 250) # how late a busy machine lets it be is not its fault

    @scene()
    def test_and_that_of_thousands(self, service, daemon, client):
        """They are looked at in parts, in two seconds; a busy machine may take as long again."""
        n = 2000
        raise_descriptor_limit(n + 200)
        with contextlib.ExitStack() as stack:
            others = [stack.enter_context(daemon.client()) for _ in range(n)]
            for other in others:
                other.send(subscribe(key="k"))
                other.half_close()
                other.answer()
            others.pop().close()
            status = daemon.wait_status(lambda s: s["subscriptions"]["total"] == n - 1, "the first has ended: they are being looked at")
            began = status["uptimeMs"]
            for other in others[1:]:
                other.close()
            status = daemon.wait_status(lambda s: s["subscriptions"]["total"] == 1, "all but one have ended")
            self.assertEqual(1, status["subscriptions"]["keys"])
            self.assertLess(status["uptimeMs"] - began, 5000)
            service.publish("k", "v")
            self.assertEqual(("k", "v"), others[0].change())


class Order(Case):
    """Requests without an id are answered in their order."""

    @scene(service=WITHHELD)
    def test_subscribe_waits_for_the_answers_before_it(self, service, daemon, client):
        with daemon.client() as other: # so that they are live at once
            other.subscribe(keys=["a", "b"])
            client.send(get("slow"), subscribe(key="a"), get("slow too"), subscribe(key="b"), unsubscribe(key="x"),
                        subscribe("with id", key="a"), {"op": "ping"})
            self.assertEqual({"code": 200, "messageId": "with id"}, client.answer())
            first, second = service.next_requests(2)
            second.reply(value="second")
            client.barrier()
            service.publish("b", "not yet for us")
            self.assertEqual(("b", "not yet for us"), other.change())
            client.barrier()
            first.reply(value="first")
            answers = client.answers(6)
        self.assertEqual(["first", None, "second", None, None, None], [a.get("value") for a in answers])
        self.assertEqual([200] * 6, [a["code"] for a in answers])
        self.assertEqual("pong", answers[5]["message"])
        service.publish("b", "v")
        self.assertEqual(("b", "v"), client.change())

    @scene()
    def test_so_do_requests_behind_a_subscribe_that_takes_its_time(self, service, daemon, client):
        service.mint = lambda request: "never"
        client.send(subscribe(key="a"), get("k"), {"op": "ping"}, subscribe(key="b"), unsubscribe(key="c"))
        request = service.wait_token_requests(1)
        service.next_request()
        client.barrier()
        service.mint = lambda request: "second"
        request.connection.answer_token(request, "first")
        answers = client.answers(5)
        self.assertEqual([None, "value of k", None, None, None], [a.get("value") for a in answers])
        self.assertEqual([200] * 5, [a["code"] for a in answers])

    @scene()
    def test_one_that_does_not_become_live_in_its_time_fails_alone(self, service, daemon, client):
        service.mint = lambda request: "never"
        client.send(subscribe(1, key="a", timeoutMs=50), subscribe(2, key="b"))
        self.assert_error(client.answer(), 503, "upstream_down", "no", 1)
        request = service.wait_token_requests(1)
        request.connection.answer_token(request, "late")
        self.assertEqual({"code": 200, "messageId": 2}, client.answer())
        service.publish("b", "v")
        self.assertEqual(("b", "v"), client.change())


class Unchanged(Case):
    """Notifications are the service's bytes."""

    TEXTS = {
        "plain": r'{"type":"notification","key":"k","value":"v","timestamp":1}',
        "order": r'{"timestamp":1,"value":"v","key":"k","type":"notification"}',
        "spaces": '{ "type" :\t"notification" , "key":"k","value" : "v" ,"timestamp":  1 } ',
        "deleted": r'{"type":"notification","key":"k","value":null,"timestamp":1}',
        "escapes": r'{"type":"notification","key":"\u006b","value":"\u00e9\/\n\"\\\ud83d\ude00 é😀","timestamp":1}',
        "nul": r'{"type":"notification","key":"k","value":"a\u0000b","timestamp":1}',
        "surrogate": r'{"type":"notification","key":"k","value":"\ud800","timestamp":1}',
        "big_numbers": r'{"type":"notification","key":"k","value":123456789012345678901234567890.10e5,"timestamp":1e3}',
        "negative": r'{"type":"notification","key":"k","value":-0,"timestamp":9007199254740993}',
        "extra": r'{"type":"notification","key":"k","extra":{"a":[1,{"b":null}]},"value":{"x":[true]},"timestamp":1,"":0}',
        "no_timestamp": r'{"type":"notification","key":"k","value":"v"}',
        "long": r'{"type":"notification","key":"k","value":"%s","timestamp":1}' % ("x\\u0000é" * 20000),
    }

    @scene()
    def test_each(self, service, daemon, client):
        client.subscribe(key="k")
        for name, text in self.TEXTS.items():
            with self.subTest(name):
                service.publish_text("k", text)
                self.assertEqual(text, client.line().decode())

    @scene()
    def test_a_line_end_between_tokens_becomes_a_space(self, service, daemon, client):
        client.subscribe(key="k")
        text = '{\n"type":"notification",\r\n"key":"k","value":"v\\n",\n\n"timestamp":\n1}\n'
        service.publish_text("k", text)
        self.assertEqual(text.replace("\n", " ").replace("\r", " "), client.line().decode())
        client.barrier()

    @scene()
    def test_a_key_is_found_however_it_is_written(self, service, daemon, client):
        client.send(r'{"op":"subscribe","key":"\u006b\u00e9y\u0000\/"}', r'{"op":"subscribe","pattern":"\u0070*"}')
        client.answers(2)
        for key in (r'k\u00e9y\u0000/', r'ké\u0079\u0000\/', r'p\u0000', r'\u0070\ud83d\ude00'):
            text = '{"type":"notification","key":"%s","value":"v","timestamp":1}' % key
            service.publish_text(json.loads(f'"{key}"'), text)
            self.assertEqual(text, client.line().decode())

    @scene()
    def test_a_notification_that_nobody_wants_is_dropped(self, service, daemon, client):
        client.subscribe(key="k")
        for text in ('{"type":"notification","key":"other","value":"v","timestamp":1}',
                     '{"type":"notification","value":"v","timestamp":1}',
                     '{"type":"notification","key":5,"value":"v","timestamp":1}'):
            service.publish_text("k", text)
        service.publish("k", "last")
        self.assertEqual(("k", "last"), client.change())


class BadMembers(Case):
    CASES = (
        ({"key": 5}, "key"), ({"key": None}, "key"), ({"key": ""}, "key"), ({"key": ["a"]}, "key"),
        ({"keys": "a"}, "keys"), ({"keys": [1]}, "keys"), ({"keys": ["a", ""]}, "keys"), ({"keys": {"a": "b"}}, "keys"),
        ({"keys": [["a"]]}, "keys"), ({"pattern": 1}, "pattern"), ({"pattern": ""}, "pattern"),
        ({"pattern": ["a"]}, "pattern"), ({"patterns": "a*"}, "patterns"), ({"patterns": ["a*", None]}, "patterns"),
    )

    @scene()
    def test_each_is_named(self, service, daemon, client):
        for op in ("subscribe", "unsubscribe"):
            for members, name in self.CASES:
                with self.subTest(op, members=members):
                    answer = client.ask({"op": op, "messageId": 1} | members)
                    self.assert_error(answer, 400, "bad_request", "no", 1)
                    self.assertRegex(answer["error"], rf"\b{name}\b")
        for initial in (1, "true", None, []):
            answer = client.ask(subscribe(1, key="a", initial=initial))
            self.assert_error(answer, 400, "bad_request", "no", 1)
            self.assertIn("initial", answer["error"])
        self.assertEqual((0, []), (daemon.status()["subscriptions"]["total"], service.token_requests))

    @scene()
    def test_a_subscribe_to_nothing(self, service, daemon, client):
        for members in ({}, {"initial": True}):
            answer = client.ask(subscribe(1, **members))
            self.assert_error(answer, 400, "bad_request", "no", 1)
            for name in ("key", "keys", "pattern", "patterns"):
                self.assertRegex(answer["error"], rf"\b{name}\b")

    @scene()
    def test_empty_lists_are_all_that_is_wanted(self, service, daemon, client):
        client.subscribe(keys=[])
        client.subscribe(patterns=[])
        client.unsubscribe(keys=[])
        self.assertEqual([], service.token_requests)

    @scene()
    def test_one_bad_member_spoils_the_whole_request(self, service, daemon, client):
        answer = client.ask(subscribe(key="good", patterns=["p*"], keys=["fine", 3]))
        self.assert_error(answer, 400, "bad_request", "no")
        client.subscribe(key="other")
        self.assertEqual(["other"], service.token_requests[-1].list)


class Literal(Case):
    """Keys are keys and globs are globs, whatever their characters mean to the service."""

    def hears(self, client, writer, wanted, unwanted):
        for key in [*unwanted, *wanted]:
            self.assertEqual(200, writer.ask(put(key, "v"))["code"])
        self.assertEqual(wanted, [client.change()[0] for _ in wanted])
        client.barrier()

    def test_keys(self):
        cases = {
            "^x": ["x", "^", "^xy", "ax", "a^x"],
            "^a.*(b|c)$[d]{2}\\": ["^ab", "ab", "^a.*(b|c)$[d]{2}"],
            "a*b": ["ab", "acb", "a*bc", "xa*b"],
            "*": ["a", "**"],
            "^*": ["^", "^^", "^a"],
            "a.b": ["axb", "a.bc"],
            "é\u0000😀": ["é", "é\u0000"],
        }
        with Sandbox() as sandbox, Daemon(sandbox) as daemon, daemon.client() as writer:
            for key, others in cases.items():
                with self.subTest(key), daemon.client() as client:
                    client.subscribe(key=key)
                    self.hears(client, writer, [key], others)

    def test_globs(self):
        cases = {
            "a.b*": (["a.b", "a.bc"], ["axb", "ba.b"]),
            "[ab]*": (["[ab]", "[ab]c"], ["a", "ab"]),
            "a?*": (["a?", "a?b"], ["ab", "a"]),
            "^x*": (["^x", "^xy"], ["x", "a^x"]),
            "*^": (["^", "a^"], ["^a"]),
            "^a*.(c)": (["^a.(c)", "^ab.(c)"], ["^abc", "a.(c)"]),
            "*$": (["$", "a$"], ["a"]),
            "a|b*": (["a|b", "a|bc"], ["a", "b"]),
            "\\*x": (["\\x", "\\yx"], ["x", "*x"]),
            "+(*)": (["+()", "+(a)"], ["()", "+("]),
            "a*b*c": (["abc", "axbxc", "abbcc"], ["ab", "acb", "xabc"]),
            "*mid*": (["mid", "amidst"], ["mi", "m*d"]),
            "é*😀": (["é😀", "éa😀"], ["é", "e😀"]),
            "n\u0000*": (["n\u0000", "n\u0000a"], ["n"]),
            "**": (["x", "*"], []),
        }
        with Sandbox() as sandbox, Daemon(sandbox) as daemon, daemon.client() as writer:
            for pattern, (wanted, unwanted) in cases.items():
                with self.subTest(pattern), daemon.client() as client:
                    client.subscribe(pattern=pattern)
                    self.hears(client, writer, wanted, unwanted)

    def test_all_at_once(self):
        """In one token, which is not to be confused by any of them."""
        with Sandbox() as sandbox, Daemon(sandbox) as daemon, daemon.client() as client, daemon.client() as writer:
            client.subscribe(keys=["^x", "a*b", "(", "[", "\\", "^(", "{9999}", "^{9}"], patterns=["^[*", "p(*", "*)^"])
            self.hears(client, writer, ["^x", "a*b", "(", "[", "\\", "^(", "{9999}", "^{9}", "^[", "p(1", ")^"],
                       ["x", "axb", "a", "^", "p", ")"])


class Token(Case):
    """What the daemon asks the service for."""

    @scene()
    def test_the_set_travels_under_both_names(self, service, daemon, client):
        client.subscribe(keys=["a", "b"], pattern="c*")
        request = service.token_requests[0]
        self.assertEqual(["a", "b", "c*"], sorted(request.obj["subscribeKeys"]))
        self.assertEqual(request.obj["subscribeKeys"], request.obj["subscribePatterns"])
        self.assertEqual(".*", request.obj["accessPattern"])
        self.assertEqual({"subscribeKeys", "subscribePatterns", "accessPattern"}, set(request.obj))
        self.assertEqual((KEY, "application/json"), (request.headers["x-api-key"], request.headers["content-type"]))

    def test_or_under_one(self):
        for field in ("subscribeKeys", "subscribePatterns"):
            with self.subTest(field), FakeService() as service, Daemon(service, subscribe_field=field) as daemon, \
                    daemon.client() as client:
                client.subscribe(key="k")
                self.assertEqual({field: ["k"], "accessPattern": ".*"}, service.token_requests[0].obj)

    @scene(access_pattern='^app:[a-z"\\\\]+$')
    def test_the_access_pattern_is_sent(self, service, daemon, client):
        client.subscribe(key="k")
        self.assertEqual('^app:[a-z"\\\\]+$', service.token_requests[0].obj["accessPattern"])

    @scene(service={"mint": lambda request: 'a.b-c_d~e+f/g=h"i%j&k?l#m'})
    def test_its_text_arrives_whole_in_the_upgrade(self, service, daemon, client):
        client.subscribe(key="k")
        self.assertEqual('a.b-c_d~e+f/g=h"i%j&k?l#m', service.connections[-1].token)

    def test_the_url_may_have_a_path(self):
        with FakeService() as service:
            service.token_path = "/some/where/token/websocket"
            with Daemon(service.url + "/some/where") as daemon, daemon.client() as client:
                client.subscribe(key="k")
                self.assertEqual("/some/where/ws?token=token-1", service.connections[-1].target)
                service.hang_up()

    @scene()
    def test_a_list_that_the_service_finds_too_long_is_made_shorter(self, service, daemon, client):
        """Nobody is to blame for it: neither who came last nor, when the token is renewed, anybody else."""
        largest = 3000
        service.mint = lambda request: f"token-{request.number}" if len(json.dumps(request.obj)) < largest else (413, {}, b"")
        client.subscribe(key="first")
        client.subscribe(keys=[f"user:{n}:profile" for n in range(1000)])
        client.subscribe(key="last")
        self.assertLess(len(service.token_requests), 12, "it learns from a refusal")
        for key in ("user:0:profile", "user:1000:profile", "user:999:profile", "last"):
            service.publish(key, "v")
        self.assertEqual({"user:0:profile", "user:999:profile", "last"}, {client.change()[0] for _ in range(3)})
        self.assertEqual(0, daemon.status()["subscriptions"]["leftOut"])
        daemon.reload(token_lifetime="1s")
        eventually(lambda: daemon.stats()["token_renewals"] > 1, "renewals")
        self.assertEqual({"live": True, "total": 1002}, {name: daemon.status()["subscriptions"][name] for name in ("live", "total")})
        client.barrier()

    @scene()
    def test_each_key_is_listed_once(self, service, daemon, client):
        client.subscribe(keys=["a", "a", "b"], key="b", patterns=["p*", "p*"], pattern="p*")
        self.assertEqual(["a", "b", "p*"], sorted(service.token_requests[-1].list))

    @scene()
    def test_what_was_just_ended_is_in_the_next_one_but_not_told(self, service, daemon, client):
        client.subscribe(keys=["a", "b"])
        client.unsubscribe(key="a")
        client.subscribe(key="c")
        self.assertEqual(["a", "b", "c"], sorted(service.token_requests[-1].list))
        service.publish("a", "nobody's")
        service.publish("b", "1")
        self.assertEqual(("b", "1"), client.change())

    @scene(token_lifetime="4s")
    def test_without_subscriptions_the_next_renewal_goes_back_to_the_key(self, service, daemon, client):
        client.subscribe(key="k")
        self.assertEqual("token", daemon.status()["upstream"]["auth"])
        client.unsubscribe()
        self.assertEqual("token", daemon.status()["upstream"]["auth"]) # no hurry
        status = daemon.wait_status(lambda s: s["upstream"]["auth"] == "apiKey", "the key is used again")
        self.assertIsNone(status["upstream"]["tokenExpiresInMs"])
        self.assertIsNone(service.connections[-1].token)
        self.assertEqual(200, client.ask(get("k"))["code"])
        client.subscribe(key="k") # and there again
        service.publish("k", "v")
        self.assertEqual(("k", "v"), client.change())


class Status(Case):
    @scene(token_lifetime="1h")
    def test_it_counts_different_keys_and_patterns(self, service, daemon, client):
        upstream = daemon.status()["upstream"]
        self.assertEqual(("apiKey", None), (upstream["auth"], upstream["tokenExpiresInMs"]))
        with daemon.client() as other:
            client.subscribe(keys=["a", "b", "c"], patterns=["p*"])
            other.subscribe(keys=["a", "d"], patterns=["p*", "q*"])
            status = daemon.status()
            self.assertEqual((4, 2), (status["subscriptions"]["keys"], status["subscriptions"]["patterns"]))
            upstream = status["upstream"]
            self.assertEqual(("token", "connected"), (upstream["auth"], upstream["state"]))
            self.assertTrue(3590_000 < upstream["tokenExpiresInMs"] <= 3600_000, upstream)
            self.assertEqual((0, None), (upstream["reconnects"], upstream["lastError"]))
            other.unsubscribe(pattern="q*")
            self.assertEqual(1, daemon.status()["subscriptions"]["patterns"])
        stats = daemon.stats()
        self.assertEqual((2, 2), (stats["subscribes"], stats["tokens_minted"]))

    @scene()
    def test_no_token_is_told_to_anybody(self, service, daemon, client):
        service.mint = lambda request: f"s3cret-t0ken-{request.number}"
        client.subscribe(key="k")
        client.subscribe(key="l")
        said = json.dumps([daemon.status(), client.ask({"op": "stats"})]).encode() + daemon.log()
        self.assertNotIn(b"s3cret", said)


class Initial(Case):
    """The value that there is, behind the answer."""

    def initial(self, key, value, line):
        self.assertEqual(("notification", key, value, True), tuple(line[m] for m in ("type", "key", "value", "initial")))
        self.assertEqual({"type", "key", "value", "timestamp", "initial"}, set(line))
        self.assertAlmostEqual(time.time() * 1000, line["timestamp"], delta=DEADLINE * 1000)

    def test_it_follows_the_answer(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon, daemon.client() as client:
            for key in "ab":
                client.ask(put(key, "value of " + key))
            self.assertEqual({"code": 200, "messageId": 1}, client.ask(subscribe(1, keys=["a", "missing", "b"],
                                                                                   patterns=["x*"], initial=True)))
            lines = {line["key"]: line for line in client.answers(3)}
            self.initial("a", "value of a", lines["a"])
            self.initial("b", "value of b", lines["b"])
            self.initial("missing", None, lines["missing"])
            client.barrier()

    @scene()
    def test_only_when_asked_for(self, service, daemon, client):
        client.subscribe(key="a", initial=False)
        client.subscribe(key="b")
        client.subscribe(pattern="c*", initial=True)
        client.barrier()
        self.assertEqual([], service.requests)

    @scene()
    def test_also_to_who_was_subscribed_already(self, service, daemon, client):
        with daemon.client() as other:
            other.subscribe(key="k")
            for c in (other, client, other):
                c.subscribe(key="k", initial=True)
                self.initial("k", "value of k", c.answer())
            other.barrier()
            client.barrier()

    @scene()
    def test_the_value_is_the_services_bytes(self, service, daemon, client):
        client.subscribe(key="k")
        for value in (r'"\u00e9\/\u0000é"', "12345678901234567890.0e1", '{"a": [1, null]}', "true", '""'):
            service.answer = lambda request, value=value: request.reply_raw(
                '{"code":200,"messageId":<id>,"key":"k","value":%s}' % value)
            client.subscribe(key="k", initial=True)
            self.assertIn(f'"value":{value},', client.line().decode())

    @scene(service=WITHHELD)
    def test_it_is_older_than_no_change_that_came_before_it(self, service, daemon, client):
        """A change that crosses with the answer: the client ends with the newer of the two."""
        client.subscribe(key="k", initial=True)
        read = service.next_request()
        service.publish("k", "new") # after the service has read "old" for its answer, which is on its way
        read.reply(value="old")
        lines = client.answers(2)
        self.assertEqual(["old", "new"], [line["value"] for line in lines])
        self.assertEqual([True, None], [line.get("initial") for line in lines])
        client.subscribe(key="k", initial=True)
        read = service.next_request()
        service.publish("k", "newer")
        read.reply(value="newer") # read after the change
        lines = client.answers(2)
        self.assertEqual(["newer", "newer"], [line["value"] for line in lines])

    @scene(service=WITHHELD)
    def test_one_reading_serves_all_who_wait(self, service, daemon, client):
        others = [daemon.client() for _ in range(20)]
        for c in others:
            c.send(subscribe(key="k", initial=True))
        reads = [service.next_request()]
        for c in others:
            self.assertEqual({"code": 200}, c.answer())
        reads[0].reply(value="v")
        service.answer = lambda request: request.reply(value="v") # who came later has a later one
        for c in others:
            self.initial("k", "v", c.answer())
            c.close()
        self.assertLess(len(service.requests), len(others))

    @scene(service=WITHHELD)
    def test_who_has_gone_is_not_missed(self, service, daemon, client):
        with daemon.client() as other:
            other.subscribe(key="k", initial=True)
            client.subscribe(key="k", initial=True)
            read = service.next_request()
        daemon.wait_status(lambda s: s["subscriptions"]["total"] == 1, "it has gone")
        service.answer = echo
        read.reply(value="v")
        self.assertIn(client.answer()["value"], ("v", "value of k"))

    @scene(service=WITHHELD)
    def test_after_unsubscribe_it_does_not_come(self, service, daemon, client):
        client.subscribe(key="k", initial=True)
        read = service.next_request()
        client.unsubscribe(key="k")
        read.reply(value="v")
        service.no_more_requests()
        client.barrier()

    @scene(service=WITHHELD)
    def test_what_came_while_it_was_read_is_told_before_the_unsubscribe(self, service, daemon, client):
        """Or not at all: behind the answer nothing comes."""
        client.subscribe(key="k", initial=True)
        read = service.next_request()
        service.publish("k", "crossing")
        service.no_more_requests()
        client.send(unsubscribe("end", key="k"))
        lines = [client.answer()]
        while "messageId" not in lines[-1]:
            lines.append(client.answer())
        self.assertLessEqual(len(lines), 2)
        read.reply(value="v")
        service.no_more_requests()
        client.barrier()

    def test_a_key_outside_the_access_pattern_can_not_be_read(self):
        with Sandbox() as sandbox, Daemon(sandbox, access_pattern="^app:") as daemon, daemon.client() as client:
            client.subscribe(keys=["app:k", "other"], initial=True)
            lines = {line["key"]: line for line in client.answers(2)}
            self.initial("app:k", None, lines["app:k"])
            self.assertEqual({"type": "gap", "key": "other"}, lines["other"])
