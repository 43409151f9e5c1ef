"""Roboflow's "Semantic Segmentation Masks": train, valid and test, each with pictures, masks of ids and _classes.csv."""

from __future__ import annotations

import csv
import posixpath
import re
from pathlib import Path

from segnet.importing.class_file import ClassLine
from segnet.importing.files import Tree, read_lines
from segnet.importing.label_masks import id_rules, mask_drawer
from segnet.importing.source import BACKGROUND, Choices, Item, Source, short_ids, split_of
from segnet.system.errors import UserError, data_error, raise_first

CLASSES = "_classes.csv"
_MASK = "_mask.png"


def find_roboflow(tree: Tree) -> str:
    """The first _classes.csv beside masks; empty: none."""
    folders = {posixpath.dirname(name) for name in tree.pictures if name.endswith(_MASK)}
    return next((name for name in _tables(tree) if posixpath.dirname(name) in folders), "")


def _tables(tree: Tree) -> list[str]:
    return [name for name in tree.others if posixpath.basename(name) == CLASSES]


def read_roboflow(tree: Tree, choices: Choices) -> Source:
    """A set whose folders have the same classes. Raises UserError (data) where they differ."""
    tables = {name: _classes(tree.root / name) for name in _tables(tree)}
    first = next(iter(tables))
    for name, table in tables.items():
        if table != tables[first]:
            raise data_error(tree.root / name, f"has other classes than {first}", "import one of the folders")
    table = tables[first]
    numbers = sorted(table)
    classes = [ClassLine(table[number], None, f"{CLASSES}, value {number}") for number in numbers]
    rules = id_rules(len(numbers), {number: position for position, number in enumerate(numbers)})
    faults = list[UserError]()
    masks = {name.removesuffix(_MASK): name for name in tree.pictures if name.endswith(_MASK)}
    pictures = {posixpath.splitext(name)[0]: name for name in tree.pictures if not name.endswith(_MASK)}
    ids = short_ids(list(pictures.values()))
    items = list[Item]()
    for stem, name in pictures.items():
        mask = tree.root / masks[stem] if stem in masks else None
        draw = mask_drawer(mask, rules, f"add the value to {CLASSES}") if mask else None
        picture = tree.root / name
        items.append(Item(ids[name], picture, mask or picture, draw, split_of(posixpath.dirname(name))))
    for stem in masks.keys() - pictures.keys():
        faults.append(data_error(tree.root / masks[stem], "is a mask without a picture", "export again, or remove it"))
    return Source(classes, items, sorted(faults, key=str), [], {"masks": f"values of {CLASSES}"})


def _classes(path: Path) -> dict[int, str]:
    """The class of each value. Names are without the space around them. Raises UserError (data) naming every line in error."""
    faults, table = list[UserError](), dict[int, str]()
    try:
        rows = list(csv.reader(read_lines(path), skipinitialspace=True))
    except csv.Error as error:
        raise data_error(path, f"is no table ({error})", "export again") from None
    for number, row in enumerate(rows[1:], 2):
        if not any(field.strip() for field in row):
            continue
        value, name = (row[0].strip(), ",".join(row[1:]).strip()) if len(row) > 1 else ("", "")
        if not re.fullmatch(r"\d{1,3}", value) or int(value) > 254 or not name:
            faults.append(data_error(path, f"line {number}: no value of 0 to 254 and name", "write e.g. 1, leaf"))
        elif int(value) in table or name in table.values():
            faults.append(data_error(path, f"line {number}: '{name}' or its value stands there twice", "keep one"))
        else:
            table[int(value)] = name
    if table and 0 not in table:
        table[0] = BACKGROUND
    if not table and not faults:
        faults.append(data_error(path, "no classes in it", "export again"))
    raise_first(faults)
    return table
