"""CVAT's export "Segmentation mask 1.1": VOC's folders, masks in the colours of labelmap.txt, pictures only when asked for."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from segnet.classes import voc_color
from segnet.data.layout import MASKS
from segnet.importing.class_file import ClassLine
from segnet.importing.files import Tree, read_lines
from segnet.importing.label_masks import color_rules
from segnet.importing.source import BACKGROUND, Choices, Item, Source
from segnet.importing.voc import paired_by_lists
from segnet.system.errors import UserError, data_error, raise_first

LABELMAP = "labelmap.txt"


def find_cvat(tree: Tree) -> str:
    """The first labelmap.txt beside folders of VOC; empty: none."""
    return next((posixpath.join(folder, LABELMAP) for folder in _exports(tree)), "")


def _exports(tree: Tree) -> list[str]:
    """The folders with a labelmap.txt beside folders of VOC: one export, or one for each task in a folder of its own."""
    folders = [posixpath.dirname(name) for name in tree.others if posixpath.basename(name) == LABELMAP]
    inside = [tuple(posixpath.join(folder, own) for own in (f"{MASKS}/", "ImageSets/")) for folder in folders]
    return [folder for folder, own in zip(folders, inside, strict=True) if any(name.startswith(own) for name in tree.names)]


def read_cvat(tree: Tree, choices: Choices) -> Source:
    """A set whose classes are the lines of labelmap.txt, the background first; of several exports the ids begin with the folder.

    Raises UserError (data) where the exports have other labels or colours.
    """
    folders = _exports(tree)
    tables = [_background_first(read_labelmap(tree.root / folder / LABELMAP)) for folder in folders]
    classes = tables[0]
    for folder, other in zip(folders, tables, strict=True):
        if [line[:2] for line in other] != [line[:2] for line in classes]:
            found = f"has other labels or colours than {tree.root / folders[0] / LABELMAP}"
            raise data_error(tree.root / folder / LABELMAP, found, "give the tasks the same labels in CVAT, and export again")
    notes, items, faults = list[str](), list[Item](), list[UserError]()
    remedy = f"add a line NAME:R,G,B:: with the colour to {LABELMAP}, or export again"
    for folder in folders:
        own, own_faults = paired_by_lists(tree.below(folder), choices, color_rules(classes), notes, remedy=remedy)
        items += [item._replace(id=posixpath.join(folder, item.id)) for item in own] if len(folders) > 1 else own
        faults += own_faults
    if classes[0].name.lower() not in (BACKGROUND, "unlabelled"):
        notes.append(f"black is the colour of '{classes[0].name}', so that pixels without a label have that class too")
    return Source(classes, items, faults, notes, {"masks": "colours of labelmap.txt"})


def read_labelmap(path: Path) -> list[ClassLine]:
    """The classes of a labelmap.txt: name, colour (VOC's colour of its position where it is empty), parts and actions.

    Raises UserError (data) naming every line of another form, and classes of one name or colour.
    """
    faults, classes = list[UserError](), list[ClassLine]()
    for number, text in enumerate(read_lines(path), 1):
        if not text or text.startswith("#"):
            continue
        fields = text.split(":")
        channels = fields[1].split(",") if len(fields) == 4 and fields[1] else []
        values = [int(channel) for channel in channels if re.fullmatch(r"\s*\d{1,3}\s*", channel) and int(channel) <= 255]
        if len(fields) != 4 or not fields[0] or len(values) != len(channels) or len(channels) not in (0, 3):
            remedy = "write NAME:R,G,B:PARTS:ACTIONS with three colons and R, G, B of 0 to 255"
            faults.append(data_error(path, f"line {number}: '{text}' is no label", remedy))
            continue
        color = (values[0], values[1], values[2]) if values else voc_color(len(classes))
        for other in classes:
            if other.name == fields[0] or other.color == color:
                same = "name" if other.name == fields[0] else f"colour {color}"
                found = f"line {number}: '{fields[0]}' has the {same} of '{other.name}'"
                faults.append(data_error(path, found, "change it in CVAT, and export again"))
        classes.append(ClassLine(fields[0], color, f"{path.name} line {number}"))
    if not classes and not faults:
        faults.append(data_error(path, "no labels in it", "export again"))
    if len(classes) > 254:
        faults.append(data_error(path, f"{len(classes)} labels", "at most 254 and the background fit into a mask"))
    raise_first(faults)
    return classes


def _background_first(classes: list[ClassLine]) -> list[ClassLine]:
    """The classes with the one that owns black first, which is where nothing is labelled; it is added where none does."""
    owner = next((line for line in classes if line.color == (0, 0, 0)), None)
    if owner is None:
        taken = any(line.name == BACKGROUND for line in classes)
        owner = ClassLine("unlabelled" if taken else BACKGROUND, (0, 0, 0), "black: no label owns it")
    return [owner, *(line for line in classes if line is not owner)]
