"""Convolution with stride 1 for training: by the compiled kernel, or by torch in the faster memory layout."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from segnet.layers.native import Kernel, find_kernel, gradient_is_faster, training_is_faster

_WIDE = 64  # channels from which copies in NCHW are faster (measured)
_LARGE = 100_000_000  # products for each pixel of a kernel, from which they are


def flipped(kernel: Tensor) -> Tensor:
    """The kernel of the convolution that equals a deconvolution with stride 1, or the reverse: (C, D, *k) -> (D, C, *k)."""
    return kernel.flip(tuple(range(2, kernel.dim()))).transpose(0, 1)


def convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """`F.conv2d(x, kernel, bias, padding=padding)`, with the same gradients up to rounding."""
    if _gradient_in_nchw(x, kernel):
        return cast(Tensor, _Convolution.apply(x, kernel, bias, padding))
    return F.conv2d(x, kernel, bias, padding=padding)


def convolve_natively(x: Tensor, weight: Tensor, bias: Tensor, padding: int, *, transposed: bool = False) -> Tensor | None:
    """The convolution of x, or the deconvolution if `transposed`, by the compiled kernel; None where the kernel cannot train it.

    It trains 3×3 convolutions with padding 1 in float32 on the CPU. Of output, gradient of x and gradient of the weight, each is
    computed by the kernel where that is faster, else by torch. The number of threads changes no bit of what the kernel computes.
    """
    fits = padding == 1 and weight.shape[2:] == (3, 3) and _trains_in_float32(x, weight)
    if not fits or find_kernel().kernel is None:
        return None
    return cast(Tensor, _NativeConvolution.apply(x, weight, bias, transposed))


class Convolution(nn.Conv2d):
    """`nn.Conv2d` with stride 1 and the same padding on each side, computed by `convolve`."""

    native = False  # trains by the compiled kernel where it can

    def forward(self, x: Tensor) -> Tensor:
        padding = cast(int, self.padding[0])
        if self.native and self.bias is not None:
            found = convolve_natively(x, self.weight, self.bias, padding)
            if found is not None:
                return found
        return convolve(x, self.weight, self.bias, padding)


def _trains_in_float32(x: Tensor, kernel: Tensor) -> bool:
    """True for a convolution on the CPU in float32 that has a gradient, and that torch does not compile."""
    return (
        kernel.requires_grad
        and torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and kernel.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def _gradient_in_nchw(x: Tensor, kernel: Tensor) -> bool:
    """True where oneDNN computes the gradient of `kernel` faster from NCHW copies than from channels_last.

    It does in large float32 layers on processors with AVX2 and without AVX-512: 1.04 to 2.3 times as fast, copies included.
    """
    return _trains_in_float32(x, kernel) and _nchw_is_faster(x, kernel)


def _nchw_is_faster(x: Tensor, kernel: Tensor) -> bool:
    """`_gradient_in_nchw` for a convolution in float32 on the CPU."""
    return (
        torch.backends.cpu.get_cpu_capability() == "AVX2"
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


class _NativeConvolution(torch.autograd.Function):
    """A 3×3 convolution with padding 1, or a deconvolution, by the compiled kernel where it is faster, else by torch.

    The gradient of x is, for a convolution, the deconvolution of the output's gradient with the same weight, and the other way
    round. The gradient of a deconvolution's weight is that of a convolution's with input and output exchanged.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, transposed: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.transposed = transposed
        outputs = weight.shape[1 if transposed else 0]
        if not training_is_faster(x, outputs):
            return F.conv2d(x, flipped(weight) if transposed else weight, bias, padding=1)
        return _by_kernel(x, weight, bias, transposed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        needs_x, *needs_others, _ = ctx.needs_input_grad
        grad_x = grad_weight = grad_bias = None
        if needs_x and training_is_faster(grad, x.shape[1]):
            grad_x, needs_x = _by_kernel(grad, weight, None, not ctx.transposed), False
        if needs_others[0] and gradient_is_faster(x, grad.shape[1]):
            native = cast(Kernel, find_kernel().kernel)
            if ctx.transposed:
                grad_weight, grad_bias = native.kernel_gradient(grad, x, bias_of_input=True)
            else:
                grad_weight, grad_bias = native.kernel_gradient(x, grad)
            needs_others = [False, False]
        kernel = flipped(weight) if ctx.transposed else weight
        if needs_x:
            grad_x, _, _ = _gradients(grad, x, kernel, 1, [True, False, False])
        if any(needs_others):
            if _nchw_is_faster(x, kernel):
                grad, x, kernel = (tensor.contiguous() for tensor in (grad, x, kernel))
            _, grad_weight, grad_bias = _gradients(grad, x, kernel, 1, [False, *needs_others])
            if ctx.transposed and grad_weight is not None:
                grad_weight = flipped(grad_weight)
        return grad_x, grad_weight, grad_bias if ctx.needs_input_grad[2] else None, None


def _by_kernel(x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
    """The convolution of x, or the deconvolution if `transposed`, by the compiled kernel."""
    native = cast(Kernel, find_kernel().kernel)  # there is one: `convolve_natively` found it
    weight = weight.transpose(0, 1) if transposed else weight
    return native.convolve_by_weight(x, weight, bias, flipped=transposed)


def _gradients(
    grad: Tensor, x: Tensor, kernel: Tensor, padding: int, wanted: list[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of x, kernel and bias for a convolution with stride 1, each None unless `wanted`."""
    backward = torch.ops.aten.convolution_backward
    sides = [padding, padding]
    return cast(Any, backward(grad, x, kernel, [kernel.shape[0]], [1, 1], sides, [1, 1], False, [0, 0], 1, wanted))
