"""libhpkv: the promises of hpkv.h, with the real daemon, and with one that misbehaves."""

import contextlib
import glob
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import unittest

from cli import BUILD, DEADLINE, DRIVER, ROOT, Driver, FakeDaemon, environment, quote
from harness import WITHHELD, Case, Daemon, Sandbox, scene


def sandbox_scene(test):
    def run(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon:
            daemon.wait_state("connected")
            with Driver(daemon.socket) as driver:
                test(self, daemon, driver)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def fake_scene(test):
    def run(self):
        with FakeDaemon() as daemon, Driver(daemon.path) as driver:
            test(self, daemon, driver)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def connect(daemon, driver, *request):
    """A request that makes a connection, on which it is answered: the daemon's end of it."""
    driver.tell("send", "first", *request)
    peer = daemon.accept()
    peer.reply(peer.line())
    name, answer = driver.answer()
    assert (name, answer["result"]) == ("first", "ok"), answer
    return peer


class Calls(Case):
    @sandbox_scene
    def test_the_operations(self, daemon, driver):
        self.assertEqual(("not found", None, "Record not found"), driver.do("get", "k"))
        self.assertEqual("ok", driver.do("set", "k", "v")[0])
        self.assertEqual(("ok", "v", ""), driver.do("get", "k"))
        self.assertEqual("ok", driver.do("patch", "k", "w")[0])
        self.assertEqual(("ok", "vw", ""), driver.do("get", "k"))
        self.assertEqual(("ok", "41", ""), driver.do("increment", "n", "41"))
        self.assertEqual(("ok", "-1", ""), driver.do("increment", "n", "-42"))
        driver.tell("range", "a", "z", "1")
        answer = driver.as_answer(driver.next("=")[1:])
        self.assertEqual(([("k", "vw")], True), (answer["records"], answer["truncated"]))
        driver.tell("range", "a", "z", "0")
        answer = driver.as_answer(driver.next("=")[1:])
        self.assertEqual(([("k", "vw"), ("n", "-1")], False), (answer["records"], answer["truncated"]))
        self.assertEqual("ok", driver.do("delete", "k")[0])
        self.assertEqual("not found", driver.do("delete", "k")[0])
        self.assertEqual("ok", driver.do("ping")[0])
        result, line, _ = driver.do("status")
        self.assertEqual(("ok", "connected"), (result, json.loads(line)["upstream"]["state"]))
        self.assertNotIn("messageId", line)
        self.assertEqual("refused", driver.do("token", "-", "k:a")[0])

    @sandbox_scene
    def test_any_text_arrives_as_it_is(self, daemon, driver):
        for value in ("\0a\0", "é\u2028\U0001f600", '"\\/\b\f\n\r\t\x01\x7f', " ", "x" * 3000):
            key = "k" + value[:100]
            self.assertEqual("ok", driver.do("set", quote(key), quote(value))[0])
            self.assertEqual(("ok", value, ""), driver.do("get", quote(key)))
            with daemon.client() as client:
                self.assertEqual(value, client.ask({"op": "get", "key": key})["value"])

    @sandbox_scene
    def test_half_a_surrogate_pair_survives_a_round_trip(self, daemon, driver):
        with daemon.client() as client:
            client.ask('{"op":"set","key":"k","value":"a\\ud800b"}')
            value = driver.do("get", "k")[1]
            self.assertEqual(b"a\xed\xa0\x80b", value)
            self.assertEqual("ok", driver.do("set", "l", quote(value))[0])
            self.assertEqual("a\ud800b", client.ask({"op": "get", "key": "l"})["value"])

    @fake_scene
    def test_what_is_not_utf8_is_refused_and_says_where(self, daemon, driver):
        for command, where in ((("set", "k", "ab%ff"), "value is not UTF-8 (byte 3 of 3)"),
                               (("get", "%c3"), "key is not UTF-8 (byte 1 of 1)"),
                               (("set", "k", "%e2%82"), "value is not UTF-8 (byte 1 of 2)"),
                               (("subscribe", "0", "k:a", "p:%80*"), "pattern is not UTF-8 (byte 1 of 2)")):
            result = driver.do(*command)
            self.assertEqual("invalid", result[0])
            self.assertIn(where, result[-1])

    @fake_scene
    def test_wrong_arguments_are_never_sent(self, daemon, driver):
        for words, why in ((("get",), "key is missing"), (("set", "k"), "value is missing"),
                           (("increment", "k", "1,%22x%22:2"), "not a number"), (("increment", "k", "0x1"), "not a number"),
                           (("json", "[1]"), "not a JSON object"), (("json", "{%22op%22:"), "at byte 7")):
            answer = driver.call(*words)
            self.assertEqual(("invalid", 0), (answer["result"], answer["code"]), words)
            self.assertIn(why, answer["error"])

    @scene(service=WITHHELD)
    def test_the_daemons_errors_say_what_they_mean(self, service, daemon, client):
        with Driver(daemon.socket) as driver:
            driver.tell("timeout", "1000")
            answer = driver.call("set", "k", "v")
            self.assertEqual(("unknown", 504, "timeout"), (answer["result"], answer["code"], answer["reason"]))
            answer = driver.call("get", "k")
            self.assertEqual(("unavailable", 504, "timeout"), (answer["result"], answer["code"], answer["reason"]))
            answer = driver.call("set", "k", "@70000")
            self.assertEqual(("refused", 413, "too_large"), (answer["result"], answer["code"], answer["reason"]))
            answer = driver.call("json", quote('{"op":"frobnicate"}'))
            self.assertEqual(("refused", 400, "unknown_op"), (answer["result"], answer["code"], answer["reason"]))

    def test_the_service_is_away(self):
        with Daemon("https://localhost:1") as daemon, Driver(daemon.socket) as driver:
            driver.tell("timeout", "50")
            answer = driver.call("set", "k", "v")
            self.assertEqual(("unavailable", "upstream_down"), (answer["result"], answer["reason"]))

    @scene()
    def test_a_request_of_ones_own(self, service, daemon, client):
        with Driver(daemon.socket) as driver:
            answer = driver.call("json", quote('{"messageId": "mine",\n "op" : 1, "key":"a"}'))
            self.assertEqual({"code": 200, "key": "a", "value": "value of a", "messageId": "mine"},
                             json.loads(answer["line"]))
            answer = driver.call("json", quote('{"op":"ping"}'))
            self.assertEqual('{"code":200,"message":"pong"}', answer["line"])


class NoDaemon(Case):
    def test_no_socket(self):
        with Driver("/nonexistent/sock") as driver:
            result = driver.do("get", "k")
            self.assertEqual("no daemon", result[0])
            self.assertIn("/nonexistent/sock: No such file or directory; is hpkvd running?", result[-1])
            self.assertEqual("no daemon", driver.do("send", "x", "get", "k")[0])

    def test_an_empty_path_is_no_other_one(self):
        with FakeDaemon() as daemon, Driver(env=environment(HPKVD_SOCKET=daemon.path)) as driver:
            driver.do("new", "empty")
            self.assertIn("no connection to hpkvd at : there is no name in it", driver.do("ping")[-1])

    def test_a_path_too_long(self):
        with Driver("/" + "x" * 200) as driver:
            self.assertIn("it is too long: ", driver.do("ping")[-1])

    def test_where_the_socket_is(self):
        with tempfile.TemporaryDirectory() as folder, FakeDaemon() as daemon:
            asks = lambda **env: self.ask_socket(environment(**env))
            self.assertEqual("/run/hpkvd/hpkvd.sock", asks(XDG_RUNTIME_DIR=folder))
            open(folder + "/hpkvd.sock", "w").close()
            self.assertEqual(folder + "/hpkvd.sock", asks(XDG_RUNTIME_DIR=folder))
            self.assertEqual(daemon.path, asks(XDG_RUNTIME_DIR=folder, HPKVD_SOCKET=daemon.path))
            self.assertEqual(folder + "/hpkvd.sock", asks(XDG_RUNTIME_DIR=folder, HPKVD_SOCKET=""))

    @staticmethod
    def ask_socket(env):
        with Driver(env=env) as driver:
            return driver.do("new")[-1]

    @fake_scene
    def test_one_that_does_not_answer(self, daemon, driver):
        driver.tell("timeout", "50")
        self.assertEqual("unavailable", driver.do("ping")[0])
        self.assertIn("not answered in time", driver.call("ping")["error"])

    @fake_scene
    def test_very_many_whose_time_is_up_together(self, daemon, driver):
        """Steps are short: a program with an event loop has other work, too."""
        driver.tell("timeout", "1")
        driver.tell("many", "100000", "ping")
        self.assertEqual("unavailable", driver.do("ping")[0])

    def assert_counts_no_absence(self, daemon, driver, *absence):
        driver.tell("timeout", "100")
        for name in "abcdef":
            driver.tell("send", name, "get", "k")
        driver.tell(*absence)
        peer = daemon.accept()
        requests = [peer.line() for _ in "abcdef"]
        said = threading.Thread(target=lambda: [peer.reply(request, value="x" * 700000) for request in requests])
        said.start()
        self.addCleanup(said.join)
        self.assertEqual([(name, "ok") for name in "abcdef"],
                         [(name, a["result"]) for name, a in (driver.answer() for _ in "abcdef")])

    @fake_scene
    def test_one_that_answers_while_the_program_is_elsewhere(self, daemon, driver):
        """Its absence is not the daemon's delay, even if the socket could not hold all answers."""
        self.assert_counts_no_absence(daemon, driver, "sleep", "3000")

    @fake_scene
    def test_one_that_answers_while_the_program_only_sends(self, daemon, driver):
        self.assert_counts_no_absence(daemon, driver, "sleep", "50", "60")

    @fake_scene
    def test_one_that_does_not_answer_while_others_do(self, daemon, driver):
        """Its time runs out, however often the program is absent."""
        driver.tell("timeout", "100")
        driver.tell("send", "never", "get", "k")
        peer = daemon.accept()
        peer.line()
        answers = []
        while not answers or answers[-1][0] != "never":
            driver.tell("send", "other", "ping")
            driver.tell("sleep", "220")
            peer.reply(peer.line())
            answers.append(driver.answer())
            self.assertLess(len(answers), 100)
        self.assertEqual("unavailable", answers[-1][1]["result"])

    @fake_scene
    def test_a_late_answer_is_nobodys(self, daemon, driver):
        driver.tell("timeout", "50")
        self.assertEqual("unavailable", driver.do("ping")[0])
        peer = daemon.accept()
        late = peer.line()
        driver.tell("timeout", "60000")
        driver.tell("send", "now", "get", "k")
        now = peer.line()
        peer.reply(late, message="pong")
        peer.reply(now, value="v")
        self.assertEqual(("now", "v"), (lambda name, a: (name, a["value"]))(*driver.answer()))


class Lines(Case):
    @fake_scene
    def test_answers_in_any_order(self, daemon, driver):
        for name in "abc":
            driver.tell("send", name, "get", name)
        peer = daemon.accept()
        requests = [peer.line() for _ in range(3)]
        for request in reversed(requests):
            peer.reply(request, value="value of " + request["key"])
        answers = [driver.answer() for _ in range(3)]
        self.assertEqual([("c", "value of c"), ("b", "value of b"), ("a", "value of a")],
                         [(name, a["value"]) for name, a in answers])

    @fake_scene
    def test_a_line_in_pieces_and_many_at_once(self, daemon, driver):
        driver.tell("send", "a", "get", "k")
        driver.tell("send", "b", "get", "k")
        peer = daemon.accept()
        first, second = peer.line(), peer.line()
        line = json.dumps({"code": 200, "value": "é" * 100, "messageId": first["messageId"]}, ensure_ascii=False).encode()
        for i in range(len(line)):
            peer.send_raw(line[i:i + 1])
        peer.send_raw(b"\r\n" + json.dumps({"type": "notification", "key": "k", "value": "n", "timestamp": 7}).encode() +
                      b"\n" + json.dumps({"code": 404, "error": "no", "messageId": second["messageId"]}).encode() + b"\n")
        self.assertEqual("é" * 100, driver.answer()[1]["value"])
        self.assertEqual(("change", "k", "n", "7"), driver.event_of("type", "key", "value", "timestamp"))
        self.assertEqual("not found", driver.answer()[1]["result"])

    @fake_scene
    def test_what_comes_unasked(self, daemon, driver):
        peer = connect(daemon, driver, "json", quote('{"op":"subscribe","key":"k"}'))
        note = {"type": "notification", "key": "k", "timestamp": 1}
        peer.send(note | {"value": None}, note | {"value": "v", "initial": True}, note | {"value": "v", "resync": True},
                  note | {"value": "v", "skipped": 3}, {"type": "gap", "pattern": "a*", "since": 1, "until": 2},
                  {"type": "gap", "key": "k"}, {"type": "connection", "state": "disconnected", "timestamp": 5},
                  {"type": "connection", "state": "connected", "timestamp": 6}, {"type": "news", "x": 1})
        peer.send_raw(b'not json\n\n[]\n{"code":200}\n{"type":"notification","messageId":99}\n')
        peer.send({"type": "gap", "key": "last"})
        pick = lambda e: tuple(e[name] for name in ("type", "flags", "skipped", "key", "value", "pattern", "since"))
        self.assertEqual([
            ("change", 0, 0, "k", None, None, "0"), ("change", 1, 0, "k", "v", None, "0"),
            ("change", 2, 0, "k", "v", None, "0"), ("change", 0, 3, "k", "v", None, "0"),
            ("gap", 0, 0, None, None, "a*", "1"), ("gap", 0, 0, "k", None, None, "0"),
            ("upstream lost", 0, 0, None, None, None, "0"), ("upstream back", 0, 0, None, None, None, "0"),
            ("other", 0, 0, None, None, None, "0"), ("other", 0, 0, None, None, None, "0"),
            ("gap", 0, 0, "last", None, None, "0"),
        ], [pick(driver.event()) for _ in range(11)])

    @fake_scene
    def test_a_line_without_an_end_is_not_read_for_ever(self, daemon, driver):
        driver.tell("send", "a", "set", "k", "v")
        peer = daemon.accept()
        peer.line()
        try:
            while True:
                peer.send_raw(b"x" * (1 << 20))
        except (BrokenPipeError, ConnectionResetError):
            pass
        name, answer = driver.answer()
        self.assertEqual(("a", "unknown"), (name, answer["result"]))
        self.assertIn("more than 32 MiB", answer["error"])

    @fake_scene
    def test_a_daemon_that_reads_slowly(self, daemon, driver):
        """Of more than the socket holds, the rest is written in order once there is room."""
        n = 300
        for i in range(n):
            driver.tell("send", str(i), "set", f"k{i}", "@10000")
        driver.do("wait", "0") # all that the socket takes has been sent
        peer = daemon.accept()
        requests = [peer.line() for _ in range(n)] # nothing but room in the socket makes it go on
        self.assertEqual([f"k{i}" for i in range(n)], [request["key"] for request in requests])
        for request in requests:
            peer.reply(request)
        self.assertEqual([str(i) for i in range(n)], [driver.answer()[0] for _ in range(n)])

    @fake_scene
    def test_too_much_that_waits_is_refused(self, daemon, driver):
        for _ in range(30):
            driver.tell("send", "x", "set", "k", "@1000000")
        self.assertEqual("busy", driver.result()[0])

    @fake_scene
    def test_too_much_that_waits_at_the_door_is_refused(self, daemon, driver):
        with daemon.full():
            for _ in range(30):
                driver.tell("send", "x", "set", "k", "@1000000")
            self.assertEqual("busy", driver.result()[0])

    @fake_scene
    def test_what_has_no_key_is_no_record(self, daemon, driver):
        driver.tell("range", "a", "z", "0")
        peer = daemon.accept()
        peer.reply(peer.line(), records=[1, {}, {"value": "v"}, {"key": "a", "value": "b"}, {"key": 2}, {"key": "c"}, []])
        self.assertEqual([("a", "b"), ("c", None)], driver.as_answer(driver.next("=")[1:])["records"])

    @fake_scene
    def test_callbacks_may_not_block(self, daemon, driver):
        driver.tell("call-in-callback")
        driver.tell("send", "a", "get", "k")
        peer = daemon.accept()
        peer.reply(peer.line())
        driver.answer()
        self.assertEqual(["-7", "-7"], driver.next("busy"))

    @fake_scene
    def test_a_handle_freed_in_a_callback(self, daemon, driver):
        driver.tell("free-in-callback")
        for name in "abc":
            driver.tell("send", name, "get", "k")
        peer = daemon.accept()
        requests = [peer.line() for _ in range(3)]
        peer.reply(requests[1])
        self.assertEqual([("b", "ok"), ("a", "cancelled"), ("c", "cancelled")],
                         [(name, a["result"]) for name, a in (driver.answer() for _ in range(3))])
        self.assertTrue(peer.at_end())

    @fake_scene
    def test_events_come_during_blocking_calls(self, daemon, driver):
        driver.tell("get", "k")
        peer = daemon.accept()
        request = peer.line()
        peer.send({"type": "notification", "key": "k", "value": "v", "timestamp": 1})
        self.assertEqual("change", driver.event()["type"])
        peer.reply(request, value="w")
        self.assertEqual(("ok", "w", ""), driver.result())


class Loss(Case):
    @fake_scene
    def test_reads_are_asked_again_and_writes_are_not(self, daemon, driver):
        driver.tell("send", "set", "set", "k", "v")
        driver.tell("send", "get", "get", "k")
        peer = daemon.accept()
        peer.line(), peer.line()
        peer.close()
        name, answer = driver.answer()
        self.assertEqual(("set", "unknown", 0), (name, answer["result"], answer["code"]))
        self.assertIn("the connection to hpkvd was lost", answer["error"])
        peer = daemon.accept()
        again = peer.line()
        self.assertEqual("get", again["op"])
        peer.reply(again, value="v")
        self.assertEqual(("get", "v"), (lambda name, a: (name, a["value"]))(*driver.answer()))

    @fake_scene
    def test_a_blocking_write_whose_answer_is_lost(self, daemon, driver):
        driver.tell("call", "set", "k", "v")
        daemon.accept().line()
        daemon.stop()
        answer = driver.as_answer(driver.next("=")[1:])
        self.assertEqual("unknown", answer["result"])
        self.assertEqual("sent, but the connection to hpkvd was lost before the answer came: hpkvd has closed the connection",
                         answer["error"])

    @fake_scene
    def test_what_the_daemon_says_at_the_end_is_why(self, daemon, driver):
        peer = connect(daemon, driver, "json", quote('{"op":"subscribe","key":"k"}'))
        driver.tell("send", "set", "set", "k", "v")
        peer.line()
        peer.send({"code": 503, "error": "the client does not read its answers", "reason": "slow_client", "executed": "no"})
        peer.close()
        self.assertEqual(("lost", "the connection to hpkvd is lost: hpkvd says: the client does not read its answers"),
                         driver.event_of("type", "text"))
        self.assertIn("hpkvd says: the client does not read its answers", driver.answer()[1]["error"])
        peer = daemon.accept()
        peer.reply(peer.line())
        self.assertEqual("back", driver.event()["type"])
        peer.close()
        self.assertEqual("the connection to hpkvd is lost: hpkvd has closed the connection", driver.event()["text"])

    @fake_scene
    def test_after_a_fork_the_descriptor_is_quiet(self, daemon, driver):
        """Though the other process has the lost connection open as well."""
        peer = connect(daemon, driver, "json", quote('{"op":"subscribe","key":"k"}'))
        driver.tell("fork")
        driver.tell("wait", "0") # it has forked
        driver.next("=")
        peer.close()
        self.assertEqual("lost", driver.event()["type"])
        peer = daemon.accept()
        peer.reply(peer.line())
        self.assertEqual("back", driver.event()["type"])
        driver.tell("readable")
        self.assertEqual(["0"], driver.next("="))

    @fake_scene
    def test_after_a_fork_the_other_process_may_free_it(self, daemon, driver):
        peer = connect(daemon, driver, "ping")
        driver.tell("fork", "free")
        driver.tell("wait", "0")
        driver.next("=")
        peer.send({"type": "gap", "key": "k"})
        self.assertEqual("gap", driver.event()["type"])

    @fake_scene
    def test_half_an_answer_is_none(self, daemon, driver):
        driver.tell("send", "set", "set", "k", "v")
        peer = daemon.accept()
        request = peer.line()
        peer.send_raw(b'{"code":200,"messageId":%d}' % request["messageId"])
        peer.close()
        self.assertEqual("unknown", driver.answer()[1]["result"])

    @fake_scene
    def test_a_daemon_that_never_comes_back(self, daemon, driver):
        driver.tell("timeout", "300")
        driver.tell("send", "get", "get", "k")
        daemon.accept().line()
        daemon.stop()
        name, answer = driver.answer()
        self.assertEqual("no daemon", answer["result"])
        self.assertEqual("no daemon", driver.do("ping")[0])

    @fake_scene
    def test_the_next_call_connects_again(self, daemon, driver):
        connect(daemon, driver, "ping")
        daemon.stop()
        daemon.listen()
        connect(daemon, driver, "ping")

    @fake_scene
    def test_too_many_clients(self, daemon, driver):
        """Nothing was executed, so a write may be tried again."""
        driver.tell("send", "set", "set", "k", "v")
        for _ in range(2):
            peer = daemon.accept()
            peer.send({"code": 503, "error": "too many clients are connected", "reason": "too_many_clients",
                       "executed": "no"})
            peer.close()
        peer = daemon.accept()
        peer.reply(peer.line())
        self.assertEqual("ok", driver.answer()[1]["result"])

    @fake_scene
    def test_too_many_clients_after_it_was_let_in(self, daemon, driver):
        """It is then unknown which requests were read."""
        peer = connect(daemon, driver, "ping")
        driver.tell("send", "set", "set", "k", "v")
        peer.line()
        peer.send({"code": 503, "error": "too many clients are connected", "reason": "too_many_clients"})
        peer.close()
        answer = driver.answer()[1]
        self.assertEqual("unknown", answer["result"])
        self.assertIn("connection to hpkvd was lost", answer["error"])

    @fake_scene
    def test_too_many_clients_for_all_its_time(self, daemon, driver):
        over = threading.Event()
        turned_away = threading.Thread(target=self.turn_all_away, args=(daemon, over), daemon=True)
        turned_away.start()
        driver.tell("timeout", "400")
        driver.tell("send", "set", "set", "k", "v")
        answer = driver.answer()[1]
        self.assertEqual("unavailable", answer["result"])
        self.assertIn("too many clients", answer["error"])
        over.set()
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(daemon.path) # which ends the accept() that waits
            turned_away.join(DEADLINE)

    @staticmethod
    def turn_all_away(daemon, over):
        while not over.is_set():
            peer = daemon.accept()
            with contextlib.suppress(OSError): # it has left already
                peer.send({"code": 503, "error": "too many clients are connected", "reason": "too_many_clients"})
            peer.close()


class Subscriptions(Case):
    def subscribe_and_lose(self, daemon, driver, request):
        """Subscribes, then the connection is lost; the next one."""
        connect(daemon, driver, "json", quote(request)).close()
        self.assertEqual("lost", driver.event()["type"])
        return daemon.accept()

    @sandbox_scene
    def test_changes(self, daemon, driver):
        driver.do("set", "k", "old")
        self.assertEqual("ok", driver.do("subscribe", "1", "k:k", "k:none", "p:a*")[0])
        first, second = sorted((driver.event() for _ in range(2)), key=lambda e: e["key"])
        self.assertEqual(("k", "old", 1), (first["key"], first["value"], first["flags"]))
        self.assertEqual(("none", None, 1), (second["key"], second["value"], second["flags"]))
        driver.do("set", "abc", "x")
        self.assertEqual(("abc", "x", 0), driver.event_of("key", "value", "flags"))
        self.assertEqual("ok", driver.do("unsubscribe", "p:a*")[0])
        driver.do("set", "abd", "y")
        driver.do("delete", "k")
        self.assertEqual(("k", None), driver.event_of("key", "value"))

    def test_they_survive_a_restart_of_the_daemon(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon:
            daemon.wait_state("connected")
            with Driver(daemon.socket) as driver:
                driver.do("subscribe", "0", "k:k", "p:a*")
                daemon.process.signal(15)
                daemon.process.wait_exit()
                self.assertEqual("lost", driver.event()["type"])
                daemon.process.close()
                daemon.start()
                events = [driver.event() for _ in range(3)]
                self.assertEqual({"change", "gap", "back"}, {e["type"] for e in events})
                self.assertEqual([("k", None, 1)], [(e["key"], e["value"], e["flags"]) for e in events if e["key"]])
                self.assertEqual(["a*"], [e["pattern"] for e in events if e["type"] == "gap"])
                with daemon.client() as client:
                    client.ask({"op": "set", "key": "abc", "value": "v"})
                self.assertEqual(("abc", "v"), driver.event_of("key", "value"))

    @fake_scene
    def test_what_is_subscribed_to_again(self, daemon, driver):
        """Live subscriptions only, in requests that are not too long."""
        names = [f"{i:03}" + "x" * 300 for i in range(150)]
        driver.tell("send", "all", "json", quote(json.dumps({"op": "subscribe", "keys": names, "pattern": "p*"})))
        driver.tell("send", "no", "json", quote('{"op":"subscribe","key":"refused"}'))
        driver.tell("send", "end", "json", quote(json.dumps({"op": "unsubscribe", "keys": names[:10]})))
        peer = daemon.accept()
        peer.reply(peer.line())
        peer.send({"code": 403, "error": "no", "reason": "forbidden", "messageId": peer.line()["messageId"]})
        peer.reply(peer.line())
        for _ in range(3):
            driver.answer()
        peer.close()
        self.assertEqual("lost", driver.event()["type"])
        peer = daemon.accept()
        driver.tell("send", "ping", "ping")
        requests = []
        while (request := peer.line())["op"] != "ping":
            requests.append(request)
            self.assertTrue(request["initial"])
            self.assertLess(len(json.dumps(request)), 30000)
        self.assertEqual(sorted(names[10:]), sorted(k for r in requests for k in r.get("keys", [])))
        self.assertEqual(["p*"], [k for r in requests for k in r.get("patterns", [])])
        for request in requests:
            peer.reply(request)
        self.assertEqual(("gap", "p*"), driver.event_of("type", "pattern"))
        self.assertEqual("back", driver.event()["type"])

    @fake_scene
    def test_one_that_was_not_answered_is_asked_for_once(self, daemon, driver):
        driver.tell("send", "a", "json", quote('{"op":"subscribe","key":"a"}'))
        driver.tell("send", "b", "json", quote('{"op":"subscribe","key":"b"}'))
        peer = daemon.accept()
        peer.reply(peer.line())
        driver.answer()
        peer.line()
        peer.close()
        peer = daemon.accept()
        requests = [peer.line(), peer.line()]
        self.assertEqual([None, ["a"]], [request.get("keys") for request in requests])
        self.assertEqual("b", requests[0]["key"])
        for request in requests:
            peer.reply(request)
        self.assertEqual("ok", driver.answer()[1]["result"])
        self.assertEqual(["lost", "back"], [driver.event()["type"] for _ in range(2)])

    def test_one_of_two_requests_that_name_it_is_accepted(self):
        for codes in ((200, 403), (403, 200)):
            for order in ((0, 1), (1, 0)):
                with FakeDaemon() as daemon, Driver(daemon.path) as driver:
                    for name in ("first", "second"):
                        driver.tell("send", name, "json", quote('{"op":"subscribe","key":"a"}'))
                    peer = daemon.accept()
                    requests = [peer.line(), peer.line()]
                    for i in order:
                        peer.send({"code": codes[i], "error": "no", "messageId": requests[i]["messageId"]})
                        driver.answer()
                    peer.close()
                    self.assertEqual("lost", driver.event()["type"], (codes, order))
                    self.assertEqual(["a"], daemon.accept().line()["keys"], (codes, order))

    @fake_scene
    def test_one_that_the_access_rules_end(self, daemon, driver):
        peer = connect(daemon, driver, "json", quote('{"op":"subscribe","keys":["a","b"],"patterns":["a","p*"]}'))
        peer.send({"type": "unsubscribed", "key": "a", "reason": "forbidden", "timestamp": 1},
                  {"type": "unsubscribed", "pattern": "p*", "reason": "forbidden", "timestamp": 1})
        pick = ("type", "key", "pattern", "text")
        self.assertEqual(("dropped", "a", None, "the access rules have changed, and forbid it"), driver.event_of(*pick))
        self.assertEqual(("dropped", None, "p*", "the access rules have changed, and forbid it"), driver.event_of(*pick))
        peer.close()
        driver.event()
        again = daemon.accept().line()
        self.assertEqual((["b"], ["a"]), (again["keys"], again["patterns"]))

    @fake_scene
    def test_one_that_is_asked_for_again_before_its_end_is_told(self, daemon, driver):
        for name in ("first", "second"):
            driver.tell("send", name, "json", quote('{"op":"subscribe","key":"a"}'))
        peer = daemon.accept()
        peer.reply(peer.line())
        peer.send({"type": "unsubscribed", "key": "a", "reason": "forbidden", "timestamp": 1})
        self.assertEqual("dropped", driver.event()["type"])
        peer.reply(peer.line())
        driver.answer(), driver.answer()
        peer.close()
        self.assertEqual("lost", driver.event()["type"])
        self.assertEqual(["a"], daemon.accept().line()["keys"])

    @fake_scene
    def test_one_that_is_refused_the_second_time(self, daemon, driver):
        peer = self.subscribe_and_lose(daemon, driver, '{"op":"subscribe","keys":["a","b"],"pattern":"p*"}')
        no = lambda request: peer.send({"code": 403, "error": "not for you", "reason": "forbidden", "executed": "no",
                                        "messageId": request["messageId"]})
        no(peer.line())
        for _ in range(3):
            request = peer.line()
            if request.get("keys") == ["b"]:
                no(request)
            else:
                peer.reply(request)
        event = driver.event()
        self.assertEqual(("dropped", "b", "not for you"), (event["type"], event["key"], event["text"]))
        self.assertEqual(("gap", "p*"), driver.event_of("type", "pattern"))
        self.assertEqual("back", driver.event()["type"])

    @fake_scene
    def test_a_daemon_that_takes_it_and_leaves_is_not_run_after(self, daemon, driver):
        """Pauses grow as long as no connection lasts; half of each may be left out."""
        peer = self.subscribe_and_lose(daemon, driver, '{"op":"subscribe","key":"a"}')
        begun = time.monotonic()
        for _ in range(5):
            peer.reply(peer.line())
            self.assertEqual("back", driver.event()["type"])
            peer.close()
            self.assertEqual("lost", driver.event()["type"])
            peer = daemon.accept()
        self.assertGreater(time.monotonic() - begun, (40 + 80 + 160 + 320 + 640) / 2 / 1000)

    @fake_scene
    def test_one_that_fails_for_now_is_tried_again(self, daemon, driver):
        peer = self.subscribe_and_lose(daemon, driver, '{"op":"subscribe","key":"a"}')
        peer.send({"code": 503, "error": "away", "reason": "upstream_down", "messageId": peer.line()["messageId"]})
        peer.reply(peer.line())
        self.assertEqual("back", driver.event()["type"])


LAST_LINE = {"type": "connection", "state": "disconnected", "reason": "shutting_down", "timestamp": 1}


class Healing(Case):
    """A daemon that restarts is a pause to callers, and no error."""

    def refuse(self, peer, request, reason="shutting_down", executed="no", code=503):
        peer.send({"code": code, "error": "no", "reason": reason, "executed": executed, "messageId": request["messageId"]})

    @fake_scene
    def test_a_write_that_is_refused_at_the_end_is_sent_to_the_next_daemon(self, daemon, driver):
        connect(daemon, driver, "ping")
        peer = daemon.peers[0]
        driver.tell("send", "first", "set", "k", "1")
        driver.tell("send", "second", "set", "k", "2")
        requests = [peer.line(), peer.line()]
        self.refuse(peer, requests[0])
        driver.tell("send", "third", "set", "k", "3") # never on this connection
        self.refuse(peer, requests[1])
        self.assertTrue(peer.at_end()) # closed at once: no answer is missing
        peer = daemon.accept()
        for value in "123":
            request = peer.line()
            self.assertEqual(value, request["value"])
            peer.reply(request)
        self.assertEqual([(name, "ok") for name in ("first", "second", "third")],
                         [(name, answer["result"]) for name, answer in (driver.answer() for _ in range(3))])

    @fake_scene
    def test_what_was_sent_before_the_end_is_still_answered(self, daemon, driver):
        peer = connect(daemon, driver, "ping")
        driver.tell("send", "in-flight", "set", "k", "1")
        driver.tell("send", "refused", "set", "k", "2")
        requests = [peer.line(), peer.line()]
        self.refuse(peer, requests[1])
        peer.reply(requests[0])
        self.assertEqual("ok", driver.answer()[1]["result"])
        peer = daemon.accept()
        peer.reply(peer.line())
        name, answer = driver.answer()
        self.assertEqual(("refused", "ok"), (name, answer["result"]))

    @fake_scene
    def test_a_request_that_is_made_while_there_is_no_daemon_waits_for_it(self, daemon, driver):
        connect(daemon, driver, "ping")
        daemon.stop()
        driver.tell("send", "write", "set", "k", "v")
        driver.tell("wait", "0")
        driver.next("=")
        daemon.listen()
        peer = daemon.accept()
        peer.reply(peer.line())
        self.assertEqual("ok", driver.answer()[1]["result"])

    @fake_scene
    def test_it_waits_no_longer_than_its_own_time(self, daemon, driver):
        connect(daemon, driver, "ping")
        daemon.stop()
        driver.tell("timeout", "300")
        begun = time.monotonic()
        answer = driver.call("set", "k", "v")
        self.assertEqual("no daemon", answer["result"])
        self.assertIn("is hpkvd running?", answer["error"])
        self.assertGreaterEqual(time.monotonic() - begun, 0.29)

    @fake_scene
    def test_the_next_daemon_gets_what_is_left_of_its_time(self, daemon, driver):
        peer = connect(daemon, driver, "ping")
        driver.tell("send", "get", "get", "k")
        driver.tell("send", "own", "json", quote('{"op":"get","key":"k","timeoutMs": 60000}'))
        self.assertEqual([10000, 60000], [peer.line()["timeoutMs"] for _ in range(2)])
        daemon.stop()
        driver.tell("sleep", "200")
        driver.tell("wait", "0")
        driver.next("=")
        daemon.listen()
        peer = daemon.accept()
        limits = [peer.line()["timeoutMs"] for _ in range(2)]
        self.assertLess(limits[0], 10000)
        self.assertLess(limits[1], 60000)
        self.assertGreater(limits[1], limits[0])

    @fake_scene
    def test_a_read_without_an_answer_at_the_end_is_repeated_in_its_place(self, daemon, driver):
        peer = connect(daemon, driver, "ping")
        driver.tell("send", "get", "get", "k")
        driver.tell("send", "set", "set", "k", "v")
        requests = [peer.line() for _ in range(2)]
        self.refuse(peer, requests[1])
        self.refuse(peer, requests[0], "outcome_unknown", "unknown", 504)
        peer = daemon.accept()
        for op in ("get", "set"):
            request = peer.line()
            self.assertEqual(op, request["op"])
            peer.reply(request)
            self.assertEqual((op, "ok"), (lambda name, answer: (name, answer["result"]))(*driver.answer()))

    @fake_scene
    def test_a_write_without_an_answer_at_the_end_is_unknown(self, daemon, driver):
        peer = connect(daemon, driver, "ping")
        driver.tell("send", "set", "set", "k", "v")
        self.refuse(peer, peer.line(), "outcome_unknown", "unknown", 504)
        self.assertEqual("unknown", driver.answer()[1]["result"])

    @fake_scene
    def test_pairs_alternate_over_a_restart(self, daemon, driver):
        peer = connect(daemon, driver, "json", quote('{"op":"subscribe","pattern":"p*"}'))
        peer.send(LAST_LINE | {"reason": None}, LAST_LINE)
        self.assertEqual(["upstream lost", "lost"], [driver.event()["type"] for _ in range(2)])
        self.assertTrue(peer.at_end())
        for _ in range(2): # nothing of it is told twice
            peer = daemon.accept()
            peer.line()
            peer.send(LAST_LINE | {"reason": None}, LAST_LINE | {"state": "connected", "reason": None},
                      LAST_LINE | {"reason": None})
            peer.close()
        peer = daemon.accept()
        peer.reply(peer.line())
        events = []
        while not events or events[-1]["type"] != "back":
            events.append(driver.event())
        kinds = [e["type"] for e in events]
        self.assertEqual(["gap", "upstream back", "back"], kinds[-3:])
        upstream = ["upstream lost"] + [kind for kind in kinds if kind.startswith("upstream")]
        self.assertEqual(["upstream lost", "upstream back"] * (len(upstream) // 2), upstream)
        self.assertEqual(1, kinds.count("back"))

    @fake_scene
    def test_the_last_line_is_told_at_once(self, daemon, driver):
        peer = connect(daemon, driver, "json", quote('{"op":"subscribe","key":"k"}'))
        driver.tell("send", "set", "set", "k", "v")
        request = peer.line()
        peer.send(LAST_LINE)
        event = driver.event()
        self.assertEqual(("lost", "the connection to hpkvd is lost: hpkvd is shutting down", LAST_LINE),
                         (event["type"], event["text"], json.loads(event["line"])))
        peer.reply(request)
        self.assertEqual("ok", driver.answer()[1]["result"])

    @fake_scene
    def test_a_pattern_gets_a_gap_with_its_times(self, daemon, driver):
        before = time.time() * 1000
        connect(daemon, driver, "json", quote('{"op":"subscribe","patterns":["p*","q*"],"key":"k"}')).close()
        self.assertEqual("lost", driver.event()["type"])
        peer = daemon.accept()
        peer.reply(peer.line())
        for pattern in ("p*", "q*"):
            gap = driver.event()
            self.assertEqual(("gap", pattern), (gap["type"], gap["pattern"]))
            self.assertLessEqual(int(before), int(gap["since"]))
            self.assertLessEqual(int(gap["since"]), int(gap["until"]))
            self.assertLessEqual(int(gap["until"]), time.time() * 1000)
        self.assertEqual("back", driver.event()["type"])

    @fake_scene
    def test_switched_off(self, daemon, driver):
        driver.tell("reconnect", "0")
        peer = connect(daemon, driver, "json", quote('{"op":"subscribe","key":"k"}'))
        driver.tell("send", "refused", "set", "k", "v")
        self.refuse(peer, peer.line())
        self.assertEqual("unavailable", driver.answer()[1]["result"])
        driver.tell("send", "read", "get", "k")
        driver.tell("send", "write", "set", "k", "v")
        for _ in range(2):
            peer.line()
        peer.close()
        self.assertEqual("lost", driver.event()["type"])
        self.assertEqual({"read": "no daemon", "write": "unknown"},
                         {name: answer["result"] for name, answer in (driver.answer() for _ in range(2))})
        peer = connect(daemon, driver, "ping")
        driver.tell("send", "next", "status")
        self.assertEqual("status", peer.line()["op"]) # nothing was subscribed to again
        daemon.stop()
        self.assertEqual("no daemon", driver.answer()[1]["result"])
        self.assertEqual("no daemon", driver.do("ping")[0])
        self.assertEqual([], driver.kept["e"])

    @contextlib.contextmanager
    def writing(self, daemon, driver):
        """Increments a number every 5 ms; the answer to each is in results in the end."""
        results, over, sent = [], threading.Event(), []

        def write():
            while not over.wait(0.005):
                driver.tell("send", "w", "increment", "n")
                sent.append(True)

        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        yield results
        over.set()
        thread.join(DEADLINE)
        results += [driver.answer()[1] for _ in sent]

    def restart(self, daemon, number):
        daemon.process.signal(number)
        daemon.process.wait_exit()
        daemon.process.close()
        daemon.start()
        daemon.wait_state("connected")

    def end_of_writes(self, numbers):
        """The results of a writer's increments while the daemon is restarted, and the number at the end."""
        with Sandbox() as sandbox, Daemon(sandbox) as daemon:
            daemon.wait_state("connected")
            with Driver(daemon.socket) as driver:
                driver.do("set", "n", "0")
                driver.tell("timeout", str(DEADLINE * 1000))
                with self.writing(daemon, driver) as results:
                    for number in numbers:
                        self.restart(daemon, number)
                return [answer["result"] for answer in results], int(driver.do("get", "n")[1])

    def test_writes_over_orderly_restarts_are_executed_once_each(self):
        results, n = self.end_of_writes([15] * 5)
        self.assertEqual({"ok"}, set(results))
        self.assertEqual(len(results), n)

    def test_writes_over_crashes_are_executed_once_each_or_unknown(self):
        results, n = self.end_of_writes([9] * 5)
        self.assertLessEqual(set(results), {"ok", "unknown"})
        self.assertLessEqual(results.count("ok"), n)
        self.assertLessEqual(n, len(results))


def shared_library():
    return os.path.join(BUILD, ".libs", "libhpkv.so")


class Package(Case):
    """The installed library."""

    def symbols(self, *options):
        run = subprocess.run(["nm", *options], capture_output=True, text=True, check=True)
        return {line.split()[-1].split("@")[0] for line in run.stdout.splitlines() if len(line.split()) == 3}

    def header(self):
        with open(os.path.join(ROOT, "lib", "hpkv.h"), encoding="utf-8") as file:
            return file.read()

    @unittest.skipUnless(os.path.exists(shared_library()), "built without a shared library")
    def test_the_shared_library_shows_what_the_header_declares(self):
        declared = set(re.findall(r"^HPKV_API [^;(]*?(hpkv_\w+)\(", self.header(), re.M))
        self.assertLessEqual(len(declared), 26)
        self.assertEqual(declared, self.symbols("-D", "--defined-only", shared_library()) - {"LIBHPKV_0"})
        run = subprocess.run(["readelf", "-d", shared_library()], capture_output=True, text=True, check=True)
        self.assertIn("soname: [libhpkv.so.0]", run.stdout)

    def test_the_static_library_takes_no_names_of_others(self):
        archive = os.path.join(BUILD, ".libs", "libhpkv.a")
        if not os.path.exists(archive):
            self.skipTest("built without a static library")
        names = {name for name in self.symbols("-g", "--defined-only", archive) if not name.startswith("__")}
        self.assertEqual(set(), {name for name in names if not name.startswith("hpkv_")})

    def test_a_program_of_ten_lines_against_what_is_installed(self):
        cc, pkg_config = os.environ.get("CC", "cc").split(), shutil.which("pkg-config")
        if not pkg_config or not shutil.which(cc[0]):
            self.skipTest("needs a compiler and pkg-config")
        with tempfile.TemporaryDirectory(prefix="hpkv-install-") as root:
            self.install(root)
            pc = glob.glob(root + "/**/libhpkv.pc", recursive=True)[0]
            env = environment(PKG_CONFIG_PATH=os.path.dirname(pc), PKG_CONFIG_SYSROOT_DIR=root)
            flags = subprocess.run([pkg_config, "--cflags", "--libs", "libhpkv"], env=env, capture_output=True, text=True,
                                   check=True).stdout.split()
            library = next(flag[2:] for flag in flags if flag.startswith("-L"))
            program = root + "/hello"
            sanitize = ["-fsanitize=address,undefined"] if self.is_sanitized() else []
            subprocess.run([*cc, *sanitize, "-Wall", "-Wextra", "-Werror", ROOT + "/examples/c/hello-libhpkv.c", *flags, "-o",
                            program], env=env, check=True)
            with Sandbox() as sandbox, Daemon(sandbox) as daemon:
                daemon.wait_state("connected")
                env = environment(LD_LIBRARY_PATH=library, HPKVD_SOCKET=daemon.socket)
                run = subprocess.run([program], env=env, capture_output=True, text=True, timeout=DEADLINE)
                self.assertEqual((0, "hello, world\n", ""), (run.returncode, run.stdout, run.stderr))

    @staticmethod
    def install(root):
        env = environment()
        env.pop("MAKEFLAGS", None)
        env.pop("MFLAGS", None)
        subprocess.run([os.environ.get("MAKE", "make"), "-s", "-C", BUILD, "install-libLTLIBRARIES", "install-includeHEADERS",
                        "install-nodist_pkgconfigDATA", "DESTDIR=" + root], env=env, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    @staticmethod
    def is_sanitized():
        with open(DRIVER, "rb") as file:
            return b"__asan_init" in file.read()

    def test_the_header_is_one_for_cxx_too(self):
        cxx = shutil.which("c++") or shutil.which("clang++")
        if not cxx:
            self.skipTest("there is no C++ compiler")
        subprocess.run([cxx, "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-I", ROOT + "/lib", "-x", "c++", "-"],
                       input=b"#include <hpkv.h>\n", check=True)


class Example(Case):
    def test_the_end_of_a_subscription(self):
        program = os.path.join(BUILD, "examples", "c", "watch-libhpkv")
        with FakeDaemon() as daemon:
            run = subprocess.Popen([program, "u:*"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   env=environment(HPKVD_SOCKET=daemon.path), text=True)
            peer = daemon.accept()
            peer.reply(peer.line())
            self.assertEqual("watching\n", run.stdout.readline())
            peer.send({"type": "unsubscribed", "pattern": "u:*", "reason": "forbidden", "timestamp": 1})
            self.assertEqual("(the end: the access rules have changed, and forbid it)\n", run.stdout.readline())
            run.communicate("", timeout=DEADLINE)

    def test_an_event_loop(self):
        program = os.path.join(BUILD, "examples", "c", "watch-libhpkv")
        with Sandbox() as sandbox, Daemon(sandbox) as daemon, daemon.client() as client:
            daemon.wait_state("connected")
            env = environment(HPKVD_SOCKET=daemon.socket)
            run = subprocess.Popen([program, "u:*"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True)
            self.assertEqual("watching\n", run.stdout.readline())
            client.ask({"op": "set", "key": "u:1", "value": "Ada"})
            self.assertEqual("u:1 is now Ada\n", run.stdout.readline())
            run.stdin.write("u:1\n")
            run.stdin.flush()
            self.assertEqual("looked up: Ada\n", run.stdout.readline())
            client.ask({"op": "delete", "key": "u:1"})
            self.assertEqual("u:1 was deleted\n", run.stdout.readline())
            run.stdin.close()
            self.assertEqual(0, run.wait(DEADLINE))
            run.stdout.close()


if __name__ == "__main__":
    unittest.main()
