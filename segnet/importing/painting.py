"""The shapes of a picture painted into one mask, with a rule for the pixels that several classes claim."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segnet.classes import IGNORE_INDEX
from segnet.importing.source import Counts, Drawn, Overlap, Size, require_size


class Patch(NamedTuple):
    """The pixels of a shape in the part of the picture that begins at (top, left)."""

    mask: np.ndarray  # (h, w) bool
    top: int = 0
    left: int = 0
    outside: bool = False  # the shape reaches outside of the picture


class Shape(NamedTuple):
    """A labelled shape."""

    number: int  # position of its class in `Source.classes`, or 255
    rasterise: Callable[[Size], Patch]


def crop(mask: np.ndarray, *, left: int = 0, outside: bool = False) -> Patch:
    """The smallest patch with all True pixels of a mask (h, w), whose first column is column `left` of the picture."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return Patch(mask[:0, :0], 0, left, outside)
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Patch(np.ascontiguousarray(part), int(rows[0]), left + int(columns[0]), outside)


def paint_declared(
    shapes: Sequence[Shape], declared: tuple[object, object], overlap: Overlap, where: Path | str, size: Size
) -> Drawn:
    """`paint`, where the labels `where` say for which (height, width) they are. Raises UserError (data) as `require_size`."""
    require_size(declared, size, where)
    return paint(shapes, size, overlap)


def paint(shapes: Sequence[Shape], size: Size, overlap: Overlap) -> Drawn:
    """The mask of a picture of `size`; pixels outside of all shapes are 0.

    Where shapes of several classes overlap, the pixels are those of the last shape, of the smallest one (of equal ones the
    last), or ignored.
    """
    patches = [(shape.number, shape.rasterise(size)) for shape in shapes]
    drawn = [(number, patch) for number, patch in patches if patch.mask.any()]
    outside = sum(patch.outside for _, patch in patches)
    too_small = sum(not patch.outside and not patch.mask.any() for _, patch in patches)
    if overlap == "smallest":
        drawn.sort(key=lambda pair: -int(pair[1].mask.sum()))
    mask = np.zeros(size, dtype=np.uint8)
    claimed = np.zeros(size, dtype=bool)
    overlapped = np.zeros(size, dtype=bool)
    for number, patch in drawn:
        height, width = patch.mask.shape
        window = slice(patch.top, patch.top + height), slice(patch.left, patch.left + width)
        overlapped[window] |= patch.mask & claimed[window] & (mask[window] != number)
        mask[window][patch.mask] = number
        claimed[window] |= patch.mask
    if overlap == "ignore":
        mask[overlapped] = IGNORE_INDEX
    return Drawn(mask, Counts(len(drawn), int(overlapped.sum()), outside, too_small))
