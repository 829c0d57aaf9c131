"""Each operation as the service gets it, each answer as the client gets it, and what is refused before it is sent."""

import re

from harness import WITHHELD, Case, exact, get, put, scene

# op, number, the members that a client gives, and the members that the service gets beside op and messageId
REMOTE = [
    ("get", 1, {"key": "k"}, {"key": "k"}),
    ("set", 2, {"key": "k", "value": "v"}, {"key": "k", "value": "v"}),
    ("patch", 3, {"key": "k", "value": {"a": 1}}, {"key": "k", "value": '{"a":1}'}),
    ("delete", 4, {"key": "k"}, {"key": "k"}),
    ("range", 5, {"key": "a", "endKey": "b"}, {"key": "a", "endKey": "b"}),
    ("range", 5, {"key": "a", "endKey": "b", "limit": 7}, {"key": "a", "endKey": "b", "limit": 7}),
    ("increment", 6, {"key": "k", "value": -3}, {"key": "k", "value": -3}),
    ("increment", 6, {"key": "k"}, {"key": "k", "value": 1}),
]


class Operations(Case):
    @scene()
    def test_by_name_and_by_number(self, service, daemon, client):
        for name, number, given, sent in REMOTE:
            for op in (name, number):
                with self.subTest(name, op=op, given=given):
                    client.send({"op": op, "messageId": "m"} | given)
                    got = dict(service.next_request().obj)
                    self.assertIsInstance(got.pop("messageId"), int)
                    self.assertEqual({"op": number} | sent, got)
                    answer = client.answer()
                    self.assertEqual((200, "m"), (answer["code"], answer["messageId"]))

    @scene()
    def test_unknown_members_are_ignored_and_not_sent(self, service, daemon, client):
        client.send(get("k", value="x", endKey=5, extra={"op": "set"}, token=None, Key="K"))
        self.assertEqual({"op", "key", "messageId"}, set(service.next_request().obj))
        self.assertEqual("value of k", client.answer()["value"])

    @scene(service=WITHHELD)
    def test_the_answer_is_the_services_own_object(self, service, daemon, client):
        texts = ['{"code":200,"key":"k","value":"v","messageId":<id>}',
                 '{"code":404,"error":"Record not found","message":"x","messageId":<id>,"key":"k"}',
                 '{"code":400,"error":"Bad","messageId":<id>,"extra":[1.50,{"a":null}]}',
                 '{"code":500,"error":"\\u0000","messageId":<id>}', '{"code":403,"messageId":<id>}',
                 '{"messageId":<id>,"type":"other","code":409,"error":"Timestamp conflict"}',
                 '{"messageId":<id>,"code":200,"code2":1e5}']
        for text in texts:
            with self.subTest(text):
                client.send(get("k", "m"))
                service.next_request().reply_raw(text)
                self.assertEqual(exact(text.replace("<id>", '"m"')), exact(client.line()))

    @scene()
    def test_an_answer_without_an_id_has_none(self, service, daemon, client):
        for name, _, given, _ in REMOTE:
            self.assertNotIn("messageId", client.ask({"op": name} | given))
            self.assertNotIn("messageId", client.ask({"op": name, "messageId": None} | given))

    @scene()
    def test_ping_never_touches_the_network(self, service, daemon, client):
        service.connection()
        self.assertEqual({"code": 200, "message": "pong"}, client.ask({"op": "ping"}))
        self.assertEqual({"code": 200, "message": "pong", "messageId": 1}, client.ask({"op": "ping", "messageId": 1}))
        self.assertTrue(service.no_more_requests())

    @scene()
    def test_token_is_forbidden(self, service, daemon, client):
        for members in ({}, {"subscribeKeys": ["a"]}, {"subscribePatterns": ["a*"], "accessPattern": ".*"}):
            self.assert_error(client.ask({"op": "token", "messageId": 1} | members), 403, "forbidden", "no", 1)

    @scene()
    def test_answers_of_many_kinds_at_once(self, service, daemon, client):
        requests = [{"op": name, "messageId": i} | given for i, (name, _, given, _) in enumerate(REMOTE * 50)]
        client.send(*requests)
        self.assertEqual(list(range(len(requests))), sorted(a["messageId"] for a in client.answers(len(requests))))


class Ids(Case):
    """A messageId comes back as it was written."""

    GOOD = ['""', '"a"', '"1"', r'"\u0041"', r'"\ud800"', r'"\u0000"', r'"\"\\"', '"ä😀"', "0", "1", "-1", "1.50",
            "1e5", "-0.0E-7", "9007199254740993", "7" * 128, '"' + "x" * 126 + '"', '"' + "ä" * 63 + '"']

    @scene()
    def test_verbatim_from_the_service_and_from_the_daemon(self, service, daemon, client):
        for literal in self.GOOD:
            for op in ('"op":"get","key":"k"', '"op":"ping"', '"op":"status"', '"op":"nonsense"', '"op":"get"'):
                with self.subTest(literal, op=op):
                    client.send(f'{{"messageId": {literal} ,{op}}}')
                    self.assertRegex(client.line().decode(), r'"messageId": ?' + re.escape(literal) + "[,}]")

    @scene()
    def test_null_is_none(self, service, daemon, client):
        for op in ('"op":"get","key":"k"', '"op":"ping"', '"op":"nonsense"'):
            self.assertNotIn("messageId", client.ask(f'{{"messageId":null,{op}}}'))

    @scene()
    def test_what_can_be_none_is_refused(self, service, daemon, client):
        for literal in ("true", "false", "{}", "[]", '["a"]', '{"a":1}', "7" * 129, '"' + "x" * 127 + '"',
                        '"' + "ä" * 64 + '"'):
            for op in ('"op":"get","key":"k"', '"op":"ping"'):
                with self.subTest(literal, op=op):
                    answer = client.ask(f'{{"messageId":{literal},{op}}}')
                    self.assert_error(answer, 400, "bad_request", "no")
                    self.assertIn("messageId", answer["error"])
        self.assertTrue(service.no_more_requests())

    @scene(service=WITHHELD)
    def test_the_same_id_twice_at_once(self, service, daemon, client):
        """The client's business: each request still gets its answer."""
        client.send(get("a", 1), get("b", 1))
        for request in service.next_requests(2):
            request.reply(value=request.key)
        self.assertEqual(["a", "b"], sorted(a["value"] for a in client.answers(2)))

    @scene(service=WITHHELD)
    def test_the_service_gets_ids_of_the_daemons_own(self, service, daemon, client):
        """Two clients may use the same ones."""
        with daemon.client() as other:
            client.send(get("mine", 1))
            other.send(get("other", 1))
            requests = service.next_requests(2)
            self.assertEqual(2, len({r.id for r in requests}))
            for request in requests:
                self.assertLess(request.id, 1 << 53)
                request.reply(value=request.key)
            self.assertEqual(("mine", "other"), (client.answer()["value"], other.answer()["value"]))


class Refused(Case):
    """Never sent, and the error names the member."""

    BAD = [
        ("key", {"op": "get"}),
        ("key", get(None)),
        ("key", get(5)),
        ("key", {"op": "get", "key": ["k"]}),
        ("key", {"op": "set", "value": "v"}),
        ("value", {"op": "set", "key": "k"}),
        ("value", put("k", None)),
        ("value", {"op": "patch", "key": "k"}),
        ("value", {"op": "patch", "key": "k", "value": None}),
        ("key", {"op": "delete"}),
        ("key", {"op": "range", "endKey": "b"}),
        ("endKey", {"op": "range", "key": "a"}),
        ("endKey", {"op": "range", "key": "a", "endKey": 1}),
        ("limit", {"op": "range", "key": "a", "endKey": "b", "limit": "5"}),
        ("limit", {"op": "range", "key": "a", "endKey": "b", "limit": [5]}),
        ("value", {"op": "increment", "key": "k", "value": "1"}),
        ("value", {"op": "increment", "key": "k", "value": True}),
        ("key", {"op": "increment"}),
        ("timeoutMs", get("k", timeoutMs=0)),
        ("timeoutMs", get("k", timeoutMs=-1)),
        ("timeoutMs", get("k", timeoutMs=600001)),
        ("timeoutMs", get("k", timeoutMs=1.5)),
        ("timeoutMs", get("k", timeoutMs="100")),
        ("timeoutMs", {"op": "ping", "timeoutMs": {}}),
        ("op", {"key": "k"}),
        ("op", {"op": None, "key": "k"}),
        ("op", {"op": ["get"], "key": "k"}),
        ("op", {"op": True}),
    ]

    @scene()
    def test_wrong_members(self, service, daemon, client):
        for member, request in self.BAD:
            with self.subTest(member, request=request):
                answer = client.ask(request | {"messageId": "m"})
                self.assert_error(answer, 400, "bad_request", "no", "m")
                self.assertIn(member, answer["error"])
                self.assert_error(client.ask(request), 400, "bad_request", "no")
        self.assertTrue(service.no_more_requests())

    @scene()
    def test_unknown_operations(self, service, daemon, client):
        for op in ('"fly"', '"GET"', '"get "', '""', '"1"', r'"g\u0000et"', r'"\u001b[31m\n"', '"' + "x" * 5000 + '"',
                   "0", "7", "-1", "1.5", "1e9", "9" * 400):
            with self.subTest(op):
                answer = client.ask(f'{{"op":{op},"key":"k","messageId":1}}')
                self.assert_error(answer, 400, "unknown_op", "no", 1)
                self.assertLess(len(answer["error"]), 300)
        self.assertTrue(service.no_more_requests())

    @scene()
    def test_timeouts_that_are_right(self, service, daemon, client):
        for timeout in ("1000", "600000", "1e4", "5000.0"):
            self.assertEqual(200, client.ask(f'{{"op":"get","key":"k","timeoutMs":{timeout}}}')["code"])
        for timeout in ("1", "600000"):
            self.assertEqual(200, client.ask(f'{{"op":"ping","timeoutMs":{timeout}}}')["code"])

    @scene()
    def test_the_id_is_told_wherever_it_stands(self, service, daemon, client):
        for text in ('{"messageId":9,"op":"get"}', '{"op":"get","messageId":9}', '{"key":5,"op":"get","messageId":9}',
                     '{"op":"get","key":"k","key":"l","messageId":9}'):
            self.assert_error(client.ask(text), 400, "bad_request", "no", 9)

    @scene()
    def test_an_empty_key_is_the_services_to_judge(self, service, daemon, client):
        client.send(get(""))
        self.assertEqual("", service.next_request().key)
        self.assertEqual(200, client.answer()["code"])
