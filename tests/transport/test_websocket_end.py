"""How a WebSocket ends: for every way of the service to fail, one call with a reason that a person can act upon."""

import os
import re
import select
import signal
import socket
import ssl
import struct
import threading
import time
import unittest
from email.utils import formatdate

import need
from steady import steady
from transport import (PATIENCE_S, EdgeTest, answer_101, certs, close_frame, dead_port, eventually, frame, read_frame, read_request, stay,
                   upgrade)


def hang(connection):
    """Until the client has gone; nothing is read."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    poll.poll(PATIENCE_S * 1000)


class EndTest(EdgeTest):
    def end_of(self, server, *options, host="localhost", ca="ca.pem", address=None, port=None,
               path="/ws?apiKey=hush-hush"):
        """Connects and returns what closed() told, as a dictionary of texts; nothing follows it."""
        plain = server is not None and not server.tls and "--tls" not in options
        how = ["--plain"] if plain else ["--ca", certs(ca)]
        driver = self.drive("websocket-driver", *how, *[o for o in options if o != "--tls"], address or server.address,
                            port or server.port, host, path)
        driver.tell("connect")
        line = driver.line("the end")
        while line is not None and not line.startswith("closed"):
            line = driver.line("the end")
        self.assertIsNotNone(line)
        driver.ask("beats")  # and no second one
        driver.tell("free")
        driver.wait("freed")
        self.assertNotIn("hush", line + "\n".join(driver.log))
        return dict(re.findall(r"(\w+)=((?<=why=).*|\S+)", line))


class BeforeItIsOpen(EndTest):
    def test_refused(self):
        for address in ("127.0.0.1", "::1") if need.has_ipv6() else ("127.0.0.1",):
            end = self.end_of(None, address=address, port=dead_port())
            self.assertEqual(end["open"], "0")
            self.assertRegex(end["why"], f"^{address} port [0-9]+: Connection refused$")

    def test_no_route(self):
        end = self.end_of(None, "--timeout", "1500", address="255.255.255.255", port=9)
        self.assertEqual(end["open"], "0")
        self.assertRegex(end["why"], "unreachable|Permission denied|timed out|denied")

    def test_certificates(self):
        for cert, ca, host, why in (("expired", "ca.pem", "localhost", "certificate has expired"),
                                    ("wrong", "ca.pem", "localhost", "hostname mismatch"),
                                    ("server", "ca.pem", "elsewhere.test", "hostname mismatch"),
                                    ("server", "ca.pem", "127.0.0.2", "IP address mismatch"),
                                    ("server", "ca.pem", "::2", "IP address mismatch"),
                                    ("wrong", "ca.pem", "127.0.0.1", "IP address mismatch"),
                                    ("self", "ca.pem", "localhost", "self-signed certificate"),
                                    ("server", "other-ca.pem", "localhost", "unable to get local issuer certificate")):
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                with self.subTest(cert=cert, ca=ca, host=host, version=version.name):
                    end = self.end_of(self.serve(stay, cert=cert, tls_version=version), ca=ca, host=host)
                    self.assertEqual(end["why"], "the server's certificate is refused: " + why)

    def test_silent_server(self):
        """Accepts and never says anything; the loop has its turns all the while."""
        started = time.monotonic()
        end = self.end_of(self.serve(stay, tls=False), "--tls", "--timeout", "700")
        self.assertEqual(end["why"], "timed out in the TLS handshake")
        self.assertGreaterEqual(time.monotonic() - started, 0.7)

    def test_upgrade_never_answered(self):
        end = self.end_of(self.serve(lambda c: (read_request(c), stay(c))), "--timeout", "6000")
        self.assertEqual(end["why"], "timed out waiting for the upgrade to be answered")

    def test_half_an_answer(self):
        end = self.end_of(self.serve(lambda c: (read_request(c), c.sendall(b"HTTP/1.1 101 Swi"), stay(c))), "--timeout", "6000")
        self.assertEqual(end["why"], "timed out waiting for the upgrade to be answered")

    def test_connection_that_never_stands(self):
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            others = []
            for _ in range(4):  # the kernel answers no more of them
                s = socket.socket()
                s.setblocking(False)
                s.connect_ex(full.getsockname())
                others.append(s)
            end = self.end_of(None, "--timeout", "700", address="127.0.0.1", port=full.getsockname()[1])
            self.assertRegex(end["why"], "timed out (while connecting|in the TLS handshake)")
            for s in others:
                s.close()

    def test_garbage_instead_of_tls(self):
        end = self.end_of(self.serve(lambda c: (c.sendall(b"SSH-2.0-OpenSSH_9\r\n" * 20), stay(c)), tls=False), "--tls")
        self.assertEqual(end["why"], "the TLS handshake failed: wrong version number")

    def test_closed_in_the_handshake(self):
        end = self.end_of(self.serve(lambda c: c.recv(1), tls=False), "--tls")
        self.assertRegex(end["why"], "TLS handshake failed|reset by peer")

    def test_reset_in_the_handshake(self):
        def handler(connection):
            connection.recv(65536)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        end = self.end_of(self.serve(handler, tls=False), "--tls")
        self.assertEqual(end["why"], "Connection reset by peer")

    def test_old_tls(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        server = self.serve(stay)
        context.load_cert_chain(certs("server.pem"), certs("server.key"))
        server.tls = context
        self.assertIn("the TLS handshake failed: tlsv1 alert protocol version", self.end_of(server)["why"])

    def test_a_client_certificate_is_wanted(self):
        """With TLS 1.3 the refusal comes when the handshake is over for the client."""
        for version, why in ((ssl.TLSVersion.TLSv1_2, r"the TLS handshake failed: (sslv3|ssl/tls) alert handshake failure"),
                             (ssl.TLSVersion.TLSv1_3, r"the TLS connection broke: tlsv13 alert certificate required")):
            with self.subTest(version=version.name):
                server = self.serve(stay, tls_version=version)
                server.tls.verify_mode = ssl.CERT_REQUIRED
                self.assertRegex(self.end_of(server)["why"], rf"\A{why}\Z")

    def test_request_that_has_no_room(self):
        """The peer takes some of it, and then no more."""
        server = self.serve(hang, tls=False)
        server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        end = self.end_of(server, "--room", 1, "--timeout", "700", path="/ws?apiKey=hush-hush" + "x" * 14900)
        self.assertEqual(end["why"], "timed out sending the request for the upgrade")

    def test_refused_before_the_request_was_read(self):
        """The peer has read no more than the beginning, answers, and reads no more."""
        answer = b"HTTP/1.1 414 Too Long\r\nContent-Length: 4\r\n\r\nlong"
        server = self.serve(lambda c: (c.recv(10), c.sendall(answer), hang(c)), tls=False)
        server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        end = self.end_of(server, "--room", 1, path="/ws?apiKey=hush-hush" + "x" * 14900)
        self.assertEqual(end["why"], "the upgrade was answered with HTTP status 414: long")

    def test_refused_upgrades(self):
        for status in (200, 302, 400, 401, 403, 404, 429, 500, 503):
            with self.subTest(status=status):
                answer = f"HTTP/1.1 {status} No\r\nLocation: /elsewhere\r\nContent-Length: 4\r\n\r\nnope".encode()
                end = self.end_of(self.serve(lambda c, a=answer: (read_request(c), c.sendall(a), stay(c))))
                self.assertEqual((end["open"], end["status"], end["retry"]), ("0", str(status), "-1"))
                self.assertEqual(end["why"], f"the upgrade was answered with HTTP status {status}: nope")

    def test_what_a_refusal_says(self):
        """Its beginning, escaped, is told, whether it comes with the head, later, or to the end; and nothing is waited for long."""
        def end_with(head, *parts, then=stay):
            def handler(connection):
                read_request(connection)
                for part in (b"HTTP/1.1 403 No\r\n" + head + b"\r\n", *parts):
                    connection.sendall(part)
                then(connection)

            return self.end_of(self.serve(handler))["why"].removeprefix("the upgrade was answered with HTTP status 403")

        said = b'{"error":"Invalid\r\n\x1b[31m key"}'
        told = ': {"error":"Invalid \\x1b[31m key"}'
        self.assertEqual(end_with(b"Content-Length: %d\r\n" % len(said), said), told)
        self.assertEqual(end_with(b"Content-Length: %d\r\n" % len(said), said[:5], said[5:]), told)
        self.assertEqual(end_with(b"", said, then=lambda c: None), told)
        self.assertEqual(end_with(b"Content-Length: 0\r\n"), "")
        self.assertEqual(end_with(b"Content-Length: 100\r\n", said), told)  # the rest never comes
        self.assertEqual(end_with(b"", b"<html>sorry</html>", then=lambda c: None), "")
        self.assertEqual(end_with(b"", b"key hush-hush is bad", then=lambda c: None), ": key ... is bad")
        long = end_with(b"Content-Length: 1000000\r\n", b"very " * 20000)
        self.assertTrue(long.startswith(": very very ") and long.endswith("...") and len(long) < 210, long)

    def test_retry_after(self):
        for text, least, most in (("7", 7, 7), ("0", 0, 0), (formatdate(time.time() + 100, usegmt=True), 90, 100),
                                  (formatdate(time.time() - 100, usegmt=True), 0, 0), ("soon", -1, -1), ("-5", 0, 0),
                                  ("99999999999999999999", 86400, 86400), ("3 apples", -1, -1)):
            with self.subTest(text=text):
                answer = f"HTTP/1.1 429 Slow\r\nRetry-After: {text}\r\nContent-Length: 0\r\n\r\n".encode()
                end = self.end_of(self.serve(lambda c, a=answer: (read_request(c), c.sendall(a), stay(c))))
                self.assertTrue(least <= int(end["retry"]) <= most, end)
                self.assertEqual(end["status"], "429")

    def test_answers_that_are_none(self):
        good = answer_101("Sec-WebSocket-Key: x").decode()
        for answer, why in ((b"\x00\x01\x02garbage\r\n\r\n" * 10, "not HTTP|before the upgrade was answered"),
                            (b"", "before the upgrade was answered|reset by peer"),
                            (b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "lacks Sec-WebSocket-Accept"),
                            (good.encode(), "wrong Sec-WebSocket-Accept"),
                            (good.replace("Upgrade: websocket", "Upgrade: h2c").encode(), "an upgrade to something else"),
                            (b"HTTP/1.1 101 Yes\r\n" + b"X: " + b"y" * 100000 + b"\r\n\r\n", "upgrade")):
            with self.subTest(answer=answer[:60]):
                end = self.end_of(self.serve(lambda c, a=answer: (read_request(c), c.sendall(a))), "--timeout", "20000")
                self.assertRegex(end["why"], why)
                self.assertEqual(end["open"], "0")

    def test_an_extension_that_was_not_offered(self):
        def handler(connection):
            head = read_request(connection)
            connection.sendall(answer_101(head, "Sec-WebSocket-Extensions: permessage-deflate\r\n"))
            stay(connection)

        self.assertIn("extension that was not offered", self.end_of(self.serve(handler))["why"])


class AfterItWasOpen(EndTest):
    def closed_by(self, payload, *more):
        """How it ends when the service sends this close frame and whatever else; and what it gets back."""
        replies = []

        def handler(connection):
            upgrade(connection)
            connection.sendall(frame(payload, opcode=8) + b"".join(more))
            replies.append(read_frame(connection))
            while connection.recv(65536):
                pass
            replies.append("end")

        server = self.serve(handler)
        end = self.end_of(server)
        for thread in server.threads[1:]:
            thread.join()
        return end, replies

    def test_close_codes(self):
        for code, words in ((1000, "1000: normal closure"), (1001, "1001: going away"), (1008, "1008: policy violation"),
                            (1009, "1009: message too big"), (1011, "1011: internal error"), (1012, "1012: service restart"),
                            (1013, "1013: try again later"), (1014, "1014: bad gateway"), (1016, "1016"), (2999, "2999"),
                            (3999, "3999"), (4000, "4000"), (4999, "4999")):
            with self.subTest(code=code):
                end, replies = self.closed_by(struct.pack("!H", code))
                self.assertEqual((end["open"], end["code"]), ("1", str(code)))
                self.assertEqual(end["why"], f"the service closed the connection ({words})")
                self.assertEqual(replies, [(8, struct.pack("!H", code)), "end"])

    def test_close_codes_that_must_not_be_sent(self):
        for payload, fault in ((b"\x03", "half a code"), *((struct.pack("!H", code), f"the code {code}") for code in
                                                           (0, 999, 1004, 1005, 1006, 1015, 5000, 65535))):
            with self.subTest(fault=fault):
                end, replies = self.closed_by(payload)
                self.assertEqual((end["open"], end["code"]), ("1", "0"))
                self.assertEqual(end["why"], f"the service sent a frame that breaks the WebSocket protocol: it is a close frame with {fault}")
                self.assertEqual(replies, [(8, b"\x03\xea"), "end"])

    def test_what_a_close_frame_says(self):
        for text, told in ((b"slow down", "slow down"), (b"a\r\nhpkvd: error: forged", "a hpkvd: error: forged"),
                           (b"\x1b[2J\0\x07", "\\x1b[2J\\x00\\x07"), (b"sp\xc3\xa4ter", "sp\\xc3\\xa4ter"),
                           (b"\xff\xfe", "\\xff\\xfe"), (b"y" * 10 + b" " + b"?" * 112, "yyyyyyyyyy " + "?" * 112),
                           (b"\x01" * 123, "\\x01" * 49 + "..."), (b"token " + b"q1w2e3r4" * 8 + b" expired", "token ... expired"),
                           (b"apiKey=hush-hush is over its plan", "apiKey=... is over its plan")):
            with self.subTest(text=text):
                end, replies = self.closed_by(struct.pack("!H", 1013) + text)
                self.assertEqual(end["code"], "1013")
                self.assertEqual(end["why"], f"the service closed the connection (1013: try again later): {told}")
                self.assertEqual(replies, [(8, b"\x03\xf5"), "end"])

    def test_close_without_a_code(self):
        end, replies = self.closed_by(b"")
        self.assertEqual((end["open"], end["code"]), ("1", "1005"))
        self.assertEqual(end["why"], "the service closed the connection (1005: no code given)")
        self.assertEqual(replies, [(8, b""), "end"])

    def test_what_follows_a_close_frame_is_not_read(self):
        for more in (frame("late"), frame("x", opcode=3), frame("?", opcode=9), close_frame(1009), b"\x81", os.urandom(200000)):
            with self.subTest(more=more[:10]):
                self.assertEqual(self.closed_by(struct.pack("!H", 1001), more)[0]["code"], "1001")

    def close_while_nothing_can_be_sent(self, reads_on):
        """The kernel takes no more, in the middle of a long frame: that has to go out first. It ends when the peer reads on, or after a
        while, with the code all the same."""
        stuck, frames = threading.Event(), []

        def handler(connection, stuck=stuck, frames=frames):
            upgrade(connection)
            stuck.wait()
            connection.sendall(frame(struct.pack("!H", 1012) + b"bye", opcode=8))
            if not reads_on:
                time.sleep(0.2)
                connection.sendall(frame("late"))
                time.sleep(4)  # longer than the answer is waited for
            while not frames or frames[-1][0] != 8:
                frames.append(read_frame(connection))

        server = self.serve(handler)
        self.addCleanup(stuck.set)
        driver = self.drive("websocket-driver", "--ca", certs("ca.pem"), server.address, server.port, "localhost", "/ws")
        driver.tell("connect")
        driver.wait("open")
        driver.tell("fill 1 16000000", "fill 100 65536")
        self.assertTrue(eventually(lambda: int(driver.ask("unsent")) < 16000000 + 100 * 65536))
        cpu = driver.cpu_s()
        stuck.set()
        self.assertIn("code=1012 why=the service closed the connection (1012: service restart): bye", driver.wait("closed"))
        if not reads_on:
            self.assertLess(driver.cpu_s() - cpu, 0.7)  # it waits for 2 s, and does not spin
        else:
            for thread in server.threads[1:]:
                thread.join()
            self.assertEqual([(opcode, len(text)) for opcode, text in frames], [(1, 16000000), (8, 2)])
            self.assertEqual(frames[-1], (8, b"\x03\xf4"))

    @steady(0.5)  # it has two seconds to go out
    def test_close_frame_while_nothing_can_be_sent(self):
        self.close_while_nothing_can_be_sent(reads_on=True)

    def test_close_frame_while_nothing_can_ever_be_sent(self):
        self.close_while_nothing_can_be_sent(reads_on=False)

    def test_close_frame_before_a_reset(self):
        """Writing fails while the reason is still to be read."""
        stopped, closed = threading.Event(), threading.Event()

        def handler(connection):
            upgrade(connection)
            stopped.wait()
            connection.sendall(frame(struct.pack("!H", 1013) + b"bye", opcode=8))
            connection.close()  # with much that was not read: a reset
            closed.set()

        server = self.serve(handler, tls=False)
        self.addCleanup(stopped.set)
        driver = self.drive("websocket-driver", "--plain", server.address, server.port, "localhost", "/ws")
        driver.tell("connect")
        driver.wait("open")
        driver.tell("fill 400 65536")
        self.assertTrue(eventually(lambda: int(driver.ask("unsent")) < 400 * 65536))
        driver.process.send_signal(signal.SIGSTOP)
        self.addCleanup(driver.process.send_signal, signal.SIGCONT)
        stopped.set()
        self.assertTrue(closed.wait(PATIENCE_S))
        driver.process.send_signal(signal.SIGCONT)
        self.assertIn("code=1013", driver.wait("closed"))

    def test_end_without_a_close_frame(self):
        for tls in (True, False):
            with self.subTest(tls=tls):
                end = self.end_of(self.serve(upgrade, tls=tls))
                self.assertEqual((end["open"], end["code"]), ("1", "0"))
                self.assertEqual(end["why"], "the service closed the connection without a close frame")

    def test_end_within_a_frame(self):
        whole = frame("x" * 1000)
        for n in (1, 3, 500):
            for tls in (True, False):
                with self.subTest(n=n, tls=tls):
                    end = self.end_of(self.serve(lambda c, n=n: (upgrade(c), c.sendall(whole[:n])), tls=tls))
                    self.assertEqual(end["why"], "the service closed the connection without a close frame")

    def test_end_of_tls_without_a_close_frame(self):
        def handler(connection):
            upgrade(connection)
            connection.unwrap()  # close_notify, and the client's is waited for

        end = self.end_of(self.serve(handler))
        self.assertEqual((end["open"], end["code"]), ("1", "0"))
        self.assertEqual(end["why"], "the service closed the connection without a close frame")

    def test_reset(self):
        for tls in (True, False):
            with self.subTest(tls=tls):
                def handler(connection):
                    upgrade(connection)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

                self.assertEqual(self.end_of(self.serve(handler, tls=tls))["why"], "Connection reset by peer")

    BROKEN = (("masked text", frame("x", mask=b"abcd"), "it is masked"),
              ("header of a masked text", b"\x81\x85", "it is masked"),
              ("masked close frame", frame(b"\x03\xe8", opcode=8, mask=b"abcd"), "it is masked"),
              ("reserved bits", frame("x", reserved=4), "it has reserved bits"),
              ("reserved bits of a ping", frame("x", opcode=9, reserved=1), "it has reserved bits"),
              ("opcode 3", frame("x", opcode=3), "its opcode is 3"),
              ("opcode 11", frame("x", opcode=11), "its opcode is 11"),
              ("long ping", frame("x" * 200, opcode=9), "it is a control frame of 200 bytes"),
              ("long close frame", frame(b"\x03\xe8" + b"x" * 124, opcode=8), "it is a control frame of 126 bytes"),
              ("fragmented ping", frame("x", opcode=9, final=False), "it is a part of a control frame"),
              ("fragmented close frame", frame(b"\x03\xe8", opcode=8, final=False), "it is a part of a control frame"),
              ("continuation of nothing", frame("x", opcode=0), "it continues no message"),
              ("continuation of a whole message", frame("a") + frame("x", opcode=0), "it continues no message"),
              ("text within a message", frame("a", final=False) + frame("b"), "it begins a message within another"),
              ("length of 2^63", b"\x81\x7f\x80" + b"\0" * 7, "the highest bit of its length is set"))

    def test_broken_frames(self):
        """The service is told so with 1002, and no more of it is believed."""
        for name, data, fault in self.BROKEN:
            for tls in (True, False):
                with self.subTest(name=name, tls=tls):
                    replies = []

                    def handler(connection, data=data, replies=replies):
                        upgrade(connection)
                        connection.sendall(data)
                        replies.append(read_frame(connection))

                    server = self.serve(handler, tls=tls)
                    end = self.end_of(server)
                    self.assertEqual(end["why"], "the service sent a frame that breaks the WebSocket protocol: " + fault)
                    self.assertEqual((end["open"], end["code"]), ("1", "0"))
                    for thread in server.threads[1:]:
                        thread.join()
                    self.assertEqual(replies, [(8, b"\x03\xea")])

    def test_lengths_that_are_absurd(self):
        """Refused with 1009 at the header, also when the message only grows to that in its parts."""
        for data, told in ((b"\x81\x7f" + struct.pack("!Q", 1 << 40), 1 << 40),
                           (b"\x82\x7f" + struct.pack("!Q", (64 << 20) + 1), (64 << 20) + 1),
                           (frame("x" * 100, final=False) + b"\x80\x7f" + struct.pack("!Q", 64 << 20), (64 << 20) + 100)):
            with self.subTest(data=data[:10]):
                replies = []

                def handler(connection, data=data, replies=replies):
                    upgrade(connection)
                    connection.sendall(data)
                    replies.append(read_frame(connection))

                server = self.serve(handler)
                end = self.end_of(server)
                self.assertEqual(end["why"], f"the service sent a frame that is far too long: its message has {told} bytes or more")
                for thread in server.threads[1:]:
                    thread.join()
                self.assertEqual(replies, [(8, b"\x03\xf1")])

    def test_garbage_instead_of_a_tls_record(self):
        def handler(connection):
            upgrade(connection)
            raw = socket.socket(fileno=connection.detach())
            raw.settimeout(PATIENCE_S)
            raw.sendall(b"this is no TLS record at all" * 10)
            stay(raw)
            raw.close()

        end = self.end_of(self.serve(handler))
        self.assertRegex(end["why"], "TLS|without a close frame|breaks")

    def test_the_peer_dies_while_much_is_queued(self):
        go_on = threading.Event()
        self.addCleanup(go_on.set)

        def handler(connection):
            upgrade(connection)
            go_on.wait()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        server = self.serve(handler)
        driver = self.drive("websocket-driver", "--ca", certs("ca.pem"), server.address, server.port, "localhost", "/ws")
        driver.tell("connect")
        driver.wait("open")
        driver.tell("fill 400 65536")
        driver.ask("unsent")
        go_on.set()
        self.assertRegex(driver.wait("closed"), "why=(Connection reset by peer|Broken pipe)")


if __name__ == "__main__":
    unittest.main()
