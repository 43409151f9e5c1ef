"""Fixtures of the prediction tests: a predictor, a folder of pictures, the command in a fork."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from helpers import write_picture
from predictions import Fork, RunInFork, predict_script

from segnet.inference.predictor import Predictor


@pytest.fixture(params=[1, 3], ids=["one core", "three cores"])
def predictor(tiny_run: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    """A network that sees one small picture after another, or one on each core."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: request.param)
    return Predictor(tiny_run, ["device=cpu"])


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of four pictures, of different sizes."""
    for number in range(4):
        write_picture(tmp_path / "in" / f"{number}.png", (9 + number, 12), seed=number)
    return tmp_path / "in"


@pytest.fixture
def run_in_fork(tmp_path: Path) -> RunInFork:
    """run_in_fork(run, folder, "--out", out): scripts/predict.py in a fork, which need not import torch again."""
    numbers = itertools.count()
    return lambda *arguments: Fork(lambda: predict_script(arguments), tmp_path / f"output{next(numbers)}.txt")
