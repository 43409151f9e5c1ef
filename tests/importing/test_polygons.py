"""Polygons become the pixels that COCO's tools and Pillow give, with no pixel of difference."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from helpers import refused
from PIL import Image, ImageDraw

from segnet.importing import polygons
from segnet.importing.painting import Patch
from segnet.importing.polygons import (
    coco_polygon,
    pillow_circle,
    pillow_line,
    pillow_polygon,
    pillow_rectangle,
    read_points,
)
from segnet.system.errors import ExitCode

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside pycocotools
TRIALS = int(os.environ.get("SEGNET_POLYGON_TRIALS", "300"))
KINDS = ("any", "sliver", "star", "outside", "hole", "whole", "half", "tiny", "repeated", "edge")


def whole(patch: Patch, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool of a picture with one patch."""
    mask = np.zeros(size, dtype=bool)
    height, width = patch.mask.shape
    mask[patch.top : patch.top + height, patch.left : patch.left + width] = patch.mask
    return mask


def random_parts(kind: str, rng: np.random.Generator, size: tuple[int, int]) -> list[np.ndarray]:
    """The parts of a random polygon of a kind."""
    height, width = size
    corners = rng.integers(3, 12)
    points = rng.random((corners, 2)) * (width, height)
    if kind == "sliver":
        start, along = points[0], rng.normal(size=2) * 20
        points = np.stack([start, start + along, start + along + rng.random(2), start + rng.random(2) * 0.3])
    if kind == "star":
        turn = np.arange(0, 10, 2) * 4 * np.pi / 5 / 2 + rng.random()
        points = (np.stack([np.cos(turn), np.sin(turn)], axis=1) * 0.45 + 0.5) * (width, height)
    if kind == "outside":
        points = (points - (width / 2, height / 2)) * 3 + rng.random(2) * (width, height)
    if kind == "hole":  # a bridge of two coincident lines leads to the inner ring, which is walked the other way
        outer = np.array([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]]) * (width, height) + rng.random(2)
        inner = np.array([[0.3, 0.3], [0.3, 0.7], [0.7, 0.7], [0.7, 0.3]]) * (width, height) + rng.random(2)
        points = np.concatenate([outer, outer[:1], inner, inner[:1]])
    if kind == "whole":
        points = points.round()
    if kind == "half":
        points = (points * 2).round() / 2
    if kind == "tiny":
        points = points[:1] + rng.random((corners, 2)) * 1.5
    if kind == "repeated":
        points = np.repeat(points, 2, axis=0)
    if kind == "edge":
        points = points.round() * rng.choice([0, 1], (corners, 2)) + rng.choice([0, width], (corners, 1))
    more = [rng.random((4, 2)) * (width, height)] if rng.random() < 0.3 else []
    return [points, *more]


def test_coco_polygons_are_bit_identical_to_pycocotools() -> None:
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    differing = filled = 0
    for trial in range(TRIALS):
        rng = np.random.default_rng(trial)
        size = int(rng.integers(1, 90)), int(rng.integers(1, 90))
        parts = random_parts(KINDS[trial % len(KINDS)], rng, size)
        runs = coco.frPyObjects([part.reshape(-1).tolist() for part in parts], *size)
        expected = coco.decode(coco.merge(runs)).astype(bool)
        found = whole(coco_polygon(parts, size), size)
        differing += int((found != expected).sum())
        filled += int(expected.sum())
    assert differing == 0
    assert filled > 100 * TRIALS, "the polygons cover next to nothing, so that they prove nothing"


def test_a_square_has_the_pixels_whose_centres_it_holds() -> None:
    square = np.array([[1.0, 2.0], [4.0, 2.0], [4.0, 5.0], [1.0, 5.0]])
    expected = np.zeros((8, 8), dtype=bool)
    expected[2:5, 1:4] = True
    assert np.array_equal(whole(coco_polygon([square], (8, 8)), (8, 8)), expected)


@pytest.mark.parametrize("trial", range(40))
def test_pillow_outlines_are_those_of_image_draw(trial: int) -> None:
    rng = np.random.default_rng(trial)
    size = int(rng.integers(5, 60)), int(rng.integers(5, 60))
    points = random_parts(KINDS[trial % len(KINDS)], rng, size)[0]
    pairs = [tuple(point) for point in points]
    center, radius = points[0], float(rng.random() * 20)
    x, y = center
    boxes = [
        float(np.min(points[:2, 0])),
        float(np.min(points[:2, 1])),
        float(np.max(points[:2, 0])),
        float(np.max(points[:2, 1])),
    ]

    def expect(name: str, *arguments: object, **options: object) -> np.ndarray:
        picture = Image.fromarray(np.zeros(size, dtype=np.uint8))
        getattr(ImageDraw.Draw(picture), name)(*arguments, fill=1, **options)
        return np.array(picture, dtype=bool)

    assert np.array_equal(whole(pillow_polygon(points, size), size), expect("polygon", pairs, outline=1))
    assert np.array_equal(whole(pillow_rectangle(points[:2], size), size), expect("rectangle", boxes, outline=1))
    ellipse = [x - radius, y - radius, x + radius, y + radius]
    assert np.array_equal(whole(pillow_circle(center, radius, size), size), expect("ellipse", ellipse, outline=1))
    assert np.array_equal(whole(pillow_line(points, size, 10), size), expect("line", pairs, width=10))


def test_a_shape_that_reaches_outside_is_cut_and_says_so() -> None:
    square = np.array([[-3.0, -3.0], [2.0, -3.0], [2.0, 2.0], [-3.0, 2.0]])
    for patch in (coco_polygon([square], (9, 9)), pillow_polygon(square, (9, 9)), pillow_rectangle(square, (9, 9))):
        assert patch.outside
        assert whole(patch, (9, 9))[:2, :2].all()
    assert not coco_polygon([square + 4], (9, 9)).outside
    assert not coco_polygon([square - 40], (9, 9)).mask.any()


@pytest.mark.parametrize("at_once", [1, 7, 100])
def test_long_outlines_are_walked_in_parts(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    parts = [part for kind in KINDS for part in random_parts(kind, rng, (40, 50))]
    expected = [whole(coco_polygon([part], (40, 50)), (40, 50)) for part in parts]
    monkeypatch.setattr(polygons, "_AT_ONCE", at_once)
    assert all(np.array_equal(whole(coco_polygon([p], (40, 50)), (40, 50)), e) for p, e in zip(parts, expected, strict=True))


def test_an_outline_that_takes_minutes_to_walk_is_refused() -> None:
    points = [[(-1.0) ** n * 900_000, float(n)] for n in range(1000)]
    with refused(ExitCode.DATA, "a.json", "an outline of 1,798,200,000 pixels"):
        read_points(points, Path("a.json"), "object 3")


def test_fewer_than_three_points_have_no_pixel() -> None:
    line = np.array([[0.0, 0.0], [9.0, 9.0]])
    assert not coco_polygon([line], (9, 9)).mask.any()
    assert not pillow_polygon(line, (9, 9)).mask.any()


@pytest.mark.parametrize(
    "values", [None, "1,2", [1], [1, "2"], [[1, 2], [3]], [[[1, 2]]], [True, False], {"x": 1}, [10**400, 2, 3, 4]]
)
def test_what_is_no_list_of_points_is_refused(values: object) -> None:
    with refused(ExitCode.DATA, "a.json", "object 3"):
        read_points(values, Path("a.json"), "object 3")


@pytest.mark.parametrize("far", [1e9, float("nan"), float("inf"), -1e300])
def test_points_that_cannot_be_meant_are_refused(far: float) -> None:
    with refused(ExitCode.DATA, "object 3", "pixels away"):
        read_points([1.0, 2.0, far, 3.0, 4.0, 5.0], Path("a.json"), "object 3")
