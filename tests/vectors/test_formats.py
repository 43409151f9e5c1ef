"""What is written for other tools is read again as the same masks, by their rules."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import refused
from label_exports import masks_in, names_in, photo, run_import
from masks import random_masks, trials
from pycocotools import mask as coco

from segnet.classes import class_set
from segnet.regions.shapes import PictureShapes, trace_shapes
from segnet.system.errors import ExitCode
from segnet.vectors.formats import FORMATS

NAMES = ("background", "leaf", "stem", "spot")
CLASSES = class_set(NAMES)


def pictures_of(masks: list[np.ndarray], *, tolerance: float = 0.0) -> list[PictureShapes]:
    found = []
    for number, mask in enumerate(masks):
        confidence = np.full(mask.shape, 0.5, np.float32)
        found.append(trace_shapes(f"deep/{number}.jpg", mask, confidence, CLASSES, tolerance=tolerance))
    return found


def all_classes_first(masks: list[np.ndarray]) -> list[np.ndarray]:
    return [np.array([[0, 1, 2, 3]] * 2, dtype=np.uint8), *masks]


@pytest.mark.parametrize("name", FORMATS)
def test_an_import_gives_the_same_masks(tmp_path: Path, name: str) -> None:
    masks = all_classes_first(list(random_masks(trials(40), seed=2)))
    for number, mask in enumerate(masks):
        photo(tmp_path / "pictures" / "deep" / f"{number}.jpg", mask.shape, seed=number)
    path = tmp_path / FORMATS[name].file
    FORMATS[name].write(path, iter(pictures_of(masks)), CLASSES)
    run_import(path, tmp_path / "out", pictures=tmp_path / "pictures", unlabelled="background")
    found = masks_in(tmp_path / "out")
    assert tuple(names_in(tmp_path / "out")) == NAMES
    for number, mask in enumerate(masks):
        key = next(key for key in found if key.split("/")[-1] == str(number))
        assert np.array_equal(found[key], mask), number


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_shapes_give_the_same_bytes(tmp_path: Path, name: str) -> None:
    shapes = pictures_of(all_classes_first(list(random_masks(3, seed=3))))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        FORMATS[name].write(tmp_path / folder / "x", iter(shapes), CLASSES)
    assert (tmp_path / "a" / "x").read_bytes() == (tmp_path / "b" / "x").read_bytes()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside pycocotools
def test_pycocotools_gives_the_pixels_of_each_region(tmp_path: Path) -> None:
    masks = list(random_masks(20, seed=4))
    FORMATS["coco"].write(tmp_path / "coco.json", iter(pictures_of(masks)), CLASSES)
    content = json.loads((tmp_path / "coco.json").read_text())
    assert content["categories"] == [{"id": 2, "name": "leaf"}, {"id": 3, "name": "stem"}, {"id": 4, "name": "spot"}]
    again = [np.zeros_like(mask) for mask in masks]
    for entry in content["annotations"]:
        shape, segmentation = again[entry["image_id"] - 1].shape, entry["segmentation"]
        rle = coco.merge(coco.frPyObjects(segmentation, *shape)) if isinstance(segmentation, list) else dict(segmentation)
        rle["counts"] = rle["counts"].encode() if isinstance(rle["counts"], str) else rle["counts"]
        pixels = coco.decode(rle).astype(bool)
        assert (int(pixels.sum()), coco.toBbox(rle).tolist()) == (entry["area"], entry["bbox"])
        again[entry["image_id"] - 1][pixels] = entry["category_id"] - 1
    assert all(np.array_equal(one, other) for one, other in zip(again, masks, strict=True))


def test_labelme_has_polygons_to_edit_where_they_are_exact(tmp_path: Path) -> None:
    mask = np.zeros((20, 20), dtype=np.uint8)
    mask[2:9, 3:12] = 1
    mask[12:19, 3:12], mask[14:16, 5:7] = 2, 0
    FORMATS["labelme"].write(tmp_path / "x.zip", iter(pictures_of([mask])), CLASSES)
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        content = json.loads(archive.read("deep/0.json"))
    assert [(shape["label"], shape["shape_type"]) for shape in content["shapes"]] == [("leaf", "polygon"), ("stem", "mask")]
    assert sorted(content["shapes"][0]["points"]) == [[3, 2], [3, 8], [11, 2], [11, 8]]
    assert content["imagePath"] == "0.jpg"


def test_what_cvat_cannot_hold_is_refused(tmp_path: Path) -> None:
    mask = np.ones((2, 2), dtype=np.uint8)
    confidence = np.ones((2, 2), np.float32)
    colon = class_set(("background", "a:b"))
    with refused(ExitCode.CONFIG, "data.classes: a:b: a colon"):
        FORMATS["cvat"].write(tmp_path / "x", iter([trace_shapes("a.jpg", mask, confidence, colon)]), colon)
    black = class_set(("background", "leaf"), ((9, 9, 9), (0, 0, 0)))
    with refused(ExitCode.CONFIG, "data.colors: two classes, or a class and CVAT's background, have one colour"):
        FORMATS["cvat"].write(tmp_path / "x", iter([trace_shapes("a.jpg", mask, confidence, black)]), black)
    with refused(ExitCode.DATA, "a line break in the name"):
        FORMATS["cvat"].write(tmp_path / "x", iter([trace_shapes("a\nb.jpg", mask, confidence, CLASSES)]), CLASSES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["labelme", "cvat", "yolo"])
def test_pictures_that_differ_in_their_suffix_alone_do_not_share_a_file(tmp_path: Path, name: str) -> None:
    (shapes,) = pictures_of([np.ones((3, 4), dtype=np.uint8)])
    two = [shapes._replace(picture=picture) for picture in ("deep/a.jpg", "deep/a.png")]
    with refused(ExitCode.DATA, "two pictures would have one file in it", "/a.", "--polygons coco"):
        FORMATS[name].write(tmp_path / "x.zip", iter(two), CLASSES)
    assert list(tmp_path.iterdir()) == []
