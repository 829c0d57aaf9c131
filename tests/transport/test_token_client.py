"""The token room against an HTTP server that answers as the case wants."""

import json
import os
import shutil
import ssl
import tempfile
import threading
import time
import unittest
from email.utils import formatdate

from transport import EdgeTest, certs, dead_port, eventually, read_request, recv_exactly, stay


def read_post(connection):
    """(head, body) of a request with a Content-Length."""
    head = read_request(connection)
    length = next((int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length:")), 0)
    return head, recv_exactly(connection, length)


def answer(status=200, body='{"token":"t.o-k_en"}', extra=""):
    body = body.encode() if isinstance(body, str) else body
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body


class TokenTest(EdgeTest):
    def replying(self, reply, seen=None, **options):
        def handler(connection):
            post = read_post(connection)
            if seen is not None:
                seen.append(post)
            connection.sendall(reply)
            stay(connection)

        return self.serve(handler, **options)

    def client(self, server, *options, host="localhost", port=None, env=None):
        how = ["--plain"] if server and not server.tls else []
        return self.drive("token-client-driver", *how, *options, host, port or server.port, env=env)

    def mint(self, server, *options, **more):
        """How a request ends, as status, retry, token, why."""
        driver = self.client(server, *([] if "--ca" in options else ["--ca", certs("ca.pem")]), *options, **more)
        driver.tell('mint a hush-key "^a" ["a:*"]')
        line = driver.wait("done")
        self.assertNotIn("hush", line.replace("token=", "") + "\n".join(driver.log))
        fields = dict(part.split("=", 1) for part in line.split(" why=")[0].split()[1:])
        return fields["token"], int(fields["status"]), int(fields["retry"]), line.split(" why=")[1]


class Asking(TokenTest):
    def test_token(self):
        for tls in (True, False):
            with self.subTest(tls=tls):
                seen = []
                server = self.replying(answer(), seen, tls=tls)
                self.assertEqual(self.mint(server), ("t.o-k_en", 200, -1, "-"))
                head, body = seen[0]
                lines = head.split("\r\n")
                self.assertEqual(lines[0], "POST /token/websocket HTTP/1.1")
                self.assertIn("x-api-key: hush-key", lines)
                self.assertIn("Content-Type: application/json", lines)
                self.assertIn(f"Host: localhost:{server.port}", lines)
                self.assertEqual(json.loads(body), {"subscribeKeys": ["a:*"], "subscribePatterns": ["a:*"], "accessPattern": "^a"})

    def test_tls_versions(self):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            self.assertEqual(self.mint(self.replying(answer(), tls_version=version))[1], 200)

    def test_list_byte_for_byte(self):
        seen = []
        driver = self.client(self.replying(answer(), seen), "--ca", certs("ca.pem"))
        keys = r'["\u00e9\ud83d\ude00","a\u0000b","\/","' + "k" * 3000 + '"]'
        driver.tell(f"mint a key - {keys}")
        driver.wait("done")
        self.assertEqual(seen[0][1].decode(), f'{{"subscribeKeys":{keys},"subscribePatterns":{keys}}}')
        self.assertNotIn("expect", seen[0][0].lower())

    def test_second_address(self):
        """localhost is two addresses, and only the second listens."""
        self.assertEqual(self.mint(self.replying(answer(), address="::1"))[1], 200)

    def test_numeric_hosts(self):
        self.assertEqual(self.mint(self.replying(answer()), host="127.0.0.1")[1], 200)
        self.assertEqual(self.mint(self.replying(answer(), address="::1"), host="::1")[1], 200)

    def test_many_at_once(self):
        driver = self.client(self.replying(answer()), "--ca", certs("ca.pem"))
        driver.tell(*(f"mint n{i} key - []" for i in range(16)))
        self.assertEqual({driver.wait("done").split()[0] for _ in range(16)}, {f"n{i}" for i in range(16)})

    def test_environments_proxy_is_ignored(self):
        env = {name: f"http://127.0.0.1:{dead_port()}" for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy")}
        self.assertEqual(self.mint(self.replying(answer()), env=env)[1], 200)

    def test_no_thread(self):
        driver = self.client(self.replying(b""), "--ca", certs("ca.pem"))
        driver.tell("mint a key - []")
        driver.ask("beats")
        self.assertEqual(len(os.listdir(f"/proc/{driver.process.pid}/task")), 1)


class Answers(TokenTest):
    def test_refusals(self):
        for status in (302, 400, 401, 403, 404, 429, 500, 503):
            with self.subTest(status=status):
                server = self.replying(answer(status, '{"error":"no"}', "Location: /x\r\n"))
                self.assertEqual(self.mint(server), ("-", status, -1, f"the token request was answered with HTTP status {status}"))

    def test_retry_after(self):
        for text, least, most in (("7", 7, 7), ("999999", 3600, 86400), ("soon", -1, -1), ("-5", -1, -1),
                                  (formatdate(time.time() + 100, usegmt=True), 90, 100),
                                  (formatdate(time.time() - 100, usegmt=True), -1, -1)):  # newer libcurls have their own limit
            server = self.replying(answer(429, "", f"Retry-After: {text}\r\n"))
            _, status, seconds, _ = self.mint(server)
            self.assertEqual(status, 429)
            self.assertTrue(least <= seconds <= most, seconds)

    def test_answers_without_a_token(self):
        for body in ("", "{", "[]", "null", '"token"', "{}", '{"token":""}', '{"token":null}', '{"token":7}', '{"Token":"x"}',
                     '{"token":"a b"}', '{"token":"a\\r\\nb"}', '{"token":"\u00e9"}', "[" * 5000, b"\xff\xfe\0", '{"token":"x'):
            with self.subTest(body=body[:20]):
                self.assertEqual(self.mint(self.replying(answer(200, body))),
                                 ("-", 200, -1, "the answer to the token request contains no usable token"))

    def test_long_token(self):
        self.assertEqual(self.mint(self.replying(answer(200, json.dumps({"token": "t" * 10000}))))[0], "t" * 10000)

    def test_too_long_answer(self):
        self.assertEqual(self.mint(self.replying(answer(200, " " * 300000)))[3],
                         "the token request failed: the answer is too long")

    def test_too_many_headers(self):
        headers = "".join(f"X-{i}: {'y' * 100}\r\n" for i in range(900))
        self.assertEqual(self.mint(self.replying(answer(200, extra=headers))), ("-", 0, -1, "the token request failed: the answer is too long"))
        headers = "".join(f"X-{i}: {'y' * 100}\r\n" for i in range(50))
        self.assertEqual(self.mint(self.replying(answer(200, extra=headers)))[0], "t.o-k_en")

    def test_chunked(self):
        reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{\"token\":\r\n6\r\n\"abcd\"\r\n1\r\n}\r\n0\r\n\r\n"
        self.assertEqual(self.mint(self.replying(reply))[0], "abcd")

    def test_ends_early(self):
        for reply in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", b"garbage\r\n\r\n", b"HTTP/1.1 2"):
            with self.subTest(reply=reply[:30]):
                server = self.serve(lambda c, r=reply: (read_post(c), c.sendall(r)))
                token, _, _, why = self.mint(server)
                self.assertEqual(token, "-")
                self.assertRegex(why, "^the token request failed: ")


class Failures(TokenTest):
    def test_certificates(self):
        for cert, ca, host, why in (("expired", "ca.pem", "localhost", "certificate has expired"),
                                    ("wrong", "ca.pem", "localhost", "hostname mismatch"),
                                    ("server", "ca.pem", "127.0.0.2", "hostname mismatch"),
                                    ("server", "other-ca.pem", "localhost", "unable to get local issuer certificate")):
            with self.subTest(cert=cert, ca=ca, host=host):
                server = self.serve(stay, cert=cert, address="0.0.0.0")
                token, status, retry, said = self.mint(server, "--ca", certs(ca), host=host)
                self.assertEqual((token, status, retry), ("-", 0, -1))
                self.assertIn(f"port {server.port}: the server's certificate is refused: {why}", said)

    def test_certificates_without_the_systems_authorities(self):
        """OpenSSL's own complaint about the folder of authorities does not hide why a certificate is refused."""
        for folder in (certs("server.key"), "/dev/null", "/nonexistent", "nonsense:", os.path.dirname(certs("ca.pem"))):
            with self.subTest(folder=folder):
                server = self.serve(stay, cert="server")
                said = self.mint(server, "--ca", certs("other-ca.pem"), env={"SSL_CERT_DIR": folder, "SSL_CERT_FILE": "/nonexistent"})[3]
                self.assertIn("the server's certificate is refused: unable to get local issuer certificate", said)

    def test_ca_file_that_is_none(self):
        self.assertEqual(self.mint(self.replying(answer()), "--ca", "/nonexistent")[3], "there is no such file")

    def test_ca_file_that_is_none_for_a_while(self):
        with tempfile.TemporaryDirectory() as folder:
            ca = os.path.join(folder, "ca.pem")
            driver = self.client(self.replying(answer()), "--ca", ca)
            driver.tell("mint a key - []")
            self.assertIn("why=there is no such file", driver.wait("done"))
            shutil.copy(certs("ca.pem"), ca)
            driver.tell("mint a key - []")
            self.assertIn("token=t.o-k_en", driver.wait("done"))

    def test_refused(self):
        port = dead_port()
        self.assertEqual(self.mint(None, port=port, host="127.0.0.1")[3],
                         f"the token request failed: 127.0.0.1 port {port}: Connection refused")

    def test_unknown_name(self):
        self.assertRegex(self.mint(None, "--timeout", "500", host="no..name", port=1)[3], r"^the token request failed: no\.\.name: ")

    def test_silence(self):
        """At each stage: it costs the request its time, and the loop nothing."""
        for handler, tls in ((stay, False), (lambda c: (read_post(c), stay(c)), True)):
            server = self.serve(handler, tls=tls)
            driver = self.drive("token-client-driver", "--ca", certs("ca.pem"), "--timeout", "2000", "localhost", server.port)

            def mint(driver=driver):
                driver.tell("mint a key - []")
                self.assertRegex(driver.wait("done"), "why=the token request failed: .*timed out")

            self.assert_turns(driver, mint)

    def test_key_that_is_none(self):
        driver = self.client(self.replying(answer()), "--ca", certs("ca.pem"))
        driver.tell("mint a k\tey - []", "mint b \u00e9 - []", "mint c  - []")
        for _ in range(3):
            self.assertIn("why=the API key contains characters that can't be sent", driver.wait("done"))


class Ending(TokenTest):
    """Requests and minters end anywhere, without another call; nothing leaks (the sanitizers look)."""

    def silent(self):
        reached = threading.Semaphore(0)

        def handler(connection):
            read_post(connection)
            reached.release()
            stay(connection)

        return self.serve(handler), reached

    def test_cancel_at_once(self):
        driver = self.client(self.silent()[0], "--ca", certs("ca.pem"))
        driver.tell("mint a key - []\ncancel a")
        driver.wait("cancelled")
        driver.ask("beats")

    def test_cancel_under_way(self):
        server, reached = self.silent()
        driver = self.client(server, "--ca", certs("ca.pem"))
        driver.tell("mint a key - []")
        reached.acquire(timeout=30)
        driver.tell("cancel a")
        driver.wait("cancelled")
        driver.ask("beats")

    def test_cancel_from_within(self):
        driver = self.client(self.replying(answer()), "--ca", certs("ca.pem"))
        driver.tell("when done cancel a", "when done cancel b", "when done mint c key - []", "mint a key - []\nmint b key - []")
        first = driver.wait("done").split()[0]
        self.assertEqual([driver.wait("cancelled"), driver.wait("cancelled")], ["a", "b"])  # itself, too
        self.assertIn(first, "ab")
        self.assertEqual(driver.wait("done").split()[0], "c")

    def test_forget_under_way(self):
        server, reached = self.silent()
        driver = self.client(server, "--ca", certs("ca.pem"))
        driver.tell("mint a key - []", "mint b key - []")
        reached.acquire(timeout=30)
        driver.tell("mint c key - []\nforget")
        driver.wait("forgotten")
        driver.ask("beats")

    def test_forget_from_within(self):
        driver = self.client(self.replying(answer()), "--ca", certs("ca.pem"))
        driver.tell("when done forget", "mint a key - []\nmint b key - []")
        driver.wait("done")
        driver.wait("forgotten")
        driver.ask("beats")

    def test_no_descriptor_is_left(self):
        driver = self.client(self.replying(answer()), "--ca", certs("ca.pem"))
        before = None
        for i in range(8):
            driver.tell(f"mint a{i} key - []", f"mint b{i} key - []\ncancel b{i}")
            self.assertEqual(driver.wait("cancelled"), f"b{i}")
            driver.wait("done")
            before = before or driver.descriptors()
        self.assertTrue(eventually(lambda: len(driver.descriptors()) <= len(before)), (before, driver.descriptors()))


class Proxy(TokenTest):
    def test_through_a_proxy(self):
        seen = []
        server = self.replying(answer(), tls=True)

        def proxy(connection):
            seen.append(read_request(connection))
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            inside = server.tls.wrap_socket(connection, server_side=True)
            seen.append(read_post(inside)[0])
            inside.sendall(answer())
            stay(inside)
            inside.close()

        front = self.serve(proxy, tls=False)
        self.assertEqual(self.mint(server, "--proxy", "localhost", front.port), ("t.o-k_en", 200, -1, "-"))
        self.assertTrue(seen[0].startswith(f"CONNECT localhost:{server.port} HTTP/1.1\r\n"))
        self.assertNotIn("hush", seen[0])
        self.assertIn("x-api-key: hush-key", seen[1])

    def test_proxy_that_refuses(self):
        front = self.serve(lambda c: (read_request(c), c.sendall(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n"), stay(c)), tls=False)
        token, status, _, why = self.mint(self.replying(answer()), "--proxy", "127.0.0.1", front.port)
        self.assertEqual((token, status), ("-", 0))
        self.assertIn("407", why)

    def test_proxy_that_closes_has_got_no_request(self):
        for tls in (True, False):
            with self.subTest(tls=tls):
                front = self.serve(lambda c: (read_request(c), c.close()), tls=False)
                why = self.mint(self.replying(answer(), tls=tls), "--proxy", "127.0.0.1", front.port)[3]
                # The address is named: it is one of those that were tried.
                self.assertIn(f"127.0.0.1 port {front.port}: the proxy closed the connection", why)


if __name__ == "__main__":
    unittest.main()
