"""GeoTIFFs for tests: pictures with the tags of a place and a coordinate system."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, TiffImagePlugin

_TYPES = {33550: 12, 33922: 12, 34735: 3, 34736: 12, 34737: 2, 42113: 2, 274: 3}  # of TIFF 6.0: 2 text, 3 short, 12 double
TAGS: dict[int, object] = {
    33550: (0.25, 0.25, 0.0),
    33922: (0.0, 0.0, 0.0, 412345.678, 5712345.25, 0.0),
    34735: (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 25832),
    34736: (6378137.0, 298.257223563),
    34737: "ETRS89 / UTM zone 32N|",
}


def write_geotiff(
    path: Path, pixels: np.ndarray, nodata: str | None = None, orientation: int = 1, keys: tuple[int, ...] | None = None
) -> Path:
    """A picture of 8 bits with `TAGS`, or other `keys` of its coordinate system, and GDAL's value of nodata."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for number, value in {
        **TAGS,
        274: orientation,
        **({42113: nodata} if nodata else {}),
        **({34735: keys} if keys else {}),
    }.items():
        tags.tagtype[number] = _TYPES[number]
        tags[number] = value
    Image.fromarray(pixels).save(path, "TIFF", tiffinfo=tags)
    return path


def geo_tags(path: Path) -> dict[int, object]:
    """The tags of a place, a coordinate system and nodata in a TIFF."""
    with Image.open(path) as picture:
        assert isinstance(picture, TiffImagePlugin.TiffImageFile)
        return {number: picture.tag_v2[number] for number in _TYPES if number in picture.tag_v2 and number != 274}
