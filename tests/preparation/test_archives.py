"""A hostile or damaged archive is refused by name, and never gets a file written."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from helpers import refused

from segnet.preparation import archives
from segnet.preparation.archives import read_contents, read_members
from segnet.system.errors import ExitCode


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:
        for info, content in members:
            info.size = len(content) or info.size
            file.addfile(info, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_of(path: Path, *members: tuple[str, int, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, mode, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            file.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


@pytest.mark.parametrize("kind", ["tar", "tgz", "zip"])
def test_members_are_read_and_folders_passed_over(tmp_path, kind):
    if kind == "zip":
        path = zip_of(tmp_path / "a", ("set/", stat.S_IFDIR, b""), ("set/a.txt", stat.S_IFREG, b"x y"), ("other/b", 0, b"b"))
    else:
        members = (member("./set", tarfile.DIRTYPE), b""), (member("./set/a.txt"), b"x y"), (member("other/b"), b"b")
        path = tar_of(tmp_path / "a", *members, mode="w:gz" if kind == "tgz" else "w")
    assert read_contents(path, "set")[1:] == ({"set/a.txt": 3}, {"set/a.txt": "x y"})
    assert dict(read_members(path, {"other/b"})) == {"other/b": b"b"}


HOSTILE = ["/etc/passwd", "../up", "set/../../up", "set/..", "set\\..\\up", "set/\x07bell"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_leaves_the_archive_is_refused(tmp_path, name):
    for path in (tar_of(tmp_path / "tar", (member(name), b"x")), zip_of(tmp_path / "zip", (name, 0, b"x"))):
        with refused(ExitCode.DATA, str(path), "leaves the archive's folder"):
            read_contents(path, "set")
        with refused(ExitCode.DATA, "leaves the archive's folder"):
            list(read_members(path, {name}))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused_by_name(tmp_path, kind):
    path = tar_of(tmp_path / "tar", (member("set/link", kind, "/etc/passwd"), b""))
    with refused(ExitCode.DATA, str(path), "'set/link' is a link or a device"):
        read_contents(path, "set")
    with refused(ExitCode.DATA, "'set/link' is not a file"):
        list(read_members(path, {"set/link"}))
    assert read_contents(path, "elsewhere").sizes == {}  # nothing of it is ever used


def test_a_folder_that_is_a_link_is_refused(tmp_path):
    with refused(ExitCode.DATA, "'set' is a link"):
        read_contents(tar_of(tmp_path / "tar", (member("set", tarfile.SYMTYPE, "/etc"), b"")), "set")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_a_zip_are_refused_by_name(tmp_path, mode):
    with refused(ExitCode.DATA, "'set/link' is a link or a device"):
        read_contents(zip_of(tmp_path / "zip", ("set/link", mode | 0o777, b"/etc/passwd")), "set")


def test_a_name_that_is_there_twice_is_refused(tmp_path):
    with refused(ExitCode.DATA, "'set/a' is there twice"):
        read_contents(tar_of(tmp_path / "tar", (member("set/a"), b"1"), (member("set/a"), b"2")), "set")


def test_bombs_are_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 1_000_000)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 50)
    paths = [
        zip_of(tmp_path / "zip", ("set/zeros.txt", 0, bytes(2_000_000))),
        tar_of(tmp_path / "tgz", (member("set/zeros.txt"), bytes(2_000_000)), mode="w:gz"),
    ]
    assert all(path.stat().st_size < 10_000 for path in paths)
    for path in paths:
        with refused(ExitCode.DATA, "'set/zeros.txt' is beyond"):
            read_contents(path, "set")
    with refused(ExitCode.DATA, "'set/50' is beyond 50 members"):
        read_contents(tar_of(tmp_path / "many", *((member(f"set/{i}"), b"") for i in range(100))), "set")


def test_a_member_or_a_header_too_large_for_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 100_000)
    for path in (zip_of(tmp_path / "z", ("a", 0, bytes(200_000))), tar_of(tmp_path / "t", (member("a"), bytes(200_000)))):
        with refused(ExitCode.DATA, str(path)):
            list(read_members(path, {"a"}))
    header = member("pax", tarfile.XHDTYPE)
    header.size = 50_000_000
    with gzip.open(tmp_path / "pax", "wb") as file:
        file.write(header.tobuf(tarfile.USTAR_FORMAT) + bytes(1_000_000))
    with refused(ExitCode.DATA, "a header of 50.0 MB"):
        read_contents(tmp_path / "pax", "set")


def test_damage_is_said(tmp_path):
    good = zip_of(tmp_path / "zip", ("set/a.txt", 0, os.urandom(3000).hex().encode()))
    tgz = tar_of(tmp_path / "tgz", (member("set/a.txt"), os.urandom(30_000)), mode="w:gz")
    tar = tar_of(tmp_path / "tar", (member("set/a.txt"), os.urandom(30_000)))
    flipped = bytearray(good.read_bytes())
    flipped[1000] ^= 255
    cases = [b"", b"<html>", bytes(flipped), good.read_bytes()[:2000], tgz.read_bytes()[:20_000], tar.read_bytes()[:20_000]]
    for number, content in enumerate(cases):
        (tmp_path / "bad").write_bytes(content)
        with refused(ExitCode.DATA, "bad", "a damaged archive"):
            read_contents(tmp_path / "bad", "set")
            pytest.fail(f"case {number}")
