"""Fewer corners: never farther than asked for, and the same line for both neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from masks import blobs

from segnet.regions.filling import fill
from segnet.regions.labelling import find_regions
from segnet.regions.rims import signed_area, trace_rims
from segnet.regions.simplification import find_junctions, simplify


@pytest.mark.parametrize("tolerance", [0.75, 2.0])
def test_neighbours_share_their_line(tolerance: float) -> None:
    """So that polygons that do not cross themselves have the picture's area in all, and every pixel is in one of them."""
    for seed in range(6):
        mask = blobs(40, 60, 3, np.random.default_rng(seed))
        regions = find_regions(mask)
        junctions = find_junctions(regions.labels)
        rims = trace_rims(regions, np.ones(len(regions.sizes), bool), junctions)
        simple = [simplify(polygon, junctions, tolerance) for polygon in rims.values()]
        assert sum(signed_area(ring) for polygon in simple for ring in polygon) == mask.size
        corners = sum(len(ring) for polygon in simple for ring in polygon)
        assert corners < sum(len(ring) for polygon in rims.values() for ring in polygon) / 2
        again = np.full(mask.shape, 77, dtype=np.uint8)
        fill(again, [pair for pair in zip(regions.classes.tolist(), simple, strict=True) if pair[1]])
        assert (again != 77).all()
        assert (again == mask).mean() > 0.85


def test_no_corner_is_farther_away_than_the_tolerance() -> None:
    y, x = np.mgrid[:50, :50]
    disc = ((y - 25) ** 2 + (x - 24) ** 2 < 400).astype(np.uint8)
    regions = find_regions(disc)
    junctions = find_junctions(regions.labels)
    (ring,) = trace_rims(regions, regions.classes == 1, junctions)[1]
    (simple,) = simplify([ring], junctions, 1.0)
    ends = np.roll(simple, -1, axis=0) - simple
    for corner in ring:
        along = (((corner - simple) * ends).sum(1) / (ends**2).sum(1)).clip(0, 1)
        assert np.hypot(*(simple + along[:, None] * ends - corner).T).min() <= 1.0


def test_what_is_thinner_than_the_tolerance_vanishes() -> None:
    mask = np.zeros((9, 9), dtype=np.uint8)
    mask[4, 4] = 1
    regions = find_regions(mask)
    junctions = find_junctions(regions.labels)
    rims = trace_rims(regions, regions.classes == 1, junctions)
    assert simplify(rims[1], junctions, 2.0) == []
    assert len(simplify(rims[1], junctions, 0.1)[0]) == 4
