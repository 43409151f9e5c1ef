"""Objects and their widths, on shapes whose width is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from segnet.planning.objects import find_objects, width_below


def test_each_region_is_an_object_but_what_is_ignored() -> None:
    mask = np.array([[1, 1, 255, 1], [0, 0, 0, 1]], np.uint8)
    found = find_objects(mask)
    assert list(zip(found.classes, found.pixels, found.widths, strict=True)) == [(1, 2, 1), (1, 2, 1), (0, 3, 1)]


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
