"""Pseudo-labels: masks that are ignored where the network is not sure, at the temperature that was fitted for it."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT
from PIL import Image
from predictions import RunInFork

from segnet.inference.predictor import Predictor
from segnet.prediction.inputs import plan_jobs
from segnet.prediction.outputs import Options
from segnet.prediction.pipeline import predict_jobs
from segnet.system.errors import ExitCode


def test_pixels_below_are_ignored(predictor: Predictor, pictures: Path, tmp_path: Path) -> None:
    jobs = plan_jobs([str(pictures)], tmp_path / "out")
    list(predict_jobs(predictor, jobs, tmp_path / "out", save=["mask"], options=Options(below=0.4)))
    for job in jobs:
        expected, found = predictor.predict(job.picture), np.asarray(Image.open(f"{job.output}.png"))
        unsure = expected.confidence < 0.4
        assert 0 < unsure.mean() < 1
        assert (found[unsure] == 255).all()
        assert np.array_equal(found[~unsure], expected.mask[~unsure])


def test_the_command_needs_and_uses_the_fitted_temperature(
    tiny_run: Path, pictures: Path, tmp_path: Path, run_in_fork: RunInFork, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = run_in_fork(tiny_run, pictures, "--out", tmp_path / "none", "--below", "0.5")
    assert command.wait() == ExitCode.DATA
    assert "temperature.json: no temperature is fitted" in command.text()
    monkeypatch.setattr(sys, "argv", ["evaluate.py", str(tiny_run), "--calibrate", "device=cpu"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts" / "evaluate.py"), run_name="__main__")
    assert ended.value.code == 0
    temperature = json.loads((tiny_run / "evaluation" / "val" / "temperature.json").read_text())["temperature"]
    assert temperature != 1
    command = run_in_fork(tiny_run, pictures, "--out", tmp_path / "out", "--below", "0.34")
    assert command.wait() == 0, command.text()
    expected = Predictor(tiny_run, ["device=cpu", f"inference.temperature={temperature}"]).predict(pictures / "0.png")
    found = np.asarray(Image.open(tmp_path / "out" / "0.png"))
    assert np.array_equal(found, np.where(expected.confidence < 0.34, 255, expected.mask))
    command = run_in_fork(tiny_run, pictures, "--out", tmp_path / "own", "--below", "0.5", "inference.temperature=2")
    assert command.wait() == 0, command.text()
