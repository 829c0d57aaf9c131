"""Many clients at once, more than are allowed, and more than there are descriptors for."""

import contextlib
import os
import re
import signal
import sys

from harness import Case, Daemon, FakeService, Listener, Sandbox, eventually, get, raise_descriptor_limit, sanitized, scene


class Many(Case):
    def test_ten_thousand(self):
        raise_descriptor_limit(10100)
        with FakeService() as service, Daemon(service, level="info") as daemon:
            daemon.wait_state("connected")
            before = daemon.process.resident_bytes()
            clients = [daemon.client() for _ in range(9999)]
            clients[-1].barrier()  # all others were accepted before
            if not sanitized():
                self.assertLess((daemon.process.resident_bytes() - before) / 9999, 640, "bytes an idle client")
            for client in clients:
                client.send({"op": "ping"})
            for client in clients:
                self.assertEqual(b'{"code":200,"message":"pong"}', client.line())
            self.assertEqual(10000, daemon.status()["clients"])
            per_client = (daemon.process.resident_bytes() - before) / 10000
            # All of them use the one connection.
            for client in clients[::10]:
                client.send(get("k"))
            for client in clients[::10]:
                self.assertEqual("value of k", client.answer()["value"])
            self.assertEqual(1, len(service.connections))
            for client in clients:
                client.close()
            daemon.wait_status(lambda s: s["clients"] == 1, "all have left")
            self.assertLess(per_client, 20000)


class Limit(Case):
    @scene(max_clients=3)
    def test_beyond_max_clients(self, service, daemon, client):
        eventually(lambda: client.ask({"op": "status"})["clients"] == 1, "nobody else is left")
        with daemon.client() as second, daemon.client() as third:
            for c in (second, third):
                c.barrier()
            for _ in range(5):
                with daemon.client() as refused:
                    self.assert_error(refused.answer(), 503, "too_many_clients", "no")
                    self.assertTrue(refused.at_end())
            for c in (client, second, third):
                self.assertEqual(200, c.ask(get("k"))["code"])
        eventually(lambda: client.ask({"op": "status"})["clients"] == 1, "they have left")
        with daemon.client() as welcome:
            welcome.barrier()
        self.assertEqual(5, client.ask({"op": "stats"})["stats"]["hpkvd_clients_refused_total"])

    @scene(connected=False, max_clients=1)
    def test_who_is_refused_may_have_sent_something(self, service, daemon, client):
        """The last line is there to be read, whatever was on its way."""
        for _ in range(20):
            with daemon.client() as refused:
                try:
                    refused.send_raw(b'{"op":"ping"}\n' * 100)
                except (BrokenPipeError, ConnectionResetError): # so many of them at once: not each is kept
                    pass
                self.assert_error(refused.answer(), 503, "too_many_clients", "no")

    @scene(connected=False, max_clients=1)
    def test_who_is_refused_may_send_before_it_reads(self, service, daemon, client):
        """As socat does: an error in writing would keep from it what the line says."""
        client.barrier()
        with daemon.client() as refused:
            self.assert_error(refused.answer(), 503, "too_many_clients", "no")
            self.assertTrue(refused.at_end())
            refused.send({"op": "ping"})

    @scene(connected=False, max_clients=1)
    def test_who_is_refused_does_not_stay(self, service, daemon, client):
        """Nor are there ever many of them."""
        eventually(lambda: client.ask({"op": "status"})["upstream"]["state"] == "connected", "it has what descriptors it needs")
        descriptors = lambda: len(os.listdir(f"/proc/{daemon.pid}/fd"))
        before = descriptors()
        refused = [daemon.client() for _ in range(100)]
        for each in refused:
            self.assert_error(each.answer(), 503, "too_many_clients", "no")
            self.assertLessEqual(descriptors(), before + 16 + 1) # that one may be on its way in
        eventually(lambda: descriptors() == before, "all are closed")
        for each in refused:
            each.close()


class OutOfDescriptors(Case):
    NOFILE = 40

    def fill(self, daemon, n):
        """n clients, each of which has asked for a pong; those that were served come first."""
        clients = [daemon.client() for _ in range(n)]
        for client in clients:
            client.send({"op": "ping"})
        return clients

    def test_accepting_pauses_and_goes_on(self):
        with FakeService() as service, Daemon(service, nofile=self.NOFILE) as daemon:
            daemon.wait_state("connected")
            clients = self.fill(daemon, 80)
            served = clients[0]
            self.assertEqual(200, served.answer()["code"])
            stat = lambda name: served.ask({"op": "stats"})["stats"][f"hpkvd_{name}_total"]
            eventually(lambda: stat("accept_pauses") >= 1, "accepting pauses")
            n = served.ask({"op": "status"})["clients"]
            self.assertLess(n, self.NOFILE)
            for client in clients[1:n]:
                self.assertEqual(200, client.answer()["code"])

            # Those who are served go on, and it does not spin meanwhile: waiting for what does not come costs nothing.
            self.assertEqual(200, served.ask(get("k"))["code"])
            service.answer = None
            cpu = daemon.process.cpu_seconds()
            self.assertEqual("timeout", served.ask(get("k", timeoutMs=2000))["reason"])
            self.assertLess(daemon.process.cpu_seconds() - cpu, 0.5)

            # As soon as some leave, those who wait are served, and in the end all are.
            for i, client in enumerate(clients[1:], 1):
                if i >= n:
                    self.assertEqual(200, client.answer()["code"])
                client.close()
            eventually(lambda: served.ask({"op": "status"})["clients"] == 1, "they have left")

    def test_the_connection_to_the_service_can_still_be_made_anew(self):
        """Clients who wait for a descriptor do not take the one that it needs."""
        with FakeService() as service, Daemon(service, nofile=self.NOFILE) as daemon:
            daemon.wait_state("connected")
            clients = self.fill(daemon, 80)
            served = clients[0]
            served.answer()
            eventually(lambda: served.ask({"op": "stats"})["stats"]["hpkvd_accept_pauses_total"], "accepting pauses")
            service.stop_listening()
            service.connections[0].reset()
            # Long enough for accepting to be tried again, which is once a second.
            self.assertIn(served.ask(get("k", timeoutMs=1500))["reason"], ("upstream_down", "outcome_unknown"))
            service.listen()
            self.assertEqual(200, served.ask(get("k"))["code"])
            for client in clients:
                client.close()

    def test_whatever_the_limit_is(self):
        """The service goes and comes back, while sixty are there for as many descriptors as there are."""
        for limit in (40, 48, 64, 100, 128):
            with self.subTest(limit), Sandbox() as sandbox, Daemon(sandbox, nofile=limit, connect_timeout="1s") as daemon, \
                    contextlib.ExitStack() as stack:
                daemon.wait_state("connected")
                clients = self.fill(daemon, 60)
                for client in clients:
                    stack.enter_context(client)
                served = clients[0]
                self.assertEqual(200, served.answer()["code"])
                self.assertEqual(200, served.ask({"op": "subscribe", "key": "k", "timeoutMs": 20000})["code"])
                sandbox.kill()
                sandbox.start()
                listener = Listener(served)
                listener.wait(lambda lines: any(line.get("state") == "connected" for line in lines), "the connection")
                daemon.change(max_line="16K")
                daemon.process.signal(signal.SIGHUP)
                daemon.process.wait_output(rb"new settings are in force")
                for client in clients[1:]:
                    client.close()
                self.assertEqual("connected", daemon.status()["upstream"]["state"])

    def test_below_a_minimum_it_does_not_start(self):
        for limit in (16, 24, 30):
            with self.subTest(limit), FakeService() as service:
                daemon = Daemon(service, nofile=limit, wait=False)
                try:
                    daemon.start()
                    self.assertEqual(1, daemon.process.wait_exit())
                    said = re.search(rb"hpkvd: error: the limit of open files is (\d+), but hpkvd needs (\d+): ", daemon.log())
                    self.assertTrue(said, daemon.log())
                    self.assertEqual(limit, int(said[1]))
                    self.assertLessEqual(int(said[2]), 40)
                finally:
                    daemon._clean_up(False)

    def test_descriptors_that_it_was_started_with_are_counted(self):
        class Inheriting(Daemon):
            def _with_etc(self, argv):
                return [sys.executable, "-c", "import os, sys; [os.dup2(1, n) for n in range(100, 120)]; os.execv(sys.argv[1], sys.argv[1:])",
                        *argv]

        with FakeService() as service, Daemon(service, nofile=128) as daemon, Inheriting(service, nofile=128) as other:
            own, others = (int(d.process.wait_output(rb"there is room for (\d+) clients")[1]) for d in (daemon, other))
            self.assertLess(others, own)

    def test_the_limit_is_raised_as_far_as_it_goes(self):
        """The soft limit is no reason to pause."""
        with FakeService() as service, Daemon(service, max_clients=50, soft_nofile=20) as daemon:
            clients = self.fill(daemon, 50)
            for client in clients:
                self.assertEqual(200, client.answer()["code"])
            self.assertEqual(0, clients[0].ask({"op": "stats"})["stats"]["hpkvd_accept_pauses_total"])
            for client in clients:
                client.close()
