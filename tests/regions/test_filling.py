"""The pixels inside of polygons, by their centres."""

from __future__ import annotations

import numpy as np

from segnet.regions.filling import fill


def filled(*rings: list[list[int]], size: tuple[int, int] = (6, 7)) -> list[list[int]]:
    mask = np.zeros(size, dtype=np.uint8)
    fill(mask, [(1, [np.array(ring, dtype=np.int32) for ring in rings])])
    return mask.tolist()


def test_a_pixel_is_inside_where_an_independent_test_of_its_centre_says_so() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        ring = np.column_stack([rng.integers(0, 8, 5), rng.integers(0, 7, 5)])
        expected = np.zeros((6, 7), dtype=int)
        for row, column in np.ndindex(6, 7):
            x, y, inside, on_edge = column + 0.5, row + 0.5, False, False
            for (x0, y0), (x1, y1) in zip(ring.tolist(), np.roll(ring, -1, axis=0).tolist(), strict=True):
                if (y0 > y) != (y1 > y):
                    crossing = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
                    on_edge |= abs(crossing - x) < 1e-9
                    inside ^= crossing < x
            expected[row, column] = -1 if on_edge else inside
        found = np.array(filled(ring.tolist()))
        assert (found == expected)[expected >= 0].all()


def test_two_triangles_of_a_rectangle_share_no_pixel_and_leave_none() -> None:
    one, other = filled([[0, 0], [7, 0], [7, 6]]), filled([[0, 0], [7, 6], [0, 6]])
    assert (np.array(one) + np.array(other) == 1).all()


def test_a_flat_ring_has_no_pixel() -> None:
    assert not np.any(filled([[2, 1], [5, 1]]))
