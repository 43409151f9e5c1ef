"""The spread of what was measured. How long anything takes is not asserted."""

from segnet.benchmarks.timing import Spread


def test_spread_is_that_of_the_middle_half():
    assert Spread.of([4.0, 1.0, 2.0, 3.0, 100.0]) == (2.0, 3.0, 4.0)
    assert Spread.of([5.0]) == (5.0, 5.0, 5.0)
