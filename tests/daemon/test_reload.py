"""SIGHUP: new settings are taken over while clients and requests go on; wrong ones are not, none of them."""

import contextlib
import fcntl
import glob
import grp
import os
import re
import resource
import shutil
import signal
import socket
import stat
import tempfile
import unittest

from harness import (DEADLINE, KEY, UNSHARE, WITHHELD, Awaited, Case, Client, Daemon, FakeService, Listener, Stream,
                     Unprivileged, certs, eventually, get, need_mounts, need_root, put, scene)

OTHER_KEY = "an0th3r-k3y-th4t-must-stay-secret"


def only(key, status=401):
    """The upgrade of a service that knows this key, and the tokens that it has minted."""
    return lambda event: None if f"apiKey={key}" in event.target or "token=" in event.target else (status, {}, b"no")


def mint_for(key):
    return lambda request: (f"token-{request.number}" if request.headers["x-api-key"] == key else (401, {}, b"no"))


class Key(Case):
    """For another key another connection takes over, unnoticed by clients."""

    @scene(service=WITHHELD)
    def test_requests_on_their_way_are_answered(self, service, daemon, client):
        client.send(put("k", "v", 1))
        request = service.next_request()
        self.assertTrue(daemon.reload(key=OTHER_KEY))
        new = service.connection(2)
        self.assertIn(OTHER_KEY, new.target)
        eventually(lambda: daemon.stats()["upstream_handovers"] == 1, "the handover")
        client.send(get("k2", 2))
        self.assertIs(new, service.next_request().connection)
        self.assertTrue(request.connection.open)
        request.reply(code=200)
        self.assertEqual({"code": 200, "messageId": 1}, client.answer())
        request.connection.wait_gone()
        self.assertEqual(1000, request.connection.close_code)
        status = daemon.status()["upstream"]
        self.assertEqual(("connected", 0), (status["state"], status["reconnects"]))

    @scene()
    def test_subscribers_read_an_unbroken_sequence(self, service, daemon, client):
        client.subscribe(key="n", pattern="n*")
        reader = Listener(client)
        service.mint = mint_for(OTHER_KEY)
        with Stream(service, "n") as stream:
            stream.go_on()
            daemon.reload(key=OTHER_KEY)
            service.connection(3)
            eventually(lambda: daemon.stats()["upstream_handovers"] == 2, "the handover")
            stream.go_on()
        service.all_told()
        reader.wait(lambda lines: lines and lines[-1]["value"] == str(stream.n - 1), "the last change")
        self.assertEqual([str(i) for i in range(stream.n)], reader.values("n"))
        self.assertFalse([line for line in reader.lines if line["type"] != "notification"])
        self.assertEqual(OTHER_KEY, service.token_requests[-1].headers["x-api-key"])

    @scene(key=KEY)
    def test_the_same_key_makes_no_connection(self, service, daemon, client):
        daemon.reload(request_timeout="9s")
        self.assertEqual(9000, daemon.status()["limits"]["requestTimeoutMs"])
        self.assertEqual(200, client.ask(get("k"))["code"])
        self.assertEqual(1, len(service.upgrades))

    @scene()
    def test_a_wrong_one_leaves_the_old_connection_alone(self, service, daemon, client):
        service.upgrade = only(OTHER_KEY)
        self.assertTrue(daemon.reload(key="a-wr0ng-k3y", backoff_max="1h"))
        daemon.process.wait_output(rb"the service has refused the key from")
        self.assertEqual(200, client.ask(get("k"))["code"])
        status = daemon.status()["upstream"]
        self.assertEqual(("connected", 0), (status["state"], status["reconnects"]))
        self.assertIn("401", status["tokenError"])
        daemon.reload(key=OTHER_KEY)
        self.assertIn(OTHER_KEY, service.connection(2).target)
        eventually(lambda: client.ask(get("k")) and service.next_request().connection is service.connection(2), "the new one")
        self.assertIsNone(daemon.status()["upstream"]["tokenError"])

    @scene(connected=False, service={"upgrade": only(OTHER_KEY)}, backoff_min="1h", backoff_max="1h")
    def test_unauthorized_ends_at_once(self, service, daemon, client):
        daemon.wait_state("unauthorized")
        client.send(get("k", 1))
        daemon.reload(key=OTHER_KEY)
        self.assertEqual(200, client.answer()["code"])
        daemon.wait_state("connected")

    @scene(connected=False, service={"upgrade": only(OTHER_KEY)}, backoff_min="1h", backoff_max="1h")
    def test_unauthorized_is_tried_again_with_the_same_key(self, service, daemon, client):
        daemon.wait_state("unauthorized")
        service.upgrade = None # now it is known there, too
        daemon.hang_up()
        daemon.wait_state("connected")

    @scene(connected=False, service={"upgrade": lambda event: (500, {}, b"")}, backoff_min="1h", backoff_max="1h")
    def test_a_pause_ends_at_once(self, service, daemon, client):
        daemon.wait_state("backoff")
        service.upgrade = None
        daemon.hang_up()
        daemon.wait_state("connected")

    @scene()
    def test_while_another_handover_is_made(self, service, daemon, client):
        service.mint = lambda request: "never"
        client.send({"op": "subscribe", "key": "k", "messageId": "s"})
        service.wait_token_requests(1)
        service.mint = mint_for(OTHER_KEY)
        daemon.reload(key=OTHER_KEY)
        self.assertEqual({"code": 200, "messageId": "s"}, client.answer())
        service.publish("k", "v")
        self.assertEqual(("k", "v"), client.change())
        self.assertEqual([KEY, OTHER_KEY], [r.headers["x-api-key"] for r in service.token_requests])

    @scene()
    def test_again_and_again(self, service, daemon, client):
        client.subscribe(key="n")
        reader = Listener(client)
        with Stream(service, "n") as stream:
            for i in range(10):
                daemon.reload(key=f"{OTHER_KEY}-{i}")
                stream.go_on(10)
            eventually(lambda: service.token_requests[-1].headers["x-api-key"] == f"{OTHER_KEY}-9", "the last key")
            eventually(lambda: daemon.stats()["upstream_handovers"] >= 2, "a handover")
            stream.go_on()
        reader.wait(lambda lines: lines and lines[-1]["value"] == str(stream.n - 1), "the last change")
        self.assertEqual([str(i) for i in range(stream.n)], reader.values("n"))

    @scene()
    def test_neither_key_is_shown(self, service, daemon, client):
        daemon.reload(key=OTHER_KEY)
        service.connection(2)
        said = daemon.log() + str((daemon.status(), daemon.stats())).encode()
        self.assertIn(b"[upstream] api_key_file", said)
        self.assertNotIn(KEY.encode(), said)
        self.assertNotIn(OTHER_KEY.encode(), said)


class Address(Case):
    @scene()
    def test_another_url_takes_over(self, service, daemon, client):
        client.subscribe(key="k")
        with FakeService() as other:
            daemon.reload(url=other.url)
            other.connection(1)
            eventually(lambda: daemon.status()["upstream"]["url"] == other.url, "the handover")
            self.assertEqual(200, client.ask(get("k", "g"))["code"])
            self.assertEqual("k", other.next_request().obj["key"])
            other.publish("k", "v")
            self.assertEqual(("k", "v"), client.change())
            self.assertEqual(["k"], other.token_requests[0].list)
            service.connection(2).wait_gone()
            daemon.process.signal(signal.SIGTERM)
            other.hang_up()

    @scene()
    def test_one_that_nobody_answers_at_leaves_the_old_alone(self, service, daemon, client):
        daemon.reload(url="https://localhost:1")
        eventually(lambda: daemon.status()["upstream"]["tokenError"], "what became of it")
        self.assertEqual(200, client.ask(get("k"))["code"])
        self.assertEqual(service.url, daemon.status()["upstream"]["url"])
        daemon.reload(url=service.url)
        service.connection(2)

    @scene()
    def test_another_certificate_authority(self, service, daemon, client):
        """In the same file. The old connection is not checked again; the new one is checked against the new content."""
        ca = daemon.folder + "/ca.pem"
        shutil.copy(certs() + "/ca.pem", ca)
        daemon.reload(ca_file=ca)
        self.assertEqual(1, len(service.upgrades)) # the same authority
        shutil.copy(certs() + "/other-ca.pem", ca)
        daemon.reload()
        eventually(lambda: "certificate" in str(daemon.status()["upstream"]["tokenError"]), "the refusal")
        self.assertEqual(200, client.ask(get("k"))["code"])
        shutil.copy(certs() + "/ca.pem", ca)
        daemon.reload()
        service.connection(2)

    @scene()
    def test_tokens_of_another_kind(self, service, daemon, client):
        client.subscribe(key="k")
        daemon.reload(access_pattern="^app:", subscribe_field="subscribePatterns")
        request = service.wait_token_requests(2)
        self.assertEqual({"subscribePatterns": ["k"], "accessPattern": "^app:"}, request.obj)

    @scene(token_lifetime="2h")
    def test_a_shorter_life_renews_the_token_at_once(self, service, daemon, client):
        client.subscribe(key="k")
        self.assertGreater(daemon.status()["upstream"]["tokenExpiresInMs"], 7_000_000)
        daemon.reload(token_lifetime="1s")
        service.wait_token_requests(2)


class Wrong(Case):
    """Nothing of it is taken over."""

    def assert_refused(self, daemon, pattern, **settings):
        before, log = daemon.status()["limits"], len(daemon.log())
        self.assertFalse(daemon.reload(max_pipeline=7, **settings))
        self.assertRegex(daemon.log()[log:].decode(), pattern)
        self.assertEqual(before, daemon.status()["limits"])

    @scene()
    def test_settings(self, service, daemon, client):
        self.assert_refused(daemon, r"hpkvd.conf:\d+: \[listen\] max_line: 'much' is not a size", max_line="much")
        self.assert_refused(daemon, r"hpkvd.conf:\d+: \[upstream\] colour: there is no such setting", max_line=None, colour="red")
        self.assertTrue(daemon.reload(colour=None))
        self.assertEqual(7, daemon.status()["limits"]["maxPipeline"])
        self.assertEqual(200, client.ask(get("k"))["code"])
        self.assertEqual(1, len(service.upgrades))

    @scene()
    def test_no_file(self, service, daemon, client):
        os.unlink(daemon.folder + "/hpkvd.conf")
        self.assertFalse(daemon.hang_up())
        self.assertIn(b"hpkvd.conf: cannot be read: No such file", daemon.log())
        self.assertEqual(200, client.ask(get("k"))["code"])

    def test_a_file_that_is_about_to_be_written(self):
        """Many programs empty a file first. With the rest in the environment there would be nothing wrong without it, and no rules."""
        with FakeService(tls=False) as service, Daemon(service, key_from="environment", env={"HPKV_BASE_URL": service.url},
                                                       access={"nobody": {"user": 1}}) as daemon:
            with daemon.client() as client:
                self.assertEqual(403, client.ask(get("k"))["code"])
                with open(daemon.folder + "/hpkvd.conf", "w", encoding="ascii"):
                    self.assertFalse(daemon.hang_up())
                self.assertIn(b"hpkvd.conf: is empty, and was not before: is it being written?", daemon.log())
                self.assertEqual(403, client.ask(get("k"))["code"])

    def test_a_file_that_nobody_writes_to(self):
        """A FIFO, as the shell's <(...) is one, has been read to its end at the start."""
        with FakeService() as service, Awaited(service) as daemon:
            daemon.feed()
            with daemon.client() as client:
                self.assertFalse(daemon.hang_up())
                self.assertIn(b"hpkvd.conf: is empty, and was not before", daemon.log())
                client.barrier()

    @scene()
    def test_a_file_that_everybody_can_write_is_told_of(self, service, daemon, client):
        os.chmod(daemon.folder + "/hpkvd.conf", 0o666)
        self.assertTrue(daemon.hang_up() is not None)
        daemon.process.wait_output(rb"warning: \S+/hpkvd.conf can be written by everybody")

    @scene()
    def test_trust_anchors_that_everybody_can_write_are_told_of(self, service, daemon, client):
        shutil.copy(certs() + "/ca.pem", daemon.folder)
        os.chmod(daemon.folder + "/ca.pem", 0o646)
        self.assertTrue(daemon.reload(ca_file="ca.pem"))
        daemon.process.wait_output(rb"warning: \S+/ca.pem can be written by everybody, who could have the key sent anywhere")
        self.assertNotIn(b"belongs to another user", daemon.log())
        self.assertNotIn(b"hpkvd.conf can be", daemon.log())

    @scene()
    def test_files_of_another_user_are_told_of(self, service, daemon, client):
        need_root()
        shutil.copy(certs() + "/ca.pem", daemon.folder)
        daemon.change(ca_file="ca.pem")
        for name in ("ca.pem", "hpkvd.conf"):
            os.chown(f"{daemon.folder}/{name}", 20001, -1)
        self.assertTrue(daemon.hang_up())
        for name in (b"ca.pem", b"hpkvd.conf"):
            daemon.process.wait_output(rb"warning: \S+/" + name + rb" belongs to another user, who could have the key sent anywhere: chown")
        self.assertNotIn(b"written by everybody", daemon.log())

    def test_a_key_that_others_can_read_before_it_is_a_credential_is_told_of(self):
        with FakeService() as service, tempfile.TemporaryDirectory() as credentials:
            shown = Daemon(service, env={"CREDENTIALS_DIRECTORY": credentials})
            with open(os.open(credentials + "/api-key", os.O_CREAT | os.O_WRONLY, 0o400), "w", encoding="ascii") as f:
                f.write(shown.key)
            with shown as daemon:
                self.assertNotIn(b"chmod o=", daemon.log())
                os.chmod(daemon.folder + "/api-key", 0o644)
                daemon.hang_up()
                daemon.process.wait_output(rb"warning: \S+/api-key can be used by others than its owner and group: chmod o=")

    @scene()
    def test_a_key_that_others_can_read(self, service, daemon, client):
        daemon.change(key=OTHER_KEY)
        os.chmod(daemon.folder + "/api-key", 0o644)
        self.assertFalse(daemon.hang_up())
        self.assertEqual(200, client.ask(get("k"))["code"])
        self.assertEqual(1, len(service.upgrades))

    @scene()
    def test_a_socket_that_another_daemon_has(self, service, daemon, client):
        with Daemon(service) as other:
            former = daemon.socket
            self.assert_refused(daemon, "another daemon is listening there", socket=other.socket)
            with other.client() as c:
                self.assertEqual(other.pid, c.ask({"op": "status"})["pid"])
            daemon.change(socket=former)

    @scene()
    def test_a_group_that_is_not_there(self, service, daemon, client):
        self.assert_refused(daemon, r"\[listen\] group: there is no group 'nobodies'", group="nobodies")


class Socket(Case):
    @scene()
    def test_it_moves(self, service, daemon, client):
        """Connected clients stay. Clients that wait to be accepted are accepted, even if they are more than one turn accepts."""
        daemon.process.signal(signal.SIGSTOP)
        waiting = [daemon.client() for _ in range(200)]
        for c in waiting:
            self.addCleanup(c.close)
            c.send({"op": "ping", "messageId": "waited"})
        daemon.change(socket=daemon.folder + "/other")
        daemon.process.signal(signal.SIGHUP)
        daemon.process.signal(signal.SIGCONT)
        for c in waiting:
            self.assertEqual("waited", c.answer()["messageId"])
        former, daemon.socket = daemon.socket, daemon.folder + "/other"
        eventually(lambda: os.path.exists(daemon.socket) and not os.path.exists(former), "the move")
        self.assertEqual(200, client.ask(get("k"))["code"])
        self.assertEqual(202, daemon.status()["clients"])

    @scene()
    def test_it_comes_back_when_somebody_has_removed_it(self, service, daemon, client):
        os.unlink(daemon.socket)
        self.assertTrue(daemon.hang_up())
        with daemon.client() as other:
            other.barrier()
        client.barrier()

    def test_those_who_waited_do_not_get_the_last_descriptors(self):
        """Else there would be none left to read new settings with, or to connect to the service."""
        for moves in (False, True):
            with self.subTest(moves=moves), FakeService() as service, Daemon(service, nofile=200) as daemon, \
                    contextlib.ExitStack() as stack:
                daemon.wait_state("connected")
                daemon.process.signal(signal.SIGSTOP)
                waiting = [stack.enter_context(daemon.client()) for _ in range(250)]
                if moves:
                    daemon.change(socket=daemon.folder + "/other")
                daemon.process.signal(signal.SIGHUP)
                daemon.process.signal(signal.SIGCONT)
                daemon.process.wait_output(rb"new settings are in force" if moves else rb"no setting has changed")
                for client in waiting[:150]:
                    client.barrier()
                self.assertLess(waiting[0].ask({"op": "stats"})["stats"]["process_open_fds"], 185)
                self.assertTrue(daemon.reload(key=OTHER_KEY))
                service.connection(2)
                if moves: # the others have to come again
                    self.assertTrue(waiting[-1].at_end())
                    daemon.socket = daemon.folder + "/other"

    @scene()
    def test_a_folder_that_somebody_has_locked_keeps_nobody_waiting(self, service, daemon, client):
        """At the start hpkvd waits for the lock; in a reload clients would have to wait as well."""
        lock = os.open(daemon.folder, os.O_RDONLY)
        self.addCleanup(os.close, lock)
        fcntl.flock(lock, fcntl.LOCK_EX)
        sleeps = daemon.process.wakeups()
        self.assertTrue(daemon.reload(socket=daemon.folder + "/other", listen=daemon.folder + "/page"))
        self.assertLess(daemon.process.wakeups() - sleeps, 40) # it was a hundred times 10 ms
        self.assertEqual(2, len(re.findall(rb"warning: \S+: its folder can't be locked", daemon.log())))
        daemon.socket = daemon.folder + "/other"
        with daemon.client() as other:
            other.barrier()

    def test_a_group_that_it_may_not_give_changes_nothing(self):
        """Not the mode either, which is narrowed on the way."""
        with FakeService() as service, Unprivileged(service, mode="0666") as daemon, daemon.client() as client:
            self.assertTrue(daemon.reload(listen=daemon.folder + "/page"))
            before = self.access(daemon)
            self.assertEqual(2, len(before))
            self.assertFalse(daemon.reload(mode="0640", group=1))
            daemon.process.wait_output(rb"error: \S+/sock: can't change its mode and group: Operation not permitted")
            self.assertEqual(before, self.access(daemon))
            client.barrier()

    @staticmethod
    def access(daemon):
        """Of the sockets in its folder."""
        return [(path, st.st_ino, st.st_mode, st.st_gid) for path in sorted(glob.glob(daemon.folder + "/*"))
                if stat.S_ISSOCK((st := os.stat(path)).st_mode)]

    @scene(mode="0600")
    def test_mode_and_group_change_in_place(self, service, daemon, client):
        group = next((g.gr_gid for g in grp.getgrall() if g.gr_gid != os.getegid() and
                      (os.geteuid() == 0 or g.gr_gid in os.getgroups())), None)
        before = os.stat(daemon.socket)
        self.assertEqual(0o600, stat.S_IMODE(before.st_mode))
        daemon.reload(mode="0666", **({} if group is None else {"group": group}))
        after = os.stat(daemon.socket)
        self.assertEqual((0o666, before.st_ino), (stat.S_IMODE(after.st_mode), after.st_ino))
        self.assertIn(after.st_gid, (group, before.st_gid) if group is None else (group,))


class Limits(Case):
    @scene()
    def test_of_a_line(self, service, daemon, client):
        line = {"op": "set", "key": "k", "value": "x" * 5000}
        self.assertEqual(200, client.ask(line)["code"])
        daemon.reload(max_line="4K")
        self.assert_error(client.ask(line), 413, "too_large", "no")
        daemon.reload(max_line="8K")
        self.assertEqual(200, client.ask(line)["code"])

    @scene(service=WITHHELD, max_in_flight=2)
    def test_of_requests_in_flight(self, service, daemon, client):
        client.send(*(get(f"k{i}", i) for i in range(600)))
        first = service.next_requests(2)
        client.barrier()
        daemon.reload(max_in_flight=500)
        more = service.next_requests(498)
        daemon.reload(max_in_flight=1) # those on their way stay
        for request in first + more[:-1]:
            request.reply(code=200, value="v")
        self.assertEqual(499, len(client.answers(499)))
        self.assertTrue(service.no_more_requests())
        more[-1].reply(code=200, value="v")
        for _ in range(100):
            service.next_request().reply(code=200, value="v")
        self.assertEqual(101, len(client.answers(101)))
        self.assertEqual(1, daemon.status()["limits"]["maxInFlight"])

    @scene(service=WITHHELD, max_pipeline=10)
    def test_of_a_clients_pipeline(self, service, daemon, client):
        client.send(*(get(f"k{i}", i) for i in range(100)))
        requests = service.next_requests(10)
        daemon.reload(max_pipeline=200) # one that was held is read on
        requests += service.next_requests(90)
        for request in requests:
            request.reply(code=200, value="v")
        self.assertEqual(100, len(client.answers(100)))

    @scene(connected=False, max_clients=3)
    def test_of_clients(self, service, daemon, client):
        with daemon.client() as second, daemon.client() as third:
            second.barrier()
            third.barrier()
            daemon.change(max_clients=2)
            daemon.hang_up()
            client.barrier() # no client is dropped
            third.barrier()
            with Client(daemon.socket) as fourth:
                self.assert_error(fourth.answer(), 503, "too_many_clients", "no")
            daemon.change(max_clients=4)
            daemon.hang_up()
            with daemon.client() as fourth:
                fourth.barrier()

    @scene(service=WITHHELD)
    def test_of_time(self, service, daemon, client):
        daemon.reload(request_timeout="500ms")
        self.assert_error(client.ask(get("k")), 504, "timeout", "unknown")

    @scene()
    def test_of_the_rate(self, service, daemon, client):
        self.assertIsNone(daemon.status()["upstream"]["pace"])
        daemon.reload(rate_limit=10)
        self.assertEqual(10, daemon.status()["upstream"]["pace"])
        daemon.reload(rate_limit=0)
        self.assertIsNone(daemon.status()["upstream"]["pace"])
        client.send(*(get(f"k{i}", i) for i in range(500)))
        self.assertEqual(500, len(client.answers(500)))

    @scene(rate_limit=1)
    def test_those_who_wait_go_at_the_new_rate(self, service, daemon, client):
        client.send(*(get(f"k{i}", i, timeoutMs=600000) for i in range(500)))
        daemon.wait_status(lambda s: s["upstream"]["queued"] > 400, "a queue")
        daemon.reload(rate_limit=0)
        self.assertEqual({200}, {a["code"] for a in client.answers(500)})

    @scene(level="notice")
    def test_of_the_log(self, service, daemon, client):
        daemon.client().close()
        client.barrier()
        self.assertNotIn(b"debug: client", daemon.log())
        daemon.reload(level="debug")
        daemon.client().close()
        daemon.process.wait_output(rb"debug: client")

    @scene(level="notice", args=["--log-level", "debug"])
    def test_the_command_line_beats_the_files_level(self, service, daemon, client):
        daemon.reload(level="error")
        daemon.client().close()
        client.barrier()
        log = len(daemon.log())
        daemon.client().close()
        eventually(lambda: b"debug: client" in daemon.log()[log:], "a line of debugging")


class Times(Case):
    """The new times hold for waits that have begun."""

    @scene(keepalive="1h")
    def test_of_silence(self, service, daemon, client):
        daemon.reload(keepalive="4s")
        service.wait(lambda: service.connections[0].pings, "a ping")
        self.assertEqual(200, client.ask(get("k"))["code"])
        self.assertEqual(1, len(service.connections))

    @scene(keepalive="1h")
    def test_of_silence_while_the_former_address_is_in_use(self, service, daemon, client):
        daemon.reload(url="https://localhost:1", keepalive="4s")
        service.wait(lambda: service.connections[0].pings, "a ping")
        self.assertEqual(200, client.ask(get("k"))["code"])
        self.assertEqual(1, len(service.connections))

    @scene(keepalive="1h")
    def test_of_a_silent_new_connection(self, service, daemon, client):
        service.pong = False
        client.send({"op": "subscribe", "key": "k", "messageId": "s"})
        service.connection(2)
        service.wait(lambda: service.connections[1].pings, "the first ping")
        service.pong = True
        daemon.reload(keepalive="200ms")
        self.assertEqual({"code": 200, "messageId": "s"}, client.answer())

    @scene(connected=False, service={"upgrade": lambda event: "never"}, connect_timeout="10m")
    def test_of_connecting(self, service, daemon, client):
        service.wait(lambda: service.upgrades, "an attempt")
        service.upgrade = None
        daemon.reload(connect_timeout="20s")
        self.assertEqual(200, client.ask(get("k"))["code"])

    @scene(connect_timeout="10m")
    def test_of_minting(self, service, daemon, client):
        service.mint = lambda request: "never"
        client.send({"op": "subscribe", "key": "k", "messageId": "s"})
        service.wait_token_requests(1)
        service.mint = lambda request: "a-token"
        daemon.reload(connect_timeout="20s")
        self.assertEqual({"code": 200, "messageId": "s"}, client.answer())
        service.publish("k", "v")
        self.assertEqual(("k", "v"), client.change())


@contextlib.contextmanager
def held(path):
    """open() of the file waits until this ends. Yields a function: does anybody wait?"""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    fd = os.open(path, os.O_RDWR)
    try:
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as error:
            raise unittest.SkipTest("this file system knows no leases") from error
        yield lambda: fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_WRLCK
    finally:
        os.close(fd)
        signal.signal(signal.SIGIO, before)


class AnotherGroupFile(Daemon):
    """One that finds another file in the place of /etc/group."""

    def _with_etc(self, argv):
        need_mounts()
        self.group_file = self.folder + "/group"
        with open(self.group_file, "w", encoding="ascii") as f:
            f.write("our-group:x:0:\n")
        return [*UNSHARE, "sh", "-c", f'mount --bind {self.group_file} "$(readlink -f /etc/group)" && exec "$@"', "sh", *argv]


class HalfWay(Case):
    """Something fails after something else has been done, which is undone."""

    @staticmethod
    def places(daemon):
        """The sockets in its folder."""
        return [(path, st.st_ino, st.st_mode, st.st_gid) for path in sorted(glob.glob(daemon.folder + "/*"))
                if stat.S_ISSOCK((st := os.stat(path)).st_mode)]

    def assert_undone(self, daemon, client, pattern, **settings):
        before, log = self.places(daemon), len(daemon.log())
        self.assertFalse(daemon.reload(**settings))
        self.assertRegex(daemon.log()[log:].decode(), pattern)
        self.assertEqual(before, self.places(daemon))
        with daemon.client() as other:
            other.barrier()
        client.barrier()

    @scene(mode="0666")
    def test_the_page_has_no_place(self, service, daemon, client):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = f"127.0.0.1:{taken.getsockname()[1]}"
            words = "another program is listening there"
            self.assert_undone(daemon, client, words, listen=listen, mode="0600")
            self.assert_undone(daemon, client, words, listen=listen, socket=daemon.folder + "/other")
            self.assertTrue(daemon.reload(listen=daemon.folder + "/page", mode="0666", socket=daemon.socket))
            self.assert_undone(daemon, client, words, listen=listen, socket=daemon.folder + "/other")
            self.assert_undone(daemon, client, "there is something that is not a socket", listen=daemon.folder + "/hpkvd.conf", mode="0600",
                               socket=daemon.socket)
        self.page(daemon.folder + "/page")

    def test_the_two_sockets_change_places(self):
        """... and the page comes to where the socket was; and nothing has happened if something else fails."""
        with FakeService() as service, Daemon(service, mode="0666") as daemon, daemon.client() as client:
            first, second, third = daemon.socket, daemon.folder + "/second", daemon.folder + "/third"
            self.assertTrue(daemon.reload(listen=second))
            with open(third, "w", encoding="ascii"):
                self.assert_undone(daemon, client, "there is something that is not a socket", socket=second, listen=third)
                self.assert_undone(daemon, client, "there is something that is not a socket", socket=third, listen=first)
            self.page(second)
            os.unlink(third)
            for socket_path, page in ((second, first), (third, second), (second, third), (first, second)):
                self.assertTrue(daemon.reload(socket=socket_path, listen=page))
                daemon.socket = socket_path
                self.page(page)
                with daemon.client() as other:
                    other.barrier()
                client.barrier()
                self.assertEqual({socket_path, page}, {path for path, *_ in self.places(daemon)})

    @staticmethod
    def page(path):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(DEADLINE)
            s.connect(path)
            s.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            with s.makefile("rb") as f:
                assert b" 200 OK" in f.read(), "the page is served"

    def test_no_more_descriptors(self):
        """Wherever they run out."""
        need_root() # only root may see how many there are
        with FakeService() as service, Daemon(service, mode="0666") as daemon, daemon.client() as client:
            daemon.wait_state("connected")
            self.assertTrue(daemon.reload(listen=daemon.folder + "/page"))
            refused = self.refusals(daemon, client, socket=daemon.folder + "/other", listen=daemon.folder + "/other-page")
            for step in ("hpkvd.conf: cannot be read: ", "/other: can't listen there: ", "/other-page: can't listen there: "):
                self.assertIn(step, "\n".join(refused))
            daemon.socket = daemon.folder + "/other"

    def test_trust_anchors_that_are_replaced_in_between(self):
        """They are looked at with the settings, and taken when all else is done. In between the group is looked up, when we let it."""
        with FakeService() as service, AnotherGroupFile(service, mode="0666") as daemon, daemon.client() as client:
            daemon.wait_state("connected")
            self.assertTrue(daemon.reload(listen=daemon.folder + "/page"))
            for settings in ({"mode": "0600"}, {"socket": daemon.folder + "/other", "listen": daemon.folder + "/other-page"}):
                shutil.copy(certs() + "/other-ca.pem", daemon.folder + "/ca.pem")
                before, log, begun = self.places(daemon), len(daemon.log()), daemon.settings
                daemon.change(ca_file="ca.pem", group="our-group", **settings)
                with held(daemon.group_file) as wanted:
                    daemon.process.signal(signal.SIGHUP)
                    eventually(wanted, "it looks for the group")
                    with open(daemon.folder + "/ca.pem", "w", encoding="ascii") as f:
                        f.write("nothing\n")
                eventually(lambda: b"the new settings are not used" in daemon.log()[log:], "the refusal")
                self.assertRegex(daemon.log()[log:], rb"error: upstream: .*there is no PEM certificate in it")
                self.assertEqual(before, self.places(daemon))
                daemon.settings = begun
                self.page(daemon.folder + "/page")
                with daemon.client() as other:
                    other.barrier()
                self.assertEqual(200, client.ask(get("k"))["code"])
            self.assertEqual(1, len(service.upgrades))

    def refusals(self, daemon, client, **settings):
        """Reloads with ever more descriptors, until one succeeds. Returns the error of each."""
        limits = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        refused = []
        for spare in range(50):
            eventually(lambda: client.ask({"op": "status"})["clients"] == 1, "nobody else is there")
            before, places, log = self.descriptors(daemon), self.places(daemon), len(daemon.log())
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (self.limit(before, spare), limits[1]))
            done = daemon.reload(**settings)
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limits)
            if done:
                return refused
            refused.append(re.search(rb"error: (.*)", daemon.log()[log:])[1].decode())
            self.assertEqual((before, places), (self.descriptors(daemon), self.places(daemon)))
            self.page(daemon.folder + "/page")
        raise AssertionError(f"never done: {refused}")

    @staticmethod
    def descriptors(daemon):
        return {fd: os.readlink(f"/proc/{daemon.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{daemon.pid}/fd")}

    @staticmethod
    def limit(descriptors, spare):
        """With it so many numbers are left."""
        limit = 0
        while spare or str(limit) in descriptors:
            spare -= str(limit) not in descriptors
            limit += 1
        return limit


class Stopping(Case):
    @scene(service=WITHHELD)
    def test_a_hangup_while_stopping_is_nothing(self, service, daemon, client):
        client.send(put("k", "v", 1))
        request = service.next_request()
        daemon.process.signal(signal.SIGTERM)
        daemon.process.wait_output(rb"signal 15: stopping")
        daemon.process.signal(signal.SIGHUP)
        request.reply(code=200)
        self.assertEqual({"code": 200, "messageId": 1}, client.answer())
        self.assertEqual(0, daemon.process.wait_exit())
