"""Cityscapes' folders: names that differ on both sides, ids of the benchmark, a test split without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import refused
from label_exports import lists_in, masks_in, names_in, photo, run_import, write_array

from segnet.system.errors import ExitCode

IDS = np.zeros((24, 32), dtype=np.uint8)
IDS[:, :4], IDS[:, 4:8], IDS[:, 8:12], IDS[0, 31] = 7, 33, 29, 255  # road, bicycle, caravan, licence plate


def export(folder: Path, split: str = "train", city: str = "aachen", *, kind: str = "labelIds", mask: np.ndarray = IDS) -> Path:
    stem = f"{city}_000000_000019"
    photo(folder / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
    write_array(folder / "gtFine" / split / city / f"{stem}_gtFine_{kind}.png", mask)
    return folder


def test_ids_become_the_classes_of_the_benchmark(tmp_path: Path) -> None:
    export(tmp_path / "in", "val", "bonn")
    result = run_import(export(tmp_path / "in"), tmp_path / "out")
    assert result.title == "Cityscapes"
    mask = masks_in(tmp_path / "out")["aachen_000000_000019"]
    assert [int(mask[5, column]) for column in (0, 4, 8, 20)] == [0, 18, 255, 255]
    assert mask[0, 31] == 255
    assert (names_in(tmp_path / "out")[0], len(names_in(tmp_path / "out"))) == ("road", 19)
    assert lists_in(tmp_path / "out") == {"train": ["aachen_000000_000019"], "val": ["bonn_000000_000019"]}


def test_train_ids_are_read_where_there_are_no_others(tmp_path: Path) -> None:
    mask = np.where(IDS == 7, 18, 255).astype(np.uint8)
    run_import(export(tmp_path / "in", kind="labelTrainIds", mask=mask), tmp_path / "out")
    assert np.array_equal(masks_in(tmp_path / "out")["aachen_000000_000019"], mask)


def test_label_ids_are_preferred(tmp_path: Path) -> None:
    export(tmp_path / "in", kind="labelTrainIds", mask=np.zeros_like(IDS))
    run_import(export(tmp_path / "in"), tmp_path / "out")
    assert masks_in(tmp_path / "out")["aachen_000000_000019"][5, 4] == 18


def test_the_test_split_has_no_labels_and_is_asked_about(tmp_path: Path) -> None:
    export(tmp_path / "in", "test", "berlin", mask=np.full((24, 32), 3, dtype=np.uint8))
    folder = export(tmp_path / "in")
    with refused(ExitCode.DATA, "1 of 2 pictures have no label: berlin_000000_000019"):
        run_import(folder, tmp_path / "out")
    run_import(folder, tmp_path / "out", unlabelled="skip")
    assert list(lists_in(tmp_path / "out")) == ["train"]


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
def test_other_ids_are_refused(tmp_path: Path, kind: str) -> None:
    mask = IDS.copy()
    mask[:, :9] = 0
    mask[3, 3] = 77
    mask[4, 4:9] = 11
    with refused(ExitCode.DATA, "77 (1 pixels)"):
        run_import(export(tmp_path / "in", kind=kind, mask=mask), tmp_path / "out")


def test_masks_without_their_picture_are_refused(tmp_path: Path) -> None:
    folder = export(tmp_path / "in")
    (folder / "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png").unlink()
    with refused(ExitCode.DATA, "aachen_000000_000019_leftImg8bit.png is missing"):
        run_import(folder, tmp_path / "out")
