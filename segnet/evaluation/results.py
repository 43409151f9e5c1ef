"""The files of an evaluation: metrics.json, confusion.csv, pictures.csv, and how they are read again."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from segnet.classes import ClassSet
from segnet.config.yaml_files import read_mapping
from segnet.evaluation.resampling import SAMPLES, Counts, Intervals, score_intervals
from segnet.metrics.confusion import ratio
from segnet.system.errors import data_error
from segnet.system.files import csv_text, make_folder, write_text
from segnet.tasks.segmentation_score import Evaluation, PictureScore
from segnet.tasks.task import Measure

ABSENT_CLASSES = (
    "A class without a pixel in truth and prediction is absent: its values are null, and no mean counts it. "
    "Recall and boundary F1 need the class in the truth, precision in the prediction."
)

_COLUMNS = 79  # characters of a line of measures


def evaluation_table(evaluation: Evaluation, classes: ClassSet) -> str:
    """A table for people: a row for each class and the measures of the split, in percent; "–" for what is absent."""
    scores = evaluation.scores
    columns: dict[str, Sequence[float]] = {measure.title: measure.values for measure in evaluation.class_measures()}
    columns["share of pixels"] = [ratio(sum(row), scores.pixels) for row in scores.confusion]
    width = max(map(len, classes.names))
    lines = [f"{'class':<{width}}" + "".join(f"  {title:>{max(6, len(title))}}" for title in columns)]
    for index, name in enumerate(classes.names):
        cells = (f"  {_percent(values[index]):>{max(6, len(title))}}" for title, values in columns.items())
        lines.append(f"{name:<{width}}" + "".join(cells))
    measures = [f"{measure.title} {_shown(measure)}" for measure in evaluation.measures()]
    measures.append(f"({scores.pixels:,} pixels, {scores.ignored:,} ignored)")
    miou = intervals_of(evaluation).miou
    sure = (
        [f"95 % interval of the mIoU: {_percent(miou.low)} to {_percent(miou.high)} (bootstrap over the pictures)"]
        if miou
        else []
    )
    return "\n".join([*lines, *_packed(measures), *sure])


def intervals_of(evaluation: Evaluation) -> Intervals:
    """The intervals of the scores of a split, from a bootstrap over its pictures."""
    pixels = [(picture.correct, picture.in_truth, picture.in_prediction) for picture in evaluation.pictures]
    return score_intervals(np.array(pixels, dtype=np.float64).transpose(0, 2, 1))


def _packed(texts: Sequence[str]) -> list[str]:
    """The texts, side by side in as few lines of `_COLUMNS` characters as they need."""
    lines = [texts[0]]
    for text in texts[1:]:
        if len(lines[-1]) + len(text) + 3 <= _COLUMNS:
            lines[-1] += f"   {text}"
        else:
            lines.append(text)
    return lines


def _shown(measure: Measure) -> str:
    return _percent(measure.value) if measure.is_share else f"{measure.value:.2f}"


def save_evaluation(
    folder: Path, evaluation: Evaluation, classes: ClassSet, *, split: str, conditions: Mapping[str, str] | None = None
) -> list[Path]:
    """Write confusion.csv (pixels, rows are the truth), pictures.csv and metrics.json into `folder`; their paths.

    metrics.json comes last: where it is, the others are. Shares are 0..1; null, or an empty cell, for what is absent.
    `conditions` say in words what was scored, and how.
    """
    make_folder(folder)
    (folder / "metrics.json").unlink(missing_ok=True)
    confusion = [["truth \\ prediction", *classes.names]]
    confusion += [[name, *map(str, row)] for name, row in zip(classes.names, evaluation.scores.confusion, strict=True)]
    paths = [folder / name for name in ("confusion.csv", "pictures.csv", "metrics.json")]
    write_text(paths[0], csv_text(confusion))
    write_text(paths[1], csv_text([picture_columns(classes.names), *map(_picture_row, evaluation.pictures)]))
    document = _metrics(evaluation, classes, split) | ({"conditions": dict(conditions)} if conditions else {})
    write_text(paths[2], json.dumps(document, indent=1, allow_nan=False) + "\n")
    return paths


def picture_columns(names: Sequence[str]) -> list[str]:
    """The columns of pictures.csv: a picture's scores, then pixels of each class."""
    pixels = [f"{name}: {what}" for name in names for what in ("correct", "truth", "predicted")]
    return ["id", "miou", "accuracy", "boundary_f1", "ignored", *pixels]


def _picture_row(picture: PictureScore) -> list[str]:
    shares = [picture.miou, picture.accuracy, picture.boundary_f1]
    pixels = [n for counts in zip(picture.correct, picture.in_truth, picture.in_prediction, strict=True) for n in counts]
    return [picture.id, *("" if math.isnan(share) else repr(share) for share in shares), *map(str, (picture.ignored, *pixels))]


def _metrics(evaluation: Evaluation, classes: ClassSet, split: str) -> dict[str, object]:
    """The content of metrics.json."""
    scores, bins = evaluation.scores, evaluation.reliability
    intervals = intervals_of(evaluation)
    return {
        "split": split,
        **{measure.name: _or_null(measure.value) for measure in evaluation.measures()},
        "pictures": len(evaluation.pictures),
        "pixels": scores.pixels,
        "ignored": scores.ignored,
        "absent_classes": ABSENT_CLASSES,
        "intervals": {
            "of": f"the middle 95 % of {SAMPLES} bootstrap resamples of the pictures",
            "miou": intervals.miou,
            "global_accuracy": intervals.global_accuracy,
        },
        "classes": [
            {
                "name": name,
                **{measure.name: _or_null(measure.values[index]) for measure in evaluation.class_measures()},
                "iou_interval": intervals.class_iou[index],
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


def read_confusion(path: Path) -> Tensor:
    """(K, K) int64: the pixels [truth][prediction] in a confusion.csv. Raises UserError (data) for another file."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [[int(cell) for cell in row[1:]] for row in list(csv.reader(file))[1:] if row]
        if not rows or {len(row) for row in rows} != {len(rows)}:
            raise ValueError("not as many columns as rows")
        return torch.tensor(rows, dtype=torch.int64)
    except (OSError, ValueError, RuntimeError, csv.Error) as error:
        raise data_error(path, f"not a confusion matrix ({error!s:.80})", "evaluate again") from None


class PictureCounts(NamedTuple):
    """What comparison needs of an evaluation's files."""

    split: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    pixels: Counts  # (N, K, 3)


def find_evaluation(path: Path, split: str | None) -> Path:
    """The evaluation folder that is meant: `path` itself, or evaluation/<split> of a run (default: its data.val_split).

    Raises UserError (data) where there is none.
    """
    if not path.is_dir():
        raise data_error(path, "no such folder", "name a run folder, or one that segnet evaluate wrote")
    given = (path / "metrics.json").exists()  # an evaluation folder itself
    split = split or _val_split(path)
    folder = path if given else path / "evaluation" / split
    if not (folder / "metrics.json").exists() or not (folder / "pictures.csv").exists():
        remedy = "evaluate again" if given else f"run segnet evaluate {quote(str(path))} --split {quote(split)}"
        raise data_error(folder, "no pictures.csv" if given else "not evaluated yet", remedy)
    return folder


def _val_split(run: Path) -> str:
    """The split on which a run was scored while it trained; val where its configuration does not say."""
    config = run / "config.yaml"
    data = read_mapping(config)[0].get("data") if config.is_file() else None
    return str(data.get("val_split", "val")) if isinstance(data, dict) else "val"


def read_counts(path: Path, split: str | None) -> PictureCounts:
    """The counts in the folder that `find_evaluation` finds.

    Raises UserError (data) where there are none, they are of another split, or their files are damaged.
    """
    folder = find_evaluation(path, split)
    try:
        metrics = json.loads((folder / "metrics.json").read_text("utf-8-sig"))
        found, classes = str(metrics["split"]), tuple(str(row["name"]) for row in metrics["classes"])
        with (folder / "pictures.csv").open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(row)][1:]
        if not rows or not classes:
            raise ValueError("no pictures")
        if odd := next((row for row in rows if len(row) != 5 + 3 * len(classes)), None):
            raise ValueError(f"pictures.csv has a row of {len(odd)} columns between commas, expected {5 + 3 * len(classes)}")
        ids = tuple(row[0] for row in rows)
        pixels = np.array([[int(cell) for cell in row[5:]] for row in rows], dtype=np.float64).reshape(len(rows), len(classes), 3)
        if (pixels < 0).any() or (pixels[..., :1] > pixels[..., 1:]).any() or pixels[..., 1].sum() != metrics["pixels"]:
            raise ValueError("pixels that do not add up")
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError, csv.Error) as error:
        reason = f"metrics.json has no {error}" if isinstance(error, KeyError) else str(error)
        raise data_error(folder, f"not files of an evaluation ({reason:.80})", "evaluate again") from None
    if split not in (None, found):
        raise data_error(folder, f"is of the split '{found}', not '{split}'", f"leave out --split {split}")
    return PictureCounts(found, classes, ids, pixels)
