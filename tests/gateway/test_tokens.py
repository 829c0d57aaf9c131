"""Tokens at the WebSocket door: local ones, and those of the service that hpkvd remembers; what they let do, and when they end."""

import contextlib
import hashlib
import os
import shutil
import signal
import stat
import tempfile
import time
import unittest

from websocket import LOCAL_KEY, TEXT, Case, Gateway, Refused, Sandbox, eventually, frame, harness

APP_KEY = "the-local-key-of-an-application"
OWN_KEY = "the-local-key-of-a-web-backend"
ANY_KEY = "the-local-key-of-who-may-have-all"
BLIND_KEY = "the-local-key-of-who-only-writes"

SECTIONS = {
    "app": {"local_key_file": "app", "read": "app:* shared", "write": "app:*"},
    "own": {"local_key_file": "own", "read": "app:*", "write": "app:*", "token": "own"},
    "any": {"local_key_file": "any", "read": "*", "write": "*", "token": "any"},
    "blind": {"local_key_file": "blind", "write": "app:*"},
    "root": {"user": os.geteuid(), "read": "*", "write": "*"},
}
KEYS = {"app": APP_KEY, "own": OWN_KEY, "any": ANY_KEY, "blind": BLIND_KEY}


class TokenCase(Case):
    def by_token(self, gateway, token, **options):
        connection = gateway.ws(f"/ws?token={token}", **options)
        self.addCleanup(connection.close)
        return connection

    def assert_refused(self, status, gateway, token, **options):
        with self.assertRaises(Refused) as caught:
            self.by_token(gateway, token, **options)
        self.assertEqual(status, caught.exception.status, caught.exception.body)
        self.assertNotIn(token[8:] or "never", str(caught.exception.body))
        self.assertNotIn("sec-websocket-accept", caught.exception.headers)
        return caught.exception.body


class Shared(TokenCase):
    arguments, settings = (), {}

    @classmethod
    def setUpClass(cls):
        cls.service = Sandbox(*cls.arguments).__enter__()
        cls.addClassCleanup(cls.service.__exit__, None, None, None)
        cls.gateway = Gateway(cls.service, access=SECTIONS, keys=KEYS, **cls.settings).__enter__()
        cls.addClassCleanup(cls.gateway.__exit__, None, None, None)
        cls.gateway.wait_state("connected")

    def ask_for(self, key, **wish):
        return self.gateway.rest("POST", "/token/websocket", wish, key=key)

    def put(self, key, value="x"):
        with self.gateway.client() as c:
            self.assertEqual(200, c.ask({"op": "set", "key": key, "value": value})["code"])


class Local(Shared):
    def token(self, **wish):
        status, answer = self.ask_for(APP_KEY, **wish)
        self.assertEqual(200, status, answer)
        self.assertTrue(answer["token"].startswith("hpkvd1."))
        return answer["token"]

    def test_its_subscriptions_are_live_when_the_101_leaves(self):
        for i, unix in enumerate([False, True] * 5):
            ws = self.by_token(self.gateway, self.token(subscribeKeys=[f"app:l{i}", "shared"], subscribePatterns=[f"app:p{i}:*"]), unix=unix)
            self.put(f"app:l{i}", "1")
            self.put(f"app:p{i}:1", "2")
            self.put("app:none", "3")
            self.put("shared", "4")
            self.assertEqual([(f"app:l{i}", "1"), (f"app:p{i}:1", "2"), ("shared", "4")], [ws.notification() for _ in range(3)])

    def test_both_lists_may_have_keys_and_globs(self):
        ws = self.by_token(self.gateway, self.token(subscribeKeys=["app:g*"], subscribePatterns=["app:h"]))
        self.put("app:g1", "1")
        self.put("app:h", "2")
        self.assertEqual([("app:g1", "1"), ("app:h", "2")], [ws.notification(), ws.notification()])

    def test_what_it_may_not_hold(self):
        for wish in [{"subscribeKeys": ["other"]}, {"subscribePatterns": ["*"]}, {"subscribePatterns": ["ap*"]}, {"subscribePatterns": ["^app:"]},
                     {"subscribeKeys": ["app:1", "^app:"]}]:
            status, answer = self.ask_for(APP_KEY, **wish)
            self.assertEqual((403, "forbidden"), (status, answer["reason"]), wish)
        for wish in [{"accessPattern": "("}, {"accessPattern": "(?i)a"}, {"accessPattern": 7}, {"subscribeKeys": [f"app:{i:060}" for i in range(300)]}]:
            status, answer = self.ask_for(APP_KEY, **wish)
            self.assertEqual((400, "bad_request"), (status, answer["reason"]), wish)
        self.assertEqual(403, self.ask_for(BLIND_KEY)[0])

    def test_without_an_access_pattern_it_has_its_makers_rights(self):
        ws = self.by_token(self.gateway, self.token())
        self.assertEqual(200, ws.ask(op="set", key="app:w", value="1")["code"])
        self.assertEqual("1", ws.ask(op="get", key="app:w")["value"])
        for request in [{"op": "get", "key": "other"}, {"op": "set", "key": "shared", "value": "x"}, {"op": "range", "key": "a", "endKey": "z"},
                        {"op": "subscribe", "pattern": "*"}, {"op": "search", "body": {"query": "x"}}]:
            self.assertEqual(403, ws.ask(**request)["code"], request)
        self.assertEqual(200, ws.ask(op="subscribe", pattern="app:*")["code"])

    def test_an_access_pattern_bounds_its_operations(self):
        ws = self.by_token(self.gateway, self.token(subscribeKeys=["app:seen"], accessPattern="^app:[ab]$|^other$"))
        for key in "app:a", "app:b":
            self.assertEqual(200, ws.ask(op="set", key=key, value="1")["code"])
        self.assertEqual(200, ws.ask(op="subscribe", key="app:b")["code"])
        for request in [{"op": "get", "key": "app:seen"}, {"op": "set", "key": "app:c", "value": "x"}, {"op": "patch", "key": "app:ab", "value": "x"},
                        {"op": "delete", "key": "app:c"}, {"op": "increment", "key": "app:c"}, {"op": "get", "key": "other"},
                        {"op": "range", "key": "app:a", "endKey": "app:c"}, {"op": "range", "key": "app:0", "endKey": "app:b"},
                        {"op": "subscribe", "key": "app:c"}, {"op": "subscribe", "keys": ["app:a", "app:c"]}, {"op": "subscribe", "pattern": "app:a*"},
                        {"op": "subscribe", "patterns": ["app:a"]}, {"op": "token"}, {"op": "token", "local": True}]:
            answer = ws.ask(**request, messageId=1)
            self.assertEqual((403, "forbidden", "no", 1), tuple(answer[name] for name in ("code", "reason", "executed", "messageId")), request)
        self.put("app:seen", "1")
        self.assertEqual(("app:seen", "1"), ws.notification())  # the pattern does not bound what it is told

    def test_ranges_leave_out_what_does_not_match(self):
        for i in range(10):
            self.put(f"app:r{i}", f"{i}")
        ws = self.by_token(self.gateway, self.token(accessPattern="^app:r[13579]$"))
        answer = ws.ask(op="range", key="app:r1", endKey="app:r9", messageId="r")
        self.assertEqual([{"key": f"app:r{i}", "value": f"{i}"} for i in (1, 3, 5, 7, 9)], answer["records"])
        self.assertEqual((200, 5, False, "r"), tuple(answer[name] for name in ("code", "count", "truncated", "messageId")))
        answer = ws.ask(op=5, key="app:r1", endKey="app:r9", limit=3)
        self.assertEqual((["app:r1", "app:r3"], 2, True), ([record["key"] for record in answer["records"]], answer["count"], answer["truncated"]))

    def test_a_catastrophic_pattern_forbids_and_is_told_once(self):
        ws = self.by_token(self.gateway, self.token(accessPattern="^(app:)?(a+)+$"))
        told = b"takes too long to be matched"
        before = self.gateway.log().count(told)
        self.assertEqual(200, ws.ask(op="set", key="app:aaa", value="x")["code"])
        for _ in range(200):
            self.assertEqual(403, ws.ask(op="get", key="app:" + "a" * 400 + "!")["code"])
        self.assertEqual(403, ws.ask(op="get", key="app:aaa")["code"])
        self.assertEqual(before + 1, self.gateway.log().count(told))
        self.assertEqual("pong", ws.ask(op="ping")["message"])

    def test_bad_tokens_are_refused(self):
        token = self.token(subscribeKeys=["app:1"])
        head, payload, mac = token.split(".")
        with Sandbox() as service, Gateway(service) as elsewhere:
            foreign = elsewhere.token(subscribeKeys=["app:1"])
        for bad in ["nonsense", "hpkvd1.", "hpkvd1..", f"{head}.{payload}", f"{head}.{payload}.", f"{head}.{payload}.{mac}x", f"{head}.{payload[:-2]}.{mac}",
                    f"{head}.{payload}.{mac[:-1]}", f"{head}..{mac}", f"hpkvd2.{payload}.{mac}", foreign, "a.b.c", "%00", "%zz", token + "%00", "x" * 9000]:
            self.assert_refused(403, self.gateway, bad)
            self.assert_refused(403, self.gateway, bad, unix=True)
        self.by_token(self.gateway, token)
        self.by_token(self.gateway, token.replace(".", "%2E"))

    def test_lines_get_none_unless_they_ask_for_it(self):
        with self.gateway.client() as c:
            self.assert_error(c.ask({"op": "token"}), 403, "forbidden", "no")
            answer = c.ask({"op": "token", "local": True, "subscribeKeys": ["any"], "messageId": 1})
            self.assertEqual((200, 1), (answer["code"], answer["messageId"]))
        ws = self.by_token(self.gateway, answer["token"])
        self.put("any", "1")
        self.assertEqual(("any", "1"), ws.notification())


class OfTheService(Shared):
    def test_a_remembered_one_opens_the_door_here(self):
        status, answer = self.ask_for(OWN_KEY, subscribeKeys=["app:s"], subscribePatterns=["app:t*"])
        self.assertEqual(200, status, answer)
        self.assertFalse(answer["token"].startswith("hpkvd1."))
        ws = self.by_token(self.gateway, answer["token"])
        self.put("app:s", "1")
        self.put("app:t1", "2")
        self.assertEqual([("app:s", "1"), ("app:t1", "2")], [ws.notification(), ws.notification()])
        self.assertEqual(200, ws.ask(op="set", key="app:x", value="1")["code"])
        self.assertEqual(403, ws.ask(op="set", key="x", value="1")["code"])
        self.assert_refused(403, self.gateway, answer["token"][:-1])

    def test_one_that_was_asked_for_by_a_line_is_remembered_as_well(self):
        status, answer = self.ask_for(ANY_KEY, subscribePatterns=["app:*"], accessPattern="^app:only$")
        self.assertEqual(200, status, answer)
        ws = self.by_token(self.gateway, answer["token"])
        self.assertEqual(200, ws.ask(op="set", key="app:only", value="1")["code"])
        self.assertEqual(("app:only", "1"), ws.notification())
        self.assertEqual(403, ws.ask(op="get", key="app:other")["code"])

    def test_regular_expressions_are_the_services_alone(self):
        status, answer = self.ask_for(ANY_KEY, subscribePatterns=["^app:[0-9]+$"])
        self.assertEqual(200, status, answer)
        self.assertIn("regular expression", self.assert_refused(403, self.gateway, answer["token"])["error"])


class End(TokenCase):
    def test_a_token_ends_its_connection(self):
        with Sandbox("--token-ttl", "3") as service, Gateway(service, access=SECTIONS, keys=KEYS) as gateway:
            gateway.wait_state("connected")
            for _ in range(20):
                token = gateway.token(key=ANY_KEY, subscribeKeys=["a"])
                with contextlib.suppress(Refused): # this machine has stood still for as long as it was good
                    ws = self.by_token(gateway, token)
                    break
            else:
                self.fail("no token opens the door")
            self.assertEqual(1008, ws.wait_closed())
            self.assert_refused(403, gateway, token)

    def test_a_key_that_is_gone_takes_its_tokens_with_it(self):
        with Sandbox() as service, Gateway(service, access=SECTIONS, keys=KEYS) as gateway:
            gateway.wait_state("connected")
            token, of_another = gateway.token(key=APP_KEY, subscribeKeys=["app:1"]), gateway.token(key=OWN_KEY, subscribeKeys=["app:1"])
            ws, other = self.by_token(gateway, token), self.by_token(gateway, of_another)
            gateway.keys["app"] = "a-new-local-key-of-the-application"
            self.assertTrue(gateway.reload())
            self.assertEqual(1008, ws.wait_closed())
            self.assert_refused(403, gateway, token)
            self.assertEqual("pong", other.ask(op="ping")["message"])
            token = gateway.token(key=OWN_KEY) # of the service; it would need no right here
            gateway.keys["own"] = "a-new-local-key-of-the-web-backend"
            self.assertTrue(gateway.reload())
            self.assertEqual(1008, other.wait_closed())
            self.assert_refused(403, gateway, token)

    def pending(self, gateway, service, token):
        """An upgrade whose subscription waits for the service; the connection, which says nothing yet."""
        service.kill()
        gateway.wait_status(lambda status: status["upstream"]["state"] != "connected", "a lost connection")
        sock = gateway.tcp()
        self.addCleanup(sock.close)
        sock.sendall(f"GET /ws?token={token} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                     "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
        gateway.wait_status(lambda status: status["doors"]["http"]["clients"] == 1, "the connection")
        return sock

    def test_a_key_that_goes_while_an_upgrade_waits(self):
        for name, key in (("app", APP_KEY), ("own", OWN_KEY)):
            with Sandbox() as service, Gateway(service, access=SECTIONS, keys=KEYS, request_timeout="60s") as gateway:
                gateway.wait_state("connected")
                sock = self.pending(gateway, service, gateway.token(key=key, subscribeKeys=["app:1"]))
                gateway.keys[name] = "a-new-local-key-of-the-application"
                self.assertTrue(gateway.reload())
                self.assertEqual(b"", sock.recv(1000))

    def test_rights_that_change_while_an_upgrade_waits(self):
        with Sandbox() as service, Gateway(service, access=SECTIONS, keys=KEYS, request_timeout="60s") as gateway:
            gateway.wait_state("connected")
            sock = self.pending(gateway, service, gateway.token(key=APP_KEY, subscribeKeys=["app:1"]))
            self.assertTrue(gateway.reload(access=SECTIONS | {"app": {"local_key_file": "app", "read": "app:* shared new", "write": "app:*"}}))
            service.start()
            self.assertTrue(sock.recv(1000).startswith(b"HTTP/1.1 101 "))
            sock.sendall(frame(TEXT, b'{"op":"set","key":"app:1","value":"x"}') + frame(TEXT, b'{"op":"get","key":"new"}'))
            got = b""
            while b'"notification"' not in got or b"Record not found" not in got:
                self.assertTrue(more := sock.recv(1000), got)
                got += more

    def test_the_places_of_a_section_are_for_its_tokens_too(self):
        sections = {"app": {"local_key_file": "app", "read": "app:*", "max_clients": 2}, "own": SECTIONS["own"] | {"max_clients": 1}}
        with Sandbox() as service, Gateway(service, access=sections, keys=KEYS) as gateway:
            gateway.wait_state("connected")
            for key, room in ((APP_KEY, 2), (OWN_KEY, 1)):
                token = gateway.token(key=key, subscribeKeys=["app:1"])
                held = [self.by_token(gateway, token) for _ in range(room)]
                self.assertEqual("too_many_clients", self.assert_refused(503, gateway, token)["reason"])
                held.pop().close()
                eventually(lambda: self.gets_in(gateway, token))

    def gets_in(self, gateway, token):
        try:
            self.by_token(gateway, token).close()
            return True
        except Refused:
            return False

    def test_a_token_of_who_holds_the_last_place(self):
        sections = {"root": {"user": os.geteuid(), "read": "*", "write": "*", "max_clients": 2}}
        with Sandbox() as service, Gateway(service, access=sections | {"app": SECTIONS["app"]}, keys=KEYS) as gateway, gateway.client() as c:
            token = c.ask({"op": "token", "local": True, "subscribeKeys": ["a"]})["token"]
            ws = self.by_token(gateway, token, unix=True) # its own connection has the second one
            self.assertEqual("pong", ws.ask(op="ping")["message"])

    def test_timeoutMs_is_the_time_of_its_subscriptions(self):
        with Sandbox() as service, Gateway(service, request_timeout="60s") as gateway:
            gateway.wait_state("connected")
            token = gateway.token(subscribeKeys=["a"])
            service.kill()
            began = time.monotonic()
            self.assertEqual("upstream_down", self.assert_refused(503, gateway, f"{token}&timeoutMs=300")["reason"])
            self.assertLess(time.monotonic() - began, 50)
            self.assertIn("timeoutMs", self.assert_refused(400, gateway, f"{token}&timeoutMs=0")["error"])

    def test_rights_that_are_gone_are_gone_for_its_tokens(self):
        with Sandbox() as service, Gateway(service, access=SECTIONS, keys=KEYS) as gateway:
            gateway.wait_state("connected")
            token = gateway.token(key=APP_KEY, subscribeKeys=["app:1"])
            ws = self.by_token(gateway, token)
            gateway.reload(access=SECTIONS | {"app": {"local_key_file": "app", "read": "shared"}})
            self.assertEqual("app:1", ws.next()["key"])  # it is told that this has ended
            self.assertEqual(403, ws.ask(op="get", key="app:1")["code"])
            self.assert_refused(403, gateway, token)

    def test_the_groups_of_its_maker_count(self):
        """Also in a process that the kernel has told of nobody's groups."""
        harness.need_root()
        folder = tempfile.TemporaryDirectory(prefix="hpkvd-test-")
        self.addCleanup(folder.cleanup)
        env = {"STATE_DIRECTORY": folder.name}
        sections = {"app": SECTIONS["app"], "staff": {"group": 30001, "read": "staff:*"}}
        with Sandbox() as service:
            with Gateway(service, access=sections, keys=KEYS, env=env) as gateway:
                gateway.wait_state("connected")
                with gateway.client(who=(20001, 20001, [30000, 30001, *range(30100, 30150)])) as maker:
                    token = maker.ask({"op": "token", "local": True, "subscribeKeys": ["staff:1"]})["token"]
            with Gateway(service, access=sections, keys=KEYS, env=env) as gateway:
                gateway.wait_state("connected")
                ws = self.by_token(gateway, token)
                for read in ("staff:*", "staff:1", "staff:*"):
                    self.assertTrue(gateway.reload(access=sections | {"staff": {"group": 30001, "read": read}}))
                    self.assertEqual([404, 404 if read == "staff:*" else 403], [ws.ask(op="get", key=key)["code"] for key in ("staff:1", "staff:2")])
                with gateway.client(who=(20002, 20002, [30002])) as other:
                    self.assertEqual(403, other.ask({"op": "get", "key": "staff:1"})["code"])

    def test_no_service_no_101(self):
        with Sandbox() as service, Gateway(service, request_timeout="1s") as gateway:
            gateway.wait_state("connected")
            token = gateway.token(subscribeKeys=["a"])
            service.kill()
            body = self.assert_refused(503, gateway, token)
            self.assertEqual("upstream_down", body["reason"])
            service.start()
            gateway.wait_state("connected")

            def opens():
                with contextlib.suppress(Refused): # a service that stands still for a second has not made it live in time
                    return self.by_token(gateway, token)

            harness.eventually(opens, "a connection with the token")

    def test_a_token_without_subscriptions_needs_no_service(self):
        with Sandbox() as service, Gateway(service) as gateway:
            gateway.wait_state("connected")
            token = gateway.token()
            service.kill()
            self.assertEqual("pong", self.by_token(gateway, token).ask(op="ping")["message"])


class ReadOnly(Gateway):
    """One that may write only where its user may, though that is root."""

    def _with_etc(self, argv):
        if os.geteuid() == 0 and not shutil.which("setpriv"):
            raise unittest.SkipTest("there is no setpriv")
        return ["setpriv", "--bounding-set=-dac_override", *argv] if os.geteuid() == 0 else argv


class Secret(TokenCase):
    """Where tokens are signed with what."""

    def restarted(self, folder=None):
        """A daemon that makes a token, and another one in its place: is the token good there?"""
        env = {"STATE_DIRECTORY": folder} if folder else {}
        with Sandbox() as service:
            with Gateway(service, env=env) as gateway:
                token = gateway.token()
                self.by_token(gateway, token)
            with Gateway(service, env=env) as gateway:
                try:
                    self.by_token(gateway, token)
                    return True, gateway.log()
                except Refused:
                    return False, gateway.log()

    def folder(self):
        folder = tempfile.TemporaryDirectory(prefix="hpkvd-test-")
        self.addCleanup(folder.cleanup)
        return folder.name

    def test_without_a_state_directory_they_end_with_the_process(self):
        good, log = self.restarted()
        self.assertFalse(good)
        self.assertNotIn(b"local tokens end", log)

    def test_with_one_they_outlive_it(self):
        folder = self.folder()
        self.assertTrue(self.restarted(f"{folder}:/nonexistent")[0])
        self.assertEqual(["token-secret"], os.listdir(folder))
        state = os.stat(f"{folder}/token-secret")
        self.assertEqual((0o600, 32), (stat.S_IMODE(state.st_mode), state.st_size))

    def test_a_file_that_can_not_be_trusted_is_not_used(self):
        for content, mode in [(b"x" * 32, 0o644), (b"x" * 31, 0o600), (b"", 0o600)]:
            folder = self.folder()
            with open(f"{folder}/token-secret", "wb") as f:
                f.write(content)
            os.chmod(f"{folder}/token-secret", mode)
            good, log = self.restarted(folder)
            self.assertFalse(good)
            self.assertIn(b"local tokens end with this process: token-secret in $STATE_DIRECTORY can't be used", log)
            with open(f"{folder}/token-secret", "rb") as f:
                self.assertEqual(content, f.read())
        folder = self.folder()
        os.symlink("/dev/zero", f"{folder}/token-secret")
        self.assertFalse(self.restarted(folder)[0])

    def test_a_directory_that_can_not_be_used_is_told(self):
        told = b"warning: nothing outlives this process, neither tokens nor the learned pace: $STATE_DIRECTORY can't be used: "
        for name, why in (("/nonexistent/at/all", b"No such file or directory"), ("/dev/null", b"Not a directory"), ("/" + "x" * 5000, b"File name too long")):
            good, log = self.restarted(name)
            self.assertFalse(good)
            self.assertEqual(1, log.count(told + why), name)
        folder = self.folder()
        os.chmod(folder, 0o500)
        with Sandbox() as service, ReadOnly(service, env={"STATE_DIRECTORY": folder}) as gateway:
            self.assertEqual(1, gateway.log().count(told + b"Permission denied"))
        self.assertNotIn(told, self.restarted(self.folder())[1] + self.restarted()[1])


class Restarts(TokenCase):
    """Tokens of the service go on to the next process."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="hpkvd-test-")
        self.addCleanup(folder.cleanup)
        self.env = {"STATE_DIRECTORY": folder.name}
        self.file = f"{folder.name}/remembered-tokens"
        self.service = Sandbox().__enter__()
        self.addCleanup(self.service.__exit__, None, None, None)

    def start(self, service=None, *, keys=KEYS, env=None):
        gateway = Gateway(service or self.service, access=SECTIONS, keys=keys, env=self.env if env is None else env)
        gateway.__enter__()
        self.addCleanup(gateway.__exit__, None, None, None)
        gateway.wait_state("connected")
        return gateway

    def end(self, gateway):
        gateway.process.signal(signal.SIGTERM)
        self.assertEqual(0, gateway.process.wait_exit())

    def first(self, **options):
        """A token of a gateway that has ended."""
        gateway = self.start(**options)
        token = gateway.token(key=OWN_KEY, subscribeKeys=["app:1"], subscribePatterns=["app:p*"])
        self.end(gateway)
        return token

    def test_it_opens_the_door_of_the_next_one(self):
        token = self.first()
        for _ in range(3): # and of the one behind it
            gateway = self.start()
            ws = self.by_token(gateway, token)
            self.assertEqual(200, ws.ask(op="set", key="app:1", value="x")["code"])
            self.assertEqual(("app:1", "x"), ws.notification())
            self.assertEqual(403, ws.ask(op="set", key="x", value="1")["code"])
            self.end(gateway)
            self.assertEqual(0o600, stat.S_IMODE(os.stat(self.file).st_mode))
            with open(self.file, "rb") as f:
                text = f.read()
            for secret in token, OWN_KEY, self.service.key, hashlib.sha256(OWN_KEY.encode()).hexdigest():
                self.assertNotIn(secret.encode(), text)

    def test_a_restart_in_place_keeps_it(self):
        gateway = self.start()
        token = gateway.token(key=OWN_KEY, subscribeKeys=["app:1"])
        gateway.process.signal(signal.SIGUSR2)
        eventually(lambda: os.path.exists(self.file))
        self.assertEqual("pong", self.by_token(gateway, token).ask(op="ping")["message"])

    def test_not_without_its_key_or_its_service(self):
        token = self.first()
        gateway = self.start(keys=KEYS | {"own": "a-new-local-key-of-the-web-backend"})
        self.assert_refused(403, gateway, token)
        self.end(gateway)
        token = self.first()
        with Sandbox() as other:
            self.assert_refused(403, self.start(other), token)

    def test_not_without_a_state_directory(self):
        token = self.first(env={})
        self.assert_refused(403, self.start(env={}), token)

    def test_a_file_that_was_altered_is_not_used(self):
        for alter in (lambda text: text.replace(b"app:1", b"app:2"), lambda text: text[:-1], lambda text: b""):
            token = self.first()
            with open(self.file, "r+b") as f:
                text = alter(f.read())
                f.seek(0)
                f.write(text)
                f.truncate()
            gateway = self.start()
            self.assert_refused(403, gateway, token)
            self.assertIn(b"remembered-tokens in $STATE_DIRECTORY can't be used: was not written with this token-secret", gateway.log())
            self.end(gateway)
            self.assertFalse(os.path.exists(self.file))


if __name__ == "__main__":
    unittest.main()
