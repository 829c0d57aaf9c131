"""hpkv ready --tokens: until subscriptions work."""

import os
import re

from cli import FakeDaemon, Run, hpkv
from harness import DEADLINE, Case, Daemon, FakeService, Sandbox, eventually

PATIENT = ("--timeout", f"{DEADLINE}s")


class Tokens(Case):
    def test_it_subscribes_for_a_moment(self):
        with FakeService() as service, Daemon(service) as daemon:
            self.assertEqual((0, b"", b""), hpkv(daemon, "ready", "--tokens", *PATIENT))
            self.assertIn("hpkv-ready", service.token_requests[0].list)
            status = daemon.wait_status(lambda s: s["subscriptions"]["total"] == 0, "its subscription has ended")
            self.assertEqual("connected", status["upstream"]["state"])

    def test_with_the_sandbox(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon:
            self.assertEqual((0, b"", b""), hpkv(daemon, "ready", "--tokens", *PATIENT))
            self.assertEqual((0, b"", b""), hpkv(daemon, "ready", "--tokens", "my:key", *PATIENT))

    def test_without_it_a_connection_is_enough(self):
        with FakeService(mint=lambda request: (503, {}, b"")) as service, Daemon(service) as daemon:
            self.assertEqual((0, b"", b""), hpkv(daemon, "ready", *PATIENT))
            self.assertEqual([], service.token_requests)

    def test_it_waits_for_a_token(self):
        for refusal in (503, 401): # the daemon answers only the latter at once
            refused = []

            def mint(request, refusal=refusal, refused=refused):
                if len(refused) < 3:
                    refused.append(request)
                    return (refusal, {}, b"")
                return f"token-{request.number}"

            with self.subTest(refusal), FakeService(mint=mint) as service, Daemon(service) as daemon:
                daemon.wait_state("connected")
                self.assertEqual((0, b"", b""), hpkv(daemon, "ready", "--tokens", *PATIENT))
                self.assertEqual(3, len(refused))

    def test_there_is_none_in_time(self):
        for answer, said in (((503, {}, b""), "503"), ((401, {}, b""), "401"), ("never", "")):
            with self.subTest(said), FakeService(mint=lambda request, answer=answer: answer) as service, Daemon(service) as daemon:
                daemon.wait_state("connected")
                reason = rf"\Ahpkv: ready: no subscription within the time: [^\n]*{said}[^\n]*\n\Z"

                def told():
                    status, out, err = hpkv(daemon, "ready", "--tokens", "--timeout", "1s")
                    self.assertEqual((5, b""), (status, out), err)
                    return re.match(reason, err.decode())

                eventually(told, reason) # a service that stands still for a second has not refused yet

    def test_a_connection_with_a_token_proves_it(self):
        with FakeDaemon() as daemon, Run(daemon, "ready", "--tokens", "--json") as run:
            peer = daemon.accept()
            peer.reply(peer.line(), upstream={"state": "connected", "auth": "token", "tokenError": None})
            self.assertEqual(0, run.wait())
            self.assertIn(b'"auth": "token"', run.output)

    def test_one_that_can_not_be_renewed_does_not(self):
        for words, upstream in (((), {"tokenError": "no token: 503"}), (("my:key",), {"tokenError": None})):
            with FakeDaemon() as daemon, Run(daemon, "ready", "--tokens", *words, "--json") as run:
                peer = daemon.accept()
                peer.reply(peer.line(), upstream={"state": "connected", "auth": "token"} | upstream)
                request = peer.line()
                self.assertEqual(("subscribe", [*words] or ["hpkv-ready"]), (request["op"], request["keys"]))
                peer.reply(request)
                request = peer.line()
                self.assertEqual(("unsubscribe", [*words] or ["hpkv-ready"]), (request["op"], request["keys"]))
                peer.reply(request)
                self.assertEqual(0, run.wait())
                self.assertEqual(1, run.output.count(b"\n"))

    def test_a_key_that_may_not_be_read(self):
        with Sandbox() as sandbox, Daemon(sandbox, access={"me": {"user": str(os.getuid()), "read": "mine:*"}}) as daemon:
            daemon.wait_state("connected")
            status, out, err = hpkv(daemon, "ready", "--tokens", *PATIENT)
            self.assertEqual((3, b""), (status, out))
            self.assertRegex(err.decode(), r"\Ahpkv: ready: the access rules forbid to watch hpkv-ready, [^\n]+ready --tokens KEY\n\Z")
            self.assertEqual((0, b"", b""), hpkv(daemon, "ready", "--tokens", "mine:x", *PATIENT))

    def test_a_daemon_that_goes_meanwhile_may_come_back(self):
        with FakeDaemon() as daemon, Run(daemon, "ready", "--tokens", *PATIENT) as run:
            peer = daemon.accept()
            peer.reply(peer.line(), upstream={"state": "connected", "auth": "apiKey"})
            peer.line()
            daemon.stop()
            daemon.listen()
            peer = daemon.accept()
            for op in ("subscribe", "unsubscribe"): # the library has asked again
                request = peer.line()
                self.assertEqual(op, request["op"])
                peer.reply(request)
            self.assertEqual(0, run.wait())

    def test_a_key_is_for_tokens(self):
        self.assertEqual((2, b"", b"hpkv: ready: KEY needs --tokens; see hpkv ready --help\n"), hpkv("/nonexistent", "ready", "k"))
