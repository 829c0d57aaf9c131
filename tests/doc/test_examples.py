"""The programs in examples/ do what they say, also when the daemon or the service goes away meanwhile."""

import contextlib
import functools
import glob
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest

from stage import BUILDDIR, ROOT, Stage, me

from harness import DEADLINE, WITHHELD, Case, Daemon, FakeService, Process, eventually, put

HPKV = os.environ.get("HPKV") or os.path.join(BUILDDIR, "hpkv")
EXAMPLES = os.path.join(ROOT, "examples")


@functools.lru_cache(maxsize=None)
def workshop():
    """A folder for what compilers make."""
    folder = tempfile.TemporaryDirectory(prefix="hpkvd-examples-")
    workshop.folder = folder # goes with the process
    return folder.name


def example(name):
    return os.path.join(EXAMPLES, name)


@functools.lru_cache(maxsize=None)
def go_program(name):
    target = os.path.join(workshop(), os.path.basename(name))
    env = os.environ | {"GO111MODULE": "off", "GOPATH": workshop(), "GOCACHE": os.path.join(workshop(), "cache")}
    subprocess.run(["go", "build", "-o", target, example(name)], check=True, env=env, cwd=workshop())
    return target


@functools.lru_cache(maxsize=None)
def c_program(name, *flags):
    target = os.path.join(workshop(), os.path.basename(name))
    subprocess.run([*os.environ.get("CC", "cc").split(), "-Wall", "-Wextra", "-Werror", "-o", target, example(name), *flags],
                   check=True)
    return target


@functools.lru_cache(maxsize=None)
def node_program(name):
    """Where it finds the package."""
    folder = os.path.join(workshop(), "node")
    os.makedirs(folder + "/node_modules", exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.symlink(os.path.join(ROOT, "bindings", "node"), folder + "/node_modules/hpkvd")
    return shutil.copyfile(example(name + ".mjs"), os.path.join(folder, os.path.basename(name) + ".mjs"))


# The beginning of a command, by the language.
RUN = {
    "shell": lambda name: ["bash", example(name + ".sh")],
    "python": lambda name: [sys.executable, example(name + ".py")],
    "node": lambda name: ["node", node_program(name)],
    "go": lambda name: [go_program(name + ".go")],
    "php": lambda name: ["php", example(name + ".php")],
}
NEEDS = {"shell": ("bash", "socat"), "python": (), "node": ("node",), "go": ("go",), "php": ("php",)}


def command(language, program, *args):
    for tool in NEEDS[language]:
        if not shutil.which(tool):
            raise unittest.SkipTest(f"{tool} is not installed")
    return [*RUN[language](f"{language}/{program}"), *args]


def environment(socket):
    return os.environ | {"HPKVD_SOCKET": socket, "LC_ALL": "C.UTF-8", "PYTHONPATH": os.path.join(ROOT, "bindings", "python")}


def run(argv, socket, **more):
    return subprocess.run(argv, env=environment(socket), capture_output=True, text=True, timeout=DEADLINE, **more)


def in_each(*languages):
    """A case for each language from one that takes it as its argument."""

    def decorate(cls):
        for name, test in list(vars(cls).items()):
            if name.startswith("each_"):
                delattr(cls, name)
                for language in languages:
                    setattr(cls, f"test_{language}_{name.removeprefix('each_')}", functools.partialmethod(test, language))
        return cls

    return decorate


@in_each("shell", "python", "node", "go", "php")
class Count(Case):
    """count KEY"""

    def each_counts(self, language):
        argv = command(language, "count", 'visits "of" \\ é')
        with Stage() as stage:
            for number in ("1", "2", "3"):
                done = run(argv, stage.daemon.socket)
                self.assertEqual((0, number + "\n", ""), (done.returncode, done.stdout, done.stderr))
            with stage.daemon.client() as client:
                self.assertEqual("3", client.ask({"op": "get", "key": 'visits "of" \\ é'})["value"])

    def each_says_that_there_is_no_daemon(self, language):
        path = os.path.join(workshop(), "nobody.sock")
        done = run(command(language, "count", "visits"), path)
        self.assertEqual((1, ""), (done.returncode, done.stdout))
        self.assertRegex(done.stderr, rf"\Anot counted: .*{path}.*\n\Z")

    def each_says_that_it_was_not_done(self, language):
        argv = command(language, "count", "visits")
        with Stage(request_timeout="50ms") as stage:
            stage.lose_connection()
            done = run(argv, stage.daemon.socket)
            self.assertEqual((1, ""), (done.returncode, done.stdout))
            self.assertRegex(done.stderr, r"\Anot counted: .*no connection to the service.*\n\Z")

    def each_says_that_nobody_knows(self, language):
        argv = command(language, "count", "visits")
        with FakeService(**WITHHELD) as service, Daemon(service) as daemon:
            program = subprocess.Popen(argv, env=environment(daemon.socket), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            service.next_request()
            service.connections[-1].reset()
            out, err = program.communicate(timeout=DEADLINE)
            self.assertEqual((2, ""), (program.returncode, out))
            self.assertRegex(err, r"\Aperhaps counted: .*connection was lost.*\n\Z")

    def each_says_so_when_the_daemon_has_died(self, language):
        argv = command(language, "count", "visits")
        with FakeService(**WITHHELD) as service, Daemon(service) as daemon:
            program = subprocess.Popen(argv, env=environment(daemon.socket), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            service.next_request()
            daemon.killed = True
            daemon.process.kill()
            out, err = program.communicate(timeout=DEADLINE)
            self.assertEqual((2, ""), (program.returncode, out))
            self.assertRegex(err, r"\Aperhaps counted: .+\n")


class Copy:
    """The copy that a mirror has, according to what it has printed."""

    def __init__(self, process):
        self.process = process

    def now(self):
        copy = {}
        whole, _, _ = bytes(self.process.output).rpartition(b"\n") # the rest is an incomplete line
        for line in whole.decode().splitlines():
            if match := re.fullmatch(r"(app:\S+) = (.*)", line):
                copy[match[1]] = match[2]
            elif match := re.fullmatch(r"(app:\S+) is gone", line):
                del copy[match[1]]
        return copy

    def becomes(self, wanted):
        eventually(lambda: self.now() == wanted, f"a copy with {sorted(wanted)[:9]} ...")


@in_each("python", "node", "go", "php")
class Mirror(Case):
    """mirror PREFIX"""

    def start(self, language, daemon):
        process = Process(command(language, "mirror", "app:"), env=environment(daemon.socket))
        self.addCleanup(process.close)
        return Copy(process)

    def each_follows(self, language):
        command(language, "mirror")
        records = {f"app:{n:03}": f"value {n}" for n in range(250)} # three pages
        with Stage(records | {"ap": "x", "app;": "x"}) as stage:
            copy = self.start(language, stage.daemon)
            copy.becomes(records)
            for key, value in (("app:1", "uno é"), ("app:💡", "long " * 600), ("app:000", "changed")):
                stage.store(key, value)
                records[key] = value
            stage.service_request("DELETE", "/record/app:001")
            del records["app:001"]
            copy.becomes(records)

    def each_reads_on_behind_the_longest_keys(self, language):
        command(language, "mirror")
        records = {f"app:{n:03}": "v" for n in range(99)} # with the next one the first page
        records |= {key: "v" for key in ("app:" + "l" * 508, "app:lm", "app:\U0010ffff", "app:\U0010ffffz", "app:" + "\U0010ffff" * 127)}
        with Stage(records) as stage:
            copy = self.start(language, stage.daemon)
            copy.becomes(records)
            stage.service_request("DELETE", "/record/app:lm")
            del records["app:lm"]
            copy.becomes(records)

    def each_makes_good_for_what_it_has_missed(self, language):
        command(language, "mirror")
        with Stage({"app:1": "one", "app:2": "two", "app:3": "three"}) as stage:
            copy = self.start(language, stage.daemon)
            copy.becomes({"app:1": "one", "app:2": "two", "app:3": "three"})
            stage.lose_connection()
            stage.store("app:1", "uno")
            stage.service_request("DELETE", "/record/app:2")
            stage.store("app:4", "four")
            stage.restore_connection()
            copy.becomes({"app:1": "uno", "app:3": "three", "app:4": "four"})

    def each_survives_the_daemon(self, language):
        command(language, "mirror")
        with Stage({"app:1": "one", "app:2": "two"}) as stage:
            copy = self.start(language, stage.daemon)
            copy.becomes({"app:1": "one", "app:2": "two"})
            stage.stop_daemon()
            stage.store("app:1", "uno")
            stage.service_request("DELETE", "/record/app:2")
            stage.start_daemon()
            copy.becomes({"app:1": "uno"})
            stage.store("app:3", "three")
            copy.becomes({"app:1": "uno", "app:3": "three"})


@in_each("go", "php")
class MirrorWithoutAPackage(Case):
    """… in languages for which there is none. tests/bindings has the same for the packages."""

    start = Mirror.start

    def each_does_not_ask_for_ever(self, language):
        """A page that holds only the last record of the one before."""
        with FakeService(**WITHHELD) as service, Daemon(service) as daemon:
            copy = self.start(language, daemon)
            page = {"records": [{"key": "app:1", "value": "one"}], "count": 1, "truncated": True}
            service.next_request().reply(**page)
            again = service.next_request()
            self.assertEqual("app:1", again.key)
            again.reply(**page)
            copy.process.wait_output(rb"returns no more records; trying again")

    def each_takes_what_was_told_for_newer_than_what_is_read(self, language):
        with FakeService(**WITHHELD) as service, Daemon(service) as daemon:
            copy = self.start(language, daemon)
            reading = service.next_request()
            self.assertEqual((5, "app:"), (reading.op, reading.key))
            service.publish("app:1", "new")
            service.publish("app:2", "new")
            service.publish("app:3", None)
            copy.becomes({"app:1": "new", "app:2": "new"})
            records = [{"key": f"app:{n}", "value": "old"} for n in (1, 3, 4)]
            reading.reply(records=records, count=3, truncated=False)
            copy.becomes({"app:1": "new", "app:2": "new", "app:4": "old"})

    def each_comes_back_when_access_rules_let_it(self, language):
        command(language, "mirror")
        rule = {"user": me(), "read": "app:*"}
        with Stage({"app:1": "one"}, access={"mine": rule}) as stage:
            copy = self.start(language, stage.daemon)
            copy.becomes({"app:1": "one"})
            stage.daemon.reload(access={"mine": rule | {"read": "other:*"}})
            copy.process.wait_output(rb"access rules .*; trying again")
            stage.store("app:1", "uno")
            stage.daemon.reload(access={"mine": rule})
            copy.becomes({"app:1": "uno"})

    def each_waits_for_a_daemon(self, language):
        with Stage({"app:1": "one"}) as stage:
            stage.stop_daemon()
            copy = self.start(language, stage.daemon)
            copy.process.wait_output(rb"trying again")
            stage.start_daemon()
            copy.becomes({"app:1": "one"})


class Watch(Case):
    """shell/watch.sh PATTERN"""

    def test_tells_changes_and_gaps_and_comes_back(self):
        argv = command("shell", "watch", "app:*")
        with Stage() as stage:
            process = Process(argv, env=environment(stage.daemon.socket), before_exec=os.setsid)
            self.addCleanup(process.close)
            self.addCleanup(lambda: os.killpg(process.pid, 9)) # socat as well
            self.told(stage, process, "app:1", 1)
            stage.lose_connection()
            process.wait_output(rb'the service is "disconnected"')
            stage.restore_connection()
            process.wait_output(rb"changes may have been missed")
            stage.restart_daemon()
            process.wait_output(rb"no connection to hpkvd: trying again")
            self.told(stage, process, "app:2", 1)

    @staticmethod
    def told(stage, process, key, live):
        stage.daemon.wait_status(lambda s: s["subscriptions"]["total"] == live and s["subscriptions"]["live"], "the subscription")
        stage.store(key, "v")
        process.wait_output(rb'"key":"%s","value":"v"' % key.encode())


@unittest.skipUnless(shutil.which("node"), "node is not installed")
class TokenServer(Case):
    """node/token-server.mjs, in the place of a web backend, and a browser that knows its port and the service's."""

    RULES = {"tokens": {"user": me(), "read": "app:public:* app:user:*", "token": "own"}}

    def backend(self, stage):
        process = Process(["node", node_program("node/token-server")], env=environment(stage.daemon.socket) | {"PORT": "0"})
        self.addCleanup(process.close)
        return process, int(process.wait_output(rb"listening on port (\d+)")[1])

    @staticmethod
    def post(port, path="/api/token", session=None):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        try:
            connection.request("POST", path, headers={"Authorization": f"Bearer {session}"} if session else {})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def test_a_browser_listens_to_its_keys_and_to_no_others(self):
        with Stage({"app:user:42:mail": "1"}, access=self.RULES) as stage:
            process, port = self.backend(stage)
            self.assertEqual(401, self.post(port)[0])
            self.assertEqual(401, self.post(port, session="demo-x")[0])
            self.assertEqual(404, self.post(port, "/", session="demo-42")[0])
            status, answer = self.post(port, session="demo-42")
            self.assertEqual((200, {"token"}), (status, set(answer)))
            with contextlib.closing(stage.browser(answer["token"])) as browser:
                for key in ("app:user:7:mail", "app:user:42:mail", "other", "app:public:news"):
                    stage.store(key, "2")
                self.assertEqual(["app:user:42:mail", "app:public:news"], [browser.notification()[0] for _ in range(2)])
                for op in (1, 2, 4):
                    self.assertEqual(403, browser.ask(op=op, key="app:user:42:mail", value="x", messageId=op)["code"])
            self.assertNotIn(answer["token"].encode(), process.output)

    def test_without_a_rule_there_is_no_token(self):
        with Stage() as stage:
            process, port = self.backend(stage)
            self.assertEqual((503, {"error": "try again later"}), self.post(port, session="demo-42"))
            process.wait_output(rb"no token for user 42: 403 forbidden")

    def test_without_a_daemon_there_is_no_token(self):
        with Stage() as stage:
            process, port = self.backend(stage)
            stage.stop_daemon()
            self.assertEqual((503, {"error": "try again later"}), self.post(port, session="demo-42"))
            stage.start_daemon()


@unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
class SystemdUnits(Case):
    def test_systemd_takes_them(self):
        """The command need not be installed here."""
        folder = tempfile.mkdtemp(prefix="hpkvd-units-")
        self.addCleanup(shutil.rmtree, folder)
        units = []
        for path in sorted(glob.glob(example("systemd/*"))):
            with open(path, encoding="utf-8") as file:
                text = file.read().replace("/usr/bin/hpkv ", "/bin/true ")
            units.append(os.path.join(folder, os.path.basename(path)))
            with open(units[-1], "w", encoding="utf-8") as file:
                file.write(text)
        self.assertEqual(4, len(units))
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, timeout=DEADLINE)
        self.assertEqual((0, ""), (done.returncode, done.stderr))


@unittest.skipUnless(os.access(HPKV, os.X_OK), "hpkv is not built")
class Backup(Case):
    """What systemd/hpkv-backup.service runs."""

    def back_up(self, stage, *options):
        with open(example("systemd/hpkv-backup.service"), encoding="utf-8") as file:
            command = re.search(r"^ExecStart=/bin/sh -c '(.*)'$", file.read(), re.M)[1].replace("hpkv", "hpkv " + " ".join(options))
        env = environment(stage.daemon.socket) | {"PATH": os.path.dirname(HPKV) + ":" + os.environ["PATH"]}
        return subprocess.run(["sh", "-c", command], env=env, cwd=self.folder, capture_output=True, text=True, timeout=DEADLINE)

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="hpkvd-backup-")
        self.addCleanup(shutil.rmtree, self.folder)

    def records(self):
        with open(os.path.join(self.folder, "app.jsonl"), encoding="utf-8") as file:
            return {record["key"]: record["value"] for record in map(json.loads, file)}

    def test_has_all_records(self):
        wanted = {f"app:{n:04}": f"value {n}" for n in range(1100)}
        with Stage({"other": "x"}) as stage:
            with stage.daemon.client() as client:
                client.send(*[put(key, value) for key, value in wanted.items()])
                client.lines(len(wanted))
            done = self.back_up(stage)
            self.assertEqual((0, ""), (done.returncode, done.stdout))
        self.assertEqual(wanted, self.records())

    def test_the_former_one_stays_when_it_fails(self):
        with Stage({"app:1": "one"}) as stage:
            self.assertEqual(0, self.back_up(stage).returncode)
            stage.lose_connection()
            done = self.back_up(stage, "--timeout", "100ms")
            self.assertEqual(5, done.returncode, done.stderr)
        self.assertEqual({"app:1": "one"}, self.records())


class C(Case):
    def test_ask(self):
        program = c_program("c/ask.c")
        with Stage({"user:1": "Ada"}) as stage:
            done = run([program, '{"op":"get","key":"user:1"}'], stage.daemon.socket)
            self.assertEqual((0, '{"code":200,"key":"user:1","value":"Ada"}\n'), (done.returncode, done.stdout))
            path = stage.daemon.socket
        done = run([program, '{"op":"get","key":"user:1"}'], path)
        self.assertEqual((1, ""), (done.returncode, done.stdout))
        done = run([program], path)
        self.assertEqual((1, "usage: ask REQUEST\n"), (done.returncode, done.stderr))

    def test_ask_does_not_cut_a_path(self):
        program = c_program("c/ask.c")
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as other:
            path = (folder + "/").ljust(107, "x") # the longest that there is
            other.bind(path)
            other.listen()
            done = run([program, '{"op":"ping"}'], path + "y")
            self.assertEqual((1, "hpkvd: File name too long\n"), (done.returncode, done.stderr))

    def test_ask_says_when_no_answer_comes(self):
        program = c_program("c/ask.c")
        with FakeService(**WITHHELD) as service, Daemon(service) as daemon:
            asker = Process([program, '{"op":"get","key":"user:1"}'], env=environment(daemon.socket))
            self.addCleanup(asker.close)
            service.next_request()
            daemon.killed = True
            daemon.process.kill()
            self.assertEqual(2, asker.wait_exit())


if __name__ == "__main__":
    unittest.main()
