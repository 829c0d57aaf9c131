"""history.py - what clients have asked and were told, what the service has done, and whether the one agrees with the other.

    Asked     a request, from its sending to its answer
    Arrival   a write that has reached the service's door
    History   all of them, and the truth: the values of each key in their order, as the service told them to somebody who
              listens there without hpkvd in between

Pure bookkeeping, no processes. complaints() returns what is wrong, each with all that is known of the key.

A write whose outcome is unknown may take effect late, if its connection is slow to die. It need not come before a later
one that was sent when hpkvd had given the first one up already: see late().
"""

import collections
import re

SLACK_S = 0.25 # what we see of a verdict, and hpkvd's giving up, are so close at least
COMPLAINTS_MAX = 8
EVENTS_MAX = 120
TOLD_MAX = 25


def short(thing):
    """Its text, in which only the ends of long words are left."""
    return re.sub(r"([^\s'\"]{12})[^\s'\"]{40,}([^\s'\"]{24})", r"\1…\2", str(thing))


class Asked:
    """message_id: None: without one. left_at: its client has left before the answer."""

    __slots__ = ("client", "number", "op", "key", "value", "message_id", "sent_at", "answer", "answered_at", "left_at")

    def __init__(self, client, number, op, key, value, message_id, sent_at):
        self.client, self.number, self.op, self.key, self.value = client, number, op, key, value
        self.message_id, self.sent_at = message_id, sent_at
        self.answer = self.answered_at = self.left_at = None

    @property
    def verdict(self):
        """done, no or unknown."""
        if self.answer is None:
            return "unknown"
        return self.answer["executed"] if "reason" in self.answer else "done"

    @property
    def over_at(self):
        return self.answered_at or self.left_at

    def fault(self):
        """What is wrong with its answer by itself; or None."""
        answer = self.answer
        if "reason" in answer:
            return None if answer.get("executed") in ("no", "unknown") else "an error that does not say whether it was executed"
        if self.op == "ping":
            return None if answer.get("message") == "pong" else "no pong"
        if answer.get("code") == 404:
            return None if self.op in ("get", "delete") else "not found"
        if answer.get("code") != 200:
            return "refused by the service"
        if self.op == "get":
            return None if answer.get("key") == self.key else "the answer to another get"
        if self.op == "range":
            return self._range_fault(answer)
        if self.op == "increment":
            return None if isinstance(answer.get("newValue"), int) else "no new value"
        return None if answer.get("success") is True and "newValue" not in answer else "the answer to something else"

    def _range_fault(self, answer):
        if "records" not in answer:
            return "the answer to something else"
        keys = [record["key"] for record in answer["records"]]
        inside = all(self.key <= key <= self.value for key in keys)
        return None if inside and keys == sorted(keys) else "the answer to another range"

    def __str__(self):
        answer = f"{self.answered_at:.3f} {self.answer}" if self.answer else f"none, it left at {self.left_at}"
        return (f"{self.sent_at:.3f} {self.client} #{self.number} {self.op} {self.key} {self.value!r} "
                f"id {self.message_id!r}: {answer}")


class Arrival:
    """refused: by the rate limit. lane_ended(): when its connection did; None: not yet."""

    __slots__ = ("at", "lane", "refused")

    def __init__(self, at, lane):
        self.at, self.lane, self.refused = at, lane, False

    def __str__(self):
        return f"{self.at:.3f} lane {self.lane.number}{' refused' if self.refused else ''}"


class History:
    def __init__(self):
        self.asked = collections.defaultdict(list) # by key, in the order of sending
        self.arrivals = collections.defaultdict(list) # by op, key and value
        self.truth = collections.defaultdict(list) # by key
        self.watchers = []
        self.faults = [] # complaints that need nothing more
        self.lag_s = 0 # at most, of whoever sees the verdicts

    def add(self, asked):
        if asked.key is not None:
            self.asked[asked.key].append(asked)

    def final(self, key):
        return self.truth[key][-1] if self.truth.get(key) else None

    def complaints(self):
        found = list(self.faults)
        for key in list(self.asked):
            checks = {"ctr": [self.counter], "app": [self.appended], "own": [self.written, self.read_own, self.read_forward],
                      "all": [self.written, self.read_all, self.read_forward]}.get(key.split(":")[0], [])
            told = [c for check in (self.sent_once, *checks) for c in check(key)]
            if told:
                found += told + [self.story(key)]
        for watcher in self.watchers:
            found += watcher.complaints(self)
        return found

    def story(self, key):
        """All that is known of a key."""
        events = [(a.sent_at, str(a) + "; reached the service: " + (", ".join(map(str, self.arrivals[self.name(a)])) or "no"))
                  for a in self.asked[key]]
        lines = [text for _, text in sorted(events)]
        if len(lines) > EVENTS_MAX:
            lines = lines[:EVENTS_MAX // 2] + ["..."] + lines[-EVENTS_MAX // 2:]
        return short("\n  ".join([f"history of {key}:", *lines, f"values: {self.truth.get(key)}"]))

    # -- what was sent to the service

    @staticmethod
    def name(asked):
        return asked.op, asked.key, asked.value

    def arrived(self, asked):
        """When it was sent for good; or None. Deletes of a key look alike: it was the last before the answer."""
        over = asked.over_at if asked.op == "delete" and asked.over_at else float("inf")
        sent = [a for a in self.arrivals.get(self.name(asked), ()) if not a.refused and asked.sent_at <= a.at <= over]
        return sent[-1] if sent else None

    def sent_once(self, key):
        """No write is sent again, and what was not executed was not sent (but to be refused)."""
        writes = collections.defaultdict(list)
        for asked in self.asked[key]:
            if asked.op not in ("get", "range"):
                writes[self.name(asked)].append(asked)
        for name, group in writes.items():
            sent = sum(not a.refused for a in self.arrivals.get(name, ()))
            may = sum(asked.verdict != "no" for asked in group)
            must = sum(asked.verdict == "done" for asked in group)
            if not must <= sent <= may:
                yield f"{name} was sent {sent} times, {must} are done and {may} may be"

    def late(self, first, second):
        """Could the first of two writes, whose outcome is unknown, come behind the second?"""
        if first.verdict != "unknown":
            return False
        was, then = self.arrived(first), self.arrived(second)
        if not was or not then or was.lane is then.lane:
            return False
        given_up = min(t for t in (first.over_at, was.lane.ended_at, float("inf")) if t)
        return then.at >= given_up - SLACK_S - self.lag_s

    # -- what the service has done

    def executed(self, key, count, writes):
        """count(value) says how often a write took effect."""
        for asked in writes:
            n = count(asked.value)
            if n > 1:
                yield f"executed {n} times: {asked}"
            elif n != {"done": 1, "no": 0}.get(asked.verdict, n):
                yield f"executed {n} times: {asked}"

    def in_order(self, key, positions, writes):
        """Of each client, in the order of its sending. positions: of the values that took effect."""
        highest = {}
        for asked in writes:
            if asked.value not in positions:
                continue
            client, before = asked.client, highest.get(asked.client)
            if before and positions[asked.value] < positions[before.value]:
                if not self.late(before, asked):
                    yield f"turned round:\n    {before}\n    {asked}"
            if not before or positions[asked.value] > positions[before.value]:
                highest[client] = asked

    def counter(self, key):
        increments = [a for a in self.asked[key] if a.op == "increment"]
        final = int(self.final(key) or 0)
        least = sum(a.verdict == "done" for a in increments)
        most = least + sum(a.verdict == "unknown" for a in increments)
        if not least <= final <= most:
            yield f"{key} is {final}, but {least} increments were acknowledged, and {most - least} are unknown"
        told = [a for a in increments if a.verdict == "done"]
        if len({a.answer["newValue"] for a in told}) < len(told):
            yield f"{key}: two increments were told the same new value"
        yield from self.in_order(key, *self._numbered(told))

    @staticmethod
    def _numbered(told):
        """Increments named by the value that they brought."""
        named = []
        for a in told:
            copy = Asked(a.client, a.number, a.op, a.key, a.answer["newValue"], a.message_id, a.sent_at)
            copy.answer, copy.answered_at = a.answer, a.answered_at
            named.append(copy)
        return {a.value: a.value for a in named}, named

    def appended(self, key):
        appends = [a for a in self.asked[key] if a.op == "patch"]
        pieces = [piece + ";" for piece in (self.final(key) or "").split(";")[:-1]]
        counts = collections.Counter(pieces)
        if stray := set(pieces) - {a.value for a in appends}:
            yield f"{key}: nobody has appended {stray}"
        yield from self.executed(key, counts.__getitem__, appends)
        yield from self.in_order(key, {piece: i for i, piece in enumerate(pieces)}, appends)

    def written(self, key):
        sets = [a for a in self.asked[key] if a.op == "set"]
        values = self.truth.get(key, [])
        counts = collections.Counter(values)
        yield from self.executed(key, counts.__getitem__, sets)
        yield from self.in_order(key, {value: i for i, value in enumerate(values)}, sets)

    # -- what was read

    def read_own(self, key):
        """A key that one client alone writes: each get sees the last write before it."""
        writes = []
        for asked in self.asked[key]:
            if asked.op in ("set", "delete"):
                writes.append(asked)
            elif asked.op == "get" and asked.verdict == "done":
                value = asked.answer.get("value")
                if value not in self.visible(writes):
                    yield f"reads {value!r}, and could read {self.visible(writes)}: {asked}"

    def visible(self, writes):
        """What a get behind these writes may find."""
        found, sure = [], None
        for write in reversed(writes):
            value = write.value if write.op == "set" else None
            if write.verdict == "unknown" and (not sure or self.late(write, sure) or write.op == "delete"):
                found.append(value)
            elif write.verdict == "done" and not sure:
                found.append(value)
                sure = write
        return found if sure else [*found, None]

    def read_all(self, key):
        """A key that all write: a get finds something that was there."""
        values = {*self.truth.get(key, []), None}
        for asked in self.asked[key]:
            if asked.op == "get" and asked.verdict == "done" and asked.answer.get("value") not in values:
                yield f"reads what never was there: {asked}"


    def read_forward(self, key):
        """Once any client was told a value, no get that is sent later finds an older one, be it from memory or not."""
        place = {value: i for i, value in enumerate(self.truth.get(key, []))}
        gets = [a for a in self.asked[key] if a.op == "get" and a.verdict == "done" and a.answer.get("value", self) in place]
        told = sorted(gets, key=lambda a: a.answered_at)
        newest, n = None, 0
        for asked in sorted(gets, key=lambda a: a.sent_at):
            while n < len(told) and told[n].answered_at < asked.sent_at:
                if newest is None or place[told[n].answer["value"]] > place[newest.answer["value"]]:
                    newest = told[n]
                n += 1
            if newest and place[asked.answer["value"]] < place[newest.answer["value"]]:
                yield f"reads an older value than was told before:\n    {newest}\n    {asked}"


GAP = object()


class Watched:
    """What a subscriber was told, in order, and when it subscribed to what: lines of its own, {"type":"live"|"ended"}
    with keys or patterns, among those that came. Patterns are prefixes with a star.

    from_start   it subscribed before anything had happened
    open         it goes on: in the end it has to know the last values"""

    def __init__(self, name, from_start=False):
        self.name, self.from_start = name, from_start
        self.open = True
        self.lines = []

    @staticmethod
    def matches(line, key):
        keys = [*line.get("keys", ()), line.get("key")]
        patterns = [*line.get("patterns", ()), line.get("pattern")]
        return key in keys or any(key.startswith(pattern[:-1]) for pattern in patterns if pattern)

    def topics(self):
        """Keys and patterns that are live now."""
        keys, patterns = set(), set()
        for line in self.lines:
            if line["type"] == "live":
                keys |= set(line.get("keys", ()))
                patterns |= set(line.get("patterns", ()))
            elif line["type"] == "ended":
                keys -= set(line.get("keys", ()))
                patterns -= set(line.get("patterns", ()))
        return keys, patterns

    def since(self, key):
        """Its lines since it is told of the key without a break."""
        names, begin = set(), len(self.lines)
        for number, line in enumerate(self.lines):
            if line["type"] in ("live", "ended") and self.matches(line, key):
                named = {name for name in (*line.get("keys", ()), *line.get("patterns", ())) if self.matches(
                    {"patterns" if name[-1] == "*" else "keys": [name]}, key)}
                begin = begin if names else number
                names = names | named if line["type"] == "live" else names - named
        return self.lines[begin:]

    def last_word(self, key):
        """A value, GAP, or "nothing" since it subscribed."""
        for line in reversed(self.since(key)):
            if line["type"] == "notification" and line["key"] == key:
                return line["value"]
            if line["type"] == "gap" and self.matches(line, key):
                return GAP
        return "nothing"

    def behind(self, history):
        """Keys of which it does not know the last value; to be asked again until there are none."""
        keys, patterns = self.topics()
        watched = keys | {key for key in history.truth for p in patterns if key.startswith(p[:-1])}
        return [self.story(f"was told {word!r} of {key}, which is {history.final(key)!r}", history, key) for key in watched
                if (word := self.last_word(key)) not in (history.final(key), GAP)
                and not (word == "nothing" and self.excused(history, key))]

    def excused(self, history, key):
        """It subscribed without wanting the initial value, and perhaps behind the last change."""
        live = [line for line in self.since(key) if line["type"] == "live" and self.matches(line, key)]
        asked_for = [line for line in live if key in line.get("keys", ())]
        if self.from_start or (key in self.topics()[0] and asked_for and asked_for[-1].get("initial")):
            return False
        last = next((a for a in history.asked[key] if a.value == history.final(key)), None)
        return not last or last.sent_at < live[-1]["at"]

    def complaints(self, history):
        keys = {line["key"] for line in self.lines if line["type"] == "notification"}
        found = [c for key in sorted(keys) for c in self.stream(history, key)] + list(self.told_after_end())
        return found[:COMPLAINTS_MAX]

    def stream(self, history, key):
        """The changes of one key: each once, in order, and none left out unless it was said."""
        place = {value: i for i, value in enumerate(history.truth.get(key, []))}
        last, jump, by_key = -1, False, False
        for number, line in enumerate(self.lines):
            kind = line["type"]
            if kind == "live" and self.matches(line, key):
                jump, by_key = jump or not self.from_start, by_key or key in line.get("keys", ())
            elif (kind == "connection" and line["state"] == "disconnected" and by_key) or \
                    (kind == "gap" and self.matches(line, key)):
                jump = True
            elif kind == "notification" and line["key"] == key:
                read = line.get("initial") or line.get("resync")
                fault, last = (self._read if read else self._step)(place, last, jump or "skipped" in line, line)
                jump = False
                if fault:
                    yield self.story(f"{fault}, behind number {last}: {line}", history, key, number + 3)
                    return

    def story(self, fault, history, key, end=None):
        """What it was told of the key, up to a line."""
        told = [str(line) for line in self.lines[:end]
                if line["type"] == "connection" or line.get("key") == key or self.matches(line, key)]
        values = " ".join(f"{i}:{value}" for i, value in enumerate(history.truth.get(key, [])))
        return short("\n  ".join([f"{self.name}: {fault}", *told[-TOLD_MAX:], f"values: {values}"]))

    @staticmethod
    def _step(place, last, jump, line):
        """What is wrong with a line that follows the change of this number; and the number of its own."""
        now = place.get(line["value"])
        if now is None:
            return "a value that never was there", last
        if now <= last:
            return "comes twice, or in the wrong order", now
        return ("some are left out" if now > last + 1 and not jump else None), now

    @staticmethod
    def _read(place, last, jump, line):
        """The same of a value that was read: it stands behind all changes that it has seen."""
        now = place.get(line["value"], -1 if line["value"] is None else None)
        if now is None:
            return "a value that never was there", last
        if now < last:
            return "a value that is older than what was told before", now
        return ("some that it has seen come later, or are left out" if now > last and not jump else None), now

    def told_after_end(self):
        live = ([], [])
        for line in self.lines:
            if line["type"] in ("live", "ended"):
                keys, patterns = set(line.get("keys", ())), set(line.get("patterns", ()))
                change = set.union if line["type"] == "live" else set.difference
                live = (change(set(live[0]), keys), change(set(live[1]), patterns))
            elif line["type"] == "notification" and not self.matches({"keys": live[0], "patterns": live[1]}, line["key"]):
                yield f"{self.name} is told of what it is not subscribed to: {line}"
