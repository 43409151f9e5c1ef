"""CONFIG|DIR and A,B,C: what several commands take as the data, or as the networks, that they read."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from segnet.config.data_folder import load_data_folder
from segnet.config.loading import load_config
from segnet.config.named import recipes
from segnet.config.sections import DataConfig
from segnet.data.listing import left_out, left_out_warning, list_pictures
from segnet.system.errors import config_error


def data_of(source: Path, overrides: Sequence[str] = ()) -> DataConfig:
    """The data section of a configuration with `overrides`, or one for a data folder with a classes.yaml.

    Raises UserError (config) for overrides of a data folder.
    """
    if not is_folder(source):
        return load_config(source, overrides).data
    if overrides:
        raise config_error(overrides[0], f"an override, and {source} is a data folder", "name a configuration")
    return load_data_folder(source)


def is_folder(source: Path) -> bool:
    """Whether CONFIG|DIR means a folder, also one that is not there."""
    return source.is_dir() or not (source.suffix or source.exists() or str(source) in recipes())


def networks_of(source: str) -> list[str]:
    """The runs or checkpoints of RUN|CHECKPOINT, of which A,B,C names several; a comma may also be part of the name of one."""
    return [source] if os.path.lexists(source) or "," not in source else source.split(",")


def warn_of_left_out(folder: Path, *, arrays: bool) -> None:
    """Warn of files that look like pictures or masks and are not read; without `arrays`, of .npy files too."""
    if left := left_out(list_pictures(folder, arrays=arrays)):
        print(f"warning: {left_out_warning(left)}", file=sys.stderr)
