"""Which files of a folder are pictures: whatever their suffix is called, below links, without what tools keep beside them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers import write_picture

from segnet.data.listing import left_out, left_out_warning, list_pictures


def pictures(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in list_pictures(folder).pictures]


def passed(folder: Path) -> dict[str, str]:
    return {left.path.relative_to(folder).as_posix(): left.why for left in left_out(list_pictures(folder))}


def test_a_suffix_counts_in_any_case(tmp_path: Path) -> None:
    names = ["a.jpg", "b.JPEG", "c.Jpe", "d.JFIF", "e.jfi", "f.jif", "g.pbm", "h.PNM", "i.dib", "j.apng", "k.x.tif", "l .png"]
    for name in names:
        write_picture(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    assert pictures(tmp_path) == names
    assert passed(tmp_path) == {}


def test_what_is_no_file_is_listed_so_that_it_fails_aloud(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    assert pictures(tmp_path) == ["gone.jpg", "pipe.png"]


HIDDEN = [".ipynb_checkpoints/a-checkpoint.png", ".thumbnails/a.png", "@eaDir/a.jpg/SYNOPHOTO.jpg", "__MACOSX/a.png", "._a.png"]
HIDDEN += [
    "#recycle/a.png",
    "$RECYCLE.BIN/S-1-5/a.png",
    "deep/.cache/deeper/a.png",
    "deep/@eadir/a.png",
    ".DS_Store",
    "Thumbs.db",
]


def test_what_tools_leave_behind_is_left_alone(tmp_path: Path) -> None:
    for name in ["a.png", "deep/b.png", *HIDDEN]:
        write_picture(tmp_path / ".in" / name)
    assert pictures(tmp_path / ".in") == ["a.png", "deep/b.png"]  # the folder itself was named
    assert passed(tmp_path / ".in") == {}


def test_linked_folders_are_read_once(tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "b" / "1.png")
    write_picture(tmp_path / "elsewhere" / "deep" / "2.png")
    for name, target in (("a", "b"), ("b/up", ".."), ("b/self", "."), ("out", "../elsewhere"), ("again", "../elsewhere/deep")):
        (tmp_path / "in" / name).symlink_to(target)
    (tmp_path / "elsewhere" / "back").symlink_to("../in")
    (tmp_path / "in" / "1.png").symlink_to("b/1.png")
    assert pictures(tmp_path / "in") == ["1.png", "again/2.png", "b/1.png"]
    assert passed(tmp_path / "in") == {}


def test_a_link_to_a_folder_around_is_named_and_not_followed(tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.png")
    write_picture(tmp_path / "b.png")
    (tmp_path / "in" / "up").symlink_to("..")
    assert pictures(tmp_path / "in") == ["a.png"]
    assert passed(tmp_path / "in") == {"up": f"a link to {tmp_path}, which holds the folder itself"}


def test_what_looks_like_a_picture_and_is_none_of_ours_is_named(tmp_path: Path) -> None:
    for name in ("a.HEIC", "b.dng", "c.dcm", "d.exr"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic")
    for name in ("e", "f.jpg_large", "g.jpg "):
        write_picture(tmp_path / name)
    for name in ("h", "notes.txt", "labels.json", "classes.xml"):
        (tmp_path / name).write_text("{}")
    content = "a picture by its content alone"
    assert passed(tmp_path) == {
        **{name: f"{name[2:].upper()} is not read" for name in ("a.HEIC", "b.dng", "c.dcm", "d.exr")},
        **{"e": "a picture without a suffix", "f.jpg_large": content, "g.jpg ": content},
    }
    line = str(left_out_warning(left_out(list_pictures(tmp_path))))
    assert line.startswith(f"left out: 7 files ({tmp_path}/a.HEIC: HEIC is not read, ")
    assert line.endswith(" – convert them to JPEG or PNG, or give them the suffix of their format")


def test_a_line_has_an_end(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"{number:03}.heic").touch()
    line = str(left_out_warning(left_out(list_pictures(tmp_path))))
    assert line.startswith("left out: 200 files (")
    assert "009.heic: HEIC is not read, and 190 more) – " in line


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_picture(tmp_path / "a.png")
    write_picture(tmp_path / "closed" / "b.png")
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert pictures(tmp_path) == ["a.png"]
    assert passed(tmp_path) == {"closed": "permission denied"}
    with pytest.raises(PermissionError):
        list_pictures(tmp_path / "closed")
