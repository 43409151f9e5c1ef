"""Downloads of archives: resumed after an interruption, tried at several addresses, verified by checksum."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from segnet.system.errors import ExitCode, UserError, data_error, environment_error, first_line
from segnet.system.files import full_disk_named, megabytes, require_space, sync_to_disk, write_text

TIMEOUT = 60  # seconds without a byte
MAX_BYTES = 8_000_000_000  # of an archive, packed or unpacked
_CHUNK = 1 << 20  # bytes per read


class Archive(NamedTuple):
    """A file to download: its addresses, and the facts about its content that are known beforehand."""

    name: str
    urls: tuple[str, ...]  # in the order in which they are tried
    md5: str | None  # None when the host packs it anew for each request
    size: int | None  # bytes, where known


class _Stale(Exception):
    """The part downloaded so far does not belong to the file that the server has now."""


def fetch(archive: Archive, folder: Path) -> Path:
    """The path of the verified archive in `folder`, downloaded from the first address that has it unless it is there.

    Raises UserError (data) when an address gave another file, else (environment) when none could be reached or the disk is
    full. A partial download stays in `<name>.part` for the next call.
    """
    target = folder / archive.name
    part = folder / f"{archive.name}.part"
    failures = list[UserError]()
    if target.exists():
        if _is_whole(archive, target):
            return target
        target.unlink()
    for url in archive.urls:
        try:
            _download(archive, url, part)
        except UserError as error:
            if error.path in (str(part), str(folder)):  # the disk failed, not the address
                raise
            failures.append(error)
        else:
            os.replace(part, target)
            _source_path(part).unlink(missing_ok=True)
            return target
    wrong = any(failure.code == ExitCode.DATA for failure in failures)
    addresses = defaultdict[str, list[str]](list)  # by the reason, which is mostly one for all
    for failure in failures:
        addresses[failure.found].append(failure.path)
    found = "; ".join(f"{reason}: {', '.join(urls)}" for reason, urls in addresses.items())
    remedy = "check the network and run the command again, or download it elsewhere and give --from-archive FILE"
    code = ExitCode.DATA if wrong else ExitCode.ENVIRONMENT
    raise UserError(code, archive.name, f"cannot be downloaded ({found})", remedy)


def verify(archive: Archive, path: Path) -> None:
    """Raise UserError (data) unless the file has the archive's checksum."""
    if not path.is_file():
        raise data_error(path, "no such file", f"name a copy of {archive.name}")
    md5 = _md5(path)
    if archive.md5 not in (None, md5):
        remedy = f"name an untouched copy of {archive.name}"
        raise data_error(path, f"md5 {md5}, expected {archive.md5}", remedy)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _is_whole(archive: Archive, path: Path) -> bool:
    return archive.md5 is None or _md5(path) == archive.md5


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _download(archive: Archive, url: str, part: Path) -> None:
    """Complete `part` from `url`. A failed attempt is repeated as long as each adds bytes to the one before."""
    before = reached = _size(part)
    while not (archive.size and _size(part) == archive.size):
        try:
            _transfer(archive, url, part)
            break
        except _Stale:
            part.unlink()
            before = reached = 0
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) or _size(part) <= reached:
                raise environment_error(url, _reason(error)) from None
            reached = _size(part)
    if _is_whole(archive, part):
        return
    found = f"{megabytes(_size(part))} with md5 {_md5(part)}, expected {archive.md5}"
    part.unlink()
    if before:  # the part of an earlier call may be the wrong one
        return _download(archive, url, part)
    raise data_error(url, found)


def _transfer(archive: Archive, url: str, part: Path) -> None:
    """Make one request, and append to `part` if the server can continue at its end. Raises OSError when it is interrupted."""
    start, etag = _continuation(archive, url, part)
    headers = {"User-Agent": "segnet", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if etag:
            headers["If-Range"] = etag
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if start and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise _Stale from None
        raise
    with response:
        start, total = _answer(response, start, etag)
        if archive.size and total not in (None, archive.size):
            raise data_error(url, f"{total:,} bytes, expected {archive.size:,}")
        limit = total or archive.size or MAX_BYTES
        require_space(part.parent, limit - start if limit < MAX_BYTES else 0)
        if not start:
            part.unlink(missing_ok=True)  # before the new source is written: a kill in between must not combine the two
        with full_disk_named(part):
            write_text(_source_path(part), f"{url}\n{response.headers.get('ETag', '')}\n")
            _receive(response, part, start, limit)
    if total and _size(part) != total:
        raise ConnectionError(f"connection cut after {megabytes(_size(part))} of {megabytes(total)}")


def _source_path(part: Path) -> Path:
    """The file that records the source of a part: its address and its ETag, a line each."""
    return part.with_name(f"{part.name}.source")


def _continuation(archive: Archive, url: str, part: Path) -> tuple[int, str]:
    """(bytes of `part` that may be kept, strong ETag that the rest must have; empty: any).

    An archive with a checksum can be continued at another mirror; without one, address and ETag must be the same.
    """
    source = _source_path(part)
    written_by, _, etag = source.read_text().rstrip("\n").partition("\n") if source.exists() else ("", "", "")
    known = etag if written_by == url and not etag.startswith("W/") else ""
    return (_size(part) if archive.md5 or known else 0), known


def _answer(response: http.client.HTTPResponse, start: int, etag: str) -> tuple[int, int | None]:
    """(offset of the first byte that the server sends, size of the whole file; None: not known).

    Raises _Stale when the answer does not continue the part.
    """
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    place = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if not start:
        raise http.client.HTTPException("a part of the file, though the whole was asked for")
    if not place or int(place[1]) != start or (etag and response.headers.get("ETag", etag) != etag):
        raise _Stale
    return start, int(place[2])


def _receive(response: http.client.HTTPResponse, part: Path, start: int, limit: int) -> None:
    """Write the body of a response to `part`, from the offset `start`. Raises UserError (data) beyond `limit` bytes."""
    expected = limit if limit < MAX_BYTES else None
    with (
        open(part, "ab" if start else "wb") as file,
        tqdm(desc=part.stem, total=expected, initial=start, unit="B", unit_scale=True, disable=None) as bar,
    ):
        while chunk := response.read1(_CHUNK):
            start += len(chunk)
            if start > limit:
                raise data_error(response.url, f"more than {megabytes(limit)}")
            file.write(chunk)
            bar.update(len(chunk))
        sync_to_disk(file)


def _reason(error: Exception) -> str:
    """The reason of a failed request, in one line."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    return first_line(cause) if isinstance(cause, BaseException) else cause
