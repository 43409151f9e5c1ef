"""CVAT's "Segmentation mask 1.1": a zip of masks in the colours of labelmap.txt."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from segnet.classes import ClassSet
from segnet.data.images import encode_image
from segnet.regions.shapes import BACKGROUND, PictureShapes, shapes_to_mask
from segnet.system.errors import config_error, data_error
from segnet.vectors.archive import write_zip

_BLACK = (0, 0, 0)  # CVAT's colour of pixels without a label


def write_cvat(path: Path, pictures: Iterable[PictureShapes], classes: ClassSet) -> None:
    """A zip that CVAT imports into the task of the pictures. Pixels of the background, and of no shape, are black.

    Raises UserError: (config) for classes that labelmap.txt cannot hold, with a colon or with a colour that is not their own;
    (data) for a picture with a line break in its name.
    """
    labels = [(name, color) for name, color in zip(classes.names, classes.colors, strict=True) if name != BACKGROUND]
    if odd := next((name for name, _ in labels if ":" in name or "\n" in name), None):
        raise config_error(
            f"data.classes: {odd}", "a colon in the name, which divides the fields of CVAT's labelmap", "rename it"
        )
    colors = [_BLACK, *(color for _, color in labels)]
    if len(set(colors)) < len(colors):
        raise config_error("data.colors", "two classes, or a class and CVAT's background, have one colour", "give each its own")
    lines = ["# label:color_rgb:parts:actions", f"{BACKGROUND}:0,0,0::"]
    lines += [f"{name}:{red},{green},{blue}::" for name, (red, green, blue) in labels]
    palette = np.zeros((256, 3), dtype=np.uint8)
    for number, name in enumerate(classes.names):
        palette[number] = _BLACK if name == BACKGROUND else classes.colors[number]
    names = list[str]()

    def masks() -> Iterable[tuple[str, bytes]]:
        for one in pictures:
            names.append(posixpath.splitext(one.picture)[0])
            if "\n" in names[-1]:
                raise data_error(one.picture, "a line break in the name, which CVAT's list cannot hold", "rename the picture")
            yield f"SegmentationClass/{names[-1]}.png", encode_image(palette[shapes_to_mask(one, 255)], ".png")
        yield "ImageSets/Segmentation/default.txt", "".join(f"{name}\n" for name in names).encode()

    write_zip(path, [("labelmap.txt", "".join(f"{line}\n" for line in lines).encode())], masks())
