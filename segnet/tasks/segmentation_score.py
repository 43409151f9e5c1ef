"""The score of a segmentation: what is counted, and the measures that follow from the counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from segnet.classes import IGNORE_INDEX
from segnet.data.dataset import Sample
from segnet.metrics.boundary_f1 import boundary_f1, contour_matches
from segnet.metrics.boundary_iou import band_overlaps
from segnet.metrics.calibration import BINS, Reliability, count_reliability, reliability
from segnet.metrics.confusion import ConfusionMatrix, Scores, class_ious, mean_of_present, ratio
from segnet.system.distributed import gather, sum_over_ranks
from segnet.tasks.task import Measure


class Maps(NamedTuple):
    """The answer for B images, on the CPU, at their own size."""

    mask: Tensor  # (B, H, W) uint8 class ids
    confidence: Tensor  # (B, H, W) float32, probability of the predicted class
    entropy: Tensor  # (B, H, W) float32, of the probabilities, in nats: 0..log K
    uncertainty: Tensor  # (B, H, W) float32, 0 certain .. 1: entropy / log K
    variance: Tensor | None  # (B, H, W) float32 between dropout samples, mean over the classes; None without samples
    mutual_information: Tensor | None  # (B, H, W) float32, nats, of class and dropout; None without samples
    probabilities: Tensor | None  # (B, K, H, W) float32, sums to 1 over the classes; None unless asked for


class PictureScore(NamedTuple):
    """The counts of one picture: its scored pixels of each class."""

    id: str
    correct: tuple[int, ...]
    in_truth: tuple[int, ...]
    in_prediction: tuple[int, ...]
    ignored: int
    boundary_f1: float  # NaN where no class of its truth has a contour

    @property
    def miou(self) -> float:
        """Mean IoU of the classes in this picture's truth; NaN where nothing is scored.

        Pixels predicted as a class that the truth lacks lower the IoU of the classes that they cover; that class has no IoU
        of its own here.
        """
        ious = class_ious(self.correct, self.in_truth, self.in_prediction)
        return mean_of_present([iou for iou, pixels in zip(ious, self.in_truth, strict=True) if pixels])

    def wrong(self, number: int) -> int:
        """The pixels of a class in the truth or in the prediction, but not in both."""
        return self.in_truth[number] + self.in_prediction[number] - 2 * self.correct[number]

    @property
    def accuracy(self) -> float:
        """Correct pixels / scored pixels; NaN where nothing is scored."""
        return ratio(sum(self.correct), sum(self.in_truth))


class BoundaryScores(NamedTuple):
    """The agreement of contours on a split, 0..1; NaN where there is nothing to compare, which the means leave out."""

    f1: float  # mean over pictures of `boundary_f1`
    iou: float  # mean over classes of `class_iou`
    class_iou: tuple[float, ...]  # each class's bands summed over the split, then divided


def boundary_scores(picture_f1: Sequence[float], overlaps: Tensor) -> BoundaryScores:
    """The scores of a split, from `boundary_f1` of its pictures and the sum of their `band_overlaps`."""
    class_iou = tuple(ratio(both, either) for both, either in overlaps.tolist())
    return BoundaryScores(mean_of_present(picture_f1), mean_of_present(class_iou), class_iou)


class ClassMeasure(NamedTuple):
    """One number of each class: a column of the tables of classes, an entry of each class in metrics.json."""

    name: str  # in files, e.g. "iou"
    title: str  # for people, e.g. "IoU"
    values: tuple[float, ...]  # 0..1, NaN where there is nothing to divide by


class Evaluation(NamedTuple):
    """The score of a network on a split, and of every picture."""

    scores: Scores
    boundary: BoundaryScores
    reliability: Reliability
    pictures: tuple[PictureScore, ...]  # in the order of the split

    def measures(self) -> list[Measure]:
        """The rows of the score's table, the entries of metrics.json and the tiles of the report."""
        return [
            *confusion_measures(self.scores),
            Measure("boundary_f1", "boundary F1", self.boundary.f1),
            Measure("boundary_iou", "boundary IoU", self.boundary.iou),
            Measure("expected_calibration_error", "expected calibration error", self.reliability.error),
        ]

    def class_measures(self) -> list[ClassMeasure]:
        """The columns of the tables of classes, the entries of each class in metrics.json."""
        return [
            ClassMeasure("iou", "IoU", self.scores.class_iou),
            ClassMeasure("dice", "Dice", self.scores.class_dice),
            ClassMeasure("precision", "precision", self.scores.class_precision),
            ClassMeasure("recall", "recall", self.scores.class_accuracy),
            ClassMeasure("boundary_iou", "boundary IoU", self.boundary.class_iou),
        ]

    def warnings(self) -> list[str]:
        """None: any score is a score."""
        return []


def confusion_measures(scores: Scores) -> list[Measure]:
    """The measures that a confusion matrix gives."""
    return [
        Measure("miou", "mIoU", scores.miou),
        Measure("global_accuracy", "global accuracy", scores.global_accuracy),
        Measure("mean_accuracy", "class average accuracy", scores.mean_accuracy),
        Measure("frequency_weighted_iou", "frequency-weighted IoU", scores.frequency_weighted_iou),
        Measure("mean_dice", "mean Dice", scores.mean_dice),
    ]


class ConfusionCounts:
    """A confusion matrix alone: the counts of a validation during training."""

    def __init__(self, num_classes: int) -> None:
        self.matrix = ConfusionMatrix(num_classes)

    def add(self, batch: Sample, answer: Maps) -> None:
        """Count a batch and its masks."""
        self.matrix.update(batch.truth, answer.mask)

    def sum_over_ranks(self) -> None:
        """Replace the counts of this rank by the sum over all ranks."""
        self.matrix.counts = sum_over_ranks(self.matrix.counts)
        self.matrix.ignored = sum(gather(self.matrix.ignored))

    def measures(self) -> list[Measure]:
        """mIoU, accuracies, frequency-weighted IoU and mean Dice."""
        return confusion_measures(self.matrix.scores())


class EvaluationCounts:
    """All counts of an evaluation, in int64. The rows of pictures that other ranks count are zero, so the ranks add up."""

    def __init__(self, ids: Sequence[str], num_classes: int) -> None:
        self.ids = ids
        self.num_classes = num_classes
        self.row_of = {name: row for row, name in enumerate(ids)}
        self.confusion = ConfusionCounts(num_classes)
        self.reliability = torch.zeros(BINS, 3, dtype=torch.int64)
        self.overlaps = torch.zeros(num_classes, 2, dtype=torch.int64)
        self.pixels = torch.zeros(len(ids), num_classes, 3, dtype=torch.int64)  # correct, in truth, in prediction
        self.matches = torch.zeros(len(ids), num_classes, 4, dtype=torch.int64)
        self.ignored = torch.zeros(len(ids), dtype=torch.int64)

    def add(self, batch: Sample, answer: Maps) -> None:
        """Count a batch and its maps, picture by picture."""
        for picture in zip(batch.id, batch.truth, answer.mask, answer.confidence, strict=True):
            self._add_picture(*picture)

    def _add_picture(self, name: str, truth: Tensor, prediction: Tensor, confidence: Tensor) -> None:
        """Count one picture: (H, W) uint8 truth and prediction, float32 confidence in the prediction."""
        row = self.row_of[name]
        scored = truth != IGNORE_INDEX
        own = ConfusionMatrix(self.num_classes).update(truth, prediction)
        self.confusion.matrix.merge(own)
        self.pixels[row] = own.class_pixels()
        self.ignored[row] = own.ignored
        self.matches[row] = contour_matches(truth, prediction, self.num_classes)
        self.overlaps += band_overlaps(truth, prediction, self.num_classes)
        self.reliability += count_reliability(confidence[scored], (truth == prediction)[scored])

    def sum_over_ranks(self) -> None:
        """Replace the counts of this rank by the sum over all ranks."""
        self.confusion.sum_over_ranks()
        for name in ("reliability", "overlaps", "pixels", "matches", "ignored"):
            setattr(self, name, sum_over_ranks(getattr(self, name)))

    def evaluation(self) -> Evaluation:
        """The score of the split and of each picture."""
        pictures = [self.picture(name) for name in self.ids]
        boundary = boundary_scores([picture.boundary_f1 for picture in pictures], self.overlaps)
        return Evaluation(self.confusion.matrix.scores(), boundary, reliability(self.reliability), tuple(pictures))

    def picture(self, name: str) -> PictureScore:
        """The score of a picture that was counted."""
        row = self.row_of[name]
        correct, in_truth, in_prediction = map(tuple, self.pixels[row].T.tolist())
        f1 = boundary_f1(self.matches[row], in_truth)
        return PictureScore(name, correct, in_truth, in_prediction, int(self.ignored[row]), f1)

    def measures(self) -> list[Measure]:
        """All measures of the split."""
        return self.evaluation().measures()
