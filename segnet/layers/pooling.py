"""2×2 max-pooling that stores the place of each maximum in one byte, and max-unpooling to those places.

A place is one of four codes, 2 * row + column inside the window. Two operations are each other's adjoint: `_place` writes one
value per window at its place (unpooling, and the gradient of pooling), `_pick` reads the value there (the gradient of unpooling).

Each operation has three forms with equal results. On a CPU the native operations of torch with int64 indices are several times
faster than any composition, so the indices are computed from the stored bytes when they are needed. On a GPU, and in
deterministic mode, a form compares codes: it keeps the memory layout and needs no atomics. It writes into four views of the
answer, one for each code, so it moves few bytes. Under torch.compile and torch.export a form compares codes and writes into no
view: that is what a compiler fuses into one kernel.

x is (B, C, h, w); sizes are (height, width).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


class Pooled(NamedTuple):
    """The maxima of the windows and their places."""

    values: Tensor  # (B, C, ceil(h/2), ceil(w/2))
    winner: Tensor  # uint8 of the same shape: 2 * row + column in the window, 0..3


def max_pool(x: Tensor) -> Pooled:
    """2×2 max-pooling with stride 2 in ceil mode, as in Caffe: windows over a last odd row or column are smaller.

    Values and gradients equal those of `F.max_pool2d(x, 2, ceil_mode=True)` bit for bit: of equal values the first in
    row-major order wins, and NaN wins over numbers. The pooling of SegNet's encoder (Badrinarayanan et al. 2017, section 3).
    """
    return Pooled(*_MaxPool.apply(x))


def max_unpool(values: Tensor, winner: Tensor, size: Size) -> Tensor:
    """Each value at the place of its winner, zeros elsewhere: (B, C, ceil(H/2), ceil(W/2)) -> (B, C, H, W).

    `size` is (H, W), which was pooled. Values and gradients equal those of `F.max_unpool2d` with the native indices.
    Raises ValueError if `size` does not pool to the size of `values`.
    """
    expected = pooled_size(size)
    if values.shape != winner.shape or tuple(values.shape[-2:]) != expected:
        raise ValueError(f"{tuple(size)} pools to {expected}; got values {tuple(values.shape)}, winner {tuple(winner.shape)}")
    return _MaxUnpool.apply(values, winner, size)


def pooled_size(size: Size) -> Size:
    """(ceil(h/2), ceil(w/2)). All code calls this function, so that torch.export recognises equal sizes."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        values, winner = _pool(x)
        ctx.save_for_backward(winner)
        ctx.mark_non_differentiable(winner)
        ctx.set_materialize_grads(False)  # or the winner would get a gradient of zeros
        ctx.size = tuple(x.shape[-2:])
        return values, winner

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: None) -> Tensor | None:
        if grad is None:
            return None
        (winner,) = ctx.saved_tensors
        return _place(grad, winner, ctx.size)


class _MaxUnpool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, winner: Tensor, size: Size) -> Tensor:
        ctx.save_for_backward(winner)
        return _place(values, winner, size)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (winner,) = ctx.saved_tensors
        return _pick(grad, winner), None, None


def _native(x: Tensor) -> bool:
    """True where the native operations with indices are used."""
    return x.is_cpu and not torch.compiler.is_compiling() and not torch.are_deterministic_algorithms_enabled()


def _pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """The maxima of the windows of x (B, C, H, W), and their places: (B, C, h, w) each."""
    if torch.compiler.is_compiling():
        return _pool_fusing(x)
    if _native(x):
        return _pool_native(x)
    first, *others = _corners(x)
    values = first.clone()
    winner = torch.zeros_like(values, dtype=torch.uint8)
    for code, corner in enumerate(others, start=1):
        best = _same_windows(values, corner)
        better = (corner > best) | corner.isnan()
        torch.where(better, corner, best, out=best)
        _same_windows(winner, corner).masked_fill_(better, code)
    return values, winner


def _place(values: Tensor, winner: Tensor, size: Size) -> Tensor:
    """(B, C, H, W): each of the (B, C, h, w) values at its winner's place, zeros elsewhere."""
    if torch.compiler.is_compiling():
        return _place_fusing(values, winner, size)
    if _native(values):
        return F.max_unpool2d(values, _indices(winner, size), [2, 2], output_size=size)
    shape, zero = (*values.shape[:2], *size), values.new_zeros(())
    placed = torch.empty(shape, dtype=values.dtype, device=values.device, memory_format=torch.channels_last)
    for code, corner in enumerate(_corners(placed)):
        torch.where(_same_windows(winner, corner) == code, _same_windows(values, corner), zero, out=corner)
    return placed


def _pick(x: Tensor, winner: Tensor) -> Tensor:
    """(B, C, h, w): the values of x (B, C, H, W) at the winners' places."""
    if torch.compiler.is_compiling():
        return _pick_fusing(x, winner)
    if _native(x):
        return _pick_native(x, winner)
    first, *others = _corners(x)
    picked = first.clone()
    for code, corner in enumerate(others, start=1):
        target = _same_windows(picked, corner)
        torch.where(_same_windows(winner, corner) == code, corner, target, out=target)
    return picked


def _corners(x: Tensor) -> list[Tensor]:
    """Four views of x (B, C, H, W), by code: the pixel of each window with that code. Windows over an odd last side lack some."""
    return [x[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]


def _same_windows(pooled: Tensor, corner: Tensor) -> Tensor:
    """A view of a (B, C, h, w) tensor: its values for the windows that have a pixel in `corner`."""
    return pooled[..., : corner.shape[-2], : corner.shape[-1]]


def _pool_native(x: Tensor) -> tuple[Tensor, Tensor]:
    """`_pool` from the indices of torch's own pooling."""
    values, indices = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
    width = x.shape[-1]
    offset = indices.to(torch.int32) - _first_indices(values, width)  # 0, 1, W or W + 1
    row = (offset >= width).to(torch.int32)
    return values, offset.sub_(row, alpha=width - 2).to(torch.uint8)


def _pick_native(x: Tensor, winner: Tensor) -> Tensor:
    """`_pick` by indices."""
    batch, channels, height, width = x.shape
    h, w = winner.shape[-2:]
    flat = x.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
    indices = _indices(winner, (height, width)).permute(0, 2, 3, 1).reshape(batch, h * w, channels)
    return flat.gather(1, indices).view(batch, h, w, channels).permute(0, 3, 1, 2)


def _first_indices(pooled: Tensor, width: int) -> Tensor:
    """(h, w) int32: the flat index of the first pixel of each window, in a plane of `width`. `pooled` is (B, C, h, w)."""
    rows, columns = (torch.arange(n, dtype=torch.int32, device=pooled.device) for n in pooled.shape[-2:])
    return rows[:, None] * (2 * width) + columns * 2


def _indices(winner: Tensor, size: Size) -> Tensor:
    """(B, C, h, w) int64: the winners as flat indices into a plane of `size`, as torch's own pooling returns them."""
    first = _first_indices(winner, size[1])
    return torch.add(first, winner & 1).add_(winner >> 1, alpha=size[1]).long()


def _pool_fusing(x: Tensor) -> tuple[Tensor, Tensor]:
    """`_pool` for a compiler."""
    corners = _corners(_padded(x, float("-inf")))
    values, winner = corners[0], torch.zeros_like(corners[0], dtype=torch.uint8)
    for code in (1, 2, 3):
        better = (corners[code] > values) | corners[code].isnan()
        values = torch.where(better, corners[code], values)
        winner = torch.where(better, code, winner)
    return values, winner


def _place_fusing(values: Tensor, winner: Tensor, size: Size) -> Tensor:
    """`_place` for a compiler."""
    rows, columns = (torch.arange(n, device=values.device) for n in size)
    code = 2 * (rows % 2)[:, None, None] + (columns % 2)[:, None]  # (H, W, 1): the code of each pixel
    values, winner = (
        x.permute(0, 2, 3, 1).index_select(1, rows // 2).index_select(2, columns // 2) for x in (values, winner)
    )  # (B, H, W, C), the order of channels_last: the value and winner of each pixel's window
    return torch.where(winner == code, values, values.new_zeros(())).permute(0, 3, 1, 2)


def _pick_fusing(x: Tensor, winner: Tensor) -> Tensor:
    """`_pick` for a compiler."""
    corners = _corners(_padded(x, 0.0))
    picked = corners[0]
    for code in (1, 2, 3):
        picked = torch.where(winner == code, corners[code], picked)
    return picked


def _padded(x: Tensor, value: float) -> Tensor:
    """x (B, C, H, W) with `value` below and to the right, to even sides."""
    height, width = x.shape[-2:]
    h, w = pooled_size((height, width))
    return F.pad(x, (0, 2 * w - width, 0, 2 * h - height), value=value)
