"""hpkv as a process: signals, children, the command of watch --exec, life as process 1 of a container."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import termios
import unittest

from cli import HPKV, FakeDaemon, Run, environment
from harness import DEADLINE, HPKVD, SANDBOX, Case, eventually

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def state(pid):
    """A letter, as in ps; None: there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(child) for child in file.read().split()]
    except FileNotFoundError:
        return []


def change(key="k", value="v"):
    return {"type": "notification", "key": key, "value": value, "timestamp": 1764065000123}


class Watched(Case):
    """hpkv watch with a daemon that the test plays."""

    def setUp(self):
        super().setUp()
        self.daemon = FakeDaemon()
        self.addCleanup(self.daemon.__exit__)

    def watch(self, *words, run=Run, **options):
        watching = run(self.daemon, "watch", "k", *words, **options)
        self.addCleanup(watching.__exit__, None, None, None)
        self.peer = self.daemon.accept()
        self.peer.reply(self.peer.line())
        return watching

    def command(self, text, *words, **options):
        """Both run: hpkv, and the process whose id the command prints."""
        watching = self.watch("--exec", text, *words, **options)
        self.peer.send(change())
        watching.wait_output(rb"(\d+) is there")
        return watching, int(re.search(rb"(\d+) is there", watching.output)[1])

    def assert_gone(self, pid):
        """It has been killed by now, and may be slow to die; its parent may be slow to reap it."""
        eventually(lambda: state(pid) in (None, "Z"), f"the end of process {pid}, which was left behind,")


# It prints not its own id, since the shell ends at once, but that of the process it waits for.
SLEEPS = 'sh -c "echo \\$\\$ is there; exec sleep 7777"; true'


# It counts signals, which Python may merge, and ends when no more come.
HEARS = """
import os, select, signal
reading, writing = os.pipe()
os.set_blocking(writing, False)
signal.set_wakeup_fd(writing)
signal.signal(signal.SIGINT, lambda number, frame: None)
print(os.getpid(), "is there", flush=True)
wait = None
while select.select([reading], [], [], wait)[0]:
    print("heard " * len(os.read(reading, 100)), flush=True)
    wait = 1
"""


class Signals(Watched):
    def test_the_command_ends_with_it(self):
        for number in (*ENDING, signal.SIGUSR1):
            with self.subTest(number.name):
                watching, sleeper = self.command(SLEEPS)
                watching.process.send_signal(number)
                self.assertEqual((-number, b""), (watching.wait(), watching.errors))
                self.assert_gone(sleeper)

    def test_the_command_ends_with_it_in_a_terminal(self):
        for number in (signal.SIGTERM, signal.SIGQUIT):
            with self.subTest(number.name):
                watching, sleeper = self.command(SLEEPS, run=Foreground)
                os.kill(watching.pid, number)
                self.assertEqual(128 + number, watching.wait())
                self.assert_gone(sleeper)

    def test_what_the_command_has_in_the_background_ends_with_it(self):
        watching, sleeper = self.command('sh -c "echo \\$\\$ is there; exec sleep 7777" & wait; true')
        watching.process.send_signal(signal.SIGTERM)
        self.assertEqual(-signal.SIGTERM, watching.wait())
        self.assert_gone(sleeper)

    def test_the_command_has_time_to_tidy_up(self):
        watching, _ = self.command("trap 'sleep 0.2; echo tidied; exit 0' TERM; echo $$ is there; while :; do sleep 0.05; done")
        watching.process.send_signal(signal.SIGTERM)
        self.assertEqual(-signal.SIGTERM, watching.wait())
        self.assertIn(b"tidied", watching.output)

    def test_a_command_that_does_not_heed_it_is_killed(self):
        watching, sleeper = self.command("trap '' TERM; " + SLEEPS)
        watching.process.send_signal(signal.SIGTERM)
        self.assertEqual(-signal.SIGTERM, watching.wait())
        self.assert_gone(sleeper)

    def test_a_command_that_does_not_heed_it_is_killed_in_a_terminal(self):
        watching, sleeper = self.command("trap '' TERM; " + SLEEPS, run=Foreground)
        os.kill(watching.pid, signal.SIGTERM)
        self.assertEqual(128 + signal.SIGTERM, watching.wait())
        self.assert_gone(sleeper)

    def test_a_command_that_is_stopped_ends_with_it(self):
        watching, sleeper = self.command(SLEEPS)
        os.kill(sleeper, signal.SIGSTOP)
        watching.process.send_signal(signal.SIGTERM)
        self.assertEqual(-signal.SIGTERM, watching.wait())
        self.assert_gone(sleeper)

    def test_ctrl_c_reaches_the_command_once(self):
        """From the terminal, and not from hpkv as well."""
        with tempfile.NamedTemporaryFile("w", suffix=".py") as program:
            program.write(HEARS)
            program.flush()
            watching, _ = self.command(f"exec {sys.executable} {program.name}", tty=True)
            watching.process.send_signal(signal.SIGSTOP) # so that two signals do not become one
            watching.type(b"\x03")
            watching.wait_output(b"heard")
            watching.process.send_signal(signal.SIGCONT)
            self.assertEqual(-signal.SIGINT, watching.wait())
        self.assertEqual(1, watching.output.count(b"heard"))

    def test_a_command_in_the_foreground_reads_the_terminal(self):
        watching, _ = self.command("echo $$ is there; read line </dev/tty; echo \"it says $line\"", "-n", "1", tty=True)
        watching.type(b"yes\n")
        self.assertEqual(0, watching.wait())
        self.assertIn(b"it says yes", watching.output)

    def test_a_command_in_the_background_stops_its_job_when_it_reads_the_terminal(self):
        """As any program does; a shell shows the job as stopped, and "fg" goes on with it."""
        watching, _ = self.command("echo $$ is there; read line </dev/tty; echo \"it says $line\"", "-n", "1", run=Background)
        watching.type(b"yes\n")
        watching.wait_output(rb"it says yes\r?\n")
        watching.wait_output(rb"ends with 0")

    def test_it_stops_and_goes_on_with_its_command(self):
        watching, sleeper = self.command(SLEEPS, run=Grouped)
        pid = watching.pid
        os.kill(pid, signal.SIGTSTP)
        eventually(lambda: (state(pid), state(sleeper)) == ("T", "T"), "both are stopped")
        os.kill(pid, signal.SIGCONT)
        eventually(lambda: (state(pid), state(sleeper)) == ("S", "S"), "both go on")
        os.kill(pid, signal.SIGTERM)
        self.assertEqual(128 + signal.SIGTERM, watching.wait())
        self.assert_gone(sleeper)

    def test_a_signal_after_the_daemon_has_gone(self):
        watching, sleeper = self.command(SLEEPS)
        self.daemon.stop()
        watching.process.send_signal(signal.SIGTERM)
        self.assertEqual(-signal.SIGTERM, watching.wait())
        self.assert_gone(sleeper)

    def test_a_signal_after_the_reader_has_gone(self):
        reading, writing = os.pipe()
        watching = self.watch("--exec", "echo $$ is there; while sleep 0.05; do :; done", stdout=writing)
        os.close(writing)
        self.peer.send(change())
        with open(reading, "rb") as lines:
            pid = int(lines.readline().split()[0])
        watching.process.send_signal(signal.SIGTERM)
        self.assertEqual(-signal.SIGTERM, watching.wait())
        self.assert_gone(pid)

    def test_what_the_caller_ignores_stays_ignored(self):
        with FakeDaemon() as daemon:
            run = subprocess.Popen([HPKV, "--socket", daemon.path, "watch", "k", "-n", "1", "--exec", "echo $$; sleep 0.3"], env=environment(),
                                   stdout=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
            self.addCleanup(run.wait)
            self.addCleanup(run.kill)
            peer = daemon.accept()
            peer.reply(peer.line())
            run.send_signal(signal.SIGHUP)
            peer.send(change())
            self.assertTrue(run.stdout.readline())
            run.send_signal(signal.SIGHUP)
            run.communicate(timeout=DEADLINE)
            self.assertEqual(0, run.returncode)

    def test_top_leaves_the_terminal_as_it_was(self):
        for number in ENDING:
            with self.subTest(number.name), FakeDaemon() as daemon, Run(daemon, "top", "--delay", "9s", tty=True, env={"TERM": "xterm"}) as run:
                peer = daemon.accept()
                for _ in range(4):
                    peer.reply(peer.line(), stats={}, upstream={"state": "connected"})
                run.wait_output(rb"in all")
                run.process.send_signal(number)
                self.assertEqual(-number, run.wait())
                self.assertEqual(b"\x1b[?1049h" in run.output, b"\x1b[?1049l" in run.output)

    def test_top_leaves_it_so_though_the_daemon_hangs(self):
        with FakeDaemon() as daemon, Run(daemon, "top", "--delay", "1ms", "--timeout", f"{DEADLINE}s", tty=True, env={"TERM": "xterm"}) as run:
            peer = daemon.accept()
            for _ in range(4):
                peer.reply(peer.line(), stats={}, upstream={"state": "connected"})
            run.wait_output(rb"in all")
            peer.line() # it requests the next page
            settings = termios.tcgetattr(run.master)
            run.process.send_signal(signal.SIGTERM)
            self.assertEqual(-signal.SIGTERM, run.wait())
            if b"\x1b[?1049h" in run.output:
                self.assertIn(b"\x1b[?1049l", run.output)
                self.assertNotEqual(settings, termios.tcgetattr(run.master), "the terminal's settings are the former ones again")


class Wrapped(Run):
    """Behind words of another program, whose only child it is; pid is its own."""

    @property
    def pid(self):
        eventually(lambda: children(self.process.pid), "there is a child")
        return children(self.process.pid)[0]


class Grouped(Wrapped):
    """Without a terminal, in a group of its own with its parent in another, so that the kernel lets it be stopped."""

    PARENT = ("import os, subprocess, sys; os.setsid(); status = subprocess.Popen(sys.argv[1:], process_group=0).wait(); "
              "sys.exit(status if status >= 0 else 128 - status)")

    def __init__(self, daemon, *words):
        super().__init__(daemon, *words, wrap=(sys.executable, "-c", self.PARENT))


class Foreground(Wrapped):
    """In the foreground job of a terminal, with a shell that outlives it: else the terminal ends what is left."""

    def __init__(self, daemon, *words):
        super().__init__(daemon, *words, wrap=("sh", "-c", '"$0" "$@"; echo "ends with $?"; read line'), tty=True)

    def wait(self):
        self.wait_output(rb"ends with \d+")
        return int(re.search(rb"ends with (\d+)", self.output)[1])


class Background(Wrapped):
    """A background job of a shell with a terminal, which fetches it once it is stopped."""

    def __init__(self, daemon, *words):
        shell = '"$0" "$@" & until jobs | grep -q Stopped; do sleep 0.05; done; fg; echo "ends with $?"; read line'
        super().__init__(daemon, *words, wrap=("/bin/bash", "-mc", shell), tty=True)


class Contained(Wrapped):
    """As process 1: a shell that runs the text first, then becomes hpkv."""

    def __init__(self, daemon, *words, shell="", **options):
        super().__init__(daemon, *words, wrap=(*CONTAINER, "sh", "-c", f'{shell} exec "$0" "$@"'), **options)


def can_contain():
    try:
        return subprocess.run([*CONTAINER, "true"], capture_output=True, timeout=DEADLINE).returncode == 0
    except FileNotFoundError:
        return False


@unittest.skipUnless(can_contain(), "unshare --pid --mount-proc is not possible here")
class Container(Watched):
    """As process 1: the kernel drops signals without a handler, and makes it the parent of all orphans."""

    LASTING = (("watch", "k"), ("wait", "k"), ("raw",), ("get", "k"), ("top",), ("ready",))

    def test_signals_end_it(self):
        for words in self.LASTING:
            for number in ENDING:
                with self.subTest(" ".join(words) + " " + number.name), FakeDaemon() as daemon, \
                        Contained(daemon, *words, stdin=subprocess.PIPE) as run:
                    daemon.accept() # it waits for an answer that never comes
                    os.kill(run.pid, number)
                    self.assertEqual(128 + number, run.wait())

    def test_signals_end_it_with_its_command(self):
        for number in ENDING:
            with self.subTest(number.name):
                watching, _ = self.command("trap 'echo tidied; exit 0' TERM INT HUP QUIT; echo $$ is there; while :; do sleep 0.05; done",
                                           run=Contained)
                os.kill(watching.pid, number)
                self.assertEqual(128 + number, watching.wait())
                self.assertIn(b"tidied", watching.output)

    def test_orphans_do_not_stay(self):
        watching = self.watch("--exec", "echo $$ is there; read line", run=Contained, shell="(sleep 0.1 &);")
        pid = watching.pid
        eventually(lambda: not children(pid), "an orphan that ends is no zombie")
        self.peer.send(change(value="x\n"), change(value=None))
        eventually(lambda: not children(pid), "nor is the command")

    def test_orphans_do_not_stay_while_a_command_runs(self):
        watching, _ = self.command("(sleep 0.1 &); (sleep 0.2 &); echo $$ is there; exec sleep 7777", run=Contained)
        eventually(lambda: [state(child) for child in children(watching.pid)] == ["S"], "only the command is left")

    def test_a_reader_that_leaves_ends_it(self):
        reading, writing = os.pipe()
        watching = self.watch(run=Contained, stdout=writing)
        os.close(writing)
        os.close(reading)
        self.assertEqual((0, b""), (watching.wait(), watching.errors))


class Children(Watched):
    def test_those_it_is_born_with_do_not_stay(self):
        """A shell may have had some before it became hpkv."""
        start = subprocess.Popen
        with FakeDaemon() as daemon:
            run = start(["sh", "-c", 'sleep 0.1 & exec "$0" "$@"', HPKV, "--socket", daemon.path, "wait", "k"], env=environment())
            self.addCleanup(run.wait)
            self.addCleanup(run.kill)
            daemon.accept()
            eventually(lambda: not children(run.pid), "its child is no zombie")


    def test_those_of_the_daemon_and_the_sandbox_neither(self):
        """As the first process of a container they inherit orphans, of "podman exec" say."""
        with tempfile.TemporaryDirectory() as folder:
            with open(folder + "/hpkvd.conf", "w") as config:
                config.write(f"[upstream]\nurl = https://localhost:1\n[listen]\nsocket = {folder}/sock\n")
            for argv, ready in (([HPKVD, "-c", folder + "/hpkvd.conf"], b"listens on"), ([SANDBOX, "--port", "0"], b"listening on")):
                run = subprocess.Popen(["sh", "-c", 'sleep 0.1 & exec "$0" "$@"', *argv], env=environment(HPKV_API_KEY="a-key-a-key"),
                                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                self.addCleanup(run.stdout.close)
                self.addCleanup(run.wait)
                self.addCleanup(run.kill)
                while ready not in (line := run.stdout.readline()):
                    self.assertTrue(line, argv)
                eventually(lambda run=run: not children(run.pid), "its child is no zombie")


class Exec(Watched):
    def run_for(self, command, *changes, words=(), **options):
        """Status, output and errors of a watch with this command for these changes."""
        watching = self.watch("-n", str(len(changes)), "--exec", command, *words, **options)
        self.peer.send(*changes)
        return watching.wait(), watching.output, watching.errors.decode()

    def test_a_command_never_runs_with_a_variable_missing(self):
        command = 'echo "cache/$HPKV_KEY=$HPKV_VALUE"'
        for bad, said in ((change("a\0b"), r"for a\0b was not run: the key holds a NUL, which no variable can hold"),
                          (change("\0"), r"for \0 was not run: the key holds a NUL"),
                          (change("k", "v\0"), r"for k was not run: the value holds a NUL"),
                          (change("k", "v" * 102401), r"for k was not run: the value is longer than 100 KiB"),
                          (change("k" * 102401), "was not run: the key is longer than 100 KiB")):
            with self.subTest(said):
                status, out, err = self.run_for(command, bad, change("good"))
                self.assertEqual((2, b"cache/good=v\n"), (status, out))
                self.assertIn(said, err)
                self.assertRegex(err, r"\Ahpkv: watch: the command for [^\n]{1,200}\n\Z")

    def test_a_variable_that_just_fits(self):
        self.assertEqual((0, b"102400\n", ""), self.run_for('echo "${#HPKV_VALUE}"', change("k", "v" * 102400)))

    def test_an_environment_that_is_too_long(self):
        start = subprocess.Popen
        with FakeDaemon() as daemon:
            run = start(["sh", "-c", 'ulimit -s 512; exec "$0" "$@"', HPKV, "--socket", daemon.path, "watch", "k", "-n", "1", "--exec", "echo run"],
                        env=environment(PAD="x" * 60000), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            peer = daemon.accept()
            peer.reply(peer.line())
            peer.send(change("k", "v" * 90000))
            self.assertEqual((b"", b"hpkv: watch: the command for k was not run: /bin/sh: Argument list too long\n"), run.communicate(timeout=DEADLINE))
            self.assertEqual(2, run.returncode)

    def test_nothing_of_the_caller_shines_through(self):
        old = {name: "old" for name in ("HPKV_KEY", "HPKV_VALUE", "HPKV_EVENT", "HPKV_TIMESTAMP", "HPKV_SKIPPED")}
        command = 'echo "$HPKV_KEY ${HPKV_VALUE-none} $HPKV_EVENT $HPKV_TIMESTAMP $HPKV_SKIPPED $OTHER"'
        self.assertEqual((0, b"k none delete 1764065000123 0 kept\n", ""),
                         self.run_for(command, change("k", None), env=old | {"OTHER": "kept"}))
        self.assertEqual((0, b"k none set 1764065000123 7 kept\n", ""),
                         self.run_for(command, change() | {"skipped": 7}, words=("--stdin",), env=old | {"OTHER": "kept"}))

    def test_half_a_character_stays_what_it_is(self):
        self.assertEqual((0, b"[\xed\xa0\x80 \xed\xb0\x80]\n", ""),
                         self.run_for('echo "[$HPKV_KEY $HPKV_VALUE]"', change("\ud800", "\udc00")))

    def test_the_object_on_stdin(self):
        status, out, err = self.run_for("cat", change("a", 'x"y'), change("b", None), change("c", "nul\0"), change("d", "v" * 200000),
                                        words=("--stdin",))
        self.assertEqual((0, ""), (status, err))
        expected = [change("a", 'x"y'), change("b", None), change("c", "nul\0"), change("d", "v" * 200000)]
        self.assertEqual(expected, [json.loads(line) for line in out.splitlines()])

    def test_a_key_that_no_variable_holds_is_skipped_with_stdin_too(self):
        status, out, err = self.run_for("cat", change("a\0b"), words=("--stdin",))
        self.assertEqual((2, b""), (status, out))
        self.assertIn("the key holds a NUL", err)

    def test_a_command_that_does_not_read_does_no_harm(self):
        for words in ((), ("--stdin",)):
            value = "v" * 102400
            self.assertEqual((0, b"1\n2\n", ""),
                             self.run_for('echo "$HPKV_KEY"', change("1", value), change("2", value), words=words))

    def test_stdin_is_about_a_command(self):
        with Run(self.daemon, "watch", "k", "--stdin") as run:
            self.assertEqual(2, run.wait())
            self.assertIn(b"--stdin needs --exec", run.errors)
