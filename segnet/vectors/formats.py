"""The formats of labelling tools into which polygons are written: a file of all pictures each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from segnet.classes import ClassSet
from segnet.regions.shapes import PictureShapes
from segnet.vectors.coco import write_coco
from segnet.vectors.cvat import write_cvat
from segnet.vectors.labelme import write_labelme
from segnet.vectors.yolo import write_yolo


class Format(NamedTuple):
    """A format."""

    file: str  # name of the file with all pictures
    write: Callable[[Path, Iterable[PictureShapes], ClassSet], None]


FORMATS = {
    "coco": Format("coco.json", write_coco),
    "labelme": Format("labelme.zip", write_labelme),
    "cvat": Format("cvat.zip", write_cvat),
    "yolo": Format("yolo.zip", write_yolo),
}
