"""Standard output and standard error that accept every text, and whose failure does not stop a command."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import select
import sys
from typing import Any, TextIO

OUTPUT, _MESSAGES = "standard output", "standard error"
_PLAIN = {"–": "-", "−": "-", "×": "x", "±": "+/-", "·": "|", "…": "...", "≥": ">=", "≤": "<=", "→": "->"}


class _Stream(io.FileIO):
    """Standard output or standard error. The first failure to write prints a warning on the other; later text is dropped.

    `lost` is the errno of the failure, 0 before one. With `is_result` the first failure raises OSError instead.
    """

    def __init__(self, number: int, title: str, *, closed: bool) -> None:
        super().__init__(number, "w", closefd=False)
        self.title = title
        self.lost = errno.EBADF if closed else 0
        self.is_result = False

    def write(self, content: Any) -> int:
        size = memoryview(content).nbytes
        if self.lost:
            return size
        try:
            while (written := super().write(content)) is None:  # the pipe is full, and another process made it non-blocking
                select.select([], [self], [])
            return written
        except OSError as error:
            self.lost = error.errno or errno.EIO
        if self.is_result:
            self.require_whole()
        self._warn(sys.stderr if self.title == OUTPUT else sys.stdout)
        return size

    def _warn(self, other: TextIO) -> None:
        """Print on `other`, unless it failed too or holds a result, that this stream failed."""
        stream = _stream_of(other)
        if stream and not stream.lost and not stream.is_result:
            print(f"warning: {self.title}: {os.strerror(self.lost)}; the work goes on without it", file=other, flush=True)

    def require_whole(self) -> None:
        """Raises OSError, which names this stream, where something could not be written."""
        if self.lost:
            raise OSError(self.lost, os.strerror(self.lost), self.title)


def _stream_of(text: TextIO) -> _Stream | None:
    """The `_Stream` that `text` writes to; None where it writes to something else, as in a test."""
    binary = getattr(text, "buffer", None)
    raw = getattr(binary, "raw", binary)
    return raw if isinstance(raw, _Stream) else None


def _plain(error: UnicodeError) -> tuple[str, int]:
    """The text that replaces characters which an encoding lacks, and where to go on: a similar character, else an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking), error.end


def print_safely() -> None:
    """Make standard output and standard error accept every text in any encoding, and let the command outlive their readers."""
    codecs.register_error("segnet.plain", _plain)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next opened file would get its number, and what is printed
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _opened(sys.stdout, 1, OUTPUT)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _opened(sys.stderr, 2, _MESSAGES)


def _opened(was: TextIO | None, number: int, title: str) -> TextIO:
    """A text stream on file `number` that replaces `was`, which is None where the file was closed."""
    raw = _Stream(number, title, closed=was is None)
    if not isinstance(was, io.TextIOWrapper):
        return io.TextIOWrapper(raw, "utf-8", "segnet.plain", write_through=True)
    with contextlib.suppress(OSError):
        was.flush()
    binary = raw if was.write_through else io.BufferedWriter(raw)
    lines, through = was.line_buffering, was.write_through
    return io.TextIOWrapper(binary, was.encoding, "segnet.plain", line_buffering=lines, write_through=through)


def printing_is_the_result() -> None:
    """Make this command fail when standard output does, since it writes no file.

    `run_command` ends it with 141 (SIGPIPE) for a closed pipe, else with ExitCode.ENVIRONMENT.
    """
    if stream := _stream_of(sys.stdout):
        stream.is_result = True
        stream.require_whole()
