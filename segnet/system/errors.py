"""The error that a user can mend, in one line. A mistake of the program stays an ordinary exception with its traceback."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path

from segnet.system.invocation import as_started


class ExitCode(IntEnum):
    """The exit status of every command."""

    DONE = 0
    CONFIG = 2  # usage or config
    DATA = 3
    CHECKPOINT = 4
    ENVIRONMENT = 5  # disk, permission, lock, no GPU
    NUMERIC = 6  # non-finite loss
    SOME_FAILED = 7  # some of the inputs failed
    WORKER_LOST = 8  # a worker or a rank was lost


def printable(text: str) -> str:
    """`text` with control characters escaped: it can neither steer the terminal nor look like several lines."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class UserError(Exception):
    """A mistake that the user can mend.

    Its text is one line, "PATH: FOUND – REMEDY": the file or argument, what was found there and what is expected, and how to
    mend it. `also` holds further mistakes found at the same time; each adds a line. Control characters are escaped, and an
    empty path is printed as ''. Commands `segnet NAME` in it are spelled as the process was started.
    """

    def __init__(
        self, code: ExitCode, path: Path | str, found: str, remedy: str = "", *, also: tuple[UserError, ...] = ()
    ) -> None:
        super().__init__(code, path, found, remedy)
        self.code = code
        self.path = str(path)
        self.found = found
        self.remedy = remedy
        self.also = also

    def __str__(self) -> str:
        what = as_started(self.found + (f" – {self.remedy}" if self.remedy else ""))
        line = f"{self.path or repr(self.path)}: {what}"
        return "\n".join([printable(line), *map(str, self.also)])


def config_error(path: Path | str, found: str, remedy: str = "") -> UserError:
    """A mistake in the configuration or on the command line."""
    return UserError(ExitCode.CONFIG, path, found, remedy)


def data_error(path: Path | str, found: str, remedy: str = "") -> UserError:
    """A mistake in a dataset or another input file."""
    return UserError(ExitCode.DATA, path, found, remedy)


def checkpoint_error(path: Path | str, found: str, remedy: str = "") -> UserError:
    """A mistake in a checkpoint, a run folder or an exported network."""
    return UserError(ExitCode.CHECKPOINT, path, found, remedy)


def environment_error(path: Path | str, found: str, remedy: str = "") -> UserError:
    """Something that the machine lacks or refuses: disk space, a permission, a lock, a GPU, memory."""
    return UserError(ExitCode.ENVIRONMENT, path, found, remedy)


def first_line(error: BaseException, length: int | None = None) -> str:
    """The first line of an error's text, at most `length` characters; the name of its type where it has no text."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:length]


def raise_first(faults: Sequence[UserError], *, limit: int | None = None) -> None:
    """Raise the first of `faults`, followed by others up to `limit` lines in all, and say how many there are.

    Does nothing when there are none.
    """
    if faults:
        first, also = faults[0], tuple(faults[1:limit])
        found = first.found + (f" ({len(faults)} faults in all)" if also else "")
        raise UserError(first.code, first.path, found, first.remedy, also=also)
