"""The report of a check, for people and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_sets import COLORED, list_of, mask_of, move_out, run_in_process, save_picture
from helpers import CLASSES, RunScript

from segnet.classes import ClassSet, class_set
from segnet.data.check_report import fault_lines, report_json, report_table
from segnet.data.checking import check_dataset
from segnet.data.dataset import SegmentationDataset
from segnet.data.layout import mask_path
from segnet.system.errors import UserError


def test_the_command_on_a_folder(run_script: RunScript, tiny_data: Path, tmp_path: Path) -> None:
    (tiny_data / "classes.yaml").write_text(f"names: [{', '.join(CLASSES)}]\n")
    mask_of(tiny_data, "val").unlink()
    found = run_script("prepare_data", "check", tiny_data, "--json", tmp_path / "report.json")
    assert found.returncode == 3
    assert [line for line in found.stderr.splitlines() if not line.startswith("error: ")] == []
    assert "SegmentationClass/val_1.png: mask is missing" in found.stderr
    assert "train: 6 pictures" in found.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert [Path(fault["path"]).name for fault in report["faults"]] == ["val_1.png"]
    assert [(split["name"], split["pictures"]) for split in report["splits"]] == [("train", 6), ("val", 3)]
    assert run_in_process("prepare_data", "check", tiny_data, "--split", "train") == ""


def test_what_one_command_cures_is_one_line_a_split_before_the_warnings(run_script: RunScript, tiny_data: Path) -> None:
    (tiny_data / "classes.yaml").write_text(f"names: [{', '.join(CLASSES)}]\n")
    for name in ("train_1", "train_2", "val_0", "val_1", "val_2"):
        save_picture(COLORED, tiny_data / "SegmentationClass" / f"{name}.png")
    for name in ("train_3", "train_4"):
        move_out(tiny_data / "JPEGImages" / f"{name}.jpg", tiny_data)
    found = run_script("prepare_data", "check", tiny_data)
    lists, masks = tiny_data / "ImageSets/Segmentation", tiny_data / "SegmentationClass"
    assert found.returncode == 3
    linked, colored, val, *warnings = found.stderr.splitlines()
    links = f"{tiny_data}/JPEGImages/train_3.jpg, train_4.jpg"
    assert linked.startswith(f"error: {lists}/train.txt: 2 files, such as {links}: is a link out of")
    of_train, of_val = f"{masks}/train_1.png, train_2.png", f"{masks}/val_0.png, val_1.png, val_2.png"
    assert colored.startswith(f"error: {lists}/train.txt: 2 files, such as {of_train}: a mask in mode RGB; expected")
    assert val.startswith(f"error: {lists}/val.txt: 3 files, such as {of_val}: a mask in mode RGB; expected")
    assert all(line.startswith("warning: ") for line in warnings)
    assert "7 faults" in found.stdout
    with pytest.raises(UserError, match=r"train.txt: 2 files, such as .*train_4.jpg: is a link out of the data folder, to "):
        SegmentationDataset(tiny_data, "train", class_set(CLASSES))


def test_many_faults_of_one_cause_are_one_line_until_asked(tiny_data: Path, tmp_path: Path) -> None:
    (tiny_data / "classes.yaml").write_text(f"names: [{', '.join(CLASSES)}]\n")
    for index in range(5):
        mask_path(tiny_data, f"train_{index}").unlink()
    mask_of(tiny_data, "val").write_bytes(b"")
    said = run_in_process("prepare_data", "check", tiny_data, "--json", tmp_path / "report.json")
    merged, single = (line for line in said.splitlines() if line.startswith("error: "))
    masks = tiny_data / "SegmentationClass"
    examples = f"{masks}/train_0.png, train_1.png, train_2.png"
    assert merged.startswith(f"error: {list_of(tiny_data, 'train')}: 5 files, such as {examples}: mask is missing")
    assert single.startswith(f"error: {mask_of(tiny_data, 'val')}: not a readable picture")
    assert len(json.loads((tmp_path / "report.json").read_text())["faults"]) == 6
    assert run_in_process("prepare_data", "check", tiny_data, "--verbose").count(": mask is missing") == 5


def test_a_missing_folder_is_named_once_and_not_for_each_split(tmp_path: Path, tiny_classes: ClassSet) -> None:
    report = check_dataset(tmp_path / "gone", ["train", "val"], tiny_classes)
    (line,) = fault_lines(report)
    assert line.startswith(f"error: {tmp_path}/gone: no such folder – prepare the data")
    assert report_table(report) == ""
    assert json.loads(report_json(report))["splits"] == []
