"""Fixtures of the data tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import tiny_mask, write_pair, write_split
from PIL import Image

from segnet.classes import ClassSet


@pytest.fixture
def mixed_data(tiny_data: Path, tiny_classes: ClassSet) -> Path:
    """`tiny_data` with an odd size, and a picture that lies on its side until its EXIF orientation is followed."""
    write_pair(tiny_data, "odd", tiny_mask(seed=3, size=(33, 21)), tiny_classes)
    write_pair(tiny_data, "lying", tiny_mask(seed=4, size=(20, 40)), tiny_classes)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tiny_data / "JPEGImages" / "lying.jpg"
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    write_split(tiny_data, "train", ["odd", "train_0", "lying", "train_1"])
    return tiny_data
