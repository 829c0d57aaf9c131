"""How a link ends: for every way of the service to fail, one call with a reason that a person can act upon."""

import re
import socket
import ssl
import struct
import threading
import time
import unittest
from email.utils import formatdate

from edges import (PATIENCE_S, EdgeTest, answer_101, certs, close_frame, dead_port, frame, read_frame, read_request, stay,
                   upgrade)


class EndTest(EdgeTest):
    def end_of(self, server, *options, host="localhost", ca="ca.pem", address=None, port=None):
        """Connects and returns what closed() told, as a dictionary of texts; nothing follows it."""
        plain = server is not None and not server.tls and "--tls" not in options
        how = ["--plain"] if plain else ["--ca", certs(ca)]
        driver = self.drive("link-driver", *how, *[o for o in options if o != "--tls"], address or server.address,
                            port or server.port, host, "/ws?apiKey=hush-hush")
        driver.tell("connect")
        line = driver.lines.get(timeout=30)
        while line is not None and not line.startswith("closed"):
            line = driver.lines.get(timeout=30)
        self.assertIsNotNone(line)
        driver.ask("gap")  # and no second one
        driver.tell("free")
        driver.wait("freed")
        self.assertNotIn("hush", line + "\n".join(driver.log))
        return dict(re.findall(r"(\w+)=((?<=why=).*|\S+)", line))


class BeforeItIsOpen(EndTest):
    def test_refused(self):
        for address in ("127.0.0.1", "::1"):
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
        end = self.end_of(self.serve(lambda c: (read_request(c), stay(c))), "--timeout", "3000")
        self.assertEqual(end["why"], "timed out waiting for the upgrade to be answered")

    def test_half_an_answer(self):
        end = self.end_of(self.serve(lambda c: (read_request(c), c.sendall(b"HTTP/1.1 101 Swi"), stay(c))), "--timeout", "3000")
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

    def test_refused_upgrades(self):
        for status in (200, 302, 400, 401, 403, 404, 429, 500, 503):
            with self.subTest(status=status):
                answer = f"HTTP/1.1 {status} No\r\nLocation: /elsewhere\r\nContent-Length: 4\r\n\r\nnope".encode()
                end = self.end_of(self.serve(lambda c, a=answer: (read_request(c), c.sendall(a), stay(c))))
                self.assertEqual((end["open"], end["status"], end["retry"]), ("0", str(status), "-1"))
                self.assertEqual(end["why"], f"the upgrade was answered with HTTP status {status}")

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
                end = self.end_of(self.serve(lambda c, a=answer: (read_request(c), c.sendall(a))), "--timeout", "3000")
                self.assertRegex(end["why"], why)
                self.assertEqual(end["open"], "0")

    def test_an_extension_that_was_not_offered(self):
        def handler(connection):
            head = read_request(connection)
            connection.sendall(answer_101(head, "Sec-WebSocket-Extensions: permessage-deflate\r\n"))
            stay(connection)

        self.assertIn("extension that was not offered", self.end_of(self.serve(handler))["why"])


class AfterItWasOpen(EndTest):
    def test_close_codes(self):
        for code in (1000, 1001, 1008, 1011, 4000, 4999):
            with self.subTest(code=code):
                replies = []

                def handler(connection, code=code, replies=replies):
                    upgrade(connection)
                    connection.sendall(close_frame(code))
                    replies.append(read_frame(connection))

                server = self.serve(handler)
                end = self.end_of(server)
                self.assertEqual((end["open"], end["code"]), ("1", str(code)))
                self.assertEqual(end["why"], f"the service closed it with code {code}")
                for thread in server.threads[1:]:
                    thread.join()
                self.assertEqual(replies, [(8, struct.pack("!H", code))])

    def test_close_without_a_code(self):
        end = self.end_of(self.serve(lambda c: (upgrade(c), c.sendall(frame(b"", opcode=8)), stay(c))))
        self.assertEqual((end["open"], end["code"]), ("1", "1005"))

    def test_end_without_a_close_frame(self):
        for tls in (True, False):
            with self.subTest(tls=tls):
                end = self.end_of(self.serve(upgrade, tls=tls))
                self.assertEqual((end["open"], end["code"]), ("1", "0"))
                self.assertEqual(end["why"], "the service closed the connection without a close frame")

    def test_end_within_a_frame(self):
        end = self.end_of(self.serve(lambda c: (upgrade(c), c.sendall(frame("x" * 1000)[:500]))))
        self.assertEqual(end["why"], "the service closed the connection without a close frame")

    def test_reset(self):
        for tls in (True, False):
            with self.subTest(tls=tls):
                def handler(connection):
                    upgrade(connection)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

                self.assertEqual(self.end_of(self.serve(handler, tls=tls))["why"], "Connection reset by peer")

    def test_broken_frames(self):
        for name, data in (("reserved bits", frame("x", reserved=4)), ("opcode 3", frame("x", opcode=3)),
                           ("opcode 11", frame("x", opcode=11)), ("long ping", frame("x" * 200, opcode=9)),
                           ("fragmented ping", frame("x", opcode=9, final=False)),
                           ("continuation of nothing", frame("x", opcode=0)),
                           ("text within a message", frame("a", final=False) + frame("b")),
                           ("length of 2^63", b"\x81\x7f\x80" + b"\0" * 7)):
            for tls in (True, False):
                with self.subTest(name=name, tls=tls):
                    end = self.end_of(self.serve(lambda c, d=data: (upgrade(c), c.sendall(d), stay(c)), tls=tls))
                    self.assertEqual(end["why"], "the service sent a frame that breaks the WebSocket protocol")
                    self.assertEqual(end["open"], "1")

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
        driver = self.drive("link-driver", "--ca", certs("ca.pem"), server.address, server.port, "localhost", "/ws")
        driver.tell("connect")
        driver.wait("open")
        driver.tell("fill 400 65536")
        driver.ask("unsent")
        go_on.set()
        self.assertRegex(driver.wait("closed"), "why=(Connection reset by peer|Broken pipe)")


if __name__ == "__main__":
    unittest.main()
