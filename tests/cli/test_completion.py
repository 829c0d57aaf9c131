"""Completion in real shells, each on a terminal: the line afterwards, and the words that the shell reads from it."""

import contextlib
import fcntl
import os
import need
import re
import shutil
import struct
import subprocess
import tempfile
import termios
import threading
import unittest

from cli import HPKV, FakeDaemon, environment, hpkv
from harness import DEADLINE, Case, Daemon, Sandbox, eventually

COMMANDS = """get set patch del range ls incr watch wait token status stats ping ready top raw export import exec mirror completion""".split()
DONE = "\x01" # ends what a shell reports


def script(shell):
    status, out, err = hpkv("/x", "completion", shell)
    assert (status, err) == (0, b"")
    return out.decode()


class Shell:
    """A shell on a terminal with the completion loaded. Control-T completes, reports the line and empties it.
    The working directory is an empty home directory."""

    SETUP = {
        "bash": r"""PS1=; unset HISTFILE; bind 'set bell-style none'; set +o history; eval "$SCRIPT"
                    tell() { printf '%s\1' "$READLINE_LINE" >$OUT; READLINE_LINE=; }
                    bind -x '"\C-g": tell'; bind '"\C-t": "\C-i\C-g"'; printf '\1' >$OUT""",
        "zsh": r"""autoload -Uz compinit; compinit -u -D; eval "$SCRIPT"
                   tell() { zle complete-word; print -rn -- "$BUFFER"$'\1' >$OUT; BUFFER=; }
                   zle -N tell; bindkey -e; bindkey '^T' tell; print -n $'\1' >$OUT""",
        "fish": r"""function fish_prompt; end; set -g fish_greeting; set -g fish_autosuggestion_enabled 0; echo $SCRIPT | source
                    function tell; commandline -f complete; end
                    function write; printf '%s\1' (commandline | string collect) >$OUT; commandline ''; end
                    bind \cg write; bind \ct tell; printf '\1' >$OUT""",
    }
    START = {"bash": ("bash", "--norc", "--noprofile", "-i"), "zsh": ("zsh", "-f", "-i"), "fish": ("fish", "--no-config", "-i")}
    WORDS = {"bash": """args() { printf '%s\\0' "$@"; }\n""", "zsh": """args() { printf '%s\\0' "$@"; }\n""",
             "fish": "function args; printf '%s\\0' $argv; end\n"}

    def __init__(self, shell, env):
        self.shell = shell
        self.folder = tempfile.mkdtemp(prefix="hpkv-shell-")
        self.out = self.folder + "/.completed"
        self.env = environment(HOME=self.folder, TERM="dumb", LC_ALL="C.UTF-8", OUT=self.out, SCRIPT=script(shell),
                               PATH=os.path.dirname(HPKV) + ":" + os.environ["PATH"]) | env
        self.seen = b""

    def __enter__(self):
        self.terminal, slave = need.terminal()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 48, 4000, 0, 0))

        def take_terminal():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(self.START[self.shell], stdin=slave, stdout=slave, stderr=slave, env=self.env,
                                        cwd=self.folder, preexec_fn=take_terminal)
        os.close(slave)
        self.reader = threading.Thread(target=self.swallow)
        self.reader.start()
        with open(self.folder + "/.setup", "w", encoding="utf-8") as file:
            file.write(self.SETUP[self.shell])
        self.type((". " if self.shell != "fish" else "source ") + self.folder + "/.setup\n")
        self.told()
        return self

    def __exit__(self, kind, value, trace):
        self.process.kill()
        self.process.wait()
        self.reader.join()
        os.close(self.terminal)
        shutil.rmtree(self.folder, ignore_errors=True)

    def swallow(self):
        with contextlib.suppress(OSError): # the other side is closed
            while chunk := os.read(self.terminal, 65536):
                self.seen += chunk

    def type(self, text):
        os.write(self.terminal, text.encode())

    def told(self):
        def read():
            with contextlib.suppress(FileNotFoundError), open(self.out, encoding="utf-8") as file:
                return file.read().endswith(DONE)
        eventually(read, f"{self.shell}'s answer; its terminal: {self.seen[-600:]!r}")
        with open(self.out, encoding="utf-8") as file:
            text = file.read()
        os.unlink(self.out)
        return text.removesuffix(DONE)

    def run(self, line):
        """Runs a command of the shell."""
        self.type(f"{line}; printf '\\1' >$OUT\n")
        self.told()

    def complete(self, line, behind=""):
        """The line afterwards. behind: the text behind the cursor."""
        self.type(line + behind + "\x02" * len(behind) + "\x14" + ("\x07" if self.shell == "fish" else ""))
        return self.told()

    def completes(self, line, behind, *accepted):
        """The line afterwards: the first of three that is accepted, or the last. Completion gives up after two seconds, and a
        machine may stand still for as long."""
        for _ in range(3):
            after = self.complete(line, behind)
            if after in accepted:
                break
        return after

    def words(self, line):
        """The arguments that the command hpkv would get."""
        text = self.WORDS[self.shell] + re.sub(r"\bhpkv\b", "args", line, count=1)
        options = ("-f",) if self.shell == "zsh" else ("--no-config",) if self.shell == "fish" else ()
        run = subprocess.run([self.shell, *options, "-c", text], env=self.env, cwd=self.folder, capture_output=True, timeout=DEADLINE)
        assert run.stderr == b"", (line, run.stderr)
        return run.stdout.decode().split("\0")[:-1]


class Scripts(unittest.TestCase):
    def check(self, shell, *options):
        if not shutil.which(shell):
            self.skipTest(f"there is no {shell}")
        with tempfile.NamedTemporaryFile("w", suffix="." + shell) as file:
            file.write(script(shell))
            file.flush()
            run = subprocess.run([shell, *options, file.name], capture_output=True, text=True)
            self.assertEqual((0, ""), (run.returncode, run.stderr))

    def test_shells_accept_them(self):
        self.check("bash", "-n")
        self.check("zsh", "-n")
        self.check("fish", "--no-execute")

    def test_shellcheck_accepts_it(self):
        if not shutil.which("shellcheck"):
            self.skipTest("there is no shellcheck")
        run = subprocess.run(["shellcheck", "-s", "bash", "-"], input=script("bash"), capture_output=True, text=True)
        self.assertEqual((0, ""), (run.returncode, run.stdout))

    def test_options_of_the_new_commands(self):
        def offered(line):
            return hpkv("/x", "completion", "bash", "--", line, "", "--")[1].decode().split("\0")[:-1]

        self.assertEqual(1, offered("hpkv exec --").count("--json"))
        self.assertIn("--folders", offered("hpkv mirror --"))
        self.assertEqual([], offered("hpkv exec --prefix a: env --"))

    def test_file_names(self):
        """Where an option takes a file, where a directory is named, and what exec runs."""
        with tempfile.TemporaryDirectory(prefix="hpkv-files-") as folder:
            os.mkdir(folder + "/sub")
            for name in ("sand", "sub/s", ".hidden", "a b"):
                with open(f"{folder}/{name}", "w", encoding="ascii"):
                    pass
            os.symlink("nowhere", folder + "/sl")

            def offered(line, typed):
                text = line + folder + "/" + typed
                out = hpkv("/x", "completion", "fish", "--", text, "", "")[1].decode()
                return sorted(name.removeprefix(folder + "/") for name in out.split("\0")[:-1])

            for line in ("hpkv export a: --resume ", "hpkv import -R ", "hpkv exec -p a: ", "hpkv exec -p a: -- cat "):
                self.assertEqual(["sand", "sl", "sub/"], offered(line, "s"), line)
                self.assertEqual(["sub/s"], offered(line, "sub/"), line)
                self.assertEqual(["../", "./", ".hidden"], offered(line, "."), line)
            self.assertEqual(["sub/"], offered("hpkv mirror 'a:*' ", ""))
            self.assertEqual([], offered("hpkv mirror 'a:*' x ", ""))

    def test_every_command_is_offered_with_what_it_does(self):
        self.assertEqual((0, b"".join(c.encode() + b"\0" for c in COMMANDS), b""), hpkv("/x", "completion", "bash", "--", "hpkv ", "", ""))
        out = hpkv("/x", "completion", "zsh", "--", "hpkv get --", "", "")[1].decode().split("\0")
        self.assertEqual("described", out[0])
        self.assertIn("--socket\tthe daemon's socket: a path or @name", out)

    def test_a_cut_character_is_no_beginning(self):
        with tempfile.TemporaryDirectory() as folder, KeyServer(folder + "/sock", "a", "ké"):
            for cut in (b"k\xc3", b"$'k\\303"):
                run = subprocess.run([HPKV, "completion", "bash", "--", b"hpkv get " + cut, b"", cut.removeprefix(b"$'")],
                                     env=environment(HPKVD_SOCKET=folder + "/sock"), capture_output=True, timeout=DEADLINE)
                self.assertEqual((0, "ké".encode() + (b"'" if b"$" in cut else b"") + b"\0", b""), (run.returncode, run.stdout, run.stderr))


# Keys of one daemon. The first four characters of each are unique, so that each is completed to its end.
KEYS = ["user@example.com", "env=prod", "acct:7:name", "a:b=c@d:e", "two words", "it's here", 'say "hi"', "cost $HOME", "tick `id`",
        "back\\slash", "bang!now", "tabs\there", "line\nbreak", "semi;colon", "pipe|line", "ampe&sand", "less<more>", "(par)en",
        "curl{a,b}", "[bra]cket", "star*x", "ques?tion", "hash#tag", "#hash", "~tilde", "käse 🧀", "perc%ent", "comm,a", "care^t",
        "=equals", "@at", ":colon", "'quote", '"dquote', "$dollar", "\\begin", "ctrl\x01x", "escp\x1b[31m", "del\x7fx", "c1\x85x",
        "all'a\"b`c$d\\e!f", "tail ", "  begin", "--dash", "-xyz12", "ends'", 'endd"', "endb!", "endn\n"]


class Kind(Case):
    shell = None

    @classmethod
    def setUpClass(cls):
        if not shutil.which(cls.shell):
            raise unittest.SkipTest(f"there is no {cls.shell}")
        cls.stack = contextlib.ExitStack()
        sandbox = cls.stack.enter_context(Sandbox())
        cls.daemon = cls.stack.enter_context(Daemon(sandbox))
        cls.daemon.wait_state("connected")
        with cls.daemon.client() as client:
            for key in cls.keys():
                assert client.ask({"op": "set", "key": key, "value": "v"})["code"] == 200
        cls.terminal = cls.stack.enter_context(Shell(cls.shell, {"HPKVD_SOCKET": cls.daemon.socket}))

    @classmethod
    def tearDownClass(cls):
        cls.stack.close()

    @classmethod
    def keys(cls):
        return KEYS


def single(text, shell):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") if shell == "fish" else "'" + text.replace("'", "'\\''")


def double(text, shell):
    return '"' + re.sub(r'(["$\\])' if shell == "fish" else r'(["$`\\])', r"\\\1", text)


def escaped(text, shell):
    return re.sub(r"([^A-Za-z0-9_./:@=%,+-]|^=)", r"\\\1", text)


STYLES = {"escaped": escaped, "single": single, "double": double}


class Quoting:
    """Each key is completed to itself, from each unique beginning of it, with each way of quoting."""

    def test_every_key_in_every_style(self):
        failed = []
        for key in self.keys():
            if "\t" in key and self.shell == "fish": # a tab begins a description there
                continue
            for style, quote in STYLES.items():
                for n in {4, len(key) - 1}:
                    begun = key[:n]
                    if "*" in begun and self.shell == "fish": # fish takes that for a glob, and offers nothing
                        continue
                    if self.shell == "zsh" and style == "double" and "!" in key: # only one on a terminal reads \\! as ! there
                        continue
                    if re.search("[\0-\x1f\x7f\x85]", begun) or (style == "double" and "!" in begun and self.shell != "fish"):
                        continue
                    line = "hpkv get " + ("-- " if key[0] == "-" else "") + quote(begun, self.shell)
                    for _ in range(5): # as completes() does
                        after = self.terminal.complete(line)
                        try:
                            words = self.terminal.words(after)
                        except AssertionError as e:
                            words = [str(e)]
                        if words[-1] == key:
                            break
                    if words[-1] != key:
                        failed.append(f"{style}: {line!r} -> {after!r} = {words[-1]!r}, not {key!r}")
        self.assertEqual([], failed, "\n" + "\n".join(failed))


class BashQuoting(Quoting, Kind):
    shell = "bash"


class ZshQuoting(Quoting, Kind):
    shell = "zsh"


class FishQuoting(Quoting, Kind):
    shell = "fish"


class KeyServer(FakeDaemon):
    """Answers ranges over some keys; without keys it accepts connections and sends nothing."""

    def __init__(self, path, *keys):
        self.keys, self.wanted = keys, path
        super().__init__()
        if keys:
            threading.Thread(target=self.serve, daemon=True).start()

    def listen(self, backlog=100):
        self.path = self.wanted
        super().listen(backlog)
        self.sock.settimeout(None)

    def serve(self):
        with contextlib.suppress(OSError, AssertionError):
            while True:
                threading.Thread(target=self.answer, args=(self.accept(),), daemon=True).start()

    def answer(self, peer):
        with contextlib.suppress(OSError, AssertionError):
            while True:
                request = peer.line()
                inside = [k for k in self.keys if request["key"].encode() <= k.encode() <= request["endKey"].encode()]
                page = inside[:request["limit"]]
                peer.reply(request, records=[{"key": k, "value": "v"} for k in page], count=len(page), truncated=len(inside) > len(page))


class Lines:
    """Keys come from the daemon that the line names, in any spelling, and from no other."""

    shell = None

    @classmethod
    def setUpClass(cls):
        if not shutil.which(cls.shell):
            raise unittest.SkipTest(f"there is no {cls.shell}")
        cls.stack = contextlib.ExitStack()
        folder = cls.stack.enter_context(tempfile.TemporaryDirectory(prefix="hpkv-sockets-"))
        cls.usual, cls.named = folder + "/usual", folder + "/named"
        cls.silent = folder + "/silent"
        cls.stack.enter_context(KeyServer(cls.usual, "-dash", "user:usual"))
        cls.stack.enter_context(KeyServer(cls.named, "one", "user:named"))
        cls.stack.enter_context(KeyServer(cls.silent))
        cls.terminal = cls.stack.enter_context(Shell(cls.shell, {"HPKVD_SOCKET": cls.usual}))
        os.symlink(cls.named, cls.terminal.folder + "/nm")
        cls.terminal.run((f"set NAMED {cls.named}; set PART {folder}; set BOTH -s {cls.named}; set EMPTY" if cls.shell == "fish" else
                          f"NAMED={cls.named}; PART={folder}; BOTH='-s {cls.named}'; EMPTY="))

    @classmethod
    def tearDownClass(cls):
        cls.stack.close()

    def check(self, cases, behind=""):
        """The completion of each line; a space at its end is optional, but none follows a directory."""
        wrong = []
        for line, added in cases:
            line = re.sub("(?<!_)SOCKET", self.named, line).replace("USUAL", self.usual).replace("SILENT", self.silent)
            accepted = (line + added + behind, line + added.rstrip() + behind) + ((line + added + " " + behind,) if behind else ())
            after = self.terminal.completes(line, behind, *accepted)
            if after not in accepted:
                wrong.append(f"{line + '^' + behind!r} -> {after!r}")
        self.assertEqual([], wrong, "\n" + "\n".join(wrong))

    def test_the_daemon_that_is_named(self):
        self.check([(line, "named ") for line in (
            "hpkv -s SOCKET get user:", "hpkv -sSOCKET get user:", "hpkv --socket SOCKET get user:", "hpkv --socket=SOCKET get user:",
            "hpkv --sock SOCKET get user:", "hpkv --s=SOCKET get user:", "hpkv -js SOCKET get user:", "hpkv -jr0sSOCKET get user:",
            "hpkv get -s SOCKET user:", "hpkv get --socket=SOCKET user:", "hpkv get one -s SOCKET user:", "hpkv get -rsSOCKET user:",
            "hpkv -t 5s -s SOCKET get user:", "hpkv ls -n3 --socket SOCKET user:", "hpkv -s USUAL get -s SOCKET user:",
            "hpkv -s 'SOCKET' get user:", 'hpkv -s "SOCKET" get user:', "hpkv --socket='SOCKET' get user:", 'hpkv "-sSOCKET" get user:',
            "hpkv -s ~/nm get user:", "hpkv --socket ~/nm get user:", "hpkv -s nm get user:", "hpkv -s unix:SOCKET get user:",
            "hpkv -s $NAMED get user:", 'hpkv -s "$NAMED" get user:', "hpkv -s$NAMED get user:", "hpkv --socket=$NAMED get user:",
            "hpkv -s $PART/named get user:", 'hpkv --socket="$PART"/named get user:', "hpkv -s SOCKET watch --exec 'a b' user:",
            "hpkv -s SOCKET range a user:", "true; hpkv -s SOCKET get user:", "hpkv -s USUAL get x; hpkv -s SOCKET get user:",
            "hpkv -s SOCKET get user: >/dev/null user:", "hpkv -s SOCKET del -- user:", "hpkv -s SOCKET watch -ie 'x y' user:")])
        if self.shell != "bash": # bash does not report variables that are set for one command
            self.check([("HPKVD_SOCKET=SOCKET hpkv get user:", "named "), ("A=1 HPKVD_SOCKET=SOCKET B=2 hpkv get user:", "named ")])

    def test_a_daemon_that_is_named_behind_the_cursor(self):
        if self.shell == "fish": # fish does not report text behind the cursor
            return
        self.check([("hpkv get user:", "named")], f" -s {self.named}")
        self.check([("hpkv get user:", "named")], f" one --socket={self.named}")

    def test_the_usual_daemon(self):
        self.check([(line, "usual ") for line in (
            "hpkv get user:", "hpkv get -- -s SOCKET user:", "hpkv get '' user:", "hpkv watch --exec '-s SOCKET' user:",
            "hpkv -s SOCKET get x | hpkv get user:", "hpkv wait --equals -sSOCKET user:", "hpkv -s SOCKET get x && hpkv get user:")])
        if self.shell != "fish":
            self.check([("hpkv get user:", "usual")], f" -- -s {self.named}")

    def test_nothing_where_the_daemon_can_not_be_known(self):
        self.check([(line, "") for line in (
            "hpkv -s $(echo SOCKET) get user:", "hpkv -s SOC*ET get user:", "hpkv $(echo -s SOCKET) get user:", "hpkv -s /x get user:",
            "hpkv -s '~/nm' get user:", "hpkv --socket=/none get user:", "hpkv -s '' get user:", "hpkv -s@none get user:")])

    def test_commands_options_and_words(self):
        self.check([("hpkv pin", "g "), ("hpkv -j pin", "g "), ("hpkv --timeout 5s rang", "e "), ("hpkv watch --exe", "c "),
                    ("hpkv --time", "out "), ("hpkv get --exe", ""), ("hpkv completion zs", "h "), ("hpkv help incr", " "),
                    ("hpkv set one user:", ""), ("hpkv set user:", "usual "), ("hpkv status user:", ""), ("hpkv frob user:", ""),
                    ("hpkv range one user:", "usual "), ("hpkv get -t user:", ""), ("hpkv get -- -", "dash ")])

    def test_sockets(self):
        folder = os.path.dirname(self.named)
        self.check([(f"hpkv -s {folder}/nam", "ed "), (f"hpkv --socket {folder}/nam", "ed "), (f"hpkv --socket={folder}/nam", "ed "),
                    (f"hpkv -s {folder[:-1]}", folder[-1] + "/"), (f"hpkv --socket={folder[:-1]}", folder[-1] + "/"),
                    (f"hpkv -s unix:{folder}/nam", "ed "), (f"hpkv get -s {folder}/nam", "ed ")])

    def test_files(self):
        with open(self.terminal.folder + "/st ate", "w", encoding="ascii"):
            pass
        os.mkdir(self.terminal.folder + "/folder")
        self.check([("hpkv export -R st", "\\ ate "), ("hpkv import --resume 'st", " ate' "), ("hpkv mirror user:usual fol", "der/"),
                    ("hpkv exec -p a: -- cat st", "\\ ate ")])

    def test_variables_in_the_word(self):
        self.terminal.run("set PRE user" if self.shell == "fish" else "PRE=user")
        env = dict(self.terminal.env, PRE="user")
        self.terminal.env, before = env, self.terminal.env
        self.addCleanup(setattr, self.terminal, "env", before)
        accepted = ("user:usual",) + (("user:", "user:us") if self.shell != "bash" else ())
        for line in ("hpkv get $PRE:", 'hpkv get "$PRE":us'):
            for _ in range(3): # as completes() does
                after = self.terminal.complete(line)
                if self.terminal.words(after)[-1] in accepted:
                    break
            self.assertIn(self.terminal.words(after)[-1], accepted, after)

    def test_a_daemon_that_says_nothing_is_not_waited_for(self):
        self.check([("hpkv -s SILENT get user:", "")])
        self.assertNotRegex(self.terminal.seen, rb"(?i)hpkv: |alarm|terminated|not found|error")


class BashLines(Lines, unittest.TestCase):
    shell = "bash"

    # As sudo, time and others are completed, by functions that hand over words of COMP_WORDS.
    OTHER = r"""_wrap() { COMP_LINE=${COMP_LINE#wrap}; ((COMP_POINT -= 4, COMP_CWORD--)); COMP_WORDS=("${COMP_WORDS[@]:1}");
                _hpkv hpkv "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"; }; complete -F _wrap wrap"""

    def test_behind_another_command(self):
        self.terminal.run(self.OTHER.replace("\n", " "))
        self.check([("wrap hpkv get us", "er:usual "), ("wrap hpkv get user:", "usual "), ("wrap hpkv get 'user:", "usual' "),
                    ('wrap hpkv get "us', 'er:usual" '), ("wrap hpkv -s SOCKET get user:n", "amed "), ("wrap hpkv --socket=SOCKET get us", "er:named "),
                    (f"wrap hpkv --socket={self.named[:-2]}", "ed "), ("wrap hpkv pin", "g ")])
        self.check([("wrap hpkv get us", "er:usual"), ("wrap hpkv get user:", "usual")], " -j")

    def test_words_are_divided_as_the_user_likes(self):
        for breaks in (r"$' \t\n'", r"$' \t\n\"\'><=;|&('", r"$' \t\n\"\'@><=;|&(:'", r"$' \t\n/.u'"):
            self.terminal.run(f"saved=$COMP_WORDBREAKS; COMP_WORDBREAKS={breaks}")
            self.check([("hpkv get user:", "usual "), ("hpkv get 'user:", "usual' "), ("hpkv --socket=SOCKET get us", "er:named ")])
            self.terminal.run("COMP_WORDBREAKS=$saved")

    def test_an_alias_names_its_daemon(self):
        self.terminal.run(f"alias hpkv='hpkv -s {self.named}'")
        self.check([("hpkv get user:", "named "), ("hpkv -s USUAL get user:", "usual ")])
        self.terminal.run("unalias hpkv")

    def test_values_are_divided(self):
        self.check([("hpkv $BOTH get user:", "named "), ("hpkv $EMPTY get user:", "usual "), ("hpkv -s $EMPTY SOCKET get user:", "named "),
                    ("hpkv --socket=~/nm get user:", "")])


class ZshLines(Lines, unittest.TestCase):
    shell = "zsh"

    def test_before_a_closing_quote(self):
        for quote in "'\"":
            whole = f"hpkv get {quote}user:usual{quote}"
            self.assertIn(self.terminal.completes(f"hpkv get {quote}us", quote, whole, whole + " "), (whole, whole + " "))


class FishLines(Lines, unittest.TestCase):
    shell = "fish"


class Many(unittest.TestCase):
    def test_the_word_grows_only_by_what_all_have(self):
        """Two hundred are shown; the keys after them begin differently."""
        for shell in ("bash", "zsh", "fish"):
            if not shutil.which(shell):
                continue
            with tempfile.TemporaryDirectory(prefix="hpkv-sockets-") as folder, \
                    KeyServer(folder + "/sock", *(f"key:a{i:03}" for i in range(250)), "key:b"), \
                    Shell(shell, {"HPKVD_SOCKET": folder + "/sock"}) as terminal:
                self.assertEqual("hpkv get key:", terminal.complete("hpkv get key:"), shell)


if __name__ == "__main__":
    unittest.main()
