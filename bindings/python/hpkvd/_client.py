"""Client: requests that wait for their answer, and subscriptions to iterate over."""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from types import TracebackType
from typing import Any, Dict, Iterable, Iterator, Optional, Type, Union, overload

from . import _wire
from ._wire import Event, HpkvError, Json, Page, Record

_MISSING: Any = object()


class Line:
    """A connection to the daemon: lines out, lines in."""

    def __init__(self, path: str, timeout: Optional[float]) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.pid = os.getpid()
        self.lines = _wire.Lines()
        self.left = 0  # bytes of the last line that have not been sent
        try:
            self.socket.settimeout(timeout)
            self.socket.connect(path)
        except BaseException:
            self.socket.close()
            raise

    def send(self, data: bytes, timeout: Optional[float]) -> None:
        """When it fails, .left says how much was not sent; the last line needs no end."""
        self.left = len(data)
        self.socket.settimeout(timeout)
        while self.left:
            self.left -= self.socket.send(data[-self.left:] if self.left < len(data) else data)

    def is_quiet(self) -> bool:
        """It is open, and all that the daemon has said was read."""
        return _wire.is_quiet(self.socket.fileno())

    def receive(self, timeout: Optional[float]) -> bytes:
        """The next line. ConnectionError: there is none any more; socket.timeout."""
        while True:
            line = self.lines.next()
            if line is not None:
                return line
            self.socket.settimeout(timeout)
            chunk = self.socket.recv(262144)
            if not chunk:
                raise ConnectionResetError("hpkvd has closed the connection")
            self.lines.feed(chunk)

    def interrupt(self) -> None:
        """Ends a call that another thread is in. After a fork the connection is the parent's, and is left alone."""
        if self.pid == os.getpid():
            try:
                self.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self) -> None:
        self.socket.close()


_clients: "weakref.WeakSet[Client]" = weakref.WeakSet()


def _after_fork() -> None:
    for client in list(_clients):  # a thread that is not in this process may hold their locks
        client._lock = threading.Lock()
        client._closing = threading.Event()


os.register_at_fork(after_in_child=_after_fork)


class Client:
    """A connection to hpkvd, made when it is first needed, and again when it has to be.

    Requests wait for their answer: its value is returned, or HpkvError raised. Threads may share a client and take
    turns; each may as well have its own. After a fork, both processes go on with connections of their own.

    socket   a path, or @name; else $HPKVD_SOCKET ...
    timeout  seconds that a request may take in all
    """

    def __init__(self, socket: Optional[str] = None, timeout: float = _wire.DEFAULT_TIMEOUT) -> None:
        self._given = socket
        self._timeout = timeout
        self._line: Optional[Line] = None
        self._last_id = 0
        self._was_there = False
        self._lock = threading.Lock()
        self._closings = 0
        self._closing = threading.Event()  # ends the pause of who holds the lock
        _clients.add(self)

    # ---- the connection ----

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection, and requests of other threads; the next request makes another."""
        self._closings += 1
        self._closing.set()
        line = self._line
        if line:
            line.interrupt()
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._line:
            self._line.close()
        self._line = None

    def _connect(self, until: float, pause: _wire.Pause, closings: int) -> Line:
        """One that was there before is waited for, within the time."""
        if self._line and self._line.pid != os.getpid():
            self._drop()
        while not self._line:
            path = _wire.socket_address(self._given)
            try:
                self._line = Line(path, max(0.001, until - time.monotonic()))
                self._was_there = True
            except (OSError, ValueError) as e:
                wait = pause.next()
                if not self._was_there or isinstance(e, ValueError) or time.monotonic() + wait >= until:
                    raise _wire.no_daemon(path, e) from None
                self._sleep(wait, closings)
        return self._line

    def _sleep(self, seconds: float, closings: int) -> None:
        self._closing.clear()
        if self._closings == closings:
            self._closing.wait(seconds)
        if self._closings != closings:
            raise _wire.closed("no")

    def request(self, request: Dict[str, Any], timeout: Optional[float] = None) -> Dict[str, Any]:
        """Any request of the protocol; returns its answer if that is a good one, else HpkvError."""
        closings = self._closings
        with self._lock:
            return _wire.check(self._answer(request, timeout, closings))

    def _answer(self, request: Dict[str, Any], timeout: Optional[float], closings: int) -> Dict[str, Any]:
        until = time.monotonic() + (self._timeout if timeout is None else timeout)
        repeatable = request.get("op") in _wire.REPEATABLE
        pause = _wire.Pause()
        while True:
            if self._closings != closings:
                raise _wire.closed("no")
            line = self._connect(until, pause, closings)
            try:
                answer = self._exchange(line, request, until, repeatable)
            except HpkvError as e:
                if self._closings != closings:
                    raise _wire.closed(e.executed) from None
                if e.reason != "connection_lost" or not (repeatable or e.executed == "no"):
                    raise
                seconds = pause.next()
                if time.monotonic() + seconds >= until:
                    raise
                self._sleep(seconds, closings)
                continue
            except BaseException:
                self._drop()  # interrupted: an answer that comes later is nobody's
                raise
            if not _wire.passes(answer):
                return answer
            self._drop()
            retry = answer.get("retryAfterMs") or 0
            if time.monotonic() + retry / 1000 >= until:
                return answer
            self._sleep(max(pause.next(), retry / 1000), closings)

    def _exchange(self, line: Line, request: Dict[str, Any], until: float, repeatable: bool) -> Dict[str, Any]:
        self._last_id += 1
        left = until - time.monotonic()
        data = _wire.encode_numbered(request, self._last_id, left)
        try:
            line.send(data, max(0.001, left))
        except OSError as e:
            self._drop()
            unsent = repeatable or line.left > 1
            raise (_wire.late(False, unsent) if isinstance(e, socket.timeout) else _wire.lost(e, unsent)) from None
        try:
            while True:
                answer = _wire.decode(line.receive(max(0.001, until + _wire.GRACE - time.monotonic())))
                if answer.get("messageId") == self._last_id:
                    return answer
                if "messageId" not in answer and "code" in answer:
                    raise ConnectionError(answer.get("error"))  # the daemon says why it closes
        except socket.timeout:
            self._drop()
            raise _wire.late(True, repeatable) from None
        except (OSError, ValueError) as e:
            self._drop()
            raise _wire.lost(e, repeatable) from None

    # ---- requests ----

    @overload
    def get(self, key: str, *, timeout: Optional[float] = None) -> str: ...

    @overload
    def get(self, key: str, default: Optional[str], *, timeout: Optional[float] = None) -> Optional[str]: ...

    def get(self, key: str, default: Any = _MISSING, *, timeout: Optional[float] = None) -> Any:
        """The value. A missing key: default if there is one, else HpkvError with code 404."""
        try:
            return _wire.text_of(self.request({"op": "get", "key": key}, timeout)["value"])
        except HpkvError as e:
            if e.code != 404 or default is _MISSING:
                raise
            return default

    def set(self, key: str, value: Json, *, timeout: Optional[float] = None) -> None:
        """A string is stored as it is, anything else as JSON."""
        self.request({"op": "set", "key": key, "value": _wire.as_text(value)}, timeout)

    def patch(self, key: str, value: Json, *, timeout: Optional[float] = None) -> None:
        """Merges a dict into the stored JSON object; appends anything else to what is stored."""
        self.request({"op": "patch", "key": key, "value": _wire.as_text(value)}, timeout)

    def delete(self, key: str, *, timeout: Optional[float] = None) -> None:
        self.request({"op": "delete", "key": key}, timeout)

    def increment(self, key: str, by: Union[int, float] = 1, *, timeout: Optional[float] = None) -> Union[int, float]:
        """The sum."""
        answer: Union[int, float] = self.request({"op": "increment", "key": key, "value": by}, timeout)["newValue"]
        return answer

    def range(self, first: str, last: str, limit: int = 100, *, timeout: Optional[float] = None) -> Page:
        """Records from one key to another, both included, in byte order; at most 1,000."""
        return _wire.page_of(self.request({"op": "range", "key": first, "endKey": last, "limit": limit}, timeout))

    def scan(self, prefix: str = "", *, timeout: Optional[float] = None) -> Iterator[Record]:
        """All records whose keys begin with prefix, page by page."""
        first, last = prefix or "\0", _wire.last_key(prefix)
        known: Optional[str] = None
        while True:
            page = self.range(first, last, _wire.PAGE, timeout=timeout)
            # A page begins with the last key of the one before: a longer name may be no key.
            yield from (r for r in page if r.key != known)
            if not page.truncated:
                return
            if not page or page[-1].key == known:
                raise HpkvError("the service says that there is more, and hands out none of it", 502, "bad_upstream")
            first = known = page[-1].key

    def token(self, subscribe_patterns: Iterable[str] = (), subscribe_keys: Iterable[str] = (), access_pattern: Optional[str] = None,
              *, timeout: Optional[float] = None) -> str:
        """A token of HPKV's for a browser or another machine. An access rule must grant it."""
        request: Dict[str, Any] = {"op": "token", "subscribeKeys": list(subscribe_keys), "subscribePatterns": list(subscribe_patterns)}
        if access_pattern is not None:
            request["accessPattern"] = access_pattern
        return str(self.request(request, timeout)["token"])

    def ping(self, *, timeout: Optional[float] = None) -> None:
        """Is the daemon there? Never asks the service."""
        self.request({"op": "ping"}, timeout)

    def status(self, *, timeout: Optional[float] = None) -> Dict[str, Any]:
        return self.request({"op": "status"}, timeout)

    def stats(self, *, timeout: Optional[float] = None) -> Dict[str, Any]:
        stats: Dict[str, Any] = self.request({"op": "stats"}, timeout)["stats"]
        return stats

    # ---- subscriptions ----

    def subscribe(self, *words: str, keys: Iterable[str] = (), patterns: Iterable[str] = (), initial: bool = False,
                  timeout: Optional[float] = None) -> "Subscription":
        """Changes of keys and patterns (words with a *), from now on. initial: the present value of each key first."""
        wanted = _wire.topics(words, keys, patterns, initial)
        return Subscription(self._given, wanted, self._timeout if timeout is None else timeout)


class Subscription:
    """Iterates over what happens: Change, Gap, Connection, Ended.

    It has a connection of its own, and reads no more than is asked for: for one that iterates slowly, hpkvd keeps the
    latest change of each key (Change.skipped). When the daemon restarts it subscribes again and tells: Connection twice,
    Gap for each pattern, and the present values of keys. It ends when it is closed, or nothing is subscribed to any more.
    """

    def __init__(self, given: Optional[str], topics: _wire.Topics, timeout: float) -> None:
        self._given = given
        self._following = _wire.Following(topics)
        self._closed = False
        self._line: Optional[Line] = None
        self._subscribe(again=False, timeout=timeout)

    def __enter__(self) -> "Subscription":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()

    def __del__(self) -> None:  # a loop was left early
        line = getattr(self, "_line", None)
        if line:
            line.close()

    def close(self) -> None:
        """Ends it; may be called by another thread, whose iteration ends then."""
        self._closed = True
        line = self._line
        if line:
            line.interrupt()
            line.close()

    def _subscribe(self, again: bool, timeout: float) -> None:
        path = _wire.socket_address(self._given)
        answer: Optional[Dict[str, Any]] = None
        try:
            self._line = Line(path, timeout)
            self._line.send(self._following.request(again, timeout), timeout)
            while answer is None:
                answer = self._following.take(self._line.receive(timeout + _wire.GRACE))
            _wire.check(answer)
        except HpkvError:
            self._forget()
            raise
        except (OSError, ValueError) as e:
            self._forget()
            raise _wire.no_daemon(path, e) from None

    def _forget(self) -> None:
        if self._line:
            self._line.close()
        self._line = None

    def _heal(self) -> None:
        """For as long as it takes. HpkvError: it is refused."""
        pause = _wire.Pause()
        while not self._closed:
            time.sleep(pause.next())
            try:
                self._subscribe(again=True, timeout=_wire.MOST_TIMEOUT)
            except HpkvError as e:
                if e.code in _wire.FINAL:
                    raise
                continue
            self._following.back()
            return

    def __iter__(self) -> "Subscription":
        return self

    def __next__(self) -> Event:
        following = self._following
        while not following.ready:
            if self._closed or following.is_over:
                self.close()
                raise StopIteration
            if not self._line:
                self._heal()
                continue
            try:
                if self._line.pid != os.getpid():
                    raise ConnectionError("it is the parent's")
                if self._line.is_quiet():
                    following.heard()
                following.take(self._line.receive(None))
            except (OSError, ValueError):
                if self._closed:
                    continue
                following.lost()
                self._forget()
        return following.ready.popleft()
