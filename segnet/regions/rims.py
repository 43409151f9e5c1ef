"""The outlines of regions along the edges of pixels, so that filling them gives the same pixels again.

A rim is a ring of corners (x, y), in pixels: (0, 0) is the upper left corner of the picture, (W, H) its lower right one. It has
its region on the right: the outer rim runs clockwise as one sees it, the rims of holes run the other way. A rim passes no corner
twice, and rims of a region share corners at most.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segnet.regions.labelling import Regions

Ring = NDArray[np.int32]  # (N, 2): x, y; the first corner is not repeated
Polygon = list[Ring]  # the outer rim, then those of holes

_BESIDE = ((-1, 0), (0, 1), (1, 0), (0, -1))  # (rows, columns) to the pixel beyond the upper, right, lower and left side
_END = ((0, 1), (1, 1), (1, 0), (0, 0))  # (rows, columns) from a pixel to the corner at which its side ends, walked clockwise


def trace_rims(regions: Regions, wanted: NDArray[np.bool_], stops: NDArray[np.bool_] | None = None) -> dict[int, Polygon]:
    """The rims of each wanted region, by its number, in order; `wanted` is (N,).

    Corners are where a rim turns, and where `stops` (H + 1, W + 1) is set.
    """
    corners, after, region = _corners(regions, wanted, stops)
    following, seen = after.tolist(), bytearray(len(after))
    walk, firsts = list[int](), list[int]()  # the corners in their order, and where each ring begins in `walk`
    for start in range(len(following)):
        if seen[start]:
            continue
        firsts.append(len(walk))
        node = start
        while not seen[node]:
            seen[node] = 1
            walk.append(node)
            node = following[node]
    if not walk:
        return {}
    order, starts = np.array(walk), np.array(firsts)
    walked, numbers = corners[order], region[order[starts]]
    is_hole = _signed_areas(walked, starts) < 0
    ends = [*firsts[1:], len(walk)]
    polygons = dict[int, Polygon]()
    places = np.lexsort((is_hole, numbers))  # stable: holes come after the outer rim, in the order of the walk
    for place, number in zip(places.tolist(), numbers[places].tolist(), strict=True):
        polygons.setdefault(number, []).append(walked[firsts[place] : ends[place]])
    return polygons


def _signed_areas(corners: Ring, starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """`signed_area` of rings that lie one after another in `corners`, each from its place in `starts`."""
    after = np.arange(1, len(corners) + 1)
    after[np.append(starts[1:], len(corners)) - 1] = starts
    x, y = corners.T.astype(np.int64)
    return np.add.reduceat(x * y[after] - x[after] * y, starts) / 2


def signed_area(ring: Ring) -> float:
    """The pixels inside of a ring that does not cross itself; negative where it runs round a hole."""
    x, y = ring.astype(np.int64).T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


def _corners(
    regions: Regions, wanted: NDArray[np.bool_], stops: NDArray[np.bool_] | None
) -> tuple[Ring, NDArray[np.int64], NDArray[np.int32]]:
    """The corners of all rims, (N, 2); the index of the next corner on its rim, and the region, of each.

    A side of a pixel belongs to a rim where the pixel beyond it is of another region. Walked clockwise, the rim turns left at its
    end if the pixel ahead on the other side is of the region, else it goes straight on if the pixel ahead is, else it turns
    right. Sides that follow each other straight on are one run, which stands for its last side.
    """
    height, width = regions.labels.shape
    around = np.full((height + 2, width + 2), -1, dtype=np.int32)
    around[1:-1, 1:-1] = regions.labels
    keys, turns, places = list[NDArray[np.int64]](), list[NDArray[np.int64]](), list[tuple[NDArray[np.int64], ...]]()
    for side in range(4):
        ends, turn = _ends(around, side, wanted, stops)
        if side % 2:  # sides that lie below each other are a run: number the pixels down the columns
            columns, rows = np.divmod(np.flatnonzero(ends.T), height)
        else:
            rows, columns = np.divmod(np.flatnonzero(ends), width)
        keys.append(_key(side, rows, columns, (height, width)))
        turns.append(turn[rows, columns].astype(np.int64))
        places.append((rows, columns))
    first = np.cumsum([0, *map(len, keys)])
    corners, after, region = list[Ring](), list[NDArray[np.int64]](), list[NDArray[np.int32]]()
    for side, (rows, columns) in enumerate(places):
        down, right = _END[side]
        corners.append(np.column_stack([columns + right, rows + down]).astype(np.int32))
        region.append(regions.labels[rows, columns])
        following = np.empty(len(rows), dtype=np.int64)
        ahead, beyond = np.array(_BESIDE[(side + 1) % 4]), np.array(_BESIDE[side])
        for way, step in ((-1, ahead + beyond), (0, ahead), (1, np.zeros(2, dtype=np.int64))):
            chosen, to = turns[side] == way, (side + way) % 4
            key = _key(to, rows[chosen] + step[0], columns[chosen] + step[1], (height, width))
            backwards = to in (2, 3)  # the run goes on towards smaller keys
            found = np.searchsorted(keys[to], key, "right") - 1 if backwards else np.searchsorted(keys[to], key, "left")
            following[chosen] = first[to] + found
        after.append(following)
    return np.concatenate(corners), np.concatenate(after), np.concatenate(region)


def _key(side: int, rows: NDArray[np.int64], columns: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.int64]:
    """A number of each pixel that grows along the rows, or down the columns for its right and left side."""
    return columns * size[0] + rows if side % 2 else rows * size[1] + columns


def _ends(
    around: NDArray[np.int32], side: int, wanted: NDArray[np.bool_], stops: NDArray[np.bool_] | None
) -> tuple[NDArray[np.bool_], NDArray[np.int8]]:
    """(H, W) each: whether a run ends with this side of a pixel; where the rim goes on: -1 left, 0 straight on, 1 right."""

    def moved(rows: int, columns: int) -> NDArray[np.int32]:
        return around[1 + rows : around.shape[0] - 1 + rows, 1 + columns : around.shape[1] - 1 + columns]

    own, beyond, ahead = moved(0, 0), _BESIDE[side], _BESIDE[(side + 1) % 4]
    is_rim = (moved(*beyond) != own) & wanted[own]
    left = moved(ahead[0] + beyond[0], ahead[1] + beyond[1]) == own
    straight = ~left & (moved(*ahead) == own)
    turn = np.where(left, np.int8(-1), np.where(straight, np.int8(0), np.int8(1)))
    ends = is_rim & ~straight
    if stops is not None:
        down, right = _END[side]
        ends |= is_rim & stops[down : stops.shape[0] - 1 + down, right : stops.shape[1] - 1 + right]
    return ends, turn
