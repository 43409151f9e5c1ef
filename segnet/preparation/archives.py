"""The members of zip and tar archives from untrusted sources."""

from __future__ import annotations

import errno
import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

from segnet.data.listing import is_hidden
from segnet.preparation.downloads import MAX_BYTES
from segnet.system.errors import UserError, data_error, first_line
from segnet.system.files import is_safe_name, megabytes, require_space

_UNFIT = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
MAX_MEMBERS = 200_000
MAX_MEMBER_BYTES = 64_000_000  # of a member that is read into memory


class Contents(NamedTuple):
    """The files in the part of an archive that is used."""

    path: Path  # of the archive
    sizes: dict[str, int]  # name -> bytes
    texts: dict[str, str]  # name of a .txt file -> its text


class _Member(NamedTuple):
    name: str
    size: int
    kind: str  # file, folder or other
    open: Callable[[], IO[bytes] | None]


def read_contents(path: Path, used: str) -> Contents:
    """The files below the folder of an archive that the regular expression `used` matches.

    Raises UserError (data) naming the member when one has an absolute path or '..', when one below `used` is a link, a device
    or a duplicate, and when the archive is damaged or unpacks to more than the limits.
    """
    contents = Contents(path, {}, {})
    inside = re.compile(rf"(?:{used})(?:/|$)")
    for member in _checked_members(path):
        if not inside.match(member.name):
            continue
        if member.kind == "other":
            raise _member_error(path, member.name, "is a link or a device")
        if member.name in contents.sizes:
            raise _member_error(path, member.name, "is there twice")
        if member.kind == "file":
            contents.sizes[member.name] = member.size
            if member.name.endswith(".txt"):
                contents.texts[member.name] = _read(path, member).decode("utf-8", "replace")
    return contents


def read_members(path: Path, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the files `names`, in the order of the archive. Raises UserError (data) as `read_contents`."""
    for member in _checked_members(path):
        if member.name in names:
            if member.kind != "file":
                raise _member_error(path, member.name, "is not a file")
            yield member.name, _read(path, member)


def unpack(path: Path, folder: Path) -> None:
    """Write every file of an archive below `folder`, without those of archivers such as __MACOSX.

    Raises UserError (data) as `read_contents`, before anything is written where the list of members tells; (environment)
    when the disk has too little space.
    """
    members = dict[str, _Member]()
    for member in _checked_members(path):
        if member.kind == "other":
            raise _member_error(path, member.name, "is a link or a device")
        if member.name in members:
            raise _member_error(path, member.name, "is there twice")
        if member.kind == "file" and not any(map(is_hidden, Path(member.name).parts)):
            members[member.name] = member
    require_space(folder, sum(member.size for member in members.values()))
    for member in _checked_members(path):
        if member.name not in members:
            continue
        target = folder / member.name
        with _unfit_names(path, member.name):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch(exist_ok=False)
        with _damage_named(path), member.open() or BytesIO() as content, target.open("wb") as file:
            shutil.copyfileobj(content, file)


@contextmanager
def _unfit_names(path: Path, name: str) -> Iterator[None]:
    """Raise UserError (data) where the body cannot make a file, because its name is too long, or a file's and a folder's."""
    try:
        yield
    except OSError as error:
        if error.errno not in _UNFIT:
            raise
        raise _member_error(path, name, f"cannot be a file: {os.strerror(error.errno).lower()}") from None


def _member_error(path: Path, name: str, found: str) -> UserError:
    return data_error(path, f"member '{name}' {found}", "use the archive from its source")


def _checked_members(path: Path) -> Iterator[_Member]:
    """Every member. Raises UserError (data) at one that leaves the archive's folder or exceeds a limit of all together."""
    total = 0
    with _damage_named(path):
        for count, member in enumerate(_members(path), 1):
            total += member.size
            if not is_safe_name(member.name) or "\\" in member.name:
                raise _member_error(path, member.name, "leaves the archive's folder")
            if count > MAX_MEMBERS or total > MAX_BYTES:
                raise _member_error(path, member.name, f"is beyond {MAX_MEMBERS:,} members or {MAX_BYTES / 1e9:g} GB unpacked")
            yield member


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Raise UserError (data) in place of the exceptions by which decoders report a damaged archive."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise _damaged(path, error) from None
    except (lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # None: bz2; EINVAL: a place before the file
            raise
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> UserError:
    return data_error(path, f"a damaged archive ({first_line(error)})", "download it again")


def _members(path: Path) -> Iterator[_Member]:
    """Every member of a zip, a tar or a gzipped tar, unchecked."""
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
        yield _Member(info.filename, info.file_size, kind, partial(archive.open, info))


def _tar_members(path: Path, file: _Bounded) -> Iterator[_Member]:
    with tarfile.open(fileobj=file, mode="r:") as archive:  # type: ignore[call-overload]
        for info in archive:
            plain = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not info.sparse
            kind = "folder" if info.isdir() else "file" if plain else "other"
            name = info.name.removeprefix("./")
            yield _Member(name, info.size, kind, partial(archive.extractfile, info))


def _read(path: Path, member: _Member) -> bytes:
    with _damage_named(path), member.open() or BytesIO() as file:
        content = file.read(MAX_MEMBER_BYTES + 1)  # reading to the end verifies the checksum of a zip
    if len(content) > MAX_MEMBER_BYTES:
        raise _member_error(path, member.name, f"has more than {megabytes(MAX_MEMBER_BYTES)}")
    return content


class _Bounded:
    """The file of a tar. Raises ReadError for a header that claims to be huge, which tarfile would read into memory."""

    def __init__(self, file: BinaryIO | gzip.GzipFile) -> None:
        self.file = file
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        if size > MAX_MEMBER_BYTES + 1:
            raise tarfile.ReadError(f"a header of {megabytes(size)}")
        return self.file.read(size)
