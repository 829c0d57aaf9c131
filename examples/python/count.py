#!/usr/bin/env python3
"""count.py KEY - counts something, with the Python package of hpkvd (bindings/python)."""

import sys

# [ask]
from hpkvd import Client, HpkvError

try:
    with Client() as hpkv:
        print(hpkv.increment(sys.argv[1]))
except HpkvError as e:
    if e.executed == "unknown":  # sent, and the answer never came: look before you repeat it
        print(f"perhaps counted: {e}", file=sys.stderr)
        sys.exit(2)
    sys.exit(f"not counted: {e}")
# [end]
