"""Pictures of masks: the colours of the classes, an overlay that leaves the background alone, rows and columns."""

from __future__ import annotations

import numpy as np
import torch

from segnet.classes import SAMPLE, VOC
from segnet.visualization import colorize, comparison, grid, overlay, to_array

IMAGE = torch.randint(0, 256, (3, 6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_each_pixel_has_the_colour_of_its_class() -> None:
    mask = torch.arange(256, dtype=torch.uint8).reshape(16, 16)
    colors = colorize(mask, SAMPLE)
    assert (colors.shape, colors.dtype) == ((16, 16, 3), np.uint8)
    assert [tuple(color) for color in colors.reshape(-1, 3)[: len(SAMPLE)]] == list(SAMPLE.colors)
    assert colors.reshape(-1).tolist() == SAMPLE.palette


def test_an_array_is_the_picture_with_its_channels_last() -> None:
    assert np.array_equal(to_array(IMAGE)[2, 5], IMAGE[:, 2, 5].numpy())
    assert to_array(IMAGE).flags.c_contiguous


def test_background_and_ignored_pixels_show_the_picture() -> None:
    for class_id in (0, 255):  # black, and VOC's colour of the border
        mask = torch.full((6, 8), class_id, dtype=torch.uint8)
        assert np.array_equal(overlay(IMAGE, mask, VOC), to_array(IMAGE))


def test_a_class_is_mixed_in_and_its_edge_drawn_in_full() -> None:
    mask = torch.zeros(6, 8, dtype=torch.uint8)
    mask[:, 4:] = 1
    shown, color = overlay(IMAGE, mask, SAMPLE, opacity=0.25), np.array(SAMPLE.colors[1])
    mixed = 0.75 * to_array(IMAGE)[:, 5:] + 0.25 * color
    assert np.abs(shown[:, 5:] - mixed).max() <= 0.51
    assert np.all(shown[:, 4] == color)
    assert np.array_equal(shown[:, :4], to_array(IMAGE)[:, :4])
    assert np.array_equal(overlay(IMAGE.mT, mask.T, SAMPLE, opacity=0.25), shown.transpose(1, 0, 2))


def test_a_grid_keeps_every_cell_on_white() -> None:
    cells = [
        [np.full((h, w, 3), value, np.uint8) for h, w, value in row] for row in [[(2, 3, 1), (4, 5, 2)], [(1, 6, 3), (1, 1, 4)]]
    ]
    picture = grid(cells, gap=2)
    assert picture.shape == (4 + 2 + 1, 6 + 2 + 5, 3)
    assert np.all(picture[:2, :3] == 1)
    assert np.all(picture[:4, 8:13] == 2)
    assert np.all(picture[6:, :6] == 3)
    assert np.all(picture[6:, 8:9] == 4)
    assert (picture == 255).all(axis=2).sum() == 7 * 13 - (6 + 20 + 6 + 1)


def test_a_comparison_is_picture_truth_prediction() -> None:
    truth, prediction = torch.zeros(6, 8, dtype=torch.uint8), torch.ones(6, 8, dtype=torch.int64)
    shown = comparison(IMAGE, truth, prediction, SAMPLE)
    assert np.array_equal(shown[0], to_array(IMAGE))
    assert (shown[1][0, 0].tolist(), shown[2][0, 0].tolist()) == (list(SAMPLE.colors[0]), list(SAMPLE.colors[1]))
