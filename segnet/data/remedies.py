"""The commands that error messages about data recommend. No other file of this folder spells a command."""

from __future__ import annotations

import shlex
from pathlib import Path

from segnet.system.invocation import as_started


def convert_command(mask: Path) -> str:
    """The command that converts all masks in the folder of `mask`, without its last option."""
    return as_started(f"segnet convert {shlex.quote(str(mask.parent))} --out NEW")


def rename_command(folder: Path, ending: str) -> str:
    """The command that takes the word from all names in a folder with an `ending` such as _mask.png."""
    end = shlex.quote(ending)
    return f'rename it; all: for f in {shlex.quote(str(folder))}/*{end}; do mv "$f" "${{f%{end}}}"{Path(ending).suffix}; done'


def split_command(root: Path, options: str = "--val 0.2") -> str:
    """The command that writes the lists of splits of a data folder."""
    return as_started(f"segnet split {shlex.quote(str(root))} {options}")


def prepare_command(name: str, root: Path) -> str:
    """The command that prepares the public dataset `name` in `root`."""
    return as_started(f"segnet prepare {name} --root {shlex.quote(str(root))}")
