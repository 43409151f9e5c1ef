"""From pixels to map coordinates, by the tags of a GeoTIFF (OGC GeoTIFF 1.1)."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from segnet.data.georeference import Georeference

_SCALE, _TIE_POINTS, _TRANSFORMATION, _DIRECTORY = 33550, 33922, 34264, 34735
_MODEL_TYPE, _RASTER_TYPE, _GEODETIC, _PROJECTED, _LINEAR_UNITS = 1024, 1025, 2048, 3072, 3076
_IS_PROJECTED, _IS_GEOGRAPHIC, _IS_POINT = 1, 2, 2
_METRES = {9001: 1.0, 9002: 0.3048, 9003: 1200 / 3937}  # EPSG units: metre, foot, US survey foot
_IN_METRES = (range(32601, 32661), range(32701, 32761), range(25828, 25839))  # EPSG: UTM on WGS 84, north and south, and ETRS89
_WEB_MERCATOR = {3857, 3785, 900913}


class MapPlace(NamedTuple):
    """Where the pixels of a picture lie: x = a · column + b · row + c, y = d · column + e · row + f.

    Columns and rows count from the upper left corner of the picture: (0, 0) is that corner, (1, 1) the lower right corner of the
    first pixel.
    """

    transform: tuple[float, float, float, float, float, float]  # a, b, c, d, e, f
    crs: str | None  # the coordinate system as a URN; None where the file does not name one of EPSG's
    pixel_m2: float | None  # square metres of a pixel; None: unknown
    without_m2: str = ""  # why it is unknown

    @property
    def turns(self) -> bool:
        """True where a ring that runs clockwise on the map runs counter-clockwise in rows and columns."""
        a, b, _, d, e, _ = self.transform
        return a * e - b * d < 0

    def to_map(self, corners: NDArray[np.integer]) -> NDArray[np.float64]:
        """(N, 2) columns and rows -> (N, 2) x and y."""
        a, b, c, d, e, f = self.transform
        columns, rows = corners.T.astype(np.float64)
        return np.column_stack([a * columns + b * rows + c, d * columns + e * rows + f])

    def to_pixels(self, points: NDArray[np.float64]) -> NDArray[np.int32]:
        """(N, 2) x and y of corners of pixels -> (N, 2) columns and rows."""
        a, b, c, d, e, f = self.transform
        x, y = points[:, 0] - c, points[:, 1] - f
        determinant = a * e - b * d
        return np.rint(np.column_stack([e * x - b * y, a * y - d * x]) / determinant).astype(np.int32)


def map_place(georeference: Georeference | None) -> MapPlace | None:
    """The place that the tags of a GeoTIFF give its pixels; None where they give none, or only some points on the ground.

    Square metres need a projected coordinate system whose unit of length the file names, or one of UTM. Web Mercator has none: it
    stretches areas by up to ten times on inhabited land.
    """
    if georeference is None:
        return None
    keys = _keys(_numbers(georeference, _DIRECTORY))
    transform = _transform(georeference, shift=0.5 if keys.get(_RASTER_TYPE) == _IS_POINT else 0.0)
    if transform is None:
        return None
    a, b, _, d, e, _ = transform
    length, why = _unit_of_length(keys)
    return MapPlace(transform, _urn(keys), abs(a * e - b * d) * length**2 if length else None, why)


def _numbers(georeference: Georeference, tag: int) -> list[float]:
    """The numbers of a tag; empty where it is missing or holds something else."""
    _, value = georeference.tags.get(tag, (0, ()))
    values = value if isinstance(value, tuple) else (value,)
    try:
        numbers = [float(cast(float, number)) for number in values]
    except (TypeError, ValueError):
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def _transform(georeference: Georeference, *, shift: float) -> tuple[float, float, float, float, float, float] | None:
    """The transform of corners, section B.6 of the standard. `shift` is 0.5 where coordinates are those of pixel centres."""
    matrix = _numbers(georeference, _TRANSFORMATION)
    scale, ties = _numbers(georeference, _SCALE), _numbers(georeference, _TIE_POINTS)
    if len(matrix) == 16:
        a, b, c, d, e, f = matrix[0], matrix[1], matrix[3], matrix[4], matrix[5], matrix[7]
    elif len(scale) >= 2 and len(ties) == 6:
        a, b, d, e = scale[0], 0.0, 0.0, -scale[1]
        c, f = ties[3] - a * ties[0], ties[4] - e * ties[1]
    else:
        return None
    if a * e - b * d == 0:
        return None
    return a, b, c - shift * (a + b), d, e, f - shift * (d + e)


def _keys(directory: list[float]) -> dict[int, int]:
    """The GeoKeys whose values stand in the directory itself: four numbers each, after a head of four."""
    numbers = [int(number) for number in directory]
    rows = [numbers[start : start + 4] for start in range(4, len(numbers) - 3, 4)]
    return {key: value for key, location, _, value in rows if location == 0}


def _urn(keys: dict[int, int]) -> str | None:
    """The coordinate system as a URN. WGS 84 is CRS84, whose first coordinate is the longitude, as in GeoJSON."""
    code = keys.get({_IS_PROJECTED: _PROJECTED, _IS_GEOGRAPHIC: _GEODETIC}.get(keys.get(_MODEL_TYPE, 0), 0), 0)
    if code == 4326:
        return "urn:ogc:def:crs:OGC:1.3:CRS84"
    return f"urn:ogc:def:crs:EPSG::{code}" if 1024 <= code <= 32766 else None  # other codes are not EPSG's: section 7.5.1


def _unit_of_length(keys: dict[int, int]) -> tuple[float | None, str]:
    """Metres of a unit of the coordinates; None, and why, where they have none."""
    kind, code = keys.get(_MODEL_TYPE, 0), keys.get(_PROJECTED, 0)
    if kind == _IS_GEOGRAPHIC:
        return None, "their coordinates are angles"
    if kind != _IS_PROJECTED:
        return None, "they name no coordinate system"
    if code in _WEB_MERCATOR:
        return None, "Web Mercator does not keep areas"
    if _LINEAR_UNITS in keys:
        unit = keys[_LINEAR_UNITS]
        return (_METRES[unit], "") if unit in _METRES else (None, f"their unit of length is none of metre and foot (EPSG {unit})")
    if any(code in codes for codes in _IN_METRES):
        return 1.0, ""
    return None, "they do not name their unit of length"
