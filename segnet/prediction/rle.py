"""The run-length encoding of binary masks that COCO's tools read and write."""

from __future__ import annotations

import numpy as np

_BLOCK = 1 << 20  # runs packed at a time, so that temporaries do not grow with the number of runs


def encode_rle(mask: np.ndarray) -> str:
    """The compressed counts of an (H, W) bool mask: the value of `counts`, beside `size: [H, W]`, in COCO's JSON.

    Counts are the lengths of runs of equal values, column by column. The first run is of zeros and may have length 0. From
    the fourth run on, the difference from the count two places before is stored. Each number is cut into groups of 5 bits,
    lowest first; a group is the character 48 + its bits, + 32 when another group follows
    (cocoapi, maskApi.c: rleEncode, rleToString).
    """
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    start = [0, 0] if pixels[0] else [0]
    counts = np.diff(changes, prepend=np.array(start, dtype=np.int64), append=pixels.size)
    return b"".join(_pack(counts, first) for first in range(0, len(counts), _BLOCK)).decode("ascii")


def _pack(counts: np.ndarray, first: int) -> bytes:
    """The characters of `counts[first : first + _BLOCK]`."""
    values = counts[first : first + _BLOCK].copy()
    since = max(3, first)  # index of the first count that is stored as a difference
    values[since - first :] -= counts[since - 2 : since - 2 + len(values[since - first :])]
    magnitude = np.where(values < 0, ~values, values)
    groups = np.ones(len(values), dtype=np.int64)  # of 5 bits per number; the highest bit of the last group is the sign
    for bits in range(4, 64, 5):
        longer = magnitude >> bits > 0
        if not longer.any():
            break
        groups += longer
    ends = np.cumsum(groups)
    packed = np.empty(ends[-1], dtype=np.uint8)
    for group in range(int(groups.max())):
        has = groups > group
        more = groups[has] > group + 1
        packed[ends[has] - groups[has] + group] = 48 + ((values[has] >> 5 * group) & 31) + 32 * more
    return packed.tobytes()
