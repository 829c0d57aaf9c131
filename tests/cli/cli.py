"""cli.py - shared by the tests of the library and of the command.

    Driver       tests/lib/driver: a program that uses libhpkv in an event loop
    FakeDaemon   a socket at which a test plays hpkvd, line by line
    hpkv, Run    the command hpkv, run to its end or in the background; on pipes, or on a terminal (tty=True)

The rest comes from the daemon tests' harness. Environment variables: those of the harness, and HPKV, the command.
"""

import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "daemon"))

import need
from harness import DEADLINE, ROOT, SANITIZER # noqa: E402 (the path comes first)

BUILD = os.environ.get("BUILDDIR") or ROOT
HPKV = os.environ.get("HPKV") or os.path.join(BUILD, "hpkv")
DRIVER = os.path.join(BUILD, "tests", "lib", "driver")


def environment(**more):
    """Our own, without variables that name a socket or change the output."""
    drop = ("HPKVD_SOCKET", "XDG_RUNTIME_DIR", "NO_COLOR", "HPKV_")
    return {name: value for name, value in os.environ.items() if not name.startswith(drop)} | more


# ---- a program that uses the library ----

RESULT = {0: "ok", -1: "not found", -2: "refused", -3: "no daemon", -4: "unavailable", -5: "unknown", -6: "invalid",
          -7: "busy", -8: "no memory", -9: "cancelled"}
EVENT = {1: "change", 2: "gap", 3: "upstream lost", 4: "upstream back", 5: "lost", 6: "back", 7: "dropped", 100: "other"}


def quote(value):
    data = value if isinstance(value, bytes) else value.encode()
    return "".join(chr(b) if 0x20 < b < 0x7f and b != 0x25 else f"%{b:02x}" for b in data)


def unquote(word):
    """None, bytes that are not UTF-8, or a string."""
    if word == "-":
        return None
    data = urllib.parse.unquote_to_bytes(word[1:])
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


class Driver:
    """Takes commands and returns results. Answers and events may come at any time; each kind has a queue of its own."""

    def __init__(self, path=None, env=None):
        self.process = subprocess.Popen([DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        env=env or environment())
        self.output = b""
        self.kept = {"=": [], "a": [], "e": [], "busy": []}
        if path:
            self.do("new", path)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.process.stdin.close()
        if kind:
            self.process.kill()
        status = self.process.wait(DEADLINE)
        self.process.stdout.close()
        assert kind or status == 0, f"the driver ended with {status}"

    def tell(self, *words):
        self.process.stdin.write((" ".join(words) + "\n").encode())
        self.process.stdin.flush()

    def next(self, kind):
        while not self.kept[kind]:
            while b"\n" not in self.output:
                ready, _, _ = select.select([self.process.stdout], [], [], DEADLINE)
                chunk = os.read(self.process.stdout.fileno(), 65536) if ready else b""
                assert chunk, f"the driver is {'gone' if ready else 'silent'}; waited for {kind!r}"
                self.output += chunk
            line, _, self.output = self.output.partition(b"\n")
            words = line.decode().split()
            self.kept[words[0]].append(words[1:])
        return self.kept[kind].pop(0)

    def do(self, *words):
        """A command's result: its name, and what came with it."""
        self.tell(*words)
        return self.result()

    def result(self):
        words = self.next("=")
        return (RESULT[int(words[0])], *map(unquote, words[2:]), unquote(words[1]) if len(words) > 1 else "")

    @staticmethod
    def as_answer(words):
        answer = dict(zip(("result", "code", "reason", "value", "n", "truncated", "retry", "line", "error"), words))
        records = [unquote(word) for word in words[9:]]
        return {
            "result": RESULT[int(answer["result"])], "code": int(answer["code"]), "retry": int(answer["retry"]),
            "truncated": answer["truncated"] == "1", "records": list(zip(records[::2], records[1::2])),
        } | {name: unquote(answer[name]) for name in ("reason", "value", "line", "error")}

    def call(self, *words):
        self.tell("call", *words)
        return self.as_answer(self.next("=")[1:])

    def answer(self):
        """The next one that is called back: its name and itself."""
        words = self.next("a")
        return words[0], self.as_answer(words[1:])

    def event(self):
        words = self.next("e")
        names = ("key", "value", "pattern", "timestamp", "since", "until", "text", "line")
        event = dict(zip(names, words[3:]))
        for name in ("key", "value", "pattern", "text", "line"):
            event[name] = unquote(event[name])
        return event | {"type": EVENT[int(words[0])], "flags": int(words[1]), "skipped": int(words[2])}

    def event_of(self, *names):
        event = self.event()
        return tuple(event[name] for name in names)


# ---- a daemon that the test plays ----


class Peer:
    """A connection that the library has made."""

    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(DEADLINE)
        self.received = b""

    def line(self):
        while b"\n" not in self.received:
            chunk = self.sock.recv(65536)
            assert chunk, f"the library has closed the connection: {self.received[:200]!r}"
            self.received += chunk
        line, self.received = self.received.split(b"\n", 1)
        return json.loads(line)

    def send_raw(self, data):
        self.sock.sendall(data)

    def send(self, *objects):
        self.send_raw("".join(json.dumps(o) + "\n" for o in objects).encode())

    def reply(self, request, **members):
        self.send({"code": 200} | members | {"messageId": request["messageId"]})

    def at_end(self):
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self):
        self.sock.close()


class FakeDaemon:
    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="hpkv-test-")
        self.path = self.folder + "/sock"
        self.peers = []
        self.listen()

    def listen(self, backlog=100):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.bind(self.path)
        self.sock.listen(backlog)
        self.sock.settimeout(DEADLINE)

    def stop_listening(self):
        """As a daemon that ends does, before it refuses anything."""
        self.sock.close()
        if os.path.exists(self.path):
            os.unlink(self.path)

    def stop(self):
        """Closes all connections, as a daemon that ends does."""
        self.stop_listening()
        for peer in self.peers:
            peer.close()
        self.peers = []

    @contextlib.contextmanager
    def full(self):
        """Fills the backlog with other connections, so that no further one is accepted."""
        self.sock.listen(0)
        with contextlib.ExitStack() as others:
            with contextlib.suppress(BlockingIOError):
                while True:
                    other = others.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
                    other.connect(self.path)
            yield

    def accept(self):
        peer = Peer(self.sock.accept()[0])
        self.peers.append(peer)
        return peer

    def __enter__(self):
        return self

    def __exit__(self, *ignored):
        self.stop()
        shutil.rmtree(self.folder)


# ---- the command ----


def socket_of(daemon):
    """A path, a Daemon or a FakeDaemon."""
    return daemon if isinstance(daemon, str) else getattr(daemon, "socket", None) or daemon.path


class Run:
    """hpkv in the background.

    tty          stdin, stdout and stderr are one terminal; output is what it shows
    stderr_tty   stderr is a terminal; terminal is what it shows
    wrap         words of another program that runs it
    """

    def __init__(self, daemon, *words, tty=False, stderr_tty=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=(), wrap=()):
        self.output, self.errors, self.terminal = b"", b"", b""
        self.grown = threading.Condition()
        self.master = None
        self.argv = [*wrap, HPKV, *words]
        self.env = environment(HPKVD_SOCKET=socket_of(daemon), TZ="UTC", TERM="dumb") | dict(env)
        if tty or stderr_tty:
            self.master, slave = self._open_terminal()
        if tty:
            self.process = subprocess.Popen(self.argv, stdin=slave, stdout=slave, stderr=slave, env=self.env,
                                            preexec_fn=self._take_terminal)
            self.pumps = [self._pump(self.master, "output")]
        else:
            self.process = subprocess.Popen(self.argv, stdin=stdin, stdout=stdout,
                                            stderr=slave if stderr_tty else subprocess.PIPE, env=self.env)
            self.pumps = [self._pump(self.process.stdout.fileno(), "output")] if stdout == subprocess.PIPE else []
            self.pumps += [self._pump(self.master, "terminal") if stderr_tty else
                           self._pump(self.process.stderr.fileno(), "errors")]
        if self.master is not None:
            os.close(slave)

    @staticmethod
    def _open_terminal():
        master, slave = need.terminal()
        settings = termios.tcgetattr(slave)
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, settings)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 48, 120, 0, 0))
        return master, slave

    @staticmethod
    def _take_terminal():
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def _pump(self, fd, name):
        def pump():
            while True:
                try:
                    chunk = os.read(fd, 65536)
                except OSError: # a terminal whose last program has ended, or that the test has closed
                    chunk = b""
                with self.grown:
                    setattr(self, name, getattr(self, name) + chunk)
                    self.grown.notify_all()
                if not chunk:
                    return

        thread = threading.Thread(target=pump, daemon=True)
        thread.start()
        return thread

    def _wait_for(self, name, pattern):
        with self.grown:
            found = self.grown.wait_for(lambda: re.search(pattern, getattr(self, name)), DEADLINE)
        assert found, f"{pattern} has not come: {self.output[-400:]!r} {self.errors[-400:]!r}"

    def wait_output(self, pattern):
        self._wait_for("output", pattern)

    def wait_errors(self, pattern):
        self._wait_for("errors", pattern)

    def type(self, data):
        os.write(self.master, data)

    def wait(self):
        """Its exit status, once all its output has come."""
        status = self.process.wait(DEADLINE)
        for pump in self.pumps:
            pump.join(DEADLINE)
        for text in (self.output, self.errors, self.terminal):
            assert not SANITIZER.search(text), text.decode("utf-8", "replace")
        return status

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE)
        for pump in self.pumps:
            pump.join(DEADLINE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                stream.close()
        if self.master is not None:
            os.close(self.master)


def hpkv(daemon, *words, stdin=b"", **options):
    """Runs it to its end: exit status, output, errors."""
    with tempfile.TemporaryFile() as file:
        file.write(stdin)
        file.seek(0)
        if not options.get("tty"):
            options["stdin"] = file
        with Run(daemon, *words, **options) as run:
            return run.wait(), run.output, run.errors
