"""COCO's JSON: polygons, both encodings, crowds, category ids with gaps, and every form that is refused by name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import folder_bytes, refused
from hypothesis import given, settings
from hypothesis import strategies as st
from label_exports import lists_in, masks_in, names_in, photo, run_import, write_json, zipped

from segnet.data.rle import encode_rle
from segnet.importing.coco import find_coco
from segnet.importing.files import Tree
from segnet.system.errors import ExitCode, UserError

SQUARE = [4, 4, 12, 4, 12, 12, 4, 12]  # x 4..11, y 4..11
RIGHT = [10, 4, 20, 4, 20, 12, 10, 12]  # x 10..19: shares two columns with SQUARE


def annotation(segmentation: object, *, image: object = 7, category: object = 3, **more: object) -> dict[str, object]:
    return {"id": 1, "image_id": image, "category_id": category, "segmentation": segmentation, **more}


def content(*annotations: dict[str, object]) -> dict[str, Any]:
    """One picture of 24×32, and the categories leaf (3) and stem (9)."""
    images = [{"id": 7, "file_name": "a.jpg", "height": 24, "width": 32}]
    categories = [{"id": 9, "name": "stem", "supercategory": "plant"}, {"id": 3, "name": "leaf"}]
    return {"images": images, "annotations": list(annotations), "categories": categories}


def write_set(folder: Path, table: object, name: str = "instances.json") -> Path:
    photo(folder / "images" / "a.jpg")
    write_json(folder / name, table)
    return folder


def box(top: int, left: int, bottom: int, right: int, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def test_a_polygon_is_the_pixels_whose_centres_it_holds(tmp_path: Path) -> None:
    result = run_import(write_set(tmp_path / "in", content(annotation([SQUARE]))), tmp_path / "out")
    assert np.array_equal(masks_in(tmp_path / "out")["a"], box(4, 4, 12, 12).astype(int))
    assert names_in(tmp_path / "out") == ["background", "leaf", "stem"]
    assert [row.pixels for row in result.classes] == [24 * 32 - 64, 64, 0]
    assert (tmp_path / "out/JPEGImages/a.jpg").read_bytes() == (tmp_path / "in/images/a.jpg").read_bytes()
    assert lists_in(tmp_path / "out") == {"all": ["a"]}
    assert any("stem" in note for note in result.notes), "a category without objects is said"


def test_parts_of_a_polygon_are_joined_where_they_overlap_too(tmp_path: Path) -> None:
    run_import(write_set(tmp_path / "in", content(annotation([SQUARE, RIGHT]))), tmp_path / "out")
    assert np.array_equal(masks_in(tmp_path / "out")["a"] == 1, box(4, 4, 12, 20))


@pytest.mark.parametrize("compressed", [True, False])
def test_runs_go_down_the_columns(tmp_path: Path, compressed: bool) -> None:
    mask = box(2, 3, 9, 20) & ~box(4, 5, 6, 8)  # with a hole
    flat = mask.ravel(order="F").astype(int)
    counts = np.diff([0, *np.flatnonzero(np.diff(flat)) + 1, len(flat)]).tolist()
    rle = {"size": [24, 32], "counts": encode_rle(mask) if compressed else counts}
    run_import(write_set(tmp_path / "in", content(annotation(rle, category=9, iscrowd=1))), tmp_path / "out")
    assert np.array_equal(masks_in(tmp_path / "out")["a"] == 2, mask)


@pytest.mark.parametrize(("overlap", "expected"), [("last", 2), ("smallest", 1), ("ignore", 255), (None, 1)])
def test_pixels_of_two_classes_are_decided_by_the_rule(tmp_path: Path, overlap: Any, expected: int) -> None:
    table = content(annotation([SQUARE], category=3), annotation([RIGHT], category=9))  # SQUARE is smaller
    result = run_import(write_set(tmp_path / "in", table), tmp_path / "out", overlap=overlap)
    assert set(masks_in(tmp_path / "out")["a"][4:12, 10:12].reshape(-1).tolist()) == {expected}
    assert result.counts.overlapped == 16


def test_shapes_of_one_class_do_not_overlap(tmp_path: Path) -> None:
    table = content(annotation([SQUARE]), annotation([RIGHT]))
    assert run_import(write_set(tmp_path / "in", table), tmp_path / "out").counts.overlapped == 0


def test_shapes_that_are_cut_or_have_no_pixel_are_counted(tmp_path: Path) -> None:
    tiny, line, out = [4.1, 4.1, 4.2, 4.1, 4.2, 4.2], [1, 1, 5, 5], [-5, -5, 3, -5, 3, 3, -5, 3]
    table = content(annotation([tiny]), annotation([line]), annotation([out]))
    counts = run_import(write_set(tmp_path / "in", table), tmp_path / "out").counts
    assert (counts.shapes, counts.outside, counts.too_small) == (1, 1, 2)


@pytest.mark.parametrize("first", [0, 1, 40])
def test_category_ids_begin_anywhere(tmp_path: Path, first: int) -> None:
    """Label Studio and FiftyOne begin with 0, which other programs take for no label."""
    table = content(annotation([SQUARE], category=first))
    table["categories"] = [{"id": first, "name": "leaf"}, {"id": first + 5, "name": "stem"}]
    run_import(write_set(tmp_path / "in", table), tmp_path / "out")
    assert names_in(tmp_path / "out") == ["background", "leaf", "stem"]
    assert masks_in(tmp_path / "out")["a"][6, 6] == 1


def test_a_category_called_background_is_the_background(tmp_path: Path) -> None:
    table = content(annotation([SQUARE], category=3), annotation([RIGHT], category=9))
    table["categories"][0]["name"] = "background"
    run_import(write_set(tmp_path / "in", table), tmp_path / "out", overlap="last")
    assert names_in(tmp_path / "out") == ["background", "leaf"]
    assert np.array_equal(masks_in(tmp_path / "out")["a"] == 1, box(4, 4, 12, 10))


def test_sizes_may_be_null(tmp_path: Path) -> None:
    table = content(annotation([SQUARE]))
    table["images"][0] |= {"height": None, "width": None}
    run_import(write_set(tmp_path / "in", table), tmp_path / "out")
    assert masks_in(tmp_path / "out")["a"].sum() == 64


@pytest.mark.parametrize(
    "name",
    ["a.jpg", "images/a.jpg", "images\\a.jpg", "C:\\work\\a.jpg", "/home/me/a.jpg", "https://host/x/a.jpg", "./images/a.jpg"],
)
def test_pictures_are_found_by_the_names_that_tools_write(tmp_path: Path, name: str) -> None:
    table = content(annotation([SQUARE]))
    table["images"][0]["file_name"] = name
    run_import(write_set(tmp_path / "in", table), tmp_path / "out")
    assert list(masks_in(tmp_path / "out")) == ["a"]


def test_files_of_splits_become_lists(tmp_path: Path) -> None:
    for split in ("train", "valid"):  # as Roboflow writes them
        photo(tmp_path / "in" / split / "a.jpg", seed=len(split))
        write_json(tmp_path / "in" / split / "_annotations.coco.json", content(annotation([SQUARE])))
    run_import(zipped(tmp_path / "in"), tmp_path / "out")
    assert lists_in(tmp_path / "out") == {"train": ["train/a"], "val": ["valid/a"]}
    assert (tmp_path / "out/JPEGImages/valid/a.jpg").read_bytes() == (tmp_path / "in/valid/a.jpg").read_bytes()


def test_the_file_alone_with_pictures_elsewhere(tmp_path: Path) -> None:
    photo(tmp_path / "photos" / "deep" / "a.jpg")
    path = write_json(tmp_path / "in" / "labels.json", content(annotation([SQUARE])))
    with refused(ExitCode.DATA, "'a.jpg' is missing", "--pictures DIR"):
        run_import(path, tmp_path / "out")
    run_import(path, tmp_path / "out", pictures=tmp_path / "photos")
    assert list(masks_in(tmp_path / "out")) == ["a"]


def test_captions_beside_the_instances_are_left_out_and_named(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "in", content(annotation([SQUARE])))
    write_json(folder / "captions.json", {**content(), "annotations": [{"id": 1, "image_id": 7, "caption": "a leaf"}]})
    result = run_import(folder, tmp_path / "out")
    assert any("captions.json" in note for note in result.notes)


def test_a_picture_that_its_exif_turns_is_drawn_upright_and_copied_as_it_is(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.jpg", (32, 24), orientation=6)  # 24×32 upright
    write_json(tmp_path / "in" / "x.json", content(annotation([SQUARE])))
    run_import(tmp_path / "in", tmp_path / "out")
    assert masks_in(tmp_path / "out")["a"].shape == (24, 32)
    assert (tmp_path / "out/JPEGImages/a.jpg").read_bytes() == (tmp_path / "in/a.jpg").read_bytes()


def test_labels_for_the_picture_before_its_rotation_are_refused(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.jpg", (24, 32), orientation=6)  # 32×24 upright
    write_json(tmp_path / "in" / "x.json", content(annotation([SQUARE])))
    with refused(ExitCode.DATA, "32×24", "EXIF"):
        run_import(tmp_path / "in", tmp_path / "out")


FAULTS: dict[str, tuple[dict[str, object], str]] = {
    "box": (annotation([], bbox=[1, 2, 3, 4]), "a box without a segmentation"),
    "no segmentation": ({"id": 5, "image_id": 7, "category_id": 3}, "a box without a segmentation"),
    "text": (annotation("M 1 2"), "unknown form"),
    "flat": (annotation(SQUARE), "unknown form"),
    "dict": (annotation({"counts": 5}), "unknown form"),
    "odd": (annotation([[1, 2, 3]]), "pairs of numbers"),
    "words": (annotation([["a", "b", "c", "d", "e", "f"]]), "pairs of numbers"),
    "far": (annotation([[0, 0, 1e12, 0, 5, 5]]), "pixels away"),
    "category": (annotation([SQUARE], category=4), "category 4, which is not declared"),
    "image": (annotation([SQUARE], image=8), "image 8, which is not declared"),
    "runs": (annotation({"size": [24, 32], "counts": [5]}), "damaged run lengths"),
    "bomb": (annotation({"size": [24, 32], "counts": [10**12]}), "damaged run lengths"),
    "damaged": (annotation({"size": [24, 32], "counts": "!!"}), "damaged run lengths"),
    "run size": (annotation({"size": [32, 24], "counts": [768]}), "run lengths for [32, 24]"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_named_with_the_annotation(tmp_path: Path, fault: str) -> None:
    wrong, found = FAULTS[fault]
    with refused(ExitCode.DATA, "instances.json", found):
        run_import(write_set(tmp_path / "in", content(wrong)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "in", content(*(copy.deepcopy(wrong) for wrong, _ in FAULTS.values())))
    with pytest.raises(UserError) as caught:
        run_import(folder, tmp_path / "out")
    at_reading = [found for _, found in FAULTS.values() if "run lengths" not in found]
    assert [found for found in at_reading if found not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"images": [{"id": 7, "file_name": "../../a.jpg"}]}, "outside of the folder"),
        ({"images": [{"id": 7, "file_name": "b.jpg"}]}, "'b.jpg' is missing"),
        ({"images": [{"id": 7}]}, "image without id or name"),
        ({"images": [{"id": 7, "file_name": "a.jpg"}] * 2}, "declared twice"),
        ({"images": [{"id": 7, "file_name": "a.jpg", "height": 9, "width": 9}]}, "9×9, the upright picture has 32×24"),
        ({"categories": [{"id": 3, "name": "leaf"}, {"id": 3, "name": "stem"}]}, "category 3 'stem' is declared twice"),
        ({"categories": [{"id": 3, "name": "leaf"}, {"id": 4, "name": "leaf"}]}, "category 4 'leaf' is declared twice"),
        ({"categories": [{"id": "3", "name": "leaf"}]}, "no whole number"),
        ({"annotations": {}}, "'annotations' is no list"),
    ],
)
def test_a_table_that_does_not_hold_together_is_refused(tmp_path: Path, change: dict[str, object], found: str) -> None:
    with refused(ExitCode.DATA, found):
        run_import(write_set(tmp_path / "in", {**content(annotation([SQUARE])), **change}), tmp_path / "out")


def test_a_picture_without_an_object_is_asked_about(tmp_path: Path) -> None:
    table = content(annotation([SQUARE]))
    table["images"].append({"id": 8, "file_name": "b.jpg", "height": 24, "width": 32})
    folder = write_set(tmp_path / "in", table)
    photo(folder / "images" / "b.jpg", seed=1)
    with refused(ExitCode.DATA, "1 of 2 pictures have no label: b", "--unlabelled background, ignore"):
        run_import(folder, tmp_path / "out")
    for choice, value in (("background", {0}), ("ignore", {255})):
        run_import(folder, tmp_path / choice, unlabelled=choice)  # type: ignore[arg-type]
        assert set(masks_in(tmp_path / choice)["b"].reshape(-1).tolist()) == value
    assert run_import(folder, tmp_path / "skip", unlabelled="skip").skipped == 1
    assert list(masks_in(tmp_path / "skip")) == ["a"]
    assert lists_in(tmp_path / "skip") == {"all": ["a"]}


def test_the_file_of_classes_orders_them_and_refuses_others(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "in", content(annotation([SQUARE])))
    (tmp_path / "classes.txt").write_text("stem\nleaf\nroot\n")
    run_import(folder, tmp_path / "out", classes=tmp_path / "classes.txt")
    assert names_in(tmp_path / "out") == ["background", "stem", "leaf", "root"]
    assert masks_in(tmp_path / "out")["a"][6, 6] == 2
    (tmp_path / "classes.txt").write_text("stem\n")
    with refused(ExitCode.DATA, "has no class 'leaf', which 1 pictures hold"):
        run_import(folder, tmp_path / "other", classes=tmp_path / "classes.txt")


def test_a_json_of_another_kind_is_not_taken_for_coco(tmp_path: Path) -> None:
    for number, text in enumerate(["[]", "{", '{"images": []}', "\xff", "NaN"]):
        (tmp_path / f"{number}.json").write_bytes(text.encode("latin-1"))
    assert find_coco(Tree(tmp_path, [], [f"{number}.json" for number in range(5)])) == ""


@settings(max_examples=15)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_a_mask_survives_the_way_through_run_lengths(tmp_path_factory: pytest.TempPathFactory, h: int, w: int, seed: int) -> None:
    """Mask → one annotation per class → mask."""
    tmp_path = tmp_path_factory.mktemp("trip")
    mask = np.random.default_rng(seed).integers(0, 3, (h, w), dtype=np.uint8)
    table = content(*(annotation({"size": [h, w], "counts": encode_rle(mask == k)}, category=c) for k, c in ((1, 3), (2, 9))))
    table["images"][0] |= {"height": h, "width": w}
    photo(tmp_path / "in" / "a.jpg", (h, w))
    write_json(tmp_path / "in" / "x.json", table)
    run_import(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(masks_in(tmp_path / "out")["a"], mask)


def test_pictures_that_the_file_does_not_name_are_said(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "in", content(annotation([SQUARE])))
    photo(folder / "images" / "other.jpg", seed=3)
    result = run_import(folder, tmp_path / "out")
    assert list(masks_in(tmp_path / "out")) == ["a"]
    assert any("1 pictures in the folder have no entry" in note for note in result.notes)


def test_the_same_set_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "in", content(annotation([SQUARE])))
    run_import(folder, tmp_path / "one")
    run_import(folder, tmp_path / "two")
    assert folder_bytes(tmp_path / "one") == folder_bytes(tmp_path / "two")
