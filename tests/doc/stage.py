"""stage.py - the set-up of the tests of documents and examples: a sandbox, a daemon, and a wire between them that can be cut."""

import http.client
import json
import os
import pwd
import socket
import ssl
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(os.path.dirname(HERE), folder) for folder in ("daemon", "sandbox")]

from harness import KEY, ROOT, Daemon, Sandbox, certs  # noqa: E402 (the path comes first)
from sandbox import WebSocket  # noqa: E402

BUILDDIR = os.environ.get("BUILDDIR") or os.path.dirname(os.environ.get("HPKVD", ROOT + "/hpkvd"))


def shut_down(end):
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError: # it was down already
        pass


class Wire:
    """Passes connections on to a port of this machine, until it is cut; mended, it passes new ones on."""

    def __init__(self, port):
        self.target = port
        self.whole = True
        self.ends = set()
        self.changing = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.cut()
        # close() alone would leave accept() where it is.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def cut(self):
        with self.changing:
            self.whole = False
            for end in self.ends:
                shut_down(end)

    def mend(self):
        with self.changing:
            self.whole = True

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near):
        with near, socket.create_connection(("127.0.0.1", self.target)) as far:
            with self.changing:
                if not self.whole:
                    return
                self.ends |= {near, far}
            back = threading.Thread(target=self._pass, args=(far, near), daemon=True)
            back.start()
            self._pass(near, far)
            back.join()
            with self.changing:
                self.ends -= {near, far}

    @staticmethod
    def _pass(source, sink):
        try:
            while chunk := source.recv(65536):
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)
        except OSError: # cut
            shut_down(source)
            shut_down(sink)


def me():
    """The user who runs the test, as access rules name users."""
    return pwd.getpwuid(os.geteuid()).pw_name


class Stage:
    """A sandbox with these records, and a daemon that is connected to it by a wire. access: the sections of access rules."""

    def __init__(self, records=(), **settings):
        self.records = dict(records)
        self.settings = {"level": "info"} | settings

    def __enter__(self):
        self.sandbox = Sandbox()
        self.sandbox.__enter__()
        self.wire = Wire(self.sandbox.port)
        for key, value in self.records.items():
            self.store(key, value)
        self.daemon = Daemon(f"https://localhost:{self.wire.port}", **self.settings)
        try:
            self.daemon.__enter__()
        except BaseException:
            self._leave_service(*sys.exc_info())
            raise
        self.daemon.wait_state("connected")
        return self

    def __exit__(self, *error):
        try:
            self.daemon.__exit__(*error)
        finally:
            self._leave_service(*error)

    def _leave_service(self, *error):
        self.wire.close()
        self.sandbox.__exit__(*error)

    def service_request(self, method, path, body=None, headers=()):
        """An HTTP request to the service itself: its status and the answer's object."""
        trust = ssl.create_default_context(cafile=certs() + "/ca.pem")
        connection = http.client.HTTPSConnection("localhost", self.sandbox.port, context=trust, timeout=20)
        try:
            connection.request(method, path, body and json.dumps(body), {"x-api-key": KEY} | dict(headers))
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text else None
        finally:
            connection.close()

    def store(self, key, value):
        """Writes as another machine would, not through this daemon."""
        status, answer = self.service_request("POST", "/record", {"key": key, "value": value})
        assert status == 200, answer

    def browser(self, token):
        """A WebSocket to the service itself, opened with a token."""
        trust = ssl.create_default_context(cafile=certs() + "/ca.pem")
        raw = socket.create_connection(("localhost", self.sandbox.port), timeout=20)
        return WebSocket(trust.wrap_socket(raw, server_hostname="localhost"), "/ws?token=" + token)

    def lose_connection(self):
        self.wire.cut()
        self.daemon.wait_status(lambda s: s["upstream"]["state"] != "connected", "the connection is lost")

    def restore_connection(self):
        self.wire.mend()
        self.daemon.wait_state("connected")

    def restart_daemon(self):
        self.stop_daemon()
        self.start_daemon()

    def stop_daemon(self):
        self.daemon.process.signal(15)
        assert self.daemon.process.wait_exit() == 0
        self.daemon.process.close()

    def start_daemon(self):
        self.daemon.start()
        self.daemon.wait_state("connected")
