"""Where on Earth a picture lies: the tags of a GeoTIFF, which a mask takes over, and world files.

A world file has six lines, A, D, B, E, C, F of x = A · column + B · row + C and y = D · column + E · row + F, which are the
coordinates of the centre of a pixel, the first one at column 0 and row 0. Nobody says of which coordinate system they are.
"""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segnet.classes import IGNORE_INDEX, ClassSet
from segnet.data.deep_pictures import nodata_of
from segnet.data.image_headers import NODATA_TAG, ORIENTATION_TAG, Source, TiffTags, read_tiff_tags
from segnet.data.images import is_turned
from segnet.data.mask_files import palette_picture
from segnet.system.errors import UserError, data_error

_PLACES = (33550, 33922, 34264)  # pixel scale, tie points, transformation: OGC GeoTIFF 1.1, section 7.1
_KEYS = (34735, 34736, 34737)  # of the coordinate system: the directory, numbers, texts
_OF_CENTRES = (1, 1, 0, 1, 1025, 0, 1, 2)  # a directory that says only that coordinates are those of centres: RasterPixelIsPoint
WORLD_SUFFIX = ".pgw"  # of the world file of a PNG


class Georeference(NamedTuple):
    """The georeference of a picture, as the tags of a GeoTIFF."""

    tags: dict[int, tuple[int, object]]  # number -> type in TIFF 6.0, value
    has_nodata: bool  # whether a value says that a pixel holds nothing


def find_georeference(picture: Path, content: bytes, world: Path | None) -> Georeference | None:
    """The georeference in the tags of a picture with this content, else in its `world_file`; None as in `read_georeference`.

    Raises UserError (data) for a world file that cannot be read.
    """
    found = read_georeference(io.BytesIO(content))
    if found or world is None:
        return found
    tags = read_tiff_tags(io.BytesIO(content))
    try:
        turned = tags.get(ORIENTATION_TAG, 1) != 1 if tags else is_turned(picture, content)
    except UserError:  # an array, which has no orientation
        turned = False
    return None if turned else read_world_file(world)


def read_world_file(path: Path) -> Georeference:
    """The georeference in a world file. Raises UserError (data) for six numbers that give pixels no place, or another file."""
    try:
        a, d, b, e, c, f = (float(number) for number in path.read_text("ascii").split())
        if not all(map(math.isfinite, (a, d, b, e, c, f))) or a * e - b * d == 0:
            raise ValueError
    except ValueError:
        found = "not a world file, which has six numbers that give each pixel a place of its own"
        raise data_error(path, found, "mend it, or move it away") from None
    matrix = (a, b, 0.0, c, d, e, 0.0, f, *[0.0] * 7, 1.0)
    return Georeference({34264: (12, matrix), 34735: (3, _OF_CENTRES)}, has_nodata=False)


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
