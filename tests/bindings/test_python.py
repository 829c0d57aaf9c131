"""The Python package: requests, subscriptions and mirrors, through restarts, losses and slow readers."""

import asyncio
import contextlib
import glob
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import warnings

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "cli"))

from cli import FakeDaemon # noqa: E402 (the path comes first)
from harness import DEADLINE, ROOT, Case, Daemon, Sandbox, eventually

PACKAGE = os.path.join(ROOT, "bindings", "python")
sys.path.insert(0, PACKAGE)

import hpkvd # noqa: E402
from hpkvd import AsyncClient, Change, Client, Connection, Ended, Gap, HpkvError, Mirror


def play(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, DEADLINE))


def restart(daemon, meanwhile=lambda: None):
    daemon.process.signal(signal.SIGTERM)
    assert daemon.process.wait_exit() == 0
    daemon.process.close()
    meanwhile()
    daemon.start()


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
        with Client(self.daemon.socket) as h:
            h.set("a:1", "one")
            h.set("a:2", {"x": [1, "é"]})
            h.patch("a:2", {"y": None, "z": 1})
            self.assertEqual(("one", 1), (h.get("a:1"), json.loads(h.get("a:2"))["z"]))
            self.assertEqual([("a:1", "one")], h.range("a:1", "a:9", 1))
            self.assertTrue(h.range("a:1", "a:9", 1).truncated)
            self.assertEqual((41, 42, 41.5), (h.increment("a:n", 41), h.increment("a:n"), h.increment("a:n", -0.5)))
            h.delete("a:1")
            self.assertEqual((None, "x"), (h.get("a:1", None), h.get("a:1", "x")))
            h.ping()
            self.assertEqual(1, h.status()["protocol"])
            self.assertIn("requests_total", " ".join(h.stats()))

    def test_the_same_with_asyncio(self):
        async def run():
            async with AsyncClient(self.daemon.socket) as h:
                await h.set("b:1", "one")
                await h.patch("b:1", " two")
                self.assertEqual(("one two", 7), (await h.get("b:1"), await h.increment("b:n", 7)))
                self.assertEqual(["b:1", "b:n"], [r.key async for r in h.scan("b:")])
                await h.delete("b:1")
                self.assertIsNone(await h.get("b:1", None))
                await h.ping()
                self.assertEqual(1, (await h.status())["protocol"])

        play(run())

    def test_how_requests_fail(self):
        with Client(self.daemon.socket) as h:
            for call, code, reason, executed in ((lambda: h.get("missing"), 404, None, "no"), (lambda: h.set("k", "x" * 4000), 400, None, "no"),
                                                 (lambda: h.set("k", "x" * 70000), 413, "too_large", "no"),
                                                 (lambda: h.request({"op": "nothing"}), 400, "unknown_op", "no"),
                                                 (lambda: h.token(["a:*"]), 403, "forbidden", "no")):
                with self.assertRaises(HpkvError) as caught:
                    call()
                self.assertEqual((code, reason, executed), (caught.exception.code, caught.exception.reason, caught.exception.executed))
            with self.assertRaises(ValueError):
                h.set("k", None)
            with self.assertRaises(ValueError):
                h.set("k", float("nan"))
            self.assertEqual("missing", h.get("k", "missing"))
        for path in (self.daemon.folder + "/nowhere", "x" * 200):
            with self.assertRaises(HpkvError) as caught:
                Client(path).ping()
            self.assertEqual((503, "no_daemon", "no"), (caught.exception.code, caught.exception.reason, caught.exception.executed))
            with self.assertRaises(HpkvError):
                play(AsyncClient(path).ping())

    def test_any_text(self):
        texts = ["é€😀", "a\0b", "\ud800", "\u2028\n\r\t\"\\", " ", "\ufeff", "x" * 3072]
        with Client(self.daemon.socket) as h:
            for i, text in enumerate(texts):
                h.set(f"c:{i}{text[:9]}", text)
                self.assertEqual(text, h.get(f"c:{i}{text[:9]}"))
            self.assertEqual(sorted(texts), sorted(r.value for r in h.scan("c:")))

    def test_more_than_a_page(self):
        async def fill():
            async with AsyncClient(self.daemon.socket) as h:
                await asyncio.gather(*(h.set(f"d:{i:04}", str(i)) for i in range(2500)))

        play(fill())
        with Client(self.daemon.socket) as h:
            self.assertEqual([f"d:{i:04}" for i in range(2500)], [r.key for r in h.scan("d:")])

    def test_ten_thousand_requests_at_once(self):
        async def run():
            async with AsyncClient(self.daemon.socket, timeout=60) as h:
                await asyncio.gather(*(h.increment("e:n") for _ in range(5000)), *(h.set(f"e:{i}", "v" * 100) for i in range(5000)))
                self.assertEqual("5000", await h.get("e:n"))
                self.assertEqual(["v" * 100] * 100, await asyncio.gather(*(h.get(f"e:{i}") for i in range(100))))

        play(run())

    def test_threads_may_share_a_client(self):
        with Client(self.daemon.socket) as h:
            threads = [threading.Thread(target=lambda: [h.increment("f:n") for _ in range(50)]) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual("400", h.get("f:n"))

    def test_a_fork_has_a_connection_of_its_own(self):
        with Client(self.daemon.socket) as h:
            h.set("g", "0")
            pid = os.fork()
            if not pid:
                try:
                    for _ in range(200):
                        h.increment("g")
                    os._exit(0)
                finally:
                    os._exit(1)
            for _ in range(200):
                h.increment("g")
            self.assertEqual(0, os.waitpid(pid, 0)[1])
            self.assertEqual("400", h.get("g"))

    def test_the_socket_of_the_environment(self):
        code = "from hpkvd import Client; Client().ping(); print('there')"
        for name, value in (("HPKVD_SOCKET", self.daemon.socket), ("HPKVD_SOCKET", "unix:" + self.daemon.socket)):
            out = subprocess.run([sys.executable, "-c", code], env={**os.environ, name: value, "PYTHONPATH": PACKAGE}, capture_output=True,
                                 text=True, check=False)
            self.assertEqual("there\n", out.stdout, out.stderr)

    def test_subscriptions(self):
        with Client(self.daemon.socket) as h:
            h.set("s:k", "before")
            with h.subscribe("s:p:*", "s:k", initial=True) as events:
                first = next(events)
                self.assertEqual(("s:k", "before", True), (first.key, first.value, first.initial))
                h.set("s:p:1", "é\0")
                self.assertEqual(("s:p:1", "é\0", False), next(events)[:2] + (False,))
                h.delete("s:p:1")
                self.assertEqual(("s:p:1", None), next(events)[:2])
            self.assertEqual([], list(events))
            with self.assertRaises(ValueError):
                h.subscribe()

    def test_subscriptions_of_asyncio(self):
        async def run():
            async with AsyncClient(self.daemon.socket) as h, await h.subscribe("t:*") as events:
                await asyncio.gather(*(h.set(f"t:{i}", "x") for i in range(100)))
                self.assertEqual({f"t:{i}" for i in range(100)}, {(await events.__anext__()).key for _ in range(100)})
                await events.close()
                self.assertEqual([], [e async for e in events])

        play(run())

    def test_a_subscription_is_closed_by_another_thread(self):
        with Client(self.daemon.socket) as h:
            events = h.subscribe("nothing:*")
            found = []
            thread = threading.Thread(target=lambda: found.append(list(events)))
            thread.start()
            events.close()
            thread.join(DEADLINE)
            self.assertEqual([[]], found)

    def test_a_mirror(self):
        changes = []
        with Client(self.daemon.socket) as h:
            h.set("m:1", "1")
            h.set("n", "other")
            with Mirror("m:*", self.daemon.socket, on_change=lambda key, value: changes.append((key, value))) as mirror:
                self.assertEqual({"m:1": "1"}, dict(mirror))
                h.set("m:2", {"a": 1})
                h.patch("m:2", {"b": 2})
                eventually(lambda: mirror.get("m:2") == '{"a":1,"b":2}', mirror)
                h.delete("m:1")
                eventually(lambda: "m:1" not in mirror)
                self.assertEqual((1, ["m:2"], False), (len(mirror), list(mirror), mirror.stale))
                eventually(lambda: ("m:1", None) in changes, "the word of a change, which comes behind it")
            self.assertEqual({"m:2": '{"a":1,"b":2}'}, mirror.copy())
            with Mirror("m:*2", self.daemon.socket) as mirror:
                self.assertEqual(["m:2"], list(mirror))
        with self.assertRaises(HpkvError):
            Mirror("m:*", self.daemon.folder + "/nowhere")


class Restarts(Case):
    def test_nobody_is_told_of_a_restart(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon:
            daemon.wait_state("connected")
            h = Client(daemon.socket, timeout=DEADLINE)
            h.set("a", "1")
            restart(daemon)
            h.set("a", "2")
            self.assertEqual("2", h.get("a"))
            later = threading.Timer(0.2, daemon.start)
            daemon.process.signal(signal.SIGTERM)
            daemon.process.wait_exit()
            daemon.process.close()
            later.start()
            self.assertEqual(3, h.increment("a"))
            later.join()
            h.close()

    def test_requests_of_asyncio_go_on(self):
        async def run(daemon):
            async with AsyncClient(daemon.socket, timeout=DEADLINE) as h:
                await h.set("n", "0")
                loop = asyncio.get_running_loop()
                done = failed = 0

                async def work():
                    nonlocal done, failed
                    for _ in range(40):
                        try:
                            await h.increment("n")
                            done += 1
                        except HpkvError as e:
                            self.assertEqual("unknown", e.executed)
                            failed += 1
                        await asyncio.sleep(0.005)

                work = [loop.create_task(work()) for _ in range(20)]
                await asyncio.sleep(0.05)
                await loop.run_in_executor(None, restart, daemon)
                await asyncio.gather(*work)
                self.assertTrue(done <= int(await h.get("n")) <= done + failed)
                self.assertLess(failed, 40)

        with Sandbox() as sandbox, Daemon(sandbox) as daemon:
            daemon.wait_state("connected")
            play(run(daemon))

    def test_subscriptions_tell(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon:
            daemon.wait_state("connected")
            h = Client(daemon.socket, timeout=DEADLINE)
            h.set("s:k", "1")
            with h.subscribe("s:*") as pattern, h.subscribe("s:k") as key:
                restart(daemon)
                for events, last in ((pattern, lambda e: isinstance(e, Gap) and e.pattern == "s:*"),
                                     (key, lambda e: isinstance(e, Change) and e.value == "1" and e.initial)):
                    seen = [next(events)]
                    while not last(seen[-1]):
                        seen.append(next(events))
                    self.assertEqual([Connection(False, "daemon"), Connection(True, "daemon")],
                                     [e for e in seen if isinstance(e, Connection) and e.to == "daemon"])
                h.set("s:k", "2")
                self.assertEqual([("s:k", "2")] * 2, [next(e)[:2] for e in (pattern, key)])

    def test_a_mirror_in_a_fork_is_true_as_well(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon:
            daemon.wait_state("connected")
            h = Client(daemon.socket)
            h.set("m:1", "1")
            with Mirror("m:*", daemon.socket) as mirror:
                pid = os.fork()
                if not pid:
                    status = 1
                    try:
                        Client(daemon.socket).set("m:2", "2")
                        eventually(lambda: dict(mirror) == {"m:1": "1", "m:2": "2"} and not mirror.stale)
                        status = 0
                    finally:
                        os._exit(status)
                self.assertEqual(0, os.waitpid(pid, 0)[1])
                eventually(lambda: dict(mirror) == {"m:1": "1", "m:2": "2"} and not mirror.stale)
                h.set("m:3", "3")
                eventually(lambda: mirror.get("m:3") == "3")

    def test_mirrors_are_true_again(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon:
            daemon.wait_state("connected")
            h = Client(daemon.socket, timeout=DEADLINE)
            h.set("m:1", "1")
            h.set("m:2", "2")
            with Mirror("m:*", daemon.socket) as mirror:
                restart(daemon, lambda: eventually(lambda: mirror.stale))
                h.delete("m:1")
                h.set("m:3", "3")
                eventually(lambda: mirror.copy() == {"m:2": "2", "m:3": "3"} and not mirror.stale, mirror)
                sandbox.kill()
                eventually(lambda: mirror.stale)
                self.assertEqual("3", mirror["m:3"])
                sandbox.start() # empty
                eventually(lambda: mirror.copy() == {} and not mirror.stale, mirror)


class Lines(unittest.TestCase):
    """A daemon that does what a test says."""

    def both(self, script, call):
        """Plays it with both clients; call is given a function that makes a request."""
        for kind in ("plain", "asyncio"):
            with self.subTest(kind), FakeDaemon() as daemon:
                thread = threading.Thread(target=script, args=(daemon,), daemon=True)
                thread.start()
                if kind == "plain":
                    h = Client(daemon.path, timeout=20)
                    call(h.request)
                    h.close()
                else:
                    async def run():
                        async with AsyncClient(daemon.path, timeout=20) as h:
                            loop = asyncio.get_running_loop()
                            await loop.run_in_executor(
                                None, call, lambda r, t=None: asyncio.run_coroutine_threadsafe(h.request(r, t), loop).result(DEADLINE))
                    play(run())
                thread.join(DEADLINE)
                self.assertFalse(thread.is_alive())

    def fails(self, request, ask, code, reason, executed, timeout=None):
        with self.assertRaises(HpkvError) as caught:
            ask(request, timeout)
        e = caught.exception
        self.assertEqual((code, reason, executed), (e.code, e.reason, e.executed), e)

    def test_a_connection_that_is_lost(self):
        """A read is sent again, a write that was sent is not."""
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

        def call(ask):
            self.assertEqual("v", ask({"op": "get", "key": "k"})["value"])
            self.fails({"op": "set", "key": "k", "value": "v"}, ask, 504, "connection_lost", "unknown")
            ask({"op": "ping"})

        self.both(script, call)

    def test_a_daemon_that_ends(self):
        """What it has refused goes to its successor, a write as well."""
        def script(daemon):
            peer = daemon.accept()
            peer.reply(peer.line(), code=503, reason="shutting_down", executed="no", error="bye", retryAfterMs=1)
            peer.close()
            peer = daemon.accept()
            peer.reply(peer.line(), success=True)

        self.both(script, lambda ask: ask({"op": "set", "key": "k", "value": "v"}))

    def test_answers_are_read_though_sending_has_failed(self):
        """A daemon that ends reads no more, but has answered what it had read; what could not be sent goes to its successor."""
        async def run(daemon):
            loop = asyncio.get_running_loop()
            async with AsyncClient(daemon.path, timeout=DEADLINE) as h:
                first = asyncio.ensure_future(h.increment("k"))
                peer = await loop.run_in_executor(None, daemon.accept)
                request = await loop.run_in_executor(None, peer.line)
                second = asyncio.ensure_future(h.increment("k"))
                peer.reply(request, newValue=1)
                peer.sock.shutdown(socket.SHUT_RD)
                self.assertEqual(1, await first)
                peer.close()
                peer = await loop.run_in_executor(None, daemon.accept)
                peer.reply(await loop.run_in_executor(None, peer.line), newValue=2)
                self.assertEqual(2, await second)

        with FakeDaemon() as daemon:
            play(run(daemon))

    def test_a_daemon_that_ends_is_sent_nothing_more(self):
        """What comes behind a refusal might be lost with the connection."""
        async def run(daemon):
            loop = asyncio.get_running_loop()
            async with AsyncClient(daemon.path, timeout=DEADLINE) as h:
                first = asyncio.ensure_future(h.increment("k"))
                peer = await loop.run_in_executor(None, daemon.accept)
                request = await loop.run_in_executor(None, peer.line)
                peer.reply(request, code=503, reason="shutting_down", executed="no", error="bye", retryAfterMs=1)
                while not h._waiting:
                    await asyncio.sleep(0.001)
                second = asyncio.ensure_future(h.increment("k"))
                while len(h._waiting) < 2 and not second.done():
                    await asyncio.sleep(0.001)
                peer.close()
                peer = await loop.run_in_executor(None, daemon.accept)
                for number in 1, 2:
                    peer.reply(await loop.run_in_executor(None, peer.line), newValue=number)
                self.assertEqual([1, 2], await asyncio.gather(first, second))

        with FakeDaemon() as daemon:
            play(run(daemon))

    def test_no_answer_in_time(self):
        def script(daemon):
            peer = daemon.accept()
            peer.reply(peer.line(), message="pong")
            peer.line()

        def call(ask):
            ask({"op": "ping"}) # so there is a connection, and what follows is sent at once
            self.fails({"op": "set", "key": "k", "value": "v"}, ask, 504, "timeout", "unknown", 0.05)

        self.both(script, call)

    def test_lines_in_pieces(self):
        def script(daemon):
            peer = daemon.accept()
            request = peer.line()
            big = json.dumps({"code": 200, "key": "k", "value": "é" * 1000000, "messageId": request["messageId"]}).encode() + b"\n"
            for i in range(0, len(big), 77777):
                peer.send_raw(big[i:i + 77777])
            request = peer.line()
            peer.send_raw(b'{"code":200,"messageId":12345678}\n{"type":"unheard of"}\n')
            peer.reply(request, key="k", value=7)

        def call(ask):
            self.assertEqual("é" * 1000000, ask({"op": "get", "key": "k"})["value"])
            self.assertEqual(7, ask({"op": "get", "key": "k"})["value"])

        self.both(script, call)

    def test_answers_in_any_order(self):
        async def run(daemon):
            async with AsyncClient(daemon.path) as h:
                return await asyncio.gather(*(h.get(str(i)) for i in range(50)))

        with FakeDaemon() as daemon:
            def script():
                peer = daemon.accept()
                for request in reversed([peer.line() for _ in range(50)]):
                    peer.reply(request, key=request["key"], value=request["key"])
            thread = threading.Thread(target=script)
            thread.start()
            self.assertEqual([str(i) for i in range(50)], play(run(daemon)))
            thread.join()

    def test_a_request_that_is_cancelled(self):
        async def run(daemon):
            async with AsyncClient(daemon.path) as h:
                await h.ping() # so there is a connection, and what follows is sent at once
                with self.assertRaises(asyncio.TimeoutError):
                    await asyncio.wait_for(h.get("a"), 0.05)
                self.assertEqual({}, h._pending)
                return await h.get("b")

        with FakeDaemon() as daemon:
            def script():
                peer = daemon.accept()
                peer.reply(peer.line(), message="pong")
                requests = [peer.line(), peer.line()]
                for request in requests:
                    peer.reply(request, key="k", value=request["key"])
            thread = threading.Thread(target=script)
            thread.start()
            self.assertEqual("b", play(run(daemon)))
            thread.join()

    def test_one_that_is_closed_while_it_connects(self):
        """That attempt ends after the next one has begun; there is one connection then, and it can be closed."""
        async def run(daemon, is_over):
            h = AsyncClient(daemon.path)
            asks = [asyncio.ensure_future(h.get("a"))]
            while not h._connecting:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            asks.append(asyncio.ensure_future(h.get("b"))) # begins before the former attempt ends
            await h.close()
            await asyncio.sleep(0)
            asks.append(asyncio.ensure_future(h.get("c")))
            self.assertEqual(["b", "c"], (await asyncio.gather(*asks, return_exceptions=True))[1:])
            while h._connecting:
                await asyncio.sleep(0)
            await h.close()
            await asyncio.get_running_loop().run_in_executor(None, eventually, is_over, "all connections are closed")

        with FakeDaemon() as daemon:
            def serve():
                with contextlib.suppress(OSError):
                    while True:
                        peer = daemon.accept()
                        served.append(threading.Thread(target=answer_all, args=(peer,), daemon=True))
                        served[-1].start()

            def answer_all(peer):
                with contextlib.suppress(AssertionError, OSError):
                    while True:
                        request = peer.line()
                        peer.reply(request, key=request["key"], value=request["key"])
            served = []
            threading.Thread(target=serve, daemon=True).start()
            play(run(daemon, lambda: not any(thread.is_alive() for thread in served)))

    def test_a_reader_that_is_slow(self):
        """It reads no more than is asked for, so the daemon holds the rest; what was skipped is told."""
        with FakeDaemon() as daemon:
            def script(peers):
                peer = daemon.accept()
                peers.append(peer)
                peer.send({"code": 200, "messageId": peer.line()["messageId"]})
            peers = []
            thread = threading.Thread(target=script, args=(peers,))
            thread.start()
            events = Client(daemon.path).subscribe("a:*")
            thread.join()
            peers[0].sock.settimeout(0.5)
            line = json.dumps({"type": "notification", "key": "a:1", "value": "x" * 1000, "timestamp": 1, "skipped": 3}).encode() + b"\n"
            sent = 0
            with self.assertRaises(TimeoutError):
                for _ in range(100000):
                    peers[0].sock.sendall(line)
                    sent += 1
            self.assertLess(sent * len(line), 10 << 20)
            self.assertEqual(3, next(events).skipped)
            events.close()

    def follow(self, run):
        """A subscription whose daemon tells of a change, ends, and is there again; run(daemon, end) returns the events, with a time by
        which it had not ended: its end comes when end() is called, and some time has passed then."""
        with FakeDaemon() as daemon:
            over, ended = threading.Event(), threading.Event()

            def script():
                peer = daemon.accept()
                peer.send({"code": 200, "messageId": peer.line()["messageId"]}, {"type": "notification", "key": "a:1", "value": "x"})
                over.wait(DEADLINE)
                peer.close()
                at = time.time()
                while time.time() < at + 0.02:
                    pass
                ended.set()
                peer = daemon.accept()
                peer.send({"code": 200, "messageId": peer.line()["messageId"]})

            def end():
                before = int(time.time() * 1000)
                over.set()
                self.assertTrue(ended.wait(DEADLINE))
                return before
            thread = threading.Thread(target=script)
            thread.start()
            events, before = run(daemon, end)
            thread.join(DEADLINE)
            self.assertEqual([Change, Connection, Connection, Gap], [type(e) for e in events])
            self.assertLessEqual(events[-1].since, before)
            self.assertGreater(events[-1].since, before - 60000)

    def test_a_gap_begins_when_the_daemon_was_last_heard(self):
        """And not when a program, which had other things to do, notices the loss."""
        def plain(daemon, end):
            with Client(daemon.path).subscribe("a:*") as events:
                seen = [next(events)]
                before = end()
                return seen + [next(events) for _ in range(3)], before

        async def run(daemon, end):
            async with await AsyncClient(daemon.path).subscribe("a:*") as events:
                seen = [await events.__anext__()]
                before = end() # the loop stands still
                return seen + [await events.__anext__() for _ in range(3)], before

        self.follow(plain)
        self.follow(lambda daemon, end: play(run(daemon, end)))

    def test_the_rules_end_a_subscription(self):
        with FakeDaemon() as daemon:
            def script():
                peer = daemon.accept()
                peer.send({"code": 200, "messageId": peer.line()["messageId"]})
                peer.send({"type": "gap", "key": "k"}, {"type": "unsubscribed", "key": "k", "reason": "forbidden"})
            thread = threading.Thread(target=script)
            thread.start()
            events = Client(daemon.path).subscribe("k")
            self.assertEqual([Gap(key="k"), Ended("k", None, "forbidden")], list(events))
            thread.join()

    def test_a_mirror_reads_what_has_changed(self):
        """A notification may carry a part of the value; what is read counts, and pages that are older do not."""
        with FakeDaemon() as daemon:
            def script():
                peer = daemon.accept()
                peer.reply(peer.line())
                page = peer.line()
                peer.send({"type": "notification", "key": "a:1", "value": "a part", "timestamp": 1})
                get = peer.line()
                peer.reply(get, key="a:1", value="all of it")
                peer.reply(page, records=[{"key": "a:1", "value": "old"}, {"key": "a:2", "value": "2"}], count=2, truncated=False)
                peers.append(peer)
            peers = []
            thread = threading.Thread(target=script)
            thread.start()
            with Mirror("a:*", daemon.path) as mirror:
                thread.join()
                self.assertEqual({"a:1": "all of it", "a:2": "2"}, dict(mirror))
                peers[0].send({"type": "gap", "pattern": "a:*"})
                page = peers[0].line()
                self.assertEqual("range", page["op"])
                self.assertTrue(mirror.stale)
                peers[0].reply(page, records=[{"key": "a:2", "value": "3"}], count=1, truncated=False)
                eventually(lambda: mirror.copy() == {"a:2": "3"} and not mirror.stale)
                peers[0].send({"type": "unsubscribed", "pattern": "a:*", "reason": "forbidden"})
                eventually(lambda: mirror.error)
                self.assertEqual((403, True), (mirror.error.code, mirror.stale))


    def test_a_client_is_closed_by_another_thread(self):
        """Requests that are under way or wait for their turn end at once; the next one makes another connection."""
        with FakeDaemon() as daemon:
            h, failed = Client(daemon.path), []

            def work(op):
                try:
                    h.request({"op": op, "key": "k"})
                except HpkvError as e:
                    failed.append((op, e.reason, e.executed))

            threads = [threading.Thread(target=work, args=("set",))]
            threads[0].start()
            peer = daemon.accept()
            peer.line()
            threads.append(threading.Thread(target=work, args=("get",)))
            threads[1].start()
            eventually(lambda: threads[1].is_alive() and h._lock.locked())
            time.sleep(0.1) # the second waits for its turn; if it does not yet, the test sees less
            h.close()
            for thread in threads:
                thread.join(DEADLINE)
            self.assertIn(("set", "closed", "unknown"), failed)
            self.assertLessEqual(set(failed), {("set", "closed", "unknown"), ("get", "closed", "no")})
            h.close()

    def test_one_that_waits_for_its_daemon_is_closed(self):
        with FakeDaemon() as daemon:
            def script():
                peer = daemon.accept()
                peer.reply(peer.line(), message="pong")
            threading.Thread(target=script, daemon=True).start()
            h, failed = Client(daemon.path, timeout=600), []
            h.ping()
            daemon.stop()

            def work():
                try:
                    h.get("k")
                except HpkvError as e:
                    failed.append((e.reason, e.executed))
            threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
            for thread in threads:
                thread.start()
            eventually(lambda: h._lock.locked() and not h._line)
            threading.Thread(target=h.close, daemon=True).start()
            for thread in threads:
                thread.join(DEADLINE)
            self.assertEqual([("closed", "no")] * 2, failed)

    def in_a_fork(self, run):
        """What it returns, as JSON."""
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.write(write, json.dumps(run()).encode())
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as file:
            said = file.read()
        os.waitpid(pid, 0)
        return json.loads(said or "null")

    def test_a_fork_while_a_thread_is_in_a_request(self):
        with FakeDaemon() as daemon, Client(daemon.path) as h:
            thread = threading.Thread(target=lambda: h.get("parent", None), daemon=True)
            thread.start()
            peer = daemon.accept()
            request = peer.line()

            def answer():
                other = daemon.accept()
                other.reply(other.line(), key="child", value="v")

            answering = threading.Thread(target=answer, daemon=True)
            answering.start()
            signal.alarm(DEADLINE)
            self.assertEqual("v", self.in_a_fork(lambda: h.get("child")))
            signal.alarm(0)
            peer.reply(request, key="parent", value="v")
            thread.join(DEADLINE)
            self.assertFalse(thread.is_alive())
            answering.join(DEADLINE)

    def test_a_subscription_in_a_fork_is_another_one(self):
        def accepted(daemon):
            peer = daemon.accept()
            peer.send({"code": 200, "messageId": peer.line()["messageId"]})
            return peer

        with FakeDaemon() as daemon:
            peers = []
            thread = threading.Thread(target=lambda: peers.append(accepted(daemon)))
            thread.start()
            events = Client(daemon.path).subscribe("a:*")
            thread.join()
            thread = threading.Thread(target=lambda: peers.append(accepted(daemon)))
            thread.start()

            def child():
                seen = [type(next(events)).__name__ for _ in range(3)]
                events.close()
                return seen

            self.assertEqual(["Connection", "Connection", "Gap"], self.in_a_fork(child))
            thread.join()
            peers[0].send({"type": "notification", "key": "a:1", "value": "v", "timestamp": 1})
            self.assertEqual(Change("a:1", "v", 1), next(events))
            events.close()

    def test_a_loop_that_is_left_early_unsubscribes(self):
        def script(daemon, peers):
            peer = daemon.accept()
            peer.send({"code": 200, "messageId": peer.line()["messageId"]}, {"type": "notification", "key": "a", "value": "v", "timestamp": 1})
            peers.append(peer)

        def plain(path):
            for _ in Client(path).subscribe("a"):
                break

        async def run(path, gone):
            async for _ in await AsyncClient(path).subscribe("a"):
                break
            await asyncio.get_running_loop().run_in_executor(None, gone.wait, DEADLINE)

        for kind in ("plain", "asyncio"):
            with self.subTest(kind), FakeDaemon() as daemon, warnings.catch_warnings():
                warnings.simplefilter("error")
                peers, gone = [], threading.Event()
                thread = threading.Thread(target=script, args=(daemon, peers))
                thread.start()
                if kind == "plain":
                    plain(daemon.path)
                    thread.join()
                    self.assertTrue(peers[0].at_end())
                else:
                    looping = threading.Thread(target=play, args=(run(daemon.path, gone),))
                    looping.start()
                    thread.join()
                    ended = peers[0].at_end() # while the event loop still runs
                    gone.set()
                    looping.join()
                    self.assertTrue(ended)

    def test_one_event_loop_after_another(self):
        async def ask(h):
            return await h.get("k")

        def script(daemon):
            for value in ("1", "2"):
                peer = daemon.accept()
                peer.reply(peer.line(), key="k", value=value)

        with FakeDaemon() as daemon:
            thread = threading.Thread(target=script, args=(daemon,))
            thread.start()
            h = AsyncClient(daemon.path)
            self.assertEqual(["1", "2"], [play(ask(h)), play(ask(h))])
            play(h.close())
            thread.join()

            async def from_another():
                with self.assertRaises(RuntimeError):
                    await asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(ask(other)))

            other = AsyncClient(daemon.path)

            async def two():
                task = asyncio.ensure_future(ask(other))
                await asyncio.sleep(0)
                await from_another()
                task.cancel()

            play(two())

    def test_a_read_that_is_never_answered_was_not_executed(self):
        def script(daemon):
            with contextlib.suppress(OSError, AssertionError):
                while True:
                    peer = daemon.accept()
                    peer.line()
                    peer.close()

        with FakeDaemon() as daemon:
            threading.Thread(target=script, args=(daemon,), daemon=True).start()
            with self.assertRaises(HpkvError) as caught:
                Client(daemon.path, timeout=0.5).get("k")
            self.assertEqual((504, "connection_lost", "no"), (caught.exception.code, caught.exception.reason, caught.exception.executed))

    def test_a_mirror_of_lines_that_are_none_of_the_daemon(self):
        with FakeDaemon() as daemon:
            def script():
                peer = daemon.accept()
                peer.reply(peer.line())
                peer.reply(peer.line(), records=[{"key": "a:1", "value": "1"}], count=1, truncated=False)
                peers.append(peer)
            peers = []
            thread = threading.Thread(target=script)
            thread.start()
            with Mirror("a:*", daemon.path) as mirror:
                thread.join()
                self.assertFalse(mirror.stale)
                peers[0].send({"type": "notification"})
                eventually(lambda: mirror.stale and mirror.error)
                self.assertEqual((502, {"a:1": "1"}), (mirror.error.code, dict(mirror)))

    def test_errors_pass_between_processes(self):
        error = HpkvError("words", 504, "timeout", "unknown", 1.5)
        other = pickle.loads(pickle.dumps(error))
        self.assertEqual((str(error), 504, "timeout", "unknown", 1.5),
                         (str(other), other.code, other.reason, other.executed, other.retry_after))


class Package(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="hpkv-test-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        shutil.copytree(PACKAGE, self.folder + "/python", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
        for path, _, names in os.walk(self.folder): # the sources may be read-only
            for name in [path, *(os.path.join(path, n) for n in names)]:
                os.chmod(name, 0o755)

    def test_a_wheel_is_built_and_installed(self):
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
        if any(subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, check=False).returncode for name in ("pip", "setuptools", "wheel")):
            raise unittest.SkipTest("there is no pip, setuptools or wheel")
        subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", self.folder, self.folder + "/python"], check=True,
                       capture_output=True)
        wheel, = glob.glob(self.folder + "/hpkvd-*-py3-none-any.whl")
        subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", self.folder + "/site", wheel], check=True, capture_output=True)
        code = "import hpkvd, os; print(hpkvd.__version__, os.path.exists(os.path.join(os.path.dirname(hpkvd.__file__), 'py.typed')))"
        out = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": self.folder + "/site"}, cwd="/", capture_output=True,
                             text=True, check=True)
        self.assertEqual(f"{hpkvd.__version__} True\n", out.stdout)

    def test_types(self):
        if subprocess.run([sys.executable, "-m", "mypy", "--version"], capture_output=True, check=False).returncode:
            raise unittest.SkipTest("there is no mypy")
        out = subprocess.run([sys.executable, "-m", "mypy", "--cache-dir", self.folder + "/cache", "hpkvd"], cwd=self.folder + "/python",
                             capture_output=True, text=True, check=False)
        self.assertEqual(0, out.returncode, out.stdout)

    def test_the_linter(self):
        if not shutil.which("pyflakes3"):
            raise unittest.SkipTest("there is no pyflakes3")
        files = [path for part in ("bindings/python", "examples", "tests/bindings", "tests/cli")
                 for path in glob.glob(f"{ROOT}/{part}/**/*.py", recursive=True)]
        self.assertIn(PACKAGE + "/hpkvd/_wire.py", files)
        out = subprocess.run(["pyflakes3", *files], capture_output=True, text=True, check=False)
        self.assertEqual((0, ""), (out.returncode, out.stdout + out.stderr))

    def test_every_public_name_has_a_word(self):
        missing = [name for name in hpkvd.__all__ if name != "Event" and name != "Json" and not getattr(hpkvd, name).__doc__]
        self.assertEqual([], missing)


if __name__ == "__main__":
    unittest.main()
