"""Queues have bounds, and whoever fills one is the only one who feels it."""

import json
import threading

from harness import (DEADLINE, WITHHELD, Case, Daemon, FakeService, echo, eventually, get, mebibytes, put, scene,
                     steady)


def lines_of(requests):
    return "".join(json.dumps(r) + "\n" for r in requests).encode()


def fill_for_good(client, daemon, data):
    """Sends until the daemon has stopped reading; the number of bytes that were taken."""
    sent = 0
    while n := client.fill(data[sent:]):
        sent += n
        client.barrier_by(daemon)
    return sent


class Sending:
    """Sends the data in a thread, as the daemon takes it."""

    def __init__(self, client, data):
        self.thread = threading.Thread(target=client.send_raw, args=(data,), daemon=True)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *ignored):
        self.thread.join(DEADLINE)
        assert not self.thread.is_alive(), "the daemon does not read on"


class Pipeline(Case):
    @scene(service=WITHHELD)
    def test_ten_thousand_requests_are_read_as_far_as_max_pipeline(self, service, daemon, client):
        n = 10000
        data = lines_of(get(f"key-{i:060}", i) for i in range(n))
        sent = fill_for_good(client, daemon, data)
        self.assertLess(sent, len(data) * 3 // 4) # what is left does not fit into the sockets
        client.barrier_by(daemon)
        self.assertEqual(0, client.fill(data[sent:]))
        first = service.next_requests(256)
        self.assertTrue(service.no_more_requests())
        upstream = daemon.status()["upstream"]
        self.assertEqual((256, 1024 - 256), (upstream["inFlight"], upstream["queued"]))
        self.assertEqual(1, daemon.stats()["client_reads_held"])

        service.answer = echo
        with Sending(client, data[sent:]):
            for request in first:
                echo(request)
            answers = client.answers(n)
        self.assertEqual(list(range(n)), sorted(a["messageId"] for a in answers))
        self.assertEqual(n, len({r.key for r in service.requests}))
        self.assertEqual(n, len(service.requests))
        client.barrier()

    @scene(service=WITHHELD, max_pipeline=3)
    def test_each_answer_makes_room_for_one_more(self, service, daemon, client):
        client.send(*(get(str(i)) for i in range(10)))
        for i in range(10):
            waiting = service.next_requests(min(3, 10 - i) if i == 0 else (1 if i <= 7 else 0))
            client.barrier_by(daemon)
            self.assertTrue(service.no_more_requests())
            if i == 0:
                queue = list(waiting)
            else:
                queue += waiting
            request = queue.pop(0)
            request.reply(value=request.key)
            self.assertEqual(str(i), client.answer()["value"])

    @scene(service=WITHHELD, max_pipeline=2)
    def test_others_are_read_on(self, service, daemon, client):
        client.send(*(get("mine") for i in range(5)))
        service.next_requests(2)
        with daemon.client() as other:
            other.send(get("other"))
            service.next_request().reply(value="other")
            self.assertEqual("other", other.answer()["value"])
            other.barrier()

    @scene(service=WITHHELD, max_pipeline=2)
    def test_even_a_ping_waits_until_it_is_read(self, service, daemon, client):
        client.send(get("a", 1), get("b", 2), {"op": "ping", "messageId": 3})
        requests = service.next_requests(2)
        client.barrier_by(daemon)
        requests[1].reply()
        self.assertEqual([2, 3], [client.answer()["messageId"] for _ in range(2)])
        requests[0].reply()
        self.assertEqual(1, client.answer()["messageId"])

    @scene(service=WITHHELD, max_pipeline=2)
    def test_deadlines_make_room_too(self, service, daemon, client):
        client.send(*(get("k", i, timeoutMs=300) for i in range(6)))
        self.assertEqual({"timeout"}, {a["reason"] for a in client.answers(6)})
        service.next_requests(6)
        self.assertTrue(service.no_more_requests())

    @scene(service=WITHHELD, max_pipeline=2)
    def test_a_held_client_may_half_close(self, service, daemon, client):
        client.send(*(get(str(i)) for i in range(20)))
        client.half_close()
        for i in range(20):
            service.next_request().reply(value=str(i))
        self.assertEqual([str(i) for i in range(20)], [a["value"] for a in client.answers(20)])
        self.assertTrue(client.at_end())

    @scene(service=WITHHELD, max_pipeline=2)
    def test_a_held_client_may_leave(self, service, daemon, client):
        with daemon.client() as other:
            other.send(*(get(str(i)) for i in range(20)))
            requests = service.next_requests(2)
        for request in requests:
            request.reply()
        daemon.wait_status(lambda s: s["clients"] == 2, "it has left")


class InFlight(Case):
    @scene(service=WITHHELD, max_in_flight=16)
    def test_max_in_flight_is_never_exceeded(self, service, daemon, client):
        clients = [daemon.client() for _ in range(3)]
        for number, c in enumerate(clients):
            c.send(*(get(f"{number}.{i}", i) for i in range(100)))
        open_requests = service.next_requests(16)
        for c in clients:
            c.barrier()
        self.assertTrue(service.no_more_requests())
        upstream = daemon.status()["upstream"]
        self.assertEqual((16, 300 - 16), (upstream["inFlight"], upstream["queued"]))
        for _ in range(300 - 16):
            open_requests.pop(0).reply()
            open_requests.append(service.next_request())
        self.assertEqual(16, service.most_outstanding)
        for request in open_requests:
            request.reply()
        for c in clients:
            self.assertEqual(list(range(100)), sorted(a["messageId"] for a in c.answers(100)))
            c.close()
        upstream = daemon.status()["upstream"]
        self.assertEqual((0, 0), (upstream["inFlight"], upstream["queued"]))

    @scene(service=WITHHELD, max_in_flight=1)
    def test_sending_is_fair(self, service, daemon, client):
        """Who has queued much delays another's request by one."""
        client.send(*(get("much", i) for i in range(200)))
        client.barrier()
        with daemon.client() as other:
            other.send(*(get("little", i) for i in range(5)))
            other.barrier()
            order = []
            for _ in range(205):
                request = service.next_request()
                order.append(request.key)
                request.reply()
            places = [i for i, key in enumerate(order) if key == "little"]
            self.assertEqual(5, len(other.answers(5)))
        self.assertLessEqual(places[-1], 12, places)
        client.answers(200)

    @scene(service=WITHHELD, max_in_flight=1000)
    def test_a_client_that_leaves_with_a_thousand_in_flight(self, service, daemon, client):
        with daemon.client() as other:
            other.send(*(get("k", i) for i in range(1000)))
            requests = service.next_requests(1000)
        daemon.wait_status(lambda s: s["clients"] == 2, "it has left")
        client.barrier()
        self.assertEqual(1000, daemon.status()["upstream"]["inFlight"])
        for request in requests:
            request.reply(value="x" * 100)
        daemon.wait_status(lambda s: s["upstream"]["inFlight"] == 0, "their places are free")
        client.send(get("mine"))
        service.next_request().reply(value="mine")
        self.assertEqual("mine", client.answer()["value"])
        client.barrier()

    @scene(service=WITHHELD, max_in_flight=1)
    def test_what_a_client_that_has_left_did_not_get_sent_is_dropped(self, service, daemon, client):
        with daemon.client() as other:
            other.send(*(put("k", "v", i) for i in range(500)))
            first = service.next_request()
            other.barrier()
        daemon.wait_status(lambda s: s["clients"] == 2, "it has left")
        client.send(get("mine"))
        client.barrier()
        first.reply()
        self.assertEqual("mine", (request := service.next_request()).key)
        request.reply()
        self.assertEqual(200, client.answer()["code"])
        self.assertEqual(499, daemon.stats()["requests_abandoned"])
        self.assertTrue(service.no_more_requests())


class Output(Case):
    @scene()
    def test_a_client_that_never_reads_does_not_harm_others(self, service, daemon, client):
        with daemon.client() as deaf, daemon.client() as other:
            data = lines_of({"op": "ping", "messageId": i} for i in range(100000))
            sent = fill_for_good(deaf, daemon, data)
            self.assertLess(sent, len(data))
            self.assertLess(daemon.process.resident_bytes(), mebibytes(150))
            for _ in range(50):
                self.assertEqual(200, other.ask(get("k"))["code"])
                self.assertEqual(200, client.ask({"op": "ping"})["code"])
            # It reads after all, and has missed nothing.
            with Sending(deaf, data[sent:]):
                answers = deaf.answers(100000)
            self.assertEqual(list(range(100000)), [a["messageId"] for a in answers])

    @steady(0.5) # it is given a second to take that
    @scene(service=WITHHELD, output_soft="4K", output_hard="64K")
    def test_beyond_output_hard_it_is_dropped_with_a_last_line(self, service, daemon, client):
        with daemon.client() as deaf:
            deaf.send(*(get("k", i) for i in range(256)))
            for request in service.next_requests(256):
                request.reply(value="x" * 3000)
            client.send(get("mine"))
            service.next_request().reply(value="mine")
            self.assertEqual("mine", client.answer()["value"])
            self.assertEqual(1, daemon.stats()["clients_dropped_slow"])
            lines = []
            while not lines or lines[-1].get("reason") != "slow_client":
                lines.append(deaf.answer())
            self.assert_error(lines.pop(), 503, "slow_client", "no")
            self.assertTrue(deaf.at_end())
            self.assertEqual(list(range(len(lines))), [a["messageId"] for a in lines])
            self.assertLess(len(lines), 256)
            self.assertEqual({"x" * 3000}, {a["value"] for a in lines})
        client.barrier()

    @scene(service=WITHHELD, output_soft="4K", output_hard="64K")
    def test_if_it_does_not_even_take_that_it_is_dropped_all_the_same(self, service, daemon, client):
        with daemon.client() as deaf:
            deaf.send(*(get("k", i) for i in range(256)))
            for request in service.next_requests(256):
                request.reply(value="x" * 3000)
            daemon.wait_status(lambda s: s["clients"] == 2, "it is gone")
            while deaf._receive(): # whole lines, then the end
                pass
        self.assertEqual(1, daemon.stats()["clients_dropped_slow"])

    @scene(service=WITHHELD, output_soft="4K", output_hard="64K")
    def test_one_line_alone_is_never_too_much(self, service, daemon, client):
        """Else whoever asks for one large answer could not read fast enough."""
        value = "x" * (4 << 20)
        client.subscribe(key="k")
        client.send(get("with an id", 1), {"op": "get", "key": "first"}, {"op": "get", "key": "second"}) # these in their order
        one, first, second = service.next_requests(3)

        def comes_alone():
            eventually(lambda: daemon.stats()["upstream_bytes_in"] > seen + len(value), "the daemon has it")
            stats = daemon.stats()
            self.assertEqual(0, stats["clients_dropped_slow"])
            return stats["upstream_bytes_in"]

        seen = daemon.stats()["upstream_bytes_in"]
        one.reply(value=value)
        seen = comes_alone()
        self.assertEqual(value, client.answer()["value"])
        second.reply(value=value)
        seen = comes_alone()
        first.reply(value="v")
        self.assertEqual(["v", value], [a["value"] for a in client.answers(2)])
        service.publish("k", value)
        comes_alone()
        self.assertEqual(("k", value), client.change())

    @scene(service=WITHHELD, output_soft="4K", output_hard="64K")
    def test_what_waits_behind_a_large_one_is(self, service, daemon, client):
        with daemon.client() as deaf:
            deaf.send(get("k", 1), get("l", 2))
            for request in service.next_requests(2):
                request.reply(value="x" * (4 << 20))
            daemon.wait_status(lambda s: s["clients"] == 2, "it is gone")
        self.assertEqual(1, daemon.stats()["clients_dropped_slow"])

    @scene(service=WITHHELD, output_soft="4K", output_hard="1M")
    def test_between_soft_and_hard_it_is_only_not_read(self, service, daemon, client):
        with daemon.client() as slow:
            slow.send(*(get("k", i) for i in range(250)))
            for request in service.next_requests(250):
                request.reply(value="x" * 3000)
            client.send(get("mine"))
            service.next_request().reply()
            client.answer()
            slow.send(*(get("not yet", i) for i in range(250, 300)))
            slow.barrier_by(daemon)
            service.no_more_requests()
            self.assertLessEqual(len(service.requests) - service.taken, 1) # it may notice only after another line
            self.assertEqual(list(range(250)), [a["messageId"] for a in slow.answers(250)])
            for request in service.next_requests(50):
                request.reply()
            self.assertEqual(list(range(250, 300)), [a["messageId"] for a in slow.answers(50)])
        self.assertEqual(0, daemon.stats()["clients_dropped_slow"])


class Upstream(Case):
    @scene(keepalive="1m", request_timeout="10m")
    def test_a_service_that_does_not_read_for_a_while(self, service, daemon, client):
        connection = service.connection()
        connection.may_read.clear()
        data = lines_of(put("k", "x" * 30000, i) for i in range(1000))
        with daemon.client() as eager:
            sent = fill_for_good(eager, daemon, data)
            self.assertLess(sent, len(data))
            self.assertLess(daemon.process.resident_bytes(), mebibytes(150))
            client.barrier()
            with Sending(eager, data[sent:]):
                connection.may_read.set()
                answers = eager.answers(1000)
            self.assertEqual(list(range(1000)), sorted(a["messageId"] for a in answers))
            self.assertEqual({200}, {a["code"] for a in answers})

    @scene(service=WITHHELD, max_in_flight=65535, max_pipeline=100000)
    def test_a_service_that_reads_slower_than_clients_write(self, service, daemon, client):
        """More than may wait unsent at once, all of it taken at once: sending goes on behind it."""
        service.answer = echo
        for size, n in ((60000, 200), (2000, 3000), (20, 20000)):
            data = lines_of(put("k", "x" * size, i) for i in range(n))
            with Sending(client, data):
                self.assertEqual(list(range(n)), sorted(a["messageId"] for a in client.answers(n)))

    def test_greedy_clients_leave_room_for_others(self):
        """Each is read no further than its share of what is left; nobody is refused."""
        with FakeService() as service:
            service.stop_listening()
            with Daemon(service, request_timeout="10m", level="info") as daemon:
                data = lines_of(put("k", "x" * 30000, i) for i in range(40))
                clients = [daemon.client() for _ in range(100)]
                sent = [fill_for_good(client, daemon, data) for client in clients]
                self.assertLess(daemon.process.resident_bytes(), mebibytes(200))
                with daemon.client() as late:
                    late.send(*(put("k", "v", i) for i in range(5)))
                    late.barrier()
                    self.assertEqual(0, daemon.stats()["requests_queue_full"])
                    service.listen()
                    self.assertEqual({200}, {a["code"] for a in late.answers(5)})
                for client, n in zip(clients, sent):
                    with Sending(client, data[n:]):
                        answers = client.answers(40)
                    self.assertEqual([(i, 200) for i in range(40)], sorted((a["messageId"], a["code"]) for a in answers))
                    client.close()

    def test_more_waits_than_there_is_memory_for(self):
        """Many clients together: refused as not executed, and what was accepted is still sent."""
        with FakeService() as service:
            service.stop_listening()
            with Daemon(service, request_timeout="10m", level="info") as daemon:
                clients = []
                while daemon.stats()["requests_queue_full"] == 0:
                    clients.append(daemon.client())
                    clients[-1].send(put("k", "x" * 60000))
                    self.assertLess(len(clients), 1500)
                self.assertLess(daemon.process.resident_bytes(), mebibytes(200))
                with daemon.client() as late:
                    self.assert_error(late.ask(put("k", "x" * 60000)), 503, "queue_full", "no")
                    late.barrier()
                service.listen()
                codes = [client.answer()["code"] for client in clients]
                self.assertEqual([200] * (len(clients) - 1) + [503], codes)
                self.assertEqual(len(clients) - 1, len(service.requests))
                for client in clients:
                    client.close()
