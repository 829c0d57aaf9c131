"""Who is answered when: without a messageId in the order of asking, with one as soon as there is an answer."""

import random

from harness import WITHHELD, Case, get, scene


class Order(Case):
    @scene(service=WITHHELD)
    def test_without_ids_whatever_the_order_of_the_service(self, service, daemon, client):
        client.send(*(get(str(i)) for i in range(200)))
        requests = service.next_requests(200)
        random.Random(1).shuffle(requests)
        for request in requests:
            request.reply(value=request.key)
        self.assertEqual([str(i) for i in range(200)], [a["value"] for a in client.answers(200)])

    @scene(service=WITHHELD)
    def test_the_service_gets_them_in_order_too(self, service, daemon, client):
        client.send(*(get(str(i)) for i in range(200)))
        self.assertEqual([str(i) for i in range(200)], [r.key for r in service.next_requests(200)])

    @scene(service=WITHHELD)
    def test_local_answers_and_errors_wait_for_their_turn(self, service, daemon, client):
        client.send(get("first"), {"op": "ping"}, "nonsense", {"op": "status"}, {"op": "get"}, {"op": "fly"},
                    {"op": "token"}, {"op": "stats"}, get("last"), {"op": "ping"})
        first, last = service.next_requests(2)
        client.barrier()
        last.reply(value="last")
        client.barrier()
        first.reply(value="first")
        answers = client.answers(10)
        self.assertEqual([200, 200, 400, 200, 400, 400, 403, 200, 200, 200], [a["code"] for a in answers])
        self.assertEqual(["first", "last"], [a["value"] for a in answers if "value" in a])
        self.assertEqual("pong", answers[1]["message"])
        self.assertEqual("bad_json", answers[2]["reason"])
        self.assertEqual(1, answers[3]["protocol"])
        self.assertEqual("unknown_op", answers[5]["reason"])
        self.assertIn("stats", answers[7])
        client.barrier()

    @scene(service=WITHHELD)
    def test_with_ids_they_overtake(self, service, daemon, client):
        client.send(get("slow", "slow"), get("unnamed"), get("quick", "quick"), {"op": "ping", "messageId": "ping"},
                    {"op": "get", "messageId": "wrong"})
        slow, unnamed, quick = service.next_requests(3)
        self.assertEqual(["ping", "wrong"], [client.answer()["messageId"] for _ in range(2)])
        quick.reply()
        self.assertEqual("quick", client.answer()["messageId"])
        unnamed.reply(value="unnamed")
        self.assertEqual("unnamed", client.answer()["value"])
        slow.reply()
        self.assertEqual("slow", client.answer()["messageId"])

    @scene(service=WITHHELD)
    def test_a_timeout_keeps_its_place(self, service, daemon, client):
        client.send(get("a"), get("b", timeoutMs=500), get("c"))
        a, b, c = service.next_requests(3)
        c.reply(value="c")
        daemon.wait_status(lambda s: s["upstream"]["inFlight"] == 1, "b's time is up")
        client.barrier()
        a.reply(value="a")
        answers = client.answers(3)
        self.assertEqual("a", answers[0]["value"])
        self.assert_error(answers[1], 504, "timeout", "unknown")
        self.assertEqual("c", answers[2]["value"])

    @scene(service=WITHHELD)
    def test_each_client_has_an_order_of_its_own(self, service, daemon, client):
        with daemon.client() as other:
            client.send(get("mine"))
            mine = service.next_request()
            other.send(get("other"))
            service.next_request().reply(value="other")
            self.assertEqual("other", other.answer()["value"])
            mine.reply(value="mine")
            self.assertEqual("mine", client.answer()["value"])

    @scene(service=WITHHELD)
    def test_at_random_with_and_without_ids(self, service, daemon, client):
        dice = random.Random(7)
        unnamed, named, texts = [], set(), []
        for i in range(600):
            request = dice.choice([get(str(i)), get(str(i)), {"op": "increment", "key": str(i)}])
            if dice.random() < 0.5:
                request["messageId"] = i
                named.add(i)
            else:
                unnamed.append(str(i))
            texts.append(request)
        client.send(*texts)
        open_requests = []
        for _ in range(600):
            if not open_requests:
                open_requests = service.next_requests(min(50, 600 - service.taken))
            request = open_requests.pop(dice.randrange(len(open_requests)))
            request.reply(value=request.key)
        answers = client.answers(600)
        self.assertEqual(unnamed, [a["value"] for a in answers if "messageId" not in a])
        self.assertEqual(sorted(named), sorted(a["messageId"] for a in answers if "messageId" in a))
        for a in answers:
            self.assertEqual(str(a.get("messageId", a["value"])), a["value"])
