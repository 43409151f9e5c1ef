"""Archives arrive whole or are refused, whatever the server does."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from threading import Thread

import pytest
from helpers import refused

from segnet.preparation import downloads
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


def test_a_reason_of_several_addresses_is_said_once(server, tmp_path):
    with refused(ExitCode.ENVIRONMENT, f"(HTTP 404 Not Found: {server.address}/a, {server.address}/b)"):
        fetch(archive(server, "/a", "/b"), tmp_path)


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
