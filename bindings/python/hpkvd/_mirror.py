"""Mirror: a dict that is kept equal to the keys of a pattern, by a thread of its own."""

from __future__ import annotations

import collections
import os
import re
import socket
import sys
import threading
import time
import weakref
from types import TracebackType
from typing import Any, Callable, Deque, Dict, Iterator, Mapping, Optional, Set, Type

from . import _wire
from ._client import Line
from ._wire import HpkvError

AT_ONCE = 100
AGAIN = 0.5  # seconds after a failure

OnChange = Callable[[str, Optional[str]], None]


_mirrors: "weakref.WeakValueDictionary[int, Mirror]" = weakref.WeakValueDictionary()  # a mapping has no hash


def _after_fork() -> None:
    for mirror in list(_mirrors.values()):
        mirror._go_on()


os.register_at_fork(after_in_child=_after_fork)


class Mirror(Mapping[str, str]):
    """The keys that match a pattern, and their values, as they are now.

        with Mirror("app:*") as app:
            print(app["app:color"], len(app))

    Reads never wait: they are of memory, which a thread keeps true. A notification says which key has changed; the
    key is read then, so a value never goes back, and is never a part of one. When changes may have been missed all is
    read again. While the connection is lost the last values stay, and .stale is true. After a fork both processes have
    one, which is stale in the new process until its own thread has read all.

    on_change   called in that thread with a key and its value (None: it is gone), after the dict has it
    wait        seconds to wait for the first values; HpkvError if they do not come
    """

    def __init__(self, pattern: str, socket: Optional[str] = None, *, on_change: Optional[OnChange] = None,
                 wait: float = _wire.DEFAULT_TIMEOUT) -> None:
        self.pattern = pattern
        self._given = socket
        self._on_change = on_change
        self._matches = re.compile(".*".join(map(re.escape, pattern.split("*"))), re.S).fullmatch
        self._prefix = pattern.split("*")[0]
        self._values: Dict[str, str] = {}
        self._whole = threading.Event()
        self._live = False
        self._error: Optional[HpkvError] = None
        self._closed = False
        self._line: Optional[Line] = None
        self._why: Optional[HpkvError] = None  # the last failure
        self._start()
        _mirrors[id(self)] = self
        if not self._whole.wait(wait) or self._error:
            error = self._error or self._why or HpkvError(f"{pattern} could not be read in time", 503, "timeout", "no")
            self.close()
            raise error

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=f"hpkvd mirror of {self.pattern}", daemon=True)
        self._thread.start()

    def _go_on(self) -> None:
        """In the new process after a fork, which has none of the threads."""
        self._live = False
        whole, self._whole = self._whole, threading.Event()
        if whole.is_set():
            self._whole.set()
        if self._line:
            self._line.close()
        self._line = None
        if not self._closed and not self._error:
            self._start()

    # ---- a mapping ----

    def __getitem__(self, key: str) -> str:
        return self._values[key]

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._values))

    def __repr__(self) -> str:
        return f"<Mirror of {self.pattern!r}: {len(self)} keys{', stale' if self.stale else ''}>"

    def copy(self) -> Dict[str, str]:
        """All of it at one time."""
        return self._values.copy()

    @property
    def stale(self) -> bool:
        """Changes may have been missed, and not all is read again yet."""
        return not self._live

    @property
    def error(self) -> Optional[HpkvError]:
        """Why it has ended: the access rules forbid it, say."""
        return self._error

    def __enter__(self) -> "Mirror":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()

    def close(self) -> None:
        """Ends it; the values stay."""
        self._closed = True
        line = self._line
        if line:
            line.interrupt()
        if threading.current_thread() is not self._thread:
            self._thread.join(5)
        self._live = False

    def join(self, timeout: Optional[float] = None) -> None:
        """Waits until it has ended: it was closed, or there is an .error."""
        self._thread.join(timeout)

    # ---- the thread ----

    def _run(self) -> None:
        pause = _wire.Pause()
        while not self._closed and not self._error:
            try:
                self._follow(pause)
            except HpkvError as e:
                self._why = e
                if e.code in _wire.FINAL:
                    self._error = e
            except (OSError, ValueError) as e:
                self._why = _wire.no_daemon(_wire.socket_address(self._given), e)
                if not self._whole.is_set() and isinstance(e, (FileNotFoundError, ConnectionRefusedError, PermissionError)):
                    self._error = self._why
            except Exception as e:  # a line that is none of hpkvd's: the mirror must not pass for a true one
                self._error = HpkvError(f"hpkvd has sent what can't be understood: {e!r}", 502, "bad_upstream", "no")
            self._live = False
            if self._line:
                self._line.close()
            if not self._closed and not self._error:
                time.sleep(pause.next())
        self._whole.set()

    def _send(self, **request: Any) -> None:
        assert self._line
        self._line.send(_wire.encode(request), None)

    def _follow(self, pause: _wire.Pause) -> None:
        self._line = Line(_wire.socket_address(self._given), _wire.DEFAULT_TIMEOUT)
        self._reading: Set[str] = set()  # keys that are asked for
        self._again: Set[str] = set()  # … and have changed since
        self._queue: Deque[str] = collections.deque()  # keys to be asked for when others are answered
        self._touched: Set[str] = set()  # keys that have changed since the reading of all began
        self._asked: Dict[str, str] = {}  # by number
        self._number = 0
        self._load = 0  # the number of the reading of all; answers of an earlier one are void
        self._loading = False
        self._retry: Optional[float] = None  # when to read all again, after a failure
        self._retries: Dict[str, float] = {}  # the same, of single keys
        self._away = False
        self._send(op="subscribe", patterns=[self.pattern], messageId="subscribe", timeoutMs=600000)
        while not self._closed:
            times = ([self._retry] if self._retry is not None else []) + list(self._retries.values())
            try:
                left = None if not times else max(0.001, min(times) - time.monotonic())
                self._take(_wire.decode(self._line.receive(left)), pause)
            except socket.timeout:
                pass
            self._do_again()

    def _do_again(self) -> None:
        now = time.monotonic()
        if self._retry is not None and self._retry <= now:
            self._read_all()
        for key in [key for key, at in self._retries.items() if at <= now]:
            del self._retries[key]
            self._read(key)

    def _take(self, message: Dict[str, Any], pause: _wire.Pause) -> None:
        kind, number = message.get("type"), message.get("messageId")
        if kind == "notification":
            if self._matches(message["key"]):
                self._read(message["key"])
        elif kind == "gap":
            self._read_all()
        elif kind == "connection":
            self._away = message.get("state") != "connected"
            self._live = False
            if not self._away:
                self._read_all()
        elif kind == "unsubscribed":
            raise HpkvError(str(message.get("error") or "the access rules have ended the subscription"), 403, "forbidden", "no")
        elif number == "subscribe":
            _wire.check(message)
            pause.reset()
            self._read_all()
        elif isinstance(number, str) and number.startswith("key "):
            self._take_value(self._asked.pop(number[4:]), message)
        elif number == self._load and kind is None:
            self._take_page(message)
        elif number is None:
            raise ConnectionError(message.get("error"))

    # ---- one key ----

    def _read(self, key: str) -> None:
        """Not twice at once: what comes meanwhile is read afterwards."""
        self._touched.add(key)
        if key in self._reading:
            self._again.add(key)
            return
        self._reading.add(key)
        self._queue.append(key)
        self._ask()

    def _ask(self) -> None:
        """So many at once that the daemon takes them without waiting for this side to read."""
        while self._queue and len(self._reading) - len(self._queue) < AT_ONCE:
            key = self._queue.popleft()
            self._asked[str(self._number)] = key
            self._send(op="get", key=key, messageId=f"key {self._number}")
            self._number += 1

    def _take_value(self, key: str, answer: Dict[str, Any]) -> None:
        self._reading.discard(key)
        code = answer.get("code")
        if code == 200:
            self._put(key, _wire.text_of(answer.get("value")))
        elif code == 404:
            self._put(key, None)
        else:
            self._retries[key] = time.monotonic() + AGAIN
        if key in self._again:
            self._again.discard(key)
            self._read(key)
        self._ask()

    # ---- all ----

    def _read_all(self) -> None:
        self._retry = None
        self._load += 1
        self._loading = True
        self._live = False
        self._seen: Set[str] = set()
        self._touched = set(self._reading)
        self._read_page(self._prefix or "\0")

    def _read_page(self, first: str) -> None:
        self._first = first
        last = _wire.last_key(self._prefix)
        self._send(op="range", key=first, endKey=last, limit=_wire.PAGE, messageId=self._load)

    def _take_page(self, answer: Dict[str, Any]) -> None:
        try:
            page = _wire.page_of(_wire.check(answer))
        except HpkvError as e:
            self._why = e
            if e.code in _wire.FINAL:
                raise
            self._retry = time.monotonic() + max(AGAIN, e.retry_after or 0)
            return
        for key, value in page:
            if self._matches(key):
                self._seen.add(key)
                if key not in self._touched:  # what was read of the key itself is newer
                    self._put(key, value)
        if page.truncated and (not page or page[-1].key == self._first):
            raise HpkvError("the service says that there is more, and hands out none of it", 502, "bad_upstream")
        if page.truncated:
            self._read_page(page[-1].key)
            return
        for key in set(self._values) - self._seen - self._touched:
            self._put(key, None)
        self._loading = False
        self._live = not self._away
        self._whole.set()

    def _put(self, key: str, value: Optional[str]) -> None:
        if self._values.get(key) == value:
            return
        if value is None:
            del self._values[key]
        else:
            self._values[key] = value
        if self._on_change:
            try:
                self._on_change(key, value)
            except Exception:  # of the caller's: the mirror goes on
                sys.excepthook(*sys.exc_info())
