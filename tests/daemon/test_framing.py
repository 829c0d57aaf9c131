"""Lines: where one ends, how long it may be, and that the connection goes on after a bad one."""

import json

from harness import WITHHELD, Case, get, put, scene

PING = b'{"op":"ping"}'
PONG = b'{"code":200,"message":"pong"}'


def request_of(size):
    """The line of a set with exactly so many bytes, and its value."""
    head, tail = b'{"op":"set","messageId":7,"key":"k","value":"', b'"}'
    value = b"v" * (size - len(head) - len(tail))
    return head + value + tail, value.decode()


class Ends(Case):
    @scene()
    def test_lf(self, service, daemon, client):
        client.send_raw(PING + b"\n")
        self.assertEqual(PONG, client.line())

    @scene()
    def test_crlf_is_accepted_and_answers_end_with_lf_alone(self, service, daemon, client):
        client.send_raw(PING + b"\r\n" + b'{"op":"get","key":"k","messageId":1}\r\n')
        self.assertEqual(PONG, client.line())
        self.assertFalse(client.line().endswith(b"\r"))
        self.assertEqual("k", service.next_request().key)

    @scene()
    def test_empty_lines_are_ignored(self, service, daemon, client):
        client.send_raw(b"\n\r\n\n\n\r\n" + PING + b"\n\n\n")
        self.assertEqual(PONG, client.line())
        client.barrier()

    @scene()
    def test_white_space_around_and_between_tokens(self, service, daemon, client):
        client.send_raw(b' \t{ "op"\t:\r"ping" } \t\n')
        self.assertEqual(PONG, client.line())

    @scene()
    def test_a_line_of_white_space_alone(self, service, daemon, client):
        """Empty or an error: the connection goes on."""
        client.send_raw(b"  \n" + b'{"op":"ping","messageId":"after"}\n')
        answer = client.answer()
        if answer["code"] != 200:
            self.assert_error(answer, 400, "bad_json", "no")
            answer = client.answer()
        self.assertEqual("after", answer["messageId"])

    @scene()
    def test_last_line_without_an_end(self, service, daemon, client):
        client.send_raw(PING + b"\n" + PING)
        client.half_close()
        self.assertEqual([PONG, PONG], [client.line(), client.line()])
        self.assertTrue(client.at_end())

    @scene()
    def test_last_line_without_an_end_goes_to_the_service(self, service, daemon, client):
        client.send_raw(b'{"op":"get","key":"last"}')
        client.half_close()
        self.assertEqual("value of last", client.answer()["value"])
        self.assertTrue(client.at_end())

    @scene()
    def test_last_line_that_is_broken_is_answered_too(self, service, daemon, client):
        client.send_raw(b'{"op":"pi')
        client.half_close()
        self.assert_error(client.answer(), 400, "bad_json", "no")
        self.assertTrue(client.at_end())

    @scene()
    def test_nothing_at_all(self, service, daemon, client):
        client.half_close()
        self.assertTrue(client.at_end())


class Chunks(Case):
    @scene()
    def test_several_lines_in_one_write(self, service, daemon, client):
        client.send_raw(b"".join(b'{"op":"get","key":"%d","messageId":%d}\n' % (i, i) for i in range(500)))
        answers = {a["messageId"]: a["value"] for a in client.answers(500)}
        self.assertEqual({i: f"value of {i}" for i in range(500)}, answers)

    @scene()
    def test_a_byte_at_a_time(self, service, daemon, client):
        for byte in b'{"op":"set","key":"k","value":"\xc3\xa4","messageId":1}\r\n\r\n':
            client.send_raw(bytes([byte]))
            if byte in b"k:":
                client.barrier_by(daemon)
        self.assertEqual(1, client.answer()["messageId"])
        self.assertEqual("ä", service.next_request().obj["value"])

    @scene()
    def test_split_at_each_place(self, service, daemon, client):
        line = b'{"op":"get","key":"k","messageId":"x"}\r\n'
        for cut in range(1, len(line)):
            client.send_raw(line[:cut])
            client.barrier_by(daemon)
            client.send_raw(line[cut:])
            self.assertEqual("x", client.answer()["messageId"])
            client.barrier()

    @scene()
    def test_one_and_a_half_lines(self, service, daemon, client):
        client.send_raw(PING + b"\n" + PING[:5])
        self.assertEqual(PONG, client.line())
        client.send_raw(PING[5:] + b"\n" + PING + b"\n")
        self.assertEqual([PONG, PONG], [client.line(), client.line()])


class TooLong(Case):
    @scene(max_line="1K")
    def test_a_line_of_just_the_limit(self, service, daemon, client):
        for end in (b"\n", b"\r\n"):
            line, value = request_of(1024)
            client.send_raw(line + end)
            self.assertEqual(200, client.answer()["code"])
            self.assertEqual(value, service.next_request().obj["value"])

    @scene(max_line="1K")
    def test_a_line_of_one_byte_more(self, service, daemon, client):
        for end in (b"\n", b"\r\n"):
            client.send_raw(request_of(1025)[0] + end)
            self.assertEqual((413, "too_large", "no"), self.verdict(client.answer()))
            client.barrier()
        self.assertTrue(service.no_more_requests())

    @staticmethod
    def verdict(answer):
        return answer["code"], answer["reason"], answer["executed"]

    @scene(max_line="1K")
    def test_the_default_id_is_told_if_it_came_early(self, service, daemon, client):
        client.send_raw(request_of(5000)[0] + b"\n")
        answer = client.answer()
        self.assert_error(answer, 413, "too_large", "no", answer.get("messageId", 7))

    @scene(max_frame="128K")
    def test_the_default_limit_is_64_kib(self, service, daemon, client):
        self.assertEqual(65536, daemon.status()["limits"]["maxLine"])
        client.send_raw(request_of(65536)[0] + b"\n")
        self.assertEqual(200, client.answer()["code"])
        client.send_raw(request_of(65537)[0] + b"\n")
        self.assertEqual(413, client.answer()["code"])
        client.barrier()

    @scene(max_line="1K")
    def test_it_is_told_before_the_end_of_the_line_has_come(self, service, daemon, client):
        client.send_raw(b"x" * 2000)
        self.assert_error(client.answer(), 413, "too_large", "no")
        client.send_raw(b"y" * 200000) # skipped, and said no more
        client.send_raw(b'{"op":"ping"}\n') # the end of that line
        client.barrier()

    @scene(max_line="1K")
    def test_the_end_comes_later_alone(self, service, daemon, client):
        client.send_raw(b"x" * 2000)
        self.assert_error(client.answer(), 413, "too_large", "no")
        client.send_raw(b"\n" + PING + b"\n")
        self.assertEqual(PONG, client.line())

    @scene(max_line="1K")
    def test_several_in_one_write_between_good_ones(self, service, daemon, client):
        lines = [PING, b"x" * 1025, PING, b"y" * 70000 + b"\r", b"z" * 3000, PING]
        client.send_raw(b"".join(line + b"\n" for line in lines))
        self.assertEqual([200, 413, 200, 413, 413, 200], [a["code"] for a in client.answers(6)])
        client.barrier()

    @scene(max_line="1K")
    def test_the_stream_ends_within_it(self, service, daemon, client):
        client.send_raw(b"x" * 2000)
        client.half_close()
        self.assert_error(client.answer(), 413, "too_large", "no")
        self.assertTrue(client.at_end())

    @scene(service=WITHHELD, max_line="1K")
    def test_the_answer_keeps_its_place_in_the_order(self, service, daemon, client):
        client.send_raw(b'{"op":"get","key":"k"}\n' + b"x" * 2000 + b"\n")
        request = service.next_request()
        client.barrier()
        request.reply(value="first")
        self.assertEqual("first", client.answer()["value"])
        self.assert_error(client.answer(), 413, "too_large", "no")

    @scene(max_line="1K")
    def test_an_id_that_the_limit_cuts_in_two_is_not_told_in_part(self, service, daemon, client):
        """Half an id may be another request's."""
        for opening, digits in ((b"", b"1234567890"), (b'"', b"1234567890")):
            for visible in range(12):
                head = b'{"op":"get","key":"'
                tail = b'","messageId":' + opening
                padding = b"k" * (1024 - len(head) - len(tail) - visible)
                line = head + padding + tail + digits + opening + b',"x":"' + b"y" * 2000 + b'"}\n'
                client.send_raw(line[:1025])
                told = client.answer()
                client.send_raw(line[1025:])
                self.assertIn(told.get("messageId", 1234567890), (1234567890, "1234567890"), line[1010:1025])
                client.barrier()


class Large(Case):
    @scene(max_line="16M", max_frame="16M", level="info")
    def test_lines_of_megabytes(self, service, daemon, client):
        for size in (1 << 20, 10 << 20):
            client.send(put("k", "x" * size, size))
            self.assertEqual(size, client.answer()["messageId"])
            self.assertEqual(size, len(service.next_request().obj["value"]))


class Answers(Case):
    @scene(service=WITHHELD)
    def test_a_frame_with_raw_line_ends_is_one_line(self, service, daemon, client):
        client.send(get("k", 1))
        service.next_request().reply_raw('\r\n{\n"code":200,\r\n"messageId" : <id>\n,"value":\t"a b"\n}\r\n')
        self.assertEqual({"code": 200, "messageId": 1, "value": "a b"}, json.loads(client.line()))
        client.barrier()

    @scene(service=WITHHELD)
    def test_so_it_is_without_an_id(self, service, daemon, client):
        for text in ('{\n"messageId":<id>,\n"code":200,"value":"a"}\n',
                     '{"code":200\n,\n"messageId"\n:\n<id>\n,"value":"a"}',
                     '{"code":200,"value":"a"\n,\r\n"messageId":<id>\n}'):
            client.send(get("k"))
            service.next_request().reply_raw(text)
            self.assertEqual({"code": 200, "value": "a"}, json.loads(client.line()))
        client.barrier()
