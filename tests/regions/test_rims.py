"""Outlines along the sides of pixels: exact, and valid polygons."""

from __future__ import annotations

import numpy as np
import pytest
from masks import random_masks, trials

from segnet.regions.filling import fill
from segnet.regions.labelling import find_regions
from segnet.regions.rims import Polygon, signed_area, trace_rims
from segnet.regions.simplification import find_junctions


def rims_of(mask: np.ndarray, *, stops: bool = False) -> dict[int, Polygon]:
    regions = find_regions(mask)
    return trace_rims(regions, np.ones(len(regions.sizes), bool), find_junctions(regions.labels) if stops else None)


@pytest.mark.parametrize("stops", [False, True])
def test_filled_rims_are_the_mask_again(stops: bool) -> None:
    for mask in random_masks(trials(150)):
        regions, again = find_regions(mask), np.full(mask.shape, 77, dtype=np.uint8)
        rims = rims_of(mask, stops=stops)
        assert list(rims) == list(range(len(regions.sizes)))
        fill(again, ((int(regions.classes[number]), polygon) for number, polygon in rims.items()))
        assert np.array_equal(again, mask)


def test_a_rim_passes_no_corner_twice_and_areas_add_up() -> None:
    for mask in random_masks(60, seed=1):
        sizes = find_regions(mask).sizes
        for number, polygon in rims_of(mask).items():
            assert [signed_area(ring) > 0 for ring in polygon] == [True] + [False] * (len(polygon) - 1)
            assert sum(map(signed_area, polygon)) == sizes[number]
            for ring in polygon:
                assert len(set(map(tuple, ring.tolist()))) == len(ring)
                turns = np.diff(np.concatenate([ring, ring[:2]]), axis=0)
                assert ((turns[1:] * turns[:-1]).sum(axis=1) == 0).all()  # only corners at which the rim turns


def test_pixels_that_touch_at_a_corner() -> None:
    apart = rims_of(np.array([[1, 0], [0, 1]], dtype=np.uint8))
    assert [len(polygon[0]) for polygon in apart.values()] == [4, 4, 4, 4]
    ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=np.uint8)  # its hole touches the outside at a corner
    outer, hole = rims_of(ring)[0]
    assert outer.tolist() == [[3, 0], [3, 2], [2, 2], [2, 3], [0, 3], [0, 0]]
    assert sorted(hole.tolist()) == [[1, 1], [1, 2], [2, 1], [2, 2]]


def test_only_wanted_regions_are_traced() -> None:
    regions = find_regions(np.array([[0, 1, 1, 0]], dtype=np.uint8))
    assert list(trace_rims(regions, regions.classes == 1)) == [1]
    assert trace_rims(regions, regions.classes == 7) == {}
