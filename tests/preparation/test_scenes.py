"""Scenes show what their masks say, with a border around every object."""

from __future__ import annotations

import numpy as np
import pytest

from segnet.classes import IGNORE_INDEX, SAMPLE
from segnet.preparation.scenes import _outline, render_scene


@pytest.fixture(scope="module")
def masks() -> list[np.ndarray]:
    return [render_scene(0, index)[1] for index in range(24)]


def test_scenes_are_uint8_of_one_size_with_known_labels() -> None:
    for index in range(4):
        picture, mask = render_scene(5, index)
        assert picture.dtype == mask.dtype == np.uint8
        assert picture.shape == (*mask.shape, 3)
        assert set(np.unique(mask)) <= {*range(len(SAMPLE)), IGNORE_INDEX}
        assert picture.std() > 15  # neither black nor blown out


def test_classes_are_common_and_sizes_vary(masks: list[np.ndarray]) -> None:
    for class_id in range(1, len(SAMPLE)):
        assert np.mean([np.any(mask == class_id) for mask in masks]) >= 0.3, SAMPLE.names[class_id]
    assert len({mask.shape for mask in masks}) > 1


def test_a_border_separates_every_object(masks: list[np.ndarray]) -> None:
    for mask in masks:
        for a, b in ((mask[1:], mask[:-1]), (mask[:, 1:], mask[:, :-1])):
            assert np.all((a == b) | (a == IGNORE_INDEX) | (b == IGNORE_INDEX))


def test_outline_is_one_pixel_on_each_side_even_between_objects_of_a_class() -> None:
    owner = np.array([[0, 0, 0, 1, 1, 1, 2, 2, 2]], np.uint8)
    assert _outline(owner, [4, 4]).tolist() == [[0, 0, 255, 255, 4, 255, 255, 4, 4]]
    assert _outline(owner.T, [4, 4]).tolist() == [[i] for i in [0, 0, 255, 255, 4, 255, 255, 4, 4]]


def test_the_mask_shows_what_the_picture_shows() -> None:
    """Each outline of the mask has an edge in the picture more often than a place without an outline has."""
    on_edges, elsewhere = [], []
    for index in range(5):
        picture, mask = render_scene(0, index)
        grey = picture.mean(2)
        slope = np.hypot(*np.gradient(grey))
        on_edges.append(slope[mask == IGNORE_INDEX].mean())
        elsewhere.append(slope[mask == 0].mean())
    assert np.mean(on_edges) > 2 * np.mean(elsewhere)
