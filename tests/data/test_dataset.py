"""A sample is what is on disk; its augmentation is a function of seed, epoch and picture."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import torch
from data_sets import augmented_train_set
from helpers import same, tiny_mask, write_split

from segnet.classes import ClassSet
from segnet.config.sections import AugmentConfig
from segnet.data.dataset import SegmentationDataset, content_digests
from segnet.data.images import open_image
from segnet.data.layout import mask_path
from segnet.data.loader import build_loader
from segnet.data.mask_files import open_mask
from segnet.data.sampler import SampleKey
from segnet.data.transforms import TrainTransform


def test_a_sample_is_what_is_on_disk(tiny_data: Path, tiny_classes: ClassSet) -> None:
    dataset = SegmentationDataset(tiny_data, "val", tiny_classes)
    assert len(dataset) == 3
    for index, name in enumerate(["val_0", "val_1", "val_2"]):
        sample = dataset[SampleKey(epoch=5, picture=index)]
        assert sample.id == name
        assert torch.equal(sample.image, open_image(tiny_data / "JPEGImages" / f"{name}.jpg"))
        assert torch.equal(sample.truth, torch.from_numpy(tiny_mask(seed=10 + index)))


def test_augmentation_depends_on_seed_epoch_and_picture_alone(tiny_data: Path, tiny_classes: ClassSet) -> None:
    key, dataset = SampleKey(2, 3), augmented_train_set(tiny_data, tiny_classes)
    sample = dataset[key]
    torch.manual_seed(123)
    dataset[SampleKey(0, 0)]
    assert same(sample, dataset[key])
    assert same(sample, augmented_train_set(tiny_data, tiny_classes)[key])
    assert not same(sample, dataset[SampleKey(3, 3)])
    assert not same(sample, augmented_train_set(tiny_data, tiny_classes, seed=1)[key])
    write_split(tiny_data, "train", ["train_3", "train_0"])  # its place in the split does not matter
    assert same(sample, augmented_train_set(tiny_data, tiny_classes)[SampleKey(2, 0)])


def test_reading_leaves_the_randomness_of_others_alone(tiny_data: Path, tiny_classes: ClassSet) -> None:
    dataset = augmented_train_set(tiny_data, tiny_classes)
    before = torch.random.get_rng_state()
    dataset[SampleKey(0, 0)]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_digests_tell_which_files_changed(tiny_data: Path, tiny_classes: ClassSet) -> None:
    dataset = SegmentationDataset(tiny_data, "train", tiny_classes)
    before = content_digests(dataset)
    assert len(set(before.tolist())) == len(dataset)
    for path in (tiny_data / "JPEGImages" / "train_1.jpg", mask_path(tiny_data, "train_4")):
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    picture = tiny_data / "JPEGImages" / "train_5.jpg"
    picture.unlink()
    os.mkfifo(picture)  # reading it would wait for ever
    assert (content_digests(dataset) != before).nonzero().flatten().tolist() == [1, 4, 5]


def test_reading_changes_nothing_on_disk(tiny_data: Path, tiny_classes: ClassSet) -> None:
    paths = sorted(tiny_data.rglob("*"))
    before = [(path, path.stat().st_mtime_ns) for path in paths]
    list(build_loader(augmented_train_set(tiny_data, tiny_classes), [[SampleKey(0, 0), SampleKey(0, 1)]], workers=0))
    assert [(path, path.stat().st_mtime_ns) for path in sorted(tiny_data.rglob("*"))] == before
    assert open_mask(mask_path(tiny_data, "train_0"), tiny_classes).shape == (32, 32)


def test_samples_are_the_same_whatever_way_workers_start(tiny_data: Path, tiny_classes: ClassSet) -> None:
    """Everything a worker needs can be sent to it, as Windows, macOS and new Pythons do."""
    transform = TrainTransform(AugmentConfig(crop_size=(16, 16), brightness=0.2))
    dataset = SegmentationDataset(tiny_data, "train", tiny_classes, transform=transform)
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[SampleKey(1, 2)].image, dataset[SampleKey(1, 2)].image)
