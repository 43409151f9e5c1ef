"""Pictures and masks of a split, in an order and with an augmentation that are functions of the seed and the step."""

from __future__ import annotations

import errno
import multiprocessing.util
import os
import pickle
import resource
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count, islice
from multiprocessing.connection import Listener
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import refused, tiny_mask, write_pair, write_split
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segnet.classes import ClassSet
from segnet.config.sections import AugmentConfig
from segnet.data import loader
from segnet.data.dataset import Sample, SegmentationDataset, content_digests
from segnet.data.images import open_image
from segnet.data.layout import mask_path, split_path
from segnet.data.loader import build_loader
from segnet.data.mask_files import open_mask, save_mask
from segnet.data.sample_files import find_pictures
from segnet.data.sampler import ResumableSampler, SampleKey
from segnet.data.split_lists import read_split
from segnet.data.statistics import class_statistics
from segnet.data.transforms import TrainTransform
from segnet.system.digests import derive_seed
from segnet.system.errors import ExitCode

Data = ExitCode.DATA

# ---------------------------------------------------------------------------------------------------------------------
# The split file
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [b"b\na\n", b"b\na", b"b\r\na\r\n", b"\xef\xbb\xbfb\na\n", b"\n  \nb\n\n\ta  \n\n"],
    ids=["plain", "no last newline", "CRLF", "BOM", "blank lines and spaces"],
)
def test_ids_come_in_the_order_of_the_file(text: bytes, tmp_path: Path) -> None:
    write_split(tmp_path, "train", [])
    split_path(tmp_path, "train").write_bytes(text)
    assert read_split(tmp_path, "train") == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"", "no ids in it"),
        (b"\n \r\n", "no ids in it"),
        (b"a\nb\n\na\n", "line 4: 'a' stands in line 1 already"),
        (b"a\n../../secret\n", "line 2: '../../secret' leaves the data folder"),
        (b"a\n\n/etc/passwd\n", "line 3: '/etc/passwd' leaves the data folder"),
        (b"a\x1b[2J\n", "line 1: 'a\\x1b[2J' holds U+001B, which cannot be seen"),
        (b"a\n\xff\n", "byte 2 is not UTF-8"),
        (b"# training\na\n", "line 1: '# training' is a comment"),
    ],
)
def test_a_spoilt_list_is_refused_by_line(text: bytes, found: str, tmp_path: Path) -> None:
    write_split(tmp_path, "train", [])
    split_path(tmp_path, "train").write_bytes(text)
    with refused(Data, str(split_path(tmp_path, "train")), found):
        read_split(tmp_path, "train")


@pytest.mark.parametrize("split", ["../../../secret", "/secret", "a\0b", ""])
def test_the_name_of_a_split_does_not_leave_the_folder(split: str, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("a\n")
    (tmp_path / "data" / "ImageSets" / "Segmentation").mkdir(parents=True)
    with refused(Data, "leaves the data folder"):
        read_split(tmp_path / "data", split)


def test_a_split_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for root, split in ((tmp_path / "nowhere", "train"), (tmp_path / "file", "train"), (tmp_path, "a" * 300)):
        with refused(Data, f"{split}.txt: no such file", "python scripts/prepare_data.py", "data.root"):
            read_split(root, split)


# ---------------------------------------------------------------------------------------------------------------------
# The data set
# ---------------------------------------------------------------------------------------------------------------------


def test_a_sample_is_what_is_on_disk(tiny_data: Path, tiny_classes: ClassSet) -> None:
    dataset = SegmentationDataset(tiny_data, "val", tiny_classes)
    assert len(dataset) == 3
    for index, name in enumerate(["val_0", "val_1", "val_2"]):
        sample = dataset[SampleKey(epoch=5, picture=index)]
        assert sample.id == name
        assert torch.equal(sample.image, open_image(tiny_data / "JPEGImages" / f"{name}.jpg"))
        assert torch.equal(sample.truth, torch.from_numpy(tiny_mask(seed=10 + index)))


def test_pictures_may_have_any_suffix_and_stand_in_folders(tmp_path: Path, tiny_classes: ClassSet) -> None:
    names = ["city/a.b", "city/c", "d"]
    for index, name in enumerate(names):
        write_pair(tmp_path, name, tiny_mask(seed=index), tiny_classes)
    (tmp_path / "JPEGImages" / "d.jpg").rename(tmp_path / "JPEGImages" / "d.JPEG")
    write_split(tmp_path, "train", names)
    dataset = SegmentationDataset(tmp_path, "train", tiny_classes)
    assert [path.name for path in dataset.pictures] == ["a.b.jpg", "c.jpg", "d.JPEG"]


@pytest.mark.parametrize("suffix", [".jfif", ".JPE", ".jif", ".pnm"])
def test_a_picture_is_found_whatever_its_suffix_is_called(suffix: str, tiny_data: Path, tiny_classes: ClassSet) -> None:
    path = tiny_data / "JPEGImages" / "train_1.jpg"
    path.rename(path.with_suffix(suffix))
    assert SegmentationDataset(tiny_data, "train", tiny_classes).read(1).id == "train_1"


def test_an_id_that_no_file_can_have_is_missing(tiny_data: Path, tiny_classes: ClassSet) -> None:
    write_split(tiny_data, "train", ["a" * 300, "b" * 300 + "/c", "train_0/d"])
    with refused(Data, "picture is missing (6 faults in all)"):
        SegmentationDataset(tiny_data, "train", tiny_classes)


def test_folders_may_be_linked_inside_the_data_folder_alone(tiny_data: Path, tiny_classes: ClassSet) -> None:
    (tiny_data / "JPEGImages").rename(tiny_data / "pictures")
    (tiny_data / "JPEGImages").symlink_to("pictures")
    assert SegmentationDataset(tiny_data, "train", tiny_classes).read(0).id == "train_0"
    (tiny_data / "pictures").rename(tiny_data.parent / "pictures")
    (tiny_data / "JPEGImages").unlink()
    (tiny_data / "JPEGImages").symlink_to("../pictures")
    with refused(Data, f"JPEGImages: is a link out of the data folder, to {tiny_data.parent}/pictures"):
        SegmentationDataset(tiny_data, "train", tiny_classes)


def test_everything_that_is_missing_is_listed(tiny_data: Path, tiny_classes: ClassSet) -> None:
    (tiny_data / "JPEGImages" / "train_1.jpg").unlink()
    (tiny_data / "JPEGImages" / "train_4.jpg").rename(tiny_data / "JPEGImages" / "TRAIN_4.jpg")
    mask_path(tiny_data, "train_2").unlink()
    lost = ["JPEGImages/train_1.jpg: picture is missing", "JPEGImages/train_4.jpg: picture is missing"]
    with refused(Data, *lost, "SegmentationClass/train_2.png: mask is missing", "which differs in case", "3 faults in all"):
        SegmentationDataset(tiny_data, "train", tiny_classes)
    SegmentationDataset(tiny_data, "val", tiny_classes)


@pytest.mark.parametrize(
    ("folder", "name", "found", "remedy"),
    [
        ("JPEGImages", "Train_1.JPG", "which differs in case", "rename it, or correct the id"),
        ("JPEGImages", "train_1 .jpg", "which differs in spaces or invisible characters", "rename it, or correct the id"),
        ("JPEGImages", "train_1\u200b.png", "which differs in spaces or invisible characters", "rename it, or correct the id"),
        ("JPEGImages", "train_1.jpg ", "which differs in spaces or invisible characters", "rename it, or correct the id"),
        ("JPEGImages", "train_1.HEIC", "which is not read", "convert it to JPEG or PNG"),
        ("JPEGImages", "train_1", "without a suffix", "give it the suffix of its format, such as .jpg"),
        ("SegmentationClass", "train_1.npy", "which is no PNG", "save masks as PNG; JPEG changes the ids"),
        ("SegmentationClass", "train_1.bmp", "which is no PNG", "save masks as PNG; JPEG changes the ids"),
        ("SegmentationClass", "train_1", "without a suffix", "give it the suffix of its format, such as .png"),
        ("SegmentationClass", "train_1.png ", "which differs in spaces or invisible characters", "rename it, or correct the id"),
    ],
)
def test_a_missing_file_names_what_was_meant(
    folder: str, name: str, found: str, remedy: str, tiny_data: Path, tiny_classes: ClassSet
) -> None:
    kind, suffix = ("picture", ".jpg") if folder == "JPEGImages" else ("mask", ".png")
    (tiny_data / folder / f"train_1{suffix}").rename(tiny_data / folder / name)
    (tiny_data / folder / "train_1.json").touch()
    (_, faults) = find_pictures(tiny_data, ["train_0", "train_1", "train_2"])
    assert [(Path(fault.path).name, fault.found, fault.remedy) for fault in faults] == [
        (f"train_1{suffix}", f"{kind} is missing; only {name} is there, {found}", remedy)
    ]


def test_a_mask_in_another_unicode_form_is_named(tiny_data: Path, tiny_classes: ClassSet) -> None:
    write_pair(tiny_data, "gr\u00f6\u00dfe", tiny_mask(seed=1), tiny_classes)
    mask_path(tiny_data, "gr\u00f6\u00dfe").rename(mask_path(tiny_data, "gro\u0308\u00dfe"))
    (_, (fault,)) = find_pictures(tiny_data, ["gr\u00f6\u00dfe"])
    assert fault.found == "mask is missing; only gro\u0308\u00dfe.png is there, whose name is in another Unicode form"


@pytest.mark.parametrize("size", [(32, 31), (16, 64)])
def test_a_mask_of_another_size_is_refused_with_both_sizes(
    size: tuple[int, int], tiny_data: Path, tiny_classes: ClassSet
) -> None:
    save_mask(mask_path(tiny_data, "val_1"), np.zeros(size, np.uint8), tiny_classes)
    dataset = SegmentationDataset(tiny_data, "val", tiny_classes)
    with refused(Data, "val_1.png", f"mask {size[1]}×{size[0]}, picture 32×32 (width × height)"):
        dataset.read(1)


def test_a_mask_that_lies_on_its_side_is_refused(tmp_path: Path, tiny_classes: ClassSet) -> None:
    mask = tiny_mask(seed=0, size=(24, 40))
    write_pair(tmp_path, "a", mask, tiny_classes)
    save_mask(mask_path(tmp_path, "a"), mask.T, tiny_classes)
    write_split(tmp_path, "train", ["a"])
    with refused(Data, "a.png", "mask 24×40, picture 40×24"):
        SegmentationDataset(tmp_path, "train", tiny_classes).read(0)


def augmented(root: Path, classes: ClassSet, seed: int = 0) -> SegmentationDataset:
    transform = TrainTransform(AugmentConfig(crop_size=(16, 24), brightness=0.5))
    return SegmentationDataset(root, "train", classes, transform=transform, seed=seed)


def same(first: Sample, second: Sample) -> bool:
    return torch.equal(first.image, second.image) and torch.equal(first.truth, second.truth) and first.id == second.id


def test_augmentation_depends_on_seed_epoch_and_picture_alone(tiny_data: Path, tiny_classes: ClassSet) -> None:
    key, dataset = SampleKey(2, 3), augmented(tiny_data, tiny_classes)
    sample = dataset[key]
    torch.manual_seed(123)
    dataset[SampleKey(0, 0)]
    assert same(sample, dataset[key])
    assert same(sample, augmented(tiny_data, tiny_classes)[key])
    assert not same(sample, dataset[SampleKey(3, 3)])
    assert not same(sample, augmented(tiny_data, tiny_classes, seed=1)[key])
    write_split(tiny_data, "train", ["train_3", "train_0"])  # its place in the split does not matter
    assert same(sample, augmented(tiny_data, tiny_classes)[SampleKey(2, 0)])


def test_reading_leaves_the_randomness_of_others_alone(tiny_data: Path, tiny_classes: ClassSet) -> None:
    dataset = augmented(tiny_data, tiny_classes)
    before = torch.random.get_rng_state()
    dataset[SampleKey(0, 0)]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_class_statistics_equal_a_count_by_hand(tiny_data: Path, tiny_classes: ClassSet) -> None:
    only_ground = np.zeros((10, 7), np.uint8)
    only_ground[0, :3] = 255
    write_pair(tiny_data, "flat", only_ground, tiny_classes)
    write_split(tiny_data, "train", ["train_0", "train_1", "flat"])
    masks = [tiny_mask(seed=0), tiny_mask(seed=1), only_ground]
    statistics = class_statistics(SegmentationDataset(tiny_data, "train", tiny_classes))
    assert statistics.pixels == [sum(int((mask == i).sum()) for mask in masks) for i in range(3)]
    assert statistics.pixels_of_pictures == [sum(mask.size for mask in masks if (mask == i).any()) for i in range(3)]
    assert statistics.pixels_of_pictures == [2 * 1024 + 70, 2 * 1024, 2 * 1024]


# ---------------------------------------------------------------------------------------------------------------------
# The order
# ---------------------------------------------------------------------------------------------------------------------


def test_seeds_are_spread_and_depend_on_every_part() -> None:
    assert derive_seed(0, "order", 1) == derive_seed(0, "order", 1)
    parts = [(), (0,), ("0", ""), (0, 0), (0, 1), (1, 0), (10, "order", 1), (1, "order", 1), ("order", 1), (1, "order"), ("01",)]
    seeds = [derive_seed(*part) for part in parts]
    assert len(set(seeds)) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)


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


# ---------------------------------------------------------------------------------------------------------------------
# Batches
# ---------------------------------------------------------------------------------------------------------------------


def test_without_a_sampler_the_split_comes_in_order_at_its_own_sizes(tiny_data: Path, tiny_classes: ClassSet) -> None:
    write_pair(tiny_data, "odd", tiny_mask(seed=3, size=(33, 21)), tiny_classes)
    write_split(tiny_data, "val", ["val_1", "odd", "val_0"])
    batches = list(build_loader(SegmentationDataset(tiny_data, "val", tiny_classes), workers=0))
    assert [[*batch.id] for batch in batches] == [["val_1"], ["odd"], ["val_0"]]
    assert [tuple(batch.image.shape) for batch in batches] == [(1, 3, 32, 32), (1, 3, 33, 21), (1, 3, 32, 32)]
    assert [tuple(batch.truth.shape) for batch in batches] == [(1, 32, 32), (1, 33, 21), (1, 32, 32)]


def test_batches_do_not_depend_on_the_workers(tiny_data: Path, tiny_classes: ClassSet) -> None:
    dataset = augmented(tiny_data, tiny_classes)
    sampler = ResumableSampler(len(dataset), 4, seed=0, start=1, total=5)
    alone, shared = (list(build_loader(dataset, sampler, workers=workers)) for workers in (0, 2))
    assert len(alone) == len(shared) == 4
    for one, other in zip(alone, shared, strict=True):
        assert isinstance(other, Sample)
        assert (one.image.dtype, one.image.shape, one.truth.shape) == (torch.uint8, (4, 3, 16, 24), (4, 16, 24))
        assert same(one, other)


def test_pictures_grow_with_the_run_and_a_batch_has_one_size(tiny_data: Path, tiny_classes: ClassSet) -> None:
    """Six pictures in batches of four: batches span epochs, and the second of three parts begins within one."""
    transform = TrainTransform(AugmentConfig(crop_size=(32, 40), shrink=(0.5, 0.75, 1.0)))
    dataset = SegmentationDataset(tiny_data, "train", tiny_classes, transform=transform)
    sampler = ResumableSampler(6, 4, seed=0, start=1, total=8, shrink=(0.5, 0.75, 1.0))
    shapes = [tuple(batch.image.shape[2:]) for batch in build_loader(dataset, sampler, workers=0)]
    assert shapes == 2 * [(16, 20)] + 3 * [(24, 30)] + 2 * [(32, 40)]


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


def hang(image: torch.Tensor, mask: torch.Tensor, size: float) -> tuple[torch.Tensor, torch.Tensor]:
    """As a network disk does."""
    time.sleep(60)
    return image, mask


def die(image: torch.Tensor, mask: torch.Tensor, size: float) -> tuple[torch.Tensor, torch.Tensor]:
    """As the system does with a process when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
    return image, mask


@pytest.mark.parametrize(
    ("fate", "timeout", "message"), [(hang, 1, "no batch for 1 seconds"), (die, 600, "a data worker was lost")]
)
def test_a_lost_worker_is_said(fate, timeout: float, message: str, tiny_data: Path, tiny_classes: ClassSet) -> None:
    dataset = SegmentationDataset(tiny_data, "val", tiny_classes, transform=fate)
    with refused(ExitCode.WORKER_LOST, "data.workers", message):
        list(build_loader(dataset, workers=1, timeout=timeout))


def batches_of(workers: int, root: Path, classes: ClassSet) -> int:
    return len(list(build_loader(SegmentationDataset(root, "val", classes), workers=workers, timeout=600)))


@contextmanager
def few_files(more: int) -> Iterator[None]:
    """No more than so many files may be open beside those that are."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = set(map(int, os.listdir("/proc/self/fd")))
    free = (number for number in count() if number not in opened)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(islice(free, more, None)), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("more", [1, 12, 20])
def test_too_few_files_for_the_workers_are_said(more: int, workers: int, tiny_data, tiny_classes, capfd) -> None:
    with refused(ExitCode.ENVIRONMENT, "data.workers: too many open files", "ulimit -n", "lower data.workers"), few_files(more):
        batches_of(workers, tiny_data, tiny_classes)
    assert "Traceback" not in capfd.readouterr().err


def test_no_worker_needs_no_more_files(tiny_data: Path, tiny_classes: ClassSet) -> None:
    whole = batches_of(0, tiny_data, tiny_classes)
    with few_files(8):
        assert batches_of(0, tiny_data, tiny_classes) == whole > 0


def without_socket_folder(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    folder.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setitem(multiprocessing.current_process()._config, "tempdir", None)


@pytest.mark.parametrize("length", [1, 60, 120, 200])
def test_a_long_folder_for_temporary_files_hinders_no_worker(length: int, tiny_data, tiny_classes, tmp_path, monkeypatch) -> None:
    without_socket_folder(monkeypatch, tmp_path / ("x" * length))
    assert batches_of(2, tiny_data, tiny_classes) == batches_of(0, tiny_data, tiny_classes)
    assert tempfile.gettempdir() == str(tmp_path / ("x" * length))


def test_no_short_folder_for_sockets_is_said(tiny_data, tiny_classes, tmp_path, monkeypatch) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    without_socket_folder(monkeypatch, tmp_path / ("x" * 100))
    monkeypatch.setattr(multiprocessing.util, "get_temp_dir", full)
    with refused(ExitCode.ENVIRONMENT, "TMPDIR=", "too long for a socket's address", "shorter folder"):
        batches_of(1, tiny_data, tiny_classes)


def test_an_error_of_sending_a_batch_does_not_wait_for_the_time_limit(tiny_data, tiny_classes, tmp_path, monkeypatch) -> None:
    without_socket_folder(monkeypatch, tmp_path / ("x" * 100))
    monkeypatch.setattr(loader, "choose_socket_folder", lambda: None)
    with refused(ExitCode.WORKER_LOST, "data.workers", "AF_UNIX path too long"):
        batches_of(2, tiny_data, tiny_classes)


@pytest.mark.parametrize(("number", "code"), [(errno.EMFILE, ExitCode.ENVIRONMENT), (errno.ENOSPC, ExitCode.WORKER_LOST)])
def test_an_error_of_handing_over_memory_is_said(number: int, code: ExitCode, tiny_data, tiny_classes, monkeypatch) -> None:
    def fail(_: Listener) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Listener, "accept", fail)
    with refused(code, "data.workers", os.strerror(number).lower() if number == errno.EMFILE else os.strerror(number)):
        batches_of(1, tiny_data, tiny_classes)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EAGAIN, errno.EACCES])
def test_a_worker_that_cannot_be_started_is_said(number: int, tiny_data, tiny_classes, monkeypatch, capfd) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fork", fail)
    with refused(ExitCode.ENVIRONMENT, "data.workers: no worker can be started", os.strerror(number), "/dev/shm"):
        batches_of(1, tiny_data, tiny_classes)
    assert "Traceback" not in capfd.readouterr().err


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


def test_a_file_that_vanishes_is_named(tiny_data: Path, tiny_classes: ClassSet) -> None:
    dataset = SegmentationDataset(tiny_data, "val", tiny_classes)
    mask_path(tiny_data, "val_0").unlink()
    with refused(Data, "val_0.png", "no such file"):
        next(iter(build_loader(dataset, workers=0)))


def test_reading_changes_nothing_on_disk(tiny_data: Path, tiny_classes: ClassSet) -> None:
    paths = sorted(tiny_data.rglob("*"))
    before = [(path, path.stat().st_mtime_ns) for path in paths]
    list(build_loader(augmented(tiny_data, tiny_classes), [[SampleKey(0, 0), SampleKey(0, 1)]], workers=0))
    assert [(path, path.stat().st_mtime_ns) for path in sorted(tiny_data.rglob("*"))] == before
    assert open_mask(mask_path(tiny_data, "train_0"), tiny_classes).shape == (32, 32)


def test_two_pictures_of_one_id_are_refused(tiny_data: Path, tiny_classes: ClassSet) -> None:
    picture = tiny_data / "JPEGImages" / "train_0.jpg"
    Image.open(picture).save(picture.with_suffix(".png"))
    with refused(ExitCode.DATA, "train_0.png", "has the id of train_0.jpg too"):
        SegmentationDataset(tiny_data, "train", tiny_classes)


def test_samples_are_the_same_whatever_way_workers_start(tiny_data: Path, tiny_classes: ClassSet) -> None:
    """Everything a worker needs can be sent to it, as Windows, macOS and new Pythons do."""
    transform = TrainTransform(AugmentConfig(crop_size=(16, 16), brightness=0.2))
    dataset = SegmentationDataset(tiny_data, "train", tiny_classes, transform=transform)
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[SampleKey(1, 2)].image, dataset[SampleKey(1, 2)].image)
