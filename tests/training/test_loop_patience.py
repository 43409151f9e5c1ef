"""A run ends where its score has been no better for a while, says so, and may go on."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import assert_same_run, folder_bytes, read_metrics

from segnet.config.loading import override_config
from segnet.config.sections import Config
from segnet.runs.checkpoint import load_checkpoint
from segnet.tasks.task import Best
from segnet.training.loop import train

SCORES = [0.1, 0.3, 0.2, 0.3, 0.4, 0.1]  # of the evaluations after each of six epochs; an equal score is no better one


@pytest.fixture
def config(tiny_config: Config) -> Config:
    """Six epochs of three steps, an evaluation after each."""
    return override_config(tiny_config, ["train.epochs=6", "train.eval_every_epochs=1", "train.save_every_epochs=6"])


def run(config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch, scores: list[float], *, resume: bool = False) -> None:
    """Train with `scores` in place of the true ones; those that are not asked for are left."""
    monkeypatch.setattr(Best, "rank", lambda self, measures: scores.pop(0))
    train(config, folder, resume=resume)


def test_it_ends_says_why_and_goes_on_with_more_patience(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(config, tmp_path / "whole", monkeypatch, [*SCORES])
    impatient, scores, folder = override_config(config, ["train.patience=2"]), [*SCORES], tmp_path / "ended"
    capsys.readouterr()
    run(impatient, folder, monkeypatch, scores)
    said = capsys.readouterr().out
    assert "stopped at step 12 of 18: no better score for 2 epochs (train.patience), the best is that of step 6" in said
    assert "the schedule was cut at a learning rate of" in said
    assert "with train.epochs=4 it would end here" in said
    assert scores == SCORES[4:]
    assert (load_checkpoint(folder / "last.pt").step, load_checkpoint(folder / "best.pt").step) == (12, 6)
    before = folder_bytes(folder)
    run(impatient, folder, monkeypatch, scores, resume=True)
    assert "the run has ended: no better score for 2 epochs (train.patience)" in capsys.readouterr().out
    assert folder_bytes(folder) == before
    run(override_config(config, ["train.patience=5"]), folder, monkeypatch, scores, resume=True)
    assert scores == []
    assert_same_run(tmp_path / "whole", folder)


def test_a_stopped_run_ends_at_the_same_step(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Step by step: what it waits for is kept in the checkpoint."""
    scores = [*SCORES]
    limited = override_config(config, ["train.patience=2", "train.max_minutes=1e-9"])
    for _ in range(14):
        run(limited, tmp_path / "run", monkeypatch, scores, resume=True)
    assert load_checkpoint(tmp_path / "run" / "last.pt").step == 12
    assert scores == SCORES[4:]
    assert sum(row["val_miou"] != "" for row in read_metrics(tmp_path / "run")) == 4


def test_a_constant_rate_is_not_cut_and_a_damaged_best_network_gives_time(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = override_config(config, ["train.patience=1", "optim.schedule=constant"])
    run(config, tmp_path / "run", monkeypatch, [0.3, 0.2])
    said = capsys.readouterr().out
    assert "stopped at step 6 of 18" in said
    assert "the schedule was cut" not in said
    (tmp_path / "run" / "best.pt").unlink()
    run(config, tmp_path / "run", monkeypatch, [0.1, 0.0], resume=True)
    assert load_checkpoint(tmp_path / "run" / "best.pt").step == 9, "the best network from there on"
    assert load_checkpoint(tmp_path / "run" / "last.pt").step == 12
