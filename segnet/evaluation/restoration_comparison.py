"""Two evaluations of a denoising on one split, picture by picture: how large a difference is, and how sure."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segnet.evaluation.comparison import Difference
from segnet.evaluation.restoration_results import RestoredPictures
from segnet.system.errors import data_error

_NAMES = ("PSNR", "SSIM")  # of the first columns of `RestoredPictures.values`


class RestorationComparison(NamedTuple):
    """Run b against run a on one split."""

    split: str
    pictures: int
    samples: int
    measures: dict[str, Difference]


def refuse_unlike_restorations(a: RestoredPictures, b: RestoredPictures, path: Path) -> None:
    """Raises UserError (data), naming `path`, unless b scores the same pictures with the same noise as a."""
    if a.split != b.split:
        found, remedy = f"is of the split '{b.split}', the other of '{a.split}'", "compare evaluations of one split"
    elif a.ids != b.ids:
        odd = sorted({*a.ids} ^ {*b.ids})
        found = f"has other pictures than the other: {odd[0]} is in one alone" if odd else "has another order of pictures"
        remedy = "evaluate both on the same data"
    elif not np.allclose(a.values[:, 2], b.values[:, 2], rtol=0, atol=1e-6):
        unlike = int(np.abs(a.values[:, 2] - b.values[:, 2]).argmax())
        found, remedy = f"has other noise in {a.ids[unlike]} than the other", "evaluate both with the same noise"
    else:
        return
    raise data_error(path, found, remedy)


def compare_restorations(a: RestoredPictures, b: RestoredPictures, samples: int) -> RestorationComparison:
    """Paired bootstrap over pictures of the mean PSNR and SSIM, as `comparison.compare` does of counts."""
    generator = np.random.default_rng(0)
    measures = {}
    for column, name in enumerate(_NAMES):
        both = np.stack([a.values[:, column], b.values[:, column]])
        known = both[:, np.isfinite(both).all(axis=0)]
        if not known.shape[1]:
            measures[name] = Difference(*[math.nan] * 6)
            continue
        differences = known[1] - known[0]
        times = generator.multinomial(known.shape[1], [1 / known.shape[1]] * known.shape[1], samples)
        drawn = times @ differences / known.shape[1]
        low, high = np.percentile(drawn, [2.5, 97.5])
        first, second = known.mean(axis=1).tolist()
        better = float((drawn > 0).mean())
        measures[name] = Difference(first, second, float(differences.mean()), float(low), float(high), better)
    return RestorationComparison(a.split, len(a.ids), samples, measures)


def restoration_comparison_table(comparison: RestorationComparison) -> str:
    """A table for people."""
    lines = [f"{'':<6}        A        B     B - A   95 % interval        B better in"]
    for name, row in comparison.measures.items():
        digits = 2 if name == "PSNR" else 4
        values = "".join(f"  {value:7.{digits}f}" for value in (row.a, row.b))
        interval = f"[{row.low:+.{digits}f}, {row.high:+.{digits}f}]"
        lines.append(f"{name:<6}{values}  {row.difference:+8.{digits}f}  {interval:<20} {100 * row.b_better:9.1f} %")
    return "\n".join(lines)


def restoration_comparison_json(comparison: RestorationComparison) -> str:
    """The same as JSON; null for what cannot be measured."""
    document = {
        "task": "denoise",
        "split": comparison.split,
        "pictures": comparison.pictures,
        "samples": comparison.samples,
        **{name.lower(): found.document() for name, found in comparison.measures.items()},
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"
