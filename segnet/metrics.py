"""The score: one confusion matrix over a whole split, exact integers until the last division."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from segnet.classes import IGNORE_INDEX


class Scores(NamedTuple):
    """What a confusion matrix says. Shares are 0..1; NaN where there is nothing to divide by.

    A class without a pixel in truth and prediction is absent: its values are NaN and the means leave it out.
    """

    miou: float  # mean over classes of TP / (TP + FP + FN): Everingham et al. 2010, section 4.2.3
    global_accuracy: float  # correct pixels / pixels
    mean_accuracy: float  # mean over the classes in the truth of TP / (TP + FN)
    class_iou: tuple[float, ...]
    class_accuracy: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]  # pixels [truth][prediction]
    pixels: int  # scored pixels
    ignored: int  # pixels whose truth is the ignored label


class ConfusionMatrix:
    """Counts of (truth, prediction) pairs: `counts[t, p]` pixels of class t were predicted as p. int64 throughout."""

    def __init__(self, num_classes: int, ignore_index: int = IGNORE_INDEX) -> None:
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.ignored = 0

    def update(self, truth: Tensor, prediction: Tensor) -> ConfusionMatrix:
        """Add one picture or batch: two integer tensors of one shape, class ids; truth may hold the ignored label.

        Raises ValueError for different shapes or ids out of range.
        """
        if truth.shape != prediction.shape:
            raise ValueError(f"truth {tuple(truth.shape)} and prediction {tuple(prediction.shape)} differ in shape")
        scored = truth != self.ignore_index
        t, p = truth[scored].long(), prediction[scored].long()
        for name, ids in (("truth", t), ("prediction", p)):
            if ids.numel() and not (0 <= int(ids.min()) and int(ids.max()) < self.num_classes):
                raise ValueError(f"{name} has ids {int(ids.min())}..{int(ids.max())}; expected 0..{self.num_classes - 1}")
        pairs = torch.bincount(t * self.num_classes + p, minlength=self.num_classes**2)
        self.counts += pairs.view(self.num_classes, self.num_classes).cpu()
        self.ignored += truth.numel() - t.numel()
        return self

    def merge(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """Add what another matrix counted; any order and any grouping of pictures give the same sum."""
        self.counts += other.counts
        self.ignored += other.ignored
        return self

    def scores(self) -> Scores:
        """The scores of everything counted so far."""
        correct = self.counts.diagonal().tolist()
        in_truth = self.counts.sum(1).tolist()
        in_prediction = self.counts.sum(0).tolist()
        iou = [_share(c, t + p - c) for c, t, p in zip(correct, in_truth, in_prediction, strict=True)]
        accuracy = [_share(c, t) for c, t in zip(correct, in_truth, strict=True)]
        return Scores(
            miou=_mean(iou),
            global_accuracy=_share(sum(correct), sum(in_truth)),
            mean_accuracy=_mean(accuracy),
            class_iou=tuple(iou),
            class_accuracy=tuple(accuracy),
            confusion=tuple(map(tuple, self.counts.tolist())),
            pixels=sum(in_truth),
            ignored=self.ignored,
        )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _mean(values: Sequence[float]) -> float:
    present = [value for value in values if not math.isnan(value)]
    return math.fsum(present) / len(present) if present else math.nan
