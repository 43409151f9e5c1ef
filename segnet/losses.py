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
    """Cross-entropy of the pixels that are not ignored, with Lovász-Softmax and Dice beside it where they have a factor.

    With class weights the mean is weighted: divided by the sum of the pixels' weights (as torch does, unlike Caffe,
    which divides by the pixel count). With `hardest` below 1 only the ceil(hardest * scored) pixels of each picture
    with the highest (weighted) loss count; which they are only the network knows, so the divisor takes each for the
    picture's mean weight. At hardest=1 that is the weighted mean, and without weights the mean over the kept pixels.
    """

    weight: Tensor | None = None  # (K,)
    smoothing: float = 0.0
    hardest: float = 1.0
    lovasz: float = 0.0
    dice: float = 0.0

    def counts(self, mask: Tensor) -> Tensor:
        """What the sums over a (B, H, W) mask are divided by, float64: weights of the pixels that count, pictures.

        Pictures without a scored pixel are not counted. The counts of parts add up to those of the whole.
        """
        scored = (mask != IGNORE_INDEX).flatten(1)  # (B, H*W)
        pixels = scored.sum(dim=1)  # (B,)
        weights = pixels.double() if self.weight is None else self._pixel_weights(mask, scored).sum(dim=1)
        return torch.stack([(weights * self._kept(pixels) / pixels.clamp(min=1)).sum(), (pixels > 0).sum().double()])

    def __call__(self, logits: Tensor, mask: Tensor, counts: Tensor | None = None) -> Tensor:
        """The scalar loss of (B, K, H, W) logits against (B, H, W) class ids, or its part in a batch that has `counts`.

        Where nothing is counted the loss is 0 and so is its gradient, not NaN.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        counts = self.counts(mask) if counts is None else counts
        pixels, pictures = counts.to(logits.dtype).where(counts > 0, math.inf)
        loss = self._cross_entropy(logits, mask) / pixels
        if self.lovasz:
            loss = loss + self.lovasz * lovasz_softmax(logits, mask).sum() / pictures
        if self.dice:
            loss = loss + self.dice * dice_loss(logits, mask).sum() / pictures
        return loss

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

    def _pixel_weights(self, mask: Tensor, scored: Tensor) -> Tensor:
        """(B, H*W) float64: the weight of each pixel's class, 0 where ignored."""
        assert self.weight is not None
        return self.weight.double()[mask.flatten(1).where(scored, 0).long()] * scored


# ---------------------------------------------------------------------------------------------------------------------
# Losses of a picture's classes
# ---------------------------------------------------------------------------------------------------------------------


def lovasz_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """(B,): the Lovász extension of 1 - IoU, mean over the classes in a picture's truth (Berman et al. 2018, section 3).

    A picture without a scored pixel has 0.
    """
    probabilities, truth, scored = _by_class(logits, mask)
    errors = (truth.to(logits.dtype) - probabilities).abs().masked_fill(~scored, 0)  # 0: last in the order
    errors, order = errors.sort(dim=2, descending=True, stable=True)
    truth_first = truth.gather(2, order)
    found = truth_first.cumsum(dim=2)  # integers: exact, and deterministic on CUDA, where a floating cumsum is not
    total = truth.sum(dim=2, keepdim=True)
    places = torch.arange(1, errors.shape[2] + 1, device=mask.device)
    union = (total + places - found).to(logits.dtype)  # of the truth and the pixels that are wrong so far
    # The rise of 1 - IoU when the pixel is wrong too: it leaves the intersection, or it joins the union.
    missed, added = 1 / union.clamp(min=1), (total - found) / (union * (union - 1)).clamp(min=1)
    rises = torch.where(truth_first, missed, added)
    return _mean_over_present((errors * rises).sum(dim=2), truth)


def dice_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """(B,): 1 - 2·Σpy / (Σp + Σy), mean over the classes in a picture's truth (Milletari et al. 2016, with their p², y² as p, y).

    A picture without a scored pixel has 0.
    """
    probabilities, truth, scored = _by_class(logits, mask)
    both, either = (probabilities * truth).sum(dim=2), (probabilities * scored).sum(dim=2) + truth.sum(dim=2)
    return _mean_over_present(1 - 2 * both / either.clamp(min=1), truth)  # a present class has at least one pixel


def _by_class(logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities (B, K, H*W), whether a pixel is of the class (B, K, H*W), whether it is scored (B, 1, H*W)."""
    target = mask.flatten(1)[:, None]
    truth = target == torch.arange(logits.shape[1], device=mask.device)[:, None]
    return logits.softmax(dim=1).flatten(2), truth, target != IGNORE_INDEX


def _mean_over_present(losses: Tensor, truth: Tensor) -> Tensor:
    """(B, K) losses -> (B,): the mean over the classes that have a pixel in `truth` (B, K, H*W)."""
    present = truth.any(dim=2)
    return (losses * present).sum(dim=1) / present.sum(dim=1).clamp(min=1)


# ---------------------------------------------------------------------------------------------------------------------
# Class weights
# ---------------------------------------------------------------------------------------------------------------------


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
