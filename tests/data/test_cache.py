"""Decoded samples that are kept give the same bits as decoding them anew, and are never used once the data has changed."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from data_sets import change_mask, mirrored_train_set
from helpers import folder_bytes, refused, tiny_config_for, write_split
from PIL import Image

from segnet.classes import ClassSet
from segnet.config.sections import Config
from segnet.data import cache
from segnet.data.dataset import SegmentationDataset
from segnet.data.loader import build_loader
from segnet.data.sampler import ResumableSampler, SampleKey
from segnet.data.statistics import class_statistics
from segnet.system.errors import ExitCode
from segnet.training.loop import train


def kept(root: Path) -> list[Path]:
    return sorted((root / ".segnet").glob("*.decoded"))


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_are_the_same_bits_with_and_without_the_cache(
    workers: int, mixed_data: Path, tiny_classes: ClassSet, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, cached = mirrored_train_set(mixed_data, tiny_classes), mirrored_train_set(mixed_data, tiny_classes)
    before = folder_bytes(mixed_data)
    cached.keep_decoded()
    assert "decoding 4 pictures once into" in capsys.readouterr().out
    for index in range(4):
        one, other = plain.read(index), cached.read(index)
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.truth, other.truth)
        assert (one.image.stride(), one.id) == (other.image.stride(), other.id)
    batches = ResumableSampler(4, 3, seed=0, start=0, total=5)
    for one, other in zip(build_loader(plain, batches, workers=0), build_loader(cached, batches, workers=workers), strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.truth, other.truth)
        assert one.id == other.id
    after = folder_bytes(mixed_data)
    assert {name: content for name, content in after.items() if not name.startswith(".segnet/")} == before


def change_picture(root: Path) -> None:
    save = Image.fromarray(np.full((33, 21, 3), 77, np.uint8))
    save.save(root / "JPEGImages" / "odd.jpg")


def change_list(root: Path) -> None:
    write_split(root, "train", ["train_0", "odd", "lying", "train_1"])


@pytest.mark.parametrize("change", [change_picture, change_mask, change_list])
def test_changed_data_is_decoded_again(change: Callable[[Path], None], mixed_data: Path, tiny_classes: ClassSet) -> None:
    mirrored_train_set(mixed_data, tiny_classes).keep_decoded()
    (old,) = kept(mixed_data)
    change(mixed_data)
    plain, cached = mirrored_train_set(mixed_data, tiny_classes), mirrored_train_set(mixed_data, tiny_classes)
    cached.keep_decoded()
    assert kept(mixed_data) != [old]
    assert len(kept(mixed_data)) == 1  # the old one is gone
    for index in range(4):
        assert torch.equal(plain.read(index).image, cached.read(index).image)
        assert torch.equal(plain.read(index).truth, cached.read(index).truth)


def test_it_is_made_once(mixed_data: Path, tiny_classes: ClassSet, monkeypatch: pytest.MonkeyPatch) -> None:
    first = mirrored_train_set(mixed_data, tiny_classes)
    first.keep_decoded()
    monkeypatch.setattr(cache, "_make", None)
    second = mirrored_train_set(mixed_data, tiny_classes)
    second.keep_decoded()
    assert torch.equal(first.read(2).image, second.read(2).image)
    shutil.copytree(mixed_data, mixed_data.parent / "copy")  # times and places do not matter
    mirrored_train_set(mixed_data.parent / "copy", tiny_classes).keep_decoded()


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"x" + content[1:], lambda _: b""])
def test_half_a_file_is_made_again(damage: Callable[[bytes], bytes], mixed_data: Path, tiny_classes: ClassSet) -> None:
    mirrored_train_set(mixed_data, tiny_classes).keep_decoded()
    (path,) = kept(mixed_data)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    mirrored_train_set(mixed_data, tiny_classes).keep_decoded()
    assert path.read_bytes() == whole


def test_a_split_may_have_any_name_that_fits(tiny_data: Path, tiny_classes: ClassSet) -> None:
    write_split(tiny_data, "x" * 251, ["train_0"])
    dataset = SegmentationDataset(tiny_data, "x" * 251, tiny_classes)
    dataset.keep_decoded()
    class_statistics(dataset)
    assert len(kept(tiny_data)) == 1


def test_a_change_of_a_sample_in_memory_does_not_reach_the_file(mixed_data: Path, tiny_classes: ClassSet) -> None:
    dataset = mirrored_train_set(mixed_data, tiny_classes)
    dataset.keep_decoded()
    (path,) = kept(mixed_data)
    whole = path.read_bytes()
    dataset.read(0).image.zero_()
    assert path.read_bytes() == whole


def test_a_worker_gets_the_path_and_not_the_pictures(mixed_data: Path, tiny_classes: ClassSet) -> None:
    dataset = mirrored_train_set(mixed_data, tiny_classes)
    dataset.keep_decoded()
    sent = pickle.dumps(dataset)
    assert len(sent) < 4000 < kept(mixed_data)[0].stat().st_size
    assert torch.equal(pickle.loads(sent)[SampleKey(1, 2)].image, dataset[SampleKey(1, 2)].image)


def _keep(root: Path, classes: ClassSet) -> None:
    mirrored_train_set(root, classes).keep_decoded()


def test_runs_that_start_together_share_one_file(mixed_data: Path, tiny_classes: ClassSet) -> None:
    context = multiprocessing.get_context("fork")
    together = [context.Process(target=_keep, args=(mixed_data, tiny_classes)) for _ in range(4)]
    for process in together:
        process.start()
    for process in together:
        process.join()
    assert [process.exitcode for process in together] == [0] * 4
    assert [path.suffix for path in sorted((mixed_data / ".segnet").iterdir())] == ["", ".decoded"]  # the lock, the file


def test_a_full_disk_is_said_before_anything_is_decoded(
    mixed_data: Path, tiny_classes: ClassSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(mixed_data)._replace(free=5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(cache, "_in_order", None)
    with refused(ExitCode.ENVIRONMENT, ".segnet: decoded samples need 0.00 GB, 0.00 GB are free", "data.cache_folder"):
        mirrored_train_set(mixed_data, tiny_classes).keep_decoded()
    assert kept(mixed_data) == []


def test_a_disk_that_does_not_know_its_size_is_tried(mixed_data: Path, tiny_classes: ClassSet, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: (0, 0, 0))
    mirrored_train_set(mixed_data, tiny_classes).keep_decoded()
    assert len(kept(mixed_data)) == 1


def test_a_disk_that_cannot_be_mapped_is_said(mixed_data: Path, tiny_classes: ClassSet, monkeypatch) -> None:
    def unmapped(*_: object, **__: object) -> None:
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(np, "memmap", unmapped)
    with refused(ExitCode.ENVIRONMENT, ".decoded: its file system cannot map", "No such device", "data.cache_folder"):
        mirrored_train_set(mixed_data, tiny_classes).keep_decoded()


def test_without_locks_the_file_is_made_all_the_same(mixed_data: Path, tiny_classes: ClassSet, monkeypatch, capsys) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    other = mixed_data / ".segnet" / ".train.decoded.123.tmp"
    other.parent.mkdir()
    other.write_bytes(b"half")
    mirrored_train_set(mixed_data, tiny_classes).keep_decoded()
    assert other.exists()
    assert len(kept(mixed_data)) >= 1
    assert capsys.readouterr().err.count("has no locks") == 1


def test_read_only_data_asks_for_another_folder(mixed_data: Path, tiny_classes: ClassSet, tmp_path: Path) -> None:
    mixed_data.chmod(0o555)  # root may write there all the same, and does not
    with refused(ExitCode.ENVIRONMENT, ".segnet: the folder above it is read-only", "data.cache_folder", "data.cache=none"):
        mirrored_train_set(mixed_data, tiny_classes).keep_decoded()
    mirrored_train_set(mixed_data, tiny_classes).keep_decoded(tmp_path / "elsewhere" / "here")
    assert len(list((tmp_path / "elsewhere" / "here").glob("train-*.decoded"))) == 1
    assert not (mixed_data / ".segnet").exists()
    mixed_data.chmod(0o755)


def test_a_damaged_picture_is_named_and_leaves_nothing(mixed_data: Path, tiny_classes: ClassSet) -> None:
    path = mixed_data / "JPEGImages" / "train_1.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    with refused(ExitCode.DATA, "train_1.jpg", "not a readable picture"):
        mirrored_train_set(mixed_data, tiny_classes).keep_decoded()
    assert {path.name for path in (mixed_data / ".segnet").iterdir()} <= {".lock"}


def test_a_training_ends_with_the_same_weights(tiny_data: Path, tmp_path: Path) -> None:
    plain = tiny_config_for(tiny_data)
    cached = Config.model_validate({**plain.model_dump(), "data": {**plain.data.model_dump(), "cache": "disk"}})
    weights = [
        torch.load(train(config, tmp_path / name).with_name("last.pt"), weights_only=True)["weights"]
        for name, config in (("plain", plain), ("cached", cached))
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert [path.name.split("-")[0] for path in kept(tiny_data)] == ["train", "val"]
