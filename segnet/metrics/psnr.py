"""The peak signal-to-noise ratio of images of 8 bits."""

from __future__ import annotations

import math

from torch import Tensor

PEAK = 255


def to_8_bits(image: Tensor) -> Tensor:
    """The values of an image in 0..255 as a picture file of 8 bits holds them: clipped and rounded, uint8."""
    return image.round().clamp(0, PEAK).byte()


def squared_error(image: Tensor, truth: Tensor) -> int:
    """The sum of the squared differences of two uint8 images of one shape; exact."""
    return int((image.int() - truth.int()).square().sum())


def psnr(squared: float, values: int) -> float:
    """10 · log10(255² / MSE), in dB, from a sum of squared differences over so many values; infinite for equal images."""
    return 10 * math.log10(PEAK**2 * values / squared) if squared else math.inf
