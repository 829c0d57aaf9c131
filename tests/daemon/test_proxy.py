"""HTTPS_PROXY and NO_PROXY: the way to the service through an HTTP proxy."""

import socket
import threading

from harness import Case, Daemon, FakeService, free_port


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass # the other direction ends as well


class ConnectProxy:
    """Joins whoever asks with a port of this machine, and remembers what it was asked for."""

    def __init__(self):
        self.asked = []
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
        port = int(self.asked[-1].split()[1].rpartition(":")[2])
        service = socket.create_connection(("127.0.0.1", port))
        self.open.append(service)
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        threading.Thread(target=pump, args=(service, sock), daemon=True).start()
        pump(sock, service)


class Proxy(Case):
    def test_the_service_is_reached_through_it_by_name(self):
        # Nobody but the proxy knows where hpkv.test is.
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
