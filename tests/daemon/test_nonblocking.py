"""Whatever the network does, local clients do not wait for it: pings are answered while all else hangs."""

import contextlib
import fcntl
import os
import socket
import statistics
import struct
import subprocess
import threading
import time

from harness import DEADLINE, HPKVD, WITHHELD, Case, Daemon, FakeService, Pulse, black_hole, eventually, get, need_mounts, scene


class Responsive(Case):
    def assert_responsive(self, daemon, until=lambda n: n >= 200):
        """Pings, many, while something hangs. Compared loosely: a look-up that blocks would take seconds."""
        times = []
        with Pulse() as pulse, daemon.client() as client:
            while not until(len(times)) or len(times) < 50:
                began = time.monotonic()
                self.assertEqual(200, client.ask({"op": "ping"})["code"])
                times.append(time.monotonic() - began)
                self.assertLess(len(times), 10 ** 6)
        self.assertLess(statistics.median(times), 0.1)
        self.assertLess(max(times), 3 + pulse.longest_s)


class Connecting(Responsive):
    @scene(connected=False, service={"silent": True}, connect_timeout="300ms")
    def test_a_tls_handshake_that_hangs(self, service, daemon, client):
        service.wait(lambda: service.accepted, "a connection")
        self.assert_responsive(daemon, lambda n: service.accepted >= 3)
        upstream = daemon.status()["upstream"]
        self.assertIn(upstream["state"], ("connecting", "backoff"))
        self.assertTrue(upstream["lastError"])
        service.silent = False
        self.assertEqual(200, client.ask(get("k"))["code"])

    @scene(connected=False, service={"upgrade": lambda event: "never"}, connect_timeout="300ms")
    def test_an_upgrade_that_is_never_answered(self, service, daemon, client):
        service.wait(lambda: service.upgrades, "an upgrade")
        self.assert_responsive(daemon, lambda n: len(service.upgrades) >= 3)
        service.upgrade = None
        self.assertEqual(200, client.ask(get("k"))["code"])

    @scene(connected=False, service={"upgrade": lambda event: "never"}, connect_timeout="300ms")
    def test_an_answer_that_never_ends(self, service, daemon, client):
        """A byte now and then is no progress."""
        service.wait(lambda: service.upgrades, "an upgrade")
        first = next(iter(service.all))
        first.send_bytes(b"HTTP/1.1 101 Switching Protocols\r\nX-Slow: ")

        def progress(n):
            if not first.gone.is_set():
                first.send_bytes(b"x")
            return len(service.upgrades) >= 2

        self.assert_responsive(daemon, progress)
        first.wait_gone()

    @scene(connected=False, service={"raw_upgrade": b"HTTP/1.1 101 Sw"}, connect_timeout="300ms")
    def test_half_an_answer_to_the_upgrade(self, service, daemon, client):
        service.wait(lambda: service.upgrades, "an upgrade")
        self.assert_responsive(daemon, lambda n: len(service.upgrades) >= 3)
        service.raw_upgrade = None
        self.assertEqual(200, client.ask(get("k"))["code"])

    def test_an_address_that_does_not_answer(self):
        """The SYN is lost: nobody takes connections out of a queue that is full."""
        with black_hole("127.0.0.1") as port, Daemon(f"https://127.0.0.1:{port}", connect_timeout="300ms") as daemon, \
                daemon.client() as client:
            client.send(get("k", timeoutMs=700))
            self.assert_responsive(daemon, lambda n: n % 100 == 0 and daemon.status()["upstream"]["lastError"])
            self.assert_error(client.answer(), 503, "upstream_down", "no")


class Dead:
    """A name server that gets questions and answers when a test lets it."""

    def __init__(self):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.questions = 0
        self.address = None # to answer with
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *ignored):
        self.sock.close()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                packet, peer = self.sock.recvfrom(4096)
                self.questions += 1
                if self.address:
                    self.sock.sendto(self._answer(packet), peer)

    def _answer(self, packet):
        end = packet.index(b"\0", 12) + 5
        question = packet[12:end]
        is_a = question[-4:-2] == b"\0\1"
        head = packet[:2] + struct.pack("!HHHHH", 0x8180, 1, 1 if is_a else 0, 0, 0)
        record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton(self.address) if is_a else b""
        return head + question + record


class Names(Responsive):
    def test_a_name_server_that_does_not_answer(self):
        need_mounts()
        with Dead() as names, FakeService(name="hpkv.test") as service, \
                Daemon(service, hosts="127.0.0.1 localhost\n", resolv=f"nameserver 127.0.0.1:{names.port}\n",
                       connect_timeout="400ms") as daemon, daemon.client() as client:
            eventually(lambda: names.questions, "a question")
            client.send(get("k", 1, timeoutMs=100))
            self.assert_responsive(daemon, lambda n: n % 100 == 0 and daemon.status()["upstream"]["lastError"])
            self.assertIn("hpkv.test", daemon.status()["upstream"]["lastError"])
            self.assert_error(client.answer(), 503, "upstream_down", "no", 1)
            names.address = "127.0.0.1"
            self.assertEqual(200, client.ask(get("k"))["code"])

    def test_a_name_server_that_is_not_there(self):
        need_mounts()
        with Dead() as names, FakeService(name="hpkv.test") as service:
            port = names.port
            names.sock.close()
            with Daemon(service, hosts="127.0.0.1 localhost\n", resolv=f"nameserver 127.0.0.1:{port}\n",
                        connect_timeout="400ms") as daemon:
                self.assert_responsive(daemon, lambda n: n % 100 == 0 and daemon.status()["upstream"]["lastError"])


class Busy(Responsive):
    @scene(service=WITHHELD)
    def test_an_endless_stream_from_the_service(self, service, daemon, client):
        connection = service.connection()
        stop = threading.Event()

        def flood():
            text = b'{"type":"notification","key":"k","value":"' + b"x" * 60000 + b'","timestamp":1}'
            while not stop.is_set() and not connection.error:
                connection.send_frame(1, text)

        thread = threading.Thread(target=flood, daemon=True)
        thread.start()
        try:
            self.assert_responsive(daemon, lambda n: n >= 200 and daemon.stats()["upstream_notifications"] > 10)
        finally:
            stop.set()
            thread.join(DEADLINE)

    @scene()
    def test_a_client_that_writes_without_an_end(self, service, daemon, client):
        """Lines, skipped lines, and answers that nobody reads."""
        stop = threading.Event()

        def flood(data, read):
            with daemon.client() as noisy, contextlib.suppress(OSError):
                noisy.sock.settimeout(1)
                while not stop.is_set():
                    noisy.send_raw(data)
                    if read:
                        noisy.sock.recv(1 << 20)

        pings = b'{"op":"ping"}\n' * 1000
        threads = [threading.Thread(target=flood, args=args, daemon=True)
                   for args in ((pings, True), (pings, False), (b"x" * 100000, False))]
        for thread in threads:
            thread.start()
        try:
            self.assert_responsive(daemon)
        finally:
            stop.set()
            for thread in threads:
                thread.join(DEADLINE)

    def test_nobody_reads_the_log(self):
        """Its lines are lost, and said to be, rather than that everything waits."""
        with FakeService() as service:
            daemon = Daemon(service)
            read, write = os.pipe()
            process = subprocess.Popen([HPKVD, "-c", daemon._write_files()], stderr=write)
            try:
                os.close(write)
                with socket.socket(socket.AF_UNIX) as probe: # there is a moment in which it is bound and does not listen yet
                    eventually(lambda: probe.connect_ex(daemon.socket) == 0, "the socket")
                free = fcntl.fcntl(read, fcntl.F_GETPIPE_SZ)
                for _ in range(free // 100): # each says more than that when it comes and goes
                    with daemon.client() as client:
                        self.assertEqual(200, client.ask({"op": "ping"})["code"])
                os.set_blocking(read, False)
                self.assertGreater(len(os.read(read, free)), free // 2)
                with daemon.client() as client:
                    self.assertEqual(200, client.ask(get("k"))["code"])
                lines = eventually(lambda: os.read(read, free).decode(), "another line").splitlines()
                self.assertRegex(lines[0], r"hpkvd: warning: \d+ lines were lost here")
                self.assertEqual(1, sum("were lost" in line for line in lines))
            finally:
                process.kill()
                process.wait(DEADLINE)
                os.close(read)
                daemon._clean_up(False)
