"""Score a network on a split, and write the score down."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

from torch.utils.data import DataLoader
from tqdm import tqdm

from segnet.classes import ClassSet
from segnet.config import InferenceConfig
from segnet.datasets import Sample
from segnet.distributed import agreed, gather, is_main, max_over_ranks, sum_over_ranks
from segnet.files import write_text
from segnet.inference import predict_maps
from segnet.metrics import ConfusionMatrix, Scores
from segnet.models import EncoderDecoder


class EvaluationStopped(Exception):
    """An evaluation was told to stop before its end."""


def evaluate(
    model: EncoderDecoder,
    loader: DataLoader[Sample],
    inference: InferenceConfig | None = None,
    *,
    stop: Callable[[], object] = lambda: False,
) -> Scores:
    """Predict every picture of `loader` and count it against its truth, at the size of the truth.

    Under torchrun each rank counts its own pictures, and all get the scores of the sum, the same as those of one process.
    Raises EvaluationStopped, on all ranks, when `stop()` became true on one; it is asked before every picture.
    """
    matrix: ConfusionMatrix | None = None
    hidden = None if is_main() else True  # None: hidden where there is no terminal
    with agreed():
        for batch in tqdm(loader, "evaluate", unit="picture", leave=False, disable=hidden, file=sys.stderr):
            if stop():
                break
            mask = predict_maps(model, batch.image, inference or InferenceConfig()).mask
            matrix = matrix or ConfusionMatrix(model.head.out_channels)
            matrix.update(batch.mask, mask)
    if max_over_ranks(bool(stop())):
        raise EvaluationStopped
    classes = max_over_ranks(matrix.num_classes if matrix else 0)  # a rank may have had no picture
    if not classes:
        raise ValueError("the loader gave no pictures")
    matrix = matrix or ConfusionMatrix(classes)
    matrix.counts = sum_over_ranks(matrix.counts)
    matrix.ignored = sum(gather(matrix.ignored))
    return matrix.scores()


def scores_table(scores: Scores, classes: ClassSet) -> str:
    """A table for people: IoU and accuracy of each class, percent; "–" for a class that is absent."""
    width = max(map(len, classes.names))
    lines = [f"{'class':<{width}}    IoU  accuracy  share of pixels"]
    for index, name in enumerate(classes.names):
        share = sum(scores.confusion[index]) / scores.pixels if scores.pixels else math.nan
        row = (_percent(scores.class_iou[index]), _percent(scores.class_accuracy[index]), _percent(share))
        lines.append(f"{name:<{width}}  {row[0]:>5}  {row[1]:>8}  {row[2]:>15}")
    lines.append(
        f"mIoU {_percent(scores.miou)}   global accuracy {_percent(scores.global_accuracy)}   "
        f"mean accuracy {_percent(scores.mean_accuracy)}   ({scores.pixels:,} pixels, {scores.ignored:,} ignored)"
    )
    return "\n".join(lines)


def save_scores(folder: Path, scores: Scores, classes: ClassSet) -> None:
    """Write metrics.json (shares 0..1, null for absent) and confusion.csv (pixels, rows are the truth) into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {
        "miou": _or_null(scores.miou),
        "global_accuracy": _or_null(scores.global_accuracy),
        "mean_accuracy": _or_null(scores.mean_accuracy),
        "pixels": scores.pixels,
        "ignored": scores.ignored,
        "absent_classes": "no pixel in truth or prediction: null, and not part of a mean",
        "classes": [
            {"name": name, "iou": _or_null(iou), "accuracy": _or_null(accuracy), "pixels": sum(row)}
            for name, iou, accuracy, row in zip(
                classes.names, scores.class_iou, scores.class_accuracy, scores.confusion, strict=True
            )
        ],
    }
    write_text(folder / "metrics.json", json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    rows = [["truth \\ prediction", *classes.names]]
    rows += [[name, *map(str, row)] for name, row in zip(classes.names, scores.confusion, strict=True)]
    write_text(folder / "confusion.csv", "".join(",".join(row) + "\n" for row in rows))


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.2f}"


def _or_null(share: float) -> float | None:
    return None if math.isnan(share) else share
