"""The structural similarity of images (Wang, Bovik, Sheikh & Simoncelli, IEEE TIP 2004)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SIGMA = 1.5  # pixels: the standard deviation of the Gaussian window
RADIUS = 5  # pixels: the window has 11×11
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ssim(image: Tensor, truth: Tensor) -> float:
    """The mean structural similarity of two (C, H, W) images in 0..255, -1..1; NaN where a side is shorter than the window.

    The settings are those of the paper: a Gaussian window of 11×11 pixels with a standard deviation of 1.5, K1 = 0.01, K2 = 0.03,
    variances of the population. The mean is over the windows that lie within the image, then over the channels. It is
    scikit-image's `structural_similarity` with gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255.
    """
    if min(image.shape[-2:]) <= 2 * RADIUS:
        return math.nan
    x, y = image.double()[:, None], truth.double()[:, None]  # the channels as a batch
    mean_x, mean_y, square_x, square_y, product = _blurred(torch.cat([x, y, x * x, y * y, x * y])).chunk(5)
    variance_x, variance_y = square_x - mean_x**2, square_y - mean_y**2
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    structure = (2 * (product - mean_x * mean_y) + _C2) / (variance_x + variance_y + _C2)
    return float((luminance * structure).mean())


def _blurred(x: Tensor) -> Tensor:
    """(B, 1, H, W) weighted by the window around each pixel, for the pixels whose window lies within."""
    places = torch.arange(-RADIUS, RADIUS + 1, dtype=x.dtype)
    window = torch.exp(-0.5 * (places / SIGMA) ** 2)
    window = window / window.sum()
    return F.conv2d(F.conv2d(x, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
