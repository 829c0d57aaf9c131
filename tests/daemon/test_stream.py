"""The whole of it, with the sandbox: a key that changes as fast as it can be told, and a hundred reasons to miss one.

The writer keeps a window: it is never further ahead than what the slowest reader has read, so that nobody is too slow
and every change has to come, once, in order."""

import threading

from harness import DEADLINE, Case, Daemon, Listener, Sandbox, get, put

AHEAD = 100 # changes that may be on their way
HANDOVERS = 24 # of the daemon that is bothered most; the last are 2 s apart
RENEWALS = 10 # of the other one's token


class Reader(threading.Thread):
    """Reads the values of the keys s:…, each of which has to be the next one of its key."""

    def __init__(self, daemon, keys, subscriptions):
        super().__init__(daemon=True)
        self.client = daemon.client()
        self.client.subscribe(**subscriptions)
        self.last = dict.fromkeys(keys, 0)
        self.fault = None
        self.lines = 0
        self.grown = threading.Condition()

    def run(self):
        try:
            while True:
                line = self.client.answer()
                with self.grown:
                    self.check(line)
                    self.grown.notify_all()
        except Exception as error: # told by the case, in its own thread
            with self.grown:
                self.fault = error
                self.grown.notify_all()

    def check(self, line):
        assert set(line) == {"type", "key", "value", "timestamp"}, line
        key, value = line["key"], int(line["value"])
        assert value == self.last[key] + 1, f"{line} comes behind {self.last[key]}"
        self.last[key] = value
        self.lines += 1

    def wait(self, key, value):
        with self.grown:
            self.grown.wait_for(lambda: self.last[key] >= value or self.fault, DEADLINE)
            if self.fault:
                raise self.fault
            assert self.last[key] >= value, f"{key} stays at {self.last[key]}"


class Writer(threading.Thread):
    """Sets each key to 1, 2, 3 … in turn, at most AHEAD of the readers."""

    def __init__(self, daemon, keys, readers):
        super().__init__(daemon=True)
        self.client, self.keys, self.readers = daemon.client(), keys, readers
        self.value = 0 # the last that was set
        self.stop = threading.Event()
        self.fault = None

    def run(self):
        try:
            while not self.stop.is_set():
                values = range(self.value + 1, self.value + 1 + AHEAD // 2)
                self.client.send(*(put(key, str(value)) for value in values for key in self.keys))
                for answer in self.client.answers(len(values) * len(self.keys)):
                    assert answer["code"] == 200, answer
                for reader in self.readers:
                    for key in reader.last.keys() & self.keys:
                        reader.wait(key, values[-1] - AHEAD // 2)
                self.value = values[-1]
        except Exception as error: # as above
            self.fault = error


class Unbroken(Case):
    def stream(self, subscriptions):
        """Two daemons whose tokens are renewed, ten times of the one that is let alone; the other has clients that come and go.
        The service ends each of these tokens before the last renewal, but not so soon that it matters if the machine stands
        still for some seconds. subscriptions: keys that change, and what one reader of each daemon is subscribed to."""
        settings = {"level": "info", "token_lifetime": "3s"}
        keys = sorted({key for heard, _ in subscriptions for key in heard})
        with Sandbox("--token-ttl", "18") as sandbox, Daemon(sandbox, **settings) as busy, Daemon(sandbox, **settings) as calm, \
                Daemon(sandbox) as other:
            readers = [Reader(daemon, *s) for daemon in (busy, calm) for s in subscriptions]
            writer = Writer(other, keys, readers)
            for thread in (*readers, writer):
                thread.start()
            for n in range(HANDOVERS):
                with busy.client() as passer_by:
                    passer_by.subscribe(key=f"other:{n}", pattern=f"other:{n}:*")
                    if n % 3:
                        passer_by.unsubscribe()
            for n in range(1, RENEWALS + 1):
                calm.wait_status(lambda s, n=n: writer.fault or calm.stats()["tokens_minted"] > n + len(subscriptions),
                                 f"renewal {n}")
            writer.stop.set()
            writer.join(DEADLINE)
            if writer.fault:
                raise writer.fault
            for reader in readers:
                for key in reader.last:
                    reader.wait(key, writer.value)
                reader.client.send({"op": "ping", "messageId": "end"})
                reader.join(DEADLINE)
                self.assertIn("pong", str(reader.fault)) # the end: a line that is no change
                self.assertEqual(writer.value * len(reader.last), reader.lines)
            self.assertGreater(writer.value, 500)
            self.assertGreaterEqual(busy.stats()["upstream_handovers"], HANDOVERS)
            for daemon in (busy, calm):
                self.assertEqual(0, daemon.stats()["upstream_disconnects"])
                self.assertEqual(0, daemon.stats()["notifications_conflated"])

    def test_one_key(self):
        heard = ["s:1"]
        self.stream([(heard, {"key": "s:1"}), (heard, {"key": "s:1", "keys": ["s:x"]}), (heard, {"pattern": "s:*"})])

    def test_two_globs_and_a_key_that_overlap(self):
        """A change comes once, and each key has its own sequence."""
        self.stream([(["s:1", "s:12", "s:2"], {"key": "s:1", "patterns": ["s:1*", "s:*"]}),
                     (["s:1", "s:12", "s:2"], {"keys": ["s:1", "s:2"], "patterns": ["*2", "s:1*"]}),
                     (["s:12", "s:2"], {"key": "s:12", "patterns": ["*:*2", "s:2*"]})])


class Killed(Case):
    def test_the_sandbox_is_killed_in_mid_stream(self):
        """Between two losses the sequence is unbroken, and in the end all know the last value."""
        kills = 4
        with Sandbox() as sandbox, Daemon(sandbox, level="info") as daemon, daemon.client() as client, \
                daemon.client() as writer:
            listeners = [Listener(client)]
            self.assertEqual(200, listeners[0].ask({"op": "subscribe", "key": "s"}, "live")["code"])
            for n in range(1, 4):
                listeners.append(Listener(daemon.client()))
                subscription = {"op": "subscribe", "key": "s"} | ({"pattern": "s*"} if n == 3 else {})
                self.assertEqual(200, listeners[n].ask(subscription, "live")["code"])
            stop, written, fault = threading.Event(), [], []

            def write():
                value = 0
                while not stop.is_set():
                    value += 1
                    answer = writer.ask(put("s", str(value)))
                    if answer["code"] == 200:
                        written.append(value)
                    elif answer.get("reason") != "outcome_unknown":
                        fault.append(answer)
                        return

            thread = threading.Thread(target=write, daemon=True)
            thread.start()
            for n in range(1, kills + 1):
                for listener in listeners:
                    before = len(listener.lines)
                    listener.wait(lambda lines, b=before: len(lines) > b + 100, "changes")
                sandbox.kill()
                sandbox.start()
                for listener in listeners:
                    listener.wait(lambda lines, n=n: sum(x.get("state") == "connected" for x in lines) == n, "the return")
            for listener in listeners:
                before = len(listener.lines)
                listener.wait(lambda lines, b=before: len(lines) > b + 100, "changes")
            stop.set()
            thread.join(DEADLINE)
            self.assertEqual([], fault)
            with daemon.client() as reader:
                last = reader.ask(get("s"))["value"]
            self.assertEqual(str(written[-1]), last)
            for listener in listeners:
                listener.find(value=last)
                listener.barrier()
                self.check(listener, kills)
                listener.client.close()

    def check(self, listener, kills):
        told, broken = None, True # broken: something may be missing before the next
        states = []
        for line in listener.lines:
            if line.get("type") == "connection":
                states.append(line["state"])
                broken = True
            elif line.get("type") == "notification" and line["value"] is not None:
                value = int(line["value"])
                if "resync" in line or broken:
                    self.assertGreaterEqual(value, told or 0, line)
                else:
                    self.assertEqual(told + 1, value, line)
                # What comes behind a value that was read may have come about before it was.
                broken = broken and "resync" not in line and states[-1:] == ["disconnected"]
                told = value
        self.assertEqual(["disconnected", "connected"] * kills, states)
