"""Subscribers that read slowly, or not at all: what they miss is counted, and it is theirs alone."""

import collections
import json
import time

from harness import DEADLINE, WITHHELD, Case, Daemon, FakeService, Listener, eventually, sanitized, scene, steady

PAD = "x" * 1000


def fill(service, client, daemon, key="fill"):
    """Changes until the client's socket is full and more than output_soft (4K) waits behind it; how many."""
    n = 0
    conflated = daemon.stats()["notifications_conflated"]
    while daemon.stats()["notifications_conflated"] == conflated:
        for _ in range(20):
            service.publish(key, f"{n} {PAD}")
            n += 1
        service.all_told()
        assert n < 10000, "a client that does not read is told everything all the same"
    return n


class Conflated(Case):
    """Per key the latest change, with the number of those that it replaced."""

    def read_all(self, service, client):
        """All lines up to a change of a key of its own, which comes behind all that waits."""
        service.publish("end", "the end")
        lines = [client.line()]
        while json.loads(lines[-1]).get("value") != "the end":
            lines.append(client.line())
        client.barrier()
        return [line.decode() for line in lines[:-1]]

    def read_objects(self, service, client):
        return [json.loads(line) for line in self.read_all(service, client)]

    @scene(output_soft="4K")
    def test_skipped_counts_exactly(self, service, daemon, client):
        client.subscribe(pattern="*")
        n = fill(service, client, daemon)
        for i in range(10):
            for key in ("a", "b", "once")[:3 if i == 4 else 2]:
                service.publish(key, str(i))
        service.all_told()
        lines = self.read_objects(service, client)
        told = collections.Counter(line["key"] for line in lines)
        skipped = collections.Counter()
        for line in lines:
            skipped[line["key"]] += line.get("skipped", 0)
        self.assertEqual({"fill": n, "a": 10, "b": 10, "once": 1}, dict(told + skipped))
        self.assertEqual({"a": 9, "b": 9}, {k: skipped[k] for k in "ab"})
        last = {line["key"]: line for line in lines}
        self.assertEqual(("9", "9", "4"), (last["a"]["value"], last["b"]["value"], last["once"]["value"]))
        self.assertNotIn("skipped", last["once"])
        self.assertEqual(sum(skipped.values()), daemon.stats()["notifications_conflated"])
        numbers = [int(line["value"].split()[0]) for line in lines if line["key"] == "fill"]
        self.assertEqual(sorted(numbers), numbers)
        self.assertEqual(n - 1, numbers[-1])

    @scene(output_soft="4K")
    def test_what_is_not_skipped_is_unchanged(self, service, daemon, client):
        client.subscribe(pattern="*")
        fill(service, client, daemon)
        texts = ['{ "key":"\\u0061","type":"notification" ,"value":"\\u0000","timestamp":12345678901234567890 , "x":{} }',
                 '{"type":"notification","key":"b","value":1.0e3,"timestamp":1}']
        service.publish("b", "replaced")
        for key, text in zip("ab", texts):
            service.publish_text(key, text)
        service.all_told()
        lines = self.read_all(service, client)
        self.assertIn(texts[0], lines)
        self.assertIn(texts[1][:-1] + ',"skipped":1}', lines)

    @scene(output_soft="4K")
    def test_keys_keep_the_order_of_their_first_change(self, service, daemon, client):
        client.subscribe(pattern="*")
        fill(service, client, daemon)
        for key in ("c", "a", "b", "a", "c", "d", "b"):
            service.publish(key, "v")
        service.all_told()
        keys = [line["key"] for line in self.read_objects(service, client) if line["key"] != "fill"]
        self.assertEqual(["c", "a", "b", "d"], keys)

    @scene(output_soft="4K")
    def test_once_it_has_caught_up_nothing_is_skipped(self, service, daemon, client):
        client.subscribe(pattern="*")
        for _ in range(3):
            fill(service, client, daemon)
            self.read_objects(service, client)
            for i in range(50):
                service.publish("k", str(i))
                self.assertEqual(("k", str(i)), client.change())

    @scene(output_soft="4K")
    def test_after_unsubscribe_nothing_comes_of_what_waited(self, service, daemon, client):
        client.subscribe(keys=["fill", "a", "b", "end"], pattern="c*")
        fill(service, client, daemon)
        for key in ("a", "b", "c1"):
            service.publish(key, "v")
        service.all_told()
        client.send({"op": "unsubscribe", "keys": ["fill", "a"], "messageId": "ended"})
        service.publish("end", "the end")
        lines, missing = [], {"ended", "the end"}
        while missing: # which is first is open: while so much waits for it, the client is not read
            lines.append(client.answer())
            missing -= {lines[-1].get("messageId"), lines[-1].get("value")}
        client.barrier()
        place = next(i for i, line in enumerate(lines) if line.get("messageId") == "ended")
        self.assertLessEqual({line["key"] for line in lines[place + 1:]}, {"b", "c1", "end"})
        self.assertEqual(["b", "c1"], [line["key"] for line in lines if line.get("key") in ("b", "c1")])

    @scene(output_soft="4K", service=WITHHELD)
    def test_a_value_that_was_read_keeps_its_place_among_the_changes(self, service, daemon, client):
        """The last that is told of a key is the latest, be it a change or a value that the daemon has read."""
        client.subscribe(keys=["fill", "k", "end"])
        fill(service, client, daemon)
        service.publish("k", "1 before the reading")
        service.all_told()
        client.send({"op": "subscribe", "key": "k", "initial": True, "messageId": "again"})
        service.next_request().reply(value="2 as it was read")
        service.all_told()
        service.publish("k", "3 behind the reading")
        service.all_told()
        told = [line["value"] for line in self.read_objects(service, client) if line.get("key") == "k"]
        self.assertEqual(sorted(told), told)
        self.assertEqual("3 behind the reading", told[-1])

    @scene(output_soft="4K")
    def test_what_changed_during_a_loss_keeps_its_place_too(self, service, daemon, client):
        client.subscribe(keys=["fill", "k", "end"])
        fill(service, client, daemon)
        service.publish("k", "1 before the loss")
        service.all_told()
        service.answer = lambda request: request.reply(value="2 during the loss")
        service.connections[-1].reset()
        daemon.wait_status(lambda s: s["upstream"]["reconnects"] == 1 and s["subscriptions"]["live"]
                           and not s["subscriptions"]["rereading"], "all is read again")
        service.publish("k", "3 after the loss")
        service.all_told()
        lines = self.read_objects(service, client)
        self.assertEqual(["disconnected", "connected"], [line["state"] for line in lines if line["type"] == "connection"])
        told = [line["value"] for line in lines if line.get("key") == "k" and "value" in line]
        self.assertEqual(sorted(told), told)
        self.assertEqual("3 after the loss", told[-1])


class Dropped(Case):
    @steady(0.5) # it is given a second to take that
    @scene(output_soft="4K", output_hard="64K")
    def test_beyond_output_hard_with_a_last_line(self, service, daemon, client):
        with daemon.client() as deaf:
            deaf.subscribe(pattern="*")
            for n in range(2000): # different keys, so that nothing can be left out
                service.publish(f"k{n}", PAD)
                if n % 100 == 99:
                    service.all_told()
                    if daemon.stats()["clients_dropped_slow"]:
                        break
            self.assertEqual(1, daemon.stats()["clients_dropped_slow"])
            lines = []
            while not lines or lines[-1].get("reason") != "slow_client":
                lines.append(deaf.answer())
            self.assert_error(lines.pop(), 503, "slow_client", "no")
            self.assertTrue(deaf.at_end())
            self.assertEqual([f"k{i}" for i in range(len(lines))], [line["key"] for line in lines])
        daemon.wait_status(lambda s: s["subscriptions"]["total"] == 0 and s["clients"] == 2, "its subscription has ended")
        client.barrier()

    @scene(output_soft="4K", output_hard="64K")
    def test_if_it_does_not_take_that_it_is_gone_all_the_same(self, service, daemon, client):
        with daemon.client() as deaf:
            deaf.subscribe(pattern="*")
            for n in range(2000):
                service.publish(f"k{n}", PAD)
            service.all_told()
            began = daemon.status()["uptimeMs"]
            status = daemon.wait_status(lambda s: s["clients"] == 2, "it is gone")
            self.assertLess(status["uptimeMs"] - began, 1000 + DEADLINE * 250)
            eventually(lambda: not deaf._receive(), "the end")


class Others(Case):
    def test_a_hundred_get_everything_while_one_stops_reading(self):
        """... for ten seconds of changes, then it reads on, and ends up to date."""
        with FakeService() as service, Daemon(service, level="info", output_soft="64K") as daemon, \
                daemon.client() as slow:
            clients = [daemon.client() for _ in range(100)]
            for client in clients:
                client.subscribe(key="s")
            slow.subscribe(pattern="*")
            listeners = [Listener(client) for client in clients]
            n, began = 0, time.monotonic()
            while n < 3000 or time.monotonic() < began + 10:
                service.publish("s", f"{n} {PAD}")
                n += 1
                if n % 20 == 0: # as fast as all of them read, who share one interpreter with us
                    for listener in listeners:
                        listener.wait(lambda lines, n=n: len(lines) >= n, "the change")
            for listener in listeners:
                listener.wait(lambda lines: len(lines) >= n, "all changes")
                self.assertEqual(list(range(n)), [int(line["value"].split()[0]) for line in listener.lines])
            self.assertGreater(daemon.stats()["notifications_conflated"], 0)
            listener = Listener(slow)
            last = listener.find(value=f"{n - 1} {PAD}")
            self.assertEqual(n, len(listener.lines) + sum(line.get("skipped", 0) for line in listener.lines))
            self.assertIn("skipped", last)
            for client in clients:
                client.close()

    def memory_while(self, keys, size):
        """100 MB of changes of so many keys pass by one who never reads; its memory and the daemon's statistics."""
        with FakeService() as service, Daemon(service, level="info") as daemon, daemon.client() as client, \
                daemon.client() as deaf:
            client.subscribe(key="pace")
            deaf.subscribe(pattern="*")
            before = most = daemon.process.resident_bytes()
            pad = "x" * size
            for i in range(100_000_000 // size):
                service.publish(f"k{i % keys}", pad)
                if i % 500 == 499: # no faster than the daemon reads
                    service.all_told()
                    most = max(most, daemon.process.resident_bytes())
            service.publish("pace", "end")
            self.assertEqual(("pace", "end"), client.change())
            return max(most, daemon.process.resident_bytes()) - before, daemon.stats()

    def test_a_hundred_megabytes_of_few_keys_pass_one_who_never_reads(self):
        grown, stats = self.memory_while(keys=100, size=3000)
        if not sanitized(): # whose allocator keeps what is freed
            self.assertLess(grown, 40 << 20)
        self.assertEqual(0, stats["clients_dropped_slow"]) # it is told the latest of each, should it read
        self.assertGreater(stats["notifications_conflated"], 30000)

    def test_a_hundred_megabytes_of_many_keys_pass_one_who_never_reads(self):
        grown, stats = self.memory_while(keys=1_000_000, size=3000)
        if not sanitized(): # whose allocator keeps what is freed
            self.assertLess(grown, 40 << 20)
        self.assertEqual(1, stats["clients_dropped_slow"])

    @scene(output_soft="4K", output_hard="64K")
    def test_a_slow_one_is_answered_all_the_same(self, service, daemon, client):
        """Answers are not left out for changes that wait."""
        client.subscribe(pattern="*")
        fill(service, client, daemon)
        client.send(*({"op": "ping", "messageId": i} for i in range(50)))
        ids = []
        while len(ids) < 50:
            line = client.answer()
            if "messageId" in line:
                ids.append(line["messageId"])
        self.assertEqual(list(range(50)), ids)
