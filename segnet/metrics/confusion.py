"""The score: one confusion matrix over a whole split, exact integers until the last division."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from segnet.classes import IGNORE_INDEX


class Scores(NamedTuple):
    """The scores that follow from a confusion matrix. Shares are 0..1; NaN where there is nothing to divide by.

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
    frequency_weighted_iou: float  # mean over scored pixels of the IoU of their true class: Long et al. 2015, section 5
    class_precision: tuple[float, ...]  # TP / (TP + FP); recall, TP / (TP + FN), is `class_accuracy`
    class_dice: tuple[float, ...]  # 2 TP / (2 TP + FP + FN): Dice 1945; the F1 of precision and recall
    mean_dice: float  # mean over classes of `class_dice`


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

    def class_pixels(self) -> Tensor:
        """(K, 3) int64: the pixels of each class that are correct, in the truth, and in the prediction."""
        return torch.stack([self.counts.diagonal(), self.counts.sum(1), self.counts.sum(0)], dim=1)

    def scores(self) -> Scores:
        """The scores of everything counted so far."""
        correct, in_truth, in_prediction = self.class_pixels().T.tolist()
        iou = class_ious(correct, in_truth, in_prediction)
        accuracy = [ratio(c, t) for c, t in zip(correct, in_truth, strict=True)]
        dice = [ratio(2 * c, t + p) for c, t, p in zip(correct, in_truth, in_prediction, strict=True)]
        weighted = [t * share for t, share in zip(in_truth, iou, strict=True) if t]
        return Scores(
            miou=mean_of_present(iou),
            global_accuracy=ratio(sum(correct), sum(in_truth)),
            mean_accuracy=mean_of_present(accuracy),
            class_iou=tuple(iou),
            class_accuracy=tuple(accuracy),
            confusion=tuple(map(tuple, self.counts.tolist())),
            pixels=sum(in_truth),
            ignored=self.ignored,
            frequency_weighted_iou=ratio(math.fsum(weighted), sum(in_truth)),
            class_precision=tuple(ratio(c, p) for c, p in zip(correct, in_prediction, strict=True)),
            class_dice=tuple(dice),
            mean_dice=mean_of_present(dice),
        )


def class_ious(correct: Sequence[int], in_truth: Sequence[int], in_prediction: Sequence[int]) -> list[float]:
    """Intersection over union of each class, from pixel counts; NaN for a class that is absent."""
    return [ratio(c, t + p - c) for c, t, p in zip(correct, in_truth, in_prediction, strict=True)]


def ratio(part: float, whole: int) -> float:
    """`part / whole`; NaN where there is nothing to divide by."""
    return part / whole if whole else math.nan


def mean_of_present(values: Sequence[float]) -> float:
    """The mean of those `values` that are not NaN; NaN where all are."""
    present = [value for value in values if not math.isnan(value)]
    return math.fsum(present) / len(present) if present else math.nan
