"""The metrics page: its figures, its format, its address, and that stats has the same."""

import collections
import contextlib
import functools
import http.client
import json
import os
import re
import shutil
import socket
import stat
import struct
import subprocess
import tempfile
import time
import unittest

from harness import (DEADLINE, KEY, ROOT, WITHHELD, Case, Daemon, FakeService, Sandbox, eventually, free_port, get, put, steady,
                     scene)

try:
    import yaml
except ImportError:
    yaml = None

CONNECTIONS = 8 # METRICS_CONNECTIONS_MAX
SERVE_SECONDS = 10 # METRICS_CONNECTION_MS


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=DEADLINE)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(self.path)


def connection_to(place):
    if place.startswith("/"):
        return UnixConnection(place)
    host, _, port = place.rpartition(":")
    return http.client.HTTPConnection(host.strip("[]"), int(port), timeout=DEADLINE)


def ask(place, method="GET", path="/metrics", **more):
    """The response, and its body."""
    connection = connection_to(place)
    try:
        connection.request(method, path, **more)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def fetch(place):
    response, body = ask(place)
    assert response.status == 200, response.status
    return body.decode("utf-8")


# ---- the format, read strictly ----

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (-?[0-9.]+(?:e[+-]?[0-9]+)?|[+-]Inf|NaN)")


class Family:
    def __init__(self, name, text):
        self.name, self.help, self.type = name, text, None
        self.samples = {} # (name, labels as written) -> value, in their order


def labels_of(text):
    return dict(re.findall(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"', text or ""))


def parse(page):
    """The families by name. Each has HELP, then TYPE, then its samples, all in one place."""
    families, family = {}, None
    assert page.endswith("\n") and "\r" not in page
    for line in page[:-1].split("\n"):
        if match := re.fullmatch(rf"# HELP ({NAME}) (.+)", line):
            assert match[1] not in families, f"{match[1]} comes twice"
            family = families[match[1]] = Family(match[1], match[2])
        elif match := re.fullmatch(rf"# TYPE ({NAME}) (counter|gauge|histogram)", line):
            assert family.name == match[1] and not family.type and not family.samples, line
            family.type = match[2]
        else:
            match = SAMPLE.fullmatch(line)
            assert match, f"not a sample: {line}"
            suffix = match[1].removeprefix(family.name)
            allowed = ("_bucket", "_sum", "_count") if family.type == "histogram" else ("",)
            assert match[1].startswith(family.name) and suffix in allowed, f"{line} after {family.name}"
            key = (match[1], match[2] or "")
            assert key not in family.samples, f"{line} comes twice"
            family.samples[key] = float(match[3])
    return families


def flat(page):
    """Each sample by its name as stats gives it."""
    return {name + (f"{{{labels}}}" if labels else ""): value
            for family in parse(page).values() for (name, labels), value in family.samples.items()}


# As "promtool check metrics": units that have a base unit, and their abbreviations.
NOT_BASE = """milliseconds microseconds nanoseconds minutes hours days weeks kelvins kelvin fahrenheit grams kilograms bits
    kilobytes megabytes gigabytes terabytes kibibytes mebibytes gibibytes meters kilometers percent millivolts amps
    """.split()
ABBREVIATED = "s ms us ns sec b kb mb gb tb pb m h d".split()


def lint(family):
    """Checks the page as promtool does."""
    words = family.name.split("_")
    labels = [labels_of(text) for _, text in family.samples]
    if not family.help:
        yield "no help text"
    if not family.type:
        yield "no type"
    if ":" in family.name:
        yield "a colon, which is for rules"
    if re.search("[a-z][A-Z]", family.name):
        yield "camelCase"
    if (family.type == "counter") != family.name.endswith("_total"):
        yield "_total is for counters, and for each of them"
    for suffix in ("_bucket", "_count", "_sum"):
        if family.name.endswith(suffix):
            yield f"{suffix} is for histograms"
    for word in words:
        if word in NOT_BASE or word in ABBREVIATED:
            yield f"unit {word}"
        if word in ("counter", "gauge", "histogram", "summary", "untyped"):
            yield "its type in its name"
    if any("le" in l for l in labels) != (family.type == "histogram"):
        yield "le is for histograms"
    if any("quantile" in l for l in labels):
        yield "quantile is for summaries"
    if any(l.startswith("__") for some in labels for l in some):
        yield "a reserved label"
    if len({tuple(sorted(l)) for l in labels if "le" not in l}) > 1:
        yield "its samples do not all have the same labels"


def histogram(family):
    """(bounds, cumulative counts, sum, count) of one without labels of its own."""
    bounds, counts = [], []
    for (name, labels), value in family.samples.items():
        if name.endswith("_bucket"):
            bounds.append(float(labels_of(labels)["le"]))
            counts.append(value)
    return bounds, counts, family.samples[family.name + "_sum", ""], family.samples[family.name + "_count", ""]


def with_page(**options):
    """As scene(), of which the case also gets the place where the page is."""

    def decorate(test):
        @functools.wraps(test)
        def run(self):
            place = f"127.0.0.1:{free_port()}"
            case = lambda self, service, daemon, client: test(self, service, daemon, client, place)
            scene(listen=place, **options)(case)(self)

        return run

    return decorate


def ended(place):
    """(op, outcome) -> how many, without those that are 0."""
    samples = parse(fetch(place))["hpkvd_requests_ended_total"].samples
    return {(l["op"], l["outcome"]): value for (_, text), value in samples.items() if value for l in [labels_of(text)]}


def grown(before, after):
    return {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}


EACH_OP = [
    ("set", {"key": "k", "value": "1"}), ("get", {"key": "k"}), ("patch", {"key": "k", "value": "2"}),
    ("increment", {"key": "n"}), ("range", {"key": "a", "endKey": "z"}), ("delete", {"key": "k"}),
]


class Form(Case):
    @with_page()
    def test_the_page_is_what_prometheus_wants(self, service, daemon, client, place):
        """With something in each part of it."""
        client.subscribe(keys=["a", "b"], pattern="c*")
        client.ask(get("k"))
        client.ask({"op": "get"})
        service.publish("a", "1")
        client.change()
        response, body = ask(place)
        self.assertEqual("text/plain; version=0.0.4; charset=utf-8", response.headers["Content-Type"])
        families = parse(body.decode("ascii"))
        self.assertEqual([], [(f.name, fault) for f in families.values() for fault in lint(f)])
        self.assertLessEqual({f.name.split("_")[0] for f in families.values()}, {"hpkvd", "process"})
        for name in ("hpkvd_request_wait_seconds", "hpkvd_request_service_seconds"):
            bounds, counts, total, n = histogram(families[name])
            self.assertEqual(sorted(bounds), bounds)
            self.assertEqual(float("inf"), bounds[-1])
            self.assertEqual(sorted(counts), counts)
            self.assertEqual(counts[-1], n)
            self.assertEqual(1, n)
            self.assertGreaterEqual(total, 0)

    @with_page()
    def test_promtool(self, service, daemon, client, place):
        tool = shutil.which("promtool")
        if not tool:
            self.skipTest("there is no promtool")
        run = subprocess.run([tool, "check", "metrics"], input=fetch(place), capture_output=True, text=True, check=False)
        self.assertEqual((0, ""), (run.returncode, run.stdout + run.stderr))

    @with_page()
    def test_labels_have_bounds(self, service, daemon, client, place):
        """Whatever clients say: no key, value, id, pattern or name of theirs is a label."""
        before = set(flat(fetch(place)))
        for i in range(20):
            client.send(get(f"key {i}", f"id {i}"), {"op": f"op{i}"}, put(f"key {i}", f"value {i}"), "x" * i)
        client.answers(79) # an empty line is none
        client.subscribe(keys=[f"key {i}" for i in range(20)], patterns=[f"pattern {i}*" for i in range(20)])
        new = set(flat(fetch(place))) - before
        self.assertEqual({"hpkvd_upstream_token_expiry_seconds"}, new)

    @with_page()
    def test_no_secret_and_no_key_is_on_it(self, service, daemon, client, place):
        client.ask(put("some-key", "some-value", "some-id"))
        client.subscribe(key="some-key", pattern="some-pattern*")
        said = fetch(place) + json.dumps(client.ask({"op": "stats"}))
        for word in (KEY, "some-", service.url, "token-1", daemon.folder):
            self.assertNotIn(word, said)


class Http(Case):
    @with_page()
    def test_methods_and_paths(self, service, daemon, client, place):
        def answer(method, path):
            response, body = ask(place, method, path)
            self.assertEqual("close", response.headers["Connection"])
            return response.status, response.headers["Allow"], body

        self.assertEqual(200, answer("GET", "/metrics")[0])
        self.assertEqual(200, answer("GET", "/metrics?format=text")[0])
        for path in ("/", "/metrics/", "/metrics2", "/metric", "//metrics", "/%6detrics", "/../metrics"):
            self.assertEqual((404, None, b"the page is /metrics\n"), answer("GET", path), path)
        self.assertEqual(404, answer("POST", "/")[0])
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FLY"):
            self.assertEqual((405, "GET, HEAD"), answer(method, "/metrics")[:2], method)

    @with_page()
    def test_head_is_get_without_the_page(self, service, daemon, client, place):
        connection = connection_to(place)
        connection.connect()
        with connection.sock as sock:
            sock.sendall(b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b"".join(iter(functools.partial(sock.recv, 65536), b""))
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
        self.assertTrue(answer.endswith(b"\r\n\r\n"), answer)
        self.assertEqual(1, answer.count(b"\r\n\r\n"))
        length = int(re.search(rb"Content-Length: (\d+)\r\n", answer)[1])
        self.assertAlmostEqual(len(fetch(place)), length, delta=200)

    @with_page()
    def test_old_http(self, service, daemon, client, place):
        connection = connection_to(place)
        connection.connect()
        with connection.sock as sock:
            sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(functools.partial(sock.recv, 65536), b""))
        self.assertIn(b" 200 OK\r\n", answer)
        self.assertIn("hpkvd_clients", parse(answer.partition(b"\r\n\r\n")[2].decode()))

    @with_page()
    def test_nonsense_is_refused_and_nothing_else_suffers(self, service, daemon, client, place):
        for data in (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 100000 + b"\r\n\r\n", b"GET " + b"/" * 100000, b"\0" * 5000,
                     b"\r\n" * 10000, b"GET /metrics HTTP/9.9\r\n\r\n", b"GET /metrics\r\n\r\n", b"{\"op\":\"get\"}\n",
                     b"POST /metrics HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000,
                     b"POST /metrics HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                     b"POST /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n"):
            connection = connection_to(place)
            connection.connect()
            with connection.sock as sock, contextlib.suppress(ConnectionError):
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(functools.partial(sock.recv, 65536), b""))
                self.assertNotIn(b" 200 ", answer.partition(b"\r\n")[0], data[:80])
            client.barrier()
        self.assertIn("hpkvd_clients", fetch(place))

    @with_page()
    def test_who_says_nothing_or_reads_nothing_delays_nobody(self, service, daemon, client, place):
        """All places are taken by such; clients are served meanwhile, and the next scraper once their time is up."""
        silent = []
        for i in range(CONNECTIONS):
            connection = connection_to(place)
            connection.connect()
            silent.append(connection.sock)
            if i % 2: # the half of a request
                connection.sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: ")
        client.barrier()
        begun = time.monotonic()
        waiting = connection_to(place)
        waiting.request("GET", "/metrics")
        while time.monotonic() - begun < SERVE_SECONDS / 5: # the time that is measured
            self.assertEqual(200, client.ask(get("k"))["code"])
        waiting.sock.settimeout(DEADLINE + 2 * SERVE_SECONDS)
        response = waiting.getresponse()
        self.assertIn("hpkvd_clients", parse(response.read().decode()))
        waiting.close()
        for sock in silent:
            with sock, contextlib.suppress(ConnectionError):
                self.assertEqual(b"", sock.recv(1))

    @with_page()
    def test_places_are_free_again(self, service, daemon, client, place):
        """A reader that has left, before, within or after the answer, takes no place."""
        for i in range(5 * CONNECTIONS):
            connection = connection_to(place)
            connection.connect()
            if i % 3:
                connection.sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"[:i % 3 * 25])
            if i % 2:
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        begun = time.monotonic()
        for _ in range(3 * CONNECTIONS):
            fetch(place)
        self.assertLess(time.monotonic() - begun, DEADLINE)
        eventually(lambda: flat(fetch(place))["process_open_fds"] < 20 + CONNECTIONS, "the descriptors are free")

    @steady(0.5)
    def test_many_who_have_left_delay_nobody(self):
        """They take their places, a few at a time, before it is seen that they have gone."""
        with tempfile.TemporaryDirectory() as folder, FakeService() as service, Daemon(service, listen=folder + "/page"):
            for _ in range(8 * CONNECTIONS):
                connection = connection_to(folder + "/page")
                connection.connect()
                connection.close()
            begun = time.monotonic()
            fetch(folder + "/page")
            self.assertLess(time.monotonic() - begun, 5)

    def test_scrapers_wait_while_descriptors_are_short(self):
        """It neither spins nor gives up."""
        place = f"127.0.0.1:{free_port()}"
        with FakeService() as service, Daemon(service, listen=place, nofile=40) as daemon:
            daemon.wait_state("connected")
            clients = [daemon.client() for _ in range(60)]
            self.assertEqual(200, clients[0].ask({"op": "ping"})["code"])
            self.assertEqual(1, flat(fetch(place))['hpkvd_build_info{version="%s"}' % daemon_version(clients[0])])
            for client in clients:
                client.close()


def daemon_version(client):
    return client.ask({"op": "status"})["version"]


class Places(Case):
    def served(self, place, **settings):
        with FakeService() as service, Daemon(service, listen=place, **settings) as daemon:
            self.assertIn("hpkvd_clients", parse(fetch(place)))
            return daemon.process.wait_output(rb"metrics: (\S+)")[1].decode()

    def test_loopback(self):
        port = free_port()
        self.assertEqual(f"http://127.0.0.1:{port}/metrics", self.served(f"127.0.0.1:{port}"))
        port = free_port()
        self.assertEqual(f"http://127.0.0.1:{port}/metrics", self.served(f"localhost:{port}"))
        if os.path.exists("/proc/net/if_inet6") and "00000000000000000000000000000001" in open("/proc/net/if_inet6").read():
            port = free_port()
            self.assertEqual(f"http://[::1]:{port}/metrics", self.served(f"[::1]:{port}"))

    def test_only_there(self):
        """On loopback alone, and by default nowhere."""
        port = free_port()
        with FakeService() as service, Daemon(service, listen=f"127.0.0.1:{port}") as daemon, Daemon(service) as quiet:
            self.assertEqual({("127.0.0.1", port)}, listening(daemon.pid))
            self.assertEqual(set(), listening(quiet.pid))

    def test_a_socket_path(self):
        with FakeService() as service, Daemon(service, mode="0620") as daemon:
            daemon.killed = True
            daemon.process.kill()
            place = daemon.folder + "/metrics"
            for _ in range(2): # the second time it finds the socket that the first one has left
                with Daemon(service, folder=daemon.folder, listen=place, mode="0620") as other:
                    self.assertIn("hpkvd_clients", parse(fetch(place)))
                    self.assertEqual(0o620, stat.S_IMODE(os.stat(place).st_mode))
                    self.assertTrue(stat.S_ISSOCK(os.stat(place).st_mode))
                    other.killed = True
                    other.process.kill()
                self.assertTrue(os.path.exists(place))
            with Daemon(service, folder=daemon.folder, listen=place) as other:
                fetch(place)
            self.assertFalse(os.path.exists(place))

    def assert_fails(self, place, text):
        with FakeService() as service, Daemon(service, listen=place, wait=False) as daemon:
            self.assertEqual(1, daemon.process.wait_exit())
            daemon.killed = True
            self.assertIn(text.encode(), daemon.log())
            self.assertIn(b"[metrics] listen", daemon.log())
            self.assertFalse(os.path.exists(daemon.socket))

    def test_taken_places(self):
        """It does not take a socket from a living program."""
        port = free_port()
        for place in (f"127.0.0.1:{port}", None):
            with FakeService() as service, Daemon(service) as daemon:
                place = place or daemon.socket # which another daemon's clients connect to
                with contextlib.ExitStack() as stack:
                    if ":" in place:
                        stack.enter_context(socket.create_server(("127.0.0.1", port)))
                    self.assert_fails(place, "is listening there")
                daemon.status()

    def test_places_that_cannot_be(self):
        with FakeService() as service, Daemon(service) as daemon:
            os.mkdir(daemon.folder + "/folder")
            self.assert_fails(daemon.folder + "/folder", "something that is not a socket")
            self.assert_fails(daemon.folder + "/none/metrics", "its folder does not exist")


class Reload(Case):
    """SIGHUP: the page goes where the new settings want it, or all stays as it was."""

    @staticmethod
    def is_served(place):
        try:
            fetch(place)
            return True
        except (ConnectionRefusedError, FileNotFoundError):
            return False

    @scene()
    def test_it_comes_and_moves_and_goes(self, service, daemon, client):
        first, second, path = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", daemon.folder + "/metrics"
        for place, former in ((first, None), (second, first), (path, second), (first, path), ("", first)):
            self.assertTrue(daemon.reload(listen=place))
            self.assertIn(b"[metrics] listen", daemon.log().rpartition(b"new settings are in force")[2])
            self.assertEqual((bool(place), False), (bool(place) and self.is_served(place),
                                                    bool(former) and self.is_served(former)))
            client.barrier()
        self.assertFalse(os.path.exists(path))
        self.assertEqual(set(), listening(daemon.pid))

    @with_page()
    def test_where_it_stays_nobody_notices(self, service, daemon, client, place):
        connection = connection_to(place)
        connection.connect()
        connection.sock.sendall(b"GET /metrics HTTP/1.1\r\n")
        client.barrier_by(daemon)
        self.assertTrue(daemon.reload(max_clients="5"))
        with connection.sock as sock:
            sock.sendall(b"Host: localhost\r\n\r\n")
            answer = b"".join(iter(functools.partial(sock.recv, 65536), b""))
        self.assertEqual(5, flat(answer.partition(b"\r\n\r\n")[2].decode())["hpkvd_clients_max"])

    @scene(mode="0600")
    def test_a_path(self, service, daemon, client):
        """Its mode changes in place, and once removed it is made anew."""
        path = daemon.folder + "/metrics"
        self.assertTrue(daemon.reload(listen=path))
        before = os.stat(path)
        self.assertTrue(daemon.reload(mode="0666"))
        after = os.stat(path)
        self.assertEqual((before.st_ino, 0o600, 0o666),
                         (after.st_ino, stat.S_IMODE(before.st_mode), stat.S_IMODE(after.st_mode)))
        os.unlink(path)
        self.assertTrue(daemon.reload())
        self.assertTrue(self.is_served(path))

    @with_page(max_clients="7")
    def test_a_place_that_is_taken(self, service, daemon, client, place):
        """Nothing of the new settings is used."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            other = daemon.folder + "/other"
            self.assertFalse(daemon.reload(listen=f"127.0.0.1:{taken.getsockname()[1]}", max_clients="5", socket=other))
            self.assertIn(b"another program is listening there", daemon.log())
            self.assertFalse(os.path.exists(other))
            sample = flat(fetch(place))
            self.assertEqual((0, 7), (sample["hpkvd_config_last_reload_successful"], sample["hpkvd_clients_max"]))
        self.assertTrue(daemon.reload(listen=place, max_clients="5", socket=daemon.socket))
        self.assertEqual(1, flat(fetch(place))["hpkvd_config_last_reload_successful"])

    @with_page()
    def test_it_stays_when_something_else_is_wrong(self, service, daemon, client, place):
        other = f"127.0.0.1:{free_port()}"
        self.assertFalse(daemon.reload(listen=other, keepalive="never"))
        self.assertEqual((True, False), (self.is_served(place), self.is_served(other)))
        self.assertTrue(daemon.reload(keepalive="20s"))
        self.assertEqual((False, True), (self.is_served(place), self.is_served(other)))


def listening(pid):
    """Address and port of each TCP socket of IPv4 on which the process listens."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            inodes |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{fd}")))
    found = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/net/{table}", encoding="ascii") as f:
            for fields in (line.split() for line in list(f)[1:]):
                if fields[3] == "0A" and fields[9] in inodes:
                    address, port = fields[1].split(":")
                    found.add((socket.inet_ntoa(bytes.fromhex(address)[::-1]) if table == "tcp" else address,
                               int(port, 16)))
    return found


class Requests(Case):
    def test_each_op_that_succeeds(self):
        place = f"127.0.0.1:{free_port()}"
        with Sandbox() as service, Daemon(service, listen=place) as daemon, daemon.client() as client:
            daemon.wait_state("connected")
            before = ended(place)
            for op, members in EACH_OP:
                self.assertEqual(200, client.ask({"op": op} | members)["code"], op)
            client.subscribe(key="k")
            client.unsubscribe(key="k")
            for op in ("ping", "status", "stats"):
                self.assertEqual(200, client.ask({"op": op})["code"])
            self.assertEqual(404, client.ask(get("missing"))["code"])
            ops = [op for op, _ in EACH_OP] + ["subscribe", "unsubscribe", "ping", "status", "stats"]
            self.assertEqual({(op, "ok"): 1 for op in ops} | {("get", "service_error"): 1}, grown(before, ended(place)))

    @with_page(service=WITHHELD, max_in_flight=1, request_timeout="1m")
    def test_each_outcome(self, service, daemon, client, place):
        before = ended(place)

        def outcome(*expected):
            nonlocal before
            after = eventually(lambda: grown(before, now := ended(place)) and now, f"{expected}")
            self.assertEqual(dict.fromkeys(expected, 1), grown(before, after))
            before = after

        client.ask("nonsense")
        outcome(("unknown", "bad_json"))
        client.ask({"op": "fly"})
        outcome(("unknown", "unknown_op"))
        client.ask({"op": "range", "key": "a"})
        outcome(("range", "bad_request"))
        client.ask(get("k", "i" * 200))
        outcome(("unknown", "bad_request"))
        client.ask({"op": "token"})
        outcome(("token", "forbidden"))
        client.ask("{\"op\":\"get\",\"key\":\"" + "k" * 70000 + "\"}")
        outcome(("get", "too_large"))
        client.ask("x" * 70000)
        outcome(("unknown", "too_large"))

        client.send(put("k", "v"))
        service.next_request().reply(code=400, error="no")
        client.answer()
        outcome(("set", "service_error"))
        client.send({"op": "delete", "key": "k"})
        service.next_request().reply_raw('{"code":"?","messageId":<id>}')
        client.answer()
        outcome(("delete", "bad_upstream"))
        client.ask({"op": "increment", "key": "k", "timeoutMs": 300})
        service.next_request()
        outcome(("increment", "timeout"))

        with daemon.client() as other: # its request keeps the only place, so that the next one waits
            other.send({"op": "patch", "key": "a", "value": "v"})
            service.next_request()
            client.ask({"op": "range", "key": "a", "endKey": "b", "timeoutMs": 20})
            outcome(("range", "queue_full"))
            other.send(get("waits"))
            other.barrier()
        eventually(lambda: daemon.stats()["requests_abandoned"], "it has gone")
        service.requests[-1].reply()
        eventually(lambda: ended(place).get(("patch", "abandoned")), "the answer for nobody")
        after = ended(place)
        changes = grown(before, after)
        self.assertEqual((1, 1), (changes["patch", "abandoned"], changes["get", "abandoned"]))
        before = after

        # Sent again and again, refused each time, until its time is up.
        service.answer = lambda request: request.reply(code=429, error="slow down")
        while (reason := client.ask(get("k", timeoutMs=3000))["reason"]) == "timeout": # its last refusal came too late
            outcome(("get", "timeout"))
        self.assertEqual("rate_limited", reason)
        outcome(("get", "rate_limited"))

    @with_page(service=WITHHELD)
    def test_a_lost_connection(self, service, daemon, client, place):
        before = ended(place)
        client.send(put("k", "v"))
        service.next_request()
        service.stop_listening()
        service.connections[0].reset()
        self.assertEqual("outcome_unknown", client.answer()["reason"])
        self.assertEqual("upstream_down", client.ask(get("k", timeoutMs=20))["reason"])
        self.assertEqual("upstream_down", client.ask({"op": "subscribe", "key": "k", "timeoutMs": 20})["reason"])
        self.assertEqual({("set", "outcome_unknown"): 1, ("get", "upstream_down"): 1, ("subscribe", "upstream_down"): 1},
                         grown(before, ended(place)))

    @with_page()
    def test_what_was_read_has_ended(self, service, daemon, client, place):
        client.send(*(get("k", i) for i in range(50)), "nonsense", {"op": "ping"}, put("k", "v"), {"op": "fly"})
        client.answers(54)
        page = fetch(place)
        self.assertEqual(flat(page)["hpkvd_requests_total"],
                         sum(parse(page)["hpkvd_requests_ended_total"].samples.values()))

    @with_page(service=WITHHELD, max_in_flight=1, request_timeout="1m")
    def test_waiting_here_and_waiting_for_the_service(self, service, daemon, client, place):
        """The first request is with the service for so long, the second one here; a lower bound is sure."""
        client.send(get("a", 1), get("b", 2))
        first = service.next_request()
        sample = flat(fetch(place))
        self.assertEqual((1, 1), (sample["hpkvd_requests_in_flight"], sample["hpkvd_requests_waiting"]))
        self.assertGreater(sample["hpkvd_requests_waiting_bytes"], 0)
        time.sleep(0.3) # the time that is measured
        first.reply()
        second = service.next_request()
        second.reply()
        client.answers(2)
        families = parse(fetch(place))
        for name in ("hpkvd_request_wait_seconds", "hpkvd_request_service_seconds"):
            bounds, counts, total, n = histogram(families[name])
            self.assertEqual(2, n)
            self.assertGreaterEqual(total, 0.28, name)
            self.assertLessEqual(dict(zip(bounds, counts))[0.25], 1, name)
            self.assertGreaterEqual(counts[-1] - dict(zip(bounds, counts))[0.25], 1, name)
        sample = flat(fetch(place))
        self.assertEqual(sample["hpkvd_requests_sent_total"], sample["hpkvd_request_wait_seconds_count"])
        self.assertEqual((0, 0, 0), tuple(sample[f"hpkvd_requests_{n}"] for n in ("in_flight", "waiting", "waiting_bytes")))


class Gauges(Case):
    @with_page()
    def test_the_upstream(self, service, daemon, client, place):
        state = lambda: [labels_of(text)["state"] for (_, text), value in
                         parse(fetch(place))["hpkvd_upstream_state"].samples.items() if value]
        self.assertEqual(["connected"], state())
        sample = flat(fetch(place))
        self.assertNotIn("hpkvd_upstream_token_expiry_seconds", sample)
        self.assertNotIn("hpkvd_upstream_pace_requests_per_second", sample)
        client.subscribe(key="k")
        sample = flat(fetch(place))
        self.assertTrue(7100 < sample["hpkvd_upstream_token_expiry_seconds"] <= 7200)
        self.assertEqual((1, 1, 0), tuple(sample[f"hpkvd_{name}_total"] for name in
                                          ("upstream_handovers", "tokens_minted", "token_renewals")))
        service.stop_listening()
        service.connections[-1].reset()
        eventually(lambda: state() in (["connecting"], ["backoff"]), "it is gone")
        service.listen()
        eventually(lambda: state() == ["connected"], "it is back")
        sample = flat(fetch(place))
        self.assertEqual((1, 1), (sample["hpkvd_upstream_reconnects_total"], sample["hpkvd_upstream_disconnects_total"]))

    def test_tokens_that_are_renewed(self):
        place = f"127.0.0.1:{free_port()}"
        with FakeService() as service, Daemon(service, listen=place, token_lifetime="2s") as daemon, \
                daemon.client() as client:
            daemon.wait_state("connected")
            client.subscribe(key="k")
            eventually(lambda: flat(fetch(place))["hpkvd_token_renewals_total"] >= 2, "two renewals")

    @with_page(rate_limit="7")
    def test_pace(self, service, daemon, client, place):
        self.assertEqual(7, flat(fetch(place))["hpkvd_upstream_pace_requests_per_second"])

    @with_page(max_clients="77", max_in_flight="99")
    def test_clients_and_subscriptions(self, service, daemon, client, place):
        client.subscribe(keys=["a", "b"], pattern="p*")
        with daemon.client() as other:
            other.subscribe(key="a")
            other.send_raw(b"half a line")
            client.barrier_by(daemon)
            eventually(lambda: flat(fetch(place))["hpkvd_clients"] == 2, "two clients")
            sample = flat(fetch(place))
        expected = {"clients": 2, "clients_max": 77, "requests_in_flight_max": 99, "subscriptions": 4, "subscription_keys": 2,
                    "subscription_patterns": 1, "subscriptions_live": 1, "subscriptions_left_out": 0,
                    "subscribes_waiting": 0, "rereads_waiting": 0, "client_input_bytes": len("half a line"),
                    "client_output_bytes": 0, "clients_held": 0, "clients_lagging": 0}
        self.assertEqual(expected, {name: sample[f"hpkvd_{name}"] for name in expected})
        self.assertGreater(sample["hpkvd_subscriptions_bytes"], 100)
        self.assertEqual(0, flat(fetch(place))["hpkvd_client_input_bytes"])

    @with_page(output_soft="64K", output_hard="64M", client={"receive_buffer": 4096})
    def test_a_slow_reader(self, service, daemon, client, place):
        client.subscribe(key="k")
        said = 0
        while not flat(fetch(place))["hpkvd_clients_lagging"]:
            for _ in range(50):
                service.publish("k", "v" * 3000)
            said += 50
            self.assertLess(said, 10000)
        self.assertGreater(flat(fetch(place))["hpkvd_client_output_bytes"], 65536 - 3100)

    @with_page()
    def test_the_process(self, service, daemon, client, place):
        daemon.wait_state("connected") # before, descriptors come and go
        opened = lambda: len(os.listdir(f"/proc/{daemon.pid}/fd"))
        eventually(lambda: flat(fetch(place))["process_open_fds"] - 1 == opened(), "all descriptors, the scraper's included")
        sample = flat(fetch(place))
        self.assertGreater(sample["process_resident_memory_bytes"], 1 << 20)
        self.assertGreater(sample["process_virtual_memory_bytes"], sample["process_resident_memory_bytes"])
        self.assertGreater(sample["process_cpu_seconds_total"], 0)
        self.assertLessEqual(sample["process_cpu_seconds_total"], daemon.process.cpu_seconds() + 0.1)
        self.assertGreater(sample["process_max_fds"], 20)
        self.assertLess(abs(sample["process_start_time_seconds"] - os.stat(f"/proc/{daemon.pid}").st_ctime), 60)


class Stats(Case):
    UNSTEADY = {"process_resident_memory_bytes", "process_virtual_memory_bytes", "process_open_fds",
                "hpkvd_upstream_token_expiry_seconds", "hpkvd_upstream_state_seconds"}

    @with_page()
    def test_stats_says_the_same(self, service, daemon, client, place):
        """The same names; and values that lie between those of a page before and one after."""
        client.subscribe(key="k", pattern="p*")
        client.send(*(get("k", i) for i in range(10)), "nonsense")
        client.answers(11)
        before, stats, after = flat(fetch(place)), client.ask({"op": "stats"})["stats"], flat(fetch(place))
        self.assertEqual(list(before), list(stats)) # in the same order, too
        self.assertEqual(list(after), list(stats))
        wrong = {name: (before[name], value, after[name]) for name, value in stats.items()
                 if name not in self.UNSTEADY and not before[name] <= value <= after[name]}
        self.assertEqual({}, wrong)

    @scene()
    def test_without_a_page_as_well(self, service, daemon, client):
        stats = client.ask({"op": "stats"})["stats"]
        self.assertEqual(1, stats[f'hpkvd_build_info{{version="{daemon_version(client)}"}}'])
        self.assertEqual(0, stats['hpkvd_requests_ended_total{op="get",outcome="ok"}'])
        self.assertEqual(0, stats['hpkvd_request_wait_seconds_bucket{le="+Inf"}'])


class Documents(Case):
    @staticmethod
    def read(*path):
        with open(os.path.join(ROOT, *path), encoding="utf-8") as f:
            return f.read()

    @with_page()
    def test_the_manual_names_what_is_on_the_page(self, service, daemon, client, place):
        families = parse(fetch(place))
        rows = re.findall(r"^\| `([a-z_]+)` \| (\w+) \| .+ \|$", self.read("doc", "metrics.md"), re.M)
        self.assertEqual([], [name for name, n in collections.Counter(name for name, _ in rows).items() if n > 1])
        self.assertEqual({name: family.type for name, family in families.items()}, dict(rows))

    @with_page()
    def test_the_manual_names_the_labels(self, service, daemon, client, place):
        manual = self.read("doc", "metrics.md")
        families = parse(fetch(place))
        for name, label in (("hpkvd_upstream_state", "state"), ("hpkvd_requests_ended_total", "outcome")):
            for value in {labels_of(text)[label] for _, text in families[name].samples}:
                self.assertIn(f"`{value}`", manual)

    @with_page()
    def test_the_example_rules_ask_for_what_there_is(self, service, daemon, client, place):
        """Each metric and each label's value that they name."""
        names = {name.partition("{")[0] for name in flat(fetch(place))} | set(parse(fetch(place)))
        text = self.read("etc", "hpkvd-alerts.yml")
        used = set(re.findall(r"\b(hpkvd_\w+|process_\w+)", text))
        self.assertGreater(len(used), 10)
        self.assertEqual(set(), used - names)
        page = fetch(place)
        for label, values in re.findall(r'\b(state|outcome)=~?"([^"]+)"', text):
            for value in values.split("|"):
                self.assertIn(f'{label}="{value}"', page)

    def test_the_example_rules_are_rules(self):
        if not yaml:
            self.skipTest("there is no python3-yaml")
        groups = yaml.safe_load(self.read("etc", "hpkvd-alerts.yml"))["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        self.assertEqual(len(rules), len({rule["alert"] for rule in rules}))
        for rule in rules:
            self.assertLessEqual(set(rule), {"alert", "expr", "for", "labels", "annotations"})
            self.assertRegex(rule["alert"], r"^Hpkvd[A-Z]\w+$")
            self.assertIn(rule["labels"]["severity"], ("warning", "critical"))
            self.assertTrue(rule["annotations"]["summary"])
            self.assertRegex(rule.get("for", "1m"), r"^\d+[smh]$")
            self.assertEqual(rule["expr"].count("("), rule["expr"].count(")"))

    def test_promtool_takes_the_example_rules(self):
        tool = shutil.which("promtool")
        if not tool:
            self.skipTest("there is no promtool")
        run = subprocess.run([tool, "check", "rules", os.path.join(ROOT, "etc", "hpkvd-alerts.yml")], capture_output=True,
                             text=True, check=False)
        self.assertEqual(0, run.returncode, run.stdout + run.stderr)


if __name__ == "__main__":
    unittest.main()
