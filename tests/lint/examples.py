"""What the documents show of examples/ is what stands there, to the letter.

A block below <!-- from examples/FILE --> is the file; below <!-- from examples/FILE [PART] --> it is what the file has between the
lines that say [PART] and [end] in a comment. "python3 tests/lint/examples.py --write" writes the files' text into the documents.
"""

import glob
import os
import re
import sys
import unittest

TOP = os.environ.get("SRCDIR", ".")
SHOWN = re.compile(r"(?P<head>^<!-- from (?P<file>examples/\S+)(?: \[(?P<part>\w+)\])? -->\n```\w*\n)(?P<text>.*?)(?P<tail>^```$)",
                   re.M | re.S)
MARK = re.compile(r"^\W*\[(\w+)\]\W*$")


def text_of(name, part):
    with open(os.path.join(TOP, name), encoding="utf-8") as file:
        lines = file.read().splitlines(keepends=True)
    inside = None
    taken = []
    for line in lines:
        if mark := MARK.match(line):
            inside = None if mark[1] == "end" else mark[1]
        elif part is None or inside == part:
            taken.append(line)
    return "".join(taken).strip("\n") + "\n"


def pages():
    return [os.path.join(TOP, "README.md"), *sorted(glob.glob(os.path.join(TOP, "doc", "*.md")))]


def renewed(page):
    """The page's text, and what it would be."""
    with open(page, encoding="utf-8") as file:
        text = file.read()
    return text, SHOWN.sub(lambda m: m["head"] + text_of(m["file"], m["part"]) + m["tail"], text)


class Shown(unittest.TestCase):
    maxDiff = None

    def test_documents_show_what_the_files_say(self):
        for page in pages():
            old, new = renewed(page)
            self.assertEqual(new, old, f"{page}: python3 tests/lint/examples.py --write mends it")

    def test_each_example_is_told_of(self):
        text = "".join(renewed(page)[0] for page in pages())
        files = glob.glob(os.path.join(TOP, "examples", "*", "*"))
        self.assertGreater(len(files), 10)
        self.assertEqual([], [f for f in (os.path.relpath(f, TOP) for f in sorted(files)) if f not in text])


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        for path in pages():
            before, after = renewed(path)
            if before != after:
                with open(path, "w", encoding="utf-8") as out:
                    out.write(after)
    else:
        unittest.main()
