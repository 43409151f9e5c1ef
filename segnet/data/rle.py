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


def decode_rle(counts: str | list[int], size: tuple[int, int]) -> np.ndarray:
    """The (H, W) bool mask of `size` from COCO's counts, compressed as `encode_rle` writes them or a list of run lengths.

    Raises ValueError where they are damaged, or do not add up to H × W.
    """
    runs = _unpack(counts) if isinstance(counts, str) else _plain_runs(counts)
    total = size[0] * size[1]
    if bool((runs < 0).any()) or bool((runs > total).any()) or int(runs.sum()) != total:
        raise ValueError(f"runs of {int(runs.sum()):,} pixels for {total:,}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size[1], size[0]).T


def _plain_runs(counts: list[int]) -> np.ndarray:
    if not all(isinstance(count, int) and 0 <= count < 1 << 40 for count in counts):
        raise ValueError("a run that is no whole number from 0")
    return np.array(counts, dtype=np.int64)


def _unpack(text: str) -> np.ndarray:
    """The run lengths in compressed counts. Raises ValueError for characters that these do not have."""
    characters = np.frombuffer(text.encode("utf-8", "replace"), dtype=np.uint8).astype(np.int64) - 48
    if bool(((characters < 0) | (characters > 63)).any()) or (len(characters) and characters[-1] & 32):
        raise ValueError("characters that no run has")
    ends = np.flatnonzero(characters & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    if len(ends) and int((ends - starts).max()) > 8:
        raise ValueError("a run of more than 40 bits")
    group = np.arange(len(characters)) - np.repeat(starts, ends - starts + 1)
    runs = np.add.reduceat((characters & 31) << 5 * group, starts) if len(ends) else np.zeros(0, dtype=np.int64)
    negative = characters[ends] & 16 > 0  # the highest bit of the last group is the sign
    runs -= np.where(negative, np.int64(1) << 5 * (ends - starts + 1), 0)
    for first in (1, 2):  # from the fourth run on, differences from the run two places before
        runs[first::2] = np.cumsum(runs[first::2])
    return runs
