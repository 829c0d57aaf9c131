"""The sources keep to the map of rooms: #include points downwards, and a library has only the users that the map gives it.

doc/architecture.md holds the map as a fenced block (between two lines ```), the first with lines as these, from the roof down:

    -- edges: own descriptors, hold no policy      a floor; rooms follow
    link      one WebSocket                        a room and what it is for
    buf map list                                   several rooms
    upstream -> link token                         within its floor upstream may include these
    <libwebsockets.h> link                         who may include this header

A room is a header with the sources of its name (link.h, link.c, link-tls.c). A directory below src/ is a program of its own; the
map does not show it, PROGRAMS says on which floors it stands.
"""

import os
import re
import unittest

SRC = os.path.join(os.environ.get("SRCDIR", "."), "src")
MAP = os.path.join(os.environ.get("SRCDIR", "."), "doc", "architecture.md")
PROGRAMS = {"sandbox": {"codec", "base"}, "cli": {"codec", "base"}}


class Map:
    """What the fenced block says."""

    def __init__(self, text):
        self.floor = {}  # room -> number of its floor, 0 on top
        self.floor_name = [""]
        self.allowed = set()  # (room, neighbour)
        self.users = {}  # header -> rooms
        number = 0
        for line in text.splitlines():
            if line.startswith("--"):
                number += 1
                self.floor_name.append(re.match(r"--\s*(\w*)", line).group(1))
            elif "->" in line:
                room, neighbours = line.split("->")
                self.allowed |= {(room.strip(), name) for name in re.findall(r"[\w-]+", neighbours)}
            elif line.startswith("<"):
                header, rooms = line[1:].split(">")
                self.users[header] = set(rooms.split())
            elif line[:1].strip():
                for room in self.rooms_of(line):
                    self.floor[room] = number

    @staticmethod
    def rooms_of(line):
        """"name  what for" is one room; names with single spaces between them are several."""
        return [line.split()[0]] if re.search(r"\S\s{2,}\S", line) else line.split()


def read_map():
    with open(MAP, encoding="utf-8") as file:
        blocks = re.findall(r"^```\w*\n(.*?)^```", file.read(), re.M | re.S)
    return next((Map(block) for block in blocks if re.search(r"^-- ", block, re.M)), None)


def room_of(path, rooms):
    """The room that a file below src/ belongs to."""
    name = os.path.splitext(path.replace("/", os.sep).split(os.sep)[0])[0]
    while name not in rooms and re.search(r"[-_]", name):
        name = re.sub(r"[-_][^-_]*$", "", name)
    return name


def sources():
    for folder, _, names in os.walk(SRC):
        for name in sorted(names):
            if name.endswith((".c", ".h")):
                yield os.path.relpath(os.path.join(folder, name), SRC)


def includes(path):
    with open(os.path.join(SRC, path), encoding="utf-8") as file:
        return re.findall(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', file.read(), re.M)


def included_file(path, name):
    """An include names a file beside the one that includes it, or in src/."""
    beside = os.path.normpath(os.path.join(os.path.dirname(path), name))
    return beside if os.path.exists(os.path.join(SRC, beside)) else name


class Rooms(unittest.TestCase):
    def setUp(self):
        self.map = read_map()
        self.assertIsNotNone(self.map, f"{MAP} has no block that shows the rooms")

    def test_every_room_is_on_the_map(self):
        known = set(self.map.floor) | set(PROGRAMS)
        strangers = {path for path in sources() if room_of(path, self.map.floor) not in known}
        self.assertEqual(set(), strangers)

    def test_the_map_shows_no_room_that_is_not_there(self):
        there = {room_of(path, self.map.floor) for path in sources()}
        self.assertEqual(set(), set(self.map.floor) - there)

    def test_includes_point_downwards(self):
        wrong = set()
        for path in sources():
            room = room_of(path, self.map.floor)
            for kind, name in includes(path):
                other = room_of(included_file(path, name), self.map.floor)
                if kind == '"' and other in self.map.floor and not self.may_include(room, other):
                    wrong.add(f"{path}: {room} -> {other}")
        self.assertEqual([], sorted(wrong), "no line of the map allows these")

    def may_include(self, room, other):
        if room == other or (room, other) in self.map.allowed:
            return True
        if room in PROGRAMS:
            return self.map.floor_name[self.map.floor[other]] in PROGRAMS[room]
        return self.map.floor.get(room, -1) < self.map.floor[other]

    def test_libraries_have_only_the_users_that_the_map_gives_them(self):
        wrong = []
        for path in sources():
            room = room_of(path, self.map.floor)
            for _, name in includes(path):
                if name in self.map.users and room not in self.map.users[name]:
                    wrong.append(f"{path}: <{name}>")
        self.assertEqual([], wrong)


if __name__ == "__main__":
    unittest.main()
