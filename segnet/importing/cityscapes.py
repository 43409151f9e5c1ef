"""Cityscapes' folders: leftImg8bit/<split>/<city>/ beside gtFine/ or gtCoarse/, with the 19 classes of its benchmark."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

import numpy as np

from segnet.classes import IGNORE_INDEX, Color
from segnet.data.mask_files import open_labels
from segnet.importing.class_file import ClassLine
from segnet.importing.files import Tree
from segnet.importing.label_masks import id_rules, mask_drawer
from segnet.importing.source import Choices, Item, Source, split_of
from segnet.system.errors import UserError, data_error

_MASK = re.compile(r"(?P<name>.+)_gt(Fine|Coarse)_label(?P<kind>Ids|TrainIds)\.png")
_PICTURE = "_leftImg8bit"
_VOID = range(34)  # ids that are none of the classes below are not scored
_CLASSES: dict[str, tuple[int, Color]] = {  # id in labelIds (cityscapesScripts, helpers/labels.py), in the order of trainIds
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}


def find_cityscapes(tree: Tree) -> str:
    """The first mask with Cityscapes' suffix; empty: none."""
    return next((name for name in tree.pictures if _MASK.fullmatch(posixpath.basename(name))), "")


def read_cityscapes(tree: Tree, choices: Choices) -> Source:
    """A set whose classes are the 19 that the benchmark scores; the others are ignored.

    labelTrainIds are read where there are no labelIds. gtFine is preferred to gtCoarse for a picture that has both.
    """
    masks = dict[str, list[tuple[str, str]]]()
    for name in tree.pictures:
        if match := _MASK.fullmatch(posixpath.basename(name)):
            masks.setdefault(match["name"], []).append((name, match["kind"]))
    classes = [ClassLine(name, color, f"labelIds {number}") for name, (number, color) in _CLASSES.items()]
    numbers = {number: position for position, (number, _) in enumerate(_CLASSES.values())}
    by_id = id_rules(len(classes), dict.fromkeys(_VOID, IGNORE_INDEX) | numbers)
    by_train_id = id_rules(len(classes), {i: i for i in range(len(classes))})
    faults, items = list[UserError](), list[Item]()
    pictures = {_stem(name): name for name in tree.pictures if _PICTURE in posixpath.basename(name)}
    for stem, name in pictures.items():
        found = sorted(masks.get(stem, []), key=lambda pair: (pair[1] != "Ids", "gtFine" not in pair[0], pair[0]))
        path = tree.root / found[0][0] if found else None
        rules = by_id if found and found[0][1] == "Ids" else by_train_id
        labelled = path is not None and _holds_labels(path, found[0][1])
        draw = mask_drawer(path, rules, "only Cityscapes' own ids are known") if path and labelled else None
        items.append(Item(stem, tree.root / name, path or tree.root / name, draw, split_of(posixpath.dirname(name))))
    for stem in sorted(masks.keys() - pictures.keys()):
        remedy = "unpack leftImg8bit beside the masks"
        faults.append(data_error(tree.root / masks[stem][0][0], f"its picture {stem}{_PICTURE}.png is missing", remedy))
    notes = ["the classes are the 19 that the benchmark scores; its other ids are not scored"]
    return Source(classes, items, faults, notes, {"masks": "labelIds or labelTrainIds to the benchmark's classes"})


def _stem(name: str) -> str:
    return posixpath.splitext(posixpath.basename(name))[0].removesuffix(_PICTURE)


def _holds_labels(path: Path, kind: str) -> bool:
    """Whether a mask has a pixel that is scored; those of the test split have none."""
    try:
        values = open_labels(path).values
    except UserError:
        return True  # the fault is named when it is drawn
    scored = [number for number, _ in _CLASSES.values()] if kind == "Ids" else list(range(len(_CLASSES)))
    return values.ndim == 3 or bool(np.isin(values, scored).any())
