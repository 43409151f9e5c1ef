"""Ultralytics' polygons: a text file for each picture, a line "class x1 y1 x2 y2 …" in shares of its width and height."""

from __future__ import annotations

import math
import posixpath
import re
from functools import partial
from pathlib import Path

import numpy as np

from segnet.config.yaml_files import read_mapping
from segnet.data.listing import list_pictures
from segnet.importing.class_file import ClassLine
from segnet.importing.files import Tree, read_lines
from segnet.importing.painting import Patch, Shape, paint
from segnet.importing.polygons import coco_polygon
from segnet.importing.source import BACKGROUND, Choices, Item, Size, Source, short_ids, split_of
from segnet.system.errors import UserError, data_error

_LINE = re.compile(r"\d+(\s+-?[\d.]+(e-?\d+)?){4,}", re.IGNORECASE)
_LARGEST = 2.0  # of a share; larger ones are pixels


def find_ultralytics(tree: Tree) -> str:
    """The first text file of polygons; empty: none."""
    for name in tree.others:
        if name.endswith(".txt") and "labels" in name.split("/")[:-1]:
            try:
                first = next((line for line in read_lines(tree.root / name) if line), "")
            except UserError:
                continue
            if _LINE.fullmatch(first):
                return name
    return ""


def read_ultralytics(tree: Tree, choices: Choices) -> Source:
    """A set whose classes are the names of its YAML file, or of --classes; the background comes first.

    Raises UserError (data) where no file names the classes.
    """
    faults = list[UserError]()
    classes, position = _classes(tree, choices)
    labels = dict[str, str]()
    for name in tree.others:
        is_label = name.endswith(".txt") and "labels" in name.split("/")[:-1]
        if is_label and (first := labels.setdefault(_pair_key(name), name)) != name:
            found = f"would be the labels of the picture that {first} is for, too"
            faults.append(data_error(tree.root / name, found, "keep one of them"))
    pictures = {name: tree.root / name for name in tree.pictures}
    if choices.pictures:
        pictures = {path.relative_to(choices.pictures).as_posix(): path for path in list_pictures(choices.pictures).pictures}
    ids = short_ids(list(pictures))
    overlap = choices.overlap or "smallest"
    items, used = list[Item](), set[str]()
    for name, picture in pictures.items():
        label = labels.get(_pair_key(name))
        shapes = _shapes(tree.root / label, position, faults) if label else None
        used.add(label or "")
        draw = partial(paint, shapes, overlap=overlap) if shapes is not None else None
        items.append(Item(ids[name], picture, tree.root / label if label else picture, draw, split_of(posixpath.dirname(name))))
    for name in sorted(set(labels.values()) - used):
        faults.append(data_error(tree.root / name, "has no picture", "put it there, give --pictures DIR, or remove the labels"))
    rules = {"polygons": "COCO's tools (rleFrPoly)", "overlap": overlap}
    return Source(classes, items, faults, [], rules)


def _pair_key(name: str) -> str:
    """A path without its suffix and its folders images and labels, which are those of a picture and of its labels."""
    *folders, last = posixpath.splitext(name)[0].split("/")
    return "/".join([*(folder for folder in folders if folder not in ("images", "labels")), last])


def _classes(tree: Tree, choices: Choices) -> tuple[list[ClassLine], dict[int, int]]:
    """The classes, and the position of each number in the text files."""
    names, origin = dict[int, str](), ""
    for name in tree.others:
        if "/" not in name and name.endswith((".yaml", ".yml")) and not names:
            names, origin = _names_in(tree.root / name), name
    if not names and choices.classes:
        names = dict(enumerate(line.name for line in choices.classes if line.name != BACKGROUND))
        origin = "--classes"
    if not names:
        remedy = "add data.yaml with names: [leaf, stem], or give --classes FILE in the order of the numbers"
        raise data_error(tree.root, "no YAML file with names, so that numbers have no class", remedy)
    classes, position = [ClassLine(BACKGROUND, None, "all that no polygon covers")], dict[int, int]()
    for number, name in sorted(names.items()):
        if name == BACKGROUND:
            position[number] = 0
        else:
            position[number] = len(classes)
            classes.append(ClassLine(name, None, f"{origin}, class {number}"))
    return classes, position


def _names_in(path: Path) -> dict[int, str]:
    """The class of each number in a YAML file; empty without the key names. Raises UserError (data) for other forms of it."""
    names = read_mapping(path)[0].get("names")
    if names is None:
        return {}
    pairs = dict(enumerate(names)) if isinstance(names, list) else names
    known = dict[int, str]()
    for number, name in pairs.items() if isinstance(pairs, dict) else []:
        if str(number).isdecimal() and isinstance(name, str | int) and str(name):
            known[int(number)] = str(name)
    if not isinstance(pairs, dict) or len(known) != len(pairs) or len(set(known.values())) != len(known):
        raise data_error(path, "'names' is no list of different names", "write names: [leaf, stem] in the order of the numbers")
    return known


def _shapes(path: Path, position: dict[int, int], faults: list[UserError]) -> list[Shape] | None:
    """The shapes of a text file; None where it has no line."""
    shapes = list[Shape]()
    try:
        lines = read_lines(path)
    except UserError as fault:
        faults.append(fault)
        return []
    if not any(lines):
        return None
    for number, text in enumerate(lines, 1):
        if not text:
            continue
        try:
            values = [float(word) for word in text.split()]
        except ValueError:
            values = []
        if not values or not all(map(math.isfinite, values)) or not values[0].is_integer():
            faults.append(data_error(path, f"line {number}: not a class and numbers", "export it again"))
        elif int(values[0]) not in position:
            faults.append(data_error(path, f"line {number}: class {int(values[0])} has no name", "add it to names"))
        elif len(values) == 5:
            faults.append(data_error(path, f"line {number}: a box without a polygon", "export segments, or remove the line"))
        elif len(values) % 2 == 0 or len(values) < 5:
            faults.append(data_error(path, f"line {number}: {len(values) - 1} numbers are no pairs x y", "export it again"))
        elif (largest := max(map(abs, values[1:]))) > _LARGEST:
            found = f"line {number}: {largest:g} is no share of the picture"
            faults.append(data_error(path, found, "divide by its width or height"))
        else:
            points = np.array(values[1:]).reshape(-1, 2)
            shapes.append(Shape(position[int(values[0])], partial(_polygon, points)))
    return shapes


def _polygon(shares: np.ndarray, size: Size) -> Patch:
    return coco_polygon([shares * (size[1], size[0])], size)
