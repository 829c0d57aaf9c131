"""Whatever a client sends: an error for each line, nothing to the service, and the connection goes on."""

import os
import random

from harness import Case, get, scene

# Lines that are no JSON objects by RFC 8259. Some come in bytes that are no text.
BAD_JSON = {
    "words": b"hello",
    "a_number": b"5",
    "a_string": b'"op"',
    "null": b"null",
    "true": b"true",
    "an_array": b'[{"op":"ping"}]',
    "two_objects": b'{"op":"ping"}{"op":"ping"}',
    "something_behind": b'{"op":"ping"} x',
    "a_comma_behind": b'{"op":"ping"},',
    "unfinished": b'{"op":"ping"',
    "unfinished_string": b'{"op":"ping',
    "only_a_brace": b"{",
    "only_a_closing_brace": b"}",
    "trailing_comma": b'{"op":"ping",}',
    "leading_comma": b'{,"op":"ping"}',
    "no_colon": b'{"op" "ping"}',
    "no_value": b'{"op":}',
    "name_without_quotes": b'{op:"ping"}',
    "single_quotes": b"{'op':'ping'}",
    "comment": b'{"op":"ping"/* c */}',
    "leading_zero": b'{"op":"ping","x":01}',
    "plus": b'{"op":"ping","x":+1}',
    "no_digits_before_the_point": b'{"op":"ping","x":.5}',
    "no_digits_behind_the_point": b'{"op":"ping","x":1.}',
    "no_digits_in_the_exponent": b'{"op":"ping","x":1e}',
    "minus_alone": b'{"op":"ping","x":-}',
    "hexadecimal": b'{"op":"ping","x":0x10}',
    "nan": b'{"op":"ping","x":NaN}',
    "infinity": b'{"op":"ping","x":Infinity}',
    "True": b'{"op":"ping","x":True}',
    "bad_escape": b'{"op":"ping","x":"\\x41"}',
    "short_escape": b'{"op":"ping","x":"\\u004"}',
    "bad_hex": b'{"op":"ping","x":"\\u00g0"}',
    "escape_at_the_end": b'{"op":"ping","x":"\\',
    "tab_in_a_string": b'{"op":"ping","x":"a\tb"}',
    "carriage_return_in_a_string": b'{"op":"ping","x":"a\rb"}',
    "nul_in_a_string": b'{"op":"ping","x":"a\0b"}',
    "nul_between_tokens": b'{"op":"ping"\0}',
    "nul_alone": b"\0",
    "nuls": b"\0" * 1000,
    "nul_behind": b'{"op":"ping"}\0',
    "byte_order_mark": b'\xef\xbb\xbf{"op":"ping"}',
    "utf_16": '{"op":"ping"}'.encode("utf-16-le"),
    "vertical_tab": b'\x0b{"op":"ping"}',
    "no_break_space": b'\xc2\xa0{"op":"ping"}',
    "stray_continuation": b'{"op":"ping","x":"\x80"}',
    "overlong_slash": b'{"op":"ping","x":"\xc0\xaf"}',
    "overlong_nul": b'{"op":"ping","x":"\xc0\x80"}',
    "raw_surrogate": b'{"op":"ping","x":"\xed\xa0\x80"}',
    "beyond_the_last_code_point": b'{"op":"ping","x":"\xf4\x90\x80\x80"}',
    "cut_character": b'{"op":"ping","x":"\xe2\x82"}',
    "latin_1": b'{"op":"ping","x":"\xe4"}',
    "byte_ff": b'{"op":"ping","x":"\xff"}',
    "bad_bytes_in_a_name": b'{"\xff":1,"op":"ping"}',
    "bad_bytes_in_the_id": b'{"op":"ping","messageId":"\xff"}',
    "very_deep": b'{"op":"ping","x":' + b"[" * 30000 + b"]" * 30000 + b"}",
    "very_deep_and_unfinished": b'{"a":' * 12000,
    "http": b"GET / HTTP/1.1",
    "resp": b"*1\r",
}

DOUBLES = [
    '{"op":"ping","op":"ping"}',
    '{"op":"get","key":"a","key":"b"}',
    r'{"op":"get","key":"a","k\u0065y":"b"}',
    '{"op":"set","key":"a","value":"1","value":"2"}',
    '{"op":"ping","messageId":1,"messageId":2}',
    '{"op":"get","key":"a","timeoutMs":5000,"timeoutMs":6000}',
    '{"op":"range","key":"a","endKey":"b","endKey":"c"}',
]


class Lines(Case):
    @scene()
    def test_no_json_object(self, service, daemon, client):
        for name, line in BAD_JSON.items():
            with self.subTest(name):
                client.send_raw(line + b"\n")
                answer = client.answer()
                self.assertEqual((400, "bad_json", "no"), (answer["code"], answer["reason"], answer["executed"]))
                client.barrier()
        self.assertTrue(service.no_more_requests())
        stats = daemon.stats()
        self.assertEqual(len(BAD_JSON), stats["requests_refused"])

    @scene()
    def test_so_it_is_for_requests_to_the_service(self, service, daemon, client):
        for name, line in BAD_JSON.items():
            if b'"op":"ping"' in line:
                with self.subTest(name):
                    client.send_raw(line.replace(b'"op":"ping"', b'"op":"set","key":"k","value":"v"') + b"\n")
                    self.assertEqual("bad_json", client.answer()["reason"])
        self.assertTrue(service.no_more_requests())

    @scene()
    def test_all_at_once(self, service, daemon, client):
        lines = list(BAD_JSON.values()) * 3
        client.send_raw(b"\n".join(lines) + b"\n")
        self.assertEqual({"bad_json"}, {a["reason"] for a in client.answers(len(lines))})
        client.barrier()

    @scene()
    def test_members_that_are_named_twice(self, service, daemon, client):
        """Two readers might take different ones, so neither is believed."""
        for line in DOUBLES:
            with self.subTest(line):
                client.send(line)
                answer = client.answer()
                self.assertEqual((400, "bad_request", "no"), (answer["code"], answer["reason"], answer["executed"]))
        self.assertTrue(service.no_more_requests())
        self.assertEqual(200, client.ask('{"op":"ping","x":1,"x":2,"x":3}')["code"]) # nobody reads them

    @scene()
    def test_what_strict_json_does_allow(self, service, daemon, client):
        for extra in ('"x":1e400', '"x":' + "9" * 400, '"x":-0', '"x":1E-7', '"x":"\\ud800"', '"x":"\\u0000"', '"":""',
                      '"x":"\x7f"', '"x":"\u2028"', '"x":{}', '"x":[[],{}]', '"x":' + "[" * 900 + "]" * 900,
                      '"__proto__":{"op":"set"}'):
            with self.subTest(extra):
                self.assertEqual({"code": 200, "message": "pong"}, client.ask(f'{{{extra},"op":"ping"}}'))

    @scene()
    def test_many_members(self, service, daemon, client):
        many = ",".join(f'"m{i}":{i}' for i in range(4000))
        self.assertEqual(200, client.ask(f'{{{many},"op":"ping"}}')["code"])

    @scene()
    def test_errors_do_not_repeat_what_would_harm_a_terminal_or_a_log(self, service, daemon, client):
        for line in (b'{"op":"\\u001b[2J\x7f"}', b"\x1b[2J\x07", b'{"op":"\xc2\x9b2J"}'):
            client.send_raw(line + b"\n")
            answer = client.line()
            for byte in (b"\x1b", b"\x07", b"\x7f", b"\xc2\x9b"):
                self.assertNotIn(byte, answer)
                self.assertNotIn(byte, daemon.log())

    @scene()
    def test_noise(self, service, daemon, client):
        """Each line of random bytes is answered once, and nobody else notices."""
        dice = random.Random(3)
        noise = bytes(dice.randrange(256) for _ in range(200000))
        # What is between two LF is one line, but empty ones and CR alone are none.
        lines = [line.removesuffix(b"\r") for line in noise.split(b"\n")]
        client.send_raw(noise + b"\n")
        answers = client.answers(sum(1 for line in lines if line))
        self.assertEqual({400}, {a["code"] for a in answers})
        client.barrier()

    @scene()
    def test_mutations_of_a_good_line(self, service, daemon, client):
        """Exactly one answer to each line, and what reaches the service is always whole."""
        dice = random.Random(11)
        good = '{"op":"set","messageId":"m","key":"a\\u0000ä","value":{"a":[1.5e3,null]},"timeoutMs":5000}'.encode()
        sent = 0
        for _ in range(3000):
            line = bytearray(good)
            for _ in range(dice.randrange(1, 4)):
                at = dice.randrange(len(line))
                kind = dice.randrange(3)
                if kind == 0:
                    line[at] = dice.choice(b'"{}[]:,\\u0 19.eE-\x00\xff\t')
                elif kind == 1:
                    del line[at]
                else:
                    line.insert(at, dice.choice(b'"{}[]:,\\\x80\xc3'))
            client.send_raw(bytes(line) + b"\n")
            sent += 1
            if sent % 500 == 0:
                self.assertEqual(500, len(client.answers(500)))
        client.barrier()


class Manners(Case):
    @scene()
    def test_a_client_that_leaves_in_the_middle_of_a_line(self, service, daemon, client):
        for data in (b'{"op":"ge', b"x" * 100000, b'{"op":"get","key":"k"}\n{"op"', b"\r", b""):
            with daemon.client() as other:
                other.send_raw(data)
        client.barrier()
        daemon.wait_status(lambda s: s["clients"] == 2, "they have left")

    @scene()
    def test_descriptors_are_not_lost(self, service, daemon, client):
        def count():
            return len(os.listdir(f"/proc/{daemon.pid}/fd"))
        try:
            count()
        except PermissionError:
            self.skipTest("only root may look into a process that guards its memory")
        service.connection()
        client.barrier()
        before = count()
        for _ in range(200):
            with daemon.client() as other:
                other.send(get("k"))
        daemon.wait_status(lambda s: s["clients"] == 2, "they have left")
        client.barrier()
        self.assertLessEqual(count(), before + 1) # the status client may still be there
