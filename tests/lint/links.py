"""The documents' links lead somewhere: each relative link names a file, and each fragment a heading of it."""

import glob
import os
import re
import unittest

TOP = os.environ.get("SRCDIR", ".")
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")


def text_of(path):
    """A document without its fenced blocks, whose brackets are not links."""
    with open(path, encoding="utf-8") as file:
        return re.sub(r"^```.*?^```", "", file.read(), flags=re.M | re.S)


def anchors(path):
    headings = re.findall(r"^#+ +(.*)$", text_of(path), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


class Links(unittest.TestCase):
    def test_each_link_leads_somewhere(self):
        documents = [path for folder in ("", "doc", "examples", "systemd") for path in glob.glob(os.path.join(TOP, folder, "*.md"))]
        self.assertGreater(len(documents), 2)
        dead = []
        for document in sorted(documents):
            for link in LINK.findall(text_of(document)):
                if not re.match(r"\w+:", link) and not self.is_alive(document, link):
                    dead.append(f"{os.path.relpath(document, TOP)}: {link}")
        self.assertEqual([], dead)

    @staticmethod
    def is_alive(document, link):
        path, _, anchor = link.partition("#")
        target = os.path.join(os.path.dirname(document), path) if path else document
        return os.path.exists(target) and (not anchor or anchor in anchors(target))


if __name__ == "__main__":
    unittest.main()
