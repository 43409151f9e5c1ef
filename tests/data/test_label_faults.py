"""Splits of one class, and classes that training never shows, are said by every command."""

from __future__ import annotations

import os
from pathlib import Path

from data_sets import all_commands, every_mask, list_of, mask_of, run_in_process


def test_a_train_split_of_one_class_teaches_nothing(
    tiny_data: Path, tiny_config_file: Path, tiny_run: Path, tmp_path: Path
) -> None:
    every_mask(tiny_data, "train", [2])
    said = all_commands(tiny_config_file, tiny_run, tmp_path / "new")
    said["overfit"] = run_in_process("train", tiny_config_file, "--overfit-one-batch", "1")
    for command in ("check", "train", "overfit"):
        assert "train.txt: its masks show nothing but 'disc', which a network learns to answer everywhere" in said[command], said
    assert not (tmp_path / "new").exists()


def test_a_val_split_of_one_class_is_scored_with_a_warning(
    tiny_data: Path, tiny_config_file: Path, tiny_run: Path, tmp_path: Path
) -> None:
    every_mask(tiny_data, "val", [0])
    for said in all_commands(tiny_config_file, tiny_run, tmp_path / "new").values():
        assert "warning: " in said
        assert "val.txt: its masks show nothing but 'ground': a network that answers it everywhere scores 100" in said
        assert "error" not in said


def test_a_class_that_training_never_shows_is_a_warning(
    tiny_data: Path, tiny_config_file: Path, tiny_run: Path, tmp_path: Path
) -> None:
    every_mask(tiny_data, "train", [0, 1])
    for said in all_commands(tiny_config_file, tiny_run, tmp_path / "new").values():
        assert "val.txt: its masks show disc, and none of train does: no network can learn that" in said
        assert "error" not in said
    assert "its masks show" not in run_in_process(
        "prepare_data", "check", tiny_config_file, "--split", "val"
    )  # train was not read
    mask_of(tiny_data, "train").unlink()
    os.mkfifo(mask_of(tiny_data, "train"))  # what is not scored is not opened, nor a reason to stop
    assert "none of train does" in run_in_process("evaluate", tiny_run)
    list_of(tiny_data, "train").unlink()
    assert run_in_process("evaluate", tiny_run) == ""


def test_a_split_may_lack_classes_that_training_shows(
    tiny_data: Path, tiny_config_file: Path, tiny_run: Path, tmp_path: Path
) -> None:
    every_mask(tiny_data, "val", [0, 1])
    said = all_commands(tiny_config_file, tiny_run, tmp_path / "new")
    assert said.pop("check").strip().endswith("val.txt: no pixel of disc – check whether this is intended")
    assert set(said.values()) == {""}
