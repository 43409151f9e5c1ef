"""Killed at random, or at every operation on a file: what is resumed ends with the bits of a run that was never killed."""

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from crash_files import Operation, load_record
from crash_lab import LONG, SAVE_EVERY, SHORT, TRIALS, WHOLE, Lab, assert_sound, saves_before, stop_at
from crash_runs import copy_run, flip, newest_valid
from helpers import ROOT, assert_same_run, steps_logged

from segnet.config.loading import config_to_yaml, override_config


def test_two_undisturbed_runs_are_the_same(lab, tmp_path):
    assert lab.run(tmp_path / "run", LONG).status == 0
    assert_same_run(lab.reference(LONG), tmp_path / "run")
    assert steps_logged(tmp_path / "run") == 24


def kill_and_finish(lab: Lab, run: Path, delays: list[float], what: str) -> None:
    for number, delay in enumerate(delays):
        outcome = lab.run(run, LONG, resume=number > 0, signal_after=delay)
        assert outcome.status in (0, -signal.SIGKILL), f"{what}, kill {number}: {outcome.output}"
        lab.count("random kills", outcome.status != 0)
        assert_sound(run, saves_before(run), f"{what}, kill {number} after {delay:.3f} s")
    lab.finish(run, LONG, what)


def test_killed_at_random(lab, tmp_path):
    duration = lab.run(tmp_path / "whole", LONG).seconds
    for trial in range(TRIALS):
        dice = random.Random(trial)
        delays = [dice.uniform(0, duration) for _ in range(3 if trial % 5 == 4 else 1)]
        kill_and_finish(lab, tmp_path / str(trial), delays, f"trial {trial}")
        shutil.rmtree(tmp_path / str(trial))


def test_killed_twenty_times_in_one_run(lab, tmp_path):
    duration = lab.run(tmp_path / "whole", LONG).seconds
    dice = random.Random(20)
    kill_and_finish(lab, tmp_path / "run", [dice.uniform(0.1, 0.4) * duration for _ in range(20)], "twenty kills")


def test_killed_with_workers(lab, tmp_path):
    changes = [*LONG, "data.workers=2"]
    duration = lab.run(tmp_path / "whole", changes).seconds
    for trial in range(1 + TRIALS // 20):
        run, what = tmp_path / str(trial), f"trial {trial}"
        outcome = lab.run(run, changes, signal_after=random.Random(trial).uniform(0, duration))
        lab.count("random kills", outcome.status != 0)
        assert_sound(run, saves_before(run), what)
        lab.finish(run, LONG, what)


def deaths(operations: list[Operation]) -> list[tuple[int, bool]]:
    """Where to die: instead of each operation, and in the middle of each write."""
    numbered = list(enumerate(operations, 1))
    return sorted([(n, False) for n, _ in numbered] + [(n, True) for n, o in numbered if o.kind == "write" and o.data])


def sampled(operations: list[Operation], count: int) -> list[tuple[int, bool]]:
    """All deaths in the whole suite, else about `count`, evenly spread, and the one between the renamings of the second save."""
    cases = deaths(operations)
    if WHOLE:
        return cases
    renamings = [(n, False) for n, o in enumerate(operations, 1) if o.kind == "rename" and o.target == "last.pt"]
    return sorted({*cases[1 :: max(1, len(cases) // count)], *renamings[:2]})


def saved_by(operations: list[Operation]) -> int:
    """The step of the last save whose renaming is among `operations`."""
    return SAVE_EVERY * sum(operation.kind == "rename" and operation.target == "last.pt" for operation in operations)


def test_killed_at_every_operation_on_a_file(lab, tmp_path):
    operations = lab.operations(SHORT)
    assert saved_by(operations) == 12, list(map(str, operations))
    for number, half in sampled(operations, 10):
        what = f"operation {number} of {len(operations)}, {operations[number - 1]}{', half' * half}"
        run = tmp_path / "run"
        outcome = lab.run(run, SHORT, kill_at=number, half=half)
        assert outcome.status == -signal.SIGKILL, f"{what}: {outcome.output}"
        assert_sound(run, saved_by(operations[: number - 1]), what)
        lab.finish(run, SHORT, what)
        shutil.rmtree(run)
        lab.count("operations died at")


def test_killed_at_every_operation_of_a_resumed_run(lab, tmp_path):
    """Also where the newest checkpoint was found damaged: it must not push the last valid one away."""
    stopped = stop_at(lab, tmp_path / "stopped", SHORT, "rename", "last.pt", 2)
    (stopped / "last.pt").write_bytes(flip((stopped / "last.pt").read_bytes(), 80_000))
    recorded = copy_run(stopped, tmp_path / "recorded")
    lab.finish(recorded, SHORT, "newest damaged", record=str(tmp_path / "operations"))
    operations, lost = load_record(tmp_path / "operations"), []
    for number, half in sampled(operations, 4):
        what = f"newest damaged, operation {number}, {operations[number - 1]}{', half' * half}"
        run = copy_run(stopped, tmp_path / "run")
        outcome = lab.run(run, SHORT, resume=True, kill_at=number, half=half)
        assert outcome.status == -signal.SIGKILL, f"{what}: {outcome.output}"
        if newest_valid(run) is None:
            lost.append(what)
        else:
            lab.finish(run, SHORT, what)
        shutil.rmtree(run)
        lab.count("operations died at")
    assert lost == [], "every checkpoint is lost"


@pytest.mark.skipif(not WHOLE or shutil.which("strace") is None, reason="needs strace, and minutes: make crash-test")
def test_killed_at_system_calls(lab, tmp_path):
    """The same from outside, with the real script: SIGKILL on entering the n-th such call of any thread."""
    config = tmp_path / "config.yaml"
    config.write_text(config_to_yaml(override_config(lab.config, SHORT)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for calls, numbers in {"fsync": range(1, 22, 2), "?rename,?renameat": range(1, 10), "?unlink,?unlinkat": range(1, 3)}.items():
        for number in numbers:
            run, what = tmp_path / f"{calls}{number}", f"{calls} {number}"
            inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:signal=KILL:when={number}"]
            script = [sys.executable, str(ROOT / "scripts" / "train.py"), str(config), "--run", str(run)]
            command = ["strace", "-f", "-qq", "-o", str(tmp_path / "calls"), *inject, *script]
            ended = subprocess.run(command, env=environment, capture_output=True, timeout=120, text=True)
            killed = "killed by SIGKILL" in (tmp_path / "calls").read_text()
            assert killed or ended.returncode == 0, f"{what}: {ended.stdout}{ended.stderr}"
            assert_sound(run, saves_before(run), what)
            lab.finish(run, SHORT, what)
            lab.count("system calls died at", killed)
