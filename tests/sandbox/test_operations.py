"""The six operations over WebSocket: answers, errors, and content that is preserved to the byte."""

import json
import unittest

from sandbox import DELETE, GET, INCREMENT, PATCH, RANGE, SET, sandbox_case


class Operations(sandbox_case()):
    def setUp(self):
        self.hpkv = self.ws()

    def test_get_what_was_set(self):
        answer = self.hpkv.ask(op=SET, key="a", value="1", messageId=7)
        self.assertEqual((200, True, 7), (answer["code"], answer["success"], answer["messageId"]))
        self.assertIn("message", answer)
        answer = self.hpkv.ask(op=GET, key="a", messageId=8)
        self.assertEqual({"code": 200, "key": "a", "value": "1", "messageId": 8}, answer)

    def test_set_replaces(self):
        self.hpkv.ask(op=SET, key="twice", value="a long first value")
        self.hpkv.ask(op=SET, key="twice", value="2")
        self.assertEqual("2", self.hpkv.ask(op=GET, key="twice")["value"])

    def test_delete(self):
        self.hpkv.ask(op=SET, key="gone", value="x")
        self.assertEqual(200, self.hpkv.ask(op=DELETE, key="gone")["code"])
        for op in GET, DELETE:
            answer = self.hpkv.ask(op=op, key="gone", messageId=9)
            self.assertEqual({"code": 404, "error": "Record not found", "messageId": 9}, answer)

    def test_an_answer_without_a_messageId_has_none(self):
        self.assertNotIn("messageId", self.hpkv.ask(op=GET, key="none"))

    def test_a_messageId_comes_back_as_it_was_written(self):
        for written in "0", "-1", "9007199254740993", "1e3", '"text\\u0041"':
            self.hpkv.send_text(f'{{"op":1,"key":"none","messageId":{written}}}')
            self.assertIn(f'"messageId":{written}}}', self.hpkv.text())

    def test_content_is_true_to_the_byte(self):
        for text in "\0", "a\0b", "\x1f\x7f", 'q"q\\', "ä€😀", "\ud800", "x\udfffy", "\udc00\ud800", "12345678901234567890":
            with self.subTest(text=ascii(text)):
                key = "t" + text
                self.assertEqual(200, self.hpkv.ask(op=SET, key=key, value=text)["code"])
                answer = self.hpkv.ask(op=GET, key=key)
                self.assertEqual((key, text), (answer["key"], answer["value"]))

    def test_keys_that_differ_behind_a_nul_are_different(self):
        self.hpkv.ask(op=SET, key="n\0a", value="1")
        self.hpkv.ask(op=SET, key="n\0b", value="2")
        self.assertEqual("1", self.hpkv.ask(op=GET, key="n\0a")["value"])
        self.assertEqual(404, self.hpkv.ask(op=GET, key="n")["code"])

    def test_a_value_that_is_no_string_is_stored_as_its_text(self):
        for written in "12", "1.50", "true", '{"a": [1]}', "123456789012345678901234567890":
            self.hpkv.send_text(f'{{"op":2,"key":"v","value":{written}}}')
            self.assertEqual(200, self.hpkv.next()["code"])
            self.assertEqual(written, self.hpkv.ask(op=GET, key="v")["value"])

    def test_limits_of_keys_and_values(self):
        for key, value, code in [
            ("k" * 512, "v" * 3072, 200),
            ("ä" * 256, "ä" * 1536, 200),
            ("k" * 513, "v", 400),
            ("ä" * 257, "v", 400),
            ("k", "v" * 3073, 400),
            ("", "v", 400),
            ("k", "", 400),
        ]:
            answer = self.hpkv.ask(op=SET, key=key, value=value, messageId=3)
            self.assertEqual((code, 3), (answer["code"], answer["messageId"]), (len(key), len(value)))
            self.assertEqual(code != 200, "error" in answer)

    def test_malformed_requests(self):
        for text in [
            "", "null", "[]", "7", '"op"', "{", '{"op":1}', '{"key":"a"}', '{"op":1,"key":7}', '{"op":1,"key":null}',
            '{"op":0,"key":"a"}', '{"op":7,"key":"a"}', '{"op":"get","key":"a"}', '{"op":1.5,"key":"a"}',
            '{"op":2,"key":"a"}', '{"op":2,"key":"a","value":null}', '{"op":5,"key":"a"}', '{"op":5,"key":"a","endKey":1}',
            '{"op":5,"key":"a","endKey":"b","limit":0}', '{"op":5,"key":"a","endKey":"b","limit":"9"}',
            '{"op":5,"key":"a","endKey":"b","limit":1.5}', '{"op":6,"key":"a"}', '{"op":6,"key":"a","value":"x"}',
            "{'op':1}", '{"op":1,"key":"a"} x', '{"op":1,"key":"a",}', '\ufeff{"op":1,"key":"a"}',
            "[" * 5000, '{"op":1,"key":"a\\ud8"}',
        ]:
            with self.subTest(text=text[:60]):
                self.hpkv.send_text(text)
                answer = self.hpkv.next()
                self.assertEqual(400, answer["code"])
                self.assertTrue(answer["error"])

    def test_the_answer_to_a_wrong_request_names_it(self):
        self.hpkv.send_text('{"op":1,"key":7,"messageId":41}')
        self.assertEqual(41, self.hpkv.next()["messageId"])


class Patch(sandbox_case()):
    def setUp(self):
        self.hpkv = self.ws()

    def patched(self, old, patch):
        if old is not None:
            self.assertEqual(200, self.hpkv.ask(op=SET, key="p", value=old)["code"])
        answer = self.hpkv.ask(op=PATCH, key="p", value=patch, messageId=1)
        self.assertEqual((200, True, 1), (answer.get("code"), answer.get("success"), answer.get("messageId")), answer)
        value = self.hpkv.ask(op=GET, key="p")["value"]
        self.hpkv.ask(op=DELETE, key="p")
        return value

    def test_objects_are_merged(self):
        for old, patch, merged in [
            ('{"a":1}', '{"b":2}', '{"a":1,"b":2}'),
            ('{"a":1,"b":2}', '{"a":{"x":1}}', '{"a":{"x":1},"b":2}'),
            ('{"a":{"x":1,"y":[1,2]}}', '{"a":{"y":[3],"z":{"w":null,"v":1}}}', '{"a":{"x":1,"y":[3],"z":{"v":1}}}'),
            ('{"a":1,"b":2}', '{"a":null,"c":null}', '{"b":2}'),
            ("{}", "{}", "{}"),
            ('{"a":1}', "{}", '{"a":1}'),
            ('{"a":"x"}', '{"a":{"b":null}}', '{"a":{}}'),
            ('{"a":1,"a":2}', '{"b":1,"b":3}', '{"a":2,"b":3}'),
            ('{"\\u0061":1}', '{"a":2}', '{"\\u0061":2}'),
        ]:
            with self.subTest(old=old, patch=patch):
                self.assertEqual(merged, self.patched(old, patch))

    def test_what_a_patch_does_not_touch_keeps_its_bytes(self):
        old = '{"big":12345678901234567890.10,"nul":"\\u0000","esc":"\\/\\u00e4"}'
        self.assertEqual(old[:-1] + ',"b":1e2}', self.patched(old, '{"b":1e2}'))

    def test_anything_else_is_appended(self):
        for old, patch in [("abc", "def"), ('{"a":1}', "x"), ("x", '{"a":1}'), ("[1]", "[2]"), ("1", "2"), ('{"a":1', '{"b":2}')]:
            with self.subTest(old=old, patch=patch):
                self.assertEqual(old + patch, self.patched(old, patch))

    def test_a_missing_record_is_made(self):
        self.assertEqual("fresh", self.patched(None, "fresh"))

    def test_a_result_that_is_too_long_changes_nothing(self):
        self.hpkv.ask(op=SET, key="long", value="x" * 3000)
        self.assertEqual(400, self.hpkv.ask(op=PATCH, key="long", value="y" * 73)["code"])
        self.assertEqual("x" * 3000, self.hpkv.ask(op=GET, key="long")["value"])

    def test_deep_nesting(self):
        def deep(name, depth):
            return f'{{"{name}":' * depth + "1" + "}" * depth

        self.assertEqual(deep("a", 500), self.patched(deep("a", 500), deep("a", 500)))
        both = deep("a", 250)[:-1] + "," + deep("b", 250)[1:]
        self.assertEqual(both, self.patched(deep("a", 250), deep("b", 250)))


class Range(sandbox_case()):
    def setUp(self):
        self.hpkv = self.ws()

    def fill(self, keys):
        for key in keys:
            self.hpkv.send(op=SET, key=key, value="v " + key)
        for _ in keys:
            self.assertEqual(200, self.hpkv.next()["code"])

    def keys(self, first, last, **members):
        answer = self.hpkv.ask(op=RANGE, key=first, endKey=last, **members)
        self.assertEqual(200, answer["code"], answer)
        self.assertEqual(len(answer["records"]), answer["count"])
        for record in answer["records"]:
            self.assertEqual("v " + record["key"], record["value"])
        return [record["key"] for record in answer["records"]], answer["truncated"]

    def test_byte_order_and_both_ends(self):
        keys = ["o:", "o:\0", "o:\x01", "o:A", "o:Z", "o:a", "o:a\0", "o:aa", "o:é", "o:￿", "o:😀"]
        self.fill(keys[::-1])
        self.assertEqual(sorted(keys, key=str.encode), keys)
        self.assertEqual((keys, False), self.keys("o:", "o:😀"))
        self.assertEqual((keys[3:8], False), self.keys("o:A", "o:aa"))
        self.assertEqual(([], False), self.keys("o:b", "o:c"))
        self.assertEqual(([], False), self.keys("o:z", "o:a"))
        self.assertEqual((["o:a"], False), self.keys("o:a", "o:a"))

    def test_limit(self):
        keys = [f"l:{i:04}" for i in range(1005)]
        self.fill(keys)
        self.assertEqual((keys[:100], True), self.keys("l:", "l:~"))
        self.assertEqual((keys[:3], True), self.keys("l:", "l:~", limit=3))
        self.assertEqual((keys[:1000], True), self.keys("l:", "l:~", limit=1000))
        self.assertEqual((keys[:1000], True), self.keys("l:", "l:~", limit=5000))
        self.assertEqual((keys[:10], False), self.keys("l:", "l:0009", limit=10))
        self.assertEqual((keys[:10], True), self.keys("l:", "l:0010", limit=10))

    def test_several_megabytes_come_whole(self):
        value = "\x01" * 3072  # six bytes each in JSON
        for i in range(1000):
            self.hpkv.send(op=SET, key=f"m:{i:03}", value=value)
        for i in range(1000):
            self.assertEqual(200, self.hpkv.next()["code"])
        answer = self.hpkv.ask(op=RANGE, key="m:", endKey="m:~", limit=1000, messageId=5)
        self.assertEqual((1000, 5), (answer["count"], answer["messageId"]))
        self.assertTrue(all(record["value"] == value for record in answer["records"]))

    def test_a_hundred_thousand_records(self):
        keys = [f"h:{i * 7919 % 100003:06}" for i in range(100000)]
        for start in range(0, len(keys), 500):
            self.hpkv.send_raw(b"".join(self.frame(key) for key in keys[start:start + 500]))
            for _ in range(500):
                self.assertEqual(200, self.hpkv.next()["code"])
        answer = self.hpkv.ask(op=RANGE, key="h:", endKey="h:~", limit=1000)
        self.assertEqual(sorted(keys)[:1000], [record["key"] for record in answer["records"]])

    def frame(self, key):
        return self.hpkv.frame(json.dumps({"op": SET, "key": key, "value": "x"}))


class Increment(sandbox_case()):
    def setUp(self):
        self.hpkv = self.ws()

    def test_counting(self):
        for by, result in [(5, 5), (-7, -2), (0, -2), (2.5, 0.5), (0.1, 0.6)]:
            answer = self.hpkv.ask(op=INCREMENT, key="n", value=by, messageId=1)
            self.assertEqual((200, True, result), (answer["code"], answer["success"], answer["newValue"]))
        self.assertEqual("0.6", self.hpkv.ask(op=GET, key="n")["value"])

    def test_whole_numbers_beyond_those_of_a_double_are_exact(self):
        self.hpkv.ask(op=SET, key="big", value="9007199254740993")
        self.assertEqual(9007199254740994, self.hpkv.ask(op=INCREMENT, key="big", value=1)["newValue"])

    def test_overflow_of_64_bits_is_a_double(self):
        self.hpkv.ask(op=SET, key="o", value="9223372036854775807")
        self.assertEqual(9.223372036854776e18, self.hpkv.ask(op=INCREMENT, key="o", value=1)["newValue"])
        self.hpkv.ask(op=SET, key="o", value="1e308")
        self.assertEqual(200, self.hpkv.ask(op=INCREMENT, key="o", value=1)["code"])
        self.hpkv.send_text('{"op":6,"key":"o","value":1.7e308}')
        self.assertEqual(400, self.hpkv.next()["code"])

    def test_what_is_no_number_stays_as_it_is(self):
        for value in "x", "1x", " 1", "0x10", "nan", "inf", "1\0", "1" * 100, "+1", "{}", "-":
            with self.subTest(value=value):
                self.hpkv.ask(op=SET, key="t", value=value)
                self.assertEqual(400, self.hpkv.ask(op=INCREMENT, key="t", value=1)["code"])
                self.assertEqual(value, self.hpkv.ask(op=GET, key="t")["value"])


if __name__ == "__main__":
    unittest.main()
