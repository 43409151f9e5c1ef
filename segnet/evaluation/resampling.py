"""How sure a score is: the scores of resampled pictures (bootstrap, Efron and Tibshirani 1993, section 13.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SAMPLES = 1000  # resamples of an interval
_BLOCK = 2_000_000  # numbers of the resamples that are in memory at a time

Counts = NDArray[np.float64]  # (…, K, 3) pixels per class: correct, in truth, in prediction; whole numbers below 2⁵³


class Interval(NamedTuple):
    """The middle 95 % of a measure, 0..1, over the resamples."""

    low: float
    high: float


class Intervals(NamedTuple):
    """The intervals of a split; None for a measure that is absent from all resamples."""

    miou: Interval | None
    global_accuracy: Interval | None
    class_iou: tuple[Interval | None, ...]


def score_intervals(pixels: Counts, samples: int = SAMPLES) -> Intervals:
    """The intervals of the scores of a split from the (N, K, 3) counts of its pictures.

    Each resample draws as many pictures as there are, with replacement; its scores are those of the summed counts.
    """
    (sums,) = zip(*resampled_sums([pixels], samples, seed=0), strict=True)
    miou, accuracy, *ious = map(_interval, measures_of(np.concatenate(sums)).T)
    return Intervals(miou, accuracy, tuple(ious))


def _interval(drawn: Counts) -> Interval | None:
    present = drawn[~np.isnan(drawn)]
    return Interval(*map(float, np.percentile(present, [2.5, 97.5]))) if len(present) else None


def resampled_sums(runs: Sequence[Counts], samples: int, seed: int) -> Iterator[list[Counts]]:
    """Blocks of (n, K, 3) for each of the runs: the summed counts of one resample, the same for all runs, per row."""
    generator, (pictures, classes, _) = np.random.default_rng(seed), runs[0].shape
    block = max(1, _BLOCK // max(pictures, 3 * classes))
    for start in range(0, samples, block):
        count = min(block, samples - start)
        times = generator.multinomial(pictures, [1 / pictures] * pictures, count).astype(np.float64)  # (n, N) times drawn
        yield [(times @ pixels.reshape(pictures, -1)).reshape(count, classes, 3) for pixels in runs]


def measures_of(pixels: Counts) -> Counts:
    """(…, K, 3) counts -> (…, K + 2): mIoU, global accuracy, IoU of each class; NaN for what is absent."""
    correct, in_truth, in_prediction = np.moveaxis(pixels, -1, 0)
    with np.errstate(invalid="ignore"):
        iou = correct / (in_truth + in_prediction - correct)
        accuracy = correct.sum(-1) / in_truth.sum(-1)
        miou = np.nansum(iou, -1) / (~np.isnan(iou)).sum(-1)
    return np.concatenate([miou[..., None], accuracy[..., None], iou], axis=-1)
