"""System calls that fail: hpkvd says so and does not start, or it lives on.

Each daemon lives the same short life, in which one call of one kind fails once, by fail-calls.c. Before it the life is lived without
a failure, to see how many calls of each kind there are. HPKVD_FAIL_SEED gives the same sample again; HPKVD_FAIL_RUNS a larger one."""

import concurrent.futures
import contextlib
import errno
import os
import random
import re
import socket
import sys
import tempfile
import time
import unittest

from harness import DEADLINE, SANITIZER, Case, Daemon, FakeService, certs, eventually, free_port, get, put, sanitized

FAIL_CALLS = os.path.join(os.environ.get("BUILDDIR", "."), "tests/daemon/.libs/fail-calls.so")

SEED = int(os.environ.get("HPKVD_FAIL_SEED") or random.SystemRandom().randrange(10 ** 6))
RUNS = int(os.environ.get("HPKVD_FAIL_RUNS") or (40 if sanitized() else 60))
AT_ONCE = 6

NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

# Errors of the kernel that a program can survive.
ERRORS = {
    "accept4": (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED, errno.EINTR, errno.EPERM),
    "epoll_create1": NO_ROOM,
    "epoll_ctl": (errno.ENOSPC, errno.ENOMEM),
    "socket": (*NO_ROOM, errno.EACCES, errno.EAFNOSUPPORT, errno.ENOBUFS),
    "socketpair": NO_ROOM,
    "pipe2": NO_ROOM,
    "eventfd": NO_ROOM,
    "timerfd_create": NO_ROOM,
    "connect": (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EACCES, errno.ETIMEDOUT, errno.EAGAIN),
    "bind": (errno.EACCES, errno.ENOSPC, errno.EROFS, errno.ENOMEM, errno.EADDRINUSE),
    "listen": (errno.EADDRINUSE,),
    "setsockopt": (errno.ENOMEM, errno.ENOPROTOOPT),
    "getsockopt": (errno.ENOPROTOOPT, errno.EACCES),
    "getsockname": (errno.ENOBUFS,),
    "getrlimit": (errno.EPERM,),
    "setrlimit": (errno.EPERM,),
    "open": (*NO_ROOM, errno.EACCES, errno.EIO),
    "shutdown": (errno.ENOTCONN,),
    "flock": (errno.ENOLCK, errno.EINTR),
    "chmod": (errno.EPERM, errno.EROFS),
    "unlink": (errno.EACCES, errno.EROFS),
    "read": (errno.ECONNRESET, errno.ETIMEDOUT, errno.ENOMEM, errno.EINTR, errno.EAGAIN),
    "read/other": (errno.EINTR, errno.EIO),
    "write": (errno.EPIPE, errno.ECONNRESET, errno.ENOMEM, errno.ENOBUFS, errno.EINTR, errno.EAGAIN),
    "write/log": (errno.EIO, errno.ENOSPC, errno.EFBIG, errno.EINTR, errno.EAGAIN),
}

# libevent ends the program where its own pipe can't be read.
NOT_TRIED = {("read/other", errno.EIO)}


class Failing(Daemon):
    """A daemon one of whose calls fails, in as many words as fail-calls.c wants."""

    def __init__(self, service, plan, *, count=None, env=None, **options):
        env = (env or {}) | {"LD_PRELOAD": FAIL_CALLS, "FAIL_CALLS": plan} | ({"FAIL_CALLS_COUNT": count} if count else {})
        if sanitized(): # which wants to be the first library
            env["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
        super().__init__(service, env=env, wait=False, **options)

    def wait_begin(self):
        """Does it answer, or has it ended? The line that says so may be lost."""
        eventually(lambda: self.process.process.poll() is not None or self.answers(), "a beginning, or an end")
        return self.process.process.poll() is None

    def answers(self):
        with contextlib.suppress(OSError, AssertionError), self.client() as client:
            client.sock.settimeout(3)
            return client.ask({"op": "ping"})["code"] == 200
        return False


class Life:
    """The life of a daemon, and the steps that have to succeed in spite of one failure."""

    def __init__(self, plan, count=None):
        self.plan, self.count = plan, count
        self.text = ""

    def run(self):
        port = free_port()
        with FakeService() as service:
            daemon = Failing(service, self.plan, count=self.count, listen=f"127.0.0.1:{port}", keepalive="1s", connect_timeout="1s",
                             request_timeout="2s", max_line="32K")
            try:
                daemon.start()
                if daemon.wait_begin():
                    self.live(daemon, service, port)
                    self.end(daemon)
                else:
                    self.refused(daemon)
                assert not SANITIZER.search(daemon.process.output), "a sanitizer has found something"
                self.text = daemon.log().decode("utf-8", "backslashreplace")
            except BaseException as error:
                if daemon.process:
                    daemon.process.kill()
                    self.text = daemon.log().decode("utf-8", "backslashreplace")
                raise AssertionError(f"with {self.plan}: {error!r}\n{self.text[-6000:]}") from error
            finally:
                daemon._clean_up(False)

    def live(self, daemon, service, port):
        """Each of these may go wrong once."""
        for step in (self.talk, self.subscribe, lambda d: self.scrape(port), self.reload, lambda d: self.lose(service), self.talk):
            with contextlib.suppress(OSError, AssertionError):
                step(daemon)
        eventually(lambda: self.is_well(daemon), "a ping and a request are answered again")
        if self.plan != "":
            eventually(lambda: self.scrape_well(port), "the page is served again")

    def talk(self, daemon):
        with daemon.client() as client:
            client.sock.settimeout(3)
            client.ask({"op": "ping"})
            client.ask(put("k", "v"))
            client.ask({"op": "status"})

    def subscribe(self, daemon):
        with daemon.client() as client, daemon.client() as other:
            client.sock.settimeout(3)
            client.ask({"op": "subscribe", "key": "k", "initial": True})
            other.sock.settimeout(3)
            other.ask({"op": "subscribe", "pattern": "p*"})

    def scrape(self, port):
        with socket.create_connection(("127.0.0.1", port), 2) as s:
            s.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            text = b""
            while chunk := s.recv(65536):
                text += chunk
        return text

    def scrape_well(self, port):
        with contextlib.suppress(OSError):
            return b" 200 OK" in self.scrape(port)
        return False

    def reload(self, daemon):
        daemon.change(max_line="16K")
        before = daemon.log().count(b"settings")
        os.kill(daemon.pid, 1)
        until = time.monotonic() + 3
        while daemon.log().count(b"settings") < before + 2 and time.monotonic() < until:
            time.sleep(0.005)

    def lose(self, service):
        for connection in list(service.connections):
            with contextlib.suppress(OSError):
                connection.reset()

    def is_well(self, daemon):
        with contextlib.suppress(OSError, AssertionError), daemon.client() as client:
            client.sock.settimeout(5)
            return client.ask({"op": "ping"})["code"] == 200 and client.ask(get("k"))["code"] == 200
        return False

    def end(self, daemon):
        """With a client that is still connected and subscribed."""
        with contextlib.suppress(OSError, AssertionError), daemon.client() as client:
            client.sock.settimeout(3)
            client.ask({"op": "subscribe", "key": "k"})
            daemon.process.signal(15)
            status = daemon.process.wait_exit()
            assert status == 0, f"it ended with {status}"
            return
        daemon.process.signal(15)
        status = daemon.process.wait_exit()
        assert status == 0, f"it ended with {status}"

    def refused(self, daemon):
        status = daemon.process.wait_exit()
        log = daemon.log()
        assert status in (1, 78), f"it ended with {status}"
        if status == 1:
            assert re.search(rb"^hpkvd: error: .*: .+", log, re.M), "it does not say why"


def sample(counts, runs, lot):
    """Of each call each error at its first and last time, and others by lot, as many as may be run."""
    every = [(name, nth, code) for name, codes in ERRORS.items() for code in codes
             for nth in range(1, counts[name] + 1) if (name, code) not in NOT_TRIED]
    first = [(name, nth, lot.choice(codes)) for name, codes in ERRORS.items() for nth in {1, counts[name]} if counts[name]]
    first = [case for case in first if (case[0], case[2]) not in NOT_TRIED]
    lot.shuffle(every)
    return list(dict.fromkeys(first + every))[:max(runs, len(first))]


class Walk(Case):
    def setUp(self):
        if not os.path.exists(FAIL_CALLS):
            self.skipTest("fail-calls.so was not built")

    def test_each_call_may_fail_once(self):
        print(f"# HPKVD_FAIL_SEED={SEED}", flush=True)
        counts = self.count()
        cases = sample(counts, RUNS, random.Random(SEED))
        failures = []
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            lives = [pool.submit(Life(f"{name}:{nth}:{code}").run) for name, nth, code in cases]
            for (name, nth, code), life in zip(cases, lives):
                try:
                    life.result()
                except AssertionError as error:
                    failures.append(f"{name} {nth} of {counts[name]}, {errno.errorcode[code]}")
                    print(f"# {failures[-1]}: {error}", file=sys.stderr, flush=True)
        self.assertFalse(failures, f"{len(failures)} of {len(cases)}:\n" + "\n".join(failures))

    def count(self):
        """A life without a failure."""
        path = os.path.join(self.folder(), "count")
        Life("", path).run()
        return self.counted(path)

    @staticmethod
    def counted(path):
        with open(path, encoding="ascii") as f:
            return {name: int(n) for name, n in (line.split() for line in f)}

    def test_nobody_can_be_accepted_for_a_while(self):
        """By the metrics page, and by the socket. It neither spins nor gives up."""
        for code in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EPERM):
            port = free_port()
            with self.subTest(errno.errorcode[code]), FakeService() as service, \
                    Failing(service, f"accept4:1-2:{code}", listen=f"127.0.0.1:{port}") as daemon:
                daemon.process.wait_output(rb"listens on")
                cpu = daemon.process.cpu_seconds()
                with socket.create_connection(("127.0.0.1", port), DEADLINE) as s:
                    s.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    self.assertIn(b" 200 OK", s.recv(65536))
                self.assertLess(daemon.process.cpu_seconds() - cpu, 0.8)
                self.assertEqual(1, daemon.log().count(b"warning: metrics: no connection can be accepted at present"))
                with daemon.client() as client:
                    client.barrier()
        with FakeService() as service, Failing(service, f"accept4:1-2:{errno.EMFILE}") as daemon:
            daemon.process.wait_output(rb"listens on")
            with daemon.client() as client:
                client.barrier()

    def test_a_bundle_of_authorities_that_can_not_be_opened_for_a_moment_is_read_later(self):
        options = {"ca_file": "", "env": {"SSL_CERT_DIR": "/nonexistent", "SSL_CERT_FILE": certs() + "/ca.pem"}}
        path = os.path.join(self.folder(), "count")
        with FakeService() as service, Failing(service, "", count=path, **options) as daemon:
            daemon.process.wait_output(rb"listens on")
            daemon.wait_state("connected")
        last = self.counted(path)["open"]  # what is opened last is the bundle
        for code in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            with self.subTest(errno.errorcode[code]), FakeService() as service, \
                    Failing(service, f"open:{last}:{code}", **options) as daemon:
                daemon.process.wait_output(rb"listens on")
                daemon.wait_state("connected")
                self.assertGreater(service.accepted, 1)

    def test_without_its_signals_it_does_not_start(self):
        for plan in (f"epoll_ctl:1:{errno.ENOSPC}", f"epoll_ctl:1-:{errno.ENOMEM}"):
            with self.subTest(plan), FakeService() as service:
                daemon = Failing(service, plan)
                try:
                    daemon.start()
                    self.assertEqual(1, daemon.process.wait_exit())
                    self.assertIn(b"error: can't watch for signal 15: ", daemon.log())
                finally:
                    daemon._clean_up(False)

    def folder(self):
        folder = tempfile.TemporaryDirectory(prefix="hpkvd-test-")
        self.addCleanup(folder.cleanup)
        return folder.name


if __name__ == "__main__":
    unittest.main()
