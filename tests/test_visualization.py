"""Pictures of masks and predictions: colours, overlays, rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from segnet import visualization
from segnet.classes import SAMPLE, VOC
from segnet.visualization import (
    STRIPES,
    UNCERTAINTY_COLORS,
    WRONG,
    colorize,
    comparison_row,
    cut_out,
    error_map,
    grid,
    overlay,
    to_array,
    uncertainty_map,
)

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


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (23, 17)])
@pytest.mark.parametrize("band", [1, 40, 1000])
def test_an_overlay_made_in_bands_is_the_formula_at_every_pixel(
    size: tuple[int, int], band: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same to the bit, with ids that have no class as well."""
    monkeypatch.setattr(visualization, "_BAND", band)
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (3, *size), dtype=np.uint8))
    mask = torch.from_numpy(rng.choice([0, 1, 1, 1, 5, 200, 255], size).astype(np.uint8))
    color = colorize(mask, VOC).astype(np.float64)
    alpha = np.where(color.any(axis=2) & (mask.numpy() != 255), 0.55, 0.0)
    for row, column in np.ndindex(size):
        above, left = mask[max(0, row - 1), column], mask[row, max(0, column - 1)]
        if alpha[row, column] and {int(above), int(left)} != {int(mask[row, column])}:
            alpha[row, column] = 1
    expected = to_array(image) * (1 - alpha[..., None]) + color * alpha[..., None]
    decoded = torch.from_numpy(to_array(image).copy()).permute(2, 0, 1)  # in the memory order of `open_image`
    assert np.array_equal(overlay(decoded, mask, VOC), expected.round())
    assert torch.equal(decoded, image), "the picture itself was drawn on"


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
    shown = comparison_row(IMAGE, truth, prediction, SAMPLE)
    assert np.array_equal(shown[0], to_array(IMAGE))
    assert (shown[1][0, 0].tolist(), shown[2][0, 0].tolist()) == (list(SAMPLE.colors[0]), list(SAMPLE.colors[1]))


TRUTH = torch.tensor([[0, 1, 255], [2, 2, 255]], dtype=torch.uint8)
PREDICTED = torch.tensor([[0, 2, 1], [2, 0, 2]], dtype=torch.uint8)


def test_what_is_not_scored_is_cut_out() -> None:
    shown = cut_out(TRUTH, SAMPLE)
    assert shown[..., 3].tolist() == [[255, 255, 0], [255, 255, 0]]
    assert np.array_equal(shown[:, :2, :3], colorize(TRUTH, SAMPLE)[:, :2])


def test_errors_are_marked_where_truth_is_known() -> None:
    shown = error_map(TRUTH, PREDICTED, SAMPLE)
    assert shown[..., 3].tolist() == [[0, 255, 255], [0, 255, 255]]
    assert [tuple(shown[0, 1, :3]), tuple(shown[1, 1, :3])] == [WRONG, WRONG]
    assert {tuple(shown[0, 2, :3]), tuple(shown[1, 2, :3])} <= set(STRIPES)


def test_uncertainty_is_brighter_the_higher_and_nan_is_the_highest() -> None:
    shown = uncertainty_map(torch.tensor([[*torch.linspace(0, 1, 21), -1.0, 2.0, math.nan]]))[0].astype(int)
    luminance = shown @ np.array([0.2126, 0.7152, 0.0722])
    assert np.all(np.diff(luminance[:21]) > 0)
    assert [tuple(shown[0]), tuple(shown[10]), tuple(shown[20])] == [UNCERTAINTY_COLORS[index] for index in (0, 2, 4)]
    assert [tuple(color) for color in shown[21:]] == [UNCERTAINTY_COLORS[index] for index in (0, 4, 4)]
