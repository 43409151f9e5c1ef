"""The blocks of a folded network that a kernel computes: convolution and ReLU, with pooling or unpooling.

The kernel is the compiled one, or where that is missing `layers/winograd.py`. Where it cannot or should not compute (gradients,
autocast, export, a tiny map), each block calls torch's operations.
"""

from __future__ import annotations

import threading
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnet.layers.convolution import Convolution
from segnet.layers.native import Kernel, is_usable
from segnet.layers.pooling import Pooled, Size, max_pool, max_unpool
from segnet.layers.winograd import TorchKernel, find_faster
from segnet.models.encoder_decoder import Winners

_transforming = threading.Lock()


class NativeConvolution(Convolution):
    """A 3×3 convolution with padding 1 and a bias, then ReLU if `relu`: (B, C, H, W) -> (B, K, H, W). For prediction only.

    The kernel reads a transformed copy of the weights, of four times their size, which is made in the first call that needs it:
    later changes of the weights have no effect.

    `dtype` is that of the factors of its products, whose sums are float32, as x is. With bfloat16 it computes under autocast,
    where torch computes in bfloat16; a layer that the kernel cannot multiply in bfloat16 it multiplies in float32.
    """

    def __init__(self, convolution: nn.Conv2d, *, relu: bool, dtype: torch.dtype = torch.float32) -> None:
        with torch.device("meta"):  # its own weights are not needed
            super().__init__(convolution.in_channels, convolution.out_channels, 3, padding=1)
        self.weight, self.bias = convolution.weight, convolution.bias
        self.relu = relu
        self.dtype = dtype
        self._transformed: Tensor | None = None

    @staticmethod
    def fits(module: nn.Module) -> TypeGuard[nn.Conv2d]:
        """True for a convolution that this class can replace."""
        if not isinstance(module, nn.Conv2d) or module.bias is None:
            return False
        settings = (module.kernel_size, module.padding, module.stride, module.dilation, module.groups)
        return settings == ((3, 3), (1, 1), (1, 1), (1, 1), 1)

    def forward(self, x: Tensor) -> Tensor:
        if kernel := self._kernel(x, (x.shape[-2], x.shape[-1])):
            return kernel.convolve(x.float(), self._weights(kernel), self.out_channels, relu=self.relu)
        return self._by_torch(x)

    def _by_torch(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return F.relu(x, inplace=True) if self.relu else x

    def _kernel(self, x: Tensor, size: Size) -> Kernel | TorchKernel | None:
        """The kernel, where it can compute a map of `size` from x and is faster than torch."""
        usable = is_usable(x, self.weight, autocast=self.dtype == torch.bfloat16)
        return find_faster(x, self.out_channels, size) if usable else None

    def _weights(self, kernel: Kernel | TorchKernel) -> Tensor:
        with _transforming:
            if self._transformed is None:
                assert self.bias is not None
                if isinstance(kernel, TorchKernel):
                    self._transformed = kernel.transform(self.weight, self.bias)
                else:
                    dtype = self.dtype if kernel.multiplies_in_bfloat16(self.in_channels) else torch.float32
                    self._transformed = kernel.transform(self.weight, self.bias, dtype=dtype)
            return self._transformed


class ConvolutionAndPooling(NativeConvolution):
    """The end of an encoder stage: a `NativeConvolution`, then `Pooling`, without a map between them."""

    def forward(self, x: Tensor) -> tuple[Tensor, Winners]:  # type: ignore[override]
        size = (x.shape[-2], x.shape[-1])
        if kernel := self._kernel(x, size):
            values, codes = kernel.convolve_and_pool(x.float(), self._weights(kernel), self.out_channels, relu=self.relu)
        else:
            values, codes = max_pool(self._by_torch(x))
        return values, Winners(codes, size)


class UnpoolingAndConvolution(NativeConvolution):
    """The start of a decoder stage: `Unpooling`, then a `NativeConvolution`, without a map between them."""

    def forward(self, x: Tensor, winners: Winners) -> Tensor:  # type: ignore[override]
        if kernel := self._kernel(x, winners.size):
            pooled = Pooled(x.float(), winners.codes)
            return kernel.unpool_and_convolve(pooled, winners.size, self._weights(kernel), self.out_channels, relu=self.relu)
        return self._by_torch(max_unpool(x, winners.codes, winners.size))
