"""What a user can mend is said in one line; what the program did wrong keeps its traceback."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """Exit status of every command."""

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

    Its text is one line: *where: what was found (and expected) – how to mend it*. `also` holds further mistakes
    found at the same time; each adds a line of its own. Control characters are escaped, and an empty name is ''.
    """

    def __init__(
        self, code: ExitCode, path: Path | str, found: str, remedy: str = "", *, also: tuple[UserError, ...] = ()
    ) -> None:
        super().__init__(code, path, found, remedy)
        self.code, self.path, self.found, self.remedy, self.also = code, str(path), found, remedy, also

    def __str__(self) -> str:
        line = f"{self.path or repr(self.path)}: {self.found}" + (f" – {self.remedy}" if self.remedy else "")
        return "\n".join([printable(line), *map(str, self.also)])


def data_error(path: Path | str, found: str, remedy: str) -> UserError:
    """A fault of the data: of a dataset, a picture or a mask."""
    return UserError(ExitCode.DATA, path, found, remedy)


def raise_first(faults: Sequence[UserError], *, limit: int | None = None) -> None:
    """Raise the first of `faults` with up to `limit` lines in all, and say how many there are; nothing when there are none."""
    if faults:
        first, also = faults[0], tuple(faults[1:limit])
        found = first.found + (f" ({len(faults)} faults in all)" if also else "")
        raise UserError(first.code, first.path, found, first.remedy, also=also)
