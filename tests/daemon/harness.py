"""harness.py - what the tests of the daemon share: real processes, real sockets, real TLS.

    Daemon       hpkvd in a folder of its own; its end is part of each test: exit status 0, no word of a sanitizer
    Sandbox      hpkv-sandbox, the service that behaves
    FakeService  the service that does what a test tells it to, in this process, and remembers what it was sent: it
                 mints tokens, and tells changes to those whose token covers them
    Client       a local client: lines out, lines in

Tests wait for events and never for time to pass. What can only be asked for is asked again until it is so:
eventually(). A wait that takes longer than DEADLINE is a failure. A test that wants to say "nothing has come" first
makes something come behind it: Client.barrier(). When a case fails, the logs of its processes are printed.

Environment: HPKVD and SANDBOX, the programs; SRCDIR, the source tree ("make check" sets them).
"""

import collections
import contextlib
import functools
import itertools
import json
import os
import queue
import re
import resource
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse

import h11
from wsproto import ConnectionType, WSConnection
from wsproto import events as ws_events
from wsproto.frame_protocol import Opcode
from wsproto.utilities import ProtocolError

import need
from need import certificates as certs
from steady import Pulse, steady  # noqa: F401 (for those who import this)

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.environ.get("SRCDIR") or os.path.dirname(os.path.dirname(HERE))
HPKVD = os.environ.get("HPKVD") or os.path.join(ROOT, "hpkvd")
SANDBOX = os.environ.get("SANDBOX") or os.path.join(ROOT, "hpkv-sandbox")

# Nobody would write this by chance, so wherever it is found it has leaked.
KEY = "k3y-Th4t-n0b0dy-may-see"

SANITIZER = re.compile(rb"(Address|Leak|Thread|Memory)Sanitizer|runtime error:")


@functools.lru_cache(maxsize=None)
def sanitized():
    with open(HPKVD, "rb") as f:
        return b"__asan_init" in f.read()


def mebibytes(n):
    """So much memory; a sanitizer keeps what was freed for a while, so it needs more."""
    return (n * 2 if sanitized() else n) << 20


# A machine under load may be slow; a daemon that hangs stays hung.
DEADLINE = int(os.environ.get("HPKVD_TEST_DEADLINE", 60))


def eventually(probe, what="what was waited for"):
    """Asks until the answer is truthy, and returns it."""
    until = time.monotonic() + DEADLINE
    pause = 0.002
    while True:
        result = probe()
        if result:
            return result
        if time.monotonic() > until:
            raise AssertionError(f"{what} has not come true within {DEADLINE} s: {result!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def raise_descriptor_limit(n):
    """Skips the case where so many descriptors can't be had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < n:
        raise unittest.SkipTest(f"needs {n} descriptors, the hard limit is {hard}")
    if soft != resource.RLIM_INFINITY and soft < n:
        resource.setrlimit(resource.RLIMIT_NOFILE, (n, hard))


def exact(text):
    """A JSON text as members in their order whose numbers are the digits that were written."""
    return json.loads(text, object_pairs_hook=lambda pairs: pairs, parse_int=lambda s: ("number", s),
                      parse_float=lambda s: ("number", s))


def reserve():
    """A socket that is bound to a port to which nothing else is at any address. As long as it is open, the kernel gives the port
    to no other program, not even for an outgoing connection, while whoever sets SO_REUSEADDR, as hpkvd and the sandbox do, can
    listen on it, and again after an outage."""
    s = socket.socket(socket.AF_INET6 if need.has_ipv6() else socket.AF_INET)
    if s.family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(("", 0))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1) # after bind(): else the kernel could give it to two that do the same
    return s


_reserved = []


def free_port():
    """A port on which nobody listens, and that no other program is given as long as this process lives."""
    _reserved.append(reserve())
    return _reserved[-1].getsockname()[1]


# ---- processes ----


@contextlib.contextmanager
def black_hole(host, port=0):
    """An address from which nothing comes back: its port's queue of connections is full. Yields the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(10):
            filler = stack.enter_context(socket.socket(family))
            filler.setblocking(False)
            filler.connect_ex((host, port))
        probe = stack.enter_context(socket.socket(family))
        probe.settimeout(0.2)
        try:
            probe.connect((host, port))
        except TimeoutError:
            pass
        else:
            raise unittest.SkipTest("this kernel answers even so")
        yield port


class Process:
    """A program whose output is read as it comes, and kept."""

    def __init__(self, argv, env=None, before_exec=None):
        self.name = os.path.basename(argv[0])
        self.output = bytearray()
        self.grown = threading.Condition()
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, env=env, preexec_fn=before_exec)
        self.pid = self.process.pid
        self.pump = threading.Thread(target=self._pump, daemon=True)
        self.pump.start()

    def _pump(self):
        while not self.ended:
            self._readable(None)
            self.take()

    ended = False

    def _readable(self, within_ms):
        p = select.poll()
        p.register(self.process.stdout, select.POLLIN)
        return p.poll(within_ms)

    def take(self):
        """All that it has written by now is in .output then."""
        with self.grown:
            while not self.ended and self._readable(0):
                chunk = os.read(self.process.stdout.fileno(), 65536)
                self.output += chunk
                self.ended = not chunk
                self.grown.notify_all()

    def wait_output(self, pattern):
        """The first match in what the program has written, or will write."""
        pattern = re.compile(pattern)
        with self.grown:
            found = self.grown.wait_for(lambda: pattern.search(self.output) or self.ended, DEADLINE)
            match = pattern.search(self.output)
        if not match:
            why = f"ended with {self.process.wait()}" if found else "is silent"
            raise AssertionError(f"{self.name} {why}, and never wrote {pattern.pattern}")
        return match

    def wait_exit(self):
        status = self.process.wait(DEADLINE)
        self.pump.join(DEADLINE)
        return status

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.wait_exit()

    def close(self):
        self.kill()
        self.process.stdout.close()

    def show(self):
        text = self.output.decode("utf-8", "backslashreplace").splitlines()
        if len(text) > 400:
            text = text[:200] + [f"... {len(text) - 400} lines ..."] + text[-200:]
        print(f"---- output of {self.name} {self.pid}:", *text, "----", sep="\n", file=sys.stderr, flush=True)

    def stat(self):
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as f:
            return f.read().rpartition(")")[2].split()

    def cpu_seconds(self):
        fields = self.stat()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self):
        return int(self.stat()[21]) * os.sysconf("SC_PAGE_SIZE")

    def wakeups(self):
        """How often its threads have gone to sleep, and so woken up again."""
        count = 0
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{task}/status", encoding="ascii") as f:
                count += int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", f.read(), re.M)[1])
        return count


class Sandbox:
    """hpkv-sandbox. kill() and start() again on the same port: the service dies and comes back, empty."""

    def __init__(self, *args, key=KEY):
        self.args = args
        self.key = key
        self.reserved = reserve()
        self.port = self.reserved.getsockname()[1]
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def start(self):
        argv = [SANDBOX, "--port", str(self.port), "--api-key", self.key, "--tls-cert", certs() + "/server.pem",
                "--tls-key", certs() + "/server.key", *self.args]
        self.process = Process(argv)
        try:
            self.process.wait_output(rb"listening on \S+\n")
        except AssertionError:
            self.process.close()
            self.process.show()
            raise
        self.url = f"https://localhost:{self.port}"

    def kill(self):
        self.process.kill()

    def __exit__(self, kind, value, trace):
        self.process.close()
        self.reserved.close()
        if kind and not issubclass(kind, unittest.SkipTest):
            self.process.show()


SECTION = dict.fromkeys(("socket", "mode", "group", "max_clients", "max_line", "max_pipeline", "output_soft",
                         "output_hard", "max_queued", "max_client_queued", "max_subscriptions", "max_client_subscriptions",
                         "max_topics", "subscription_memory", "max_token_requests", "http", "http_address", "http_origins",
                         "local_key_file"), "listen") | dict.fromkeys(
                             ("keys", "mirror", "memory", "max_age", "max_stale", "notification_values"), "cache") | {
                                 "level": "log", "listen": "metrics"}


class Daemon:
    """hpkvd for a service (a FakeService, a Sandbox or a URL), with settings that differ from the tests' defaults.

    key_from             "file", "environment" or None: there is no key
    nofile, soft_nofile  its limits of descriptors
    umask                what it starts with
    hosts, resolv        what it finds in /etc/hosts and /etc/resolv.conf
    folder               of another Daemon, to share the socket's path
    access               the sections of access rules: {name: {setting: value}}; then every user may connect
    wait                 until its socket answers

    A test that has killed it sets killed."""

    def __init__(self, service, *, key=KEY, key_from="file", env=(), args=(), nofile=None, soft_nofile=None, umask=None,
                 hosts=None, resolv=None, folder=None, access=None, wait=True, **settings):
        self.service = service if isinstance(service, FakeService) else None
        self.settings = {
            "url": service if isinstance(service, str) else service.url,
            "ca_file": certs() + "/ca.pem",
            "backoff_min": "5ms",
            "backoff_max": "50ms",
            # The defaults are too short where many tests wait for a processor.
            "connect_timeout": "30s",
            "request_timeout": "1m",
            "level": "debug",
            "combine": "", # tests count requests; test_combine.py and test_chaos.py have it as it is by default
        } | settings
        self.key, self.key_from = key, key_from
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("HPKV_")} | dict(env)
        self.args, self.hosts, self.resolv, self.wait = args, hosts, resolv, wait
        self.nofile, self.soft_nofile, self.umask = nofile, soft_nofile, umask
        self.killed = False
        self.own_folder = folder is None
        self.folder = folder or tempfile.mkdtemp(prefix="hpkvd-test-")
        self.access = access or {}
        if self.access:
            os.chmod(self.folder, 0o711)
            self.settings.setdefault("mode", "0666")
        self.socket = self.settings.setdefault("socket", self.folder + "/sock")
        self.process = None

    def _write_files(self):
        path = self.folder + "/hpkvd.conf"
        sections = collections.defaultdict(list)
        for name, value in self.settings.items():
            sections[SECTION.get(name, "upstream")].append(f"{name} = {value}\n")
        if self.key_from == "file":
            sections["upstream"].append("api_key_file = api-key\n")
            self._write_file("api-key", self.key + "\n")
        elif self.key_from:
            self.env["HPKV_API_KEY"] = self.key
        for name, rule in self.access.items():
            sections[f"access {name}"] = [f"{setting} = {value}\n" for setting, value in rule.items()]
        self._write_file("hpkvd.conf", "".join(f"[{section}]\n" + "".join(lines) for section, lines in sections.items()))
        return path

    def _write_file(self, name, text):
        """At once: another daemon of this folder may be reading what is there."""
        path = f"{self.folder}/{name}"
        with open(os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as f:
            f.write(text)
        os.replace(f"{path}.new", path)

    def _with_etc(self, argv):
        """The command that runs argv where files of /etc are others."""
        mounts = []
        for name, text in (("hosts", self.hosts), ("resolv.conf", self.resolv)):
            if text is None:
                continue
            with open(f"{self.folder}/{name}", "w", encoding="ascii") as f:
                f.write(text)
            mounts.append(f'mount --bind {self.folder}/{name} "$(readlink -f /etc/{name})" && ')
        if not mounts:
            return argv
        need_mounts()
        return [*UNSHARE, "sh", "-c", "".join(mounts) + 'exec "$@"', "hpkvd", *argv]

    def _prepare(self):
        hard = self.nofile or resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.soft_nofile or hard, hard))
        if self.umask is not None:
            os.umask(self.umask)

    def start(self):
        argv = self._with_etc([HPKVD, "-c", self._write_files(), *self.args])
        self.process = Process(argv, env=self.env, before_exec=self._prepare)
        self.pid = self.process.pid
        if self.wait:
            self.process.wait_output(rb"listens on")

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self._clean_up(True)
            raise
        return self

    def __exit__(self, kind, value, trace):
        failed = kind and not issubclass(kind, unittest.SkipTest)
        try:
            if not failed:
                self._end_well()
        except BaseException:
            failed = True
            raise
        finally:
            self._clean_up(failed)

    @contextlib.contextmanager
    def _with_a_subscriber(self):
        """Real daemons end while programs are connected to them, so it does with one at least, in whatever state it is."""
        with contextlib.ExitStack() as stack:
            last = None
            with contextlib.suppress(OSError, AssertionError, ValueError):
                last = stack.enter_context(self.client())
                last.sock.settimeout(1)
                last.send({"op": "subscribe", "key": "the last one", "messageId": 1}, {"op": "ping"})
                last.answer()
            yield last

    def _end_well(self):
        if not self.killed and self.process.process.poll() is None:
            with self._with_a_subscriber() as last:
                self._end_by_signal(last)
        assert not SANITIZER.search(self.process.output), "a sanitizer has found something"

    def _end_by_signal(self, last):
        self.process.signal(signal.SIGTERM)
        if self.service: # whom nobody answers any more the daemon need not wait for
            self.service.hang_up()
        with contextlib.suppress(OSError):
            while last and last.sock.recv(65536): # the daemon waits for clients that have answers to read
                pass
        status = self.process.wait_exit()
        assert status == 0, f"hpkvd ended with {status} after SIGTERM"
        assert not os.path.exists(self.socket), "hpkvd has left its socket behind"

    def _clean_up(self, failed):
        if self.process:
            self.process.close()
            if failed:
                self.process.show()
        if self.own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    # -- new settings

    def change(self, *, key=None, access=None, **settings):
        """Writes them into its files; None: a setting is not there any more."""
        self.key = key or self.key
        self.access = self.access if access is None else access
        self.settings = {name: value for name, value in (self.settings | settings).items() if value is not None}
        self._write_files()

    def reload(self, **settings):
        """SIGHUP, and waits for what comes of it: were they taken over? Each reload is told by one line."""
        self.change(**settings)
        return self.hang_up()

    def hang_up(self):
        told = re.compile(rb"(new settings are in force|no setting has changed)|the new settings are not used")
        before = len(told.findall(self.process.output))
        self.process.signal(signal.SIGHUP)
        eventually(lambda: len(told.findall(self.process.output)) > before, "an answer to SIGHUP")
        return bool(told.findall(self.process.output)[-1])

    # -- talking to it

    def client(self, **options):
        return Client(self.socket, **options)

    def status(self):
        with self.client() as c:
            return c.ask({"op": "status"})

    def stats(self):
        """The counters, without what all their names begin and end with."""
        with self.client() as c:
            stats = c.ask({"op": "stats"})["stats"]
        return {name.removeprefix("hpkvd_").removesuffix("_total"): value for name, value in stats.items()}

    def wait_state(self, state):
        return eventually(lambda: (s := self.status())["upstream"]["state"] == state and s, f"upstream.state {state}")

    def wait_status(self, probe, what="status"):
        return eventually(lambda: probe(s := self.status()) and s, what)

    @contextlib.contextmanager
    def still(self):
        """It stands still, so all that comes meanwhile is there when it looks again."""
        self.process.signal(signal.SIGSTOP)
        try:
            eventually(lambda: self.process.stat()[0] == "T", "the daemon standing still")
            yield
        finally:
            self.process.signal(signal.SIGCONT)

    def is_pending(self, number):
        """Has a signal been sent to it that it has not taken yet?"""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as f:
            return int(re.search(r"^ShdPnd:\s*(\w+)", f.read(), re.M)[1], 16) >> number - 1 & 1

    def log(self):
        """All that it has written so far, which it does before anything that comes of what it writes about."""
        self.process.take()
        return bytes(self.process.output)


class Unprivileged(Daemon):
    """One that may give files to groups of its own only."""

    def _with_etc(self, argv):
        if os.geteuid() != 0:
            return argv
        if not shutil.which("setpriv"):
            raise unittest.SkipTest("there is no setpriv")
        return ["setpriv", "--bounding-set=-chown", *argv]


class Awaited(Daemon):
    """Its configuration is a FIFO: it reads what feed() writes, once, and reads nothing more before."""

    def __init__(self, service, **options):
        super().__init__(service, wait=False, **options)

    def _write_file(self, name, text):
        if name != "hpkvd.conf":
            super()._write_file(name, text)
            return
        self.text = text
        os.mkfifo(f"{self.folder}/{name}", 0o600)

    def start(self):
        super().start()
        self.writer = open(self.folder + "/hpkvd.conf", "w", encoding="utf-8") # waits until it is being read

    def feed(self):
        with self.writer:
            self.writer.write(self.text)
        self.process.wait_output(rb"listens on")

    def _clean_up(self, failed):
        if self.process:
            self.writer.close()
        super()._clean_up(failed)


UNSHARE = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]


@functools.lru_cache(maxsize=None)
def can_mount():
    command = "mount --bind /dev/null \"$(readlink -f /etc/hosts)\""
    try:
        return subprocess.run([*UNSHARE, "sh", "-c", command], stderr=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        return False


def need_mounts():
    if not can_mount():
        raise unittest.SkipTest("this machine does not let us give a process another /etc/hosts")


# ---- a local client ----

MISSING = object()


class Case(unittest.TestCase):
    """A test case that knows what errors look like."""

    maxDiff = None

    def assert_error(self, answer, code, reason, executed, message_id=MISSING):
        found = tuple(answer.get(name) for name in ("code", "reason", "executed"))
        self.assertEqual((code, reason, executed), found, answer)
        self.assertIsInstance(answer["error"], str)
        self.assertTrue(answer["error"])
        self.assertEqual(message_id, answer.get("messageId", MISSING))
        self.assertLessEqual(set(answer), {"code", "error", "reason", "executed", "messageId", "retryAfterMs"})


def get(key, message_id=None, **more):
    """A request, as an object."""
    return {"op": "get", "key": key} | ({} if message_id is None else {"messageId": message_id}) | more


def put(key, value, message_id=None, **more):
    return get(key, message_id, **more) | {"op": "set", "value": value}


@contextlib.contextmanager
def acting_as(uid, gid=None, groups=()):
    """This process is another user's for a moment, which is what the kernel tells of connections that it makes."""
    before = os.geteuid(), os.getegid(), os.getgroups()
    try:
        os.setgroups(groups)
        os.setegid(uid if gid is None else gid)
        os.seteuid(uid)
        yield
    finally:
        os.seteuid(before[0])
        os.setegid(before[1])
        os.setgroups(before[2])


def need_root(groups=()):
    """Skips the case where this process can't be another user; a root of its own namespace may know no others."""
    if os.geteuid() != 0:
        raise unittest.SkipTest("only root can be several users")
    try:
        with acting_as(20001, 20001, groups or [30001]):
            pass
    except OSError as error:
        raise unittest.SkipTest(f"this root can't be other users: {error}") from error


class Client:
    """A connection to the socket. send_buffer: bytes of its socket's send buffer, for tests that fill it. who: as whom,
    see acting_as()."""

    def __init__(self, path, *, send_buffer=None, receive_buffer=None, who=None):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if send_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        # Python's time limit would make it a socket that doesn't wait, and that is refused at once while the backlog is full.
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", DEADLINE, 0))
        with acting_as(*who) if who else contextlib.nullcontext():
            self._connect(path)
        self.sock.settimeout(DEADLINE)
        self.received = bytearray()
        self.barriers = 0

    def __enter__(self):
        return self

    def __exit__(self, *ignored):
        self.close()

    def close(self):
        self.sock.close()

    def _connect(self, path):
        """A stop interrupts a connect() with a time limit, which Python takes for success."""
        while True:
            self.sock.connect(path)
            with contextlib.suppress(OSError):
                self.sock.getpeername()
                return

    # -- out

    def send_raw(self, data):
        self.sock.sendall(data)

    def send(self, *requests):
        """Each request, an object or the text of one, as a line; all in one write."""
        lines = [r if isinstance(r, str) else json.dumps(r) for r in requests]
        self.send_raw("".join(line + "\n" for line in lines).encode("utf-8", "surrogatepass"))

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def fill(self, data):
        """Sends as much as the socket takes now without waiting; the number of bytes."""
        sent = 0
        view = memoryview(data)
        self.sock.setblocking(False)
        try:
            while sent < len(view):
                sent += self.sock.send(view[sent:sent + 65536])
        except BlockingIOError:
            pass
        finally:
            self.sock.settimeout(DEADLINE)
        return sent

    # -- in

    def _receive(self):
        chunk = self.sock.recv(1 << 18)
        self.received += chunk
        return bool(chunk)

    def line(self):
        """The next line, as it came, without its end."""
        searched = 0
        while (end := self.received.find(b"\n", searched)) < 0:
            searched = len(self.received)
            if not self._receive():
                raise AssertionError(f"the daemon closed the connection; unfinished: {bytes(self.received[:200])!r}")
        line = bytes(self.received[:end])
        del self.received[:end + 1]
        return line

    def lines(self, n):
        """The next n lines, cheaply."""
        have = self.received.count(b"\n")
        while have < n:
            before = len(self.received)
            if not self._receive():
                raise AssertionError(f"the daemon closed the connection after {have} of {n} lines")
            have += self.received.count(b"\n", before)
        lines = bytes(self.received).split(b"\n", n)
        self.received = bytearray(lines.pop())
        return lines

    def answer(self):
        return json.loads(self.line())

    def answers(self, n):
        return [json.loads(line) for line in self.lines(n)]

    def ask(self, request):
        self.send(request)
        return self.answer()

    def subscribe(self, **members):
        """Subscribes to key, keys, pattern or patterns, and sees that it is live."""
        answer = self.ask({"op": "subscribe"} | members)
        assert answer["code"] == 200, answer

    def unsubscribe(self, **members):
        answer = self.ask({"op": "unsubscribe"} | members)
        assert answer["code"] == 200, answer

    def change(self):
        """Key and value of the next line, which is a notification and nothing more."""
        change = self.answer()
        assert set(change) == {"type", "key", "value", "timestamp"}, change
        return change["key"], change["value"]

    def at_end(self):
        """Waits for the end of file. False when something came before it."""
        try:
            while not self.received and self._receive():
                pass
        except ConnectionResetError:
            pass
        return not self.received

    def barrier(self):
        """Makes sure that the daemon has handled all we sent, and that it has answered nothing that we did not read."""
        self.barriers += 1
        mark = f"barrier {self.barriers}"
        answer = self.ask({"op": "ping", "messageId": mark})
        assert answer == {"code": 200, "message": "pong", "messageId": mark}, f"an unexpected line: {answer}"
        assert not self.received, f"unexpected bytes: {bytes(self.received)!r}"

    @staticmethod
    def barrier_by(daemon):
        """Makes sure, through another client, that the daemon has had the time to read what we sent."""
        with daemon.client() as other:
            other.barrier()
            other.barrier()


class Listener:
    """Reads all lines of a client in a thread as they come, so that it is never slow. Say no more to the client's own
    line() and so on."""

    def __init__(self, client):
        self.client = client
        self.lines = [] # as objects
        self.ended = False
        self.grown = threading.Condition()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        rest = b""
        try:
            while chunk := self.client.sock.recv(1 << 18):
                *lines, rest = (rest + chunk).split(b"\n")
                lines = [json.loads(line) for line in lines]
                with self.grown:
                    self.lines += lines
                    self.grown.notify_all()
        except OSError: # closed by the test; or a silence that its wait() finds too long as well
            pass
        with self.grown:
            self.ended = True
            self.grown.notify_all()

    def wait(self, probe, what):
        """Until the probe of the lines is true; returns what it said."""
        with self.grown:
            self.grown.wait_for(lambda: probe(self.lines) or self.ended, DEADLINE)
            result = probe(self.lines)
        assert result, f"{what} has not come, but {self.lines[-5:]}"
        return result

    def find(self, **members):
        """The first line with these members, which has come or will."""
        has = lambda line: all(line.get(name, MISSING) == value for name, value in members.items())
        return self.wait(lambda lines: next(filter(has, lines), None), f"a line with {members}")

    def ask(self, request, message_id):
        """Sends a request whose id no other has; its answer."""
        self.client.send(request | {"messageId": message_id})
        return self.find(messageId=message_id)

    def barrier(self):
        """All that the daemon had for us before it read this has come."""
        self.client.barriers += 1
        self.ask({"op": "ping"}, f"barrier {self.client.barriers}")

    def values(self, key):
        """What it was told of the key, in order."""
        with self.grown:
            return [line["value"] for line in self.lines if line.get("type") == "notification" and line["key"] == key]

    def of_type(self, kind):
        with self.grown:
            return [line for line in self.lines if line.get("type") == kind]


# ---- a service that obeys ----


def echo(request):
    """What FakeService answers by default: the service's success answers, with made-up values."""
    key = request.obj.get("key")
    return request.reply(**{
        1: {"key": key, "value": f"value of {key}"},
        5: {"records": [], "count": 0, "truncated": False},
        6: {"success": True, "newValue": 1},
    }.get(request.op, {"success": True, "message": "done"}))


class Request:
    """A message that came from the daemon."""

    def __init__(self, connection, text):
        self.connection = connection
        self.text = text # as it came
        self.obj = json.loads(text)
        self.id = self.obj["messageId"]
        self.op = self.obj["op"]
        self.key = self.obj.get("key")
        self.answered = False

    def reply(self, **members):
        """Answers it: with code 200 and the members, or others in their place."""
        return self.reply_raw(json.dumps({"code": 200, "messageId": self.id} | members))

    def reply_raw(self, text):
        """Answers with this text, in which <id> stands for the messageId."""
        with self.connection.service.changed:
            if not self.answered:
                self.answered = True
                self.connection.service.outstanding -= 1
        self.connection.send_text(text.replace("<id>", str(self.id)))


class TokenRequest:
    """A token that the daemon has asked for."""

    def __init__(self, number, headers, body):
        self.number = number # from 1 on
        self.headers = headers
        self.obj = json.loads(body)
        self.list = self.obj.get("subscribePatterns", self.obj.get("subscribeKeys"))
        self.token = None # what it was answered with


def covers(listed, key):
    """Does a token with this string in its list tell of the key? As doc/sandbox.md says."""
    if listed.startswith("^"):
        return re.search(listed, key) is not None
    if "*" in listed:
        return re.fullmatch(".*".join(map(re.escape, listed.split("*"))), key, re.S) is not None
    return listed == key


class Late:
    """Does things in their order, each so many ms after it was asked to; at once while that is 0."""

    def __init__(self):
        self.ms = 0
        self.waiting = None
        self.ended = False # nobody is there any more
        self.lock = threading.Lock()

    def do(self, action):
        with self.lock:
            if self.ms and not self.waiting:
                self.waiting = queue.SimpleQueue()
                threading.Thread(target=self._run, daemon=True).start()
            if self.waiting: # once something was late, what comes behind it waits in the same line
                self.waiting.put((time.monotonic() + self.ms / 1000, action))
                return
        action()

    def _run(self):
        while (entry := self.waiting.get()):
            due, action = entry
            time.sleep(max(0, due - time.monotonic()))
            action()

    def end(self):
        with self.lock:
            self.ended = True
            if self.waiting:
                self.waiting.put(None)

    def wait(self):
        """Until all that it was asked for so far is done."""
        done = threading.Event()
        self.do(done.set)
        until = time.monotonic() + self.ms / 1000 + DEADLINE
        while not done.wait(0.01) and not self.ended:
            assert time.monotonic() < until, "what was late has not gone out"


class Connection:
    """One connection of the daemon, from accept to close.

    late           delays all that goes out, late_changes only notifications, which pongs and answers then overtake:
                   .ms, see Late
    token, list    what it was opened with: None and [] without one
    pong           answers pings; None: as the service does
    """

    def __init__(self, service, sock):
        self.service = service
        self.sock = sock
        self.lock = threading.RLock()
        self.ws = WSConnection(ConnectionType.SERVER)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = service.context.wrap_bio(self.incoming, self.outgoing, server_side=True) if service.context else None
        self.open = False # the upgrade was answered with 101
        self.target = None
        self.pings = self.pongs = 0
        self.close_code = None # that the daemon's close frame said
        self.error = None
        self.gone = threading.Event() # nothing comes from it any more
        self.may_read = threading.Event()
        self.may_read.set()
        self.text = ""
        self.token, self.list = None, []
        self.pong = None
        self.late, self.late_changes = Late(), Late()
        self.http = None # the parser, if it is for tokens
        self.posted = bytearray() # a token request's body so far
        self.thread = threading.Thread(target=self._run, daemon=True)

    # -- bytes

    def _flush(self):
        data = self.outgoing.read()
        if data:
            self.sock.sendall(data)

    def _write(self, data):
        with self.lock:
            try:
                if self.tls:
                    self.tls.write(data)
                    self._flush()
                else:
                    self.sock.sendall(data)
            except (OSError, ssl.SSLError) as error:
                self.error = self.error or error # the daemon has gone; what it makes of that is what is tested

    def _decrypt(self, data):
        """What can be read by now."""
        plain = bytearray()
        self.incoming.write(data)
        try:
            while chunk := self.tls.read(65536):
                plain += chunk
        except ssl.SSLWantReadError:
            pass
        finally:
            self._flush()
        return bytes(plain)

    def _run(self):
        try:
            while self.may_read.wait() and (data := self.sock.recv(65536)):
                self.service._note("bytes", data)
                if self.service.silent:
                    continue
                with self.lock:
                    events = self._events(self._decrypt(data) if self.tls else data)
                for event in events:
                    self._handle(event)
        except (OSError, ssl.SSLError) as error:
            self.error = error
        except ProtocolError as error: # the daemon speaks bad WebSocket, which no test forgives
            self.error = error
            self.service.faults.append(error)
        except Exception as error: # a message that is no request, or a fault of the test's own script
            self.service.faults.append(error)
            raise
        finally:
            self.open = False
            self.late.end()
            self.late_changes.end()
            self.gone.set()
            self.service._notify()

    def _events(self, plain):
        if not plain:
            return []
        if self.service.raw_upgrade and not self.open:
            head = plain.split(b"\r\n", 1)[0].decode("latin-1")
            self.service._note("upgrades", head.split(" ")[1])
            self._write(self.service.raw_upgrade)
            return []
        if not self.http and not self.target and plain.startswith(b"POST"):
            self.http = h11.Connection(h11.SERVER)
        if self.http:
            return self._http_events(plain)
        self.ws.receive_data(plain)
        return list(self.ws.events())

    def _http_events(self, plain):
        self.http.receive_data(plain)
        events = []
        while (event := self.http.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            events.append(event)
        return events

    def _handle(self, event):
        if self.http:
            self._handle_http(event)
        elif isinstance(event, ws_events.Request):
            self._upgrade(event)
        elif isinstance(event, ws_events.TextMessage):
            self.text += event.data
            if event.message_finished:
                text, self.text = self.text, ""
                self._request(text)
        elif isinstance(event, ws_events.BytesMessage):
            self.service.faults.append("the daemon has sent a binary message")
        elif isinstance(event, ws_events.Ping):
            self.pings += 1
            self.service._notify()
            if self.service.pong if self.pong is None else self.pong:
                self._answer_ping(event)
        elif isinstance(event, ws_events.Pong):
            self.pongs += 1
            self.service._notify()
        elif isinstance(event, ws_events.CloseConnection):
            self.close_code = event.code
            with self.lock:
                if self.ws.state.name != "CLOSED":
                    self.send_event(event.response())
            self.late.do(self.hang_up)

    def _answer_ping(self, ping):
        with self.lock:
            if self.ws.state.name == "OPEN": # a close frame may have come together with it
                self.send_event(ping.response())

    def _handle_http(self, event):
        if isinstance(event, h11.Request):
            if (event.method, event.target) != (b"POST", self.service.token_path.encode()):
                self.service.faults.append(f"the daemon asks for {event.target!r}")
            self.head = {name.decode(): value.decode() for name, value in event.headers}
            self.posted = bytearray()
        elif isinstance(event, h11.Data):
            self.posted += event.data
        elif isinstance(event, h11.EndOfMessage):
            with self.service.changed:
                request = TokenRequest(len(self.service.token_requests) + 1, self.head, bytes(self.posted))
                self.service._note("token_requests", request)
            request.connection = self
            answer = self.service.mint(request)
            if answer != "never":
                self.answer_token(request, answer)
        elif isinstance(event, h11.ConnectionClosed):
            self.hang_up()

    def answer_token(self, request, answer):
        """With a token, or with a refusal: (status, headers, body)."""
        status, headers, body = 200, {"Content-Type": "application/json"}, answer
        if isinstance(answer, str):
            request.token = answer
            self.service.tokens[answer] = request.list
            body = json.dumps({"token": answer}).encode()
        else:
            status, headers, body = answer
        headers = [*headers.items(), ("Content-Length", str(len(body)))]
        with self.lock:
            data = self.http.send(h11.Response(status_code=status, headers=headers))
            data += self.http.send(h11.Data(data=body)) + self.http.send(h11.EndOfMessage())
            self._write(data)
            if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
                self.http.start_next_cycle()

    def _upgrade(self, event):
        self.target = event.target
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(event.target).query)
        self.token = query.get("token", [None])[0]
        self.host = event.host
        self.headers = dict(event.extra_headers)
        self.service._note("upgrades", event.target)
        refusal = self.service.upgrade(event) if self.service.upgrade else None
        if refusal == "never":
            return
        if refusal:
            status, headers, body = refusal
            headers = [(name.encode(), value.encode()) for name, value in headers.items()]
            headers.append((b"content-length", str(len(body)).encode()))
            self.send_event(ws_events.RejectConnection(status_code=status, headers=headers, has_body=True))
            self.send_event(ws_events.RejectData(data=body))
            self.hang_up()
            return
        self.list = self.service.tokens.get(self.token, [])
        if self.service.prepare:
            self.service.prepare(self)
        self.open = True
        with self.service.publishing, self.lock: # from here on it is told of changes, behind the 101
            self.service._note("connections", self)
            self._send(self.ws.send(ws_events.AcceptConnection()) + self.service.greeting)

    def _request(self, text):
        request = Request(self, text)
        with self.service.changed:
            self.service.outstanding += 1
            self.service.most_outstanding = max(self.service.most_outstanding, self.service.outstanding)
        self.service._note("requests", request)
        if self.service.answer:
            self.service.answer(request)

    # -- for tests

    def _send(self, data, late=None):
        (late or self.late).do(lambda: self._write(data))

    def send_event(self, event):
        with self.lock:
            self._send(self.ws.send(event))

    def send_text(self, text):
        self.send_frame(Opcode.TEXT, text.encode("utf-8"))

    def send_change(self, text):
        """A notification."""
        late = self.late_changes if self.late_changes.ms or self.late_changes.waiting else None
        self.send_frame(Opcode.TEXT, text.encode("utf-8"), late=late)

    def covers(self, key):
        return any(covers(listed, key) for listed in self.list)

    def send_frame(self, opcode, payload, *, final=True, first=None, late=None):
        """Any frame, right or wrong. first: the first byte, if opcode and final don't say what a test wants."""
        head = bytes([int(opcode) | (0x80 if final else 0) if first is None else first])
        if len(payload) < 126:
            head += bytes([len(payload)])
        elif len(payload) < 65536:
            head += struct.pack("!BH", 126, len(payload))
        else:
            head += struct.pack("!BQ", 127, len(payload))
        self._send(head + payload, late)

    def send_bytes(self, data):
        """Bytes behind the TLS, of no frame in particular."""
        self._write(data)

    def close(self, code=1000, reason=""):
        self.send_frame(Opcode.CLOSE, struct.pack("!H", code) + reason.encode() if code else b"")

    def reset(self):
        """RST: the connection is gone at once, and what was on its way with it."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.service._forget(self)
        try:
            self.sock.shutdown(socket.SHUT_RD) # wakes the thread, which closes
        except OSError:
            pass
        self.sock.close()

    def hang_up(self):
        """FIN, without a close frame or TLS's close_notify."""
        self.service._forget(self)
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def wait_gone(self):
        assert self.gone.wait(DEADLINE), "the daemon has not left the connection"


class FakeService:
    """A TLS WebSocket server on a port of its own, which does as it is told.

    answer      called with each Request; None: a test answers when it likes
    upgrade     called with each upgrade; None: accepted, or (status, headers, body), or "never": no answer
    raw_upgrade bytes that answer whatever the first request was
    silent      accepts connections and says nothing, not even TLS
    pong        answers pings
    greeting    bytes of frames that go out together with the answered upgrade
    mint        called with each TokenRequest: the token's text, or (status, headers, body), or "never": no answer
    prepare     called with each Connection before its upgrade is answered with 101, to make it slow, say

    An upgrade with a token that it has not minted is accepted: who wants it refused says so by upgrade.
    """

    def __init__(self, *, host="127.0.0.1", port=0, name="localhost", cert="server", tls=True, answer=echo,
                 upgrade=None, raw_upgrade=None, silent=False, pong=True, greeting=b"", mint=None, prepare=None):
        self.answer, self.upgrade, self.raw_upgrade = answer, upgrade, raw_upgrade
        self.silent, self.pong, self.greeting = silent, pong, greeting
        self.reserved = None if port else reserve()
        self.host, self.port, self.name, self.tls = host, port or self.reserved.getsockname()[1], name, tls
        self.mint = mint or (lambda request: f"token-{request.number}")
        self.prepare = prepare
        self.token_path = "/token/websocket"
        self.token_requests = []
        self.tokens = {} # minted ones, and their lists
        self.publishing = threading.RLock() # a connection is told of a change wholly or not
        self.clock = 1_700_000_000_000 # of changes: each has a timestamp of its own
        self.context = None
        if tls:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(f"{certs()}/{cert}.pem", f"{certs()}/{cert}.key")
        self.changed = threading.Condition(threading.RLock())
        self.bytes, self.upgrades, self.connections, self.requests = [], [], [], []
        self.accepted = 0
        self.outstanding = self.most_outstanding = 0
        self.taken = 0 # requests that next_request() has handed out
        self.faults = []
        self.all = set() # open sockets
        self.listener = None

    def __enter__(self):
        self.listen()
        return self

    def __exit__(self, kind, value, trace):
        self.stop_listening()
        for connection in self.hang_up():
            connection.thread.join(DEADLINE)
            connection.sock.close()
        if self.reserved:
            self.reserved.close()
        if not kind:
            assert not self.faults, self.faults

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://{self.name}:{self.port}"

    def listen(self):
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self.listener = socket.socket(family)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((self.host, self.port))
        self.listener.listen(64)
        self.thread = threading.Thread(target=self._accept, args=(self.listener,), daemon=True)
        self.thread.start()

    def stop_listening(self):
        if self.listener:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.thread.join(DEADLINE)
            self.listener.close()
            self.listener = None

    def _accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(self, sock)
            with self.changed:
                self.accepted += 1
                self.all.add(connection)
                self.changed.notify_all()
            connection.thread.start()

    def _note(self, what, thing):
        with self.changed:
            getattr(self, what).append(thing)
            self.changed.notify_all()

    def _notify(self):
        with self.changed:
            self.changed.notify_all()

    def _forget(self, connection):
        with self.changed:
            connection.open = False
            self.all.discard(connection)

    def hang_up(self):
        """Ends all connections; returns them."""
        with self.changed:
            connections = list(self.all)
        for connection in connections:
            connection.may_read.set()
            connection.hang_up()
        return connections

    # -- changes

    def change(self, key, value, **members):
        """The text of a notification, with a timestamp that no other has."""
        with self.publishing:
            self.clock += 1
            return json.dumps({"type": "notification", "key": key, "value": value, "timestamp": self.clock} | members)

    def publish(self, key, value, **members):
        """Tells a change to all connections whose token covers the key; its text."""
        with self.publishing:
            text = self.change(key, value, **members)
            self.publish_text(key, text)
            return text

    def publish_text(self, key, text):
        with self.publishing:
            for connection in self.audience(key):
                connection.send_change(text)

    def audience(self, key):
        with self.changed:
            return [c for c in self.connections if c.open and c.covers(key)]

    # -- what tests wait for

    def wait_token_requests(self, n):
        self.wait(lambda: len(self.token_requests) >= n, f"token request {n}")
        return self.token_requests[n - 1]

    def wait(self, probe, what):
        with self.changed:
            assert self.changed.wait_for(probe, DEADLINE), f"the service has waited in vain for {what}"

    def connection(self, n=1):
        """The n-th connection that was answered with 101."""
        self.wait(lambda: len(self.connections) >= n, f"connection {n}")
        return self.connections[n - 1]

    def next_request(self):
        """The next request in the order of arrival, each once."""
        return self.next_requests(1)[0]

    def next_requests(self, n):
        self.wait(lambda: len(self.requests) >= self.taken + n, f"{n} requests after {self.taken}")
        self.taken += n
        return self.requests[self.taken - n:self.taken]

    def all_told(self):
        """Waits until the daemon has got all that went out to it, late or not."""
        with self.changed:
            connections = [c for c in self.connections if c.open]
        for connection in connections:
            connection.late_changes.wait()
            pongs = connection.pongs
            connection.send_frame(Opcode.PING, b"behind all changes")
            self.wait(lambda c=connection, n=pongs: c.pongs > n or not c.open, "a pong")

    def no_more_requests(self):
        """Has every request been handed out, those included that are on their way? For these it asks the daemon for a
        pong, which comes behind them. Only means something once the daemon has handled what could make it send one."""
        with self.changed:
            connections = [c for c in self.connections if c.open]
        for connection in connections:
            pongs = connection.pongs
            connection.send_frame(Opcode.PING, b"behind what you have sent")
            self.wait(lambda c=connection, n=pongs: c.pongs > n or not c.open, "a pong")
        return len(self.requests) == self.taken


class Stream:
    """A FakeService's changes of some keys, one every few milliseconds, from 0 on."""

    def __init__(self, service, *keys, every_ms=2):
        self.service, self.keys, self.every_ms = service, keys, every_ms
        self.n = 0 # that were told
        self.grown = threading.Condition()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        for n in itertools.count():
            for key in self.keys:
                self.service.publish(key, str(n))
            with self.grown:
                self.n = n + 1
                self.grown.notify_all()
            if self.stop.wait(self.every_ms / 1000):
                return

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *ignored):
        self.stop.set()
        self.thread.join()

    def go_on(self, n=50):
        """Until so many more were told."""
        with self.grown:
            until = self.n + n
            assert self.grown.wait_for(lambda: self.n >= until, DEADLINE), "the stream has stopped"


WITHHELD = {"answer": None}


def scene(service=(), client=(), connected=True, **settings):
    """Runs a case with a FakeService, a Daemon that is connected to it, and a Client of that."""

    def decorate(test):
        @functools.wraps(test)
        def run(self):
            with FakeService(**dict(service)) as s, Daemon(s, **settings) as d, d.client(**dict(client)) as c:
                if connected:
                    d.wait_state("connected")
                test(self, s, d, c)

        return run

    return decorate
