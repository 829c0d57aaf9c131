"""Everything goes wrong for a while, and every promise of doc/protocol.md is kept.

Clients of all kinds, the sandbox with a rate limit, and between them a proxy that plays the bad network and the service
with bad manners, whose tokens expire soon (fault_proxy.py). Then the faults end, and all that was asked and told is
compared with what the service has done (history.py); the daemon has nothing left to do and does nothing.

Environment: CHAOS_SECONDS, how long the faults last, in two rounds: the second one adds refusals by a rate limit;
HPKVD_CHAOS_SEED, to see the same faults and the same requests again. The seed is printed at the beginning."""

import asyncio
import collections
import http.client
import json
import os
import random
import ssl
import sys
import time

from wsproto.frame_protocol import FrameProtocol, Opcode

from fault_proxy import FaultProxy, Manners, Network, open_service
from harness import DEADLINE, KEY, Case, Daemon, Sandbox, certs, eventually, mebibytes, sanitized
from history import Arrival, Asked, History, Watched

SECONDS = float(os.environ.get("CHAOS_SECONDS", "60"))
SEED = os.environ.get("HPKVD_CHAOS_SEED") or str(random.SystemRandom().randrange(1 << 32))

WORKERS = 18
UNANSWERED_MAX = 64
TOKEN_TTL_S = 6
DELAY_MS = 10 # of what the service says, so that something is always on its way
RATE = 1000 # requests/s that the sandbox lets hpkvd have
TIMEOUT_MS = 2000
KEYS = {kind: [f"{kind}:{n}" for n in range(count)] for kind, count in (("all", 6), ("ctr", 3), ("once", 40))}
OPS = {1: "get", 2: "set", 3: "patch", 4: "delete", 6: "increment"}
# Counters of the daemon: those that can't stay 0, and others that tell what has happened.
HAPPENS = ("upstream_disconnects", "upstream_handovers", "upstream_late", "requests_resent", "requests_outcome_unknown",
           "requests_timeout", "requests_unsent", "gaps", "resyncs", "cache_hits", "cache_misses", "cache_invalidations")
MAY_HAPPEN = ("upstream_refused", "upstream_doubles", "cache_rereads", "combined")
IDLE_S = 2
BEAT_S = 0.01
WAKEUPS_PER_S = 50 # keepalive and the renewal of tokens need a few


async def until(probe, what):
    """As eventually(), without stopping everything else."""
    end = time.monotonic() + DEADLINE
    while not (result := probe()):
        assert time.monotonic() < end, f"{what} has not come true within {DEADLINE} s: {result!r}"
        await asyncio.sleep(0.02)
    return result


# ---- the truth ----


class Ear:
    """A connection to the service with a token for everything."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.protocol = FrameProtocol(client=True, extensions=[])
        self.heard = []
        self.task = asyncio.ensure_future(self._run())

    async def _run(self):
        text = ""
        while data := await self.reader.read(1 << 16):
            self.protocol.receive_bytes(data)
            for frame in self.protocol.received_frames():
                if frame.opcode == Opcode.PING:
                    self.writer.write(self.protocol.pong(bytes(frame.payload)))
                elif frame.opcode == Opcode.TEXT:
                    text += frame.payload
                    if frame.frame_finished and frame.message_finished:
                        self.heard.append(json.loads(text))
                        text = ""

    def find(self, key):
        return next((i + 1 for i, n in enumerate(self.heard) if n["key"] == key), 0)

    def close(self):
        self.task.cancel()
        self.writer.transport.abort()


class Observer:
    """Hears every change, in the order in which the service makes them; a key of its own shows how far."""

    KEY = "observer"

    def __init__(self, sandbox, history):
        self.sandbox, self.history = sandbox, history
        self.marks = 0
        self.ear = None

    def post(self, path, body):
        context = ssl.create_default_context(cafile=certs() + "/ca.pem")
        connection = http.client.HTTPSConnection("localhost", self.sandbox.port, context=context, timeout=DEADLINE)
        try:
            connection.request("POST", path, json.dumps(body), {"x-api-key": self.KEY, "Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, (answer.status, text)
            return json.loads(text)
        finally:
            connection.close()

    async def listen(self):
        token = (await asyncio.to_thread(self.post, "/token/websocket", {"subscribePatterns": ["*"]}))["token"]
        reader, writer = await open_service(self.sandbox)
        writer.write((f"GET /ws?token={token} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head, head
        return Ear(reader, writer)

    async def begin(self):
        self.ear = await self.listen()

    async def catch_up(self):
        """The truth is complete up to now, and stays so until this is called again."""
        self.marks += 1
        key = f"mark:{self.marks}"
        await asyncio.to_thread(self.post, "/record", {"key": key, "value": "x"})
        end = await until(lambda: self.ear.find(key), "the observer's mark")
        for change in self.ear.heard[:end]:
            self.history.truth[change["key"]].append(change["value"])
        del self.ear.heard[:end]


# ---- clients ----


class Talker:
    """A connection to hpkvd: asks, and sees that each request has one answer, which fits."""

    def __init__(self, chaos, name):
        self.chaos, self.name = chaos, name
        self.number = 0
        self.named, self.unnamed = {}, collections.deque()
        self.left = False
        self.watched = None

    async def open(self):
        self.reader, self.writer = await asyncio.open_unix_connection(self.chaos.daemon.socket, limit=1 << 22)
        self.task = asyncio.ensure_future(self._read())
        return self

    def unanswered(self):
        return len(self.named) + len(self.unnamed)

    def ask(self, op, key=None, value=None, with_id=True, **more):
        self.number += 1
        asked = Asked(self.name, self.number, op, key, value, self.number if with_id else None, time.monotonic())
        request = {"op": op, **({"key": key} if key is not None else {}), **more}
        if value is not None:
            request["endKey" if op == "range" else "value"] = value
        if with_id:
            request["messageId"] = self.number
            self.named[self.number] = asked
        else:
            self.unnamed.append(asked)
        self.chaos.history.add(asked)
        self.chaos.requests += 1
        self.writer.write(json.dumps(request).encode() + b"\n")
        return asked

    async def _read(self):
        try:
            while line := await self.reader.readline():
                self._line(json.loads(line))
        except OSError:
            pass # it was closed by us, while the daemon had something to say
        if not self.left and self.unanswered():
            self.chaos.history.faults.append(f"{self.name}: the connection was closed with {self.unanswered()} unanswered")

    def _line(self, line):
        if "type" in line:
            if self.watched:
                self.watched.lines.append(line)
            else:
                self.chaos.history.faults.append(f"{self.name} is no subscriber, and is told {line}")
            return
        asked = self.named.pop(line["messageId"], None) if "messageId" in line else \
            self.unnamed.popleft() if self.unnamed else None
        if not asked:
            self.chaos.history.faults.append(f"{self.name}: an answer to nothing: {line}")
            return
        asked.answer, asked.answered_at = line, time.monotonic()
        self.chaos.answers[line.get("reason") or line.get("code")] += 1
        if asked.op not in ("subscribe", "unsubscribe") and (fault := asked.fault()):
            self.chaos.history.faults.append(f"{self.name}: {fault}: {asked}")

    async def all_answered(self):
        await until(lambda: not self.unanswered(), f"all answers of {self.name}, such as that to "
                    f"{next(iter([*self.named.values(), *self.unnamed]), None)}")

    async def finish(self):
        """Says that it has nothing more to ask, and waits for the daemon's end."""
        self.writer.write_eof()
        await asyncio.wait_for(self.task, DEADLINE)
        self.close()

    def close(self):
        self.left = True
        for asked in (*self.named.values(), *self.unnamed):
            asked.left_at = time.monotonic()
        self.task.cancel()
        self.writer.transport.abort()


class Worker:
    """A client that asks for everything but subscriptions; leaves, and comes again under another name."""

    TALKER = Talker

    def __init__(self, chaos, number):
        self.chaos, self.name = chaos, f"{chaos.round}w{number}"
        self.pair = f"{chaos.round}{number // 2}"
        self.dice = random.Random(f"{chaos.seed}/{self.name}")
        self.life = self.appends = 0

    async def run(self):
        while self.chaos.storming:
            self.life += 1
            self.talker = await self.TALKER(self.chaos, f"{self.name}.{self.life}").open()
            for _ in range(self.dice.choice((5, 30, 200))):
                if not self.chaos.storming:
                    break
                await self.burst()
            await self.end()

    async def burst(self):
        for _ in range(self.dice.randrange(1, 9 * self.chaos.greed)):
            self.one()
        await until(lambda: self.talker.unanswered() < UNANSWERED_MAX, f"answers of {self.talker.name}")
        await asyncio.sleep(self.dice.uniform(0, 0.2))

    async def end(self):
        how = self.dice.randrange(3) if self.chaos.storming else 2
        if how == 0:
            self.talker.close()
        elif how == 1:
            await self.talker.finish()
        else:
            await self.talker.all_answered()
            self.talker.close()

    def one(self):
        dice, name = self.dice, self.talker.name
        op = dice.choices(("increment", "set own", "get own", "delete own", "set all", "get all", "patch", "range", "ping"),
                          (22, 14, 18, 5, 11, 5, 17, 4, 4))[0]
        more = {"with_id": dice.random() < 0.7}
        if dice.random() < 0.3:
            more["timeoutMs"] = dice.choice((30, 300, 1000))
        op, _, whose = op.partition(" ")
        key = value = None
        if whose:
            key = f"own:{name}:{dice.randrange(3)}" if whose == "own" else dice.choice(KEYS["all"])
        if op == "set":
            value = f"{name}.{self.talker.number}"
        elif op == "increment":
            key, value = dice.choice(KEYS["ctr"]), 1
        elif op == "patch":
            self.appends += 1
            key, value = f"app:{self.pair}:{self.appends // 80}", f"{name}.{self.talker.number};"
        elif op == "range":
            key, value = "all:", "own:~"
        self.talker.ask(op, key, value, **more)


class Other:
    """Somebody who uses the service without hpkvd, so that keys change while that has no connection; of some keys this is
    the last change in a round."""

    def __init__(self, chaos):
        self.chaos = chaos
        self.dice = random.Random(f"{chaos.seed}/{chaos.round}/other")

    async def run(self):
        names = [*KEYS["once"], *KEYS["all"] * 10]
        self.dice.shuffle(names)
        for n, key in enumerate(names):
            await asyncio.sleep(2 * self.dice.random() * self.chaos.seconds / len(names))
            if not self.chaos.storming:
                break
            value = f"{self.chaos.round}other.{n}"
            await asyncio.to_thread(self.chaos.observer.post, "/record", {"key": key, "value": value})


class Administrator:
    """Changes settings, the key among them, and gets one wrong at times."""

    KEYS = (KEY, "an0th3r-k3y-of-the-same-account")

    def __init__(self, chaos):
        self.chaos = chaos
        self.dice = random.Random(f"{chaos.seed}/{chaos.round}/administrator")

    async def run(self):
        while self.chaos.storming:
            await asyncio.sleep(self.dice.uniform(0.5, 4))
            wrong = self.dice.random() < 0.2
            settings = {"key": self.dice.choice(self.KEYS), "keepalive": self.dice.choice(("1s", "1200ms")),
                        "max_in_flight": self.dice.choice((16, 64, 128)), "level": "loud" if wrong else "info"}
            if await asyncio.to_thread(self.chaos.daemon.reload, **settings) == wrong:
                self.chaos.history.faults.append(f"SIGHUP with {settings | {'key': '…'}} did not do what it had to")


class Subscriber(Talker):
    """One that is told of changes, and notes among the lines where a subscription has begun or ended."""

    def __init__(self, chaos, name, from_start=False):
        super().__init__(chaos, name)
        self.watched = Watched(name, from_start)
        self.changing = None # the request, and what to note when it is answered
        chaos.history.watchers.append(self.watched)

    def _line(self, line):
        super()._line(line)
        if self.changing and self.changing[0].answer:
            asked, note = self.changing
            self.changing = None
            if asked.answer["code"] == 200:
                self.watched.lines.append(note | {"at": asked.answered_at})

    async def change(self, op, names, **more):
        """Subscribes to names or unsubscribes, and waits for the answer. Does nothing without names."""
        members = {"keys": [n for n in names if n[-1] != "*"], "patterns": [n for n in names if n[-1] == "*"]} | more
        members = {name: value for name, value in members.items() if value}
        if not names:
            return
        asked = self.ask(op, **members)
        self.changing = (asked, {"type": "live" if op == "subscribe" else "ended"} | members)
        await until(lambda: asked.answer, f"the answer to {asked} {members}")

    def close(self):
        super().close()
        self.watched.open = False


class Fickle:
    """A client that subscribes and unsubscribes, leaves, and comes again under another name. What it wants is new to the
    token at times."""

    def __init__(self, chaos, number):
        self.chaos, self.name, self.life = chaos, f"{chaos.round}f{number}", 0
        self.dice = random.Random(f"{chaos.seed}/{self.name}")

    async def run(self):
        while self.chaos.storming:
            self.life += 1
            self.talker = await Subscriber(self.chaos, f"{self.name}.{self.life}").open()
            for _ in range(self.dice.choice((3, 10, 40))):
                if self.chaos.storming:
                    await self.change()
                    await asyncio.sleep(self.dice.uniform(0, 0.4))
            if self.chaos.storming:
                self.talker.close()

    async def change(self):
        keys, patterns = self.talker.watched.topics()
        fresh = f"fresh:{self.talker.name}.{self.talker.number}"
        names = self.dice.sample([*KEYS["all"], *KEYS["ctr"], fresh, "all:*", "ctr:*"], 3)
        if self.dice.random() < 0.4:
            await self.talker.change("unsubscribe", names)
        else:
            names = [name for name in names if name not in keys | patterns]
            await self.talker.change("subscribe", names, initial=self.dice.random() < 0.7)

    def close(self):
        self.talker.close()


# ---- all together ----


class Chaos:
    def __init__(self, seed, sandbox, proxy, daemon):
        self.seed, self.sandbox, self.proxy, self.daemon = seed, sandbox, proxy, daemon
        self.history = History()
        self.observer = Observer(sandbox, self.history)
        self.storming = False
        self.round, self.greed = "", 1
        self.requests = 0
        self.answers = collections.Counter()
        self.watchers = []

    async def begin(self):
        await self.observer.begin()
        for name, topics in (("k1", [*KEYS["all"], *KEYS["ctr"]]), ("k2", KEYS["once"]), ("p1", ["all:*", "ctr:*", "app:*"]),
                             ("p2", ["app:*", "once:*"]), ("both", ["all:*", *KEYS["all"]])):
            watcher = await Subscriber(self, name, from_start=True).open()
            await watcher.change("subscribe", topics, initial=True)
            self.watchers.append(watcher)

    def end(self):
        if self.observer.ear:
            self.observer.ear.close()
        for watcher in self.watchers:
            watcher.close()

    def meddler(self, manners):
        """Notes the writes that come, and lets the manners do what they like."""
        history = self.history

        def meddle(message):
            if message.kind == "request" and message.obj["op"] in OPS and message.obj["op"] != 1:
                obj = message.obj
                value = int(obj["value"]) if obj["op"] == 6 else obj.get("value")
                message.arrival = Arrival(message.at, message.lane)
                history.arrivals[OPS[obj["op"]], obj["key"], value].append(message.arrival)
            elif message.kind == "answer" and message.obj.get("code") == 429:
                self.refused(message.request)
            fault = manners(message)
            if fault and manners.fashion == "refuse":
                self.refused(message)
            return fault

        return meddle

    def workers(self):
        return [Worker(self, n) for n in range(WORKERS)]

    @staticmethod
    def refused(request):
        if request and hasattr(request, "arrival"):
            request.arrival.refused = True

    async def storm(self, name, seconds, faults, greed):
        """All faults for so long; then all that was asked is answered."""
        self.round, self.seconds, seed = name, seconds, f"{self.seed}/{name}"
        network, manners = Network(self.proxy, seed), Manners(seed, faults, late_ms=1.3 * TIMEOUT_MS)
        self.proxy.meddle = self.meddler(manners)
        self.storming, self.greed, end = True, greed, time.monotonic() + seconds
        fickle = [Fickle(self, n) for n in range(3)]
        clients = [*self.workers(), *fickle, Other(self), Administrator(self)]
        running = [asyncio.ensure_future(client.run()) for client in clients]
        lag = asyncio.ensure_future(self.watch_lag())
        loops = [asyncio.run_coroutine_threadsafe(faults.run(end), self.proxy.loop) for faults in (network, manners)]
        try:
            await asyncio.wait(running, timeout=end - time.monotonic(), return_when=asyncio.FIRST_EXCEPTION)
            self.storming = False
            await asyncio.gather(*running, *map(asyncio.wrap_future, loops))
        finally:
            for future in (*running, *loops, lag):
                future.cancel()
        self.proxy.meddle = self.meddler(lambda message: None)
        self.proxy.call(self.proxy.clear_network)
        self.note(f"round {name}: {dict(network.counts)}, {dict(manners.counts)}; seen {self.history.lag_s:.3f} s late at most")
        return fickle

    async def watch_lag(self):
        """How late may we see what happens?"""
        while True:
            before = time.monotonic()
            await asyncio.sleep(BEAT_S)
            self.history.lag_s = max(self.history.lag_s, time.monotonic() - before - BEAT_S)

    def note(self, text):
        print(text, file=sys.stderr, flush=True)

    async def settle(self):
        """The daemon is connected, and has nothing to do."""
        def calm():
            status = self.daemon.status()
            up, subs = status["upstream"], status["subscriptions"]
            return up["state"] == "connected" and subs["live"] and not any(
                (up["inFlight"], up["queued"], subs["waiting"], subs["rereading"], subs["leftOut"])) and status

        await asyncio.to_thread(eventually, calm, "calm")
        await self.observer.catch_up()

    async def check(self):
        """Everything that was promised."""
        live = [w for w in self.history.watchers if w.open]
        try:
            await until(lambda: not any(w.behind(self.history) for w in live), "that subscribers know the last values")
        except AssertionError:
            self.history.faults += [text for w in live for text in w.behind(self.history)]
        # It takes a while, in which others have to be listened to.
        complaints = await asyncio.to_thread(self.history.complaints)
        assert not complaints, f"seed {self.seed}:\n" + "\n".join(complaints[:20])
        self.note(f"{self.requests} requests: {dict(self.answers.most_common())}")


class Everything(Case):
    def idle(self, daemon):
        """It sleeps, but for what keeps the connection."""
        cpu, wakeups = daemon.process.cpu_seconds(), daemon.process.wakeups()
        time.sleep(IDLE_S)
        self.assertLess(daemon.process.cpu_seconds() - cpu, 0.25 * IDLE_S)
        self.assertLess(daemon.process.wakeups() - wakeups, WAKEUPS_PER_S * IDLE_S)

    @staticmethod
    def descriptors(daemon):
        folder = f"/proc/{daemon.pid}/fd"
        return len(os.listdir(folder)) if os.access(folder, os.R_OK) else 0 # only root may look into it

    async def round(self, chaos, *args):
        """Returns what the daemon holds when it is over."""
        fickle = await chaos.storm(*args)
        await chaos.settle()
        await chaos.check()
        for client in fickle:
            client.close()
        await asyncio.to_thread(self.idle, chaos.daemon)
        await until(lambda: len(chaos.proxy.open_lanes()) == 1, "one connection")
        return self.descriptors(chaos.daemon), chaos.daemon.process.resident_bytes()

    async def play(self, chaos):
        await chaos.begin()
        try:
            descriptors, memory = await self.round(chaos, "a", SECONDS / 2, Manners.FAULTS, 1)
            await self.round(chaos, "b", SECONDS / 2, Manners.FAULTS | Manners.REFUSE, 4)
            await until(lambda: self.descriptors(chaos.daemon) <= descriptors + 1, "as few descriptors as before")
            stats = await asyncio.to_thread(chaos.daemon.stats)
            chaos.note({name: stats[name] for name in HAPPENS + MAY_HAPPEN})
            if SECONDS >= 20: # or else it would prove nothing
                self.assertEqual([], [name for name in HAPPENS if not stats[name]])
            grown = chaos.daemon.process.resident_bytes() - memory
            chaos.note(f"{descriptors} descriptors, {memory >> 10} KiB of memory after the first round, {grown >> 10} more")
            if not sanitized(): # whose allocator keeps what is freed
                self.assertLess(grown, mebibytes(3))
        finally:
            chaos.end()

    def test_promises_are_kept(self):
        print(f"HPKVD_CHAOS_SEED={SEED} CHAOS_SECONDS={SECONDS:g}", file=sys.stderr, flush=True)
        options = ("--api-key", Observer.KEY, "--api-key", Administrator.KEYS[1], "--rate", str(RATE))
        with Sandbox(*options) as sandbox, FaultProxy(sandbox, delay_ms=DELAY_MS, token_ttl_s=TOKEN_TTL_S) as proxy, \
                Daemon(proxy, level="info", request_timeout=f"{TIMEOUT_MS}ms", connect_timeout="700ms", keepalive="1s",
                       backoff_min="10ms", backoff_max="300ms", token_lifetime=f"{TOKEN_TTL_S}s", max_in_flight=64,
                       combine="gets", keys="own:* ctr:* app:*", mirror="all:*", memory="1M", max_age="5s") as daemon:
            daemon.wait_state("connected")
            asyncio.run(self.play(Chaos(SEED, sandbox, proxy, daemon)))
