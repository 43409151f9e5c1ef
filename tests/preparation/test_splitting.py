"""Lists of train, val, test and folds: balanced, grouped, stable, and never another's overwritten."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from divisions import largest_deviation
from helpers import CLASSES, ROOT, RunScript, folder_bytes, refused, tiny_mask, write_pair, write_split

from segnet.classes import VOC, class_set
from segnet.data.layout import mask_path, picture_path, split_path
from segnet.data.split_lists import read_split
from segnet.preparation.splitting import group_names, split_dataset, split_table
from segnet.preparation.written_lists import SplitOptions
from segnet.system.errors import ExitCode

CLASS_SET = class_set(CLASSES)
REAL_VOC = ROOT.parent / "shared" / "data" / "voc"


def options(val: float = 0.25, test: float = 0.0, folds: int = 0, group: str | None = None, seed: int = 0) -> SplitOptions:
    return SplitOptions(val, test, folds, group, seed)


def write_pictures(root: Path, names: list[str]) -> Path:
    for name in names:
        write_pair(root, name, tiny_mask(seed=sum(name.encode())), CLASS_SET)
    return root


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Four pictures of each of six videos, and no list."""
    return write_pictures(tmp_path / "data", [f"v{video}_{frame:02d}" for video in range(6) for frame in range(4)])


def test_groups_are_the_first_group_of_a_pattern_or_its_match_or_the_folder() -> None:
    ids = ["a/x_1", "a/x_2", "b/y_3"]
    assert group_names(ids, None) == ids
    assert group_names(ids, "folder") == ["a", "a", "b"]
    assert group_names(ids, r"(.)_\d") == ["x", "x", "y"]
    assert group_names(ids, r"\d") == ["1", "2", "3"]
    with refused(ExitCode.CONFIG, "--group x: does not match 1 of 3 ids: 'b/y_3'"):
        group_names(ids, "x")
    with refused(ExitCode.CONFIG, "--group (: not a regular expression"):
        group_names(ids, "(")
    with refused(ExitCode.CONFIG, "no picture lies in a folder of its own"):
        group_names(["a", "b"], "folder")


def test_lists_are_written_topped_up_and_the_same_again(videos: Path) -> None:
    first = split_dataset(videos, CLASS_SET, options(group=r"^(v\d)", test=0.2))
    assert {name: len(members) for name, members in first.lists.items()} == {"train": 12, "val": 8, "test": 4}
    assert {name: read_split(videos, name) for name in first.lists} == first.lists
    written = folder_bytes(videos / "ImageSets")
    again = split_dataset(videos, CLASS_SET, options(group=r"^(v\d)", test=0.2))
    assert (again.lists, set(again.added.values()), folder_bytes(videos / "ImageSets")) == (first.lists, {0}, written)
    write_pictures(videos, ["v0_09", "v7_00", "v7_01"])
    more = split_dataset(videos, CLASS_SET, options(group=r"^(v\d)", test=0.2))
    assert all(set(more.lists[name]) >= set(first.lists[name]) for name in first.lists)
    (home,) = [name for name in first.lists if "v0_00" in first.lists[name]]
    assert "v0_09" in more.lists[home]
    assert sum(more.added.values()) == 3
    assert split_dataset(videos, CLASS_SET, options(group=r"^(v\d)", test=0.2, seed=3), "overwrite").lists != first.lists


def test_lists_of_others_and_of_other_options_are_kept_until_asked(videos: Path) -> None:
    write_split(videos, "val", ["v3_00", "v1_00"])
    before = folder_bytes(videos)
    with refused(ExitCode.CONFIG, "val.txt: is there already, not written by this command – ", "--keep", "--overwrite"):
        split_dataset(videos, CLASS_SET, options())
    assert folder_bytes(videos) == before
    kept = split_dataset(videos, CLASS_SET, options(), "keep")
    assert kept.lists["val"][:2] == ["v3_00", "v1_00"]
    assert len(kept.lists["val"]) == 6
    with refused(ExitCode.CONFIG, "train.txt: is there already, written with --val 0.25 --seed 0"):
        split_dataset(videos, CLASS_SET, options(seed=1))
    split_dataset(videos, CLASS_SET, options(seed=1), "overwrite")
    assert split_dataset(videos, CLASS_SET, options(seed=1)).added == {"train": 0, "val": 0}


def test_groups_that_old_lists_divide_are_told(videos: Path) -> None:
    write_split(videos, "val", ["v3_00"])
    write_split(videos, "train", ["v3_01"])
    found = split_dataset(videos, CLASS_SET, options(group=r"^(v\d)"), "keep")
    assert [warning.found for warning in found.warnings] == ["1 groups are in train as well, where the old lists have them: v3"]


def test_groups_that_a_test_list_has_too_are_told(videos: Path) -> None:
    write_split(videos, "test", ["v3_00", "v3_01"])
    found = split_dataset(videos, CLASS_SET, options(group=r"^(v\d)"))
    assert not set(found.lists["train"] + found.lists["val"]) & {"v3_00", "v3_01"}
    assert [warning.found for warning in found.warnings] == ["1 groups are in test as well, where the old lists have them: v3"]


def test_faults_stop_it_before_anything_is_written(videos: Path) -> None:
    write_split(videos, "val", ["v3_00", "gone"])
    with refused(ExitCode.DATA, "val.txt: 1 of its pictures lack a picture or a mask: gone – restore them, or remove"):
        split_dataset(videos, CLASS_SET, options(), "keep")
    write_split(videos, "train", ["v3_00"])
    write_split(videos, "val", ["v3_00"])
    with refused(ExitCode.DATA, "1 pictures are in"):
        split_dataset(videos, CLASS_SET, options(), "keep")
    mask_path(videos, "v0_00").write_bytes(b"")
    mask_path(videos, "v0_01").write_bytes(b"")
    before = folder_bytes(videos)
    with refused(ExitCode.DATA, "v0_00.png: not a readable picture", "v0_01.png", "2 faults in all"):
        split_dataset(videos, CLASS_SET, options(), "overwrite")
    assert folder_bytes(videos) == before
    with refused(ExitCode.DATA, "no picture is left for it: 1 groups for 2 lists"):
        write_split(videos, "all", ["v1_00", "v1_01"])
        split_dataset(videos, CLASS_SET, options(group="v1"), "overwrite")


def test_the_list_all_says_what_is_divided(videos: Path) -> None:
    write_split(videos, "all", [f"v{video}_00" for video in range(6)])
    lists = split_dataset(videos, CLASS_SET, options()).lists
    assert sorted([*lists["train"], *lists["val"]]) == [f"v{video}_00" for video in range(6)]


def test_pictures_and_masks_without_a_partner_are_told(videos: Path) -> None:
    mask_path(videos, "v0_00").unlink()
    picture_path(videos, "v0_01").unlink()
    found = split_dataset(videos, CLASS_SET, options())
    assert [(Path(w.path).name, w.found) for w in found.warnings] == [
        ("JPEGImages", "1 files have no mask and are in no list: v0_00"),
        ("SegmentationClass", "1 files have no picture and are in no list: v0_01"),
    ]
    assert len(found.lists["train"]) + len(found.lists["val"]) == 22


def test_masks_of_other_names_stop_it_with_the_command_that_renames_them(videos: Path) -> None:
    for path in sorted((videos / "SegmentationClass").iterdir()):
        path.rename(path.with_name(f"{path.stem}-label.png"))
    with refused(ExitCode.DATA, "SegmentationClass: 24 files, such as", "whose name goes on with '-label'", "*-label.png; do mv"):
        split_dataset(videos, CLASS_SET, options())


def test_classes_that_a_list_lacks_are_told(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for index in range(8):
        write_pair(root, f"p{index}", np.where(np.eye(32), int(index == 3), 0), CLASS_SET)
    found = split_dataset(root, CLASS_SET, options())
    assert [(Path(w.path).name, w.found) for w in found.warnings] == [
        ("data", "no mask has a pixel of disc"),
        ("val.txt", "no pixel of box (in 1 groups)"),
    ]
    assert "p3" in found.lists["train"]
    row = next(line for line in split_table(found, CLASS_SET).splitlines() if line.startswith("box"))
    assert row.split() == ["box", "0.39%", "0.52%", "–"]


def test_folds_cover_every_picture_once_and_leave_test_alone(videos: Path) -> None:
    split_dataset(videos, CLASS_SET, options(test=0.2))
    test = read_split(videos, "test")
    found = split_dataset(videos, CLASS_SET, options(val=0.0, folds=3))
    assert sorted(found.lists) == ["train_0", "train_1", "train_2", "val_0", "val_1", "val_2"]
    vals = [name for fold in range(3) for name in found.lists[f"val_{fold}"]]
    assert sorted([*vals, *test]) == [f"v{video}_{frame:02d}" for video in range(6) for frame in range(4)]
    for fold in range(3):
        assert sorted([*found.lists[f"train_{fold}"], *found.lists[f"val_{fold}"]]) == sorted(vals)
    assert found.held_out == len(test)
    with refused(ExitCode.CONFIG, "train_0.txt: is there already, written with --folds 3"):
        split_dataset(videos, CLASS_SET, options(val=0.0, folds=2))
    with refused(ExitCode.CONFIG, "train_2.txt: is a list of more than 2 folds"):
        split_dataset(videos, CLASS_SET, options(val=0.0, folds=2), "keep")
    split_dataset(videos, CLASS_SET, options(val=0.0, folds=2), "overwrite")
    assert not split_path(videos, "val_2").exists()
    assert read_split(videos, "test") == test


def test_the_command_prints_shares_and_refuses_nonsense(run_script: RunScript, videos: Path) -> None:
    (videos / "classes.yaml").write_text(f"names: [{', '.join(CLASSES)}]\n")
    done = run_script("prepare_data", "split", videos, "--val", "0.25", "--group", r"^(v\d)")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == ["pictures", "groups", *CLASSES]
    assert lines[0].split() == ["all", "train", "val"]
    assert lines[1].split() == ["pictures", "24", "16", "8"]
    assert lines[-1] == f"{videos}/ImageSets/Segmentation: train 16 (+16), val 8 (+8)"
    assert json.loads((videos / "ImageSets/Segmentation/split.json").read_text())["val"]["val"] == 0.25


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --val, --folds or both"),
        (["--val", "0.5", "--test", "0.5"], "leave nothing for train"),
        (["--val", "1"], "1: expected a share between 0 and 1"),
        (["--val", "some"], "some: expected a share between 0 and 1"),
        (["--folds", "1"], "1: expected 2 to 100"),
        (["--val", "0.2", "--keep", "--overwrite"], "not allowed with"),
    ],
)
def test_nonsense_is_a_mistake_of_usage(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["prepare_data.py", "split", "data", *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts" / "prepare_data.py"))["main"]()
    assert (ended.value.code, said in capsys.readouterr().err) == (2, True)


def test_real_pictures_are_divided_better_than_by_chance(tmp_path: Path) -> None:
    if not REAL_VOC.exists():
        pytest.skip("voc is not on this machine")
    names = sorted(path.stem for path in (REAL_VOC / "SegmentationClass").glob("*.png"))[::4]
    for folder, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.{suffix}").write_bytes((REAL_VOC / folder / f"{name}.{suffix}").read_bytes())
    found = split_dataset(tmp_path, VOC, options(val=0.2))
    assert found.warnings == []
    assert largest_deviation(found.pool.pixels, np.isin(names, found.lists["val"])) < 0.25
