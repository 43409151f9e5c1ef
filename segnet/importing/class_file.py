"""Files of class names: one name a line, with or without colours, or a classes.yaml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from segnet.classes import Color
from segnet.config.yaml_files import read_mapping
from segnet.importing.files import Tree, read_lines
from segnet.system.errors import UserError, data_error, raise_first

IGNORED = "__ignore__"  # labelme's name of pixels that are not scored
KNOWN_FILES = ("classes.yaml", "labelmap.txt", "label_colors.txt", "class_dict.csv", "classes.txt", "labels.txt")
_FORMS = (  # of a line
    re.compile(r"(?P<r>\d+)[ \t,]+(?P<g>\d+)[ \t,]+(?P<b>\d+)[ \t,]+(?P<name>\S.*)"),  # CamVid: R G B name
    re.compile(r"(?P<name>[^:]*[^:\s]):(?P<r>\d+),(?P<g>\d+),(?P<b>\d+):[^:]*:[^:]*"),  # CVAT: name:R,G,B:parts:actions
    re.compile(r"(?P<name>[^:]*[^:\s])::[^:]*:[^:]*"),
    re.compile(r"(?P<name>[^,]*[^,\s])[ \t]*,[ \t]*(?P<r>\d+)[ \t]*,[ \t]*(?P<g>\d+)[ \t]*,[ \t]*(?P<b>\d+)"),  # name,R,G,B
    re.compile(r"(?P<name>\S.*)"),
)
_HEADER = re.compile(r"(name|class|label)\W.*\br\b.*", re.IGNORECASE)


class ClassLine(NamedTuple):
    """A class in a file."""

    name: str
    color: Color | None
    origin: str  # "classes.txt line 3"


def hex_color(text: object) -> Color | None:
    """The colour of a text #RRGGBB; None for anything else."""
    if not isinstance(text, str) or not re.fullmatch("#[0-9A-Fa-f]{6}", text):
        return None
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def find_class_file(tree: Tree) -> Path | None:
    """The first of `KNOWN_FILES` in the folder of a set."""
    return next((tree.root / name for name in KNOWN_FILES if name in tree.others), None)


def read_class_file(path: Path) -> list[ClassLine]:
    """The classes of a file in its order. Lines with a # and the name __ignore__ are skipped; _background_ is background.

    Raises UserError (data) for names that are repeated or missing, for two classes of one colour, and for more than 255
    classes; (config) for YAML that cannot be read.
    """
    if not path.is_file():
        raise data_error(path, "no such file", "name a file with one class name a line")
    lines = _of_yaml(path) if path.suffix.lower() in (".yaml", ".yml") else _of_text(path)
    faults = list[UserError]()
    names, colors = dict[str, str](), dict[Color, str]()
    for line in lines:
        if line.name in names:
            faults.append(data_error(path, f"class '{line.name}' stands there twice", "give each class its own name"))
        if line.color and line.color in colors:
            found = f"'{line.name}' and '{colors[line.color]}' have the same colour {line.color}"
            faults.append(data_error(path, found, "give each class its own colour"))
        if line.color and max(line.color) > 255:
            faults.append(data_error(path, f"'{line.name}' has a colour above 255: {line.color}", "write R, G, B of 0 to 255"))
        names[line.name] = line.origin
        if line.color:
            colors[line.color] = line.name
    if not 1 <= len(lines) <= 255:
        faults.append(data_error(path, f"{len(lines)} classes", "declare 1 to 255"))
    raise_first(faults)
    return lines


def _of_yaml(path: Path) -> list[ClassLine]:
    table, _ = read_mapping(path)
    names, colors = table.get("names"), table.get("colors") or []
    if isinstance(names, dict) and sorted(names, key=str) == sorted(map(str, range(len(names))), key=str):
        names = [names[str(i)] for i in range(len(names))]  # Ultralytics writes ids before the names
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise data_error(path, "'names' is no list of names", "write names: [background, …] in the order of their ids")
    if not isinstance(colors, list) or (colors and len(colors) != len(names)):
        raise data_error(path, f"'colors' is no list of {len(names)} colours", "write one [R, G, B] for each name")
    read = list[Color | None]()
    for color in colors:
        if not isinstance(color, list) or len(color) != 3 or not all(isinstance(c, int) and 0 <= c <= 255 for c in color):
            raise data_error(path, f"{color!r} is no colour", "write [R, G, B] of 0 to 255")
        read.append((int(str(color[0])), int(str(color[1])), int(str(color[2]))))
    all_colors = read or [None] * len(names)
    pairs = zip(names, all_colors, strict=True)
    return [ClassLine(str(name), color, f"{path.name}, number {i}") for i, (name, color) in enumerate(pairs)]


def _of_text(path: Path) -> list[ClassLine]:
    found = list[ClassLine]()
    for number, text in enumerate(read_lines(path), 1):
        if not text or text.startswith("#") or (not found and _HEADER.fullmatch(text)):
            continue
        match = next(match for form in _FORMS if (match := form.fullmatch(text)))
        groups = match.groupdict()
        color = (int(groups["r"]), int(groups["g"]), int(groups["b"])) if groups.get("r") else None
        name = {"_background_": "background"}.get(groups["name"], groups["name"])
        if name != IGNORED:
            found.append(ClassLine(name, color, f"{path.name} line {number}"))
    return found
