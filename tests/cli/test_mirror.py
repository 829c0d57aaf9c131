"""mirror: a directory that is equal to keys, and exchanged as a whole, whatever ends or fails meanwhile."""

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.parse

from cli import FakeDaemon, Run, hpkv
from harness import Case, Daemon, Sandbox, eventually, steady


def files(path):
    """Names, with folders, and what they hold."""
    found = {}
    try:
        for folder, _, names in os.walk(path + "/"):
            for name in names:
                whole = os.path.join(folder, name)
                with open(whole, "rb") as file:
                    found[os.path.relpath(whole, path + "/")] = file.read().decode()
    except FileNotFoundError: # it has been exchanged meanwhile
        return files(path)
    return found


def content(name, folder):
    with open(os.open(name, os.O_RDONLY, dir_fd=folder), "rb") as file:
        return file.read()


def put(daemon, values):
    with daemon.client() as client:
        for key, value in values.items():
            request = {"op": "set", "key": key, "value": value} if value is not None else {"op": "delete", "key": key}
            assert client.ask(request)["code"] == 200, key


class Folder(Case):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="hpkv-test-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.path = folder.name + "/conf"

    def trees(self):
        with contextlib.suppress(FileNotFoundError):
            return [name for name in os.listdir(self.folder + "/.conf.hpkv") if name != "link"]
        return []

    def holds(self, expected):
        eventually(lambda: os.path.islink(self.path) and files(self.path) == expected, expected)


class Tour(Folder):
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

    def once(self, *words, status=0, **options):
        got, out, err = hpkv(self.daemon, "mirror", *words, "--once", **options)
        self.assertEqual((status, b""), (got, out), err)
        return err.decode()

    def test_it_follows(self):
        put(self.daemon, {"a:1": "one", "a:2": "two\n", "b": "other"})
        with Run(self.daemon, "mirror", "a:*", self.path):
            self.holds({"a:1": "one", "a:2": "two\n"})
            put(self.daemon, {"a:1": "1", "a:3": "three"})
            self.holds({"a:1": "1", "a:2": "two\n", "a:3": "three"})
            put(self.daemon, {"a:2": None})
            self.holds({"a:1": "1", "a:3": "three"})
            eventually(lambda: len(self.trees()) == 1, "old trees are gone")
            self.assertEqual(".conf.hpkv/" + self.trees()[0], os.readlink(self.path))

    def test_names(self):
        keys = ["n:", "n:.", "n:..", "n:/", "n:a/b", "n:a b", "n:%41", "n:A", "n:.x", "n:é€😀", "n:\0", "n:\x1b[m", "n:x\u0085"]
        put(self.daemon, {key: key for key in keys})
        for words, prefix in (((), ""), (("--strip",), "n:")):
            self.once("n:*", self.path, *words)
            names = {urllib.parse.unquote(name if name != "%" else ""): value for name, value in files(self.path).items()}
            self.assertEqual({key[2:] if prefix else key: key for key in keys}, names)
        self.assertEqual(sorted(os.listdir(self.path))[:3], ["%", "%00", "%1B[m"])

    def test_folders(self):
        put(self.daemon, {"f:a/b/c": "1", "f:a/d": "2", "f:/": "3", "f:x//y": "4", "f:..//../x": "5"})
        self.once("f:*", self.path, "--folders", "--strip")
        self.assertEqual({"a/b/c": "1", "a/d": "2", "%/%": "3", "x/%/y": "4", "%2E./%/%2E./x": "5"}, files(self.path))
        put(self.daemon, {"f:a": "a file and a folder"})
        self.assertIn("mirror: f:a is left out: a folder", self.once("f:*", self.path, "--folders", status=3))

    def test_names_that_are_too_long(self):
        put(self.daemon, {"l:" + "x" * 253: "1", "l:" + "y" * 254: "2", "l:" + "/" * 90: "3"})
        err = self.once("l:*", self.path, status=3)
        self.assertEqual({"l:" + "x" * 253: "1"}, files(self.path))
        self.assertEqual(2, err.count("is left out: its file's name would have more than 255 bytes"))

    def test_a_glob_with_an_end(self):
        put(self.daemon, {"g:1:name": "1", "g:1:other": "2", "g:2:name": "3"})
        self.once("g:*:name", self.path, "--strip")
        self.assertEqual({"1:name": "1", "2:name": "3"}, files(self.path))

    def test_no_keys(self):
        self.once("nothing:*", self.path)
        self.assertEqual([], os.listdir(self.path))

    def test_modes_and_owners(self):
        put(self.daemon, {"m:a/b": "1"})
        for words, mode, folder in (((), 0o644, 0o755), (("--mode", "0440"), 0o440, 0o550), (("--mode", "600"), 0o600, 0o700)):
            self.once("m:*", self.path, "--folders", *words)
            at = [os.stat(self.path + name) for name in ("/m:a/b", "/m:a", "/.")]
            self.assertEqual([mode, folder, folder], [stat.S_IMODE(s.st_mode) for s in at])
        for wrong in ("--mode=888", "--mode=", "--mode=01777", "--owner=nobody-at-all", "--owner=", "--owner=:"):
            self.once("m:*", self.path, wrong, status=2)
        if os.geteuid() == 0:
            self.once("m:*", self.path, "--folders", "--owner", "12345:54321")
            at = [os.stat(self.path + name) for name in ("/m:a/b", "/m:a", "/.")]
            self.assertEqual([(12345, 54321)] * 3, [(s.st_uid, s.st_gid) for s in at])
            self.assertEqual(0, os.stat(self.folder + "/.conf.hpkv").st_uid)

    def test_what_is_right_already_stays(self):
        put(self.daemon, {"r:1": "1"})
        self.once("r:*", self.path)
        tree = os.readlink(self.path)
        self.once("r:*", self.path, "--exec", "exit 1")
        self.assertEqual(tree, os.readlink(self.path))
        os.chmod(self.path + "/r:1", 0o600)
        self.once("r:*", self.path)
        self.assertNotEqual(tree, os.readlink(self.path))
        with open(self.path + "/another", "w", encoding="ascii"):
            pass
        self.once("r:*", self.path)
        self.assertEqual({"r:1": "1"}, files(self.path))

    def test_a_check_that_fails(self):
        put(self.daemon, {"c:a": "good"})
        check = 'test "$PWD" = "$HPKV_DIRECTORY" && grep -q good c:a'
        self.once("c:*", self.path, "--check", check)
        with Run(self.daemon, "mirror", "c:*", self.path, "--check", check, "--exec", "cat $HPKV_DIRECTORY/c:a") as run:
            put(self.daemon, {"c:a": "bad"})
            run.wait_errors(rb"the check ended with status 1\n[^\n]* stays as it is\n")
            self.assertEqual({"c:a": "good"}, files(self.path))
            eventually(lambda: len(self.trees()) == 1)
            put(self.daemon, {"c:a": "good again"})
            run.wait_output(rb"\Agood again")
        put(self.daemon, {"c:a": "bad"})
        self.once("c:*", self.path, "--check", check, status=2)
        self.assertEqual({"c:a": "good again"}, files(self.path))

    def test_a_command_after_each_exchange(self):
        put(self.daemon, {"x:a": "0"})
        with Run(self.daemon, "mirror", "x:*", self.path, "--exec", 'cat "$HPKV_DIRECTORY/x:a"; echo; exit 3') as run:
            run.wait_output(rb"\A0\n")
            run.wait_errors(rb"the command ended with status 3")
            with self.daemon.client() as client: # at once: how many are made while this process stands still is not the subject
                client.send(*({"op": "set", "key": "x:a", "value": str(i)} for i in range(1, 30)))
                self.assertEqual({200}, {answer["code"] for answer in client.answers(29)})
            run.wait_output(rb"\n29\n")
            self.assertLess(run.output.count(b"\n"), 20) # many changes, few exchanges
            run.process.send_signal(signal.SIGTERM)
            self.assertEqual(-signal.SIGTERM, run.wait())

    def test_the_exit_status_of_a_command(self):
        put(self.daemon, {"xs:a": "1"})
        self.once("xs:*", self.path, "--exec", "exit 3", status=2)
        self.assertEqual({"xs:a": "1"}, files(self.path))
        self.once("xs:*", self.path, "--exec", "exit 3") # nothing has changed, so it does not run

    def test_a_command_that_was_interrupted(self):
        """Killed after the exchange: the next one runs the command, once."""
        put(self.daemon, {"xi:a": "1"})
        with Run(self.daemon, "mirror", "xi:*", self.path, "--exec", "echo here; kill -9 $PPID") as run:
            self.assertEqual(-signal.SIGKILL, run.wait())
        self.assertEqual({"xi:a": "1"}, files(self.path))
        for out in (b"1", b""):
            self.assertEqual((0, out, b""), hpkv(self.daemon, "mirror", "xi:*", self.path, "--once", "--exec", "cat $HPKV_DIRECTORY/xi:a"))

    def test_what_somebody_has_removed(self):
        """The link, the trees, or all of it: it is noticed without a change of a key."""
        for gone in (["conf"], [".conf.hpkv"], ["conf", ".conf.hpkv"]):
            with self.subTest(gone), Run(self.daemon, "mirror", "v:*", self.path) as run:
                put(self.daemon, {"v:a": " ".join(gone)})
                self.holds({"v:a": " ".join(gone)})
                for name in gone: # each at once: a new tree may be on its way there already
                    os.rename(f"{self.folder}/{name}", tempfile.mkdtemp(dir=self.folder) + "/gone")
                run.wait_errors(rb"mirror: [^\n]*/conf is gone: making it anew\n")
                self.holds({"v:a": " ".join(gone)})

    def test_a_change_after_the_folder_was_moved_away(self):
        put(self.daemon, {"u:a": "1"})
        os.mkdir(self.folder + "/in")
        self.path = self.folder + "/in/conf"
        with Run(self.daemon, "mirror", "u:*", self.path):
            self.holds({"u:a": "1"})
            os.rename(self.folder + "/in", self.folder + "/out")
            os.mkdir(self.folder + "/in")
            put(self.daemon, {"u:a": "2"})
            self.holds({"u:a": "2"})
            self.assertEqual({"u:a": "1"}, files(self.folder + "/out/conf"))

    def test_what_somebody_has_put_in_its_place(self):
        put(self.daemon, {"w:a": "1"})
        with Run(self.daemon, "mirror", "w:*", self.path) as run:
            self.holds({"w:a": "1"})
            while os.path.islink(self.path): # it may be made anew between the two
                os.unlink(self.path)
                with contextlib.suppress(FileExistsError):
                    os.mkdir(self.path)
            put(self.daemon, {"w:a": "2"})
            run.wait_errors(rb"is there, and is no link that mirror has made: move it away\n")
            self.assertEqual({}, files(self.path))
            os.rmdir(self.path)
            self.holds({"w:a": "2"})

    def test_a_long_key_is_named_in_full(self):
        put(self.daemon, {"lk:" + "x" * 300 + end: "1" for end in "ab"})
        err = self.once("lk:*", self.path, status=3)
        for end in "ab":
            self.assertIn("mirror: lk:" + "x" * 300 + end + " is left out", err)

    def test_what_is_there_and_is_none_of_its_own(self):
        put(self.daemon, {"t:1": "1"})
        for make in (lambda: os.mkdir(self.path), lambda: os.symlink("/etc", self.path), lambda: os.symlink("x", self.path),
                     lambda: open(self.path, "w").close()):
            make()
            self.assertIn("is there, and is no link that mirror has made: move it away", self.once("t:*", self.path, status=2))
            shutil.move(self.path, tempfile.mkdtemp(dir=self.folder))
        for path in ("", ".", "..", "/", self.folder + "/..", self.folder + "/no/such", self.path + "/x" + "y" * 250):
            self.once("t:*", path, status=2)
        self.once("t:*", self.path + "//")
        self.assertEqual({"t:1": "1"}, files(self.path))

    def test_a_path_from_here(self):
        put(self.daemon, {"h:1": "1"})
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        os.chdir(self.folder)
        self.once("h:*", "conf", "--check", "test -s h:1")
        self.assertEqual({"h:1": "1"}, files("conf"))

    def test_two_of_one_directory(self):
        with Run(self.daemon, "mirror", "a:*", self.path):
            eventually(lambda: os.path.islink(self.path))
            self.assertIn("another one keeps", self.once("a:*", self.path, status=2))

    @unittest.skipUnless(os.geteuid() == 0, "needs another user")
    def test_a_folder_of_somebody_else(self):
        os.mkdir(self.folder + "/.conf.hpkv")
        os.chown(self.folder + "/.conf.hpkv", 12345, -1)
        self.assertIn("belongs to somebody else", self.once("a:*", self.path, status=2))

    def test_a_full_disk(self):
        """The tree stays, is no half of a new one, and follows when there is room again."""
        if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
            raise unittest.SkipTest("no mounts here")
        put(self.daemon, {"d:a": "1", "d:b": "1"}) # a page for each file, so that a second tree of two files has no room
        script = f"""
            mount -t tmpfs -o size={3 * os.sysconf("SC_PAGESIZE")} none {self.folder} && exec "$@"
        """
        with Run(self.daemon, "mirror", "d:*", self.path, wrap=["unshare", "-m", "sh", "-c", script, "sh"]) as run:
            inside = f"/proc/{run.process.pid}/root{self.path}"
            eventually(lambda: os.path.islink(inside) and files(inside) == {"d:a": "1", "d:b": "1"})
            put(self.daemon, {"d:a": "2"})
            run.wait_errors(rb"can't write a tree for [^\n]*: No space left on device; it stays as it is")
            eventually(lambda: len(os.listdir(f"/proc/{run.process.pid}/root{self.folder}/.conf.hpkv")) == 1)
            self.assertEqual({"d:a": "1", "d:b": "1"}, files(inside))
            put(self.daemon, {"d:b": None})
            eventually(lambda: files(inside) == {"d:a": "2"})

    def test_a_limit_of_the_size_of_files(self):
        put(self.daemon, {"s:a": "x" * 2000})
        self.assertIn("File too large", self.once("s:*", self.path, status=2, wrap=["prlimit", "--fsize=1000"]))
        self.assertFalse(os.path.lexists(self.path))
        self.assertEqual([], self.trees())


class States(Folder):
    """Whoever opens the directory sees a state that the store has had."""

    def test_each_tree_is_a_state_of_the_store(self):
        """a is written before b, each time with the same number; the mirror is killed again and again."""
        with Sandbox() as sandbox, Daemon(sandbox) as daemon:
            daemon.wait_state("connected")
            put(daemon, {"p:a": "0", "p:b": "0"} | {f"p:x{i}": "x" for i in range(50)})
            stop, seen = threading.Event(), set()

            def write():
                with daemon.client() as client:
                    for i in range(1, 1000000):
                        if stop.is_set():
                            return
                        for key in ("p:a", "p:b"):
                            assert client.ask({"op": "set", "key": key, "value": str(i)})["code"] == 200

            writer = threading.Thread(target=write)
            writer.start()
            try:
                for _ in range(3):
                    with Run(daemon, "mirror", "p:*", self.path) as run:
                        before = len(seen)

                        def look():
                            self.assertTrue(not seen or os.path.lexists(self.path), "for a moment there was no directory")
                            try:
                                tree = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
                            except FileNotFoundError:
                                return False
                            try:
                                names = os.listdir(tree)
                                values = [int(content(name, tree)) for name in ("p:a", "p:b")]
                                exchanged = not os.path.samestat(os.fstat(tree), os.stat(self.path))
                            except FileNotFoundError:
                                return False # it has been exchanged, and removed
                            finally:
                                os.close(tree)
                            if not exchanged: # else some of its files may have been removed already
                                self.assertEqual(52, len(names))
                            self.assertIn(values[0] - values[1], (0, 1), "a state that never was")
                            seen.add(values[0])
                            return len(seen) >= before + 2

                        eventually(look)
                        run.process.send_signal(signal.SIGKILL)
                        run.wait()
                        self.assertTrue(os.path.isdir(self.path))
            finally:
                stop.set()
                writer.join()
            self.assertEqual(0, hpkv(daemon, "mirror", "p:*", self.path, "--once")[0])
            self.assertEqual(1, len(self.trees()))

    def test_what_was_left_behind_is_removed(self):
        """Killed within a new tree, whose check is running."""
        with Sandbox() as sandbox, Daemon(sandbox) as daemon:
            daemon.wait_state("connected")
            put(daemon, {"k:a": "1"})
            self.assertEqual(0, hpkv(daemon, "mirror", "k:*", self.path, "--once")[0])
            put(daemon, {"k:a": "2"})
            with Run(daemon, "mirror", "k:*", self.path, "--check", "echo here; kill -9 $PPID") as run:
                self.assertEqual(-signal.SIGKILL, run.wait())
            self.assertEqual(({"k:a": "1"}, 2), (files(self.path), len(self.trees())))
            os.symlink("x", self.folder + "/.conf.hpkv/link")
            self.assertEqual(0, hpkv(daemon, "mirror", "k:*", self.path, "--once")[0])
            self.assertEqual(({"k:a": "2"}, 1), (files(self.path), len(os.listdir(self.folder + "/.conf.hpkv"))))

    def test_the_service_is_away(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon:
            daemon.wait_state("connected")
            put(daemon, {"s:a": "1", "s:b": "1"})
            with Run(daemon, "mirror", "s:*", self.path) as run:
                self.holds({"s:a": "1", "s:b": "1"})
                sandbox.kill()
                run.wait_errors(rb"mirror: hpkvd has lost its connection to the service; nothing changes until it is back")
                self.assertEqual({"s:a": "1", "s:b": "1"}, files(self.path))
                sandbox.start() # and holds nothing any more
                run.wait_errors(rb"connected to the service again")
                self.holds({})
                put(daemon, {"s:c": "3"})
                self.holds({"s:c": "3"})

    def test_the_daemon_restarts(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon:
            daemon.wait_state("connected")
            put(daemon, {"s:a": "1"})
            with Run(daemon, "mirror", "s:*", self.path) as run:
                self.holds({"s:a": "1"})
                daemon.process.signal(signal.SIGTERM)
                daemon.process.wait_exit()
                run.wait_errors(rb"mirror: the connection to hpkvd is lost: [^\n]*nothing changes until it is back")
                daemon.process.close()
                self.assertEqual({"s:a": "1"}, files(self.path))
                daemon.start()
                self.assertEqual(0, hpkv(daemon, "set", "s:a", "2")[0])
                self.holds({"s:a": "2"})

    def test_without_a_daemon_or_the_right_to_read(self):
        self.assertEqual(4, hpkv("/nowhere", "mirror", "a:*", self.path)[0])
        with Sandbox() as sandbox, Daemon(sandbox, access={"r": {"user": "root", "read": "b:*"}}) as daemon:
            daemon.wait_state("connected")
            self.assertEqual(3, hpkv(daemon, "mirror", "a:*", self.path)[0])


class Notifications(Folder):
    """A service whose notifications, answers and values come as a test wants."""

    def test_a_notification_that_is_a_patch(self):
        store = {"a:1": '{"x":1}'}
        with FakeDaemon() as daemon, Run(daemon, "mirror", "a:*", self.path):
            peer = daemon.accept()
            peer.reply(peer.line())
            request = peer.line()
            peer.reply(request, records=[{"key": "a:1", "value": '{"x":1}'}], count=1, truncated=False)
            self.holds(store)
            peer.send({"type": "notification", "key": "a:1", "value": '{"y":2}', "timestamp": 1})
            request = peer.line()
            self.assertEqual(("get", "a:1"), (request["op"], request["key"]))
            peer.reply(request, key="a:1", value='{"x":1,"y":2}')
            self.holds({"a:1": '{"x":1,"y":2}'})

    @steady(0.5) # an explanation that is a second late is none any more
    def test_what_is_read_may_be_newer_than_what_was_told(self):
        """a was changed twice, and b between; a reading of a that is ahead must not be seen beside the former b."""
        command = 'cd "$HPKV_DIRECTORY" && echo $(cat a:a) $(cat a:b)'
        with FakeDaemon() as daemon, Run(daemon, "mirror", "a:*", self.path, "--exec", command) as run:
            peer = daemon.accept()
            peer.reply(peer.line())
            peer.reply(peer.line(), records=[{"key": "a:a", "value": "0"}, {"key": "a:b", "value": "0"}], count=2, truncated=False)
            run.wait_output(rb"\A0 0\n")
            for key, told, read in (("a:a", "1", "2"), ("a:b", "1", "1"), ("a:a", "2", "2")):
                peer.send({"type": "notification", "key": key, "value": told, "timestamp": 1})
                request = peer.line()
                self.assertEqual(key, request["key"])
                peer.reply(request, key=key, value=read)
                time.sleep(0.2) # long enough for a tree that is wrong
            run.wait_output(rb"\n2 1\n\Z")
            self.assertNotIn(b"2 0", run.output)

    def test_a_change_while_it_is_read_at_first(self):
        """It is newer than the pages, whenever these come."""
        with FakeDaemon() as daemon, Run(daemon, "mirror", "a:*", self.path):
            peer = daemon.accept()
            peer.reply(peer.line())
            request = peer.line()
            peer.send({"type": "notification", "key": "a:1", "value": "new", "timestamp": 1},
                      {"type": "notification", "key": "a:2", "value": None, "timestamp": 1})
            get = peer.line()
            peer.reply(request, records=[{"key": "a:1", "value": "old"}, {"key": "a:2", "value": "old"}], count=2, truncated=False)
            peer.reply(get, key="a:1", value="new")
            self.holds({"a:1": "new"})

    def test_a_gap(self):
        """All is read again; what is gone goes."""
        with FakeDaemon() as daemon, Run(daemon, "mirror", "a:*", self.path):
            peer = daemon.accept()
            peer.reply(peer.line())
            peer.reply(peer.line(), records=[{"key": "a:1", "value": "1"}, {"key": "a:2", "value": "2"}], count=2, truncated=False)
            self.holds({"a:1": "1", "a:2": "2"})
            peer.send({"type": "gap", "pattern": "a:*", "since": 1, "until": 2})
            request = peer.line()
            self.assertEqual("range", request["op"])
            peer.reply(request, records=[{"key": "a:2", "value": "3"}], count=1, truncated=False)
            self.holds({"a:2": "3"})

    def test_the_rules_end_it(self):
        with FakeDaemon() as daemon, Run(daemon, "mirror", "a:*", self.path) as run:
            peer = daemon.accept()
            peer.reply(peer.line())
            peer.reply(peer.line(), records=[{"key": "a:1", "value": "1"}], count=1, truncated=False)
            self.holds({"a:1": "1"})
            peer.send({"type": "unsubscribed", "pattern": "a:*", "reason": "forbidden"})
            self.assertEqual(3, run.wait())
            self.assertEqual({"a:1": "1"}, files(self.path))


if __name__ == "__main__":
    unittest.main()
