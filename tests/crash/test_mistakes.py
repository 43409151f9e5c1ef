"""The negative controls: each mistake on purpose is noticed."""

import signal
from pathlib import Path
from typing import NamedTuple

import pytest
from crash_files import Operation
from crash_lab import LONG, SHORT, Lab, assert_sound, check_power_cuts, saves_before, stop_at
from crash_mistakes import MISTAKES
from crash_runs import copy_run, newest_valid, temporaries
from helpers import assert_same_run, steps_logged

from segnet.runs.checkpoint import load_checkpoint

LOSSES = ["no fsync of files", "no fsync of the folder", "fsync after the rename"]
OF_RESUMING = list(MISTAKES)[:11]


class Stopped(NamedTuple):
    run: Path
    changes: list[str]


@pytest.fixture(scope="module")
def stopped(lab):
    """A run that was killed after step 21 was logged, one step after a save, and whose last score is not its best."""
    for seed in range(20):
        changes = [*LONG, f"seed={seed}"]
        if load_checkpoint(lab.reference(changes) / "best.pt").step <= 20:
            break
    else:
        pytest.fail("each of 20 runs has its best score at its end: a best score that is lost would not be seen")
    run = stop_at(lab, lab.folder / "stopped", changes, "fsync", "metrics.csv", 7 + 5)
    assert (newest_valid(run), steps_logged(run)) == (20, 21)
    return Stopped(run, changes)


def test_the_run_without_a_mistake_is_not_noticed(lab, stopped, tmp_path):
    lab.finish(copy_run(stopped.run, tmp_path / "run"), stopped.changes, "no mistake")


@pytest.mark.parametrize("mistake", OF_RESUMING)
def test_a_part_that_is_not_restored_is_noticed(lab, stopped, tmp_path, mistake):
    with pytest.raises(AssertionError, match=r"differ|restarted"):
        lab.finish(copy_run(stopped.run, tmp_path / "run"), stopped.changes, mistake, mistake=mistake)
    lab.count("mistakes noticed")


@pytest.mark.parametrize("mistake", [name for name in MISTAKES if " of its process" in name or "process's" in name])
def test_randomness_that_is_a_state_is_noticed(lab, tmp_path, mistake):
    reference = lab.reference(LONG, mistake)
    run = stop_at(lab, tmp_path / "run", LONG, "fsync", "metrics.csv", 12, mistake=mistake)
    assert lab.run(run, LONG, resume=True, mistake=mistake).status == 0
    with pytest.raises(AssertionError, match="differ"):
        assert_same_run(reference, run)
    lab.count("mistakes noticed")


def kill_in_the_second_save(lab: Lab, run: Path, mistake: str) -> None:
    operations = lab.operations(SHORT)
    first = next(n for n, o in enumerate(operations, 1) if o.kind == "rename" and o.target == "last.pt")
    writes = [n for n, o in enumerate(operations, 1) if n > first and o.kind == "write" and "last.pt" in o.name]
    assert lab.run(run, SHORT, kill_at=writes[2], half=True, mistake=mistake).status == -signal.SIGKILL


def kill_often(lab: Lab, folder: Path, mistake: str) -> None:
    for number in range(8, len(lab.operations(SHORT)), 8):  # the mistake has fewer operations, where exactly does not matter
        lab.run(folder / str(number), SHORT, kill_at=number, half=True, mistake=mistake)
        assert_sound(folder / str(number), saves_before(folder / str(number)), f"operation {number}")


def test_checkpoints_written_in_place_are_noticed(lab, tmp_path):
    with pytest.raises(AssertionError, match=r"\.pt: |was saved"):
        kill_often(lab, tmp_path, "checkpoints are written in place")
    lab.count("mistakes noticed")


def test_temporaries_that_stay_are_noticed(lab, tmp_path):
    kill_in_the_second_save(lab, tmp_path / "run", "")
    assert temporaries(tmp_path / "run") != []
    with pytest.raises(AssertionError, match="left behind"):
        lab.finish(tmp_path / "run", SHORT, "", mistake="temporaries stay")
    lab.count("mistakes noticed")


def test_digests_that_are_not_looked_at_are_noticed(lab):
    outcome = lab.run(lab.reference(SHORT) / "last.pt", SHORT, damage=(100, 0), mistake="digests are not looked at")
    assert "loaded: bit" in outcome.output
    lab.count("mistakes noticed")


@pytest.mark.parametrize("mistake", LOSSES)
def test_an_order_that_is_not_durable_is_noticed(lab, tmp_path, mistake):
    operations = lab.operations(SHORT)
    wrong = list(operations)
    if mistake == "no fsync of files":
        wrong = [o for o in operations if o.kind != "fsync" or o.name == "."]
    elif mistake == "no fsync of the folder":
        wrong = [o for o in operations if str(o) != "fsync ."]
    else:
        for n, o in enumerate(operations):
            if o.target == "last.pt":
                synced = max(m for m in range(n) if operations[m].kind == "fsync" and operations[m].name == o.name)
                wrong[synced], wrong[n] = o, Operation("fsync", "last.pt")
    with pytest.raises(AssertionError, match=r"was saved|damaged"):
        check_power_cuts(wrong, tmp_path)
    lab.count("mistakes noticed")
