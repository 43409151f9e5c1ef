"""Random pixels of classes, connected components, and what is pasted where."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch

from segnet.data.pasting import connected_component, draw_pixel, draw_pixel_of_some_class, paste_object


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_component_is_scipys(share: float) -> None:
    rng = np.random.default_rng(0)
    for size in ((1, 1), (1, 9), (23, 31)):
        marked = rng.random(size) < share
        marked.flat[0] = True
        labels, count = scipy.ndimage.label(marked)
        for label in range(1, count + 1):
            places = np.argwhere(labels == label)
            row, column = places[rng.integers(len(places))].tolist()
            found = connected_component(torch.from_numpy(marked), (row, column))
            assert np.array_equal(found.numpy(), labels == label)


def test_every_pixel_of_the_class_is_drawn_and_no_other() -> None:
    marked = torch.tensor([[0, 1, 0], [1, 0, 1]], dtype=torch.bool)
    torch.manual_seed(0)
    assert {draw_pixel(marked) for _ in range(60)} == {(0, 1), (1, 0), (1, 2)}


def test_the_class_is_drawn_by_its_odds_among_those_of_the_mask() -> None:
    """Class 2 is absent, class 3 has no odds, 255 is no class; class 1 covers one pixel and is drawn three times as often."""
    mask = torch.zeros(9, 9, dtype=torch.uint8)
    mask[3:5], mask[6, 7], mask[8] = 3, 1, 255
    odds = torch.tensor([1.0, 3.0, 100.0, 0.0], dtype=torch.float64)
    torch.manual_seed(0)
    drawn = [draw_pixel_of_some_class(mask, odds) for _ in range(400)]
    assert all(pixel is not None and mask[pixel] in (0, 1) for pixel in drawn)
    assert 260 < drawn.count((6, 7)) < 340
    assert draw_pixel_of_some_class(torch.full((4, 4), 255, dtype=torch.uint8), odds) is None
    assert draw_pixel_of_some_class(torch.full((4, 4), 3, dtype=torch.uint8), odds) is None


def test_one_object_is_pasted_with_its_labels_and_the_inputs_are_left_alone() -> None:
    image, donor = torch.zeros(3, 6, 8, dtype=torch.uint8), torch.full((3, 6, 8), 9, dtype=torch.uint8)
    mask, donor_mask = torch.zeros(6, 8, dtype=torch.uint8), torch.full((6, 8), 1, dtype=torch.uint8)
    donor_mask[0:2, 0:2], donor_mask[4, 5:7] = 2, 2
    torch.manual_seed(0)
    sizes = set()
    for _ in range(20):
        pasted, labels = paste_object(image, mask, donor, donor_mask, 2)
        assert set(labels.unique().tolist()) == {0, 2}
        assert torch.equal(pasted, (labels == 2).to(torch.uint8).expand(3, -1, -1) * 9)
        sizes.add(int((labels == 2).sum()))
    assert sizes == {4, 2}
    assert not image.any()
    assert not mask.any()
    assert paste_object(image, mask, donor, donor_mask, 7)[0] is image
