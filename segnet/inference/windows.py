"""Sliding windows over a picture: where they lie, and how their overlapping answers become one. Pure tile mathematics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Windows(NamedTuple):
    """How a picture is cut. Neighbouring windows share `overlap` pixels, of which each leaves `margin` to the other; in the
    `overlap - 2 * margin` between, one answer fades into the other. overlap ≤ size / 2, margin < overlap / 2.
    """

    size: int  # side of a window, pixels
    overlap: int
    margin: int

    @property
    def fade(self) -> int:
        """Pixels over which neighbours are blended."""
        return self.overlap - 2 * self.margin


class Region(NamedTuple):
    """A finished rectangle of the picture."""

    rows: slice
    columns: slice
    values: Tensor  # (B, C, rows, columns)


def plan_windows(length: int, windows: Windows) -> list[slice]:
    """Windows along a side of `length` pixels: all but the last have the full size, and all start at multiples of the step."""
    step = windows.size - windows.overlap
    return [slice(start, min(start + windows.size, length)) for start in range(0, max(1, length - windows.overlap), step)]


def blend_windows(size: tuple[int, int], windows: Windows, answer: Callable[[slice, slice], Tensor]) -> Iterator[Region]:
    """Regions that cover a picture of `size` once, from `answer(rows, columns)`: a window's (B, C, rows, columns).

    Weights of neighbours are linear in the position and sum to one. Besides one window, only the seams of one row of
    windows are kept, so memory does not grow with the picture's area.
    """
    rows, columns = (plan_windows(side, windows) for side in size)
    below: list[Tensor] = []  # per window of a row: what its fade gives to the next row
    for i, row in enumerate(rows):
        beside, above, below = torch.empty(0), below, []
        for j, column in enumerate(columns):
            values = answer(row, column)
            values, top, bottom = _fade(values, 2, windows, first=i == 0, last=i == len(rows) - 1)
            values, left, right = _fade(values, 3, windows, first=j == 0, last=j == len(columns) - 1)
            if j:
                values[..., : windows.fade] += beside
            if i:
                values[..., : windows.fade, : above[j].shape[3]] += above[j]
            height, width = values.shape[2] - bottom, values.shape[3] - right
            beside = values[..., width:].clone()  # a clone, or the whole window would stay with its seam
            below.append(values[..., height:, :width].clone())
            y, x = row.start + top, column.start + left
            yield Region(slice(y, y + height), slice(x, x + width), values[..., :height, :width])


def _fade(values: Tensor, axis: int, windows: Windows, *, first: bool, last: bool) -> tuple[Tensor, int, int]:
    """A window without its margins along an axis and weighted where it meets others; what was cut in front; the seam behind."""
    front, back = 0 if first else windows.margin, 0 if last else windows.margin
    values = values.narrow(axis, front, values.shape[axis] - front - back)
    rise = (torch.arange(windows.fade, device=values.device, dtype=values.dtype) + 0.5) / windows.fade
    rise = rise.view(-1, *[1] * (3 - axis))
    if not first:
        values.narrow(axis, 0, windows.fade).mul_(rise)
    if not last:
        values.narrow(axis, values.shape[axis] - windows.fade, windows.fade).mul_(1 - rise)
    return values, front, 0 if last else windows.fade
