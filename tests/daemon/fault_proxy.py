"""fault_proxy.py - a bad network, and a service with bad manners, between hpkvd and the sandbox.

    FaultProxy   listens with the tests' certificate; what hpkvd opens it opens to the service as well, and passes on
    Lane         one connection of hpkvd: can be cut, reset, stalled, delayed and throttled
    Message      a request, an answer or a notification on its way; a function of the test's may do something else with
                 it than to pass it on: swallow, twice, refuse, late(), garbled()
    Network      faults of the network, one after the other
    Manners      faults of single messages, one kind at a time

Network and Manners draw lots that depend on the seed alone, and on the messages: so the same seed brings the same
faults in the same order again, and a message that comes again meets with the same fate.

All runs in one thread with a loop of its own. What tests call may be called from any thread. The order of what is
passed on in one direction stays, notifications among answers and pongs. What was read from hpkvd and not yet passed on
is lost when it leaves the connection: a service must not execute what its client has given up.
"""

import asyncio
import collections
import hashlib
import json
import random
import re
import socket
import ssl
import struct
import threading
import time
import urllib.parse

from wsproto.frame_protocol import FrameProtocol, Opcode

from harness import DEADLINE, certs, free_port

QUEUE_MAX = 16 << 10 # bytes that wait in one direction, and in each buffer before; beyond, nothing is read
BURST_S = 0.02 # a throttled direction lets go what it may in so long at once


def lot(*what):
    """A number from 0 to 1 that depends on nothing else."""
    digest = hashlib.blake2b(repr(what).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / (1 << 64)


# ---- messages ----


class Message:
    """A text frame on its way."""

    def __init__(self, lane, way, text):
        self.lane, self.way, self.text = lane, way, text
        self.at = time.monotonic()
        self.obj = json.loads(text)
        self.id = self.obj.get("messageId")
        self.request = None # of an answer: what it answers
        if way is lane.up:
            self.kind = "request"
            self.body = text[text.index(",") + 1:] # all but the id, which is another each time
        elif self.obj.get("type") == "notification":
            self.kind = "notification"
        else:
            self.kind = "answer"
            self.request = lane.asked.pop(self.id, None)

    def pass_on(self, text=None):
        self.way.put(self.way.protocol.send_data(text or self.text))


def swallow(message):
    """It never arrives."""


def twice(message):
    message.pass_on()
    message.pass_on()


def refuse(request):
    """By a rate limit: it is not executed."""
    text = json.dumps({"code": 429, "error": "Rate limit exceeded", "messageId": request.id})
    request.lane.down.put(request.lane.down.protocol.send_data(text))


def late(ms):
    return lambda message: message.lane.proxy.loop.call_later(ms / 1000, message.pass_on)


def garbled(text):
    """Another text in its place, in which <id> stands for the id and <other> for one that no request has."""
    return lambda message: message.pass_on(text.replace("<id>", str(message.id)).replace("<other>", str((1 << 52) + 1)))


GARBAGE = ('{"messageId":<id>,"code":2', '{"messageId":<id>}', '{"code":"200","messageId":<id>}', '["messageId",<id>]',
           '{"code":200,"messageId":<other>,"value":"stray"}', '{"code":200,"messageId":"<id>"}', "what?", "{}",
           '{"code":200.5,"messageId":<id>}', '{"messageId":<id>,"code":200,"messageId":<id>,}')


# ---- connections ----


class Way:
    """One direction of a lane. delay_ms, bytes_per_s: may be changed at any time; 0 is none, and no limit."""

    def __init__(self, client, delay_ms):
        self.usual_delay_ms = self.delay_ms = delay_ms
        self.bytes_per_s = 0
        self.flows = asyncio.Event()
        self.flows.set()
        self.protocol = FrameProtocol(client=client, extensions=[]) # that writes it; the other way's reads it
        self.waiting = collections.deque()
        self.waiting_bytes = 0
        self.next_at = 0 # when a throttled one may write again
        self.changed = asyncio.Event()

    def put(self, data):
        """data: None is the end."""
        self.waiting.append((time.monotonic() + self.delay_ms / 1000, data))
        self.waiting_bytes += len(data or b"")
        self.changed.set()

    async def wait(self, probe):
        while not probe():
            self.changed.clear()
            await self.changed.wait()

    async def room(self):
        await self.wait(lambda: self.waiting_bytes < QUEUE_MAX)

    async def deliver(self, writer):
        while True:
            await self.wait(lambda: self.waiting)
            due, data = self.waiting[0]
            await asyncio.sleep(max(0, due - time.monotonic()))
            await self.flows.wait()
            if data is None:
                return
            await self._write(writer, data)
            self.waiting.popleft()
            self.waiting_bytes -= len(data)
            self.changed.set()

    async def _write(self, writer, data):
        while data:
            rate = self.bytes_per_s
            n = max(1, int(rate * BURST_S)) if rate else len(data)
            writer.write(data[:n])
            await writer.drain()
            if rate: # a sleep that took too long is made up for
                self.next_at = max(self.next_at, time.monotonic() - 1) + n / rate
                await asyncio.sleep(max(0, self.next_at - time.monotonic()))
            data = data[n:]


def abort(writer, how=None):
    """how: "FIN" goes out without a word of TLS before it; "RST". None: as it comes."""
    sock = writer and writer.transport.get_extra_info("socket")
    if not sock:
        return # it never began, or has ended already
    try:
        if how == "FIN":
            sock.shutdown(socket.SHUT_RDWR)
        elif how == "RST":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass # the other side has ended it
    writer.transport.abort()


class Lane:
    """A connection of hpkvd, from accept to its end.

    up, down   its two ways, to the service and back
    target     what its WebSocket was opened with; None: it has none, it is for tokens, or not so far yet
    open       its WebSocket is, to the service
    """

    def __init__(self, proxy, number):
        self.proxy, self.number = proxy, number
        self.up, self.down = Way(True, 0), Way(False, proxy.delay_ms)
        self.near = self.far = None # writers
        self.target = None
        self.open = False
        self.ended_at = None
        self.asked = {} # requests that were not answered

    # -- faults, from any thread

    def cut(self):
        self.proxy.call(self.end, "FIN")

    def reset(self):
        self.proxy.call(self.end, "RST")

    def stall(self, *ways):
        """Nothing is read, nothing is written, and nobody is told."""
        for way in ways or (self.up, self.down):
            self.proxy.call(way.flows.clear)

    def resume(self):
        self.proxy.call(self.clear)

    # -- in the proxy's thread

    def clear(self):
        for way in (self.up, self.down):
            way.flows.set()
            way.delay_ms, way.bytes_per_s = way.usual_delay_ms, 0

    def end(self, how=None):
        self.ended_at = self.ended_at or time.monotonic()
        self.open = False
        abort(self.near, how)
        abort(self.far)
        if self.task is not asyncio.current_task(self.proxy.loop):
            self.task.cancel()

    def _left(self):
        """Has hpkvd left?"""
        return self.near.is_closing()

    async def run(self, sock):
        try:
            await self.proxy.talks.wait()
            reader = asyncio.StreamReader(limit=QUEUE_MAX)
            protocol = asyncio.StreamReaderProtocol(reader)
            transport, _ = await self.proxy.loop.connect_accepted_socket(lambda: protocol, sock, ssl=self.proxy.context)
            transport.set_read_buffer_limits(QUEUE_MAX)
            self.near = asyncio.StreamWriter(transport, protocol, reader, self.proxy.loop)
            await self._serve(reader)
        except (OSError, ssl.SSLError, EOFError, asyncio.CancelledError):
            pass
        except Exception as error:
            self.proxy.errors.append(error)
            raise
        finally:
            self.end()
            sock.close()
            self.proxy.ended(self)

    async def _serve(self, reader):
        while not self.target:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET "):
                await self._upgrade(reader, head)
                return
            await self._http(head + await self._body(reader, head))

    @staticmethod
    async def _body(reader, head):
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.I)
        return await reader.readexactly(int(length[1])) if length else b""

    async def _refused(self, refusal):
        if refusal:
            status, headers, body = refusal
            lines = [f"HTTP/1.1 {status} No", *(f"{name}: {value}" for name, value in headers.items()),
                     f"Content-Length: {len(body)}", "", ""]
            self.near.write("\r\n".join(lines).encode() + body)
            await self.near.drain()
        return refusal

    async def _http(self, request):
        """A token."""
        if await self._refused(self.proxy.refuse_token):
            return
        reader, self.far = await open_service(self.proxy.service)
        self.far.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        body = await self._body(reader, head)
        abort(self.far)
        if self.proxy.token_ttl_s and b" 200 " in head.split(b"\r\n")[0]:
            self.proxy.expiries[json.loads(body)["token"]] = time.monotonic() + self.proxy.token_ttl_s
        await self.down.flows.wait()
        await asyncio.sleep(self.down.delay_ms / 1000)
        self.near.write(head + body)
        await self.near.drain()

    async def _upgrade(self, reader, head):
        self.target = head.split(b" ")[1].decode()
        left = self._lasts_for()
        if await self._refused(self.proxy.refuse_upgrade or ((403, {}, b"expired") if left <= 0 else None)):
            self.near.close()
            return
        far_reader, self.far = await open_service(self.proxy.service)
        self.far.write(head)
        head = await far_reader.readuntil(b"\r\n\r\n")
        self.down.put(head)
        if b" 101 " not in head.split(b"\r\n")[0]:
            self.down.put(await self._body(far_reader, head))
            self.down.put(None)
            await self.down.deliver(self.near)
            return
        self.open = True
        self.proxy.opened(self)
        expiry = self.proxy.loop.call_later(left, self._expire) if left < float("inf") else None
        try:
            await self._carry_both(reader, far_reader)
        finally:
            if expiry:
                expiry.cancel()

    def _lasts_for(self):
        """How many seconds, by its token."""
        token = urllib.parse.parse_qs(urllib.parse.urlsplit(self.target).query).get("token", [None])[0]
        return self.proxy.expiries.get(token, float("inf")) - time.monotonic()

    def _expire(self):
        self.down.put(self.down.protocol.close(1008, "Token expired"))
        self.down.put(None)

    async def _carry_both(self, reader, far_reader):
        """Until hpkvd has left, or all that the service had to say was passed on."""
        ends = [self._carry(self.up, reader, self.down.protocol), self.up.deliver(self.far), self.down.deliver(self.near)]
        carriers = [asyncio.ensure_future(c) for c in (*ends, self._carry(self.down, far_reader, self.up.protocol))]
        try:
            done, _ = await asyncio.wait(carriers[:3], return_when=asyncio.FIRST_COMPLETED)
            for carrier in done:
                carrier.result()
            abort(self.near, None if self._left() else "FIN")
        finally:
            for carrier in carriers:
                carrier.cancel()
            await asyncio.gather(*carriers, return_exceptions=True)

    async def _carry(self, way, reader, protocol):
        text = ""
        while True:
            await way.flows.wait()
            await way.room()
            try:
                data = await reader.read(16384)
            except OSError:
                data = b""
            await way.flows.wait()
            if not data or self._left():
                break
            protocol.receive_bytes(data)
            for frame in protocol.received_frames():
                if frame.opcode != Opcode.TEXT:
                    way.put(self._control(way.protocol, frame))
                    continue
                text += frame.payload
                if frame.frame_finished and frame.message_finished:
                    self._message(way, text)
                    text = ""
        if way is self.down:
            way.put(None)

    @staticmethod
    def _control(protocol, frame):
        if frame.opcode == Opcode.CLOSE:
            return protocol.close(*frame.payload)
        return {Opcode.PING: protocol.ping, Opcode.PONG: protocol.pong}[frame.opcode](bytes(frame.payload))

    def _message(self, way, text):
        message = Message(self, way, text)
        if message.kind == "request":
            self.asked[message.id] = message
        fault = self.proxy.meddle(message) if self.proxy.meddle else None
        if fault:
            fault(message)
        else:
            message.pass_on()


async def open_service(service):
    context = ssl.create_default_context(cafile=certs() + "/ca.pem")
    return await asyncio.open_connection("127.0.0.1", service.port, ssl=context, server_hostname="localhost",
                                         limit=1 << 20)


class FaultProxy:
    """In front of a Sandbox; hpkvd's url is the proxy's.

    delay_ms        of all that the service says, pongs included, when nothing is wrong
    meddle          called with each Message, in the proxy's thread: a fault (a function of the message), or None: it is
                    passed on
    prepare         called with each Lane whose WebSocket is open, in the proxy's thread, before hpkvd knows
    refuse_upgrade  (status, headers, body): the answer to each upgrade
    refuse_token    ... to each request of a token
    token_ttl_s     how long a token lasts: then connections with it end, and it opens no others; None: as the service
                    says, which others than hpkvd may need for longer
    """

    def __init__(self, service, *, delay_ms=0, meddle=None, prepare=None, receive_buffer=None, token_ttl_s=None):
        self.delay_ms = delay_ms
        self.service, self.meddle, self.prepare = service, meddle, prepare
        self.receive_buffer = receive_buffer
        self.token_ttl_s = token_ttl_s
        self.expiries = {} # of tokens
        self.refuse_upgrade = self.refuse_token = None
        self.port = free_port()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certs() + "/server.pem", certs() + "/server.key")
        self.lanes = [] # all there were with a WebSocket
        self.alive = set() # all connections that have not ended
        self.accepted = 0
        self.errors = []
        self.changed = threading.Condition()
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda loop, context: None) # aborted TLS; our own errors are in .errors
        self.talks = asyncio.Event()
        self.talks.set()
        self.accepting = None
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        self.listen()
        return self

    def __exit__(self, kind, value, trace):
        self.stop_listening()
        self.run(self._end_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(DEADLINE)
        self.loop.close()
        if not kind:
            assert not self.errors, self.errors

    async def _end_all(self):
        lanes = list(self.alive)
        for lane in lanes:
            lane.end()
        await asyncio.gather(*(lane.task for lane in lanes), return_exceptions=True)

    @property
    def url(self):
        return f"https://localhost:{self.port}"

    def run(self, coroutine):
        """Runs it in the proxy's thread; its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(DEADLINE)

    def call(self, function, *args):
        """Calls it in the proxy's thread."""
        if threading.current_thread() is self.thread:
            return function(*args)

        async def called():
            return function(*args)

        return self.run(called())

    # -- what tests do

    def listen(self):
        self.call(self.start_accepting)

    def stop_listening(self):
        """Connections are refused from now on."""
        self.call(self.stop_accepting)

    def fall_silent(self):
        """Connections are accepted from now on, and nobody speaks there."""
        self.call(self.talks.clear)

    def speak(self):
        self.call(self.talks.set)

    def clear(self):
        """No faults any more. What is late comes late."""
        self.meddle = None
        self.refuse_upgrade = self.refuse_token = None
        self.call(self.clear_network)

    def lane(self, n=1):
        """The n-th lane."""
        self.wait(lambda: len(self.lanes) >= n, f"lane {n}")
        return self.lanes[n - 1]

    def open_lanes(self):
        return [lane for lane in list(self.lanes) if lane.open]

    def wait(self, probe, what):
        with self.changed:
            assert self.changed.wait_for(probe, DEADLINE), f"the proxy has waited in vain for {what}"

    # -- in the proxy's thread

    def start_accepting(self):
        if self.accepting:
            return
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.receive_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        listener.setblocking(False)
        self.listener = listener
        self.accepting = self.loop.create_task(self._accept(listener))

    def stop_accepting(self):
        if self.accepting:
            self.accepting.cancel()
            self.loop.remove_reader(self.listener)
            self.listener.close()
            self.accepting = None

    def clear_network(self):
        self.start_accepting()
        self.talks.set()
        for lane in self.alive:
            lane.clear()

    async def _accept(self, listener):
        while True:
            sock, _ = await self.loop.sock_accept(listener)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.accepted += 1
            lane = Lane(self, self.accepted)
            self.alive.add(lane)
            lane.task = self.loop.create_task(lane.run(sock))

    def opened(self, lane):
        if self.prepare:
            self.prepare(lane)
        with self.changed:
            self.lanes.append(lane)
            self.changed.notify_all()

    def ended(self, lane):
        with self.changed:
            self.alive.discard(lane)
            self.changed.notify_all()


# ---- faults of a seed ----


REFUSALS = [(status, headers, b"no") for status in (401, 403, 429, 503, 500, 404, 200)
            for headers in ({}, {"Retry-After": "1"}, {"Retry-After": "soon"}, {"Retry-After": "-7"}, {"Retry-After": ""})]


class Network:
    """Faults of the network, one after the other, for as long as it is told to."""

    FAULTS = ("cut", "reset", "stall", "delay", "throttle", "refuse", "silence", "refuse_upgrade", "refuse_token")

    def __init__(self, proxy, seed):
        self.proxy = proxy
        self.dice = random.Random(f"{seed}/network")
        self.counts = collections.Counter()

    async def run(self, until):
        while time.monotonic() < until:
            await asyncio.sleep(self.dice.uniform(0.05, 0.6))
            fault = self.dice.choice(self.FAULTS)
            seconds = min(self.dice.expovariate(2), 2)
            self.counts[fault] += 1
            try:
                await getattr(self, fault)(seconds)
            finally:
                self.proxy.refuse_upgrade = self.proxy.refuse_token = None
                self.proxy.clear_network()

    def pick(self):
        """All lanes, or one."""
        lanes = self.proxy.open_lanes()
        one, which = self.dice.random() < 0.5, self.dice.random()
        return [lanes[int(which * len(lanes))]] if lanes and one else lanes

    def ways(self, lanes):
        names = self.dice.choice((("up",), ("down",), ("up", "down")))
        return [getattr(lane, name) for lane in lanes for name in names]

    def end(self, lanes, how):
        for lane in lanes:
            lane.end(how)

    async def cut(self, seconds):
        self.end(self.pick(), "FIN")

    async def reset(self, seconds):
        self.end(self.pick(), "RST")

    async def stall(self, seconds):
        lanes = self.pick()
        for way in self.ways(lanes):
            way.flows.clear()
        await asyncio.sleep(seconds)
        if self.dice.random() < 0.3:
            self.end(lanes, "RST")

    async def delay(self, seconds):
        ms = self.dice.choice((5, 50, 300, 900))
        for way in self.ways(self.pick()):
            way.delay_ms = ms
        await asyncio.sleep(seconds)

    async def throttle(self, seconds):
        rate = self.dice.choice((1, 4, 16)) << 10
        for way in self.ways(self.pick()):
            way.bytes_per_s = rate
        await asyncio.sleep(seconds)

    async def refuse(self, seconds):
        self.proxy.stop_accepting()
        self.end(self.pick(), "RST")
        await asyncio.sleep(seconds)

    async def silence(self, seconds):
        self.proxy.talks.clear()
        self.end(self.pick(), "FIN")
        await asyncio.sleep(seconds)

    async def refuse_upgrade(self, seconds):
        self.proxy.refuse_upgrade = self.dice.choice(REFUSALS)
        self.end(self.pick(), "FIN")
        await asyncio.sleep(seconds)

    async def refuse_token(self, seconds):
        self.proxy.refuse_token = self.dice.choice(REFUSALS)
        self.end(self.pick() if self.dice.random() < 0.3 else [], "FIN")
        await asyncio.sleep(seconds)


class Manners:
    """Faults of single messages: of those that come while a fault is in fashion, a share. To be a proxy's meddle."""

    FAULTS = {"swallow_request": "request", "swallow_answer": "answer", "late": "answer", "twice": "answer",
              "garble": "answer"}
    REFUSE = {"refuse": "request"}

    def __init__(self, seed, faults, late_ms):
        self.seed, self.faults, self.late_ms = seed, faults, late_ms
        self.dice = random.Random(f"{seed}/manners")
        self.fashion, self.share = None, 0
        self.seen = collections.Counter() # how often each request came, or was answered
        self.counts = collections.Counter()

    async def run(self, until):
        half = (time.monotonic() + until) / 2
        while time.monotonic() < until:
            # Where requests are refused few come from then on, so that is for the second half.
            names = sorted(self.faults if time.monotonic() > half else self.faults.keys() - self.REFUSE)
            fashion, self.share = self.dice.choice(names), self.dice.choice((0.02, 0.1, 0.5))
            if fashion == "refuse":
                self.share = 0.01
            self.fashion = fashion
            await asyncio.sleep(self.dice.uniform(0.05, 0.5))
            self.fashion = None
            await asyncio.sleep(self.dice.uniform(0.05, 0.8))

    def __call__(self, message):
        fashion = self.fashion
        if not fashion or message.kind != self.faults[fashion]:
            return None
        request = message.request or message
        if request.kind != "request":
            return None # an answer to nothing that we have seen
        self.seen[fashion, request.body] += 1
        drawn = lot(self.seed, fashion, request.body, self.seen[fashion, request.body])
        if drawn >= self.share:
            return None
        self.counts[fashion] += 1
        return self.fault(fashion, drawn / self.share)

    def fault(self, fashion, drawn):
        if fashion == "late":
            return late(self.late_ms * (0.2 + drawn))
        if fashion == "garble":
            return garbled(GARBAGE[int(drawn * len(GARBAGE))])
        return {"swallow_request": swallow, "swallow_answer": swallow, "twice": twice, "refuse": refuse}[fashion]
