"""The transcripts in the documents are true: each one in README.md and doc/*.md is played against a daemon of its own.

Two kinds of fenced blocks are transcripts. All text in them is taken literally, but

    …                           stands for whatever is there; alone on a line, for any number of lines
    "timestamp":1764065000123   and other members that tell a time or a pid stand for any number
    12:34:56.789                stands for any time
    an indented line            goes on with the one before (of a line of JSON)

```hpkv      what a client sends (">") and receives ("<"). Several clients have names: "ada>", "ada<".
```console   what is typed behind "$ " into one shell, and what the terminal shows. "^C" ends a command. Where the path of the
             socket is needed, /run/hpkvd/hpkvd.sock stands for it; HPKVD_SOCKET is set. HTTP ports are replaced.
             The packages of bindings/ are installed.

In both, a line like "(the connection to the service is lost)" is something that happens: one of EVENTS below.

Words behind the name of the kind say how things are at the start:

    user:1=Ada                  the store holds this
    [setting=value]             of the daemon's configuration; [access …] sections too: "[access web; user={user}; read=app:*]"
    after                       goes on where the transcript before has ended
    meanwhile                   (console) in another terminal, while the last command of the block before goes on
    alone                       (console) without a daemon; in an empty folder

A block that nobody could play says so by another kind: ```sh, ```json.
"""

import contextlib
import fcntl
import glob
import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import tempfile
import termios
import time
import unittest

import need
from stage import BUILDDIR, ROOT, Stage, me

from harness import DEADLINE, Client, eventually, free_port

PAGES = [os.path.join(ROOT, "README.md"), *sorted(glob.glob(os.path.join(ROOT, "doc", "*.md"))),
         *sorted(glob.glob(os.path.join(ROOT, "bindings", "*", "README.md")))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S)
SAID = re.compile(r"(?P<who>\w*)(?P<way>[<>]) (?P<line>.*)")
TIME = re.compile(r"\b\d\d:\d\d:\d\d\.\d{3}\b")
VARIES = re.compile(r'(\\"|")(timestamp|since|until|pid|\w+Ms)(\\"|"):\d+')
SOCKET = "/run/hpkvd/hpkvd.sock"


class Block:
    """A fenced block of a page."""

    def __init__(self, page, text, match):
        self.page = page
        self.kind, *self.words = shlex.split(match["info"]) or [""]
        self.lines = [line.removeprefix(match["indent"]) for line in match["text"].splitlines()]
        self.line = text.count("\n", 0, match.start()) + 1
        self.name = f"{page}:{self.line}"

    def is_transcript(self):
        return self.kind in ("hpkv", "console")

    def joined(self):
        """The lines, each with those that go on with it."""
        lines = []
        for line in self.lines:
            if lines and line.startswith("  ") and SAID.match(lines[-1]):
                lines[-1] += line.strip()
            elif line.strip():
                lines.append(line)
        return lines

    def given(self):
        """Records and settings for the Stage."""
        records, settings, rules = {}, {}, {}
        for word in self.words:
            if word.startswith("[access"):
                head, *lines = word.strip("[]").split(";")
                pairs = [line.format(user=me()).partition("=") for line in lines]
                rules[head.removeprefix("access").strip()] = {name.strip(): value.strip() for name, _, value in pairs}
            elif word.startswith("["):
                name, _, value = word.strip("[]").partition("=")
                settings[name] = value
            elif "=" in word:
                key, _, value = word.partition("=")
                records[key] = value
        return records, settings | {"access": rules}


def blocks_of(path):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    page = os.path.relpath(path, ROOT)
    return [Block(page, text, match) for match in FENCE.finditer(text)]


def as_pattern(shown):
    """The lines that a line of a document stands for."""
    marked = TIME.sub("\1", VARIES.sub(r"\1\2\3:\0", shown))
    return re.compile(re.escape(marked).replace("…", ".*").replace("\0", r"\d+").replace("\1", TIME.pattern))


def as_lines(shown):
    return r"(?:.*\n)*" if shown == "…" else as_pattern(shown).pattern + r"\n"


# ---- lines to and from the socket ----


def fall_silent(stage, clients, who):
    clients[who].half_close()


EVENTS = {
    r"the connection to the service is lost": lambda stage, clients: stage.lose_connection(),
    r"the connection to the service is back": lambda stage, clients: stage.restore_connection(),
    r"another machine sets (\S+) to (.*)": lambda stage, clients, key, value: stage.store(key, value),
    r"(\w*) ?shuts down its writing side": fall_silent,
    r"(\w*) ?is connected": lambda stage, clients, who: clients[who],
    r"hpkvd gets SIGTERM": lambda stage, clients: stage.daemon.process.signal(signal.SIGTERM),
    r"hpkvd closes the connection": lambda stage, clients: closed(clients[""]),
}


def closed(client):
    assert client.at_end(), f"there was more: {bytes(client.received)!r}"
    client.ended = True


class Clients(dict):
    """Clients, made when they are first named."""

    def __init__(self, socket):
        super().__init__()
        self.socket = socket

    def __missing__(self, who):
        self[who] = Client(self.socket)
        self[who].ended = False
        return self[who]

    def close(self):
        for client in self.values():
            client.close()


def event(line):
    """How to cause an event that a line names, or None."""
    for pattern, act in EVENTS.items():
        if match := re.fullmatch(rf"\({pattern}\)", line):
            return lambda stage, clients: act(stage, clients, *match.groups())
    return None


def play_lines(block, stage, clients):
    for line in block.joined():
        if happen := event(line):
            happen(stage, clients)
            continue
        said = SAID.fullmatch(line)
        assert said, f"{block.name}: neither sent nor received nor an event: {line!r}"
        if said["way"] == ">":
            clients[said["who"]].send(said["line"])
        else:
            expect(block, said, clients[said["who"]].line().decode("utf-8", "surrogatepass"))


def expect(block, said, got):
    assert as_pattern(said["line"]).fullmatch(got), \
        f"{block.name} shows\n  {said['line']}\nbut there came\n  {got}"
    if "…" not in said["line"]:
        json.loads(said["line"])


def nothing_more(block, clients):
    """No line has come that the transcript does not show."""
    for who, client in clients.items():
        if not client.ended:
            try:
                client.barrier()
            except (AssertionError, OSError) as e:
                raise AssertionError(f"{block.name}: at the end of {who or 'the client'}: {e}") from e


# ---- shells ----


class Command:
    """A typed command and its output; or an event."""

    def __init__(self, typed, happen=None):
        self.typed = typed
        self.happen = happen
        self.shows = []
        self.interrupted = False


def commands_of(block):
    commands = []
    for line in block.lines:
        if line.startswith("$ "):
            commands.append(Command(line[2:]))
        elif happen := event(line):
            commands.append(Command(line, happen))
        elif commands and line.startswith("> ") and not commands[-1].shows: # the command goes on
            commands[-1].typed += "\n" + line[2:]
        elif commands and line == "^C":
            commands[-1].interrupted = True
        elif commands:
            commands[-1].shows.append(line)
        else:
            raise AssertionError(f"{block.name}: a console block begins with '$ ', not with {line!r}")
    return commands


class Shell:
    """An interactive bash on a terminal of its own, whose prompt is MARK."""

    MARK = "\x1e"
    JOB = r"\[\d+\][ +-] ?" # its messages about background jobs

    def __init__(self, env, folder, replace):
        self.replace = replace
        self.screen, terminal = need.terminal()
        settings = termios.tcgetattr(terminal)
        settings[1] &= ~termios.OPOST # a line ends as the program has written it
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(terminal, termios.TCSANOW, settings)
        termios.tcsetwinsize(terminal, (50, 160))
        self.bash = subprocess.Popen(["bash", "--norc", "--noprofile", "--noediting", "-i", "+H"], stdin=terminal, stdout=terminal,
                                     stderr=terminal, env=env | {"PS1": self.MARK, "PS2": ""}, cwd=folder, start_new_session=True,
                                     preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(terminal)
        self.shown = ""
        self._read(lambda shown: self.MARK in shown)

    def begin(self, command):
        self.shown = ""
        os.write(self.screen, self._real(command.typed).encode() + b"\n")

    def finish(self, block, command):
        """Waits for all output that the document shows, and for the end of the command."""
        shows = [self._real(line) for line in command.shows]
        if command.interrupted:
            self._read(lambda shown: shown.count("\n") >= len(shows))
            os.write(self.screen, b"\x03")
        ended = self._read(lambda shown: self.MARK in shown)
        got = [line for line in self.shown.partition(self.MARK)[0].splitlines() if not re.match(self.JOB, line)]
        if command.interrupted and got[-1:] == [""]: # bash goes to the next line
            got.pop()
        same = ended and re.fullmatch("".join(map(as_lines, shows)), "".join(line + "\n" for line in got))
        assert same, "\n".join([f"{block.name}: $ {command.typed}", "shows in the document:", *shows, "but in truth:", *got,
                                *([] if ended else ["and it did not end"])])

    def _real(self, text):
        for shown, real in self.replace.items():
            text = text.replace(shown, real)
        return text

    def _read(self, done):
        """Waits for its end; False: it never came."""
        until = time.monotonic() + DEADLINE
        while not done(self.shown):
            if not select.select([self.screen], [], [], max(0, until - time.monotonic()))[0]:
                return False
            try:
                self.shown += os.read(self.screen, 65536).decode("utf-8", "backslashreplace")
            except OSError: # bash has ended
                return False
        return True

    def close(self):
        """Ends the shell and all that it has started, whatever process groups these are in."""
        until = time.monotonic() + DEADLINE
        number = signal.SIGTERM
        while left := session(self.bash.pid):
            for pid in left:
                kill(pid, signal.SIGHUP if pid == self.bash.pid else number) # which ignores SIGTERM
            if self.bash.poll() is not None and time.monotonic() > until:
                number = signal.SIGKILL
            time.sleep(0.01)
        self.bash.wait(DEADLINE)
        os.close(self.screen)


def session(leader):
    """The processes of the session that are not dead."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError: # it has ended
            continue
        if int(fields[3]) == leader and fields[0] not in "ZX":
            found.append(int(pid))
    return found


def kill(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


# ---- from the first block to the last ----


class Play:
    """Transcripts that go on with one another."""

    def __init__(self, blocks):
        self.blocks = blocks
        self.alone = "alone" in blocks[0].words
        self.shells = []

    def run(self):
        with contextlib.ExitStack() as stack:
            self.folder = tempfile.mkdtemp(prefix="hpkvd-doc-")
            os.mkdir(self.folder + "/node_modules") # what npm install leaves
            os.symlink(os.path.join(ROOT, "bindings", "node"), self.folder + "/node_modules/hpkvd")
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.stage = None
            self.clients = None
            if not self.alone:
                records, settings = self.blocks[0].given()
                self.stage = stack.enter_context(Stage(records, **settings))
                self.clients = stack.enter_context(contextlib.closing(Clients(self.stage.daemon.socket)))
            self.replace = {SOCKET: self.stage.daemon.socket} if self.stage else {"7400": str(free_port())}
            stack.callback(self._close_shells)
            shell = self._open_shell() if any(b.kind == "console" for b in self.blocks) else None
            for block, behind in zip(self.blocks, [*self.blocks[1:], None]):
                if block.kind == "hpkv":
                    play_lines(block, self.stage, self.clients)
                elif "meanwhile" not in block.words:
                    self._type(shell, block, behind if behind and "meanwhile" in behind.words else None)
            if self.clients:
                nothing_more(self.blocks[-1], self.clients)

    def _open_shell(self):
        env = {"PATH": f"{BUILDDIR}:{os.environ['PATH']}", "HOME": self.folder, "TERM": "dumb", "NO_COLOR": "1", "LANG": "C.UTF-8",
               "PYTHONPATH": os.path.join(ROOT, "bindings", "python")}
        if self.stage:
            env["HPKVD_SOCKET"] = self.stage.daemon.socket
        self.shells.append(Shell(env, self.folder, self.replace))
        return self.shells[-1]

    def _close_shells(self):
        for shell in self.shells:
            shell.close()

    def _type(self, shell, block, meanwhile):
        for command in (commands := commands_of(block)):
            if command.happen:
                command.happen(self.stage, self.clients)
                continue
            shell.begin(command)
            if meanwhile and command is commands[-1]:
                eventually(self._is_live, f"the subscription of '{command.typed}'")
                self._type(self._open_shell(), meanwhile, None)
            shell.finish(block, command)

    def _is_live(self):
        socket = self.stage.daemon.socket if self.stage else glob.glob(self.folder + "/**/*.sock", recursive=True)[0]
        with Client(socket) as client:
            subscriptions = client.ask({"op": "status"})["subscriptions"]
        return subscriptions["total"] and subscriptions["live"] and not subscriptions["waiting"]


def needs(blocks):
    """A program that is missing for playing them, or None."""
    text = "\n".join(c.typed for b in blocks if b.kind == "console" for c in commands_of(b))
    for program in ("socat", "jq", "curl"):
        if re.search(rf"\b{program}\b", text) and not shutil.which(program):
            return f"{program} is not installed"
    if re.search(r"\bhpkv ", text) and not os.access(os.path.join(BUILDDIR, "hpkv"), os.X_OK):
        return "hpkv is not built"
    return None


def plays_of(blocks):
    plays = []
    for block in filter(Block.is_transcript, blocks):
        if {"after", "meanwhile"} & set(block.words):
            plays[-1].append(block)
        else:
            plays.append([block])
    return plays


def case(blocks):
    def test(self):
        if why := needs(blocks):
            self.skipTest(why)
        Play(blocks).run()

    return test


def page_class(path):
    """A class with a case for each play of the page."""
    name = re.sub(r"\W", "_", os.path.splitext(os.path.relpath(path, ROOT))[0])
    return type(name, (unittest.TestCase,), {f"test_line_{blocks[0].line:04}": case(blocks) for blocks in plays_of(blocks_of(path))})


for page in PAGES:
    page_of_cases = page_class(page)
    globals()[page_of_cases.__name__] = page_of_cases
del page_of_cases


class Marked(unittest.TestCase):
    """No transcript has another mark, so that all are played."""

    def test_each_transcript_is_one(self):
        hidden = [block.name for path in PAGES for block in blocks_of(path)
                  if not block.is_transcript() and any(re.match(r"\w*[<>] \{|\$ ", line) for line in block.lines)]
        self.assertEqual([], hidden)

    def test_there_are_some(self):
        self.assertGreater(sum(len(plays_of(blocks_of(path))) for path in PAGES), 10)


if __name__ == "__main__":
    unittest.main()
