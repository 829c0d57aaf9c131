"""What the limits of the configuration limit, where no other test has it for its subject."""

import os

from harness import WITHHELD, Case, Daemon, FakeService, echo, eventually, get, put, scene


def subscribe(message_id, **members):
    return {"op": "subscribe", "messageId": message_id} | members


class Subscriptions(Case):
    def assert_full(self, client, **members):
        self.assert_error(client.ask(subscribe("full", **members)), 503, "queue_full", "no", "full")
        client.barrier()

    @scene(max_client_subscriptions=2)
    def test_of_a_client(self, service, daemon, client):
        client.subscribe(keys=["a", "b"])
        self.assert_full(client, key="c")
        with daemon.client() as other:
            other.subscribe(keys=["c", "d"])
        client.unsubscribe(key="a")
        client.subscribe(key="c")
        self.assert_full(client, key="a")
        self.assertTrue(daemon.reload(max_client_subscriptions=3))
        client.subscribe(key="a")

    @scene(max_subscriptions=3)
    def test_of_all(self, service, daemon, client):
        client.subscribe(keys=["a", "b"])
        with daemon.client() as other:
            other.subscribe(key="a")
            self.assert_full(other, key="b")
        daemon.wait_status(lambda s: s["subscriptions"]["total"] == 2, "the other one has left")
        client.subscribe(key="c")
        self.assert_full(client, key="d")

    @scene(max_topics=2)
    def test_of_different_keys(self, service, daemon, client):
        client.subscribe(key="a", pattern="b*")
        with daemon.client() as other:
            other.subscribe(key="a", pattern="b*")
            self.assert_full(other, key="c")
        self.assert_full(client, pattern="c*")

    @scene(subscription_memory="64K", max_line="4K")
    def test_of_their_memory(self, service, daemon, client):
        client.send(*(subscribe(n, key=f"{n}:" + "k" * 2000) for n in range(40)))
        refused = [a for a in client.answers(40) if a["code"] != 200]
        for answer in refused:
            self.assert_error(answer, 503, "queue_full", "no", answer["messageId"])
        self.assertTrue(5 < len(refused) < 30, len(refused))


class Requests(Case):
    def test_that_wait_of_all_clients(self):
        with FakeService() as service:
            service.stop_listening()
            with Daemon(service, max_line="1K", max_queued="64K", request_timeout="10m") as daemon:
                clients = []
                while daemon.stats()["requests_queue_full"] == 0:
                    clients.append(daemon.client())
                    clients[-1].send(put("k", "x" * 900))
                    self.assertLess(len(clients), 200)
                self.assertGreater(len(clients), 30)
                service.listen()
                self.assertEqual([200] * (len(clients) - 1) + [503], [client.answer()["code"] for client in clients])
                for client in clients:
                    client.close()

    @scene(service=WITHHELD, max_in_flight=1, max_line="1K", max_client_queued="4K")
    def test_that_wait_of_a_client(self, service, daemon, client):
        """It is not read any further, and not refused anything."""
        client.send(*(put("k", "x" * 900, n) for n in range(100)))
        client.barrier_by(daemon)
        self.assertTrue(1 < daemon.status()["upstream"]["queued"] < 8)
        service.answer = echo
        service.next_request().reply()
        self.assertEqual([(n, 200) for n in range(100)], [(a["messageId"], a["code"]) for a in client.answers(100)])

    @scene(access={"all": {"user": os.geteuid(), "token": "any"}}, service={"mint": lambda request: "never"},
           max_token_requests=20)
    def test_for_tokens(self, service, daemon, client):
        client.send(*({"op": "token", "messageId": n} for n in range(3)))
        self.assert_error(client.answer(), 503, "queue_full", "no", 2) # a sixteenth of 20, rounded up
        others = [daemon.client() for _ in range(10)]
        for other in others:
            other.send(*({"op": "token", "messageId": n} for n in range(2)))
        eventually(lambda: daemon.stats()["requests_queue_full"] == 3, "the last of them are refused")
        for other in others:
            other.close()


class Service(Case):
    @scene(service=WITHHELD, max_message="64K")
    def test_a_message(self, service, daemon, client):
        client.send(get("k", 1))
        service.next_request().reply(key="k", value="x" * 60000)
        self.assertEqual(200, client.answer()["code"])
        client.send(get("k", 2))
        service.next_request().reply(key="k", value="x" * 70000)
        self.assert_error(client.answer(), 502, "bad_upstream", "unknown", 2)

    @scene(keepalive="1m", max_held="1M")
    def test_what_is_held_while_a_connection_is_replaced(self, service, daemon, client):
        """The new one is given up, and the old one goes on."""
        client.subscribe(key="s")
        old = service.connection(2)
        old.pong, old.late_changes.ms = False, 3_600_000
        with daemon.client() as other:
            other.send(subscribe(1, key="x"))
            new = service.connection(3)
            for _ in range(10):
                service.publish("s", "x" * 60000)
            client.barrier()
            self.assertTrue(new.open)
            for _ in range(10):
                service.publish("s", "x" * 60000)
            new.wait_gone()
            self.assertTrue(old.open)
            client.barrier()
