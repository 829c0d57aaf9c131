"""export and import: byte for byte, on after an interruption, and what is said of records that are not stored."""

import json
import os
import re
import signal
import tempfile
import time
import unittest

from cli import FakeDaemon, Run, hpkv
from harness import Case, Daemon, Sandbox, eventually


def line(key, value):
    return json.dumps({"key": key, "value": value}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


class Store(dict):
    """Plays hpkvd over a dictionary; remembers what was written, in order."""

    def __init__(self, *args):
        super().__init__(*args)
        self.written, self.read = [], []

    def answer(self, peer, request):
        key, op = request["key"], request["op"]
        if op == "set":
            self[key] = request["value"]
            self.written.append((key, request["value"]))
            peer.reply(request, success=True)
        elif op == "get":
            self.read.append(key)
            peer.reply(request, **({"key": key, "value": self[key]} if key in self else {"code": 404, "error": "no"}))
        else:
            inside = sorted(k for k in self if key.encode() <= k.encode() <= request["endKey"].encode())
            page = inside[:3]
            peer.reply(request, records=[{"key": k, "value": self[k]} for k in page], count=len(page),
                       truncated=len(inside) > 3)


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

    def test_what_is_exported_can_be_imported(self):
        lines = sorted(line(f"a:{i:04}", f"v{i}\n\0é\u2028") for i in range(2500))
        lines[7] = b'{"key":"a:0007","value":"\\ud800\\u0000 \\ud83d\\ude00"}\n'
        self.assertEqual((0, b"", b""), hpkv(self.daemon, "import", stdin=b"".join(lines)))
        status, out, err = hpkv(self.daemon, "export", "a:")
        self.assertEqual((0, b""), (status, err))
        self.assertEqual([json.loads(text) for text in lines], [json.loads(text) for text in out.splitlines()])
        self.assertEqual((0, b"", b""), hpkv(self.daemon, "import", stdin=out))
        self.assertEqual((0, out, b""), hpkv(self.daemon, "export", "a:"))

    def test_an_empty_prefix_and_one_without_records(self):
        self.assertEqual((0, b"", b""), hpkv(self.daemon, "export", "nothing:"))
        hpkv(self.daemon, "import", stdin=line("z", "1"))
        self.assertIn(line("z", "1"), hpkv(self.daemon, "export")[1])

    def test_lines_that_are_wrong_are_named_and_the_others_stored(self):
        data = b'{"key":"b:1","value":"1"}\r\n\nbad\n{"value":"x"}\n{"key":"","value":"x"}\n{"key":"b:2"}\n{"key":"b:3","value":{"a": "\\" x" }}'
        status, out, err = hpkv(self.daemon, "import", stdin=data)
        self.assertEqual((3, b""), (status, out))
        self.assertRegex(err, rb'line 3: not a JSON object[^\n]+\n[^\n]*line 4: no "key"[^\n]+\n[^\n]*line 5: no "key"[^\n]+\n'
                              rb'[^\n]*line 6: no "value"\n[^\n]*: 2 records stored, 4 not\n\Z')
        self.assertEqual(line("b:1", "1") + line("b:3", '{"a":"\\" x"}'), hpkv(self.daemon, "export", "b:")[1])

    def test_a_value_that_the_service_does_not_take_is_named_with_its_size(self):
        data = line("c:1", "x" * 3073) + line("c:2", "x")
        status, _, err = hpkv(self.daemon, "import", stdin=data)
        self.assertEqual(3, status)
        self.assertRegex(err, rb"line 1: c:1: [^\n]+\(code 400; the value has 3073 bytes\)\n[^\n]*: 1 record stored, 1 not\n")
        status, _, err = hpkv(self.daemon, "import", "--dry-run", stdin=data)
        self.assertEqual(3, status)
        self.assertIn(b"line 1: c:1: the value has 3073 bytes, and the service takes 3072\n", err)

    def test_a_dry_run_names_all_that_the_service_is_known_to_refuse(self):
        data = line("c" * 513, "x") + line("c:1", "") + line("c" * 512, "\u00e9" * 1536) + line("\u00e9" * 257, "x") + b'{"key":"c:2","value":0}\n'
        status, _, err = hpkv(self.daemon, "import", "--dry-run", stdin=data)
        self.assertEqual(3, status)
        self.assertRegex(err, rb"(?s)\A[^\n]*line 1: c+[.]*: the key has 513 bytes, and the service takes 512\n[^\n]*line 2: c:1: the value is empty[^\n]*\n"
                              rb"[^\n]*line 4: [^\n]*: the key has 514 bytes, and the service takes 512\n[^\n]*: 2 records would be sent, 3 wrong lines\n\Z")

    def test_nothing_of_it_is_stored(self):
        status, _, err = hpkv(self.daemon, "import", stdin=line("d", "x" * 3073))
        self.assertEqual(3, status)
        self.assertIn(b": 0 records stored, 1 not\n", err)

    def test_what_would_change(self):
        hpkv(self.daemon, "import", stdin=line("e:1", "old") + line("e:2", "same"))
        data = line("e:1", "new\n") + line("e:2", "same") + line("e:3", "more") + b'{"key":"e:4","value":{"a" : "\\" x" }}\n'
        hpkv(self.daemon, "import", stdin=data.splitlines()[3])
        self.assertEqual((0, b"- e:1\told\n+ e:1\tnew\\n\n+ e:3\tmore\n", b"hpkv: import: 2 records would change, 0 wrong lines\n"),
                         hpkv(self.daemon, "import", "--diff", stdin=data))
        self.assertEqual((0, b"", b"hpkv: import: 4 records would be sent, 0 wrong lines\n"),
                         hpkv(self.daemon, "import", "--dry-run", stdin=data))
        self.assertEqual(line("e:1", "old") + line("e:2", "same") + line("e:4", '{"a":"\\" x"}'), hpkv(self.daemon, "export", "e:")[1])

    def test_records_of_one_key_are_stored_in_their_order(self):
        data = b"".join(line("f", str(i)) for i in range(300))
        self.assertEqual(0, hpkv(self.daemon, "import", stdin=data)[0])
        self.assertEqual(line("f", "299"), hpkv(self.daemon, "export", "f")[1])

    def test_progress_on_a_terminal(self):
        with Sandbox("--rate", "40") as sandbox, Daemon(sandbox) as daemon, tempfile.TemporaryFile() as file:
            daemon.wait_state("connected")
            file.write(b"".join(line(f"g:{i}", "x") for i in range(200)))
            file.seek(0)
            with Run(daemon, "import", stdin=file, stderr_tty=True) as run:
                self.assertEqual(0, run.wait())
            self.assertRegex(run.terminal, rb"hpkv: \d+ records, \d+/s, \d+%, [^\n]+ left")
            self.assertIn(b"import: 200 records stored, 0 not", run.terminal)

    def test_progress_of_an_export(self):
        """How many there are is not known before the end, but where it is."""
        store = Store({f"a:{i}\x1b": "v" for i in range(9)})
        with FakeDaemon() as daemon, tempfile.TemporaryFile() as out, Run(daemon, "export", "a:", stdout=out, stderr_tty=True) as run:
            peer = daemon.accept()
            for _ in range(3):
                request = peer.line()
                time.sleep(0.6) # it is shown after half a second
                store.answer(peer, request)
            self.assertEqual(0, run.wait())
        self.assertRegex(run.terminal, rb"hpkv: 6 records, \d+/s, at a:5\\x1b")

    def test_the_rate_is_that_of_this_run(self):
        """What a former run has done took none of this one's time."""
        data = b"".join(line(f"h:{i}", "x") for i in range(2000))
        with FakeDaemon() as daemon, tempfile.TemporaryDirectory(prefix="hpkv-test-") as folder, open(folder + "/in", "wb+") as file:
            file.write(data)
            done = data[:len(line("h:0", "x")) * 10 + len(line("h:10", "x")) * 90 + len(line("h:100", "x")) * 900]
            digest = 0xcbf29ce484222325
            for byte in done:
                digest = (digest ^ byte) * 0x100000001b3 % 2 ** 64
            with open(folder + "/state", "w", encoding="ascii") as state:
                state.write(f'{{"import":1,"lines":1000,"bytes":{len(done)},"hash":"{digest:016x}","sent":1000,"stored":1000,"same":0,"bad":0}}\n')
            file.seek(0)
            with Run(daemon, "import", "--resume", folder + "/state", stdin=file, stderr_tty=True) as run:
                peer, store = daemon.accept(), Store()
                requests = [peer.line() for _ in range(100)]
                time.sleep(0.6)
                for request in requests:
                    store.answer(peer, request)
                for _ in range(900):
                    store.answer(peer, peer.line())
                self.assertEqual(0, run.wait())
        rates = [int(rate) for rate in re.findall(rb"records, (\d+)/s", run.terminal)]
        self.assertTrue(rates and rates[0] < 1000, run.terminal)

    def test_a_terminal_is_not_steered(self):
        hpkv(self.daemon, "import", stdin=line("t\x9b", "\u202e"))
        with Run(self.daemon, "export", "t\x9b", tty=True) as run:
            self.assertEqual(0, run.wait())
            self.assertIn(b'{"key":"t\\u009b","value":"\\u202e"}', run.output)

    def test_without_a_daemon(self):
        status, out, err = hpkv("/nowhere", "import", stdin=line("a", "b") * 300)
        self.assertEqual((4, b""), (status, out))
        self.assertEqual(1, err.count(b"no connection to hpkvd"))
        self.assertEqual(4, hpkv("/nowhere", "export")[0])

    def test_both_ways_at_once(self):
        self.assertEqual(2, hpkv(self.daemon, "import", "--resume", "/tmp/x", "--diff")[0])


class Interrupted(Case):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="hpkv-test-")
        self.addCleanup(self.folder.cleanup)
        self.state = self.folder.name + "/state"
        self.out = self.folder.name + "/out"

    def export(self, daemon, append=True):
        with open(self.out, "ab" if append else "wb") as out, Run(daemon, "export", "a:", "--resume", self.state, stdout=out) as run:
            return run.wait(), run.errors

    def test_an_export_goes_on_where_it_was(self):
        store = Store({f"a:{i}": "v" for i in range(9)})
        with FakeDaemon() as daemon:
            with open(self.out, "ab") as out, Run(daemon, "export", "a:", "--resume", self.state, stdout=out) as run:
                peer = daemon.accept()
                store.answer(peer, peer.line())
                store.answer(peer, peer.line())
                peer.line() # the third page is asked for, so the second is written
                run.process.send_signal(signal.SIGKILL)
                run.wait()
            with open(self.out, "ab") as out: # a part of a page that the state does not know of
                out.write(b'{"key":"a:6","va')
            with Run(daemon, "export", "a:", "--resume", self.state, stdout=open(self.out, "ab")) as run:
                peer = daemon.accept()
                request = peer.line()
                self.assertEqual("a:5\0", request["key"])
                store.answer(peer, request)
                self.assertEqual((0, b""), (run.wait(), run.errors))
            with open(self.out, "rb") as out:
                self.assertEqual(b"".join(line(f"a:{i}", "v") for i in range(9)), out.read())
            status, err = self.export(daemon) # all is there: nobody is asked
            self.assertEqual(0, status)
            self.assertRegex(err, rb"\Ahpkv: export: [^\n]*/state says that all is written already: remove it to begin anew\n\Z")

    def test_an_output_that_was_not_appended_to(self):
        store = Store({f"a:{i}": "v" for i in range(5)})
        with FakeDaemon() as daemon:
            with open(self.out, "ab") as out, Run(daemon, "export", "a:", "--resume", self.state, stdout=out) as run:
                peer = daemon.accept()
                store.answer(peer, peer.line())
                peer.line()
                run.process.kill()
            status, err = self.export(daemon, append=False)
            self.assertEqual(2, status)
            self.assertIn(b"append to it", err)
            self.assertEqual(2, hpkv(daemon, "export", "b:", "--resume", self.state)[0])

    def test_an_export_that_ends_early_says_so(self):
        store = Store({f"a:{i}": "v" for i in range(5)})
        with FakeDaemon() as daemon, Run(daemon, "export", "a:") as run:
            peer = daemon.accept()
            store.answer(peer, peer.line())
            peer.reply(peer.line(), code=503, reason="upstream_down", error="no connection", executed="no")
            self.assertEqual((3, 3), (run.wait(), run.output.count(b"\n")))
            self.assertIn(b"3 records written, the rest is missing", run.errors)

    def feed(self, data):
        file = tempfile.TemporaryFile()
        self.addCleanup(file.close)
        file.write(data)
        file.seek(0)
        return file

    def test_an_import_goes_on_where_it_was(self):
        """Killed with writes under way, of which the daemon has executed every other."""
        data = b"".join(line(f"k{i}", f"v{i}") for i in range(1000))
        store = Store()
        with FakeDaemon() as daemon:
            with Run(daemon, "import", "--resume", self.state, stdin=self.feed(data)) as run:
                peer = daemon.accept()
                for _ in range(400):
                    store.answer(peer, peer.line())
                eventually(lambda: os.path.exists(self.state), "a state")
                late = [peer.line() for _ in range(100)]
                run.process.send_signal(signal.SIGKILL)
                run.wait()
            for request in late[::2]:
                store[request["key"]] = request["value"]
                store.written.append((request["key"], request["value"]))
            with Run(daemon, "import", "--resume", self.state, stdin=self.feed(data)) as run:
                peer = daemon.accept()
                for i in range(2000):
                    try:
                        store.answer(peer, peer.line())
                    except AssertionError:
                        break
                self.assertEqual((0, b""), (run.wait(), run.errors))
            self.assertEqual({(f"k{i}", f"v{i}") for i in range(1000)}, set(store.written))
            self.assertEqual(1000, len(store.written), "one was stored twice")
            self.assertLess(len(store.read), 900)

    def test_an_import_of_a_long_file_goes_on(self):
        """What a former run has done is read over, and not kept."""
        done, rest = line("a", "1") * 300, line("k", "x" * 60000) * 300
        digest = 0xcbf29ce484222325
        for byte in done:
            digest = (digest ^ byte) * 0x100000001b3 % 2 ** 64
        with open(self.state, "w", encoding="ascii") as f:
            f.write(f'{{"import":1,"lines":300,"bytes":{len(done)},"hash":"{digest:016x}","sent":300,"stored":300,"same":0,"bad":0}}\n')
        store = Store()
        with FakeDaemon() as daemon, Run(daemon, "import", "--resume", self.state, stdin=self.feed(done + rest)) as run:
            peer = daemon.accept()
            for _ in range(300):
                store.answer(peer, peer.line())
            self.assertEqual((0, b""), (run.wait(), run.errors))
            self.assertEqual(300, len(store.written))

    def test_a_key_that_stands_twice_in_what_may_have_been_sent(self):
        data = line("k", "1") + line("k", "2")
        with open(self.state, "w", encoding="ascii") as f:
            f.write('{"import":1,"lines":0,"bytes":0,"hash":"0","sent":512,"stored":0,"same":0,"bad":0}\n')
        store = Store({"k": "2"})
        with FakeDaemon() as daemon, Run(daemon, "import", "--resume", self.state, stdin=self.feed(data)) as run:
            peer = daemon.accept()
            store.answer(peer, peer.line())
            store.answer(peer, peer.line())
            self.assertEqual((0, b""), (run.wait(), run.errors))
            self.assertEqual([], store.written)

    def test_another_input(self):
        with FakeDaemon() as daemon:
            data = line("a", "1") + line("b", "1")
            with Run(daemon, "import", "--resume", self.state, stdin=self.feed(data)) as run:
                peer, store = daemon.accept(), Store()
                store.answer(peer, peer.line())
                store.answer(peer, peer.line())
                self.assertEqual(0, run.wait())
            for other in (line("a", "2") + line("b", "1"), line("a", "1")):
                status, _, err = hpkv(daemon, "import", "--resume", self.state, stdin=other)
                self.assertEqual(2, status)
                self.assertIn(b"the input is not the one", err)

    def test_a_state_that_can_not_be_written(self):
        with FakeDaemon() as daemon:
            status, _, err = hpkv(daemon, "import", "--resume", "/nowhere/state", stdin=line("a", "1"))
            self.assertEqual(2, status)
            self.assertIn(b"can't write /nowhere/state: No such file", err)
            self.assertEqual([], daemon.peers)

    def test_a_write_whose_outcome_is_unknown_is_looked_at(self):
        for executed in (True, False):
            store = Store()
            with FakeDaemon() as daemon, Run(daemon, "import", stdin=self.feed(line("a", "1"))) as run:
                peer = daemon.accept()
                request = peer.line()
                if executed:
                    store["a"] = "1"
                peer.reply(request, code=504, reason="outcome_unknown", error="lost", executed="unknown")
                request = peer.line()
                self.assertEqual("get", request["op"])
                store.answer(peer, request)
                if not executed:
                    store.answer(peer, peer.line())
                self.assertEqual((0, b""), (run.wait(), run.errors))
                self.assertEqual([] if executed else [("a", "1")], store.written)

    def test_what_was_not_executed_is_sent_again(self):
        with FakeDaemon() as daemon, Run(daemon, "import", stdin=self.feed(line("a", "1") + line("a", "2"))) as run:
            peer, store = daemon.accept(), Store()
            peer.reply(peer.line(), code=429, reason="rate_limited", error="slow", executed="no", retryAfterMs=1)
            store.answer(peer, peer.line())
            store.answer(peer, peer.line())
            self.assertEqual((0, b""), (run.wait(), run.errors))
            self.assertEqual([("a", "1"), ("a", "2")], store.written)

    def test_the_time_is_up(self):
        with FakeDaemon() as daemon, Run(daemon, "import", "--timeout", "4s", "--resume", self.state,
                                         stdin=self.feed(line("a", "1") + line("b", "1"))) as run:
            peer, store = daemon.accept(), Store()
            requests = [peer.line(), peer.line()]
            store.answer(peer, requests[1])
            self.assertEqual(3, run.wait()) # b is stored, and a is not
            self.assertIn(b"1 record stored, 1 not", run.errors)

    def test_the_daemon_restarts_meanwhile(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon:
            daemon.wait_state("connected")
            read, write = os.pipe()
            with Run(daemon, "import", stdin=read) as run:
                os.write(write, b"".join(line(f"k:{i}", "v") for i in range(100)))
                with daemon.client() as client:
                    eventually(lambda: client.ask({"op": "get", "key": "k:99"})["code"] == 200)
                os.close(read)
                daemon.process.signal(signal.SIGTERM)
                self.assertEqual(0, daemon.process.wait_exit())
                os.write(write, b"".join(line(f"k:{i}", "v") for i in range(100, 200)))
                os.close(write)
                daemon.start()
                self.assertEqual((0, b""), (run.wait(), run.errors))
            self.assertEqual(200, hpkv(daemon, "export", "k:")[1].count(b"\n"))


if __name__ == "__main__":
    unittest.main()
