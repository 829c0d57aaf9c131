"""steady.py - for cases whose subject is a time: what fails while the machine stands still says nothing, and is tried again."""

import contextlib
import functools
import sys
import threading
import time
import unittest


class Pulse(threading.Thread):
    """Notices how long this process, and with it whatever service it plays, stands still."""

    BEAT_S = 0.005

    def __init__(self):
        super().__init__(daemon=True)
        self.longest_s = 0
        self.stop = threading.Event()

    def run(self):
        before = time.monotonic()
        while not self.stop.wait(self.BEAT_S):
            now = time.monotonic()
            self.longest_s = max(self.longest_s, now - before)
            before = now
        self.longest_s = max(self.longest_s, time.monotonic() - before)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *ignored):
        self.stop.set()
        self.join()


@contextlib.contextmanager
def whole(*message, **parameters):
    """In the place of subTest(), which would keep a failure to itself: the case is tried again as a whole."""
    try:
        yield
    except Exception:
        print("# in the part", *message, parameters, file=sys.stderr, flush=True)
        raise


def steady(limit_s, attempts=5):
    """For a case whose subject is a time so short that a busy machine breaks it. What fails while this process stood still for
    longer than limit_s says nothing of the daemon, and is tried again; where that happens each time, the case is skipped."""

    def decorate(test):
        @functools.wraps(test)
        def run(self):
            self.subTest = whole
            for _ in range(attempts):
                with Pulse() as pulse:
                    try:
                        return test(self)
                    except unittest.SkipTest:
                        raise
                    except Exception: # whatever a case meets with when an answer is another one
                        pulse.__exit__()
                        if pulse.longest_s < limit_s:
                            raise
                        print(f"# stood still for {pulse.longest_s:.3f} s: once more", file=sys.stderr, flush=True)
            raise unittest.SkipTest(f"this machine stands still for {limit_s} s again and again")

        return run

    return decorate
