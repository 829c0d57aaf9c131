"""The Unix socket: who may open it, whose it was before, and that it is gone afterwards."""

import contextlib
import fcntl
import grp
import os
import shutil
import signal
import socket
import stat
import tempfile

from harness import UNSHARE, Case, Daemon, FakeService, Unprivileged, get, need_mounts, sanitized, scene


class Path(Case):
    def test_mode(self):
        for mode in ("0600", "0660", "0666"):
            with FakeService() as service, Daemon(service, mode=mode) as daemon:
                st = os.stat(daemon.socket)
                self.assertTrue(stat.S_ISSOCK(st.st_mode))
                self.assertEqual(int(mode, 8), stat.S_IMODE(st.st_mode))

    @scene()
    def test_the_default_mode_is_0660(self, service, daemon, client):
        self.assertEqual(0o660, stat.S_IMODE(os.stat(daemon.socket).st_mode))

    def test_whatever_the_umask_is(self):
        for mask in (0o000, 0o077, 0o777):
            with FakeService() as service, Daemon(service, mode="0666", umask=mask) as daemon:
                self.assertEqual(0o666, stat.S_IMODE(os.stat(daemon.socket).st_mode))

    def test_group(self):
        mine = set(os.getgroups()) | {os.getgid()}
        groups = [g for g in grp.getgrall() if g.gr_gid != os.getgid() and (os.geteuid() == 0 or g.gr_gid in mine)]
        if not groups:
            self.skipTest("there is no other group that we may give a file to")
        with FakeService() as service, Daemon(service, group=groups[0].gr_name) as daemon:
            self.assertEqual(groups[0].gr_gid, os.stat(daemon.socket).st_gid)

    @scene()
    def test_it_is_removed_at_the_end(self, service, daemon, client):
        daemon.process.signal(signal.SIGTERM)
        self.assertEqual(0, daemon.process.wait_exit())
        self.assertFalse(os.path.exists(daemon.socket))

    @scene()
    def test_but_not_another_daemons(self, service, daemon, client):
        """Somebody has replaced it meanwhile."""
        os.unlink(daemon.socket)
        with Daemon(service, folder=daemon.folder) as heir:
            daemon.process.signal(signal.SIGTERM)
            self.assertEqual(0, daemon.process.wait_exit())
            with heir.client() as c:
                c.barrier()


    def test_a_group_that_it_may_not_give_it_to(self):
        with FakeService() as service, Unprivileged(service, group=1, wait=False) as daemon:
            self.assertEqual(1, daemon.process.wait_exit())
            self.assertIn(b"/sock: can't be given to the group 1 ([listen] group): hpkvd is not a member of it", daemon.log())
            self.assertFalse(os.path.exists(daemon.socket))


class Before(Case):
    """What may already be at the path."""

    def test_a_stale_socket_is_replaced(self):
        with FakeService() as service:
            with Daemon(service) as first:
                first.process.signal(signal.SIGKILL)
                first.process.wait_exit()
                self.assertTrue(os.path.exists(first.socket))
                with Daemon(service, folder=first.folder) as second, second.client() as client:
                    self.assertEqual(200, client.ask(get("k"))["code"])
                first.killed = True

    def refused(self, service, folder, *words, **settings):
        daemon = Daemon(service, folder=folder, wait=False, **settings)
        daemon.start()
        try:
            self.assertEqual(1, daemon.process.wait_exit())
            log = daemon.log().decode()
            for word in (daemon.socket, *words):
                self.assertIn(word, log)
        finally:
            daemon.process.close()

    @scene()
    def test_a_living_daemons_socket_is_not_stolen(self, service, daemon, client):
        for _ in range(3):
            self.refused(service, daemon.folder, "error")
        client.barrier()
        with daemon.client() as other:
            self.assertEqual(200, other.ask(get("k"))["code"])
        self.assertEqual(1, len(service.connections))

    @scene()
    def test_nor_any_other_living_programs(self, service, daemon, client):
        path = daemon.folder + "/other"
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(path)
            other.listen(0)
            self.refused(service, daemon.folder, "error", socket=path)
            # Not even when its queue is full, as it is after that, since it does not accept.
            with contextlib.ExitStack() as fillers, self.assertRaises(BlockingIOError):
                for _ in range(10):
                    filler = fillers.enter_context(socket.socket(socket.AF_UNIX))
                    filler.setblocking(False)
                    filler.connect(path)
            self.refused(service, daemon.folder, "error", socket=path)
            self.assertTrue(os.path.exists(path))

    @scene()
    def test_a_file_that_is_no_socket_is_left_alone(self, service, daemon, client):
        path = daemon.folder + "/precious"
        for make in (lambda: open(path, "w", encoding="ascii").close(), lambda: os.mkdir(path), lambda: os.mkfifo(path),
                     lambda: os.symlink("/dev/null", path)):
            make()
            self.refused(service, daemon.folder, "error", socket=path)
            before = os.lstat(path)
            self.assertFalse(stat.S_ISSOCK(before.st_mode))
            os.rmdir(path) if stat.S_ISDIR(before.st_mode) else os.unlink(path)

    @scene()
    def test_a_folder_that_does_not_exist(self, service, daemon, client):
        self.refused(service, daemon.folder, "error", socket=daemon.folder + "/nowhere/sock")

    def test_a_folder_that_somebody_has_locked(self):
        """Anybody who may open a folder can lock it: that must not keep the daemon from starting."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        lock = os.open(folder, os.O_RDONLY)
        self.addCleanup(os.close, lock)
        fcntl.flock(lock, fcntl.LOCK_SH)
        with FakeService() as service, Daemon(service, socket=f"{folder}/sock") as daemon, daemon.client() as client:
            self.assertEqual("pong", client.ask({"op": "ping"})["message"])
            daemon.process.wait_output(rb"warning: .*its folder can't be locked")

    def test_two_at_once(self):
        """One gets the stale socket, the other says so; none is left without."""
        with FakeService() as service:
            for _ in range(10):
                daemons = [Daemon(service, wait=False)]
                daemons.append(Daemon(service, folder=daemons[0].folder, wait=False))
                with socket.socket(socket.AF_UNIX) as stale:
                    stale.bind(daemons[0].socket)
                for daemon in daemons:
                    daemon.start()
                for daemon in daemons:
                    daemon.process.wait_output(rb"listens on|error")
                winners = [d for d in daemons if b"listens on" in d.log()]
                try:
                    self.assertEqual(1, len(winners))
                    with winners[0].client() as client:
                        client.barrier()
                finally:
                    for daemon in daemons:
                        if daemon in winners:
                            daemon.process.signal(signal.SIGTERM)
                        status = daemon.process.wait_exit()
                        self.assertEqual(0 if daemon in winners else 1, status)
                        daemon.process.close()
                    daemons[0]._clean_up(False)


class Early(Case):
    def test_a_client_that_connects_before_the_service_is_there(self):
        with FakeService() as service:
            service.stop_listening()
            with Daemon(service) as daemon, daemon.client() as client:
                client.send(get("k", 1))
                client.barrier()
                service.listen()
                self.assertEqual(1, client.answer()["messageId"])

    @scene()
    def test_two_daemons_in_one_folder(self, service, daemon, client):
        with Daemon(service, folder=daemon.folder, socket=daemon.folder + "/second") as second, \
                second.client() as other:
            client.barrier()
            other.barrier()


class WithoutProc(Case):
    """In a chroot, or a sandbox that hides it."""

    class Bare(Daemon):
        def _with_etc(self, argv):
            need_mounts()
            return [*UNSHARE, "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "hpkvd", *argv]

    def setUp(self):
        if sanitized():
            self.skipTest("a sanitizer reads /proc")

    def test_it_listens_all_the_same(self):
        for mode in ("0600", "0660", "0666"):
            with self.subTest(mode), FakeService() as service, self.Bare(service, mode=mode) as daemon, daemon.client() as client:
                self.assertEqual(int(mode, 8), stat.S_IMODE(os.stat(daemon.socket).st_mode))
                self.assertEqual(200, client.ask(get("k"))["code"])

    def test_a_group(self):
        if os.geteuid():
            self.skipTest("only root may give it to any group")
        with FakeService() as service, self.Bare(service, group=grp.getgrgid(12).gr_name) as daemon:
            st = os.stat(daemon.socket)
            self.assertEqual((0o660, 12), (stat.S_IMODE(st.st_mode), st.st_gid))

    def test_another_mode_is_taken_or_it_says_what_is_missing(self):
        with FakeService() as service, self.Bare(service, mode="0600") as daemon, daemon.client() as client:
            if daemon.reload(mode="0666"): # since Linux 6.6
                self.assertEqual(0o666, stat.S_IMODE(os.stat(daemon.socket).st_mode))
            else:
                daemon.process.wait_output(rb"error: \S+: can't change its mode and group: /proc is not mounted")
                self.assertEqual(0o600, stat.S_IMODE(os.stat(daemon.socket).st_mode))
            self.assertEqual(200, client.ask(get("k"))["code"])

    def test_figures_that_it_can_not_have(self):
        """The page leaves them out, or says that they are none."""
        with FakeService() as service, self.Bare(service) as daemon, daemon.client() as client:
            stats = client.ask({"op": "stats"})["stats"]
            self.assertIn("hpkvd_clients_accepted_total", stats)
