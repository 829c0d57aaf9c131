"""The command line, and how the sandbox starts and ends."""

import os
import re
import signal
import socket
import subprocess
import tempfile
import unittest

from sandbox import BINARY, GET, SET, Sandbox, certificates


def run(*arguments):
    return subprocess.run([BINARY, *arguments], capture_output=True, text=True, timeout=30)


class Usage(unittest.TestCase):
    def test_help_and_version(self):
        result = run("--help")
        self.assertEqual((0, ""), (result.returncode, result.stderr))
        for option in "port", "tls-cert", "tls-key", "api-key", "rate", "token-ttl", "delay-ms", "max-message", "help", "version":
            self.assertIn(f"--{option}", result.stdout)
        result = run("--version")
        self.assertEqual(0, result.returncode)
        self.assertRegex(result.stdout, r"^hpkv-sandbox \d+\.\d+\.\d+\n$")

    def test_wrong_usage(self):
        for arguments, word in [
            (["--port", "x"], "port"), (["--port", "65536"], "port"), (["--port", "-1"], "port"), (["--port", "1.5"], "port"),
            (["--port"], "port"), (["--nonsense"], "nonsense"), (["word"], "word"), (["--api-key", ""], "api-key"),
            (["--rate", "-1"], "rate"), (["--rate", "nan"], "rate"), (["--rate", "1x"], "rate"), (["--token-ttl", "0"], "token-ttl"),
            (["--token-ttl", ""], "token-ttl"), (["--delay-ms", "-1"], "delay-ms"), (["--max-message", "127"], "max-message"),
            (["--max-message", "1K"], "max-message"), (["--tls-cert", "x"], "tls-key"),
            (["--tls-key", "x"], "tls-cert"), (["--api-key", "a"] * 9, "api-key"),
        ]:
            with self.subTest(arguments=arguments):
                result = run(*arguments)
                self.assertEqual((2, ""), (result.returncode, result.stdout))
                self.assertIn(word, result.stderr)

    def test_files_that_are_no_certificate(self):
        with tempfile.NamedTemporaryFile() as empty:
            for cert, key in [("/nonexistent", "/nonexistent"), (empty.name, empty.name),
                              (f"{certificates()}/server.pem", f"{certificates()}/wrong.key")]:
                result = run("--port", "0", "--tls-cert", cert, "--tls-key", key)
                self.assertEqual((1, ""), (result.returncode, result.stdout))
                self.assertIn("hpkv-sandbox: ", result.stderr)


class Life(unittest.TestCase):
    def start(self, *arguments, **options):
        sandbox = Sandbox(*arguments, **options)
        self.addCleanup(sandbox.stop)
        return sandbox

    def test_one_line_when_ready(self):
        sandbox = self.start()
        self.assertRegex(sandbox.url, r"^https://localhost:\d+$")
        self.assertEqual(404, sandbox.rest("GET", "/record/none")[0])

    def test_without_tls(self):
        sandbox = self.start(tls=False)
        self.assertRegex(sandbox.url, r"^http://localhost:\d+$")
        self.assertEqual(404, sandbox.rest("GET", "/record/none")[0])
        hpkv = sandbox.ws()
        self.addCleanup(hpkv.close)
        self.assertEqual(200, hpkv.ask(op=SET, key="a", value="b")["code"])

    def test_signals_end_it_with_0(self):
        for number in signal.SIGTERM, signal.SIGINT:
            sandbox = self.start()
            hpkv = sandbox.ws()
            self.addCleanup(hpkv.close)
            hpkv.ask(op=GET, key="none")
            sandbox.process.send_signal(number)
            self.assertEqual(0, sandbox.stop())

    def test_only_the_loopback_addresses_are_listened_on(self):
        sandbox = self.start()
        port = f":{sandbox.port:04X}"
        listening = set()
        for table in "tcp", "tcp6":
            if os.path.exists(f"/proc/net/{table}"):
                with open(f"/proc/net/{table}", encoding="ascii") as lines:
                    rows = [line.split() for line in lines]
                listening |= {row[1] for row in rows if row[1].endswith(port) and row[3] == "0A"}
        loopback = {"0100007F" + port, "0" * 24 + "01000000" + port}
        self.assertIn("0100007F" + port, listening)
        self.assertLessEqual(listening, loopback)

    def test_ipv6_where_the_machine_has_it(self):
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            self.skipTest("no IPv6 here")
        sandbox = self.start()
        sandbox.connect("::1").close()

    def test_a_port_in_use(self):
        sandbox = self.start()
        result = run("--port", str(sandbox.port))
        self.assertEqual((1, ""), (result.returncode, result.stdout))
        self.assertTrue(re.search(rf"port {sandbox.port} .*in use", result.stderr), result.stderr)

    def test_a_port_can_be_had_again_at_once(self):
        sandbox = self.start()
        hpkv = sandbox.ws()
        self.addCleanup(hpkv.close)
        self.assertEqual(0, sandbox.stop())
        folder = certificates()
        again = subprocess.Popen([BINARY, "--port", str(sandbox.port), "--tls-cert", f"{folder}/server.pem", "--tls-key",
                                  f"{folder}/server.key"], stdout=subprocess.PIPE, text=True)
        try:
            self.assertEqual(f"listening on {sandbox.url}\n", again.stdout.readline())
        finally:
            again.terminate()
            again.wait(30)
            again.stdout.close()


if __name__ == "__main__":
    unittest.main()
