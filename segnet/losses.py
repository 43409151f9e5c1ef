"""The loss that training minimises, and class weights.

The loss is a sum over pixels or pictures, divided by a count that depends on the truth alone. Each part of a batch, and each
rank, divides its sum by the count of the whole batch; these quotients add up to the loss of the batch, and their gradients to
its gradient.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from segnet.classes import IGNORE_INDEX


@dataclass(frozen=True, kw_only=True, eq=False)
class CrossEntropy:
    """Cross-entropy, averaged over the scored pixels: those that are not ignored.

    With class weights it is the weighted mean, as in torch: the sum is divided by the sum of the pixels' weights.
    """

    weight: Tensor | None = None  # (K,)
    smoothing: float = 0.0  # the fraction of the target that is spread evenly over the classes

    def counts(self, mask: Tensor) -> Tensor:
        """The divisor of the loss for (B, H, W) class ids, a float64 scalar: the sum of the weights of the scored pixels."""
        scored = mask != IGNORE_INDEX
        if self.weight is None:
            return scored.sum().double()
        return (self.weight.double()[mask.where(scored, 0).long()] * scored).sum()

    def __call__(self, logits: Tensor, mask: Tensor, counts: Tensor | None = None) -> Tensor:
        """The scalar loss of (B, K, H, W) logits for (B, H, W) class ids, divided by `counts` (default: those of `mask`).

        Loss and gradient are 0 if no pixel is scored.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        counts = self.counts(mask) if counts is None else counts
        return self._cross_entropy(logits, mask) / counts.to(logits.dtype).where(counts > 0, math.inf)

    def _cross_entropy(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The sum of the weighted cross-entropies of the scored pixels.

        Not by reduction="sum": on CUDA it adds in no fixed order, and on the CPU, over flattened pixels, it is up to five times
        as slow.
        """
        weight = None if self.weight is None else self.weight.to(logits.dtype)
        losses = F.cross_entropy(
            logits, mask.long(), weight, ignore_index=IGNORE_INDEX, reduction="none", label_smoothing=self.smoothing
        )  # (B, H, W), 0 where ignored
        return losses.sum()


@dataclass(frozen=True, kw_only=True, eq=False)
class WithLovasz:
    """A mixture of cross-entropy and Lovász-softmax.

    Lovász-softmax is a loss of a whole picture. Its mean over the pictures has their cross-entropy's counts as weights, so that
    both losses have one divisor and the parts of a batch add up.
    """

    cross_entropy: CrossEntropy
    fraction: float  # of Lovász-softmax, above 0, up to 1

    def counts(self, mask: Tensor) -> Tensor:
        """The divisor of the loss for (B, H, W) class ids, a float64 scalar: that of the cross-entropy."""
        return self.cross_entropy.counts(mask)

    def __call__(self, logits: Tensor, mask: Tensor, counts: Tensor | None = None) -> Tensor:
        """The scalar loss of (B, K, H, W) logits for (B, H, W) class ids, divided by `counts` (default: those of `mask`).

        Loss and gradient are 0 if no pixel is scored.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        counts = self.counts(mask) if counts is None else counts
        of_pictures = torch.stack([self.counts(picture) for picture in mask]).to(logits.dtype)
        lovasz = (of_pictures * lovasz_softmax(logits, mask)).sum() / counts.to(logits.dtype).where(counts > 0, math.inf)
        if self.fraction == 1:
            return lovasz
        return (1 - self.fraction) * self.cross_entropy(logits, mask, counts) + self.fraction * lovasz


def lovasz_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """The Lovász-softmax loss of each picture, (B,) in 0..1, of (B, K, H, W) logits for (B, H, W) class ids.

    The mean over the classes in the picture's mask of 1 - IoU, extended from class ids to probabilities; 0 where no pixel is
    scored (Berman, Triki & Blaschko 2018).
    """
    ids = mask.flatten(1)[:, None]  # (B, 1, H*W)
    is_class = ids == torch.arange(logits.shape[1], device=mask.device)[:, None]  # (B, K, H*W)
    probabilities = logits.softmax(dim=1).flatten(2)
    errors = torch.where(is_class, 1 - probabilities, probabilities)
    ranked = errors.detach().where(ids != IGNORE_INDEX, -1)  # ignored pixels come last, where all weights are 0
    losses = (errors * _jaccard_gradient(ranked, is_class)).sum(dim=2)  # (B, K), 0 for a class that the mask does not have
    return losses.sum(dim=1) / is_class.any(dim=2).sum(dim=1).clamp(min=1)


def _jaccard_gradient(errors: Tensor, is_class: Tensor) -> Tensor:
    """How much 1 - IoU grows by each pixel, if pixels become wrong one by one and the largest error first; (B, K, N) each.

    The difference of two neighbouring values, but as a quotient: in float32 the difference would have few digits left.
    """
    order = errors.argsort(dim=2, descending=True, stable=True)
    belongs = is_class.gather(2, order)
    pixels = is_class.sum(dim=2, keepdim=True)
    left = pixels - belongs.cumsum(dim=2)  # int64: exact, and CUDA has a deterministic sum for it
    union = (pixels + (~belongs).cumsum(dim=2)).to(errors.dtype)
    growth = torch.where(belongs, 1 / union, left.to(errors.dtype) / (union * (union - 1).clamp(min=1)))
    return torch.zeros_like(errors).scatter(2, order, growth)


@dataclass(frozen=True, kw_only=True)
class ImageError:
    """The error of images, averaged over the scored values: those whose truth is a number."""

    kind: Literal["mse", "l1"] = "mse"  # the mean of the squared, or of the absolute differences

    def counts(self, truth: Tensor) -> Tensor:
        """The divisor of the loss for (B, C, H, W) truth, a float64 scalar: the number of scored values."""
        return (~truth.isnan()).sum().double()

    def __call__(self, outputs: Tensor, truth: Tensor, counts: Tensor | None = None) -> Tensor:
        """The scalar loss of (B, C, H, W) images and their truth, both in 0..255 and divided by 255 first. NaN is not scored.

        It is divided by `counts` (default: those of `truth`). Loss and gradient are 0 if nothing is scored.
        """
        counts = self.counts(truth) if counts is None else counts
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        differences = (outputs - truth).where(~truth.isnan(), 0) / 255
        errors = differences.square() if self.kind == "mse" else differences.abs()
        return errors.sum() / counts.to(errors.dtype).where(counts > 0, math.inf)


def median_frequency_weights(pixels: Sequence[int], pixels_of_pictures: Sequence[int], power: float = 1.0) -> Tensor:
    """Class weights (K,) float32: (median(frequency) / frequency) ** power (Eigen & Fergus 2015, section 6.3.2).

    The frequency of a class is the number of its pixels / the number of all pixels, ignored ones included, of the pictures in
    which it occurs. A class that never occurs has weight 0 and is left out of the median.
    """
    frequencies = [p / n if p else 0.0 for p, n in zip(pixels, pixels_of_pictures, strict=True)]
    median = statistics.median([f for f in frequencies if f] or [1.0])
    return torch.tensor([(median / f) ** power if f else 0.0 for f in frequencies], dtype=torch.float32)


def enet_weights(pixels: Sequence[int], power: float = 1.0) -> Tensor:
    """Class weights (K,) float32: (1 / ln(1.02 + frequency)) ** power (ENet, Paszke et al. 2016).

    The frequency of a class is the number of its pixels / the number of all scored pixels, so with power 1 the weights lie
    between 1.4 and 50. A class that never occurs has weight 0.
    """
    total = max(1, sum(pixels))
    return torch.tensor([math.log(1.02 + p / total) ** -power if p else 0.0 for p in pixels], dtype=torch.float32)
