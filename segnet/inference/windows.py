"""Sliding windows over an image: their places, and the blending of their overlapping answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Windows(NamedTuple):
    """The layout of windows over an image.

    Two neighbours share `overlap` pixels. Each discards its outer `margin` of them; over the `overlap - 2 * margin` pixels
    between, the answer of one fades into that of the other.
    """

    size: int  # side of a window, pixels
    overlap: int  # pixels, at most size / 2
    margin: int  # pixels, less than overlap / 2

    @property
    def fade(self) -> int:
        """Pixels over which neighbours are blended."""
        return self.overlap - 2 * self.margin


class Region(NamedTuple):
    """A finished rectangle of the image."""

    rows: slice
    columns: slice
    values: Tensor  # (B, C, rows, columns)


def plan_windows(length: int, windows: Windows) -> list[slice]:
    """The windows along a side of `length` pixels, one every `size - overlap` pixels; the last may be shorter."""
    step = windows.size - windows.overlap
    return [slice(start, min(start + windows.size, length)) for start in range(0, max(1, length - windows.overlap), step)]


def blend_windows(size: tuple[int, int], windows: Windows, answer: Callable[[slice, slice], Tensor]) -> Iterator[Region]:
    """Regions that together cover an image of `size` (H, W) once.

    `answer(rows, columns)` is the answer of a window, (B, C, rows, columns). Where neighbours are blended, their weights are
    linear in the position and sum to 1. Memory is one window and the seams of one row of windows, whatever the image's
    height.
    """
    rows, columns = (plan_windows(side, windows) for side in size)
    below: list[Tensor] = []  # the weighted lower seam of each window of a row, to add to the next row
    for i, row in enumerate(rows):
        above, below = below, []
        beside = torch.empty(0)  # the weighted right seam of the window before
        for j, column in enumerate(columns):
            values = answer(row, column)
            values, top, bottom = _fade(values, 2, windows, first=i == 0, last=i == len(rows) - 1)
            values, left, right = _fade(values, 3, windows, first=j == 0, last=j == len(columns) - 1)
            if j:
                values[..., : windows.fade] += beside
            if i:
                values[..., : windows.fade, : above[j].shape[3]] += above[j]
            height, width = values.shape[2] - bottom, values.shape[3] - right
            beside = values[..., width:].clone()  # a view would keep the whole window in memory
            below.append(values[..., height:, :width].clone())
            y, x = row.start + top, column.start + left
            yield Region(slice(y, y + height), slice(x, x + width), values[..., :height, :width])


def _fade(values: Tensor, axis: int, windows: Windows, *, first: bool, last: bool) -> tuple[Tensor, int, int]:
    """(values, front, seam) of a window along an axis, 2 or 3.

    `values` are those of the window without its margins, weighted (in place) where they overlap a neighbour's; `front` is the
    margin in pixels that was cut before them, `seam` the number of pixels at their end that the next window completes.
    """
    front = 0 if first else windows.margin
    back = 0 if last else windows.margin
    values = values.narrow(axis, front, values.shape[axis] - front - back)
    rise = (torch.arange(windows.fade, device=values.device, dtype=values.dtype) + 0.5) / windows.fade
    rise = rise.view(-1, *[1] * (3 - axis))
    if not first:
        values.narrow(axis, 0, windows.fade).mul_(rise)
    if not last:
        values.narrow(axis, values.shape[axis] - windows.fade, windows.fade).mul_(1 - rise)
    return values, front, 0 if last else windows.fade
