"""Atomic and durable writing of files, the texts in them, locks on folders, checks of names and of disk space."""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PureWindowsPath
from typing import IO, Any, BinaryIO

from segnet.system.errors import checkpoint_error, config_error, environment_error, printable

_LONG_NAME = 100  # bytes; file systems allow 143 to 255
DIGEST_MARK = b"\nsha256 "  # followed by the digest of all bytes before it, the last bytes of a checkpoint
_TRAILER = len(DIGEST_MARK) + 64  # bytes: the mark and 64 hexadecimal digits
_NOT_OFFERED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}  # errors of a file system that lacks an operation
_NO_LOCKS = _NOT_OFFERED | {errno.ENOLCK}
_NO_SYNC_OF_FOLDERS = _NOT_OFFERED | {errno.EACCES, errno.EPERM, errno.EBADF, errno.EISDIR}


@contextmanager
def atomic_write(path: Path, *, keep: Path | None = None) -> Iterator[BinaryIO]:
    """A binary file to write, which appears under `path` complete and on disk when the body ends, or not at all.

    The order is write, fsync(file), rename, fsync(folder), so that a crash at any instant leaves the old file or the new one.
    With `keep`, a path in the same folder, the old file is first renamed to it; a crash between the two renames leaves `keep`
    alone. An OSError that names no file, such as that of a full disk, gets the name `path`.
    """
    temporary = path.with_name(f".{short_name(path.name)}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            sync_to_disk(file)
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and (error.filename is None or str(error.filename) == str(temporary)):
            error.filename, error.filename2 = str(path), None  # what people know
        raise
    _sync_folder(path.parent)


def short_name(name: str) -> str:
    """`name`, or 32 hexadecimal digits of its digest where it is long, so that a prefix and a suffix still fit."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= _LONG_NAME else hashlib.blake2b(encoded, digest_size=16).hexdigest()


def longest_name(folder: Path) -> int:
    """The most bytes that a file's name may have in `folder`, or in the nearest folder above it that exists."""
    there = next(parent for parent in (folder, *folder.parents) if os.path.isdir(parent))
    try:
        longest = os.pathconf(there, "PC_NAME_MAX")
    except OSError:
        longest = -1
    return longest if longest > 0 else 255  # the file system does not tell its limit


def move_into_place(temporary: Path, path: Path) -> None:
    """Rename a complete file to `path`, on the same disk, after its content is on disk."""
    with temporary.open("rb+") as file:
        sync_to_disk(file)
    os.replace(temporary, path)
    _sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and the missing folders above it, each on disk before the next.

    Raises UserError: (config) where a folder to make is called ~ or $NAME, which was meant to be expanded; (environment) where
    a file, or a link to nothing, has its name.
    """
    if not path.is_dir():
        if path != _as_by_a_shell(path):
            raise config_error(path, f"no such folder{place_of(path)}", "name it by its whole path")
        make_folder(path.parent)
        try:
            path.mkdir(exist_ok=True)
        except FileExistsError:
            found = "a link to a folder that is not there" if path.is_symlink() else "a file, not a folder"
            raise environment_error(path, found, "name another folder, or move it away") from None
        _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on disk; where its file system cannot sync folders, warn instead."""
    with _warning_if_not_offered(_NO_SYNC_OF_FOLDERS, "their folder cannot be synced to disk"):
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def sync_to_disk(file: IO[Any]) -> None:
    """Wait until everything written to `file` is on disk; where its file system cannot sync files, warn instead."""
    file.flush()
    sync_descriptor(file.fileno())


def sync_descriptor(descriptor: int) -> None:
    """`sync_to_disk` for a file descriptor, which has no buffer in this program."""
    with _warning_if_not_offered(_NOT_OFFERED, "their file system cannot sync them"):
        os.fsync(descriptor)


@contextmanager
def _warning_if_not_offered(errors: set[int], missing: str) -> Iterator[None]:
    """Warn once instead of raising where the body fails with one of `errors`, because the file system lacks the operation."""
    try:
        yield
    except OSError as error:
        if error.errno not in errors:
            raise
        _warn_once(f"a power cut may lose the newest files: {missing} ({error.strerror})")


@cache
def _warn_once(line: str) -> None:
    """Print a warning, the first time that this text is given."""
    print(f"warning: {printable(line)}", file=sys.stderr, flush=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically; bytes of a path that are not UTF-8 become escapes such as \\udce9."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows of cells as the text of a CSV file, with line feeds."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file, by its keys; empty where the file is missing, cannot be read, or holds something else."""
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


@contextmanager
def lock_folder(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Lock `folder` for this process while the body runs. Yields True, or False where the file system has no locks.

    Without locks a warning is printed and the body runs. Where another process holds the lock, wait for it with `wait`, else
    raise UserError (environment). The operating system releases the lock however the process ends. It is a POSIX record lock,
    which forked data workers do not inherit.
    """
    with open(folder / ".lock", "ab") as file:
        held = True
        try:
            fcntl.lockf(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            found = "another command is writing to this folder"
            raise environment_error(folder, found, "wait for it, or choose another") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            missing = f"two commands are not kept apart in this folder: its file system has no locks ({error.strerror})"
            _warn_once(f"{folder}: {missing}")
            held = False
        yield held


def remove_stale_temporaries(folder: Path) -> None:
    """Delete the temporary files that a killed `atomic_write` left in `folder`. The caller holds the folder's lock."""
    for temporary in folder.glob(".*.[0-9]*.tmp"):
        if temporary.is_file():
            temporary.unlink(missing_ok=True)


def require_digest(path: Path) -> None:
    """Raises UserError (checkpoint) unless the file ends with `DIGEST_MARK` and the SHA-256 of all bytes before it."""
    sha = hashlib.sha256()
    left = path.stat().st_size - _TRAILER
    with path.open("rb") as file:
        while left > 0:
            block = file.read(min(left, 1 << 20))
            if not block:
                break
            sha.update(block)
            left -= len(block)
        trailer = file.read()
    if not trailer.startswith(DIGEST_MARK):
        found = "not a readable checkpoint of this program: no digest at its end"
        raise checkpoint_error(path, found, "name a whole last.pt or best.pt of a run folder")
    if trailer != DIGEST_MARK + sha.hexdigest().encode():
        raise checkpoint_error(path, "damaged: its content does not match its digest", "use another checkpoint of the run")


def place_of(path: Path) -> str:
    """The place where a missing `path` was looked for, to print after "no such file"; empty for an absolute path.

    A relative path starts in the working folder (except those of `base` in configurations); ~ and $NAME are not expanded, and
    the backslashes of Windows do not divide folders.
    """
    if "\\" in str(path):
        return f": folders are divided by /, write {PureWindowsPath(path).as_posix()}"
    if path != (meant := _as_by_a_shell(path)):
        return f": ~ and $NAME are not expanded, write {meant}"
    return "" if path.is_absolute() else f" in the working folder {os.getcwd()}"


def _as_by_a_shell(path: Path) -> Path:
    """`path` with ~ and $NAME expanded."""
    return Path(os.path.expandvars(os.path.expanduser(path)))


def is_inside(path: Path, folder: Path) -> bool:
    """True where `path`, with all links followed, is `folder` or below it."""
    real = os.path.realpath(path)
    around = os.path.realpath(folder)
    return real == around or real.startswith(around.rstrip("/") + "/")


def is_safe_name(name: str) -> bool:
    """True where `name`, read from a file, is printable and stays below the folder it is joined to: relative, without '..'."""
    return bool(name) and name.isprintable() and not name.startswith("/") and ".." not in Path(name).parts


CONTINUE = "run the command again: it goes on from here"


def require_space(folder: Path, need: int) -> None:
    """Raises UserError (environment) unless the disk of `folder` has `need` bytes free."""
    have = shutil.disk_usage(folder).free
    if need > have:
        found = f"needs {megabytes(need)} more on this disk, which has {megabytes(have)} free"
        raise environment_error(folder, found, f"free {megabytes(need - have)}, or choose another --root")


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Raises UserError (environment), which names `path`, where the disk fills up in the body."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        found = f"{error.strerror}, {megabytes(shutil.disk_usage(path.parent).free)} free"
        raise environment_error(path, found, f"free space, then {CONTINUE}") from None


def megabytes(count: int) -> str:
    """A number of bytes as text in MB (10^6 bytes)."""
    return f"{count / 1e6:,.1f} MB"
