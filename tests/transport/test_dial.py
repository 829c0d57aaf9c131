"""The dial room: several addresses raced, the good one remembered, and what proxies answer; also as the WebSocket and the token requests use it."""

import base64
import os
import re
import socket
import tempfile
import time
import unittest

from transport import EdgeTest, certs, dead_port, port_everywhere, read_request, stay, upgrade

LONG_MS = 60000  # the time of an address in tests that a wait for it would break
SOON_S = 40      # ... and how soon they have to be over


class BlackHole:
    """Connections to it are neither made nor refused: its queue is full."""

    def __init__(self, address, port=0):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.sockets = [socket.socket(family)]
        self.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sockets[0].bind((address, port))
        self.sockets[0].listen(0)
        self.port = self.sockets[0].getsockname()[1]
        for _ in range(4):
            s = socket.socket(family)
            s.setblocking(False)
            s.connect_ex((address, self.port))
            self.sockets.append(s)

    def end(self):
        for s in self.sockets:
            s.close()


class DialTest(EdgeTest):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.file("resolv.conf", f"nameserver 127.0.0.1:{dead_port()}\n")

    def file(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        return path

    def addresses(self, *addresses):
        """From now on they are those of many.test."""
        self.file("hosts", "".join(f"{address} many.test\n" for address in addresses))

    def dialer(self, port, *options, timeout=LONG_MS, host="many.test"):
        return self.drive("dial-driver", "--timeout", timeout, *options, os.path.join(self.folder, "resolv.conf"),
                          os.path.join(self.folder, "hosts"), host, port)

    def black_hole(self, address, port=0):
        hole = BlackHole(address, port or port_everywhere())
        self.addCleanup(hole.end)
        return hole

    def good(self, address, handler=stay, **options):
        return self.serve(handler, tls=False, address=address, **options)


class Racing(DialTest):
    def connected(self, driver, address):
        """It is connected there, long before the time of a black hole is over."""
        self.assertEqual(driver.wait("connected", within=SOON_S).split()[0], address)

    def test_one(self):
        self.addresses("127.0.0.2")
        driver = self.dialer(self.good("127.0.0.2").port)
        driver.tell("dial")
        self.connected(driver, "127.0.0.2")

    def test_the_first_is_a_black_hole(self):
        self.addresses("127.0.0.2", "127.0.0.3")
        hole = self.black_hole("127.0.0.2")
        driver = self.dialer(self.serve(stay, tls=False, address="127.0.0.3", port=hole.port).port)
        driver.tell("dial")
        self.connected(driver, "127.0.0.3")

    def test_ipv6_is_a_black_hole(self):
        self.addresses("::1", "127.0.0.3")
        hole = self.black_hole("::1")
        driver = self.dialer(self.serve(stay, tls=False, address="127.0.0.3", port=hole.port).port)
        driver.tell("dial")
        self.connected(driver, "127.0.0.3")

    def test_ipv4_is_a_black_hole(self):
        self.addresses("::1", "127.0.0.3")
        hole = self.black_hole("127.0.0.3")
        driver = self.dialer(self.serve(stay, tls=False, address="::1", port=hole.port).port)
        driver.tell("dial")
        self.connected(driver, "::1")

    def test_refused_and_good(self):
        """A failure starts the next one at once."""
        self.addresses("127.0.0.2", "127.0.0.4", "127.0.0.3")
        server = self.good("127.0.0.3")
        driver = self.dialer(server.port)
        driver.tell("dial")
        self.connected(driver, "127.0.0.3")

    def test_no_route_and_good(self):
        self.addresses("255.255.255.255", "fe80::1", "127.0.0.3")
        driver = self.dialer(self.good("127.0.0.3").port)
        driver.tell("dial")
        self.connected(driver, "127.0.0.3")

    def test_many_black_holes(self):
        """More than are tried at once: the oldest gives its place."""
        holes = [f"127.0.1.{i}" for i in range(1, 16)]
        self.addresses(*holes, "127.0.0.3")
        port = self.good("127.0.0.3").port
        for hole in holes:
            self.black_hole(hole, port)
        driver = self.dialer(port)
        driver.tell("dial")
        most = 0
        until = time.monotonic() + SOON_S
        while driver.lines.empty() and time.monotonic() < until:
            most = max(most, sum(name.startswith("socket:") for name in driver.descriptors()))
            time.sleep(0.02)
        self.connected(driver, "127.0.0.3")
        self.assertLessEqual(most, 6)  # four, and those of the loop itself

    def test_all_are_black_holes(self):
        self.addresses("127.0.0.2", "127.0.0.3")
        hole = self.black_hole("127.0.0.2")
        self.black_hole("127.0.0.3", hole.port)
        driver = self.dialer(hole.port, timeout=700)
        driver.tell("dial")
        self.assertEqual(driver.wait("failed"), f"127.0.0.2 port {hole.port}: timed out while connecting; "
                                                f"127.0.0.3 port {hole.port}: timed out while connecting")

    def test_the_time_of_all(self):
        self.addresses("127.0.0.2")
        hole = self.black_hole("127.0.0.2")
        driver = self.dialer(hole.port, "--total", 700)
        driver.tell("dial")
        self.assertEqual(driver.wait("failed", within=SOON_S), f"127.0.0.2 port {hole.port}: timed out while connecting")

    def test_all_refuse(self):
        port = dead_port()
        self.addresses("127.0.0.1", "::1")
        driver = self.dialer(port)
        driver.tell("dial")
        self.assertEqual(driver.wait("failed"), f"127.0.0.1 port {port}: Connection refused; ::1 port {port}: Connection refused")

    def test_no_such_name(self):
        driver = self.dialer(1, host="no..name")
        driver.tell("dial")
        self.assertTrue(driver.wait("failed").startswith("no..name: "))

    def test_the_next_one_when_the_first_is_no_good(self):
        """Also those that were dropped because it was quicker; each is tried once more."""
        self.addresses("127.0.0.2", "127.0.0.3", "127.0.0.4")
        port = self.good("127.0.0.2").port
        self.serve(stay, tls=False, address="127.0.0.3", port=port)
        driver = self.dialer(port)
        driver.tell("dial")
        self.connected(driver, "127.0.0.2")
        driver.tell("next speaks no TLS")
        self.connected(driver, "127.0.0.3")
        driver.tell("next has a wrong certificate")
        self.assertEqual(driver.wait("failed"), f"127.0.0.2 port {port}: speaks no TLS; 127.0.0.3 port {port}: has a wrong certificate; "
                                                f"127.0.0.4 port {port}: Connection refused")

    def test_one_that_was_dropped_is_tried_again(self):
        self.addresses("127.0.0.2", "127.0.0.3")
        hole = self.black_hole("127.0.0.2")
        self.serve(stay, tls=False, address="127.0.0.3", port=hole.port)
        driver = self.dialer(hole.port, timeout=1500)
        driver.tell("dial")
        self.connected(driver, "127.0.0.3")
        driver.tell("next is no good")
        self.assertEqual(driver.wait("failed"), f"127.0.0.3 port {hole.port}: is no good; 127.0.0.2 port {hole.port}: timed out while connecting")

    def test_giving_up(self):
        self.addresses("127.0.0.2", "127.0.0.3")
        port = self.good("127.0.0.2").port
        driver = self.dialer(port)
        driver.tell("dial")
        self.connected(driver, "127.0.0.2")
        driver.tell("giveup says no")
        self.assertEqual(driver.wait("failed"), f"127.0.0.2 port {port}: says no")

    def test_the_share_of_one_address(self):
        """With another one to try, no more than half of the time of all."""
        self.addresses("127.0.0.2", "127.0.0.3")
        port = self.good("127.0.0.2").port
        driver = self.dialer(port, "--total", 40000, timeout=40000)
        driver.tell("dial")
        self.assertLessEqual(int(driver.wait("connected").split()[1]), 20000)
        self.addresses("127.0.0.2")
        driver.tell("dial")
        self.assertGreater(int(driver.wait("connected").split()[1]), 20000)


class Remembering(DialTest):
    def dial(self, driver):
        driver.tell("dial")
        address = driver.wait("connected", within=SOON_S).split()[0]
        driver.tell("good")
        return address

    def setUp(self):
        super().setUp()
        self.addresses("127.0.0.2", "127.0.0.3")
        self.hole = self.black_hole("127.0.0.2")
        self.server = self.serve(stay, tls=False, address="127.0.0.3", port=self.hole.port)
        self.driver = self.dialer(self.hole.port)
        self.assertEqual(self.dial(self.driver), "127.0.0.3")

    def test_the_good_one_is_tried_first(self):
        """Although the other one is good as well by now, and is the name's first."""
        self.hole.end()
        self.serve(stay, tls=False, address="127.0.0.2", port=self.hole.port)
        for _ in range(3):
            self.assertEqual(self.dial(self.driver), "127.0.0.3")

    def test_a_socket_alone_is_not_good(self):
        """Only what its user says counts: an address that speaks no TLS is not remembered."""
        self.hole.end()
        self.serve(stay, tls=False, address="127.0.0.2", port=self.hole.port)
        self.driver.tell("dial")
        self.driver.wait("connected")
        self.driver.tell("next is no good")
        self.assertEqual(self.driver.wait("connected").split()[0], "127.0.0.2")
        self.driver.tell("dial")
        self.assertEqual(self.driver.wait("connected").split()[0], "127.0.0.2")  # 127.0.0.3 is forgotten

    def test_it_has_become_a_black_hole(self):
        self.hole.end()
        self.server.end()
        self.black_hole("127.0.0.3", self.hole.port)
        self.serve(stay, tls=False, address="127.0.0.2", port=self.hole.port)
        self.assertEqual(self.dial(self.driver), "127.0.0.2")

    def test_it_is_no_longer_an_answer(self):
        self.hole.end()
        self.serve(stay, tls=False, address="127.0.0.2", port=self.hole.port)
        self.addresses("127.0.0.2")
        self.assertEqual(self.dial(self.driver), "127.0.0.2")


class Ending(DialTest):
    def test_freed_anywhere(self):
        self.addresses("127.0.0.2", "127.0.0.3")
        hole = self.black_hole("127.0.0.2")
        server = self.serve(stay, tls=False, address="127.0.0.3", port=hole.port)
        driver = self.dialer(server.port)
        driver.tell("dial\nfree", "dial\nbeats\nfree")
        for event in ("freed", "beats", "freed"):
            driver.wait(event)
        driver.tell("when connected free", "dial")
        driver.wait("connected")
        driver.wait("freed")
        driver.tell("when connected next is no good", "when failed free", "dial")
        hole.end()
        driver.wait("connected")
        driver.wait("failed")
        driver.wait("freed")
        self.assertEqual([name for name in driver.descriptors() if "TCP" in name], [])
        driver.ask("beats")

    def test_no_descriptor_is_left(self):
        self.addresses("127.0.0.2", "127.0.0.4", "127.0.0.3")
        hole = self.black_hole("127.0.0.2")
        self.serve(stay, tls=False, address="127.0.0.3", port=hole.port)
        driver = self.dialer(hole.port)
        before = None
        for _ in range(5):
            driver.tell("dial")
            driver.wait("connected")
            driver.tell("free")
            driver.wait("freed")
            before = before or driver.descriptors()
        self.assertEqual(driver.descriptors(), before)


LOGIN = "hush user:hush:pass word"


def proxy_head(connection):
    head = read_request(connection)
    assert head.startswith("CONNECT hpkv.test:4321 HTTP/1.1\r\n"), head
    return head


class Proxies(DialTest):
    def ask(self, handler, *options, login=None, **more):
        """What comes of it: "connected", or why not."""
        proxy = self.good("127.0.0.1", handler)
        driver = self.dialer(4321, *options, "--proxy", "127.0.0.1", proxy.port, *(["--proxy-login", login] if login else []),
                             host="hpkv.test", **more)
        driver.tell("dial")
        line = driver.line("the end of the dialogue", SOON_S)
        self.assertNotIn("hush", line + "\n".join(driver.log))
        said = line.removeprefix(f"failed 127.0.0.1 port {proxy.port}: ")
        return "connected" if line.startswith("connected ") else said

    def answering(self, answer, *options, **more):
        return self.ask(lambda c: (proxy_head(c), c.sendall(answer), stay(c)), *options, **more)

    def test_any_2xx(self):
        for answer in (b"HTTP/1.1 200 Connection established\r\n\r\n", b"HTTP/1.0 200 OK\r\nVia: x\r\n\r\n", b"HTTP/1.1 201 Created\r\n\r\n",
                       b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 299 \r\n\r\n", b"HTTP/1.1 200\r\n\r\n",
                       b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"):
            with self.subTest(answer=answer):
                self.assertEqual(self.answering(answer), "connected")

    def test_byte_by_byte(self):
        def handler(connection):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            proxy_head(connection)
            for byte in b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n":
                connection.sendall(bytes([byte]))
                time.sleep(0.002)
            stay(connection)

        self.assertEqual(self.ask(handler), "connected")

    def test_nothing_is_read_behind_the_head(self):
        """The tunnel's own first bytes, together with the head, are left for whoever uses it."""
        seen = []

        def handler(connection):
            proxy_head(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            seen.append(connection.recv(6))
            stay(connection)

        proxy = self.good("127.0.0.1", handler)
        driver = self.dialer(4321, "--proxy", "127.0.0.1", proxy.port, host="hpkv.test")
        driver.tell("when connected hello", "dial")
        driver.wait("connected")
        for _ in range(2000):
            if seen:
                break
            time.sleep(0.01)
        self.assertEqual(seen, [b"hello\n"])

    def test_refusals(self):
        for answer, why in ((b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\n\r\n",
                             "407 (Proxy Authentication Required): it wants credentials, see proxy_credentials_file"),
                            (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 1000000\r\n\r\n<html>", "403 (Forbidden)"),
                            (b"HTTP/1.1 502 Bad Gateway\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "502 (Bad Gateway)"),
                            (b"HTTP/1.1 503 No\x1b[31m\xff\r\n\r\n", "503 (No?[31m?)"), (b"HTTP/1.1 500\r\n\r\n", "500"),
                            (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", "302 (Found)"),
                            (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "101 (Switching Protocols)"),
                            (b"HTTP/1.1 404 " + b"x" * 1000 + b"\r\n\r\n", "404 (" + "x" * 60 + ")")):
            with self.subTest(answer=answer[:40]):
                self.assertEqual(self.answering(answer), "the proxy answered " + why)

    def test_it_speaks_for_all_its_addresses(self):
        self.addresses("127.0.0.2", "127.0.0.3")
        proxy = self.good("127.0.0.2", lambda c: (proxy_head(c), c.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n"), stay(c)))
        self.serve(lambda c: (proxy_head(c), c.sendall(b"HTTP/1.1 200 OK\r\n\r\n"), stay(c)), tls=False, address="127.0.0.3", port=proxy.port)
        driver = self.dialer(4321, "--proxy", "many.test", proxy.port, host="hpkv.test")
        driver.tell("dial")
        self.assertEqual(driver.wait("failed"), f"127.0.0.2 port {proxy.port}: the proxy answered 403 (Forbidden)")

    def test_its_addresses_are_raced(self):
        self.addresses("127.0.0.2", "127.0.0.3", "127.0.0.4")
        hole = self.black_hole("127.0.0.2")
        self.serve(lambda c: proxy_head(c), tls=False, address="127.0.0.3", port=hole.port)  # hangs up
        self.serve(lambda c: (proxy_head(c), c.sendall(b"HTTP/1.1 200 OK\r\n\r\n"), stay(c)), tls=False, address="127.0.0.4", port=hole.port)
        driver = self.dialer(4321, "--proxy", "many.test", hole.port, host="hpkv.test")
        driver.tell("dial")
        self.assertEqual(driver.wait("connected", within=SOON_S).split()[0], "127.0.0.4")

    def test_answers_that_are_none(self):
        for answer in (b"SSH-2.0-OpenSSH_9\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"HTTP/2 200 OK\r\n\r\n\r\n" * 3, b"\r\n\r\n"):
            with self.subTest(answer=answer):
                self.assertRegex(self.ask(lambda c, a=answer: (proxy_head(c), c.sendall(a))), "^the proxy('s answer is not HTTP| closed .*)$")

    def test_answers_of_another_protocol(self):
        for answer in (b"HTTP/2 200 OK\r\n\r\n", b"HTTP/1.1 2000 OK\r\n\r\n", b"HTTP/3.1 407 No\r\n\r\n"):
            with self.subTest(answer=answer):
                self.assertEqual(self.answering(answer), "the proxy's answer is not HTTP")

    def test_it_ends_early(self):
        for answer in (b"", b"HTT", b"HTTP/1.1 200 OK\r\nVia: x\r\n", b"HTTP/1.1 200"):
            with self.subTest(answer=answer):
                self.assertRegex(self.ask(lambda c, a=answer: (proxy_head(c), c.sendall(a))), "^the proxy closed the connection")

    def test_silence(self):
        for answer in (b"", b"HTTP/1.1 200 OK\r\nVia: x\r\n"):
            with self.subTest(answer=answer):
                self.assertEqual(self.answering(answer, timeout=700), "the proxy did not answer in time")
                self.assertEqual(self.answering(answer, "--total", 700), "the proxy did not answer in time")

    def test_a_huge_head(self):
        for answer in (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10000, b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100000, b"x" * 100000):
            with self.subTest(answer=answer[:30]):
                self.assertEqual(self.answering(answer), "the proxy's answer is too long")

    def checking(self, connection):
        """A proxy that knows who may pass."""
        said = re.search(r"^Proxy-Authorization: Basic (\S+)\r$", proxy_head(connection), re.M | re.I)
        if said and base64.b64decode(said.group(1)).decode() == LOGIN:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n")
        stay(connection)

    def test_credentials(self):
        self.assertEqual(self.ask(self.checking, login=LOGIN), "connected")
        self.assertEqual(self.ask(self.checking, login="hush:wrong"),
                         "the proxy answered 407 (Proxy Authentication Required): it does not take our credentials")
        self.assertIn("it wants credentials", self.ask(self.checking))

    def test_freed_within_the_dialogue(self):
        reached = []
        proxy = self.good("127.0.0.1", lambda c: (proxy_head(c), reached.append(1), c.sendall(b"HTTP/1.1 2"), stay(c)))
        driver = self.dialer(4321, "--proxy", "127.0.0.1", proxy.port, host="hpkv.test")
        driver.tell("dial")
        while not reached:
            time.sleep(0.01)
        driver.tell("free")
        driver.wait("freed")
        driver.ask("beats")
        self.assertEqual([name for name in driver.descriptors() if "TCP" in name], [])


class Users(DialTest):
    """localhost has two addresses. Of the first, 127.0.0.1, it is told below what is wrong with it; on ::1 is the service."""

    def first(self, handler=None, cert="server", tls=True):
        """The port of both. handler: of the first one; None: it is a black hole."""
        if handler:
            return self.serve(handler, tls=tls, cert=cert).port
        return self.black_hole("127.0.0.1").port

    def websocket(self, port):
        self.serve(lambda c: (upgrade(c), stay(c)), address="::1", port=port)
        driver = self.drive("websocket-driver", "--ca", certs("ca.pem"), "--timeout", LONG_MS, "localhost", port, "localhost", "/ws")
        driver.tell("connect")
        return driver

    def token(self, port):
        def answer(connection):
            read_request(connection)
            connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"token":"t.k"}')
            stay(connection)

        self.serve(answer, address="::1", port=port)
        driver = self.drive("token-client-driver", "--ca", certs("ca.pem"), "--timeout", 8000, "localhost", port)
        driver.tell("mint a key - []")
        self.assertIn("token=t.k", driver.wait("done"))

    def test_websocket_with_a_black_hole(self):
        self.websocket(self.first()).wait("open", within=SOON_S)

    def test_token_with_a_black_hole(self):
        self.token(self.first())

    def test_token_without_tls(self):
        """The first one accepts and never speaks: half of the time is left for the second."""
        self.token(self.first(stay, tls=False))

    def test_token_with_a_wrong_certificate(self):
        self.token(self.first(stay, cert="wrong"))

    def test_token_that_is_hung_up_on(self):
        self.token(self.first(lambda c: c.recv(1), tls=False))

    def twice(self, first, second):
        """Which of the two gets the first, which the next token request."""
        asked = []

        def served(name, do):
            return lambda c: (read_request(c), asked.append(name), do(c))

        port = self.first(served("first", first))
        self.serve(served("second", second), address="::1", port=port)
        driver = self.drive("token-client-driver", "--ca", certs("ca.pem"), "--timeout", 8000, "localhost", port)
        for name in ("a", "b"):
            driver.tell(f"mint {name} key - []")
            driver.wait("done")
        return asked

    def answer(self, connection, head=b"200 OK"):
        connection.sendall(b"HTTP/1.1 " + head + b'\r\nContent-Length: 15\r\n\r\n{"token":"t.k"}')
        stay(connection)

    def test_the_next_token_request_goes_elsewhere(self):
        """After one that was sent in vain."""
        for vain in (stay, lambda c: c.close(), lambda c: self.answer(c, b"503 Down")):
            self.assertEqual(self.twice(vain, self.answer), ["first", "second"])

    def test_the_next_token_request_stays_where_the_last_was_answered(self):
        self.assertEqual(self.twice(self.answer, self.answer), ["first", "first"])

    def test_tokens_remember_the_good_address(self):
        """The first one hangs in TLS; the second request does not wait for it again."""
        asked = []
        port = self.first(lambda c: (asked.append(c), stay(c)), tls=False)

        def answer(connection):
            read_request(connection)
            connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\nConnection: close\r\n\r\n{"token":"t.k"}')

        self.serve(answer, address="::1", port=port)
        driver = self.drive("token-client-driver", "--ca", certs("ca.pem"), "--timeout", 8000, "localhost", port)
        driver.tell("mint a key - []")
        self.assertIn("token=t.k", driver.wait("done"))
        driver.tell("mint b key - []")
        self.assertIn("token=t.k", driver.wait("done"))
        self.assertEqual(len(asked), 1)

    def test_a_token_request_is_not_sent_twice(self):
        """Once the first one has it, its fate is not known: the second one does not get it."""
        port = self.first(lambda c: (read_request(c), c.close()))
        asked = []
        self.serve(lambda c: asked.append(read_request(c)), address="::1", port=port)
        driver = self.drive("token-client-driver", "--ca", certs("ca.pem"), "localhost", port)
        driver.tell("mint a key - []")
        self.assertIn("token=-", driver.wait("done"))
        self.assertEqual(asked, [])


if __name__ == "__main__":
    unittest.main()
