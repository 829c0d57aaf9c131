"""AsyncClient: any number of requests under way, and subscriptions for "async for"."""

from __future__ import annotations

import asyncio
import os
import socket
from types import TracebackType
from typing import Any, AsyncIterator, Dict, Iterable, Optional, Type, Union, overload

from . import _wire
from ._wire import Event, HpkvError, Json, Page, Record

_MISSING: Any = object()


class _Pending:
    """A request that has no answer yet."""

    def __init__(self, number: int, request: Dict[str, Any], until: float, future: "asyncio.Future[Dict[str, Any]]") -> None:
        self.number = number
        self.request = request
        self.until = until  # of the loop's clock
        self.future = future
        self.repeatable = request.get("op") in _wire.REPEATABLE
        self.sent = False  # it has been handed to the kernel, or a part of it
        self.timer: Optional[asyncio.TimerHandle] = None


class _Wire(asyncio.Protocol):
    """The connection. A line is handed to it when the one before has left, so that what was not sent is known."""

    def __init__(self, client: "AsyncClient") -> None:
        self.client = client
        self.transport: Optional[asyncio.Transport] = None
        self.free = True
        self.lines = _wire.Lines()
        self.why = "hpkvd has closed the connection"
        self.ending = False  # hpkvd refuses everything, since it ends
        self.rest = False  # writing has failed, and what hpkvd has said before is being read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if self.rest:
            return
        transport.set_write_buffer_limits(high=0)
        self.transport = transport

    def pause_writing(self) -> None:
        self.free = False

    def resume_writing(self) -> None:
        self.free = True
        self.client._pump()

    def data_received(self, data: bytes) -> None:
        self.lines.feed(data)
        line = self.lines.next()
        while line is not None:
            self.client._take(self, line)
            line = self.lines.next()

    def connection_lost(self, error: Optional[BaseException]) -> None:
        if error:
            self.why = str(error)
        if isinstance(error, BrokenPipeError) and not self.rest and self._read_rest():
            return
        self.client._lost(self)

    def _read_rest(self) -> bool:
        """asyncio closes a socket when writing fails, whatever answers are still in it. They are read from a copy."""
        assert self.transport
        try:
            copy = socket.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno()))
        except OSError:
            return False
        self.rest = True
        self.reading = asyncio.get_running_loop().create_task(self._read_copy(copy))
        return True

    async def _read_copy(self, copy: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=copy)
        except OSError:
            copy.close()
            self.client._lost(self)


class AsyncClient:
    """A connection to hpkvd for asyncio, made when it is first needed, and again when it has to be.

    Any number of requests may be under way; requests for one key take effect in the order in which they were begun. It
    belongs to the event loop that it is first used in, and to another one once that is closed.
    """

    def __init__(self, socket: Optional[str] = None, timeout: float = _wire.DEFAULT_TIMEOUT) -> None:
        self._given = socket
        self._timeout = timeout
        self._last_id = 0
        self._was_there = False
        self._begin(None)

    def _begin(self, loop: Optional[asyncio.AbstractEventLoop]) -> None:
        self._loop = loop
        self._wire: Optional[_Wire] = None
        self._connecting: Optional["asyncio.Task[None]"] = None
        self._waiting: Dict[int, _Pending] = {}  # to be sent, in this order
        self._pending: Dict[int, _Pending] = {}  # all, in the order in which they were begun
        self._why: Optional[HpkvError] = None  # there is no connection

    def _enter(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop and not self._loop.is_closed():
                raise RuntimeError("this AsyncClient belongs to another event loop, which is still there")
            self._begin(loop)
        return loop

    # ---- the connection ----

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                        trace: Optional[TracebackType]) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection. What is under way fails; the next request makes another connection."""
        self._enter()
        if self._connecting:
            self._connecting.cancel()
            self._connecting = None
        wire, self._wire = self._wire, None
        if wire and wire.transport:
            wire.transport.abort()
        for pending in list(self._pending.values()):
            self._fail(pending, _wire.closed("unknown" if pending.sent and not pending.repeatable else "no"))

    def _connect(self) -> None:
        if not self._wire and not self._connecting and self._waiting:
            self._connecting = asyncio.get_running_loop().create_task(self._try())

    async def _try(self) -> None:
        """Until there is a connection, or nobody waits for one. One that was there before is waited for."""
        loop = asyncio.get_running_loop()
        pause = _wire.Pause()
        try:
            while self._waiting:
                path = _wire.socket_address(self._given)
                try:
                    _, wire = await loop.create_unix_connection(lambda: _Wire(self), path)
                except (OSError, ValueError) as e:
                    error = _wire.no_daemon(path, e)
                    if not self._was_there or isinstance(e, ValueError):
                        self._fail_waiting(error)
                        return
                    self._why = error
                    await asyncio.sleep(pause.next())
                    continue
                self._was_there = True
                self._wire = wire
                break
        finally:
            if self._connecting is asyncio.current_task():  # else it was cancelled, and there may be another one
                self._connecting = None
        self._pump()

    def _fail_waiting(self, error: HpkvError) -> None:
        for pending in list(self._waiting.values()):
            self._fail(pending, error)

    def _fail(self, pending: _Pending, error: HpkvError) -> None:
        self._settle(pending)
        if not pending.future.done():
            pending.future.set_exception(error)

    def _settle(self, pending: _Pending) -> None:
        self._pending.pop(pending.number, None)
        self._waiting.pop(pending.number, None)
        if pending.timer:
            pending.timer.cancel()

    def _pump(self) -> None:
        """Sends what waits, as long as the connection takes it."""
        wire = self._wire
        if not wire:
            self._connect()
            return
        now = asyncio.get_running_loop().time()
        while self._waiting and wire.free and not wire.ending and wire.transport and not wire.transport.is_closing():
            number, pending = next(iter(self._waiting.items()))
            wire.transport.write(_wire.encode_numbered(pending.request, number, pending.until - now))
            if wire.transport.is_closing():  # nothing of it could be sent: it waits on
                break
            del self._waiting[number]
            pending.sent = True

    def _take(self, wire: _Wire, line: bytes) -> None:
        try:
            answer = _wire.decode(line)
        except ValueError:
            return  # nothing that hpkvd would say; whoever waits has a deadline
        number = answer.get("messageId")
        if number is None and "code" in answer:
            wire.why = f"hpkvd says: {answer.get('error')}"
            return
        pending = self._pending.get(number) if isinstance(number, int) else None
        if not pending:
            return  # too late: it was told that there was no answer
        if _wire.passes(answer) and asyncio.get_running_loop().time() < pending.until:
            pending.sent = False  # it goes to the daemon's successor
            wire.ending = True
            self._waiting[pending.number] = pending
            return
        self._settle(pending)
        if not pending.future.done():
            pending.future.set_result(answer)

    def _lost(self, wire: _Wire) -> None:
        if self._wire is wire:
            self._wire = None
        elif self._wire:
            return
        for pending in list(self._pending.values()):
            if pending.sent and not pending.repeatable:
                self._fail(pending, _wire.lost(wire.why, False))
            pending.sent = False
        self._waiting = dict(self._pending)
        self._connect()

    def _late(self, pending: _Pending) -> None:
        no_daemon = None if self._wire or pending.sent else self._why
        self._fail(pending, no_daemon or _wire.late(pending.sent, pending.repeatable))

    async def request(self, request: Dict[str, Any], timeout: Optional[float] = None) -> Dict[str, Any]:
        """Any request of the protocol; returns its answer if that is a good one, else HpkvError."""
        loop = self._enter()
        seconds = self._timeout if timeout is None else timeout
        self._last_id += 1
        pending = _Pending(self._last_id, request, loop.time() + seconds, loop.create_future())
        _wire.encode(request)  # what is no request fails here, and not where others would be concerned
        pending.timer = loop.call_later(seconds + _wire.GRACE, self._late, pending)
        self._pending[pending.number] = pending
        self._waiting[pending.number] = pending
        self._pump()
        try:
            return _wire.check(await pending.future)
        finally:
            self._settle(pending)  # cancelled: its answer is nobody's

    # ---- requests ----

    @overload
    async def get(self, key: str, *, timeout: Optional[float] = None) -> str: ...

    @overload
    async def get(self, key: str, default: Optional[str], *, timeout: Optional[float] = None) -> Optional[str]: ...

    async def get(self, key: str, default: Any = _MISSING, *, timeout: Optional[float] = None) -> Any:
        """The value. A missing key: default if there is one, else HpkvError with code 404."""
        try:
            return _wire.text_of((await self.request({"op": "get", "key": key}, timeout))["value"])
        except HpkvError as e:
            if e.code != 404 or default is _MISSING:
                raise
            return default

    async def set(self, key: str, value: Json, *, timeout: Optional[float] = None) -> None:
        """A string is stored as it is, anything else as JSON."""
        await self.request({"op": "set", "key": key, "value": _wire.as_text(value)}, timeout)

    async def patch(self, key: str, value: Json, *, timeout: Optional[float] = None) -> None:
        """Merges a dict into the stored JSON object; appends anything else to what is stored."""
        await self.request({"op": "patch", "key": key, "value": _wire.as_text(value)}, timeout)

    async def delete(self, key: str, *, timeout: Optional[float] = None) -> None:
        await self.request({"op": "delete", "key": key}, timeout)

    async def increment(self, key: str, by: Union[int, float] = 1, *, timeout: Optional[float] = None) -> Union[int, float]:
        """The sum."""
        answer: Union[int, float] = (await self.request({"op": "increment", "key": key, "value": by}, timeout))["newValue"]
        return answer

    async def range(self, first: str, last: str, limit: int = 100, *, timeout: Optional[float] = None) -> Page:
        """Records from one key to another, both included, in byte order; at most 1,000."""
        return _wire.page_of(await self.request({"op": "range", "key": first, "endKey": last, "limit": limit}, timeout))

    async def scan(self, prefix: str = "", *, timeout: Optional[float] = None) -> AsyncIterator[Record]:
        """All records whose keys begin with prefix, page by page."""
        first, last = prefix or "\0", _wire.last_key(prefix)
        known: Optional[str] = None
        while True:
            page = await self.range(first, last, _wire.PAGE, timeout=timeout)
            for record in page:
                if record.key != known:  # a page begins with the last key of the one before
                    yield record
            if not page.truncated:
                return
            if not page or page[-1].key == known:
                raise HpkvError("the service says that there is more, and hands out none of it", 502, "bad_upstream")
            first = known = page[-1].key

    async def token(self, subscribe_patterns: Iterable[str] = (), subscribe_keys: Iterable[str] = (),
                    access_pattern: Optional[str] = None, *, timeout: Optional[float] = None) -> str:
        """A token of HPKV's for a browser or another machine. An access rule must grant it."""
        request: Dict[str, Any] = {"op": "token", "subscribeKeys": list(subscribe_keys), "subscribePatterns": list(subscribe_patterns)}
        if access_pattern is not None:
            request["accessPattern"] = access_pattern
        return str((await self.request(request, timeout))["token"])

    async def ping(self, *, timeout: Optional[float] = None) -> None:
        """Is the daemon there? Never asks the service."""
        await self.request({"op": "ping"}, timeout)

    async def status(self, *, timeout: Optional[float] = None) -> Dict[str, Any]:
        return await self.request({"op": "status"}, timeout)

    async def stats(self, *, timeout: Optional[float] = None) -> Dict[str, Any]:
        stats: Dict[str, Any] = (await self.request({"op": "stats"}, timeout))["stats"]
        return stats

    # ---- subscriptions ----

    async def subscribe(self, *words: str, keys: Iterable[str] = (), patterns: Iterable[str] = (), initial: bool = False,
                        timeout: Optional[float] = None) -> "AsyncSubscription":
        """Changes of keys and patterns (words with a *), from now on. initial: the present value of each key first."""
        wanted = _wire.topics(words, keys, patterns, initial)
        subscription = AsyncSubscription(self._given, wanted)
        await subscription._subscribe(False, self._timeout if timeout is None else timeout)
        return subscription


class AsyncSubscription:
    """For "async for": Change, Gap, Connection, Ended. See Subscription: it is the same for asyncio."""

    def __init__(self, given: Optional[str], topics: _wire.Topics) -> None:
        self._given = given
        self._following = _wire.Following(topics)
        self._closed = False
        self._lines = _wire.Lines()
        self._reader: Optional[asyncio.StreamReader] = None
        self._writer: Optional[asyncio.StreamWriter] = None
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> "AsyncSubscription":
        return self

    async def __aexit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                        trace: Optional[TracebackType]) -> None:
        await self.close()

    def __del__(self) -> None:  # a loop was left early, perhaps in another thread
        writer, loop = getattr(self, "_writer", None), getattr(self, "_loop", None)
        if writer and loop and not loop.is_closed():
            loop.call_soon_threadsafe(_abort, writer, self._reader)

    async def close(self) -> None:
        """Ends it, and an iteration that is under way."""
        self._closed = True
        self._forget()

    def _forget(self) -> None:
        if self._writer:
            self._writer.transport.abort()
        self._reader = self._writer = None

    async def _line(self) -> bytes:
        while True:
            line = self._lines.next()
            if line is not None:
                return line
            if self._writer and _wire.is_quiet(self._writer.get_extra_info("socket").fileno()):
                self._following.heard()
            chunk = await self._reader.read(65536) if self._reader else b""
            if not chunk:
                raise ConnectionResetError("hpkvd has closed the connection")
            self._lines.feed(chunk)

    async def _ask(self, again: bool, timeout: float) -> Dict[str, Any]:
        self._lines = _wire.Lines()
        self._reader, self._writer = await asyncio.open_unix_connection(_wire.socket_address(self._given))
        self._writer.write(self._following.request(again, timeout))
        answer: Optional[Dict[str, Any]] = None
        while answer is None:
            answer = self._following.take(await self._line())
        return answer

    async def _subscribe(self, again: bool, timeout: float) -> None:
        try:
            _wire.check(await asyncio.wait_for(self._ask(again, timeout), timeout + _wire.GRACE))
        except (OSError, ValueError, asyncio.TimeoutError) as e:
            self._forget()
            raise _wire.no_daemon(_wire.socket_address(self._given), str(e) or "hpkvd is silent") from None
        except BaseException:
            self._forget()
            raise

    async def _heal(self) -> None:
        pause = _wire.Pause()
        while not self._closed:
            await asyncio.sleep(pause.next())
            try:
                await self._subscribe(True, _wire.MOST_TIMEOUT)
            except HpkvError as e:
                if e.code in _wire.FINAL:
                    raise
                continue
            self._following.back()
            return

    def __aiter__(self) -> "AsyncSubscription":
        return self

    async def __anext__(self) -> Event:
        following = self._following
        while not following.ready:
            if self._closed or following.is_over:
                await self.close()
                raise StopAsyncIteration
            if not self._reader:
                await self._heal()
                continue
            try:
                following.take(await self._line())
            except (OSError, ValueError):
                if self._closed:
                    continue
                following.lost()
                self._forget()
        return following.ready.popleft()


def _abort(writer: asyncio.StreamWriter, reader: Optional[asyncio.StreamReader]) -> None:
    """Keeps the reader until then: one that goes before its connection is complained of."""
    writer.transport.abort()
