"""What the tests of the edge rooms have in common: certificates, the drivers (driver.h), and servers that misbehave as told."""

import base64
import contextlib
import hashlib
import os
import queue
import re
import socket
import ssl
import struct
import subprocess
import threading
import time
import unittest

import need

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.join(os.environ.get("BUILDDIR", "."), "tests", "transport")
PATIENCE_S = 60  # for what has to come; nothing waits that long when all is well


def certs(name):
    """The path of a file that make-certs.sh makes."""
    return os.path.join(need.certificates(), name)


class Driver:
    """A driver under way. wait() takes what it said, in order."""

    def __init__(self, name, *args, env=None):
        command = os.environ.get("HPKVD_EDGES_UNDER", "").split()  # e.g. valgrind
        self.process = subprocess.Popen([*command, os.path.join(BUILD, name), *[str(a) for a in args]], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
                                        errors="backslashreplace", env={**os.environ, **(env or {})})
        self.lines = queue.Queue()
        self.log = []
        self.logged = threading.Condition()
        self.threads = [threading.Thread(target=self._read_out, daemon=True), threading.Thread(target=self._read_err, daemon=True)]
        for thread in self.threads:
            thread.start()

    def _read_out(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def _read_err(self):
        for line in self.process.stderr:
            with self.logged:
                self.log.append(line.rstrip("\n"))
                self.logged.notify_all()

    def wait_log(self, text):
        with self.logged:
            if not self.logged.wait_for(lambda: any(text in line for line in self.log), PATIENCE_S):
                raise AssertionError(f"not logged: {text}\n" + "\n".join(self.log[-60:]))

    def tell(self, *commands):
        self.process.stdin.write("".join(c + "\n" for c in commands))
        self.process.stdin.flush()

    def line(self, what="a line", within=PATIENCE_S):
        """The next one that it says; None: it has ended."""
        try:
            return self.lines.get(timeout=within)
        except queue.Empty:
            raise AssertionError(f"{what} has not come within {within} s:\n" + "\n".join(self.log[-60:])) from None

    def wait(self, event, within=PATIENCE_S):
        """The rest of the next line, which has to be this event. "drained" may come at any time and is passed over."""
        while (line := self.line(event, within)) is not None:
            name, _, rest = line.partition(" ")
            if name == event:
                return rest.strip()
            if name != "drained":
                raise AssertionError(f"{line!r} instead of {event}")
        raise AssertionError(f"the driver ended instead of {event}: " + "\n".join(self.log))

    def ask(self, command, event=None):
        self.tell(command)
        return self.wait(event or command)

    def descriptors(self):
        """What the driver's descriptors are of; those that it closes while we look are passed over."""
        folder, found = f"/proc/{self.process.pid}/fd", []
        for n in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(f"{folder}/{n}"))
        return sorted(found)

    def cpu_s(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self):
        """Ends it and checks that it ended well (a sanitizer's or valgrind's complaint is an exit status)."""
        if self.process.poll() is None:
            try:
                self.tell("exit")
            except BrokenPipeError:
                pass
        status = self.process.wait(timeout=PATIENCE_S)
        for thread in self.threads:
            thread.join()
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.stderr.close()
        if status:
            raise AssertionError(f"the driver ended with status {status}:\n" + "\n".join(self.log[-60:]))


class Server:
    """Runs handler(socket) in a thread for each connection; what it raises fails the test that ends the server."""

    def __init__(self, handler, cert="server", tls=True, address="127.0.0.1", port=0, tls_version=None):
        self.handler = handler
        self.tls = None
        if tls:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(certs(cert + ".pem"), certs(cert + ".key"))
            if tls_version:
                self.tls.minimum_version = self.tls.maximum_version = tls_version
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listener = socket.create_server((address, port or port_everywhere()), family=family)
        self.address, self.port = self.listener.getsockname()[:2]
        self.fault = None
        self.threads = []
        self.connections = []
        self.ended = False
        self._start(self._accept)

    def _start(self, function, *args):
        thread = threading.Thread(target=function, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection):
        try:
            connection.settimeout(PATIENCE_S)
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
                self.connections.append(connection)
            self.handler(connection)
        except (ConnectionError, ssl.SSLError, TimeoutError) as err:
            self.refused = err  # what a client that gives up looks like from here
        except Exception as err:  # pylint: disable=broad-except
            if not self.ended:
                self.fault = err
        finally:
            connection.close()

    def end(self):
        if self.ended:
            return
        self.ended = True
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self.threads:
            thread.join(PATIENCE_S)
        if self.fault:
            raise self.fault


_held = []


def dead_port():
    """A port on which nobody listens, nor will: it is ours as long as the tests run."""
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    _held.append(s)
    return s.getsockname()[1]


def port_everywhere():
    """A port that nothing is bound to at any address, and that no other program is given as long as the tests run. Servers with
    SO_REUSEADDR can listen on it, at several addresses."""
    s = socket.socket(socket.AF_INET6 if need.has_ipv6() else socket.AF_INET)
    if need.has_ipv6():
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(("", 0))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _held.append(s)
    return s.getsockname()[1]


def read_request(connection):
    """A whole HTTP head, byte by byte so that nothing behind it is taken."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            raise ConnectionError("ended within the head")
        head += byte
    return head.decode("latin-1")


def answer_101(head, extra=""):
    key = re.search(r"^sec-websocket-key: *(\S+)", head, re.I | re.M).group(1)
    accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
    return (f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n{extra}\r\n").encode()


def upgrade(connection):
    head = read_request(connection)
    connection.sendall(answer_101(head))
    return head


def frame(payload, opcode=1, final=True, reserved=0, mask=None):
    if isinstance(payload, str):
        payload = payload.encode()
    n = len(payload)
    first = (0x80 if final else 0) | reserved << 4 | opcode
    bit = 0x80 if mask else 0
    if n < 126:
        head = struct.pack("!BB", first, bit | n)
    elif n < 65536:
        head = struct.pack("!BBH", first, bit | 126, n)
    else:
        head = struct.pack("!BBQ", first, bit | 127, n)
    if mask:
        payload = bytes(b ^ mask[i % 4] for i, b in enumerate(payload))
        head += mask
    return head + payload


def close_frame(code):
    return frame(struct.pack("!H", code), opcode=8)


def recv_exactly(connection, n):
    data = bytearray()
    while len(data) < n:
        more = connection.recv(min(n - len(data), 1 << 16))
        if not more:
            raise ConnectionError("ended within a frame")
        data += more
    return bytes(data)


def read_frame(connection):
    """(opcode, payload) of a frame from a client, which has to be whole, masked and without reserved bits."""
    first, second = recv_exactly(connection, 2)
    assert first & 0xf0 == 0x80 and second & 0x80, (first, second)
    n = second & 0x7f
    if n == 126:
        n = struct.unpack("!H", recv_exactly(connection, 2))[0]
        assert n >= 126
    elif n == 127:
        n = struct.unpack("!Q", recv_exactly(connection, 8))[0]
        assert n > 65535
    mask = recv_exactly(connection, 4)
    payload = recv_exactly(connection, n)
    key = (mask * (n // 4 + 1))[:n]
    return first & 0xf, (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(n, "big")


def checksum(data):
    """The number that websocket-driver says of a message."""
    total = 0
    for byte in data:
        total = (total * 31 + byte) & 0xffffffff
    return total


def stay(connection):
    """Until the client has gone."""
    while connection.recv(65536):
        pass


def eventually(condition, within=PATIENCE_S):
    """Waits for what has no event to wait for."""
    until = time.monotonic() + within
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


class EdgeTest(unittest.TestCase):
    """Drivers and servers that a case starts end with it, and have to end well."""

    def serve(self, handler, **options):
        server = Server(handler, **options)
        self.addCleanup(server.end)
        return server

    def drive(self, name, *args, **options):
        driver = Driver(name, *args, **options)
        self.addCleanup(driver.end)
        return driver

    def assert_turns(self, driver, do):
        """The loop has its turns while this is done, which takes two seconds: of 5 ms each, on a machine that does not stand still."""
        beats = []
        for _ in range(5):
            driver.ask("beats")
            do()
            beats.append(int(driver.ask("beats")))
            if beats[-1] >= 20:
                return
        self.fail(f"the loop had so many turns in two seconds: {beats}")
