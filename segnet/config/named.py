"""The configurations that come with the program, by their names. `segnet/configs` is a link to the repository's `configs`."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from segnet.system.errors import UserError, config_error

FOLDER = Path(__file__).parent.parent / "configs"
MODELS = FOLDER / "model"


def recipes() -> dict[str, Path]:
    """The configurations that can be trained as they are, by their names."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml")) if path.stem != "template"}


def architectures() -> dict[str, Path]:
    """The files of networks alone, by their names."""
    return {path.stem: path for path in sorted(MODELS.glob("*.yaml"))}


def find_config(named: Path | str, folder: Path = Path()) -> Path:
    """The file that `named` means: the path from `folder`, or else the configuration of this name, such as sample.

    A path to a file that is not there is returned as it is. Raises UserError (config) for a name that is not known.
    """
    path = folder / named
    name = os.fspath(named)
    if os.path.isfile(path) or not is_name(name):
        return path
    known = {**architectures(), **recipes()}
    if name in known:
        return known[name]
    if os.path.lexists(path):
        return path
    raise _unknown(name, list(known))


def is_name(text: str) -> bool:
    """Whether a text could be the name of a configuration: no path, and without a suffix."""
    return bool(text) and not any(sign in text for sign in "/.~$\0")


def _unknown(name: str, known: list[str]) -> UserError:
    close = difflib.get_close_matches(name, known, n=1)
    remedy = f"did you mean {close[0]}?" if close else f"name a YAML file, or one of these: {', '.join(known)}"
    return config_error(name, "no such file, and no configuration of this name", remedy)
