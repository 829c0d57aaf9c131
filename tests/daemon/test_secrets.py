"""The API key appears nowhere but in the request that needs it, even if the service says it aloud."""

import glob
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import unittest

from harness import KEY, Case, Daemon, FakeService, Sandbox, eventually, get, sanitized, scene

SECRET = KEY.encode()


def shout(event):
    """Refuses, and tells everybody why."""
    return 500, {"X-Target": event.target, "Location": event.target}, b"no such thing: " + event.target.encode()


class Secrets(Case):
    def assert_silent(self, daemon, *clients):
        for client in clients:
            client.send({"op": "status"}, {"op": "stats"}, get("k", timeoutMs=20), {"op": "fly"}, "nonsense")
            for line in client.lines(5):
                self.assertNotIn(SECRET, line)
        self.assertNotIn(SECRET, daemon.log())
        for name in ("cmdline", "environ", "comm", "status"):
            try:
                with open(f"/proc/{daemon.pid}/{name}", "rb") as f:
                    self.assertNotIn(SECRET, f.read(), name)
            except PermissionError:
                pass # kept from us too, which is as good

    @scene()
    def test_when_all_is_well(self, service, daemon, client):
        self.assertEqual("/ws?apiKey=" + KEY, service.connections[0].target)
        self.assertEqual(200, client.ask(get("k"))["code"])
        self.assert_silent(daemon, client)

    def test_from_the_environment(self):
        with FakeService() as service, Daemon(service, key_from="environment") as daemon, daemon.client() as client:
            self.assertEqual(200, client.ask(get("k"))["code"])
            self.assertEqual("/ws?apiKey=" + KEY, service.connections[0].target)
            self.assert_silent(daemon, client)

    @scene(connected=False, service={"upgrade": shout})
    def test_in_error_pages(self, service, daemon, client):
        service.wait(lambda: len(service.upgrades) >= 3, "three attempts")
        self.assert_silent(daemon, client)
        service.upgrade = lambda event: (403, {"X": event.target}, event.target.encode() * 100)
        daemon.wait_state("unauthorized")
        self.assert_silent(daemon, client)
        service.upgrade = lambda event: (302, {"Location": service.url + event.target + "&again"}, b"")
        service.wait(lambda: len(service.upgrades) >= 6, "more attempts")
        self.assert_silent(daemon, client)
        self.assertEqual({"/ws?apiKey=" + KEY}, set(service.upgrades))

    @scene(connected=False, connect_timeout="300ms",
           service={"raw_upgrade": b"HTTP/1.1 400 " + SECRET + b"\r\nX: " + SECRET + b"\r\n\r\n" + SECRET})
    def test_in_status_lines(self, service, daemon, client):
        service.wait(lambda: len(service.upgrades) >= 3, "three attempts")
        self.assert_silent(daemon, client)

    @scene()
    def test_in_close_reasons_and_broken_messages(self, service, daemon, client):
        service.connection().send_text('{"error":"' + KEY)
        service.connection().close(4001, "key " + KEY)
        service.connection(2).send_frame(2, SECRET)
        service.connection(2).reset()
        service.connection(3)
        self.assertEqual(200, client.ask(get("k"))["code"])
        self.assert_silent(daemon, client)

    def test_over_plain_http_too(self):
        with FakeService(tls=False, upgrade=shout) as service, Daemon(service) as daemon, daemon.client() as client:
            service.wait(lambda: len(service.upgrades) >= 3, "three attempts")
            self.assert_silent(daemon, client)

    def test_with_the_sandbox(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon, daemon.client() as client:
            daemon.wait_state("connected")
            self.assert_silent(daemon, client)
        with Sandbox(key="another") as sandbox, Daemon(sandbox) as daemon, daemon.client() as client:
            daemon.wait_state("unauthorized")
            self.assert_silent(daemon, client)

    @scene(connected=False, service={"upgrade": lambda event: (403, {}, b"")})
    def test_a_refused_key_is_told_by_its_place(self, service, daemon, client):
        """The message names the source of the key for the administrator."""
        daemon.wait_state("unauthorized")
        daemon.process.wait_output(rb"error.*key")
        self.assert_silent(daemon, client)

    @scene()
    def test_no_file_holds_it(self, service, daemon, client):
        for path in glob.glob(daemon.folder + "/*"):
            if os.path.isfile(path) and not path.endswith("/api-key"):
                with open(path, "rb") as f:
                    self.assertNotIn(SECRET, f.read(), path)


class Mapping:
    """A part of a process's memory, as its smaps describe it."""

    def __init__(self, line):
        self.line = line
        self.start, self.end = (int(n, 16) for n in line.split()[0].split("-"))
        self.flags = set()

    def safe(self):
        """Neither swapped out nor dumped."""
        return {"lo", "dd"} <= self.flags


def mappings(pid):
    found = []
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as f:
        for line in f:
            if re.match(r"[0-9a-f]+-[0-9a-f]+ r", line):
                found.append(Mapping(line.strip()))
            elif re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                found.append(Mapping("0-0 " + line)) # not readable: nothing to see
            elif line.startswith("VmFlags:"):
                found[-1].flags = set(line.split()[1:])
    return found


def places(pid, secret):
    """The mappings that hold it, once for each time that they do."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for mapping in mappings(pid):
            if mapping.end == 0 or "[v" in mapping.line:
                continue
            memory.seek(mapping.start)
            try:
                data = memory.read(mapping.end - mapping.start)
            except OSError: # of a device
                continue
            found += [mapping] * data.count(secret)
    return found


@unittest.skipIf(os.geteuid() != 0, "only root can look into the memory of a daemon that wants to be left alone")
@unittest.skipIf(sanitized(), "a sanitizer keeps what was freed")
class Memory(Case):
    """Wherever a secret is in the daemon's memory, it is locked and left out of dumps; and it is nowhere when its time is over.
    The key is in one place, but for the request that it travels in."""

    def assert_kept(self, daemon, secret, there=True):
        found = places(daemon.pid, secret.encode())
        self.assertEqual([], [mapping.line for mapping in found if not mapping.safe()])
        self.assertEqual(there, bool(found))

    def assert_held_once(self, daemon):
        self.assert_kept(daemon, KEY)
        eventually(lambda: len(places(daemon.pid, SECRET)) == 1, "the key is in one place")

    @scene()
    def test_the_key_after_connecting(self, service, daemon, client):
        self.assertEqual(200, client.ask(get("k"))["code"])
        self.assert_held_once(daemon)

    @scene()
    def test_the_key_after_it_was_read_again(self, service, daemon, client):
        self.assertTrue(daemon.reload(keepalive="19s"))
        self.assert_held_once(daemon)
        self.assertTrue(daemon.reload(access_pattern="a.*")) # takes another connection
        service.connection(2)
        daemon.wait_status(lambda s: s["upstream"]["state"] == "connected", "it is moved over")
        self.assert_held_once(daemon)

    def test_the_key_from_the_environment(self):
        with FakeService() as service, Daemon(service, key_from="environment") as daemon:
            daemon.wait_state("connected")
            self.assert_held_once(daemon)
            self.assertTrue(daemon.reload(keepalive="19s"))
            self.assert_held_once(daemon)

    @scene(service={"tls": False})
    def test_over_plain_http(self, service, daemon, client):
        self.assert_kept(daemon, KEY)

    @scene()
    def test_the_token(self, service, daemon, client):
        client.subscribe(key="k")
        token = service.wait_token_requests(1).token
        self.assertTrue(token)
        self.assert_kept(daemon, token)
        self.assert_held_once(daemon)

    @scene()
    def test_a_key_and_a_token_that_were_replaced_are_gone(self, service, daemon, client):
        client.subscribe(key="k")
        token = service.wait_token_requests(1).token
        service.key = KEY + "-2"
        daemon.key = "another-" + KEY[::-1]
        self.assertTrue(daemon.reload())
        service.wait_token_requests(2)
        eventually(lambda: not places(daemon.pid, KEY.encode()), "the old key is gone")
        eventually(lambda: not places(daemon.pid, token.encode()), "the old token is gone")
        self.assert_kept(daemon, daemon.key)

    @scene(connected=False, connect_timeout="1m", service={"upgrade": lambda event: "never", "tls": False})
    def test_while_the_service_does_not_answer(self, service, daemon, client):
        """The request has gone out, and nothing has come to be written over it."""
        service.wait(lambda: service.upgrades, "an upgrade")
        client.barrier()
        eventually(lambda: all(mapping.safe() for mapping in places(daemon.pid, SECRET)), "no copy of it is left behind")

    @scene(connected=False, service={"upgrade": lambda event: (403, {}, b"")})
    def test_a_key_that_is_refused(self, service, daemon, client):
        daemon.wait_state("unauthorized")
        self.assert_kept(daemon, KEY)

    @unittest.skipUnless(shutil.which("gcore"), "there is no gcore")
    @scene()
    def test_a_debuggers_core_file(self, service, daemon, client):
        """root makes one by force, of the memory that the daemon lets be dumped."""
        self.assertEqual(200, client.ask(get("k"))["code"])
        core = f"{daemon.folder}/core"
        subprocess.run(["gcore", "-o", core, str(daemon.pid)], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        with open(f"{core}.{daemon.pid}", "rb") as f:
            data = f.read()
        self.assertEqual((True, 0), (b"hpkvd" in data, data.count(SECRET)))


class Descriptors(Case):
    @unittest.skipIf(os.geteuid() != 0, "only root can look at the descriptors of a daemon that wants to be left alone")
    def test_what_is_closed_at_the_start_is_nobodys_socket(self):
        """Otherwise the log would be written to the socket that has got its number."""

        class Closed(Daemon):
            def _with_etc(self, argv):
                return ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *argv]

        with FakeService() as service, Closed(service, wait=False) as daemon:
            eventually(lambda: os.path.exists(daemon.socket), "its socket")
            self.assertEqual(["/dev/null"] * 3, [os.readlink(f"/proc/{daemon.pid}/fd/{fd}") for fd in range(3)])


class Cores(Case):
    @staticmethod
    def dumps_core(pid):
        """Kills it as a fault would; did the kernel write a core, wherever that goes here?"""
        resource.prlimit(pid, resource.RLIMIT_CORE, (1 << 20, resource.prlimit(pid, resource.RLIMIT_CORE)[1]))
        os.kill(pid, signal.SIGSEGV)
        return os.WCOREDUMP(os.waitpid(pid, 0)[1])

    @unittest.skipIf(sanitized(), "a sanitizer needs what is switched off")
    def test_it_dumps_none_when_it_dies(self):
        with tempfile.TemporaryDirectory(prefix="hpkvd-test-") as folder:
            another = subprocess.Popen(["sleep", "1000"], cwd=folder)
            if not self.dumps_core(another.pid):
                self.skipTest("nobody dumps core here")
        with FakeService() as service, Daemon(service) as daemon:
            daemon.wait_state("connected")
            daemon.killed = True
            self.assertFalse(self.dumps_core(daemon.pid))
