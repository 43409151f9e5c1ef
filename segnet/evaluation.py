"""Score a network on a split, and write the score down."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from segnet.boundaries import BoundaryScores, band_overlaps, boundary_f1, boundary_scores, contour_matches
from segnet.calibration import BINS, Reliability, count_reliability, reliability
from segnet.classes import IGNORE_INDEX, ClassSet
from segnet.config import InferenceConfig
from segnet.datasets import Sample, explain_lost_worker, split_of
from segnet.devices import explain_full_memory
from segnet.distributed import agreed, gather, is_main, max_over_ranks, sum_over_ranks
from segnet.files import make_folder, write_text
from segnet.inference import Maps, predict_maps, prepared
from segnet.metrics import ConfusionMatrix, Scores, class_ious, mean_of_present, ratio
from segnet.runtime import Network

ABSENT_CLASSES = (
    "A class without a pixel in truth and prediction is absent: its values are null, and no mean counts it. "
    "Recall and boundary F1 need the class in the truth, precision in the prediction."
)


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
    with agreed(), explain_lost_worker():
        for batch, maps in _predict(model, loader, inference, stop):
            matrix.update(batch.mask, maps.mask)
    if max_over_ranks(bool(stop())):
        raise EvaluationStopped
    return _sum_matrix(matrix).scores()


def examine(model: Network, loader: DataLoader[Sample], inference: InferenceConfig | None = None) -> Evaluation:
    """`evaluate`, and how well the contours fit, how far its confidence can be trusted, and every picture by itself.

    `loader` is one of `build_loader` over a split. Every rank gets the same Evaluation, that of one process, to the bit.
    """
    split = split_of(loader)
    counts = _Counts(split.ids, len(split.classes))
    with agreed(), explain_lost_worker():
        for batch, maps in _predict(model, loader, inference):
            for picture in zip(batch.id, batch.mask, maps.mask, maps.confidence, strict=True):
                counts.add(*picture)
    return counts.over_ranks().evaluation()


def _predict(
    model: Network, loader: Iterable[Sample], inference: InferenceConfig | None, stop: Callable[[], object] = lambda: False
) -> Iterator[tuple[Sample, Maps]]:
    """Each batch with its prediction, until there are no more or `stop()`. It shows the progress."""
    inference = inference or InferenceConfig()
    model = prepared(model, inference)
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
    """Everything that `examine` counts, int64 throughout; zero for a picture that another rank counts, so that ranks add up."""

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


# ---------------------------------------------------------------------------------------------------------------------
# For people, and for programs
# ---------------------------------------------------------------------------------------------------------------------


def evaluation_table(evaluation: Evaluation, classes: ClassSet) -> str:
    """A table for people: what is known of each class, percent; "–" for what is absent."""
    scores, boundary = evaluation.scores, evaluation.boundary
    shares = [ratio(sum(row), scores.pixels) for row in scores.confusion]
    columns = {
        "IoU": scores.class_iou,
        "precision": scores.class_precision,
        "recall": scores.class_accuracy,
        "boundary IoU": boundary.class_iou,
        "share of pixels": shares,
    }
    width = max(map(len, classes.names))
    lines = [f"{'class':<{width}}" + "".join(f"  {title:>{max(6, len(title))}}" for title in columns)]
    for index, name in enumerate(classes.names):
        cells = (f"  {_percent(values[index]):>{max(6, len(title))}}" for title, values in columns.items())
        lines.append(f"{name:<{width}}" + "".join(cells))
    lines += [
        f"mIoU {_percent(scores.miou)}   global accuracy {_percent(scores.global_accuracy)}   "
        f"class average accuracy {_percent(scores.mean_accuracy)}   "
        f"frequency-weighted IoU {_percent(scores.frequency_weighted_iou)}",
        f"boundary F1 {_percent(boundary.f1)}   boundary IoU {_percent(boundary.iou)}   "
        f"expected calibration error {_percent(evaluation.reliability.error)}   "
        f"({scores.pixels:,} pixels, {scores.ignored:,} ignored)",
    ]
    return "\n".join(lines)


def save_evaluation(folder: Path, evaluation: Evaluation, classes: ClassSet, *, split: str) -> list[Path]:
    """Write confusion.csv (pixels, rows are the truth), pictures.csv and metrics.json into `folder`; their paths.

    metrics.json comes last: where it is, the others are. Shares are 0..1; null, or an empty cell, for what is absent.
    """
    make_folder(folder)
    (folder / "metrics.json").unlink(missing_ok=True)
    confusion = [["truth \\ prediction", *classes.names]]
    confusion += [[name, *map(str, row)] for name, row in zip(classes.names, evaluation.scores.confusion, strict=True)]
    paths = [folder / name for name in ("confusion.csv", "pictures.csv", "metrics.json")]
    write_text(paths[0], _csv(confusion))
    write_text(paths[1], _csv([picture_columns(classes.names), *map(_picture_row, evaluation.pictures)]))
    write_text(paths[2], json.dumps(_metrics(evaluation, classes, split), indent=1, allow_nan=False) + "\n")
    return paths


def picture_columns(names: Sequence[str]) -> list[str]:
    """The columns of pictures.csv: a picture's scores, then pixels of each class."""
    pixels = [f"{name}: {what}" for name in names for what in ("correct", "truth", "predicted")]
    return ["id", "miou", "accuracy", "boundary_f1", "ignored", *pixels]


def _picture_row(picture: PictureScore) -> list[str]:
    shares = [picture.miou, picture.accuracy, picture.boundary_f1]
    pixels = [n for counts in zip(picture.correct, picture.in_truth, picture.in_prediction, strict=True) for n in counts]
    return [picture.id, *("" if math.isnan(share) else repr(share) for share in shares), *map(str, (picture.ignored, *pixels))]


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _metrics(evaluation: Evaluation, classes: ClassSet, split: str) -> dict[str, object]:
    """What metrics.json holds."""
    scores, boundary, bins = evaluation.scores, evaluation.boundary, evaluation.reliability
    return {
        "split": split,
        "miou": _or_null(scores.miou),
        "global_accuracy": _or_null(scores.global_accuracy),
        "mean_accuracy": _or_null(scores.mean_accuracy),
        "frequency_weighted_iou": _or_null(scores.frequency_weighted_iou),
        "boundary_f1": _or_null(boundary.f1),
        "boundary_iou": _or_null(boundary.iou),
        "expected_calibration_error": _or_null(bins.error),
        "pictures": len(evaluation.pictures),
        "pixels": scores.pixels,
        "ignored": scores.ignored,
        "absent_classes": ABSENT_CLASSES,
        "classes": [
            {
                "name": name,
                "iou": _or_null(scores.class_iou[index]),
                "precision": _or_null(scores.class_precision[index]),
                "recall": _or_null(scores.class_accuracy[index]),
                "accuracy": _or_null(scores.class_accuracy[index]),
                "boundary_iou": _or_null(boundary.class_iou[index]),
                "pixels": sum(scores.confusion[index]),
            }
            for index, name in enumerate(classes.names)
        ],
        "reliability": [
            {
                "above": index / len(bins.pixels),
                "up_to": (index + 1) / len(bins.pixels),
                "pixels": bins.pixels[index],
                "correct": bins.correct[index],
                "confidence": _or_null(bins.confidence[index]),
            }
            for index in range(len(bins.pixels))
        ],
    }


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.2f}"


def _or_null(share: float) -> float | None:
    return None if math.isnan(share) else share
