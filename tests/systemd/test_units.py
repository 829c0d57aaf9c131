"""The units on a real systemd (machine.py): how hpkvd starts, is reloaded, watched and stopped, and what it may not do."""

import json
import os
import re
import signal
import sys
import unittest
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "daemon"))
from harness import HPKVD, KEY, Case, Client, FakeService, certs, eventually, free_port, get, sanitized # noqa: E402
from machine import Machine # noqa: E402

BUILD = os.environ.get("BUILDDIR", ".")
UNITS = os.path.join(BUILD, "systemd")
SOURCES = os.path.join(os.environ.get("SRCDIR", "."), "systemd")
SOCKET = "/run/hpkvd/hpkvd.sock"
EXPOSURE_MAX = 1.5 # as systemd-analyze security counts: 0 is a wall, 10 an open door

machine = None
service = None
config = None # where the units expect the configuration


def unit_text(name="hpkvd.service"):
    with open(f"{UNITS}/{name}", encoding="utf-8") as f:
        return f.read()


def setUpModule():
    """One machine for all: hpkvd is installed in it, and the service it connects to runs on its loopback."""
    global machine, service, config
    if not os.path.exists(UNITS):
        raise unittest.SkipTest("configured --without-systemd: there are no units")
    if sanitized():
        raise unittest.SkipTest("the sanitizers need what the units forbid")
    machine = Machine()
    machine.__enter__()
    unittest.addModuleCleanup(machine.__exit__, None, None, None)
    config = os.path.dirname(re.search(r"^LoadCredential=api-key:(.*)$", unit_text(), re.M)[1])
    machine.install(HPKVD, re.search(r"^ExecStart=(\S+)", unit_text(), re.M)[1], 0o755)
    machine.install(f"{SOURCES}/pass-key", re.search(r"^ExecReload=\+(\S+)", unit_text(), re.M)[1], 0o755)
    for name in ("hpkvd.service", "hpkvd.socket"):
        machine.install(f"{UNITS}/{name}", f"/usr/lib/systemd/system/{name}")
    machine.install(f"{UNITS}/user/hpkvd.service", "/usr/lib/systemd/user/hpkvd.service")
    machine.install(f"{SOURCES}/user/hpkvd.socket", "/usr/lib/systemd/user/hpkvd.socket")
    machine.install(f"{SOURCES}/sysusers.d/hpkvd.conf", "/usr/lib/sysusers.d/hpkvd.conf")
    machine.run("systemd-sysusers")
    service = FakeService()
    unittest.addModuleCleanup(service.__exit__, None, None, None)
    service.__enter__()
    machine.install(certs() + "/ca.pem", config + "/ca.pem")
    configure()
    machine.write(config + "/api-key", KEY + "\n", 0o600)
    machine.run("systemctl", "daemon-reload")


def configure(metrics="", more="", level="debug", **settings):
    upstream = {"url": service.url, "ca_file": "ca.pem", "backoff_min": "5ms", "backoff_max": "50ms"} | settings
    machine.write(config + "/hpkvd.conf", "[upstream]\n" + "".join(f"{n} = {v}\n" for n, v in upstream.items()) +
                  f"[listen]\ngroup = hpkv\n[metrics]\nlisten = {metrics}\n[log]\nlevel = {level}\n{more}")


def show(name, unit="hpkvd.service"):
    return machine.run("systemctl", "show", "--property", name, "--value", unit)


def main_pid():
    return int(show("MainPID"))


def client():
    return Client(machine.path(SOCKET))


def proc(name, pid=None):
    """A file of the daemon's in /proc of the machine."""
    with open(machine.path(f"/proc/{pid or main_pid()}/{name}"), "rb") as f:
        return f.read()


def journal(*fields):
    lines = [json.loads(line) for line in machine.run(
        "journalctl", "--no-pager", "-o", "json", "_SYSTEMD_UNIT=hpkvd.service").splitlines()]
    return [tuple(line.get(field) for field in fields) for line in lines]


class MachineCase(Case):
    """Shows the machine's journal when a case fails."""

    def run(self, result=None):
        failed = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > failed:
            machine.show()

    def assert_connected(self, c):
        eventually(lambda: c.ask({"op": "status"})["upstream"]["state"] == "connected", "connected")

    def number_of(self, key):
        with client() as c:
            self.assert_connected(c)
            return int(c.ask({"op": "get", "key": key}).get("value", 0))


class Running(MachineCase):
    """Each case begins with the socket alone."""

    def setUp(self):
        service.handler = None
        machine.run("systemctl", "stop", "hpkvd.service", "hpkvd.socket")
        machine.status("systemctl", "reset-failed", "hpkvd.service", "hpkvd.socket")
        machine.run("systemctl", "start", "hpkvd.socket")


class Life(Running):
    def test_the_first_client_starts_it_and_is_answered(self):
        self.assertEqual("inactive", show("ActiveState"))
        with client() as c:
            self.assertEqual(200, c.ask({"op": "ping"})["code"])
            eventually(lambda: show("ActiveState") == "active", "active") # the manager has a queue of its own
            self.assertEqual(200, c.ask(get("k"))["code"])
        eventually(lambda: "connected" in show("StatusText"), "StatusText says connected")

    def test_the_socket_belongs_to_its_group(self):
        st = os.stat(machine.path(SOCKET))
        gid = int(machine.run("getent", "group", "hpkv").split(":")[2])
        self.assertEqual((0o140660, 0, gid), (st.st_mode, st.st_uid, st.st_gid))
        self.assertEqual(0o755, os.stat(machine.path("/run/hpkvd")).st_mode & 0o7777)

    def test_it_is_ready_though_the_service_is_not(self):
        configure(url="https://localhost:1")
        self.addCleanup(configure)
        machine.run("systemctl", "start", "hpkvd.service")
        self.assertEqual("active", show("ActiveState"))
        eventually(lambda: "backoff" in show("StatusText"), "StatusText says backoff")

    def test_a_wrong_configuration_is_not_tried_again(self):
        configure(colour="blue")
        self.addCleanup(configure)
        machine.status("systemctl", "start", "hpkvd.service")
        self.assertEqual(("failed", "78", "0"), tuple(map(show, ("ActiveState", "ExecMainStatus", "NRestarts"))))
        eventually(lambda: any("colour" in text for text, in journal("MESSAGE")), "the journal says why")

    def test_without_a_key_it_waits_for_one(self):
        os.rename(machine.path(config + "/api-key"), machine.path(config + "/api-key.away"))
        self.addCleanup(os.rename, machine.path(config + "/api-key.away"), machine.path(config + "/api-key"))
        machine.run("systemctl", "stop", "hpkvd.socket")
        machine.run("systemctl", "start", "hpkvd.socket", "hpkvd.service")
        for unit in ("hpkvd.socket", "hpkvd.service"):
            self.assertEqual(("inactive", "no", "success"),
                             tuple(show(name, unit) for name in ("ActiveState", "ConditionResult", "Result")), unit)

    def test_reload(self):
        with client() as c:
            self.assert_connected(c)
            pid = main_pid()
            machine.run("systemctl", "reload", "hpkvd.service")
            eventually(lambda: show("ActiveState") == "active", "active again")
            self.assertEqual(200, c.ask(get("k"))["code"])
            self.assertEqual(pid, main_pid())

    def test_a_reload_passes_a_new_key(self):
        """First into the credential, as the service sees it; then by the signal to the daemon, whose clients stay."""
        c = client()
        self.addCleanup(c.close)
        self.assert_connected(c)
        credential = re.search(rb"CREDENTIALS_DIRECTORY=([^\0]+)", proc("environ"))[1].decode() + "/api-key"
        machine.run("systemctl", "reload", "hpkvd.service")
        before = self.seen(credential)
        self.addCleanup(machine.write, config + "/api-key", KEY + "\n", 0o600)
        machine.write(config + "/api-key", KEY + "-2\n", 0o600)
        machine.run("systemctl", "reload", "hpkvd.service")
        after = self.seen(credential)
        self.assertEqual((KEY + "\n", KEY + "-2\n"), (before[0], after[0]))
        self.assertEqual(before[1:], after[1:], "owner, mode and mount are what they were")
        self.assertIn("ro", after[2])
        self.assertEqual("", machine.run("journalctl", "--no-pager", "-q", "-o", "cat", "-t", "pass-key"))
        service.wait(lambda: service.connections[-1].target == "/ws?apiKey=" + KEY + "-2", "a connection with the new key")
        self.assertEqual(200, c.ask(get("k"))["code"])

    def test_the_key_is_passed_to_processes_of_the_service_only(self):
        """The number of a daemon that has died may be anybody's: his files and programs are not for root to use."""
        pass_key = re.search(r"^ExecReload=\+(\S+)", unit_text(), re.M)[1]
        with client() as c: # who starts it
            self.assert_connected(c)
            with self.assertRaisesRegex(AssertionError, f"process {main_pid()} is not one of this service"):
                machine.run(pass_key, str(main_pid()), config + "/api-key", "/nowhere/api-key")

    @staticmethod
    def seen(path):
        """Content, owner and mode, and options of the mount of a file of the daemon's."""
        inside = f"/proc/{main_pid()}/root{path}"
        st = os.stat(machine.path(inside))
        with open(machine.path(inside), encoding="utf-8") as f:
            text = f.read()
        mount = next(line.split() for line in proc("mountinfo").decode().splitlines()
                     if line.split()[4] == os.path.dirname(path))
        return text, (st.st_uid, st.st_gid, st.st_mode), mount[5].split(",")

    def test_a_restart_keeps_the_socket(self):
        with client() as c:
            self.assert_connected(c)
        inode = os.stat(machine.path(SOCKET)).st_ino
        machine.run("systemctl", "restart", "hpkvd.service")
        self.assertEqual(inode, os.stat(machine.path(SOCKET)).st_ino)
        with client() as c:
            self.assert_connected(c)

    def test_who_comes_while_it_is_down_is_answered_by_the_next(self):
        with client() as c:
            self.assert_connected(c)
        machine.run("systemctl", "kill", "--signal=KILL", "hpkvd.service")
        with client() as c:
            self.assert_connected(c)

    def test_the_metrics_page(self):
        port = free_port()
        configure(metrics=f"127.0.0.1:{port}")
        self.addCleanup(configure)
        machine.run("systemctl", "start", "hpkvd.service")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
            self.assertIn(b"process_open_fds", page.read())

    def test_access_rules_see_who_a_client_is(self):
        """Another user, who may open the socket by its group."""
        configure(more="[access friend]\nuser = games\nread = k*\n")
        self.addCleanup(configure)
        ask = ("import socket; s = socket.socket(socket.AF_UNIX); s.connect('" + SOCKET + "'); f = s.makefile('rw'); "
               """f.write('{"op":"get","key":"k"}\\n{"op":"set","key":"k","value":"v"}\\n'); f.flush(); """
               "print(f.readline() + f.readline())")
        said = machine.run("setpriv", "--reuid", "games", "--regid", "games", "--groups", "hpkv", "python3", "-c", ask)
        self.assertEqual([200, 403], [json.loads(line)["code"] for line in said.splitlines() if line])
        with client() as c: # root is no friend here
            self.assertEqual(403, c.ask(get("k"))["code"])

    def test_stop_under_load(self):
        """Whoever was answered or refused knows so; nobody is left with half a line or without an end."""
        n, clients = 400, [client() for _ in range(8)]
        for c in clients:
            self.addCleanup(c.close)
        self.assert_connected(clients[0])
        for c in clients:
            c.send(*(get(f"k{i}", i) for i in range(n)))
        for c in clients: # they are on their way
            self.assertEqual(200, c.answer()["code"])
        stop = machine.start("systemctl", "stop", "hpkvd.socket", "hpkvd.service")
        for c in clients:
            answers = self.read_to_end(c)
            codes = {answer["messageId"]: answer["code"] for answer in answers}
            self.assertEqual(len(answers), len(codes), "nobody is answered twice")
            self.assertLessEqual(set(codes.values()), {200, 503, 504})
            for answer in answers:
                self.assertIn(answer.get("reason", "-"), ("-", "shutting_down", "outcome_unknown"))
            self.assertEqual(n - 1, len(answers))
        stop.communicate()
        self.assertEqual(("inactive", "success", "0"), tuple(map(show, ("ActiveState", "Result", "ExecMainStatus"))))

    @staticmethod
    def read_to_end(c):
        data = bytearray(c.received)
        while chunk := c.sock.recv(1 << 18):
            data += chunk
        lines = bytes(data).split(b"\n")
        assert lines.pop() == b"", "the last line is whole"
        return [json.loads(line) for line in lines]


class Watchdog(Running):
    """With a short WatchdogSec=; the unit's own would be waited for too long."""

    DROPIN = "/run/systemd/system/hpkvd.service.d/watchdog.conf"

    def setUp(self):
        super().setUp()
        machine.write(self.DROPIN, "[Service]\nWatchdogSec=5s\nRestartSec=10ms\n")
        machine.run("systemctl", "daemon-reload")
        self.addCleanup(machine.run, "systemctl", "daemon-reload")
        self.addCleanup(os.unlink, machine.path(self.DROPIN))

    def test_a_hung_daemon_is_replaced_and_its_clients_come_back(self):
        with client() as c:
            self.assert_connected(c)
            pid = main_pid()
            machine.run("kill", "-STOP", str(pid))
            with client() as late: # connects to the socket that is kept, and is answered by the new one
                self.assertTrue(c.at_end())
                self.assertEqual(200, late.ask({"op": "ping"})["code"])
                self.assert_connected(late)
        self.assertNotEqual(pid, main_pid())
        eventually(lambda: "Failed with result 'watchdog'" in
                   machine.run("journalctl", "--no-pager", "-o", "cat", "UNIT=hpkvd.service"), "the journal says why")

    def test_a_service_that_is_away_is_no_reason(self):
        configure(url="https://localhost:1")
        self.addCleanup(configure)
        with client() as c:
            self.assertEqual(200, c.ask({"op": "ping"})["code"])
            pid = main_pid()
            stamp = show("WatchdogTimestampMonotonic")
            for _ in range(3): # it has been petted three times more
                stamp = eventually(lambda last=stamp: (now := show("WatchdogTimestampMonotonic")) != last and now, "a pet")
            self.assertEqual(200, c.ask({"op": "ping"})["code"])
            self.assertEqual(pid, main_pid())


class Privileges(Running):
    def setUp(self):
        super().setUp()
        with client() as c:
            self.assert_connected(c)
        self.pid = main_pid()

    def test_the_key_came_as_a_credential_of_a_user_of_its_own(self):
        status = proc("status", self.pid).decode()
        uid = int(re.search(r"^Uid:\s+(\d+)", status, re.M)[1])
        self.assertTrue(61184 <= uid <= 65519, f"uid {uid} is none of a dynamic user")
        self.assertIn(b"CREDENTIALS_DIRECTORY=", proc("environ", self.pid))
        self.assertEqual("/ws?apiKey=" + KEY, service.connections[-1].target)

    def test_it_has_no_capabilities(self):
        status = proc("status", self.pid).decode()
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            self.assertRegex(status, rf"(?m)^{name}:\s+0+$")
        self.assertRegex(status, r"(?m)^NoNewPrivs:\s+1$")
        self.assertRegex(status, r"(?m)^Seccomp:\s+2$")

    def test_it_can_write_nowhere_that_lasts(self):
        """What anybody may write to is /tmp, and what it sees there is its own."""
        top = {}
        for line in proc("mountinfo", self.pid).decode().splitlines(): # the last one of a place is what is seen
            fields = line.split()
            top[fields[4]] = fields
        for place in ("/", "/home", "/root", "/run/user"):
            self.assertIn("ro", top[place][5].split(","), place)
        for place in ("/tmp", "/var/tmp"):
            self.assertIn("systemd-private", top[place][3], place)

    def test_the_key_is_in_no_place_to_look_it_up(self):
        secret = KEY.encode()
        self.assertNotIn(KEY, machine.run("systemctl", "show", "--all", "hpkvd.service"))
        self.assertNotIn(KEY, machine.run("systemctl", "status", "-n", "1000", "hpkvd.service"))
        for name in ("environ", "cmdline", "status", "maps", "mountinfo"):
            self.assertNotIn(secret, proc(name, self.pid), name)
        self.assertFalse([text for text, in journal("MESSAGE") if KEY in str(text)])

    def test_it_dumps_no_core(self):
        self.assertRegex(proc("limits", self.pid).decode(), r"(?m)^Max core file size\s+0\s+0\s")

    def test_the_key_is_locked(self):
        self.assertNotRegex("\n".join(str(text) for text, in journal("MESSAGE")), "lock")

    def test_its_log_has_the_journals_priorities(self):
        lines = eventually(lambda: [p for text, p in journal("MESSAGE", "PRIORITY") if "listens on" in str(text)], "its log")
        self.assertEqual({"5"}, set(lines))
        eventually(lambda: [p for text, p in journal("MESSAGE", "PRIORITY") if "WebSocket to" in str(text) and p == "7"], "more of it")
        self.assertFalse([text for text, in journal("MESSAGE") if str(text).startswith(("hpkvd:", "<"))])


class Analyzed(unittest.TestCase):
    def test_exposure(self):
        said = machine.run("systemd-analyze", "--no-pager", "security", "hpkvd.service")
        exposure = float(re.search(r"exposure level for hpkvd.service: ([\d.]+)", said)[1])
        self.assertLessEqual(exposure, EXPOSURE_MAX, said)

    def test_the_units_are_right(self):
        self.verify("/usr/lib/systemd/system")
        self.verify("/usr/lib/systemd/user", "--user")

    def verify(self, folder, *options):
        self.assertEqual("", machine.run("env", "HOME=/root", "XDG_RUNTIME_DIR=/run", "systemd-analyze", "--man=no", *options,
                                         "verify", f"{folder}/hpkvd.service", f"{folder}/hpkvd.socket"))


class PerUser(Case):
    """A daemon of a user's own, in a manager of their own."""

    USER = "hpkvd-friend"

    def test_it_runs_with_the_users_configuration_and_key(self):
        machine.run("useradd", "--create-home", "--shell", "/bin/sh", self.USER)
        self.addCleanup(machine.run, "userdel", "--remove", "--force", self.USER)
        uid = int(machine.run("id", "-u", self.USER))
        home = f"/home/{self.USER}/.config/hpkvd"
        machine.write(f"{home}/hpkvd.conf", f"[upstream]\nurl = {service.url}\nca_file = ca.pem\n")
        machine.write(f"{home}/api-key", KEY + "\n", 0o600)
        machine.install(certs() + "/ca.pem", f"{home}/ca.pem")
        machine.run("chown", "-R", f"{self.USER}:", f"/home/{self.USER}")
        why = machine.status("systemctl", "start", f"user@{uid}.service")
        if show("ActiveState", f"user@{uid}.service") != "active":
            self.skipTest(f"this system has no managers of users: {why}")
        self.addCleanup(machine.run, "systemctl", "stop", f"user@{uid}.service")
        systemctl = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--init-groups", "env",
                     f"XDG_RUNTIME_DIR=/run/user/{uid}", "systemctl", "--user"]
        machine.run(*systemctl, "start", "hpkvd.socket")
        with Client(machine.path(f"/run/user/{uid}/hpkvd.sock")) as c:
            eventually(lambda: c.ask({"op": "status"})["upstream"]["state"] == "connected", "connected")
        machine.run(*systemctl, "reload", "hpkvd.service")
        machine.run(*systemctl, "stop", "hpkvd.service", "hpkvd.socket")
