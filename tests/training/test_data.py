"""The splits of a run are refused before its folder exists, where they cannot teach or be scored."""

import pytest
import torch
from helpers import refused, write_split

from segnet.config.loading import override_config
from segnet.data import dataset
from segnet.data.mask_files import save_mask
from segnet.inference.loaded_model import load_model
from segnet.system.errors import ExitCode
from segnet.training.loop import train


@pytest.mark.parametrize("changes", [["data.val_split=train"], []])
def test_scoring_on_pictures_that_are_learnt_is_refused(changes, tiny_config, tiny_data, tmp_path):
    if not changes:
        write_split(tiny_data, "val", ["val_0", "train_0", "train_3"])
    with refused(ExitCode.DATA, "both 'train'" if changes else "val.txt: 2 pictures are in train as well: train_0, train_3"):
        train(override_config(tiny_config, changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_missing_data_is_said_before_the_run_folder_exists(tiny_config, tmp_path):
    with refused(ExitCode.DATA, "no such file"):
        train(override_config(tiny_config, ["data.root=/nowhere"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_val_split_without_a_scored_pixel_is_refused_and_would_still_end_with_a_network(
    tiny_config, tiny_data, tiny_classes, tmp_path, monkeypatch
):
    for name in ("val_0", "val_1", "val_2"):
        save_mask(tiny_data / "SegmentationClass" / f"{name}.png", torch.full((32, 32), 255), tiny_classes)
    with refused(ExitCode.DATA, "val.txt: its masks are 255 everywhere"):
        train(tiny_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(dataset, "label_faults", lambda *_: [])  # as when the masks change under the run
    train(tiny_config, tmp_path / "run")
    assert load_model(tmp_path / "run", ["device=cpu"]).config == tiny_config
