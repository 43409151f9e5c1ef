"""Archives of strangers are unpacked safely, and pictures are found by the names that labels give them, never elsewhere."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from helpers import refused
from label_exports import photo

from segnet.importing.files import PictureFinder, Tree, load_json, open_tree
from segnet.preparation import archives
from segnet.system.errors import ExitCode


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def unpacked(path: Path, tmp_path: Path) -> Tree:
    (tmp_path / "scratch").mkdir(exist_ok=True)
    return open_tree(path, tmp_path / "scratch")


def test_folders_around_a_set_are_passed_and_files_of_archivers_left_out(tmp_path: Path) -> None:
    members = {"export/1/a.jpg": b"x", "export/1/labels/a.json": b"{}", "__MACOSX/export/._a.jpg": b"x", ".DS_Store": b"x"}
    tree = unpacked(write_zip(tmp_path / "x.zip", members), tmp_path)
    assert (tree.pictures, tree.others) == (["a.jpg"], ["labels/a.json"])


def test_a_tar_is_unpacked_too(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("in/a.json")
        info.size = 2
        archive.addfile(info, io.BytesIO(b"{}"))
    assert unpacked(tmp_path / "x.tar.gz", tmp_path).others == ["a.json"]


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/a.jpg", "x/../../a.jpg", "x\\..\\a.jpg", "C:\\a.jpg"])
def test_members_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    path = write_zip(tmp_path / "x.zip", {"good.jpg": b"x", name: b"evil"})
    with refused(ExitCode.DATA, "x.zip", "leaves the archive's folder"):
        unpacked(path, tmp_path)
    assert not any((tmp_path / "scratch").iterdir()), "nothing is written before all members are seen"


def test_links_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("a.jpg")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with refused(ExitCode.DATA, "is a link or a device"):
        unpacked(tmp_path / "x.zip", tmp_path)


def test_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.jpg", b"x")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.jpg", b"x")
    with refused(ExitCode.DATA, "is there twice"):
        unpacked(tmp_path / "x.zip", tmp_path)


def test_bombs_are_refused_before_they_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / "x.zip", {"a.jpg": bytes(3_000_000), "b.jpg": bytes(3_000_000)})
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(archives, "MAX_BYTES", 5_000_000)
    with refused(ExitCode.DATA, "x.zip", "unpacked"):
        unpacked(path, tmp_path)
    monkeypatch.setattr(archives, "MAX_BYTES", 50_000_000)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 1)
    with refused(ExitCode.DATA, "beyond 1 members"):
        unpacked(path, tmp_path)
    assert not any((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("content", [b"PK\x03\x04 and nothing", b"hello", b""])
def test_damaged_and_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    with refused(ExitCode.DATA, "x.zip"):
        unpacked(tmp_path / "x.zip", tmp_path)


@pytest.mark.parametrize("names", [("q", "q/b"), ("q/b", "q"), ("x" * 300,)])
def test_names_that_no_folder_can_hold_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    path = write_zip(tmp_path / "x.zip", dict.fromkeys(names, b""))
    with refused(ExitCode.DATA, "x.zip: member '", "cannot be a file"):
        unpacked(path, tmp_path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_is_refused_however_it_is_compressed(tmp_path: Path, compression: int) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a.txt", bytes(range(256)) * 4)
    content = bytearray(path.read_bytes())
    content[60:90] = bytes(30)
    path.write_bytes(content)
    with refused(ExitCode.DATA, "x.zip", "a damaged archive"):
        unpacked(path, tmp_path)


def test_pipes_are_never_read(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.jpg")
    for name in ("b.jpg", "c.json"):
        os.mkfifo(tmp_path / "in" / name)
    tree = open_tree(tmp_path / "in", tmp_path)
    assert (tree.pictures, tree.others) == (["a.jpg"], [])
    assert [(left.path.name, left.why) for left in tree.unread] == [("b.jpg", "not a file"), ("c.json", "not a file")]


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    with refused(ExitCode.DATA, "no such file or folder"):
        unpacked(tmp_path / "nothing", tmp_path)


@pytest.mark.parametrize("text", [b"{", b"\xff\xfe", b"", b"[" * 100_000])
def test_broken_json_is_refused_by_name(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "x.json").write_bytes(text)
    with refused(ExitCode.DATA, "x.json", "is no JSON"):
        load_json(tmp_path / "x.json")


def finder(tmp_path: Path, *names: str, pictures: Path | None = None) -> PictureFinder:
    for name in names:
        photo(tmp_path / "in" / name)
    return PictureFinder(open_tree(tmp_path / "in", tmp_path), pictures)


@pytest.mark.parametrize(
    ("name", "near", "expected"),
    [
        ("a.jpg", "x", "x/a.jpg"),
        ("x/a.jpg", "", "x/a.jpg"),
        ("../y/a.jpg", "x", "y/a.jpg"),
        ("/mnt/data/y/a.jpg", "", "y/a.jpg"),
        ("D:\\data\\y\\a.jpg", "", "y/a.jpg"),
        ("other/b c.jpg", "", "x/b c.jpg"),
        ("https://host/p/b%20c.jpg", "", "x/b c.jpg"),
        ("http://[::1/x/b c.jpg", "", "x/b c.jpg"),  # no address
    ],
)
def test_names_of_labels_lead_to_pictures(tmp_path: Path, name: str, near: str, expected: str) -> None:
    found = finder(tmp_path, "x/a.jpg", "y/a.jpg", "x/b c.jpg").find(name, tmp_path / "l.json", near)
    assert found == (tmp_path / "in" / expected, expected)


def test_a_name_that_may_be_two_pictures_is_refused(tmp_path: Path) -> None:
    with refused(ExitCode.DATA, "l.json", "may be x/a.jpg and y/a.jpg"):
        finder(tmp_path, "x/a.jpg", "y/a.jpg").find("a.jpg", tmp_path / "l.json")


def test_nothing_outside_is_ever_opened(tmp_path: Path) -> None:
    photo(tmp_path / "secret.jpg")
    search = finder(tmp_path, "a.jpg", "b.jpg")
    with refused(ExitCode.DATA, "outside of the folder"):
        search.find("../secret.jpg", tmp_path / "l.json")
    for name in (str(tmp_path / "secret.jpg"), "secret.jpg", "file:///secret.jpg", "", "/", ".."):
        with refused(ExitCode.DATA, "l.json"):
            search.find(name, tmp_path / "l.json")


def test_a_folder_of_pictures_replaces_those_of_the_source(tmp_path: Path) -> None:
    photo(tmp_path / "photos" / "a.jpg", seed=1)
    search = finder(tmp_path, "a.jpg", pictures=tmp_path / "photos")
    assert search.find("../x/a.jpg", tmp_path / "l.json")[0] == tmp_path / "photos" / "a.jpg"
    with refused(ExitCode.DATA, "no such folder", "--pictures"):
        finder(tmp_path, "a.jpg", pictures=tmp_path / "nothing")
