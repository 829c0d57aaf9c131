"""need.py - what cases need and a machine may lack. A case that lacks something is skipped, and its reason names it.

tool(), terminal(), ipv6() and certificates() skip the case that calls them. Where nobody has asked before, run-unittest.py finds
out by lacking() why a case has ended: to call a program that is not there, or to bind an address of IPv6, is enough.
"""

import atexit
import errno
import functools
import os
import pty
import shutil
import socket
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


@functools.lru_cache(maxsize=None)
def has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def ipv6():
    if not has_ipv6():
        raise unittest.SkipTest("there is no IPv6")


def lacking(error):
    """What the machine lacks if that is why there is this error; else None."""
    if isinstance(error, ModuleNotFoundError) and error.name in ("wsproto", "h11"):
        return f"there is no python3-{error.name}"
    if isinstance(error, OSError) and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and not has_ipv6():
        return "there is no IPv6"
    if isinstance(error, FileNotFoundError) and isinstance(error.filename, str) and "/" not in error.filename:
        trace = error.__traceback__
        while trace.tb_next:
            trace = trace.tb_next
        if trace.tb_frame.f_globals.get("__name__") == "subprocess":
            return f"there is no {error.filename}"
    return None
