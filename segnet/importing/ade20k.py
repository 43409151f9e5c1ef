"""ADE20K's scene parsing folders: annotations/ and images/, each with training and validation; 0 is not scored."""

from __future__ import annotations

import csv
import posixpath
from pathlib import Path

from segnet.classes import IGNORE_INDEX
from segnet.importing.class_file import ClassLine
from segnet.importing.files import Tree, read_lines
from segnet.importing.label_masks import id_rules, mask_drawer
from segnet.importing.source import Choices, Item, Source, short_ids, split_of
from segnet.system.errors import UserError, data_error

_NAMES = ("objectInfo150.txt", "objectInfo150.csv")
_FOLDERS = ("annotations/training/", "annotations/validation/")


def find_ade20k(tree: Tree) -> str:
    """The first folder of annotations; empty: none."""
    has = [folder for folder in _FOLDERS if any(name.startswith(folder) for name in tree.pictures)]
    return has[0] if has and any(name.startswith("images/") for name in tree.pictures) else ""


def read_ade20k(tree: Tree, choices: Choices) -> Source:
    """A set whose value 0 is ignored, and whose values 1.. are the classes of objectInfo150.txt, or of --classes.

    Raises UserError (data) where no file names the classes.
    """
    classes = choices.classes or next((_classes(tree.root / name) for name in _NAMES if name in tree.others), None)
    if not classes:
        remedy = f"put {_NAMES[0]} of the set there, or give --classes FILE with the names of the values 1, 2, …"
        raise data_error(tree.root, "no file names the classes", remedy)
    values = {0: IGNORE_INDEX} | {position + 1: position for position in range(len(classes))}
    rules = id_rules(len(classes), values)
    masks = {_inside(name): name for name in tree.pictures if name.startswith("annotations/")}
    pictures = {_inside(name): name for name in tree.pictures if name.startswith("images/")}
    ids = short_ids(list(pictures.values()))
    items, faults = list[Item](), list[UserError]()
    for key, name in pictures.items():
        mask = tree.root / masks[key] if key in masks else None
        draw = mask_drawer(mask, rules, f"name every value in {_NAMES[0]}, or give --classes FILE") if mask else None
        items.append(Item(ids[name], tree.root / name, mask or tree.root / name, draw, split_of(posixpath.dirname(name))))
    for key in sorted(masks.keys() - pictures.keys()):
        faults.append(data_error(tree.root / masks[key], "is a mask without a picture", "put its picture into images"))
    return Source(classes, items, faults, [], {"masks": "value - 1; 0 is ignored"})


def _inside(name: str) -> str:
    """The path below images or annotations, without the suffix."""
    return posixpath.splitext(name.partition("/")[2])[0]


def _classes(path: Path) -> list[ClassLine]:
    """The names in the last column, by the numbers 1, 2, … of the first. Raises UserError (data) for other numbers."""
    found = list[ClassLine]()
    rows = csv.reader(read_lines(path), delimiter="," if path.suffix == ".csv" else "\t")
    for number, fields in enumerate(rows, 1):
        if not fields or not fields[0].strip().isdecimal():
            continue
        if int(fields[0]) != len(found) + 1:
            raise data_error(path, f"line {number}: number {fields[0]}, expected {len(found) + 1}", "use the set's own file")
        found.append(ClassLine(fields[-1].strip(), None, f"{path.name} line {number}"))
    return found
