"""All at once: clients of every kind, a service that fails in every way, and the promises still hold.

Each client checks that it got exactly one answer to each request, its own, in order where there is an order. In the
end what the service has executed is compared with what the clients were told."""

import collections
import json
import random
import threading
import time

from harness import DEADLINE, Case, Daemon, FakeService, get, put

SECONDS = 4
CLIENTS = 10


class Fate:
    """What the service does with each request, by lot."""

    def __init__(self, seed):
        self.dice = random.Random(seed)
        self.lock = threading.Lock()
        self.executed = collections.Counter()
        self.held = []

    def __call__(self, request):
        with self.lock:
            if request.op == 2:
                self.executed[request.obj["value"]] += 1
            lot = self.dice.random()
            if lot < 0.15:
                self.held.append(request)
            late = [self.held.pop(self.dice.randrange(len(self.held)))] if len(self.held) > 3 else []
        if 0.15 <= lot < 0.153:
            request.connection.reset()
        elif lot < 0.155:
            request.connection.close(1001)
        elif lot < 0.165:
            request.connection.send_text(f'{{"messageId":{request.id},"code":2') # broken
        elif lot < 0.175:
            request.connection.send_frame(2, b"\0\1")
        if lot >= 0.175:
            late.append(request)
        for answered in late:
            answered.reply(value=f"of {answered.key}", success=True)
            if answered.id % 7 == 0:
                answered.reply(value="again")


class Talker(threading.Thread):
    """Connects, asks, checks, leaves, and does so again until it is told to stop."""

    def __init__(self, number, daemon, until):
        super().__init__(daemon=True)
        self.dice = random.Random(number)
        self.number, self.daemon_process, self.until = number, daemon, until
        self.told = {} # of each set: its answer
        self.rounds = 0
        self.fault = None

    def run(self):
        try:
            while time.monotonic() < self.until:
                self.rounds += 1
                with self.daemon_process.client() as client:
                    self.round(client)
        except Exception as error: # told by the case, in its own thread
            self.fault = error

    def requests(self):
        for i in range(self.dice.choice([1, 3, 50, 300])):
            name = f"{self.number}.{self.rounds}.{i}"
            kinds = [get(name), put(name, name), {"op": "ping"}, {"op": "get"}]
            request = self.dice.choices(kinds, [45, 35, 10, 10])[0]
            if self.dice.random() < 0.5:
                request["messageId"] = i
            yield request | {"timeoutMs": self.dice.choice([1, 20, 200, 1000])}

    def round(self, client):
        requests = list(self.requests())
        data = "".join(json.dumps(r) + "\n" for r in requests).encode()
        if self.dice.random() < 0.15: # leaves in the middle
            client.send_raw(data[:self.dice.randrange(len(data))])
            return
        step, ends = self.dice.randrange(1, 5000), self.dice.random() < 0.5
        sender = threading.Thread(target=self.send, args=(client, data, step, ends), daemon=True)
        sender.start()
        self.check(client, requests)
        sender.join(DEADLINE)
        if ends:
            assert client.at_end(), "something behind the last answer"
        else:
            client.barrier()

    @staticmethod
    def send(client, data, step, ends):
        for i in range(0, len(data), step):
            client.send_raw(data[i:i + step])
        if ends:
            client.half_close()

    def check(self, client, requests):
        unnamed = collections.deque(r for r in requests if "messageId" not in r)
        named = {r["messageId"]: r for r in requests if "messageId" in r}
        while unnamed or named:
            answer = client.answer()
            request = named.pop(answer["messageId"]) if "messageId" in answer else unnamed.popleft()
            if request["op"] == "ping":
                assert answer.get("message") == "pong", (request, answer)
            elif "key" not in request:
                assert answer.get("reason") == "bad_request", (request, answer)
            elif answer["code"] == 200:
                assert answer["value"] == "of " + request["key"], (request, answer)
            else:
                assert answer["executed"] in ("no", "unknown"), (request, answer)
            if request["op"] == "set":
                self.told[request["value"]] = answer


class Storm(Case):
    def storm(self, **settings):
        fate = Fate(1)
        with FakeService(answer=fate) as service, \
                Daemon(service, level="info", backoff_min="1ms", backoff_max="20ms", **settings) as daemon:
            daemon.wait_state("connected")
            talkers = [Talker(n, daemon, time.monotonic() + SECONDS) for n in range(CLIENTS)]
            for talker in talkers:
                talker.start()
            for talker in talkers:
                talker.join(SECONDS + DEADLINE)
                self.assertFalse(talker.is_alive())
                if talker.fault:
                    raise talker.fault
            for talker in talkers:
                for value, answer in talker.told.items():
                    self.assertLessEqual(fate.executed[value], 1, answer)
                    if answer["code"] == 200:
                        self.assertEqual(1, fate.executed[value], answer)
                    elif answer["executed"] == "no":
                        self.assertEqual(0, fate.executed[value], answer)
            daemon.wait_status(lambda s: s["upstream"]["inFlight"] == s["upstream"]["queued"] == 0, "calm")
            self.assertGreater(len(service.connections), 3)

    def test_with_room(self):
        self.storm()

    def test_without(self):
        self.storm(max_in_flight=8, max_pipeline=5, output_soft="4K")
