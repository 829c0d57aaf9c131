"""The API key appears nowhere but in the request that needs it, even if the service says it aloud."""

import glob
import os

from harness import KEY, Case, Daemon, FakeService, Sandbox, get, scene

SECRET = KEY.encode()


def shout(event):
    """Refuses, and tells everybody why."""
    return 500, {"X-Target": event.target, "Location": event.target}, b"no such thing: " + event.target.encode()


class Secrets(Case):
    def assert_silent(self, daemon, *clients):
        for client in clients:
            client.send({"op": "status"}, {"op": "stats"}, get("k", timeoutMs=20), {"op": "fly"}, "nonsense")
            for line in client.lines(5):
                self.assertNotIn(SECRET, line)
        self.assertNotIn(SECRET, daemon.log())
        for name in ("cmdline", "environ", "comm", "status"):
            try:
                with open(f"/proc/{daemon.pid}/{name}", "rb") as f:
                    self.assertNotIn(SECRET, f.read(), name)
            except PermissionError:
                pass # kept from us too, which is as good

    @scene()
    def test_when_all_is_well(self, service, daemon, client):
        self.assertEqual("/ws?apiKey=" + KEY, service.connections[0].target)
        self.assertEqual(200, client.ask(get("k"))["code"])
        self.assert_silent(daemon, client)

    def test_from_the_environment(self):
        with FakeService() as service, Daemon(service, key_from="environment") as daemon, daemon.client() as client:
            self.assertEqual(200, client.ask(get("k"))["code"])
            self.assertEqual("/ws?apiKey=" + KEY, service.connections[0].target)
            self.assert_silent(daemon, client)

    @scene(connected=False, service={"upgrade": shout})
    def test_in_error_pages(self, service, daemon, client):
        service.wait(lambda: len(service.upgrades) >= 3, "three attempts")
        self.assert_silent(daemon, client)
        service.upgrade = lambda event: (403, {"X": event.target}, event.target.encode() * 100)
        daemon.wait_state("unauthorized")
        self.assert_silent(daemon, client)
        service.upgrade = lambda event: (302, {"Location": service.url + event.target + "&again"}, b"")
        service.wait(lambda: len(service.upgrades) >= 6, "more attempts")
        self.assert_silent(daemon, client)
        self.assertEqual({"/ws?apiKey=" + KEY}, set(service.upgrades))

    @scene(connected=False, connect_timeout="300ms",
           service={"raw_upgrade": b"HTTP/1.1 400 " + SECRET + b"\r\nX: " + SECRET + b"\r\n\r\n" + SECRET})
    def test_in_status_lines(self, service, daemon, client):
        service.wait(lambda: len(service.upgrades) >= 3, "three attempts")
        self.assert_silent(daemon, client)

    @scene()
    def test_in_close_reasons_and_broken_messages(self, service, daemon, client):
        service.connection().send_text('{"error":"' + KEY)
        service.connection().close(4001, "key " + KEY)
        service.connection(2).send_frame(2, SECRET)
        service.connection(2).reset()
        service.connection(3)
        self.assertEqual(200, client.ask(get("k"))["code"])
        self.assert_silent(daemon, client)

    def test_over_plain_http_too(self):
        with FakeService(tls=False, upgrade=shout) as service, Daemon(service) as daemon, daemon.client() as client:
            service.wait(lambda: len(service.upgrades) >= 3, "three attempts")
            self.assert_silent(daemon, client)

    def test_with_the_sandbox(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon, daemon.client() as client:
            daemon.wait_state("connected")
            self.assert_silent(daemon, client)
        with Sandbox(key="another") as sandbox, Daemon(sandbox) as daemon, daemon.client() as client:
            daemon.wait_state("unauthorized")
            self.assert_silent(daemon, client)

    @scene(connected=False, service={"upgrade": lambda event: (403, {}, b"")})
    def test_a_refused_key_is_told_by_its_place(self, service, daemon, client):
        """Who has to put it right learns where it is from."""
        daemon.wait_state("unauthorized")
        daemon.process.wait_output(rb"error.*key")
        self.assert_silent(daemon, client)

    @scene()
    def test_no_file_holds_it(self, service, daemon, client):
        for path in glob.glob(daemon.folder + "/*"):
            if os.path.isfile(path) and not path.endswith("/api-key"):
                with open(path, "rb") as f:
                    self.assertNotIn(SECRET, f.read(), path)
