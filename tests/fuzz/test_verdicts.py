"""hpkvd's verdict on a text, an object or not, is that of Python's json, over the corpora of the fuzz targets.

Three differences are meant:
- Python reads the words NaN, Infinity and -Infinity, which are no JSON. hpkvd refuses them.
- Python's bound for arrays and objects in each other depends on its version: about 1000 before 3.12. hpkvd's is 1024, so
  texts that may go beyond 900 are not compared.
- Python (3.11 and later) refuses an integer of more than 4300 digits, whose value it would have to compute. hpkvd
  passes numbers on as they are written.

The target "differ" (tests/fuzz/differ.c) compares with cJSON in the same way.
"""

import json
import os
import re
import subprocess
import unittest
from pathlib import Path

CORPUS = Path(os.environ["SRCDIR"], "tests/fuzz/corpus")
VERDICTS = os.path.join(os.environ["BUILDDIR"], "tests/fuzz/verdicts")
OBJECT = "object"
DEEP = 900

# Each with what differs between readers of JSON.
TEXTS = [
    b"", b" ", b"{}", b" {} ", b"{}{}", b"{},", b"[]", b"1", b'"a"', b"null", b"{", b"}", b'{"a"}', b'{"a":}', b'{"a":1,}',
    b'{,"a":1}', b'{"a":1 "b":2}', b"{'a':1}", b"{a:1}", b'{"a":01}', b'{"a":-01}', b'{"a":1.}', b'{"a":.1}', b'{"a":-}',
    b'{"a":+1}', b'{"a":1e}', b'{"a":1e+}', b'{"a":1E-0}', b'{"a":0x1}', b'{"a":1_0}', b'{"a":-0}', b'{"a":1e999}',
    b'{"a":tru}', b'{"a":TRUE}', b'{"a":truex}', b'{"a":[1,]}', b'{"a":[,1]}', b'{"a":[1 2]}', b'{"a":[1}', b'{"a":1]',
    b'{"a":"\n"}', b'{"a":"\t"}', b'{"a":"\x00"}', b'{"a":"\x7f"}', b'{"a":"\\x"}', b'{"a":"\\\'"}', b'{"a":"\\u12"}',
    b'{"a":"\\u+123"}', b'{"a":"\\u 123"}', b'{"a":"\\uD800"}', b'{"a":"\\uDC00\\uD800"}', b'{"a":"\\u0000"}', b'{"a":"\\/"}',
    b'{"a":"\xff"}', b'{"a":"\xc0\x80"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xf4\x90\x80\x80"}', b'{"a":"\xf0\x9f\x98\x80"}',
    b'{"a":"\xe2\x82"}', b'{"\xc3\xa4":1}', b"\xef\xbb\xbf{}", b"\x00{}", b"{}\x00", b"{\x0b}", b"{\xc2\xa0}", b"{\xe2\x80\xa8}",
    b"\xff\xfe{\x00}\x00", b"{\x00}\x00", b'{"a":1,"a":2}', b'{"":""}', b"{/**/}", b'{"a":1}//', b'{"a":NaN}',
    b'{"a":-Infinity}', b'{"a":Infinity}', b"{" * 1024 + b"}", b'{"a":' * 900 + b"1" + b"}" * 900, b'{"a":' * 1024 + b"1" + b"}" * 1024,
    b'{"a":' * 1025 + b"1" + b"}" * 1025, b'{"a":' + b"[" * 1023 + b"]" * 1023 + b"}", b'{"a":' + b"1" * 5000 + b"}",
]


def corpus(name):
    for line in CORPUS.joinpath(name).read_bytes().splitlines():
        yield re.sub(rb"\\x(..)", lambda m: bytes([int(m[1], 16)]), line)


def texts():
    seen = dict.fromkeys(TEXTS)
    for name in "json", "differ", "request", "wire", "answer":
        seen.update(dict.fromkeys(corpus(name)))
    return list(seen)


def ours(all_):
    said = subprocess.run([VERDICTS], input="".join(t.hex() + "\n" for t in all_), capture_output=True, text=True,
                          check=True).stdout.splitlines()
    return dict(zip(all_, said, strict=True))


class Constant(Exception):
    """A word that is no JSON."""


def constant(word):
    raise Constant(word)


def pythons(text):
    """ "object"; why not; or, in brackets, a difference that is meant."""
    if text.count(b"{") + text.count(b"[") > DEEP:
        return "(too deep)"
    try:
        value = json.loads(text.decode(), parse_constant=constant)
    except Constant as word:
        return f"(not read: {word})"
    except ValueError as why:
        return "(too many digits)" if "string conversion" in str(why) else str(why)
    return OBJECT if isinstance(value, dict) else "no object"


class Verdicts(unittest.TestCase):
    def test_both_say_the_same_of_each_text(self):
        all_ = texts()
        self.assertGreater(len(all_), len(TEXTS) + 100, "there is no corpus")
        for text, said in ours(all_).items():
            python = pythons(text)
            if not python.startswith("("):
                self.assertEqual(said == OBJECT, python == OBJECT, f"{text!r}: we say: {said}; Python: {python}")

    def test_the_differences_that_are_meant(self):
        for text, python, accepted in [
            (b'{"a":NaN}', "(not read: NaN)", False),
            (b'{"a":[-Infinity]}', "(not read: -Infinity)", False),
            (b'{"a":' * 1024 + b"1" + b"}" * 1024, "(too deep)", True),
            (b'{"a":' * 1025 + b"1" + b"}" * 1025, "(too deep)", False),
            (b'{"a":' + b"1" * 5000 + b"}", "(too many digits)", True),
        ]:
            said = ours([text])[text]
            self.assertEqual(said == OBJECT, accepted, f"{text[:40]!r}: {said}")
            self.assertIn(pythons(text), (python, OBJECT), text[:40])
