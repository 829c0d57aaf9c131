"""Settings of the gateway: what hpkvd -t says of wrong ones, and sockets that the service manager passes."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest

from gateway import DEADLINE, KEY, LOCAL_KEY, FakeService, Http

HPKVD = os.environ["HPKVD"]
URL = "[upstream]\nurl = https://h\n"
HTTP = "[listen]\nhttp_address = 127.0.0.1:7480\n"


class Settings(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="hpkvd-test.")
        self.addCleanup(shutil.rmtree, self.dir)
        self.write("api-key", KEY)
        self.write("local", LOCAL_KEY)
        self.write("other", LOCAL_KEY + "-2")

    def write(self, name, text, mode=0o600):
        path = os.path.join(self.dir, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(path, mode)
        return path

    def check(self, text):
        path = self.write("hpkvd.conf", URL + text)
        env = {name: value for name, value in os.environ.items() if not name.startswith("HPKV")}
        r = subprocess.run([HPKVD, "-t", "-c", path], capture_output=True, text=True, timeout=60, check=False, env=env)
        for secret in (KEY, LOCAL_KEY):
            self.assertNotIn(secret, r.stdout + r.stderr)
        return r

    def wrong(self, text, *parts, lines=1):
        r = self.check(text)
        self.assertEqual(78, r.returncode, r.stderr)
        self.assertEqual(lines, len(r.stderr.splitlines()), r.stderr)
        for part in parts:
            self.assertIn(part, r.stderr)

    def right(self, text):
        r = self.check(text)
        self.assertEqual((0, ""), (r.returncode, r.stderr))

    def test_right_ones(self):
        self.right(HTTP + "local_key_file = local\n")
        self.right("[listen]\nhttp_address = 127.0.0.1:7480   [::1]:7480 localhost:7481 127.9.9.9:7480\nlocal_key_file = local\n"
                   "http_origins = http://localhost:3000 https://app.example https://[::1]:8443\nhttp = no\n")
        self.right(HTTP + "[access a]\nlocal_key_file = local\nread = a:*\nnexus = yes\n[access b]\nuser = 0\nlocal_key_file = other\nnexus = no\n")
        self.right("[access a]\nuser = 0\nlocal_key_file = local\n") # not used so far
        self.right("nexus_url = https://nexus.example\n")

    def test_addresses(self):
        for word in ("0.0.0.0:7480", "10.0.0.1:7480", "[::]:7480", "example.com:7480", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", ":7480", "7480",
                     "::1:7480", "/run/x.sock", "127.0.0.1:x"):
            self.wrong(f"[listen]\nlocal_key_file = local\nhttp_address = {word}\n", ":5: [listen] http_address: ", "this machine alone")
        self.wrong("[listen]\nlocal_key_file = local\nhttp_address = 127.0.0.1:1 127.0.0.1:1\n", "twice")
        self.wrong("[listen]\nlocal_key_file = local\nhttp_address = " + " ".join(f"127.0.0.1:{n}" for n in range(1, 10)), "more than 8")

    def test_keys(self):
        self.wrong(HTTP, "[listen] http_address", "there is no local key", "local_key_file beside it")
        self.wrong(HTTP + "[access a]\nuser = 0\n", "[listen] http_address", "[access NAME]")
        self.wrong(HTTP + "local_key_file = local\n[access a]\nuser = 0\nlocal_key_file = other\n", "[listen] local_key_file", "[access NAME]")
        self.wrong(HTTP + "[access a]\nlocal_key_file = local\n[access b]\nlocal_key_file = local\n", "[access b] local_key_file", "[access a] has the same key")
        self.wrong(HTTP + "local_key_file = api-key\n", "[listen] local_key_file", "API key of the service")
        self.wrong(HTTP + "[access a]\nlocal_key_file = api-key\n", ":6: [access a] local_key_file", "API key of the service")
        self.wrong(HTTP + "[access a]\nlocal_key_file =\n", "[access a]: is for nobody")

    def test_key_files(self):
        rows = [("missing", None, "does not exist"), ("short", "x" * 15, "less than 16 bytes"), ("empty", "", "is empty"),
                ("blank", "a key with blanks in it", "a space"), ("long", "x" * 5000, "longer than 4096")]
        for name, text, part in rows:
            if text is not None:
                self.write(name, text)
            self.wrong(HTTP + f"local_key_file = {name}\n", f"[listen] local_key_file: the file {self.dir}/{name} ", part)
            self.wrong(HTTP + f"[access a]\nlocal_key_file = {name}\n", f"[access a] local_key_file: the file {self.dir}/{name} ", part)
        self.write("open", LOCAL_KEY, 0o644)
        self.wrong(HTTP + "local_key_file = open\n", "others")

    def test_origins(self):
        for word, part in (("*", "any page"), ("null", "any page"), ("app.example", "as browsers send it"), ("https://app.example/", "path"),
                           ("https://", "as browsers"), ("https://a b", "as browsers"), ("https://app.example:x", "port"), ("://x", "as browsers"), ("https://u@h", "host")):
            self.wrong(f"[listen]\nhttp_origins = https://good.example {word}\n", ":4: [listen] http_origins: '", part)

    def test_others(self):
        self.wrong("[listen]\nhttp = maybe\n", "[listen] http: 'maybe'", "yes no")
        self.wrong("nexus_url = http://nexus.example\n", "[upstream] nexus_url")
        self.wrong("[access a]\nuser = 0\nnexus = maybe\n", "[access a] nexus: 'maybe'", "yes no")


class Activation(unittest.TestCase):
    """As systemd does it: descriptors from 3 on, and their names."""

    def run_with(self, sockets, names, folder, settings=""):
        with open(f"{folder}/hpkvd.conf", "w", encoding="utf-8") as f:
            f.write(f"{settings}\n[listen]\nsocket = {folder}/own.sock\nlocal_key_file = local-key\n")
        script = ("import os, sys\nfds = [int(x) for x in sys.argv[1].split(',')]\n"
                  "fds = [os.dup2(os.dup(fd), 100 + i) for i, fd in enumerate(fds)]\n"
                  "[os.dup2(fd, 3 + i) for i, fd in enumerate(fds)]\n"
                  "[os.close(fd) for fd in fds]\n"
                  "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=sys.argv[2])\n"
                  "os.execv(sys.argv[3], sys.argv[3:])\n")
        fds = [s.fileno() for s in sockets]
        p = subprocess.Popen([sys.executable, "-c", script, ",".join(map(str, fds)), ":".join(names), HPKVD, "-c", f"{folder}/hpkvd.conf"],
                             pass_fds=fds, stderr=subprocess.PIPE)
        self.addCleanup(p.stderr.close)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        return p

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="hpkvd-test.")
        self.addCleanup(shutil.rmtree, self.dir)
        for name, text in (("api-key", KEY), ("local-key", LOCAL_KEY)):
            with open(os.open(f"{self.dir}/{name}", os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as f:
                f.write(text)

    def until(self, p, text):
        seen = b""
        while text not in seen:
            line = p.stderr.readline()
            self.assertTrue(line, seen)
            seen += line
        return seen

    def passed(self):
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(self.dir + "/passed.sock")
        unix.listen()
        tcp = socket.create_server(("127.0.0.1", 0))
        for s in (unix, tcp):
            self.addCleanup(s.close)
        return unix, tcp

    def supported(self, p):
        line = p.stderr.readline()
        while b"listens on" not in line and b"error" not in line:
            line = p.stderr.readline()
            self.assertTrue(line)
        return line

    def test_both_are_served(self):
        with FakeService() as s:
            unix, tcp = self.passed()
            p = self.run_with([unix, tcp], ["hpkvd.socket", "http"], self.dir, f"[upstream]\nurl = {s.url}")
            port = tcp.getsockname()[1]
            self.assertIn(f"passed.sock and 127.0.0.1:{port} for".encode(), self.supported(p))
            with Http(("127.0.0.1", port)) as c:
                self.assertEqual(200, c.ask("GET", "/hpkvd/status", headers={"x-api-key": LOCAL_KEY}, host="localhost").status)
            with Http(self.dir + "/passed.sock") as c:
                self.assertEqual(200, c.ask("GET", "/hpkvd/status").status)
            p.terminate()
            self.assertEqual(0, p.wait(DEADLINE))

    def test_http_alone(self):
        with FakeService() as s:
            _, tcp = self.passed()
            p = self.run_with([tcp], ["http"], self.dir, f"[upstream]\nurl = {s.url}")
            self.assertIn(b"own.sock and 127.0.0.1", self.supported(p))

    def test_not_loopback(self):
        with FakeService() as s, socket.create_server(("0.0.0.0", 0)) as tcp:
            p = self.run_with([tcp], ["http"], self.dir, f"[upstream]\nurl = {s.url}")
            self.assertIn(b"something else by the name http", self.supported(p))
            self.assertEqual(1, p.wait(DEADLINE))


if __name__ == "__main__":
    unittest.main()
