"""LabelMe's JSON: every type of shape as the program draws it, later shapes over earlier ones."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from label_exports import masks_in, names_in, photo, run_import, write_json
from PIL import Image, ImageDraw

from segnet.system.errors import ExitCode, UserError


def encoded(mask: np.ndarray) -> str:
    """The picture of a mask shape as LabelMe stores it."""
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def shape(kind: str | None, points: object, label: str = "leaf", **more: object) -> dict[str, object]:
    own = {} if kind is None else {"shape_type": kind}
    return {"label": label, "points": points, "group_id": None, "flags": {}, "description": "", **own, **more}


def content(*shapes: dict[str, object], **more: object) -> dict[str, Any]:
    size = {"imageHeight": 24, "imageWidth": 32}
    return {"version": "5.8.1", "flags": {}, "shapes": list(shapes), "imagePath": "a.jpg", "imageData": None, **size, **more}


def write_set(folder: Path, table: object) -> Path:
    photo(folder / "a.jpg")
    write_json(folder / "a.json", table)
    return folder


def drawn(name: str, *arguments: object, **options: object) -> np.ndarray:
    picture = Image.new("L", (32, 24))
    getattr(ImageDraw.Draw(picture), name)(*arguments, fill=1, **options)
    return np.array(picture)


POINTS = [[3.4, 4.6], [20.5, 6.2], [12.1, 19.7]]
PAIRS = [tuple(point) for point in POINTS]
RADIUS = math.hypot(20.5 - 3.4, 6.2 - 4.6)
KINDS: dict[str, tuple[dict[str, object], np.ndarray]] = {
    "polygon": (shape("polygon", POINTS), drawn("polygon", PAIRS, outline=1)),
    "old file": (shape(None, POINTS), drawn("polygon", PAIRS, outline=1)),
    "rectangle": (shape("rectangle", [POINTS[2], POINTS[1]]), drawn("rectangle", [12.1, 6.2, 20.5, 19.7], outline=1)),
    "oriented": (shape("oriented_rectangle", [*POINTS, [1, 9]]), drawn("polygon", [*PAIRS, (1, 9)], outline=1)),
    "circle": (
        shape("circle", POINTS[:2]),
        drawn("ellipse", [3.4 - RADIUS, 4.6 - RADIUS, 3.4 + RADIUS, 4.6 + RADIUS], outline=1),
    ),
    "line": (shape("line", POINTS[:2]), drawn("line", PAIRS[:2], width=10)),
    "linestrip": (shape("linestrip", POINTS), drawn("line", PAIRS, width=10)),
    "point": (shape("point", POINTS[2:]), drawn("ellipse", [7.1, 14.7, 17.1, 24.7], outline=1)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_shape_is_drawn_as_labelme_draws_it(tmp_path: Path, kind: str) -> None:
    entry, expected = KINDS[kind]
    run_import(write_set(tmp_path / "in", content(entry)), tmp_path / "out")
    assert np.array_equal(masks_in(tmp_path / "out")["a"], expected)
    assert names_in(tmp_path / "out") == ["background", "leaf"]


def test_a_mask_shape_has_inclusive_corners_and_holes(tmp_path: Path) -> None:
    patch = np.ones((5, 7), dtype=bool)
    patch[2, 2:4] = False
    run_import(write_set(tmp_path / "in", content(shape("mask", [[3, 4], [9, 8]], mask=encoded(patch)))), tmp_path / "out")
    assert np.array_equal(masks_in(tmp_path / "out")["a"][4:9, 3:10], patch)
    assert masks_in(tmp_path / "out")["a"].sum() == patch.sum()


def test_a_mask_shape_is_cut_at_the_border(tmp_path: Path) -> None:
    entry = shape("mask", [[-2, 20], [4, 26]], mask=encoded(np.ones((7, 7))))
    result = run_import(write_set(tmp_path / "in", content(entry)), tmp_path / "out")
    assert masks_in(tmp_path / "out")["a"][20:24, 0:5].all()
    assert masks_in(tmp_path / "out")["a"].sum() == 20
    assert result.counts.outside == 1


def test_later_shapes_lie_over_earlier_ones(tmp_path: Path) -> None:
    big, small = [[0, 0], [20, 20]], [[5, 5], [9, 9]]
    table = content(shape("rectangle", small, "stem"), shape("rectangle", big, "leaf"))
    result = run_import(write_set(tmp_path / "in", table), tmp_path / "out")
    assert set(masks_in(tmp_path / "out")["a"][5:10, 5:10].reshape(-1).tolist()) == {1}
    assert result.counts.overlapped == 25
    run_import(tmp_path / "in", tmp_path / "small", overlap="smallest")
    assert set(masks_in(tmp_path / "small")["a"][5:10, 5:10].reshape(-1).tolist()) == {2}


def test_ids_do_not_depend_on_the_file(tmp_path: Path) -> None:
    """In the order of each file the second one would call its stem 1."""
    write_set(tmp_path / "in", content(shape("rectangle", [[0, 0], [3, 3]], "leaf")))
    photo(tmp_path / "in" / "b.jpg", seed=1)
    write_json(tmp_path / "in" / "b.json", content(shape("rectangle", [[0, 0], [3, 3]], "stem"), imagePath="b.jpg"))
    run_import(tmp_path / "in", tmp_path / "out")
    assert [mask[0, 0] for mask in masks_in(tmp_path / "out").values()] == [1, 2]


def test_labels_txt_orders_the_classes_and_ignores(tmp_path: Path) -> None:
    box = [[0, 0], [3, 3]]
    table = content(shape("rectangle", box, "leaf"), shape("rectangle", [[9, 9], [12, 12]], "__ignore__"))
    folder = write_set(tmp_path / "in", table)
    (folder / "labels.txt").write_text("__ignore__\n_background_\nstem\nleaf\n")
    run_import(folder, tmp_path / "out")
    assert names_in(tmp_path / "out") == ["background", "stem", "leaf"]
    mask = masks_in(tmp_path / "out")["a"]
    assert (mask[0, 0], mask[10, 10], mask[20, 20]) == (2, 255, 0)
    (folder / "labels.txt").write_text("stem\n")
    with refused(ExitCode.DATA, "shape 1 'leaf' is no class of labels.txt"):
        run_import(folder, tmp_path / "other")


@pytest.mark.parametrize("listed", ["a.jpg", "..\\photos\\a.jpg", "C:\\Users\\me\\a.jpg", "/home/me/a.jpg", "../photos/a.jpg"])
def test_pictures_of_other_computers_are_found(tmp_path: Path, listed: str) -> None:
    photo(tmp_path / "in" / "photos" / "a.jpg")
    write_json(tmp_path / "in" / "json" / "a.json", content(KINDS["polygon"][0], imagePath=listed))
    run_import(tmp_path / "in", tmp_path / "out")
    assert list(masks_in(tmp_path / "out")) == ["a"]


def test_a_path_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    photo(tmp_path / "secret.jpg")
    write_json(tmp_path / "in" / "a.json", content(KINDS["polygon"][0], imagePath="../secret.jpg"))
    with refused(ExitCode.DATA, "a.json", "outside of the folder"):
        run_import(tmp_path / "in", tmp_path / "out")


def test_the_copy_inside_of_the_file_stands_in_for_a_missing_picture(tmp_path: Path) -> None:
    data = photo(tmp_path / "x.jpg").read_bytes()
    table = content(KINDS["polygon"][0], imageData=base64.b64encode(data).decode())
    write_json(tmp_path / "in" / "a.json", table)
    run_import(tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out/JPEGImages/a.jpg").read_bytes() == data


def test_sizes_may_be_null_and_must_else_agree(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "in", content(KINDS["polygon"][0], imageHeight=None, imageWidth=None))
    run_import(folder, tmp_path / "out")
    write_json(folder / "a.json", content(KINDS["polygon"][0], imageHeight=32, imageWidth=24))
    with refused(ExitCode.DATA, "a.json", "24×32", "EXIF"):
        run_import(folder, tmp_path / "other")


def test_points_are_those_of_the_upright_picture(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.jpg", (32, 24), orientation=6)
    write_json(tmp_path / "in" / "a.json", content(KINDS["polygon"][0]))
    run_import(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(masks_in(tmp_path / "out")["a"], KINDS["polygon"][1])


def test_a_picture_without_a_file_and_a_file_without_shapes_are_asked_about(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "in", content(KINDS["polygon"][0]))
    photo(folder / "b.jpg", seed=1)
    photo(folder / "c.jpg", seed=2)
    write_json(folder / "c.json", content(imagePath="c.jpg"))
    with refused(ExitCode.DATA, "2 of 3 pictures have no label"):
        run_import(folder, tmp_path / "out")
    run_import(folder, tmp_path / "out", unlabelled="ignore")
    assert set(masks_in(tmp_path / "out")["b"].reshape(-1).tolist()) == {255}


def test_ids_of_labelled_and_other_pictures_agree(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a" / "1.jpg")
    photo(tmp_path / "in" / "b" / "1.jpg", seed=1)
    write_json(tmp_path / "in" / "a" / "1.json", content(KINDS["polygon"][0], imagePath="1.jpg"))
    run_import(tmp_path / "in", tmp_path / "out", unlabelled="background")
    assert list(masks_in(tmp_path / "out")) == ["a/1", "b/1"]


def test_a_polygon_of_two_points_has_no_pixel_and_is_counted(tmp_path: Path) -> None:
    result = run_import(write_set(tmp_path / "in", content(shape("polygon", POINTS[:2]))), tmp_path / "out")
    assert result.counts.too_small == 1


FAULTS: dict[str, tuple[dict[str, object], str]] = {
    "unknown": (shape("spline", POINTS), "unknown shape_type 'spline'"),
    "points": (shape("rectangle", POINTS), "a rectangle of 3 points"),
    "no points": (shape("polygon", []), "a polygon of 0 points"),
    "words": (shape("polygon", "x"), "pairs of numbers"),
    "nan": (shape("polygon", [[0, 0], [math.nan, 1], [2, 2]]), "pixels away"),
    "no label": ({"points": POINTS}, "shape 1 has no label"),
    "mask": (shape("mask", POINTS[:2], mask="%%"), "a damaged mask"),
    "mask picture": (shape("mask", POINTS[:2], mask="aGVsbG8="), "a damaged mask"),
    "mask size": (shape("mask", [[1, 1], [9, 9]], mask=encoded(np.ones((2, 2)))), "a mask of 2×2 for 9×9"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_named_with_file_and_shape(tmp_path: Path, fault: str) -> None:
    wrong, found = FAULTS[fault]
    with refused(ExitCode.DATA, "a.json", "shape 1", found):
        run_import(write_set(tmp_path / "in", content(wrong, shape("polygon", POINTS, "stem"))), tmp_path / "out")


def test_a_broken_file_is_named_beside_the_others(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "in", content(FAULTS["unknown"][0], KINDS["polygon"][0]))
    (folder / "b.json").write_text('{"shapes": [')
    with pytest.raises(UserError) as caught:
        run_import(folder, tmp_path / "out")
    assert "b.json: is no JSON" in str(caught.value)
    assert "unknown shape_type" in str(caught.value)


@settings(max_examples=10)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_a_mask_survives_the_way_through_mask_shapes(tmp_path_factory: pytest.TempPathFactory, h: int, w: int, seed: int) -> None:
    tmp_path = tmp_path_factory.mktemp("trip")
    mask = np.random.default_rng(seed).integers(0, 3, (h, w), dtype=np.uint8)
    corners = [[0, 0], [w - 1, h - 1]]
    shapes = [shape("mask", corners, name, mask=encoded(mask == k)) for k, name in ((1, "leaf"), (2, "stem"))]
    photo(tmp_path / "in" / "a.jpg", (h, w))
    write_json(tmp_path / "in" / "a.json", content(*shapes, imageHeight=h, imageWidth=w))
    run_import(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(masks_in(tmp_path / "out")["a"], mask)
