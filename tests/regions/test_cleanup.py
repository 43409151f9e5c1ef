"""Small regions and holes: the rule, beside a plain one that labels the whole mask again after every step."""

from __future__ import annotations

import numpy as np
import pytest
from masks import random_masks

from segnet.regions.cleanup import clean_up
from segnet.regions.labelling import find_regions


def plainly(mask: np.ndarray, min_region: int, fill_holes: int) -> np.ndarray:
    """The rule, word by word."""
    mask = mask.copy()
    while True:
        regions = find_regions(mask)
        for number in np.lexsort((np.arange(len(regions.sizes)), regions.sizes)):
            own = regions.labels == number
            beside = np.zeros(256, dtype=int)
            around = set()
            for row, column in np.argwhere(own):
                for y, x in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                    if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and not own[y, x]:
                        beside[mask[y, x]] += 1
                        around.add(regions.labels[y, x])
            border = own[[0, -1]].any() or own[:, [0, -1]].any()
            size = regions.sizes[number]
            if around and (size < min_region or (size < fill_holes and len(around) == 1 and not border)):
                mask[own] = beside.argmax()
                break
        else:
            return mask


@pytest.mark.parametrize(("min_region", "fill_holes"), [(0, 9), (5, 0), (12, 30), (1000, 0)])
def test_the_rule_word_by_word(min_region: int, fill_holes: int) -> None:
    for mask in random_masks(60, seed=min_region + fill_holes):
        if mask.size <= 150:
            before = mask.copy()
            found = clean_up(mask, min_region=min_region, fill_holes=fill_holes)
            assert np.array_equal(found, plainly(mask, min_region, fill_holes))
            assert np.array_equal(mask, before)


def test_the_longest_border_decides() -> None:
    mask = np.array([[0, 0, 2, 2], [0, 1, 1, 2], [0, 1, 2, 2]], dtype=np.uint8)
    assert clean_up(mask, min_region=4).tolist() == [[0, 0, 2, 2], [0, 2, 2, 2], [0, 2, 2, 2]]
    assert clean_up(np.array([[2, 1, 0]], dtype=np.uint8), min_region=1).tolist() == [[2, 1, 0]]
    assert clean_up(np.array([[2, 2, 1, 0, 0]], dtype=np.uint8), min_region=2).tolist() == [[2, 2, 0, 0, 0]]


def test_a_hole_is_filled_and_a_region_at_the_border_stays() -> None:
    mask = np.ones((6, 7), dtype=np.uint8)
    mask[2:5, 2:5], mask[3, 3], mask[0, 0] = 0, 2, 0  # a hole with a speck in it, and a corner
    found = clean_up(mask, fill_holes=10)
    assert np.array_equal(found[1:], np.ones((5, 7)))
    assert found[0, 0] == 0
    assert np.array_equal(clean_up(mask, fill_holes=9)[2:5, 2:5], np.zeros((3, 3)))  # the speck alone


def test_a_mask_of_one_region_and_no_rule_change_nothing() -> None:
    mask = np.full((3, 3), 2, dtype=np.uint8)
    assert np.array_equal(clean_up(mask, min_region=100, fill_holes=100), mask)
    noise = np.arange(9, dtype=np.uint8).reshape(3, 3)
    assert clean_up(noise) is noise
