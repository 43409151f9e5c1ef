"""The class tables: names and colours of classes. A class id is the position in the table, in every mask."""

from __future__ import annotations

from dataclasses import dataclass

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

    `ignore_index` is the value in this dataset's mask files of pixels that are neither trained nor scored.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    ignore_index: int = IGNORE_INDEX

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
