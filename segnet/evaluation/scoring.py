"""Score a network on a split, and write the score down."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from segnet.classes import IGNORE_INDEX
from segnet.config.sections import InferenceConfig
from segnet.data.dataset import Sample
from segnet.data.loader import split_of
from segnet.inference.answers import Maps, predict_maps, prepare_to_predict
from segnet.inference.exported import Network
from segnet.metrics.boundaries import BoundaryScores, band_overlaps, boundary_f1, boundary_scores, contour_matches
from segnet.metrics.calibration import BINS, Reliability, count_reliability, reliability
from segnet.metrics.confusion import ConfusionMatrix, Scores, class_ious, mean_of_present, ratio
from segnet.system.devices import explain_full_memory
from segnet.system.distributed import agreed, gather, is_main, max_over_ranks, sum_over_ranks


class EvaluationStopped(Exception):
    """An evaluation was told to stop before its end."""


class PictureScore(NamedTuple):
    """What was counted on one picture: scored pixels per class, whose truth is not the ignored label."""

    id: str
    correct: tuple[int, ...]
    in_truth: tuple[int, ...]
    in_prediction: tuple[int, ...]
    ignored: int
    boundary_f1: float  # NaN where no class of its truth has a contour

    @property
    def miou(self) -> float:
        """Mean IoU of the classes in this picture's truth; NaN where nothing is scored.

        A few stray pixels of another class lower the IoU of what they cover; they are no class of IoU 0 of their own.
        """
        ious = class_ious(self.correct, self.in_truth, self.in_prediction)
        return mean_of_present([iou for iou, pixels in zip(ious, self.in_truth, strict=True) if pixels])

    @property
    def accuracy(self) -> float:
        """Correct pixels / scored pixels; NaN where nothing is scored."""
        return ratio(sum(self.correct), sum(self.in_truth))


class Evaluation(NamedTuple):
    """All that is known of a network on a split."""

    scores: Scores
    boundary: BoundaryScores
    reliability: Reliability
    pictures: tuple[PictureScore, ...]  # in the order of the split


def evaluate(
    model: Network,
    loader: DataLoader[Sample],
    inference: InferenceConfig | None = None,
    *,
    stop: Callable[[], object] = lambda: False,
) -> Scores:
    """Predict every picture of `loader` and count it against its truth, at the size of the truth.

    Under torchrun each rank counts its own pictures, and all get the scores of the sum, the same as those of one process.
    Raises EvaluationStopped, on all ranks, when `stop()` became true on one; it is asked before every picture.
    """
    matrix = ConfusionMatrix(model.num_classes)
    with agreed():
        for batch, maps in _predict(model, loader, inference, stop):
            matrix.update(batch.mask, maps.mask)
    if max_over_ranks(bool(stop())):
        raise EvaluationStopped
    return _sum_matrix(matrix).scores()


def evaluate_fully(model: Network, loader: DataLoader[Sample], inference: InferenceConfig | None = None) -> Evaluation:
    """`evaluate`, and how well the contours fit, how far its confidence can be trusted, and every picture by itself.

    `loader` is one of `build_loader` over a split. Every rank gets the same Evaluation, that of one process, to the bit.
    """
    split = split_of(loader)
    counts = _Counts(split.ids, len(split.classes))
    with agreed():
        for batch, maps in _predict(model, loader, inference):
            for picture in zip(batch.id, batch.mask, maps.mask, maps.confidence, strict=True):
                counts.add(*picture)
    return counts.over_ranks().evaluation()


def _predict(
    model: Network, loader: Iterable[Sample], inference: InferenceConfig | None, stop: Callable[[], object] = lambda: False
) -> Iterator[tuple[Sample, Maps]]:
    """Each batch with its prediction, until there are no more or `stop()`. It shows the progress."""
    inference = inference or InferenceConfig()
    model = prepare_to_predict(model, inference)
    hidden = None if is_main() else True  # None: hidden where there is no terminal
    for batch in tqdm(loader, "evaluate", unit="picture", leave=False, disable=hidden, file=sys.stderr):
        if stop():
            return
        with explain_full_memory("lower inference.window, or set device=cpu"):
            maps = predict_maps(model, batch.image, inference)
        yield batch, maps


def _sum_matrix(matrix: ConfusionMatrix) -> ConfusionMatrix:
    """`matrix` with what all ranks counted."""
    matrix.counts = sum_over_ranks(matrix.counts)
    matrix.ignored = sum(gather(matrix.ignored))
    return matrix


class _Counts:
    """Everything that `evaluate_fully` counts, in int64. Pictures of other ranks count zero, so the counts of ranks add up."""

    def __init__(self, ids: Sequence[str], num_classes: int) -> None:
        self.ids, self.num_classes = ids, num_classes
        self.row_of = {name: row for row, name in enumerate(ids)}
        self.matrix = ConfusionMatrix(num_classes)
        self.reliability = torch.zeros(BINS, 3, dtype=torch.int64)
        self.overlaps = torch.zeros(num_classes, 2, dtype=torch.int64)
        self.pixels = torch.zeros(len(ids), num_classes, 3, dtype=torch.int64)  # correct, in truth, in prediction
        self.matches = torch.zeros(len(ids), num_classes, 4, dtype=torch.int64)
        self.ignored = torch.zeros(len(ids), dtype=torch.int64)

    def add(self, name: str, truth: Tensor, prediction: Tensor, confidence: Tensor) -> None:
        """Count one picture: (H, W) uint8 truth and prediction, float32 confidence in the prediction."""
        row, scored = self.row_of[name], truth != IGNORE_INDEX
        own = ConfusionMatrix(self.num_classes).update(truth, prediction)
        self.matrix.merge(own)
        self.pixels[row] = torch.stack([own.counts.diagonal(), own.counts.sum(1), own.counts.sum(0)], dim=1)
        self.ignored[row] = own.ignored
        self.matches[row] = contour_matches(truth, prediction, self.num_classes)
        self.overlaps += band_overlaps(truth, prediction, self.num_classes)
        self.reliability += count_reliability(confidence[scored], (truth == prediction)[scored])

    def over_ranks(self) -> _Counts:
        """What all ranks counted."""
        self.matrix = _sum_matrix(self.matrix)
        counts = (self.reliability, self.overlaps, self.pixels, self.matches, self.ignored)
        self.reliability, self.overlaps, self.pixels, self.matches, self.ignored = map(sum_over_ranks, counts)
        return self

    def evaluation(self) -> Evaluation:
        """What the counts say."""
        pictures = []
        for row, name in enumerate(self.ids):
            correct, in_truth, in_prediction = map(tuple, self.pixels[row].T.tolist())
            f1 = boundary_f1(self.matches[row], in_truth)
            pictures.append(PictureScore(name, correct, in_truth, in_prediction, int(self.ignored[row]), f1))
        boundary = boundary_scores([picture.boundary_f1 for picture in pictures], self.overlaps)
        return Evaluation(self.matrix.scores(), boundary, reliability(self.reliability), tuple(pictures))
