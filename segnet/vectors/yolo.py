"""Ultralytics' polygons, in a zip: a text file for each picture, and data.yaml."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segnet.classes import ClassSet
from segnet.regions.rims import Polygon
from segnet.regions.shapes import BACKGROUND, PictureShapes
from segnet.vectors.archive import write_zip


def write_yolo(path: Path, pictures: Iterable[PictureShapes], classes: ClassSet) -> None:
    """A zip to unpack beside the folder `images`. Classes are numbered from 0 without the background.

    The format has no holes: a bridge of two coincident lines leads to each, which fills no pixel.
    """
    names = [name for name in classes.names if name != BACKGROUND]
    number_of = {i: names.index(name) for i, name in enumerate(classes.names) if name != BACKGROUND}
    table = "".join(f"  {number}: {json.dumps(name, ensure_ascii=False)}\n" for number, name in enumerate(names))
    header = f"path: .\ntrain: images\nval: images\nnames:\n{table}"
    files = ((f"labels/{posixpath.splitext(one.picture)[0]}.txt", _lines(one, number_of)) for one in pictures)
    write_zip(path, [("data.yaml", header.encode())], files)


def _lines(picture: PictureShapes, number_of: dict[int, int]) -> bytes:
    height, width = picture.size
    lines = list[str]()
    for shape in picture.shapes:
        shares = (_in_one_ring(shape.polygon) / (width, height)).ravel().tolist()
        lines.append(" ".join([str(number_of[shape.class_id]), *(format(share, ".10g") for share in shares)]))
    return "".join(f"{line}\n" for line in lines).encode()


def _in_one_ring(polygon: Polygon) -> NDArray[np.int32]:
    """(N, 2): the outer rim, and from its first corner to every hole, round it and back."""
    outer, holes = polygon[0], polygon[1:]
    parts = [outer]
    for hole in holes:
        parts += [outer[:1], hole, hole[:1]]
    return np.concatenate([*parts, outer[:1]] if holes else parts)
