"""Picture and mask change together: they stay aligned, no label is invented, and what lies beyond is ignored."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segnet.classes import IGNORE_INDEX
from segnet.config.sections import AugmentConfig
from segnet.data.colors import change_colors, draw_changes
from segnet.data.transforms import RandomZoomCrop, TrainTransform, Window, eval_transform

MEAN_COLOR = torch.tensor([124, 116, 104], dtype=torch.uint8)


def labelled_picture(height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A mask of two large regions of ids 40 and 200, and a picture whose every channel is the mask."""
    mask = torch.full((height, width), 40, dtype=torch.uint8)
    rng = np.random.default_rng(seed)
    top, left = rng.integers(0, max(1, height // 2)), rng.integers(0, max(1, width // 2))
    mask[top : top + height // 2 + 1, left : left + width // 2 + 1] = 200
    return mask.expand(3, -1, -1).clone(), mask


def apply(config: AugmentConfig, image: Tensor, mask: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    image, mask = TrainTransform(config)(image, mask)
    return change_colors(image, draw_changes(config)), mask


augmentations = st.builds(
    AugmentConfig,
    crop_size=st.tuples(st.integers(16, 40), st.integers(16, 40)),
    scale=st.tuples(st.floats(0.25, 1), st.floats(1, 4)),
    flip=st.sampled_from([0.0, 0.5, 1.0]),
    vertical_flip=st.sampled_from([0.0, 0.5]),
    quarter_turn=st.sampled_from([0.0, 0.5]),
    cutout=st.sampled_from([0.0, 0.5]),
    jpeg=st.sampled_from([0.0, 0.5]),
    gamma=st.sampled_from([0.0, 0.5]),
    brightness=st.sampled_from([0.0, 0.5]),
    hue=st.sampled_from([0.0, 0.1]),
    rotation=st.sampled_from([0.0, 5.0, 180.0]),
    blur=st.sampled_from([0.0, 0.5]),
)
sides = st.integers(1, 60)


@settings(max_examples=80)
@given(augmentations, sides, sides, st.integers(0, 1000))
def test_any_picture_gives_the_crop_size_and_no_new_label(config: AugmentConfig, height: int, width: int, seed: int) -> None:
    image, mask = labelled_picture(height, width)
    new_image, new_mask = apply(config, image, mask, seed)
    assert (new_image.dtype, new_mask.dtype, type(new_image), type(new_mask)) == (torch.uint8, torch.uint8, Tensor, Tensor)
    assert (new_image.shape, new_mask.shape) == ((3, *config.crop_size), config.crop_size)
    assert set(new_mask.unique().tolist()) <= {*mask.unique().tolist(), IGNORE_INDEX}
    assert torch.equal(image, labelled_picture(height, width)[0])  # the input is left alone


@settings(max_examples=60)
@given(st.tuples(sides, sides), st.booleans(), st.integers(0, 1000))
def test_at_its_own_resolution_the_picture_is_cut_exactly(size: tuple[int, int], flip: bool, seed: int) -> None:
    """Each pixel of the crop is the same pixel in both, and what lies beyond is mean colour and ignored."""
    image, mask = labelled_picture(*size)
    config = AugmentConfig(crop_size=(24, 32), scale=(1.0, 1.0), flip=float(flip))
    new_image, new_mask = apply(config, image, mask, seed)
    beyond = new_mask == IGNORE_INDEX
    assert int((~beyond).sum()) == min(size[0], 24) * min(size[1], 32)  # a picture is never cut without need
    assert torch.equal(new_image[:, ~beyond], new_mask[~beyond].expand(3, -1))
    assert torch.all(new_image[:, beyond] == MEAN_COLOR[:, None])


def test_a_smaller_part_of_the_run_shows_the_same_window_smaller() -> None:
    image, mask = labelled_picture(48, 48)
    transform = TrainTransform(AugmentConfig(crop_size=(32, 32), scale=(1.0, 1.0), flip=0.0, shrink=(0.5, 1.0)))
    torch.manual_seed(0)
    small = transform(image, mask, 0.5)[1]
    torch.manual_seed(0)
    whole = transform(image, mask)[1]
    assert (small.shape, whole.shape) == ((16, 16), (32, 32))
    assert torch.equal(small, whole[1::2, 1::2])


def test_every_window_of_the_picture_may_be_drawn() -> None:
    crop = RandomZoomCrop((16, 16), (1.0, 1.0))
    for side, places in ((20, range(5)), (16, range(1)), (13, range(-3, 1))):
        drawn = [crop.draw_window(side, 16) for _ in range(150)]
        assert {window[0] for window in drawn} == set(places)
        assert {tuple(window[1:]) for window in drawn} == {(0, 16, 16)}


def test_the_zoom_is_uniform_in_its_logarithm_and_keeps_proportions() -> None:
    torch.manual_seed(0)
    crop = RandomZoomCrop((400, 800), (0.5, 2.0))
    windows = np.array([crop.draw_window(8, 8)[2:] for _ in range(2000)], dtype=np.float64)
    zooms = np.log2(400 / windows[:, 0])
    assert (-1.01 < zooms.min() < -0.95, 0.95 < zooms.max() < 1.01) == (True, True)
    assert np.histogram(zooms, bins=4, range=(-1.01, 1.01))[0].min() > 400
    assert np.abs(windows[:, 1] / windows[:, 0] - 2).max() < 0.01


def edge_position(values: Tensor, low: int, high: int) -> float:
    """Where a row steps from `low` to `high`, to a fraction of a pixel: its brightness says so."""
    return float((high - values.double()).sum() / (high - low))


@pytest.mark.parametrize("zoom", [0.37, 0.71, 1.37, 2.9])
@pytest.mark.parametrize("axis", [0, 1])
def test_picture_and_mask_do_not_drift_apart_when_resized(zoom: float, axis: int) -> None:
    """On average over all places of an edge, it stands at the same place in both, to a tenth of a pixel."""
    drift = []
    crop = RandomZoomCrop((64, 64), (zoom, zoom))
    side = round(64 / zoom)
    for edge in range(side // 4, side // 4 * 3):
        mask = torch.zeros(side, side, dtype=torch.uint8)
        mask.narrow(axis, edge, side - edge).fill_(200)
        image, mask = crop.cut(mask.expand(3, -1, -1).clone(), mask, Window(0, 0, side, side))
        rows = [(part if axis == 1 else part.T)[5] for part in (image[0], mask)]
        drift.append(edge_position(rows[0], 0, 200) - edge_position(rows[1], 0, 200))
    assert abs(np.mean(drift)) < 0.1


@pytest.mark.parametrize("angle", [-30.0, -7.0, -0.3, 0.0, 0.3, 7.0, 30.0])
@pytest.mark.parametrize("zoom", [0.6, 1.0, 1.7])
def test_a_turned_picture_lies_on_its_turned_mask(angle: float, zoom: float) -> None:
    """A disc off the middle: its centre of mass is the same in both, and where a formula says it is."""
    rows, columns = np.mgrid[:300, :300] + 0.5
    mask = torch.from_numpy(((rows - 143) ** 2 + (columns - 157) ** 2 < 6**2).astype(np.uint8) * 200)
    size, side = (64, 80), (round(64 / zoom), round(80 / zoom))
    window = Window(150 - side[0] // 2, 150 - side[1] // 2, *side)
    new_image, new_mask = RandomZoomCrop(size, (zoom, zoom)).cut(mask.expand(3, -1, -1).clone(), mask, window, angle)
    zooms = [output / part for output, part in zip(size, side, strict=True)]
    down = (143 - window.top - side[0] / 2) * zooms[0]
    right = (157 - window.left - side[1] / 2) * zooms[1]
    turn = np.radians(angle)  # counter-clockwise, rows pointing down
    expected = (32 + down * np.cos(turn) - right * np.sin(turn), 40 + down * np.sin(turn) + right * np.cos(turn))
    for values in (new_image[0], new_mask):
        weights = values.double() / values.double().sum()
        centre = [float(weights.sum(dim=1 - axis) @ (torch.arange(size[axis], dtype=torch.float64) + 0.5)) for axis in (0, 1)]
        assert np.abs(np.subtract(centre, expected)).max() < 0.6, (centre, expected)
    assert int(((new_image[0] > 100) != (new_mask > 100)).sum()) < 0.5 * 2 * np.pi * 6 * zoom  # part of its edge


def test_a_turned_window_within_the_picture_has_no_hole() -> None:
    """What its corners need is taken from the picture around it; only what lies beyond the picture is ignored."""
    mask = torch.full((200, 200), 7, dtype=torch.uint8)
    crop = RandomZoomCrop((60, 90), (1.0, 1.0))
    for angle in (-45.0, -12.0, 3.0, 45.0, 100.0, -135.0, 170.0):
        image, turned = crop.cut(mask.expand(3, -1, -1).clone(), mask, Window(70, 55, 60, 90), angle)
        assert turned.unique().tolist() == [7], angle
        assert image.unique().tolist() == [7], angle
        image, turned = crop.cut(mask.expand(3, -1, -1).clone(), mask, Window(0, 0, 60, 90), angle)
        beyond = turned == IGNORE_INDEX
        assert beyond.any(), angle
        assert torch.all(turned[~beyond] == 7), angle
        inner = torch.nn.functional.max_pool2d((~beyond)[None].float(), 5, 1, 2)[0] == 0  # two pixels off the border
        assert torch.all(image[:, inner] == MEAN_COLOR[:, None]), angle


def test_angles_are_drawn_evenly_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[float] = []
    crop = RandomZoomCrop((16, 16), (1.0, 1.0), rotation=10.0)
    monkeypatch.setattr(crop, "cut", lambda image, mask, window, angle: drawn.append(angle) or (image, mask))
    torch.manual_seed(0)
    for _ in range(800):
        crop(torch.zeros(3, 16, 16, dtype=torch.uint8), torch.zeros(16, 16, dtype=torch.uint8))
    assert (-10 <= min(drawn) < -9.8, 9.8 < max(drawn) <= 10) == (True, True)
    assert np.histogram(drawn, bins=4, range=(-10, 10))[0].min() > 160


def test_blur_smooths_the_picture_as_often_as_asked_and_leaves_the_mask() -> None:
    image, mask = labelled_picture(32, 32)
    config = AugmentConfig(crop_size=(32, 32), scale=(1.0, 1.0), flip=0.0, blur=0.3)
    seen = [apply(config, image, mask, seed) for seed in range(200)]
    assert all(torch.equal(new_mask, mask) for _, new_mask in seen)
    blurred = [new_image for new_image, _ in seen if not torch.equal(new_image, image)]
    assert 35 < len(blurred) < 85
    assert all(new_image.min() >= 40 and new_image.max() <= 200 for new_image in blurred)
    assert max(len(new_image.unique()) for new_image in blurred) > 10  # new shades at the edges


def test_what_is_off_draws_no_random_number() -> None:
    """The bits of the defaults are those of before rotation and blur were there."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 70, 90), dtype=torch.uint8, generator=generator)
    mask = torch.randint(0, 21, (70, 90), dtype=torch.uint8, generator=generator)
    for config, digest in (
        (AugmentConfig(crop_size=(40, 50)), "bdfc3774af892efd"),
        (AugmentConfig(crop_size=(40, 50), brightness=0.4, saturation=0.3), "c31a7b10fac36c4b"),
    ):
        content = hashlib.blake2b(digest_size=8)
        for seed in range(40):
            for part in apply(config, image, mask, seed):
                content.update(part.contiguous().numpy().tobytes())
        assert content.hexdigest() == digest


def test_a_mirrored_picture_has_a_mirrored_mask() -> None:
    image, mask = labelled_picture(16, 16)
    config = AugmentConfig(crop_size=(16, 16), scale=(1.0, 1.0))
    seen = [apply(config, image, mask, seed) for seed in range(40)]
    mirrored = [torch.equal(new_mask, mask.flip(-1)) for _, new_mask in seen]
    assert 8 < sum(mirrored) < 32
    for (new_image, new_mask), turned in zip(seen, mirrored, strict=True):
        assert torch.equal(new_image, image.flip(-1) if turned else image)
        assert torch.equal(new_mask, mask.flip(-1) if turned else mask)


@pytest.mark.parametrize("change", ["brightness", "contrast", "saturation", "hue"])
def test_colours_change_and_the_mask_does_not(change: str) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8, generator=generator)
    mask = labelled_picture(16, 16)[1]
    config = AugmentConfig(crop_size=(16, 16), scale=(1.0, 1.0), flip=0.0, **{change: 0.4})
    seen = [apply(config, image, mask, seed) for seed in range(5)]
    assert all(torch.equal(new_mask, mask) for _, new_mask in seen)
    assert len({new_image.numpy().tobytes() for new_image, _ in seen}) == 5


def test_without_augmentation_nothing_changes() -> None:
    image, mask = labelled_picture(16, 20)
    config = AugmentConfig(crop_size=(16, 20), scale=(1.0, 1.0), flip=0.0)
    for new_image, new_mask in (apply(config, image, mask, 0), eval_transform(image, mask)):
        assert torch.equal(new_image, image)
        assert torch.equal(new_mask, mask)
