"""The connection drops and comes back: what is sent again, what is not, and that the daemon never gives up."""

import collections
import os
import random
import re
import shutil
import ssl
import subprocess
import tempfile
import threading
import time

from harness import (KEY, WITHHELD, Case, Daemon, FakeService, Sandbox, black_hole, certs, eventually, free_port, get, need_mounts,
                     put, sanitized, scene, steady)


def requests_of(ops):
    members = {"set": {"value": "v"}, "patch": {"value": "v"}, "range": {"endKey": "z"}}
    return [{"op": op, "key": f"{op}-key", "messageId": op} | members.get(op, {}) for op in ops]


class Lost(Case):
    """What was on its way when the connection was lost."""

    @scene(service=WITHHELD)
    def test_writes_are_of_unknown_outcome_and_never_sent_again(self, service, daemon, client):
        ops = ["set", "patch", "delete", "increment"]
        client.send(*requests_of(ops))
        service.next_requests(4)
        service.connections[0].reset()
        answers = {a["messageId"]: a for a in client.answers(4)}
        for op in ops:
            self.assert_error(answers[op], 504, "outcome_unknown", "unknown", op)
        service.connection(2)
        client.send(get("later", "later"))
        service.next_request().reply(value="v")
        self.assertEqual("later", client.answer()["messageId"])
        self.assertEqual(5, len(service.requests))

    @scene(service=WITHHELD)
    def test_reads_are_sent_again_and_answered(self, service, daemon, client):
        client.send(*requests_of(["get", "range"]))
        before = service.next_requests(2)
        for n in range(2, 5):
            service.connections[-1].reset()
            service.connection(n)
            again = service.next_requests(2)
            self.assertEqual([(r.op, r.key) for r in before], [(r.op, r.key) for r in again])
            self.assertTrue({r.id for r in before}.isdisjoint({r.id for r in again}))
        for request in again:
            request.reply(value="at last", records=[])
        self.assertEqual({("get", 200), ("range", 200)}, {(a["messageId"], a["code"]) for a in client.answers(2)})
        client.barrier()
        self.assertEqual(6, daemon.stats()["requests_resent"])

    @scene(service=WITHHELD)
    def test_an_answer_under_the_old_id_is_for_nobody(self, service, daemon, client):
        client.send(get("k", 1))
        old = service.next_request()
        service.connections[0].reset()
        again = service.next_request()
        again.connection.send_text(f'{{"code":200,"messageId":{old.id},"value":"old"}}')
        again.reply(value="new")
        self.assertEqual("new", client.answer()["value"])
        client.barrier()

    @scene(service=WITHHELD)
    def test_without_ids_the_order_stays(self, service, daemon, client):
        client.send(get("0"), put("1", "v"), get("2"), put("3", "v"), get("4"), {"op": "ping"})
        service.next_requests(5)[4].reply(value="before the loss")
        client.barrier()
        service.connections[0].reset()
        for request in service.next_requests(2):
            request.reply(value=f"again {request.key}")
        answers = client.answers(6)
        self.assertEqual(["again 0", None, "again 2", None, "before the loss", None], [a.get("value") for a in answers])
        self.assertEqual(["outcome_unknown"] * 2, [answers[1]["reason"], answers[3]["reason"]])
        self.assertEqual("pong", answers[5]["message"])

    @scene(service=WITHHELD)
    def test_a_read_behind_which_a_write_was_sent_is_not_repeated(self, service, daemon, client):
        """It could see the write that came after it."""
        for write in ("set", "delete", "increment", "patch"):
            with self.subTest(write):
                request = requests_of([write])[0] | {"key": "same", "messageId": "write"}
                client.send(get("same", "get"), get("other", "other"), request)
                service.next_requests(3)
                service.connections[-1].reset()
                answers = {a["messageId"]: a for a in client.answers(2)}
                self.assert_error(answers["get"], 504, "outcome_unknown", "unknown", "get")
                self.assert_error(answers["write"], 504, "outcome_unknown", "unknown", "write")
                again = service.next_request()
                self.assertEqual("other", again.key)
                again.reply()
                self.assertEqual(("other", 200), ((a := client.answer())["messageId"], a["code"]))

    @scene(service=WITHHELD)
    def test_nor_if_that_write_was_answered(self, service, daemon, client):
        client.send(get("k", "get"), put("k", "v", "set"))
        service.next_requests(2)[1].reply(success=True)
        self.assertEqual(("set", 200), ((a := client.answer())["messageId"], a["code"]))
        service.connections[0].reset()
        self.assert_error(client.answer(), 504, "outcome_unknown", "unknown", "get")

    @scene(service=WITHHELD)
    def test_nor_if_the_key_was_escaped_otherwise(self, service, daemon, client):
        client.send('{"op":"get","key":"k\\u0065y","messageId":"get"}', put("key", "v", "set"))
        service.next_requests(2)
        service.connections[0].reset()
        self.assertEqual({"outcome_unknown"}, {a["reason"] for a in client.answers(2)})

    @scene(service=WITHHELD)
    def test_but_the_writes_of_others_and_earlier_ones_do_not_matter(self, service, daemon, client):
        with daemon.client() as other:
            client.send(put("k", "v", "set"), get("k", "get"))
            service.next_requests(2)
            other.send(put("k", "w", "set"))
            service.next_request()
            service.connections[0].reset()
            self.assert_error(client.answer(), 504, "outcome_unknown", "unknown", "set")
            self.assert_error(other.answer(), 504, "outcome_unknown", "unknown", "set")
            service.next_request().reply(value="again")
            self.assertEqual("again", client.answer()["value"])

    @scene(service=WITHHELD)
    def test_a_read_that_is_sent_again_stays_before_what_came_later(self, service, daemon, client):
        """Requests of one client for one key take effect in the order of asking, repeats included."""
        service.stop_listening()
        client.send(get("k", 1))
        service.next_request()
        service.connections[0].reset()
        daemon.wait_status(lambda s: s["upstream"]["state"] != "connected", "the loss is noticed")
        client.send(put("k", "v", 2), get("k", 3))
        client.barrier()
        service.listen()
        again = service.next_requests(3)
        self.assertEqual([1, 2, 1], [r.op for r in again])
        for request in again:
            request.reply()
        self.assertEqual([1, 2, 3], [client.answer()["messageId"] for _ in range(3)])

    @scene(service=WITHHELD)
    def test_a_read_that_is_sent_again_twice_stays_before_a_write_that_was_refused(self, service, daemon, client):
        """The rate limit has refused both, then the read is lost: of the two the write was sent earlier."""
        client.send(get("k", 1), put("k", "v", 2))
        for request in service.next_requests(2):
            request.reply_raw('{"code":429,"error":"Rate limit exceeded","messageId":<id>}')
        for _ in range(3):
            self.assertEqual(1, service.next_request().op)
            service.connections[-1].reset()
        service.next_request().reply(value="old")
        self.assertEqual("old", client.answer()["value"])
        service.next_request().reply(success=True)
        self.assertEqual(2, client.answer()["messageId"])

    @scene(service=WITHHELD, max_in_flight=4)
    def test_not_yet_sent_is_answered_after_the_reconnect(self, service, daemon, client):
        client.send(*(put(str(i), "v", i) for i in range(20)))
        service.next_requests(4)
        client.barrier()
        service.connections[0].reset()
        seen = {}
        for _ in range(16):
            request = service.next_request()
            seen[request.key] = seen.get(request.key, 0) + 1
            request.reply(success=True)
        answers = {a["messageId"]: a for a in client.answers(20)}
        for i in range(4):
            self.assert_error(answers[i], 504, "outcome_unknown", "unknown", i)
        self.assertEqual({str(i): 1 for i in range(4, 20)}, seen)
        self.assertEqual({200}, {answers[i]["code"] for i in range(4, 20)})

    @scene(service=WITHHELD, max_in_flight=1)
    def test_so_it_does_if_that_was_waiting_already(self, service, daemon, client):
        client.send(get("k", 1), put("k", "v", 2), get("other", 3))
        service.next_request()
        client.barrier()
        service.connections[0].reset()
        order = []
        for _ in range(3):
            request = service.next_request()
            order.append((request.op, request.key))
            request.reply()
        self.assertEqual([(1, "k"), (2, "k"), (1, "other")], order)
        self.assertEqual([1, 2, 3], [client.answer()["messageId"] for _ in range(3)])

    @scene(service=WITHHELD)
    def test_a_read_that_is_never_answered_ends_with_its_time(self, service, daemon, client):
        client.send(get("k", 1, timeoutMs=400))
        service.next_request()
        service.stop_listening()
        service.connections[0].reset()
        answer = client.answer()
        self.assertIn(answer["reason"], ("outcome_unknown", "timeout", "upstream_down"))
        service.listen()
        service.connection(2)
        client.barrier()
        self.assertTrue(service.no_more_requests())


class NothingTwice(Case):
    def test_writes_under_a_service_that_drops_at_random(self):
        """Each is executed at most once; "no" means never, 200 means once; each is answered once."""
        dice = random.Random(5)
        executed = collections.Counter()
        lock = threading.Lock()

        def answer(request):
            with lock:
                if request.op == 2:
                    executed[request.obj["value"]] += 1
                fate = dice.random()
            if fate < 0.02:
                request.connection.reset()
            elif fate < 0.04:
                request.connection.close(1001)
            else:
                request.reply(success=True)

        with FakeService(answer=answer) as service, \
                Daemon(service, backoff_min="1ms", backoff_max="5ms", level="info") as daemon:
            clients = [daemon.client() for _ in range(5)]
            for number, client in enumerate(clients):
                request = lambda i, key, n=number: put(key, f"{n}.{i}", i) if i % 3 else get(key, i)
                client.send(*(request(i, f"k{i % 7}") for i in range(400)))
            verdicts = {}
            for number, client in enumerate(clients):
                answers = client.answers(400)
                self.assertEqual(list(range(400)), sorted(a["messageId"] for a in answers))
                verdicts |= {f"{number}.{a['messageId']}": a for a in answers if a["messageId"] % 3}
                client.close()
            for value, a in verdicts.items():
                if a["code"] == 200:
                    self.assertEqual(1, executed[value], a)
                elif a["executed"] == "no":
                    self.assertEqual(0, executed[value], a)
                else:
                    self.assertEqual("outcome_unknown", a["reason"])
                    self.assertLessEqual(executed[value], 1, a)
            self.assertGreater(len(service.connections), 5)
            self.assertTrue(any(a["code"] == 504 for a in verdicts.values()))


class ForEver(Case):
    def test_a_service_that_is_killed_and_comes_back_again_and_again(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon, daemon.client() as client:
            for n in range(4):
                self.assertEqual(200, client.ask(put("k", str(n)))["code"])
                self.assertEqual(str(n), client.ask(get("k"))["value"])
                sandbox.kill()
                daemon.wait_status(lambda s: s["upstream"]["state"] != "connected", "the loss is noticed")
                client.send(get("k", n))
                client.barrier()
                sandbox.start()
                self.assertEqual((404, n), ((a := client.answer())["code"], a["messageId"])) # it has forgotten
            self.assertEqual(4, daemon.wait_state("connected")["upstream"]["reconnects"])

    @scene()
    def test_a_hundred_connections_leave_nothing_behind(self, service, daemon, client):
        """As many descriptors as before, and no more memory."""
        folder = f"/proc/{daemon.pid}/fd"
        if not os.access(folder, os.R_OK):
            self.skipTest("only root may look into a process that guards its memory")
        for n in range(1, 101):
            if n == 10:
                descriptors, memory = len(os.listdir(folder)), daemon.process.resident_bytes()
            service.connection(n).reset()
            service.connection(n + 1) # else the client would be on trial for the losses, with pauses
            self.assertEqual(200, client.ask(get("k"))["code"])
        daemon.wait_status(lambda s: s["clients"] == 2, "only we are left")
        self.assertLessEqual(len(os.listdir(folder)), descriptors + 1) # that of the last status client, perhaps
        if not sanitized(): # whose allocator keeps what is freed
            self.assertLess(daemon.process.resident_bytes() - memory, 4 << 20)

    def test_a_service_that_accepts_and_drops_is_not_hammered(self):
        """Backing off starts anew only after a connection that was stable: 30 pauses below 1 ms would take no time, but
        these double up to 200 ms, so that, with full jitter, they take 2 s; less than 0.7 s is no chance."""
        with FakeService() as service, Daemon(service, backoff_min="1ms", backoff_max="200ms") as daemon:
            service.connection(1)
            began = daemon.status()["uptimeMs"]
            for n in range(1, 31):
                service.connection(n).reset()
            service.connection(31)
            self.assertGreater(daemon.status()["uptimeMs"] - began, 700)

    @scene(connected=False, service={"upgrade": lambda event: (503, {"Retry-After": "1"}, b"later")})
    def test_an_overloaded_service_is_given_the_time_it_asks_for(self, service, daemon, client):
        refused = [] # when
        service.upgrade = lambda event: refused.append(time.monotonic()) or (503, {"Retry-After": "1"}, b"later")
        eventually(lambda: len(refused) >= 2, "another upgrade")
        self.assertIn("503", daemon.status()["upstream"]["lastError"])
        self.assertGreater(refused[1] - refused[0], 0.9) # though backoff_max is 50 ms
        service.upgrade = None
        self.assertEqual(200, client.ask(get("k"))["code"])

    def test_bad_keys(self):
        for status in (401, 403):
            refuse = lambda event, status=status: (status, {}, b"no " + event.target.encode())
            with FakeService(upgrade=refuse) as service, Daemon(service) as daemon, daemon.client() as client:
                upstream = daemon.wait_state("unauthorized")["upstream"]
                self.assertIn(str(status), upstream["lastError"])
                self.assertNotIn(KEY, upstream["lastError"])
                self.assert_error(client.ask(get("k", timeoutMs=100)), 503, "upstream_down", "no")
                service.upgrade = None # the key was put right
                self.assertEqual(200, client.ask(get("k"))["code"])
                self.assertEqual("connected", daemon.status()["upstream"]["state"])


class Refusals(Case):
    """What is no WebSocket is not taken for one, and the daemon tries again."""

    ANSWERS = {
        "no_http": b"SSH-2.0-OpenSSH_9.2\r\n",
        "not_upgraded": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        "no_content": b"HTTP/1.1 204 No Content\r\n\r\n",
        "server_error": b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        "redirect": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n",
        "another_protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        "no_accept": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "wrong_accept": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
        "endless_header": b"HTTP/1.1 101 Switching Protocols\r\nX: " + b"x" * 200000,
        "zeros": b"\0" * 5000,
    }

    def test_each(self):
        for name, text in self.ANSWERS.items():
            with self.subTest(name), FakeService(raw_upgrade=text) as service, \
                    Daemon(service, connect_timeout="300ms") as daemon, daemon.client() as client:
                service.wait(lambda: len(service.upgrades) >= 2, "a second attempt")
                status = daemon.status()
                self.assertNotEqual("connected", status["upstream"]["state"])
                self.assertTrue(status["upstream"]["lastError"])
                self.assertEqual(0, daemon.stats()["upstream_connects"])
                service.raw_upgrade = None
                self.assertEqual(200, client.ask(get("k"))["code"])

    def test_the_upgrade_names_host_and_path(self):
        with FakeService() as service:
            for suffix, path in (("", "/ws"), ("/", "/ws"), ("/ws", "/ws"), ("/some/where", "/some/where/ws")):
                with self.subTest(suffix), Daemon(service.url + suffix, key="a+b/c=d") as daemon:
                    daemon.wait_state("connected")
                    connection = service.connections[-1]
                    self.assertEqual(path + "?apiKey=a%2Bb%2Fc%3Dd", connection.target)
                    self.assertEqual(f"localhost:{service.port}", connection.host)

    def test_plain_on_loopback(self):
        with FakeService(tls=False) as service, Daemon(service) as daemon, daemon.client() as client:
            self.assertEqual(200, client.ask(get("k"))["code"])


class Certificates(Case):
    """The key never goes to whom we can't be sure of."""

    def never_connects(self, service, daemon, *words):
        with daemon.client() as client:
            service.wait(lambda: service.accepted >= 3, "three attempts")
            self.assert_error(client.ask(get("k", timeoutMs=20)), 503, "upstream_down", "no")
            upstream = daemon.status()["upstream"]
            self.assertIn(upstream["state"], ("connecting", "backoff"))
            self.assertNotIn(KEY, upstream["lastError"])
            # While another attempt is under way it says what was wrong with the last one, whichever address that was.
            telling = lambda status: re.search("|".join(words), status["upstream"]["lastError"].lower())
            daemon.wait_status(telling, "a telling error")
        self.assertEqual([], service.upgrades)
        self.assertNotIn(KEY.encode(), b"".join(service.bytes))

    def test_for_another_address(self):
        for host, name in (("127.0.0.2", "127.0.0.2"), ("::1", "[::1]")):
            with self.subTest(host=host), FakeService(host=host, name=name, cert="wrong") as service, Daemon(service) as daemon:
                self.never_connects(service, daemon, "ip address mismatch")

    def test_of_another_authority(self):
        with FakeService(name="127.0.0.1") as service, Daemon(service, ca_file=certs() + "/other-ca.pem") as daemon:
            self.never_connects(service, daemon, "certificate", "issuer", "self.signed")

    def test_of_the_systems_authorities_alone(self):
        """The real ones, which tests are spared elsewhere."""
        paths = ssl.get_default_verify_paths()
        env = {paths.openssl_cafile_env: paths.openssl_cafile, paths.openssl_capath_env: paths.openssl_capath}
        with FakeService(name="127.0.0.1") as service, Daemon(service, ca_file="", env=env) as daemon:
            self.never_connects(service, daemon, "certificate", "issuer", "self.signed")

    def test_the_systems_authorities_are_enough(self):
        """For the connection by the key, and for a token and the connection by it."""
        with FakeService() as service, Daemon(service, ca_file="", env={"SSL_CERT_FILE": certs() + "/ca.pem"}) as daemon:
            daemon.wait_state("connected")
            with daemon.client() as client:
                client.subscribe(key="k")

    def authorities(self, *names):
        """A folder in which OpenSSL finds these certificates by their hashes."""
        folder = tempfile.mkdtemp(prefix="hpkvd-test-")
        self.addCleanup(shutil.rmtree, folder)
        for name in names:
            shutil.copy(f"{certs()}/{name}.pem", folder)
        subprocess.run(["openssl", "rehash", folder], check=True)
        return folder

    def assert_trusted(self, cert, env):
        """For the connection by the key, and for a token and the connection by it."""
        with FakeService(cert=cert) as service, Daemon(service, ca_file="", env=env) as daemon:
            daemon.wait_state("connected")
            with daemon.client() as client:
                client.subscribe(key="k")

    def test_the_systems_folder_of_authorities_is_enough_and_its_bundle_not_read_then(self):
        bundle = os.path.join(self.authorities(), "bundle")
        os.mkfifo(bundle)  # to read it would take for ever
        for cert in ("server", "chain"):
            with self.subTest(cert=cert):
                self.assert_trusted(cert, {"SSL_CERT_DIR": self.authorities("ca", "other-ca"), "SSL_CERT_FILE": bundle})

    def test_an_authority_in_the_systems_bundle_alone_is_trusted(self):
        for cert in ("server", "chain"):
            for folder in (self.authorities("other-ca"), self.authorities(), "/nonexistent"):
                with self.subTest(cert=cert, folder=folder):
                    self.assert_trusted(cert, {"SSL_CERT_DIR": folder, "SSL_CERT_FILE": certs() + "/ca.pem"})

    def test_an_authority_in_neither_is_not_trusted(self):
        env = {"SSL_CERT_DIR": self.authorities("other-ca"), "SSL_CERT_FILE": certs() + "/other-ca.pem"}
        with FakeService(name="127.0.0.1", cert="chain") as service, Daemon(service, ca_file="", env=env) as daemon:
            self.never_connects(service, daemon, "certificate", "issuer")

    def test_for_another_name(self):
        with FakeService(cert="wrong") as service, Daemon(service) as daemon:
            self.never_connects(service, daemon, "host", "name")

    def test_expired(self):
        with FakeService(name="127.0.0.1", cert="expired") as service, Daemon(service) as daemon:
            self.never_connects(service, daemon, "expired")

    def test_right_for_an_address(self):
        with FakeService(name="127.0.0.1") as service, Daemon(service) as daemon:
            daemon.wait_state("connected")


class Addresses(Case):
    """Every address of a name is tried."""

    def connects(self, host, hosts):
        need_mounts()
        with FakeService(host=host, name="hpkv.test") as service, Daemon(service, hosts=hosts) as daemon, \
                daemon.client() as client:
            self.assertEqual(200, client.ask(get("k"))["code"])

    def test_only_the_first_listens(self):
        self.connects("127.0.0.1", "127.0.0.1 hpkv.test\n127.0.0.2 hpkv.test\n")

    def test_only_the_last_listens(self):
        self.connects("127.0.0.1", "".join(f"127.0.0.{i} hpkv.test\n" for i in (2, 3, 4, 5, 1)))

    def test_only_ipv4_listens(self):
        self.connects("127.0.0.1", "::1 hpkv.test\n127.0.0.1 hpkv.test\n")

    def test_only_ipv6_listens(self):
        self.connects("::1", "127.0.0.1 hpkv.test\n::1 hpkv.test\n")

    def test_the_url_has_an_address(self):
        """Its certificate is checked like a name's."""
        for host, name in (("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")):
            with self.subTest(host=host), FakeService(host=host, name=name) as service, Daemon(service) as daemon, \
                    daemon.client() as client:
                self.assertEqual(200, client.ask(get("k"))["code"])

    def test_one_of_them_says_nothing(self):
        """Its time is up, the next one's turn comes."""
        need_mounts()
        with FakeService(host="127.0.0.2", name="hpkv.test", silent=True) as mute, \
                FakeService(host="127.0.0.1", port=mute.port, name="hpkv.test") as service, \
                Daemon(service, hosts="127.0.0.2 hpkv.test\n127.0.0.1 hpkv.test\n", connect_timeout="8s") as daemon:
            daemon.wait_state("connected")
            self.assertEqual(1, mute.accepted)

    def test_one_of_them_is_a_black_hole(self):
        """Nothing comes back from it; it is given its time, and no more."""
        need_mounts()
        for dead, alive in (("127.0.0.2", "::1"), ("::1", "127.0.0.1")):
            with self.subTest(dead=dead), FakeService(host=alive, name="hpkv.test") as service, \
                    black_hole(dead, service.port), \
                    Daemon(service, hosts=f"{dead} hpkv.test\n{alive} hpkv.test\n", connect_timeout="8s") as daemon:
                daemon.wait_state("connected")
                self.assertEqual(0, daemon.stats()["upstream_connect_failures"])

    def test_a_changed_one_counts_from_the_next_connection_on(self):
        need_mounts()
        with FakeService(host="127.0.0.2", name="hpkv.test") as before, \
                FakeService(host="127.0.0.3", port=before.port, name="hpkv.test") as after, \
                Daemon(before, hosts="127.0.0.2 hpkv.test\n") as daemon, daemon.client() as client:
            self.assertEqual(200, client.ask(get("k"))["code"])
            with open(daemon.folder + "/hosts", "r+", encoding="ascii") as f: # which is what it sees as /etc/hosts
                f.write("127.0.0.3 hpkv.test\n")
            self.assertEqual(200, client.ask(get("k"))["code"])
            self.assertEqual(0, after.accepted)
            before.connections[0].reset()
            after.connection(1)
            self.assertEqual(200, client.ask(get("k"))["code"])
            self.assertEqual(1, len(before.connections))

    def test_a_certificate_is_checked_on_each(self):
        need_mounts()
        with FakeService(host="127.0.0.2", name="hpkv.test", cert="wrong") as impostor, \
                FakeService(host="127.0.0.1", port=impostor.port, name="hpkv.test") as service, \
                Daemon(service, hosts="127.0.0.2 hpkv.test\n127.0.0.1 hpkv.test\n") as daemon:
            daemon.wait_state("connected")
            self.assertEqual([], impostor.upgrades)

    def test_names_that_do_not_exist(self):
        need_mounts()
        with Daemon(f"https://nowhere.test:{free_port()}", hosts="127.0.0.1 localhost\n", resolv="",
                    connect_timeout="300ms") as daemon:
            upstream = daemon.wait_status(lambda s: s["upstream"]["lastError"], "an error")["upstream"]
            self.assertIn("nowhere.test", upstream["lastError"])


class Keepalive(Case):
    @scene(service={"answer": None, "pong": False}, keepalive="100ms")
    def test_a_mute_service_is_noticed(self, service, daemon, client):
        client.send(put("k", "v", 1))
        self.assert_error(client.answer(), 504, "outcome_unknown", "unknown", 1)
        connection = service.connection()
        connection.wait_gone()
        self.assertEqual(1, connection.pings)
        service.connection(2)
        self.assertIn("ping", daemon.status()["upstream"]["lastError"])

    @steady(0.1)
    @scene(service=WITHHELD, keepalive="400ms")
    def test_a_service_that_answers_pings_is_kept(self, service, daemon, client):
        connection = service.connection()
        service.wait(lambda: connection.pings >= 4, "pings")
        self.assertEqual(1, len(service.connections))
        self.assertGreaterEqual(daemon.stats()["upstream_pings"], 4)

    @steady(0.1)
    @scene(service={"pong": False}, keepalive="400ms")
    def test_while_answers_come_no_pings_are_needed(self, service, daemon, client):
        began = daemon.status()["uptimeMs"]
        while daemon.status()["uptimeMs"] - began < 1200:
            self.assertEqual(200, client.ask(get("k"))["code"])
        self.assertEqual(1, len(service.connections))

    @scene(service={"answer": None, "pong": False}, keepalive="100ms")
    def test_a_service_that_does_not_even_read(self, service, daemon, client):
        connection = service.connection()
        connection.may_read.clear()
        client.send(put("k", "v", 1))
        self.assertIn(client.answer()["reason"], ("outcome_unknown", "upstream_down"))
        service.connection(2)
        connection.may_read.set()
