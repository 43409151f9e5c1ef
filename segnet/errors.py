"""What a user can mend is said in one line; what the program did wrong keeps its traceback."""

from __future__ import annotations

import argparse
import contextlib
import errno
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
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


def raise_first(faults: Sequence[UserError], *, limit: int | None = None) -> None:
    """Raise the first of `faults` with up to `limit` lines in all, and say how many there are; nothing when there are none."""
    if faults:
        first, also = faults[0], tuple(faults[1:limit])
        found = first.found + (f" ({len(faults)} faults in all)" if also else "")
        raise UserError(first.code, first.path, found, first.remedy, also=also)


def count_up_to(most: int, *, least: int = 0) -> Callable[[str], int]:
    """The `type` of a command-line option that is a whole number from `least` to `most`."""

    def count(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text}: expected {least} to {most}")
        return int(text)

    return count


_ENVIRONMENT_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE}
_ENVIRONMENT_ERRORS |= {errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}  # an output path that cannot be made
_ENVIRONMENT_ERRORS |= {errno.ENAMETOOLONG, errno.ELOOP}


def kill_children() -> None:
    """End the processes that this one started, such as data workers that hang: an orderly exit would wait for them."""
    for child in multiprocessing.active_children():
        child.kill()


def run_command(command: Callable[[], ExitCode | None]) -> None:
    """Run a script's body and end the process, and those it started, with its exit code; a bug keeps its traceback."""
    try:
        code: int = command() or ExitCode.DONE
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        code = error.code
    except BrokenPipeError:  # who read the output has gone, e.g. `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
        code = 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in _ENVIRONMENT_ERRORS:
            raise
        print(f"error: {error.filename or 'system'}: {error.strerror}", file=sys.stderr)
        code = ExitCode.ENVIRONMENT
    except KeyboardInterrupt:
        kill_children()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(128 + signal.SIGINT)  # an orderly exit would wait for the threads of pools whose processes are gone
    finally:
        kill_children()
    sys.exit(int(code))
