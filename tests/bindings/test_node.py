"""The Node package: node.mjs has the scenarios, with a real daemon or with one that does what a test says."""

import contextlib
import fcntl
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "cli"))

from cli import BUILD, FakeDaemon # noqa: E402 (the path comes first)
from harness import DEADLINE, ROOT, Case, Daemon, Sandbox, eventually

PACKAGE = os.path.join(ROOT, "bindings", "node")
WARNING = r"\A(\(node:\d+\) Warning: The access rules of hpkvd grant no token[^\n]*\n\(Use [^\n]*\n)?\Z"
SCENARIOS = os.path.join(HERE, "node.mjs")


def play(case, socket, scenario, package=PACKAGE, **actions):
    """Runs it; does what it asks for."""
    env = {**os.environ, "HPKVD_SOCKET": socket, "HPKVD_PACKAGE": package}
    with subprocess.Popen(["node", SCENARIOS, scenario], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env,
                          text=True) as process:
        timer = threading.Timer(DEADLINE, process.kill)
        timer.start()
        for line in process.stdout:
            actions[line.strip().split()[0].rstrip(",") if line.strip() not in actions else line.strip()]()
            process.stdin.write("done\n")
            process.stdin.flush()
        errors = process.stderr.read()
        status = process.wait()
        timer.cancel()
    case.assertEqual(0, status, errors)
    case.assertRegex(errors, WARNING)


@unittest.skipUnless(shutil.which("node"), "there is no node")
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

    def test_requests(self):
        play(self, self.daemon.socket, "requests")

    def test_commonjs(self):
        play(self, self.daemon.socket, "commonjs")

    def test_any_text(self):
        play(self, self.daemon.socket, "text")

    def test_ten_thousand_requests_at_once(self):
        play(self, self.daemon.socket, "many")

    def test_how_requests_fail(self):
        play(self, self.daemon.socket, "failures")

    def test_subscriptions(self):
        play(self, self.daemon.socket, "subscriptions")

    def test_a_program_of_the_sdk(self):
        play(self, self.daemon.socket, "sdk")

    def test_a_mirror(self):
        play(self, self.daemon.socket, "mirror")


@unittest.skipUnless(shutil.which("node"), "there is no node")
class Restarts(Case):
    def test_all_goes_on(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon:
            daemon.wait_state("connected")

            def restart():
                daemon.process.signal(signal.SIGTERM)
                daemon.process.wait_exit()
                daemon.process.close()
                daemon.start()

            play(self, daemon.socket, "restart", **{"restart": restart, "service away": sandbox.kill, "service back, and empty": sandbox.start})

    def test_a_token_of_the_service(self):
        with Sandbox() as sandbox, Daemon(sandbox, access={"all": {"user": "root", "read": "*", "write": "*", "token": "any"}}) as daemon:
            daemon.wait_state("connected")
            play(self, daemon.socket, "token")


@unittest.skipUnless(shutil.which("node"), "there is no node")
class Lines(unittest.TestCase):
    def fake(self, scenario, script, **actions):
        with FakeDaemon() as daemon:
            thread = threading.Thread(target=script, args=(daemon,), daemon=True)
            thread.start()
            play(self, daemon.path, scenario, **actions)
            thread.join(DEADLINE)
            self.assertFalse(thread.is_alive())

    def test_a_connection_that_is_lost(self):
        def script(daemon):
            peer = daemon.accept()
            self.assertEqual("get", peer.line()["op"])
            peer.close()
            peer = daemon.accept()
            peer.reply(peer.line(), key="k", value="v")
            peer.line()
            peer.close()
            peer = daemon.accept()
            peer.reply(peer.line(), message="pong")
            peer.reply(peer.line(), code=503, reason="shutting_down", executed="no", error="bye", retryAfterMs=1)
            peer.close()
            peer = daemon.accept()
            peer.reply(peer.line(), success=True)
            peer.line()

        self.fake("lost", script)

    def test_a_daemon_that_ends_is_sent_nothing_more(self):
        """What comes behind a refusal might be lost with the connection. What can't be sent was not executed."""
        peers, refused = [], threading.Event()

        def script(daemon):
            peers.append(daemon.accept())
            peers[0].reply(peers[0].line(), code=503, reason="shutting_down", executed="no", error="bye", retryAfterMs=1)
            refused.set()
            peers.append(daemon.accept())
            for _ in range(2):
                peers[1].reply(peers[1].line(), success=True)
            peers.append(daemon.accept())
            peers[2].reply(peers[2].line(), success=True)

        self.fake("ending", script, refused=lambda: refused.wait(DEADLINE), close=lambda: peers[0].close(),
                  deaf=lambda: peers[1].sock.shutdown(socket.SHUT_RD))

    def test_lines_in_pieces_and_answers_in_any_order(self):
        def script(daemon):
            peer = daemon.accept()
            answer = {"code": 200, "key": "k", "value": "é" * 1000000, "messageId": peer.line()["messageId"]}
            big = json.dumps(answer, ensure_ascii=False).encode() + b"\n"
            for i in range(0, len(big), 77777):
                peer.send_raw(big[i:i + 77777])
            requests = [peer.line() for _ in range(50)]
            peer.send_raw(b'{"code":200,"messageId":12345678}\n{"type":"unheard of"}\nno json\n')
            for request in reversed(requests):
                peer.reply(request, key=request["key"], value=request["key"])

        self.fake("pieces", script)

    def test_a_reader_that_is_slow(self):
        peers = []

        def script(daemon):
            peer = daemon.accept()
            peers.append(peer)
            peer.send({"code": 200, "messageId": peer.line()["messageId"]})

        def flood():
            peers[0].sock.settimeout(0.5)
            line = json.dumps({"type": "notification", "key": "a:1", "value": "x" * 1000, "timestamp": 1, "skipped": 3}).encode() + b"\n"
            sent = 0
            with self.assertRaises(TimeoutError):
                for _ in range(100000):
                    peers[0].sock.sendall(line)
                    sent += 1
            self.assertLess(sent * len(line), 10 << 20)

        self.fake("slow", script, flood=flood)

    def test_a_gap_begins_when_the_daemon_was_last_heard(self):
        closed = os.path.join(tempfile.mkdtemp(), "closed")
        self.addCleanup(shutil.rmtree, os.path.dirname(closed))
        over = threading.Event()

        def script(daemon):
            peer = daemon.accept()
            peer.send({"code": 200, "messageId": peer.line()["messageId"]}, {"type": "notification", "key": "a:1", "value": "x"})
            over.wait(DEADLINE)
            peer.close()
            open(closed, "wb").close()
            peer = daemon.accept()
            peer.send({"code": 200, "messageId": peer.line()["messageId"]})

        os.environ["HPKVD_CLOSED"] = closed
        self.fake("busy", script, close=over.set)

    def test_listeners_that_throw(self):
        def script(daemon):
            peer = daemon.accept()
            peer.reply(peer.line(), key="k", value="v")
            peer = daemon.accept()
            peer.reply(peer.line())
            peer.reply(peer.line(), records=[{"key": "a:1", "value": "1"}, {"key": "a:2", "value": "2"}], count=2, truncated=False)
            peer.at_end()

        self.fake("listeners", script)

    def test_clocks_and_numbers(self):
        def script(daemon):
            peer = daemon.accept()
            peer.reply(peer.line(), code=503, reason="shutting_down", executed="no", error="bye", retryAfterMs=1)
            peer.close()
            peer = daemon.accept()
            request = peer.line()
            self.assertEqual(600000, request["timeoutMs"])
            peer.reply(request, key="k", value="v")
            peer.reply(peer.line(), message="pong")

        self.fake("clock", script)

    def test_disconnect_may_wait(self):
        peers = []

        def script(daemon):
            peer = daemon.accept()
            request = peer.line()
            peer.sock.setblocking(False)
            with self.assertRaises(BlockingIOError):
                peer.sock.recv(1) # it has not hung up
            peer.sock.settimeout(DEADLINE)
            peer.reply(request, success=True)
            self.assertTrue(peer.at_end())
            peers.append(daemon.accept())

        def read():
            eventually(lambda: peers)
            peers[0].line()

        self.fake("patient", script, read=read)

    def test_a_loop_that_is_left_early_unsubscribes(self):
        peers = []

        def script(daemon):
            peer = daemon.accept()
            peers.append(peer)
            peer.send({"code": 200, "messageId": peer.line()["messageId"]}, {"type": "notification", "key": "a:1", "value": "v", "timestamp": 1})

        self.fake("left", script, gone=lambda: self.assertTrue(peers[0].at_end()))

    def test_a_key_that_is_wrong_for_a_while(self):
        """It does not end a subscription that there was; it does one that never was."""
        step = threading.Event()

        def script(daemon):
            for i, code in enumerate((200, 401, 200, 401)):
                peer = daemon.accept()
                peer.reply(peer.line(), **({"code": code} | ({"error": "wrong key"} if code == 401 else {})))
                if i == 0:
                    step.wait(DEADLINE)
                    peer.close()

        self.fake("unauthorized", script, restart=step.set)

    def test_the_rules_end_a_subscription(self):
        def script(daemon):
            peer = daemon.accept()
            peer.send({"code": 200, "messageId": peer.line()["messageId"]})
            peer.send({"type": "gap", "key": "k"}, {"type": "unsubscribed", "key": "k", "reason": "forbidden"})

        self.fake("ended", script)

    def test_a_mirror_reads_what_has_changed(self):
        peers = []

        def script(daemon):
            peer = daemon.accept()
            peers.append(peer)
            peer.reply(peer.line())
            page = peer.line()
            peer.send({"type": "notification", "key": "a:1", "value": "a part", "timestamp": 1})
            peer.reply(peer.line(), key="a:1", value="all of it")
            peer.reply(page, records=[{"key": "a:1", "value": "old"}, {"key": "a:2", "value": "2"}], count=2, truncated=False)

        def gap():
            peers[0].send({"type": "gap", "pattern": "a:*"})
            peers[0].reply(peers[0].line(), records=[{"key": "a:2", "value": "3"}], count=1, truncated=False)

        self.fake("reads", script, gap=gap, unsubscribed=lambda: peers[0].send({"type": "unsubscribed", "pattern": "a:*", "reason": "forbidden"}))


class Package(Case):
    @unittest.skipUnless(shutil.which("npm"), "there is no npm")
    def test_what_npm_packs_can_be_installed_and_used(self):
        with tempfile.TemporaryDirectory(prefix="hpkv-test-") as folder, Sandbox() as sandbox, Daemon(sandbox) as daemon:
            daemon.wait_state("connected")
            npm = ["npm", "--offline", "--no-audit", "--no-fund", "--no-update-notifier", f"--cache={folder}/cache", "--loglevel=error"]
            subprocess.run([*npm, "pack", PACKAGE], cwd=folder, check=True, capture_output=True)
            package, = [name for name in os.listdir(folder) if name.endswith(".tgz")]
            subprocess.run([*npm, "init", "-y"], cwd=folder, check=True, capture_output=True)
            subprocess.run([*npm, "install", "./" + package], cwd=folder, check=True, capture_output=True)
            installed = folder + "/node_modules/hpkvd"
            self.assertIn("README.md", os.listdir(installed))
            for scenario in ("requests", "commonjs"):
                play(self, daemon.socket, scenario, installed)

    def judges(self):
        """Installed by npm at the versions of package-lock.json, once for each lock file."""
        work = os.path.join(BUILD, "tests", "bindings", "tsc")
        os.makedirs(work, exist_ok=True)
        one_at_a_time = self.enterContext(open(work + "/lock", "w", encoding="ascii"))
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX) # another run may be installing it
        lock = os.path.join(HERE, "package-lock.json")
        with contextlib.suppress(OSError), open(work + "/installed.json", "rb") as installed, open(lock, "rb") as wanted:
            if installed.read() == wanted.read():
                return work
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(os.path.join(HERE, name), f"{work}/{name}")
        out = subprocess.run(["npm", "ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=work,
                             capture_output=True, text=True, check=False)
        if re.search("code (EAI_AGAIN|ENOTFOUND|ECONNREFUSED|ECONNRESET|ENETUNREACH|EHOSTUNREACH|ETIMEDOUT)", out.stderr):
            raise unittest.SkipTest("there is no tsc and no eslint: npm can't reach its registry")
        self.assertEqual(0, out.returncode, out.stderr)
        shutil.copyfile(lock, work + "/installed.json")
        return work

    @unittest.skipUnless(shutil.which("npm"), "there is no tsc, and no npm")
    def test_types(self):
        work = self.judges()
        with tempfile.TemporaryDirectory(prefix="hpkv-test-") as folder:
            shutil.copytree(PACKAGE, folder + "/node_modules/hpkvd")
            os.symlink(work + "/node_modules/@types", folder + "/node_modules/@types")
            os.symlink(work + "/node_modules/undici-types", folder + "/node_modules/undici-types")
            for suffix in ("mts", "cts"):
                shutil.copyfile(os.path.join(HERE, "types.mts"), f"{folder}/use.{suffix}")
            out = subprocess.run([work + "/node_modules/.bin/tsc", "--noEmit", "--strict", "--target", "es2020", "--module", "node16",
                                  "--moduleResolution", "node16", "use.mts", "use.cts"], cwd=folder, capture_output=True, text=True, check=False)
            self.assertEqual((0, ""), (out.returncode, out.stdout))

    @unittest.skipUnless(shutil.which("npm"), "there is no eslint, and no npm")
    def test_all_javascript_passes_the_linter(self):
        work = self.judges()
        with tempfile.TemporaryDirectory(prefix="hpkv-test-") as folder: # the linter passes over what is outside its folder
            shutil.copyfile(os.path.join(HERE, "eslint.config.mjs"), folder + "/eslint.config.mjs")
            found = [path for kind in ("mjs", "cjs") for part in ("bindings/node", "examples", "tests")
                     for path in glob.glob(f"{part}/**/*.{kind}", root_dir=ROOT, recursive=True) if "node_modules" not in path]
            self.assertIn("bindings/node/lib/wire.cjs", found)
            for path in found:
                os.makedirs(os.path.dirname(f"{folder}/{path}"), exist_ok=True)
                shutil.copyfile(os.path.join(ROOT, path), f"{folder}/{path}")
            run = [work + "/node_modules/.bin/eslint", "--max-warnings=0", "."]
            out = subprocess.run(run, cwd=folder, env={**os.environ, "LINTER": work}, capture_output=True, text=True, check=False)
            self.assertEqual((0, ""), (out.returncode, out.stdout + out.stderr))
            with open(folder + "/bindings/node/lib/wrong.cjs", "w", encoding="ascii") as file:
                file.write("undefinedName();\n")
            out = subprocess.run(run, cwd=folder, env={**os.environ, "LINTER": work}, capture_output=True, text=True, check=False)
            self.assertIn("no-undef", out.stdout)


if __name__ == "__main__":
    unittest.main()
