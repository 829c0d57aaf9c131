"""Secrets appear nowhere but in the requests that need them, even if the service says them aloud.

Secrets, Memory   the API key, wherever it could leak
Hunt              every kind of secret, each with a value of its own, through all doors, errors, a reload, a restart and an abort"""

import base64
import collections
import contextlib
import functools
import glob
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "gateway"))
from gateway import Gateway, Http # noqa: E402 (the path comes first)
from harness import KEY, Case, Daemon, FakeService, Sandbox, eventually, free_port, get, put, sanitized, scene # noqa: E402
from test_proxy import ConnectProxy # noqa: E402
from websocket import WebSocket # noqa: E402

SECRET = KEY.encode()
KEEP_FREED = os.path.join(os.environ.get("BUILDDIR", "."), "tests/daemon/.libs/keep-freed.so")


def nothing_freed():
    """The environment of a daemon whose freed memory stays as it is (keep-freed.c): so each copy that is not overwritten is found."""
    return {"LD_PRELOAD": KEEP_FREED} if not sanitized() and os.path.exists(KEEP_FREED) else {}


unfreed_scene = functools.partial(scene, env=nothing_freed())


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


def tail(secret):
    """What is looked for: malloc() writes over the first 16 bytes of what is freed."""
    return secret[-24:] if len(secret) >= 40 else secret[-16:]


def places(pid, secret):
    """The mappings that hold it, or the end of it, once for each time that they do."""
    found = []
    secret = tail(secret)
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

    @unfreed_scene()
    def test_the_key_after_connecting(self, service, daemon, client):
        self.assertEqual(200, client.ask(get("k"))["code"])
        self.assert_held_once(daemon)

    @unfreed_scene()
    def test_the_key_after_it_was_read_again(self, service, daemon, client):
        self.assertTrue(daemon.reload(keepalive="19s"))
        self.assert_held_once(daemon)
        self.assertTrue(daemon.reload(access_pattern="a.*")) # takes another connection
        service.connection(2)
        daemon.wait_status(lambda s: s["upstream"]["state"] == "connected", "it is moved over")
        self.assert_held_once(daemon)

    def test_the_key_from_the_environment(self):
        with FakeService() as service, Daemon(service, key_from="environment", env=nothing_freed()) as daemon:
            daemon.wait_state("connected")
            self.assert_held_once(daemon)
            self.assertTrue(daemon.reload(keepalive="19s"))
            self.assert_held_once(daemon)

    @unfreed_scene(service={"tls": False})
    def test_over_plain_http(self, service, daemon, client):
        self.assert_kept(daemon, KEY)

    @unfreed_scene()
    def test_the_token(self, service, daemon, client):
        client.subscribe(key="k")
        token = service.wait_token_requests(1).token
        self.assertTrue(token)
        self.assert_kept(daemon, token)
        self.assert_held_once(daemon)

    @unfreed_scene()
    def test_a_token_that_another_has_replaced_is_gone(self, service, daemon, client):
        client.subscribe(key="k")
        token = service.wait_token_requests(1).token
        client.subscribe(key="another")
        self.assert_kept(daemon, service.wait_token_requests(2).token)
        eventually(lambda: not places(daemon.pid, token.encode()), "the former token is gone")

    @unfreed_scene()
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

    @unfreed_scene(connected=False, connect_timeout="1m", service={"upgrade": lambda event: "never", "tls": False})
    def test_while_the_service_does_not_answer(self, service, daemon, client):
        """The request has gone out, and nothing has come to be written over it."""
        service.wait(lambda: service.upgrades, "an upgrade")
        client.barrier()
        eventually(lambda: all(mapping.safe() for mapping in places(daemon.pid, SECRET)), "no copy of it is left behind")

    @unfreed_scene(connected=False, service={"upgrade": lambda event: (403, {}, b"")})
    def test_a_key_that_is_refused(self, service, daemon, client):
        daemon.wait_state("unauthorized")
        self.assert_kept(daemon, KEY)

    def test_the_key_of_a_request_that_finds_nobody(self):
        """libcurl is told how to free its memory when the first request has a connection."""
        with FakeService() as service, Gateway(service, nexus_url=f"http://127.0.0.1:{free_port()}", tcp=False, env=nothing_freed(),
                                               access={"a": {"user": os.geteuid(), "nexus": "yes"}}) as daemon:
            daemon.wait_state("connected")
            with contextlib.closing(daemon.http()) as http:
                self.assertEqual(503, http.ask("POST", "/query", '{"query":"q"}').status)
            self.assert_held_once(daemon)

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


def descriptors(pid):
    """What it has open: so many of each kind, and files by their names."""
    found = collections.Counter()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError): # of the listing itself, or closed meanwhile
            found[re.sub(r":\[\d+\]", "", os.readlink(f"/proc/{pid}/fd/{fd}"))] += 1
    return found


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


UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
ME = {"user": os.geteuid(), "read": "*", "write": "*"}
ECHO = "said-by-the-service"
SECRET_FILES = ("api-key", "login", "headers", "key-own", "key-some", "local-key", "token-secret")
SEEN_BY_ALL = ("cmdline", "environ", "comm", "status", "maps")


class Hunt(Case):
    """Each secret has a value that is found wherever it is, also in base64, in which Basic sends credentials, and in hexadecimal digits.
    The secret that signs local tokens is one of them; its bytes stand for themselves as latin-1."""

    def setUp(self):
        self.secrets = {} # by value: what it is
        self.told = [b""] # answers and pages that clients have got, and what the service manager was told
        self.restarts = 1 # times that a daemon has begun

    def secret(self, name):
        value = f"{name}-n0b0dy-may-see-" + hashlib.sha512(f"{name} {len(self.secrets)}".encode()).hexdigest() # longer than what is written over it
        self.secrets[value] = name
        return value

    def forms(self):
        for text, name in list(self.secrets.items()):
            value = tail(text.encode("latin-1"))
            yield name, value
            yield name + " in hexadecimal digits", value.hex().encode()
            for shift in range(3): # where it may stand within what is encoded
                yield name + " in base64", base64.b64encode(b"." * shift + value)[4:-4]
                yield name + " in base64url", base64.urlsafe_b64encode(b"." * shift + value)[4:-4]

    def assert_none(self, where, data):
        self.assertEqual([], [name for name, form in self.forms() if form in data], f"found in {where}")

    def mint(self, request):
        return self.secret("token-of-the-service")

    @contextlib.contextmanager
    def scene(self, make=Gateway, env=(), **settings):
        self.login = login = "proxyuser:" + self.secret("proxy-password")
        with ConnectProxy(login) as proxy, tempfile.TemporaryDirectory() as state, self.service_manager() as manager, \
                FakeService(mint=self.mint, name="hpkv.test") as service:
            env = {"HTTPS_PROXY": proxy.url, "STATE_DIRECTORY": state, "NOTIFY_SOCKET": manager} | nothing_freed() | dict(env)
            daemon = make(service, env=env, args=("--log-level", "debug"),
                          proxy_credentials_file="login", keepalive="200ms", http_origins="http://localhost:3000", **settings)
            daemon.settings["listen"] = daemon.folder + "/metrics"
            daemon.state, daemon.proxy = state, proxy
            daemon._write_file("login", login + "\n")
            with daemon:
                daemon.wait_state("connected")
                self.assertTrue(proxy.asked)
                with open(state + "/token-secret", "rb") as f:
                    self.secrets[f.read().decode("latin-1")] = "signing-secret"
                self.opened = descriptors(daemon.pid) if os.geteuid() == 0 else None
                yield service, daemon

    @contextlib.contextmanager
    def service_manager(self):
        """The address of one; assert_silent() reads what it is told."""
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as self.manager:
            self.manager.bind(folder + "/notify")
            self.manager.setblocking(False)
            yield folder + "/notify"

    def hear(self, client):
        """All lines that this client has been told, asked for or not."""
        client.send({"op": "ping", "messageId": "heard"})
        while b'"heard"' not in self.told[-1]:
            self.told.append(client.line())

    def http(self, daemon, target, *, method="GET", headers=(), tcp=True, body=None):
        """A request, right or wrong; what has come."""
        with daemon.tcp() if tcp else daemon.http() as c:
            with contextlib.suppress(AssertionError, OSError):
                c.request(method, target, body, headers, host="localhost")
                response = c.response()
                self.told.append(repr(response).encode())
                return response

    def knock(self, daemon, key):
        """On all doors, with this key, in right and in wrong ways."""
        for target in ("/record/a", "/record/%zz", "/nothing", "/hpkvd/status", "/record/" + "x" * 20000, "/records?startKey=b&endKey=a"):
            sign = "&" if "?" in target else "?"
            self.http(daemon, f"{target}{sign}apiKey={key}")
            self.http(daemon, target, headers={"x-api-key": key})
            self.http(daemon, target, headers={"Authorization": "Bearer " + key})
            self.http(daemon, f"{target}{sign}apiKey={key}", headers={"x-api-key": key, "Origin": "http://evil.example"})
            self.http(daemon, f"{target}{sign}token={key}", tcp=False, method="DELETE")
        self.http(daemon, f"/ws?apiKey={key}", headers=UPGRADE)
        self.http(daemon, f"/ws?token={key}", headers=UPGRADE)
        self.http(daemon, f"/ws?token={key}", headers=UPGRADE | {"Sec-WebSocket-Version": "8"})
        for raw in (f"GET /x?apiKey={key} HTTP/9.9\r\n\r\n", f"GET /x HTTP/1.1\r\nx-api-key {key}\r\n\r\n", f"FLY {key} HTTP/1.1\r\n\r\n",
                    f"GET /x HTTP/1.1\r\nHost: a\r\nHost: {key}\r\n\r\n", f"GET /x HTTP/1.1\r\nHost: a\r\nx-api-key: {key}\r\n {key}\r\n\r\n",
                    f"POST /record HTTP/1.1\r\nHost: a\r\nx-api-key: {key}\r\nTransfer-Encoding: {key}\r\n\r\n", f"{key}\r\n\r\n",
                    f"GET http://{key}@localhost/ws HTTP/1.1\r\nHost: {key}\r\n\r\n", f"GET /x HTTP/1.1\r\nx-api-key: {key}"):
            for connect in (daemon.tcp, daemon.http):
                with connect() as c, contextlib.suppress(OSError, AssertionError):
                    c.send(raw)
                    c.half_close()
                    while c._more():
                        pass
                    self.told.append(bytes(c.received))

        for connect in (daemon.tcp, daemon.http):
            with connect() as c, contextlib.suppress(OSError, AssertionError):
                c.send(f"GET /x HTTP/1.1\r\nHost: localhost\r\nx-api-key: {key}\r\n")
                daemon.status() # and what has been read of the head has to be moved
                c.send("X: " + "y" * 5000 + "\r\n\r\n")
                self.told.append(repr(c.response()).encode())

    def ask(self, daemon, *requests):
        with daemon.client() as client:
            for request in requests:
                self.told.append(json.dumps(client.ask(request)).encode())

    def token(self, daemon, **headers):
        """A token for a client, by HTTP; it is a secret from then on."""
        with daemon.tcp() as c:
            response = c.ask("POST", "/token/websocket", {"subscribeKeys": ["a"]}, headers, host="localhost")
        self.assertEqual(200, response.status, response)
        token = response.json["token"]
        self.secrets.setdefault(token, "token-for-a-client")
        return token

    def tokens(self, daemon, service, own, some):
        """Tokens of both kinds, by each way that answers go: HTTP, lines with a messageId and without, also behind an answer
        that is late, and WebSocket."""
        found = [self.token(daemon, **{"x-api-key": own}), self.token(daemon, Authorization="Bearer " + some)]
        wish, late = {"op": "token", "subscribeKeys": ["a"]}, []
        with daemon.client() as client:
            found.append(client.ask(wish | {"messageId": 1})["token"])
            found.append(client.ask(wish)["token"])
            service.answer, answer = late.append, service.answer
            made = len(service.token_requests)
            client.send(get("a"), wish, wish)
            service.wait(lambda: late and len(service.token_requests) >= made + 2, "the requests")
            service.answer = answer
            answer(late[0])
            self.assertEqual(200, client.answer()["code"])
            found += client.answer()["token"], client.answer()["token"]
        with socket.create_connection(("127.0.0.1", daemon.port)) as sock:
            ws = WebSocket(sock, "/ws?apiKey=" + own)
            found += ws.ask(**wish)["token"], ws.ask(**wish, messageId=1)["token"]
        for token in found:
            self.secrets.setdefault(token, "token-for-a-client")
        return found

    def metrics(self, daemon):
        with Http(daemon.settings["listen"]) as page:
            page.send("GET /metrics HTTP/1.0\r\n\r\n")
            while page._more():
                pass
            self.told.append(bytes(page.received))

    def fall(self, service):
        """Errors of the service, which says what it should not. What it says may stay in OpenSSL's buffer, so it is none of the secrets
        that are looked for in memory (Secrets has the key for this)."""
        for connection in service.connections[:]:
            connection.send_text('{"error":"' + self.secret(ECHO))
            connection.close(4001, self.secret(ECHO))

    def assert_silent(self, daemon):
        self.ask(daemon, {"op": "status", "top": True}, {"op": "stats"}, {"op": "fly"})
        self.metrics(daemon)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.told.append(self.manager.recv(65536))
        self.assert_none("the log", daemon.log())
        for told in self.told:
            self.assert_none("an answer", told)
        for name in SEEN_BY_ALL:
            with contextlib.suppress(PermissionError), open(f"/proc/{daemon.pid}/{name}", "rb") as f:
                self.assert_none(f"/proc/PID/{name}", f.read())
        for folder in (daemon.state, daemon.folder):
            for path in glob.glob(folder + "/**", recursive=True):
                if os.path.isfile(path) and os.path.basename(path) not in SECRET_FILES:
                    with open(path, "rb") as f:
                        self.assert_none(path, f.read())
        for path in glob.glob(daemon.state + "/**", recursive=True):
            self.assertEqual(0, os.stat(path).st_mode & 0o077, path)

    def assert_forgotten(self, daemon, *values):
        """They are nowhere in its memory."""
        if os.geteuid() == 0 and not sanitized():
            for value in values:
                eventually(lambda value=value: not places(daemon.pid, value.encode("latin-1")), f"that {self.secrets[value]} is forgotten")

    def assert_kept(self, daemon, *values):
        """Where they are, they are locked and left out of dumps."""
        if os.geteuid() == 0 and not sanitized():
            for value in values:
                if self.secrets[value] == ECHO:
                    continue
                where = lambda value=value: [m.line for m in places(daemon.pid, value.encode("latin-1")) if not m.safe()]
                eventually(lambda where=where: not where(), f"that no copy of {self.secrets[value]} is left in memory that may be dumped")

    def children(self, pid):
        try:
            with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
                return f.read().split()
        except OSError: # a kernel without it
            return []

    def restart(self, daemon):
        """Again until the program that checks the settings was seen: what has it in its arguments, its environment and its pipes?"""
        watched, asked = [], 0
        while not any(b"\0-t\0" in data for data in watched) and asked < 100:
            asked += 1
            daemon.process.signal(signal.SIGUSR2)
            while daemon.log().count(b"listens on") <= self.restarts:
                for pid in self.children(daemon.pid):
                    for name in ("cmdline", "environ"):
                        with contextlib.suppress(OSError), open(f"/proc/{pid}/{name}", "rb") as f:
                            watched.append(f.read())
            self.restarts += 1
            daemon.wait_state("connected")
        for data in watched:
            self.assert_none("a child's arguments or environment", data)
        self.assert_nothing_open(daemon)

    def assert_nothing_open(self, daemon):
        """No pipe, socket, or file more than after the first start, and no file that holds a secret."""
        if self.opened is not None:
            self.assertEqual([], [name for name in descriptors(daemon.pid) if os.path.basename(name) in SECRET_FILES])
            eventually(lambda: not descriptors(daemon.pid) - self.opened,
                       "that only what a daemon has from its start is open")

    def abort(self, daemon):
        """SIGABRT, as a failed assertion would send it: does the kernel write a core?"""
        size = 0 if sanitized() else 1 << 20 # a sanitizer needs what is switched off
        resource.prlimit(daemon.pid, resource.RLIMIT_CORE, (size, resource.prlimit(daemon.pid, resource.RLIMIT_CORE)[1]))
        daemon.killed = True
        daemon.process.signal(signal.SIGABRT)
        status = os.waitpid(daemon.pid, 0)[1]
        self.assertEqual(signal.SIGABRT, os.WTERMSIG(status))
        self.assertFalse(os.WCOREDUMP(status))
        self.assert_none("the log", daemon.log())

    def test_a_host_with_the_key(self):
        access = {"own": ME | {"local_key_file": "key-own", "token": "own"},
                  "some": {"local_key_file": "key-some", "read": "a b c*"}}
        own, some, wrong, api_key = (self.secret(name) for name in ("key-own", "key-some", "wrong-key", "api-key"))
        make = lambda service, **options: Gateway(service, access=access, key=api_key, **options)

        def keyed(service, **options):
            daemon = make(service, **options)
            daemon.write_key("key-own", own)
            daemon.write_key("key-some", some)
            return daemon

        with self.scene(keyed) as (service, daemon):
            made = self.tokens(daemon, service, own, some)
            service_token, local_token = made[:2]
            self.assertEqual("hpkvd1.", local_token[:7])
            with daemon.client() as client:
                client.subscribe(key="a")
                for key in (own, some, wrong, api_key, local_token, service_token, local_token[:-2]):
                    self.knock(daemon, key)
                self.ask(daemon, get("a"), put("a", "b"), {"op": "token", "subscribeKeys": "wrong"})
                self.assert_silent(daemon)
                self.assert_forgotten(daemon, own, some, wrong, *made) # before another connection takes the memory
                self.assert_kept(daemon, *self.secrets)
                self.fall(service)
                daemon.wait_status(lambda s: s["upstream"]["reconnects"] > 0, "a new connection")
                daemon.wait_state("connected")
                self.hear(client)
                self.assert_silent(daemon)
                self.assert_forgotten(daemon, own, some, wrong, *made)
                self.assert_kept(daemon, *self.secrets)
            self.replace(service, daemon, api_key)
            with daemon.client() as client:
                client.subscribe(key="a")
                self.restart(daemon)
                with contextlib.suppress(OSError):
                    while client._receive():
                        pass
                self.told += bytes(client.received), b""
            self.knock(daemon, next(value for value, name in self.secrets.items() if name == "next-key-own"))
            self.assert_silent(daemon)
            self.abort(daemon)

    def test_a_host_with_the_key_in_its_environment(self):
        api_key, local = self.secret("api-key"), self.secret("local-key")

        def make(service, **options):
            daemon = Gateway(service, key=api_key, key_from="environment", **options)
            daemon.write_key("local-key", local)
            return daemon

        with self.scene(make) as (service, daemon):
            self.assert_silent(daemon)
            for _ in range(2):
                self.restart(daemon)
                self.assert_silent(daemon)
            self.assertTrue(daemon.hang_up())
            self.assert_silent(daemon)
            self.assert_kept(daemon, *self.secrets)
            self.abort(daemon)

    def replace(self, service, daemon, api_key):
        """All secrets that a reload reads again. A wrong file first, which must not be shown."""
        daemon._write_file("key-own", self.secret("two") + "\n" + self.secret("lines") + "\n")
        daemon._write_file("login", self.secret("a-login-without-a-colon") + "\n")
        self.assertFalse(daemon.hang_up())
        password = self.secret("next-proxy-password")
        daemon.proxy.login = "proxyuser:" + password
        daemon._write_file("login", daemon.proxy.login + "\n")
        for name in ("key-own", "key-some"):
            daemon.write_key(name, self.secret("next-" + name))
        lanes = len(service.connections)
        self.assertTrue(daemon.reload(key=self.secret("next-api-key")))
        service.connection(lanes + 1)
        daemon.wait_state("connected")
        self.assert_silent(daemon)
        old = [value for value, name in self.secrets.items() if name in ("api-key", "key-own", "key-some", "proxy-password", "two", "lines")]
        self.assertIn(api_key, old)
        self.assert_forgotten(daemon, *old)
        self.assert_kept(daemon, *self.secrets)

    def test_a_host_without_the_key(self):
        header = self.secret("header")

        def make(service, **options):
            service.token_path = "/app/token"
            credentials = tempfile.mkdtemp()
            self.addCleanup(shutil.rmtree, credentials)
            for name, text in (("headers", f"Authorization: Bearer {header}\n"), ("login", self.login), ("local-key", local)):
                with open(os.open(f"{credentials}/{name}", os.O_CREAT | os.O_WRONLY, 0o400), "w", encoding="ascii") as f:
                    f.write(text)
            options["env"] = dict(options["env"]) | {"CREDENTIALS_DIRECTORY": credentials}
            return Gateway(service, key_from=None, token_url=service.url + "/app/token", token_header_file="headers", **options)

        local = self.secret("local-key")
        with self.scene(make) as (service, daemon):
            self.assertEqual("Bearer " + header, service.token_requests[0].headers["authorization"])
            for key in (local, header):
                self.knock(daemon, key)
            with daemon.client() as client:
                client.subscribe(key="a")
                self.assert_silent(daemon)
                self.assert_kept(daemon, *self.secrets)
                echo = self.secret(ECHO)
                refusal = json.dumps({"error": echo, "token": None}).encode()
                service.mint = lambda request: (403, {"X": echo}, refusal)
                client.send({"op": "subscribe", "key": "b", "timeoutMs": 200})
                client.answer()
                service.mint = lambda request: (302, {"Location": "/app?" + echo}, echo.encode())
                self.fall(service)
                daemon.wait_status(lambda s: s["upstream"]["state"] != "connected", "no token")
                self.assert_silent(daemon)
            service.mint = self.mint
            daemon.wait_state("connected")
            self.assert_kept(daemon, *self.secrets)
            self.assert_forgotten(daemon, header, local)
            self.restart(daemon)
            self.knock(daemon, local)
            self.assert_silent(daemon)
            self.abort(daemon)
