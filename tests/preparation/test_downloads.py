"""Archives arrive whole or are refused, whatever the server does; hostile ones never get a file written."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import shutil
import stat
import tarfile
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from threading import Thread

import pytest
from helpers import refused

from segnet.preparation import archives, downloads
from segnet.preparation.archives import read_contents, read_members
from segnet.preparation.downloads import Archive, fetch
from segnet.system.errors import ExitCode
from segnet.system.files import require_space

CONTENT = bytes(range(256)) * 2000  # 512,000 bytes
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server:
    """Files over HTTP on this machine, with the faults that a test asks for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.etag = '"one"'
        self.cuts: list[int] = []  # one per request: bytes after which the connection is cut
        self.knows_ranges, self.says_length, self.stall, self.shift = True, True, 0.0, 0
        self.requests: list[tuple[str, str | None]] = []  # path and Range
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.requests.append((request.path, asked))
        if request.path not in self.files:
            return request.send_error(404)
        content, start = self.files[request.path], 0
        if asked and self.knows_ranges and request.headers.get("If-Range", self.etag) == self.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return request.send_error(416)
        request.send_response(206 if start else 200)
        if start:
            start += self.shift
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.says_length:
            request.send_header("Content-Length", str(len(content) - start))
        if self.etag:
            request.send_header("ETag", self.etag)
        request.end_headers()
        end = start + self.cuts.pop(0) if self.cuts else len(content)
        request.wfile.write(content[start:end])
        if end < len(content):
            request.wfile.flush()
            time.sleep(self.stall)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.files["/good"] = CONTENT
    yield server
    server.http.shutdown()
    server.http.server_close()


def archive(server: Server, *paths: str, md5: str | None = MD5, size: int | None = len(CONTENT)) -> Archive:
    return Archive("set.tar", tuple(server.address + path for path in paths), md5, size)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_download_is_whole_and_made_once(server, tmp_path):
    for _ in range(2):
        assert fetch(archive(server, "/good"), tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/good", None)]
    assert names(tmp_path) == ["set.tar"]


def test_a_cut_connection_is_continued_at_its_end(server, tmp_path):
    server.cuts = [100_000, 150_000]
    assert fetch(archive(server, "/good"), tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, "bytes=100000-", "bytes=250000-"]


@pytest.mark.parametrize("md5", [MD5, None])
def test_the_next_call_continues_what_an_earlier_one_left(server, tmp_path, md5):
    server.cuts = [100_000, 0]
    with refused(ExitCode.ENVIRONMENT, "set.tar", "cut after 0.1 MB of 0.5 MB", "--from-archive"):
        fetch(archive(server, "/good", md5=md5), tmp_path)
    assert (tmp_path / "set.tar.part").stat().st_size == 100_000
    assert fetch(archive(server, "/good", md5=md5), tmp_path).read_bytes() == CONTENT
    assert server.requests[-1] == ("/good", "bytes=100000-")


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.knows_ranges, server.cuts = False, [100_000]
    assert fetch(archive(server, "/good"), tmp_path).read_bytes() == CONTENT


def test_a_server_that_always_cuts_is_given_up(server, tmp_path):
    server.knows_ranges, server.cuts = False, [100_000] * 50
    with refused(ExitCode.ENVIRONMENT, "cut after"):
        fetch(archive(server, "/good"), tmp_path)
    assert len(server.requests) == 2


@pytest.mark.parametrize("md5", [hashlib.md5(CONTENT[::-1]).hexdigest(), None])
def test_another_version_on_the_server_is_fetched_from_its_start(server, tmp_path, md5):
    server.cuts = [100_000, 0]
    with refused(ExitCode.ENVIRONMENT, "cut"):
        fetch(archive(server, "/good", md5=md5), tmp_path)
    server.files["/good"], server.etag = CONTENT[::-1], '"two"'
    assert fetch(archive(server, "/good", md5=md5), tmp_path).read_bytes() == CONTENT[::-1]


def test_without_checksum_and_etag_nothing_is_continued(server, tmp_path):
    server.etag, server.cuts = "", [100_000]
    assert fetch(archive(server, "/good", md5=None), tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, None]


def test_a_part_that_does_not_belong_starts_again(server, tmp_path):
    (tmp_path / "set.tar.part").write_bytes(b"?" * 1000)
    assert fetch(archive(server, "/good"), tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == ["bytes=1000-", None]


@pytest.mark.parametrize("left", [len(CONTENT) - 1, len(CONTENT), len(CONTENT) + 9])
def test_a_part_of_about_the_whole_length(server, tmp_path, left):
    (tmp_path / "set.tar.part").write_bytes((CONTENT + b"?" * 9)[:left])
    assert fetch(archive(server, "/good"), tmp_path).read_bytes() == CONTENT


def test_a_server_that_continues_elsewhere_starts_again(server, tmp_path):
    server.shift, server.cuts = 7, [100_000]
    assert fetch(archive(server, "/good"), tmp_path).read_bytes() == CONTENT


def test_mirrors_are_tried_in_order(server, tmp_path):
    server.files |= {"/html": b"<html>moved</html>", "/wrong": CONTENT[::-1]}
    assert fetch(archive(server, "/none", "/html", "/wrong", "/good", "/never"), tmp_path).read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/none", "/html", "/wrong", "/good"]
    assert names(tmp_path) == ["set.tar"]


def test_a_mirror_continues_what_another_began(server, tmp_path):
    server.files["/other"], server.cuts = CONTENT, [100_000, 0]
    assert fetch(archive(server, "/good", "/other"), tmp_path).read_bytes() == CONTENT
    assert server.requests[-1] == ("/other", "bytes=100000-")


def test_without_a_checksum_a_mirror_starts_anew(server, tmp_path):
    server.files["/other"], server.cuts = CONTENT, [100_000, 0]
    assert fetch(archive(server, "/good", "/other", md5=None), tmp_path).read_bytes() == CONTENT
    assert server.requests[-1] == ("/other", None)


def test_wrong_bytes_are_code_3_and_name_both_checksums(server, tmp_path):
    server.files["/good"] = CONTENT[::-1]
    with refused(ExitCode.DATA, "set.tar", MD5, hashlib.md5(CONTENT[::-1]).hexdigest()):
        fetch(archive(server, "/good"), tmp_path)
    assert not list(tmp_path.glob("*.tar*[!e]"))


def test_no_server_and_no_file_are_code_5_in_one_line(server, tmp_path):
    with refused(ExitCode.ENVIRONMENT, "HTTP 404", "Connection refused"):
        fetch(Archive("set.tar", (server.address + "/none", "http://127.0.0.1:9/x"), MD5, None), tmp_path)


def test_more_than_announced_is_refused(server, tmp_path):
    server.files["/good"], server.says_length = CONTENT + b"more", False
    with refused(ExitCode.DATA, "more than 0.5 MB"):
        fetch(archive(server, "/good"), tmp_path)


def test_a_silent_server_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT", 0.2)
    server.cuts, server.stall = [1000, 0], 1.0
    with refused(ExitCode.ENVIRONMENT, "timed out"):
        fetch(archive(server, "/good"), tmp_path)


def test_a_killed_download_is_continued(server, tmp_path):
    server.cuts, server.stall = [100_000], 60.0
    child = get_context("fork").Process(target=fetch, args=(archive(server, "/good"), tmp_path))
    child.start()
    deadline = time.monotonic() + 10
    while not ((tmp_path / "set.tar.part").exists() and time.monotonic() < deadline):
        time.sleep(0.01)
    time.sleep(0.1)
    child.kill()
    child.join()
    kept = (tmp_path / "set.tar.part").stat().st_size
    assert fetch(archive(server, "/good"), tmp_path).read_bytes() == CONTENT
    assert server.requests[-1][1] == (f"bytes={kept}-" if kept else None)


def test_a_small_disk_is_said_before_the_download(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 200_000))
    with refused(ExitCode.ENVIRONMENT, str(tmp_path), "needs 0.5 MB", "has 0.2 MB free"):
        fetch(archive(server, "/good"), tmp_path)
    assert names(tmp_path) == []
    with refused(ExitCode.ENVIRONMENT, "needs 1,000.0 MB", "free 999.8 MB"):
        require_space(tmp_path, 10**9)


def test_a_disk_that_fills_up_is_named_and_no_other_mirror_asked(server, tmp_path, monkeypatch):
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(downloads, "sync_to_disk", full)
    with refused(ExitCode.ENVIRONMENT, "set.tar.part", "No space left on device", "free space"):
        fetch(archive(server, "/good", "/good"), tmp_path)
    assert len(server.requests) == 1


# Unpacking


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
