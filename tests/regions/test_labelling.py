"""Connected regions, beside scipy's."""

from __future__ import annotations

import numpy as np
from masks import random_masks
from scipy import ndimage

from segnet.regions.labelling import find_regions


def test_regions_are_those_of_scipy_in_reading_order() -> None:
    for mask in random_masks(60):
        found = find_regions(mask)
        _, first = np.unique(found.labels, return_index=True)
        assert (np.diff(first) > 0).all()
        assert np.array_equal(np.unique(found.labels), np.arange(len(found.sizes)))
        assert np.array_equal(found.classes[found.labels], mask)
        assert np.array_equal(np.bincount(found.labels.ravel()), found.sizes)
        assert len(found.sizes) == sum(ndimage.label(mask == number)[1] for number in range(4))
        for number in np.unique(mask):
            pieces, _ = ndimage.label(mask == number)
            pairs = np.unique(np.stack([pieces, found.labels])[:, mask == number], axis=1)
            assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


def test_a_spiral_is_one_region() -> None:
    spiral = np.zeros((41, 41), dtype=np.uint8)
    row, column, step = 0, 0, (0, 1)
    for length in [40, *(side for side in range(40, 0, -2) for _ in range(2))]:
        for _ in range(length):
            spiral[row, column] = 1
            row, column = row + step[0], column + step[1]
        step = (step[1], -step[0])
    found = find_regions(spiral)
    assert found.classes.tolist().count(1) == 1
    assert ndimage.label(spiral)[1] == 1
