"""SIGTERM and SIGINT: requests in flight are answered, others are refused, and the end is orderly."""

import collections
import contextlib
import json
import operator
import os
import select
import signal
import socket
import time

from harness import DEADLINE, SANITIZER, WITHHELD, Awaited, Case, Client, Daemon, FakeService, eventually, get, put, scene, steady


class Shutdown(Case):
    def begin(self, daemon, number=signal.SIGTERM):
        daemon.process.signal(number)
        daemon.process.wait_output(rb"stopping")

    def end(self, daemon):
        self.assertEqual(0, daemon.process.wait_exit())

    @scene()
    def test_at_once_when_nothing_is_in_flight(self, service, daemon, client):
        self.assertEqual(200, client.ask(get("k"))["code"])
        self.begin(daemon)
        self.assertTrue(client.at_end())
        self.end(daemon)
        connection = service.connections[0]
        connection.wait_gone()
        self.assertIn(connection.close_code, (1000, 1001)) # the service was told

    @scene()
    def test_sigint(self, service, daemon, client):
        self.begin(daemon, signal.SIGINT)
        self.end(daemon)

    @scene(service=WITHHELD, max_in_flight=2)
    def test_in_flight_is_answered_and_the_rest_refused(self, service, daemon, client):
        client.send(*(put("k", "v", i) for i in range(5)))
        sent = service.next_requests(2)
        client.barrier()
        self.begin(daemon)
        answers = {a["messageId"]: a for a in client.answers(3)}
        for i in (2, 3, 4):
            self.assert_error(answers[i], 503, "shutting_down", "no", i)
        # A request now is too late, but gets an answer.
        self.assert_error(client.ask(put("k", "late", 5)), 503, "shutting_down", "no", 5)
        until = time.monotonic() + 0.2
        while time.monotonic() < until: # it waits for as long as it takes
            client.barrier()
        for request in sent:
            request.reply(success=True)
        self.assertEqual({(0, 200), (1, 200)}, {(a["messageId"], a["code"]) for a in client.answers(2)})
        self.assertTrue(client.at_end())
        self.end(daemon)
        self.assertTrue(service.no_more_requests())

    @scene(service=WITHHELD, max_in_flight=2)
    def test_without_ids_the_order_stays(self, service, daemon, client):
        client.send(*(put("k", "v") for i in range(4)), {"op": "ping"})
        sent = service.next_requests(2)
        client.barrier()
        self.begin(daemon)
        client.barrier()
        sent[1].reply(message="second")
        sent[0].reply(message="first")
        answers = client.answers(5)
        self.assertEqual(["first", "second"], [a["message"] for a in answers[:2]])
        self.assertEqual(["shutting_down"] * 2, [a["reason"] for a in answers[2:4]])
        self.assertEqual("pong", answers[4]["message"])
        self.end(daemon)

    @scene(service=WITHHELD)
    def test_new_connections_are_refused(self, service, daemon, client):
        client.send(get("k"))
        request = service.next_request()
        self.begin(daemon)
        client.barrier()
        with self.assertRaises((ConnectionRefusedError, FileNotFoundError)):
            Client(daemon.socket)
        self.assertFalse(os.path.exists(daemon.socket))
        request.reply()
        self.assertEqual(200, client.answer()["code"])
        self.end(daemon)

    @scene(service=WITHHELD)
    def test_a_service_that_does_not_answer_is_waited_for_5_s(self, service, daemon, client):
        client.send(put("k", "v", 1))
        service.next_request()
        began = time.monotonic()
        self.begin(daemon)
        answer = client.answer()
        self.assertEqual((504, "unknown", 1), (answer["code"], answer["executed"], answer["messageId"]))
        self.assertTrue(client.at_end())
        self.end(daemon)
        self.assertGreater(time.monotonic() - began, 4)
        self.assertLess(time.monotonic() - began, 5 + DEADLINE / 2)

    @scene(service=WITHHELD)
    def test_the_connection_is_lost_meanwhile(self, service, daemon, client):
        client.send(put("k", "v", 1), get("k", 2))
        service.next_requests(2)
        self.begin(daemon)
        service.connections[0].reset()
        for answer in client.answers(2):
            self.assert_error(answer, 504, "outcome_unknown", "unknown", answer["messageId"])
        self.assertTrue(client.at_end())
        self.end(daemon)
        self.assertTrue(service.no_more_requests())

    @scene()
    def test_subscribers_get_a_last_line(self, service, daemon, client):
        self.assertEqual(200, client.ask({"op": "subscribe", "key": "k"})["code"])
        self.begin(daemon)
        line = client.answer()
        self.assertEqual(("connection", "disconnected", "shutting_down"), (line["type"], line["state"], line["reason"]))
        self.assertIsInstance(line["timestamp"], int)
        self.assertTrue(client.at_end())
        self.end(daemon)

    @steady(0.15)
    @scene(service=WITHHELD)
    def test_answers_are_read_before_sending_fails(self, service, daemon, client):
        """Many programs close their socket once sending fails, and with it go the answers in it."""
        client.send(put("k", "v", 1))
        request = service.next_request()
        self.begin(daemon)
        request.reply(success=True)
        select.select([client.sock], [], [])
        time.sleep(0.1) # it does something else
        client.send(put("k", "late", 2))
        self.assertEqual((200, 1), operator.itemgetter("code", "messageId")(client.answer()))
        self.assert_error(client.answer(), 503, "shutting_down", "no", 2)
        self.assertTrue(client.at_end())
        self.end(daemon)

    @scene()
    def test_a_request_is_answered_or_can_not_be_sent(self, service, daemon, client):
        """However late it comes: a client that sends one after the other knows of each whether it was read."""
        with daemon.client() as subscriber:
            self.assertEqual(200, subscriber.ask({"op": "subscribe", "key": "k"})["code"])
            self.begin(daemon)
            senders, sent = [client, subscriber], collections.Counter()
            while senders:
                for sender in list(senders):
                    try:
                        sender.send_raw(b'{"op":"ping"}\n')
                        sent[sender] += 1
                    except BrokenPipeError:
                        senders.remove(sender)
            for sender in (client, subscriber):
                lines = b"".join(iter(lambda: sender.sock.recv(65536), b"")).splitlines() # no ECONNRESET: all was read
                self.assertEqual(sent[sender], sum(b'"pong"' in line for line in lines))
        self.end(daemon)

    @scene()
    def test_who_has_connected_and_was_not_accepted_is_answered(self, service, daemon, client):
        daemon.process.signal(signal.SIGSTOP)
        with contextlib.ExitStack() as stack:
            late = [stack.enter_context(daemon.client()) for _ in range(100)] # more than are accepted in one turn of the loop
            for i, one in enumerate(late):
                one.send(put("k", "v", i))
            daemon.process.signal(signal.SIGTERM)
            daemon.process.signal(signal.SIGCONT)
            for i, one in enumerate(late):
                answer = one.answer()
                if answer["code"] != 200: # it may have been accepted before the signal was seen
                    self.assert_error(answer, 503, "shutting_down", "no", i)
                self.assertTrue(one.at_end())
        self.end(daemon)

    @scene(service=WITHHELD)
    def test_a_second_signal_ends_it_at_once(self, service, daemon, client):
        client.send(put("k", "v", 1))
        service.next_request()
        self.begin(daemon)
        daemon.process.signal(signal.SIGTERM)
        self.end(daemon)

    @scene(connected=False, service={"silent": True})
    def test_while_connecting(self, service, daemon, client):
        service.wait(lambda: service.accepted, "a connection")
        client.send(get("k", 1))
        client.barrier()
        self.begin(daemon)
        self.assert_error(client.answer(), 503, "shutting_down", "no", 1)
        self.end(daemon)

    @scene(output_soft="4K")
    def test_a_client_that_does_not_read_is_not_waited_for_long(self, service, daemon, client):
        with daemon.client() as deaf:
            deaf.fill(b'{"op":"status"}\n' * 5000)
            deaf.barrier_by(daemon)
            began = time.monotonic()
            self.begin(daemon)
            self.end(daemon)
            self.assertLess(time.monotonic() - began, 5 + DEADLINE / 2)

    @scene()
    def test_all_answers_that_were_there_arrive(self, service, daemon, client):
        for i in range(2000):
            client.send(get("k", i))
        self.assertEqual(2000, len(client.answers(2000)))
        client.send(*({"op": "ping", "messageId": i} for i in range(3000)))
        client.barrier_by(daemon)
        self.begin(daemon)
        self.assertEqual(list(range(3000)), [a["messageId"] for a in client.answers(3000)])
        self.assertTrue(client.at_end())
        self.end(daemon)


class WithClients(Case):
    """Connected clients stay until the daemon has ended."""

    def end(self, daemon):
        daemon.process.signal(signal.SIGTERM)
        self.assertEqual(0, daemon.process.wait_exit())
        self.assertIsNone(SANITIZER.search(daemon.log()))

    @scene()
    def test_what_was_left_out_of_the_list_is_not_asked_for_when_they_go(self, service, daemon, client):
        service.mint = lambda request: "t" * len(json.dumps(request.list))
        with daemon.client() as other:
            other.subscribe(key="k" * 600)
            service.upgrade = lambda event: (431, {}, b"too long") if len(event.target) > 400 else None
            client.subscribe(key="x")
            self.assertEqual(1, daemon.status()["subscriptions"]["leftOut"])
            self.end(daemon)

    @scene(service=WITHHELD, max_in_flight=2)
    def test_in_every_state(self, service, daemon, client):
        """Requests sent and waiting, subscriptions live and waiting, half-closed, held, and one that does not read."""
        with daemon.client() as live, daemon.client() as waits, daemon.client() as half, daemon.client() as held, daemon.client() as deaf:
            live.subscribe(key="a", pattern="b*")
            service.mint = lambda request: "never"
            waits.send({"op": "subscribe", "key": "other"})
            half.send(put("k", "v", 1))
            half.half_close()
            client.send(*(put("k", "v", i) for i in range(10)))
            held.fill(b'{"op":"get","key":"k"}\n' * 20000)
            deaf.fill(b'{"op":"status"}\n' * 5000)
            live.barrier()
            self.end(daemon)

    @scene()
    def test_while_settings_are_read_again(self, service, daemon, client):
        client.subscribe(key="k")
        daemon.change(key="another", max_clients=5)
        daemon.process.signal(signal.SIGHUP)
        self.end(daemon)

    @scene(service=WITHHELD)
    def test_at_once(self, service, daemon, client):
        client.send({"op": "subscribe", "key": "k"}, put("k", "v"))
        service.next_request()
        daemon.process.signal(signal.SIGTERM)
        daemon.process.wait_output(rb"stopping")
        self.end(daemon)


class Beginning(Case):
    """Before it has read its settings."""

    def test_it_ends_well_all_the_same(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number), FakeService() as service, Awaited(service) as daemon:
                daemon.process.signal(number)
                self.assertEqual(0, daemon.process.wait_exit())

    def test_a_hangup_is_kept_until_it_can_be_heeded(self):
        with FakeService() as service, Awaited(service) as daemon:
            daemon.process.signal(signal.SIGHUP)
            eventually(lambda: daemon.is_pending(signal.SIGHUP), "a hangup that waits")
            daemon.feed()
            daemon.process.wait_output(rb"SIGHUP: reading the settings again")

    def test_whoever_starts_it_may_have_blocked_them(self):
        blocked = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        self.addCleanup(signal.pthread_sigmask, signal.SIG_SETMASK, before)
        with FakeService() as service, Daemon(service) as daemon:
            self.assertTrue(daemon.hang_up())
            daemon.process.signal(signal.SIGINT)
            self.assertEqual(0, daemon.process.wait_exit())


class Hangup(Case):
    @scene()
    def test_sighup_drops_nobody(self, service, daemon, client):
        daemon.process.signal(signal.SIGHUP)
        daemon.process.wait_output(rb"(?i)sighup|reload")
        self.assertEqual(200, client.ask(get("k"))["code"])
        self.assertEqual(1, len(service.connections))

    @scene()
    def test_sigpipe_is_nothing(self, service, daemon, client):
        os.kill(daemon.pid, signal.SIGPIPE)
        for _ in range(50):
            with daemon.client() as other:
                other.send(get("k"), {"op": "ping"})
                other.sock.shutdown(socket.SHUT_RD)
        self.assertEqual(200, client.ask(get("k"))["code"])
