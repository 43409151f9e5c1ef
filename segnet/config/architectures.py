"""The networks that have a name: the files of configs/model/."""

from __future__ import annotations

import difflib
import sysconfig
from pathlib import Path

from segnet.config.sections import ModelConfig
from segnet.config.validation import Source, validate
from segnet.config.yaml_files import read_tree
from segnet.system.errors import config_error

FOLDERS = (  # of the files: in the repository, beside the package; and where `pip install` puts them
    Path(__file__).parent.parent.parent / "configs" / "model",
    Path(sysconfig.get_path("data")) / "share" / "segnet" / "model",
)


def load_architecture(name: str) -> ModelConfig:
    """The network of configs/model/NAME.yaml. Raises UserError (config) for a name that no file has."""
    folder = next((folder for folder in FOLDERS if folder.is_dir()), None)
    if folder is None:
        raise config_error(name, f"the files of the architectures are not here: {FOLDERS[0]}", "give a configuration's model")
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        remedy = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(known)}"
        raise config_error(name, "no such architecture", remedy)
    tree, origins = read_tree(folder / f"{name}.yaml")
    model = tree["model"]
    assert isinstance(model, dict)
    return validate(ModelConfig, model, Source(folder / f"{name}.yaml", origins), ("model",))
