"""HTTPS_PROXY and NO_PROXY: the way to the service through an HTTP proxy."""

import base64
import os
import re
import socket
import threading
import time

from harness import Case, Daemon, FakeService, eventually, free_port


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass # the other direction ends as well


class ConnectProxy:
    """Joins its clients with a port of this machine, and records their requests.

    login   who may pass: "user:password"; None: everybody
    answer  what it says in place of joining
    slowly  byte by byte"""

    def __init__(self, login=None, answer=None, slowly=False):
        self.asked, self.refused = [], 0
        self.login, self.answer, self.slowly = login, answer, slowly
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.open = [self.listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *ignored):
        for sock in self.open:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()

    def _accept(self):
        while True:
            try:
                sock = self.listener.accept()[0]
            except OSError:
                return
            self.open.append(sock)
            threading.Thread(target=self._join, args=(sock,), daemon=True).start()

    def _join(self, sock):
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(4096)
        self.asked.append(head.split(b"\r\n")[0].decode())
        said = re.search(rb"^Proxy-Authorization: Basic (\S+)\r$", head, re.M | re.I)
        if self.answer or self.login and (not said or base64.b64decode(said.group(1)).decode() != self.login):
            self.refused += 1
            sock.sendall(self.answer or b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\n\r\n")
            return
        port = int(self.asked[-1].split()[1].rpartition(":")[2])
        service = socket.create_connection(("127.0.0.1", port))
        self.open.append(service)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answer = b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n"
        for byte in answer if self.slowly else ():
            sock.sendall(bytes([byte]))
            time.sleep(0.002)
        if not self.slowly:
            sock.sendall(answer)
        threading.Thread(target=pump, args=(service, sock), daemon=True).start()
        pump(sock, service)


class Proxy(Case):
    def test_the_service_is_reached_through_it_by_name(self):
        # Only the proxy knows the address of hpkv.test.
        with ConnectProxy() as proxy, FakeService(name="hpkv.test") as service:
            with Daemon(service, env={"HTTPS_PROXY": proxy.url}) as daemon, daemon.client() as client:
                self.assertEqual(200, client.ask({"op": "get", "key": "k"})["code"])
                self.assertEqual(f"CONNECT hpkv.test:{service.port} HTTP/1.1", proxy.asked[0])

    def test_the_services_certificate_is_checked_through_it(self):
        with ConnectProxy() as proxy, FakeService(name="hpkv.test", cert="wrong") as service:
            with Daemon(service, env={"https_proxy": proxy.url}) as daemon:
                status = daemon.wait_status(lambda s: s["upstream"]["lastError"])
                self.assertIn("certificate", status["upstream"]["lastError"])
                self.assertEqual(0, status["upstream"]["reconnects"])

    def test_a_proxy_that_is_not_there_is_named_as_the_cause(self):
        port = free_port()
        with FakeService(name="hpkv.test") as service:
            with Daemon(service, env={"HTTPS_PROXY": f"http://127.0.0.1:{port}"}) as daemon:
                status = daemon.wait_status(lambda s: s["upstream"]["lastError"])
                self.assertIn(f"127.0.0.1 port {port}: Connection refused", status["upstream"]["lastError"])

    def test_it_is_not_used_for_this_machine(self):
        with ConnectProxy() as proxy, FakeService() as service:
            with Daemon(service, env={"HTTPS_PROXY": proxy.url}) as daemon, daemon.client() as client:
                self.assertEqual(200, client.ask({"op": "get", "key": "k"})["code"])
                self.assertEqual([], proxy.asked)

    def test_one_with_a_password_is_a_wrong_configuration_that_does_not_repeat_it(self):
        with FakeService(name="hpkv.test") as service:
            daemon = Daemon(service, env={"HTTPS_PROXY": "http://me:sesame@127.0.0.1:3128"}, wait=False)
            try:
                daemon.start()
                self.assertEqual(78, daemon.process.wait_exit())
                self.assertIn(b"HTTPS_PROXY", daemon.log())
                self.assertNotIn(b"sesame", daemon.log())
            finally:
                daemon._clean_up(False)

    def test_its_answer_may_come_in_pieces(self):
        """For the connection and for the tokens."""
        with ConnectProxy(slowly=True) as proxy, FakeService(name="hpkv.test") as service:
            with Daemon(service, env={"HTTPS_PROXY": proxy.url}) as daemon, daemon.client() as client:
                self.assertEqual(200, client.ask({"op": "get", "key": "k"})["code"])
                self.assertEqual(200, client.ask({"op": "subscribe", "keys": ["k"]})["code"])

    def test_what_it_answers_is_told(self):
        for answer, told in ((b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9999\r\n\r\n<html>", "the proxy answered 403 (Forbidden)"),
                             (b"HTTP/1.1 502 Bad \"Gateway\"\x1b[1m\r\n\r\n", "the proxy answered 502 (Bad \"Gateway\"?[1m)"),
                             (b"HTTP/1.1 407 No\r\n\r\n", "the proxy answered 407 (No): it wants credentials, see proxy_credentials_file")):
            with self.subTest(answer=answer), ConnectProxy(answer=answer) as proxy, FakeService(name="hpkv.test") as service:
                with Daemon(service, env={"HTTPS_PROXY": proxy.url}) as daemon:
                    status = daemon.wait_status(lambda s: s["upstream"]["lastError"])
                    self.assertTrue(status["upstream"]["lastError"].endswith(told), status)
                    eventually(lambda d=daemon: told.encode() in d.log(), "in the log")
                    self.assertEqual("backoff" if status["upstream"]["state"] == "backoff" else "connecting", status["upstream"]["state"])

    def test_tokens_fail_in_the_same_words(self):
        """The connection is there, without a token; then the proxy refuses."""
        with ConnectProxy() as proxy, FakeService(name="hpkv.test") as service:
            with Daemon(service, env={"HTTPS_PROXY": proxy.url}) as daemon, daemon.client() as client:
                self.assertEqual(200, client.ask({"op": "get", "key": "k"})["code"])
                proxy.answer = b"HTTP/1.1 403 Forbidden\r\n\r\n"
                client.send({"op": "subscribe", "keys": ["k"]})
                eventually(lambda: b"the proxy answered 403 (Forbidden)" in daemon.log(), "in the log")

    def test_credentials_from_a_file(self):
        with ConnectProxy(login="me:open sesame:x") as proxy, FakeService(name="hpkv.test") as service:
            daemon = Daemon(service, env={"HTTPS_PROXY": proxy.url}, proxy_credentials_file="login")
            daemon._write_file("login", "me:open sesame:x\n")
            with daemon, daemon.client() as client:
                self.assertEqual(200, client.ask({"op": "get", "key": "k"})["code"])
                self.assertEqual(200, client.ask({"op": "subscribe", "keys": ["k"]})["code"])
                self.assertEqual(0, proxy.refused)
                self.assertNotIn(b"sesame", daemon.log())

    def test_credentials_are_read_again(self):
        with ConnectProxy(login="me:sesame") as proxy, FakeService(name="hpkv.test") as service:
            daemon = Daemon(service, env={"HTTPS_PROXY": proxy.url}, proxy_credentials_file="login")
            daemon._write_file("login", "me:wrong")
            with daemon, daemon.client() as client:
                status = daemon.wait_status(lambda s: s["upstream"]["lastError"])
                self.assertIn("407 (Proxy Authentication Required): it does not take our credentials", status["upstream"]["lastError"])
                daemon._write_file("login", "me:sesame")
                daemon.hang_up()
                self.assertIn(b"[upstream] proxy_credentials_file", daemon.log())
                self.assertEqual(200, client.ask({"op": "get", "key": "k"})["code"])
                self.assertNotIn(b"sesame", daemon.log())

    def test_files_that_hold_no_credentials(self):
        with FakeService(name="hpkv.test") as service:
            for text, mode, why in (("", 0o600, b"is empty"), ("sesame", 0o600, b"does not hold user:password"), (":sesame", 0o600, b"does not hold"),
                                    ("a:sesame\nb:c", 0o600, b"holds more than one line"), ("a:sesame", 0o644, b"can be used by others"),
                                    (None, None, b"does not exist")):
                with self.subTest(text=text):
                    daemon = Daemon(service, proxy_credentials_file="login", wait=False)
                    if text is not None:
                        daemon._write_file("login", text)
                        os.chmod(daemon.folder + "/login", mode)
                    try:
                        daemon.start()
                        self.assertEqual(78, daemon.process.wait_exit())
                        self.assertIn(why, daemon.log())
                        self.assertNotIn(b"sesame", daemon.log())
                    finally:
                        daemon._clean_up(False)

    def test_entries_of_no_proxy(self):
        with ConnectProxy() as proxy, FakeService(name="hpkv.test") as service:
            for entry, used in (("hpkv.test:1", True), (f"*.test:{service.port}", False)):
                proxy.asked.clear()
                with self.subTest(entry=entry), Daemon(service, env={"HTTPS_PROXY": proxy.url, "NO_PROXY": entry},
                                                       hosts="127.0.0.1 hpkv.test\n") as daemon, daemon.client() as client:
                    self.assertEqual(200, client.ask({"op": "get", "key": "k"})["code"])
                    self.assertEqual(used, bool(proxy.asked))

    def test_an_entry_that_means_nothing(self):
        with ConnectProxy() as proxy, FakeService(name="hpkv.test") as service:
            with Daemon(service, env={"HTTPS_PROXY": proxy.url, "NO_PROXY": "a.example,ex*mple"}) as daemon:
                eventually(lambda: b'the entry "ex*mple" of NO_PROXY has no effect' in daemon.log(), "a warning")
