"""Files that are whole or absent: atomic, durable writing; a lock on the run folder; names that stay in their folder."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any, BinaryIO

from segnet.errors import ExitCode, UserError, printable

_LONG_NAME = 100  # bytes; file systems take 143 to 255
DIGEST_MARK = b"\nsha256 "  # ends a checkpoint, followed by the digest of all that stands before it
_TRAILER = len(DIGEST_MARK) + 64  # bytes: the mark and 64 hexadecimal digits
_NOT_OFFERED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}  # by a file system, as against failed
_NO_LOCKS = _NOT_OFFERED | {errno.ENOLCK}
_NO_SYNC_OF_FOLDERS = _NOT_OFFERED | {errno.EACCES, errno.EPERM, errno.EBADF, errno.EISDIR}


@contextmanager
def atomic_write(path: Path, *, keep: Path | None = None) -> Iterator[BinaryIO]:
    """A binary file that appears under `path` complete and on disk, or not at all.

    Order: write, fsync(file), rename, fsync(folder), so that a crash at any instant leaves the old file or the new one.
    With `keep`, a path in the same folder, the old file is renamed to it first; between the two renames only `keep` is there.
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
        if isinstance(error, OSError) and str(error.filename) == str(temporary):
            error.filename, error.filename2 = str(path), None  # what people know
        raise
    _sync_folder(path.parent)


def short_name(name: str) -> str:
    """`name`, or 32 hexadecimal digits of it where it is long: what is put before and behind it must fit the file system too."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= _LONG_NAME else hashlib.blake2b(encoded, digest_size=16).hexdigest()


def longest_name(folder: Path) -> int:
    """How many bytes a file's name may have in `folder`, or in what there is of the folders above it."""
    there = next(parent for parent in (folder, *folder.parents) if os.path.isdir(parent))
    try:
        longest = os.pathconf(there, "PC_NAME_MAX")
    except OSError:
        longest = -1
    return longest if longest > 0 else 255  # no limit is told


def move_into_place(temporary: Path, path: Path) -> None:
    """Give a finished file its name, once it is on disk; both are on one disk."""
    with temporary.open("rb+") as file:
        sync_to_disk(file)
    os.replace(temporary, path)
    _sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, each on disk before the next.

    Raises UserError (config) rather than make one that is called ~ or $NAME, which was meant to be expanded.
    """
    if not path.is_dir():
        if path != _as_by_a_shell(path):
            raise UserError(ExitCode.CONFIG, path, f"no such folder{place_of(path)}", "name it by its whole path")
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """Return when the names in a folder are on disk, or at once, after a warning, where its file system cannot say."""
    with _warning_if_not_offered(_NO_SYNC_OF_FOLDERS, "their folder cannot be synced to disk"):
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def sync_to_disk(file: IO[Any]) -> None:
    """Return when everything written to `file` has left this program and, where its file system can, the machine's memory."""
    file.flush()
    sync_descriptor(file.fileno())


def sync_descriptor(descriptor: int) -> None:
    """`sync_to_disk` for a file that holds nothing back in this program."""
    with _warning_if_not_offered(_NOT_OFFERED, "their file system cannot sync them"):
        os.fsync(descriptor)


@contextmanager
def _warning_if_not_offered(errors: set[int], missing: str) -> Iterator[None]:
    """Warn once, in place of raising, where the body fails with one of `errors`: the file system lacks what it asks for."""
    try:
        yield
    except OSError as error:
        if error.errno not in errors:
            raise
        _warn_once(f"a power cut may lose the newest files: {missing} ({error.strerror})")


@cache
def _warn_once(line: str) -> None:
    """Say what protection is missing; a command goes on without."""
    print(f"warning: {printable(line)}", file=sys.stderr, flush=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically; bytes of a path that are not UTF-8 stand in it as escapes such as \\udce9."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


@contextmanager
def lock_folder(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold `folder` for this process alone; the operating system lets go of it however the process ends.

    Yields whether it is held: where the file system has no locks, a warning says so, and the body runs without.

    A POSIX record lock, since the data workers that a process forks do not inherit those.
    With `wait` it waits for another process that holds it; else it raises UserError (environment).
    """
    with open(folder / ".lock", "ab") as file:
        held = True
        try:
            fcntl.lockf(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise UserError(
                ExitCode.ENVIRONMENT, folder, "another command is writing to this folder", "wait for it, or choose another"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            missing = f"two commands are not kept apart in this folder: its file system has no locks ({error.strerror})"
            _warn_once(f"{folder}: {missing}")
            held = False
        yield held


def remove_stale_temporaries(folder: Path) -> None:
    """Delete what a killed `atomic_write` left in `folder`. Only while the folder's lock is held."""
    for temporary in folder.glob(".*.[0-9]*.tmp"):
        if temporary.is_file():
            temporary.unlink(missing_ok=True)


def verify_digest(path: Path) -> None:
    """Raises UserError (checkpoint) unless the file ends with the digest of all that stands before it."""
    sha, left = hashlib.sha256(), path.stat().st_size - _TRAILER
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
        raise UserError(ExitCode.CHECKPOINT, path, found, "name a whole last.pt or best.pt of a run folder")
    if trailer != DIGEST_MARK + sha.hexdigest().encode():
        raise UserError(
            ExitCode.CHECKPOINT, path, "damaged: its content does not match its digest", "use another checkpoint of the run"
        )


def place_of(path: Path) -> str:
    """Where a path that is not there was looked for: what follows "no such file". One rule for all paths but those of `base`:
    a relative one starts in the working folder, ~ and $NAME stay what they are."""
    if path != (meant := _as_by_a_shell(path)):
        return f": ~ and $NAME are not expanded, write {meant}"
    return "" if path.is_absolute() else f" in the working folder {os.getcwd()}"


def _as_by_a_shell(path: Path) -> Path:
    return Path(os.path.expandvars(os.path.expanduser(path)))


def is_inside(path: Path, folder: Path) -> bool:
    """Whether `path`, when every link on its way is followed, stays below `folder`."""
    real, around = os.path.realpath(path), os.path.realpath(folder)
    return real == around or real.startswith(around.rstrip("/") + "/")


def is_safe_name(name: str) -> bool:
    """Whether `name`, taken from a file, stays below the folder it is joined to: relative, printable, no '..'."""
    return bool(name) and name.isprintable() and not name.startswith("/") and ".." not in Path(name).parts
