"""need.py - what cases need and a machine may lack. A case that lacks something is skipped, and its reason names it.

tool(), terminal() and certificates() skip the case that calls them. Where nobody has asked before, run-unittest.py finds out by
lacking() why a case has ended: a program that could not be started because there is none needs no more than that.
"""

import atexit
import functools
import os
import pty
import shutil
import subprocess
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))


def tool(name):
    """The path of a program."""
    path = shutil.which(name)
    if not path:
        raise unittest.SkipTest(f"there is no {name}")
    return path


def terminal():
    """Both ends of a new terminal: what shows it, and what programs have of it."""
    try:
        return pty.openpty()
    except OSError as error:
        raise unittest.SkipTest(f"there is no pty: {error}") from error


@functools.lru_cache(maxsize=None)
def certificates():
    """A folder with what make-certs.sh makes, once a run."""
    tool("openssl")
    folder = tempfile.mkdtemp(prefix="hpkvd-certs-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    subprocess.run(["sh", os.path.join(HERE, "make-certs.sh"), folder], check=True, stdout=subprocess.DEVNULL)
    return folder


def lacking(error):
    """What the machine lacks if that is why there is this error; else None."""
    if isinstance(error, ModuleNotFoundError) and error.name in ("wsproto", "h11"):
        return f"there is no python3-{error.name}"
    if isinstance(error, FileNotFoundError) and isinstance(error.filename, str) and "/" not in error.filename:
        trace = error.__traceback__
        while trace.tb_next:
            trace = trace.tb_next
        if trace.tb_frame.f_globals.get("__name__") == "subprocess":
            return f"there is no {error.filename}"
    return None
