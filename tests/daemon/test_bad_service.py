"""Whatever the service sends: each request gets its one answer, no client gets another's, and the daemon goes on."""

import json

from wsproto.frame_protocol import Opcode

from harness import KEY, WITHHELD, Case, Daemon, FakeService, echo, eventually, get, mebibytes, put, scene


HELLO = b'{"type":"notification","key":"hello","value":"1","timestamp":2}'


class Service(Case):
    def goes_on(self, service, client):
        """The next request is answered, over this connection or the next."""
        before, service.answer = service.answer, echo
        answer = client.ask(get("next", "next"))
        self.assertEqual(("next", "value of next"), (answer["messageId"], answer["value"]))
        client.barrier()
        service.answer = before
        service.taken = len(service.requests)


class Answers(Service):
    """Answers that can't be used."""

    # <id> in front: whose they are can be known.
    UNUSABLE_WITH_ID = {
        "unfinished": '{"messageId":<id>,"code":200,"value":"x',
        "trailing_comma": '{"messageId":<id>,"code":200,}',
        "something_behind": '{"messageId":<id>,"code":200} x',
        "control_character": '{"messageId":<id>,"code":200,"value":"a\tb"}',
        "nul": '{"messageId":<id>,"code":200}\0',
        "no_code": '{"messageId":<id>,"value":"x"}',
        "code_as_a_string": '{"messageId":<id>,"code":"200"}',
        "code_null": '{"messageId":<id>,"code":null}',
        "code_with_a_fraction": '{"messageId":<id>,"code":200.5}',
        "two_codes": '{"messageId":<id>,"code":200,"code":404}',
        "nan": '{"messageId":<id>,"code":200,"value":NaN}',
    }
    # Nobody can know to whom they belong.
    OF_NOBODY = {
        "nothing": "",
        "words": "hello",
        "null": "null",
        "a_number": "<id>",
        "an_array": '[{"messageId":<id>,"code":200}]',
        "empty_object": "{}",
        "no_id": '{"code":200,"value":"x"}',
        "id_null": '{"messageId":null,"code":200}',
        "id_as_a_string": '{"messageId":"<id>","code":200}',
        "id_object": '{"messageId":{"messageId":<id>},"code":200}',
        "id_negative": '{"messageId":-<id>,"code":200}',
        "id_with_a_fraction": '{"messageId":<id>.5,"code":200}',
        "id_too_large": '{"messageId":99999999999999999999999999,"code":200}',
        "id_of_400_digits": '{"messageId":' + "9" * 400 + ',"code":200}',
        "id_unknown": '{"messageId":12345678901,"code":200}',
        "broken_before_the_id": '{"value":x,"messageId":<id>,"code":200}',
        "other_type": '{"type":"hello","version":3}',
        "notification_without_key": '{"type":"notification","value":"x"}',
        "notification_with_wrong_key": '{"type":"notification","key":5,"value":"x"}',
    }

    @scene(service=WITHHELD)
    def test_unusable_with_an_id_is_a_bad_gateway(self, service, daemon, client):
        for name, text in self.UNUSABLE_WITH_ID.items():
            for op in ({"op": "get"}, {"op": "set", "value": "v"}):
                with self.subTest(name, op=op):
                    client.send(op | {"key": "k", "messageId": "m"})
                    request = service.next_request()
                    request.reply_raw(text)
                    self.assert_error(client.answer(), 502, "bad_upstream", "unknown", "m")
                    request.reply(value="afterthought") # it was answered already
                    client.barrier()
        self.assertEqual(1, len(service.connections))

    @scene(service=WITHHELD)
    def test_what_is_for_nobody_answers_nobody(self, service, daemon, client):
        for name, text in self.OF_NOBODY.items():
            with self.subTest(name):
                client.send(get("k", "m"))
                request = service.next_request()
                request.connection.send_text(text.replace("<id>", str(request.id)))
                request.reply(value="right")
                self.assertEqual({"code": 200, "messageId": "m", "value": "right"}, client.answer())
                client.barrier()
        self.assertEqual(1, len(service.connections))

    @scene(service=WITHHELD)
    def test_the_same_answer_again(self, service, daemon, client):
        client.send(get("a", "a"))
        first = service.next_request()
        for _ in range(3):
            first.reply(value="once")
        self.assertEqual("once", client.answer()["value"])
        client.send(get("b", "b"))
        second = service.next_request()
        first.reply(value="again")
        second.reply(value="right")
        self.assertEqual(("b", "right"), ((a := client.answer())["messageId"], a["value"]))
        client.barrier()
        self.assertEqual(3, daemon.stats()["upstream_late"])

    @scene(service=WITHHELD)
    def test_an_answer_to_every_id_there_could_be(self, service, daemon, client):
        """Guesses near the real ones hit nobody but whom they name."""
        client.send(get("k", "m"))
        request = service.next_request()
        for i in range(1, 300):
            for wrong in (request.id + i, request.id - i):
                request.connection.send_text(json.dumps({"messageId": wrong, "code": 200, "value": "wrong"}))
        request.reply(value="right")
        self.assertEqual("right", client.answer()["value"])
        client.barrier()

    @scene(service=WITHHELD)
    def test_no_utf_8(self, service, daemon, client):
        """The connection may go on or not (RFC 6455, 8.1), but the client is told something that it can read."""
        client.send(put("k", "v", "m"))
        request = service.next_request()
        request.connection.send_frame(Opcode.TEXT, b'{"messageId":%d,"code":200,"value":"\xff\xfe"}' % request.id)
        answer = client.answer()
        self.assertIn((answer["code"], answer["reason"], answer["executed"]),
                      ((502, "bad_upstream", "unknown"), (504, "outcome_unknown", "unknown")))
        self.goes_on(service, client)

    @scene()
    def test_a_notification_that_cannot_be_used_is_a_gap(self, service, daemon, client):
        """What it says cannot be believed, its key included, so each subscription may have missed it."""
        client.subscribe(key="k", pattern="p*")
        connection = service.connection(2)
        connection.send_text('{"type":"notification","key":"k","value":"x","value":"y","timestamp":1}')
        gaps = sorted(client.answers(2), key=lambda line: "pattern" in line)
        self.assertEqual({"type": "gap", "key": "k"}, gaps[0])
        self.assertEqual(("gap", "p*"), (gaps[1]["type"], gaps[1]["pattern"]))
        self.assertLessEqual(gaps[1]["since"], gaps[1]["until"])
        connection.send_text('{"type":"notification","key":"k","value":"x"') # told with what follows, some seconds later
        service.publish("k", "v")
        self.assertEqual(("k", "v"), client.change())
        self.assertEqual((2, 2), (daemon.stats()["upstream_unusable"], daemon.stats()["gaps"]))
        self.assertEqual(0, daemon.stats()["upstream_disconnects"])

    @scene()
    def test_one_without_a_key_is_of_nobody(self, service, daemon, client):
        client.subscribe(key="k", pattern="p*")
        connection = service.connection(2)
        for members in ("", ',"key":5', ',"key":null', ',"message":"maintenance"'):
            connection.send_text('{"type":"notification"%s,"value":"x","timestamp":1}' % members)
        service.publish("k", "v")
        self.assertEqual(("k", "v"), client.change())
        self.assertEqual((4, 0), (daemon.stats()["upstream_unusable"], daemon.stats()["gaps"]))

    @scene(service=WITHHELD)
    def test_notifications_on_this_connection_reach_no_client(self, service, daemon, client):
        connection = service.connection()
        notification = '{"type":"notification","key":"k","value":"v","timestamp":1%s}'
        connection.send_text(notification % "")
        connection.send_text('{"type":"notification","key":"k","value":null}')
        client.send(get("k", 1))
        request = service.next_request()
        connection.send_text(notification % f',"messageId":{request.id},"code":200')
        request.reply(value="right")
        self.assertEqual("right", client.answer()["value"])
        client.barrier()
        self.assertEqual(3, daemon.stats()["upstream_notifications"])


class Frames(Service):
    """The WebSocket below."""

    @scene(service=WITHHELD)
    def test_binary(self, service, daemon, client):
        client.send(put("k", "v", "m"))
        request = service.next_request()
        request.connection.send_frame(Opcode.BINARY, b"\x00\x01\x02")
        request.connection.send_frame(Opcode.BINARY, b'{"messageId":%d,"code":200}' % request.id)
        answer = client.answer()
        if answer["code"] != 200: # taken for what it says, or not at all
            self.assert_error(answer, 502, "bad_upstream", "unknown", "m")
        self.goes_on(service, client)

    @scene(service=WITHHELD)
    def test_fragments(self, service, daemon, client):
        for n in (2, 3, 50):
            client.send(get("k", "m"))
            request = service.next_request()
            text = f'{{"messageId":{request.id},"code":200,"value":"{"ä€😀" * 30}"}}'.encode()
            size = len(text) // n + 1
            pieces = [text[i:i + size] for i in range(0, len(text), size)]
            for i, piece in enumerate(pieces):
                opcode = Opcode.CONTINUATION if i else Opcode.TEXT
                request.connection.send_frame(opcode, piece, final=i == len(pieces) - 1)
                if i % 2:
                    request.connection.send_frame(Opcode.PING, b"between")
            self.assertEqual("ä€😀" * 30, client.answer()["value"])
        self.assertEqual(1, len(service.connections))

    @scene(service=WITHHELD)
    def test_fragments_of_nothing(self, service, daemon, client):
        client.send(get("k", "m"))
        request = service.next_request()
        send = request.connection.send_frame
        send(Opcode.TEXT, b"", final=False)
        send(Opcode.CONTINUATION, b'{"code":200,"messageId":%d}' % request.id, final=False)
        for _ in range(1000):
            send(Opcode.CONTINUATION, b"", final=False)
        send(Opcode.CONTINUATION, b"", final=True)
        self.assertEqual({"code": 200, "messageId": "m"}, client.answer())

    @scene(service=WITHHELD)
    def test_a_byte_at_a_time(self, service, daemon, client):
        client.send(get("k", "m"))
        request = service.next_request()
        text = json.dumps({"messageId": request.id, "code": 200, "value": "slow"}).encode()
        for byte in bytes([0x81, len(text)]) + text:
            request.connection.send_bytes(bytes([byte]))
        self.assertEqual("slow", client.answer()["value"])

    @scene(service=WITHHELD)
    def test_many_messages_in_one_record(self, service, daemon, client):
        client.send(*(get(str(i), i) for i in range(200)))
        frames = b""
        for request in service.next_requests(200):
            text = b'{"messageId":%d,"code":200,"value":"%s"}' % (request.id, request.key.encode())
            frames += bytes([0x81, len(text)]) + text
        service.connections[0].send_bytes(frames)
        for answer in client.answers(200):
            self.assertEqual(str(answer["messageId"]), answer["value"])

    @scene(service=WITHHELD, request_timeout="60s")
    def test_a_message_over_the_limit(self, service, daemon, client):
        for place in ("front", "end"):
            # Whose it was is known if the id came early; if not its time tells.
            client.send(get("k", "m", timeoutMs=60000 if place == "front" else 2000), get("other", "other"))
            large, other = service.next_requests(2)
            members = ['"messageId":<id>,"code":200', '"value":"' + "x" * (17 << 20) + '"']
            large.reply_raw("{" + ",".join(members if place == "front" else reversed(members)) + "}")
            other.reply(value="small")
            answers = {a["messageId"]: a for a in client.answers(2)}
            self.assertEqual("small", answers["other"]["value"])
            if place == "front":
                self.assert_error(answers["m"], 502, "bad_upstream", "unknown", "m")
            else:
                self.assertIn(answers["m"]["reason"], ("bad_upstream", "timeout"))
            self.goes_on(service, client)
        self.assertLess(daemon.process.resident_bytes(), mebibytes(400))

    @scene(service=WITHHELD)
    def test_a_message_of_which_no_end_comes_costs_no_more_than_the_limit(self, service, daemon, client):
        connection = service.connection()
        connection.send_frame(Opcode.TEXT, b'{"value":"', final=False)
        for _ in range(80):
            connection.send_frame(Opcode.CONTINUATION, b"x" * (1 << 20), final=False)
        client.barrier()
        self.assertLess(daemon.process.resident_bytes(), mebibytes(200))
        if connection.open: # it may have given up on the connection
            connection.send_frame(Opcode.CONTINUATION, b'"}')
        self.goes_on(service, client)

    VIOLATIONS = {
        "reserved_bit": lambda c: c.send_frame(0, b"{}", first=0x80 | 0x40 | 1),
        "reserved_opcode": lambda c: c.send_frame(0, b"{}", first=0x80 | 3),
        "reserved_control_opcode": lambda c: c.send_frame(0, b"", first=0x80 | 11),
        "masked": lambda c: c.send_bytes(b"\x81\x82abcd" + bytes([ord("{") ^ ord("a"), ord("}") ^ ord("b")])),
        "continuation_of_nothing": lambda c: c.send_frame(Opcode.CONTINUATION, b"{}"),
        "control_frame_in_fragments": lambda c: c.send_frame(Opcode.PING, b"", final=False),
        "control_frame_too_long": lambda c: c.send_frame(Opcode.PING, b"x" * 126),
        "length_beyond_63_bits": lambda c: c.send_bytes(b"\x81\x7f" + b"\xff" * 8),
        "length_near_63_bits": lambda c: c.send_bytes(b"\x81\x7f\x7f" + b"\xff" * 7),
        "close_of_one_byte": lambda c: c.send_frame(Opcode.CLOSE, b"x"),
        "http_again": lambda c: c.send_bytes(b"HTTP/1.1 200 OK\r\n\r\n"),
        "zeros": lambda c: c.send_bytes(b"\0" * 1000),
        "no_tls": lambda c: c.sock.sendall(b"\x81\x02{}" * 100),
    }

    @scene(service=WITHHELD, keepalive="200ms")
    def test_what_no_websocket_may_do(self, service, daemon, client):
        """Ignored, or the connection is given up; what was on its way is answered, and the next one works."""
        for name, violate in self.VIOLATIONS.items():
            with self.subTest(name):
                client.send(put("k", "v", "m"))
                request = service.next_request()
                violate(request.connection)
                request.reply(value="after all")
                answer = client.answer()
                self.assertEqual("m", answer["messageId"])
                if answer["code"] != 200:
                    self.assertIn(answer["reason"], ("outcome_unknown", "bad_upstream"), answer)
                    self.assertEqual("unknown", answer["executed"])
                self.goes_on(service, client)

    @scene(service=WITHHELD)
    def test_pings_are_answered(self, service, daemon, client):
        connection = service.connection()
        for payload in (b"", b"x" * 125):
            connection.send_frame(Opcode.PING, payload)
        connection.send_frame(Opcode.PONG, b"unasked")
        self.goes_on(service, client)
        service.wait(lambda: connection.pongs >= 1, "a pong")

    @scene(service={"greeting": b"\x81" + bytes([len(HELLO)]) + HELLO})
    def test_frames_that_come_with_the_upgrade(self, service, daemon, client):
        self.assertEqual(200, client.ask(get("k"))["code"])
        self.assertEqual(1, daemon.stats()["upstream_notifications"])


class Closing(Service):
    """The connection ends in each of the ways there are, and the daemon is back at once."""

    ENDS = {
        "close_1000": lambda c: c.close(1000),
        "close_1001": lambda c: c.close(1001, "going away"),
        "close_1008": lambda c: c.close(1008, "policy"),
        "close_1012": lambda c: c.close(1012),
        "close_4000_with_the_key": lambda c: c.close(4000, "apiKey=" + KEY),
        "close_without_code": lambda c: c.close(0),
        "close_invalid_code": lambda c: c.close(5),
        "fin": lambda c: c.hang_up(),
        "rst": lambda c: c.reset(),
        "fin_within_a_frame": lambda c: (c.send_bytes(b"\x81\x7e\x10\x00{"), c.hang_up()),
        "fin_within_a_header": lambda c: (c.send_bytes(b"\x81"), c.hang_up()),
    }

    @scene(service=WITHHELD)
    def test_each(self, service, daemon, client):
        for n, (name, end) in enumerate(self.ENDS.items(), 1):
            with self.subTest(name):
                connection = service.connection(n)
                client.send(put("k", "v", "sent"))
                service.next_request()
                end(connection)
                self.assert_error(client.answer(), 504, "outcome_unknown", "unknown", "sent")
                service.connection(n + 1)
                client.send(get("k", "new"))
                service.next_request().reply(value="new")
                self.assertEqual("new", client.answer()["value"])
                upstream = daemon.status()["upstream"]
                self.assertEqual(("connected", n), (upstream["state"], upstream["reconnects"]))
                self.assertTrue(upstream["lastError"])
                self.assertNotIn(KEY, upstream["lastError"])

    @scene(service=WITHHELD)
    def test_answers_before_the_close_frame_count(self, service, daemon, client):
        for n in range(1, 20):
            client.send(*(put("k", "v", i) for i in range(20)))
            connection = service.connection(n)
            for request in service.next_requests(20):
                request.reply(value="done")
            connection.close(1001)
            self.assertEqual({200}, {a["code"] for a in client.answers(20)})

    @scene(service=WITHHELD)
    def test_what_the_service_says_is_told(self, service, daemon, client):
        """Code, meaning and words in the log and the status answer, escaped and without the key."""
        for n, (code, meaning, words, told) in enumerate((
                (1013, ": try again later", "busy until noon", "busy until noon"), (1012, ": service restart", "", ""),
                (1014, ": bad gateway", "a\nhpkvd: error: b\x1b[0m", "a hpkvd: error: b\\x1b[0m"),
                (4001, "", "key " + KEY + " sp\xe4ter", "key ... sp\\xc3\\xa4ter")), 1):
            service.connection(n).close(code, words)
            service.connection(n + 1)
            line = f"the service closed the connection ({code}{meaning})" + (f": {told}" if told else "")
            eventually(lambda line=line: line.encode() in daemon.log(), "the line")
            self.assertEqual(line, daemon.wait_status(lambda s, n=n: s["upstream"]["reconnects"] == n)["upstream"]["lastError"])

    def test_what_a_refusal_says_is_told(self):
        refuse = lambda event: (403, {}, b'{"error":"no such\tplan", "at":"' + event.target.encode() + b'"}')
        with FakeService(upgrade=refuse) as service, Daemon(service) as daemon:
            told = 'HTTP status 403: {"error":"no such plan", "at":"/ws?apiKey=..."}'
            eventually(lambda: told.encode() in daemon.log(), "the line")
            self.assertIn(told, daemon.wait_status(lambda s: s["upstream"]["lastError"])["upstream"]["lastError"])

    @scene(service=WITHHELD)
    def test_a_close_frame_is_answered(self, service, daemon, client):
        connection = service.connection()
        connection.close(1001)
        connection.wait_gone()
        self.assertIn(connection.close_code, (1000, 1001))
