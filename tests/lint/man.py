"""The manual pages are well-formed, and name every setting, operation, error and option that the sources have."""

import glob
import os
import re
import shutil
import subprocess
import unittest

TOP = os.environ.get("SRCDIR", ".")
PAGES = sorted(glob.glob(os.path.join(TOP, "man", "*.[1-8]")))


def read(*path):
    with open(os.path.join(TOP, *path), encoding="utf-8") as file:
        return file.read()


class Manual(unittest.TestCase):
    def complaints(self, *command):
        """What a formatter says of each page, but for what is about this machine."""
        self.assertGreater(len(PAGES), 3)
        said = [line for page in PAGES for line in subprocess.run(
            [*command, page], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            env=os.environ | {"LC_ALL": "C"}).stdout.splitlines()]
        return [line for line in said if "outdated mandoc.db" not in line and "referenced manual not found" not in line]

    @unittest.skipUnless(shutil.which("mandoc"), "there is no mandoc")
    def test_mandoc_has_nothing_to_say(self):
        self.assertEqual([], self.complaints("mandoc", "-T", "lint"))

    @unittest.skipUnless(shutil.which("groff"), "there is no groff")
    def test_groff_has_nothing_to_say(self):
        self.assertEqual([], self.complaints("groff", "-mdoc", "-ww", "-z"))

    def test_every_setting_has_its_entry_and_default(self):
        sections = re.split(r"^\.S[sh] ", read("man", "hpkvd.conf.5"), flags=re.M)
        rows = re.findall(r'^\t\[SET_\w+\] = \{"(\w+)", "(\w+)", \w+, [^"]*, "([^"]*)",', read("src", "config", "settings_table.c"), re.M)
        rows += [("access", name, "") for name in re.findall(r'\[RULE_\w+\] = \{"(\w+)"', read("src", "config", "rules.c"))]
        self.assertGreater(len(rows), 25)
        missing = []
        for section, name, default in rows:
            text = next((text for text in sections if re.match(rf"Sections? \[{section}\b", text)), "")
            entries = re.split(r"^\.It Ic ", text, flags=re.M)
            entry = next((entry for entry in entries if name in entry.partition("\n")[0].replace(",", " ").split()), "")
            shown = " ".join(re.sub(r"^\.\w+ ", "", entry, flags=re.M).split())
            if not entry or (default and not re.search(rf"Defaults?: .*{re.escape(default)}", shown)):
                missing.append(f"[{section}] {name} = {default}")
        self.assertEqual([], missing)

    def test_every_operation_and_error_has_its_entry(self):
        page = read("man", "hpkvd-protocol.7")
        ops = re.findall(r'^\t\[OP_\w+\] = \{"(\w+)"', read("src", "codec", "request.c"), re.M)
        errors = re.findall(r'^\t\[REPLY_\w+\] = \{(\d+), "(\w+)", "(\w+)"', read("src", "codec", "reply.c"), re.M)
        self.assertGreater(len(ops), 10)
        self.assertGreater(len(errors), 10)
        self.assertEqual([], [op for op in ops if not re.search(rf"^\.It Cm {op}\b", page, re.M)])
        self.assertEqual([], [error for error in errors if ".It {} {} Pq {}\n".format(*error) not in page])

    def test_every_option_and_variable_has_its_entry(self):
        page = read("man", "hpkvd.8")
        options = re.findall(r'^\t\{"([\w-]+)", (?:no|required)_argument', read("src", "daemon", "main.c"), re.M)
        variables = re.findall(r'(?:copy|take)\w*_variable\("(\w+)"\)', read("src", "config", "environment.c"))
        self.assertGreater(len(options), 4)
        self.assertGreater(len(variables), 6)
        self.assertEqual([], [o for o in options if not re.search(rf"^\.It.* Fl -{re.escape(o)}\b", page, re.M)])
        self.assertEqual([], [v for v in variables if not re.search(rf"^\.It.*Ev {v}\b", page, re.M)])


if __name__ == "__main__":
    unittest.main()
