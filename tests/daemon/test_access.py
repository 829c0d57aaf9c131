"""Access rules: each user reaches what the rules give it, and nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys
import unittest

from harness import HPKVD, MISSING, Case, Daemon, FakeService, Sandbox, acting_as, eventually, get, need_root, put

ANN, BOB, EVE = 20001, 20002, 20003 # users that need no account
STAFF, GUESTS = 30001, 30002 # groups

ME = {"user": os.geteuid()}


class AccessCase(Case):
    def scene(self, service=(), **settings):
        """A service and a daemon that is connected to it."""
        if os.geteuid() == 65534: # by this number the kernel calls those whom it can't name, and no rule lets them in
            self.skipTest("nobody is no user whom rules know")
        s = self.enterContext(FakeService(**dict(service)))
        d = self.enterContext(Daemon(s, **settings))
        d.wait_state("connected")
        return s, d

    def enterContext(self, context): # is new in Python 3.11's unittest, of which Debian 12 has it; kept for older ones
        result = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return result

    def client(self, daemon, **options):
        client = daemon.client(**options)
        self.addCleanup(client.close)
        return client

    def assert_forbidden(self, answer, *parts, message_id=MISSING):
        self.assert_error(answer, 403, "forbidden", "no", message_id)
        for part in parts:
            self.assertIn(part, answer["error"])

    def allowed(self, client, request):
        answer = client.ask(request)
        if answer["code"] != 403:
            self.assertEqual(200, answer["code"], answer)
            return True
        self.assert_forbidden(answer, request["op"])
        return False


def every_op(key):
    return [get(key), put(key, "v"), {"op": "patch", "key": key, "value": "{}"}, {"op": "delete", "key": key},
            {"op": "increment", "key": key}, {"op": "range", "key": key, "endKey": key},
            {"op": "subscribe", "key": key}, {"op": "subscribe", "pattern": key}, {"op": "subscribe", "keys": [key]},
            {"op": "subscribe", "patterns": [key]}]


WRITES = ("set", "patch", "delete", "increment")


class OneUser(AccessCase):
    """What the rules say of keys, told by a client that they name."""

    def test_reading_and_writing_are_two_rights(self):
        service, daemon = self.scene(access={"me": ME | {"read": "r:* both:*", "write": "w:* both:*"}})
        client = self.client(daemon)
        for request in every_op("r:1"):
            self.assertEqual(request["op"] not in WRITES, self.allowed(client, request), request)
        for request in every_op("w:1"):
            self.assertEqual(request["op"] in WRITES, self.allowed(client, request), request)
        for request in every_op("both:1"):
            self.assertTrue(self.allowed(client, request), request)
        for request in every_op("else:1"):
            self.assertFalse(self.allowed(client, request), request)
        sent = {r.key.split(":")[0] for r in service.requests}
        self.assertEqual({"r", "w", "both"}, sent, "what was forbidden has not reached the service")

    def test_numbers_of_operations_are_judged_as_names(self):
        _, daemon = self.scene(access={"me": ME | {"read": "r:*"}})
        client = self.client(daemon)
        self.assertEqual(200, client.ask({"op": 1, "key": "r:1"})["code"])
        for op in (1, 2, 3, 4, 5, 6):
            self.assert_forbidden(client.ask({"op": op, "key": "x", "endKey": "y", "value": 1}))

    def test_what_needs_no_right(self):
        _, daemon = self.scene(access={"nobody": {"user": 1}})
        client = self.client(daemon)
        client.barrier()
        self.assertEqual(200, client.ask({"op": "status"})["code"])
        self.assertEqual(200, client.ask({"op": "stats"})["code"])
        self.assertEqual(200, client.ask({"op": "unsubscribe"})["code"])
        for request in every_op("k") + [{"op": "token"}]:
            self.assertFalse(self.allowed(client, request), request)

    def test_what_is_wrong_is_told_before_what_is_forbidden(self):
        _, daemon = self.scene(access={"nobody": {"user": 1}})
        client = self.client(daemon)
        self.assert_error(client.ask({"op": "get"}), 400, "bad_request", "no")

    def test_ranges_lie_within_one_glob(self):
        _, daemon = self.scene(access={"me": ME | {"read": "app:* b:*:x exact ä:* app2:*"}})
        client = self.client(daemon)
        for first, last in [("app:", "app:"), ("app:a", "app:z"), ("app:", "app:~"), ("app:z", "app:a"), ("app:", "app:\u00ff"),
                            ("app:", "app:\U0010ffff"), ("app:\0", "app:\x7f"), ("exact", "exact"), ("b:1:x", "b:1:x"),
                            ("ä:1", "ä:2")]:
            self.assertTrue(self.allowed(client, {"op": "range", "key": first, "endKey": last}), (first, last))
        for first, last in [("app", "app:z"), ("app:a", "app;"), ("app:a", "app2:a"), ("", "app:z"), ("app:a", ""), ("app:a", "b:1:x"),
                            ("b:1:x", "b:2:x"), ("exact", "exact1"), ("exact", "exact\0"), ("exac", "exact"), ("app:", "app;\xff"),
                            ("apo", "apq"), ("\0", "\U0010ffff"), ("ä:", "ö:"), ("other", "other")]:
            answer = client.ask({"op": "range", "key": first, "endKey": last})
            self.assert_forbidden(answer, "range: no access rule lets this client read all from ")

    def test_everything(self):
        _, daemon = self.scene(access={"me": ME | {"read": "*", "write": "**"}})
        client = self.client(daemon)
        self.assertTrue(self.allowed(client, {"op": "range", "key": "", "endKey": "\U0010ffff"}))
        self.assertTrue(self.allowed(client, {"op": "subscribe", "pattern": "*"}))
        for request in every_op("any \0 key"):
            self.assertTrue(self.allowed(client, request), request)

    def test_patterns_lie_within_one_glob(self):
        _, daemon = self.scene(access={"me": ME | {"read": "app:* *:log a*b*c"}})
        client = self.client(daemon)
        for pattern in ["app:*", "app:", "app:x*", "app:*:y*z", "*:log", "x*:log", "app:*:log", "abc", "aXbYc", "a*b*c", "ab*bc", "a*bb*c",
                        "a**b*c", "*x:log"]:
            self.assertTrue(self.allowed(client, {"op": "subscribe", "pattern": pattern}), pattern)
        for pattern in ["*", "app*", "ap*", "*app:", "*:logs", "*log", "a*c", "*abc", "abc*", "a*b", "**"]:
            self.assertFalse(self.allowed(client, {"op": "subscribe", "pattern": pattern}), pattern)

    def test_one_forbidden_name_forbids_the_subscription(self):
        service, daemon = self.scene(access={"me": ME | {"read": "app:*"}})
        client = self.client(daemon)
        for members in ({"keys": ["app:1", "x"]}, {"patterns": ["app:*", "x*"]}, {"key": "app:1", "pattern": "*"},
                        {"key": "x", "keys": ["app:1"]}, {"keys": ["app:1"], "patterns": ["y"]}):
            self.assert_forbidden(client.ask({"op": "subscribe"} | members), "subscribe: no access rule lets this client read ")
        self.assertEqual(0, daemon.status()["subscriptions"]["total"])
        self.assertEqual([], service.token_requests)

    def test_keys_are_compared_as_what_they_mean(self):
        service, daemon = self.scene(access={"me": ME | {"read": "app:* z\u00e9*"}})
        client = self.client(daemon)
        for key in (r'"a\u0070p:\u0031"', r'"\u0061\u0070\u0070\u003a"', r'"z\u00e9"', '"z\u00e9t\u00e9"', r'"app:\ud83d\ude00"', r'"app:\ud83d"',
                    r'"app:\u0000"'):
            client.send('{"op":"get","key":%s}' % key)
            self.assertEqual(200, client.answer()["code"], key)
        for key in (r'"a\u0070q:\u0031"', r'"app\u003b"', r'"\u0000app:"', r'"z\u00e8"', r'"z\u00c3\u00a9"', r'"app\\u003a"', r'"\/app:"'):
            client.send('{"op":"get","key":%s}' % key)
            self.assert_forbidden(client.answer())
        client.send(r'{"op":"subscribe","pattern":"a\u0070p:\u002a"}', r'{"op":"subscribe","pattern":"a\u0070p\u002a"}')
        self.assertEqual(200, client.answer()["code"])
        self.assert_forbidden(client.answer())
        client.send(r'{"op":"range","key":"a\u0070p:1","endKey":"\u0061pp:2"}', r'{"op":"range","key":"app:1","endKey":"ap\u0071:2"}')
        self.assertEqual(200, client.answer()["code"])
        self.assert_forbidden(client.answer())
        self.assertFalse([r.text for r in service.requests if "app;" in r.text])

    def test_a_key_cannot_be_given_in_two_ways(self):
        _, daemon = self.scene(access={"me": ME | {"read": "app:*"}})
        client = self.client(daemon)
        for line in ('{"op":"get","key":"app:1","key":"x"}', '{"op":"get","key":"app:1","k\\u0065y":"x"}'):
            client.send(line)
            self.assert_error(client.answer(), 400, "bad_request", "no")

    def test_refusals_keep_the_order_of_answers(self):
        service, daemon = self.scene(service={"answer": None}, access={"me": ME | {"read": "app:*"}})
        client = self.client(daemon)
        client.send(get("app:1"), get("x"), get("app:2"), put("app:1", "v"), get("y", 7))
        self.assert_forbidden(client.answer(), 'get: no access rule lets this client read "y"', message_id=7)
        first, second = service.next_requests(2)
        second.reply(key="app:2", value="2")
        first.reply(key="app:1", value="1")
        self.assertEqual("1", client.answer()["value"])
        self.assert_forbidden(client.answer(), 'get: no access rule lets this client read "x"')
        self.assertEqual("2", client.answer()["value"])
        self.assert_forbidden(client.answer(), 'set: no access rule lets this client write "app:1"')
        client.barrier()

    def test_names_in_sentences_are_short_and_whole(self):
        _, daemon = self.scene(access={"nobody": {"user": 1}})
        client = self.client(daemon)
        for key in ("é" * 100, "\0" * 100, '"\\' * 60, "x" * 50000, "\U0001f600" * 50):
            answer = client.ask(get(key))
            self.assert_forbidden(answer)
            self.assertLess(len(answer["error"]), 200)
            self.assertIn('..."', answer["error"])
            self.assertNotIn("\ufffd", answer["error"])

    def test_several_sections_add_up(self):
        _, daemon = self.scene(access={"one": ME | {"read": "a:*"}, "two": {"user": 1, "read": "b:*"},
                                       "three": {"group": os.getegid(), "read": "c:*", "write": "a:*"}})
        client = self.client(daemon)
        self.assertEqual([True, False, True, True],
                         [self.allowed(client, r) for r in (get("a:1"), get("b:1"), get("c:1"), put("a:1", "v"))])
        self.assertFalse(self.allowed(client, {"op": "range", "key": "a:1", "endKey": "c:1"}))

    def test_counted(self):
        _, daemon = self.scene(access={"nobody": {"user": 1}})
        client = self.client(daemon)
        for _ in range(3):
            self.assertFalse(self.allowed(client, get("k")))
        self.assertEqual((3, 3), (daemon.stats()["requests_forbidden"], daemon.stats()["requests_refused"]))


class SeveralUsers(AccessCase):
    RULES = {
        "ann": {"user": ANN, "read": "ann:* shared:*", "write": "ann:*"},
        "bob": {"user": f"{BOB} {EVE}", "read": "bob:*", "write": "bob:* drop:*"},
        "staff": {"group": f"{STAFF} 39999", "read": "staff:*", "write": "shared:*"},
    }

    def setUp(self):
        need_root()
        self.service, self.daemon = self.scene(access=self.RULES)

    def rights(self, *who):
        """What this user may do, of all that the rules mention."""
        client = self.client(self.daemon, who=who)
        keys = ("ann:1", "bob:1", "drop:1", "shared:1", "staff:1", "x")
        return ({k.split(":")[0] for k in keys if self.allowed(client, get(k))},
                {k.split(":")[0] for k in keys if self.allowed(client, put(k, "v"))})

    def test_each_has_its_own(self):
        self.assertEqual(({"ann", "shared"}, {"ann"}), self.rights(ANN))
        self.assertEqual(({"bob"}, {"bob", "drop"}), self.rights(BOB))
        self.assertEqual(({"bob"}, {"bob", "drop"}), self.rights(EVE))
        self.assertEqual((set(), set()), self.rights(20009))
        self.assertEqual((set(), set()), self.rights(0, 0), "root is a user like others")

    def test_groups_of_all_kinds_count(self):
        self.assertEqual(({"staff"}, {"shared"}), self.rights(20009, STAFF))
        self.assertEqual(({"staff"}, {"shared"}), self.rights(20009, GUESTS, [STAFF]))
        self.assertEqual(({"staff"}, {"shared"}), self.rights(20009, GUESTS, [*range(31000, 31030), STAFF, 65000]))
        self.assertEqual(({"staff", "ann", "shared"}, {"ann", "shared"}), self.rights(ANN, ANN, [GUESTS, STAFF]))
        self.assertEqual((set(), set()), self.rights(20009, GUESTS, [30000, 30003]))
        self.assertEqual((set(), set()), self.rights(STAFF, GUESTS), "a group is no user")

    def test_as_many_groups_as_there_can_be(self):
        need_root(range(100000, 165536))
        self.assertEqual((set(), set()), self.rights(20009, GUESTS, range(100000, 165536)))
        self.assertEqual(({"staff"}, {"shared"}), self.rights(20009, GUESTS, [*range(100000, 165535), STAFF]))
        self.assertEqual(({"ann", "shared"}, {"ann"}), self.rights(ANN))

    def test_who_connected_counts_and_not_who_writes(self):
        client = self.client(self.daemon, who=(ANN,))
        with acting_as(BOB):
            self.assertTrue(self.allowed(client, get("ann:1")))
            self.assertFalse(self.allowed(client, get("bob:1")))

    def test_real_processes_of_other_users(self):
        if not shutil.which("setpriv"):
            self.skipTest("there is no setpriv")
        program = ("import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(sys.argv[2].encode());"
                   "s.shutdown(socket.SHUT_WR); f = s.makefile(); sys.stdout.write(f.read())")
        lines = "".join(json.dumps(get(key)) + "\n" for key in ("ann:1", "bob:1", "staff:1"))
        for options, codes in (([f"--reuid={ANN}", f"--regid={ANN}", "--clear-groups"], [200, 403, 403]),
                               ([f"--reuid={BOB}", f"--regid={BOB}", f"--groups={GUESTS},{STAFF}"], [403, 200, 200]),
                               ([f"--reuid={EVE}", f"--regid={STAFF}", "--clear-groups"], [403, 200, 200]),
                               (["--reuid=20009", "--regid=20009", "--clear-groups"], [403, 403, 403])):
            run = subprocess.run(["setpriv", *options, sys.executable, "-c", program, self.daemon.socket, lines], capture_output=True,
                                 text=True, check=True, timeout=60)
            self.assertEqual(codes, [json.loads(line)["code"] for line in run.stdout.splitlines()], options)

    def test_notifications_reach_those_who_may_read_them(self):
        ann, bob, staff = (self.client(self.daemon, who=who) for who in ((ANN,), (BOB,), (EVE, STAFF)))
        ann.subscribe(patterns=["ann:*", "shared:*"])
        bob.subscribe(pattern="bob:*")
        staff.subscribe(patterns=["staff:*", "bob:*"])
        for key in ("ann:1", "bob:1", "shared:1", "staff:1"):
            self.service.publish(key, key)
        self.service.all_told()
        self.assertEqual({("ann:1", "ann:1"), ("shared:1", "shared:1")}, {ann.change(), ann.change()})
        self.assertEqual(("bob:1", "bob:1"), bob.change())
        self.assertEqual({("bob:1", "bob:1"), ("staff:1", "staff:1")}, {staff.change(), staff.change()})
        for client in (ann, bob, staff):
            client.barrier()

    def test_refusals_are_logged_with_who_and_what(self):
        client = self.client(self.daemon, who=(ANN,))
        self.assertFalse(self.allowed(client, put('bob:"\x1b[2J\n\u00e9', "the value stays out")))
        line = self.daemon.process.wait_output(rb"notice: client (\d+) \(pid (\d+), uid (\d+)\): forbidden: (.*)\n")
        self.assertEqual((os.getpid(), ANN), (int(line[2]), int(line[3])))
        self.assertEqual(rb'set: no access rule lets this client write "bob:\"\u001b[2J\n\xc3\xa9"', line[4])
        self.assertNotIn(b"the value stays out", self.daemon.log())


READER = {"me": ME | {"read": "app:* news", "write": "app:*"}}
NOBODY = {"nobody": {"user": 1}}


class Reload(AccessCase):
    """Other rules: they hold for those who are connected as well."""

    def begin(self, access=None, **options):
        self.service, self.daemon = self.scene(access=READER if access is None else access, mode="0666", **options)
        self.c = self.client(self.daemon)

    def assert_unsubscribed(self, line, **topic):
        self.assertEqual({"type": "unsubscribed", "reason": "forbidden"} | topic, {n: v for n, v in line.items() if n != "timestamp"})
        self.assertIsInstance(line["timestamp"], int)

    def test_rights_come_and_go(self):
        self.begin()
        self.assertEqual((True, True, False), tuple(self.allowed(self.c, r) for r in (get("app:1"), put("app:1", "v"), get("x"))))
        self.assertTrue(self.daemon.reload(access={"me": ME | {"read": "x"}}))
        self.assertEqual((False, False, True), tuple(self.allowed(self.c, r) for r in (get("app:1"), put("app:1", "v"), get("x"))))
        self.assertTrue(self.daemon.reload(access={}))
        self.assertEqual((True, True, True), tuple(self.allowed(self.c, r) for r in (get("app:1"), put("app:1", "v"), get("x"))))
        self.assertTrue(self.daemon.reload(access=NOBODY))
        self.assertFalse(self.allowed(self.c, get("x")))
        self.assertTrue(self.daemon.reload(access=READER))
        self.assertTrue(self.allowed(self.c, get("app:1")))

    def test_rules_that_vanish_are_told_of(self):
        self.begin()
        self.daemon.reload(access={})
        self.daemon.process.wait_output(rb"warning: there are no access rules any more: every user who may open the socket may do everything")

    def test_what_was_meant_as_a_comment_allows_nothing(self):
        self.begin()
        self.assertFalse(self.daemon.reload(access={"me": ME | {"read": "app:* # not *"}}))
        self.daemon.process.wait_output(rb"\[access me\] read: '#' by itself: a comment behind a value begins with ;")
        self.assertFalse(self.allowed(self.c, get("x")))

    def test_what_has_changed_is_told_in_the_log(self):
        self.begin()
        self.daemon.reload(access=READER | NOBODY)
        self.daemon.process.wait_output(rb"new settings are in force: \[access \.\.\.\]\n")
        self.daemon.reload()
        self.daemon.process.wait_output(rb"no setting has changed\n")
        self.assertTrue(self.allowed(self.c, get("app:1")))

    def test_wrong_rules_change_nothing(self):
        self.begin()
        self.assertFalse(self.daemon.reload(access={"me": {"user": "nobody-has-this-name", "read": "*"}}))
        self.assertTrue(self.allowed(self.c, get("app:1")))
        self.assertFalse(self.allowed(self.c, get("x")))

    def test_groups_of_those_who_are_connected_are_still_known(self):
        need_root()
        self.begin()
        member, other = self.client(self.daemon, who=(ANN, ANN, [GUESTS, STAFF])), self.client(self.daemon, who=(BOB, STAFF))
        self.assertFalse(self.allowed(member, get("app:1")))
        self.daemon.reload(access={"staff": {"group": STAFF, "read": "app:*"}, "bob": {"user": BOB, "read": "bob"}})
        self.assertEqual((True, False), tuple(self.allowed(member, get(key)) for key in ("app:1", "bob")))
        self.assertEqual((True, True), tuple(self.allowed(other, get(key)) for key in ("app:1", "bob")))
        self.assertFalse(self.allowed(self.c, get("app:1")))

    def test_subscriptions_end_with_a_word(self):
        self.begin()
        self.c.subscribe(keys=["app:1", "news"], patterns=["app:*", "app:\u00e9*"])
        self.daemon.reload(access={"me": ME | {"read": "news app:1"}})
        self.assertEqual({"app:*", "app:\u00e9*"}, {self.c.answer()["pattern"] for _ in range(2)})
        for key in ("app:1", "app:2", "news"):
            self.service.publish(key, "v")
        self.service.all_told()
        self.assertEqual([("app:1", "v"), ("news", "v")], [self.c.change(), self.c.change()])
        self.c.barrier()
        self.daemon.reload(access=NOBODY)
        for line in (self.c.answer(), self.c.answer()):
            self.assert_unsubscribed(line, key=line["key"])
        self.service.publish("news", "w")
        self.service.all_told()
        self.c.barrier()
        self.assertEqual(0, self.daemon.status()["subscriptions"]["total"])
        self.assertEqual(4, self.daemon.stats()["subscriptions_forbidden"])
        for name in ("app:*", r"app:\xc3\xa9*", "app:1", "news"):
            self.assertRegex(self.daemon.log().decode(), rf'\(pid {os.getpid()}, uid {os.geteuid()}\): forbidden: a subscription ends: '
                             rf'no access rule lets this client read "{re.escape(name)}" any more\n')
        self.daemon.reload(access=READER)
        self.service.publish("news", "x")
        self.service.all_told()
        self.c.barrier()
        self.c.subscribe(key="news")
        self.service.publish("news", "y")
        self.assertEqual(("news", "y"), self.c.change())

    def test_others_keep_their_subscriptions(self):
        need_root()
        self.begin(access=READER | {"ann": {"user": ANN, "read": "app:*"}})
        ann = self.client(self.daemon, who=(ANN,))
        ann.subscribe(pattern="app:*")
        self.c.subscribe(pattern="app:*")
        self.daemon.reload(access={"ann": {"user": ANN, "read": "app:*"}})
        self.assert_unsubscribed(self.c.answer(), pattern="app:*")
        self.service.publish("app:1", "v")
        self.assertEqual(("app:1", "v"), ann.change())
        self.c.barrier()

    def test_a_subscription_that_still_waits_is_refused(self):
        self.begin(service={"mint": lambda request: "never"})
        self.c.send({"op": "subscribe", "key": "app:1", "messageId": 1}, {"op": "subscribe", "keys": ["news", "app:2"], "messageId": 2},
                    {"op": "subscribe", "key": "news", "messageId": 3}, {"op": "subscribe", "pattern": "app:*"}, get("app:1"))
        self.service.wait_token_requests(1)
        self.service.mint = lambda request: "token"
        self.service.next_request()
        self.daemon.reload(access={"me": ME | {"read": "news"}})
        first, second, third = self.c.answers(3)
        self.assert_forbidden(first, message_id=1)
        self.assert_forbidden(second, message_id=2)
        self.assert_forbidden(third)
        self.assertEqual("app:1", self.c.answer()["key"])
        request = self.service.token_requests[0]
        self.service.token_requests[-1].connection.answer_token(request, "token")
        self.assertEqual({"code": 200, "messageId": 3}, self.c.answer())
        self.c.barrier()

    def test_what_was_sent_is_answered_and_what_waits_is_refused(self):
        self.begin(service={"answer": None}, max_in_flight=2)
        self.c.send(put("app:1", "sent", 1), get("app:2", 2), put("app:3", "waits", 3), get("app:4"), get("news", 5),
                    {"op": "range", "key": "app:", "endKey": "app:~", "messageId": 6}, get("news"), {"op": "ping"})
        sent = self.service.next_requests(2)
        self.c.barrier_by(self.daemon)
        self.daemon.reload(access={"me": ME | {"read": "news"}})
        third, fourth, sixth = self.c.answers(3)
        self.assert_forbidden(third, 'set: no access rule lets this client write "app:3"', message_id=3)
        self.assert_forbidden(fourth, 'get: no access rule lets this client read "app:4"')
        self.assert_forbidden(sixth, "range: ", message_id=6)
        for request in sent:
            request.reply(value=request.key)
        self.assertEqual({1, 2}, {a["messageId"] for a in self.c.answers(2)})
        for request in self.service.next_requests(2):
            self.assertEqual("news", request.key)
            request.reply(value="n")
        self.assertEqual([(200, 5), (200, None), (200, None)], [(a["code"], a.get("messageId")) for a in self.c.answers(3)])
        self.c.barrier()

    def test_what_was_sent_is_not_sent_again_if_it_is_forbidden_by_now(self):
        self.begin(service={"answer": None})
        self.c.send(put("app:1", "v", 1), get("app:2", 2), get("news", 3))
        write, read, news = self.service.next_requests(3)
        self.daemon.reload(access={"me": ME | {"read": "news"}})
        write.reply(code=429, error="slow down")
        self.assert_forbidden(self.c.answer(), 'set: no access rule lets this client write "app:1"', message_id=1)
        read.connection.reset()
        self.assert_error(self.c.answer(), 504, "outcome_unknown", "unknown", 2)
        again = self.service.next_request()
        self.assertEqual("news", again.key)
        again.reply(value="n")
        self.assertEqual(3, self.c.answer()["messageId"])
        self.c.barrier()

    def test_new_rules_hold_before_what_other_new_settings_let_through(self):
        self.begin(service={"answer": None}, max_in_flight=1)
        self.c.send(get("news", 1), put("app:1", "v", 2))
        first = self.service.next_request()
        self.c.barrier_by(self.daemon)
        self.daemon.reload(access={"me": ME | {"read": "news"}}, max_in_flight=8)
        self.assert_forbidden(self.c.answer(), message_id=2)
        first.reply(value="n")
        self.assertEqual(1, self.c.answer()["messageId"])
        self.c.barrier()

    def test_a_slow_client_is_told_nothing_of_what_it_may_not_read_any_more(self):
        self.begin(output_soft="4K", output_hard="64M")
        slow = self.client(self.daemon)
        slow.subscribe(patterns=["app:*", "news"])
        value = "x" * 2000
        for n in range(400):
            self.service.publish(f"app:{n}", value)
        self.service.publish("news", "old")
        self.service.all_told()
        eventually(lambda: self.daemon.stats()["upstream_notifications"] >= 401, "all changes")
        self.daemon.reload(access={"me": ME | {"read": "news"}})
        self.service.publish("news", "new")
        self.service.all_told()
        lines = []
        slow.send({"op": "ping", "messageId": "end"})
        while not any(line.get("type") == "unsubscribed" for line in lines) or not any(line.get("value") == "new" for line in lines):
            lines.append(slow.answer())
        told = [line["key"] for line in lines if line.get("type") == "notification"]
        ended = [n for n, line in enumerate(lines) if line.get("type") == "unsubscribed"]
        self.assertEqual(1, len(ended))
        self.assertLess(len(told), 400)
        self.assertNotIn("app:", "".join(line.get("key", "") for line in lines[ended[0]:]))


class Log(AccessCase):
    def refusals(self, daemon):
        return re.findall(rb"notice: client (\d+) \(pid \d+, uid \d+\): forbidden: ", daemon.log())

    def test_one_client_cannot_flood_it_nor_hide_the_others(self):
        _, daemon = self.scene(access={"nobody": {"user": 1}})
        flood, other = self.client(daemon), self.client(daemon)
        for _ in range(20):
            flood.send(*[get("k")] * 50)
            flood.answers(50)
        self.assertFalse(self.allowed(other, get("of the other")))
        daemon.process.wait_output(rb'forbidden: get: no access rule lets this client read "of the other"')
        logged = self.refusals(daemon)
        # Five at once, and one more in ten seconds, however long this machine takes for all that.
        self.assertLess(len(logged), 50)
        daemon.process.wait_output(rb"access rules: 9\d\d more refusals than are logged")

    def test_many_clients_cannot_either(self):
        _, daemon = self.scene(access={"nobody": {"user": 1}}, level="notice")
        for _ in range(400):
            with daemon.client() as client:
                client.send(*[get("k")] * 2)
                client.answers(2)
        self.assertEqual(800, daemon.stats()["requests_forbidden"])
        self.assertLess(len(self.refusals(daemon)), 400)


class WithTheSandbox(AccessCase):
    """Nothing leaks past a service that really stores and tells."""

    def test_two_users_of_one_connection(self):
        need_root()
        sandbox = self.enterContext(Sandbox())
        rules = {"ann": {"user": ANN, "read": "ann:*", "write": "ann:*"},
                 "bob": {"user": BOB, "read": "bob:* ann:public:*", "write": "bob:*"}}
        daemon = self.enterContext(Daemon(sandbox, access=rules))
        ann, bob = self.client(daemon, who=(ANN,)), self.client(daemon, who=(BOB,))
        bob.subscribe(patterns=["ann:public:*", "bob:*"], timeoutMs=30000)
        for key in ("ann:secret", "ann:public:1"):
            self.assertEqual(200, ann.ask(put(key, "v"))["code"])
        self.assertEqual(("ann:public:1", "v"), bob.change())
        self.assertEqual(200, bob.ask(get("ann:public:1"))["code"])
        self.assert_forbidden(bob.ask(get("ann:secret")))
        self.assert_forbidden(bob.ask(put("ann:public:1", "w")))
        answer = bob.ask({"op": "range", "key": "ann:public:", "endKey": "ann:public:~"})
        self.assertEqual([{"key": "ann:public:1", "value": "v"}], answer["records"])
        self.assert_forbidden(bob.ask({"op": "range", "key": "ann:public:", "endKey": "ann:secret"}))
        bob.barrier()


class Nobody(Case):
    """The numbers by which the kernel shows those whom it can't name (65534) are anybody's, so nothing is granted to them."""

    def ids(self):
        return [int(open(f"/proc/sys/kernel/overflow{kind}", encoding="ascii").read()) for kind in ("uid", "gid")]

    def codes(self, daemon, who):
        with daemon.client(who=who) as client:
            return [client.ask(get(key))["code"] for key in ("u", "g", "o")]

    def test_no_rule_matches_them(self):
        need_root()
        uid, gid = self.ids()
        rules = {"user": {"user": uid, "read": "u", "token": "any"}, "group": {"group": gid, "read": "g"}, "other": {"group": 30001, "read": "o"}}
        with FakeService() as service, Daemon(service, access=rules) as daemon:
            self.assertEqual([403, 403, 403], self.codes(daemon, (uid, gid, [])))
            self.assertEqual([403, 403, 403], self.codes(daemon, (20001, gid, [])))
            self.assertEqual([403, 403, 200], self.codes(daemon, (20001, 20001, [gid, 30001])))
            self.assertEqual([403, 403, 200], self.codes(daemon, (uid, 30001, [gid])))
            with daemon.client(who=(uid, gid, [])) as client:
                self.assert_error(client.ask({"op": "token"}), 403, "forbidden", "no")
                self.assertEqual(200, client.ask({"op": "ping"})["code"])
                # The same once the rules are judged again.
                self.assertTrue(daemon.reload(max_line="32K"))
                self.assertEqual(403, client.ask(get("u"))["code"])

    def test_a_rule_that_names_them_is_warned_of(self):
        uid, gid = self.ids()
        rules = {"web": {"user": f"0 {uid}", "read": "u"}, "all": {"group": gid, "write": "g"}}
        said = (rb"hpkvd\.conf:\d+: \[access web\] user: '%d' matches nobody: the kernel shows every user that has no number in its user "
                rb"namespace as %d\n(?:.*\n)*?.*hpkvd\.conf:\d+: \[access all\] group: '%d' matches nobody" % (uid, uid, gid))
        with FakeService() as service, Daemon(service, access=rules) as daemon:
            daemon.process.wait_output(said)
            self.assertTrue(daemon.reload(max_line="32K"))
            self.assertEqual(2, len(re.findall(said, daemon.log())))
            test = subprocess.run([HPKVD, "-t", "-c", daemon.folder + "/hpkvd.conf"], capture_output=True, check=True)
            self.assertRegex(test.stderr, said)
            self.assertIn(b": ok", test.stdout)
            self.assertTrue(daemon.reload(access={"web": {"user": 0, "read": "u"}}))
            self.assertEqual(2, len(re.findall(said, daemon.log())))

    def test_in_a_user_namespace(self):
        """There every other user is one of them, as which nobody was."""
        need_root()

        class Namespaced(Daemon):
            def _with_etc(self, argv):
                return ["unshare", "-U", "--map-root-user", *argv]

        if subprocess.run(["unshare", "-U", "--map-root-user", "true"], stderr=subprocess.DEVNULL, check=False).returncode:
            self.skipTest("this machine gives no user namespaces")
        uid, gid = self.ids()
        rules = {"nobody": {"user": uid, "read": "*"}, "nogroup": {"group": gid, "read": "*"}, "root": {"user": 0, "read": "r"}}
        with FakeService() as service, Namespaced(service, access=rules) as daemon:
            os.chmod(daemon.socket, 0o666)
            for who in ((20001, 20001, []), (20002, 20001, [30001])):
                with daemon.client(who=who) as client:
                    self.assertEqual(403, client.ask(get("k"))["code"])
            with daemon.client() as client:
                self.assertEqual([200, 403], [client.ask(get(key))["code"] for key in ("r", "k")])


if __name__ == "__main__":
    unittest.main()
