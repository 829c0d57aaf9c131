"""Keys and values pass byte for byte, in both directions: nothing is decoded and encoded again on the way."""

from harness import WITHHELD, Case, exact, get, scene

# JSON strings as they may be written, each with something that a careless decoder loses.
STRINGS = {
    "empty": '""',
    "plain": '"plain"',
    "nul_escaped": r'"a\u0000b"',
    "nul_only": r'"\u0000"',
    "lone_high_surrogate": r'"\ud800"',
    "lone_low_surrogate": r'"x\udfffy"',
    "surrogates_the_wrong_way_round": r'"\ude00\ud83d"',
    "surrogate_pair_escaped": r'"\ud83d\ude00"',
    "astral_raw": '"😀"',
    "escapes_all": r'"\"\\\/\b\f\n\r\t"',
    "needless_escapes": r'"\u0041\u0061\/"',
    "hex_in_both_cases": r'"\u00e4\u00E4"',
    "raw_two_and_three_bytes": '"ä€"',
    "composed_and_not": '"\u00e9e\u0301"',
    "line_separators_raw": '"\u2028\u2029\u0085"',
    "delete_and_bom_raw": '"\x7f\ufeff"',
    "last_code_point": '"\U0010ffff"',
    "noncharacter": '"\ufffe\uffff"',
    "looks_like_json": r'"{\"messageId\":1,\"op\":\"set\"}"',
    "html": '"<b>&amp;</b>"',
    "ends_in_backslash": r'"\\"',
    "many_backslashes": '"' + r"\\" * 1000 + '"',
    "long": '"' + "ä" * 20000 + '"',
}

# JSON values that are no strings, with white space between their tokens, and the text as which they must arrive.
OTHERS = {
    "true": ("true", "true"),
    "false": ("false", "false"),
    "zero": ("0", "0"),
    "minus_zero": ("-0", "-0"),
    "beyond_2_53": ("9007199254740993", "9007199254740993"),
    "a_trailing_zero": ("1.50", "1.50"),
    "an_exponent": ("1E+05", "1E+05"),
    "beyond_double": ("1e400", "1e400"),
    "digits": ("7" * 400, "7" * 400),
    "fraction_digits": ("0." + "3" * 400, "0." + "3" * 400),
    "empty_object": ("{ }", "{}"),
    "empty_array": ("[\t ]", "[]"),
    "spaced": ('{ "a" : [ 1.50 , null ] ,\t"b" : { } }', '{"a":[1.50,null],"b":{}}'),
    "space_in_strings_stays": ('{ "a b" : " c\\t d " }', '{"a b":" c\\t d "}'),
    "escapes_stay": (r'{"\u0041":"\ud800\"\\","x":"\\"} ', r'{"\u0041":"\ud800\"\\","x":"\\"}'),
    "quotes_after_backslashes": (r'[ "\\" , "\\\"  " , " " ]', r'["\\","\\\"  "," "]'),
    "order_and_doubles_stay": ('{"b":1,"a":2,"b":3}', '{"b":1,"a":2,"b":3}'),
    "deep": ("[ " * 500 + "] " * 500, "[" * 500 + "]" * 500),
    "raw_utf_8": ('["ä😀"]', '["ä😀"]'),
}


def literal_of(text, member):
    """What stands behind "member": in a JSON text of which only this is of interest: raw."""
    start = text.index(f'"{member}":') + len(member) + 3
    return text[start:]


class Up(Case):
    """From a client to the service."""

    @scene()
    def test_keys(self, service, daemon, client):
        for name, literal in STRINGS.items():
            with self.subTest(name):
                client.send(f'{{"op":"get","messageId":1,"key":{literal}}}')
                self.assertTrue(literal_of(service.next_request().text, "key").startswith(literal))
                client.line()

    @scene()
    def test_both_keys_of_a_range(self, service, daemon, client):
        for name, literal in STRINGS.items():
            with self.subTest(name):
                client.send(f'{{"op":"range","messageId":1,"endKey":{literal},"key":"a"}}')
                self.assertTrue(literal_of(service.next_request().text, "endKey").startswith(literal))
                client.line()

    @scene()
    def test_string_values(self, service, daemon, client):
        for op in ("set", "patch"):
            for name, literal in STRINGS.items():
                with self.subTest(name, op=op):
                    client.send(f'{{"op":"{op}","messageId":1,"key":"k","value":{literal}}}')
                    self.assertTrue(literal_of(service.next_request().text, "value").startswith(literal))
                    client.line()

    @scene()
    def test_other_values_go_as_their_own_text_without_the_space_between_tokens(self, service, daemon, client):
        for op in ("set", "patch"):
            for name, (value, text) in OTHERS.items():
                with self.subTest(name, op=op):
                    client.send(f'{{"op":"{op}","messageId":1,"key":"k","value": {value} }}')
                    self.assertEqual(text, service.next_request().obj["value"])
                    client.line()

    @scene()
    def test_numbers_of_increment_and_range_stay_as_written(self, service, daemon, client):
        for number in ("1", "-1", "1.50", "9007199254740993", "1e2", "-0", "4" * 400):
            with self.subTest(number):
                client.send(f'{{"op":"increment","messageId":1,"key":"k","value":{number}}}')
                self.assertIn(("value", ("number", number)), exact(service.next_request().text))
                client.send(f'{{"op":"range","messageId":1,"key":"k","endKey":"l","limit":{number}}}')
                self.assertIn(("limit", ("number", number)), exact(service.next_request().text))
                client.lines(2)

    @scene()
    def test_names_of_members_may_be_escaped(self, service, daemon, client):
        client.send(r'{"\u006fp":"s\u0065t","k\u0065y":"k","v\u0061lue":"v","messag\u0065Id":"i"}')
        self.assertEqual((2, "k", "v"), ((r := service.next_request()).op, r.key, r.obj["value"]))
        self.assertEqual("i", client.answer()["messageId"])


class Down(Case):
    """From the service to a client."""

    @scene(service=WITHHELD)
    def test_strings_in_answers(self, service, daemon, client):
        for with_id in (True, False):
            for name, literal in STRINGS.items():
                with self.subTest(name, with_id=with_id):
                    client.send(get("k") | ({"messageId": "m"} if with_id else {}))
                    service.next_request().reply_raw(f'{{"code":200,"messageId":<id>,"key":"k","value":{literal}}}')
                    mine = ',"messageId":"m"' if with_id else ""
                    self.assertEqual(f'{{"code":200{mine},"key":"k","value":{literal}}}', client.line().decode())

    @scene(service=WITHHELD)
    def test_any_other_values_in_answers(self, service, daemon, client):
        for name, (value, _) in OTHERS.items():
            with self.subTest(name):
                client.send(get("k", 5))
                service.next_request().reply_raw(f'{{"value": {value} , "code":200,"messageId":<id>}}')
                self.assertEqual(f'{{"value": {value} , "code":200,"messageId":5}}', client.line().decode())

    @scene(service=WITHHELD)
    def test_the_id_may_stand_anywhere(self, service, daemon, client):
        texts = [
            '{"messageId":<id>,"code":200,"v":1}',
            '{"code":200,"messageId":<id>,"v":1}',
            '{"code":200,"v":1,"messageId":<id>}',
            '{ "messageId" : <id> , "code" : 200, "v":1 }',
            '{ "code" : 200 , "messageId" : <id> , "v" : 1 }',
            '{"code":200,"v":1 , "messageId" : <id> } ',
            r'{"code":200,"m\u0065ssageId":<id>,"v":1}',
        ]
        for text in texts:
            with self.subTest(text):
                client.send(get("k"), get("k", "here"))
                for request in service.next_requests(2):
                    request.reply_raw(text)
                found = sorted(client.answers(2), key=len)
                self.assertEqual([{"code": 200, "v": 1}, {"code": 200, "v": 1, "messageId": "here"}], found)

    @scene(service=WITHHELD)
    def test_a_messageId_inside_of_values_is_left_alone(self, service, daemon, client):
        inner = '"records":[{"messageId":1,"key":"messageId"},{"messageId":<id>}],"o":{"messageId":<id>},' \
                '"value":"\\"messageId\\":<id>"'
        for with_id in (True, False):
            client.send({"op": "range", "key": "a", "endKey": "b"} | ({"messageId": "m"} if with_id else {}))
            request = service.next_request()
            request.reply_raw('{"code":200,' + inner + ',"messageId":<id>}')
            want = '{"code":200,' + inner.replace("<id>", str(request.id)) + (',"messageId":"m"}' if with_id else "}")
            self.assertEqual(exact(want), exact(client.line()))

    @scene(service=WITHHELD)
    def test_large_answers(self, service, daemon, client):
        for size in (125, 126, 65535, 65536, 1 << 20, 15 << 20):
            value = "x" * size
            client.send(get("k", size))
            service.next_request().reply(value=value)
            answer = client.answer()
            self.assertEqual(size, answer["messageId"])
            self.assertTrue(answer["value"] == value)
