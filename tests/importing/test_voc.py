"""Pascal VOC's folders with masks of colours or of ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from helpers import refused
from label_exports import lists_in, masks_in, names_in, photo, run_import, write_array
from PIL import Image

from segnet.classes import VOC
from segnet.system.errors import ExitCode

MASK = np.zeros((24, 32), dtype=np.uint8)
MASK[2:9, 3:9], MASK[10:20, 5:7], MASK[0, 0] = 1, 15, 255


def in_colors(mask: np.ndarray) -> np.ndarray:
    table = np.array([*VOC.colors, *[(224, 224, 192)] * (256 - len(VOC))], dtype=np.uint8)
    return table[mask]


def export(folder: Path, mask: np.ndarray) -> Path:
    photo(folder / "JPEGImages" / "a.jpg")
    write_array(folder / "SegmentationClass" / "a.png", mask)
    return folder


def test_colors_of_vocs_table_need_no_file(tmp_path: Path) -> None:
    result = run_import(export(tmp_path / "in", in_colors(MASK)), tmp_path / "out")
    assert result.title == "Pascal VOC"
    assert np.array_equal(masks_in(tmp_path / "out")["a"], MASK)
    assert names_in(tmp_path / "out") == list(VOC.names)
    assert lists_in(tmp_path / "out") == {"all": ["a"]}
    assert any("VOC's 21" in note for note in result.notes)


def test_other_colors_are_refused_with_their_pixels(tmp_path: Path) -> None:
    colored = in_colors(MASK)
    colored[:2, :2] = 7, 7, 7
    with refused(ExitCode.DATA, "(7, 7, 7) (4 pixels)", "--classes FILE"):
        run_import(export(tmp_path / "in", colored), tmp_path / "out")


def test_colors_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "label_colors.txt").write_text("0 0 0 Sky\n9 8 7 Big tree\n")
    colored = np.array([[0, 0, 0], [9, 8, 7]], dtype=np.uint8)[(MASK == 1).astype(int)]
    run_import(export(tmp_path / "in", colored), tmp_path / "out", classes=tmp_path / "label_colors.txt")
    assert names_in(tmp_path / "out") == ["Sky", "Big tree"]
    assert np.array_equal(masks_in(tmp_path / "out")["a"], MASK == 1)


def test_ids_with_vocs_palette_keep_their_values_and_lists_are_kept(tmp_path: Path) -> None:
    folder = export(tmp_path / "in", MASK)
    picture = Image.fromarray(MASK)
    picture.putpalette(VOC.palette)
    picture.save(folder / "SegmentationClass" / "a.png")
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n")
    (lists / "trainval.txt").write_text("a\n")
    run_import(folder, tmp_path / "out")
    assert np.array_equal(masks_in(tmp_path / "out")["a"], MASK)
    assert lists_in(tmp_path / "out") == {"train": ["a"]}


def test_grey_ids_are_not_taken_for_vocs(tmp_path: Path) -> None:
    with refused(ExitCode.DATA, "the ids 0, 1, 15, 255", "--classes FILE"):
        run_import(export(tmp_path / "in", MASK), tmp_path / "out")


def test_0_and_255_are_two_classes_and_not_ignored(tmp_path: Path) -> None:
    binary = (MASK == 1) * np.uint8(255)
    run_import(export(tmp_path / "in", binary), tmp_path / "out")
    assert np.array_equal(masks_in(tmp_path / "out")["a"], MASK == 1)
    assert names_in(tmp_path / "out") == ["background", "foreground"]


def test_ids_beyond_the_classes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("ground\nleaf\n")
    with refused(ExitCode.DATA, "ids 15 (20 pixels)", "--classes FILE"):
        run_import(export(tmp_path / "in", MASK), tmp_path / "out", classes=tmp_path / "names.txt")
