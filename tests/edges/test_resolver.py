"""The resolver room against a small name server: both families, the hosts file, slow, mute and lying servers."""

import os
import socket
import struct
import tempfile
import threading
import unittest

from edges import EdgeTest, dead_port

A, AAAA = 1, 28
OK, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5


class NameServer:
    """Answers UDP questions from a table: (name, type) -> list of addresses, a code, or None to stay silent."""

    def __init__(self, table):
        self.table = table
        self.asked = []
        self.held = []  # answers to send later: see release()
        self.hold = set()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while True:
            packet, peer = self.socket.recvfrom(4096)
            if packet == b"end":
                return
            name, kind, question = self._question(packet)
            self.asked.append((name, kind))
            answer = self._answer(packet[:2], question, kind, self.table.get((name, kind), NXDOMAIN))
            if answer and kind in self.hold:
                self.held.append((answer, peer))
            elif answer:
                self.socket.sendto(answer, peer)

    @staticmethod
    def _question(packet):
        labels, at = [], 12
        while packet[at]:
            labels.append(packet[at + 1:at + 1 + packet[at]].decode())
            at += 1 + packet[at]
        return ".".join(labels).lower(), struct.unpack_from("!H", packet, at + 1)[0], packet[12:at + 5]

    @staticmethod
    def _answer(ident, question, kind, what):
        if what is None:
            return None
        if isinstance(what, bytes):
            return ident + what
        code, addresses = (what, []) if isinstance(what, int) else (OK, what)
        records = b""
        for address in addresses:
            data = socket.inet_pton(socket.AF_INET if kind == A else socket.AF_INET6, address)
            records += b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data
        return ident + struct.pack("!HHHHH", 0x8180 | code, 1, len(addresses), 0, 0) + question + records

    def release(self):
        for answer, peer in self.held:
            self.socket.sendto(answer, peer)

    def end(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"end", ("127.0.0.1", self.port))
        self.thread.join(10)
        self.socket.close()


class ResolverTest(EdgeTest):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def file(self, name, text):
        path = os.path.join(self.folder.name, name)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        return path

    def name_server(self, table):
        server = NameServer(table)
        self.addCleanup(server.end)
        return server

    def resolver(self, server=None, hosts="", conf=None, options="timeout:3 attempts:1"):
        if conf is None:
            conf = f"nameserver 127.0.0.1:{server.port if server else dead_port()}\noptions {options}\n"
        return self.drive("resolver-driver", self.file("resolv.conf", conf), self.file("hosts", hosts))

    def answer(self, driver, host, timeout=5000):
        driver.tell(f"ask q {host} {timeout}")
        driver.wait("asked")  # never before: done is not called from within
        return driver.wait("done").removeprefix("q").strip()


class WithoutANameServer(ResolverTest):
    def test_numeric(self):
        driver = self.resolver()
        for host, answer in (("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("2001:DB8:0::0:1", "2001:db8::1"), ("0.0.0.0", "0.0.0.0")):
            self.assertEqual(self.answer(driver, host), answer)

    def test_localhost(self):
        driver = self.resolver(hosts="1.2.3.4 localhost\n")
        for host in ("localhost", "LocalHost", "localhost.", "sandbox.localhost"):
            self.assertEqual(self.answer(driver, host), "127.0.0.1 ::1")

    def test_hosts(self):
        driver = self.resolver(hosts="# comment\n10.0.0.1 other a.test\n\n  2001:db8::7\tA.Test b.test # c.test\n"
                                     "10.0.0.2 a.test\nnonsense a.test\n10.0.0.1 a.test\n10.9.9.9\n")
        self.assertEqual(self.answer(driver, "a.test"), "10.0.0.1 2001:db8::7 10.0.0.2")
        self.assertEqual(self.answer(driver, "B.TEST"), "2001:db8::7")

    def test_more_than_fit(self):
        driver = self.resolver(hosts="".join(f"10.0.0.{i} many.test\n2001:db8::{i:x} many.test\n" for i in range(1, 60)))
        answer = self.answer(driver, "many.test").split()
        self.assertEqual(len(answer), 16)
        self.assertEqual(answer[:4], ["10.0.0.1", "2001:db8::1", "10.0.0.2", "2001:db8::2"])

    def test_no_files(self):
        driver = self.drive("resolver-driver", "/nonexistent/resolv.conf", "/nonexistent/hosts")
        self.assertIn("why=", self.answer(driver, "a.test", 300))
        self.assertEqual(self.answer(driver, "localhost"), "127.0.0.1 ::1")

    def test_broken_files(self):
        for conf in ("", "nonsense\n\0\n", "nameserver\nnameserver x\noptions timeout:x attempts:-1\n", "x" * 100000):
            with self.subTest(conf=conf[:20]):
                driver = self.resolver(conf=conf, hosts="\0\0 a.test\n" + "y" * 100000)
                self.assertIn("why=", self.answer(driver, "b.test", 300))

    def test_names_that_are_none(self):
        driver = self.resolver(self.name_server({}))
        for host in ("a..b", ".", "x" * 64 + ".test", ".".join(["y" * 60] * 5), "%s%n"):
            with self.subTest(host=host[:20]):
                self.assertIn("why=", self.answer(driver, host, 1000))


class WithANameServer(ResolverTest):
    def test_both_families_interleaved(self):
        server = self.name_server({("a.test", A): ["10.0.0.1", "10.0.0.2", "10.0.0.3"], ("a.test", AAAA): ["2001:db8::1"]})
        self.assertEqual(self.answer(self.resolver(server), "a.test"), "10.0.0.1 2001:db8::1 10.0.0.2 10.0.0.3")
        self.assertEqual({kind for _, kind in server.asked}, {A, AAAA})

    def test_one_family(self):
        server = self.name_server({("four.test", A): ["10.0.0.1"], ("four.test", AAAA): [], ("six.test", AAAA): ["2001:db8::1"]})
        driver = self.resolver(server)
        self.assertEqual(self.answer(driver, "four.test"), "10.0.0.1")
        self.assertEqual(self.answer(driver, "six.test"), "2001:db8::1")

    def test_failures(self):
        # A server that fails is asked again, as long as there is time.
        for code, why in ((NXDOMAIN, "the name has no address"), (SERVFAIL, "the name server failed|no name server answered in time"),
                          (REFUSED, "the name server refused to answer"), ([], "the name has no address")):
            with self.subTest(why=why):
                server = self.name_server({("a.test", A): code, ("a.test", AAAA): code})
                self.assertRegex(self.answer(self.resolver(server), "a.test", 3000), f"^why=({why})$")

    def test_nobody_listens(self):
        self.assertIn("why=", self.answer(self.resolver(), "a.test", 2000))

    def test_lower_case_answers(self):
        """The table answers in lower case, whatever was asked."""
        server = self.name_server({("mixed.test", A): ["10.0.0.1"]})
        self.assertEqual(self.answer(self.resolver(server), "MiXeD.TeSt"), "10.0.0.1")

    def test_one_family_is_never_answered(self):
        server = self.name_server({("a.test", A): ["10.0.0.1"], ("a.test", AAAA): None})
        self.assertEqual(self.answer(self.resolver(server), "a.test", 20000), "10.0.0.1")

    def test_mute_server(self):
        """It costs the question its time, and the loop nothing."""
        server = self.name_server({("a.test", A): None, ("a.test", AAAA): None})
        driver = self.resolver(server)

        def ask():
            self.assertEqual(self.answer(driver, "a.test", 2000), "why=no name server answered in time")

        self.assert_no_gap(driver, ask)

    def test_lying_server(self):
        lies = [b"", b"\x81\x80", b"\x81\x80" + b"\xff" * 8, b"\x81\x80\0\1\0\1\0\0\0\0\xc0\x0c\0\1\0\1", b"\xff" * 200,
                b"\x81\x80\0\1\xff\xff\0\0\0\0\1a\4test\0\0\1\0\1\xc0\x0c\0\1\0\1\0\0\0\1\xff\xff"]
        for lie in lies:
            with self.subTest(lie=lie[:12]):
                server = self.name_server({("a.test", A): lie, ("a.test", AAAA): lie})
                self.assertIn("why=", self.answer(self.resolver(server), "a.test", 700))

    def test_changed_files_count_at_once(self):
        first, second = (self.name_server({("a.test", A): [f"10.0.0.{i}"]}) for i in (1, 2))
        driver = self.resolver(first)
        self.assertEqual(self.answer(driver, "a.test"), "10.0.0.1")
        self.file("resolv.conf", f"nameserver 127.0.0.1:{second.port}\n")
        self.assertEqual(self.answer(driver, "a.test"), "10.0.0.2")
        self.file("hosts", "10.0.0.3 a.test\n")
        self.assertEqual(self.answer(driver, "a.test"), "10.0.0.3")


class Cancelling(ResolverTest):
    def test_at_once(self):
        for host in ("localhost", "10.0.0.1", "a.test"):
            driver = self.resolver()
            driver.tell(f"ask q {host} 1000\ncancel q")
            driver.wait("asked")
            driver.wait("cancelled")
            driver.ask("gap")

    def test_while_asking(self):
        server = self.name_server({("a.test", A): None, ("a.test", AAAA): None})
        driver = self.resolver(server)
        driver.tell("ask q a.test 10000")
        driver.wait("asked")
        self.until_asked(server, 2)
        driver.tell("cancel q")
        driver.wait("cancelled")
        driver.ask("gap")

    def test_with_one_answer(self):
        server = self.name_server({("a.test", A): ["10.0.0.1"], ("a.test", AAAA): ["2001:db8::1"]})
        server.hold = {AAAA}
        driver = self.resolver(server)
        driver.tell("ask q a.test 10000")
        driver.wait("asked")
        self.until_asked(server, 2)
        driver.tell("cancel q")
        driver.wait("cancelled")
        server.release()
        driver.ask("gap")

    def test_late_answer_after_done(self):
        server = self.name_server({("a.test", A): ["10.0.0.1"], ("a.test", AAAA): ["2001:db8::1"]})
        server.hold = {AAAA}
        driver = self.resolver(server)
        self.assertEqual(self.answer(driver, "a.test"), "10.0.0.1")
        server.release()
        driver.ask("gap")

    def test_another_from_within(self):
        server = self.name_server({("a.test", A): None, ("a.test", AAAA): None})
        driver = self.resolver(server)
        driver.tell("ask slow a.test 10000", "when done cancel slow", "when done ask next localhost 100", "ask quick 10.0.0.1 100")
        for event in ("asked", "asked", "done", "cancelled", "asked"):
            driver.wait(event)
        self.assertEqual(driver.wait("done"), "next 127.0.0.1 ::1")

    def test_many_and_no_descriptor_is_left(self):
        server = self.name_server({("a.test", A): ["10.0.0.1"], ("a.test", AAAA): []})
        driver = self.resolver(server)
        self.answer(driver, "a.test")
        before = driver.descriptors()
        for i in range(20):
            driver.tell(f"ask x{i} a.test 5000", f"ask y{i} a.test 5000\ncancel y{i}")
        said = [driver.lines.get(timeout=30).split()[0] for _ in range(80)]
        self.assertEqual((said.count("done"), said.count("cancelled")), (20, 20))
        driver.ask("gap")
        self.assertEqual(driver.descriptors(), before)

    def until_asked(self, server, n):
        for _ in range(3000):
            if len(server.asked) >= n:
                return
            threading.Event().wait(0.01)
        self.fail("the name server was not asked")


if __name__ == "__main__":
    unittest.main()
