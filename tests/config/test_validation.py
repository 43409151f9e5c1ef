"""Every mistake comes at once, each with its file and line, and an unknown key with the nearest one."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_files import BASE, write_config
from helpers import refused

from segnet.config.loading import load_config
from segnet.system.errors import ExitCode, UserError

Usage = ExitCode.CONFIG


def test_every_mistake_at_once_each_with_file_and_line(tmp_path: Path) -> None:
    base = write_config(tmp_path, "BASE\ntrain:\n  batch_size: 0\n", "below.yaml")
    path = write_config(tmp_path, "base: below.yaml\ntrain:\n  epoch: 5\noptim:\n\n  lr: -1\n  name: adam\nzzz: 1\n")
    with pytest.raises(UserError) as caught:
        load_config(path, ["inference.flip=3", "seed=1.5"])
    lines = str(caught.value).splitlines()
    expected = {
        f"{base}, line 3: train.batch_size: found 0, should be greater than or equal to 1",
        f"{path}, line 3: train.epoch: unknown key – did you mean 'epochs'?",
        f"{path}, line 6: optim.lr: found -1, should be greater than 0",
        f"{path}, line 7: optim.name: found 'adam', should be 'sgd' or 'adamw'",
        f"{path}, line 8: zzz: unknown key – known here: "
        "seed, device, task, model, data, augment, noise, loss, optim, train, inference",
        "inference.flip=3: inference.flip: found 3, should be 'none', 'horizontal' or 'dihedral'",
        "seed=1.5: seed: found 1.5, should be a valid integer",
    }
    assert set(lines) == expected
    assert len(lines) == len(expected)


@pytest.mark.parametrize(
    ("key", "close"),
    [
        ("trian", "train"),
        ("train.batchsize", "batch_size"),
        ("model.normalization.means", "mean"),
        ("model.decoder_rlu", "decoder_relu"),
        ("data.class", "classes"),
        ("train.seed", "seed"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_one(key: str, close: str) -> None:
    with refused(Usage, f"{key}: unknown key", f"did you mean '{close}'?"):
        load_config(BASE, [f"{key}=1"])


def test_an_unknown_key_of_a_stage(tmp_path: Path) -> None:
    text = "BASE\nmodel:\n  encoder:\n    - widths: [4]\n      drop: 0.5\n  decoder:\n    - widths: [4]\n"
    with refused(Usage, "line 5: model.encoder.0.drop: unknown key", "did you mean 'dropout'?"):
        load_config(write_config(tmp_path, text))


def test_a_long_value_is_not_echoed_in_full(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_config(write_config(tmp_path, f"BASE\nseed: {'a' * 100_000}\n"))
    assert len(str(caught.value)) < 400


def test_sections_that_have_no_default_must_be_there(tmp_path: Path) -> None:
    with refused(Usage, "model: missing", "data: missing"):
        load_config(write_config(tmp_path, "seed: 1\n"))
