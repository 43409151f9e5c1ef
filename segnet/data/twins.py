"""Pictures of two splits that look alike: equal files, near twins, neighbouring frames of a video.

A network that has learnt a picture knows its twin: a score on such pictures is too good.
"""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segnet.data.layout import split_path
from segnet.data.remedies import split_command
from segnet.system.errors import UserError, data_error

NEAR = 4  # bits of 64 in which the hashes of near twins differ at most
NEXT = 12  # the same for neighbouring frames; unrelated pictures differ in 32 on average, and hardly one pair in less than 16
_PLAIN = 8  # a hash with fewer ones, or fewer zeros, is of a picture without structure, and is compared with none
_ROWS, _COLUMNS = 8, 9
_SAMPLES = 8  # pixels in each direction that a cell averages, at least
_FRAME = re.compile(r"(.*?)(\d+)([^\d/]*)", re.DOTALL)  # name before the last number, the number, the name after it
GROUP_OF_FRAMES = r"^(.*?)\d+[^\d/]*$"  # the part of a name before its last number: a video

Apart = Callable[[str, str], bool]  # whether two splits must not share pictures


class Look(NamedTuple):
    """What is compared of a picture."""

    content: bytes  # digest of the file
    hash: int | None  # difference hash, 64 bits; None for a picture without structure


def difference_hash(image: NDArray[np.uint8]) -> int | None:
    """64 bits of an image (C, H, W): whether each of its means over 8×9 cells is lighter than the one on its left.

    None for an image of fewer pixels than cells, or with nearly no lighter or no darker neighbour (Krawetz 2013, "dHash").
    """
    height, width = image.shape[1:]
    if height < _ROWS or width < _COLUMNS:
        return None
    steps = max(1, height // (_ROWS * _SAMPLES)), max(1, width // (_COLUMNS * _SAMPLES))
    light = image[:, :: steps[0], :: steps[1]].astype(np.int64).sum(axis=0)
    rows = np.arange(_ROWS) * light.shape[0] // _ROWS
    columns = np.arange(_COLUMNS) * light.shape[1] // _COLUMNS
    sums = np.add.reduceat(np.add.reduceat(light, rows, axis=0), columns, axis=1)  # (8, 9)
    pixels = np.diff(rows, append=light.shape[0])[:, None] * np.diff(columns, append=light.shape[1])
    means = sums / pixels
    bits = means[:, 1:] > means[:, :-1]  # (8, 8)
    if not _PLAIN <= int(bits.sum()) <= bits.size - _PLAIN:
        return None
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def same_file_warnings(
    root: Path, ids_of: Mapping[str, Sequence[str]], looks: Mapping[str, Look], apart: Apart
) -> list[UserError]:
    """Warnings of pictures of two splits that are equal files with two ids."""
    warnings = list[UserError]()
    owners = defaultdict[bytes, list[tuple[str, str]]](list)  # content -> (split, id) of those that have it
    for split, names in ids_of.items():
        for name in names:
            if name not in looks:
                continue
            earlier = owners[looks[name].content]
            twin = next(((other, owner) for other, owner in earlier if owner != name and apart(other, split)), None)
            earlier.append((split, name))
            if twin:
                found = f"'{name}' is the same picture as '{twin[1]}' in {twin[0]}"
                warnings.append(data_error(split_path(root, split), found, "remove one of them"))
    return warnings


def near_twin_warnings(
    root: Path, ids_of: Mapping[str, Sequence[str]], looks: Mapping[str, Look], apart: Apart, train: str = "train"
) -> list[UserError]:
    """A warning for each split whose pictures look like those of a train split, with the groups that would keep them together.

    Train splits are `train` and those whose names begin so.
    """
    warnings = list[UserError]()
    learnt = [name for name in ids_of if name == train or name.startswith("train")]
    for train in learnt:
        for split in (name for name in ids_of if name not in learnt and apart(train, name)):
            pairs = similar_pairs(ids_of[split], ids_of[train], looks)
            if not pairs:
                continue
            example, (twin, distance) = next(iter(pairs.items()))
            frames = sum(bits > NEAR for _, bits in pairs.values())
            kinds = f"{len(pairs) - frames} near twins, {frames} neighbouring frames"
            found = (
                f"{len(pairs)} of {len(ids_of[split])} pictures look like pictures of {train} ({kinds}), such as '{example}' and "
                f"'{twin}' (hashes differ in {distance} of 64 bits): the score on them is too good"
            )
            warnings.append(data_error(split_path(root, split), found, _remedy(root, pairs, with_test="test" in ids_of)))
    return warnings


def _remedy(root: Path, pairs: Mapping[str, tuple[str, int]], *, with_test: bool) -> str:
    """The command that keeps the pairs together, where the names tell a group."""
    in_one_video = [_video(name) is not None and _video(name) == _video(twin) for name, (twin, _) in pairs.items()]
    in_one_folder = ["/" in name and name.rpartition("/")[0] == twin.rpartition("/")[0] for name, (twin, _) in pairs.items()]
    shares = "--val 0.2 --test 0.2" if with_test else "--val 0.2"
    for group, together in ((shlex.quote(GROUP_OF_FRAMES), in_one_video), ("folder", in_one_folder)):
        if 2 * sum(together) > len(pairs):
            command = split_command(root, f"{shares} --group {group} --overwrite")
            return f"keep what belongs together in one split: {command}"
    return "put the pictures of a pair into one split: segnet split with a --group that they share"


def _video(name: str) -> str | None:
    match = _FRAME.fullmatch(name)
    return match[1] if match else None


def similar_pairs(names: Sequence[str], train: Sequence[str], looks: Mapping[str, Look]) -> dict[str, tuple[str, int]]:
    """For each of `names` that looks like a picture of `train`: its nearest one there, and the bits in which they differ.

    Near twins differ in at most `NEAR` bits, neighbouring frames in at most `NEXT`. Equal files are left out.
    """
    known = [name for name in train if name in looks and looks[name].hash is not None]
    hashes = np.array([looks[name].hash for name in known], dtype=np.uint64)  # (N,)
    place = {name: index for index, name in enumerate(known)}
    beside = _neighbours([*names, *train])
    pairs = dict[str, tuple[str, int]]()
    for name in names if known else ():
        look = looks.get(name)
        if look is None or look.hash is None or name in place:
            continue
        bits = np.bitwise_count(hashes ^ np.uint64(look.hash))  # (N,)
        nearest = [int(np.argmin(bits)), *(place[other] for other in beside.get(name, ()) if other in place)]
        for index, limit in zip(nearest, (NEAR, NEXT, NEXT), strict=False):
            if bits[index] <= limit and looks[known[index]].content != look.content:
                pairs[name] = (known[index], int(bits[index]))
                break
    return pairs


def _neighbours(names: Sequence[str]) -> dict[str, list[str]]:
    """The names before and after each name among those that differ from it in their last number alone."""
    videos = defaultdict[tuple[str, str], list[tuple[int, str]]](list)
    for name in dict.fromkeys(names):
        if match := _FRAME.fullmatch(name):
            videos[match[1], match[3]].append((int(match[2]), name))
    beside = defaultdict[str, list[str]](list)
    for frames in videos.values():
        frames.sort()
        for (_, before), (_, after) in pairwise(frames):
            beside[before].append(after)
            beside[after].append(before)
    return beside
