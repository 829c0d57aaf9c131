"""doc/operations.md and doc/protocol.md know each member that the status answer has."""

import os
import re
import unittest

from stage import ROOT

from harness import Case, Daemon, Sandbox


def members(answer, prefix=""):
    for name, value in answer.items():
        if isinstance(value, dict) and name != "limits":
            yield from members(value, f"{prefix}{name}.")
        elif prefix + name != "code":
            yield prefix + name


def told(page):
    """The members in the first column of its table about the status; ".patterns" behind "subscriptions.keys" is one of these too."""
    with open(os.path.join(ROOT, "doc", page), encoding="utf-8") as file:
        section = re.search(r"^## status\n(.*?)(^## |\Z)", file.read(), re.M | re.S | re.I)[1]
    names = set()
    for cell in re.findall(r"^\| (`[^|]*) \|", section, re.M):
        group = ""
        for name in re.findall(r"`([^`]+)`", cell):
            group = group if name.startswith(".") else name.rpartition(".")[0]
            names.add(group + name if name.startswith(".") else name)
    return names


class StatusMembers(Case):
    def test_each_one_is_explained(self):
        with Sandbox() as sandbox, Daemon(sandbox) as daemon:
            daemon.wait_state("connected")
            with daemon.client() as client:
                there = set(members(client.ask({"op": "status", "top": True})))
        for page in ("operations.md", "protocol.md"):
            self.assertEqual(there, told(page), page)


if __name__ == "__main__":
    unittest.main()
