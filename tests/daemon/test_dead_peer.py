"""Is the service alive? One that is not is noticed although no word of it comes; one that is is not given up."""

import os
import signal
import threading

from harness import DEADLINE, WITHHELD, Case, Daemon, FakeService, Sandbox, echo, eventually, get, put, scene, steady


class Dead(Case):
    """No FIN, no RST: the service has stopped, or the way to it is gone."""

    def test_a_stopped_process(self):
        with Sandbox() as sandbox, Daemon(sandbox, keepalive="2s") as daemon, daemon.client() as client:
            self.assertEqual(200, client.ask(put("k", "v"))["code"])
            sandbox.process.signal(signal.SIGSTOP)
            try:
                client.send(put("k", "w", "set"))
                self.assert_error(client.answer(), 504, "outcome_unknown", "unknown", "set")
                self.assertIn("ping", daemon.status()["upstream"]["lastError"])
            finally:
                sandbox.process.signal(signal.SIGCONT)
            self.assertEqual(200, client.ask(get("k"))["code"])

    def test_within_half_as_much_again_as_keepalive(self):
        """As the daemon itself counts it: how late a busy machine lets it be is not its fault."""
        with Sandbox() as sandbox, Daemon(sandbox, keepalive="2s") as daemon, daemon.client() as client:
            self.assertEqual(200, client.ask(put("k", "v"))["code"])
            sandbox.process.signal(signal.SIGSTOP)
            try:
                began = daemon.status()["uptimeMs"]
                daemon.wait_status(lambda s: s["upstream"]["state"] != "connected", "the loss is noticed")
                self.assertLess(daemon.status()["uptimeMs"] - began, 3000 + DEADLINE * 250)
            finally:
                sandbox.process.signal(signal.SIGCONT)

    @scene(service={"answer": None, "pong": False}, keepalive="200ms", max_in_flight=65535, max_pipeline=100000)
    def test_while_we_go_on_sending(self, service, daemon, client):
        """A request now and then, which the service reads, is no sign of life of it."""
        connection = service.connection()
        eventually(lambda: client.send(put("k", "v")) or connection.gone.wait(0.02), "the loss is noticed")
        self.assertIn("ping", daemon.wait_status(lambda s: s["upstream"]["lastError"])["upstream"]["lastError"])

    @scene(keepalive="1s")
    def test_while_another_connection_is_tried_again_and_again(self, service, daemon, client):
        """Each attempt makes the daemon look what has come on this one, and nothing has."""
        connection = service.connection()
        service.upgrade = lambda event: (503, {}, b"")
        client.send({"op": "subscribe", "key": "k", "timeoutMs": 600000})
        service.wait(lambda: len(service.upgrades) > 3, "attempts")
        connection.pong = False
        began = daemon.status()["uptimeMs"]
        connection.wait_gone()
        self.assertLess(daemon.status()["uptimeMs"] - began, 1500 + DEADLINE * 250)

    @scene(keepalive="1s", request_timeout="10m")
    def test_while_more_waits_than_it_reads(self, service, daemon, client):
        deaf = [] # the connection that has brought the first one

        def read_one(request):
            if not deaf:
                deaf.append(request.connection)
            if request.connection is deaf[0]:
                request.connection.may_read.clear()
            else:
                echo(request)
        service.answer = read_one
        thread = threading.Thread(target=client.send, args=[put("k", "x" * 60000, i) for i in range(300)], daemon=True)
        thread.start()
        service.wait(lambda: deaf and service.connections[-1] not in deaf, "another connection")
        self.assertIn("ping", daemon.wait_status(lambda s: s["upstream"]["lastError"])["upstream"]["lastError"])
        answers = client.answers(300)
        thread.join(DEADLINE)
        self.assertEqual(list(range(300)), sorted(a["messageId"] for a in answers))
        self.assertEqual({None, "outcome_unknown"}, {a.get("reason") for a in answers})
        deaf[0].may_read.set()

    @scene(service=WITHHELD | {"pong": False}, keepalive="200ms")
    def test_what_it_has_not_got_by_then_it_does_not_get_later(self, service, daemon, client):
        """It would be done behind what was asked for since."""
        service.answer = lambda request: request.connection.may_read.clear()
        thread = threading.Thread(target=client.send, args=[put("k", "x" * 60000, i) for i in range(300)], daemon=True)
        thread.start()
        service.wait(lambda: service.requests, "a request")
        connection = service.requests[0].connection
        service.answer = None
        daemon.wait_status(lambda s: s["upstream"]["state"] != "connected", "the loss is noticed")
        for c in service.connections:
            c.may_read.set()
        connection.wait_gone()
        self.assertIsInstance(connection.error, ConnectionResetError)


class Alive(Case):
    @steady(0.2)
    @scene(service=WITHHELD | {"pong": False}, keepalive="600ms")
    def test_a_message_that_comes_slowly(self, service, daemon, client):
        """A byte now and then is a sign of life, before the message is whole."""
        connection = service.connection()
        client.send(get("k", 1))
        request = service.next_request()
        text = f'{{"code":200,"messageId":{request.id},"value":"{"x" * 20}"}}'.encode()
        connection.send_bytes(bytes([0x81, len(text)]))
        for byte in text:
            began = daemon.status()["uptimeMs"]
            connection.send_bytes(bytes([byte]))
            while daemon.status()["uptimeMs"] - began < 40:
                pass
        self.assertEqual("x" * 20, client.answer()["value"])
        self.assertEqual(1, len(service.connections))

    @steady(0.1)
    @scene(keepalive="1s")
    def test_when_it_is_the_daemon_that_was_stopped(self, service, daemon, client):
        """For longer than a pong is waited for, at whatever moment: what has come meanwhile is read first."""
        for n in range(3):
            began = daemon.status()["uptimeMs"]
            while daemon.status()["uptimeMs"] - began < 350 * n: # somewhere between two pings
                pass
            daemon.process.signal(signal.SIGSTOP)
            os.waitpid(daemon.pid, os.WUNTRACED)
            threading.Event().wait(2.2)
            daemon.process.signal(signal.SIGCONT)
            self.assertEqual(200, client.ask(get("k"))["code"])
            pings = service.connections[0].pings
            service.wait(lambda: service.connections[0].pings > pings + 1, "pings")
        self.assertEqual(1, len(service.connections))
