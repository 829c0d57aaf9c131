"""The resolver room against a small name server: both families, the hosts file, slow, mute and lying servers."""

import contextlib
import ctypes
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import unittest

from transport import EdgeTest, dead_port, eventually

A, AAAA = 1, 28
OK, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 2, 3, 4, 5
CLONE_NEWNET = 0x40000000


class NameServer:
    """Answers questions from a table: (name, type) -> list of addresses, a code, the answer's bytes behind its ident, or None to stay silent.

    It answers over UDP and over TCP; over UDP only that the answer is truncated if it is told so for this type."""

    def __init__(self, table, address="127.0.0.1", scope=0, truncated=(), tcp=True, edns=True, split=False):
        self.table = table
        self.truncated = truncated
        self.edns = edns    # False: questions with EDNS are answered with a format error, as old servers do
        self.split = split  # TCP answers come byte by byte
        self.asked = []     # (name, type)
        self.packets = []   # (over TCP?, what was asked)
        self.held = []      # answers to send later: see release()
        self.hold = set()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        where = (address, 0, 0, scope) if ":" in address else (address, 0)
        self.listener = None
        for _ in range(100):
            self.socket = socket.socket(family, socket.SOCK_DGRAM)
            self.socket.bind(where)
            self.port = self.socket.getsockname()[1]
            if not tcp:
                break
            try:
                self.listener = socket.create_server((address, self.port), family=family) if not scope else self._listen(address, scope)
                break
            except OSError as error:  # the port is another's for TCP
                self.socket.close()
                refused = error
        else:
            raise refused
        self.connections = []
        self.threads = []
        self._start(self._run)
        if self.listener:
            self._start(self._accept)

    def _listen(self, address, scope):
        listener = socket.socket(socket.AF_INET6)
        listener.bind((address, self.port, 0, scope))
        listener.listen()
        return listener

    def _start(self, *what):
        self.threads.append(threading.Thread(target=what[0], args=what[1:], daemon=True))
        self.threads[-1].start()

    def _run(self):
        while True:
            packet, peer = self.socket.recvfrom(4096)
            if packet == b"end":
                return
            kind = self._question(packet)[1]
            answer = self._reply(packet, False)
            if answer and kind in self.hold:
                self.held.append((answer, peer))
            elif answer:
                self.socket.sendto(answer, peer)

    def _accept(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            self.connections.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection):
        stream = connection.makefile("rb")
        try:
            while head := stream.read(2):
                answer = self._reply(stream.read(struct.unpack("!H", head)[0]), True)
                data = struct.pack("!H", len(answer)) + answer if answer else b""
                for i in range(0, len(data), 1 if self.split else len(data)):
                    connection.sendall(data[i:i + 1] if self.split else data)
        except OSError:
            pass  # who asked has gone
        finally:
            stream.close()
            connection.close()

    def _reply(self, packet, tcp):
        name, kind, question = self._question(packet)
        self.asked.append((name, kind))
        self.packets.append((tcp, packet))
        if not self.edns and packet[10:12] != b"\0\0":
            return packet[:2] + struct.pack("!HHHHH", 0x8181, 1, 0, 0, 0) + question
        if not tcp and kind in self.truncated:
            return packet[:2] + struct.pack("!HHHHH", 0x8380, 1, 0, 0, 0) + question
        return self._answer(packet[:2], question, kind, self.table.get((name, kind), NXDOMAIN))

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
        with socket.socket(self.socket.family, socket.SOCK_DGRAM) as s:
            s.sendto(b"end", self.socket.getsockname())
        if self.listener:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self.threads:
            thread.join(10)
        self.socket.close()


class ResolverTest(EdgeTest):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.servers = []

    def file(self, name, text):
        path = os.path.join(self.folder.name, name)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        return path

    def name_server(self, table, *args, **options):
        server = NameServer(table, *args, **options)
        self.servers.append(server)
        self.addCleanup(server.end)
        return server

    def resolver(self, server=None, hosts="", conf=None, options="timeout:3 attempts:1"):
        if conf is None:
            conf = f"nameserver 127.0.0.1:{server.port if server else dead_port()}\noptions {options}\n"
        return self.drive("resolver-driver", self.file("resolv.conf", conf), self.file("hosts", hosts))

    def answer(self, driver, host, timeout=20000):
        driver.tell(f"ask q {host} {timeout}")
        driver.wait("asked")  # never before: done is not called from within
        return driver.wait("done").removeprefix("q").strip()

    def assert_answer(self, expected, driver, host, timeout=20000):
        """One family's answer is not waited for long when the other's is there, and a name server may stand still: not each time."""
        found = []
        while expected not in found:
            self.assertLess(len(found), 5, (expected, found, [server.packets for server in self.servers]))
            found.append(self.answer(driver, host, timeout))

    def until_asked(self, server, n):
        if not eventually(lambda: len(server.asked) >= n):
            self.fail("the name server was not asked")

    @contextlib.contextmanager
    def own_network(self):
        """This thread, and what it starts, in a network of its own, which has nothing but lo."""
        if os.geteuid():
            self.skipTest("a network of its own takes root")
        if not shutil.which("ip"):
            self.skipTest("there is no command ip")
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net", encoding="ascii") as former:
            if libc.unshare(CLONE_NEWNET):
                self.skipTest("no network of its own: " + os.strerror(ctypes.get_errno()))
            try:
                subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
                yield
            finally:
                self.doCleanups()
                libc.setns(former.fileno(), CLONE_NEWNET)


class WithoutANameServer(ResolverTest):
    def test_numeric(self):
        driver = self.resolver()
        for host, answer in (("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("2001:DB8:0::0:1", "2001:db8::1"), ("0.0.0.0", "0.0.0.0"),
                             ("fe80::1%lo", "fe80::1%lo"), ("FE80::1%1", "fe80::1%lo")):
            self.assert_answer(answer, driver, host)

    def test_localhost(self):
        driver = self.resolver(hosts="1.2.3.4 localhost\n")
        for host in ("localhost", "LocalHost", "localhost.", "sandbox.localhost"):
            self.assert_answer("127.0.0.1 ::1", driver, host)

    def test_hosts(self):
        driver = self.resolver(hosts="# comment\n10.0.0.1 other a.test\n\n  2001:db8::7\tA.Test b.test # c.test\n"
                                     "10.0.0.2 a.test\nnonsense a.test\n10.0.0.1 a.test\n10.9.9.9\nfe80::2%lo link.test\n"
                                     "fe80::2%nosuchif link.test\n")
        self.assert_answer("10.0.0.1 2001:db8::7 10.0.0.2", driver, "a.test")
        self.assert_answer("10.0.0.1 2001:db8::7 10.0.0.2", driver, "a.test.")
        self.assert_answer("fe80::2%lo", driver, "link.test")
        self.assert_answer("2001:db8::7", driver, "B.TEST")

    def test_more_than_fit(self):
        driver = self.resolver(hosts="".join(f"10.0.0.{i} many.test\n2001:db8::{i:x} many.test\n" for i in range(1, 60)))
        answer = self.answer(driver, "many.test").split()
        self.assertEqual(len(answer), 64)
        self.assertEqual(answer[:4], ["10.0.0.1", "2001:db8::1", "10.0.0.2", "2001:db8::2"])

    def test_no_files(self):
        driver = self.drive("resolver-driver", "/nonexistent/resolv.conf", "/nonexistent/hosts")
        self.assertIn("why=", self.answer(driver, "a.test", 300))
        self.assert_answer("127.0.0.1 ::1", driver, "localhost")

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
        self.assert_answer("10.0.0.1 2001:db8::1 10.0.0.2 10.0.0.3", self.resolver(server), "a.test")
        self.assertEqual({kind for _, kind in server.asked}, {A, AAAA})

    def test_one_family(self):
        server = self.name_server({("four.test", A): ["10.0.0.1"], ("four.test", AAAA): [], ("six.test", AAAA): ["2001:db8::1"]})
        driver = self.resolver(server)
        self.assert_answer("10.0.0.1", driver, "four.test")
        self.assert_answer("2001:db8::1", driver, "six.test")

    def test_failures(self):
        for code, why in ((NXDOMAIN, "there is no such name"), (SERVFAIL, "the name server failed"), (NOTIMP, "the name server failed"),
                          (REFUSED, "the name server refused to answer"), ([], "the name has no address")):
            for truncated in ((), (A, AAAA)):  # over UDP, over TCP
                with self.subTest(why=why, truncated=truncated):
                    server = self.name_server({("a.test", A): code, ("a.test", AAAA): code}, truncated=truncated)
                    self.assert_answer(f"why={why}", self.resolver(server), "a.test")

    def test_one_family_fails(self):
        """The reason that says the most is told, whichever family it is of."""
        for one, two, why in (([], SERVFAIL, "the name server failed"), (REFUSED, [], "the name server refused to answer"),
                              ([], NXDOMAIN, "there is no such name")):
            with self.subTest(why=why):
                server = self.name_server({("a.test", A): one, ("a.test", AAAA): two})
                self.assert_answer(f"why={why}", self.resolver(server), "a.test")
        server = self.name_server({("a.test", A): ["10.0.0.1"], ("a.test", AAAA): SERVFAIL})
        self.assert_answer("10.0.0.1", self.resolver(server), "a.test")

    def test_nobody_listens(self):
        self.assert_answer("why=no name server can be reached", self.resolver(), "a.test")

    def test_lower_case_answers(self):
        """The table answers in lower case, whatever was asked."""
        server = self.name_server({("mixed.test", A): ["10.0.0.1"]})
        self.assert_answer("10.0.0.1", self.resolver(server), "MiXeD.TeSt")

    def test_one_family_is_never_answered(self):
        server = self.name_server({("a.test", A): ["10.0.0.1"], ("a.test", AAAA): None})
        self.assert_answer("10.0.0.1", self.resolver(server), "a.test")

    def test_mute_server(self):
        """It costs the question its time, and the loop nothing."""
        server = self.name_server({("a.test", A): None, ("a.test", AAAA): None})
        driver = self.resolver(server)

        def ask():
            self.assert_answer("why=no name server answered in time", driver, "a.test", 2000)

        self.assert_turns(driver, ask)

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
        self.assert_answer("10.0.0.1", driver, "a.test")
        self.file("resolv.conf", f"nameserver 127.0.0.1:{second.port}\n")
        self.assert_answer("10.0.0.2", driver, "a.test")
        self.file("hosts", "10.0.0.3 a.test\n")
        self.assert_answer("10.0.0.3", driver, "a.test")


class SeveralNameServers(ResolverTest):
    """The first one does not answer as it should; the second one does."""
    GOOD = {("a.test", A): ["10.0.0.1"], ("a.test", AAAA): ["2001:db8::1"]}

    def through(self, first, good=None, timeout=20000):
        good = good or self.name_server(self.GOOD)
        conf = f"nameserver {first}\nnameserver 127.0.0.1:{good.port}\n"
        self.assert_answer("10.0.0.1 2001:db8::1", self.resolver(conf=conf), "a.test", timeout)
        return good

    def second_after(self, what, **options):
        first = self.name_server({("a.test", A): what, ("a.test", AAAA): what}, **options)
        self.through(f"127.0.0.1:{first.port}")
        # It may still have to look at a question that needed no answer any more.
        eventually(lambda: len(first.asked) >= 2)
        self.assertEqual({kind for _, kind in first.asked}, {A, AAAA})

    def test_without_a_route(self):
        with self.own_network():
            for address in ("192.0.2.1", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:53", "fe80::1%lo", "fe80::1"):
                with self.subTest(address=address):
                    self.through(address)

    def test_refused_by_its_host(self):
        self.through(f"127.0.0.1:{dead_port()}")
        self.through(f"[::1]:{dead_port()}")

    def test_silent(self):
        self.second_after(None)

    def test_fails(self):
        self.second_after(SERVFAIL)
        self.second_after(NOTIMP)

    def test_refuses(self):
        self.second_after(REFUSED)

    def test_truncated_and_no_tcp(self):
        self.second_after(["10.9.9.9"], truncated=(A, AAAA), tcp=False)

    def test_truncated_and_tcp_ends(self):
        """It accepts the connection, reads the question and hangs up."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                udp.bind(("127.0.0.1", port))

                def answer():
                    for _ in range(2):
                        packet, peer = udp.recvfrom(4096)
                        udp.sendto(packet[:2] + b"\x83\x80" + packet[4:], peer)

                def hang_up():
                    while True:
                        try:
                            connection = listener.accept()[0]
                        except OSError:
                            return
                        connection.recv(2)
                        connection.close()

                threads = [threading.Thread(target=target, daemon=True) for target in (answer, hang_up)]
                for thread in threads:
                    thread.start()
                self.through(f"127.0.0.1:{port}")
                listener.shutdown(socket.SHUT_RDWR)
                for thread in threads:
                    thread.join(10)

    def test_scope_that_is_none(self):
        self.through("fe80::1%nosuchif")

    def test_words_that_are_no_address(self):
        self.through("ns.example")
        self.through("127.0.0.1:x")
        self.through("[::1")

    def test_all_are_asked(self):
        """With all failing, the reason is what a server said, not that another one was silent."""
        mute = self.name_server({("a.test", A): None, ("a.test", AAAA): None})
        failing = self.name_server({("a.test", A): SERVFAIL, ("a.test", AAAA): SERVFAIL})
        conf = f"nameserver 127.0.0.1:{mute.port}\nnameserver 127.0.0.1:{failing.port}\nnameserver 127.0.0.1:{dead_port()}\n"
        self.assert_answer("why=the name server failed", self.resolver(conf=conf), "a.test", 4000)
        self.assertTrue(mute.asked)
        self.assertTrue(failing.asked)

    def test_three_are_used(self):
        """As many as the C library uses, so that descriptors are bounded."""
        good, fourth = self.name_server(self.GOOD), self.name_server(self.GOOD)
        dead = f"nameserver 127.0.0.1:{dead_port()}\n"
        driver = self.resolver(conf=dead * 2 + f"nameserver 127.0.0.1:{good.port}\n")
        self.assert_answer("10.0.0.1 2001:db8::1", driver, "a.test")
        driver = self.resolver(conf=dead * 3 + f"nameserver 127.0.0.1:{fourth.port}\n")
        self.assert_answer("why=no name server can be reached", driver, "a.test")


class Transport(ResolverTest):
    MANY = [f"10.0.0.{i}" for i in range(1, 100)]

    def test_truncated_answers_are_asked_again_over_tcp(self):
        for split in (False, True):
            with self.subTest(split=split):
                server = self.name_server({("a.test", A): self.MANY, ("a.test", AAAA): ["2001:db8::1"]}, truncated=(A,), split=split)
                self.assert_answer(" ".join([self.MANY[0], "2001:db8::1", *self.MANY[1:63]]), self.resolver(server), "a.test")
                self.assertIn(True, [tcp for tcp, _ in server.packets])

    def test_more_space_is_offered(self):
        """EDNS: an OPT record with the size of a packet that is not split under way."""
        server = self.name_server({("a.test", A): self.MANY[:60], ("a.test", AAAA): []})
        self.assert_answer(" ".join(self.MANY[:60]), self.resolver(server), "a.test")
        for tcp, packet in server.packets:
            self.assertFalse(tcp)
            self.assertEqual(packet[10:12], b"\0\1")
            at = packet.index(b"\0\0\x29", 12)
            self.assertEqual(struct.unpack_from("!H", packet, at + 3)[0], 1232)

    def test_server_that_knows_no_edns(self):
        server = self.name_server({("a.test", A): ["10.0.0.1"], ("a.test", AAAA): []}, edns=False)
        self.assert_answer("10.0.0.1", self.resolver(server), "a.test")

    def test_ipv6(self):
        server = self.name_server({("a.test", A): ["10.0.0.1"], ("a.test", AAAA): []}, address="::1", truncated=(A,))
        driver = self.resolver(conf=f"nameserver [::1]:{server.port}\n")
        self.assert_answer("10.0.0.1", driver, "a.test")

    def test_one_late_server_is_still_heard(self):
        """Its answer counts after the next one was asked as well; c-ares from 1.34 on asks it once more."""
        slow = self.name_server({("a.test", A): ["10.0.0.1"], ("a.test", AAAA): []})
        slow.hold = {A, AAAA}
        mute = self.name_server({("a.test", A): None, ("a.test", AAAA): None})
        driver = self.resolver(conf=f"nameserver 127.0.0.1:{slow.port}\nnameserver 127.0.0.1:{mute.port}\n")
        driver.tell("ask q a.test 30000")
        driver.wait("asked")
        self.until_asked(mute, 2)
        slow.hold = set()
        slow.release()
        self.assertEqual(driver.wait("done"), "q 10.0.0.1")

    def test_server_with_a_scope(self):
        with self.own_network():
            subprocess.run(["ip", "addr", "add", "fe80::1/64", "dev", "lo", "nodad"], check=True)
            index = socket.if_nametoindex("lo")
            server = self.name_server({("a.test", A): ["10.0.0.1"], ("a.test", AAAA): []}, address="fe80::1", scope=index, truncated=(A,))
            for scope in ("lo", index):
                driver = self.resolver(conf=f"nameserver [fe80::1%{scope}]:{server.port}\n")
                self.assert_answer("10.0.0.1", driver, "a.test")


class SearchLists(ResolverTest):
    TABLE = {("db.b.test", A): ["10.0.0.1"], ("db.b.test", AAAA): [], ("x.y", A): ["10.0.0.2"], ("x.y", AAAA): [],
             ("x.y.b.test", A): ["10.0.0.3"], ("x.y.b.test", AAAA): []}

    def search(self, options, host):
        server = self.name_server(self.TABLE)
        driver = self.resolver(conf=f"nameserver 127.0.0.1:{server.port}\nsearch a.test b.test\n{options}")
        # A question may be asked again where the answer is late.
        return self.answer(driver, host), list(dict.fromkeys(name for name, kind in server.asked if kind == A))

    def test_a_name_without_dots(self):
        self.assertEqual(self.search("", "db"), ("10.0.0.1", ["db.a.test", "db.b.test"]))

    def test_a_dot_at_the_end(self):
        self.assertEqual(self.search("", "db."), ("why=there is no such name", ["db"]))

    def test_a_name_with_dots(self):
        self.assertEqual(self.search("", "x.y"), ("10.0.0.2", ["x.y"]))

    def test_ndots(self):
        self.assertEqual(self.search("options ndots:2\n", "x.y"), ("10.0.0.3", ["x.y.a.test", "x.y.b.test"]))

    def test_no_such_name(self):
        self.assertEqual(self.search("", "c.d")[0], "why=there is no such name")


class Cancelling(ResolverTest):
    def test_at_once(self):
        for host in ("localhost", "10.0.0.1", "a.test"):
            driver = self.resolver()
            driver.tell(f"ask q {host} 1000\ncancel q")
            driver.wait("asked")
            driver.wait("cancelled")
            driver.ask("beats")

    def test_while_asking(self):
        server = self.name_server({("a.test", A): None, ("a.test", AAAA): None})
        driver = self.resolver(server)
        driver.tell("ask q a.test 10000")
        driver.wait("asked")
        self.until_asked(server, 2)
        driver.tell("cancel q")
        driver.wait("cancelled")
        driver.ask("beats")

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
        driver.ask("beats")

    def test_late_answer_after_done(self):
        server = self.name_server({("a.test", A): ["10.0.0.1"], ("a.test", AAAA): ["2001:db8::1"]})
        server.hold = {AAAA}
        driver = self.resolver(server)
        self.assert_answer("10.0.0.1", driver, "a.test")
        server.release()
        driver.ask("beats")

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
        said = [driver.line().split()[0] for _ in range(80)]
        self.assertEqual((said.count("done"), said.count("cancelled")), (20, 20))
        driver.ask("beats")
        self.assertTrue(eventually(lambda: driver.descriptors() == before), (before, driver.descriptors()))


if __name__ == "__main__":
    unittest.main()
