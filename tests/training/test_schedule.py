"""Learning rates against their formulas, and what is done at intervals."""

import itertools
import math

import pytest
import torch

from segnet.config.sections import OptimConfig
from segnet.training.schedule import due, learning_rate, patience_is_over


def rates(**optim) -> list[float]:
    return [learning_rate(step, 100, OptimConfig(lr=1.0, **optim)) for step in range(100)]


@pytest.mark.parametrize("schedule", ["polynomial", "cosine"])
def test_schedules_warm_up_peak_and_end_near_zero(schedule):
    found = rates(schedule=schedule, warmup=0.1)
    assert found[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert max(found) == 1.0
    assert all(a > b for a, b in itertools.pairwise(found[10:]))
    assert 0 < found[-1] < 0.03


def test_schedules_equal_their_formulas():
    assert rates(schedule="polynomial", power=0.9)[50] == pytest.approx(0.5**0.9)
    assert rates(schedule="cosine")[25] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert set(rates(schedule="constant")) == {1.0}


def test_one_cycle_equals_torchs(tiny_config):
    """torch.optim.lr_scheduler.OneCycleLR ends its rise one step earlier and its fall at a rate above zero."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=101, pct_start=0.31, cycle_momentum=False, final_div_factor=1e9
    )
    expected = []
    for _ in range(100):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cycle.step()
    assert rates(schedule="one_cycle", warmup=0.3) == pytest.approx(expected, abs=1e-2)


def test_nothing_is_done_twice_at_the_end():
    assert [step for step in range(1, 332) if due(step, 331, 165)] == [165, 331]
    assert [step for step in range(1, 11) if due(step, 10, 4)] == [4, 8, 10]
    assert [step for step in range(1, 4) if due(step, 3, 100)] == [3]


@pytest.mark.parametrize(("steps", "over"), [(0, False), (29, False), (30, True), (100, True)])
def test_patience_is_over_after_its_epochs(steps, over):
    assert patience_is_over(steps, 7.5, 4.0) is over
    assert not patience_is_over(steps, 7.5, 0.0)
