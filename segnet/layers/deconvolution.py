"""Deconvolution (transposed convolution), 1-D and 2-D, as a sum of kernels, as a convolution and as a matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from segnet.layers.convolution import convolve, convolve_natively, flipped


def deconvolve(x: Tensor, kernel: Tensor, *, stride: int = 1, crop: int = 0) -> Tensor:
    """Transposed convolution: the sum of the kernels placed at every sample, `stride` apart, each times its sample.

    x (B, C, *n), kernel (C, D, *k), 1-D or 2-D -> (B, D, *m) with m = (n - 1) * stride + k - 2 * crop. `crop` samples are cut
    off at each end. Its matrix is the transpose of the matrix of the convolution with the same kernel, stride and padding = crop.
    With stride 1 it equals a convolution with the `flipped` kernel, and is computed as one.
    """
    dimensions = kernel.dim() - 2
    if stride == 1 and all(crop < side for side in kernel.shape[2:]):
        convolution = F.conv1d if dimensions == 1 else F.conv2d
        return convolution(x, flipped(kernel), padding=[side - 1 - crop for side in kernel.shape[2:]])
    transposed = F.conv_transpose1d if dimensions == 1 else F.conv_transpose2d
    return transposed(x, kernel, stride=stride, padding=crop)


def interleave_zeros(x: Tensor, stride: int) -> Tensor:
    """x with stride - 1 zeros between neighbours, along each axis: (B, C, *n) -> (B, C, *((n - 1) * stride + 1)).

    `deconvolve(x, k, stride=s)` equals `deconvolve(interleave_zeros(x, s), k)`, which is called sub-pixel convolution.
    """
    sides = [(n - 1) * stride + 1 for n in x.shape[2:]]
    interleaved = x.new_zeros((*x.shape[:2], *sides))
    if len(sides) == 1:
        interleaved[..., ::stride] = x
    else:
        interleaved[..., ::stride, ::stride] = x
    return interleaved


def as_matrix(operation: Callable[[Tensor], Tensor], size: tuple[int, ...]) -> Tensor:
    """The (m, n) float64 matrix of a linear operation on signals (1, 1, *size) of n samples.

    operation(x).flatten() = matrix @ x.flatten().
    """
    impulses = torch.eye(math.prod(size), dtype=torch.float64).view(-1, 1, *size)
    return operation(impulses).flatten(1).T


class Deconvolution(nn.Module):
    """A 2-D deconvolution with stride 1, cropped by `padding` = p on each side: (B, C, H, W) -> (B, D, H + k - 1 - 2p, …).

    Its parameters are those of `nn.ConvTranspose2d(C, D, k, padding=p)`: weight (C, D, k, k), bias (D,).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, padding: int = 0) -> None:
        super().__init__()
        self.native = False  # trains by the compiled kernel where it can
        self.padding = padding
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        padding = self.weight.shape[-1] - 1 - self.padding
        found = convolve_natively(x, self.weight, self.bias, padding, transposed=True) if self.native else None
        return convolve(x, flipped(self.weight), self.bias, padding) if found is None else found

    def as_convolution(self) -> nn.Conv2d:
        """A convolution that computes the same, with copied weights, in evaluation mode."""
        inputs, outputs, kernel_size, _ = self.weight.shape
        padding = kernel_size - 1 - self.padding
        place = {"device": self.weight.device, "dtype": self.weight.dtype}
        convolution = skip_init(nn.Conv2d, inputs, outputs, kernel_size, padding=padding, **place)
        with torch.no_grad():
            convolution.weight.copy_(flipped(self.weight))
            cast(Tensor, convolution.bias).copy_(self.bias)
        return convolution.eval()
