"""LabelMe's JSON files, in a zip: polygons where LabelMe draws them with exactly the region's pixels, else masks."""

from __future__ import annotations

import base64
import json
import posixpath
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnet.classes import ClassSet
from segnet.data.images import encode_image
from segnet.importing.polygons import pillow_polygon
from segnet.regions.filling import fill
from segnet.regions.rims import Ring
from segnet.regions.shapes import PictureShapes, Shape
from segnet.vectors.archive import write_zip

_VERSION = "5.8.1"  # of the form of the files


def write_labelme(path: Path, pictures: Iterable[PictureShapes], classes: ClassSet) -> None:
    """A zip to unpack into the folder of the pictures: a JSON file beside each, and labels.txt with all classes."""
    labels = "".join(f"{name}\n" for name in classes.names)
    files = ((f"{posixpath.splitext(one.picture)[0]}.json", _content(one, classes)) for one in pictures)
    write_zip(path, [("labels.txt", labels.encode())], files)


def _content(picture: PictureShapes, classes: ClassSet) -> bytes:
    content: dict[str, Any] = {
        "version": _VERSION,
        "flags": {},
        "shapes": [_shape(shape, classes, exact=not picture.tolerance) for shape in picture.shapes],
        "imagePath": posixpath.basename(picture.picture),
        "imageData": None,
        "imageHeight": picture.size[0],
        "imageWidth": picture.size[1],
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def _shape(shape: Shape, classes: ClassSet, *, exact: bool) -> dict[str, Any]:
    """A polygon, or a mask where the region has holes or LabelMe would draw a polygon with other pixels.

    LabelMe counts from the centre of the first pixel, and draws the pixels of the outline, too.
    """
    (left, top), (right, bottom) = shape.polygon[0].min(axis=0).tolist(), shape.polygon[0].max(axis=0).tolist()
    mask = np.zeros((bottom - top, right - left), dtype=np.uint8)
    fill(mask, [(1, [ring - (left, top) for ring in shape.polygon])])
    points = _through_centres(shape.polygon[0]) if exact else shape.polygon[0].astype(np.float64) - 0.5
    is_polygon = len(shape.polygon) == 1 and (not exact or _draws(points - (left, top), mask))
    content: dict[str, Any] = {
        "label": classes.names[shape.class_id],
        "points": points.tolist() if is_polygon else [[left, top], [right - 1, bottom - 1]],
        "group_id": None,
        "shape_type": "polygon" if is_polygon else "mask",
        "flags": {},
        "description": f"{shape.probability:.4f}",
    }
    return content if is_polygon else {**content, "mask": base64.b64encode(encode_image(mask * np.uint8(255), ".png")).decode()}


def _through_centres(ring: Ring) -> NDArray[np.float64]:
    """The outline (N, 2) through the centres of the pixels at a rim, from the centre of the first pixel of the picture."""
    before = np.sign(ring - np.roll(ring, 1, axis=0))  # the direction in which each corner is reached, and left
    after = np.sign(np.roll(ring, -1, axis=0) - ring)
    both = before + after
    return ring + 0.5 * np.column_stack([-both[:, 1], both[:, 0]]) - 0.5  # moved to the right, where the region is


def _draws(points: NDArray[np.float64], mask: NDArray[np.uint8]) -> bool:
    """Whether LabelMe draws a polygon through `points` (N, 2) with exactly the pixels of `mask`."""
    drawn = pillow_polygon(points, (mask.shape[0], mask.shape[1]))
    height, width = drawn.mask.shape
    inside = mask[drawn.top : drawn.top + height, drawn.left : drawn.left + width]
    return int(mask.sum()) == int(drawn.mask.sum()) and bool(inside.astype(bool)[drawn.mask].all())
