"""What training minimises: a sum over the pixels that count, divided by a count that the masks alone decide.

So a step's loss and gradient do not depend on how its batch is split over ranks or over parts: each part computes its
sum, all divide by the count of the whole batch, and the results add up.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from segnet.classes import IGNORE_INDEX


@dataclass(frozen=True, kw_only=True, eq=False)
class Criterion:
    """Cross-entropy of the pixels that are not ignored.

    With class weights the mean is weighted: divided by the sum of the pixels' weights (as torch does, unlike Caffe,
    which divides by the pixel count). With `hardest` below 1 only the ceil(hardest * scored) pixels of each picture
    with the highest (weighted) loss count; which they are only the network knows, so the divisor takes each for the
    picture's mean weight. At hardest=1 that is the weighted mean, and without weights the mean over the kept pixels.
    """

    weight: Tensor | None = None  # (K,)
    smoothing: float = 0.0
    hardest: float = 1.0

    def counts(self, mask: Tensor) -> Tensor:
        """What the sum over a (B, H, W) mask is divided by, a float64 scalar: the weights of the pixels that count.

        The counts of parts add up to those of the whole.
        """
        scored = (mask != IGNORE_INDEX).flatten(1)  # (B, H*W)
        pixels = scored.sum(dim=1)  # (B,)
        weights = scored if self.weight is None else self.weight.double()[mask.flatten(1).where(scored, 0).long()] * scored
        return (weights.sum(dim=1) * self._kept(pixels) / pixels.clamp(min=1)).sum()

    def __call__(self, logits: Tensor, mask: Tensor, counts: Tensor | None = None) -> Tensor:
        """The scalar loss of (B, K, H, W) logits against (B, H, W) class ids, or its part in a batch that has `counts`.

        Where nothing is counted the loss is 0 and so is its gradient, not NaN.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        counts = self.counts(mask) if counts is None else counts
        return self._cross_entropy(logits, mask) / counts.to(logits.dtype).where(counts > 0, math.inf)

    def _cross_entropy(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The sum over the pixels that count.

        Summed here, as torch's own sum over pictures adds in any order on CUDA (and over flattened pixels takes up to
        five times as long on the CPU).
        """
        target, weight = mask.long(), None if self.weight is None else self.weight.to(logits.dtype)
        losses = F.cross_entropy(
            logits, target, weight, ignore_index=IGNORE_INDEX, reduction="none", label_smoothing=self.smoothing
        )  # (B, H, W), 0 where ignored
        if self.hardest == 1:
            return losses.sum()
        losses = losses.flatten(1).sort(dim=1, descending=True, stable=True).values  # sorted, as k differs per picture
        kept = self._kept((mask != IGNORE_INDEX).flatten(1).sum(dim=1))
        return (losses * (torch.arange(losses.shape[1], device=mask.device) < kept[:, None])).sum()

    def _kept(self, pixels: Tensor) -> Tensor:
        """How many of so many scored pixels of a picture count."""
        return (pixels.double() * self.hardest).ceil()


def median_frequency_weights(pixels: Sequence[int], pixels_of_pictures: Sequence[int], power: float = 1.0) -> Tensor:
    """Class weights (K,) float32: median(freq) / freq, to the `power` (Eigen & Fergus 2015, section 6.3.2).

    freq(c) = pixels of c / all pixels, ignored ones too, of the pictures in which c occurs. A class that never occurs
    weighs 0 and has no part in the median.
    """
    frequencies = [p / n if p else 0.0 for p, n in zip(pixels, pixels_of_pictures, strict=True)]
    median = statistics.median([f for f in frequencies if f] or [1.0])
    return torch.tensor([(median / f) ** power if f else 0.0 for f in frequencies], dtype=torch.float32)


def enet_weights(pixels: Sequence[int], power: float = 1.0) -> Tensor:
    """Class weights (K,) float32: 1 / ln(1.02 + share), to the `power` (ENet, Paszke et al. 2016).

    share(c) = pixels of c / all scored pixels, so the weights lie between 1.4 and 50. A class that never occurs weighs 0.
    """
    total = max(1, sum(pixels))
    return torch.tensor([math.log(1.02 + p / total) ** -power if p else 0.0 for p in pixels], dtype=torch.float32)
