"""Several runs as one: the mean of their probabilities, in every view and window."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CLASSES, ROOT, refused

from segnet.config.loading import override_config
from segnet.config.sections import Config
from segnet.inference.ensemble import Ensemble
from segnet.inference.loaded_model import load_models
from segnet.inference.predictor import Predictor
from segnet.models.initialization import build_model
from segnet.runs.checkpoint import Checkpoint, save_checkpoint
from segnet.system.errors import ExitCode

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tiny_config: Config, tmp_path: Path) -> MakeRun:
    """make_run("a", "data.classes=[…]"): a run folder with a random network of its own."""

    def make(name: str, *overrides: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        torch.manual_seed(sum(name.encode()))
        config = override_config(tiny_config, overrides)
        weights = build_model(config.model, len(config.data.class_set), config.data.channels).state_dict()
        save_checkpoint(folder / "best.pt", Checkpoint(config, step=0, score=None, weights=dict(weights)))
        return folder

    return make


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("settings", [[], ["inference.flip=horizontal", "inference.scales=[0.5,1]"]])
def test_the_probabilities_are_the_mean_of_those_of_the_runs(make_run: MakeRun, settings: list[str]) -> None:
    runs = [make_run("a"), make_run("b"), make_run("c", "model.encoder=[{widths: [3]}]", "model.decoder=[{widths: [4]}]")]
    options = ["device=cpu", "inference.precision=float32", *settings]
    alone = [Predictor(run, options).predict(noise(21, 33), probabilities=True).probabilities for run in runs]
    found = Predictor(runs, options).predict(noise(21, 33), probabilities=True)
    np.testing.assert_allclose(found.probabilities, sum(alone) / 3, atol=1e-6)
    assert np.array_equal(found.mask, found.probabilities.argmax(0))
    assert not np.array_equal(found.mask, alone[0].argmax(0))


def test_windows_fit_the_network_that_needs_most(make_run: MakeRun) -> None:
    runs = [make_run("c", "model.encoder=[{widths: [3]}]", "model.decoder=[{widths: [4]}]"), make_run("a")]
    model = load_models(runs).model
    assert isinstance(model, Ensemble)
    assert (model.total_stride, model.num_classes) == (4, 3)
    whole = Predictor(runs, ["device=cpu"]).predict(noise(70, 90))
    cut = Predictor(runs, ["device=cpu", "inference.window=48", "inference.overlap=24"]).predict(noise(70, 90))
    assert np.array_equal(whole.mask, cut.mask)


def test_other_weights_are_another_digest(make_run: MakeRun) -> None:
    a, b, c = (make_run(name) for name in "abc")
    digests = {Predictor(runs, ["device=cpu"]).weights_digest for runs in ([a], [b], [a, b], [a, c], [b, a])}
    assert len(digests) == 5
    assert Predictor([a], ["device=cpu"]).weights_digest == Predictor(a, ["device=cpu"]).weights_digest


def test_networks_for_other_classes_or_bands_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    other = make_run("b", f"data.classes=[{', '.join(reversed(CLASSES))}]")
    with refused(ExitCode.CONFIG, "best.pt: has other classes than", "trained for the same task"):
        load_models([make_run("a"), other])
    with refused(ExitCode.CONFIG, "c/best.pt: sees pictures as", "channels=1", "channels=3"):
        load_models([tmp_path / "a", make_run("c", "data.channels=1", "model.normalization={mean: [0], std: [1]}")])


def test_several_runs_are_evaluated_as_one(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    runs, out = [str(make_run("a")), str(make_run("b"))], tmp_path / "scores"

    def evaluate(*arguments: str) -> object:
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments, "device=cpu"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "scripts" / "evaluate.py"), run_name="__main__")
        return ended.value.code

    assert evaluate(*runs) == ExitCode.CONFIG
    assert "--out: missing" in capsys.readouterr().err
    assert evaluate(*runs, "--out", str(out)) == 0
    assert evaluate(runs[0]) == 0
    of_one = json.loads((Path(runs[0]) / "evaluation" / "val" / "metrics.json").read_text())
    assert json.loads((out / "metrics.json").read_text())["miou"] != of_one["miou"]
