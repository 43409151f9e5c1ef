"""The sample is whole or completed by the next call, the same bytes for the same seed, and leaves other data alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import folder_bytes, group_lives, start_script
from PIL import Image
from public_archives import split_names

from segnet.classes import SAMPLE
from segnet.preparation.sample import generate_sample
from segnet.preparation.scenes import render_scene
from segnet.system.errors import ExitCode, UserError

COUNT = 10


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "sample"
    assert generate_sample(root, seed=3, count=COUNT) == {"train": 8, "val": 2}
    return root


def test_layout_is_whole_and_splits_share_nothing(sample: Path) -> None:
    train, val = split_names(sample, "train"), split_names(sample, "val")
    assert (len(train), len(val)) == (8, 2)
    assert len({*train, *val}) == COUNT
    expected = {f"JPEGImages/{name}.jpg" for name in train + val} | {f"SegmentationClass/{name}.png" for name in train + val}
    expected |= {"ImageSets/Segmentation/train.txt", "ImageSets/Segmentation/val.txt", "sample.json", "classes.yaml"}
    assert set(folder_bytes(sample)) == expected


def test_masks_fit_their_pictures_and_are_palette_pngs(sample: Path) -> None:
    for name in split_names(sample, "train") + split_names(sample, "val"):
        picture = Image.open(sample / "JPEGImages" / f"{name}.jpg")
        mask = Image.open(sample / "SegmentationClass" / f"{name}.png")
        assert (picture.mode, mask.mode, mask.size) == ("RGB", "P", picture.size)
        assert mask.getpalette() == SAMPLE.palette


def test_same_seed_same_bytes_and_pictures_do_not_depend_on_count(sample: Path, tmp_path: Path) -> None:
    generate_sample(tmp_path, seed=3, count=6)
    again, before = folder_bytes(tmp_path), folder_bytes(sample)
    pictures = [name for name in again if name.endswith((".jpg", ".png"))]
    assert len(pictures) == 12
    assert all(again[name] == before[name] for name in pictures)
    assert not np.array_equal(render_scene(3, 0)[0], render_scene(4, 0)[0])


def test_second_call_touches_nothing(sample: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in sample.rglob("*")}
    assert generate_sample(sample, seed=3, count=COUNT) == {"train": 8, "val": 2}
    assert {path: path.stat().st_mtime_ns for path in sample.rglob("*")} == before


def test_interrupted_call_is_completed_by_the_next(tmp_path: Path) -> None:
    generate_sample(tmp_path, count=5)
    whole = folder_bytes(tmp_path)
    kept = tmp_path / "JPEGImages" / "sample_00000.jpg"
    for name in ("JPEGImages/sample_00001.jpg", "SegmentationClass/sample_00002.png", "ImageSets/Segmentation/train.txt"):
        (tmp_path / name).unlink()
    before = kept.stat().st_mtime_ns
    assert generate_sample(tmp_path, count=5) == {"train": 4, "val": 1}
    assert folder_bytes(tmp_path) == whole
    assert kept.stat().st_mtime_ns == before


def test_no_list_before_the_last_picture(tmp_path: Path) -> None:
    generate_sample(tmp_path, count=2)
    for path in [*tmp_path.rglob("*.txt"), *tmp_path.rglob("sample_00001.*")]:
        path.unlink()
    (tmp_path / "SegmentationClass" / "sample_00001.png").mkdir()  # a file cannot take its place
    with pytest.raises(OSError, match="sample_00001"):
        generate_sample(tmp_path, count=2)
    assert not list(tmp_path.rglob("*.txt"))


@pytest.mark.parametrize(("seed", "count"), [(1, 3), (0, 2)])
def test_another_seed_or_count_leaves_nothing_old(tmp_path: Path, seed: int, count: int) -> None:
    generate_sample(tmp_path / "changed", count=3)
    generate_sample(tmp_path / "changed", seed=seed, count=count)
    generate_sample(tmp_path / "fresh", seed=seed, count=count)
    assert folder_bytes(tmp_path / "changed") == folder_bytes(tmp_path / "fresh")


def test_a_folder_with_another_data_set_is_left_alone(tmp_path: Path) -> None:
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_000032\n")
    with pytest.raises(UserError, match="not the sample") as caught:
        generate_sample(tmp_path, count=5)
    assert caught.value.code == ExitCode.DATA
    assert (lists / "train.txt").read_text() == "2007_000032\n"


def test_a_folder_with_files_of_others_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "JPEGImages" / "sample_00001.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match="holds files that are not the sample's"):
        generate_sample(tmp_path, count=COUNT)
    assert folder_bytes(tmp_path) == {"JPEGImages/sample_00001.jpg": b"mine"}


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_a_stopped_command(tmp_path, stop):
    command = start_script("prepare_data", "sample", "--root", tmp_path / "sample", "--count", 5000)
    try:
        assert wait_until(lambda: any(tmp_path.glob("sample/SegmentationClass/*.png")), seconds=30)
        (os.killpg if stop == signal.SIGINT else os.kill)(command.pid, stop)  # a terminal's Ctrl-C reaches the whole group
        output = command.communicate(timeout=20)[0].decode()
        assert wait_until(lambda: not group_lives(command.pid)), "processes of the pool are left"
    finally:
        if group_lives(command.pid):
            os.killpg(command.pid, signal.SIGKILL)
    assert command.returncode == (130 if stop == signal.SIGINT else -stop)
    assert output == ""


def wait_until(condition: Callable[[], bool], *, seconds: float = 10) -> bool:
    """Whether `condition` comes true in that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
