"""Warnings about calls that the system refuses and tokens that the service refuses. hpkvd goes on all the same."""

import ctypes
import errno
import platform
import struct
import unittest

from harness import Case, Daemon, FakeService, get, need_root, sanitized, scene

MLOCK, PRLIMIT, PRCTL, GETSOCKOPT = {"x86_64": (149, 302, 157, 55), "aarch64": (228, 261, 167, 209)}.get(platform.machine(), (None,) * 4)
PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER, SO_PEERGROUPS = 4, 22, 38, 2, 59
LOAD, EQUAL, RETURN, ALLOW, REFUSE = 0x20, 0x15, 0x06, 0x7fff0000, 0x00050000 | errno.EPERM


class Refused(Daemon):
    """One whose system call with this number fails with EPERM, if that argument has the value (or, without one, is not 0)."""

    def __init__(self, service, number, argument, value=None, **options):
        if number is None:
            raise unittest.SkipTest("the numbers of this machine's system calls are not known here")
        super().__init__(service, **options)
        compare = (EQUAL, 0, 1, 0) if value is None else (EQUAL, 1, 0, value) # how many to leap over: if so, if not
        self.code = b"".join(struct.pack("=HBBI", *line) for line in (
            (LOAD, 0, 0, 0), (EQUAL, 0, 2, number), (LOAD, 0, 0, 16 + 8 * argument), compare,
            (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE)))

    def _prepare(self):
        super()._prepare()
        libc = ctypes.CDLL(None, use_errno=True)
        code = ctypes.create_string_buffer(self.code)
        program = ctypes.create_string_buffer(struct.pack("HP", len(self.code) // 8, ctypes.addressof(code)))
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program):
            raise OSError(ctypes.get_errno(), "seccomp")


class System(Case):
    def assert_told(self, line, *refused, **options):
        if sanitized():
            self.skipTest("a sanitizer makes these calls itself, or needs what they switch off")
        with FakeService() as service, Refused(service, *refused, **options) as daemon, daemon.client() as client:
            daemon.process.wait_output(line)
            self.assertEqual(200, client.ask(get("k"))["code"])

    def test_memory_is_not_locked(self):
        self.assert_told(rb"notice: memory can't be locked \(Operation not permitted\), so the key may be swapped out", MLOCK, 1)

    def test_core_files_are_not_switched_off(self):
        self.assert_told(rb"warning: cannot switch core files off: Operation not permitted", PRCTL, 0, PR_SET_DUMPABLE)

    def test_the_limit_of_open_files_is_not_raised(self):
        self.assert_told(rb"warning: can't raise the limit of open files: Operation not permitted\n"
                         rb"hpkvd: notice: max_clients is 200, but the limit of open files is 100: there is room for 69 clients, then accepting pauses",
                         PRLIMIT, 2, soft_nofile=100, max_clients=200)

    def test_groups_of_clients_are_not_told(self):
        """Rules go by the first group only, which grants less than was written, and never more."""
        need_root()
        rules = {"staff": {"group": 30001, "read": "staff"}, "guests": {"group": 30002, "read": "guest"}}
        with FakeService() as service, Refused(service, GETSOCKOPT, 2, SO_PEERGROUPS, access=rules) as daemon:
            for who, codes in (((20001, 30001, [30002]), [200, 403]), ((20002, 30002, []), [403, 200]), ((20003, 30003, [30001]), [403, 403])):
                with daemon.client(who=who) as client:
                    self.assertEqual(codes, [client.ask(get(key))["code"] for key in ("staff", "guest")])
            self.assertEqual(1, daemon.log().count(b"warning: can't find out the supplementary groups of clients (Operation not permitted): "
                                                   b"access rules see their first group only"))


class Service(Case):
    @scene()
    def test_a_connection_that_can_not_be_replaced(self, service, daemon, client):
        daemon.reload(url="https://localhost:1")
        daemon.process.wait_output(rb"warning: upstream: the connection could not be replaced, it stays: \S+")
        self.assertEqual(200, client.ask(get("k"))["code"])

    @scene(service={"mint": lambda request: (503, {}, b"")})
    def test_a_token_that_is_not_to_be_had(self, service, daemon, client):
        client.send({"op": "subscribe", "key": "k", "messageId": "s"})
        daemon.process.wait_output(rb"warning: upstream: no token, the connection stays as it is: .*503")
        self.assertEqual(200, client.ask(get("k"))["code"])


if __name__ == "__main__":
    unittest.main()
