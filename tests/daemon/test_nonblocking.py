"""Whatever the network does, local clients do not wait for it: pings are answered while all else hangs."""

import contextlib
import fcntl
import os
import resource
import select
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import unittest

from harness import DEADLINE, HPKVD, WITHHELD, Case, Daemon, FakeService, Pulse, black_hole, eventually, get, need_mounts, need_root, scene


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


class Logged(Daemon):
    """One whose stderr is what a test makes of it, and whose lines are read by the test, or by nobody."""

    def __init__(self, service, stderr, **options):
        super().__init__(service, wait=False, **options)
        self.stderr = stderr

    def start(self):
        self.popen = subprocess.Popen(self._command(self._with_etc([HPKVD, "-c", self._write_files()])), stdin=subprocess.DEVNULL,
                                      stderr=self.stderr, env=self.env, preexec_fn=self._before)
        self.pid = self.popen.pid
        with socket.socket(socket.AF_UNIX) as probe: # there is a moment in which it is bound and does not listen yet
            eventually(lambda: probe.connect_ex(self.socket) == 0 or self.popen.poll() is not None, "the socket")

    def _command(self, argv):
        return argv

    def _before(self):
        pass

    def _end_well(self):
        with self._with_a_subscriber():
            self.popen.terminate()
            assert self.popen.wait(DEADLINE) == 0, self.popen.returncode

    def _clean_up(self, failed):
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait(DEADLINE)
        super()._clean_up(False)


class AnotherUser(Logged):
    """Who may not open again what is its stderr."""

    def _before(self):
        os.setgroups([])
        os.setgid(20001)
        os.setuid(20001)

    def _command(self, argv):
        """A copy of the program: where it was built may be closed to others."""
        copy = shutil.copy(argv[0], self.folder)
        os.chmod(copy, 0o755)
        return [copy, *argv[1:]]

    def _write_files(self):
        path = super()._write_files()
        for name in (self.folder, path, self.folder + "/api-key"):
            os.chown(name, 20001, 20001)
        return path


# Its terminal is stderr, in whose foreground this process is, and not the one that it starts.
BACKGROUND = """
import fcntl, os, signal, sys, termios
os.setsid()
fcntl.ioctl(2, termios.TIOCSCTTY, 0)
pid = os.fork()
if pid == 0:
    os.setpgid(0, 0)
    os.execv(sys.argv[1], sys.argv[1:])
signal.signal(signal.SIGTERM, lambda *ignored: os.kill(pid, signal.SIGTERM))
os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


class Log(Responsive):
    def assert_lives(self, daemon, n=400):
        """Pings go on while each client that comes and goes is logged; an end by SIGTERM follows."""
        for _ in range(n):
            with daemon.client() as client:
                self.assertEqual(200, client.ask({"op": "ping"})["code"])
        self.assert_responsive(daemon)

    def test_nobody_reads_the_log(self):
        """Its lines are lost, and said to be, rather than that everything waits."""
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        with FakeService() as service, Logged(service, write) as daemon:
            os.close(write)
            free = fcntl.fcntl(read, fcntl.F_GETPIPE_SZ)
            for _ in range(free // 100): # each says more than that when it comes and goes
                with daemon.client() as client:
                    self.assertEqual(200, client.ask({"op": "ping"})["code"])
            os.set_blocking(read, False)
            self.assertGreater(len(os.read(read, free)), free // 2)
            with daemon.client() as client:
                self.assertEqual(200, client.ask(get("k"))["code"])
            lines = eventually(lambda: os.read(read, free).decode(), "another line").splitlines()
            self.assertRegex(lines[0], r"hpkvd: warning: \d+ lines were lost here: nobody read them")
            self.assertEqual(1, sum("were lost" in line for line in lines))

    def test_a_pipe_that_it_may_not_open_again(self):
        need_root()
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        self.addCleanup(os.close, write)
        os.fchmod(write, 0o600)
        with FakeService(tls=False) as service, AnotherUser(service, write, ca_file="") as daemon:
            self.assert_lives(daemon, 1000)

    def terminal(self):
        """The side that nobody reads, and the one that is a terminal."""
        near, far = os.openpty()
        self.addCleanup(os.close, near)
        self.addCleanup(os.close, far)
        return near, far

    def test_nobody_reads_the_terminal(self):
        near, far = self.terminal()
        with FakeService() as service, Logged(service, far) as daemon:
            self.assert_lives(daemon)
            self.assertTrue(os.get_blocking(far)) # whoever shares it is not made non-blocking
            os.set_blocking(near, False)
            text = b""

            def told():
                nonlocal text
                with contextlib.suppress(BlockingIOError):
                    text += os.read(near, 65536)
                with daemon.client() as client:
                    client.ask({"op": "ping"})
                return b"lines were lost here: nobody read them" in text
            eventually(told, "a word of what was lost")

    def test_a_terminal_that_was_stopped(self):
        """By ^S, until ^Q."""
        near, far = self.terminal()
        with FakeService() as service, Logged(service, far) as daemon:
            termios.tcflow(far, termios.TCOOFF)
            self.assert_lives(daemon, 50)
            termios.tcflow(far, termios.TCOON)
            while select.select([near], [], [], 0)[0]:
                os.read(near, 65536)

    def test_a_terminal_that_is_another_users(self):
        """A look at it says that there is room for a byte. So there is no way to know whether a line would be waited for."""
        need_root()
        near, far = self.terminal()
        os.fchmod(far, 0o600)
        with FakeService(tls=False) as service, AnotherUser(service, far, ca_file="") as daemon:
            self.assert_lives(daemon)

    def test_in_the_background_of_a_terminal(self):
        """Who writes there is stopped, if the terminal is told so: stty tostop."""
        near, far = self.terminal()
        modes = termios.tcgetattr(far)
        modes[3] |= termios.TOSTOP
        termios.tcsetattr(far, termios.TCSANOW, modes)

        class Background(Logged):
            def _command(self, argv):
                return [sys.executable, "-c", BACKGROUND, *argv]

        with FakeService() as service, Background(service, far) as daemon:
            self.assert_lives(daemon, 10)
            while select.select([near], [], [], 0)[0]:
                os.read(near, 65536)

    def test_a_socket(self):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
            with self.subTest(kind):
                ours, its = socket.socketpair(socket.AF_UNIX, kind)
                with ours, its, FakeService() as service, Logged(service, its) as daemon:
                    self.assert_lives(daemon, 1500 if kind == socket.SOCK_STREAM else 200)
                    ours.setblocking(False)
                    self.assertIn(b"hpkvd: ", ours.recv(65536))

    def test_a_limit_of_the_files_size(self):
        """SIGXFSZ would kill it."""
        with tempfile.NamedTemporaryFile(prefix="hpkvd-test-") as f, FakeService() as service:
            os.set_blocking(f.fileno(), True)
            flags = fcntl.fcntl(f.fileno(), fcntl.F_GETFL)
            fcntl.fcntl(f.fileno(), fcntl.F_SETFL, flags | os.O_APPEND)

            class Limited(Logged):
                def _before(self):
                    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

            with Limited(service, f) as daemon:
                self.assert_lives(daemon, 50)
                self.assertEqual(5000, os.path.getsize(f.name))
                os.truncate(f.name, 0) # as logrotate does (copytruncate)
                with daemon.client() as client:
                    client.ask({"op": "ping"})
                text = eventually(lambda: open(f.name, encoding="ascii").read(), "a line")
                self.assertRegex(text, r"\A\n?hpkvd: warning: \d+ lines were lost here: File too large\n") # \n ends a line that was cut

    def test_a_full_disk(self):
        with open("/dev/full", "wb") as full, FakeService() as service, Logged(service, full) as daemon:
            self.assert_lives(daemon, 20)


if __name__ == "__main__":
    unittest.main()
