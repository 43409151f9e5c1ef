"""Components and their widths, beside scipy's labels and shapes whose width is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from segnet.planning.objects import Objects, find_objects, width_below


def by_class(objects: Objects) -> list[tuple[int, int]]:
    """(class, pixels) of each component, sorted."""
    return sorted(zip(objects.classes.tolist(), objects.pixels.tolist(), strict=True))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (33, 47)])
def test_the_components_are_those_of_scipy(size: tuple[int, int]) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    for seed in range(6):
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 3 + seed % 2, size, dtype=np.uint8)
        mask = np.where(rng.random(size) < 0.1, np.uint8(255), coarse)
        expected = []
        for value in range(5):
            labels, _ = ndimage.label(mask == value, structure=np.ones((3, 3)))
            expected += [(value, int(count)) for count in np.bincount(labels.ravel())[1:]]
        assert by_class(find_objects(mask)) == sorted(expected)


def test_a_long_winding_component_is_one() -> None:
    mask = np.zeros((41, 40), np.uint8)
    mask[::2] = 1
    mask[1::4, -1] = mask[3::4, 0] = 1
    assert [pair for pair in by_class(find_objects(mask)) if pair[0] == 1] == [(1, int(mask.sum()))]


def test_the_width_is_that_of_the_shape_and_not_its_length() -> None:
    mask = np.zeros((200, 300), np.uint8)
    mask[10:13, 5:205] = 1  # a crack of 3 pixels
    mask[30:50, 40:60] = 2
    rows, columns = np.mgrid[:200, :300]
    mask[(rows - 130) ** 2 + (columns - 150) ** 2 < 40**2] = 3
    diagonal = np.where(np.abs(rows - columns) * 2 < 5, np.uint8(4), np.uint8(0))  # 5 pixels along a row
    widths = {k: width_below(find_objects(diagonal if k == 4 else mask), k, 0.5) for k in (1, 2, 3, 4)}
    assert widths[1] == pytest.approx(3, abs=0.1)
    assert widths[2] == 20
    assert widths[3] == pytest.approx(0.75 * 80, rel=0.05)
    assert widths[4] == pytest.approx(5, abs=0.1)


def test_the_width_below_is_weighted_by_pixels_so_that_specks_do_not_count() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[40:80, 40:80] = 1  # 1,600 pixels
    mask[1:30:4, 1:60:4] = 1  # 120 specks
    found = find_objects(mask)
    assert width_below(found, 1, 0.05) == 1
    assert width_below(found, 1, 0.10) == 40
    assert math.isnan(width_below(found, 2, 0.5))
