"""CVAT's segmentation mask 1.1: colours of the labelmap, pictures that were not exported, ids with folders and spaces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import refused
from label_exports import lists_in, masks_in, names_in, photo, run_import, write_array, zipped

from segnet.importing.cvat import read_labelmap
from segnet.system.errors import ExitCode, UserError

LABELMAP = "# label:color_rgb:parts:actions\nLeaf:50,183,250::\nStem:10,20,30::\nbackground:0,0,0::\n"
MASK = np.zeros((24, 32), dtype=np.uint8)  # 1 leaf, 2 stem
MASK[2:9, 3:9], MASK[10:20, 5:7] = 1, 2


def in_colors(mask: np.ndarray) -> np.ndarray:
    return np.array([[0, 0, 0], [50, 183, 250], [10, 20, 30]], dtype=np.uint8)[mask]


def export(folder: Path, *, pictures: bool = True, labelmap: str = LABELMAP) -> Path:
    """Two pictures, b without a shape and so without a mask, as CVAT writes them."""
    for name in ("a", "b"):
        if pictures:
            photo(folder / "JPEGImages" / f"{name}.jpg", seed=ord(name))
    write_array(folder / "SegmentationClass" / "a.png", in_colors(MASK))
    write_array(folder / "SegmentationObject" / "a.png", in_colors(MASK))
    (folder / "labelmap.txt").write_text(labelmap)
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    (folder / "ImageSets" / "Segmentation" / "default.txt").write_text("a\nb\n")
    return folder


@pytest.mark.parametrize("packed", [True, False])
def test_colors_become_ids_with_the_background_first(tmp_path: Path, packed: bool) -> None:
    folder = export(tmp_path / "in")
    result = run_import(zipped(folder) if packed else folder, tmp_path / "out", unlabelled="background")
    assert result.title == "CVAT segmentation mask 1.1"
    assert names_in(tmp_path / "out") == ["background", "Leaf", "Stem"]
    assert [row.origin for row in result.classes] == ["labelmap.txt line 4", "labelmap.txt line 2", "labelmap.txt line 3"]
    masks = masks_in(tmp_path / "out")
    assert np.array_equal(masks["a"], MASK)
    assert not masks["b"].any()
    assert lists_in(tmp_path / "out") == {"all": ["a", "b"]}
    assert not (tmp_path / "out" / ".import").exists()


def test_listed_pictures_without_a_mask_are_asked_about(tmp_path: Path) -> None:
    with refused(ExitCode.DATA, "1 of 2 pictures have no label: b", "--unlabelled"):
        run_import(export(tmp_path / "in"), tmp_path / "out")


def test_pictures_that_were_not_exported(tmp_path: Path) -> None:
    folder = export(tmp_path / "in", pictures=False)
    with refused(ExitCode.DATA, "picture 'a' is missing", "--pictures DIR"):
        run_import(folder, tmp_path / "out")
    for name in ("a.jpg", "b.png"):
        photo(tmp_path / "photos" / name)
    run_import(folder, tmp_path / "out", pictures=tmp_path / "photos", unlabelled="skip")
    assert list(masks_in(tmp_path / "out")) == ["a"]


def test_ids_hold_folders_and_spaces(tmp_path: Path) -> None:
    folder = export(tmp_path / "in")
    photo(folder / "JPEGImages" / "field 2" / "c d.jpg")
    write_array(folder / "SegmentationClass" / "field 2" / "c d.png", in_colors(MASK))
    (folder / "ImageSets" / "Segmentation" / "default.txt").write_text("a\nfield 2/c d\n")
    run_import(folder, tmp_path / "out")
    assert np.array_equal(masks_in(tmp_path / "out")["field 2/c d"], MASK)


def test_subsets_become_lists(tmp_path: Path) -> None:
    folder = export(tmp_path / "in")
    lists = folder / "ImageSets" / "Segmentation"
    (lists / "default.txt").unlink()
    (lists / "Train.txt").write_text("a\n")
    (lists / "Validation.txt").write_text("b\n")
    run_import(folder, tmp_path / "out", unlabelled="background")
    assert lists_in(tmp_path / "out") == {"train": ["a"], "val": ["b"]}


def test_pictures_in_no_list_are_said(tmp_path: Path) -> None:
    folder = export(tmp_path / "in")
    photo(folder / "JPEGImages" / "other.jpg", seed=3)
    result = run_import(folder, tmp_path / "out", unlabelled="skip")
    assert result.notes == ["1 pictures are in no list and are left out"]


def test_background_is_added_where_no_label_owns_black(tmp_path: Path) -> None:
    labelmap = "Leaf:50,183,250::\nStem:10,20,30::\n"
    run_import(export(tmp_path / "in", labelmap=labelmap), tmp_path / "out", unlabelled="background")
    assert names_in(tmp_path / "out") == ["background", "Leaf", "Stem"]


def test_names_that_differ_in_case_are_two_classes(tmp_path: Path) -> None:
    labelmap = LABELMAP + "Background:1,2,3::\n"
    run_import(export(tmp_path / "in", labelmap=labelmap), tmp_path / "out", unlabelled="background")
    assert names_in(tmp_path / "out") == ["background", "Leaf", "Stem", "Background"]


def test_black_of_another_label_is_said(tmp_path: Path) -> None:
    labelmap = "Leaf:50,183,250::\nStem:10,20,30::\nsoil:0,0,0::\n"
    result = run_import(export(tmp_path / "in", labelmap=labelmap), tmp_path / "out", unlabelled="skip")
    assert names_in(tmp_path / "out")[0] == "soil"
    assert any("black is the colour of 'soil'" in note for note in result.notes)


def test_empty_colors_are_vocs(tmp_path: Path) -> None:
    (tmp_path / "labelmap.txt").write_text("background:::\nleaf:::\nstem:::\n")
    assert [line.color for line in read_labelmap(tmp_path / "labelmap.txt")] == [(0, 0, 0), (128, 0, 0), (0, 128, 0)]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("leaf:1,2,3", "is no label"),
        ("leaf:1,2::", "is no label"),
        ("leaf:1,2,300::", "is no label"),
        ("leaf:a,b,c::", "is no label"),
        ("leaf:1,2," + "3" * 5000 + "::", "is no label"),
        ("a\tleaf:1,2,3::", r"'a\tleaf' is no name that can be printed"),
        (":1,2,3::", "is no label"),
        ("Leaf:1,2,3::", "has the name of 'Leaf'"),
        ("leaf:10,20,30::", "has the colour (10, 20, 30) of 'Stem'"),
    ],
)
def test_labelmaps_in_error_are_refused_by_line(tmp_path: Path, line: str, found: str) -> None:
    with refused(ExitCode.DATA, "labelmap.txt", "line 5", found):
        run_import(export(tmp_path / "in", labelmap=LABELMAP + line + "\n"), tmp_path / "out")


def test_every_fault_of_the_files_is_named(tmp_path: Path) -> None:
    folder = export(tmp_path / "in")
    (folder / "ImageSets" / "Segmentation" / "default.txt").write_text("a\nmissing\n../../etc/passwd\n")
    write_array(folder / "SegmentationClass" / "orphan.png", in_colors(MASK))
    colored = in_colors(MASK)
    colored[0, 0] = 9, 9, 9
    write_array(folder / "SegmentationClass" / "a.png", colored)
    with pytest.raises(UserError) as caught:
        run_import(folder, tmp_path / "out")
    text = str(caught.value)
    for found in ("'missing' is missing", "leaves the folder", "in no list", "(9, 9, 9) (1 pixels)"):
        assert found in text
    assert "--map" not in text, "import has no such option"


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = export(tmp_path / "in")
    write_array(folder / "SegmentationClass" / "a.png", in_colors(MASK[:20]))
    with refused(ExitCode.DATA, "32×20, the upright picture has 32×24"):
        run_import(folder, tmp_path / "out", unlabelled="skip")


def test_a_picture_in_two_subsets_is_refused(tmp_path: Path) -> None:
    folder = export(tmp_path / "in")
    for name in ("train", "val"):
        (folder / "ImageSets" / "Segmentation" / f"{name}.txt").write_text("a\n")
    with refused(ExitCode.DATA, "'a' is in the lists train and val"):
        run_import(folder, tmp_path / "out")


def test_a_colour_of_no_label_is_to_be_added_to_the_labelmap(tmp_path: Path) -> None:
    labelmap = "".join(line for line in LABELMAP.splitlines(keepends=True) if not line.startswith("Stem"))
    with refused(ExitCode.DATA, "add a line NAME:R,G,B:: with the colour to labelmap.txt"):
        run_import(export(tmp_path / "in", labelmap=labelmap), tmp_path / "out")


def test_the_exports_of_several_tasks_in_a_folder_are_one_set(tmp_path: Path) -> None:
    both = tmp_path / "in"
    both.mkdir()
    export(both / "Aufgabe 1")
    export(both / "task 2")
    result = run_import(both, tmp_path / "out", unlabelled="skip")
    assert (result.title, result.marker) == ("CVAT segmentation mask 1.1", "Aufgabe 1/labelmap.txt")
    assert names_in(tmp_path / "out") == ["background", "Leaf", "Stem"]
    masks = masks_in(tmp_path / "out")
    assert sorted(masks) == ["Aufgabe 1/a", "task 2/a"]
    assert all(np.array_equal(mask, MASK) for mask in masks.values())
    (both / "task 2" / "labelmap.txt").write_text(LABELMAP.replace("50,183,250", "51,183,250"))
    with refused(ExitCode.DATA, "task 2/labelmap.txt", "other labels or colours than", "Aufgabe 1"):
        run_import(both, tmp_path / "other", unlabelled="skip")
