"""The connected regions of a mask: pixels of one class that share sides."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer]


class Regions(NamedTuple):
    """The N regions of a mask, numbered in reading order of their first pixels."""

    labels: NDArray[np.int32]  # (H, W) the region of each pixel
    classes: Ints  # (N,) class id
    sizes: NDArray[np.int64]  # (N,) pixels


def find_regions(mask: Ints) -> Regions:
    """The regions of a mask (H, W) of at least one pixel. Pixels that touch at a corner alone are not connected."""
    height, width = mask.shape
    begins = np.ones((height, width), dtype=bool)  # of a run of equal pixels in a row
    np.not_equal(mask[:, 1:], mask[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    runs = np.cumsum(begins.ravel(), dtype=np.int32).reshape(height, width) - 1
    alike = mask[1:] == mask[:-1]
    first = alike & (begins[1:] | begins[:-1])  # each pair of runs that touch, once; a run begins at its left end
    region = _connected(len(starts), runs[:-1][first], runs[1:][first])
    lengths = np.diff(starts, append=mask.size)
    is_first = region == np.arange(len(starts))
    number = (np.cumsum(is_first) - 1).astype(np.int32)[region]
    sizes = np.bincount(number, weights=lengths).astype(np.int64)  # exact below 2⁵³
    return Regions(np.repeat(number, lengths).reshape(height, width), mask.ravel()[starts[is_first]], sizes)


def _connected(count: int, one: Ints, other: Ints) -> Ints:
    """The lowest node that each of `count` nodes is connected with, by edges from `one` to `other`.

    Each round joins the trees of nodes that edges connect, and lets every node point to its root (Shiloach and Vishkin 1982).
    """
    root = np.arange(count)
    while True:
        a, b = root[one], root[other]
        apart = a != b
        if not apart.any():
            return root
        one, other = one[apart], other[apart]
        np.minimum.at(root, np.maximum(a, b)[apart], np.minimum(a, b)[apart])
        while not np.array_equal(above := root[root], root):
            root = above
