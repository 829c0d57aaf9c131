#!/usr/bin/env python3
"""mirror.py PREFIX - keeps a copy of all keys that begin with PREFIX (no * in it), and prints each change of it."""

import json
import os
import socket
import sys
import time

SOCKET = os.environ.get("HPKVD_SOCKET", "/run/hpkvd/hpkvd.sock")


# [mirror]
class Mirror:
    def __init__(self, prefix):
        self.prefix = prefix
        self.copy = {}
        self.changed = None  # while records are read: the keys of notifications that came meanwhile, which are newer
        self.reading = 0  # the number of the current reading; answers to earlier ones are ignored

    def run(self):
        """Connects and follows, again and again."""
        self.pause = 0.1
        while True:
            try:
                self.follow()
            except (OSError, ValueError) as e:
                print(f"{e}; trying again", file=sys.stderr)
            time.sleep(self.pause)
            self.pause = min(self.pause * 2, 5)

    def follow(self):
        with socket.socket(socket.AF_UNIX) as self.socket:
            self.socket.connect(SOCKET)
            self.send(op="subscribe", pattern=self.prefix + "*", messageId="subscribe")
            for line in self.socket.makefile("rb"):
                self.take(json.loads(line))
        raise ConnectionError("hpkvd has closed the connection")

    def take(self, message):
        match message:
            case {"type": "notification", "key": key, "value": value}:
                if self.changed is not None:
                    self.changed.add(key)
                self.put(key, value)
            case {"type": "gap"}:  # changes may have been missed
                self.read_all()
            case {"type": "unsubscribed"}:
                raise OSError("the access rules have ended the subscription")
            case {"type": "connection", "state": state}:
                print(f"the service is {state}", file=sys.stderr)
            case {"code": 200, "messageId": "subscribe"}:  # from here on no change is missed
                self.pause = 0.1
                self.read_all()
            case {"code": 200, "records": records, "messageId": number}:
                if number == self.reading:
                    self.take_page(records, message["truncated"])
            case {"error": error}:
                raise OSError(error)

    def read_all(self):
        self.reading += 1
        self.seen = set()
        self.changed = set()
        self.read_page(self.prefix)

    def read_page(self, first):
        self.first = first
        self.send(op="range", key=first, endKey=self.last_key(), messageId=self.reading)

    def last_key(self):
        """The last key that can begin with the prefix: a key has at most 512 bytes."""
        room = max(0, 512 - len(self.prefix.encode()))
        return self.prefix + "\U0010ffff" * (room // 4) + ["", "\x7f", "\u07ff", "\uffff"][room % 4]

    def take_page(self, records, truncated):
        for record in records:
            self.seen.add(record["key"])
            if record["key"] not in self.changed:
                self.put(record["key"], record["value"])
        if truncated and records[-1]["key"] == self.first:
            raise OSError("the service returns no more records")
        if truncated:  # the next page starts at the last key of this one: a longer start may be too long
            self.read_page(records[-1]["key"])
        else:
            for key in set(self.copy) - self.seen - self.changed:
                self.put(key, None)
            self.changed = None

    def put(self, key, value):
        if value is None:
            if self.copy.pop(key, None) is not None:
                print(key, "is gone", flush=True)
        elif self.copy.get(key) != value:
            self.copy[key] = value
            print(key, "=", value, flush=True)

    def send(self, **request):
        self.socket.sendall(json.dumps(request).encode() + b"\n")
# [end]


if __name__ == "__main__":
    try:
        Mirror(sys.argv[1]).run()
    except KeyboardInterrupt:
        pass
