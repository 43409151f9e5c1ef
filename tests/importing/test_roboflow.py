"""Roboflow's semantic masks: a table with a blank before each name, valid in place of val."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import refused
from label_exports import lists_in, masks_in, names_in, photo, run_import, write_array, zipped

from segnet.system.errors import ExitCode

TABLE = "Pixel Value, Class\n0, background\n1, leaf\n2, old stem\n"
MASK = np.zeros((24, 32), dtype=np.uint8)
MASK[2:9, 3:9], MASK[10:20, 5:7] = 1, 2


def export(folder: Path, table: str = TABLE, mask: np.ndarray = MASK) -> Path:
    for split in ("train", "valid", "test"):
        photo(folder / split / f"{split}_jpg.rf.0a1b.jpg", seed=len(split))
        write_array(folder / split / f"{split}_jpg.rf.0a1b_mask.png", mask)
        (folder / split / "_classes.csv").write_text(table)
    return folder


@pytest.mark.parametrize("packed", [True, False])
def test_ids_names_and_lists(tmp_path: Path, packed: bool) -> None:
    folder = export(tmp_path / "in")
    result = run_import(zipped(folder) if packed else folder, tmp_path / "out")
    assert result.title == "Roboflow semantic masks"
    assert names_in(tmp_path / "out") == ["background", "leaf", "old stem"]
    assert all(np.array_equal(mask, MASK) for mask in masks_in(tmp_path / "out").values())
    names = {"test": "test/test", "train": "train/train", "val": "valid/valid"}
    assert lists_in(tmp_path / "out") == {split: [f"{name}_jpg.rf.0a1b"] for split, name in names.items()}


def test_values_with_gaps_become_ids_without(tmp_path: Path) -> None:
    run_import(export(tmp_path / "in", "Pixel Value, Class\n0, background\n1, leaf\n7, stem\n", MASK // 2 * 7), tmp_path / "out")
    assert names_in(tmp_path / "out") == ["background", "leaf", "stem"]
    assert np.array_equal(masks_in(tmp_path / "out")["train/train_jpg.rf.0a1b"], MASK // 2 * 2)


def test_a_value_of_a_gap_is_refused(tmp_path: Path) -> None:
    """The third class has the value 7, so that 2 is not its id."""
    with refused(ExitCode.DATA, "ids 2 (20 pixels)", "_classes.csv"):
        run_import(export(tmp_path / "in", "Pixel Value, Class\n0, background\n1, leaf\n7, stem\n"), tmp_path / "out")


def test_a_picture_without_a_mask_is_asked_about(tmp_path: Path) -> None:
    folder = export(tmp_path / "in")
    photo(folder / "train" / "b.jpg")
    with refused(ExitCode.DATA, "1 of 4 pictures have no label: train/b"):
        run_import(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ("Pixel Value, Class\n0, background\n1, leaf\n", "ids 2 (20 pixels)"),
        ("Pixel Value, Class\n0, background\nx, leaf\n", "line 3: no value"),
        ("Pixel Value, Class\n0, background\n1,\n", "line 3: no value"),
        ("Pixel Value, Class\n0, leaf\n1, leaf\n", "line 3: 'leaf' or its value stands there twice"),
        ("Pixel Value, Class\n0, a\n255, b\n", "line 3: no value"),
        ("Pixel Value, Class\n" + "1" * 5000 + ", leaf\n", "line 2: no value"),
        ("Pixel Value, Class\n1, " + "a" * 200_000 + "\n", "is no table"),
        ("", "no classes in it"),
    ],
)
def test_tables_in_error_are_refused(tmp_path: Path, table: str, found: str) -> None:
    with refused(ExitCode.DATA, found):
        run_import(export(tmp_path / "in", table), tmp_path / "out")


def test_tables_that_differ_and_orphans_are_refused(tmp_path: Path) -> None:
    folder = export(tmp_path / "in")
    (folder / "train" / "train_jpg.rf.0a1b.jpg").unlink()
    with refused(ExitCode.DATA, "is a mask without a picture"):
        run_import(folder, tmp_path / "out")
    (folder / "valid" / "_classes.csv").write_text(TABLE.replace("leaf", "petal"))
    with refused(ExitCode.DATA, "valid/_classes.csv", "other classes"):
        run_import(folder, tmp_path / "out")
