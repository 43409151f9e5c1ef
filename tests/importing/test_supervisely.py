"""Supervisely's folders: polygons with holes, bitmaps at an origin, colours of meta.json."""

from __future__ import annotations

import base64
import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from label_exports import lists_in, masks_in, names_in, photo, run_import, write_json
from PIL import Image

from segnet.system.errors import ExitCode

META = {"classes": [{"title": "leaf", "shape": "any", "color": "#32B7FA"}, {"title": "stem", "color": "#0A141E"}], "tags": []}


def bitmap(mask: np.ndarray, origin: object = (0, 0), *, mode: str = "P") -> dict[str, object]:
    """A bitmap as the service stores it: a PNG with a transparent palette entry, zipped."""
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    file = io.BytesIO()
    if mode == "P":
        picture = Image.fromarray(mask.astype(np.uint8))
        picture.putpalette([0, 0, 0, 255, 255, 255])
        picture.save(file, "PNG", transparency=0)
    else:
        picture.convert(mode).save(file, "PNG")
    data = base64.b64encode(zlib.compress(file.getvalue())).decode()
    return {"bitmap": {"data": data, "origin": list(origin) if isinstance(origin, tuple) else origin}}


def entry(kind: str | None, title: str = "leaf", **more: object) -> dict[str, object]:
    own = {} if kind is None else {"geometryType": kind}
    return {"id": 1, "classTitle": title, "tags": [], **own, **more}


def polygon(exterior: object, *interior: object, kind: str | None = "polygon") -> dict[str, object]:
    return entry(kind, points={"exterior": exterior, "interior": list(interior)})


def write_set(folder: Path, *objects: object, size: tuple[int, int] = (24, 32)) -> Path:
    write_json(folder / "meta.json", META)
    photo(folder / "ds0" / "img" / "a.jpg", size)
    table = {"description": "", "tags": [], "size": {"height": size[0], "width": size[1]}, "objects": list(objects)}
    write_json(folder / "ds0" / "ann" / "a.jpg.json", table)
    return folder


SQUARE = [[4, 4], [15, 4], [15, 15], [4, 15]]
HOLE = [[8, 8], [10, 8], [10, 10], [8, 10]]


def test_a_polygon_includes_its_border_and_leaves_its_holes(tmp_path: Path) -> None:
    result = run_import(write_set(tmp_path / "in", polygon(SQUARE, HOLE)), tmp_path / "out")
    assert result.title == "Supervisely"
    expected = np.zeros((24, 32), dtype=np.uint8)
    expected[4:16, 4:16], expected[8:11, 8:11] = 1, 0
    assert np.array_equal(masks_in(tmp_path / "out")["a"], expected)
    assert names_in(tmp_path / "out") == ["background", "leaf", "stem"]
    assert [row.color for row in result.classes] == [(0, 0, 0), (50, 183, 250), (10, 20, 30)]


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_bitmap_stands_at_its_origin(tmp_path: Path, mode: str) -> None:
    mask = np.random.default_rng(0).random((5, 7)) < 0.5
    run_import(write_set(tmp_path / "in", entry("bitmap", **bitmap(mask, (6, 3), mode=mode))), tmp_path / "out")
    found = masks_in(tmp_path / "out")["a"]
    assert np.array_equal(found[3:8, 6:13], mask)
    assert found.sum() == mask.sum()


def test_rectangles_and_files_without_a_type(tmp_path: Path) -> None:
    rectangle = entry("rectangle", points={"exterior": [[20, 20], [25, 22]], "interior": []})
    run_import(write_set(tmp_path / "in", polygon(SQUARE, kind=None), rectangle), tmp_path / "out")
    assert masks_in(tmp_path / "out")["a"].sum() == 144 + 18


def test_later_objects_lie_over_earlier_ones(tmp_path: Path) -> None:
    stem = {**polygon(HOLE), "classTitle": "stem"}
    result = run_import(write_set(tmp_path / "in", polygon(SQUARE), stem), tmp_path / "out")
    assert masks_in(tmp_path / "out")["a"][9, 9] == 2
    assert result.counts.overlapped == 9


def test_folders_of_splits_become_lists(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "in", polygon(SQUARE))
    (folder / "ds0").rename(folder / "train")
    photo(folder / "val" / "img" / "a.png")
    write_json(folder / "val" / "ann" / "a.png.json", {"size": {"height": 24, "width": 32}, "objects": [polygon(SQUARE)]})
    run_import(folder, tmp_path / "out")
    assert lists_in(tmp_path / "out") == {"train": ["train/a"], "val": ["val/a"]}


FAULTS: dict[str, tuple[object, str]] = {
    "class": (polygon(SQUARE) | {"classTitle": "root"}, "'root' is no class of meta.json"),
    "line": (entry("line", points={"exterior": SQUARE}), "is a line"),
    "points": (polygon("x"), "pairs of numbers"),
    "hole": (polygon(SQUARE, [[1, 2], [3]]), "a hole is not a list"),
    "rectangle": (entry("rectangle", points={"exterior": SQUARE}), "a rectangle of 4 points"),
    "no bitmap": (entry("bitmap"), "a bitmap of an unknown form"),
    "origin": (entry("bitmap", **bitmap(np.ones((2, 2)), "x")), "a bitmap of an unknown form"),
    "damaged": (entry("bitmap", bitmap={"data": "aGVsbG8=", "origin": [0, 0]}), "a damaged bitmap"),
    "outside": (entry("bitmap", **bitmap(np.ones((5, 5)), (30, 3))), "reaches outside"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_named_with_the_object(tmp_path: Path, fault: str) -> None:
    wrong, found = FAULTS[fault]
    with refused(ExitCode.DATA, "a.jpg.json", "object 1", found):
        run_import(write_set(tmp_path / "in", wrong), tmp_path / "out")


def test_files_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "in", polygon(SQUARE))
    write_json(folder / "ds0" / "ann" / "b.jpg.json", {"objects": [polygon(SQUARE)]})
    with refused(ExitCode.DATA, "b.jpg.json", "has no picture"):
        run_import(folder, tmp_path / "out")
    (folder / "ds0" / "ann" / "b.jpg.json").unlink()
    (folder / "ds0" / "ann" / "a.jpg.json").write_text("{")
    with refused(ExitCode.DATA, "a.jpg.json", "is no JSON"):
        run_import(folder, tmp_path / "out")
    write_json(folder / "meta.json", {"classes": "x"})
    with refused(ExitCode.DATA, "meta.json", "no list of classes"):
        run_import(folder, tmp_path / "out")


@settings(max_examples=10)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_a_mask_survives_the_way_through_bitmaps(tmp_path_factory: pytest.TempPathFactory, h: int, w: int, seed: int) -> None:
    tmp_path = tmp_path_factory.mktemp("trip")
    mask = np.random.default_rng(seed).integers(0, 3, (h, w), dtype=np.uint8)
    objects = [entry("bitmap", name, **bitmap(mask == k)) for k, name in ((1, "leaf"), (2, "stem"))]
    run_import(write_set(tmp_path / "in", *objects, size=(h, w)), tmp_path / "out")
    assert np.array_equal(masks_in(tmp_path / "out")["a"], mask)
