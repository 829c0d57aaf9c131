"""Each request is answered within its time, says whether it may have been executed, and frees its place."""

import time

from harness import WITHHELD, Case, Daemon, FakeService, free_port, get, put, scene


class Sent(Case):
    @scene(service=WITHHELD)
    def test_no_answer_in_time(self, service, daemon, client):
        for op in ({"op": "get"}, {"op": "set", "value": "v"}, {"op": "increment"}):
            client.send(op | {"key": "k", "timeoutMs": 300, "messageId": "m"})
            service.next_request()
            self.assert_error(client.answer(), 504, "timeout", "unknown", "m")
        self.assertEqual(3, daemon.stats()["requests_timeout"])

    @scene(service=WITHHELD, request_timeout="400ms")
    def test_the_default_is_request_timeout(self, service, daemon, client):
        self.assertEqual(400, daemon.status()["limits"]["requestTimeoutMs"])
        self.assert_error(client.ask(get("k")), 504, "timeout", "unknown")

    @scene(service=WITHHELD)
    def test_not_before_its_time(self, service, daemon, client):
        began = time.monotonic()
        client.ask(get("k", timeoutMs=300))
        self.assertGreaterEqual(time.monotonic() - began, 0.299)

    @scene(service=WITHHELD)
    def test_the_shorter_one_first_whatever_the_order(self, service, daemon, client):
        client.send(get("a", "long", timeoutMs=600000), get("b", "middle", timeoutMs=200),
                    get("c", "short", timeoutMs=20))
        self.assertEqual(["short", "middle"], [client.answer()["messageId"] for _ in range(2)])
        service.next_requests(3)[0].reply()
        self.assertEqual("long", client.answer()["messageId"])

    @scene(service=WITHHELD, max_in_flight=1)
    def test_its_place_is_free_again_and_a_late_answer_reaches_nobody(self, service, daemon, client):
        client.send(get("late", 1, timeoutMs=300), get("next", 2))
        late = service.next_request()
        self.assert_error(client.answer(), 504, "timeout", "unknown", 1)
        following = service.next_request() # it was given the place
        late.reply(value="late")
        late.reply(value="late again")
        service.connections[0].send_text('{"code":200,"messageId":0,"value":"of nobody"}')
        following.reply(value="right")
        self.assertEqual({"code": 200, "messageId": 2, "value": "right"}, client.answer())
        client.barrier()
        self.assertEqual(3, daemon.stats()["upstream_late"])

    @scene(service=WITHHELD, max_in_flight=4)
    def test_late_answers_never_reach_another_request(self, service, daemon, client):
        """Places are used again and again while old answers keep coming."""
        old = []
        for round_number in range(25):
            keys = [f"{round_number}.{i}" for i in range(4)]
            client.send(*(get(key, key, timeoutMs=2) for key in keys[:2]), *(get(key, key) for key in keys[2:]))
            # Of the two with little time, some may be up before they were sent.
            requests = {}
            while not {keys[2], keys[3]} <= set(requests):
                request = service.next_request()
                requests[request.key] = request
            for request in old:
                request.reply(value="stale")
            for key in keys[2:]:
                requests[key].reply(value=key)
            answers = {a["messageId"]: a for a in client.answers(4)}
            self.assertEqual(set(keys), set(answers))
            for key in keys[2:]:
                self.assertEqual(key, answers[key]["value"])
            for key in keys[:2]:
                self.assertIn(answers[key].get("reason"), ("timeout", "queue_full"), answers[key])
            old = [r for r in requests.values() if r.key in keys[:2]]
        client.barrier()

    @scene(service=WITHHELD, max_in_flight=1)
    def test_waiting_behind_others_counts(self, service, daemon, client):
        """Not sent, so it was not executed, and says so."""
        client.send(get("first", 1), put("k", "v", 2, timeoutMs=50))
        first = service.next_request()
        answer = client.answer()
        self.assertEqual((503, "no", 2), (answer["code"], answer["executed"], answer["messageId"]))
        first.reply()
        self.assertEqual(1, client.answer()["messageId"])
        client.barrier()
        self.assertTrue(service.no_more_requests())

    @scene(service=WITHHELD)
    def test_a_client_that_has_left_keeps_no_place_for_ever(self, service, daemon, client):
        with daemon.client() as other:
            other.send(*(get("k", i, timeoutMs=1000) for i in range(100)))
            service.next_requests(100)
        daemon.wait_status(lambda s: s["upstream"]["inFlight"] == 0, "their time is up")


class NotSent(Case):
    def test_no_connection(self):
        with Daemon(f"https://localhost:{free_port()}") as daemon, daemon.client() as client:
            for op in ({"op": "get"}, {"op": "set", "value": "v"}):
                answer = client.ask(op | {"key": "k", "timeoutMs": 30, "messageId": "m"})
                self.assert_error(answer, 503, "upstream_down", "no", "m")
                self.assertGreaterEqual(answer.get("retryAfterMs", 0), 0)
            self.assertEqual(2, daemon.stats()["requests_unsent"])

    def test_it_waits_for_its_whole_time(self):
        with Daemon(f"https://localhost:{free_port()}") as daemon, daemon.client() as client:
            began = time.monotonic()
            client.ask(get("k", timeoutMs=300))
            self.assertGreaterEqual(time.monotonic() - began, 0.299)

    def test_those_whose_time_is_up_are_not_sent_when_the_connection_comes(self):
        with FakeService() as service:
            service.stop_listening()
            with Daemon(service) as daemon, daemon.client() as client:
                client.send(put("k", "old", 1, timeoutMs=30), put("k", "new", 2))
                self.assert_error(client.answer(), 503, "upstream_down", "no", 1)
                service.listen()
                self.assertEqual((200, 2), ((a := client.answer())["code"], a["messageId"]))
                self.assertEqual(["new"], [r.obj["value"] for r in service.requests])

    def test_ping_and_status_need_no_connection(self):
        with Daemon(f"https://localhost:{free_port()}") as daemon, daemon.client() as client:
            for op in ("ping", "status", "stats"):
                self.assertEqual(200, client.ask({"op": op})["code"])
