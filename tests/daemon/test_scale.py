"""As many subscriptions as are promised: ten thousand of one key, a million in all, a hundred thousand different keys."""

import json

from harness import Case, Daemon, Sandbox, mebibytes, put, raise_descriptor_limit, sanitized

NAMES = 100 # in one request


def ask_all(clients, lists):
    """Each client subscribes to its lists of keys, all at once; the answers."""
    for client, names in zip(clients, lists):
        client.send(*({"op": "subscribe", "keys": keys, "messageId": n, "timeoutMs": 60000} for n, keys in enumerate(names)))
    return [answer for client, names in zip(clients, lists) for answer in client.answers(len(names))]


class Scale(Case):
    def subscribe(self, clients, lists):
        self.assertEqual({200}, {answer["code"] for answer in ask_all(clients, lists)})

    def test_ten_thousand_subscribers_of_one_key(self):
        n = 2000 if sanitized() else 10000
        raise_descriptor_limit(n + 200)
        with Sandbox() as sandbox, Daemon(sandbox, level="notice", max_clients=n + 10) as daemon, daemon.client() as writer:
            daemon.wait_state("connected")
            clients = [daemon.client() for _ in range(n)]
            self.subscribe(clients, [[["one"]]] * n)
            self.assertEqual(200, writer.ask(put("one", "v"))["code"])
            self.assertEqual({b"v"}, {json.loads(client.line())["value"].encode() for client in clients})
            self.assertEqual({"keys": 1, "patterns": 0, "total": n},
                             {name: daemon.status()["subscriptions"][name] for name in ("keys", "patterns", "total")})
            for client in clients:
                client.close()

    def test_a_million_subscriptions_and_a_hundred_thousand_keys(self):
        """The token has room for a few hundred strings: globs stand for the keys, and what they bring too much is dropped."""
        with Sandbox() as sandbox, Daemon(sandbox, level="notice", max_clients=2000) as daemon, daemon.client() as writer:
            daemon.wait_state("connected")
            few = [daemon.client() for _ in range(100)]
            self.subscribe(few, [[[f"user:{i * 1000 + j * NAMES + k}:profile" for k in range(NAMES)] for j in range(10)]
                                 for i in range(100)])
            many = [daemon.client() for _ in range(900)]
            for at in range(0, 900, 100):
                self.subscribe(many[at:at + 100], [[[f"user:{j * NAMES + k}:profile" for k in range(NAMES)]
                                                   for j in range(10)]] * 100)
            counts = daemon.status()["subscriptions"]
            self.assertEqual((100000, 1000000, 0), (counts["keys"], counts["total"], counts["leftOut"]))
            self.assertLess(daemon.process.resident_bytes(), mebibytes(512))
            for key in ("user:77777:profile", "user:77777:nothing", "user:5:profile"):
                self.assertEqual(200, writer.ask(put(key, key))["code"])
            self.assertEqual("user:77777:profile", few[77].answer()["value"])
            for client in (few[0], *many):
                self.assertEqual("user:5:profile", client.answer()["value"])
            for client in (*few, *many):
                client.close()
            daemon.wait_status(lambda s: s["subscriptions"]["total"] == 0, "no subscription")

    def test_patterns_that_go_on_behind_a_star_have_a_bound_of_their_own(self):
        """A change may have to be compared with each of them: 4,096 of a client. Others have as many of their own."""
        bound = 4096
        with Sandbox() as sandbox, Daemon(sandbox, level="notice") as daemon, daemon.client() as client, daemon.client() as other:
            daemon.wait_state("connected")
            client.subscribe(patterns=[f"p*:{n}" for n in range(bound)], keys=["k" * 100])
            for names in (["p*:one more"], ["p*:0", "p*:another"]):
                answer = client.ask({"op": "subscribe", "patterns": names})
                self.assert_error(answer, 503, "queue_full", "no")
                self.assertIn("too many patterns of one client that go on behind a *", answer["error"])
            client.subscribe(patterns=["p*:0", "q*"], keys=["a*b"])
            other.subscribe(patterns=[f"p*:{n}" for n in range(bound)])
            client.unsubscribe(pattern="p*:7")
            client.subscribe(pattern="p*:one more")
            self.assertEqual(2 * bound + 3, daemon.status()["subscriptions"]["total"])
            with daemon.client() as writer:
                self.assertEqual(200, writer.ask(put("p:4095", "v"))["code"])
            self.assertEqual(("p:4095", "v"), client.change())
