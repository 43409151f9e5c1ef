"""Standard output and standard error that take every text and whose loss never costs a result."""

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
        self._warn(sys.stderr if self.title == OUTPUT else sys.stdout)
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


def print_safely() -> None:
    """Make standard output and standard error take every text, whatever their encoding, and outlive whoever reads them."""
    codecs.register_error("segnet.plain", _plain)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file to be opened would take its number, and be written into
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _opened(sys.stdout, 1, OUTPUT)
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
