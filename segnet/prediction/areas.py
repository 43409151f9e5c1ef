"""Areas of the classes: a table of each picture, and areas.csv of all pictures in a folder."""

from __future__ import annotations

import csv
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segnet.classes import ClassSet
from segnet.data.map_coordinates import MapPlace
from segnet.metrics.confusion import ratio
from segnet.prediction.manifest import announce_table, done_outputs, picture_name
from segnet.regions.labelling import find_regions
from segnet.system.errors import config_error, data_error
from segnet.system.files import csv_text, write_text

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
_PIXEL = "pixel_m2"  # a column of a GeoTIFF's own table: the square metres of a pixel, or why they are unknown


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


def encode_areas(areas: Iterable[Area], place: MapPlace | None = None) -> bytes:
    """The table of a picture as CSV in UTF-8; `place` is that of a GeoTIFF."""
    rows = ([*area[:3], f"{area.share:.8g}", *area[4:6], _number(area.mean_probability)] for area in areas)
    pixel = [(place.without_m2 or f"{place.pixel_m2:.12g}")] if place else []
    heading = [*_COLUMNS, *([_PIXEL] if place else [])]
    return csv_text([heading, *([*row, *pixel] for row in rows)]).encode("utf-8", "surrogateescape")


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"


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
    """Write areas.csv with the tables of all pictures in `out`, each once; its path.

    A picture is called by its path in its input folder. Areas are also in the unit of `pixel_size`; without it in square metres,
    where GeoTIFFs have them, and a note on stderr says why others have none.
    Raises UserError (data) for a table that is damaged.
    """
    rows = list[list[str]]()
    pixels = list[str]()  # of each row: the area of a pixel, or why there is none
    for path in done_outputs(out, SUFFIX):
        for *row, pixel in _read_areas(path):
            rows.append([picture_name(out, path, SUFFIX, row[0]), *row[1:]])
            pixels.append(pixel)
    unit, area_of = "m", [_area(pixel) for pixel in pixels]
    if pixel_size:
        unit, area_of = pixel_size.unit, [pixel_size.length**2] * len(rows)
    elif reasons := Counter(
        {row[0]: pixel for row, pixel in zip(rows, pixels, strict=True) if pixel and not _area(pixel)}.values()
    ):
        noun = "picture has" if reasons.total() == 1 else "pictures have"
        print(f"note: {reasons.total()} {noun} no m²: {', '.join(reasons)}; --pixel-size gives areas", file=sys.stderr)
    columns = list(_COLUMNS)
    if pixel_size or any(area_of):
        columns += [f"area_{unit}2", f"largest_part_{unit}2"]
        rows = [
            [*row, *(f"{int(row[column]) * area:.8g}" if area else "" for column in (2, 5))]
            for row, area in zip(rows, area_of, strict=True)
        ]
    announce_table(out, TABLE)
    write_text(out / TABLE, csv_text([columns, *rows]))
    return out / TABLE


def _read_areas(path: Path) -> list[list[str]]:
    """The rows of a picture's table, each with what it says of a pixel at its end, or "". Raises UserError (data)."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        heading, *rows = list(csv.reader(file)) or [[]]
    known = heading in (_COLUMNS, [*_COLUMNS, _PIXEL])
    if not known or any(len(row) != len(heading) or not row[2].isdecimal() for row in rows):
        raise data_error(path, "not the areas of a picture", "predict the picture again with --overwrite")
    return [row if len(heading) > len(_COLUMNS) else [*row, ""] for row in rows]


def _area(pixel: str) -> float:
    """The square metres of a pixel; 0 for a text that says why they are unknown."""
    try:
        return float(pixel)
    except ValueError:
        return 0.0
