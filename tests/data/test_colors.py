"""Changes of colour are torchvision's, whatever makes them: a worker, the training process, any number of threads."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from segnet.classes import ClassSet
from segnet.config.sections import AugmentConfig
from segnet.data.colors import adjust_contrast, adjust_gamma, adjust_hue, change_batch, change_colors, draw_changes
from segnet.data.dataset import Sample, SegmentationDataset
from segnet.data.loader import build_loader
from segnet.data.sampler import ResumableSampler, SampleKey
from segnet.data.transforms import TrainTransform
from segnet.training.step import to_device

EVERYTHING = AugmentConfig(crop_size=(16, 24), brightness=0.4, contrast=0.4, saturation=0.4, hue=0.3, blur=0.5)
WITH_GAMMA = EVERYTHING.model_copy(update={"gamma": 0.5})


def random_image(height: int, width: int, seed: int = 0, channels_last: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (height, width, 3) if channels_last else (3, height, width)
    image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return image.permute(2, 0, 1) if channels_last else image


@pytest.mark.parametrize("factor", [-0.5, -0.31, -1e-6, 0.0, 0.05, 1 / 6, 0.25, 0.5])
def test_a_turned_hue_is_torchvisions_for_a_million_colours(factor: float) -> None:
    """Every fourth red with every green and every blue of four, and all greys."""
    steps = torch.arange(256, dtype=torch.uint8)
    colors = torch.stack(torch.meshgrid(steps[::4], steps, steps[int(4 * (factor + 0.5)) % 4 :: 4], indexing="ij"))
    colors = torch.cat([colors.reshape(3, 1, -1), steps.expand(3, 1, -1)], dim=2)
    assert torch.equal(adjust_hue(colors, factor), functional.adjust_hue_image(colors, factor))


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4])
def test_a_changed_contrast_is_torchvisions_up_to_the_rounding_of_the_mean(factor: float) -> None:
    image = random_image(360, 480)
    difference = adjust_contrast(image, factor).int() - functional.adjust_contrast_image(image, factor).int()
    assert difference.abs().max() <= 1
    assert (difference != 0).double().mean() < 0.01


def test_contrast_does_not_depend_on_the_number_of_threads() -> None:
    """torchvision's mean differs in the last digit between one thread and two for some of these images."""
    images = [random_image(300, 400, seed).float().mul(0.3 + seed / 100).to(torch.uint8) for seed in range(40)]
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            found.append([adjust_contrast(image, 0.7) for image in images])
        finally:
            torch.set_num_threads(1)
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("seed", range(12))
def test_a_sample_is_drawn_and_changed_as_by_torchvision(seed: int) -> None:
    """The same random numbers, the same order and the same values; contrast is compared above."""
    config = EVERYTHING.model_copy(update={"contrast": 0.0})
    theirs = v2.Compose([v2.ColorJitter(0.4, 0.0, 0.4, 0.3), v2.RandomApply([v2.GaussianBlur(9, (0.1, 2.0))], p=0.5)])
    image = random_image(40, 50, seed, channels_last=bool(seed % 2))
    torch.manual_seed(seed)
    expected, expected_next = theirs(image), torch.rand(1)
    torch.manual_seed(seed)
    assert torch.equal(change_colors(image, draw_changes(config)), expected)
    assert torch.equal(torch.rand(1), expected_next)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.7])
def test_a_gamma_is_torchvisions_in_any_memory_order(gamma: float) -> None:
    for channels_last in (False, True):
        image = random_image(30, 41, channels_last=channels_last)
        assert torch.equal(adjust_gamma(image, gamma), functional.adjust_gamma_image(image, gamma))


def test_gamma_is_drawn_as_often_below_one_as_above() -> None:
    torch.manual_seed(0)
    drawn = [draw_changes(AugmentConfig(gamma=1.0)) for _ in range(300)]
    assert {len(changes) for changes in drawn} == {1}
    factors = torch.tensor([changes[0][1] for changes in drawn])
    assert 0.5 <= factors.min() < 0.52 < 1.95 < factors.max() <= 2
    assert 120 < int((factors > 1).sum()) < 180


def test_what_is_off_draws_nothing() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert draw_changes(AugmentConfig()) == ()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_is_changed_in_place_each_image_in_its_own_way() -> None:
    images = torch.stack([random_image(20, 30, seed) for seed in range(5)]).contiguous(memory_format=torch.channels_last)
    torch.manual_seed(0)
    changes = [*(draw_changes(EVERYTHING) for _ in images[1:]), ()]
    expected = [change_colors(image.clone(), of_image) for image, of_image in zip(images, changes, strict=True)]
    before, last = images.data_ptr(), images[-1].clone()
    change_batch(images, changes)
    assert torch.equal(images, torch.stack(expected))
    assert torch.equal(images[-1], last)
    assert images.data_ptr() == before
    assert images.is_contiguous(memory_format=torch.channels_last)


def colored(root: Path, classes: ClassSet) -> SegmentationDataset:
    dataset = SegmentationDataset(root, "train", classes, transform=TrainTransform(WITH_GAMMA), seed=3)
    dataset.draw_colors = partial(draw_changes, WITH_GAMMA)
    return dataset


def batches(dataset: SegmentationDataset, workers: int, for_gpu: bool) -> list[Sample]:
    sampler = ResumableSampler(len(dataset), 4, seed=0, start=0, total=4)
    return list(build_loader(dataset, sampler, workers=workers, for_gpu=for_gpu))


@pytest.mark.parametrize("workers", [0, 2])
def test_colours_are_the_same_in_workers_and_on_the_device(tiny_data: Path, tiny_classes: ClassSet, workers: int) -> None:
    dataset = colored(tiny_data, tiny_classes)
    expected = batches(dataset, 0, for_gpu=False)
    later = batches(dataset, workers, for_gpu=True)
    assert [batch.colors for batch in expected] == [()] * 4
    assert not torch.equal(later[0].image, expected[0].image)
    assert [len(batch.colors) for batch in later] == [4] * 4
    for batch, other in zip(later, expected, strict=True):
        on_device = to_device(batch, torch.device("cpu"))
        assert torch.equal(on_device.image, other.image)
        assert torch.equal(on_device.truth, other.truth)
        assert on_device.colors == ()


def test_colours_depend_on_seed_epoch_and_picture_alone(tiny_data: Path, tiny_classes: ClassSet) -> None:
    dataset = colored(tiny_data, tiny_classes)
    changes = [dataset.before_colors(SampleKey(epoch, picture)).colors for epoch in range(3) for picture in range(6)]
    torch.manual_seed(99)
    again = [dataset.before_colors(SampleKey(epoch, picture)).colors for epoch in range(3) for picture in range(6)]
    assert changes == again
    assert len(set(changes)) == len(changes)
