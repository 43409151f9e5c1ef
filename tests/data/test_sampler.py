"""The order of the pictures is a function of the seed and the step."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segnet.classes import ClassSet
from segnet.config.sections import AugmentConfig
from segnet.data.dataset import SegmentationDataset
from segnet.data.loader import build_loader
from segnet.data.sampler import ResumableSampler, SampleKey, steps_left
from segnet.data.transforms import TrainTransform
from segnet.system.digests import derive_seed


def test_seeds_are_the_same_in_every_version_and_process() -> None:
    """A checkpoint resumes on another machine only if these never change."""
    assert derive_seed(0, "order", 0) == 1829853113658518448
    assert [key.picture for key in stream(8, 8, 0, 0, 1)[0]] == [6, 4, 0, 3, 2, 7, 5, 1]


def stream(length: int, batch_size: int, seed: int, start: int, total: int) -> list[list[SampleKey]]:
    return list(ResumableSampler(length, batch_size, seed=seed, start=start, total=total))


sizes = {"length": st.integers(1, 12), "batch_size": st.integers(1, 9), "seed": st.integers(0, 3)}


@settings(max_examples=60)
@given(**sizes)
def test_each_picture_once_per_epoch_and_no_short_batch(length: int, batch_size: int, seed: int) -> None:
    batches = stream(length, batch_size, seed, 0, 3 * length)
    assert {len(batch) for batch in batches} == {batch_size}
    keys = list(chain.from_iterable(batches))
    assert [key.epoch for key in keys] == [position // length for position in range(len(keys))]
    epochs = len(keys) // length
    assert all(Counter(keys)[SampleKey(epoch, picture)] == 1 for epoch in range(epochs) for picture in range(length))


@settings(max_examples=60)
@given(**sizes, start=st.integers(0, 20), more=st.integers(0, 5))
def test_a_later_start_continues_the_same_stream(length: int, batch_size: int, seed: int, start: int, more: int) -> None:
    total = start + more
    whole, tail = stream(length, batch_size, seed, 0, total), stream(length, batch_size, seed, start, total)
    assert tail == whole[start:]
    assert len(ResumableSampler(length, batch_size, seed=seed, start=start, total=total)) == len(tail)


def test_the_order_depends_on_the_seed_and_the_epoch() -> None:
    order = [[key.picture for key in batch] for batch in stream(20, 20, 0, 0, 3)]
    assert len({tuple(epoch) for epoch in order}) == 3
    assert [key.picture for key in stream(20, 20, 1, 0, 1)[0]] != order[0]
    assert order[0] != sorted(order[0])


def test_pictures_grow_with_the_run_and_a_batch_has_one_size(tiny_data: Path, tiny_classes: ClassSet) -> None:
    """Six pictures in batches of four: batches span epochs, and the second of three parts begins within one."""
    transform = TrainTransform(AugmentConfig(crop_size=(32, 40), shrink=(0.5, 0.75, 1.0)))
    dataset = SegmentationDataset(tiny_data, "train", tiny_classes, transform=transform)
    sampler = ResumableSampler(6, 4, seed=0, start=1, total=8, shrink=(0.5, 0.75, 1.0))
    shapes = [tuple(batch.image.shape[2:]) for batch in build_loader(dataset, sampler, workers=0)]
    assert shapes == 2 * [(16, 20)] + 3 * [(24, 30)] + 2 * [(32, 40)]


@settings(max_examples=60)
@given(
    total=st.integers(1, 40),
    step=st.integers(1, 40),
    shrink=st.lists(st.sampled_from([0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=5),
)
def test_the_steps_left_are_counted_by_the_area_of_their_pictures(total: int, step: int, shrink: list[float]) -> None:
    step = min(step, total)
    sampler = ResumableSampler(3, 1, seed=0, start=0, total=total, shrink=shrink)
    areas = [batch[0].shrink ** 2 for batch in sampler]
    assert steps_left(step, total, shrink) == pytest.approx(sum(areas[step:]) / areas[step - 1])
