"""A WebSocket client for the tests of the gateway, which can also send what no client should, and daemons with its doors open."""

import base64
import http.client
import json
import os
import secrets
import socket
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
for folder in "daemon", "sandbox":
    sys.path.insert(0, os.path.join(os.path.dirname(HERE), folder))

import harness  # noqa: E402
import sandbox  # noqa: E402
from harness import Case, Daemon, Sandbox, eventually, free_port  # noqa: E402, F401

LOCAL_KEY = "a-local-key-that-nobody-may-see"
PATIENCE = 60
TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10

harness.SECTION.update(dict.fromkeys(("http", "http_address", "http_origins", "local_key_file"), "listen"))


def frame(opcode, payload=b"", final=True, masked=True, length=None, reserved=0):
    """A WebSocket frame as a client sends it, or ought not to."""
    n = len(payload) if length is None else length
    head = bytes([(0x80 if final else 0) | reserved | opcode])
    mask = 0x80 if masked else 0
    if n < 126:
        head += bytes([mask | n])
    elif n < 65536:
        head += bytes([mask | 126]) + n.to_bytes(2, "big")
    else:
        head += bytes([mask | 127]) + n.to_bytes(8, "big")
    if not masked:
        return head + payload
    key = secrets.token_bytes(4)
    return head + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


class Refused(Exception):
    """The upgrade was refused."""

    def __init__(self, status, headers, body):
        super().__init__(f"{status} {body}")
        self.status, self.headers, self.body = status, headers, body


class WebSocket(sandbox.WebSocket):
    """Over a connected socket. headers: those of the upgrade; None leaves one out."""

    def __init__(self, sock, path="/ws", headers=(), behind=b""):
        from wsproto import ConnectionType
        from wsproto.connection import Connection
        sock.settimeout(PATIENCE)
        self.sock = sock
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        names = {"Host": "localhost", "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
                 "Sec-WebSocket-Key": key} | dict(headers)
        head = "".join(f"{name}: {value}\r\n" for name, value in names.items() if value is not None)
        sock.sendall(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode() + behind)
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := sock.recv(1)):
                raise sandbox.Closed(None)
            data += more
        self.head = data.decode()
        if not self.head.startswith("HTTP/1.1 101 "):
            self._refuse(data)
        self.protocol = Connection(ConnectionType.CLIENT)
        self.messages, self.pongs, self.partial, self.closed = [], [], [], None

    def _refuse(self, head):
        lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
        body = b""
        while len(body) < int(headers["content-length"]):
            body += self.sock.recv(65536)
        self.sock.close()
        raise Refused(int(lines[0].split()[1]), headers, json.loads(body))

    def fragment(self, text, *, size):
        """A message in fragments of so many bytes."""
        data = text.encode()
        pieces = [data[i:i + size] for i in range(0, len(data), size)]
        return [frame(TEXT if i == 0 else CONTINUATION, piece, final=i == len(pieces) - 1) for i, piece in enumerate(pieces)]


class Gateway(Daemon):
    """hpkvd with its doors: HTTP on its socket, and on TCP with local keys: that of [listen] if there is no access section with a
    local_key_file of its own."""

    def __init__(self, service, *, keys=None, **settings):
        self.port = free_port()
        settings.setdefault("http_address", f"127.0.0.1:{self.port}")
        super().__init__(service, **settings)
        self.keys = dict(keys) if keys is not None else {} if self.access else {"local-key": LOCAL_KEY}
        if not self.access and self.keys:
            self.settings.setdefault("local_key_file", "local-key")

    def _write_files(self):
        for name, key in self.keys.items():
            self._write_file(name, key + "\n")
        return super()._write_files()

    def tcp(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def unix(self):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(self.socket)
        return sock

    def ws(self, path=f"/ws?apiKey={LOCAL_KEY}", *, unix=False, **options):
        return WebSocket(self.unix() if unix else self.tcp(), path, **options)

    def rest(self, method, path, body=None, *, key=LOCAL_KEY, headers=()):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            text = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
            names = ({"Content-Type": "application/json"} if body is not None else {}) | ({"x-api-key": key} if key else {}) | dict(headers)
            connection.request(method, path, text, names)
            response = connection.getresponse()
            return response.status, json.loads(response.read() or "null")
        finally:
            connection.close()

    def token(self, *, key=LOCAL_KEY, **wish):
        status, answer = self.rest("POST", "/token/websocket", wish, key=key)
        assert status == 200, (status, answer)
        return answer["token"]
