"""Reading, overriding and writing of configurations. Every configuration enters through `load_config`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from segnet.classes import difference
from segnet.config.data_folder import class_remedy, folder_classes, with_folder_classes
from segnet.config.named import find_config
from segnet.config.renamed import upgrade
from segnet.config.sections import CLASSES_FILE, Config
from segnet.config.validation import Source, validate
from segnet.config.yaml_files import Dumper, Tree, override_tree, read_tree
from segnet.system.errors import config_error


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a YAML file over its base files, with `overrides` such as "train.epochs=5".

    `path` may be the name of a configuration that comes with the program, such as sample.
    Raises UserError: (config) with every mistake, each with its file and line; (data) where the classes should come from a data
    folder that is not there.
    """
    path = find_config(path)
    tree, file_origins = read_tree(path)
    tree, override_origins = override_tree(tree, overrides)
    tree, origins = with_folder_classes(tree, file_origins | override_origins)
    return validate(Config, tree, Source(path, origins))


def override_config(config: Config, overrides: Sequence[str]) -> Config:
    """`config` with `overrides` such as "inference.flip=horizontal".

    Where they name another data folder, the classes.yaml there gives ignore_index, and must have the same classes.
    Raises UserError (config) for a mistake in the overrides or in that file.
    """
    tree, origins = override_tree(dump_config(config), overrides)
    changed = validate(Config, tree, Source(Path("KEY=VALUE"), origins))
    own = folder_classes(changed.data) if ("data", "root") in origins else None
    if own is None:
        return changed
    expected = config.data.mask_classes
    odd = difference(own, expected)
    if odd and ("data", "classes") not in origins:
        path = Path(changed.data.root) / CLASSES_FILE
        raise config_error(path, f"{odd} as in the network", class_remedy(own, expected))
    ignore_index = changed.data.ignore_index if ("data", "ignore_index") in origins else own.ignore_index
    return changed.model_copy(update={"data": changed.data.model_copy(update={"ignore_index": ignore_index})})


def read_stored_config(tree: Tree, path: Path) -> Config:
    """The configuration that a checkpoint or an exported file at `path` holds, also one of an earlier version.

    Raises UserError (config) with all its mistakes.
    """
    return validate(Config, upgrade(tree), Source(path, {}))


def dump_config(config: Config) -> Tree:
    """`config` with all its keys as plain values, as a checkpoint holds it."""
    return json.loads(config.model_dump_json())


def flat_config(config: Config) -> dict[str, object]:
    """The values of `config` by their keys, such as "optim.lr"."""

    def flatten(value: object, path: str = "") -> dict[str, object]:
        if not isinstance(value, dict):
            return {path: value}
        return {k: v for key, item in value.items() for k, v in flatten(item, f"{path}.{key}" if path else key).items()}

    return flatten(dump_config(config))


def config_to_yaml(config: Config) -> str:
    """`config` with all its keys as YAML text, from which `load_config` reads an equal Config."""
    return yaml.dump(dump_config(config), Dumper=Dumper, sort_keys=False, width=120)


def config_schema() -> str:
    """The JSON schema of a configuration file, with which editors complete and check YAML."""
    schema = Config.model_json_schema()
    schema["properties"]["base"] = {"type": "array", "items": {"type": "string"}, "description": "Files below this one."}
    schema["required"] = []  # base files may give the sections
    schema["$defs"]["DataConfig"]["required"].remove("classes")  # classes.yaml may give them
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
