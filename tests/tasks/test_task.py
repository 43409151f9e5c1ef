"""Which measure of a task ranks its scores."""

import math

import pytest

from segnet.tasks.task import Best, Measure


@pytest.mark.parametrize(("higher", "better", "worse"), [(True, 0.6, 0.5), (False, 0.5, 0.6)])
def test_the_best_measure_ranks_scores_either_way_and_nan_below_all(higher, better, worse):
    best = Best("error", higher_is_better=higher)
    good, bad, none = (best.rank([Measure("other", "", 9.0), Measure("error", "", value)]) for value in (better, worse, math.nan))
    assert good > bad > none > -math.inf
