"""Two daemons under everything at once, for as long as it is told to; tests/soak is the command for that.

The first daemon lives from the beginning to the end: a bad network and bad manners (fault_proxy.py), reloads, a cache and a mirror, lines,
HTTP, WebSocket and events, slow readers, and a service that is killed and comes back empty. The second one is restarted all the time,
orderly and by SIGKILL (test_chaos_restarts.py). Both play in rounds. At the end of each, all that was asked and told is compared with what the service has done
(history.py), then each daemon is idle for a while and is measured: memory, descriptors, CPU. None of these may grow from round to round.

Environment: SOAK_SECONDS, how long it takes; SOAK_ROUND_SECONDS, how long the faults of a round last; HPKVD_CHAOS_SEED."""

import asyncio
import base64
import contextlib
import json
import os
import re
import statistics
import sys
import time

import test_chaos_restarts
from fault_proxy import FaultProxy, Manners
from harness import KEY, Case, Daemon, Sandbox, eventually, free_port, sanitized
from test_chaos import SEED, Administrator, Chaos, Observer, Subscriber, Talker, Worker, until
from test_chaos_restarts import ChaosOfRestarts
from wsproto.frame_protocol import FrameProtocol, Opcode

SECONDS = float(os.environ.get("SOAK_SECONDS", "6"))
ROUND_S = float(os.environ.get("SOAK_ROUND_SECONDS", "40"))
IDLE_S = 4 if SECONDS > ROUND_S else 1
WARM_UP = 3 # rounds in which memory may grow: pools and tables find their size
LOCAL_KEY = "a-local-key-that-must-not-be-shown"
SLACK = 1.05
IDLE_CPU = 0.01 # of a processor; keepalive pings each second, and tokens last for six


class Door(Daemon):
    """One with a cache, and HTTP on TCP."""

    def __init__(self, service, **settings):
        self.port = free_port()
        super().__init__(service, http_address=f"127.0.0.1:{self.port}", local_key_file="local-key", level="notice", combine="gets",
                         keys="own:* ctr:* app:* fat:*", mirror="all:*", memory="1M", max_age="5s", output_soft="16K", **settings)
        self._write_file("local-key", LOCAL_KEY + "\n")

    async def http(self):
        return await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)


# ---- clients of the other doors ----


async def read_all(talker):
    """To the end of its connection, which is not to come before it leaves."""
    faults = talker.chaos.history.faults
    try:
        await talker._read()
    except Exception as error: # whatever a line is that is none
        faults.append(f"{talker.name}: {error!r}")
    if not talker.left and talker.watched:
        faults.append(f"{talker.name}: the connection was closed")


class HttpTalker(Talker):
    """Asks by REST over TCP, and sends ahead: responses come in the order of the requests."""

    async def open(self):
        self.reader, self.writer = await self.chaos.daemon.http()
        self.task = asyncio.ensure_future(read_all(self))
        return self

    def ask(self, op, key=None, value=None, with_id=True, **more):
        asked = None
        line = self.writer

        class Captured: # what a talker would write, as the request that says the same
            @staticmethod
            def write(data):
                line.write(self.request(json.loads(data)))

        self.writer = Captured
        try:
            asked = super().ask(op, key, value, False, **more)
        finally:
            self.writer = line
        return asked

    @staticmethod
    def request(obj):
        key = "".join(f"%{byte:02X}" for byte in obj.get("key", "").encode())
        query = f"?timeoutMs={obj['timeoutMs']}" if "timeoutMs" in obj else ""
        method, target, body = {
            "get": ("GET", f"/record/{key}{query}", None),
            "delete": ("DELETE", f"/record/{key}{query}", None),
            "ping": ("GET", "/hpkvd/stats", None),
            "range": ("GET", f"/records?startKey={key}&endKey={obj.get('endKey')}{query.replace('?', '&')}", None),
            "set": ("POST", f"/record{query}", {"key": obj.get("key"), "value": obj.get("value")}),
            "patch": ("POST", f"/record{query}", {"key": obj.get("key"), "value": obj.get("value"), "partialUpdate": True}),
            "increment": ("POST", f"/record/atomic{query}", {"key": obj.get("key"), "increment": obj.get("value")}),
        }[obj["op"]]
        text = json.dumps(body).encode() if body else b""
        more = f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n" if body else ""
        return f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nx-api-key: {LOCAL_KEY}\r\n{more}\r\n".encode() + text

    async def _read(self):
        try:
            while True:
                head = await self.reader.readuntil(b"\r\n\r\n")
                body = await self.reader.readexactly(int(re.search(rb"\r\ncontent-length: (\d+)", head, re.I)[1]))
                answer = {"code": int(head[9:12])} | json.loads(body)
                self._line(answer | {"message": "pong"} if "stats" in answer else answer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        if not self.left and self.unanswered():
            self.chaos.history.faults.append(f"{self.name}: the connection was closed with {self.unanswered()} unanswered")


class WebSocketLines:
    """A WebSocket as a reader and a writer of lines."""

    def __init__(self, reader, writer):
        self.reader, self.writer, self.transport = reader, writer, writer.transport
        self.protocol = FrameProtocol(client=True, extensions=[])
        self.lines, self.text = [], ""

    def write(self, line):
        self.writer.write(self.protocol.send_data(line.decode().rstrip("\n")))

    async def readline(self):
        while not self.lines:
            if not (data := await self.reader.read(1 << 16)):
                return b""
            self.protocol.receive_bytes(data)
            for frame in self.protocol.received_frames():
                if frame.opcode == Opcode.PING:
                    self.writer.write(self.protocol.pong(bytes(frame.payload)))
                elif frame.opcode == Opcode.TEXT:
                    self.text += frame.payload
                    if frame.frame_finished and frame.message_finished:
                        self.lines.append(self.text.encode())
                        self.text = ""
        return self.lines.pop(0)


async def open_websocket(talker):
    reader, writer = await talker.chaos.daemon.http()
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write((f"GET /ws?apiKey={LOCAL_KEY} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 101 " in head, head
    talker.reader = talker.writer = WebSocketLines(reader, writer)
    talker.task = asyncio.ensure_future(read_all(talker))
    return talker


class WebSocketTalker(Talker):
    async def open(self):
        return await open_websocket(self)


class WebSocketSubscriber(Subscriber):
    async def open(self):
        return await open_websocket(self)


class EventSubscriber(Subscriber):
    """Server-sent events."""

    async def open(self):
        self.reader, self.writer = await self.chaos.daemon.http()
        return self

    async def change(self, op, names, **more):
        query = "&".join(f"{'pattern' if name[-1] == '*' else 'key'}={name}" for name in names)
        self.writer.write(f"GET /hpkvd/watch?{query} HTTP/1.1\r\nHost: localhost\r\nx-api-key: {LOCAL_KEY}\r\n\r\n".encode())
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head, head
        self.watched.lines.append({"type": "live", "patterns": names, "at": time.monotonic()})
        self.task = asyncio.ensure_future(read_all(self))

    async def _read(self):
        with contextlib.suppress(OSError):
            while line := await self.reader.readline():
                if line.startswith(b"data: "):
                    self._line(json.loads(line[6:]))


class SlowSubscriber(Subscriber):
    """One that sleeps over its lines, long enough for all buffers to fill."""

    SLEEPS_S = 20
    LINES = 200 # between two sleeps

    async def open(self):
        self.reader, self.writer = await asyncio.open_unix_connection(self.chaos.daemon.socket, limit=1 << 12)
        self.task = asyncio.ensure_future(read_all(self))
        return self

    async def _read(self):
        rest, count = b"", self.LINES // 2
        with contextlib.suppress(OSError):
            while data := await self.reader.read(1 << 12):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._line(json.loads(line))
                count += len(lines)
                if count >= self.LINES:
                    count = 0
                    await self._sleep()

    async def _sleep(self):
        end = time.monotonic() + self.SLEEPS_S
        while self.chaos.storming and time.monotonic() < end:
            await asyncio.sleep(0.1)


class HttpWorker(Worker):
    TALKER = HttpTalker


class WebSocketWorker(Worker):
    TALKER = WebSocketTalker

    async def end(self):
        if self.chaos.storming and self.dice.random() < 0.5:
            self.talker.close()
        else:
            await self.talker.all_answered()
            self.talker.close()


class Fat:
    """Writes long values, so that slow readers are slow."""

    def __init__(self, chaos, number):
        self.chaos, self.name, self.appends = chaos, f"fat{number}", 0

    async def run(self):
        talker = await Talker(self.chaos, self.name).open()
        while self.chaos.storming:
            talker.ask("set", f"fat:{talker.number % 8}", f"{self.name}.{talker.number}".ljust(2900, "."))
            await until(lambda: talker.unanswered() < 32, "answers of fat values")
            await asyncio.sleep(0.01)
        await talker.all_answered()
        talker.close()


# ---- the daemon that lives ----


class Life(Chaos):
    async def begin(self):
        await super().begin()
        for subscriber, topics in ((EventSubscriber(self, "events", from_start=True), ["all:*", "ctr:*", "app:*"]),
                                   (WebSocketSubscriber(self, "websocket", from_start=True), ["all:*", "fat:*"]),
                                   (SlowSubscriber(self, "slow", from_start=True), ["fat:*", "app:*", "all:*"]),
                                   (SlowSubscriber(self, "slow too", from_start=True), ["fat:*"])):
            await subscriber.open()
            await subscriber.change("subscribe", topics)
            self.watchers.append(subscriber)

    def workers(self):
        kinds = (Worker, Worker, Worker, HttpWorker, WebSocketWorker)
        return [*(kinds[n % len(kinds)](self, n) for n in range(10)), Fat(self, 0)]


def measure(daemon):
    """What an idle daemon holds, and what it does."""
    def cpu_s():
        with open(f"/proc/{daemon.pid}/schedstat", encoding="ascii") as f:
            return int(f.read().split()[0]) / 1e9

    before, wakeups = cpu_s(), daemon.process.wakeups()
    time.sleep(IDLE_S)
    folder = f"/proc/{daemon.pid}/fd"
    return {"memory": daemon.process.resident_bytes() >> 10, "descriptors": len(os.listdir(folder)) if os.access(folder, os.R_OK) else 0,
            "cpu": (cpu_s() - before) / IDLE_S, "wakeups": (daemon.process.wakeups() - wakeups) / IDLE_S}


class Scene:
    """A service, a bad network and a daemon, for many rounds."""

    def __init__(self, stack, name, chaos, *options, delay_ms, token_ttl_s, **settings):
        self.name, self.chaos_class = name, chaos
        self.sandbox = stack.enter_context(Sandbox("--api-key", Observer.KEY, *options))
        self.proxy = stack.enter_context(FaultProxy(self.sandbox, delay_ms=delay_ms, token_ttl_s=token_ttl_s))
        self.daemon = stack.enter_context(Door(self.proxy, **settings))
        self.figures, self.requests, self.lines = [], 0, 0

    async def new_service(self):
        """It is killed, and comes back empty."""
        lanes = len(self.proxy.lanes)
        await asyncio.to_thread(self.sandbox.kill)
        await asyncio.to_thread(self.sandbox.process.close)
        await asyncio.to_thread(self.sandbox.start)
        await until(lambda: len(self.proxy.lanes) > lanes and len(self.proxy.open_lanes()) == 1, f"a connection to the next service of {self.name}")
        await asyncio.to_thread(self.daemon.wait_state, "connected")

    async def round(self, number):
        del self.proxy.lanes[:]
        await self.new_service()
        chaos = self.chaos_class(f"{SEED}/{number}", self.sandbox, self.proxy, self.daemon)
        await self.play(chaos, number)
        self.requests += chaos.requests
        self.lines += sum(len(watcher.lines) for watcher in chaos.history.watchers)
        await self.calm()
        self.figures.append(await asyncio.to_thread(measure, self.daemon))

    async def calm(self):
        """Nobody is there, nothing is remembered of who was."""
        def others():
            with self.daemon.client() as client:
                status = client.ask({"op": "status", "top": True})
            return "" if status["clients"] == 1 and not status["subscriptions"]["total"] and status["upstream"]["state"] == "connected" else status

        try:
            await asyncio.to_thread(eventually, lambda: not others(), f"{self.name} alone")
        except AssertionError:
            self.daemon.log()
            raise AssertionError(f"somebody has stayed with {self.name}: {others()}") from None
        await until(lambda: len(self.proxy.open_lanes()) == 1, f"one connection of {self.name}")

    async def play(self, chaos, number):
        await chaos.play()


class Living(Scene):
    async def play(self, chaos, number):
        await chaos.begin()
        fickle = []
        try:
            faults = Manners.FAULTS | (Manners.REFUSE if number % 2 else {})
            fickle = await chaos.storm(f"r{number}", min(SECONDS, ROUND_S), faults, 1)
            await chaos.settle()
            await chaos.check()
        finally:
            for client in fickle:
                client.close()
            chaos.end()


class Soak(Case):
    def assert_flat(self, scene):
        """From the end of the warm-up on: the medians of the first and of the last third."""
        figures = scene.figures[WARM_UP:]
        third = max(1, len(figures) // 3)
        if len(figures) < 3:
            return
        def medians(name):
            return [statistics.median(f[name] for f in part) for part in (figures[:third], figures[-third:])]

        begin, end = medians("memory")
        print(f"{scene.name}: memory {begin:.0f} -> {end:.0f} KiB ({100 * (end - begin) / begin:+.1f} %)", file=sys.stderr, flush=True)
        if not sanitized(): # whose allocator keeps what is freed
            self.assertLessEqual(end, begin * SLACK, f"the memory of {scene.name} grows: {figures}")
        begin, end = medians("descriptors")
        self.assertLessEqual(end, begin + 1, f"the descriptors of {scene.name}: {figures}") # one may be libcurl's, for tokens

    def show(self, number, scene):
        f = scene.figures[-1]
        print(f"round {number} {scene.name}: {scene.requests} requests, {scene.lines} lines so far; {f['memory']} KiB, {f['descriptors']} descriptors, "
              f"idle {100 * f['cpu']:.2f} % of a processor, {f['wakeups']:.0f} wakeups/s", file=sys.stderr, flush=True)

    async def play(self, scenes):
        test_chaos_restarts.SECONDS = min(SECONDS, ROUND_S)
        began, number = time.monotonic(), -1
        while number < 0 or time.monotonic() + ROUND_S < began + SECONDS:
            number += 1
            await asyncio.gather(*(scene.round(number) for scene in scenes))
            for scene in scenes:
                self.show(number, scene)
                if not sanitized():
                    self.assertLess(scene.figures[-1]["cpu"], IDLE_CPU if SECONDS > ROUND_S else 0.1)
        living = scenes[0]
        stats = await asyncio.to_thread(living.daemon.stats)
        wanted = ("upstream_disconnects", "upstream_handovers", "cache_hits", "notifications_conflated", "resyncs")
        print({name: stats[name] for name in wanted}, file=sys.stderr, flush=True)
        if SECONDS >= 30: # or else it would prove nothing
            self.assertEqual([], [name for name in wanted if not stats[name]])
        for scene in scenes:
            self.assert_flat(scene)

    def test_everything_for_a_while(self):
        print(f"HPKVD_CHAOS_SEED={SEED} SOAK_SECONDS={SECONDS:g} SOAK_ROUND_SECONDS={ROUND_S:g}", file=sys.stderr, flush=True)
        with contextlib.ExitStack() as stack:
            living = Living(stack, "the living daemon", Life, "--api-key", Administrator.KEYS[1], "--rate", "1000", delay_ms=10, token_ttl_s=6,
                            request_timeout="2s", connect_timeout="700ms", keepalive="1s", backoff_min="10ms", backoff_max="300ms",
                            token_lifetime="6s", max_in_flight=64)
            restarted = Scene(stack, "the restarted daemon", ChaosOfRestarts, delay_ms=20, token_ttl_s=60, request_timeout="20s",
                              backoff_min="5ms", backoff_max="50ms", max_in_flight=64)
            for scene in (living, restarted):
                scene.daemon.wait_state("connected")
            asyncio.run(self.play((living, restarted)))
            assert KEY.encode() not in living.daemon.log() + restarted.daemon.log()
