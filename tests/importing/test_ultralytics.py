"""Ultralytics' polygons in shares of the picture, large ones first, and an added background."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import refused
from label_exports import lists_in, masks_in, names_in, photo, run_import

from segnet.system.errors import ExitCode

LEAF = "0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75"  # x 8..23, y 6..17 of 32×24
STEM = "1 0.5 0.5 0.625 0.5 0.625 0.625 0.5 0.625"  # inside of LEAF


def export(folder: Path, text: str = LEAF, *, names: str = "names: [leaf, stem]\n") -> Path:
    photo(folder / "images" / "train" / "a.jpg")
    (folder / "labels" / "train").mkdir(parents=True)
    (folder / "labels" / "train" / "a.txt").write_text(text)
    if names:
        (folder / "data.yaml").write_text(f"path: ../x\ntrain: images/train\n{names}")
    return folder


def test_shares_become_the_pixels_whose_centres_they_hold(tmp_path: Path) -> None:
    result = run_import(export(tmp_path / "in"), tmp_path / "out")
    assert result.title == "Ultralytics polygons"
    expected = np.zeros((24, 32), dtype=np.uint8)
    expected[6:18, 8:24] = 1
    assert np.array_equal(masks_in(tmp_path / "out")["a"], expected)
    assert names_in(tmp_path / "out") == ["background", "leaf", "stem"]
    assert lists_in(tmp_path / "out") == {"train": ["a"]}


@pytest.mark.parametrize("text", [f"{LEAF}\n{STEM}\n", f"{STEM}\n\n{LEAF}"])
def test_small_polygons_lie_over_large_ones(tmp_path: Path, text: str) -> None:
    run_import(export(tmp_path / "in", text), tmp_path / "out")
    assert masks_in(tmp_path / "out")["a"][13, 17] == 2
    run_import(tmp_path / "in", tmp_path / "last", overlap="last")
    assert masks_in(tmp_path / "last")["a"][13, 17] == (2 if text.startswith(LEAF) else 1)


def test_a_bridge_makes_a_hole(tmp_path: Path) -> None:
    ring = "0 0.1 0.1 0.9 0.1 0.9 0.9 0.1 0.9 0.1 0.1 0.3 0.3 0.3 0.7 0.7 0.7 0.7 0.3 0.3 0.3"
    run_import(export(tmp_path / "in", ring), tmp_path / "out")
    mask = masks_in(tmp_path / "out")["a"]
    assert (mask[12, 16], mask[4, 5]) == (0, 1)


@pytest.mark.parametrize(
    "names", ["names: {0: leaf, 1: stem}\n", "names:\n  1: stem\n  0: leaf\n", "nc: 2\nnames: ['leaf', 'stem']\n"]
)
def test_names_in_every_form(tmp_path: Path, names: str) -> None:
    run_import(export(tmp_path / "in", names=names), tmp_path / "out")
    assert names_in(tmp_path / "out") == ["background", "leaf", "stem"]


def test_an_appended_background_is_the_background(tmp_path: Path) -> None:
    run_import(export(tmp_path / "in", STEM, names="names: [leaf, stem, background]\n"), tmp_path / "out")
    assert names_in(tmp_path / "out") == ["background", "leaf", "stem"]
    assert masks_in(tmp_path / "out")["a"].max() == 2


def test_the_layout_of_roboflow(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "valid" / "images" / "a.jpg")
    (tmp_path / "in" / "valid" / "labels").mkdir(parents=True)
    (tmp_path / "in" / "valid" / "labels" / "a.txt").write_text(LEAF)
    (tmp_path / "in" / "data.yaml").write_text("names: [leaf]\n")
    run_import(tmp_path / "in", tmp_path / "out")
    assert lists_in(tmp_path / "out") == {"val": ["a"]}


def test_without_names_they_are_asked_for(tmp_path: Path) -> None:
    folder = export(tmp_path / "in", names="")
    with refused(ExitCode.DATA, "no YAML file with names", "--classes FILE"):
        run_import(folder, tmp_path / "out")
    (tmp_path / "classes.txt").write_text("leaf\nstem\n")
    run_import(folder, tmp_path / "out", classes=tmp_path / "classes.txt")
    assert names_in(tmp_path / "out") == ["background", "leaf", "stem"]


@pytest.mark.parametrize("empty", [True, False])
def test_an_empty_and_a_missing_file_are_asked_about(tmp_path: Path, empty: bool) -> None:
    folder = export(tmp_path / "in")
    photo(folder / "images" / "train" / "b.jpg")
    if empty:
        (folder / "labels" / "train" / "b.txt").write_text("\n")
    with refused(ExitCode.DATA, "1 of 2 pictures have no label: b"):
        run_import(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("0 0.5 0.5 0.2 0.2", "a box without a polygon"),
        ("7 0.1 0.1 0.2 0.2 0.3 0.1", "class 7 has no name"),
        ("0 0.1 0.1 0.2 0.2 0.3", "no pairs"),
        ("0 10 10 200 20 30 100", "200 is no share"),
        ("0 0.1 x 0.2 0.2 0.3 0.1", "not a class and numbers"),
        ("0 nan 0.1 0.2 0.2 0.3 0.1", "not a class and numbers"),
        ("0.5 0.1 0.1 0.2 0.2 0.3 0.1", "not a class and numbers"),
    ],
)
def test_lines_in_error_are_named(tmp_path: Path, line: str, found: str) -> None:
    with refused(ExitCode.DATA, "a.txt", "line 2", found):
        run_import(export(tmp_path / "in", f"{LEAF}\n{line}\n"), tmp_path / "out")


def test_labels_without_a_picture_and_names_in_error_are_refused(tmp_path: Path) -> None:
    folder = export(tmp_path / "in")
    (folder / "labels" / "train" / "z.txt").write_text(LEAF)
    with refused(ExitCode.DATA, "z.txt", "has no picture"):
        run_import(folder, tmp_path / "out")
    with refused(ExitCode.DATA, "no list of different names"):
        run_import(export(tmp_path / "two", names="names: [leaf, leaf]\n"), tmp_path / "out")


def test_two_files_of_labels_for_one_picture_are_refused(tmp_path: Path) -> None:
    folder = export(tmp_path / "in")
    (name,) = {path.name for path in (folder / "labels" / "train").iterdir()} & {"a.txt"}
    (folder / "labels" / "train" / "labels").mkdir()
    (folder / "labels" / "train" / "labels" / name).write_text(LEAF)
    with refused(ExitCode.DATA, "labels/train/labels/a.txt", "labels/train/a.txt is for, too"):
        run_import(folder, tmp_path / "out")
