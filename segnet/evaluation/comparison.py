"""Two evaluations of one split, picture by picture: how large a difference is, and how sure."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segnet.evaluation.resampling import Counts, measures_of, resampled_sums
from segnet.evaluation.results import PictureCounts
from segnet.system.errors import data_error


class Difference(NamedTuple):
    """One measure of both runs, 0..1, with the 95 % interval of b - a; NaN where one of them has none."""

    a: float
    b: float
    difference: float  # b - a
    low: float
    high: float
    b_better: float  # share of the resamples in which b is better

    def document(self) -> dict[str, float | None]:
        """The numbers by their names for JSON, which has no NaN and no infinity: None in their place."""
        return {name: value if math.isfinite(value) else None for name, value in self._asdict().items()}


class Comparison(NamedTuple):
    """Run b against run a on one split."""

    split: str
    pictures: int
    samples: int
    miou: Difference
    global_accuracy: Difference
    classes: dict[str, Difference]  # IoU of each class


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
    raise data_error(path, found, remedy)


def compare(a: PictureCounts, b: PictureCounts, samples: int, *, seed: int = 0) -> Comparison:
    """Paired bootstrap over pictures: draw as many as there are, with replacement, `samples` times, the same ones for both runs.

    Each time the scores are computed anew from the summed counts. The interval holds the middle 95 % of the differences
    (Efron and Tibshirani 1993, section 13.3); resamples in which a class is absent have none for it.
    """
    whole = [measures_of(run.pixels.sum(0)) for run in (a, b)]  # K + 2 each
    drawn = np.concatenate(list(_resampled_differences(a.pixels, b.pixels, samples, seed)))  # (samples, K + 2)
    found = [_difference(*values) for values in zip(*whole, drawn.T, strict=True)]
    return Comparison(a.split, len(a.ids), samples, found[0], found[1], dict(zip(a.classes, found[2:], strict=True)))


def _resampled_differences(a: Counts, b: Counts, samples: int, seed: int) -> list[Counts]:
    """Blocks of (n, K + 2): the measures of b minus those of a, in one resample per row."""
    return [measures_of(of_b) - measures_of(of_a) for of_a, of_b in resampled_sums([a, b], samples, seed)]


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
    document = {
        "split": comparison.split,
        "pictures": comparison.pictures,
        "samples": comparison.samples,
        "miou": comparison.miou.document(),
        "global_accuracy": comparison.global_accuracy.document(),
        "classes": [{"name": name, **found.document()} for name, found in comparison.classes.items()],
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"
