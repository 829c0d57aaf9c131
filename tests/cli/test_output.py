"""Output of hpkv, hpkvd and hpkv-sandbox arrives whole and readable, or is an error."""

import fcntl
import json
import os
import socket
import struct
import subprocess
import tempfile
import termios
import threading
import unittest

from cli import HPKV, FakeDaemon, Run, environment, hpkv
from harness import DEADLINE, HPKVD, SANDBOX, eventually
from test_commands import PATIENT, Tour

# Invisible characters, and those that turn or join visible ones.
INVISIBLE = ("\u00ad\u034f\u061c\u115f\u1160\u17b4\u180b\u180e\u180f\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u202e\u2060\u2064\u2066"
             "\u206f\u3164\ufe00\ufe0f\ufeff\uffa0\ufff9\ufffb\uffff\U0001fffe\U000e0001\U000e0041\U000e007f\U000e0100\U000e01ef"
             "\ue000\ufdd0\U000f0000\u00a0\u2003\u202f\u2800")


def escaped(text):
    return "".join(f"\\u{ord(c):04x}" if c <= "\uffff" else f"\\U{ord(c):08x}" for c in text)


class SlowReader:
    """A stdout, or stderr, that is non-blocking and full most of the time. descriptor is the program's end; all() closes that one
    and returns what came."""

    def __init__(self, pipe=True):
        if pipe:
            self.reading, self.descriptor = os.pipe()
            fcntl.fcntl(self.descriptor, fcntl.F_SETPIPE_SZ, 4096)
        else:
            ours, theirs = socket.socketpair()
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            self.reading, self.descriptor = ours.detach(), theirs.detach()
        os.set_blocking(self.descriptor, False)
        self.output = b""
        self.thread = threading.Thread(target=self.read, daemon=True)

    def read(self):
        while chunk := os.read(self.reading, 1000):
            self.output += chunk

    def unread(self):
        return struct.unpack("i", fcntl.ioctl(self.reading, termios.FIONREAD, b"1234"))[0]

    def all(self, process):
        os.close(self.descriptor)
        eventually(lambda: self.unread() > 2000 or process.poll() is not None, "there is hardly any room left, or the end")
        self.thread.start()
        status = process.wait(DEADLINE)
        self.thread.join(DEADLINE)
        os.close(self.reading)
        return status, self.output


class NonBlocking(Tour):
    """O_NONBLOCK belongs to the open file: any program that shares it with hpkv may have set it."""

    def start_with(self, *words, name="stdout", pipe=True, argv=None, socket_path=None, written=b"", **files):
        """written: bytes of other programs that are not read yet."""
        reader = SlowReader(pipe)
        os.write(reader.descriptor, written)
        process = subprocess.Popen(argv or [HPKV, *words], env=environment(HPKVD_SOCKET=socket_path or self.daemon.socket),
                                   **({"stdin": subprocess.DEVNULL, name: reader.descriptor} | files))
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process, reader

    def check(self, expected, *words, **options):
        process, reader = self.start_with(*words, **options)
        output = reader.all(process)[1]
        self.assertEqual(len(expected), len(output), words[:3])
        self.assertTrue(expected == output, words[:3])

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with cls.daemon.client() as client:
            client.send(*({"op": "set", "key": f"nb:{i:04}", "value": "v" * 90} for i in range(900)))
            assert all(a["code"] == 200 for a in client.answers(900))

    def test_values_and_records(self):
        keys = [f"nb:{i:04}" for i in range(900)]
        for pipe in (True, False):
            self.check(b"".join(b"v" * 90 + b"\n" for _ in keys), "get", *keys, pipe=pipe)
            self.check("".join(f"{key}\n" for key in keys).encode(), "ls", "nb:", pipe=pipe)
            self.check("".join(f"{key}\t{'v' * 90}\n" for key in keys).encode(), "range", "nb:", "nb:\x7f", pipe=pipe)

    def test_json(self):
        process, reader = self.start_with("range", "nb:", "nb:\x7f", "--json")
        status, output = reader.all(process)
        self.assertEqual((0, 900), (status, len(json.loads(output)["records"])))

    def test_texts(self):
        for words in (("completion", "bash"), ("completion", "zsh"), ("completion", "fish"), ("stats",), ("get", "--help")):
            whole = subprocess.run([HPKV, *words], env=environment(HPKVD_SOCKET=self.daemon.socket), capture_output=True,
                                   timeout=DEADLINE).stdout
            process, reader = self.start_with(*words)
            status, output = reader.all(process)
            self.assertEqual((0, whole.count(b"\n")), (status, output.count(b"\n")), words)

    def test_changes(self):
        with FakeDaemon() as daemon:
            for words in (("--raw",), ("--json",), ()):
                process, reader = self.start_with("watch", "k", "-n", "2000", *words, socket_path=daemon.path)
                peer = daemon.accept()
                peer.reply(peer.line())
                peer.send(*({"type": "notification", "key": "k", "value": f"v{i}", "timestamp": i} for i in range(2000)))
                status, output = reader.all(process)
                self.assertEqual((0, 2000), (status, output.count(b"\n")), words)

    def test_errors(self):
        process, reader = self.start_with("get", *(f"no:{i}" for i in range(1000)), name="stderr")
        status, output = reader.all(process)
        self.assertEqual((1, [f"hpkv: get no:{i}: no such key" for i in range(1000)]), (status, output.decode().splitlines()))

    def test_pages(self):
        process, reader = self.start_with("top", "--count", "20", "--delay", "1ms", *PATIENT)
        status, output = reader.all(process)
        self.assertEqual((0, 20), (status, output.count(b"\n\n")))

    def test_raw(self):
        with tempfile.TemporaryFile() as file:
            file.write(b'{"op":"ping"}\n' * 2000)
            file.seek(0)
            process, reader = self.start_with("raw", stdin=file)
            status, output = reader.all(process)
        self.assertEqual((0, 2000), (status, output.count(b"\n")))

    def test_a_value_from_a_stdin_that_has_none_yet(self):
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        with Run(self.daemon, "set", "late", stdin=reading) as run:
            os.close(reading)
            with self.assertRaises(subprocess.TimeoutExpired): # it has tried to write by then
                run.process.wait(0.2)
            os.write(writing, b"here it is")
            os.close(writing)
            self.assertEqual((0, b""), (run.wait(), run.errors))
        self.assertEqual("here it is", self.value("late"))

    def test_the_daemon_and_the_sandbox(self):
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as config:
            config.write("".join(f"no_such_setting_{i} = 1\n" for i in range(500)))
            config.flush()
            for argv, name in (([HPKVD, "--help"], "stdout"), ([HPKVD, "--version"], "stdout"), ([SANDBOX, "--help"], "stdout"),
                               ([SANDBOX, "--version"], "stdout"), ([HPKVD, "-t", "-c", config.name], "stderr"),
                               ([HPKVD, "-t", "-c", self.daemon.folder + "/hpkvd.conf"], "stdout")):
                whole = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=DEADLINE).stdout
                process, reader = self.start_with(argv=argv, name=name, written=b"." * 4096)
                self.assertEqual(whole, reader.all(process)[1].lstrip(b"."), argv)


@unittest.skipUnless(os.path.exists("/dev/full"), "there is no /dev/full")
class Full(Tour):
    """Output that can't be written is an error, whatever it is."""

    SAID = "can't write the output: No space left on device\n"

    def run_full(self, *argv, stdin=b""):
        with open("/dev/full", "wb") as full:
            run = subprocess.run(argv, input=stdin, stdout=full, stderr=subprocess.PIPE, env=environment(HPKVD_SOCKET=self.daemon.socket),
                                 timeout=DEADLINE)
        return run.returncode, run.stderr.decode()

    def test_every_command(self):
        self.put("full", "v")
        for words in (("--version",), ("--help",), ("help",), ("help", "get"), ("get", "--help"), ("get", "full"), ("get", "full", "--json"),
                      ("set", "full", "v", "--json"), ("del", "full-x", "--json"), ("range", "f", "g"), ("ls", "f"), ("incr", "full:i"),
                      ("wait", "full"), ("watch", "-i", "full", "-n", "1"), ("status",), ("stats",), ("ping",), ("ready", "--json"),
                      ("top", "-n", "1", *PATIENT), ("completion", "bash")):
            with self.subTest(" ".join(words)):
                status, said = self.run_full(HPKV, *words)
                self.assertEqual((2, "hpkv: " + self.SAID), (status, said.splitlines(True)[-1]))

    def test_the_daemon(self):
        for words in (("--version",), ("--help",), ("-t", "-c", self.daemon.folder + "/hpkvd.conf")):
            self.assertEqual((1, "hpkvd: " + self.SAID), self.run_full(HPKVD, *words), words)

    def test_the_sandbox(self):
        for words in (("--help",), ("--version",), ("--port", "0")):
            self.assertEqual((1, "hpkv-sandbox: " + self.SAID), self.run_full(SANDBOX, *words), words)


class Gone(Tour):
    def test_a_reader_that_has_gone_is_nothing_to_talk_about(self):
        """Where SIGPIPE is ignored, as by children of Python and node."""
        self.put("gone", "v" * 100)
        for argv, expected in (((HPKV, "get", *["gone"] * 100), 2), ((HPKV, "--help"), 2), ((HPKVD, "--version"), 1), ((SANDBOX, "--help"), 1)):
            reading, writing = os.pipe()
            os.close(reading)
            run = subprocess.run(argv, stdout=writing, stderr=subprocess.PIPE, env=environment(HPKVD_SOCKET=self.daemon.socket),
                                 restore_signals=False, timeout=DEADLINE)
            os.close(writing)
            self.assertEqual((expected, b""), (run.returncode, run.stderr), argv)


class Invisible(Tour):
    def test_on_a_terminal_they_are_shown_by_their_numbers(self):
        self.put("inv", f"<{INVISIBLE}>")
        self.assertEqual(f"<{escaped(INVISIBLE)}>\r\n", self.run_ok("get", "inv", tty=True).decode())

    def test_keys_too(self):
        self.put("inv-k\u200bey\U000e0041", "v")
        self.assertEqual("inv-k\\u200bey\\U000e0041\r\n", self.run_ok("ls", "inv-k", tty=True).decode())
        self.assertEqual("inv-k\\u200bey\\U000e0041  v\r\n", self.run_ok("ls", "-l", "inv-k", tty=True).decode())

    def test_elsewhere_they_are_what_they_are(self):
        self.put("inv", INVISIBLE)
        self.assertEqual(f"{INVISIBLE}\n".encode(), self.run_ok("get", "inv"))
        self.assertEqual(f"inv\t{INVISIBLE}\n".encode(), self.run_ok("range", "inv", "inv"))
        self.assertEqual(INVISIBLE.encode(), self.run_ok("get", "inv", "--raw", tty=True))

    def test_json_on_a_terminal_means_the_same(self):
        self.put("inv", INVISIBLE)
        out = self.run_ok("get", "inv", "--json", tty=True).decode()
        self.assertEqual(INVISIBLE, json.loads(out)["value"])
        self.assertTrue(out.isascii(), out)

    def test_in_errors(self):
        self.assertEqual("hpkv: get a\\u200b\\ufeff\\U000e0041: no such key\n", self.run_error(1, "get", "a\u200b\ufeff\U000e0041"))
        with FakeDaemon() as daemon, Run(daemon, "get", "k") as run:
            peer = daemon.accept()
            peer.reply(peer.line(), code=400, error=f"wrong{INVISIBLE[:8]}")
            self.assertEqual((3, f"hpkv: get k: wrong{escaped(INVISIBLE[:8])}\n"), (run.wait(), run.errors.decode()))

    def test_in_status_and_top(self):
        upstream = {"state": "backoff\u200b", "url": "wss://x\u202e\ufeff", "lastError": "no\u2060", "tokenError": "\U000e0041"}
        for words in (("status",), ("top", "-n", "1", *PATIENT)):
            with FakeDaemon() as daemon, Run(daemon, *words, tty=True, env={"TERM": "xterm"}) as run:
                peer = daemon.accept()
                for _ in range(1 if words[0] == "status" else 4):
                    peer.reply(peer.line(), stats={}, upstream=upstream)
                self.assertEqual(0, run.wait())
                text = run.output.decode()
            self.assertEqual([], [c for c in INVISIBLE if c in text])
            for shown in ("backoff\\u200b", "wss://x\\u202e\\ufeff", "no\\u2060"):
                self.assertIn(shown, text)


class Nul(Tour):
    def test_minus_0_divides_nothing(self):
        """xargs -0 would take parts of a key for keys."""
        self.put("z:a\0z:b", "1")
        self.put("z:c", "nul\0")
        self.put("z:d", "2")
        for words, out, said in ((("ls", "z:", "-0"), b"z:c\0z:d\0", r"ls: the key z:a\0z:b holds a NUL"),
                                 (("range", "z:c", "z:d", "-0"), b"z:d\0" + b"2\0", r"range: the value nul\0 holds a NUL"),
                                 (("get", "z:c", "z:d", "-0"), b"2\0", r"get: the value nul\0 holds a NUL")):
            status, output, err = hpkv(self.daemon, *words)
            self.assertEqual((2, out), (status, output), words)
            self.assertIn(said, err.decode())

    def test_a_record_in_a_pipe_has_none(self):
        self.put("y:a\0b", "c\0d")
        self.assertEqual(b"y:a\\0b\tc\\0d\n", self.run_ok("ls", "-l", "y:"))
        self.assertEqual(b"y:a\\0b\n", self.run_ok("ls", "y:"))

    def test_a_value_is_whole(self):
        self.put("x", "a\0b\0")
        self.assertEqual(b"a\0b\0\n", self.run_ok("get", "x"))
        self.assertEqual(b"a\0b\0", self.run_ok("get", "x", "--raw"))
        self.assertEqual(b"a\\0b\\0\r\n", self.run_ok("get", "x", tty=True))
        self.assertEqual("a\0b\0", json.loads(self.run_ok("get", "x", "--json"))["value"])

    def test_an_error_is_whole(self):
        with FakeDaemon() as daemon, Run(daemon, "get", "k") as run:
            peer = daemon.accept()
            peer.reply(peer.line(), code=400, error="\0this \0 is wrong")
            self.assertEqual((3, b"hpkv: get k:  this   is wrong\n"), (run.wait(), run.errors))
