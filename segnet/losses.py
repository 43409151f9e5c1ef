"""The loss that training minimises, as sums that add up over the parts of a batch and over ranks.

A loss is a sum over pixels, divided by a count that the masks alone decide. Each part of a batch computes its own sum, all
divide by the count of the whole batch, and the quotients add up: loss and gradient do not depend on how a batch is split.
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
    """Cross-entropy, averaged over the pixels that are not ignored.

    With class weights it is the weighted mean: the sum is divided by the sum of the pixels' weights, as torch does it.
    """

    weight: Tensor | None = None  # (K,)
    smoothing: float = 0.0  # the share of the target that is spread evenly over the classes

    def counts(self, mask: Tensor) -> Tensor:
        """The divisor of the loss for (B, H, W) class ids: the sum of the weights of the scored pixels, a float64 scalar."""
        scored = mask != IGNORE_INDEX
        if self.weight is None:
            return scored.sum().double()
        return (self.weight.double()[mask.where(scored, 0).long()] * scored).sum()

    def __call__(self, logits: Tensor, mask: Tensor, counts: Tensor | None = None) -> Tensor:
        """The scalar loss of (B, K, H, W) logits and (B, H, W) class ids, divided by `counts` (default: those of `mask`).

        Without a scored pixel the loss is 0 and its gradient is 0.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        counts = self.counts(mask) if counts is None else counts
        return self._cross_entropy(logits, mask) / counts.to(logits.dtype).where(counts > 0, math.inf)

    def _cross_entropy(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The sum over the scored pixels.

        Torch's own sum (reduction="sum") adds in any order on CUDA, and over flattened pixels takes up to five times as long
        on the CPU.
        """
        weight = None if self.weight is None else self.weight.to(logits.dtype)
        losses = F.cross_entropy(
            logits, mask.long(), weight, ignore_index=IGNORE_INDEX, reduction="none", label_smoothing=self.smoothing
        )  # (B, H, W), 0 where ignored
        return losses.sum()


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
