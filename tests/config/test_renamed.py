"""Earlier names are answered with the new ones, and stored configurations are still read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from config_files import data_folder
from helpers import ROOT, refused

from segnet.config.loading import dump_config, load_config, override_config, read_stored_config
from segnet.config.renamed import NEW_KEYS
from segnet.config.sections import Config
from segnet.system.errors import ExitCode

Usage = ExitCode.CONFIG


@pytest.mark.parametrize(("old", "new"), NEW_KEYS.items())
def test_a_renamed_key_is_refused_with_its_new_name(old: tuple[str, str], new: tuple[str, str]) -> None:
    with refused(Usage, f"{'.'.join(old)}: an earlier name – write {'.'.join(new)}"):
        load_config(ROOT / "configs" / "sample.yaml", [f"{'.'.join(old)}=1"])


def test_a_stored_configuration_of_an_earlier_version_is_read(tiny_config: Config, tmp_path: Path) -> None:
    stored = dump_config(tiny_config)
    train, augment, data, loss, inference = (
        cast(dict[str, Any], stored[name]) for name in ("train", "augment", "data", "loss", "inference")
    )
    train |= {"memory": "lean", "log_every": train.pop("log_every_steps"), "eval_every": train.pop("eval_every_epochs")}
    train["save_every"] = train.pop("save_every_epochs")
    del train["recompute"]
    augment["sizes"] = augment.pop("shrink")
    data["ignore_id"] = data.pop("ignore_index")
    loss["hardest"] = 1.0
    inference["flip"] = True
    expected = override_config(tiny_config, ["train.recompute=activations", "inference.flip=horizontal"])
    assert read_stored_config(stored, tmp_path) == expected
    loss["hardest"] = 0.5
    with refused(Usage, "loss.hardest: unknown key"):
        read_stored_config(stored, tmp_path)


def test_an_earlier_key_of_classes_yaml_is_refused_with_its_new_name(tmp_path: Path) -> None:
    path = data_folder(tmp_path, "names: [ground, leaf]\nignore: 9\n")
    with refused(Usage, "classes.yaml, line 2: ignore: an earlier name – write ignore_index"):
        load_config(path)
