"""The calibration of a network's confidence: reliability diagram and expected calibration error (Guo et al. 2017).

All counts are integers – a confidence counts as a multiple of 2⁻²⁴ – so that any order, batching and number of ranks gives
the same result to the bit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from segnet.metrics.confusion import ratio

BINS = 15  # as in Guo et al. 2017, section 4
_ONE = 1 << 24  # the integer for confidence 1: the error is at most 3e-8, and 5e11 pixels fit into an int64


class Reliability(NamedTuple):
    """Scored pixels in bins of equal width by their confidence, the probability of the predicted class.

    Bin m of M holds the confidences above (m - 1) / M and up to m / M; the first one holds 0 as well.
    """

    pixels: tuple[int, ...]
    correct: tuple[int, ...]  # pixels whose predicted class is the true one
    confidence: tuple[float, ...]  # mean over the bin's pixels; NaN where it has none
    error: float  # expected calibration error, 0..1: mean over pixels of their bin's |share of correct - confidence|


def count_reliability(confidence: Tensor, correct: Tensor) -> Tensor:
    """Counts of each bin, (15, 3) int64: pixels, correct pixels, sum of 2²⁴ · confidence; from N confidences 0..1 and N bools."""
    fixed = (confidence.flatten() * _ONE).round().int()
    bins = ((fixed * BINS - 1) >> 24).clamp_(0, BINS - 1)  # a mean of probabilities may be a rounding error above 1
    pixels = torch.bincount(bins, minlength=BINS)
    right = torch.bincount(bins[correct.flatten()], minlength=BINS)
    total = torch.bincount(bins, fixed.double(), minlength=BINS).long()  # exact below 2⁵³: for up to 2²⁹ pixels
    return torch.stack([pixels, right, total], dim=1)


def reliability(counts: Tensor) -> Reliability:
    """The reliability of the summed counts of `count_reliability`."""
    pixels, correct, total = counts.T.tolist()
    return Reliability(
        pixels=tuple(pixels),
        correct=tuple(correct),
        confidence=tuple(ratio(t, n * _ONE) for t, n in zip(total, pixels, strict=True)),
        error=ratio(sum(abs(c * _ONE - t) for c, t in zip(correct, total, strict=True)), sum(pixels) * _ONE),
    )
