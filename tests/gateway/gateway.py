"""What the tests of the gateway have in common: a daemon with HTTP on TCP, and clients that send the bytes that a test wants."""

import contextlib
import json
import os
import re
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "daemon"))

from harness import DEADLINE, KEY, Case, Client, Daemon, FakeService, Sandbox, eventually, free_port, get, put  # noqa: E402,F401

LOCAL_KEY = "a-local-key-that-must-not-be-shown"


class Response:
    """One HTTP response, as it came."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body!r}>"

    @property
    def json(self):
        return json.loads(self.body)

    def header(self, name):
        """Its value; None: it is not there. It must not be there twice."""
        values = [value for other, value in self.headers if other.lower() == name.lower()]
        assert len(values) < 2, self
        return values[0] if values else None


class Http:
    """A connection for HTTP, by the Unix socket or TCP, that sends what it is told, right or wrong."""

    def __init__(self, where):
        self.sock = socket.create_connection(where) if isinstance(where, tuple) else socket.socket(socket.AF_UNIX)
        if not isinstance(where, tuple):
            self.sock.connect(where)
        self.sock.settimeout(DEADLINE)
        self.received = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *ignored):
        self.close()

    def close(self):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode("utf-8"))

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def _more(self):
        data = self.sock.recv(65536)
        self.received += data
        return data

    def until(self, mark):
        """What comes up to this, which is included."""
        while mark not in self.received:
            assert self._more(), f"the connection has ended: {bytes(self.received)!r}"
        end = self.received.index(mark) + len(mark)
        taken = bytes(self.received[:end])
        del self.received[:end]
        return taken

    def head(self):
        """(status, headers) of what comes next."""
        lines = self.until(b"\r\n\r\n").decode("utf-8").split("\r\n")
        version, status, _ = lines[0].split(" ", 2)
        assert version == "HTTP/1.1", lines
        return int(status), [tuple(line.split(": ", 1)) for line in lines[1:] if line]

    def response(self, *, head_only=False):
        response = Response(*self.head(), b"")
        n = 0 if head_only or response.status in (100, 101, 204) else int(response.header("Content-Length"))
        while len(self.received) < n:
            assert self._more(), f"the connection has ended within the body of {response}"
        response.body = bytes(self.received[:n])
        del self.received[:n]
        return response

    def ask(self, method, target, body=None, headers=(), host="hpkv", version="HTTP/1.1"):
        """A request and its response."""
        self.request(method, target, body, headers, host, version)
        return self.response(head_only=method == "HEAD")

    def request(self, method, target, body=None, headers=(), host="hpkv", version="HTTP/1.1"):
        headers = dict(headers)
        if body is not None:
            body = body if isinstance(body, (bytes, str)) else json.dumps(body)
            body = body if isinstance(body, bytes) else body.encode("utf-8")
            headers.setdefault("Content-Type", "application/json")
            headers.setdefault("Content-Length", len(body))
        if host is not None:
            headers.setdefault("Host", host)
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.send(f"{method} {target} {version}\r\n{head}\r\n".encode("utf-8") + (body or b""))

    def event(self):
        """(type, object) of the next server-sent event; (None, None): a comment."""
        text = self.until(b"\n\n").decode("utf-8")
        if text.startswith(":"):
            return None, None
        kind = re.match(r"event: (\S+)\ndata: (.*)\n\n\Z", text)
        assert kind, text
        return kind[1], json.loads(kind[2])

    def at_end(self):
        """Has the daemon closed the connection, with nothing more on it?"""
        assert not self.received, bytes(self.received)
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return False


class Gateway(Daemon):
    """A daemon that serves HTTP on TCP as well, with a local key."""

    def __init__(self, service, *, tcp=True, **settings):
        if tcp:
            self.port = free_port()
            settings.setdefault("http_address", f"127.0.0.1:{self.port}")
            if not settings.get("access"):
                settings.setdefault("local_key_file", "local-key")
        super().__init__(service, **settings)
        self.write_key("local-key", LOCAL_KEY)

    def write_key(self, name, key):
        self._write_file(name, key + "\n")

    def http(self):
        return Http(self.socket)

    def tcp(self, host="127.0.0.1"):
        return Http((host, self.port))

    def ask_tcp(self, method, target, body=None, headers=(), key=LOCAL_KEY):
        """A request on a connection of its own."""
        with self.tcp() as c:
            keys = {"x-api-key": key} if key else {}
            return c.ask(method, target, body, keys | dict(headers), host=f"127.0.0.1:{self.port}")


class GatewayCase(Case):
    def open(self, context):
        result = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return result

    def scene(self, service=(), **settings):
        """A service and a gateway that is connected to it."""
        s = self.open(FakeService(**dict(service)))
        g = self.open(Gateway(s, **settings))
        g.wait_state("connected")
        return s, g

    def sandbox(self, **settings):
        s = self.open(Sandbox())
        g = self.open(Gateway(s, key=s.key, **settings))
        g.wait_state("connected")
        return g

    def http(self, gateway):
        return self.open(contextlib.closing(gateway.http()))

    def tcp(self, gateway):
        return self.open(contextlib.closing(gateway.tcp()))

    def assert_refused(self, response, status, reason=None):
        """An error of the gateway's own: JSON in the form of all errors."""
        self.assertEqual(status, response.status, response)
        self.assertEqual("application/json", response.header("Content-Type"))
        self.assertEqual("no-store", response.header("Cache-Control"))
        error = response.json
        self.assertEqual(status, error["code"])
        self.assertEqual("no", error["executed"])
        self.assertTrue(error["error"])
        if reason:
            self.assertEqual(reason, error["reason"])
