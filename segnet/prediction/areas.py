"""Areas of the classes: a table of each picture, and areas.csv of all pictures in a folder."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segnet.classes import ClassSet
from segnet.metrics.confusion import ratio
from segnet.prediction.manifest import announce_table, done_outputs
from segnet.regions.labelling import find_regions
from segnet.system.errors import config_error, data_error
from segnet.system.files import write_text

SUFFIX = ".areas.csv"
TABLE = "areas.csv"  # of all pictures


class Area(NamedTuple):
    """A class in a picture."""

    picture: str
    name: str  # of the class
    pixels: int
    share: float  # of the picture's pixels
    parts: int  # connected regions
    largest_part: int  # pixels
    mean_probability: float  # of the class, over its pixels; NaN where it has none


_COLUMNS = ["picture", "class", *Area._fields[2:]]


def picture_areas(picture: str, mask: NDArray[np.uint8], confidence: NDArray[np.float32], classes: ClassSet) -> list[Area]:
    """The area of every class, also of those without a pixel in the mask (H, W)."""
    regions = find_regions(mask)
    pixels = np.bincount(mask.ravel(), minlength=len(classes)).tolist()
    sums = np.bincount(mask.ravel(), weights=confidence.ravel(), minlength=len(classes)).tolist()
    parts = [regions.sizes[regions.classes == i] for i in range(len(classes))]
    return [
        Area(
            picture,
            name,
            pixels[i],
            pixels[i] / mask.size,
            len(parts[i]),
            int(parts[i].max(initial=0)),
            ratio(sums[i], pixels[i]),
        )
        for i, name in enumerate(classes.names)
    ]


def encode_areas(areas: Iterable[Area]) -> bytes:
    """The table of a picture as CSV in UTF-8."""
    rows = ([*area[:3], f"{area.share:.8g}", *area[4:6], _number(area.mean_probability)] for area in areas)
    return _csv([_COLUMNS, *rows]).encode("utf-8", "surrogateescape")


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"


def _csv(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


class PixelSize(NamedTuple):
    """The side of a square pixel."""

    length: float
    unit: str

    @classmethod
    def of(cls, text: str) -> PixelSize:
        """The size in a text such as 0.05mm. Raises UserError (config) for any other text."""
        match = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([a-zA-Zµμ]{1,10})", text)
        if not match or float(match[1]) <= 0:
            raise config_error(f"--pixel-size {text}", "not a length with a unit", "write the side of a pixel, such as 0.05mm")
        return cls(float(match[1]), match[2])


def collect_areas(out: Path, pixel_size: PixelSize | None) -> Path:
    """Write areas.csv with the tables of all pictures in `out`, each once, by the names of their outputs; its path.

    With `pixel_size` it has the areas in its unit, too. Raises UserError (data) for a table that is damaged.
    """
    rows = list[list[str]]()
    for path in done_outputs(out, SUFFIX):
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            own = list(csv.reader(file))
        if own[:1] != [_COLUMNS] or any(len(row) != len(_COLUMNS) or not row[2].isdecimal() for row in own[1:]):
            raise data_error(path, "not the areas of a picture", "predict the picture again with --overwrite")
        rows += own[1:]
    columns = list(_COLUMNS)
    if pixel_size:
        area_of_pixel = pixel_size.length**2
        columns += [f"area_{pixel_size.unit}2", f"largest_part_{pixel_size.unit}2"]
        rows = [[*row, *(f"{int(row[column]) * area_of_pixel:.8g}" for column in (2, 5))] for row in rows]
    announce_table(out, TABLE)
    write_text(out / TABLE, _csv([columns, *rows]))
    return out / TABLE
