"""A hostile local user: what he holds is bounded, what he sends is dropped, and others go on. tests/bench/run-hostile measures what he costs them.

More of him: test_many_clients (10,000 connections), test_backpressure and test_slow_reader (he does not read), test_handover_pace (he subscribes and
unsubscribes), test_client_tokens (tokens without end), test_tokens of the gateway (regular expressions), test_bounds (each bound of doc/architecture.md)."""

import array
import contextlib
import json
import os
import socket
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "gateway"))
from gateway import LOCAL_KEY, Gateway, GatewayCase # noqa: E402 (the path comes first)
from harness import WITHHELD, Case, Daemon, FakeService, Sandbox, eventually, get, mebibytes, put, sanitized, scene # noqa: E402
from websocket import frame # noqa: E402

UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
WS = dict(UPGRADE, **{"x-api-key": LOCAL_KEY})


def descriptors(daemon):
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


class Descriptors(Case):
    def pass_descriptors(self, client, n, data):
        """Bytes with n descriptors of a pipe; its other end, which ends when nobody has them any more."""
        end, passed = os.pipe()
        os.set_blocking(end, False)
        client.sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [passed] * n))])
        os.close(passed)
        self.addCleanup(os.close, end)
        return end

    def assert_closed(self, end):
        def closed():
            try:
                return os.read(end, 1) == b""
            except BlockingIOError:
                return False

        eventually(closed, "that nobody has the descriptors any more")

    @scene()
    def test_what_is_passed_is_closed_with_the_bytes_that_it_came_with(self, service, daemon, client):
        client.barrier()
        before = descriptors(daemon)
        for data in (b'{"op":"ping"}\n', b'{"op":', b'"ping"}\n'):
            end = self.pass_descriptors(client, 200, data)
            self.assert_closed(end)
        self.assertEqual(2, len(client.lines(2)))
        self.assertEqual(before, descriptors(daemon))

    @scene()
    def test_by_http_too(self, service, daemon, client):
        end = self.pass_descriptors(client, 100, b"GET /hpkvd/ready HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assert_closed(end)
        self.assertTrue(client.line().startswith(b"HTTP/1.1 200"))

    @scene(service=WITHHELD, max_pipeline=1)
    def test_of_a_client_that_is_not_read_they_are_the_kernels_until_it_is_gone(self, service, daemon, client):
        client.send(get("k"))
        service.next_request()
        before = descriptors(daemon)
        end = self.pass_descriptors(client, 50, b'{"op":"ping"}\n')
        client.barrier_by(daemon)
        eventually(lambda: descriptors(daemon) == before, "as many descriptors as before")
        client.close()
        self.assert_closed(end)


class HalfClosed(GatewayCase):
    def subscriber(self, connect, service, gateway):
        c = connect(gateway)
        self.assertEqual(101, c.ask("GET", "/ws", headers=WS, host="localhost").status)
        c.send(frame(1, b'{"op":"subscribe","key":"k"}'))
        gateway.wait_status(lambda s: s["subscriptions"]["total"] == 1, "a subscriber")
        return c

    def test_a_websocket_whose_stream_has_ended_is_gone(self):
        """Nothing else tells, on TCP: a subscriber that has died would be kept for ever."""
        service, gateway = self.scene()
        for connect in (self.tcp, self.http):
            with self.subTest(connect.__name__):
                c = self.subscriber(connect, service, gateway)
                c.half_close()
                gateway.wait_status(lambda s: s["subscriptions"]["total"] == 0 and s["doors"]["websocket"]["clients"] == 0, "it is gone")

    def test_what_it_has_asked_for_is_answered_first(self):
        service, gateway = self.scene(service=WITHHELD)
        c = self.subscriber(self.tcp, service, gateway)
        c.send(frame(1, json.dumps(get("k", 7)).encode()))
        request = service.next_request()
        c.half_close()
        gateway.wait_status(lambda s: s["doors"]["websocket"]["clients"] == 1, "it waits")
        request.reply(key="k", value="the answer")
        self.assertIn(b"the answer", c.until(b"the answer"))
        gateway.wait_status(lambda s: s["doors"]["websocket"]["clients"] == 0, "it is gone")


class Dripping(GatewayCase):
    """Bytes one by one on each door cost a place, and the memory of what has come."""

    def test_each_door(self):
        service, gateway = self.scene()
        with gateway.client() as good:
            opened = [self.tcp(gateway) for _ in range(60)] + [self.http(gateway) for _ in range(60)]
            texts = [b"GET /record/" + b"x" * 1000, b"POST /record HTTP/1.1\r\nContent-Length: 60000\r\nHost: h\r\nContent-Type: application/json\r\nx-api-key: "
                     + LOCAL_KEY.encode() + b"\r\n\r\n", b'{"op":"set","key":"k","value":"', b"P", b"{"]
            for n in range(200):
                for i, c in enumerate(opened):
                    with contextlib.suppress(OSError): # it may have been told 401
                        c.send(texts[i % len(texts)][n:n + 1] or b"x")
                if n % 20 == 0:
                    self.assertEqual(200, good.ask(get("k"))["code"])
            status = good.ask({"op": "status"})
            self.assertGreater(status["clients"], 60)
            self.assertLess(good.ask({"op": "stats"})["stats"]["hpkvd_client_input_bytes"], 120 * 4096)

    @unittest.skipIf(sanitized(), "a sanitizer's memory says nothing")
    def test_lines_that_never_end_hold_no_more_than_the_bound(self):
        """max_line for each, and what the kernel holds."""
        n, line = 200, 65536
        with FakeService() as service, Daemon(service, level="info") as daemon, contextlib.ExitStack() as stack:
            clients = [stack.enter_context(daemon.client()) for _ in range(n)]
            for client in clients:
                client.barrier()
            before = daemon.process.resident_bytes()
            for _ in range(3):
                for client in clients:
                    client.fill(b"x" * 3 * line)
                with daemon.client() as other:
                    other.barrier()
            with daemon.client() as other:
                self.assertLessEqual(other.ask({"op": "stats"})["stats"]["hpkvd_client_input_bytes"], n * line)
            self.assertLess(daemon.process.resident_bytes() - before, n * 2 * line + mebibytes(4))


class Passing(Case):
    """What would be dear if it were done at once is done in steps, between which others are served."""

    def test_ranges_of_a_thousand_records_by_many(self):
        with Sandbox() as sandbox, Daemon(sandbox, mirror="m:*", level="notice") as daemon, daemon.client() as writer, contextlib.ExitStack() as stack:
            daemon.wait_state("connected")
            writer.send(*(put(f"m:{n}", "v" * 100, n) for n in range(1000)))
            self.assertEqual({200}, {a["code"] for a in writer.answers(1000)})
            daemon.wait_status(lambda s: s["cache"]["mirrors"][0] == {"pattern": "m:*", "state": "whole", "keys": 1000}, "a whole mirror")
            many = [stack.enter_context(daemon.client()) for _ in range(20)]
            for client in many:
                client.send(*({"op": "range", "key": "m:", "endKey": "m:~", "limit": 1000, "messageId": n} for n in range(100)))
            self.assertEqual(200, writer.ask(get("m:1"))["code"])
            # What they have not read is bounded by output_soft and an answer.
            with daemon.client() as other:
                unread = other.ask({"op": "stats"})["stats"]["hpkvd_client_output_bytes"]
            self.assertLess(unread, 20 * (262144 + 200000))


if __name__ == "__main__":
    unittest.main()
