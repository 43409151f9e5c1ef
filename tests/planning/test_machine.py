"""What is measured is what training does, and a measurement that the system kills is told in one line."""

from __future__ import annotations

import os

import pytest
from helpers import folder_bytes, refused

from segnet.planning import machine
from segnet.planning.machine import RunCost, in_new_process, measure_batches, measure_run
from segnet.system.errors import ExitCode
from segnet.training.step import train_step


def test_the_time_of_a_run_is_the_sum_of_its_parts() -> None:
    assert RunCost(start=2, step=0.5, evaluation=10, save=1, memory=1).seconds(steps=8, evaluations=3) == 2 + 4 + 33


def test_steps_of_one_and_two_pictures_are_measured(tiny_config, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(
        machine, "train_step", lambda state, batch, *a, **k: seen.append(len(batch.id)) or train_step(state, batch, *a, **k)
    )
    one, two = measure_batches(tiny_config)
    assert seen == [1, 1, 1, 2, 2, 2]
    assert (one.pictures, two.pictures) == (1, 2)
    assert 0 < one.memory <= two.memory
    assert min(one.seconds, two.seconds) > 0


def test_a_run_is_measured_without_leaving_a_file(tiny_config, tiny_data, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = folder_bytes(tmp_path)
    cost = measure_run(tiny_config)
    assert folder_bytes(tmp_path) == before
    assert min(cost) > 0


def test_an_evaluation_is_counted_for_the_whole_split(tiny_config, monkeypatch) -> None:
    """A picture takes one second, and a start three: 3 + 3 for the split, and 3 more pictures are drawn."""
    monkeypatch.setattr(machine, "_seconds_of_validation", lambda config, task, state, dataset: 3.0 + len(dataset))
    assert measure_run(tiny_config).evaluation == 9.0


def test_what_another_process_returns_or_raises_is_handed_on() -> None:
    assert in_new_process(len, (1, 2)) == 2
    with pytest.raises(ZeroDivisionError):
        in_new_process((1).__truediv__, 0)


def test_a_killed_measurement_is_one_line() -> None:
    with refused(ExitCode.ENVIRONMENT, "memory: the process of a measurement was killed", "--memory"):
        in_new_process(os._exit, 9)
