"""The websocket room over real sockets: connecting, messages both ways, pings, backpressure, freeing it anywhere."""

import contextlib
import os
import re
import signal
import socket
import ssl
import threading
import unittest

import need
from steady import steady
from transport import (PATIENCE_S, EdgeTest, answer_101, certs, checksum, close_frame, dead_port, eventually, frame, read_frame, read_request,
                   recv_exactly, stay, upgrade)


def echo(connection):
    """A service that sends text back, answers pings and closes when asked."""
    upgrade(connection)
    while True:
        opcode, payload = read_frame(connection)
        if opcode == 8:
            connection.sendall(frame(payload, opcode=8))
            return
        connection.sendall(frame(payload, opcode=10 if opcode == 9 else 1))


class LinkTest(EdgeTest):
    def websocket(self, server, *options, path="/ws?apiKey=secret", host="localhost", env=None, at_once=()):
        """at_once: commands for the WebSocket as soon as there is one."""
        how = ["--ca", certs("ca.pem")] if server.tls else ["--plain"]
        driver = self.drive("websocket-driver", *how, *options, server.address, server.port, host, path, env=env)
        driver.tell(*(f"when connected {command}" for command in at_once), "connect")
        return driver

    @staticmethod
    def wait_for(driver, event):
        """The rest of the next line of this event; others are passed over."""
        while (line := driver.line(event)) is not None and line.split(" ", 1)[0] != event:
            pass
        assert line is not None, f"the driver ended instead of {event}: " + "\n".join(driver.log)
        return line

    def opened(self, handler, *options, **more):
        driver = self.websocket(self.serve(handler), *options, **more)
        driver.wait("open")
        return driver


class Connecting(LinkTest):
    def test_message_and_back(self):
        driver = self.opened(echo)
        driver.tell("send hello")
        self.assertEqual(driver.wait("message"), f"5 {checksum(b'hello')} hello")

    def test_without_tls(self):
        driver = self.websocket(self.serve(echo, tls=False))
        driver.wait("open")
        driver.tell("send hello")
        driver.wait("message")
        driver.tell("close 1000")
        self.assertIn("why=closed as asked", driver.wait("closed"))

    def test_tls_versions(self):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with self.subTest(version=version.name):
                driver = self.websocket(self.serve(echo, tls_version=version))
                driver.wait("open")
                driver.tell("send hello")
                driver.wait("message")

    def test_ipv6(self):
        driver = self.websocket(self.serve(echo, address="::1"))
        driver.wait("open")
        driver.tell("send hello")
        driver.wait("message")

    def test_certificate_for_an_address(self):
        self.websocket(self.serve(echo), host="127.0.0.1").wait("open")

    def test_certificate_for_an_ipv6_address(self):
        need.ipv6()
        self.websocket(self.serve(echo, address="::1"), host="::1").wait("open")

    def test_what_the_server_is_told_in_the_handshake(self):
        """The name without its last dot, no address; the one protocol that is spoken."""
        for host, name in (("localhost", "localhost"), ("localhost.", "localhost"), ("127.0.0.1", None), ("::1", None)):
            with self.subTest(host=host):
                names, protocols = [], []

                def handler(connection, protocols=protocols):
                    protocols.append(connection.selected_alpn_protocol())
                    echo(connection)

                server = self.serve(handler)
                server.tls.set_alpn_protocols(["h2", "http/1.1"])
                server.tls.sni_callback = lambda _connection, name, _context, names=names: names.append(name)
                self.websocket(server, host=host).wait("open")
                self.assertEqual((names, protocols), ([name], ["http/1.1"]))

    def test_handshake_byte_by_byte(self):
        def handler(raw):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certs("server.pem"), certs("server.key"))
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context.wrap_bio(incoming, outgoing, server_side=True)

            def step(function, *args):
                while True:
                    try:
                        return function(*args)
                    except ssl.SSLWantReadError:
                        flush()
                        incoming.write(raw.recv(65536))

            def flush():
                for byte in outgoing.read():
                    raw.sendall(bytes([byte]))

            step(tls.do_handshake)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += step(tls.read, 65536)
            tls.write(answer_101(head.decode("latin-1")) + frame("hello"))
            flush()
            stay(raw)

        server = self.serve(handler, tls=False)
        driver = self.drive("websocket-driver", "--ca", certs("ca.pem"), server.address, server.port, "localhost", "/ws")
        driver.tell("connect")
        driver.wait("open")
        self.assertTrue(driver.wait("message").endswith(" hello"))

    def test_request(self):
        heads = []

        def handler(connection):
            heads.append(read_request(connection))
            connection.sendall(answer_101(heads[-1]))
            stay(connection)

        for tls, host, shown in ((True, "localhost", "localhost"), (False, "localhost", "localhost"), (False, "::1", "[::1]")):
            server = self.serve(handler, tls=tls)
            self.websocket(server, path="/some/ws?token=abc", host=host).wait("open")
            key = re.search("Sec-WebSocket-Key: ([A-Za-z0-9+/]{22}==)\r\n", heads[-1]).group(1)
            self.assertEqual(heads[-1], "GET /some/ws?token=abc HTTP/1.1\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n"
                                        f"Host: {shown}:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n")
        self.assertEqual(3, len({re.search("Key: (.*)", head).group(1) for head in heads}))

    def test_request_that_the_kernel_takes_in_pieces(self):
        """The peer has hardly any room, and reads only after a while. What is sent at once goes out behind the request."""
        heads, frames = [], []

        def handler(connection):
            threading.Event().wait(0.3)
            heads.append(read_request(connection))
            connection.sendall(answer_101(heads[-1]))
            frames.append(read_frame(connection))
            connection.sendall(frame("thanks"))
            stay(connection)

        path = "/ws?token=" + "t" * (15000 - 10)
        for tls in (True, False):
            with self.subTest(tls=tls):
                server = self.serve(handler, tls=tls)
                server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
                driver = self.websocket(server, "--room", 1, path=path, at_once=["send hello"])
                self.wait_for(driver, "message")
                self.assertEqual(heads.pop().split("\r\n")[0], f"GET {path} HTTP/1.1")
                self.assertEqual(frames.pop(), (1, b"hello"))

    def test_longest_path(self):
        heads = []

        def handler(connection):
            heads.append(read_request(connection))
            connection.sendall(answer_101(heads[-1]))
            stay(connection)

        path = "/ws?token=" + "t" * (15000 - 10)
        for tls in (True, False):
            with self.subTest(tls=tls):
                self.websocket(self.serve(handler, tls=tls), path=path).wait("open")
                self.assertEqual(heads.pop().split("\r\n")[0], f"GET {path} HTTP/1.1")

    def test_refused_at_once(self):
        server = self.serve(stay, tls=False)
        for path, host, why in (("/" + "t" * 15000, "localhost", "the path is too long"),
                                ("ws", "localhost", "the path is invalid"),
                                ("/ws?token=a b", "localhost", "the path is invalid"),
                                ("/ws", "h" * 254, "the host name is empty, too long or has blanks in it"),
                                ("/ws", "", "the host name is empty, too long or has blanks in it")):
            with self.subTest(path=path[:20], host=host[:20]):
                driver = self.drive("websocket-driver", "--ca", certs("ca.pem"), "127.0.0.1", server.port, host, path)
                driver.tell("connect")
                self.assertTrue(driver.wait("refused").startswith(why))

    def test_environments_proxy_is_ignored(self):
        env = {name: f"http://127.0.0.1:{dead_port()}" for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy")}
        self.websocket(self.serve(echo), env=env).wait("open")

    def test_ca_file_that_is_none(self):
        for path, why in (("/nonexistent", "there is no such file"), (certs("server.key"), "there is no PEM certificate in it"),
                          (os.path.dirname(certs("ca.pem")), "there is no PEM certificate in it")):
            with self.subTest(path=path):
                driver = self.drive("websocket-driver", "--ca", path, "127.0.0.1", 1, "localhost", "/ws")
                self.assertEqual(driver.wait("refused"), why)
                self.assertEqual(driver.process.wait(), 1)
                driver.process.returncode = 0

    def test_two_websockets_at_once(self):
        driver = self.opened(echo)
        driver.tell("use 1", "connect")
        self.assertEqual(driver.wait("open"), "second:")
        driver.tell("send two", "use 0", "send one")
        self.assertEqual({driver.wait("message"), driver.wait("message")},
                         {f"second: 3 {checksum(b'two')} two", f"3 {checksum(b'one')} one"})
        driver.tell("free")
        driver.wait("freed")
        driver.tell("use 1", "send still here")
        driver.wait("message")

    def test_log_has_no_secret(self):
        driver = self.opened(echo, path="/ws?apiKey=hush-hush")
        driver.tell("send x")
        driver.wait("message")
        driver.tell("close 1000")
        driver.wait("closed")
        driver.wait_log("open -> closing")
        driver.wait_log("closing -> down")
        self.assertNotIn("hush", "\n".join(driver.log))


class Receiving(LinkTest):
    def send_after_upgrade(self, data, *options):
        """A service that sends these bytes, in the same packet as the answer to the upgrade."""
        def handler(connection):
            connection.sendall(answer_101(read_request(connection)) + data)
            stay(connection)

        return self.opened(handler, *options)

    def test_frames_with_the_upgrade(self):
        driver = self.send_after_upgrade(b"".join(frame(f"early {i}") for i in range(50)))
        for i in range(50):
            self.assertTrue(driver.wait("message").endswith(f" early {i}"))

    def test_big_frame_with_the_upgrade(self):
        data = bytes(i * 7 % 251 for i in range(200000))
        driver = self.send_after_upgrade(frame(data) + frame("behind"))
        self.assertTrue(driver.wait("message").startswith(f"200000 {checksum(data)} "))
        self.assertTrue(driver.wait("message").endswith(" behind"))

    def test_fragments_with_control_frames_between(self):
        driver = self.send_after_upgrade(frame("one ", final=False) + frame("ping", opcode=9) + frame("two ", 0, final=False) +
                                         frame("", opcode=10) + frame("", 0, final=False) + frame("three", 0))
        driver.wait("pong")
        self.assertTrue(driver.wait("message").endswith(" one two three"))

    def test_a_pong_between_fragments_is_told_behind_them(self):
        driver = self.send_after_upgrade(frame("one ", final=False) + frame("7", opcode=10) + frame("two", 0) +
                                         frame("8", opcode=10))
        self.assertTrue(driver.wait("message").endswith(" one two"))
        self.assertEqual("7", driver.wait("pong"))
        self.assertEqual("8", driver.wait("pong"))

    def test_empty_message(self):
        driver = self.send_after_upgrade(frame("") + frame("", final=False) + frame("", 0) + frame("end"))
        self.assertEqual(driver.wait("message"), "0 0")
        self.assertEqual(driver.wait("message"), "0 0")
        self.assertTrue(driver.wait("message").endswith(" end"))

    def test_binary(self):
        driver = self.send_after_upgrade(frame(b"\x00\xff", opcode=2))
        self.assertTrue(driver.wait("message").startswith(f"binary 2 {checksum(bytes([0, 255]))}"))

    def test_too_long_messages_are_truncated(self):
        driver = self.send_after_upgrade(frame("y" * 16) + frame("z" * 17) + frame("a" * 10, final=False) + frame("b" * 10, 0) +
                                         frame("next"), "--max", 16)
        self.assertTrue(driver.wait("message").startswith("16 "))
        self.assertEqual(driver.wait("message"), f"truncated 16 {checksum(b'z' * 16)} " + "z" * 16)
        self.assertTrue(driver.wait("message").endswith("aaaaaaaaaabbbbbb"))
        self.assertTrue(driver.wait("message").endswith(" next"))

    def test_16_megabytes(self):
        data = os.urandom(1 << 16) * 256
        driver = self.opened(lambda c: (upgrade(c), c.sendall(frame(data) + frame("next")), stay(c)))
        self.assertTrue(driver.wait("message").startswith(f"truncated {1 << 20} {checksum(data[:1 << 20])} "))
        self.assertTrue(driver.wait("message").endswith(" next"))

    def test_byte_by_byte(self):
        def handler(connection):
            upgrade(connection)
            for byte in frame("slowly", final=False) + frame("x" * 130, 0) + frame("!"):
                connection.sendall(bytes([byte]))
            stay(connection)

        driver = self.opened(handler)
        self.assertTrue(driver.wait("message").startswith("136 "))
        self.assertTrue(driver.wait("message").endswith(" !"))

    def test_cut_at_every_byte(self):
        """Two packets, however what comes is cut between them; the first with the answer to the upgrade, if that is in it."""
        data = (frame("a", final=False) + frame("?", opcode=9) + frame("b", 0) + frame("x" * 130) + frame("7", opcode=10) + frame("") +
                frame("end"))

        def handler(connection, cut=iter(range(1, len(data)))):
            answer = answer_101(read_request(connection))
            at = next(cut)
            if at % 2:
                connection.sendall(answer)
                answer = b""
            connection.sendall(answer + data[:at])
            if at >= 7:  # the client has read so far
                self.assertEqual(read_frame(connection), (10, b"?"))
            connection.sendall(data[at:])
            stay(connection)

        server = self.serve(handler, tls=False)
        driver = self.websocket(server)
        for cut in range(1, len(data)):
            driver.wait("open")
            self.assertTrue(driver.wait("message").endswith(" ab"), cut)
            self.assertTrue(driver.wait("message").startswith("130 "), cut)
            self.assertEqual(driver.wait("pong"), "7")
            self.assertEqual(driver.wait("message"), "0 0")
            self.assertTrue(driver.wait("message").endswith(" end"), cut)
            driver.tell("free")
            driver.wait("freed")
            if cut < len(data) - 1:
                driver.tell("connect")

    def test_many_frames_in_one_record(self):
        driver = self.opened(lambda c: (upgrade(c), c.sendall(b"".join(frame(str(i)) for i in range(2000))), stay(c)))
        for i in range(2000):
            self.assertTrue(driver.wait("message").endswith(f" {i}"))

    def test_pings_while_nothing_can_be_sent(self):
        """The last one is answered, once there is room; of the others nothing is kept."""
        go_on = threading.Event()
        frames = []

        def handler(connection):
            upgrade(connection)
            go_on.wait()
            for i in range(0, 50000, 1000):
                connection.sendall(b"".join(frame(f"{n:0125}", opcode=9) for n in range(i, i + 1000)))
            connection.sendall(frame("now"))
            while len(frames) < 401:
                frames.append(read_frame(connection))
            connection.sendall(frame("thanks"))
            stay(connection)

        driver = self.opened(handler)
        self.addCleanup(go_on.set)
        driver.tell("fill 400 65536")
        self.assertTrue(eventually(lambda: int(driver.ask("unsent")) < 400 * 65536))
        before = int(driver.ask("unsent"))
        go_on.set()
        self.assertTrue(self.wait_for(driver, "message").endswith(" now"))
        self.assertLessEqual(int(driver.ask("unsent")), before)
        self.wait_for(driver, "message")
        pongs = [text for opcode, text in frames if opcode == 10]
        self.assertEqual(pongs[-1], f"{49999:0125}".encode())
        self.assertLess(len(pongs), 5000)  # some went out while the kernel still had room

    def test_a_flood_of_pings(self):
        """It has its turns like anything else, and is answered now and then."""
        stop, answered = threading.Event(), threading.Event()

        def take(connection):
            with contextlib.suppress(OSError):  # the client's end
                while read_frame(connection)[0] == 10:
                    answered.set()

        def handler(connection):
            upgrade(connection)
            threading.Thread(target=take, args=(connection,), daemon=True).start()
            flood = frame("x" * 125, opcode=9) * 1000
            while not stop.is_set():
                connection.sendall(flood)

        driver = self.websocket(self.serve(handler, tls=False))
        self.addCleanup(stop.set)
        driver.wait("open")
        self.assertTrue(answered.wait(PATIENCE_S))
        driver.tell("beats")
        self.wait_for(driver, "beats")
        driver.tell("free")
        self.wait_for(driver, "freed")

    def test_upgrade_byte_by_byte(self):
        def handler(connection):
            for byte in answer_101(read_request(connection)) + frame("now"):
                connection.sendall(bytes([byte]))
            stay(connection)

        driver = self.opened(handler)
        self.assertTrue(driver.wait("message").endswith(" now"))

    def test_many_records_in_one_packet(self):
        """Each sendall() is a TLS record: OpenSSL holds many of them that epoll can't see."""
        def handler(connection):
            upgrade(connection)
            for i in range(3000):
                connection.sendall(frame(str(i)))
            stay(connection)

        driver = self.opened(handler)
        for i in range(3000):
            self.assertTrue(driver.wait("message").endswith(f" {i}"))

    def test_what_openssl_holds_is_read_on(self):
        """A turn ends with records in OpenSSL's hands, of which epoll knows nothing."""
        stopped, sent = threading.Event(), threading.Event()

        def handler(connection):
            upgrade(connection)
            stopped.wait()
            for i in range(1500):
                connection.sendall(frame(f"{i:060}"))
            sent.set()
            stay(connection)

        driver = self.opened(handler)
        self.addCleanup(stopped.set)
        driver.ask("beats")
        driver.process.send_signal(signal.SIGSTOP)
        self.addCleanup(driver.process.send_signal, signal.SIGCONT)
        stopped.set()
        self.assertTrue(sent.wait(PATIENCE_S))
        driver.process.send_signal(signal.SIGCONT)
        for i in range(1500):
            self.assertTrue(driver.wait("message").endswith(f"{i:060}"))

    def test_ping_is_answered(self):
        answers = []

        def handler(connection):
            upgrade(connection)
            for i in range(3):
                connection.sendall(frame(f"are you there {i}?", opcode=9))
                answers.append(read_frame(connection))
            connection.sendall(frame("thanks"))
            stay(connection)

        self.opened(handler).wait("message")
        self.assertEqual(answers, [(10, f"are you there {i}?".encode()) for i in range(3)])

    def test_a_flood_leaves_the_loop_its_turns(self):
        stop = threading.Event()

        def handler(connection):
            upgrade(connection)
            flood = frame("flood") * 10000
            while not stop.is_set():
                connection.sendall(flood)

        self.addCleanup(stop.set)
        driver = self.opened(handler, "--max", "1")
        driver.tell("beats")
        self.wait_for(driver, "beats")  # answered although it never ends
        driver.tell("free")
        self.wait_for(driver, "freed")


class Sending(LinkTest):
    def collect(self, count):
        """A service that takes so many frames and then says that it has."""
        frames = []

        def handler(connection):
            upgrade(connection)
            while len(frames) < count:
                frames.append(read_frame(connection))
            connection.sendall(frame("thanks"))
            stay(connection)

        return frames, handler

    def test_lengths(self):
        sizes = [0, 1, 7, 8, 9, 125, 126, 127, 16383, 16384, 65535, 65536, 300000]
        frames, handler = self.collect(len(sizes))
        driver = self.opened(handler)
        driver.tell(*(f"fill 1 {n}" for n in sizes))
        self.wait_for(driver, "message")
        self.assertEqual([(opcode, len(text), set(text) <= {120}) for opcode, text in frames], [(1, n, True) for n in sizes])

    def test_before_it_is_open(self):
        frames, handler = self.collect(2)
        driver = self.websocket(self.serve(handler), at_once=("send first", "send second"))
        self.wait_for(driver, "message")
        self.assertEqual(frames, [(1, b"first"), (1, b"second")])

    def test_masks_differ(self):
        seen = []

        def handler(connection):
            upgrade(connection)
            seen.append(recv_exactly(connection, 20000))
            connection.sendall(frame("thanks"))
            stay(connection)

        driver = self.websocket(self.serve(lambda c: handler(c), tls=False))
        driver.wait("open")
        driver.tell("fill 2000 4")
        driver.wait("message")
        masks = b"".join(seen)
        self.assertGreater(len({masks[i + 2:i + 6] for i in range(0, 20000, 10)}), 1990)

    def test_batches(self):
        """What is queued in one turn leaves in few TLS records."""
        counts = []

        def handler(connection):
            upgrade(connection)
            data = b""
            while len(data) < 200 * 26:
                more = connection.recv(65536)  # at most one record
                data += more
                counts.append(len(more))
            connection.sendall(frame("thanks"))
            stay(connection)

        driver = self.opened(handler)
        driver.tell("fill 200 20")
        driver.wait("message")
        self.assertLessEqual(len(counts), 3)

    def test_ping_passes_what_is_queued(self):
        frames, handler = self.collect(21)
        driver = self.opened(handler)
        driver.tell("fill 20 60000\nping")  # in one write: one turn
        self.wait_for(driver, "message")
        self.assertIn((9, b"1"), frames[:2])
        self.assertEqual(len([f for f in frames if f[0] == 1]), 20)

    def test_pong(self):
        driver = self.opened(echo)
        driver.tell("ping")
        self.assertEqual(driver.wait("pong"), "1")
        driver.tell("ping")
        self.assertEqual(driver.wait("pong"), "2")

    def test_peer_that_stops_reading(self):
        go_on = threading.Event()
        frames = []

        def handler(connection):
            upgrade(connection)
            go_on.wait()
            while len(frames) < 402:
                frames.append(read_frame(connection))
            connection.sendall(frame("thanks"))
            stay(connection)

        self.addCleanup(go_on.set)
        driver = self.opened(handler)
        driver.tell("fill 400 65536")
        self.assertTrue(eventually(lambda: int(driver.ask("unsent")) < 400 * 65536))  # the kernel's buffers are full
        driver.tell("unsent\nsend behind\nping\nunsent")
        before, after = int(driver.wait("unsent")), int(driver.wait("unsent"))
        self.assertGreater(before, 10 << 20)
        self.assertEqual(after - before, len("behind") + 6)
        cpu = driver.cpu_s()
        threading.Event().wait(0.5)
        self.assertLess(driver.cpu_s() - cpu, 0.3)  # it waits, and does not spin
        go_on.set()
        self.wait_for(driver, "drained")
        driver.wait("message")
        self.assertEqual(driver.ask("unsent"), "0")
        kinds = [opcode for opcode, _ in frames]
        self.assertEqual(kinds.count(1), 401)
        self.assertLess(kinds.index(9), 400)  # the ping went ahead of what had waited

    def test_the_kernel_is_given_little_more_than_it_can_send(self):
        """What it holds a ping can't overtake. The peer has room for 64 KiB or so."""
        go_on = threading.Event()
        server = self.serve(lambda c: (upgrade(c), go_on.wait(), stay(c)))
        self.addCleanup(go_on.set)
        server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        driver = self.websocket(server)
        driver.wait("open")
        driver.tell("fill 400 65536")
        self.assertTrue(eventually(lambda: 400 * 65536 - int(driver.ask("unsent")) > 65536))
        threading.Event().wait(0.3)  # to take all that it ever takes
        self.assertLess(400 * 65536 - int(driver.ask("unsent")), 1 << 20)

    @steady(0.5)  # it has two seconds to go out
    def test_close_after_what_is_queued(self):
        frames, handler = self.collect(31)
        driver = self.opened(handler)
        driver.tell("fill 30 50000\nclose 1001\nsend too late")
        self.assertIn("open=1", self.wait_for(driver, "closed"))
        self.assertEqual(frames[30], (8, b"\x03\xe9"))
        self.assertEqual({opcode for opcode, _ in frames[:30]}, {1})

    def test_close_that_is_not_answered(self):
        driver = self.opened(lambda c: (upgrade(c), stay(c), stay(c)))
        driver.tell("close 1000", "close 1000")
        self.assertIn("did not answer the close frame", driver.wait("closed"))


class Freeing(LinkTest):
    """Freed anywhere, it is silent from then on, and nothing leaks (the sanitizers look)."""

    def test_from_within_each_call(self):
        for event, cause in (("open", "use 1\nconnect"), ("message", "send x"), ("pong", "ping")):
            with self.subTest(event=event):
                driver = self.opened(echo)
                driver.tell(f"when {event} free", cause)
                driver.wait(event)
                driver.wait("freed")
                self.assertRegex(driver.ask("beats"), r"\d+")

    def test_from_within_drained(self):
        go_on = threading.Event()
        self.addCleanup(go_on.set)
        driver = self.opened(lambda c: (upgrade(c), go_on.wait(), stay(c)))
        driver.tell("when drained free", "fill 300 65536")
        driver.ask("unsent")
        go_on.set()
        driver.wait("drained")
        driver.wait("freed")
        driver.ask("beats")

    def test_from_within_closed(self):
        driver = self.opened(lambda c: (upgrade(c), read_frame(c), c.sendall(close_frame(1001))))
        driver.tell("when closed free", "send x")
        driver.wait("closed")
        driver.wait("freed")

    def test_with_more_messages_behind(self):
        driver = self.websocket(self.serve(lambda c: (upgrade(c), c.sendall(frame("x") * 1000), stay(c))))
        driver.tell("when message free")
        driver.wait("open")
        driver.wait("message")
        driver.wait("freed")
        driver.ask("beats")

    def test_another_from_within(self):
        driver = self.opened(echo)
        driver.tell("use 1", "connect")
        driver.wait("open")
        driver.tell("when message use 0", "when message free", "send x")
        driver.wait("message")
        driver.wait("freed")
        driver.tell("use 1", "send still here")
        driver.wait("message")

    def test_connect_from_within(self):
        driver = self.opened(echo)
        driver.tell("when message use 1", "when message connect", "send x" + "y" * 3000)
        driver.wait("message")
        self.assertEqual(driver.wait("open"), "second:")

    def test_close_then_free(self):
        driver = self.opened(echo)
        driver.tell("fill 10 100000\nclose 1000\nfree")
        driver.wait("freed")
        driver.ask("beats")

    def test_with_unsent(self):
        driver = self.opened(lambda c: (upgrade(c), threading.Event().wait(0.2), stay(c)))
        driver.tell("fill 400 65536")
        driver.ask("unsent")
        driver.tell("free")
        driver.wait("freed")
        driver.ask("beats")

    def test_at_once(self):
        driver = self.websocket(self.serve(echo), at_once=["free"])
        driver.wait("freed")
        driver.ask("beats")

    def test_while_connecting(self):
        driver = self.websocket(self.serve(echo))
        driver.tell("free", "connect\nfree\nconnect\nfree")
        for _ in range(3):
            driver.wait("freed")
        driver.ask("beats")

    def test_in_the_handshakes(self):
        reached = threading.Event()

        def silent(connection):
            reached.set()
            stay(connection)

        def unanswered(connection):
            read_request(connection)
            silent(connection)

        for handler, tls in ((silent, False), (silent, None), (unanswered, True)):
            with self.subTest(handler=handler.__name__, tls=tls):
                reached.clear()
                server = self.serve(handler, tls=bool(tls))
                server.tls = server.tls or (None if tls is False else False)
                driver = self.drive("websocket-driver", *(["--plain"] if tls is False else ["--ca", certs("ca.pem")]), server.address,
                                    server.port, "localhost", "/ws")
                driver.tell("connect")
                reached.wait(30)
                driver.tell("free")
                driver.wait("freed")
                driver.ask("beats")

    def test_close_before_open(self):
        driver = self.websocket(self.serve(stay, tls=False), at_once=["close 1000"])
        self.assertIn("open=0", driver.wait("closed"))
        driver.tell("free")
        driver.wait("freed")

    def test_no_descriptor_is_left(self):
        driver = self.opened(echo)
        driver.tell("free")
        driver.wait("freed")
        before = driver.descriptors()
        for _ in range(20):
            driver.tell("connect")
            driver.wait("open")
            driver.tell("send x")
            driver.wait("message")
            driver.tell("close 1000")
            driver.wait("closed")
            driver.tell("free")
            driver.wait("freed")
            driver.tell("connect", "free")
            driver.wait("freed")
        self.assertTrue(eventually(lambda: driver.descriptors() == before), (before, driver.descriptors()))


class Heard(LinkTest):
    def test_another_that_begins_is_no_word_of_the_peer(self):
        first = threading.Event()

        def handler(connection):
            if first.is_set():
                read_request(connection)
            else:
                first.set()
                echo(connection)

        driver = self.opened(handler)
        driver.tell("ping")
        driver.wait("pong")
        driver.tell("when heard beats", "use 1")
        for _ in range(3):
            driver.tell("connect")
            self.assertIn("open=0", driver.wait("closed"))
            driver.tell("free")
            driver.wait("freed")
        driver.tell("use 0", "send a word")
        driver.wait("message")
        driver.wait("beats")


class Idle(LinkTest):
    @unittest.skipUnless(os.path.exists("/proc/self/status"), "needs /proc")
    def test_an_open_websocket_does_not_wake_us(self):
        driver = self.opened(echo, env={"DRIVER_NO_BEAT": "1"})
        driver.ask("beats")

        def switches():
            with open(f"/proc/{driver.process.pid}/status", encoding="ascii") as file:
                return sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)

        def woken():
            """In three seconds, in which the process may have been stopped and have gone on."""
            before, cpu = switches(), driver.cpu_s()
            threading.Event().wait(3)
            return switches() - before > 6 or driver.cpu_s() - cpu >= 0.1

        self.assertFalse(all(woken() for _ in range(5)))


class Proxy(LinkTest):
    def proxy(self, answer=None, seen=None):
        """A CONNECT proxy that joins with whatever it is asked for, or gives another answer."""
        def join(a, b):
            try:
                while data := a.recv(65536):
                    b.sendall(data)
                b.shutdown(socket.SHUT_WR)
            except OSError:
                pass

        def handler(connection):
            head = read_request(connection)
            if seen is not None:
                seen.append(head)
            if answer:
                connection.sendall(answer)
                return
            host, _, port = head.split()[1].rpartition(":")
            assert host == "localhost", host
            with socket.create_connection(("127.0.0.1", int(port))) as other:
                connection.sendall(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
                thread = threading.Thread(target=join, args=(other, connection), daemon=True)
                thread.start()
                join(connection, other)
                thread.join()

        return self.serve(handler, tls=False)

    def test_through_a_proxy(self):
        seen = []
        proxy = self.proxy(seen=seen)
        server = self.serve(echo)
        driver = self.websocket(server, "--proxy", proxy.address, proxy.port)
        driver.wait("open")
        driver.tell("send hello")
        driver.wait("message")
        driver.tell("close 1000")
        driver.wait("closed")
        self.assertTrue(seen[0].startswith(f"CONNECT localhost:{server.port} HTTP/1.1\r\n"))
        self.assertNotIn("secret", seen[0])

    def test_certificate_is_checked_through_it(self):
        proxy = self.proxy()
        driver = self.websocket(self.serve(echo, cert="wrong"), "--proxy", proxy.address, proxy.port)
        self.assertIn("certificate is refused", driver.wait("closed"))

    def test_direct_and_through_a_proxy_at_once(self):
        self.test_through_a_proxy()
        self.opened(echo)


if __name__ == "__main__":
    unittest.main()
