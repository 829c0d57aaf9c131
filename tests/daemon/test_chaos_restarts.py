"""Restarts at random moments, orderly ones (SIGTERM, SIGUSR2) and crashes, while clients write: raw ones, which connect again
by themselves, and programs that use libhpkv.

Each request has one answer at most, no write takes effect twice, no line is torn, and the order of a client's writes to a key
holds over restarts. A request that an orderly end leaves without an answer was not executed. Callers of libhpkv see no error,
but for writes with an unknown outcome after a crash.

Environment: CHAOS_SECONDS and HPKVD_CHAOS_SEED, as test_chaos.py has them."""

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
from cli import Driver # noqa: E402 (the path comes first)
from fault_proxy import FaultProxy # noqa: E402
from harness import DEADLINE, Case, Daemon, Sandbox, eventually # noqa: E402
from history import Asked # noqa: E402
from test_chaos import Chaos, Observer, Talker, until # noqa: E402

SECONDS = min(float(os.environ.get("CHAOS_SECONDS", "20")), 3600)
SEED = os.environ.get("HPKVD_CHAOS_SEED") or str(random.SystemRandom().randrange(1 << 32))
WORKERS, DRIVERS = 8, 3
WAYS = {signal.SIGTERM: 3, signal.SIGUSR2: 3, signal.SIGKILL: 2}
UNANSWERED_MAX = 40


class Wire:
    """A connected socket that is read to its end, whatever becomes of writing. asyncio's streams aren't: they close the socket when
    a write fails, and with it goes what has come and was not read, which may be answers."""

    def __init__(self, sock):
        self.sock, self.loop = sock, asyncio.get_running_loop()
        self.transport = self # Talker's name for it
        self.unsent, self.received, self.ended = b"", b"", False

    @classmethod
    async def open(cls, path):
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, path)
        except OSError:
            sock.close()
            raise
        return cls(sock)

    def write(self, data):
        if not self.unsent:
            self.unsent = data
            self._flush()
        else:
            self.unsent += data

    def _flush(self):
        if self.ended:
            return
        try:
            self.unsent = self.unsent[self.sock.send(self.unsent):]
        except BlockingIOError:
            pass
        except OSError: # the daemon reads no more; what it has said is still to be read
            self.unsent = b""
        if self.unsent:
            self.loop.add_writer(self.sock, self._flush)
        else:
            self.loop.remove_writer(self.sock)

    async def readline(self):
        """b"": the end; without a newline: the end within a line."""
        while b"\n" not in self.received:
            try:
                chunk = await self.loop.sock_recv(self.sock, 1 << 16)
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                self.loop.remove_writer(self.sock)
                self.sock.close()
                self.ended = True
                line, self.received = self.received, b""
                return line
            self.received += chunk
        line, _, self.received = self.received.partition(b"\n")
        return line + b"\n"

    def abort(self):
        """readline() closes the socket: while it waits for it the loop knows its number, which another one must not get."""
        if not self.ended:
            with contextlib.suppress(OSError): # the daemon has closed it
                self.sock.shutdown(socket.SHUT_RDWR)


class RawTalker(Talker):
    """A connection that ends with the daemon."""

    async def open(self):
        self.reader = self.writer = await Wire.open(self.chaos.daemon.socket)
        self.task = asyncio.ensure_future(self._read())
        return self

    async def _read(self):
        faults = self.chaos.history.faults
        while line := await self.reader.readline():
            if not line.endswith(b"\n"):
                if not self.chaos.crashed_since(self.opened):
                    faults.append(f"{self.name}: the last line is torn: {line[:200]}")
                break
            self._line(json.loads(line))
        self.lost()

    def lost(self):
        """An orderly end leaves no request without an answer that was read."""
        self.left = True
        for asked in (*self.named.values(), *self.unnamed):
            asked.left_at = time.monotonic()
            self.chaos.unanswered.append((asked, self.opened))


class RawWorker:
    """Writes, and connects again after each end under another name."""

    def __init__(self, chaos, number):
        self.chaos, self.name = chaos, f"raw{number}"
        self.dice = random.Random(f"{chaos.seed}/{self.name}")
        self.life = 0

    async def connect(self):
        while True:
            self.life += 1
            talker = RawTalker(self.chaos, f"{self.name}.{self.life}")
            talker.opened = time.monotonic()
            try:
                return await talker.open()
            except OSError: # between two daemons there may be no socket
                await asyncio.sleep(0.01)

    async def run(self):
        while self.chaos.storming:
            self.talker = await self.connect()
            while self.chaos.storming and not self.talker.left:
                for _ in range(self.dice.randrange(1, 6)):
                    self.one()
                while self.talker.unanswered() >= UNANSWERED_MAX and not self.talker.left:
                    await asyncio.sleep(0.005)
                await asyncio.sleep(self.dice.uniform(0, 0.05))
            await until(lambda: self.talker.left or not self.talker.unanswered(), f"answers of {self.talker.name}")
            self.talker.writer.transport.abort()

    def one(self):
        dice, talker = self.dice, self.talker
        op = dice.choice(("increment", "set", "get", "patch"))
        value = {"increment": 1, "set": f"{talker.name}.{talker.number}", "patch": f"{talker.name}.{talker.number};"}.get(op)
        key = {"increment": f"ctr:{dice.randrange(2)}", "patch": f"app:{talker.name}"}.get(op, f"own:{talker.name}")
        talker.ask(op, key, value, with_id=dice.random() < 0.7)


class Program(threading.Thread):
    """Uses libhpkv: appends to keys of its own, and counts."""

    def __init__(self, chaos, number):
        super().__init__(daemon=True)
        self.chaos, self.name_of_it = chaos, f"lib{number}"
        self.dice = random.Random(f"{chaos.seed}/{self.name_of_it}")
        self.fault = None

    def run(self):
        try:
            with Driver(self.chaos.daemon.socket) as driver:
                self.work(driver)
        except (AssertionError, OSError) as fault:
            self.fault = f"{self.name_of_it}: {fault!r}"

    def work(self, driver):
        driver.tell("timeout", str(DEADLINE * 1000))
        waiting, number = {}, 0
        while self.chaos.storming or waiting:
            if self.chaos.storming and len(waiting) < UNANSWERED_MAX:
                number += 1
                waiting[str(number)] = self.ask(driver, number)
                time.sleep(self.dice.uniform(0, 0.01))
            if len(waiting) >= UNANSWERED_MAX or not self.chaos.storming or driver.kept["a"]:
                name, answer = driver.answer()
                self.answered(waiting.pop(name), answer)

    def ask(self, driver, number):
        name = self.name_of_it
        op, key, value = self.dice.choice((("patch", f"app:{name}:{number // 80}", f"{name}.{number};"),
                                           ("increment", "ctr:lib", 1)))
        asked = Asked(name, number, op, key, value, number, time.monotonic())
        self.chaos.history.add(asked)
        self.chaos.requests += 1
        driver.tell("send", str(number), op, key, str(value))
        return asked

    def answered(self, asked, answer):
        asked.answered_at = time.monotonic()
        result = answer["result"]
        self.chaos.answers[f"libhpkv: {result}"] += 1
        if result == "ok":
            asked.answer = {"code": 200, "success": True}
            if asked.op == "increment":
                asked.answer["newValue"] = int(answer["value"])
            return
        asked.answer = {"reason": answer["reason"] or result, "executed": "unknown" if result == "unknown" else "no"}
        if result != "unknown" or not self.chaos.crashed_since(asked.sent_at):
            self.chaos.history.faults.append(f"its caller sees {answer}: {asked}")


class Restarter:
    def __init__(self, chaos):
        self.chaos = chaos
        self.dice = random.Random(f"{chaos.seed}/restarts")

    async def run(self):
        while self.chaos.storming:
            await asyncio.sleep(self.dice.uniform(0.05, 1.5))
            number = self.dice.choices(list(WAYS), WAYS.values())[0]
            await asyncio.to_thread(self.restart, number)

    def restart(self, number):
        chaos, daemon = self.chaos, self.chaos.daemon
        chaos.answers[number.name] += 1
        if number == signal.SIGKILL:
            chaos.crashes.append(float("inf")) # until it has ended
        if number == signal.SIGUSR2:
            before = daemon.log().count(b"listens on")
            daemon.process.signal(number)
            eventually(lambda: daemon.log().count(b"listens on") > before, "the next program")
            return
        daemon.process.signal(number)
        status = daemon.process.wait_exit()
        if status != (0 if number == signal.SIGTERM else -signal.SIGKILL):
            chaos.history.faults.append(f"hpkvd ended with {status} after {number.name}")
        if number == signal.SIGKILL:
            chaos.crashes[-1] = time.monotonic()
        daemon.process.close()
        daemon.start()


class ChaosOfRestarts(Chaos):
    def __init__(self, *args):
        super().__init__(*args)
        self.unanswered, self.crashes = [], []

    def crashed_since(self, at):
        return any(crash >= at for crash in self.crashes)

    async def play(self):
        await self.observer.begin()
        self.proxy.meddle = self.meddler(lambda message: None)
        self.storming = True
        workers = [asyncio.ensure_future(RawWorker(self, n).run()) for n in range(WORKERS)]
        programs = [Program(self, n) for n in range(DRIVERS)]
        for program in programs:
            program.start()
        restarter, lag = asyncio.ensure_future(Restarter(self).run()), asyncio.ensure_future(self.watch_lag())
        try:
            await asyncio.wait([restarter, *workers], timeout=SECONDS, return_when=asyncio.FIRST_EXCEPTION)
            self.storming = False
            await asyncio.gather(restarter, *workers)
            for program in programs:
                await asyncio.to_thread(program.join, DEADLINE)
                if program.fault or program.is_alive():
                    self.history.faults.append(program.fault or f"{program.name_of_it} does not end")
            await self.settle()
            self.look_at_unanswered()
            await self.check()
        finally:
            self.storming = False
            lag.cancel()
            self.end()

    async def settle(self):
        def calm():
            upstream = self.daemon.status()["upstream"]
            return upstream["state"] == "connected" and not upstream["inFlight"] and not upstream["queued"]

        await asyncio.to_thread(eventually, calm, "calm")
        await self.observer.catch_up()

    def look_at_unanswered(self):
        """Of those that an orderly end has left without an answer none may have been sent."""
        self.history.faults += [
            f"was sent, but never answered, though nothing crashed: {asked}" for asked, opened in self.unanswered
            if not self.crashed_since(opened) and self.unique(asked) and self.history.arrived(asked)]

    @staticmethod
    def unique(asked):
        return asked.op in ("set", "patch")


class Restarts(Case):
    def test_promises_are_kept(self):
        print(f"HPKVD_CHAOS_SEED={SEED} CHAOS_SECONDS={SECONDS:g}", file=sys.stderr, flush=True)
        with Sandbox("--api-key", Observer.KEY) as sandbox, FaultProxy(sandbox, delay_ms=20, token_ttl_s=60) as proxy, \
                Daemon(proxy, level="info", request_timeout="20s", backoff_min="5ms", backoff_max="50ms", max_in_flight=64) as daemon:
            daemon.wait_state("connected")
            asyncio.run(ChaosOfRestarts(SEED, sandbox, proxy, daemon).play())
