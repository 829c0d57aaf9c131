"""Shared by the tests of the sandbox: a sandbox, and clients for WebSocket and REST.

SANDBOX names the binary, as "make check" sets it.
"""

import functools
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import urllib.parse

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Message,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)

from need import certificates

BINARY = os.environ.get("SANDBOX", "./hpkv-sandbox")
PATIENCE = 60  # seconds after which an expected message counts as missing
API_KEY = "sandbox"

GET, SET, PATCH, DELETE, RANGE, INCREMENT = 1, 2, 3, 4, 5, 6


@functools.lru_cache(maxsize=None)
def trust():
    return ssl.create_default_context(cafile=os.path.join(certificates(), "ca.pem"))


class Refused(Exception):
    """The upgrade was refused."""

    def __init__(self, status, body):
        super().__init__(f"{status} {body}")
        self.status = status


class Closed(Exception):
    """The connection has ended; code is that of the close frame, None without one."""

    def __init__(self, code):
        super().__init__(f"closed with {code}")
        self.code = code


class Sandbox:
    """A running hpkv-sandbox on a free port, over TLS unless told otherwise."""

    def __init__(self, *arguments, tls=True):
        self.tls = tls
        command = [BINARY, "--port", "0", *arguments]
        if tls:
            folder = certificates()
            command += ["--tls-cert", f"{folder}/server.pem", "--tls-key", f"{folder}/server.key"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            self.process.wait()
            raise AssertionError(f"the sandbox did not start: {line!r}, status {self.process.returncode}")
        self.url = line[len("listening on "):].strip()
        self.port = urllib.parse.urlsplit(self.url).port

    def stop(self):
        """Ends it and returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(PATIENCE)
        self.process.stdout.close()
        return status

    def connect(self, address="127.0.0.1"):
        """A plain socket, in TLS when the sandbox speaks it."""
        raw = socket.create_connection((address, self.port), timeout=PATIENCE)
        return trust().wrap_socket(raw, server_hostname="localhost") if self.tls else raw

    def ws(self, path=None, **options):
        return WebSocket(self.connect(), path or f"/ws?apiKey={API_KEY}", **options)

    def subscribe(self, *patterns, access=None):
        """A connection by a token with these subscriptions."""
        return self.ws(f"/ws?token={self.token(*patterns, access=access)}")

    def token(self, *patterns, access=None):
        body = {"subscribePatterns": list(patterns)}
        if access is not None:
            body["accessPattern"] = access
        status, answer = self.rest("POST", "/token/websocket", body)
        assert status == 200, answer
        return answer["token"]

    def request(self, method, path, body=None, headers=None):
        """An HTTP request; the response with its body read."""
        if self.tls:
            connection = http.client.HTTPSConnection("localhost", self.port, timeout=PATIENCE, context=trust())
        else:
            connection = http.client.HTTPConnection("localhost", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, {"x-api-key": API_KEY} if headers is None else headers)
            response = connection.getresponse()
            response.content = response.read()
            return response
        finally:
            connection.close()

    def rest(self, method, path, body=None):
        """The same with JSON: (status, answer)."""
        if body is not None and not isinstance(body, (str, bytes)):
            body = json.dumps(body)
        response = self.request(method, path, body)
        return response.status, json.loads(response.content)


class WebSocket:
    """One connection; what it receives is handed out in order."""

    def __init__(self, sock, path):
        self.sock = sock
        self.protocol = WSConnection(ConnectionType.CLIENT)
        self.messages = []
        self.pongs = []
        self.partial = []
        self.closed = None
        self.accepted = None
        self.send_raw(self.protocol.send(Request(host="localhost", target=path)))
        self.refusal = b""
        while self.accepted is None:
            self.receive_some()

    def send_raw(self, data):
        self.sock.sendall(data)

    def send_event(self, event):
        self.send_raw(self.protocol.send(event))

    def frame(self, text):
        """A text message as it goes over the line."""
        return self.protocol.send(Message(data=text))

    def send_text(self, text):
        self.send_raw(self.frame(text))

    def send(self, **members):
        self.send_text(json.dumps(members))

    def receive_some(self):
        if self.closed:
            raise self.closed
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = self.closed or Closed(None)
            raise self.closed
        self.protocol.receive_data(data)
        for event in self.protocol.events():
            self.take(event)

    def take(self, event):
        if isinstance(event, AcceptConnection):
            self.accepted = True
        elif isinstance(event, RejectConnection):
            self.status = event.status_code
            if not event.has_body:
                raise Refused(self.status, b"")
        elif isinstance(event, RejectData):
            self.refusal += event.data
            if event.body_finished:
                raise Refused(self.status, self.refusal)
        elif isinstance(event, TextMessage):
            self.partial.append(event.data)
            if event.message_finished:
                self.messages.append("".join(self.partial))
                self.partial = []
        elif isinstance(event, BytesMessage):
            raise AssertionError("a binary message")
        elif isinstance(event, Ping):
            self.send_event(event.response())
        elif isinstance(event, Pong):
            self.pongs.append(bytes(event.payload))
        elif isinstance(event, CloseConnection):
            self.closed = Closed(event.code)

    def text(self):
        """The next message as it came."""
        while not self.messages:
            self.receive_some()
        return self.messages.pop(0)

    def next(self):
        return json.loads(self.text())

    def ask(self, **members):
        """Sends a request and returns what comes next."""
        self.send(**members)
        return self.next()

    def notification(self):
        message = self.next()
        assert message.get("type") == "notification", message
        return message["key"], message["value"]

    def wait_closed(self):
        """Reads until the connection ends; the code of the close frame."""
        try:
            while True:
                self.receive_some()
        except Closed as closed:
            return closed.code

    def close(self):
        self.sock.close()


def sandbox_case(*arguments, **options):
    """A base class for test cases that share one sandbox."""
    import unittest

    class Case(unittest.TestCase):
        @classmethod
        def setUpClass(cls):
            cls.sandbox = Sandbox(*arguments, **options)

        @classmethod
        def tearDownClass(cls):
            status = cls.sandbox.stop()
            assert status == 0, f"the sandbox ended with {status}"

        def ws(self, *args, **kwargs):
            connection = self.sandbox.ws(*args, **kwargs)
            self.addCleanup(connection.close)
            return connection

        def subscribe(self, *args, **kwargs):
            connection = self.sandbox.subscribe(*args, **kwargs)
            self.addCleanup(connection.close)
            return connection

        def rest(self, *args):
            return self.sandbox.rest(*args)

    return Case
