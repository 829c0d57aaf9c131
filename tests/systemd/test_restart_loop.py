"""while sleep 1; do systemctl restart hpkvd; done, on a real systemd (machine.py), beside all kinds of clients: none sees an error,
and what was told, written and counted fits together.

    hpkv watch        is told of the writer's key
    a program         uses libhpkv, from its event loop: subscribes to the same key, and reads it
    a writer          uses libhpkv: 200 writes a second to one key, each behind the other
    an SDK program    HPKV's published client through the gateway on TCP (sdk-loop.mjs); without npm it is left out
    Python, asyncio   the Python package's AsyncClient counts, several requests at a time

Environment: HPKVD_TEST_LOOP_S, how many seconds it takes (20). By hand, five minutes:

    HPKVD_TEST_LOOP_S=300 HPKVD_TEST_HANGS_AFTER=1200 make check TESTS=tests/systemd/test_restart_loop.py
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "cli"))
sys.path.insert(0, os.path.join(HERE, "..", "..", "bindings", "python"))
from cli import Driver, Run # noqa: E402 (the path comes first)
import hpkvd # noqa: E402
import test_units # noqa: E402
from harness import DEADLINE, ROOT, Sandbox, free_port # noqa: E402
from test_units import BUILD, SOCKET, MachineCase, client, setUpModule, show # noqa: E402,F401 (setUpModule is run by unittest)

SECONDS = float(os.environ.get("HPKVD_TEST_LOOP_S", 20))
RATE = 200
READ_S = 0.02
LOCAL_KEY = "a-local-key-of-some-length"
HTTP_SOCKET = """[Socket]
ListenStream=127.0.0.1:{port}
FileDescriptorName=http
Service=hpkvd.service
"""
PAUSE = r"the connection to hpkvd is lost: hpkvd is shutting down; trying again$|connected to hpkvd again; "
GOES_ON = "/run/hpkvd-loop" # in the machine
LOOP = f"while sleep 1 && [ -e {GOES_ON} ]; do systemctl restart hpkvd && echo restarted; done"


class Part(threading.Thread):
    """A client in a thread: step() again and again until it is told to end. What it raises is its fault."""

    def __init__(self):
        super().__init__(daemon=True)
        self.over, self.faults, self.longest_s = threading.Event(), [], 0.0

    def run(self):
        try:
            self.work()
        except Exception as fault: # noqa: BLE001 (whatever it is, the client has seen it)
            self.faults.append(f"{type(self).__name__}: {fault!r}")

    def end(self):
        self.over.set()
        self.join(2 * DEADLINE)
        if self.is_alive():
            self.faults.append(f"{type(self).__name__} does not end")


class Writer(Part):
    """Increments one key by libhpkv. Requests to one key take effect in their order: so the sums that it is told are 1, 2, 3, …"""

    def __init__(self, path):
        super().__init__()
        self.path, self.done = path, 0

    def work(self):
        with Driver(self.path) as driver:
            driver.tell("timeout", str(DEADLINE * 1000))
            sent, begin = [], time.monotonic()
            while not self.over.is_set() or self.done < len(sent):
                if not self.over.is_set() and len(sent) < (time.monotonic() - begin) * RATE:
                    sent.append(time.monotonic())
                    driver.tell("send", str(len(sent)), "increment", "writer")
                else:
                    driver.tell("readable")
                    driver.next("=")
                    time.sleep(0.5 / RATE)
                while driver.kept["a"]:
                    self.answered(driver.answer(), sent)

    def answered(self, answer, sent):
        name, answer = answer
        self.done += 1
        self.longest_s = max(self.longest_s, time.monotonic() - sent[int(name) - 1])
        if answer["result"] != "ok" or (int(name), int(answer["value"])) != (self.done, self.done):
            self.faults.append(f"writer, number {self.done}: {name} {answer}")


class Reader(Part):
    """Reads the writer's key, which only grows, and is told of its changes."""

    def __init__(self, path):
        super().__init__()
        self.path, self.done, self.events = path, 0, []

    def work(self):
        with Driver(self.path) as driver:
            driver.tell("timeout", str(DEADLINE * 1000))
            result = driver.do("subscribe", "0", "k:writer")
            if result[0] != "ok":
                self.faults.append(f"subscribe: {result}")
            value = 0
            while not self.over.wait(READ_S):
                begin = time.monotonic()
                answer = driver.call("get", "writer")
                self.longest_s = max(self.longest_s, time.monotonic() - begin)
                self.done += 1
                if answer["result"] != "ok" or int(answer["value"]) < value:
                    self.faults.append(f"read behind {value}: {answer}")
                else:
                    value = int(answer["value"])
            while not self.events or self.events[-1]["value"] != self.last:
                self.events.append(driver.event())
        self.faults += changes("libhpkv", [int(event["value"]) for event in self.events if event["type"] == "change"])


class Counter(Part):
    """Increments by the Python package, eight at a time."""

    LANES = 8

    def __init__(self, path):
        super().__init__()
        self.path, self.done = path, 0

    def work(self):
        asyncio.run(self.play())

    async def play(self):
        async with hpkvd.AsyncClient(self.path, timeout=DEADLINE) as counter:
            async def lane():
                while not self.over.is_set():
                    begin = time.monotonic()
                    await counter.increment("python")
                    self.longest_s = max(self.longest_s, time.monotonic() - begin)
                    self.done += 1
                    await asyncio.sleep(READ_S)

            await asyncio.gather(*(lane() for _ in range(self.LANES)))


class SdkProgram:
    """sdk-loop.mjs; or nothing, where npm can't install the client: then a reason says why."""

    def __init__(self, port):
        self.reason = self.process = None
        done = subprocess.run(["sh", "-c", '. "$SRCDIR/tests/npm/install.sh" && cp -f "$0" . && pwd', HERE + "/sdk-loop.mjs"],
                              env={**os.environ, "SRCDIR": ROOT, "BUILDDIR": os.path.abspath(BUILD)}, stdout=subprocess.PIPE,
                              check=False, text=True)
        if done.returncode == 77:
            self.reason = done.stdout.strip()
            return
        assert done.returncode == 0, done.stdout
        self.folder = done.stdout.splitlines()[-1]
        self.port = port

    def start(self):
        if self.reason:
            return
        self.process = subprocess.Popen(["node", "sdk-loop.mjs", f"http://127.0.0.1:{self.port}", LOCAL_KEY], cwd=self.folder,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "connected\n"

    def has_ended(self):
        return self.process is not None and self.process.poll() is not None

    def end(self):
        """What it has seen; None: it was left out."""
        if not self.process:
            return None
        said, _ = self.process.communicate(timeout=2 * DEADLINE)
        return json.loads(said)

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()


def changes(name, values):
    """What is wrong with the values of a key that only grows, as a subscriber was told them. Where it may have missed something it
    is told the present value, which may be the last one."""
    return [f"{name} was told {b} behind {a}" for a, b in zip(values, values[1:]) if b < a]


def run(*words):
    return test_units.machine.run(*words)


class RestartLoop(MachineCase):
    def setUp(self):
        machine = test_units.machine
        self.sandbox = self.enterContext(Sandbox())
        self.port = free_port()
        self.sdk = SdkProgram(self.port)
        self.addCleanup(self.sdk.kill)
        machine.write("/run/systemd/system/hpkvd-http.socket", HTTP_SOCKET.format(port=self.port))
        machine.write("/run/systemd/system/hpkvd.service.d/http.conf",
                      f"[Unit]\nRequires=hpkvd-http.socket\n[Service]\nLoadCredential=local-key:{test_units.config}/local-key\n")
        machine.write(test_units.config + "/local-key", LOCAL_KEY + "\n", 0o600)
        machine.write(test_units.config + "/hpkvd.conf", f"""[upstream]
url = {self.sandbox.url}
ca_file = ca.pem
backoff_min = 5ms
backoff_max = 50ms
[listen]
group = hpkv
local_key_file = local-key
[log]
level = notice
""")
        self.addCleanup(self.put_back)
        self.restore = [machine.path("/run/systemd/system/" + name) for name in ("hpkvd-http.socket", "hpkvd.service.d/http.conf")]
        run("systemctl", "daemon-reload")
        self.stop()
        machine.status("systemctl", "reset-failed", "hpkvd.service", "hpkvd.socket", "hpkvd-http.socket")
        run("systemctl", "start", "hpkvd.socket", "hpkvd-http.socket")
        self.path = machine.path(SOCKET)
        with client() as c:
            self.assert_connected(c)
            c.ask({"op": "set", "key": "writer", "value": "0"})

    def stop(self):
        run("systemctl", "stop", "hpkvd.service", "hpkvd.socket", "hpkvd-http.socket")

    def put_back(self):
        self.stop()
        for path in self.restore:
            os.unlink(path)
        shutil.rmtree(os.path.dirname(self.restore[1]), ignore_errors=True)
        run("systemctl", "daemon-reload")
        test_units.configure()

    def test_nobody_sees_an_error(self):
        parts = writer, reader, counter = Writer(self.path), Reader(self.path), Counter(self.path)
        with Run(self.path, "watch", "writer", "--json") as watch:
            for part in parts:
                part.start()
            self.sdk.start()
            watch.wait_output(rb'"notification"')
            restarts = self.restart_again_and_again(parts, self.sdk)
            writer.end()
            reader.last = str(writer.done)
            counter.end()
            reader.end()
            sdk = self.sdk.end()
            watch.wait_output(rb'"value":"?%d"?[,}]' % writer.done)
            self.assertIsNone(watch.process.poll())
        self.tell(restarts, watch, parts, sdk)
        self.assertEqual([], [fault for part in parts for fault in part.faults] + self.faults_of(watch) + (sdk["faults"] if sdk else []))
        self.assertEqual((writer.done, counter.done), (self.number_of("writer"), self.number_of("python")))
        if sdk:
            self.assertEqual(sdk["counted"], self.number_of("sdk"))
        self.assertEqual("0", show("NRestarts"))
        self.assertGreater(restarts, 0)

    @staticmethod
    def restart_again_and_again(parts, sdk):
        """Until the time is over, or somebody has seen a fault; returns how often."""
        machine, end = test_units.machine, time.monotonic() + SECONDS
        machine.write(GOES_ON, "")
        loop = machine.start("sh", "-c", LOOP)
        while time.monotonic() < end and not any(part.faults for part in parts) and not sdk.has_ended():
            time.sleep(0.1)
        os.unlink(machine.path(GOES_ON))
        said, _ = loop.communicate(timeout=DEADLINE)
        assert not said.replace(b"restarted\n", b""), said
        return said.count(b"restarted\n")

    @staticmethod
    def faults_of(watch):
        lines = [json.loads(line) for line in watch.output.splitlines()]
        states = [line["state"] for line in lines if line["type"] == "connection"]
        pairs = ["disconnected", "connected"] * (len(states) // 2)
        return changes("hpkv watch", [int(line["value"]) for line in lines if line["type"] == "notification"]) + \
            ([] if states == pairs else [f"hpkv watch was told {states}"]) + \
            [line for line in watch.errors.decode().splitlines() if not re.search(PAUSE, line)]

    @staticmethod
    def tell(restarts, watch, parts, sdk):
        writer, reader, counter = parts
        print(f"# {restarts} restarts; longest wait of a request, with those to repeat:",
              f"# writer: {writer.done} writes, {writer.longest_s:.3f} s",
              f"# reader: {reader.done} reads, {reader.longest_s:.3f} s; {len(reader.events)} events",
              f"# Python: {counter.done} increments, {counter.longest_s:.3f} s",
              f"# hpkv watch: {len(watch.output.splitlines())} lines",
              f"# SDK: {sdk}", sep="\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    unittest.main()
