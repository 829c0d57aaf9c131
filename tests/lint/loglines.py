"""doc/operations.md explains every line that the daemon logs, debug aside, and none that it doesn't log.

A line is known by its format with … in the place of what varies, as in `upstream: no token, the connection stays as it is: …`.
"""

import glob
import os
import re
import unittest

TOP = os.environ.get("SRCDIR", ".")
PAGE = os.path.join(TOP, "doc", "operations.md")
CALL = re.compile(r"(?<!void )\b(?P<how>log_(?:error|warning|notice|info|at)|client_log)\(")
LITERAL = re.compile(r'"((?:\\.|[^"\\])*)"|\b(PRI\w+)|\s+')
CONVERSION = re.compile(r"%[-+ #0]*(?:\d+|\*)?(?:\.(?:\d+|\*))?(?:hh|h|ll|l|j|z|t)?[a-zA-Z]")
CLIENT = "client … (pid …, uid …): "
# What these hand on are whole sentences: faults of the configuration, and what client_log() is told.
ANYTHING = {"…", CLIENT + "…"}


def formats(text):
    """The formats of a source's log calls, each as the document writes it."""
    for call in CALL.finditer(text):
        start = text.find('"', call.end())
        before = text[call.end():start]
        if start < 0 or ";" in before or "LOG_LEVEL_DEBUG" in before:
            continue
        while start:
            line, start = literals(text, start)
            yield CLIENT + line if call["how"] == "client_log" else line


def literals(text, at):
    """The literals there, joined; and where those behind a : are, of the other case, or None."""
    pieces = []
    while match := LITERAL.match(text, at):
        pieces.append(match[1] if match[1] is not None else "d" if match[2] else "")
        at = match.end()
    other = re.compile(r":\s*(?=\")").match(text, at)
    return CONVERSION.sub("…", "".join(pieces)).replace("%%", "%").replace('\\"', '"'), other and other.end()


def logged():
    found = {}
    for path in sorted(glob.glob(os.path.join(TOP, "src", "*", "*.c"))):
        with open(path, encoding="utf-8") as file:
            for line in formats(file.read()):
                found.setdefault(line, os.path.basename(path))
    return {line: source for line, source in found.items() if line not in ANYTHING}


def explained():
    """The first column of the tables about log lines."""
    with open(PAGE, encoding="utf-8") as file:
        section = file.read().partition("\n## The log\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)`", section, re.M))


class LogLines(unittest.TestCase):
    def test_each_log_line_is_explained(self):
        lines, known = logged(), explained()
        self.assertGreater(len(lines), 20)
        missing = [f"{source}: {line}" for line, source in lines.items() if line not in known]
        self.assertEqual([], missing, "not explained in doc/operations.md")

    def test_each_explained_line_is_logged(self):
        self.assertEqual(set(), explained() - set(logged()), "explained in doc/operations.md, but not logged")


if __name__ == "__main__":
    unittest.main()
