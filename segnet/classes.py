"""The class tables: names and colours of classes. A class id is the position in the table.

Mask files hold the ids of a table too: the same one, unless classes are merged when a mask is read.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

IGNORE_INDEX = 255  # mask value of pixels that are neither trained nor scored (VOC's "void" border)

Color = tuple[int, int, int]


def voc_color(index: int) -> Color:
    """R, G, B (0..255) of class id `index` (0..255) in Pascal VOC's palette.

    Bit 3i+c of the id is bit 7-i of channel c (VOC development kit, `VOClabelcolormap`).
    """
    channels = [sum(((index >> (3 * i + c)) & 1) << (7 - i) for i in range(3)) for c in range(3)]
    return channels[0], channels[1], channels[2]


@dataclass(frozen=True)
class ClassSet:
    """Names and colours (R, G, B 0..255) of K classes by id 0..K-1.

    `ignore_index` is the value in this dataset's mask files of pixels that are neither trained nor scored. Where classes are
    merged, `stored_names` are the classes of the mask files by their ids, and `class_of_stored` the id of the class that each
    of them belongs to, `IGNORE_INDEX` for none; both are empty where files hold these classes themselves.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    ignore_index: int = IGNORE_INDEX
    stored_names: tuple[str, ...] = field(default=(), repr=False)
    class_of_stored: tuple[int, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def palette(self) -> list[int]:
        """768 integers R, G, B, R, … for a PNG in mode P; ids without a class have VOC's colour."""
        colors = [self.colors[i] if i < len(self.colors) else voc_color(i) for i in range(256)]
        return [channel for color in colors for channel in color]


def class_set(names: tuple[str, ...], colors: tuple[Color, ...] = (), *, ignore_index: int = IGNORE_INDEX) -> ClassSet:
    """A ClassSet with VOC's colours where `colors` is empty."""
    return ClassSet(names, colors or tuple(map(voc_color, range(len(names)))), ignore_index=ignore_index)


IGNORED = "ignore"  # the name in `merge` for classes that are neither trained nor scored


def merge_fault(names: Sequence[str], merge: Mapping[str, Sequence[str]]) -> str:
    """What is wrong with `merge` (new name -> names of classes), as text with a remedy; empty where nothing is."""
    owner = dict[str, str]()
    for new, members in merge.items():
        for name in members:
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                known = f"did you mean '{close[0]}'?" if close else f"the classes are {', '.join(names)}"
                return f"no class '{name}'; {known}"
            if name in owner:
                return f"'{name}' stands twice, in '{owner[name]}' and in '{new}'; keep one of them"
            owner[name] = new
    for new, members in merge.items():
        if members and new in names and owner.get(new) != new:
            return f"'{new}' is the name of a class that is not part of it; add it to its list, or choose another name"
    left = {owner.get(name, name) for name in names} - {new for new in owner.values() if new == IGNORED}
    if len(left) < 2:
        return f"leaves {'no class' if not left else 'a single class'}; a network needs two"
    return ""


def merge_classes(classes: ClassSet, merge: Mapping[str, Sequence[str]]) -> ClassSet:
    """The table after `merge`, which has no `merge_fault`: a merged class has the place and the colour of its first member.

    The classes that are left keep their order and are numbered anew. The same table where nothing is merged.
    """
    owner = {name: new for new, members in merge.items() for name in members}
    if not owner:
        return classes
    new_names = [owner.get(name, name) for name in classes.names]
    names = tuple(dict.fromkeys(name for name, old in zip(new_names, classes.names, strict=True) if owner.get(old) != IGNORED))
    ids = {name: number for number, name in enumerate(names)}
    class_of = tuple(
        IGNORE_INDEX if owner.get(old) == IGNORED else ids[new] for old, new in zip(classes.names, new_names, strict=True)
    )
    colors = tuple(classes.colors[class_of.index(number)] for number in range(len(names)))
    return ClassSet(names, colors, classes.ignore_index, classes.names, class_of)


def merge_text(classes: ClassSet) -> str:
    """The merged classes as text, such as "plant = leaf + stem; ignored: dust"; empty where none are merged."""
    members: dict[int, list[str]] = {number: [] for number in (*range(len(classes)), IGNORE_INDEX)}
    for name, number in zip(classes.stored_names, classes.class_of_stored, strict=True):
        members[number].append(name)
    ignored = members.pop(IGNORE_INDEX)
    parts = [f"{classes.names[k]} = {' + '.join(names)}" for k, names in members.items() if names and names != [classes.names[k]]]
    return "; ".join([*parts, *([f"ignored: {', '.join(ignored)}"] if ignored else [])])


def difference(found: ClassSet, expected: ClassSet) -> str:
    """The first difference in the number or names of classes, as text; empty where there is none. Colours are not compared."""
    if len(found) != len(expected):
        return f"{len(found)} classes ({_listed(found)}) in place of {len(expected)} ({_listed(expected)})"
    pairs = zip(found.names, expected.names, strict=True)
    odd = next(((k, *pair) for k, pair in enumerate(pairs) if pair[0] != pair[1]), None)
    return f"class {odd[0]} is '{odd[1]}', not '{odd[2]}'" if odd else ""


def _listed(classes: ClassSet) -> str:
    """The first five names."""
    return ", ".join(classes.names[:5]) + (", …" if len(classes) > 5 else "")


_VOC = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow "
    "diningtable dog horse motorbike person pottedplant sheep sofa train tvmonitor"
)
VOC = class_set(tuple(_VOC.split()))

_CAMVID: dict[str, Color] = {  # the eleven classes and the order of the SegNet paper
    "Sky": (128, 128, 128),
    "Building": (128, 0, 0),
    "Pole": (192, 192, 128),
    "Road": (128, 64, 128),
    "Pavement": (60, 40, 222),
    "Tree": (128, 128, 0),
    "SignSymbol": (192, 128, 128),
    "Fence": (64, 64, 128),
    "Car": (64, 0, 128),
    "Pedestrian": (64, 64, 0),
    "Bicyclist": (0, 128, 192),
}
CAMVID = class_set(tuple(_CAMVID), tuple(_CAMVID.values()))

_SAMPLE: dict[str, Color] = {
    "background": (0, 0, 0),
    "ball": (230, 75, 60),
    "crate": (240, 180, 40),
    "cone": (60, 170, 90),
    "ring": (70, 130, 220),
    "star": (160, 95, 200),
}
SAMPLE = class_set(tuple(_SAMPLE), tuple(_SAMPLE.values()))

CLASS_SETS = {"voc": VOC, "camvid": CAMVID, "sample": SAMPLE}
NO_CLASSES = class_set(())  # of a task without classes
