"""The networks that have a name: the files of configs/model/."""

from __future__ import annotations

import difflib
from pathlib import Path

from segnet.config.named import MODELS, architectures
from segnet.config.sections import ModelConfig
from segnet.config.validation import Source, validate
from segnet.config.yaml_files import read_tree
from segnet.system.errors import config_error


def architecture_files() -> dict[str, Path]:
    """The files of configs/model/ by their names without suffix. Raises UserError (config) where the folder is missing."""
    files = architectures()
    if not files:
        remedy = "install the program again, or give a configuration's model"
        raise config_error(MODELS, "the files of the architectures are not here", remedy)
    return files


def load_architecture(name: str) -> ModelConfig:
    """The network of configs/model/NAME.yaml. Raises UserError (config) for a name that no file has."""
    files = architecture_files()
    if name not in files:
        close = difflib.get_close_matches(name, files, n=1)
        remedy = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(files)}"
        raise config_error(name, "no such architecture", remedy)
    return read_architecture(files[name])


def read_architecture(path: Path) -> ModelConfig:
    """The network of a file such as configs/model/segnet.yaml. Raises UserError (config) for its mistakes."""
    tree, origins = read_tree(path)
    model = tree["model"]
    assert isinstance(model, dict)
    return validate(ModelConfig, model, Source(path, origins), ("model",))
