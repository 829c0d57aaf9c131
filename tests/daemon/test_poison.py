"""Requests over which the service closes the connection that all share: one client's fault costs the others little."""

import json
import re
import threading
import time

from harness import DEADLINE, Case, Daemon, FakeService, Sandbox, echo, get, put, scene, steady

GROWING = [""] * 20000 # 60 kB in a line, 100 kB in a frame: each quote is escaped there


def deadly(how):
    """Answers as the service does, and ends the connection over each request for a key that begins with "poison"."""

    def answer(request):
        if not (request.key or "").startswith("poison"):
            return echo(request)
        request.connection.dead = True
        return request.connection.close(how) if how else request.connection.hang_up()

    def answer_unless_dead(request):
        if not getattr(request.connection, "dead", False):
            answer(request)

    return answer_unless_dead


def poisons(service):
    return sum((r.key or "").startswith("poison") for r in list(service.requests))


class Worker:
    """A client that works, one request at a time, as long as the block runs: .done, .unknown, .other are its answers, .longest
    the longest time that one took."""

    def __init__(self, daemon, name):
        self.daemon, self.name = daemon, name
        self.done, self.unknown, self.other, self.longest = 0, 0, [], 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        with self.daemon.client() as client:
            while not self.stop.wait(0.005):
                began = time.monotonic()
                answer = client.ask(put(self.name, "v", 1) if self.done % 2 else get(self.name, 1))
                self.longest = max(self.longest, time.monotonic() - began)
                if "reason" not in answer: # the service's
                    self.done += 1
                elif answer.get("reason") == "outcome_unknown":
                    self.unknown += 1
                else:
                    self.other.append(answer)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *ignored):
        self.stop.set()
        self.thread.join(DEADLINE)

    def work(self, n):
        """Until so many more are done. However slowly: none for a long time is a failure."""
        until, done, since = self.done + n, self.done, time.monotonic()
        while self.done < until:
            if self.done > done:
                done, since = self.done, time.monotonic()
            assert time.monotonic() < since + DEADLINE, f"{self.name} got {self.done} answers; {self.other[:3]}"
            time.sleep(0.005)


class TooLong(Case):
    """A frame is measured as it is sent."""

    def test_a_value_that_grows_by_quoting_is_refused_and_others_notice_nothing(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon, daemon.client() as client, daemon.client() as other:
            other.subscribe(key="k")
            line = json.dumps(put("k", GROWING, 1), separators=(",", ":"))
            self.assertLess(len(line), 65536)
            with Worker(daemon, "worker") as worker:
                for op in "set", "patch":
                    for _ in range(3):
                        client.send(line.replace('"set"', f'"{op}"'))
                        answer = client.answer()
                        self.assert_error(answer, 413, "too_large", "no", 1)
                        self.assertRegex(answer["error"], r"has 1000\d\d bytes as it would be sent, and max_frame is 65536")
                worker.work(20)
            self.assertEqual((0, []), (worker.unknown, worker.other))
            self.assertEqual(0, daemon.status()["upstream"]["reconnects"])
            client.ask(put("k", "told", 1))
            self.assertEqual("told", other.answer()["value"]) # and no word of a lost connection
            self.assertEqual(6, daemon.stats()["requests_too_long"])

    @scene(max_frame="1K")
    def test_any_op_whose_frame_is_longer_is_refused_and_one_that_fits_is_sent(self, service, daemon, client):
        own = len('{"messageId":9007199254740991,"op":1,"key":""}')
        fits = "k" * (1024 - own)
        self.assertEqual(200, client.ask(get(fits, 1))["code"])
        self.assertLessEqual(len(service.next_request().text), 1024)
        for request in (get(fits + "k", 1), put("k", "v" * 1024, 1), {"op": "patch", "key": "k", "value": {"a": "b" * 990}, "messageId": 1},
                        {"op": "delete", "key": "\\" * 600, "messageId": 1}, {"op": "increment", "key": "k" * 1024, "messageId": 1},
                        {"op": "range", "key": "a" * 512, "endKey": "b" * 512, "messageId": 1}):
            self.assert_error(client.ask(request), 413, "too_large", "no", 1)
        # Those without an id keep their order.
        client.send({"op": "get", "key": "first"}, {"op": "set", "key": "k", "value": "v" * 1024}, {"op": "get", "key": "last"})
        self.assertEqual([200, 413, 200], [a["code"] for a in client.answers(3)])
        service.next_requests(2)
        self.assertTrue(service.no_more_requests())

    @scene(max_frame="1K")
    def test_a_key_that_a_frame_has_no_room_for_is_a_gap_for_its_subscribers(self, service, daemon, client):
        key = "k" * 1024
        client.subscribe(key=key, initial=True)
        self.assertEqual({"type": "gap", "key": key}, client.answer())
        service.publish(key, "changed")
        self.assertEqual("changed", client.answer()["value"])
        self.assertTrue(service.no_more_requests())

    @scene()
    def test_a_reload_changes_it(self, service, daemon, client):
        self.assertEqual(200, client.ask(put("k", "v" * 2000, 1))["code"])
        self.assertTrue(daemon.reload(max_frame="2K"))
        self.assertEqual(2048, client.ask({"op": "status"})["limits"]["maxFrame"])
        self.assert_error(client.ask(put("k", "v" * 2000, 1)), 413, "too_large", "no", 1)
        self.assertTrue(daemon.reload(max_frame="3K"))
        self.assertEqual(200, client.ask(put("k", "v" * 2000, 1))["code"])


class Learnt(Case):
    """The service takes less than max_frame, and says so by 1009."""

    def test_what_was_too_long_is_refused_from_then_on_until_the_service_is_another(self):
        with Sandbox("--max-message", "20000") as sandbox, Sandbox() as roomy, Daemon(sandbox) as daemon, \
                daemon.client() as client, daemon.client() as other:
            self.assertEqual(200, client.ask(put("secret-name", "\u0001" * 3000, 1))["code"])
            self.assert_error(client.ask(put("secret-name", "x" * 30000, 1)), 504, "outcome_unknown", "unknown", 1)
            daemon.wait_status(lambda s: s["upstream"]["reconnects"] == 1, "another connection")
            for c in (client, other):
                answer = c.ask(put("secret-name", "x" * 30000, 2))
                self.assert_error(answer, 413, "too_large", "no", 2)
                self.assertRegex(answer["error"], r"closed the connection over a message of 300\d\d bytes")
                self.assertEqual(200, c.ask(put("k", "x" * 3000, 3))["code"])
            log = daemon.log()
            self.assertRegex(log, rb"client \d+ \(pid \d+, uid \d+\): the service closed the connection over a message of 300\d\d "
                                  rb"bytes \(1009\): requests of that length or more are refused for an hour")
            self.assertNotIn(b"secret-name", log)
            self.assertEqual(1, daemon.status()["upstream"]["reconnects"])
            self.assertTrue(daemon.reload(url=roomy.url))
            daemon.wait_status(lambda s: s["upstream"]["url"] == roomy.url, "the other service")
            self.assertEqual(400, client.ask(put("k", "x" * 30000, 4))["code"]) # its own answer: the value is too long


class InALoop(Case):
    """A client sends poison as fast as it is answered. Two shared losses bring it to trial; then it is alone."""

    def loop(self, how, poison, once=False):
        """once: on a connection of its own each time, which it leaves at once."""
        stop = threading.Event()
        with FakeService(answer=deadly(how)) as service, Daemon(service, backoff_min="300ms", backoff_max="30s") as daemon:

            def hostile():
                while not stop.is_set():
                    with daemon.client() as client:
                        client.send(poison)
                        while not once and not stop.is_set():
                            client.answer()
                            client.send(poison)
                    stop.wait(0.01)

            daemon.wait_state("connected")
            with Worker(daemon, "a") as a, Worker(daemon, "b") as b:
                a.work(10)
                thread = threading.Thread(target=hostile, daemon=True)
                thread.start()
                service.wait(lambda: poisons(service) >= 8, "eight times poison")
                for worker in a, b:
                    worker.work(100) # between losses all goes on
                n = poisons(service)
                service.wait(lambda: poisons(service) > n, "one more")
                for worker in a, b:
                    worker.work(20)
                stop.set()
            thread.join(DEADLINE)
            for worker in a, b:
                self.assertEqual([], worker.other)
                # Losses beside others are few: all later ones hurt nobody else.
                self.assertLessEqual(worker.unknown, 4)
            # Nor do pauses grow by these; two seconds are for a machine that stands still.
            pauses = [int(ms) for ms in re.findall(rb"backoff -> connecting after (\d+) ms", daemon.log())]
            self.assertGreater(len(pauses), 5)
            self.assertLess(max(pauses), 300 * 4 + 2000)
            return daemon.log()

    @steady(0.5, attempts=3) # whom a loss is charged to, and for how long, depends on the times between
    def test_internal_error(self):
        log = self.loop(1011, put("poison", "v", 1))
        self.assertRegex(log, rb"client \d+ \(pid \d+, uid \d+\): the service closed the connection \(1011\) over its request, "
                              rb"which was alone in flight")
        self.assertRegex(log, rb"client \d+ \(pid \d+, uid \d+\): connections were lost with requests of it in flight: its "
                              rb"requests come last, one at a time")

    @steady(0.5, attempts=3)
    def test_protocol_error_over_a_read(self):
        self.loop(1002, get("poison", 1))

    @steady(0.5, attempts=3)
    def test_no_close_frame(self):
        self.loop(None, put("poison", "v", 1))

    @steady(0.5, attempts=3)
    def test_from_connections_that_are_left_at_once(self):
        self.loop(1007, put("poison", "v", 1), once=True)


class Reads(Case):
    @scene(service={"answer": deadly(1011)})
    def test_a_get_is_not_sent_a_fourth_time(self, service, daemon, client):
        self.assert_error(client.ask(get("poison", 1, timeoutMs=60000)), 504, "outcome_unknown", "unknown", 1)
        self.assertEqual(3, poisons(service))
        self.assertEqual(200, client.ask(get("k", 1))["code"])

    @scene(service={"answer": deadly(1011)})
    def test_a_subscribed_key_becomes_a_gap_and_is_not_read_again(self, service, daemon, client):
        client.subscribe(keys=["k", "poison"])
        client.subscribe(keys=["k", "poison"], initial=True)
        told = {}
        while "poison" not in told: # and "disconnected" and "connected", a few times
            line = client.answer()
            if "key" in line:
                told[line["key"]] = line
        self.assertEqual({"type": "gap", "key": "poison"}, told["poison"])
        self.assertEqual(3, poisons(service))
        daemon.wait_status(lambda s: s["subscriptions"]["live"] and not s["subscriptions"]["rereading"], "all is read")
        reconnects = daemon.status()["upstream"]["reconnects"]
        service.connections[-1].close(1001)
        daemon.wait_status(lambda s: s["upstream"]["reconnects"] > reconnects and s["subscriptions"]["live"]
                           and not s["subscriptions"]["rereading"], "another connection")
        self.assertEqual(3, poisons(service))
        self.assertEqual(200, client_code(client))
        with daemon.client() as other:
            other.subscribe(key="poison", initial=True)
            self.assertEqual({"type": "gap", "key": "poison"}, other.answer())
        self.assertEqual(3, poisons(service))


def client_code(client):
    """The code of the answer to a request, behind whatever the client is told unasked."""
    client.send(get("k", "mine"))
    while True:
        line = client.answer()
        if line.get("messageId") == "mine":
            return line["code"]
