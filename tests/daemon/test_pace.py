"""rate_limit: requests go out evenly, no faster, and one whose time is up before its turn is refused unsent."""

import time

from harness import Case, Daemon, FakeService

RATE = 20


class Pace(Case):
    def test_requests_go_out_no_faster_than_the_limit(self):
        arrivals = []

        def answer(request):
            arrivals.append(time.monotonic())
            return request.reply(value="v")

        with FakeService(answer=answer) as service, Daemon(service, rate_limit=RATE) as daemon, daemon.client() as client:
            daemon.wait_state("connected")
            began = time.monotonic() # the first may be noticed late here, and the others not
            client.send(*({"op": "get", "key": "k", "messageId": n} for n in range(15)))
            self.assertEqual(list(range(15)), [a["messageId"] for a in client.answers(15)])
        # One may go at once; each of the others needs its part of a second. More time is always possible, less is not.
        self.assertGreater(arrivals[-1] - began, 14 / RATE * 0.9)

    def test_what_does_not_get_its_turn_in_time_is_refused_unsent(self):
        with FakeService() as service, Daemon(service, rate_limit=1) as daemon, daemon.client() as client:
            daemon.wait_state("connected")
            client.send(*({"op": "set", "key": "k", "value": "v", "timeoutMs": 300, "messageId": n} for n in range(30)))
            answers = client.answers(30)
            refused = [a for a in answers if a["code"] == 429]
            self.assertGreaterEqual(len(refused), 15) # one a second is not; a machine may stand still meanwhile
            for answer in refused:
                self.assertEqual("rate_limited", answer["reason"])
                self.assertEqual("no", answer["executed"])
                self.assertGreater(answer["retryAfterMs"], 0)
            service.wait(lambda: len(service.requests) == 30 - len(refused), "those that were not refused")

    def test_what_could_not_get_its_turn_in_time_is_refused_at_once(self):
        with FakeService() as service, Daemon(service, rate_limit=1) as daemon, daemon.client() as client:
            daemon.wait_state("connected")
            patient = ({"op": "set", "key": "k", "value": "v", "timeoutMs": 600000, "messageId": n} for n in range(4))
            client.send(*patient, {"op": "set", "key": "k", "value": "v", "timeoutMs": 1500, "messageId": "no"}, {"op": "ping"})
            answers = []
            while not answers or answers[-1].get("messageId") != "no":
                answers.append(client.answer())
            self.assertNotIn("pong", [a.get("message") for a in answers]) # it was not kept until its time was up
            self.assert_error(answers[-1], 429, "rate_limited", "no", "no")
            self.assertGreater(answers[-1]["retryAfterMs"], 0)
            self.assertLess(answers[-1]["retryAfterMs"], 4000)
            self.assertEqual(1, daemon.stats()["requests_refused_early"])

    def test_each_is_told_what_it_would_wait(self):
        with FakeService() as service, Daemon(service, rate_limit=1) as daemon, daemon.client() as client:
            daemon.wait_state("connected")
            client.send(*({"op": "set", "key": "k", "value": "v", "timeoutMs": 600000, "messageId": n} for n in range(60)))
            client.send({"op": "status"})
            while "upstream" not in (own := client.answer()):
                pass
            self.assertGreater(own["upstream"]["waitMs"], 30000)
            self.assertIn(daemon.status()["upstream"]["waitMs"], range(1, 2002))

    def test_status_tells_the_pace_and_the_wait(self):
        with FakeService() as service:
            with Daemon(service, rate_limit=RATE) as daemon:
                self.assertEqual(RATE, daemon.status()["upstream"]["pace"])
            with Daemon(service) as daemon:
                status = daemon.wait_state("connected")["upstream"]
                self.assertIsNone(status["pace"])
                self.assertEqual(0, status["waitMs"])
