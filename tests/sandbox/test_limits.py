"""The bounds of the sandbox: the rate limit, slow readers, floods, and malicious input."""

import http.client
import json
import os
import random
import socket
import time
import unittest

from sandbox import API_KEY, GET, INCREMENT, PATIENCE, RANGE, SET, Sandbox, WebSocket, sandbox_case, trust


def frame(opcode, payload=b"", final=True, masked=True, length=None, reserved=0):
    """A WebSocket frame of a client, valid or not."""
    n = len(payload) if length is None else length
    head = bytes([(0x80 if final else 0) | reserved | opcode])
    mask = 0x80 if masked else 0
    if n < 126:
        head += bytes([mask | n])
    elif n < 65536:
        head += bytes([mask | 126]) + n.to_bytes(2, "big")
    else:
        head += bytes([mask | 127]) + n.to_bytes(8, "big")
    return head + (bytes(4) if masked else b"") + payload


TEXT, BINARY, CONTINUATION, CLOSE, PING = 1, 2, 0, 8, 9


class Rate(sandbox_case("--rate", "10", "--api-key", API_KEY, "--api-key", "other")):
    def test_a_limit_for_each_key_whatever_the_door(self):
        hpkv = self.ws()
        for i in range(40):
            hpkv.send(op=SET, key="x", value="1", messageId=i + 1)
        codes = [hpkv.next()["code"] for _ in range(40)]
        self.assertEqual({200, 429}, set(codes))
        self.assertGreaterEqual(codes.count(200), 10)
        hpkv.send(op=SET, key="x", value="1", messageId=99)
        answer = hpkv.next()
        if answer["code"] == 429:  # on a slow machine the limit may not be reached
            self.assertEqual(99, answer["messageId"])
            self.assertIn("error", answer)

    def test_rest_says_when_to_come_again(self):
        connection = http.client.HTTPSConnection("localhost", self.sandbox.port, timeout=PATIENCE, context=trust())
        self.addCleanup(connection.close)
        responses = []
        for _ in range(60):  # on one connection: sixty of them would take longer than the rate allows where that is slow
            connection.request("GET", "/record/none", None, {"x-api-key": "other"})
            responses.append(connection.getresponse())
            responses[-1].read()
        refused = [response for response in responses if response.status == 429]
        self.assertTrue(refused)
        self.assertEqual("1", refused[0].headers["retry-after"])
        self.assertEqual({404, 429}, {response.status for response in responses})

    def test_what_was_refused_was_not_done(self):
        hpkv = self.ws()
        for _ in range(50):
            hpkv.send(op=INCREMENT, key="count", value=1)
        done = [answer["newValue"] for answer in (hpkv.next() for _ in range(50)) if answer["code"] == 200]
        self.assertEqual(list(range(1, len(done) + 1)), done)


class Delay(unittest.TestCase):
    def test_answers_are_held_back_in_order(self):
        sandbox = Sandbox("--delay-ms", "300")
        self.addCleanup(sandbox.stop)
        hpkv = sandbox.ws()
        self.addCleanup(hpkv.close)
        started = time.monotonic()
        for i in range(100):
            hpkv.send(op=SET, key=f"{i}", value="x", messageId=i)
        self.assertEqual(list(range(100)), [hpkv.next()["messageId"] for _ in range(100)])
        self.assertGreaterEqual(time.monotonic() - started, 0.29)
        started = time.monotonic()
        self.assertEqual(200, sandbox.rest("GET", "/record/1")[0])
        self.assertGreaterEqual(time.monotonic() - started, 0.29)


class Floods(sandbox_case()):
    def test_thousands_of_requests_before_the_first_answer_is_read(self):
        hpkv = self.ws()
        n = 20000
        data = b"".join(hpkv.frame(json.dumps({"op": GET, "key": "none", "messageId": i})) for i in range(n))
        hpkv.sock.settimeout(0.2)
        sent = 0
        while sent < len(data):
            try:
                sent += hpkv.sock.send(data[sent:sent + 16384])
            except TimeoutError:  # not read any further until we read as well
                hpkv.sock.settimeout(30)
                while not hpkv.messages:
                    hpkv.receive_some()
                hpkv.sock.settimeout(0.2)
        hpkv.sock.settimeout(30)
        self.assertEqual(list(range(n)), [hpkv.next()["messageId"] for _ in range(n)])

    def memory_kb(self):
        with open(f"/proc/{self.sandbox.process.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

    def test_who_asks_and_never_reads_is_not_read_either(self):
        for i in range(100):
            self.rest("POST", "/record", {"key": f"big:{i:03}", "value": "x" * 3000})
        before = self.memory_kb()
        hpkv = self.ws()
        request = hpkv.frame(json.dumps({"op": RANGE, "key": "big:", "endKey": "big:~", "limit": 100}))
        hpkv.sock.settimeout(1)
        with self.assertRaises(TimeoutError):
            for _ in range(200000):
                hpkv.sock.sendall(request)
        self.assertEqual(404, self.ws().ask(op=GET, key="none")["code"])
        self.assertLess(self.memory_kb() - before, 64 * 1024)

    def test_a_subscriber_that_never_reads_is_dropped(self):
        subscriber, writer = self.subscribe("flood"), self.ws()
        reader = self.subscribe("flood:end")
        request = writer.frame(json.dumps({"op": SET, "key": "flood", "value": "\x01" * 3000}))
        for _ in range(60):  # 18 KB of JSON each, 64 MB in all
            writer.send_raw(request * 60)
            for _ in range(60):
                self.assertEqual(200, writer.next()["code"])
        writer.ask(op=SET, key="flood:end", value="x")
        self.assertEqual(("flood:end", "x"), reader.notification())
        self.assertIsNone(subscriber.wait_closed())


class Hostile(sandbox_case()):
    def tearDown(self):
        """The sandbox still serves requests."""
        self.assertIsNone(self.sandbox.process.poll())
        self.assertEqual(404, self.ws().ask(op=GET, key="none")["code"])

    def test_bytes_that_are_no_text(self):
        hpkv = self.ws()
        for opcode in TEXT, BINARY:
            hpkv.send_raw(frame(opcode, b"\xff\x00\x80"))
            self.assertEqual(400, hpkv.next()["code"])

    def test_a_request_in_a_binary_frame_is_a_request(self):
        hpkv = self.ws()
        hpkv.send_raw(frame(BINARY, b'{"op":1,"key":"none"}'))
        self.assertEqual(404, hpkv.next()["code"])

    def test_fragments_and_pings_between_them(self):
        hpkv = self.ws()
        text = json.dumps({"op": SET, "key": "fragments", "value": "x" * 3000, "messageId": 4}).encode()
        hpkv.send_raw(frame(TEXT, text[:1], final=False))
        for i in range(1, len(text) - 1, 7):
            hpkv.send_raw(frame(CONTINUATION, text[i:min(i + 7, len(text) - 1)], final=False))
        hpkv.send_raw(frame(PING, b"still there?"))
        hpkv.send_raw(frame(CONTINUATION, b"", final=False))
        hpkv.send_raw(frame(CONTINUATION, text[-1:]))
        self.assertEqual((200, 4), (lambda answer: (answer["code"], answer["messageId"]))(hpkv.next()))
        while not hpkv.pongs:
            hpkv.receive_some()
        self.assertEqual([b"still there?"], hpkv.pongs)

    def test_an_empty_message(self):
        hpkv = self.ws()
        hpkv.send_raw(frame(TEXT))
        self.assertEqual(400, hpkv.next()["code"])

    def test_a_message_that_is_too_long(self):
        for data in [frame(TEXT, b" " * 70000), frame(TEXT, b" " * 40000, final=False) + frame(CONTINUATION, b" " * 40000)]:
            hpkv = self.ws()
            hpkv.send_raw(data)
            self.assertEqual(1009, hpkv.wait_closed())

    def test_a_message_of_the_greatest_length(self):
        hpkv = self.ws()
        text = b'{"op":1,"key":"none"}'
        hpkv.send_raw(frame(TEXT, text + b" " * (65536 - len(text))))
        self.assertEqual(404, hpkv.next()["code"])

    def test_a_ping_amid_a_long_answer(self):
        for i in range(40):
            self.rest("POST", "/record", {"key": f"ping:{i:03}", "value": "\x01" * 3000})
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that the answer can't have left at once
        sock.connect(("127.0.0.1", self.sandbox.port))
        hpkv = WebSocket(trust().wrap_socket(sock, server_hostname="localhost"), f"/ws?apiKey={API_KEY}")
        self.addCleanup(hpkv.close)
        for i in range(20):
            hpkv.send(op=RANGE, key="ping:", endKey="ping:~", messageId=i)
            hpkv.receive_some()
            hpkv.send_raw(frame(PING, b"%d" % i))
            answer = hpkv.next()
            self.assertEqual((i, 40), (answer["messageId"], answer["count"]))
            while len(hpkv.pongs) <= i:
                hpkv.receive_some()
        self.assertEqual([b"%d" % i for i in range(20)], hpkv.pongs)

    def test_frames_against_the_protocol(self):
        for name, data in {
            "a length of 2^63": frame(TEXT, length=2**63), "of 2^62": frame(TEXT, length=2**62),
            "reserved bits": frame(TEXT, b"{}", reserved=0x70), "a reserved opcode": frame(3, b"{}"),
            "a long ping": frame(PING, b"x" * 200), "a continuation of nothing": frame(CONTINUATION, b"{}"),
            "a text within a text": frame(TEXT, b"{", final=False) + frame(TEXT, b"}"), "not masked": frame(TEXT, b"{}", masked=False),
            "a close frame of one byte": frame(CLOSE, b"x"), "a close frame": frame(CLOSE, b"\x03\xe8"), "noise": os.urandom(4096),
        }.items():
            with self.subTest(name):
                hpkv = self.ws()
                hpkv.send_raw(data)
                hpkv.sock.close()

    def test_noise(self):
        draw = random.Random(1)
        for _ in range(200):
            hpkv = self.ws()
            text = bytearray(json.dumps({"op": draw.randint(0, 7), "key": "k", "value": "v", "endKey": "z", "messageId": 1}).encode())
            for _ in range(draw.randint(1, 5)):
                text[draw.randrange(len(text))] = draw.randrange(256)
            hpkv.send_raw(frame(draw.choice([TEXT, BINARY]), bytes(text)))
            self.assertIn(hpkv.next()["code"], (200, 400, 404))
            hpkv.close()

    def test_connections_that_say_nothing_sensible(self):
        for data in [b"", b"\r\n\r\n", b"GET", os.urandom(2000), b"GET / HTTP/9.9\r\n\r\n", b"GET " + b"/" * 100000 + b" HTTP/1.1\r\n\r\n",
                     b"POST /record HTTP/1.1\r\ncontent-length: -1\r\n\r\n", b"GET /record/%00 HTTP/1.1\r\n\r\n",
                     b"GET /record/%zz HTTP/1.1\r\n\r\n", b"GET /ws?token=" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n",
                     b"POST /record HTTP/1.1\r\nx-api-key: sandbox\r\ncontent-length: 99999999999999999999\r\n\r\n{}",
                     b"GET /ws HTTP/1.1\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n", b"X" * 100000]:
            with self.subTest(data=data[:40]):
                with self.sandbox.connect() as sock:
                    try:
                        sock.sendall(data)
                        sock.settimeout(0.05)
                        sock.recv(1000)
                    except OSError:
                        pass

    def test_requests_that_are_sent_ahead_wait(self):
        with self.sandbox.connect() as sock:
            sock.sendall(b"GET /record/none HTTP/1.1\r\nx-api-key: sandbox\r\n\r\n" * 500 + b"GET /record/none HTTP/1.0\r\n\r\n")
            answers = b""
            while data := sock.recv(65536):
                answers += data
        self.assertEqual((500, 1), (answers.count(b"HTTP/1.1 404 "), answers.count(b"HTTP/1.1 401 ")))

    def test_tls_that_is_none(self):
        with socket.create_connection(("127.0.0.1", self.sandbox.port)) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")

    def test_leaving_with_requests_under_way(self):
        for _ in range(20):
            hpkv = self.ws()
            hpkv.send_raw(hpkv.frame(json.dumps({"op": GET, "key": "none"})) * 1000)
            hpkv.close()

    def test_a_goodbye_is_answered(self):
        hpkv = self.ws()
        hpkv.send_raw(frame(CLOSE, (1000).to_bytes(2, "big") + b"bye"))
        self.assertEqual(1000, hpkv.wait_closed())


if __name__ == "__main__":
    unittest.main()
