#!/usr/bin/env python3
"""mirror.py PREFIX - keeps a copy of all keys that begin with PREFIX, and prints each change of it."""

import sys

# [mirror]
from hpkvd import HpkvError, Mirror


def show(key, value):
    print(f"{key} is gone" if value is None else f"{key} = {value}", flush=True)


try:
    with Mirror(sys.argv[1] + "*", on_change=show, wait=600) as mirror:  # a dict: mirror["app:color"], len(mirror) ...
        mirror.join()  # until it ends, because the access rules forbid it, say
        sys.exit(str(mirror.error))
except HpkvError as e:
    sys.exit(str(e))
except KeyboardInterrupt:
    pass
# [end]
