"""A killed and resumed run ends with the bits of one that was never killed – and so does any other schedule."""

import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import assert_same_run, read_metrics, same, start_training, steps_logged, tiny_config_for
from script_server import ScriptProcess

from segnet.config.loading import override_config
from segnet.runs.checkpoint import Checkpoint, load_checkpoint
from segnet.system.processes import STOP_SIGNALS
from segnet.training.loop import train

LONG = [
    "train.epochs=12",
    "train.save_every_epochs=0.67",
    "train.log_every_steps=5",
    "train.eval_every_epochs=2",
    "train.ema_decay=0.9",
]


def kill_after(process: ScriptProcess, run: Path, step: int, number: int, *, saved: bool = False) -> tuple[int, str]:
    """Send a signal once `step` is logged and, with `saved`, a checkpoint is there: SIGKILL to the process alone, others also
    to its workers, as Ctrl-C does.

    Returns the exit status and what was printed.
    """
    deadline = time.monotonic() + 90
    while (steps_logged(run) < step or (saved and not (run / "last.pt").exists())) and process.poll() is None:
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.005)
    (os.kill if number == signal.SIGKILL else os.killpg)(process.pid, number)
    output = process.communicate(timeout=60)[0]
    return process.returncode, output.decode()


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed_equals_uninterrupted(tiny_config_file, tmp_path, workers):
    arguments = [*LONG, f"data.workers={workers}"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start_training(tiny_config_file, whole, *arguments)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output.decode()
    process = start_training(tiny_config_file, killed, *arguments)
    assert kill_after(process, killed, 5, signal.SIGKILL, saved=True)[0] == -signal.SIGKILL
    assert 0 < load_checkpoint(killed / "last.pt").step < 36
    process = start_training(tiny_config_file, killed, *arguments, "--resume")
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output.decode()
    assert b"resuming" in output
    assert_same_run(whole, killed)
    validations = [row for row in read_metrics(killed) if row["val_miou"]]
    assert len(validations) == 6
    assert all(row["val_loss"] and row["val_iou_ground"] for row in validations)


STOPPED = [(number, 128 + number) for number in STOP_SIGNALS]


@pytest.mark.parametrize(("number", "status"), STOPPED)
def test_a_stop_signal_saves_and_says_how_to_go_on(tiny_config_file, tmp_path, number, status):
    run = tmp_path / "run"
    process = start_training(tiny_config_file, run, *LONG, "train.save_every_epochs=100", "train.epochs=200", "data.workers=1")
    status_found, output = kill_after(process, run, 5, number)
    assert status_found == status, output
    step = load_checkpoint(run / "last.pt").step
    assert step >= 5
    assert f"stopped at step {step}; --resume continues" in output
    assert "Traceback" not in output
    assert "ignored" not in output


def test_two_runs_in_one_folder_have_one_winner(tiny_config_file, tmp_path):
    run = tmp_path / "run"
    first = start_training(tiny_config_file, run, *LONG, "train.epochs=2000", "data.workers=1")
    try:
        while steps_logged(run) < 1:
            time.sleep(0.01)
        second = start_training(tiny_config_file, run, *LONG, "train.epochs=2000", "--resume")
        output = second.communicate(timeout=60)[0]
        assert second.returncode == 5, output.decode()
        assert b"another command is writing" in output
    finally:
        first.kill()
        first.communicate()


@pytest.fixture(scope="module")
def reference(_tiny_data_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    """reference("train.ema_decay=0"): the last checkpoint of the run of LONG with this change, trained once."""

    @functools.cache
    def trained(change: str) -> Checkpoint:
        run = tmp_path_factory.mktemp("reference")
        train(override_config(tiny_config_for(_tiny_data_once), [*LONG, change]), run)
        return load_checkpoint(run / "last.pt")

    return trained


@pytest.mark.parametrize(
    "change", ["data.workers=2", "train.log_every_steps=7", "train.eval_every_epochs=0.5", "train.save_every_epochs=5"]
)
@pytest.mark.parametrize("ema", ["train.ema_decay=0.9", "train.ema_decay=0"])
def test_what_is_learnt_does_not_depend_on_the_schedule(reference, tiny_config, tmp_path, change, ema):
    train(override_config(tiny_config, [*LONG, ema, change]), tmp_path / "other")
    a, b = reference(ema), load_checkpoint(tmp_path / "other" / "last.pt")
    assert same(a.weights, b.weights)
    assert a.training is not None
    assert b.training is not None
    assert same(a.training["optimizer"], b.training["optimizer"])


def test_another_seed_learns_something_else(reference, tiny_config, tmp_path):
    """The negative control: the comparison can fail."""
    train(override_config(tiny_config, [*LONG, "seed=1"]), tmp_path / "other")
    assert not same(reference("train.ema_decay=0.9").weights, load_checkpoint(tmp_path / "other" / "last.pt").weights)
