"""ADE20K's scene parsing folders: 0 is not scored, the other values are the classes from 1 on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import refused
from label_exports import lists_in, masks_in, names_in, photo, run_import, write_array

from segnet.system.errors import ExitCode

TABLE = "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1576\t11664\t1172\t1\twall\n2\t0.1072\t6046\t612\t1\tbuilding, edifice\n"
MASK = np.zeros((24, 32), dtype=np.uint8)
MASK[2:9, 3:9], MASK[10:20, 5:7] = 1, 2


def export(folder: Path, mask: np.ndarray = MASK, table: str = TABLE) -> Path:
    for split, name in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
        photo(folder / "images" / split / f"{name}.jpg", seed=len(split))
        write_array(folder / "annotations" / split / f"{name}.png", mask)
    if table:
        (folder / "objectInfo150.txt").write_text(table)
    return folder


def test_values_become_ids_from_0_and_0_is_ignored(tmp_path: Path) -> None:
    result = run_import(export(tmp_path / "in"), tmp_path / "out")
    assert result.title == "ADE20K scene parsing"
    expected = MASK - np.uint8(1)  # 0 becomes 255
    assert np.array_equal(masks_in(tmp_path / "out")["training/ADE_train_00000001"], expected)
    assert names_in(tmp_path / "out") == ["wall", "building, edifice"]
    assert list(lists_in(tmp_path / "out")) == ["train", "val"]
    assert result.ignored == 2 * int((MASK == 0).sum())


def test_names_from_a_file_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("wall\nbuilding\n")
    folder = export(tmp_path / "in", table="")
    with refused(ExitCode.DATA, "no file names the classes", "objectInfo150.txt"):
        run_import(folder, tmp_path / "out")
    run_import(folder, tmp_path / "out", classes=tmp_path / "names.txt")
    assert names_in(tmp_path / "out") == ["wall", "building"]


@pytest.mark.parametrize("value", [3, 4, 255])
def test_values_without_a_name_are_refused(tmp_path: Path, value: int) -> None:
    mask = MASK.copy()
    mask[0, 0] = value
    if value == 255:
        run_import(export(tmp_path / "in", mask), tmp_path / "out")
        return
    with refused(ExitCode.DATA, f"ids {value} (1 pixels)"):
        run_import(export(tmp_path / "in", mask), tmp_path / "out")


def test_a_table_in_another_order_and_orphans_are_refused(tmp_path: Path) -> None:
    folder = export(tmp_path / "in", table=TABLE.replace("2\t0.1072", "7\t0.1072"))
    with refused(ExitCode.DATA, "line 3: number 7, expected 2"):
        run_import(folder, tmp_path / "out")
    folder = export(tmp_path / "two")
    (folder / "images/training/ADE_train_00000001.jpg").unlink()
    with refused(ExitCode.DATA, "is a mask without a picture"):
        run_import(folder, tmp_path / "out")
