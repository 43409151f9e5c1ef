"""The interval of a score is that of resampled pictures."""

import math

import numpy as np
import pytest

from segnet.evaluation.comparison import score_intervals
from segnet.evaluation.results import PictureCounts


def counts_of(pixels: list[list[list[int]]]) -> PictureCounts:
    return PictureCounts("val", ("ground", "box"), tuple(map(str, range(len(pixels)))), np.array(pixels, np.float64))


def test_one_picture_has_no_spread():
    found = score_intervals(counts_of([[[30, 40, 35], [5, 10, 15]]]), 50)
    assert found["miou"] == pytest.approx((0.5 * (30 / 45 + 5 / 20),) * 2)
    assert found["box"] == pytest.approx((0.25, 0.25))


def test_pictures_all_right_or_all_wrong_spread_as_the_binomial():
    right, wrong = [[10, 10, 10], [0, 0, 0]], [[0, 10, 0], [0, 0, 10]]
    low, high = score_intervals(counts_of([right] * 50 + [wrong] * 50), 4000)["global_accuracy"]
    assert (low + high) / 2 == pytest.approx(0.5, abs=0.02)
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(0.25 / 100), abs=0.02)


def test_a_class_without_a_pixel_has_none():
    assert "box" not in score_intervals(counts_of([[[10, 10, 10], [0, 0, 0]]] * 3), 20)
