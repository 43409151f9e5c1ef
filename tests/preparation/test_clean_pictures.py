"""A data folder of folders of pictures: copies, and lists that hold out the same pictures every time."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import folder_bytes, refused, write_picture

from segnet.preparation.clean_pictures import copy_pictures
from segnet.system.errors import ExitCode


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(10):
        path = tmp_path / "photos" / "deep" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(path, seed=number)
    return tmp_path / "photos"


def test_pictures_are_copied_and_a_share_is_held_out(photos: Path, tmp_path: Path) -> None:
    test = tmp_path / "other"
    test.mkdir()
    write_picture(test / "0.png", seed=99)
    done = copy_pictures([photos], [test], tmp_path / "out", val=0.2)
    assert done.counts == {"train": 8, "val": 2, "test": 1}
    lists = {split: (tmp_path / "out" / f"{split}.txt").read_text().split() for split in done.counts}
    assert sorted(lists["train"] + lists["val"]) == [f"photos/deep/{number}" for number in range(10)]
    assert lists["test"] == ["other/0"]
    for name in lists["train"]:
        assert (tmp_path / "out" / "images" / f"{name}.png").read_bytes() == (tmp_path / f"{name}.png").read_bytes()
    before = folder_bytes(tmp_path / "out")
    again = copy_pictures([photos], [test], tmp_path / "out", val=0.2)
    assert (again.counts, again.changed) == (done.counts, False)
    (tmp_path / "out" / "images" / "other" / "0.png").unlink()
    assert copy_pictures([photos], [test], tmp_path / "out", val=0.2).changed
    assert folder_bytes(tmp_path / "out") == before
    with refused(ExitCode.CONFIG, "train.txt: is there already, with other pictures"):
        copy_pictures([photos], [test], tmp_path / "out", val=0.5)


def test_what_cannot_be_copied_is_named_before_anything_is_written(photos: Path, tmp_path: Path) -> None:
    (photos / "deep" / "3.png").write_bytes(b"no picture")
    (photos / "deep" / "4.jpg").write_bytes((photos / "deep" / "4.png").read_bytes())
    with refused(ExitCode.DATA, "3.png: not a readable picture", "4.png: has the id of"):
        copy_pictures([photos], [], tmp_path / "out", val=0.1)
    (tmp_path / "empty").mkdir()
    with refused(ExitCode.DATA, "empty: no picture in it"):
        copy_pictures([tmp_path / "empty"], [], tmp_path / "out", val=0.1)
    with refused(ExitCode.DATA, "gone: no such folder"):
        copy_pictures([tmp_path / "gone"], [], tmp_path / "out", val=0.1)
    assert not (tmp_path / "out").exists()
