"""What a user can mend is said in one line; what the program did wrong keeps its traceback."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import errno
import io
import multiprocessing
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, TextIO


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


# ---------------------------------------------------------------------------------------------------------------------
# Printing never costs a result
# ---------------------------------------------------------------------------------------------------------------------


_OUTPUT, _MESSAGES = "standard output", "standard error"
_PLAIN = {"–": "-", "−": "-", "×": "x", "±": "+/-", "·": "|", "…": "...", "≥": ">=", "≤": "<=", "→": "->"}


class _Stream(io.FileIO):
    """Standard output or standard error: what cannot be written there is one warning on the other, and then goes nowhere.

    `lost` is why, as an errno. Where what is printed is the result, the first failure is an OSError that names the stream.
    """

    def __init__(self, number: int, title: str, *, closed: bool) -> None:
        super().__init__(number, "w", closefd=False)
        self.title, self.lost, self.is_result = title, errno.EBADF if closed else 0, False

    def write(self, content: Any) -> int:
        size = memoryview(content).nbytes
        if self.lost:
            return size
        try:
            while (written := super().write(content)) is None:  # the pipe is full, and who shares it made it non-blocking
                select.select([], [self], [])
            return written
        except OSError as error:
            self.lost = error.errno or errno.EIO
        if self.is_result:
            self.refuse_loss()
        self._warn(sys.stderr if self.title == _OUTPUT else sys.stdout)
        return size

    def _warn(self, other: TextIO) -> None:
        stream = _stream_of(other)
        if stream and not stream.lost and not stream.is_result:
            print(f"warning: {self.title}: {os.strerror(self.lost)}; the work goes on without it", file=other, flush=True)

    def refuse_loss(self) -> None:
        """Raise OSError when something could not be written."""
        if self.lost:
            raise OSError(self.lost, os.strerror(self.lost), self.title)


def _stream_of(text: TextIO) -> _Stream | None:
    """The stream below `text`; None where it is another, as in a test."""
    binary = getattr(text, "buffer", None)
    raw = getattr(binary, "raw", binary)
    return raw if isinstance(raw, _Stream) else None


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that an encoding lacks: a sign like them, else their escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking), error.end


def _print_safely() -> None:
    """Make standard output and standard error take every text, whatever their encoding, and outlive whoever reads them."""
    codecs.register_error("segnet.plain", _plain)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file to be opened would take its number, and be written into
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _opened(sys.stdout, 1, _OUTPUT)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _opened(sys.stderr, 2, _MESSAGES)


def _opened(was: TextIO | None, number: int, title: str) -> TextIO:
    """The stream in the place of `was`, which is None where it was closed."""
    raw = _Stream(number, title, closed=was is None)
    if not isinstance(was, io.TextIOWrapper):
        return io.TextIOWrapper(raw, "utf-8", "segnet.plain", write_through=True)
    with contextlib.suppress(OSError):
        was.flush()
    binary = raw if was.write_through else io.BufferedWriter(raw)
    lines, through = was.line_buffering, was.write_through
    return io.TextIOWrapper(binary, was.encoding, "segnet.plain", line_buffering=lines, write_through=through)


def printing_is_the_result() -> None:
    """Say that a command writes no file: it fails when standard output does, with 141 for a closed pipe, else environment."""
    if stream := _stream_of(sys.stdout):
        stream.is_result = True
        stream.refuse_loss()


def run_command(command: Callable[[], ExitCode | None]) -> None:
    """Run a script's body and end the process, and those it started, with its exit code; a bug keeps its traceback."""
    _print_safely()
    try:
        code = _code_of(command)
        sys.stdout.flush()
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        code = error.code
    except OSError as error:
        if error.filename != _OUTPUT and error.errno not in _ENVIRONMENT_ERRORS:
            raise
        code = ExitCode.ENVIRONMENT
        if error.filename == _OUTPUT and error.errno == errno.EPIPE:  # who read it has seen enough, e.g. `head`
            code = 128 + signal.SIGPIPE
        else:
            print(f"error: {error.filename or 'system'}: {error.strerror}", file=sys.stderr)
    except KeyboardInterrupt:
        kill_children()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(128 + signal.SIGINT)  # an orderly exit would wait for the threads of pools whose processes are gone
    finally:
        kill_children()
    sys.exit(int(code))


def _code_of(command: Callable[[], ExitCode | None]) -> int:
    """The exit code with which `command` returns, or ends after --help."""
    try:
        if {"-h", "--help"} & set(sys.argv):
            printing_is_the_result()
        return command() or ExitCode.DONE
    except SystemExit as end:
        if end.code:
            raise
        printing_is_the_result()  # argparse hides that it could not write
        return ExitCode.DONE
