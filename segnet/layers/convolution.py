"""Convolution with stride 1, with the gradient of its kernel computed in the faster memory layout."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_WIDE = 64  # channels from which copies in NCHW are faster (measured)
_LARGE = 100_000_000  # products for each pixel of a kernel, from which they are


def convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """`F.conv2d(x, kernel, bias, padding=padding)`, with the same gradients up to rounding."""
    if _gradient_in_nchw(x, kernel):
        return cast(Tensor, _Convolution.apply(x, kernel, bias, padding))
    return F.conv2d(x, kernel, bias, padding=padding)


class Convolution(nn.Conv2d):
    """`nn.Conv2d` with stride 1 and the same padding on each side, computed by `convolve`."""

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.weight, self.bias, cast(int, self.padding[0]))


def _gradient_in_nchw(x: Tensor, kernel: Tensor) -> bool:
    """True where oneDNN computes the gradient of `kernel` faster from NCHW copies than from channels_last.

    It does in large float32 layers on processors with AVX2 and without AVX-512: 1.04 to 2.3 times as fast, copies included.
    """
    return (
        kernel.requires_grad
        and torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and torch.backends.cpu.get_cpu_capability() == "AVX2"
        and min(kernel.shape[:2]) >= _WIDE
        and x.numel() * kernel.shape[0] >= _LARGE
    )


class _Convolution(torch.autograd.Function):
    """A convolution that computes the gradient of x in the layout of x, and those of kernel and bias in NCHW."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.padding = padding
        return F.conv2d(x, kernel, bias, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, kernel = ctx.saved_tensors
        needs_x, needs_kernel, needs_bias, _ = ctx.needs_input_grad
        grad_x = _gradients(grad, x, kernel, ctx.padding, [True, False, False])[0] if needs_x else None
        grad, x, kernel = (tensor.contiguous() for tensor in (grad, x, kernel))  # NCHW
        _, grad_kernel, grad_bias = _gradients(grad, x, kernel, ctx.padding, [False, needs_kernel, needs_bias])
        return grad_x, grad_kernel, grad_bias, None


def _gradients(
    grad: Tensor, x: Tensor, kernel: Tensor, padding: int, wanted: list[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of x, kernel and bias for a convolution with stride 1, each None unless `wanted`."""
    backward = torch.ops.aten.convolution_backward
    sides = [padding, padding]
    return cast(Any, backward(grad, x, kernel, [kernel.shape[0]], [1, 1], sides, [1, 1], False, [0, 0], 1, wanted))
