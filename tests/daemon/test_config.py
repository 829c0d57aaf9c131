"""The configuration as an administrator meets it: hpkvd -t, its texts and exit statuses, the key file, the environment."""

import contextlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
import unittest

import need

HPKVD = os.environ["HPKVD"]
SRCDIR = os.environ.get("SRCDIR", os.path.join(os.path.dirname(__file__), "..", ".."))
KEY = "k3y-that-must-never-be-shown"
URL = "[upstream]\nurl = https://h\n"


class ConfigTest(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="hpkvd-test.")
        self.addCleanup(shutil.rmtree, self.dir)
        self.file = self.path("hpkvd.conf")
        self.key(KEY + "\n")

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, content, mode=0o644):
        if os.path.exists(self.path(name)):
            os.unlink(self.path(name))  # it may be one that cannot be written
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(content)
        os.chmod(self.path(name), mode)
        return self.path(name)

    def key(self, content, mode=0o600):
        return self.write("api-key", content, mode)

    def run_hpkvd(self, *args, env=None, prefix=(), **kw):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HPKV")}
        environment.update(env or {})
        r = subprocess.run([*prefix, HPKVD, *args], env=environment, capture_output=True, text=True,
                           stdin=subprocess.DEVNULL, timeout=60, check=False, **kw)
        self.assertNotIn(KEY, r.stdout + r.stderr)
        return r

    def check(self, content, **kw):
        """hpkvd -t on a file of that content."""
        self.write("hpkvd.conf", content)
        return self.run_hpkvd("-t", "-c", self.file, **kw)

    def assert_ok(self, r):
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        self.assertRegex(r.stdout, r": ok\n\Z")

    def assert_wrong(self, r, *texts):
        """Refused, with exactly these lines (each given by its beginning and a part)."""
        self.assertEqual((r.returncode, r.stdout), (78, ""))
        lines = r.stderr.splitlines()
        self.assertEqual(len(lines), len(texts), r.stderr)
        for line, (start, part) in zip(lines, texts):
            self.assertTrue(line.startswith(start), line)
            self.assertIn(part, line)

    def at(self, line, setting):
        return f"{self.file}:{line}: {setting}"


class CommandLine(ConfigTest):
    def test_good_file(self):
        r = self.check(URL)
        self.assert_ok(r)
        self.assertEqual(r.stdout, self.file + ": ok\n")

    def test_long_options(self):
        self.write("hpkvd.conf", URL)
        self.assert_ok(self.run_hpkvd("--test", "--config=" + self.file, "--log-level", "debug"))

    def test_wrong_usage_is_2(self):
        for args in (["--nonsense"], ["-x"], ["-c"], ["extra"], ["-t", "-c", self.file, "extra"], ["--log-level", "loud"],
                     ["--log-level"], ["--test=1"], ["-t", "-c", ""]):
            r = self.run_hpkvd(*args)
            self.assertEqual((r.returncode, r.stdout), (2, ""), args)
            self.assertIn("usage: hpkvd", r.stderr)

    def test_help_and_version(self):
        r = self.run_hpkvd("--help")
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        self.assertLessEqual(len(r.stdout.splitlines()), 24)
        self.assertLessEqual(max(map(len, r.stdout.splitlines())), 80)
        r = self.run_hpkvd("--version")
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        self.assertRegex(r.stdout, r"\Ahpkvd [0-9]+\.[0-9]+\.[0-9]+\n")
        self.assertEqual(["hpkvd", "libevent", "libcurl", "c-ares", "cJSON", "OpenSSL"],
                         [line.split()[0] for line in r.stdout.splitlines()])

    def test_start_with_a_wrong_file_is_78(self):
        self.write("hpkvd.conf", URL + "keepalive = soon\n")
        r = self.run_hpkvd("-c", self.file)
        self.assertEqual((r.returncode, r.stdout), (78, ""))
        self.assertIn(self.at(3, "[upstream] keepalive: 'soon' is not a time"), r.stderr)

    def test_which_file(self):
        other = self.write("other.conf", URL)
        self.write("hpkvd.conf", "[nonsense]\n" + URL)
        env = {"HPKVD_CONFIG": other}
        self.assertEqual(self.run_hpkvd("-t", env=env).stdout, other + ": ok\n")
        self.assert_wrong(self.run_hpkvd("-t", "-c", self.file, env=env), (self.at(1, "[nonsense]: "), "no such section"))

    def test_file_that_cannot_be_read(self):
        absent = self.path("absent.conf")
        for r in (self.run_hpkvd("-t", "-c", absent), self.run_hpkvd("-t", env={"HPKVD_CONFIG": absent})):
            self.assert_wrong(r, (absent + ": ", "No such file"))
        self.assert_wrong(self.run_hpkvd("-t", "-c", self.dir), (self.dir + ": ", "directory"))
        self.assert_wrong(self.run_hpkvd("-t", "-c", "/dev/zero"), ("/dev/zero: ", "longer than 1M"))

    def test_the_default_is_in_etc_unless_configure_was_told_otherwise(self):
        status = os.path.join(os.environ.get("BUILDDIR", "."), "config.status")
        options = subprocess.run([status, "--config"], capture_output=True, text=True, check=True).stdout
        if re.search("prefix|sysconfdir", options):
            self.skipTest("it was")
        self.assertRegex(self.run_hpkvd("--help").stdout, r"(?m)^\s+/etc/hpkvd/hpkvd\.conf$")

    def test_no_file_but_environment(self):
        default = re.search(r"(/\S+/hpkvd\.conf)", self.run_hpkvd("--help").stdout).group(1)
        if os.path.exists(default):
            self.skipTest(default + " exists")
        env = {"HPKV_BASE_URL": "wss://h/ws", "HPKV_API_KEY": KEY}
        self.assert_ok(self.run_hpkvd("-t", env=env))
        self.assert_wrong(self.run_hpkvd("-t"), (default + " (no such file): [upstream] url: ", "HPKV_BASE_URL"),
                          (default + " (no such file): [upstream] api_key_file: ", "HPKV_API_KEY"))


class Values(ConfigTest):
    WRONG = [
        ("upstream", "connect_timeout", "5 parsecs", "is not a time (e.g. 500ms, 5s, 2m, 1h)"),
        ("upstream", "connect_timeout", "5", "is not a time"),
        ("upstream", "connect_timeout", "", "is not a time"),
        ("upstream", "connect_timeout", "5s # soon", "is not a time"),
        ("upstream", "connect_timeout", "0", "must be 100ms to 10m"),
        ("upstream", "request_timeout", "601s", "must be 1ms to 10m"),
        ("upstream", "keepalive", "99ms", "must be 100ms to 1h"),
        ("upstream", "token_lifetime", "999999999999999999999h", "must be 1s to 168h"),
        ("upstream", "rate_limit", "-1", "is not a whole number"),
        ("upstream", "rate_limit", "1.5", "is not a whole number"),
        ("upstream", "max_in_flight", "0", "must be 1 to 65535"),
        ("upstream", "subscribe_field", "keys", "subscribeKeys subscribePatterns both"),
        ("upstream", "api_key_file", "", "is empty"),
        ("upstream", "ca_file", "absent.pem", "absent.pem: No such file"),
        ("listen", "socket", "", "is empty"),
        ("listen", "socket", "hpkvd.sock", "is not the absolute path"),
        *((section, name, value + comment, "'#' by itself: a comment behind a value begins with ;")
          for section, name, value in (("listen", "socket", "/run/s"), ("upstream", "access_pattern", ".*"),
                                       ("metrics", "listen", "/run/m"), ("upstream", "ca_file", "ca.pem"))
          for comment in (" # said so", "\t#")),
        ("listen", "socket", "/run/", "is not the absolute path"),
        ("listen", "socket", "/" + "x" * 107, "longer than 107 bytes"),
        ("listen", "mode", "0668", "is not a file mode"),
        ("listen", "mode", "7777", "must be 0000 to 0777"),
        ("listen", "group", "no-such-group", "there is no group 'no-such-group'"),
        ("listen", "max_line", "1000", "must be 1K to 16M"),
        ("listen", "max_line", "17M", "must be 1K to 16M"),
        ("listen", "max_line", "64 K", "is not a size"),
        ("listen", "max_clients", "many", "is not a whole number"),
        ("listen", "max_pipeline", "0", "must be 1 to 1000000"),
        ("listen", "output_hard", "1T", "is not a size"),
        *(("metrics", "listen", value, "is not 127.0.0.1:PORT") for value in (
            "9464", ":9464", "0.0.0.0:9464", "[::]:9464", "192.0.2.1:9464", "example.com:9464", "127.0.0.1", "127.0.0.1:0",
            "127.0.0.1:65536", "127.0.0.1:x", "::1:9464", "[::1:9464", "[127.0.0.1]:9464", "[]:1", "]:1", "metrics.sock")),
        ("metrics", "listen", "/run/", "is not the absolute path"),
        ("metrics", "listen", "/" + "x" * 107, "longer than 107 bytes"),
        ("metrics", "listen", "/run/hpkvd/hpkvd.sock", "is the same as [listen] socket"),
        ("log", "level", "loud", "is not a level: error warning notice info debug"),
    ]

    def test_wrong_values(self):
        for section, name, value, part in self.WRONG:
            with self.subTest(setting=name, value=value):
                r = self.check(f"{URL}[{section}]\n\n{name} = {value}\n")
                self.assert_wrong(r, (self.at(5, f"[{section}] {name}: "), part))

    def test_everything_wrong_is_told_in_one_go(self):
        r = self.check("stray = 1\n[upstream]\nurl = https://h\nfoo = 1\nkeepalive = x\n[listn]\nmode = 0660\n[log]\nlevel\n")
        self.assert_wrong(r, (self.at(1, "stray: "), "before the first [section]"), (self.at(4, "[upstream] foo: "), "no such setting"),
                          (self.at(5, "[upstream] keepalive: "), "not a time"), (self.at(6, "[listn]: "), "no such section"),
                          (self.at(9, "the line "), "name = value"))

    def test_a_hash_within_a_text_is_of_the_text(self):
        self.assert_ok(self.check(URL + "access_pattern = ^(a#|#b| #c)\n[listen]\nsocket = /run/s#1\n"))

    def test_set_twice(self):
        r = self.check(URL + "[log]\nlevel = info\n[upstream]\nkeepalive = 1s\n[log]\nlevel = info\n")
        self.assert_wrong(r, (self.at(8, "[log] level: "), "set twice, first in line 4"))

    def test_values_that_contradict_each_other(self):
        r = self.check(URL + "backoff_max = 1s\nbackoff_min = 2s\n[listen]\noutput_soft = 16M\n")
        self.assert_wrong(r, (self.at(4, "[upstream] backoff_min: "), "backoff_min (2s) is greater than backoff_max (1s)"),
                          (self.at(6, "[listen] output_soft: "), "output_soft (16M) is greater than output_hard (8M)"))

    def test_metrics(self):
        for value in ("", "127.0.0.1:9464", "127.9.9.9:1", "[::1]:65535", "localhost:9464", "LocalHost:1", "/run/m.sock"):
            self.assert_ok(self.check(URL + f"[metrics]\nlisten = {value}\n"))

    def test_access_rules(self):
        self.assert_ok(self.check(URL + "[access web]\nuser = root 12345678\ngroup = root 0\tdaemon\nread = app:* shared:*\n"
                                  "write = app:*\ntoken = own\n[log]\nlevel = info\n[access of all others]\nuser = 4294967294\n"))

    def test_wrong_access_rules(self):
        for lines, *texts in (
                (["[access]", "read = *"], (3, "[access]: ", "no name")),
                (["[access a]", "user = nobody-has-this-name"], (4, "[access a] user: ", "no user 'nobody-has-this-name'")),
                (["[access a]", "user = root nobody-has-this-name"], (4, "[access a] user: ", "no user 'nobody-has-this-name'")),
                (["[access a]", "user = -1 4294967295 1x +1"], (4, "[access a] user: ", "'-1'"), (4, "[access a] user: ", "'4294967295'"),
                 (4, "[access a] user: ", "'1x'"), (4, "[access a] user: ", "'+1'")),
                (["[access a]", "group = nobody-has-this-name"], (4, "[access a] group: ", "no group 'nobody-has-this-name'")),
                (["[access a]", "user = root", "token = yes"], (5, "[access a] token: ", "'yes' is not one of its values: no own any")),
                (["[access a]", "user = root", "token ="], (5, "[access a] token: ", "'' is not one of its values")),
                (["[access a]", "user = root", "reads = *"], (5, "[access a] reads: ", "no such setting; the section has: user group read write token")),
                (["[access a]", "user = root", "user = daemon"], (5, "[access a] user: ", "set twice, first in line 4")),
                (["[access a]", "user = root", "[access a]", "user = daemon"], (5, "[access a]: ", "twice, first in line 3")),
                (["[access a]", "read = *", "[log]", "[access b]", "user =", "group ="], (3, "[access a]: ", "for nobody"),
                 (6, "[access b]: ", "for nobody")),
                (["[access " + 65 * "x" + "]", "user = root"], (3, "[access " + 64 * "x", "longer than 64 bytes")),
                (["[accesses]"], (3, "[accesses]: ", "[access NAME]"))):
            with self.subTest(lines=lines):
                r = self.check(URL + "\n".join(lines) + "\n")
                self.assert_wrong(r, *((self.at(line, start), part) for line, start, part in texts))

    def test_more_access_rules_than_there_may_be(self):
        sections = "".join(f"[access {n}]\nuser = root\n" for n in range(1001))
        self.assert_wrong(self.check(URL + sections), (self.at(2003, "[access 1000]: "), "more than 1000"))

    def test_an_indented_line_is_a_line(self):
        self.assert_wrong(self.check(URL + "ca_file =\n  /etc/x.pem\n"), (self.at(4, "the line "), "name = value"))

    def test_a_colon_is_no_equals_sign(self):
        self.assert_wrong(self.check(URL + "[listen]\nmode: 0600\n"), (self.at(4, "the line "), "name = value"))

    def test_url(self):
        for url in ("wss://h/ws", "https://h:1/p/", "http://localhost:1", "ws://127.0.0.9/ws", "ws://[::1]",
                    "https://192.0.2.1", "https://[2001:db8::1]:444/ws"):
            self.assert_ok(self.check(f"[upstream]\nurl = {url}\n"))
        for url, part in (("http://h", "not encrypted"), ("h", "https://"), ("https://u:%s@h" % KEY, "user name"),
                          ("wss://h/ws?apiKey=" + KEY, "query"), ("https://h:70000", "")):
            self.assert_wrong(self.check(f"[upstream]\nurl = {url}\n"), (self.at(2, "[upstream] url: "), part))

    def test_url_missing(self):
        r = self.check("[upstream]\nurl =\n")
        self.assert_wrong(r, (self.at(2, "[upstream] url: is missing"), "HPKV_BASE_URL"))
        self.assert_wrong(self.check(""), (self.file + ": [upstream] url: is missing", "HPKV_BASE_URL"))
        self.assert_ok(self.check("", env={"HPKV_BASE_URL": "https://h"}))
        r = self.check("", env={"HPKV_BASE_URL": "https://h?apiKey=" + KEY})
        self.assert_wrong(r, ("HPKV_BASE_URL: ", "query"))

    def test_ca_file(self):
        shutil.copytree(need.certificates(), self.path("certs"))
        ca = URL + "ca_file = certs/ca.pem\n"
        self.assert_ok(self.check(ca))
        self.assert_ok(self.check(ca, cwd="/"))
        with open(self.path("certs/ca.pem"), encoding="ascii") as f:
            pem = f.read()
        middle = len(pem) // 2
        os.mkfifo(self.path("fifo"))
        for name, content, part in (("empty.pem", "", "is empty"), ("text.pem", "hello\n", "no certificate"),
                                    ("cut.pem", pem[:middle], ""), ("damaged.pem", pem + pem[:middle] + "!" + pem[middle:], "damaged"),
                                    ("fifo", None, "not a regular file"), ("certs", None, "directory")):
            if content is not None:
                self.write(name, content)
            with self.subTest(name):
                r = self.check(URL + f"ca_file = {name}\n")
                self.assert_wrong(r, (self.at(3, "[upstream] ca_file: " + self.path(name)), part))


class Key(ConfigTest):
    def assert_refused(self, r, part, name="api-key"):
        self.assert_wrong(r, (self.file + ": [upstream] api_key_file: the key file " + self.path(name), part))

    def test_modes(self):
        for mode in (0o400, 0o440, 0o600, 0o640):
            self.key(KEY, mode)
            self.assert_ok(self.check(URL))
        for mode in (0o604, 0o602, 0o601, 0o644, 0o666):
            self.key(KEY, mode)
            self.assert_refused(self.check(URL), "chmod o=")
        self.key(KEY, 0o620)
        self.assert_refused(self.check(URL), "chmod g-w")

    @unittest.skipIf(os.geteuid() != 0, "only root can give a file away")
    def test_a_key_file_of_another_user_is_refused(self):
        """The owner could let others read it, or replace it."""
        self.key(KEY)
        self.assert_ok(self.check(URL))
        os.chown(self.path("api-key"), 65534, 0)
        self.assert_refused(self.check(URL), "belongs to another user")

    def test_a_refused_key_file_is_not_replaced_by_the_environment(self):
        self.key(KEY, 0o644)
        self.assert_refused(self.check(URL, env={"HPKV_API_KEY": KEY}), "chmod o=")

    def test_contents(self):
        self.key(KEY + " \r\n\n")
        self.assert_ok(self.check(URL))
        for content in ("", "\n", KEY + "\n" + KEY, KEY + " x", KEY + "\x01", KEY + "\u00e4", "k" * 4097, "k" * 100000):
            self.key(content)
            self.assert_refused(self.check(URL), "")

    def test_what_is_no_file(self):
        os.remove(self.path("api-key"))
        os.mkdir(self.path("api-key"))
        self.assert_refused(self.check(URL), "is a directory")
        os.rmdir(self.path("api-key"))
        os.mkfifo(self.path("api-key"), 0o600)
        self.assert_refused(self.check(URL), "not a regular file")

    def test_unreadable(self):
        self.key(KEY, 0o600)
        prefix = ()
        if os.geteuid() == 0:
            if not shutil.which("setpriv"):
                self.skipTest("root reads everything, and there is no setpriv")
            prefix = ("setpriv", "--reuid=65534", "--clear-groups")
            os.chmod(self.dir, 0o755)
            binary_reachable = subprocess.run([*prefix, HPKVD, "--version"], capture_output=True, check=False).returncode == 0
            if not binary_reachable:
                self.skipTest("another user cannot start " + HPKVD)
        else:
            self.key(KEY, 0o000)
        self.assert_refused(self.check(URL, prefix=prefix), "permission denied")

    def test_named_in_the_file(self):
        self.write("other", KEY, 0o600)
        os.remove(self.path("api-key"))
        self.assert_ok(self.check(URL + "api_key_file = other\n"))
        self.assert_ok(self.check(URL + "api_key_file = " + self.path("other") + "\n", cwd="/"))
        r = self.check(URL + "api_key_file = absent\n")
        self.assert_wrong(r, (self.at(3, "[upstream] api_key_file: there is no key file " + self.path("absent")), "HPKV_API_KEY"))

    def test_credentials_directory(self):
        os.remove(self.path("api-key"))
        os.mkdir(self.path("credentials"))
        env = {"CREDENTIALS_DIRECTORY": self.path("credentials")}
        r = self.check(URL, env=env)
        self.assert_wrong(r, (self.file + ": [upstream] api_key_file: ", "no key file " + self.path("credentials/api-key")))
        self.write("credentials/api-key", KEY, 0o400)
        self.assert_ok(self.check(URL, env=env))
        self.write("credentials/api-key", KEY, 0o444)
        self.assert_refused(self.check(URL, env=env), "chmod o=", "credentials/api-key")

    def test_environment(self):
        os.remove(self.path("api-key"))
        self.assert_wrong(self.check(URL), (self.file + ": [upstream] api_key_file: there is no key file", "HPKV_API_KEY"))
        self.assert_wrong(self.check(URL, env={"HPKV_API_KEY": ""}), (self.file, "there is no key file"))
        self.assert_ok(self.check(URL, env={"HPKV_API_KEY": KEY}))
        for bad in (KEY + " ", KEY + "\n", KEY + "\u00e4", "k" * 4097):
            self.assert_wrong(self.check(URL, env={"HPKV_API_KEY": bad}), ("HPKV_API_KEY: ", ""))


class EnvironmentBlock(ConfigTest):
    def test_wiped_from_proc(self):
        """hpkvd blocks on a FIFO as its configuration: by then it has taken the environment."""
        os.mkfifo(self.file)
        env = dict(os.environ, HPKV_API_KEY=KEY, HPKV_BASE_URL="https://u:%s@h" % KEY, HPKVD_TEST_MARK="here")
        process = subprocess.Popen([HPKVD, "-t", "-c", self.file], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        with contextlib.ExitStack() as stack:
            stack.callback(process.wait)
            stack.callback(process.kill)
            with open(self.file, "w", encoding="ascii") as fifo:  # opens when hpkvd has opened it to read
                try:
                    with open(f"/proc/{process.pid}/environ", "rb") as f:
                        block = f.read()
                except PermissionError:  # not even its own user may look: better still
                    block = b"HPKVD_TEST_MARK"
                with open(f"/proc/{process.pid}/cmdline", "rb") as f:
                    self.assertNotIn(KEY.encode(), f.read())
                fifo.write(URL)
            out, _ = process.communicate(timeout=60)
            self.assertIn(b"HPKVD_TEST_MARK", block)
            self.assertNotIn(KEY.encode(), block)
            self.assertNotIn(KEY, out)


class Documentation(ConfigTest):
    """The packaged file and the manual know exactly the settings that the program knows, and the same defaults."""

    def settings(self):
        known = {}
        for section in ("upstream", "listen", "cache", "metrics", "log", "access web"):
            r = self.check(URL + f"[{section}]\nno_such_setting = 1\n")
            known[section.split()[0]] = r.stderr.splitlines()[0].rsplit("has: ", 1)[1].split()
        return {f"[{s}] {n}" for s, names in known.items() for n in names}

    @staticmethod
    def uncommented(text):
        return re.sub(r"(?m)^;(?=[a-z_]+ =|\[access )", "", text)

    def sample(self):
        with open(os.path.join(SRCDIR, "etc", "hpkvd.conf"), encoding="utf-8") as f:
            return f.read()

    def test_sample_file_is_complete_and_right(self):
        text = self.uncommented(self.sample())
        found, section = set(), None
        for line in text.splitlines():
            if m := re.match(r"\[(\w+)( web)?\]", line):
                section = m.group(1)
            elif m := re.match(r"([a-z_]+) =", line):
                found.add(f"[{section}] {m.group(1)}")
        self.assertEqual(found, self.settings())
        self.assert_ok(self.check(re.sub(r"(?m)^group = hpkv$", "group =", text)))

    def test_manual_names_every_setting_with_the_sample_files_default(self):
        with open(os.path.join(SRCDIR, "doc", "configuration.md"), encoding="utf-8") as f:
            manual = f.read()
        section, rows = None, {}
        for line in manual.splitlines():
            if m := re.match(r"#+ `\[(\w+)( NAME)?\]`", line):
                section = m.group(1)
            elif section and (m := re.match(r"\| `([a-z_]+)` \| ([^|]*) \|", line)):
                rows[f"[{section}] {m.group(1)}"] = m.group(2).strip().strip("`")
        self.assertEqual(set(rows), self.settings())
        section = None
        for line in self.uncommented(self.sample()).splitlines():
            if m := re.match(r"\[(\w+)( web)?\]", line):
                section = m.group(1)
            elif section != "access" and (m := re.match(r"([a-z_]+) = ?(.*)", line)) and m.group(1) not in ("url", "group"):
                self.assertEqual(rows[f"[{section}] {m.group(1)}"], m.group(2) or "none")


if __name__ == "__main__":
    unittest.main()
