"""A set is recognised by its files; where they tell of two formats, or of none, the user is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import refused
from label_exports import photo, run_import, write_array, write_json

from segnet.importing.files import open_tree
from segnet.importing.recognition import FORMATS, NAMES
from segnet.system.errors import ExitCode

MASK = np.zeros((24, 32), dtype=np.uint8)
MASK[3:9, 4:20] = 1
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]}],
    "categories": [{"id": 1, "name": "leaf"}],
}
LABELME = {"shapes": [{"label": "leaf", "points": [[1, 1], [9, 1], [9, 9]]}], "imagePath": "a.jpg"}


def test_two_formats_are_asked_about(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.jpg")
    write_json(tmp_path / "in" / "coco.json", COCO)
    write_json(tmp_path / "in" / "a.json", LABELME)
    with refused(ExitCode.DATA, "COCO JSON (coco.json) and LabelMe JSON (a.json)", "--format coco or labelme"):
        run_import(tmp_path / "in", tmp_path / "out")
    assert run_import(tmp_path / "in", tmp_path / "out", name="labelme").title == "LabelMe JSON"


def test_a_format_that_is_not_there_is_refused(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.jpg")
    write_json(tmp_path / "in" / "coco.json", COCO)
    with refused(ExitCode.DATA, "has not the files of Cityscapes"):
        run_import(tmp_path / "in", tmp_path / "out", name="cityscapes")


@pytest.mark.parametrize("files", [[], ["a.jpg"], ["a.txt", "b.pdf"], ["a.json"]])
def test_a_folder_of_no_known_format_says_what_is_known(tmp_path: Path, files: list[str]) -> None:
    (tmp_path / "in").mkdir()
    for name in files:
        photo(tmp_path / "in" / name) if name.endswith("jpg") else (tmp_path / "in" / name).write_text("{}")
    with refused(ExitCode.DATA, f"holds {sum(n.endswith('jpg') for n in files)} pictures", "no labels of a known format", "COCO"):
        run_import(tmp_path / "in", tmp_path / "out")


def test_a_pattern_of_masks_means_pairs(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.jpg")
    write_json(tmp_path / "in" / "coco.json", COCO)
    write_array(tmp_path / "in" / "x" / "a.png", MASK)
    assert run_import(tmp_path / "in", tmp_path / "out", masks="x/{name}.png").title == "pairs of pictures and masks"


def test_a_choice_that_a_format_does_not_know_is_refused(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.jpg")
    write_json(tmp_path / "in" / "coco.json", COCO)
    with refused(ExitCode.CONFIG, "--foreground", "no meaning for COCO JSON"):
        run_import(tmp_path / "in", tmp_path / "out", foreground=True)
    write_array(tmp_path / "pairs" / "masks" / "a.png", MASK)
    photo(tmp_path / "pairs" / "images" / "a.jpg")
    with refused(ExitCode.CONFIG, "--overlap", "no meaning for pairs"):
        run_import(tmp_path / "pairs", tmp_path / "out", overlap="last")


def test_a_json_file_alone_is_read_and_no_other(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.jpg")
    write_json(tmp_path / "in" / "coco.json", COCO)
    write_json(tmp_path / "in" / "old.json", {**COCO, "categories": [{"id": 1, "name": "root"}]})
    result = run_import(tmp_path / "in" / "coco.json", tmp_path / "out")
    assert [row.name for row in result.classes] == ["background", "leaf"]


def test_a_set_beside_the_json_file_that_was_named_is_not_asked_about(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.jpg")
    named = write_json(tmp_path / "in" / "coco.json", COCO)
    for folder in ("SegmentationClass", "ImageSets/Segmentation"):  # an export of CVAT in a folder of its own
        write_array(tmp_path / "in" / "cvat" / folder / "a.png", MASK)
    (tmp_path / "in" / "cvat" / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nleaf:1,1,1::\n")
    with refused(ExitCode.DATA, "COCO JSON (coco.json)", "CVAT segmentation mask 1.1"):
        run_import(tmp_path / "in", tmp_path / "out")
    assert run_import(named, tmp_path / "out").title == "COCO JSON"


def test_every_format_has_a_name_and_is_found_in_no_empty_folder(tmp_path: Path) -> None:
    tree = open_tree(tmp_path, tmp_path)
    assert NAMES == (*FORMATS, "pairs")
    assert [name for name, known in FORMATS.items() if known.find(tree)] == []


def test_where_no_labels_are_known_a_json_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.jpg")
    path = write_json(tmp_path / "in" / "coco.json", COCO)
    path.write_text(path.read_text(), encoding="utf-16")
    with refused(ExitCode.DATA, "coco.json: is no JSON ('utf-8' codec", "(2 faults in all)", "no labels of a known format"):
        run_import(path, tmp_path / "out")
