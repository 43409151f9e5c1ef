"""The commands that error messages about data recommend. No other file of this folder spells a command of `scripts/`."""

from __future__ import annotations

from pathlib import Path


def convert_command(mask: Path) -> str:
    """The command that converts all masks in the folder of `mask`, without its last option."""
    return f"python scripts/prepare_data.py convert {mask.parent} --out NEW"


def prepare_command(name: str, root: Path) -> str:
    """The command that prepares the public dataset `name` in `root`."""
    return f"python scripts/prepare_data.py {name} --root {root}"
