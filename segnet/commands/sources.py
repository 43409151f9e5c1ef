"""CONFIG|DIR and A,B,C: what several commands take as the data, or as the networks, that they read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from segnet.config.data_folder import load_data_folder
from segnet.config.loading import load_config
from segnet.config.named import recipes
from segnet.config.sections import DataConfig
from segnet.data.listing import left_out, left_out_warning, list_pictures


def data_of(source: Path) -> DataConfig:
    """The data section of a configuration, or one for a data folder with a classes.yaml."""
    return load_data_folder(source) if is_folder(source) else load_config(source).data


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
