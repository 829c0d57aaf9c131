"""hpkv: each command, its output in a pipe and on a terminal, and how it ends."""

import contextlib
import fcntl
import itertools
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import termios
import time
import unittest

import need
from cli import HPKV, ROOT, FakeDaemon, Run, environment, hpkv
from harness import DEADLINE, WITHHELD, Case, Daemon, FakeService, Sandbox, eventually, scene, steady

COMMANDS = """get set patch del range ls incr watch wait token status stats ping ready top raw export import exec mirror completion""".split()
PATIENT = ("--timeout", f"{DEADLINE}s") # without it top waits one second, and the test may stand still for longer


class Tour(Case):
    """One daemon for all cases; each uses keys of its own."""

    @classmethod
    def setUpClass(cls):
        cls.sandbox = Sandbox()
        cls.sandbox.start()
        cls.daemon = Daemon(cls.sandbox)
        cls.daemon.__enter__()
        cls.daemon.wait_state("connected")

    @classmethod
    def tearDownClass(cls):
        cls.daemon.__exit__(None, None, None)
        cls.sandbox.process.close()

    def run_ok(self, *words, **options):
        status, out, err = hpkv(self.daemon, *words, **options)
        self.assertEqual((0, b""), (status, err), words)
        return out

    def run_error(self, expected, *words, **options):
        """Its error: one line."""
        status, out, err = hpkv(self.daemon, *words, **options)
        self.assertEqual(expected, status, (words, err))
        self.assertRegex(err, rb"\Ahpkv: [^\n]+\n\Z")
        return err.decode()

    @contextlib.contextmanager
    def start(self, *words, beside=0, **options):
        """Starts it, beside so many subscriptions of others."""
        self.daemon.wait_status(lambda s: s["subscriptions"]["total"] == beside, "earlier subscriptions have ended")
        with Run(self.daemon, *words, **options) as run:
            yield run

    def put(self, key, value):
        with self.daemon.client() as client:
            self.assertEqual(200, client.ask({"op": "set", "key": key, "value": value})["code"])

    def drop(self, key):
        with self.daemon.client() as client:
            client.ask({"op": "delete", "key": key})

    def value(self, key):
        with self.daemon.client() as client:
            return client.ask({"op": "get", "key": key}).get("value")

    def wait_live(self, n):
        """Until n subscriptions are live."""
        self.daemon.wait_status(lambda s: (s["subscriptions"]["total"], s["subscriptions"]["waiting"]) == (n, 0) and
                                s["subscriptions"]["live"], "subscriptions")


class Values(Tour):
    def test_set_and_get(self):
        self.assertEqual(b"", self.run_ok("set", "a", "1"))
        self.assertEqual(b"1\n", self.run_ok("get", "a"))
        self.run_ok("set", "b", "two words")
        self.assertEqual(b"two words\n1\n", self.run_ok("get", "b", "a"))

    def test_a_missing_key_among_others(self):
        self.put("there", "x")
        status, out, err = hpkv(self.daemon, "get", "there", "not-there", "there")
        self.assertEqual((1, b"x\nx\n", b"hpkv: get not-there: no such key\n"), (status, out, err))

    def test_many_keys_come_in_their_order(self):
        keys = [f"many:{i}" for i in range(500)]
        with self.daemon.client() as client:
            client.send(*({"op": "set", "key": key, "value": "v" + key} for key in keys))
            client.answers(500)
        self.assertEqual("".join(f"v{key}\n" for key in keys).encode(), self.run_ok("get", *keys))

    def test_set_from_stdin(self):
        for words in (("set", "in", "-"), ("set", "in")):
            for value in (b"x", b"line\n", b"a\0b\r\n\n", "é\U0001f600".encode()):
                self.run_ok(*words, stdin=value)
                self.assertEqual(value.decode(), self.value("in"))
                self.assertEqual(value, self.run_ok("get", "--raw", "in"))
        self.run_ok("set", "in", "--chomp", stdin=b"line\n\n")
        self.assertEqual("line\n", self.value("in"))

    def test_values_that_begin_with_a_dash(self):
        self.run_ok("set", "n", "-5")
        self.assertEqual("-5", self.value("n"))
        self.run_ok("set", "--", "-key", "--value")
        self.assertEqual("--value", self.value("-key"))
        self.assertIn("goes behind --", self.run_error(2, "set", "k", "--value"))
        self.assertIn("no option '-E'", self.run_error(2, "set", "k", "-E"))

    def test_negative_numbers_stand_anywhere(self):
        self.assertEqual(200, json.loads(self.run_ok("set", "neg", "-5", "--json"))["code"])
        self.assertEqual(b"-8", self.run_ok("incr", "neg", "-3", "--raw"))
        self.assertEqual(b"-5.5\n", self.run_ok("incr", "--", "neg", "2.5"))
        self.run_ok("set", "-1", "-.5", "-t", "5s")
        self.assertEqual("-.5", self.value("-1"))
        self.assertIn("'+1' is not a time", self.run_error(2, "set", "k", "v", "-t", "-1"))

    def test_bytes_that_are_not_utf8_are_refused(self):
        self.assertIn("not UTF-8 (byte 2 of 2)", self.run_error(2, "set", "k", b"x\xff"))
        self.assertIn("not UTF-8", self.run_error(2, "set", "k", stdin=b"\x89PNG\r\n"))
        self.assertIn("not UTF-8", self.run_error(2, "get", b"\xfe"))

    def test_a_value_too_long(self):
        self.assertRegex(self.run_error(3, "set", "k", stdin=b"x" * 70000), r"set k: .*max_line")
        self.assertRegex(self.run_error(3, "set", "k", stdin=b"x" * 5000), "set k: ")

    def test_raw_and_nul(self):
        self.put("r", "a\tb\n")
        self.assertEqual(b"a\tb\n\n", self.run_ok("get", "r"))
        self.assertEqual(b"a\tb\n", self.run_ok("get", "r", "-r"))
        self.assertEqual(b"a\tb\n\0", self.run_ok("get", "r", "-0"))

    def test_on_a_terminal_nothing_steers_it(self):
        self.put("evil", "a\x1b[31m\x07\r\nb\x9b\u202eé")
        out = self.run_ok("get", "evil", tty=True)
        self.assertEqual("a\\x1b[31m\\a\\r\\nb\\u009b\\u202eé\r\n".encode(), out)

    def test_json_on_a_terminal_steers_it_as_little(self):
        value = "a\x1b\x7f\x9b\u202e\U0010ffffé\U0001f600"
        self.put("evil-json", value)
        out = self.run_ok("get", "evil-json", "--json", tty=True).decode()
        self.assertEqual(value, json.loads(out)["value"])
        self.assertEqual("é\U0001f600", "".join(c for c in out if c > "~"))

    def test_json(self):
        self.put("j", "v")
        self.assertEqual({"code": 200, "key": "j", "value": "v"}, json.loads(self.run_ok("get", "j", "--json")))
        status, out, err = hpkv(self.daemon, "--json", "get", "no-j")
        self.assertEqual((1, 404), (status, json.loads(out)["code"]))
        self.assertEqual(200, json.loads(self.run_ok("set", "j", "w", "-j"))["code"])

    def test_patch(self):
        self.put("p", '{"a":1}')
        self.run_ok("patch", "p", '{"b":2}')
        self.assertEqual({"a": 1, "b": 2}, json.loads(self.value("p")))
        self.put("p2", "y")
        self.run_ok("patch", "p2", "-", stdin=b"z")
        self.assertEqual("yz", self.value("p2"))

    def test_del(self):
        self.put("d1", "x")
        self.put("d2", "x")
        self.assertEqual("hpkv: del d0: no such key\n", self.run_error(1, "del", "d1", "d0", "d2"))
        self.assertEqual((None, None), (self.value("d1"), self.value("d2")))
        self.put("d1", "x")
        self.assertEqual(b"", self.run_ok("del", "d1"))

    def test_incr(self):
        self.assertEqual(b"1\n", self.run_ok("incr", "i"))
        self.assertEqual(b"42\n", self.run_ok("incr", "i", "41"))
        self.assertEqual(b"40\n", self.run_ok("incr", "i", "-2"))
        self.assertEqual(b"40", self.run_ok("incr", "i", "0", "--raw"))
        self.assertIn("not a number", self.run_error(2, "incr", "i", "much"))

    def test_errors_are_one_line_whatever_a_key_holds(self):
        self.assertEqual("hpkv: get a\\nb\\x1b[1m: no such key\n", self.run_error(1, "get", "a\nb\x1b[1m"))
        self.assertRegex(self.run_error(1, "get", "x" * 400), r"get x{80}\.\.\.: no such key")


class Ranges(Tour):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with cls.daemon.client() as client:
            for n in range(0, 2500, 500):
                client.send(*({"op": "set", "key": f"p:{i:05}", "value": f"v{i}"} for i in range(n, n + 500)))
                assert all(a["code"] == 200 for a in client.answers(500))
            for key, value in (("r:a", "1"), ("r:bcd", "two\tt\n2"), ("r:é", '{"a":"\\n"}'), ("s", "x"), ("r\U0010fffd", "y")):
                assert client.ask({"op": "set", "key": key, "value": value})["code"] == 200

    def test_range(self):
        self.assertEqual("r:a\t1\nr:bcd\ttwo\\tt\\n2\nr:é\t{\"a\":\"\\n\"}\n".encode(), self.run_ok("range", "r:", "r:\U0010ffff"))
        self.assertEqual(b"r:a\t1\nr:bcd\ttwo\tt\n2\n", self.run_ok("range", "r:", "r:z", "--raw"))
        self.assertEqual(b"r:a\x001\0r:bcd\0two\tt\n2\0", self.run_ok("range", "r:", "r:z", "-0"))
        self.assertEqual(b"r:a\t1\n", self.run_ok("range", "r:", "r:z", "--limit", "1"))
        self.assertEqual(b"", self.run_ok("range", "q", "q"))

    def test_range_on_a_terminal_is_aligned(self):
        out = self.run_ok("range", "r:", "r:\U0010ffff", tty=True).decode()
        self.assertEqual(["r:a    1", "r:bcd  two\\tt\\n2", 'r:é    {"a":"\\n"}'], out.splitlines())

    def test_ls(self):
        self.assertEqual("r:a\nr:bcd\nr:é\n".encode(), self.run_ok("ls", "r:"))
        self.assertEqual("r:a\nr:bcd\nr:é\nr\U0010fffd\n".encode(), self.run_ok("ls", "r"))
        self.assertEqual(b"r:a\t1\n", self.run_ok("ls", "-l", "r:a"))
        self.assertEqual(b"r:a\0r:bcd\0", self.run_ok("ls", "r:", "-0", "-n", "2"))
        self.assertEqual(b"", self.run_ok("ls", "nothing"))

    def test_ls_of_everything(self):
        keys = self.run_ok("ls").decode().splitlines()
        self.assertEqual(2505, len(keys))
        self.assertEqual(sorted(keys, key=str.encode), keys)

    def test_more_than_a_page(self):
        wanted = [f"p:{i:05}" for i in range(2500)]
        self.assertEqual(wanted, self.run_ok("ls", "p:").decode().splitlines())
        records = self.run_ok("range", "p:", "p:~").decode().splitlines()
        self.assertEqual([f"p:{i:05}\tv{i}" for i in range(2500)], records)
        self.assertEqual(wanted[:1500], self.run_ok("ls", "p:", "--limit", "1500").decode().splitlines())
        pages = [json.loads(line) for line in self.run_ok("ls", "p:", "--json").splitlines()]
        self.assertEqual(wanted, [r["key"] for page in pages for r in page["records"]])

    def test_a_reader_that_leaves_early(self):
        env = environment(HPKVD_SOCKET=self.daemon.socket)
        run = subprocess.run(["bash", "-c", f'set -o pipefail; "{HPKV}" range p: p:~ | head -n 3'], env=env,
                             capture_output=True, timeout=DEADLINE, restore_signals=True)
        self.assertEqual((b"p:00000\tv0\np:00001\tv1\np:00002\tv2\n", b""), (run.stdout, run.stderr))

    def test_an_output_that_is_full(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("there is no /dev/full")
        with open("/dev/full", "wb") as full:
            status, out, err = hpkv(self.daemon, "ls", "p:", stdout=full)
        self.assertEqual((2, b"hpkv: can't write the output: No space left on device\n"), (status, err))

    def test_wrong_limits(self):
        for limit in ("0", "-1", "x", "1x", ""):
            self.assertIn("is not a number of records", self.run_error(2, "ls", "--limit", limit))


class Order(Case):
    def test_answers_that_come_in_another_order(self):
        with FakeDaemon() as daemon, Run(daemon, "get", *"abcd") as run:
            peer = daemon.accept()
            requests = [peer.line() for _ in range(4)]
            for i in (2, 3, 1, 0):
                peer.reply(requests[i], **({"value": requests[i]["key"].upper()} if i != 1 else {"code": 404, "error": "no"}))
            self.assertEqual((1, b"A\nC\nD\n", b"hpkv: get b: no such key\n"), (run.wait(), run.output, run.errors))

    def test_an_answer_without_a_value(self):
        for words, shown in (((), b"\n"), (("--raw",), b""), (("-0",), b"\0")):
            with FakeDaemon() as daemon, Run(daemon, "get", "k", *words) as run:
                peer = daemon.accept()
                peer.reply(peer.line())
                self.assertEqual((0, shown, b""), (run.wait(), run.output, run.errors))

    def test_pages_that_go_back(self):
        with FakeDaemon() as daemon, Run(daemon, "ls") as run:
            peer = daemon.accept()
            for _ in range(2):
                peer.reply(peer.line(), records=[{"key": "a", "value": "v"}], count=1, truncated=True)
            self.assertEqual((3, b"hpkv: ls: the service returns a again, which is before the requested start\n"),
                             (run.wait(), run.errors))

    def test_pages_with_nothing_on_them(self):
        with FakeDaemon() as daemon, Run(daemon, "range", "a", "z") as run:
            peer = daemon.accept()
            peer.reply(peer.line(), records=[], count=0, truncated=True)
            self.assertEqual((3, b"hpkv: range: the service says that there are more records, but returns none\n"),
                             (run.wait(), run.errors))


class Progress(Case):
    def test_long_ranges_say_how_far_they_are(self):
        """On stderr, if stderr is a terminal and stdout is not."""
        record = lambda i: {"key": f"k{i:05}", "value": "v"}
        with FakeDaemon() as daemon, Run(daemon, "ls", "k", stderr_tty=True) as run:
            peer = daemon.accept()
            for page in range(3):
                request = peer.line()
                if page == 2: # it has waited for more than half a second
                    time.sleep(0.6)
                peer.reply(request, records=[record(page * 1000 + i) for i in range(1000)], count=1000, truncated=True)
            request = peer.line()
            self.assertEqual("k02999\0", request["key"])
            peer.reply(request, records=[], count=0, truncated=False)
            self.assertEqual(0, run.wait())
            self.assertIn(b"hpkv: 3000 records, ", run.terminal)
            self.assertEqual(3000, len(run.output.splitlines()))


def children(pid):
    """The command lines of a process's children."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        pids = file.read().split()
    lines = b""
    for child in pids:
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{child}/cmdline", "rb") as file:
            lines += file.read()
    return lines


class Watching(Tour):
    def test_changes_in_a_pipe(self):
        with self.start("watch", "w:1", "g:*", "--count", "4") as run:
            self.wait_live(2)
            self.put("w:1", "a")
            self.put("w:2", "no")
            self.put("g:x", "tab\there")
            self.drop("w:1")
            self.put("g:y", "é")
            self.assertEqual(0, run.wait())
            lines = run.output.decode().splitlines()
            when = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"
            self.assertTrue(all(re.match(when + "\t", line) for line in lines), lines)
            self.assertEqual([["w:1", "a"], ["g:x", "tab\\there"], ["w:1"], ["g:y", "é"]],
                             [line.split("\t")[1:] for line in lines])

    def test_changes_on_a_terminal(self):
        with self.start("watch", "t:*", "-n", "2", tty=True) as run:
            self.wait_live(1)
            self.put("t:1", "a\n\x1b[2J")
            self.drop("t:1")
            self.assertEqual(0, run.wait())
            lines = run.output.decode().splitlines()
            self.assertRegex(lines[0], r"^\d\d:\d\d:\d\d\.\d{3}  t:1  a\\n\\x1b\[2J$")
            self.assertRegex(lines[1], r"^\d\d:\d\d:\d\d\.\d{3}  t:1  \(deleted\)$")

    def test_colour_only_on_a_terminal_and_never_with_no_color(self):
        for env, coloured in (({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False),
                              ({"TERM": "xterm", "NO_COLOR": ""}, True)):
            out = self.run_ok("status", tty=True, env=env)
            self.assertEqual(coloured, b"\x1b[" in out, env)
        self.assertNotIn(b"\x1b[", self.run_ok("status", env={"TERM": "xterm"}))

    def test_initial_values(self):
        self.put("iv", "now")
        with self.start("watch", "--initial", "iv", "--raw", "-n", "2") as run:
            self.wait_live(1)
            run.wait_output(b"iv\tnow\n")
            self.put("iv", "then")
            self.assertEqual(0, run.wait())
            self.assertEqual(b"iv\tnow\niv\tthen\n", run.output)

    def test_json_and_nul(self):
        with self.start("watch", "jn", "--json", "-n", "1") as json_run, \
                self.start("watch", "jn", "-0", "-n", "2", beside=1) as nul_run:
            self.wait_live(2)
            self.put("jn", "a\nb")
            self.drop("jn")
            self.assertEqual((0, 0), (json_run.wait(), nul_run.wait()))
            line = json.loads(json_run.output)
            self.assertEqual(("notification", "jn", "a\nb"), (line["type"], line["key"], line["value"]))
            self.assertEqual(b"jn\0a\nb\0jn\0\0", nul_run.output)

    def test_a_key_with_a_star(self):
        with self.start("watch", "--exact", "x*", "--raw", "-n", "1") as run:
            self.wait_live(1)
            self.put("xy", "no")
            self.put("x*", "yes")
            self.assertEqual((0, b"x*\tyes\n"), (run.wait(), run.output))

    def test_exec(self):
        command = 'printf "%s %s %s %s" "$HPKV_EVENT" "$HPKV_KEY" "${HPKV_VALUE-none}" "${#HPKV_TIMESTAMP}"; printf " ["; cat; echo "]"'
        with self.start("watch", "e:*", "-n", "3", "--exec", command) as run:
            self.wait_live(1)
            self.put("e:1", "a 'b' $c\n")
            self.drop("e:1")
            self.put("e:2", "é")
            self.assertEqual(0, run.wait())
            self.assertEqual("set e:1 a 'b' $c\n 13 [a 'b' $c\n]\ndelete e:1 none 13 []\nset e:2 é 13 [é]\n".encode(), run.output)

    def test_a_command_that_fails_is_said_and_not_the_end(self):
        with self.start("watch", "f", "-n", "2", "--exec", "exit 3") as run:
            self.wait_live(1)
            self.put("f", "1")
            self.put("f", "2")
            self.assertEqual(0, run.wait())
            self.assertEqual(b"hpkv: watch: the command for f ended with status 3\n" * 2, run.errors)

    def test_a_command_that_fails_is_said_whatever_becomes_of_children_here(self):
        with FakeDaemon() as daemon:
            run = subprocess.Popen([HPKV, "--socket", daemon.path, "watch", "k", "-n", "1", "--exec", "exit 3"],
                                   stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
            peer = daemon.accept()
            peer.reply(peer.line())
            peer.send({"type": "notification", "key": "k", "value": "v", "timestamp": 1})
            self.assertEqual((None, b"hpkv: watch: the command for k ended with status 3\n"), run.communicate(timeout=DEADLINE))
            self.assertEqual(0, run.returncode)

    def test_ctrl_c_ends_it_by_the_signal(self):
        with self.start("watch", "c") as run:
            self.wait_live(1)
            run.process.send_signal(signal.SIGINT)
            self.assertEqual(-signal.SIGINT, run.wait())
            self.assertEqual(b"", run.errors)
        with self.start("watch", "c", "--exec", "sleep 1000", tty=True) as run:
            self.wait_live(1)
            self.put("c", "1")
            eventually(lambda: b"sleep" in (line := children(run.process.pid)) and b"watch" not in line, "the command runs")
            run.type(b"\x03")
            self.assertEqual(-signal.SIGINT, run.wait())

    def test_a_reader_that_leaves_ends_it(self):
        """At once, not with the next change."""
        reading, writing = os.pipe()
        with self.start("watch", "l", stdout=writing) as run:
            os.close(writing)
            self.wait_live(1)
            os.close(reading)
            self.assertEqual(0, run.wait())

    def test_a_reader_of_a_socket_that_leaves_ends_it(self):
        reader, output = socket.socketpair()
        with self.start("watch", "l", stdout=output) as run:
            output.close()
            self.wait_live(1)
            reader.close()
            self.assertEqual(0, run.wait())

    def test_wrong_words(self):
        self.assertIn("a word is missing", self.run_error(2, "watch"))
        self.assertIn("--count", self.run_error(2, "watch", "k", "-n", "0"))


class Ended(Case):
    """Access rules that change end subscriptions."""

    def unsubscribe(self, peer, **topic):
        peer.send({"type": "unsubscribed", **topic, "reason": "forbidden", "timestamp": 1})

    def test_watch_goes_on_with_the_rest(self):
        with FakeDaemon() as daemon, Run(daemon, "watch", "a", "b*", "a", "--raw") as run:
            peer = daemon.accept()
            peer.reply(peer.line())
            self.unsubscribe(peer, key="a")
            peer.send({"type": "notification", "key": "b1", "value": "v", "timestamp": 1})
            run.wait_output(b"b1\tv\n")
            self.unsubscribe(peer, pattern="b*")
            self.assertEqual(3, run.wait())
            said = "hpkv: watch: %s is not watched any more: the access rules have changed, and forbid it\n"
            self.assertEqual(said % "a" + said % "b*", run.errors.decode())

    def test_wait_ends(self):
        with FakeDaemon() as daemon, Run(daemon, "wait", "k") as run:
            peer = daemon.accept()
            peer.reply(peer.line())
            self.unsubscribe(peer, key="k")
            self.assertEqual((3, b"hpkv: wait k: the access rules have changed, and forbid it\n"), (run.wait(), run.errors))


class Skipped(Case):
    def test_what_was_skipped_is_said(self):
        change = {"type": "notification", "key": "k", "value": "v", "timestamp": 1, "skipped": 7}
        said = b"hpkv: watch: k was not read fast enough: 7 changes before this one are skipped\n"
        for words, expected in (((), said), (("--raw",), said), (("-0",), said), (("--json",), b"")):
            with FakeDaemon() as daemon, Run(daemon, "watch", "k", "-n", "1", *words) as run:
                peer = daemon.accept()
                peer.reply(peer.line())
                peer.send(change)
                self.assertEqual((0, expected), (run.wait(), run.errors), words)


class Times(Case):
    def test_whatever_time_a_change_has(self):
        with FakeDaemon() as daemon, Run(daemon, "watch", "k", "-n", "4") as run:
            peer = daemon.accept()
            peer.reply(peer.line())
            for ms in (0, -1, 1 << 62, -(1 << 63)):
                peer.send({"type": "notification", "key": "k", "value": "v", "timestamp": ms})
            self.assertEqual(0, run.wait())
            self.assertEqual(["1970-01-01T00:00:00.000+00:00", "1969-12-31T23:59:59.999+00:00", "4611686018427387904",
                              "-9223372036854775808"], [line.partition("\t")[0] for line in run.output.decode().splitlines()])


class Restart(Case):
    def test_watch_survives_a_restart_and_says_so(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon:
            daemon.wait_state("connected")
            with Run(daemon, "watch", "r:*", "k", "--raw") as run:
                daemon.wait_status(lambda s: s["subscriptions"]["live"], "live")
                daemon.process.signal(signal.SIGTERM)
                daemon.process.wait_exit()
                run.wait_errors(rb"hpkv: watch: the connection to hpkvd is lost: [^\n]*; trying again\n")
                daemon.process.close()
                with sandbox_client(sandbox) as other:
                    other("k", "meanwhile")
                daemon.start()
                run.wait_errors(rb"hpkv: watch: connected to hpkvd again; [^\n]*missed")
                run.wait_output(rb"k\tmeanwhile\n")
                with daemon.client() as client:
                    client.ask({"op": "set", "key": "r:1", "value": "after"})
                run.wait_output(rb"r:1\tafter\n")

    def restart(self, daemon, number):
        daemon.process.signal(number)
        daemon.process.wait_exit()
        daemon.process.close()
        daemon.start()

    def test_watch_over_five_restarts(self):
        """Orderly ends and crashes. Changes come before, between and after; none is lost without a gap."""
        with Sandbox() as sandbox, Daemon(sandbox) as daemon, sandbox_client(sandbox) as other:
            daemon.wait_state("connected")
            with Run(daemon, "watch", "r:*", "k", "--raw") as run, Run(daemon, "watch", "r:*", "k", "--json") as json_run:
                daemon.wait_status(lambda s: s["subscriptions"]["total"] == 4 and s["subscriptions"]["live"], "live")
                for i, number in enumerate((signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGTERM, signal.SIGKILL)):
                    other("r:1", f"before {i}")
                    for output in (run, json_run):
                        output.wait_output(b"before %d" % i)
                    self.restart(daemon, number)
                    for words in ("is lost: ", "connected to hpkvd again; "):
                        run.wait_errors(rb"(?s)(watch: [^\n]*%s.*){%d}" % (words.encode(), i + 1))
                    run.wait_errors(rb"(?s)(changes of r:\* from [\d:.]+ to [\d:.]+ may have been missed.*){%d}" % (i + 1))
                    other("k", f"after {i}")
                    for output in (run, json_run):
                        output.wait_output(b"after %d" % i)
                self.assertIsNone(run.process.poll())
                lines = [json.loads(line) for line in json_run.output.splitlines()]
            states = [line["state"] for line in lines if line["type"] == "connection"]
            self.assertEqual(["disconnected", "connected"] * 5, states)
            self.assertEqual(3, sum(line.get("reason") == "shutting_down" for line in lines))
            self.assertEqual(5, sum(line["type"] == "gap" and line["pattern"] == "r:*" and line["since"] <= line["until"]
                                    for line in lines))

    def test_connection_lines_alternate_whatever_is_lost(self):
        with FakeDaemon() as daemon, Run(daemon, "watch", "a\"*", "--json", "-n", "1") as run:
            connection = lambda state, **more: {"type": "connection", "state": state, "timestamp": 1} | more
            for last in ([connection("disconnected"), connection("disconnected", reason="shutting_down")],
                         [connection("disconnected"), connection("connected")], [], [connection("disconnected")]):
                peer = daemon.accept()
                peer.reply(peer.line())
                peer.send(*last)
                peer.close()
            peer = daemon.accept()
            peer.reply(peer.line())
            peer.send({"type": "notification", "key": "a", "value": "v", "timestamp": 1})
            self.assertEqual(0, run.wait())
            lines = [json.loads(line) for line in run.output.splitlines()]
            states = [line["state"] for line in lines if line["type"] == "connection"]
            self.assertEqual(["disconnected", "connected"] * (len(states) // 2), states)
            self.assertGreaterEqual(len(states), 8)
            self.assertEqual({'a"*'}, {line["pattern"] for line in lines if line["type"] == "gap"})

    def test_no_reconnect(self):
        for words in (("watch", "k"), ("wait", "k")):
            with FakeDaemon() as daemon, Run(daemon, *words, "--no-reconnect") as run:
                peer = daemon.accept()
                peer.reply(peer.line())
                peer.close()
                self.assertEqual(4, run.wait(), words)
                self.assertRegex(run.errors, rb"\Ahpkv: w[^\n]+: the connection to hpkvd is lost: hpkvd has closed the connection\n\Z")

    def test_wait_survives_restarts(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon, sandbox_client(sandbox) as other:
            daemon.wait_state("connected")
            with Run(daemon, "wait", "job", "--equals", "done") as run:
                for number in (signal.SIGTERM, signal.SIGKILL):
                    daemon.wait_status(lambda s: s["subscriptions"]["live"], "live")
                    self.restart(daemon, number)
                daemon.wait_status(lambda s: s["subscriptions"]["live"], "live")
                other("job", "done")
                self.assertEqual((0, b"done\n"), (run.wait(), run.output))

    def test_wait_ends_while_a_read_is_in_flight(self):
        change = {"type": "notification", "key": "k", "value": "v", "timestamp": 1}
        with FakeDaemon() as daemon, Run(daemon, "wait", "k") as run:
            peer = daemon.accept()
            peer.reply(peer.line())
            peer.send(change)
            self.assertEqual("get", peer.line()["op"])
            peer.send(change | {"resync": True})
            self.assertEqual((0, b"v\n"), (run.wait(), run.output))

    def test_many_keys_over_restarts(self):
        """Keys of one command are read, and written, over the end of one daemon and the beginning of the next."""
        with FakeDaemon() as daemon:
            with Run(daemon, "del", "a", "b", "c") as run:
                peer = daemon.accept()
                requests = [peer.line() for _ in range(3)]
                peer.reply(requests[0])
                daemon.stop_listening()
                for request in requests[1:]:
                    peer.send({"code": 503, "error": "the daemon is shutting down", "reason": "shutting_down",
                               "executed": "no", "messageId": request["messageId"]})
                daemon.stop()
                daemon.listen()
                peer = daemon.accept()
                for key in "bc":
                    request = peer.line()
                    self.assertEqual(key, request["key"])
                    peer.reply(request)
                self.assertEqual((0, b""), (run.wait(), run.errors))

    def test_watch_says_when_the_service_comes_and_goes(self):
        with FakeService() as service, Daemon(service) as daemon:
            daemon.wait_state("connected")
            with Run(daemon, "watch", "a*") as run:
                daemon.wait_status(lambda s: s["subscriptions"]["live"], "live")
                service.hang_up()
                run.wait_errors(rb"hpkv: watch: hpkvd has lost its connection to the service")
                run.wait_errors(rb"hpkv: watch: hpkvd is connected to the service again\n")
                run.wait_errors(rb"hpkv: watch: changes of a\* from [\d:.]+ to [\d:.]+ may have been missed\n")


class Remembered(Case):
    def test_fresh_asks_the_service_and_not_the_daemons_memory(self):
        with FakeService() as service, Daemon(service, keys="*") as daemon:
            daemon.wait_state("connected")

            def answered(*options):
                """The value; did the daemon ask for it?"""
                before = len(service.requests)
                self.assertEqual((0, b"value of k\n", b""), hpkv(daemon, "get", "k", *options))
                return len(service.requests) > before

            eventually(lambda: not answered(), "an answer from memory")
            self.assertTrue(answered("--fresh"))


class sandbox_client:
    """Writes to the sandbox through a daemon of its own."""

    def __init__(self, sandbox):
        self.daemon = Daemon(sandbox)

    def __enter__(self):
        self.daemon.__enter__()
        self.daemon.wait_state("connected")
        return self.put

    def put(self, key, value):
        with self.daemon.client() as client:
            assert client.ask({"op": "set", "key": key, "value": value})["code"] == 200

    def __exit__(self, *trace):
        self.daemon.__exit__(*trace)


class Waiting(Tour):
    def test_it_exists_already(self):
        self.put("e1", "v")
        self.assertEqual(b"v\n", self.run_ok("wait", "e1"))
        self.assertEqual(b"v\n", self.run_ok("wait", "e1", "--exists"))
        self.assertEqual(b"v\n", self.run_ok("wait", "e1", "--equals", "v"))

    def test_until_it_exists(self):
        with self.start("wait", "e2") as run:
            self.wait_live(1)
            self.put("e2", "here")
            self.assertEqual((0, b"here\n"), (run.wait(), run.output))

    def test_until_it_has_a_value(self):
        with self.start("wait", "q", "--equals", "12") as run:
            self.wait_live(1)
            for value in ("1", "123", "12"):
                self.put("q", value)
            self.assertEqual((0, b"12\n"), (run.wait(), run.output))

    def test_a_patch_is_not_taken_for_the_value(self):
        """The key is read, whatever the notification says."""
        self.put("patched", "1")
        with self.start("wait", "patched", "--equals", "12") as run:
            self.wait_live(1)
            with self.daemon.client() as client:
                client.ask({"op": "patch", "key": "patched", "value": "2"})
            self.assertEqual((0, b"12\n"), (run.wait(), run.output))

    def test_until_it_changes(self):
        self.put("c", "same")
        with self.start("wait", "c", "--changes") as run:
            self.wait_live(1)
            self.put("c", "same")
            self.assertEqual((0, b"same\n"), (run.wait(), run.output))
        with self.start("wait", "c", "--changes") as run:
            self.wait_live(1)
            self.drop("c")
            self.assertEqual((0, b""), (run.wait(), run.output))

    def test_what_comes_behind_it_does_not_undo_it(self):
        with FakeDaemon() as daemon, Run(daemon, "wait", "k", "--equals", "done") as run:
            peer = daemon.accept()
            peer.reply(peer.line())
            change = {"type": "notification", "key": "k", "timestamp": 1}
            peer.send(change | {"value": None, "initial": True}, change | {"value": "done"})
            request = peer.line()
            peer.send({"code": 200, "value": "done", "messageId": request["messageId"]}, change | {"value": None})
            self.assertEqual((0, b"done\n"), (run.wait(), run.output))

    def test_json_is_what_the_daemon_said_of_the_value(self):
        change = {"type": "notification", "key": "k", "timestamp": 1}
        with FakeDaemon() as daemon, Run(daemon, "wait", "k", "--json") as run:
            peer = daemon.accept()
            peer.reply(peer.line())
            peer.send(change | {"value": None, "initial": True}, change | {"value": "v"})
            peer.reply(peer.line(), value="w")
            self.assertEqual((0, {"code": 200, "value": "w"}), (run.wait(), json.loads(run.output)))
        with FakeDaemon() as daemon, Run(daemon, "wait", "k", "--json", "--changes") as run:
            peer = daemon.accept()
            peer.reply(peer.line())
            peer.send(change | {"value": None})
            self.assertEqual((0, change | {"value": None}), (run.wait(), json.loads(run.output)))
        for command in ("wait", "watch"):
            with FakeDaemon() as daemon, Run(daemon, command, "k", "--json") as run:
                peer = daemon.accept()
                peer.reply(peer.line(), code=403, error="no")
                self.assertEqual((3, {"code": 403, "error": "no"}), (run.wait(), json.loads(run.output)))

    def test_its_time_is_up(self):
        self.assertEqual("hpkv: wait never: the time is up\n", self.run_error(1, "wait", "never", "--timeout", "3s"))

    def test_one_condition(self):
        self.assertIn("exclude one another", self.run_error(2, "wait", "k", "--changes", "--exists"))

    def test_it_survives_a_restart(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon:
            daemon.wait_state("connected")
            with Run(daemon, "wait", "k", "--changes") as run:
                eventually(lambda: daemon.stats()["lines_out"], "the value that it begins with")
                daemon.process.signal(signal.SIGTERM)
                daemon.process.wait_exit()
                daemon.process.close()
                with sandbox_client(sandbox) as put:
                    put("k", "meanwhile")
                daemon.start()
                self.assertEqual((0, b"meanwhile\n"), (run.wait(), run.output))


class Daemons(Tour):
    def test_status(self):
        self.daemon.wait_status(lambda s: s["subscriptions"]["total"] == 0, "earlier subscriptions have ended")
        out = self.run_ok("status").decode()
        for word in ("upstream       connected for", self.sandbox.url, "requests       0 in flight", "subscriptions  0",
                     f"process {self.daemon.pid}", self.daemon.socket):
            self.assertIn(word, out)
        self.assertEqual("connected", json.loads(self.run_ok("status", "--json"))["upstream"]["state"])

    def test_stats(self):
        lines = dict(line.split("\t") for line in self.run_ok("stats").decode().splitlines())
        self.assertGreater(int(lines["hpkvd_requests_total"]), 0)
        self.assertEqual("1", lines['hpkvd_upstream_state{state="connected"}'])
        self.assertIn("hpkvd_requests_total", json.loads(self.run_ok("stats", "-j"))["stats"])
        self.assertRegex(self.run_ok("stats", tty=True), rb"(?m)^hpkvd_requests_total {2,}\d+\r$")

    def test_ping(self):
        self.assertRegex(self.run_ok("ping"), rb"^pong after \d+\.\d\d ms\n$")

    def test_ready(self):
        self.assertEqual(b"", self.run_ok("ready"))
        self.assertEqual(b"", self.run_ok("ready", "--timeout", f"{DEADLINE}s"))

    def test_top(self):
        with self.daemon.client() as busy:
            busy.send(*({"op": "ping"} for _ in range(50)))
            busy.answers(50)
            out = self.run_ok("top", "--count", "2", "--delay", "10ms", *PATIENT).decode()
        pages = out.split("\n\n")
        self.assertEqual(3, len(pages))
        for word in ("upstream      connected", "latency       waited here ", "queues        0 of ", "requests/s"):
            self.assertIn(word, pages[1])
        first = pages[0].partition("requests/s")[2].splitlines()[1].split()
        self.assertEqual((str(os.getpid()), str(os.getuid()), "50", "lines"), (first[1], first[2], first[4], first[8]), first)

    def test_top_on_a_terminal(self):
        with self.start("top", "--delay", "10ms", *PATIENT, tty=True, env={"TERM": "xterm"}) as run:
            run.wait_output(rb"requests/s")
            run.type(b"q" if b"\x1b[?1049h" in run.output else b"\x03")
            self.assertIn(run.wait(), (0, -signal.SIGINT))
        with self.start("top", *PATIENT, tty=True, env={"TERM": "xterm"}) as run:
            run.wait_output(rb"requests/s")
            run.type(b"\x03")
            self.assertEqual(-signal.SIGINT, run.wait())
            if b"\x1b[?1049h" in run.output:
                self.assertIn(b"\x1b[?1049l", run.output, "the terminal was left as it was")

    def test_token(self):
        self.assertEqual("hpkv: token: no access rule lets this client mint tokens; see the [access] sections of hpkvd.conf\n",
                         self.run_error(3, "token", "room:*", "--access", "^room:"))

    def test_raw(self):
        lines = b'{"op":"ping","messageId":1}\nnonsense\n{"op":"ping"}'
        answers = [json.loads(line) for line in self.run_ok("raw", stdin=lines).splitlines()]
        self.assertEqual([200, 400, 200], [a["code"] for a in answers])
        self.assertEqual(b"", self.run_ok("raw", stdin=b""))
        many = b'{"op":"get","key":"k"}\n' * 20000
        self.assertEqual(20000, len(self.run_ok("raw", stdin=many).splitlines()))

    def test_raw_that_subscribes(self):
        reading, writing = os.pipe()
        with self.start("raw", stdin=subprocess.PIPE, stdout=writing) as run:
            os.close(writing)
            run.process.stdin.write(b'{"op":"subscribe","key":"raw"}\n')
            run.process.stdin.flush()
            with open(reading, "rb") as lines:
                self.assertEqual(b'{"code":200}\n', lines.readline())
                run.process.stdin.close()
                self.put("raw", "v")
                self.assertIn(b'"type":"notification","key":"raw"', lines.readline())
            self.assertEqual(0, run.wait())


class Descriptors(Tour):
    """Closed, full and broken standard files."""

    def run_with(self, redirections, *words, before="", stdin=b""):
        env = environment(HPKVD_SOCKET=self.daemon.socket)
        run = subprocess.run(["sh", "-c", f'{before} "$0" "$@" {redirections}', HPKV, *words], input=stdin, env=env, capture_output=True,
                             timeout=DEADLINE)
        return run.returncode, run.stderr.decode()

    def test_closed_ones(self):
        self.put("d", "v")
        line = b'{"op":"set","key":"d","value":"w"}\n'
        self.assertEqual((2, "hpkv: can't write the output: Bad file descriptor\n"), self.run_with(">&-", "get", "d"))
        self.assertEqual((2, "hpkv: raw: can't write the output: Bad file descriptor\n"), self.run_with(">&-", "raw", stdin=line))
        self.assertEqual("w", self.value("d"))
        self.assertEqual((2, "hpkv: can't read stdin: Bad file descriptor\n"), self.run_with("<&-", "set", "d"))
        self.assertEqual((1, ""), self.run_with("<&- >&- 2>&-", "get", "nothing"))

    def test_a_full_one(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("there is no /dev/full")
        self.assertEqual((2, "hpkv: raw: can't write the output: No space left on device\n"),
                         self.run_with(">/dev/full", "raw", stdin=b'{"op":"ping"}\n'))

    def test_a_command_never_gets_half_a_value(self):
        self.put("d", "x" * 3000)
        status, err = self.run_with("", "watch", "--initial", "d", "-n", "1", "--exec", "wc -c >&2", before="trap '' XFSZ; ulimit -f 1;")
        self.assertEqual((2, "hpkv: watch: the command for d was not run: no file for its stdin: File too large\n"), (status, err))

    def test_raw_waits_no_longer_than_it_may(self):
        asked = b'\r\n{"op":"get","key":"k"}\n\n{"op":"set","key":"k","value":"v"}'
        for answers, said in ((1, b"1 of 2 answers are missing"), (0, b"2 of 2 answers are missing"), (2, None)):
            with FakeDaemon() as daemon, Run(daemon, "raw", "--timeout", "300ms", stdin=subprocess.PIPE) as run:
                run.process.stdin.write(asked)
                run.process.stdin.flush()
                peer = daemon.accept()
                peer.send(*[{"code": 200}] * answers, {"type": "notification", "key": "k", "value": "v", "code": 200})
                run.wait_output(rb"notification.*\n")
                run.process.stdin.close()
                self.assertEqual(6 if said else 0, run.wait())
                self.assertEqual(answers + 1, run.output.count(b"\n"))
                if said:
                    self.assertIn(said, run.errors)
                else:
                    self.assertEqual(b"", run.errors)

    def test_raw_waits_no_longer_for_a_daemon_that_does_not_read(self):
        for much in (b'{"op":"ping"}\n' * 100000, b'{"op":"set","key":"' + b"k" * (1 << 20)): # many lines, or a part of a line
            with FakeDaemon() as daemon:
                status, out, err = hpkv(daemon, "raw", "--timeout", "300ms", stdin=much)
                self.assertEqual((6, b""), (status, out))

    def test_raw_waits_no_longer_to_be_accepted(self):
        with FakeDaemon() as daemon, daemon.full():
            status, out, err = hpkv(daemon, "raw", "--timeout", "300ms")
            self.assertEqual((4, b""), (status, out))
            self.assertIn(b"it accepts none at the moment", err)

    def test_raw_that_is_stopped_and_continued_waits_on_to_be_accepted(self):
        with FakeDaemon() as daemon, daemon.full(), Run(daemon, "raw", "--timeout", "500ms") as run:
            while run.process.poll() is None: # connect() is interrupted each time
                run.process.send_signal(signal.SIGSTOP)
                run.process.send_signal(signal.SIGCONT)
                time.sleep(0.01)
            self.assertEqual(4, run.wait())
            self.assertIn(b"it accepts none at the moment", run.errors)

    def test_raw_has_time_while_stdin_goes_on(self):
        with FakeDaemon() as daemon, Run(daemon, "raw", "--timeout", "1ms", stdin=subprocess.PIPE) as run:
            peer = daemon.accept()
            run.process.stdin.write(b'{"op":"ping","messageId":1}\n')
            run.process.stdin.flush()
            request = peer.line()
            time.sleep(0.05) # fifty times its timeout
            self.assertIsNone(run.process.poll())
            peer.reply(request)
            run.wait_output(b"200")
            peer.close()
            self.assertEqual(4, run.wait())

    def test_a_daemon_that_has_not_read_all(self):
        with FakeDaemon() as daemon, Run(daemon, "raw", stdin=subprocess.PIPE) as run:
            run.process.stdin.write(b'{"op":"set","key":"k","value":"v"}\n')
            run.process.stdin.close()
            peer = daemon.accept()
            peer.sock.recv(1)
            peer.close()
            self.assertEqual((4, b"hpkv: raw: hpkvd has closed the connection\n"), (run.wait(), run.errors))


class Endings(Case):
    """The exit status is part of the interface."""

    def test_what_an_error_says_does_not_steer_the_terminal(self):
        with FakeDaemon() as daemon, Run(daemon, "get", "k") as run:
            peer = daemon.accept()
            peer.reply(peer.line(), code=400, error="a\x1b[1m\x9b31m\u202eb\nc\x7fé")
            self.assertEqual(3, run.wait())
            self.assertEqual("hpkv: get k: a\\x1b[1m\\u009b31m\\u202eb\\nc\\x7fé\n", run.errors.decode())

    def top(self, daemon, *words, delay="1s", **options):
        """Waits for a page."""
        run = Run(daemon, "top", "--delay", delay, *words, tty=True, **options)
        peer = daemon.accept()
        self.answer_page(peer, ping=1)
        run.wait_output(rb"in all")
        return run, peer

    @staticmethod
    def answer_page(peer, ping=0):
        for _ in range(ping + 3):
            peer.reply(peer.line(), stats={}, upstream={"state": "connected"})

    def test_top_on_a_terminal_that_nobody_knows_ends_by_the_signal(self):
        with FakeDaemon() as daemon:
            run, peer = self.top(daemon, *PATIENT, env={"TERM": "nobody-knows-it"})
            with run:
                run.type(b"\x03")
                self.assertEqual(-signal.SIGINT, run.wait())

    @steady(0.5) # the first page has a second
    def test_top_heeds_keys_though_the_daemon_hangs(self):
        with FakeDaemon() as daemon:
            run, peer = self.top(daemon, delay="2s", env={"TERM": "xterm"})
            with run:
                self.assertEqual(1000, peer.line()["timeoutMs"])
                began = time.monotonic()
                run.type(b"\x03")
                self.assertEqual(-signal.SIGINT, run.wait())
                self.assertLess(time.monotonic() - began, 2.5, "it does not wait for the next page as well")

    def test_top_paints_the_same_page_for_another_size(self):
        with FakeDaemon() as daemon:
            run, peer = self.top(daemon, *PATIENT, delay="10m", env={"TERM": "xterm"})
            with run:
                if b"\x1b[?1049h" not in run.output:
                    self.skipTest("built without ncurses")
                columns = itertools.cycle((70, 71))

                def painted_again(): # ncurses misses a signal that comes just before it waits: send several
                    fcntl.ioctl(run.master, termios.TIOCSWINSZ, struct.pack("HHHH", 20, next(columns), 0, 0))
                    return run.output.count(b"in all") > 1

                eventually(painted_again, "the page is painted again")
                run.type(b"q")
                self.assertEqual(0, run.wait())
                self.assertTrue(peer.at_end(), "nothing more was asked")

    def test_top_ends_with_its_terminal(self):
        """Also with a terminal that is not its controlling one, so that no SIGHUP comes."""
        master, slave = need.terminal()
        with FakeDaemon() as daemon:
            run = subprocess.Popen([HPKV, "--socket", daemon.path, "top", "--delay", "10m", *PATIENT], stdin=slave, stdout=slave,
                                   stderr=subprocess.DEVNULL, env=environment(TERM="xterm"), start_new_session=True)
            os.close(slave)
            peer = daemon.accept()
            self.answer_page(peer, ping=1)
            os.read(master, 100) # it shows the page
            os.close(master)
            self.assertTrue(peer.at_end())
            self.assertEqual(0, run.wait(DEADLINE))

    def test_when_to_try_again_is_not_at_once(self):
        for ms, said in ((1, b"in 0.1 s"), (1200, b"in 1.2 s"), (1201, b"in 1.3 s"), (2147483646, b"in 2147483.7 s")):
            with FakeDaemon() as daemon, Run(daemon, "get", "k") as run:
                peer = daemon.accept()
                peer.reply(peer.line(), code=429, error="no", reason="rate_limited", retryAfterMs=ms)
                self.assertEqual(5, run.wait())
                self.assertIn(said, run.errors)

    def test_top_shows_an_error_as_it_may_be_shown(self):
        with FakeDaemon() as daemon, Run(daemon, "top", "-n", "1", *PATIENT) as run:
            peer = daemon.accept()
            peer.reply(peer.line())
            peer.reply(peer.line(), code=500, error="\x1b[2J")
            self.assertEqual((0, b"\\x1b[2J\n\n"), (run.wait(), run.output))

    def test_ready_has_one_time_for_all_that_it_asks(self):
        with FakeDaemon() as daemon, Run(daemon, "ready", "--timeout", "60s") as run:
            peer = daemon.accept()
            times = []
            for state in ("connecting", "connecting", "connected"):
                request = peer.line()
                times.append(request["timeoutMs"])
                peer.reply(request, upstream={"state": state})
            self.assertEqual(0, run.wait())
            self.assertGreater(times[0], times[2])

    def test_status_shows_the_whole_of_a_long_text(self):
        why = "the service " * 20 + "is away"
        with FakeDaemon() as daemon, Run(daemon, "status") as run:
            peer = daemon.accept()
            peer.reply(peer.line(), upstream={"state": "backoff", "url": "http://" + "x" * 200, "lastError": why})
            self.assertEqual(0, run.wait())
            self.assertIn(f"the last error: {why}\n", run.output.decode())
            self.assertIn("x" * 200 + "\n", run.output.decode())

    def assert_ends(self, expected, result, pattern):
        status, out, err = result
        self.assertEqual(expected, status, err)
        self.assertRegex(err.decode(), r"\Ahpkv: [^\n]+\n\Z")
        self.assertRegex(err.decode(), pattern)

    def test_no_daemon(self):
        for words in (("get", "a", "b"), ("set", "k", "v"), ("ls",), ("watch", "k"), ("wait", "k"), ("status",), ("ping",),
                      ("ready",), ("top",), ("raw",), ("incr", "k"), ("del", "k"), ("stats",), ("token",)):
            self.assert_ends(4, hpkv("/nonexistent/sock", *words), r"no connection to hpkvd at /nonexistent/sock: No such file "
                             r"or directory; is hpkvd running\? \(--socket or HPKVD_SOCKET names another socket\)")
        self.assert_ends(4, hpkv("/nonexistent/sock", "ready", "--timeout", "100ms"), "no connection to hpkvd")

    def test_a_daemon_that_hangs(self):
        with FakeDaemon() as daemon:
            for word in ("ping", "status"):
                said = f"hpkv: {word}: hpkvd has not answered in time; nothing was changed, try again later\n"
                self.assertEqual((5, b"", said.encode()), hpkv(daemon, word, "-t", "50ms"))

    def test_a_listing_that_fails_names_what_was_asked_for(self):
        for words, named in ((("ls",), "ls"), (("ls", "u:"), "ls u:"), (("range", "u:1", "u:9"), "range u:1")):
            with FakeDaemon() as daemon, Run(daemon, *words) as run:
                peer = daemon.accept()
                peer.reply(peer.line(), records=[{"key": "u:2", "value": "v"}], count=1, truncated=True)
                peer.reply(peer.line(), code=403, error="no")
                self.assertEqual((3, f"hpkv: {named}: no\n".encode()), (run.wait(), run.errors))

    def test_the_socket_option_wins(self):
        with FakeDaemon() as daemon:
            with Run("/nonexistent/sock", "--socket", daemon.path, "ping") as run:
                peer = daemon.accept()
                peer.reply(peer.line(), message="pong")
                self.assertEqual(0, run.wait())

    def test_the_service_is_away(self):
        with Daemon("https://localhost:1") as daemon:
            for words in (("get", "k"), ("set", "k", "v"), ("watch", "k"), ("wait", "k"), ("ls",)):
                self.assert_ends(5, hpkv(daemon, *words, "--timeout", "100ms"), "nothing was changed, try again")
            self.assert_ends(5, hpkv(daemon, "ready", "--timeout", "100ms"), "not connected to the service within the time")
            self.assertEqual(0, hpkv(daemon, "status")[0])

    def test_the_service_refuses_the_key(self):
        with Sandbox() as sandbox, Daemon(sandbox, key="wr0ng-k3y-wr0ng-k3y") as daemon:
            daemon.wait_state("unauthorized")
            self.assert_ends(3, hpkv(daemon, "ready"), "refuses the daemon's API key")

    def test_ready_waits_for_a_daemon_that_starts(self):
        with Sandbox() as sandbox:
            daemon = Daemon(sandbox)
            try:
                with Run(daemon.socket, "ready", "--timeout", f"{DEADLINE}s") as run:
                    with daemon:
                        self.assertEqual(0, run.wait())
            finally:
                shutil.rmtree(daemon.folder, ignore_errors=True)

    @scene(service=WITHHELD)
    def test_no_answer_in_time(self, service, daemon, client):
        self.assert_ends(5, hpkv(daemon, "get", "k", "--timeout", "1s"), "sent, but no answer came in time")
        self.assert_ends(6, hpkv(daemon, "set", "k", "v", "--timeout", "1s"), "look before you repeat it")

    @scene(service=WITHHELD)
    def test_the_outcome_is_unknown(self, service, daemon, client):
        for words in (("set", "k", "v"), ("incr", "n"), ("del", "d"), ("patch", "p", "v")):
            with Run(daemon, *words) as run:
                service.next_request()
                service.hang_up()
                self.assertEqual(6, run.wait())
                self.assertRegex(run.errors, rb"\Ahpkv: [^\n]+it may have been done or not: look before you repeat it\n\Z")
            daemon.wait_state("connected")

    def test_the_daemon_dies(self):
        with FakeDaemon() as daemon, Run(daemon, "set", "k", "v") as run:
            daemon.accept().line()
            daemon.stop()
            self.assertEqual(6, run.wait())
            self.assertIn(b"the connection to hpkvd was lost", run.errors)

    def test_usage(self):
        for words, pattern in (((), "a command is missing"), (("frob",), "no command 'frob'"), (("get",), "usage: hpkv get KEY"),
                               (("set", "a", "b", "c"), "too many words"), (("get", "--frob", "k"), "no option '--frob'"),
                               (("-X", "get", "k"), "no option '-X'"), (("get", "k", "-jXr"), "no option '-X'"),
                               (("help", "frob"), "no command 'frob'"), (("get", "k", "-t", "0x10s"), "'0x10s' is not a time"),
                               (("get", "k", "--timeout"), "needs an argument"),
                               (("ping", "--socket", ""), "--socket needs a path"),
                               (("get", "k", "--timeout", "soon"), "'soon' is not a time"), (("top", "-d", "1h"), "'1h' is not a time of at most 10 minutes"),
                               (("get", "k", "--timeout", "0"), "'0' is not a time"), (("completion", "tcsh"), "not one of bash")):
            self.assert_ends(2, hpkv("/nonexistent/sock", *words), pattern)

    def test_options_stand_before_or_behind_the_command(self):
        with FakeDaemon() as daemon:
            for words in (("-j", "-t", "5s", "ping"), ("ping", "--json", "--timeout=5s")):
                with Run(daemon, *words) as run:
                    peer = daemon.accept()
                    request = peer.line()
                    self.assertEqual(5000, request["timeoutMs"])
                    peer.reply(request, message="pong")
                    self.assertEqual((0, b'{"code": 200, "message": "pong"}\n'), (run.wait(), run.output))


class AccessRules(Case):
    """Access rules, which name the user who runs this test."""

    RULE = {"user": str(os.getuid()), "read": "app:* pub", "write": "app:*"}

    def test_what_is_forbidden_ends_with_3(self):
        with Sandbox() as sandbox, Daemon(sandbox, access={"me": self.RULE}) as daemon:
            daemon.wait_state("connected")
            self.assertEqual((0, b"", b""), hpkv(daemon, "set", "app:1", "v"))
            self.assertEqual((0, b"v\n", b""), hpkv(daemon, "get", "app:1"))
            self.assertEqual((0, b"app:1\n", b""), hpkv(daemon, "ls", "app:"))
            for words in (("set", "pub", "v"), ("get", "other"), ("ls",), ("ls", "ap"), ("watch", "*"), ("wait", "other"),
                          ("del", "pub"), ("incr", "n"), ("token", "app:1")):
                status, out, err = hpkv(daemon, *words)
                self.assertEqual((3, b""), (status, out), words)
                self.assertRegex(err, rb"\Ahpkv: [^\n]+; see the \[access\] sections of hpkvd.conf\n\Z")

    def test_rules_that_change_end_watch(self):
        with Sandbox() as sandbox, Daemon(sandbox, access={"me": self.RULE}) as daemon:
            daemon.wait_state("connected")
            with Run(daemon, "watch", "app:*", "pub", "--raw") as run:
                daemon.wait_status(lambda s: s["subscriptions"]["live"] and s["subscriptions"]["total"] == 2, "live")
                daemon.reload(access={"me": self.RULE | {"read": "pub"}})
                run.wait_errors(rb"\Ahpkv: watch: app:\* is not watched any more: the access rules have changed, and forbid it\n\Z")
                daemon.reload(access={"me": self.RULE | {"read": "nothing"}})
                self.assertEqual(3, run.wait())
                self.assertIn(b"watch: pub is not watched any more", run.errors)

    def test_a_token(self):
        with FakeService() as service, Daemon(service, access={"me": self.RULE | {"token": "any"}}) as daemon:
            daemon.wait_state("connected")
            self.assertEqual((0, b"token-1\n", b""), hpkv(daemon, "token", "app:1", "app:x*", "--access", "^app:"))
            self.assertEqual({"subscribeKeys": ["app:1"], "subscribePatterns": ["app:x*"], "accessPattern": "^app:"},
                             service.token_requests[0].obj)
            self.assertEqual((0, b"token-2", b""), hpkv(daemon, "token", "--exact", "a*", "--raw"))
            self.assertEqual({"subscribeKeys": ["a*"]}, service.token_requests[1].obj)
            status, out, err = hpkv(daemon, "token", "--json")
            self.assertEqual({"code": 200, "token": "token-3"}, json.loads(out))


class Help(Case):
    def test_each_help_fits_a_screen(self):
        for words in ((), *((command,) for command in COMMANDS)):
            status, out, err = hpkv("/nonexistent/sock", *words, "--help")
            self.assertEqual((0, b""), (status, err))
            lines = out.decode().splitlines()
            self.assertLessEqual(len(lines), 23 if words else 28, words) # one line is for the prompt
            self.assertLessEqual(max(map(len, lines)), 80, words)
            self.assertTrue(lines[0].startswith("usage: hpkv"))
        self.assertEqual(hpkv("/x", "get", "--help"), hpkv("/x", "help", "get"))
        self.assertEqual(hpkv("/x", "--help"), hpkv("/x", "help"))

    def test_every_command_is_in_the_help_and_the_manual(self):
        out = hpkv("/x", "--help")[1].decode()
        self.assertEqual(COMMANDS, re.findall(r"^  ([a-z]+) ", out, re.M))
        with open(os.path.join(ROOT, "man", "hpkv.1"), encoding="utf-8") as file:
            manual = file.read()
        for command in COMMANDS:
            self.assertRegex(manual, rf"(?m)^\.It (Xo )?\.?\s*Ic {command}\b|^\.Ic {command}\b", command)
            options = re.findall(r"--([a-z]+)", hpkv("/x", command, "--help")[1].decode())
            for option in set(options) - {"help"}:
                self.assertIn(f"-{option}", manual.replace("\\-", "-"), f"{command} --{option}")

    def test_version(self):
        self.assertRegex(hpkv("/x", "--version")[1], rb"^hpkv \d+\.\d+\.\d+\n$")


if __name__ == "__main__":
    unittest.main()
