"""The sources keep to the map of rooms: folders and rooms include only what the map allows, pure rooms no edges, and a library
has only the users that the map gives it.

doc/architecture.md holds the map as a fenced block (between two lines ```), the first with lines as these:

    -- upstream/    the connection that counts     a folder of src/; its rooms follow
    conn *          one connection                 an edge: it has descriptors, events or a clock; other rooms are pure
    mem log buf                                    several rooms
    upstream -> connections handover               within its folder upstream may include these
    upstream/ -> transport                         the folder's rooms may include rooms of these folders, and of codec/ and base/
    <ini.h> inifile                                who may include this header

A room is a header with the sources of its name (json.h, json.c, json_buf.c), and no two have the same name. A folder in PROGRAMS
is a program of its own; the map does not show it, PROGRAMS says which folders it uses.
"""

import os
import re
import unittest

SRC = os.path.join(os.environ.get("SRCDIR", "."), "src")
MAP = os.path.join(os.environ.get("SRCDIR", "."), "doc", "architecture.md")
PROGRAMS = {"sandbox": {"codec", "base"}, "cli": {"codec", "base"}}
EVERYBODYS = {"codec", "base"}
IMPURE = re.compile(r"event2/|curl/|ares\.h|openssl/(ssl|bio)\.h|sys/socket\.h|sys/un\.h|poll\.h|systemd/|signal\.h")


class Map:
    """What the fenced block says."""

    def __init__(self, text):
        self.folder = {}  # room -> its folder
        self.edges = set()
        self.allowed = set()  # (room, neighbour)
        self.below = {}  # folder -> folders
        self.users = {}  # header -> rooms
        folder = ""
        for line in text.splitlines():
            if line.startswith("--"):
                folder = re.match(r"--\s*(\w*)/", line).group(1)
                self.below[folder] = EVERYBODYS - {folder} if folder != "base" else set()
            elif "/ ->" in line:
                self.below[folder] |= set(line.split("->")[1].split())
            elif "->" in line:
                room, neighbours = line.split("->")
                self.allowed |= {(room.strip(), name) for name in neighbours.split()}
            elif line.startswith("<"):
                header, rooms = line[1:].split(">")
                self.users[header] = set(rooms.split())
            else:
                self.add_rooms(folder, line)

    def add_rooms(self, folder, line):
        """"name  what for" is one room; names with single spaces between them are several."""
        for name, star in re.findall(r"(\w+)( \*)?", re.split(r"\s{2,}", line.replace(" *  ", " *   "))[0]):
            assert name not in self.folder, f"the map has {name} twice"
            self.folder[name] = folder
            self.edges |= {name} if star else set()


def read_map():
    with open(MAP, encoding="utf-8") as file:
        blocks = re.findall(r"^```\w*\n(.*?)^```", file.read(), re.M | re.S)
    return next((Map(block) for block in blocks if re.search(r"^-- ", block, re.M)), None)


def room_of(path, rooms):
    """The room that a file FOLDER/NAME belongs to; of a program, its name."""
    folder, name = path.split("/")[0], os.path.splitext(os.path.basename(path))[0]
    if folder in PROGRAMS:
        return folder
    while name not in rooms and re.search(r"_", name):
        name = re.sub(r"_[^_]*$", "", name)
    return name


def sources():
    for folder, _, names in os.walk(SRC):
        for name in sorted(names):
            if name.endswith((".c", ".h")):
                yield os.path.relpath(os.path.join(folder, name), SRC).replace(os.sep, "/")


def includes(path):
    with open(os.path.join(SRC, path), encoding="utf-8") as file:
        return re.findall(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', file.read(), re.M)


class Rooms(unittest.TestCase):
    def setUp(self):
        self.map = read_map()
        self.assertIsNotNone(self.map, f"{MAP} has no block that shows the rooms")

    def test_every_room_is_on_the_map_in_its_folder(self):
        there = {(path.split("/")[0], room_of(path, self.map.folder)) for path in sources()}
        shown = {(folder, room) for room, folder in self.map.folder.items()}
        self.assertEqual(shown, {(folder, room) for folder, room in there if folder not in PROGRAMS})

    def test_folders_have_no_circle(self):
        left = dict(self.map.below)
        while left:
            free = {folder for folder, below in left.items() if not below & set(left) - {folder}}
            self.assertTrue(free, f"a circle: {sorted(left)}")
            left = {folder: below for folder, below in left.items() if folder not in free}

    def test_includes_are_allowed(self):
        wrong = set()
        for path in sources():
            for kind, name in includes(path):
                other = room_of(name, self.map.folder)
                if kind == '"' and "/" in name and not self.may_include(path.split("/")[0], room_of(path, self.map.folder), other):
                    wrong.add(f"{path}: {name}")
        self.assertEqual([], sorted(wrong), "no line of the map allows these")

    def may_include(self, folder, room, other):
        if folder in PROGRAMS:
            return other == room or self.map.folder.get(other) in PROGRAMS[folder]
        if self.map.folder.get(other) != folder:
            return self.map.folder.get(other) in self.map.below[folder]
        return room == other or (room, other) in self.map.allowed

    def test_pure_rooms_have_no_edge(self):
        wrong = set()
        for path in sources():
            room = room_of(path, self.map.folder)
            if room in PROGRAMS or room in self.map.edges or self.map.folder[room] == "base":
                continue
            for kind, name in includes(path):
                if (kind == "<" and IMPURE.match(name)) or (kind == '"' and room_of(name, self.map.folder) in self.map.edges):
                    wrong.add(f"{path}: {name}")
        self.assertEqual([], sorted(wrong), "these rooms are pure on the map")

    def test_a_line_of_the_map_that_nothing_needs_is_gone(self):
        rooms, folders = set(), set()
        for path in sources():
            room = room_of(path, self.map.folder)
            for _, name in includes(path):
                other = room_of(name, self.map.folder)
                rooms.add((room, other))
                folders.add((path.split("/")[0], self.map.folder.get(other)))
        self.assertEqual([], sorted(self.map.allowed - rooms))
        self.assertEqual([], sorted((folder, name) for folder, below in self.map.below.items() for name in below - EVERYBODYS
                                    if (folder, name) not in folders))

    def test_libraries_have_only_the_users_that_the_map_gives_them(self):
        wrong = []
        for path in sources():
            room = room_of(path, self.map.folder)
            for _, name in includes(path):
                if name in self.map.users and room not in self.map.users[name]:
                    wrong.append(f"{path}: <{name}>")
        self.assertEqual([], wrong)


if __name__ == "__main__":
    unittest.main()
