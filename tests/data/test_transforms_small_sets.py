"""Augmentations for small sets: mirrored and turned crops, rectangles cut out, crops and objects of rare classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import same
from torch import Tensor

from segnet.classes import IGNORE_INDEX, ClassSet
from segnet.config.loading import override_config
from segnet.config.sections import AugmentConfig, Bands, Config
from segnet.data.dataset import SegmentationDataset
from segnet.data.mask_files import save_mask
from segnet.data.sampler import SampleKey
from segnet.data.transforms import Balance, RandomZoomCrop, TrainTransform, compressed, mean_color
from segnet.tasks.choice import build_task
from segnet.training.data import open_train_set

MEAN_COLOR = torch.tensor([124, 116, 104], dtype=torch.uint8)


def numbered(height: int, width: int) -> tuple[Tensor, Tensor]:
    """An image whose first channel is the row and whose second is the column, and its mask of column parities."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, 0 * rows]).to(torch.uint8), (columns % 2).to(torch.uint8)


def crops(config: AugmentConfig, image: Tensor, mask: Tensor, count: int = 60, **options: object) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    return [TrainTransform(config, **options)(image, mask) for _ in range(count)]  # type: ignore[arg-type]


def test_all_eight_mirrorings_and_turns_of_a_crop_occur_and_keep_its_size() -> None:
    """The corners of each crop say how it lies; a turned crop of 16×20 was cut 20 high and 16 wide."""
    config = AugmentConfig(crop_size=(16, 20), scale=(1, 1), flip=0.5, vertical_flip=0.5, quarter_turn=0.7)
    directions = set()
    for image, mask in crops(config, *numbered(40, 40)):
        assert (image.shape, mask.shape) == ((3, 16, 20), (16, 20))
        assert torch.equal(image[1] % 2, mask)
        across, down = image[:2, 0, 1].int() - image[:2, 0, 0].int(), image[:2, 1, 0].int() - image[:2, 0, 0].int()
        directions.add((*across.tolist(), *down.tolist()))
    assert len(directions) == 8


def test_a_rectangle_is_cut_out_of_both() -> None:
    image, mask = torch.full((3, 50, 60), 7, dtype=torch.uint8), torch.ones(50, 60, dtype=torch.uint8)
    config = AugmentConfig(crop_size=(50, 60), scale=(1, 1), cutout=0.5)
    shares = []
    for cut, labels in crops(config, image, mask, 100):
        gone = labels == IGNORE_INDEX
        assert torch.equal(cut[:, gone], MEAN_COLOR[:, None].expand(3, int(gone.sum())))
        assert torch.all(cut[:, ~gone] == 7)
        if gone.any():
            rows, columns = gone.any(1).sum(), gone.any(0).sum()
            assert int(rows * columns) == int(gone.sum())
            shares.append(float(gone.float().mean()))
    assert 35 < len(shares) < 65
    assert 0.015 < min(shares) < 0.05
    assert 0.15 < max(shares) < 0.21
    assert torch.all(image == 7)


def test_compression_changes_the_image_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    image, mask = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8, generator=generator), numbered(16, 16)[1]
    config = AugmentConfig(crop_size=(16, 16), scale=(1, 1), flip=0.0, jpeg=0.5)
    found = crops(config, image, mask, 40)
    same_images = sum(torch.equal(changed, image) for changed, _ in found)
    assert 10 < same_images < 30
    assert all(torch.equal(labels, mask) for _, labels in found)
    smooth = numbered(40, 40)[0]
    errors = [float((compressed(smooth, quality).float() - smooth).abs().mean()) for quality in (20, 90)]
    assert 10 > errors[0] > 2 * errors[1] > 0


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_other_bands_are_compressed_one_by_one_and_cut_out_with_the_mean_grey(channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (channels, 20, 24), dtype=torch.uint8, generator=generator)
    each = [compressed(band[None], 50) for band in image]
    assert torch.equal(compressed(image, 50), torch.cat(each))
    config = AugmentConfig(crop_size=(20, 24), scale=(1, 1), cutout=1.0, jpeg=0.0)
    torch.manual_seed(0)
    cut, labels = TrainTransform(config, Bands(channels))(image, numbered(20, 24)[1])
    assert cut[:, labels == IGNORE_INDEX].unique().tolist() == [mean_color(Bands(channels))[0]]


@pytest.mark.parametrize("size", [(16, 16), (8, 50), (60, 60)])
def test_every_window_that_contains_the_pixel_may_be_drawn_and_no_other(size: tuple[int, int]) -> None:
    crop = RandomZoomCrop(size, (1.0, 1.0))
    torch.manual_seed(0)
    for pixel in ((0, 0), (20, 3), (39, 29)):
        drawn = [crop.draw_window(40, 30, pixel) for _ in range(400)]
        for axis, whole in enumerate((40, 30)):
            without_pixel = range(min(0, whole - size[axis]), max(0, whole - size[axis]) + 1)
            assert {window[axis] for window in drawn} == {p for p in without_pixel if p <= pixel[axis] < p + size[axis]}


def test_crops_around_a_rare_class_contain_it() -> None:
    image, mask = numbered(200, 200)
    mask[:] = 0
    mask[150:152, 30:32] = 1
    config = AugmentConfig(crop_size=(32, 32), scale=(0.8, 1.2))
    odds = torch.tensor([0.0, 1.0], dtype=torch.float64)
    hits = {
        p: sum(bool((m == 1).any()) for _, m in crops(config, image, mask, 100, balance=Balance(p, odds))) for p in (0, 0.5, 1)
    }
    assert hits[0] < 15
    assert 35 < hits[0.5] < 70
    assert hits[1] == 100


def favouring(config: Config, *changes: str) -> SegmentationDataset:
    config = override_config(config, ["augment.crop_size=[24, 24]", *changes])
    return open_train_set(config, build_task(config))


def test_a_sample_is_a_function_of_seed_epoch_and_id_with_all_of_them(tiny_config: Config) -> None:
    """Whatever was read before; another epoch gives another one. Objects are pasted, and the decoded cache changes nothing."""
    changes = ["data.balance=0.7", "augment.copy_paste=1", "augment.cutout=0.5", "augment.jpeg=0.5", "augment.quarter_turn=0.5"]
    changes += ["augment.vertical_flip=0.5", "augment.gamma=0.3"]
    first, again = favouring(tiny_config, *changes), favouring(tiny_config, *changes)
    again.keep_decoded()
    keys = [SampleKey(epoch, picture) for epoch in (0, 1) for picture in range(6)]
    expected = {key: first[key] for key in keys}
    for key in reversed(keys):
        assert same(tuple(again[key])[:2], tuple(expected[key])[:2])
    assert not torch.equal(expected[SampleKey(0, 2)].image, expected[SampleKey(1, 2)].image)


def test_rare_objects_come_from_other_pictures(tiny_config: Config, tiny_data: Path) -> None:
    plain, pasted = favouring(tiny_config), favouring(tiny_config, "augment.copy_paste=1")
    keys = [SampleKey(epoch, picture) for epoch in range(4) for picture in range(6)]
    changed = [(plain[key], pasted[key]) for key in keys]
    different = [(a.truth != b.truth) for a, b in changed if not torch.equal(a.image, b.image)]
    assert len(different) > 15
    new = {int(value) for a, b in changed for value in b.truth[a.truth != b.truth].unique()}
    assert new == {2}, "discs have the fewest pixels, boxes have the median"
    assert (tiny_data / ".segnet" / "train.pictures.json").exists()


def test_without_a_rare_class_copy_paste_says_that_it_does_nothing(
    tiny_config: Config, tiny_data: Path, tiny_classes: ClassSet, capsys: pytest.CaptureFixture[str]
) -> None:
    halves = torch.arange(32).expand(32, 32) // 16
    for path in (tiny_data / "SegmentationClass").glob("train_*.png"):
        save_mask(path, halves, tiny_classes)
    assert favouring(tiny_config, "augment.copy_paste=1").transform.donors is None  # type: ignore[attr-defined]
    assert "copy_paste has no effect" in capsys.readouterr().out
