"""What both clients share: lines, answers, errors, events, the state of a subscription. No sockets here.

A request is a JSON object on a line, and so is its answer (doc/protocol.md of hpkvd).
"""

from __future__ import annotations

import collections
import json
import os
import random
import select
import time
from typing import Any, Deque, Dict, Iterable, List, NamedTuple, Optional, Tuple, Type, Union

Json = Union[None, bool, int, float, str, List[Any], Dict[str, Any]]

KEY_MAX = 512  # bytes: the longest key that the service is known to take
PAGE = 1000  # records: the service's most
DEFAULT_TIMEOUT = 10.0
MOST_TIMEOUT = 600.0
GRACE = 2.0  # the daemon tells best why something took too long, so it may be a bit late

FINAL = frozenset((400, 403, 413))  # a subscription that is refused with these is not tried again

# Of these, one that was sent may be sent again: they change nothing.
REPEATABLE = frozenset(("get", "range", "subscribe", "unsubscribe", "token", "ping", "status", "stats", 1, 5))


class HpkvError(Exception):
    """A request failed.

    code         as the service or the daemon says: 404, 403, 503 ...
    reason       of the daemon's own errors: "forbidden", "upstream_down" ...; of this library's: "no_daemon",
                 "connection_lost", "timeout", "closed"; else None
    executed     "no", or "unknown": a write that was sent, and whose answer never came. Look before you repeat it
    retry_after  seconds after which to try again, or None where nobody can tell
    """

    def __init__(self, message: str, code: int = 0, reason: Optional[str] = None, executed: str = "no",
                 retry_after: Optional[float] = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.executed = executed
        self.retry_after = retry_after

    def __reduce__(self) -> "Tuple[Type[HpkvError], Tuple[Any, ...]]":  # for pickle: multiprocessing passes errors on
        return type(self), (self.args[0], self.code, self.reason, self.executed, self.retry_after)

    def __str__(self) -> str:
        unsure = "; it may have been executed or not" if self.executed == "unknown" else ""
        return f"{super().__str__()} ({self.code}{' ' + self.reason if self.reason else ''}{unsure})"


class Record(NamedTuple):
    key: str
    value: str


class Page(List[Record]):
    """Records of a range; truncated: there are more."""

    truncated = False


class Change(NamedTuple):
    """key has this value now; None: it was deleted."""

    key: str
    value: Optional[str]
    timestamp: int  # ms since 1970
    initial: bool = False  # the value was read for the subscription: nothing need have changed
    resync: bool = False  # it changed while there was no connection to the service
    skipped: int = 0  # this change has replaced so many that were not read in time


class Gap(NamedTuple):
    """Changes of a key, or of keys that match a pattern, may have been missed: read them anew."""

    key: Optional[str] = None
    pattern: Optional[str] = None
    since: Optional[int] = None  # ms since 1970
    until: Optional[int] = None


class Connection(NamedTuple):
    """A connection was lost, or is back: the daemon's to the service, or this program's to the daemon."""

    connected: bool
    to: str  # "service" or "daemon"


class Ended(NamedTuple):
    """A subscription has ended: the access rules have changed."""

    key: Optional[str]
    pattern: Optional[str]
    reason: str


Event = Union[Change, Gap, Connection, Ended]


def socket_address(given: Optional[str]) -> str:
    """What connect() takes."""
    path = given or os.environ.get("HPKVD_SOCKET")
    if not path:
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        path = os.path.join(runtime, "hpkvd.sock") if runtime else ""
        if not path or not os.path.exists(path):
            path = "/run/hpkvd/hpkvd.sock"
    path = path[5:] if path.startswith("unix:") else path
    return "\0" + path[1:] if path.startswith("@") else path


def encode(request: Dict[str, Any]) -> bytes:
    return json.dumps(request, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def encode_numbered(request: Dict[str, Any], number: int, left: float) -> bytes:
    """With the number of ours, and the time that is left unless the request has one of its own."""
    whole = {"messageId": number, "timeoutMs": milliseconds(left), **request}
    whole["messageId"] = number
    return encode(whole)


def decode(line: bytes) -> Dict[str, Any]:
    answer = json.loads(line)
    if not isinstance(answer, dict):
        raise ValueError("a line that is no object")
    return answer


def as_text(value: Json) -> str:
    """A string as it is, anything else as JSON."""
    if value is None:
        raise ValueError("None is no value: delete() deletes")
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def text_of(value: Any) -> Optional[str]:
    """A value of the service: None, or a string, whatever it is there."""
    return value if value is None or isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def check(answer: Dict[str, Any]) -> Dict[str, Any]:
    """The answer, if it is a good one."""
    code = answer.get("code")
    if isinstance(code, int) and 200 <= code < 300:
        return answer
    number = code if isinstance(code, int) else 0
    retry = answer.get("retryAfterMs")
    raise HpkvError(
        str(answer.get("error") or answer.get("message") or "an answer that does not say what went wrong"),
        number,
        answer.get("reason"),
        answer.get("executed") or ("unknown" if number >= 500 or number == 0 else "no"),
        retry / 1000 if isinstance(retry, (int, float)) else None,
    )


def passes(answer: Dict[str, Any]) -> bool:
    """A daemon that ends has not executed it; the next one will."""
    return answer.get("reason") == "shutting_down" and answer.get("executed") == "no"


def no_daemon(path: str, why: object) -> HpkvError:
    return HpkvError(f"no connection to hpkvd at {path.replace(chr(0), '@', 1)}: {why}", 503, "no_daemon", "no")


def lost(why: object, repeatable: bool) -> HpkvError:
    return HpkvError(f"sent, but the connection to hpkvd was lost before the answer came: {why}", 504, "connection_lost",
                     "no" if repeatable else "unknown")


def closed(executed: str) -> HpkvError:
    return HpkvError("the client was closed", 0, "closed", executed)


def late(sent: bool, repeatable: bool) -> HpkvError:
    executed = "unknown" if sent and not repeatable else "no"
    return HpkvError("hpkvd has not answered in time" if sent else "hpkvd has not read it in time", 504 if sent else 503,
                     "timeout", executed)


def page_of(answer: Dict[str, Any]) -> Page:
    page = Page(Record(r["key"], text_of(r.get("value")) or "") for r in answer.get("records") or ())
    page.truncated = bool(answer.get("truncated"))
    return page


def event_of(message: Dict[str, Any]) -> Optional[Event]:
    """None: a line that this version does not know."""
    kind = message.get("type")
    if kind == "notification":
        return Change(message["key"], text_of(message.get("value")), message.get("timestamp") or 0, bool(message.get("initial")),
                      bool(message.get("resync")), message.get("skipped") or 0)
    if kind == "gap":
        return Gap(message.get("key"), message.get("pattern"), message.get("since"), message.get("until"))
    if kind == "connection":
        return Connection(message.get("state") == "connected", "service")
    if kind == "unsubscribed":
        return Ended(message.get("key"), message.get("pattern"), message.get("error") or message.get("reason") or "")
    return None


def last_key(prefix: str) -> str:
    """The last one that can begin with the prefix."""
    room = max(0, KEY_MAX - len(prefix.encode("utf-8", "surrogatepass")))
    return prefix + "\U0010ffff" * (room // 4) + ("", "\x7f", "\u07ff", "\uffff")[room % 4]


class Topics(NamedTuple):
    """What is subscribed to."""

    keys: List[str]
    patterns: List[str]
    initial: bool

    def request(self, again: bool) -> Dict[str, Any]:
        return {"op": "subscribe", "keys": self.keys, "patterns": self.patterns, "initial": self.initial or again}

    def without(self, ended: Ended) -> "Topics":
        return Topics([k for k in self.keys if k != ended.key], [p for p in self.patterns if p != ended.pattern], self.initial)


def topics(words: Iterable[str], keys: Iterable[str], patterns: Iterable[str], initial: bool) -> Topics:
    """Words with a * are patterns, others are keys."""
    all_words = list(words)
    found = Topics(list(keys) + [w for w in all_words if "*" not in w], list(patterns) + [w for w in all_words if "*" in w], initial)
    if not found.keys and not found.patterns:
        raise ValueError("nothing to subscribe to")
    return found


class Lines:
    """Bytes into lines."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> None:
        self._bytes += data

    def next(self) -> Optional[bytes]:
        """None: the rest of it has not come yet."""
        end = self._bytes.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._bytes)
            return None
        line = bytes(self._bytes[:end])
        del self._bytes[:end + 1]
        self._searched = 0
        return line


class Following:
    """A subscription apart from its connection: what is wanted, and the events that nobody has taken yet."""

    def __init__(self, wanted: Topics) -> None:
        self._wanted = wanted
        self._heard = self._since = 0  # ms since 1970: the last time when nothing was missed; before the loss
        self.ready: Deque[Event] = collections.deque()

    @property
    def is_over(self) -> bool:
        return not self._wanted.keys and not self._wanted.patterns

    def request(self, again: bool, timeout: float) -> bytes:
        return encode({**self._wanted.request(again), "messageId": 0, "timeoutMs": milliseconds(timeout)})

    def take(self, line: bytes) -> Optional[Dict[str, Any]]:
        """Keeps an event; returns the answer to the request. ConnectionError: the daemon says why it closes."""
        message = decode(line)
        if message.get("messageId") == 0:
            self.heard()
            return message
        if "type" not in message:
            raise ConnectionError(message.get("error"))
        event = event_of(message)
        if isinstance(event, Ended):
            self._wanted = self._wanted.without(event)
        if event is not None:
            self.ready.append(event)
        return None

    def heard(self) -> None:
        """All that has happened until now was told."""
        self._heard = int(time.time() * 1000)

    def lost(self) -> None:
        self._since = self._heard
        self.ready.append(Connection(False, "daemon"))

    def back(self) -> None:
        """What came with the new connection follows."""
        until = int(time.time() * 1000)
        gaps = [Gap(pattern=p, since=self._since, until=until) for p in self._wanted.patterns]
        self.ready.extendleft(reversed([Connection(True, "daemon"), *gaps]))


def is_quiet(fd: int) -> bool:
    """It is open, and there is nothing to read."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return not poll.poll(0)


class Pause:
    """How long to wait before the next attempt: doubling, a random half of it left out."""

    FIRST, MOST = 0.02, 2.0

    def __init__(self) -> None:
        self._next = 0.0

    def reset(self) -> None:
        self._next = 0.0

    def next(self) -> float:
        pause = self._next * (0.5 + random.random() / 2)
        self._next = min(self._next * 2, self.MOST) or self.FIRST
        return pause


def milliseconds(seconds: float) -> int:
    return max(1, min(int(seconds * 1000), int(MOST_TIMEOUT * 1000)))
