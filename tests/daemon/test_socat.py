"""socat is a full client: nothing but lines, and the end of them."""

import json
import shutil
import subprocess
import unittest

from harness import DEADLINE, WITHHELD, Case, Daemon, Sandbox, get, scene

SOCAT = shutil.which("socat")


def socat(daemon, text, *options):
    """What echo TEXT | socat - UNIX-CONNECT:... prints."""
    run = subprocess.run([SOCAT, f"-t{DEADLINE}", *options, "-", f"UNIX-CONNECT:{daemon.socket}"], input=text.encode(),
                         capture_output=True, timeout=DEADLINE, check=True)
    assert run.stderr == b"", run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


@unittest.skipUnless(SOCAT, "socat is not installed")
class Socat(Case):
    def test_a_tour(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon:
            daemon.wait_state("connected")
            ask = lambda text: socat(daemon, text + "\n")
            self.assertEqual([200], [a["code"] for a in ask('{"op":"set","key":"greeting","value":"hello"}')])
            self.assertEqual(["hello"], [a["value"] for a in ask('{"op":"get","key":"greeting"}')])
            self.assertEqual([200], [a["code"] for a in ask('{"op":3,"key":"greeting","value":", world"}')])
            self.assertEqual(["hello, world"], [a["value"] for a in ask('{"op":"get","key":"greeting"}')])
            self.assertEqual([5], [a["newValue"] for a in ask('{"op":"increment","key":"n","value":5}')])
            records = ask('{"op":"range","key":"a","endKey":"z"}')[0]["records"]
            self.assertEqual([("greeting", "hello, world"), ("n", "5")], [(r["key"], str(r["value"])) for r in records])
            self.assertEqual([200], [a["code"] for a in ask('{"op":"delete","key":"greeting"}')])
            answer = ask('{"op":"get","key":"greeting","messageId":"gone"}')[0]
            self.assertEqual((404, "gone"), (answer["code"], answer["messageId"]))
            self.assertNotIn("reason", answer)

    def test_objects_are_merged_and_stored_as_their_own_text(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon:
            daemon.wait_state("connected")
            lines = ['{"op":"set","key":"o","value":{"a": 1.50, "b": {"c": [1, 2]}}}', '{"op":"get","key":"o"}',
                     '{"op":"patch","key":"o","value":{"b": {"d": true}}}', '{"op":"get","key":"o"}']
            answers = socat(daemon, "\n".join(lines))
            self.assertEqual('{"a":1.50,"b":{"c":[1,2]}}', answers[1]["value"])
            self.assertEqual({"a": 1.5, "b": {"c": [1, 2], "d": True}}, json.loads(answers[3]["value"]))

    @scene()
    def test_without_a_last_line_end(self, service, daemon, client):
        self.assertEqual([{"code": 200, "message": "pong"}], socat(daemon, '{"op":"ping"}'))

    @scene()
    def test_nothing(self, service, daemon, client):
        self.assertEqual([], socat(daemon, ""))

    @scene()
    def test_ten_thousand_lines(self, service, daemon, client):
        answers = socat(daemon, "".join(f'{{"op":"get","key":"{i}"}}\n' for i in range(10000)), "-t", str(DEADLINE))
        self.assertEqual([f"value of {i}" for i in range(10000)], [a["value"] for a in answers])

    @scene(service=WITHHELD)
    def test_it_ends_as_soon_as_the_last_answer_is_there(self, service, daemon, client):
        """Though socat itself would wait for long."""
        run = subprocess.Popen([SOCAT, "-t", "3600", "-", f"UNIX-CONNECT:{daemon.socket}"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
        run.stdin.write(b'{"op":"get","key":"a"}\n{"op":"get","key":"b"}\n')
        run.stdin.close()
        first, second = service.next_requests(2)
        second.reply(value="b")
        client.barrier()
        first.reply(value="a")
        self.assertEqual(["a", "b"], [json.loads(line)["value"] for line in run.stdout])
        self.assertEqual(0, run.wait(DEADLINE))
        run.stdout.close()

    @scene(service=WITHHELD)
    def test_whoever_half_closes_and_then_leaves_is_noticed(self, service, daemon, client):
        with daemon.client() as other:
            other.send(get("k", timeoutMs=600000))
            other.half_close()
            service.next_request()
            daemon.wait_status(lambda s: s["clients"] == 3, "it is waited for")
        daemon.wait_status(lambda s: s["clients"] == 2, "it has left")
