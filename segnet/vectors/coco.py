"""COCO's JSON of all pictures: polygons, and run-length encodings of regions with holes, which COCO's polygons cannot have."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from segnet.classes import ClassSet
from segnet.data.rle import encode_rle
from segnet.regions.filling import fill
from segnet.regions.shapes import BACKGROUND, PictureShapes, Shape
from segnet.system.files import atomic_write


def write_coco(path: Path, pictures: Iterable[PictureShapes], classes: ClassSet) -> None:
    """One file. Category ids are the class ids + 1, without the background; a region is an annotation with its probability.

    pycocotools gives every exact region the pixels that it was made of.
    """
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(classes.names) if name != BACKGROUND]
    images, number = list[dict[str, Any]](), 0
    with atomic_write(path) as file:
        file.write(b'{"categories": ' + json.dumps(categories).encode() + b', "annotations": [')
        for image_id, picture in enumerate(pictures, 1):
            images.append({"id": image_id, "file_name": picture.picture, "height": picture.size[0], "width": picture.size[1]})
            for shape in picture.shapes:
                own = {"id": number + 1, "image_id": image_id, **_annotation(shape, picture.size)}
                file.write((b",\n" if number else b"\n") + json.dumps(own).encode())
                number += 1
        file.write(b'],\n"images": ' + json.dumps(images).encode() + b"}\n")


def _annotation(shape: Shape, size: tuple[int, int]) -> dict[str, Any]:
    low, high = shape.polygon[0].min(axis=0), shape.polygon[0].max(axis=0)
    segmentation: object = [shape.polygon[0].ravel().tolist()]
    if len(shape.polygon) > 1:
        mask = np.zeros(size, dtype=np.uint8)
        fill(mask, [(1, shape.polygon)])
        segmentation = {"size": list(size), "counts": encode_rle(mask.astype(bool))}
    return {
        "category_id": shape.class_id + 1,
        "segmentation": segmentation,
        "area": shape.pixels,
        "bbox": [*low.tolist(), *(high - low).tolist()],
        "iscrowd": 0,
        "score": round(shape.probability, 6),
    }
