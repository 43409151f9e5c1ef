"""Archives from the net, continued after a cut and verified; their members, read only while they are harmless."""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.client
import os
import re
import shutil
import stat
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

from tqdm import tqdm

from segnet.errors import ExitCode, UserError
from segnet.files import is_safe_name, sync_to_disk, write_text

TIMEOUT = 60  # seconds without a byte
MAX_MEMBERS = 200_000
MAX_BYTES = 8_000_000_000  # of an archive, packed or unpacked
MAX_MEMBER_BYTES = 64_000_000  # of a member that is read, since it is read into memory
_CHUNK = 1 << 20
_CONTINUE = "run the command again: it goes on from here"


class Archive(NamedTuple):
    """A file on the net: where it lies, and what is known of its content beforehand."""

    name: str
    urls: tuple[str, ...]  # in the order they are tried
    md5: str | None  # None where the host packs anew for every request
    size: int | None  # bytes, where known


class _Stale(Exception):
    """What was downloaded so far does not belong to what the server has now."""


def fetch(archive: Archive, folder: Path) -> Path:
    """The verified archive in `folder`, downloaded from the first address that has it unless it is there already.

    Raises UserError (data) when what an address gave is not the archive, else (environment) when none could be reached or the
    disk is full; what has arrived stays in `<name>.part` for the next call.
    """
    target, part, failures = folder / archive.name, folder / f"{archive.name}.part", list[UserError]()
    if target.exists():
        if _is_whole(archive, target):
            return target
        target.unlink()
    for url in archive.urls:
        try:
            _download(archive, url, part)
        except UserError as error:
            if error.path in (str(part), str(folder)):  # the disk's fault
                raise
            failures.append(error)
        else:
            os.replace(part, target)
            _source_path(part).unlink(missing_ok=True)
            return target
    wrong = any(failure.code == ExitCode.DATA for failure in failures)
    found = "; ".join(f"{failure.path}: {failure.found}" for failure in failures)
    remedy = "check the network and run the command again, or download it elsewhere and give --from-archive FILE"
    code = ExitCode.DATA if wrong else ExitCode.ENVIRONMENT
    raise UserError(code, archive.name, f"cannot be downloaded ({found})", remedy)


def verify(archive: Archive, path: Path) -> None:
    """Raise UserError (data) unless the file has the archive's checksum."""
    if not path.is_file():
        raise UserError(ExitCode.DATA, path, "no such file", f"name a copy of {archive.name}")
    found = _md5(path)
    if archive.md5 not in (None, found):
        remedy = f"name an untouched copy of {archive.name}"
        raise UserError(ExitCode.DATA, path, f"md5 {found}, expected {archive.md5}", remedy)


def require_space(folder: Path, need: int) -> None:
    """Raise UserError (environment) unless the disk of `folder` has room for `need` more bytes."""
    have = shutil.disk_usage(folder).free
    if need > have:
        found = f"needs {_megabytes(need)} more on this disk, which has {_megabytes(have)} free"
        raise UserError(ExitCode.ENVIRONMENT, folder, found, f"free {_megabytes(need - have)}, or choose another --root")


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """A disk that fills up in the body is a UserError (environment) that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        found = f"{error.strerror}, {_megabytes(shutil.disk_usage(path.parent).free)} free"
        raise UserError(ExitCode.ENVIRONMENT, path, found, f"free space, then {_CONTINUE}") from None


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _is_whole(archive: Archive, path: Path) -> bool:
    return archive.md5 is None or _md5(path) == archive.md5


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# Fetching


def _download(archive: Archive, url: str, part: Path) -> None:
    """Complete `part` from `url`, as often as it takes while every attempt gets further than the one before."""
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
                raise UserError(ExitCode.ENVIRONMENT, url, _reason(error)) from None
            reached = _size(part)
    if _is_whole(archive, part):
        return
    found = f"{_megabytes(_size(part))} with md5 {_md5(part)}, expected {archive.md5}"
    part.unlink()
    if before:  # a part of an earlier attempt may be what is wrong with it
        return _download(archive, url, part)
    raise UserError(ExitCode.DATA, url, found)


def _transfer(archive: Archive, url: str, part: Path) -> None:
    """One request, appended to `part` when the server can go on from its end; an interrupted one raises OSError."""
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
            raise UserError(ExitCode.DATA, url, f"{total:,} bytes, expected {archive.size:,}")
        limit = total or archive.size or MAX_BYTES
        require_space(part.parent, limit - start if limit < MAX_BYTES else 0)
        if not start:
            part.unlink(missing_ok=True)  # before its new source is noted: a kill in between must not mix the two
        with full_disk_named(part):
            write_text(_source_path(part), f"{url}\n{response.headers.get('ETag', '')}\n")
            _receive(response, part, start, limit)
    if total and _size(part) != total:
        raise ConnectionError(f"connection cut after {_megabytes(_size(part))} of {_megabytes(total)}")


def _source_path(part: Path) -> Path:
    """The file that remembers where a part comes from: its address and its ETag, a line each."""
    return part.with_name(f"{part.name}.source")


def _continuation(archive: Archive, url: str, part: Path) -> tuple[int, str]:
    """How many bytes of `part` may be kept, and the strong ETag that the rest must have.

    A checksum allows to go on at another mirror; without one the address and the ETag must be the same.
    """
    source = _source_path(part)
    written_by, _, etag = source.read_text().rstrip("\n").partition("\n") if source.exists() else ("", "", "")
    known = etag if written_by == url and not etag.startswith("W/") else ""
    return (_size(part) if archive.md5 or known else 0), known


def _answer(response: http.client.HTTPResponse, start: int, etag: str) -> tuple[int, int | None]:
    """The place of the first byte that the server sends, and the size of the whole file where it says so."""
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
    expected = limit if limit < MAX_BYTES else None
    with (
        open(part, "ab" if start else "wb") as file,
        tqdm(desc=part.stem, total=expected, initial=start, unit="B", unit_scale=True, disable=None) as bar,
    ):
        while chunk := response.read1(_CHUNK):
            start += len(chunk)
            if start > limit:
                raise UserError(ExitCode.DATA, response.url, f"more than {_megabytes(limit)}")
            file.write(chunk)
            bar.update(len(chunk))
        sync_to_disk(file)


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    return (str(cause).splitlines() or [type(cause).__name__])[0]


# Unpacking


class Contents(NamedTuple):
    """What an archive holds: the size of every file in the part that is of use, and the text of its lists."""

    path: Path
    sizes: dict[str, int]
    texts: dict[str, str]


class _Member(NamedTuple):
    name: str
    size: int
    kind: str  # file, folder or other
    read: Callable[[], bytes]


def read_contents(path: Path, used: str) -> Contents:
    """The files below the folder of an archive that the expression `used` matches; texts are those of the .txt files there.

    Raises UserError (data) that names the member when one has an absolute path or '..', when one below `used` is a link, a
    device or there twice, and when the archive unpacks to more than it should or is damaged.
    """
    contents, inside = Contents(path, {}, {}), re.compile(rf"(?:{used})(?:/|$)")
    for member in _checked_members(path):
        if not inside.match(member.name):
            continue
        if member.kind == "other":
            raise _refused(path, member.name, "is a link or a device")
        if member.name in contents.sizes:
            raise _refused(path, member.name, "is there twice")
        if member.kind == "file":
            contents.sizes[member.name] = member.size
            if member.name.endswith(".txt"):
                contents.texts[member.name] = member.read().decode("utf-8", "replace")
    return contents


def read_members(path: Path, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the named files of an archive, in the archive's order. Raises UserError (data) as `read_contents`."""
    for member in _checked_members(path):
        if member.name in names:
            if member.kind != "file":
                raise _refused(path, member.name, "is not a file")
            yield member.name, member.read()


def _refused(path: Path, name: str, found: str) -> UserError:
    return UserError(ExitCode.DATA, path, f"member '{name}' {found}", "use the archive from its source")


def _checked_members(path: Path) -> Iterator[_Member]:
    """Every member, as long as none leaves its folder and all together stay within the limits."""
    total = 0
    with _damage_named(path):
        for count, member in enumerate(_members(path), 1):
            total += member.size
            if not is_safe_name(member.name) or "\\" in member.name:
                raise _refused(path, member.name, "leaves the archive's folder")
            if count > MAX_MEMBERS or total > MAX_BYTES:
                raise _refused(path, member.name, f"is beyond {MAX_MEMBERS:,} members or {MAX_BYTES / 1e9:g} GB unpacked")
            yield member


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(ExitCode.DATA, path, f"a damaged archive ({reason})", "download it again") from None


def _members(path: Path) -> Iterator[_Member]:
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start == b"PK\x03\x04":
            yield from _zip_members(path, zipfile.ZipFile(file))
        elif start[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield from _tar_members(path, _Bounded(unpacked))
        else:
            yield from _tar_members(path, _Bounded(file))


def _zip_members(path: Path, archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        mode = stat.S_IFMT(info.external_attr >> 16)
        kind = "folder" if info.is_dir() else "file" if mode in (0, stat.S_IFREG) else "other"
        yield _Member(info.filename, info.file_size, kind, partial(_read, path, info.filename, partial(archive.open, info)))


def _tar_members(path: Path, file: _Bounded) -> Iterator[_Member]:
    with tarfile.open(fileobj=file, mode="r:") as archive:  # type: ignore[call-overload]
        for info in archive:
            plain = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not info.sparse
            kind = "folder" if info.isdir() else "file" if plain else "other"
            name = info.name.removeprefix("./")
            yield _Member(name, info.size, kind, partial(_read, path, name, partial(archive.extractfile, info)))


def _read(path: Path, name: str, open_member: Callable[[], IO[bytes] | None]) -> bytes:
    with _damage_named(path), open_member() or BytesIO() as file:
        content = file.read(MAX_MEMBER_BYTES + 1)  # to the end, so that a zip's own checksum is verified
    if len(content) > MAX_MEMBER_BYTES:
        raise _refused(path, name, f"has more than {_megabytes(MAX_MEMBER_BYTES)}")
    return content


class _Bounded:
    """A tar's bytes; a header that claims to be huge is refused, where tarfile would read it into memory."""

    def __init__(self, file: BinaryIO | gzip.GzipFile) -> None:
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > MAX_MEMBER_BYTES + 1:
            raise tarfile.ReadError(f"a header of {_megabytes(size)}")
        return self.file.read(size)
