"""exec: an environment made of keys, and with --watch a parent that starts the command again, or signals it."""

import os
import signal
import subprocess
import time
import unittest

from cli import FakeDaemon, Run, hpkv
from harness import DEADLINE, Case, Daemon, Sandbox

# Prints each start, and each signal that it is told of.
CHILD = r"""
import os, signal, sys, time
def say(*words): os.write(1, (" ".join(map(str, words)) + "\n").encode()) # print() can't be called while it is called
for name in sys.argv[1:]:
    signal.signal(getattr(signal, "SIG" + name), lambda n, f: say("signal", signal.Signals(n).name))
say("start", os.environ.get("name"), os.getpid())
while True: time.sleep(1000)
"""


def child(*signals):
    return ["/usr/bin/python3", "-c", CHILD, *signals]


class Watching(Run):
    """A command that is left running ends with hpkv."""

    def __exit__(self, kind, value, trace):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(DEADLINE)
        super().__exit__(kind, value, trace)


class Tour(Case):
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

    def put(self, **values):
        with self.daemon.client() as client:
            for key, value in values.items():
                request = {"op": "set", "key": key, "value": value} if value is not None else {"op": "delete", "key": key}
                self.assertEqual(200, client.ask(request)["code"], key)

    def env(self, *words, status=0):
        got, out, err = hpkv(self.daemon, "exec", *words, "--", "/usr/bin/env", "-0", env={"OWN": "1"})
        self.assertEqual(status, got, err)
        return dict(v.split("=", 1) for v in out.decode().split("\0")[:-1]), err.decode()

    def test_variables_of_a_prefix(self):
        self.put(**{"a:name": "x y\n=é", "a:db/host-1": "h", "a:9": "nine", "b:name": "no", "a:own": "2"})
        env, _ = self.env("--prefix", "a:")
        self.assertEqual(("x y\n=é", "h", "nine", "1"), (env["name"], env["db_host_1"], env["_9"], env["OWN"]))
        env, _ = self.env("--prefix", "a:", "--upcase")
        self.assertEqual(("h", "2"), (env["DB_HOST_1"], env["OWN"]))
        self.assertNotIn("db_host_1", env)

    def test_members_of_an_object(self):
        self.put(**{"c:json": '{"port":80,"name":"n\\u00e9","on":true,"list":[1, "a b"],"no":null}'})
        env, _ = self.env("--json", "c:json", "--upcase")
        self.assertEqual(("80", "né", "true", '[1, "a b"]', "null"), tuple(env[n] for n in ("PORT", "NAME", "ON", "LIST", "NO")))

    def test_a_key_of_the_prefix_that_is_the_object(self):
        self.put(**{"d:json": '{"a":"1"}', "d:b": "2"})
        env, _ = self.env("--json", "d:json", "--prefix", "d:")
        self.assertEqual(("1", "2", None), (env["a"], env["b"], env.get("json")))

    def test_what_can_be_no_environment(self):
        self.put(**{"e:a-b": "1", "e:a_b": "2", "f:nul": "a\0b", "g:": "1", "h:text": "text", "h:nul": '{"a":"\\u0000"}'})
        for words, said in ((("--prefix", "e:"), "e:a-b and e:a_b would both be the variable a_b"),
                            (("--prefix", "f:"), "f:nul: holds a NUL"), (("--prefix", "g:"), "g:: no name is left"),
                            (("--json", "h:text"), "h:text: is no JSON object"), (("--json", "h:nul"), "h:nul: holds a NUL"),
                            ((), "--prefix or --json says which keys"), (("--prefix", "a:", "--signal", "HUP"), "about --watch"),
                            (("--prefix", "a:", "--watch", "--signal", "NONE"), "'NONE' is no signal")):
            self.assertIn(said, self.env(*words, status=2)[1])
        self.assertIn("no such key", self.env("--json", "missing", status=1)[1])
        status, _, err = hpkv("/nowhere", "exec", "--prefix", "a:", "--", "true")
        self.assertEqual(4, status, err)

    def test_the_command_takes_its_place(self):
        """Its status, its signals, its options; no descriptor of the library's is left."""
        for words, status in ((("sh", "-c", "exit 7"), 7), (("/no/such/command",), 127), (("/etc",), 126),
                              (("sh", "-c", "kill -TERM $$"), -signal.SIGTERM)):
            self.assertEqual(status, hpkv(self.daemon, "exec", "--prefix", "zz:", *words)[0])
        code = "import os, signal; print(os.listdir('/proc/self/fd'), signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL)"
        _, out, _ = hpkv(self.daemon, "exec", "--prefix", "zz:", "/usr/bin/python3", "-c", code)
        self.assertEqual(b"['0', '1', '2', '3'] True\n", out)

    def watch(self, *words, command=None):
        return Watching(self.daemon, "exec", "--prefix", "w:", "--watch", *words, "--", *(command or child()))

    def test_it_starts_again_when_a_value_changes(self):
        self.put(**{"w:name": "one"})
        with self.watch() as run:
            run.wait_output(rb"start one \d+\n")
            self.put(**{"w:name": "two"})
            run.wait_output(rb"start two \d+\n")
            self.put(**{"w:name": None, "w:x": "1"})
            run.wait_output(rb"start None \d+\n")
            run.process.send_signal(signal.SIGTERM)
            self.assertEqual(-signal.SIGTERM, run.wait())
        self.put(**{"w:x": None})

    def test_what_does_not_change_the_environment_starts_nothing(self):
        self.put(**{"w:name": "same"})
        with self.watch() as run:
            run.wait_output(rb"start same \d+\n")
            self.put(**{"w:name": "same"})
            self.put(**{"w:name": "other"})
            run.wait_output(rb"start other \d+\n")
            self.assertEqual(2, run.output.count(b"start"))
        self.put(object='{"name":"same"}')
        with Watching(self.daemon, "exec", "--json", "object", "--watch", "--", *child()) as run:
            run.wait_output(rb"start same \d+\n")
            self.put(object='{"name": "same"}')
            time.sleep(1.2) # a change takes effect within that
            self.put(object='{"name":"other"}')
            run.wait_output(rb"start other \d+\n")
            self.assertEqual(2, run.output.count(b"start"))

    def test_one_that_does_not_end_is_killed(self):
        self.put(**{"w:name": "one"})
        with self.watch("--grace", "4s", command=child("TERM")) as run: # time enough for a child that stands still to say so
            run.wait_output(rb"start one \d+\n")
            self.put(**{"w:name": "two"})
            run.wait_output(rb"signal SIGTERM\nstart two \d+\n")
            run.process.send_signal(signal.SIGKILL)
            os.kill(int(run.output.split()[-1]), signal.SIGKILL)

    def test_a_signal_in_place_of_a_start(self):
        self.put(**{"w:name": "one"})
        with self.watch("--signal", "HUP", command=child("HUP")) as run:
            run.wait_output(rb"start one \d+\n")
            self.put(**{"w:name": "two"})
            run.wait_output(rb"signal SIGHUP\n")
            self.assertEqual(1, run.output.count(b"start"))
            run.process.send_signal(signal.SIGINT)
            self.assertIn(run.wait(), (-signal.SIGINT, 1))

    def test_signals_and_statuses_are_passed_on(self):
        with self.watch(command=child("USR1", "HUP")) as run:
            run.wait_output(rb"start \S+ \d+\n")
            for name in ("USR1", "HUP"):
                run.process.send_signal(getattr(signal, "SIG" + name))
                run.wait_output(rb"signal SIG" + name.encode())
            run.process.send_signal(signal.SIGTERM)
            self.assertEqual(-signal.SIGTERM, run.wait())
        for code in (0, 5):
            with self.watch(command=["sh", "-c", f"exit {code}"]) as run:
                self.assertEqual(code, run.wait())
        with self.watch(command=["/no/such/command"]) as run:
            self.assertEqual(127, run.wait())

    def test_all_signals_with_a_meaning_are_passed_on(self):
        """A container's manager may stop a program with any of these."""
        names = ("WINCH", "ALRM", "PWR", "IO", "RTMIN", "RTMAX")
        with self.watch(command=child(*names)) as run:
            run.wait_output(rb"start \S+ \d+\n")
            for name in names:
                run.process.send_signal(getattr(signal, "SIG" + name))
                run.wait_output(rb"signal SIG" + signal.Signals(getattr(signal, "SIG" + name)).name[3:].encode() + rb"\n")

    def test_a_terminal_that_is_resized_before_there_is_a_command(self):
        with FakeDaemon() as daemon, Watching(daemon, "exec", "--prefix", "w:", "--watch", "--", "sh", "-c", "echo ran") as run:
            peer = daemon.accept()
            request = peer.line()
            run.process.send_signal(signal.SIGWINCH)
            peer.reply(request)
            peer.reply(peer.line(), records=[], count=0, truncated=False)
            self.assertEqual((0, b"ran\n"), (run.wait(), run.output))

    def test_values_that_are_too_long_leave_the_command_as_it_is(self):
        big, limit = "x" * 30000, ("prlimit", f"--stack={1 << 20}") # so 256 KiB are all
        with FakeDaemon() as daemon, Watching(daemon, "exec", "--prefix", "w:", "--watch", "--", *child(), wrap=limit) as run:
            peer = daemon.accept()
            peer.reply(peer.line())
            peer.reply(peer.line(), records=[{"key": "w:name", "value": "1"}], count=1, truncated=False)
            run.wait_output(rb"start 1 \d+\n")
            for key, value, said in (("w:a", big * 5, rb"w:a: is longer than 128 KiB, which no variable can hold"), ("w:a", None, b""),
                                     *((f"w:{n}", big, rb"variables are together longer than" if n == 8 else b"") for n in range(9))):
                peer.send({"type": "notification", "key": key, "value": value, "timestamp": 1})
                if value is not None:
                    request = peer.line()
                    peer.reply(request, key=key, value=value)
                if said:
                    run.wait_errors(said + rb"[^\n]*; the command keeps its values\n")
            self.assertEqual(1, run.output.count(b"start"))

    def test_a_wrong_value_leaves_the_command_as_it_is(self):
        self.put(**{"w:name": "one"})
        with self.watch() as run:
            run.wait_output(rb"start one \d+\n")
            self.put(**{"w:a-b": "1", "w:a_b": "2"})
            run.wait_errors(rb"both be the variable a_b; the command keeps its values")
            self.put(**{"w:a-b": None})
            run.wait_output(rb"start one \d+\n.*start one \d+\n(?s:.*)")
        self.put(**{"w:a_b": None})

    def test_it_is_the_first_process_of_a_container(self):
        """Signals reach the command, orphans are reaped, and the end has the shell's number for a signal."""
        unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
        if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
            raise unittest.SkipTest("no namespaces for processes here")
        # As long as an ended child is not reaped, it can be sent a signal.
        orphan = "child=$(sh -c 'sleep 0.1 >/dev/null & echo $!'); while kill -0 $child; do sleep 0.02; done; echo ready; exec sleep 1000"
        with Run(self.daemon, "exec", "--prefix", "w:", "--watch", "--", "sh", "-c", orphan, wrap=unshare) as run:
            run.wait_output(rb"ready\n")
            pid = int(subprocess.run(["pgrep", "-P", str(run.process.pid)], capture_output=True, text=True, check=True).stdout)
            os.kill(pid, signal.SIGTERM)
            self.assertEqual(128 + signal.SIGTERM, run.wait())


class Failures(Case):
    def test_it_goes_on_over_a_restart_of_the_daemon(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon:
            daemon.wait_state("connected")
            hpkv(daemon, "set", "w:name", "one")
            with Watching(daemon, "exec", "--prefix", "w:", "--watch", "--", *child()) as run:
                run.wait_output(rb"start one \d+\n")
                daemon.process.signal(signal.SIGTERM)
                daemon.process.wait_exit()
                run.wait_errors(rb"exec: the connection to hpkvd is lost")
                daemon.process.close()
                daemon.start()
                self.assertEqual(0, hpkv(daemon, "set", "w:name", "two")[0])
                run.wait_output(rb"start two \d+\n")
                self.assertEqual(2, run.output.count(b"start"))

    def test_restarts_are_paced(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon:
            daemon.wait_state("connected")
            hpkv(daemon, "set", "w:name", "0")
            with Watching(daemon, "exec", "--prefix", "w:", "--watch", "--", *child()) as run:
                run.wait_output(rb"start 0 \d+\n")
                begun = time.monotonic()
                with daemon.client() as client:
                    for i in range(1, 40):
                        client.ask({"op": "set", "key": "w:name", "value": str(i)})
                        time.sleep(0.1)
                run.wait_output(rb"start 39 \d+\n")
                spent = time.monotonic() - begun
                self.assertLess(run.output.count(b"start"), 3 + spent)


if __name__ == "__main__":
    unittest.main()
