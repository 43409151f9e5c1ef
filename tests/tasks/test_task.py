"""Which measure of a task ranks its scores."""

import math

from segnet.tasks.task import Best, Measure


def test_the_best_measure_ranks_scores_and_nan_is_below_all():
    best = Best("miou", "mIoU")
    good, bad, none = (best.rank([Measure("other", "", 9.0), Measure("miou", "", value)]) for value in (0.6, 0.5, math.nan))
    assert good > bad > none > -math.inf
