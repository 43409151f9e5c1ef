"""The precision that auto chooses is that of the whole run."""

import json

import pytest
import torch
from helpers import assert_same_run, refused, same

from segnet.config.loading import load_config, override_config
from segnet.inference import precision
from segnet.inference.loaded_model import load_model
from segnet.layers.native import Found
from segnet.runs.checkpoint import load_checkpoint
from segnet.system import devices
from segnet.system.errors import ExitCode
from segnet.training.loop import train
from segnet.training.precision import resolve_precisions


@pytest.fixture
def bfloat16_instructions(monkeypatch):
    """Says whether the processor has them. There is no compiled kernel."""

    def pretend(there: bool) -> None:
        monkeypatch.setattr(devices, "_has_bfloat16_instructions", lambda: there)
        devices._fast_precision.cache_clear()

    monkeypatch.setattr(precision, "find_kernel", lambda: Found(None, ""))
    yield pretend
    devices._fast_precision.cache_clear()


def test_validation_in_float32_where_the_compiled_kernel_is_faster(tiny_config, tmp_path, bfloat16_instructions, monkeypatch):
    bfloat16_instructions(True)
    monkeypatch.setattr(precision, "processor_features", lambda: {"avx512_bf16"})
    monkeypatch.setattr(precision, "find_kernel", lambda: Found(object(), ""))
    config = override_config(tiny_config, ["train.precision=auto", "inference.precision=auto", "train.max_minutes=1e-9"])
    train(config, tmp_path / "run")
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["precision"] == {"train": "bfloat16", "inference": "float32"}
    checkpoint = load_checkpoint(tmp_path / "run" / "last.pt")
    assert checkpoint.config.inference.precision == "auto"
    monkeypatch.setattr(precision, "find_kernel", lambda: Found(None, ""))
    config, stored = resolve_precisions(config, torch.device("cpu"), checkpoint)  # a resumed run keeps it
    assert (config.inference.precision, stored.inference.precision) == ("float32", "auto")


@pytest.mark.parametrize(("there", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_the_run_holds_the_precision_that_auto_chose(tiny_config, tmp_path, bfloat16_instructions, there, expected):
    bfloat16_instructions(there)
    config = override_config(tiny_config, ["train.precision=auto", "inference.precision=auto", "train.epochs=1"])
    train(config, tmp_path / "run")
    written = load_config(tmp_path / "run" / "config.yaml")
    assert (written.train.precision, written.inference.precision) == (expected, expected)
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["precision"] == {"train": expected, "inference": expected}
    train(override_config(tiny_config, [f"train.precision={expected}", "train.epochs=1"]), tmp_path / "explicit")
    auto, explicit = (load_checkpoint(tmp_path / name / "last.pt") for name in ("run", "explicit"))
    assert same(auto.weights, explicit.weights)
    bfloat16_instructions(not there)  # evaluation and prediction choose for the machine that they run on
    assert load_model(tmp_path / "run").config.inference.precision == "auto"


def test_a_resumed_run_keeps_its_precision_on_another_processor(tiny_config, tmp_path, bfloat16_instructions, capsys):
    config = override_config(tiny_config, ["train.precision=auto", "inference.precision=auto", "train.save_every_epochs=1"])
    bfloat16_instructions(True)
    train(config, tmp_path / "whole")
    first_half = override_config(config, ["train.max_minutes=1e-9"])
    train(first_half, tmp_path / "moved")
    capsys.readouterr()
    bfloat16_instructions(False)
    train(config, tmp_path / "moved", resume=True)
    said = capsys.readouterr()
    assert "in bfloat16" in said.out
    assert said.err.count("train.precision=bfloat16 is emulated") == 1
    assert_same_run(tmp_path / "whole", tmp_path / "moved")


def test_another_precision_than_that_of_the_run_is_refused(tiny_config, tmp_path):
    train(override_config(tiny_config, ["train.max_minutes=1e-9"]), tmp_path / "run")
    with refused(ExitCode.CHECKPOINT, "train.precision (float32, now bfloat16)"):
        train(override_config(tiny_config, ["train.precision=bfloat16"]), tmp_path / "run", resume=True)
