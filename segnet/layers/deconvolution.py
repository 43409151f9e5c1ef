"""Deconvolution (transposed convolution), 1-D and 2-D, and the two forms that it equals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from segnet.layers.convolution import convolve


def deconvolve(x: Tensor, kernel: Tensor, *, stride: int = 1, crop: int = 0) -> Tensor:
    """Throw every sample back over its receptive field, weighted by the kernel, and add: transposed convolution.

    x (B, C, *n), kernel (C, D, *k), 1-D or 2-D -> (B, D, *m) with m = (n - 1) * stride + k - 2 * crop. As a matrix it is
    the transpose of the convolution with the same kernel, stride and padding = crop.
    With stride 1 it is a convolution with the kernel flipped and its channels swapped, and computed as that.
    """
    dimensions = kernel.dim() - 2
    if stride == 1 and all(crop < side for side in kernel.shape[2:]):
        convolution = F.conv1d if dimensions == 1 else F.conv2d
        return convolution(x, flipped(kernel), padding=[side - 1 - crop for side in kernel.shape[2:]])
    transposed = F.conv_transpose1d if dimensions == 1 else F.conv_transpose2d
    return transposed(x, kernel, stride=stride, padding=crop)


def flipped(kernel: Tensor) -> Tensor:
    """The kernel of the convolution that equals a stride-1 deconvolution, and back: (C, D, *k) -> (D, C, *k)."""
    return kernel.flip(tuple(range(2, kernel.dim()))).transpose(0, 1)


def interleave_zeros(x: Tensor, stride: int) -> Tensor:
    """(B, C, *n) -> (B, C, *((n - 1) * stride + 1)): stride - 1 zeros between neighbours, in every direction.

    Sub-pixel convolution: `deconvolve(x, k, stride=s)` equals `deconvolve(interleave_zeros(x, s), k)`.
    """
    sides = [(n - 1) * stride + 1 for n in x.shape[2:]]
    interleaved = x.new_zeros((*x.shape[:2], *sides))
    if len(sides) == 1:
        interleaved[..., ::stride] = x
    else:
        interleaved[..., ::stride, ::stride] = x
    return interleaved


def as_matrix(operation: Callable[[Tensor], Tensor], size: tuple[int, ...]) -> Tensor:
    """The (m, n) float64 matrix of a linear operation on one-channel signals of `size`, n samples in all.

    operation(x).flatten() = matrix @ x.flatten(). The matrix of a deconvolution is the transpose of the convolution's.
    """
    impulses = torch.eye(math.prod(size), dtype=torch.float64).view(-1, 1, *size)
    return operation(impulses).flatten(1).T


class Deconvolution(nn.Module):
    """A 2-D deconvolution with stride 1, cropped by `padding` on each side: (B, C, H, W) -> (B, D, H + k - 1 - 2p, …).

    Parameters as `nn.ConvTranspose2d(C, D, k, padding=padding)` has them: weight (C, D, k, k), bias (D,).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, padding: int = 0) -> None:
        super().__init__()
        self.padding = padding
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, flipped(self.weight), self.bias, self.weight.shape[-1] - 1 - self.padding)

    def as_convolution(self) -> nn.Conv2d:
        """The convolution that it equals, in evaluation mode, with weights of its own."""
        inputs, outputs, kernel_size, _ = self.weight.shape
        convolution = skip_init(nn.Conv2d, inputs, outputs, kernel_size, padding=kernel_size - 1 - self.padding).to(self.weight)
        with torch.no_grad():
            convolution.weight.copy_(flipped(self.weight))
            cast(Tensor, convolution.bias).copy_(self.bias)
        return convolution.eval()
