"""What a run says of its batches."""

import torch
from helpers import read_metrics

from segnet.config.loading import override_config
from segnet.data import dataset
from segnet.data.mask_files import save_mask
from segnet.training.loop import train


def test_batches_without_a_scored_pixel_are_counted(tiny_config, tiny_data, tiny_classes, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dataset, "label_faults", lambda *_: [])  # which refuses a whole split of them
    for index in range(6):
        save_mask(tiny_data / "SegmentationClass" / f"train_{index}.png", torch.full((32, 32), 255), tiny_classes)
    train(override_config(tiny_config, ["train.log_every_steps=3"]), tmp_path / "run")
    assert capsys.readouterr().err.count("warning: 3 of the last 3 batches had no scored pixel") == 2
    assert {row["loss"] for row in read_metrics(tmp_path / "run")} == {"0.0", ""}
