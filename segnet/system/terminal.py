"""What a terminal can show: colours of its own palette, and progress bars that are drawn again."""

from __future__ import annotations

import os
from typing import Literal, TextIO

Style = Literal["bold", "red"]
_CODES: dict[Style, str] = {"bold": "1", "red": "1;31"}


def redraws(stream: TextIO) -> bool:
    """Whether `stream` is a terminal on which progress bars can be drawn again: not a file, not a pipe, not TERM=dumb."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def styled(text: str, style: Style, stream: TextIO) -> str:
    """`text` in a style where `stream` is a terminal with colours and NO_COLOR (no-color.org) is not set; else `text` itself."""
    if not redraws(stream) or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m"


def print_above_bars(text: str, stream: TextIO) -> None:
    """Print a line above the progress bars that are shown, which stay whole."""
    from tqdm import tqdm  # not above, where it would slow every --help down

    tqdm.write(text, file=stream)
    stream.flush()
