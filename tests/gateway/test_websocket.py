"""The WebSocket door, on TCP and on the Unix socket: messages are lines, and what RFC 6455 says of the frames is kept."""

import json
import os
import select
import signal
import socket
import time
import unittest

from websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    LOCAL_KEY,
    PING,
    TEXT,
    Case,
    Gateway,
    Refused,
    Sandbox,
    frame,
    harness,
)


class Door(Case):
    """One sandbox and one daemon for all cases of a class."""

    settings = {}

    @classmethod
    def setUpClass(cls):
        cls.service = Sandbox().__enter__()
        cls.addClassCleanup(cls.service.__exit__, None, None, None)
        cls.gateway = Gateway(cls.service, **cls.settings).__enter__()
        cls.addClassCleanup(cls.gateway.__exit__, None, None, None)
        cls.gateway.wait_state("connected")

    def ws(self, *args, **options):
        connection = self.gateway.ws(*args, **options)
        self.addCleanup(connection.close)
        return connection

    def refused(self, *args, **options):
        with self.assertRaises(Refused) as caught:
            self.ws(*args, **options)
        return caught.exception


class Messages(Door):
    def test_hpkvs_messages_over_both_doors(self):
        for unix in False, True:
            with self.subTest(unix=unix):
                ws = self.ws(unix=unix)
                self.assertEqual((200, 1), (lambda a: (a["code"], a["messageId"]))(ws.ask(op=2, key="m", value="x\0ä", messageId=1)))
                self.assertEqual({"code": 200, "key": "m", "value": "x\0ä", "messageId": 2}, ws.ask(op=1, key="m", messageId=2))
                self.assertEqual(404, ws.ask(op=1, key="none", messageId=3)["code"])
                self.assertEqual(5, ws.ask(op=6, key=f"n{unix}", value=5)["newValue"])
                self.assertEqual("pong", ws.ask(op="ping")["message"])

    def test_each_message_gets_one_back_in_order(self):
        ws = self.ws()
        for i in range(500):
            ws.send(op="set", key="o", value=str(i)) if i % 2 else ws.send_text("no JSON")
        self.assertEqual([200 if i % 2 else 400 for i in range(500)], [ws.next()["code"] for _ in range(500)])

    def test_a_message_may_have_line_ends_and_white_space(self):
        ws = self.ws()
        ws.send_text('\r\n{\n\t"op": "set",\r\n "key": "w",\n "value": {"a":\n 1}\n}\n')
        self.assertEqual(200, ws.next()["code"])
        self.assertEqual('{"a":1}', ws.ask(op="get", key="w")["value"])

    def test_an_empty_message_and_one_of_spaces(self):
        ws = self.ws()
        for text in "", " ", "\n", "\r\n\r\n":
            ws.send_text(text)
            self.assert_error(ws.next(), 400, "bad_json", "no")

    def test_subscribe_works_as_with_lines(self):
        ws, other = self.ws(), self.ws(unix=True)
        self.assertEqual(200, ws.ask(op="subscribe", key="s", pattern="p:*", messageId=1)["code"])
        other.ask(op="set", key="s", value="1")
        self.assertEqual(("s", "1"), ws.notification())
        other.ask(op="set", key="p:1", value="2")
        self.assertEqual(("p:1", "2"), ws.notification())
        self.assertEqual(200, ws.ask(op="unsubscribe")["code"])
        other.ask(op="set", key="s", value="3")
        self.assertEqual("pong", ws.ask(op="ping")["message"])

    def test_messages_that_come_with_the_request_for_the_upgrade(self):
        ask = b'{"op":"ping","messageId":1}'
        ws = self.ws(behind=frame(TEXT, ask) * 3 + frame(PING, b"p"))
        self.assertEqual(["pong"] * 3, [ws.next()["message"] for _ in range(3)])
        while not ws.pongs:
            ws.receive_some()
        self.assertEqual([b"p"], ws.pongs)

    def test_thousands_of_requests_before_the_first_answer_is_read(self):
        ws, n = self.ws(), 20000
        data = b"".join(frame(TEXT, json.dumps({"op": "ping", "messageId": i}).encode()) for i in range(n))
        ws.sock.settimeout(0.2)
        sent = 0
        while sent < len(data):
            try:
                sent += ws.sock.send(data[sent:sent + 16384])
            except TimeoutError:  # not read any further until this side reads as well
                ws.sock.settimeout(60)
                ws.receive_some()
                ws.sock.settimeout(0.2)
        ws.sock.settimeout(60)
        self.assertEqual(list(range(n)), [ws.next()["messageId"] for _ in range(n)])

    def test_status_tells_the_door(self):
        ws = self.ws()
        self.assertEqual("pong", ws.ask(op="ping")["message"])
        stats = ws.ask(op="stats")["stats"]
        self.assertTrue(any("websocket" in name for name in stats), sorted(stats))


class Frames(Door):
    settings = {"max_line": "4K"}

    def closed_with(self, data, code):
        for unix in False, True:
            ws = self.ws(unix=unix)
            ws.send_raw(data)
            self.assertEqual(code, ws.wait_closed())

    def test_fragments_and_pings_between_them(self):
        text = json.dumps({"op": "set", "key": "f", "value": "ä" * 500, "messageId": 4}, ensure_ascii=False)
        for size in 1, 7, 1000:
            ws = self.ws()
            for piece in ws.fragment(text, size=size):
                ws.send_raw(piece + frame(PING, b"%d" % size))
            self.assertEqual((200, 4), (lambda a: (a["code"], a["messageId"]))(ws.next()))
            while len(ws.pongs) < len(ws.fragment(text, size=size)):
                ws.receive_some()
            self.assertEqual({b"%d" % size}, set(ws.pongs))
        self.assertEqual("ä" * 500, self.ws().ask(op="get", key="f")["value"])

    def test_bytes_one_by_one(self):
        ws = self.ws()
        for byte in frame(TEXT, b'{"op":"ping"}') + frame(PING, b""):
            ws.send_raw(bytes([byte]))
        self.assertEqual("pong", ws.next()["message"])

    def test_a_message_that_is_too_long_is_answered_and_skipped(self):
        ws = self.ws()
        long = json.dumps({"messageId": 9, "op": "set", "key": "l", "value": "x" * 5000})
        ws.send_text(long)
        self.assert_error(ws.next(), 413, "too_large", "no", 9)
        ws.send(op="ping", messageId=1)
        self.assertEqual(1, ws.next()["messageId"])
        for piece in ws.fragment(long, size=1500):
            ws.send_raw(piece)
        self.assertEqual("too_large", ws.next()["reason"])
        text = '{"op":"ping"}'
        ws.send_text(text + " " * (4096 - len(text)))
        self.assertEqual("pong", ws.next()["message"])
        ws.send_text(text + " " * (4097 - len(text)))
        self.assertEqual("too_large", ws.next()["reason"])
        self.assertEqual("pong", ws.ask(op="ping")["message"])

    def test_a_length_that_nobody_can_send(self):
        ws = self.ws()
        ws.send_raw(frame(TEXT, b'{"op":', length=2**62))
        self.assertEqual("too_large", ws.next()["reason"])

    def test_binary_messages_close_with_1003(self):
        self.closed_with(frame(BINARY, b'{"op":"ping"}'), 1003)
        self.closed_with(frame(BINARY, b"{", final=False) + frame(CONTINUATION, b"}"), 1003)

    def test_text_that_is_no_utf8_closes_with_1007(self):
        for payload in b"\xff", b'{"op":"get","key":"\xc3"}', b"\xed\xa0\x80\xff", b'{"op":"get","key":"\xed\xa0\x80"}', b"\xf4\x90\x80\x80":
            self.closed_with(frame(TEXT, payload), 1007)

    def test_what_is_against_the_protocol_closes_with_1002(self):
        for name, data in {
            "not masked": frame(TEXT, b'{"op":"ping"}', masked=False), "a ping that is not masked": frame(PING, b"x", masked=False),
            "reserved bits": frame(TEXT, b"{}", reserved=0x40), "a reserved opcode": frame(3, b"{}"),
            "a reserved control frame": frame(11, b""), "a long ping": frame(PING, b"x" * 126),
            "a ping in fragments": frame(PING, b"x", final=False), "a continuation of nothing": frame(CONTINUATION, b"{}"),
            "a text within a text": frame(TEXT, b"{", final=False) + frame(TEXT, b"}"),
            "a length of 2^63": frame(TEXT, length=2**63), "a close frame of one byte": frame(CLOSE, b"x"),
            "a code that is none": frame(CLOSE, (1005).to_bytes(2, "big")),
            "a length in too many bytes": b"\x81\xfe\x00\x05" + bytes(4) + b"hello",
        }.items():
            with self.subTest(name):
                self.closed_with(data, 1002)

    def test_a_goodbye_is_answered(self):
        for code in 1000, 1001, 4321:
            self.closed_with(frame(CLOSE, code.to_bytes(2, "big") + b"bye"), code)
        ws = self.ws()
        ws.send_raw(frame(CLOSE))
        self.assertEqual(1005, ws.wait_closed())

    def test_what_stands_behind_a_goodbye_is_not_read(self):
        ws = self.ws()
        ws.send_raw(frame(CLOSE, (1000).to_bytes(2, "big")) + frame(TEXT, b'{"op":"set","key":"behind","value":"x"}'))
        self.assertEqual(1000, ws.wait_closed())
        self.assertEqual(404, self.ws().ask(op="get", key="behind")["code"])

    def test_noise(self):
        for _ in range(50):
            ws = self.ws()
            ws.send_raw(os.urandom(3000))
            ws.close()
        self.assertEqual("pong", self.ws().ask(op="ping")["message"])


class Upgrades(Door):
    def test_the_answer_of_rfc_6455(self):
        ws = self.ws(headers={"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "chat",
                              "Sec-WebSocket-Extensions": "permessage-deflate"})
        head = ws.head.lower()
        self.assertIn("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=", head)
        self.assertNotIn("extensions", head)
        self.assertNotIn("protocol:", head)

    def test_keys(self):
        for path, options in [(f"/ws?apiKey={LOCAL_KEY}", {}), ("/ws", {"headers": {"x-api-key": LOCAL_KEY}}),
                              ("/ws", {"headers": {"Authorization": f"Bearer {LOCAL_KEY}"}}), ("/ws", {"unix": True}),
                              ("/ws?apiKey=anything", {"unix": True}), (f"/ws?apiKey={LOCAL_KEY.replace('a', '%61')}", {})]:
            self.assertEqual("pong", self.ws(path, **options).ask(op="ping")["message"], path)
        for path in "/ws", "/ws?apiKey=", "/ws?apiKey=wrong-but-long-enough", f"/ws?apiKey={LOCAL_KEY}x", "/ws?token=":
            self.assertEqual(401, self.refused(path).status, path)

    def test_requests_that_are_no_proper_upgrade(self):
        for headers, status in [({"Sec-WebSocket-Key": None}, 400), ({"Sec-WebSocket-Key": "c2hvcnQ="}, 400),
                                ({"Sec-WebSocket-Key": "!" * 22 + "=="}, 400), ({"Sec-WebSocket-Version": None}, 426),
                                ({"Sec-WebSocket-Version": "8"}, 426), ({"Upgrade": "h2c"}, 426), ({"Upgrade": None}, 426),
                                ({"Connection": "keep-alive"}, 426), ({"Connection": None, "Proxy-Connection": "Upgrade"}, 426), ({"Host": "evil.example"}, 403), ({"Origin": "https://evil.example"}, 403)]:
            with self.subTest(headers=headers):
                refusal = self.refused(headers=headers)
                self.assertEqual(status, refusal.status)
                self.assertIn("error", refusal.body)
                self.assertNotIn("sec-websocket-accept", refusal.headers)
        self.assertEqual("13", self.refused(headers={"Sec-WebSocket-Version": "8"}).headers["sec-websocket-version"])

    def test_connection_close_is_about_http(self):
        ws = self.ws(headers={"Connection": "Upgrade, close"}, behind=frame(TEXT, b'{"op":"ping"}'))
        self.assertEqual("pong", ws.next()["message"])

    def test_timeoutMs_is_checked(self):
        for query in "timeoutMs=x", "timeoutMs=", "timeoutMs=1&timeoutMs=2", "timeoutMs=%":
            self.assertEqual(400, self.refused(f"/ws?{query}&apiKey={LOCAL_KEY}").status, query)
        self.assertEqual("pong", self.ws(f"/ws?timeoutMs=5&apiKey={LOCAL_KEY}").ask(op="ping")["message"])

    def test_other_paths(self):
        for path in "/ws/", "/wss", "/", "/record/a":
            with self.assertRaises((Refused, Exception)):
                self.ws(f"{path}?apiKey={LOCAL_KEY}")


class Ends(Case):
    def test_the_daemons_end_is_told(self):
        with Sandbox() as service, Gateway(service) as gateway:
            gateway.wait_state("connected")
            tcp, unix = gateway.ws(), gateway.ws(unix=True)
            for ws in tcp, unix:
                self.assertEqual(200, ws.ask(op="subscribe", key="x")["code"])
            gateway.process.signal(signal.SIGTERM)
            self.assertEqual([1001, 1001], [tcp.wait_closed(), unix.wait_closed()])

    def test_requests_in_flight_are_answered_before_the_end(self):
        with harness.FakeService(answer=None) as service, Gateway(service) as gateway:
            gateway.wait_state("connected")
            ws = gateway.ws()
            ws.send(op="set", key="a", value="1", messageId=1)
            request = service.next_request()
            gateway.process.signal(signal.SIGTERM)
            gateway.process.wait_output(rb"signal 15: stopping")
            request.reply(success=True)
            self.assertEqual((200, 1), (lambda a: (a["code"], a["messageId"]))(ws.next()))
            self.assertEqual(1001, ws.wait_closed())

    @harness.steady(0.3)
    def test_a_client_that_sends_on_reads_the_end(self):
        """What comes behind the last request that was heard is dropped; that it comes destroys nothing."""
        for unix in False, True:
            with self.subTest(unix=unix), Sandbox() as service, Gateway(service) as gateway:
                gateway.wait_state("connected")
                ws = gateway.ws(unix=unix)
                gateway.process.signal(signal.SIGTERM)
                self.assertTrue(select.select([ws.sock], [], [], harness.DEADLINE)[0])
                for n in range(20):
                    ws.send(op="set", key="late", value=str(n), messageId=n)
                    time.sleep(0.01)
                self.assertEqual(1001, ws.wait_closed())
                self.assertEqual(0, gateway.process.wait_exit())

    def test_a_slow_client_is_told_the_latest_and_dropped(self):
        with Sandbox() as service, Gateway(service, output_soft="16K", output_hard="64K") as gateway:
            gateway.wait_state("connected")
            sock = gateway.unix()
            from websocket import WebSocket
            slow = WebSocket(sock, "/ws")
            self.assertEqual(200, slow.ask(op="subscribe", pattern="k*")["code"])
            writer = gateway.ws()
            for i in range(600):  # more keys than fit, so that the latest of each is too much
                self.assertEqual(200, writer.ask(op="set", key=f"k{i}", value="v" * 3000)["code"])
            harness.eventually(lambda: gateway.stats()["clients_dropped_slow"], "the slow client to be dropped")
            code = slow.wait_closed()
            self.assertIn(code, (1013, None))
            last = json.loads(slow.messages[-1]) if code else {"reason": "slow_client"}
            self.assertEqual("slow_client", last["reason"])

    def test_a_key_that_is_gone_closes_its_connections(self):
        with Sandbox() as service, Gateway(service) as gateway:
            gateway.wait_state("connected")
            ws, unix = gateway.ws(), gateway.ws(unix=True)
            self.assertEqual("pong", ws.ask(op="ping")["message"])
            gateway.keys["local-key"] = "another-key-that-is-long-enough"
            self.assertTrue(gateway.reload())
            self.assertEqual(1008, ws.wait_closed())
            self.assertEqual("pong", unix.ask(op="ping")["message"])

    def test_a_client_that_is_gone_without_a_goodbye(self):
        with Sandbox() as service, Gateway(service) as gateway:
            gateway.wait_state("connected")
            for unix in False, True:
                ws = gateway.ws(unix=unix)
                self.assertEqual(200, ws.ask(op="subscribe", key="x")["code"])
                ws.sock.close()
                gateway.wait_status(lambda status: status["subscriptions"]["keys"] == 0, "no subscription of a client that is gone")

    def test_after_the_end_of_input_all_is_answered(self):
        with Sandbox("--delay-ms", "300") as service, Gateway(service) as gateway:
            gateway.wait_state("connected")
            ws = gateway.ws()
            self.assertEqual(200, ws.ask(op="subscribe", key="y")["code"])
            ws.send_raw(b"".join(frame(TEXT, json.dumps({"op": "set", "key": "x", "value": f"{i}"}).encode()) for i in range(5)))
            ws.sock.shutdown(socket.SHUT_WR)
            self.assertEqual([200] * 5, [ws.next()["code"] for _ in range(5)])
            self.assertEqual(b"", ws.sock.recv(1))

    def test_subscriptions_outlive_an_outage(self):
        with Sandbox() as service, Gateway(service) as gateway:
            gateway.wait_state("connected")
            ws = gateway.ws()
            self.assertEqual(200, ws.ask(op="subscribe", key="x")["code"])
            self.assertEqual(200, ws.ask(op="set", key="x", value="1")["code"])
            self.assertEqual(("x", "1"), ws.notification())
            service.kill()
            self.assertEqual(("connection", "disconnected"), (lambda a: (a["type"], a["state"]))(ws.next()))
            service.start()
            told = [ws.next(), ws.next()]
            self.assertEqual(["connected"], [line["state"] for line in told if line["type"] == "connection"])
            self.assertEqual([("x", None, True)], [(line["key"], line["value"], line["resync"]) for line in told if line["type"] == "notification"])

    def test_no_secret_is_shown(self):
        with Sandbox() as service, Gateway(service) as gateway:
            gateway.wait_state("connected")
            gateway.ws()
            token = gateway.token(subscribeKeys=["a"])
            gateway.ws(f"/ws?token={token}")
            with self.assertRaises(Refused):
                gateway.ws(f"/ws?token={token[:-9]}")
            with self.assertRaises(Refused):
                gateway.ws("/ws?apiKey=a-wrong-key-that-was-presented")
            shown = gateway.log() + json.dumps([gateway.status(), gateway.stats()]).encode()
            for secret in LOCAL_KEY, token, token[:-9], "a-wrong-key-that-was-presented", harness.KEY:
                self.assertNotIn(secret.encode(), shown)


class Many(Door):
    def test_a_thousand_idle_connections(self):
        before = harness.Process.resident_bytes(self.gateway.process) if hasattr(harness.Process, "resident_bytes") else 0
        all_of_them = [self.ws(unix=i % 2 == 0) for i in range(1000)]
        self.assertEqual("pong", all_of_them[500].ask(op="ping")["message"])
        grown = harness.Process.resident_bytes(self.gateway.process) - before
        if not harness.sanitized():
            self.assertLess(grown / 1000, 8192)
        started = time.monotonic()
        for ws in all_of_them:
            ws.send(op="ping")
        for ws in all_of_them:
            self.assertEqual("pong", ws.next()["message"])
        self.assertLess(time.monotonic() - started, 60)


if __name__ == "__main__":
    unittest.main()
