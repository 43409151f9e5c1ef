"""Batches do not depend on the workers, and name the file that cannot be read."""

from __future__ import annotations

import warnings
from itertools import islice
from pathlib import Path

import pytest
import torch
from data_sets import augmented_train_set
from helpers import refused, same, tiny_mask, write_pair, write_split

from segnet.classes import ClassSet
from segnet.data.dataset import Sample, SegmentationDataset
from segnet.data.layout import mask_path
from segnet.data.loader import build_loader
from segnet.data.sampler import ResumableSampler
from segnet.system.errors import ExitCode

Data = ExitCode.DATA


def test_without_a_sampler_the_split_comes_in_order_at_its_own_sizes(tiny_data: Path, tiny_classes: ClassSet) -> None:
    write_pair(tiny_data, "odd", tiny_mask(seed=3, size=(33, 21)), tiny_classes)
    write_split(tiny_data, "val", ["val_1", "odd", "val_0"])
    batches = list(build_loader(SegmentationDataset(tiny_data, "val", tiny_classes), workers=0))
    assert [[*batch.id] for batch in batches] == [["val_1"], ["odd"], ["val_0"]]
    assert [tuple(batch.image.shape) for batch in batches] == [(1, 3, 32, 32), (1, 3, 33, 21), (1, 3, 32, 32)]
    assert [tuple(batch.truth.shape) for batch in batches] == [(1, 32, 32), (1, 33, 21), (1, 32, 32)]


def test_batches_do_not_depend_on_the_workers(tiny_data: Path, tiny_classes: ClassSet) -> None:
    dataset = augmented_train_set(tiny_data, tiny_classes)
    sampler = ResumableSampler(len(dataset), 4, seed=0, start=1, total=5)
    alone, shared = (list(build_loader(dataset, sampler, workers=workers)) for workers in (0, 2))
    assert len(alone) == len(shared) == 4
    for one, other in zip(alone, shared, strict=True):
        assert isinstance(other, Sample)
        assert (one.image.dtype, one.image.shape, one.truth.shape) == (torch.uint8, (4, 3, 16, 24), (4, 16, 24))
        assert same(one, other)


def test_more_workers_than_cores_are_no_warning_of_torch(tiny_data: Path, tiny_classes: ClassSet) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert build_loader(SegmentationDataset(tiny_data, "val", tiny_classes), workers=200).num_workers == 200


def test_a_sampler_without_batches_gives_none(tiny_data: Path, tiny_classes: ClassSet) -> None:
    """As of a run that is complete; an empty sampler is false."""
    dataset = SegmentationDataset(tiny_data, "train", tiny_classes)
    sampler = ResumableSampler(len(dataset), 2, seed=0, start=9, total=9)
    assert list(build_loader(dataset, sampler, workers=0)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_picture_is_named_from_any_process(workers: int, tiny_data: Path, tiny_classes: ClassSet) -> None:
    (tiny_data / "JPEGImages" / "val_2.jpg").write_bytes(b"damaged")
    loader = build_loader(SegmentationDataset(tiny_data, "val", tiny_classes), workers=workers)
    batches = iter(loader)
    assert [[*batch.id] for batch in islice(batches, 2)] == [["val_0"], ["val_1"]]
    with refused(Data, "val_2.jpg", "not a readable picture"):
        next(batches)


def test_a_file_that_vanishes_is_named(tiny_data: Path, tiny_classes: ClassSet) -> None:
    dataset = SegmentationDataset(tiny_data, "val", tiny_classes)
    mask_path(tiny_data, "val_0").unlink()
    with refused(Data, "val_0.png", "no such file"):
        next(iter(build_loader(dataset, workers=0)))
