"""The layers of an encoder-decoder: pooling and unpooling with one-byte winners, convolution, deconvolution."""

from segnet.layers.convolution import Convolution, convolve, flipped
from segnet.layers.deconvolution import Deconvolution, as_matrix, deconvolve, interleave_zeros
from segnet.layers.pooling import Pooled, max_pool, max_unpool, pooled_size

__all__ = [
    "Convolution",
    "Deconvolution",
    "Pooled",
    "as_matrix",
    "convolve",
    "deconvolve",
    "flipped",
    "interleave_zeros",
    "max_pool",
    "max_unpool",
    "pooled_size",
]
