"""run-unittest.py FILE - runs the unittest cases of one Python file and reports each as a line of TAP.

"make check" calls it for every test that ends in .py, so that each case is counted and named by itself; by hand,
"python3 run-unittest.py FILE Class.case ..." does as well. A case that hangs fails, with the place where it does; a run that hangs
all the same prints where, and ends. A case that needs what the machine lacks is skipped (need.py).
"""

import faulthandler
import importlib.util
import os
import signal
import sys
import time
import unittest

import need

HANGS_AFTER_S = int(os.environ.get("HPKVD_TEST_HANGS_AFTER", "540"))
CASE_HANGS_AFTER_S = HANGS_AFTER_S / 2 # the longest take half of that where many run at once
AGAIN_S = 30 # until the same is said to what is done after a case that has failed


class Hangs(Exception):
    """The case takes so long that nothing will come of it."""


def hangs(number, frame):
    raise Hangs(f"the case takes longer than {CASE_HANGS_AFTER_S:.0f} s")


def be_patient():
    """From now on."""
    signal.setitimer(signal.ITIMER_REAL, CASE_HANGS_AFTER_S, AGAIN_S)


class TapResult(unittest.TestResult):
    """Writes one line per case, and what went wrong as comments below it."""

    def __init__(self, stream):
        super().__init__()
        self.stream = stream
        self.count = 0

    def startTest(self, test):
        super().startTest(test)
        self.started = time.monotonic()
        be_patient()

    def stopTest(self, test):
        be_patient() # with what is done for the whole class
        super().stopTest(test)

    def say(self, verdict, name, directive="", detail=""):
        self.count += 1
        self.stream.write(f"{verdict} {self.count} - {name}{directive}\n")
        for line in detail.splitlines():
            self.stream.write(f"# {line}\n")
        self.stream.flush()

    @staticmethod
    def name(test):
        return test.id().replace("#", "").split(".", 1)[-1]

    def addSuccess(self, test):
        super().addSuccess(test)
        self.say("ok", self.name(test), f" ({time.monotonic() - self.started:.2f} s)")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.say("ok", self.name(test), f" # SKIP {reason}")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.say("not ok", self.name(test), detail=self.failures[-1][1])

    def addError(self, test, err):
        if reason := need.lacking(err[1]):
            self.addSkip(test, reason)
            return
        super().addError(test, err)
        self.say("not ok", self.name(test), detail=self.errors[-1][1])

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None and (reason := need.lacking(err[1])):
            self.say("ok", self.name(subtest), f" # SKIP {reason}")
        elif err is not None:
            kind = self.failures if issubclass(err[0], test.failureException) else self.errors
            self.say("not ok", self.name(subtest), detail=kind[-1][1])

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self.say("ok", self.name(test), " # SKIP known to fail")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.say("not ok", self.name(test), detail="was expected to fail")


def load(path, names):
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    name = os.path.splitext(os.path.basename(path))[0].replace("-", "_")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    loader = unittest.defaultTestLoader
    return loader.loadTestsFromNames(names, module) if names else loader.loadTestsFromModule(module)


def default_signals():
    """What is started in the background or by nohup ignores signals that cases send, and so would all that they start."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def main():
    default_signals()
    # hpkvd reads the certificates of the system that it needs, and that would be most of the work in many a case.
    os.environ.update(SSL_CERT_FILE="/nonexistent", SSL_CERT_DIR="/nonexistent")
    faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True)
    signal.signal(signal.SIGALRM, hangs)
    # What a case or a daemon writes to stdout must not break into the lines of TAP, so it goes to stderr.
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    os.dup2(2, 1)
    try:
        suite = load(sys.argv[1], sys.argv[2:])
    except ModuleNotFoundError as error:
        reason = need.lacking(error)
        if not reason:
            raise
        print(f"1..0 # SKIP {reason}", file=stream, flush=True)
        return 0
    result = TapResult(stream)
    be_patient()
    suite.run(result)
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(f"1..{result.count}", file=stream, flush=True)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
