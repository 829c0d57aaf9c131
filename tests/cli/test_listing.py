"""ls and range at the limits of keys, ls with globs, and other commands given a glob."""

import json
import re
import unittest

from cli import FakeDaemon, Run, hpkv
from harness import Case, Daemon, Sandbox

KEY_MAX = 512
LAST = "\U0010ffff"


def filled(prefix, most=KEY_MAX):
    """The last key with this prefix."""
    room = most - len(prefix.encode())
    return prefix + LAST * (room // 4) + ["", "\x7f", "\u07ff", "\uffff"][room % 4]


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

    @classmethod
    def put(cls, *keys):
        with cls.daemon.client() as client:
            for key in keys:
                assert client.ask({"op": "set", "key": key, "value": "v"})["code"] == 200, key

    def keys(self, *words):
        status, out, err = hpkv(self.daemon, *words)
        self.assertEqual((0, b""), (status, err), words)
        return out.decode().split("\0")[:-1]


class LongKeys(Tour):
    """Pages of 1,000 whose last key is as long as keys may be."""

    def check(self, start, ending, behind):
        """999 keys and a long one are the first page; others follow."""
        first = [f"{start}{i:03}" for i in range(999)]
        long = start + "x" + "l" * (KEY_MAX - len((start + "x" + ending).encode())) + ending
        self.put(*first, long, *behind)
        self.assertEqual([*first, long, *behind], self.keys("ls", "-0", start))
        self.assertEqual([*first, long, *behind], self.keys("range", "-0", start, start + LAST)[::2])

    def test_a_page_ends_with_the_longest_key(self):
        self.check("a:", "l", ["a:xm", "a:y"])

    def test_its_last_character_can_not_be_raised(self):
        self.check("b:", LAST * 3, ["b:xm", "b:y", "b:" + LAST])

    def test_the_next_character_would_be_longer(self):
        self.check("c:", "l\x7f", ["c:xm", "c:é"])

    def test_surrogates_are_no_characters(self):
        self.check("d:", "l\ud7ff", ["d:x" + "l" * (KEY_MAX - 7) + "l\ue000", "d:xm"])

    def test_nothing_can_follow(self):
        self.put(*[f"e{i:03}" for i in range(999)], filled("e"), "f")
        self.assertEqual(1000, len(self.keys("ls", "-0", "e")))


class LongPrefixes(Tour):
    def test_a_prefix_near_the_limit(self):
        for n in range(KEY_MAX - 9, KEY_MAX + 1):
            with self.subTest(bytes=n):
                prefix = f"n{n}:" + "x" * (n - 5)
                keys = sorted({prefix, filled(prefix)} | ({prefix + "\x01"} if n < KEY_MAX else set()), key=str.encode)
                self.put(*keys)
                self.assertEqual(keys, self.keys("ls", "-0", prefix))

    def test_a_prefix_that_is_too_long(self):
        status, out, err = hpkv(self.daemon, "ls", "x" * (KEY_MAX + 1))
        self.assertEqual((3, b""), (status, out))
        self.assertRegex(err, rb"\Ahpkv: ls x+\.\.\.: [^\n]+\n\Z")

    def test_what_begins_with_the_last_characters_there_are(self):
        keys = [LAST, LAST * 2, LAST * 7 + "\x01", LAST * 127 + "z", LAST * 128]
        self.put(*keys)
        for i in range(1, 8):
            self.assertEqual([key for key in keys if key.startswith(LAST * i)], self.keys("ls", "-0", LAST * i))
        self.assertEqual(keys, [key for key in self.keys("ls", "-0") if key.startswith(LAST)])


class ShorterLimits(unittest.TestCase):
    """A service that takes less than 512 bytes, because it counts a tenant's prefix, say."""

    def play(self, peer, keys, takes, page=3):
        """Answers ranges over keys until a page is the last one; returns the places that were asked for."""
        asked = []
        while True:
            request = peer.line()
            asked.append((request["key"], request["endKey"]))
            if not (takes(request["key"]) and takes(request["endKey"])):
                peer.reply(request, code=400, error="a key is too long")
                continue
            inside = [k for k in keys if request["key"].encode() <= k.encode() <= request["endKey"].encode()]
            peer.reply(request, records=[{"key": k, "value": "v"} for k in inside[:page]], count=len(inside[:page]),
                       truncated=len(inside) > page)
            if len(inside) <= page:
                return asked

    def check(self, keys, takes, *words):
        with FakeDaemon() as daemon, Run(daemon, *words, "-0") as run:
            asked = self.play(daemon.accept(), keys, takes)
            self.assertEqual((0, b""), (run.wait(), run.errors))
            self.assertEqual(keys, run.output.decode().split("\0")[:-1][::2 if words[0] == "range" else 1])
        return asked

    def test_the_end_of_a_prefix_is_tried_shorter(self):
        for most in (2, 3, 4, 5, 6, 10, 11):
            with self.subTest(most=most):
                asked = self.check(["a:"], lambda key: len(key.encode()) <= most, "ls", "a:")
                self.assertTrue(all(end.startswith("a:") for _, end in asked))
                self.assertLessEqual(len(asked), 7)

    def test_the_next_place_is_tried_shorter(self):
        keys = ["a:", "a:b", "a:yyy\x7f", "a:yyz", "a:z", "a:zz", "a:zzzz"]
        self.check(keys, lambda key: len(key.encode()) <= 6, "ls", "a:")
        self.check(keys, lambda key: len(key.encode()) <= 6, "range", "a:", "a:zzzz")

    def test_a_service_that_takes_no_nul(self):
        keys = ["a", "aa", "ab", "ab\x01", "ab\x01\x01", "abc", "b"]
        self.check(keys, lambda key: "\0" not in key, "range", "a", "b")

    def test_what_is_refused_all_the_same(self):
        for code in (400, 413):
            with FakeDaemon() as daemon, Run(daemon, "ls", "a") as run:
                peer = daemon.accept()
                for _ in range(7):
                    peer.reply(peer.line(), code=code, error="no ranges today")
                self.assertEqual((3, b"", b"hpkv: ls a: no ranges today\n"), (run.wait(), run.output, run.errors))

    def test_what_the_daemon_refuses_is_not_tried_again(self):
        with FakeDaemon() as daemon, Run(daemon, "ls", "a") as run:
            peer = daemon.accept()
            peer.reply(peer.line(), code=413, error="too long", reason="too_large", executed="no")
            self.assertEqual((3, b"hpkv: ls a: too long\n"), (run.wait(), run.errors))


class Globs(Tour):
    KEYS = ["*", "a*b", "a*c", "user*", "user:1:age", "user:1:name", "user:22:age", "user:22:name", "users", "é*ü"]

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.put(*cls.KEYS)

    def test_ls_takes_globs(self):
        for glob, wanted in (("user:*", self.KEYS[4:8]), ("user*", self.KEYS[3:9]), ("*", self.KEYS), ("**", self.KEYS),
                             ("user:*:name", ["user:1:name", "user:22:name"]), ("*:name", ["user:1:name", "user:22:name"]),
                             ("*s*r*:*2*", ["user:22:age", "user:22:name"]), ("user:*2", []), ("é*", ["é*ü"]), ("a*b", ["a*b"]),
                             ("nothing*", [])):
            self.assertEqual(wanted, self.keys("ls", "-0", glob), glob)

    def test_a_star_may_stand_for_itself(self):
        for word, wanted in (("user*", ["user*"]), ("*", ["*"]), ("a*", ["a*b", "a*c"]), ("u", self.KEYS[3:9])):
            self.assertEqual(wanted, self.keys("ls", "-0", "--exact", word), word)
            self.assertEqual(wanted, self.keys("ls", "-x0", word), word)

    def test_with_values_and_a_limit(self):
        self.assertEqual((0, b"user:1:name\tv\n", b""), hpkv(self.daemon, "ls", "-l", "*:name", "-n", "1"))
        self.assertEqual(["user:1:age"], self.keys("ls", "-0", "*:age", "-n", "1"))

    def test_as_json(self):
        status, out, err = hpkv(self.daemon, "ls", "--json", "user:*:name")
        self.assertEqual((0, b""), (status, err))
        self.assertEqual([{"code": 200, "records": [{"key": f"user:{i}:name", "value": "v"} for i in (1, 22)], "count": 2,
                           "truncated": False}], [json.loads(line) for line in out.splitlines()])
        self.assertEqual(1, json.loads(hpkv(self.daemon, "ls", "--json", "user:*:name", "-n", "1")[1])["count"])

    def test_through_all_pages(self):
        self.put(*(f"p:{i:04}{'x' if i % 3 == 0 else 'y'}" for i in range(1500)))
        self.assertEqual([f"p:{i:04}x" for i in range(0, 1500, 3)], self.keys("ls", "-0", "p:*x"))
        self.assertEqual(["p:1497x"], self.keys("ls", "-0", "p:*7*x", "-n", "1000")[-1:])

    def test_get_and_del_say_how_to_ask_for_many(self):
        self.assertEqual((0, b"v\n", b""), hpkv(self.daemon, "get", "user*"))
        for command in ("get", "del"):
            self.assertEqual((1, b"", f"hpkv: {command} use*: no such key; a * stands for itself here (hpkv ls 'GLOB' lists keys)\n"
                              .encode()), hpkv(self.daemon, command, "use*"))

    def test_wait_says_that_a_star_is_itself(self):
        said = b"hpkv: wait use*: no such key yet; a * stands for itself here (hpkv watch 'GLOB' reports all keys that match)\n"
        with Run(self.daemon, "wait", "use*") as run:
            run.wait_errors(re.escape(said))
            self.put("use*")
            self.assertEqual((0, said), (run.wait(), run.errors))
        self.assertEqual((0, b"v\n", b""), hpkv(self.daemon, "wait", "use*"))
        hpkv(self.daemon, "del", "use*")

    def test_range_says_that_a_star_is_itself(self):
        said = b"hpkv: range use*: no records; a * stands for itself here (hpkv ls -l 'GLOB' lists records)\n"
        self.assertEqual((0, b"", said), hpkv(self.daemon, "range", "use*", "use*"))
        self.assertEqual((0, b"", b""), hpkv(self.daemon, "range", "nothing", "nothing"))

    def test_range_takes_a_star_as_it_is(self):
        self.assertEqual(["a*b", "v"], self.keys("range", "-0", "a*", "a*b"))


if __name__ == "__main__":
    unittest.main()
