"""Where on Earth a picture lies: the tags of a GeoTIFF, which a mask takes over, and world files."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segnet.classes import IGNORE_INDEX, ClassSet
from segnet.data.deep_pictures import nodata_of
from segnet.data.image_headers import NODATA_TAG, ORIENTATION_TAG, Source, TiffTags, read_tiff_tags
from segnet.data.mask_files import palette_picture

_PLACES = (33550, 33922, 34264)  # pixel scale, tie points, transformation: OGC GeoTIFF 1.1, section 7.1
_KEYS = (34735, 34736, 34737)  # of the coordinate system: the directory, numbers, texts
WORLD_SUFFIX = ".pgw"  # of the world file of a PNG


class Georeference(NamedTuple):
    """The georeference of a picture in the tags of its TIFF."""

    tags: dict[int, tuple[int, object]]  # number -> type in TIFF 6.0, value
    has_nodata: bool  # whether a value says that a pixel holds nothing


def read_georeference(source: Source) -> Georeference | None:
    """The georeference of a picture as it is stored; None when it has none, or when an orientation turns the picture."""
    tags = read_tiff_tags(source)
    if tags is None or tags.get(ORIENTATION_TAG, 1) != 1 or not any(number in tags for number in _PLACES):
        return None
    found = {number: (tags.tagtype[number], tags[number]) for number in (*_PLACES, *_KEYS) if number in tags}
    return Georeference(found, nodata_of(tags) is not None)


def encode_geotiff(mask: np.ndarray, classes: ClassSet, georeference: Georeference) -> bytes:
    """(H, W) class ids as a palette TIFF at the place of its picture; nodata is `IGNORE_INDEX` where that has such a value."""
    tags = TiffTags()
    for number, (kind, value) in georeference.tags.items():
        tags.tagtype[number] = kind
        tags[number] = value
    if georeference.has_nodata:
        tags.tagtype[NODATA_TAG] = 2  # a text
        tags[NODATA_TAG] = str(IGNORE_INDEX)
    file = io.BytesIO()
    palette_picture(mask, classes).save(file, "TIFF", tiffinfo=tags, compression="tiff_adobe_deflate")
    return file.getvalue()


def world_file(picture: Path) -> Path | None:
    """The world file beside a picture, such as a.tfw, a.tifw or a.wld beside a.tif; None without one."""
    suffix = picture.suffix.lower()
    short = f"{suffix[:2]}{suffix[-1:]}w"
    return next((path for end in (short, f"{suffix}w", ".wld") if os.path.isfile(path := picture.with_suffix(end))), None)
