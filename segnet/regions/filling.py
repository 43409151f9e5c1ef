"""The pixels inside of polygons."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from segnet.regions.rims import Polygon


def fill(mask: NDArray[np.uint8], polygons: Iterable[tuple[int, Polygon]]) -> None:
    """Give the pixels of `mask` (H, W) whose centres lie in a polygon its value, one polygon after the other.

    Inside is what an odd number of outlines surrounds. A centre on an outline belongs to one of the two sides, the same one for
    both polygons that share it. Corners are whole numbers in the picture.
    """
    for value, rings in polygons:
        corners = np.concatenate(rings)
        left, top = corners.min(axis=0).tolist()
        right, bottom = corners.max(axis=0).tolist()
        if left < right and top < bottom:
            inside = _inside(rings, (top, left, bottom, right))
            mask[top:bottom, left:right][inside] = value


def _inside(rings: Polygon, box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """(bottom - top, right - left): the pixels of a `box` (top, left, bottom, right) around `rings` that lie inside."""
    top, left, bottom, right = box
    height, width = bottom - top, right - left
    start = np.concatenate(rings).astype(np.int64) - (left, top)
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings]).astype(np.int64) - (left, top)
    upwards = start[:, 1] > end[:, 1]
    high, low = np.where(upwards[:, None], end, start), np.where(upwards[:, None], start, end)  # every edge walked downwards
    rows_of_edge = low[:, 1] - high[:, 1]
    edge = np.repeat(np.arange(len(rows_of_edge)), rows_of_edge)
    first = np.cumsum(rows_of_edge) - rows_of_edge
    rows = high[edge, 1] + np.arange(len(edge)) - first[edge]
    # The edge crosses the middle of a row at x; the first pixel whose centre is not left of x is ⌈x - 1/2⌉.
    height_of_edge = rows_of_edge[edge]
    across = (low[edge, 0] - high[edge, 0]) * (2 * (rows - high[edge, 1]) + 1)
    doubled = (2 * high[edge, 0] - 1) * height_of_edge + across
    columns = -(-doubled // (2 * height_of_edge))
    flips = np.bincount(rows * (width + 1) + columns, minlength=height * (width + 1)).reshape(height, width + 1)
    return (np.cumsum(flips[:, :-1] & 1, axis=1) & 1).astype(bool)
