"""All spellings of the socket's address: --socket and HPKVD_SOCKET of the command, hpkv_new() of the library."""

import contextlib
import os
import socket
import unittest

from cli import Driver, FakeDaemon, Run, environment, hpkv
from harness import DEADLINE


@contextlib.contextmanager
def abstract():
    """A daemon under a name of the kernel's abstract namespace."""
    with FakeDaemon() as daemon:
        daemon.sock.close()
        name = daemon.path
        daemon.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        daemon.sock.bind("\0" + name)
        daemon.sock.listen()
        daemon.sock.settimeout(DEADLINE)
        yield daemon, name


@contextlib.contextmanager
def folder(path):
    before = os.getcwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


class Addresses(unittest.TestCase):
    def check(self, daemon, address):
        """The command with the option and the variable, raw, and the library."""
        for words, env in ((("--socket", address, "ping"), ()), ((f"-s{address}", "ping"), ()),
                           (("ping",), {"HPKVD_SOCKET": address}), (("raw",), {"HPKVD_SOCKET": address})):
            with self.subTest(address=address, words=words), \
                    Run("/nonexistent", *words, env=env, stdin=open("/dev/null", "rb")) as run:
                peer = daemon.accept()
                if words[0] == "raw":
                    peer.send({"code": 200})
                    peer.close()
                else:
                    peer.reply(peer.line(), message="pong")
                self.assertEqual((0, b""), (run.wait(), run.errors))
        for path, env in ((address, {}), (None, {"HPKVD_SOCKET": address})):
            with Driver(path, environment(**env)) as driver:
                if not path:
                    driver.do("new")
                driver.tell("ping")
                peer = daemon.accept()
                peer.reply(peer.line(), message="pong")
                self.assertEqual("ok", driver.result()[0])

    def test_an_abstract_name(self):
        with abstract() as (daemon, name):
            self.check(daemon, "@" + name)
            self.check(daemon, "unix:@" + name)

    def test_a_path_with_its_scheme(self):
        with FakeDaemon() as daemon:
            self.check(daemon, "unix:" + daemon.path)
            self.check(daemon, "unix://" + daemon.path)

    def test_a_relative_path(self):
        with FakeDaemon() as daemon, folder(daemon.folder):
            self.check(daemon, "sock")
            self.check(daemon, "unix:sock")
            os.rename("sock", "@x")
            self.check(daemon, "./@x")
            self.check(daemon, "unix:./@x")

    def test_errors_name_the_address_as_it_was_given(self):
        for address, why in (("@nobody-is-here", "Connection refused; is hpkvd running?"),
                             ("unix:@nobody-is-here", "Connection refused; is hpkvd running?"),
                             ("unix:/nonexistent/sock", "No such file or directory; is hpkvd running?"),
                             ("@", "there is no name in it"), ("unix:", "there is no name in it"),
                             ("/" + "x" * 107, "it is too long: a socket's path has at most 107 bytes"),
                             ("@" + "x" * 108, "it is too long: a socket's path has at most 107 bytes")):
            for command in ("ping", "raw"):
                with self.subTest(address=address, command=command):
                    status, out, err = hpkv("/nonexistent", "--socket", address, command)
                    self.assertEqual((4, b""), (status, out))
                    self.assertIn(f"no connection to hpkvd at {address}: {why}", err.decode())
            with Driver(address) as driver:
                result, *_, text = driver.do("ping")
                self.assertEqual("no daemon", result)
                self.assertIn(f"no connection to hpkvd at {address}: {why}", text)

    def test_the_longest_names(self):
        with FakeDaemon() as daemon:
            for name in ("x" * 107, "y" * 106):
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as daemon.sock:
                    daemon.sock.bind("\0" + name)
                    daemon.sock.listen()
                    daemon.sock.settimeout(DEADLINE)
                    self.check(daemon, "@" + name)


if __name__ == "__main__":
    unittest.main()
