"""Masks in colours, and what `convert_masks` makes of masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from helpers import folder_bytes
from PIL import Image

from segnet.classes import VOC, ClassSet
from segnet.data.palettes import VOID_COLOR
from segnet.preparation.masks import Conversion, convert_masks, parse_rules


def in_colors(mask: np.ndarray, classes: ClassSet) -> np.ndarray:
    """(H, W) ids -> (H, W, 3), in VOC's border colour where no class is."""
    table = np.array([*classes.colors, *[VOID_COLOR] * (256 - len(classes))], dtype=np.uint8)
    return table[mask]


def convert(folder: Path, classes: ClassSet | None = None, *mapping: str, overwrite: bool = False) -> Conversion:
    """Convert the masks of a folder into the folder "out" beside it; the originals stay as they are."""
    before = folder_bytes(folder)
    try:
        return convert_masks(folder, folder.parent / "out", parse_rules(classes, mapping), overwrite=overwrite, keep_going=True)
    finally:
        assert folder_bytes(folder) == before


def converted(picture: Image.Image, tmp_path: Path, classes: ClassSet | None = None, *mapping: str) -> list[list[int]]:
    """The ids that one mask becomes. Raises what refuses it."""
    (tmp_path / "in").mkdir(exist_ok=True)
    picture.save(tmp_path / "in" / "a.png")
    done = convert(tmp_path / "in", classes, *mapping, overwrite=True)
    for error in done.failed:
        raise error
    out = Image.open(tmp_path / "out" / "a.png")
    assert (out.mode, out.getpalette()) == ("P", (classes or VOC).palette)
    return np.asarray(out).tolist()
