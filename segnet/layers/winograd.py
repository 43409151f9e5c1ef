"""3×3 convolutions in prediction by torch's matrix products, where there is no compiled kernel: Winograd's F(4×4, 3×3).

It is `native.cpp` in a few calls of torch, with its points and without its fusion. With AVX2 that is 1.04 (64 channels) to 2.5
times (512) as fast as torch's convolution. With AVX-512 torch's convolutions gain more than its products: it is slower in half of
SegNet's layers, and it is not used.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

from segnet.layers.native import Kernel, find_kernel, is_faster
from segnet.layers.pooling import Pooled, Size, max_pool, max_unpool

_FEWEST_CHANNELS = 64  # of input and of output, and
_FEWEST_TILES = 48  # of 4×4 pixels in an image, from which it is faster than torch's convolution (measured)
_MOST_TILES = 192  # that are computed at once (measured)


def _transforms() -> tuple[Tensor, Tensor, Tensor]:
    """The matrices B' (6, 6), G (6, 3) and A' (4, 6) of `native.cpp`, in float64. B' and A' are exact in float32."""
    a, b = 0.625, 1.5
    s, t = a * a, b * b
    m, n = 2 * s * (s - t), 2 * t * (t - s)
    of_inputs = [
        [s * t, 0, -s - t, 0, 1, 0],
        [0, -a * t, -t, a, 1, 0],
        [0, a * t, -t, -a, 1, 0],
        [0, -b * s, -s, b, 1, 0],
        [0, b * s, -s, -b, 1, 0],
        [0, s * t, 0, -s - t, 0, 1],
    ]
    of_kernels = [
        [1 / (s * t), 0, 0],
        [1 / m, a / m, s / m],
        [1 / m, -a / m, s / m],
        [1 / n, b / n, t / n],
        [1 / n, -b / n, t / n],
        [0, 0, 1],
    ]
    of_sums = [[1, 1, 1, 1, 1, 0], [0, a, -a, b, -b, 0], [0, s, s, t, t, 0], [0, a * s, -a * s, b * t, -b * t, 1]]
    inputs, kernels, sums = (torch.tensor(x, device="cpu", dtype=torch.float64) for x in (of_inputs, of_kernels, of_sums))
    return inputs, kernels, sums


class TorchKernel:
    """The functions of `Kernel` that predict, by torch's matrix products. Several threads may call it at once.

    Images are computed one by one, and each in blocks that depend on its size alone, so an answer does not depend on the batch.
    A NaN or an infinity makes the 4×4 tiles NaN that it touches, and no other.
    """

    def transform(self, weight: Tensor, bias: Tensor) -> Tensor:
        """The weight (K, C, 3, 3) and the bias (K,) in the form that `convolve` reads: four times as many numbers."""
        _, transform, _ = _transforms()
        kernels = torch.einsum("ir,kcrq,jq->ijck", transform, weight.detach().double(), transform)
        return torch.cat((kernels.flatten().float(), bias.detach()))

    def convolve(self, x: Tensor, kernels: Tensor, outputs: int, *, relu: bool) -> Tensor:
        """(B, C, H, W) -> (B, K, H, W), with K = `outputs`: the convolution with padding 1, then ReLU if `relu`."""
        batch, _, *size = x.shape
        shape = (batch, outputs, *size)
        out = torch.empty(shape, device="cpu", dtype=torch.float32, memory_format=torch.channels_last)
        inputs, _, sums = (matrix.float() for matrix in _transforms())
        weight, bias = kernels[:-outputs].view(36, x.shape[1], outputs), kernels[-outputs:]
        for image, found in zip(x.permute(0, 2, 3, 1), out.permute(0, 2, 3, 1), strict=True):
            for rows, columns in _blocks((size[0], size[1])):
                pixels = _convolve_block(image, rows, columns, inputs, weight, sums, bias)
                target = found[4 * rows.start : 4 * rows.stop, 4 * columns.start : 4 * columns.stop]
                pixels = pixels[: target.shape[0], : target.shape[1]]
                torch.clamp_min(pixels, 0, out=target) if relu else target.copy_(pixels)
        return out

    def convolve_and_pool(self, x: Tensor, kernels: Tensor, outputs: int, *, relu: bool) -> Pooled:
        """`convolve`, then `max_pool`."""
        return max_pool(self.convolve(x, kernels, outputs, relu=relu))

    def unpool_and_convolve(self, pooled: Pooled, size: Size, kernels: Tensor, outputs: int, *, relu: bool) -> Tensor:
        """`max_unpool` to `size`, then `convolve`."""
        return self.convolve(max_unpool(*pooled, size), kernels, outputs, relu=relu)


def replaces_kernel() -> bool:
    """True where the compiled kernel is missing and these matrix products predict faster than torch's convolutions.

    SEGNET_NATIVE=0 leaves all convolutions to torch.
    """
    wanted = os.environ.get("SEGNET_NATIVE") != "0" and torch.backends.cpu.get_cpu_capability() != "AVX512"
    return wanted and find_kernel().kernel is None


def describe_kernel() -> str:
    """What computes wide 3×3 convolutions in prediction, to print: the compiled kernel, or why there is none."""
    return find_kernel().text + ("; Winograd by torch's matrix products replaces it" if replaces_kernel() else "")


def find_faster(x: Tensor, outputs: int, size: Size) -> Kernel | TorchKernel | None:
    """What computes a map of `size` from x, with so many output channels, faster than torch's convolution, if anything does."""
    if kernel := find_kernel().kernel:
        return kernel if is_faster(x, outputs, size) else None
    tiles = -(-size[0] // 4) * -(-size[1] // 4)
    wide = min(x.shape[1], outputs) >= _FEWEST_CHANNELS and tiles >= _FEWEST_TILES
    return TorchKernel() if wide and replaces_kernel() else None


def _blocks(size: Size) -> Iterator[tuple[range, range]]:
    """The rows and the columns of tiles of each block, about equal blocks of at most _MOST_TILES tiles, that cover `size`."""
    rows, columns = -(-size[0] // 4), -(-size[1] // 4)
    width = -(-columns // -(-columns // _MOST_TILES))
    most = max(1, _MOST_TILES // width)
    height = -(-rows // -(-rows // most))
    for row in range(0, rows, height):
        for column in range(0, columns, width):
            yield range(row, min(row + height, rows)), range(column, min(column + width, columns))


def _convolve_block(
    image: Tensor, rows: range, columns: range, inputs: Tensor, weight: Tensor, sums: Tensor, bias: Tensor
) -> Tensor:
    """(4 · rows, 4 · columns, K), in memory that the next call overwrites: the pixels of a block of tiles of an (H, W, C) image.

    In the notation of `native.cpp`: A' [ sum over C of (B' d B) * weight ] A + bias, with B' `inputs` and A' `sums`.
    """
    channels, outputs = weight.shape[1:]
    h, w = len(rows), len(columns)
    one, other = _two_buffers(36 * h * w * max(channels, outputs))
    top, left = 4 * rows.start - 1, 4 * columns.start - 1
    patch = _part(one, 4 * h + 2, 4 * w + 2, channels).zero_()
    inside = image[max(top, 0) : top + 4 * h + 2, max(left, 0) : left + 4 * w + 2]
    patch[max(-top, 0) :, max(-left, 0) :][: inside.shape[0], : inside.shape[1]] = inside
    down, right, _ = patch.stride()
    tiles = patch.as_strided((6, 6, h, w, channels), (down, right, 4 * down, 4 * right, 1))
    _part(other, 6, 6, h, w, channels).copy_(tiles)
    count = h * w * channels
    torch.mm(inputs, _part(other, 6, 6 * count), out=_part(one, 6, 6 * count))
    torch.bmm(inputs.expand(6, 6, 6), _part(one, 6, 6, count), out=_part(other, 6, 6, count))
    torch.bmm(_part(other, 36, h * w, channels), weight, out=_part(one, 36, h * w, outputs))
    count = h * w * outputs
    torch.mm(sums, _part(one, 6, 6 * count), out=_part(other, 4, 6 * count))
    torch.bmm(sums.expand(4, 4, 6), _part(other, 4, 6, count), out=_part(one, 4, 4, count))
    pixels = _part(one, 4, 4, h, w, outputs).permute(2, 0, 3, 1, 4)
    return torch.add(pixels, bias, out=_part(other, h, 4, w, 4, outputs)).view(4 * h, 4 * w, outputs)


_memory = threading.local()


def _two_buffers(floats: int) -> tuple[Tensor, Tensor]:
    """Two buffers of so many numbers, which the thread keeps for its next call: the first use of new memory takes long."""
    kept: Tensor | None = getattr(_memory, "tensor", None)
    if kept is None or len(kept) < 2 * floats:
        with torch.inference_mode(False):  # a tensor made in inference mode cannot be written outside it
            kept = _memory.tensor = torch.empty(2 * floats, device="cpu", dtype=torch.float32)
    one, other = kept[: 2 * floats].view(2, floats)
    return one, other


def _part(buffer: Tensor, *shape: int) -> Tensor:
    """The first numbers of a buffer in this shape."""
    return buffer[: prod(shape)].view(shape)
