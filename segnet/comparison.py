"""Two evaluations of one split, picture by picture: how large a difference is, and how sure."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segnet.errors import ExitCode, UserError

Counts = NDArray[np.float64]  # (…, K, 3) pixels per class: correct, in truth, in prediction; whole numbers below 2⁵³
_BLOCK = 2_000_000  # numbers of the resamples that are in memory at a time


class PictureCounts(NamedTuple):
    """What comparison needs of an evaluation's files."""

    split: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    pixels: Counts  # (N, K, 3)


class Difference(NamedTuple):
    """One measure of both runs, 0..1, with the 95 % interval of b - a; NaN where one of them has none."""

    a: float
    b: float
    difference: float  # b - a
    low: float
    high: float
    b_better: float  # share of the resamples in which b is better


class Comparison(NamedTuple):
    """Run b against run a on one split."""

    split: str
    pictures: int
    samples: int
    miou: Difference
    global_accuracy: Difference
    classes: dict[str, Difference]  # IoU of each class


def read_counts(path: Path, split: str | None) -> PictureCounts:
    """The counts in an evaluation folder, or in evaluation/<split> (default: val) of a run folder.

    Raises UserError (data) where there are none, they are of another split, or their files are damaged.
    """
    if not path.is_dir():
        raise UserError(ExitCode.DATA, path, "no such folder", "name a run folder, or one that evaluate.py wrote")
    given = (path / "metrics.json").exists()  # an evaluation folder itself
    folder = path if given else path / "evaluation" / (split or "val")
    if not (folder / "metrics.json").exists() or not (folder / "pictures.csv").exists():
        remedy = "evaluate again" if given else f"run python scripts/evaluate.py {path} --split {split or 'val'}"
        raise UserError(ExitCode.DATA, folder, "no pictures.csv" if given else "not evaluated yet", remedy)
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
        raise UserError(ExitCode.DATA, folder, f"not files of an evaluation ({reason:.80})", "evaluate again") from None
    if split not in (None, found):
        raise UserError(ExitCode.DATA, folder, f"is of the split '{found}', not '{split}'", f"leave out --split {split}")
    return PictureCounts(found, classes, ids, pixels)


def refuse_unlike(a: PictureCounts, b: PictureCounts, path: Path) -> None:
    """Raises UserError (data), naming `path`, unless b scores the same pixels of the same pictures as a."""
    if a.split != b.split:
        found, remedy = f"is of the split '{b.split}', the other of '{a.split}'", "compare evaluations of one split"
    elif a.classes != b.classes:
        odd = next((pair for pair in zip(a.classes, b.classes, strict=False) if pair[0] != pair[1]), None)
        detail = f"'{odd[1]}' in place of '{odd[0]}'" if odd else f"{len(b.classes)} in place of {len(a.classes)}"
        found, remedy = f"has other classes than the other: {detail}", "compare networks with the same classes"
    elif a.ids != b.ids:
        odd_ids = sorted({*a.ids} ^ {*b.ids})
        found = f"has other pictures than the other: {odd_ids[0]} is in one alone" if odd_ids else "has another order of pictures"
        remedy = "evaluate both on the same data"
    elif not np.array_equal(a.pixels[..., 1], b.pixels[..., 1]):
        unlike = int((a.pixels[..., 1] != b.pixels[..., 1]).any(1).argmax())
        found, remedy = f"has another truth for {a.ids[unlike]} than the other", "the masks changed: evaluate both again"
    else:
        return
    raise UserError(ExitCode.DATA, path, found, remedy)


def compare(a: PictureCounts, b: PictureCounts, samples: int, *, seed: int = 0) -> Comparison:
    """Paired bootstrap over pictures: draw as many as there are, with replacement, `samples` times, the same ones for both runs.

    Each time the scores are computed anew from the summed counts. The interval holds the middle 95 % of the differences
    (Efron and Tibshirani 1993, section 13.3); resamples in which a class is absent have none for it.
    """
    whole = [_measures(run.pixels.sum(0)) for run in (a, b)]  # K + 2 each
    drawn = np.concatenate(list(_resampled_differences(a.pixels, b.pixels, samples, seed)))  # (samples, K + 2)
    found = [_difference(*values) for values in zip(*whole, drawn.T, strict=True)]
    return Comparison(a.split, len(a.ids), samples, found[0], found[1], dict(zip(a.classes, found[2:], strict=True)))


def _resampled_differences(a: Counts, b: Counts, samples: int, seed: int) -> list[Counts]:
    """Blocks of (n, K + 2): the measures of b minus those of a, in one resample per row."""
    generator, (pictures, classes, _) = np.random.default_rng(seed), a.shape
    block, found = max(1, _BLOCK // max(pictures, 3 * classes)), []
    for start in range(0, samples, block):
        count = min(block, samples - start)
        times = generator.multinomial(pictures, [1 / pictures] * pictures, count).astype(np.float64)  # (n, N) times drawn
        sums = [(times @ pixels.reshape(pictures, -1)).reshape(count, classes, 3) for pixels in (a, b)]
        found.append(_measures(sums[1]) - _measures(sums[0]))
    return found


def _measures(pixels: Counts) -> Counts:
    """(…, K, 3) counts -> (…, K + 2): mIoU, global accuracy, IoU of each class; NaN for what is absent."""
    correct, in_truth, in_prediction = np.moveaxis(pixels, -1, 0)
    with np.errstate(invalid="ignore"):
        iou = correct / (in_truth + in_prediction - correct)
        accuracy = correct.sum(-1) / in_truth.sum(-1)
        miou = np.nansum(iou, -1) / (~np.isnan(iou)).sum(-1)
    return np.concatenate([miou[..., None], accuracy[..., None], iou], axis=-1)


def _difference(a: float, b: float, drawn: Counts) -> Difference:
    present = drawn[~np.isnan(drawn)]
    if math.isnan(a) or math.isnan(b) or not len(present):
        return Difference(float(a), float(b), math.nan, math.nan, math.nan, math.nan)
    low, high = np.percentile(present, [2.5, 97.5])
    return Difference(float(a), float(b), float(b - a), float(low), float(high), float((present > 0).mean()))


def comparison_table(comparison: Comparison) -> str:
    """A table for people: percent and percentage points; "–" for a class that is absent."""
    rows = {"mIoU": comparison.miou, "global accuracy": comparison.global_accuracy}
    rows |= {f"IoU of {name}": row for name, row in comparison.classes.items()}
    width = max(map(len, rows))
    lines = [f"{'':<{width}}      A      B   B - A   95 % interval    B better in"]
    for name, row in rows.items():
        if math.isnan(row.difference):
            lines.append(f"{name:<{width}}  {'–':>5}  {'–':>5}  {'–':>6}")
            continue
        shares = "".join(f"  {100 * share:5.2f}" for share in (row.a, row.b))
        interval = f"[{100 * row.low:+.2f}, {100 * row.high:+.2f}]"
        lines.append(f"{name:<{width}}{shares}  {100 * row.difference:+6.2f}  {interval:<16} {100 * row.b_better:9.1f} %")
    return "\n".join(lines)


def comparison_json(comparison: Comparison) -> str:
    """The same as JSON: shares 0..1, null for what is absent."""

    def row(found: Difference) -> dict[str, float | None]:
        return {name: None if math.isnan(value) else value for name, value in found._asdict().items()}

    document = {
        "split": comparison.split,
        "pictures": comparison.pictures,
        "samples": comparison.samples,
        "miou": row(comparison.miou),
        "global_accuracy": row(comparison.global_accuracy),
        "classes": [{"name": name, **row(found)} for name, found in comparison.classes.items()],
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"
