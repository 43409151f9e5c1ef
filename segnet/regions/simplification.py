"""Outlines with fewer corners, which neighbouring regions still share."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from segnet.regions.rims import Polygon, Ring, signed_area


def find_junctions(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """(H + 1, W + 1): the corners of pixels that stay: where rims of three regions meet, and the corners of the picture."""
    around = np.pad(labels, 1, constant_values=-1)
    a, b, c, d = around[:-1, :-1], around[:-1, 1:], around[1:, 1:], around[1:, :-1]  # the four pixels at a corner, in a circle
    changes = (a != b).astype(np.int8) + (b != c) + (c != d) + (d != a)
    junctions = changes > 2
    junctions[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    return junctions


def simplify(polygon: Polygon, junctions: NDArray[np.bool_], tolerance: float) -> Polygon:
    """`polygon` without the corners that lie at most `tolerance` pixels beside what is left (Douglas and Peucker 1973).

    Junctions stay, and a line between two of them becomes the same for the regions on both of its sides. `polygon` is traced with
    the junctions as stops. Rings that would have less than three corners are left out: without the outer one, nothing is left.
    """
    rings = [_simplify_ring(ring, junctions, tolerance) for ring in polygon]
    return [ring for ring in rings if len(ring) > 2] if len(rings[0]) > 2 else []


def _simplify_ring(ring: Ring, junctions: NDArray[np.bool_], tolerance: float) -> Ring:
    fixed = np.flatnonzero(junctions[ring[:, 1], ring[:, 0]])
    if not len(fixed):
        return _simplify_closed(ring, tolerance)
    turned = np.roll(ring, -int(fixed[0]), axis=0)
    closed = np.concatenate([turned, turned[:1]])
    bounds = [*(fixed - fixed[0]).tolist(), len(ring)]
    lines = [_simplify_line(closed[a : b + 1], tolerance) for a, b in pairwise(bounds)]
    return np.concatenate([line[:-1] for line in lines])


def _simplify_closed(ring: Ring, tolerance: float) -> Ring:
    """A ring without junctions: begun at its first corner by (x, y), in the direction of an outer rim, then turned back."""
    is_hole = signed_area(ring) < 0
    ring = ring[::-1] if is_hole else ring
    ring = np.roll(ring, -int(np.lexsort((ring[:, 1], ring[:, 0]))[0]), axis=0)
    farthest = int(((ring - ring[0]).astype(np.int64) ** 2).sum(axis=1).argmax())
    halves = [_keep(ring[: farthest + 1], tolerance)[:-1], _keep(np.concatenate([ring[farthest:], ring[:1]]), tolerance)[:-1]]
    found = np.concatenate(halves)
    return found[::-1] if is_hole else found


def _simplify_line(line: Ring, tolerance: float) -> Ring:
    """The corners of a line that are kept, the same ones in both directions."""
    backwards = _order(line[::-1]) < _order(line)
    kept = _keep(line[::-1] if backwards else line, tolerance)
    return kept[::-1] if backwards else kept


def _order(line: Ring) -> list[int]:
    return [int(number) for number in line[:2].ravel()]


def _keep(line: Ring, tolerance: float) -> Ring:
    """The first and the last corner, and of those between the ones that Douglas and Peucker's rule needs."""
    points, kept = line.astype(np.float64), np.zeros(len(line), dtype=bool)
    kept[[0, -1]] = True
    waiting = [(0, len(line) - 1)]
    while waiting:
        first, last = waiting.pop()
        if last - first < 2:
            continue
        distances = _distances(points[first + 1 : last], points[first], points[last])
        farthest = int(distances.argmax())
        if distances[farthest] > tolerance:
            middle = first + 1 + farthest
            kept[middle] = True
            waiting += [(first, middle), (middle, last)]
    return line[kept]


def _distances(points: NDArray[np.float64], start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distance of each point (N, 2) from the straight line between `start` and `end`."""
    along = end - start
    length = float(along @ along)
    share = ((points - start) @ along / length).clip(0, 1) if length else np.zeros(len(points))
    return np.hypot(*(points - start - share[:, None] * along).T)
