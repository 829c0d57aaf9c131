"""The notifications of two connections as one sequence: however late either of them is, clients are told each change
once, in the service's order."""

import itertools
import json
import threading

from wsproto.frame_protocol import Opcode

from harness import WITHHELD, Case, Daemon, FakeService, Listener, Stream, eventually, get, put, scene


def subscribe(**members):
    return {"op": "subscribe"} | members


class Unbroken(Case):
    """A stream of changes while connections take over that are not equally fast: no change is lost, told twice, or told
    out of order."""

    SLOW_MS = 2000

    def streams(self, old_is=None, new_is=None, handovers=1):
        """old_is, new_is: make a connection slow; the old one long before the other comes."""
        with FakeService(prepare=new_is) as service, Daemon(service) as daemon, daemon.client() as client, \
                daemon.client() as other:
            client.subscribe(key="s", pattern="t*", timeoutMs=60000)
            listener = Listener(client)
            with Stream(service, "s", "t1", "t2") as stream:
                if old_is:
                    old_is(service.connections[-1])
                for n in range(handovers):
                    stream.go_on()
                    other.subscribe(key=f"other {n}", timeoutMs=60000)
                stream.go_on()
            for connection in service.connections:
                connection.late_changes.wait()
                connection.late.wait()
            service.all_told()
            listener.barrier()
            for key in stream.keys:
                self.assertEqual([str(n) for n in range(stream.n)], listener.values(key))
            self.assertEqual([], listener.of_type("connection") + listener.of_type("gap"))
            self.assertEqual(handovers + 1, daemon.stats()["upstream_handovers"])

    @classmethod
    def slow(cls, connection):
        connection.late.ms = cls.SLOW_MS

    @classmethod
    def slow_changes(cls, connection):
        connection.late_changes.ms = cls.SLOW_MS

    def once(self, make_slow):
        """For the connection that takes over from the one that is there already."""
        return lambda connection: make_slow(connection) if len(connection.service.connections) == 2 else None

    def test_alike(self):
        self.streams(handovers=20)

    def test_the_new_one_is_slower(self):
        self.streams(new_is=self.once(self.slow))

    def test_only_the_new_ones_changes_are_slower(self):
        self.streams(new_is=self.once(self.slow_changes))

    def test_the_old_one_is_slower(self):
        self.streams(old_is=self.slow)

    @scene()
    def test_changes_that_the_old_ones_pong_has_overtaken(self, service, daemon, client):
        """A change that comes behind a later one is not told, but a gap is, and the value."""
        service.answer = lambda request: request.reply(value="10")
        client.subscribe(key="s")
        old = service.connections[-1]
        old.late_changes.ms = 2500 # so that they come behind the handover, though the machine stands still in it
        for n in range(10):
            service.publish("s", str(n))
        with daemon.client() as other:
            other.subscribe(key="x", timeoutMs=60000)
        service.publish("s", "10") # the old one is late with it too
        listener = Listener(client)
        listener.find(key="s", value="10")
        old.late_changes.wait()
        service.all_told()
        old.hang_up() # all that it could bring has come
        listener.find(type="gap", key="s")
        listener.find(key="s", value="10", resync=True)
        self.assertEqual(["10", "10"], listener.values("s"))

    def test_each_is_slow_in_turn(self):
        turn = itertools.cycle([5, 120, 0, 60])
        self.streams(new_is=lambda new: setattr(new.late, "ms", next(turn)), handovers=8)

    @scene()
    def test_changes_of_the_new_one_that_the_old_one_never_brings(self, service, daemon, client):
        """Of a key that only the new token has: live from the answer on, in order."""
        listener = Listener(client)
        with Stream(service, "a", "b", "c"):
            for key in "abc":
                self.assertEqual(200, listener.ask(subscribe(key=key), key)["code"])
                listener.wait(lambda lines, k=key: sum(x.get("key") == k for x in lines) >= 30, "thirty changes")
        service.all_told()
        listener.barrier()
        for key in "abc":
            values = [int(v) for v in listener.values(key)]
            self.assertEqual(list(range(values[0], values[0] + len(values))), values)
            first = next(line for line in listener.lines if key in (line.get("key"), line.get("messageId")))
            self.assertEqual({"code": 200, "messageId": key}, first)

    @scene()
    def test_equal_values_are_different_changes(self, service, daemon, client):
        """Only their timestamps tell them apart."""
        client.subscribe(key="s")
        listener = Listener(client)
        sent = []
        stop = threading.Event()

        def tell():
            while not stop.wait(0.001):
                sent.append(json.loads(service.publish("s", "same"))["timestamp"])

        thread = threading.Thread(target=tell, daemon=True)
        thread.start()
        with daemon.client() as other:
            for n in range(10):
                other.subscribe(key=f"k{n}")
        stop.set()
        thread.join()
        service.all_told()
        listener.barrier()
        self.assertEqual(sent, [line["timestamp"] for line in listener.of_type("notification")])


class Older(Case):
    """A connection that was left two handovers ago, and still has a request on its way, is late with what another one has
    told: that is nothing new."""

    def late(self, service, daemon, client, replace):
        """replace: takes another client, and puts the third connection in the place of the second, which ends."""
        client.subscribe(key="s")
        client.send(get("k", 1))
        service.next_request()
        listener = Listener(client)
        with daemon.client() as other:
            other.subscribe(key="x")
            told = service.publish("s", "told")
            listener.find(value="told")
            replace(other, listener)
            self.assertEqual(4, len(service.connections)) # with the one before there were subscriptions
            service.connections[1].send_change(told)
            service.publish("s", "last")
            service.all_told()
        daemon.wait_status(lambda s: s["subscriptions"]["rereading"] == 0, "all keys are read")
        listener.barrier()
        self.assertEqual(["told", "last"], listener.values("s"))

    @scene(service=WITHHELD)
    def test_when_the_one_behind_it_has_ended(self, service, daemon, client):
        def replace(other, listener):
            other.send(put("w", "v", 2))
            service.next_request()
            other.subscribe(key="y", messageId=3)
            service.connections[2].reset()
            self.assert_error(other.answer(), 504, "outcome_unknown", "unknown", 2)

        self.late(service, daemon, client, replace)

    @scene(service=WITHHELD)
    def test_when_the_one_behind_it_was_lost(self, service, daemon, client):
        def replace(other, listener):
            service.prepare = lambda connection: setattr(connection, "pong", False)
            other.send(subscribe(key="y"))
            third = service.connection(4)
            service.wait(lambda: third.pings, "a ping")
            service.answer = lambda request: request.reply(value="told")
            service.connections[2].reset()
            third.send_frame(Opcode.PONG, str(third.pings).encode())
            listener.find(type="connection", state="connected")

        self.late(service, daemon, client, replace)


class Faster(Case):
    @scene()
    def test_the_one_before_the_old_one_tells_it_first(self, service, daemon, client):
        """... while the old one is about to be replaced, which brings it too when it has been."""
        client.subscribe(key="s")
        listener = Listener(client)
        with daemon.client() as other:
            other.subscribe(key="x")
            before, old = service.connections[1:]
            old.pong = False
            pings = old.pings
            other.send(subscribe(key="y"))
            service.wait(lambda: old.pings > pings, "the ping to the old one")
            told = service.change("s", "told")
            before.send_change(told)
            listener.find(value="told")
            handovers = daemon.stats()["upstream_handovers"]
            old.send_frame(Opcode.PONG, str(old.pings).encode())
            eventually(lambda: daemon.stats()["upstream_handovers"] > handovers, "the handover")
            old.pong = None
            old.send_change(told)
            service.connections[-1].send_change(told)
            service.publish("s", "last")
            service.all_told()
        daemon.wait_status(lambda s: s["subscriptions"]["rereading"] == 0, "all keys are read")
        listener.barrier()
        self.assertEqual(["told", "last"], listener.values("s"))


class Early(Case):
    @scene()
    def test_what_was_told_before_a_connection_was_open_is_not_told_again(self, service, daemon, client):
        """... by that one, which the service knew already, when the one before it is lost."""
        client.subscribe(key="s")
        old = service.connections[-1]
        service.answer = lambda request: request.reply(value="told")
        service.prepare = lambda connection: setattr(connection.late, "ms", 2500)
        listener = Listener(client)
        with daemon.client() as other:
            other.send(subscribe(key="x"))
            service.connection(3)
            service.publish("s", "told")
            listener.find(value="told")
            old.reset()
            listener.find(type="connection", state="connected")
            service.publish("s", "last")
            service.all_told()
        daemon.wait_status(lambda s: s["subscriptions"]["rereading"] == 0, "all keys are read")
        listener.barrier()
        self.assertEqual(["told", "last"], listener.values("s"))
