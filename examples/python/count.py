#!/usr/bin/env python3
"""count.py KEY - counts: adds one to KEY and prints what it is now.

Exit status: 0 done, 1 not counted, 2 perhaps counted.
"""

import json
import os
import socket
import sys

SOCKET = os.environ.get("HPKVD_SOCKET", "/run/hpkvd/hpkvd.sock")


# [ask]
class Hpkv:
    """A connection to hpkvd. Each thread needs its own, and should keep it."""

    def __init__(self, path=SOCKET):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)  # hpkvd answers within 10 s; this is for a daemon that hangs
        self.socket.connect(path)
        self.lines = self.socket.makefile("rb")

    def ask(self, op, **members):
        """Sends a request and returns the answer. OSError, ValueError: there is no answer, and the connection is of no more use."""
        self.socket.sendall(json.dumps({"op": op, **members}).encode() + b"\n")
        line = self.lines.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("hpkvd has closed the connection")
        return json.loads(line)
# [end]


def main():
    try:
        hpkv = Hpkv()
    except OSError as e:
        sys.exit(f"not counted: {SOCKET}: {e.strerror}")
    try:
        answer = hpkv.ask("increment", key=sys.argv[1])
    except (OSError, ValueError) as e:
        answer = {"code": 0, "error": str(e), "executed": "unknown"}
    if answer["code"] == 200:
        print(answer["newValue"])
    elif answer.get("executed") == "unknown":
        print(f"perhaps counted: {answer['error']}", file=sys.stderr)
        sys.exit(2)
    else:
        sys.exit(f"not counted: {answer['error']}")


if __name__ == "__main__":
    main()
