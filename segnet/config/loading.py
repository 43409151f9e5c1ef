"""Reading, checking and overriding of configurations. Every configuration enters through `load_config`."""

from __future__ import annotations

import difflib
import glob
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from segnet.classes import ClassSet, difference
from segnet.config.renamed import NEW_KEYS, upgrade
from segnet.config.sections import CLASSES_FILE, LISTS, Config, DataConfig, NeckLayerConfig, StageConfig
from segnet.config.yaml_files import Dumper, Origins, Tree, override_tree, read_mapping, read_tree, require_utf8
from segnet.system.errors import UserError, config_error, data_error
from segnet.system.files import is_inside, place_of

PREPARE_HELP = (
    "prepare the data (python scripts/prepare_data.py --help), or set data.root"  # the remedy for a missing data folder
)
_SectionType = TypeVar("_SectionType", bound=BaseModel)


class _Source(NamedTuple):
    """Where the values of a tree come from."""

    file: Path
    origins: Origins

    def of(self, path: tuple[str, ...]) -> str:
        """The origin of the value at `path`: of itself, else of the section around it, else of the first key inside it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        inside = (origin for key, origin in self.origins.items() if key[: len(path)] == path)
        return next(inside, str(self.file))


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a YAML file over its base files, with `overrides` such as "train.epochs=5".

    Raises UserError: (config) with every mistake, each with its file and line; (data) where the classes should come from a data
    folder that is not there.
    """
    tree, file_origins = read_tree(Path(path))
    tree, override_origins = override_tree(tree, overrides)
    tree, origins = _with_folder_classes(tree, file_origins | override_origins)
    return _validated(Config, tree, _Source(Path(path), origins))


def _known_keys(path: tuple[str, ...]) -> list[str]:
    """The keys of the section at `path`."""
    section: type[BaseModel] = Config
    for part in path:
        annotation = section.model_fields[part].annotation if part in section.model_fields else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            section = annotation
        elif part in section.model_fields:
            section = NeckLayerConfig if part == "neck" else StageConfig  # the sections that stand in lists
    return list(section.model_fields)


def _unknown_key_error(where: str, key: str, word: str, known: list[str]) -> UserError:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    remedy = f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(known)}"
    return config_error(where, f"{key}: unknown key", remedy)


def _validation_error(detail: ErrorDetails, source: _Source) -> UserError:
    """One mistake that pydantic found, with the file and line of its value."""
    path = tuple(str(part) for part in detail["loc"] if not str(part).startswith(("tuple[", "literal[")))
    where = source.of(path)
    key = ".".join(path)
    if detail["type"] == "extra_forbidden" and path in NEW_KEYS:
        return config_error(where, f"{key}: an earlier name", f"write {'.'.join(NEW_KEYS[path])}")
    if detail["type"] == "extra_forbidden":
        return _unknown_key_error(where, key, path[-1], _known_keys(path[:-1]))
    if detail["type"] == "missing" and path == ("data", "classes"):
        return config_error(where, f"{key}: missing", f"give it in this file, or write {CLASSES_FILE} into the data folder")
    if detail["type"] == "missing":
        return config_error(where, f"{key}: missing", "give it in this file or name a base file that does")
    expected = detail["msg"].removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")
    if isinstance(detail["input"], dict | list):
        return config_error(where, f"{key}: {expected}" if key else expected)
    is_text = detail["type"] == "string_type" and detail["input"] is not None  # in YAML no is false, and 2024 is a number
    return config_error(where, f"{key}: found {detail['input']!r:.100}, {expected}", "put it in quotes" if is_text else "")


def root_fault(root: Path) -> tuple[str, str] | None:
    """The mistake in the path of a data folder and its remedy; None where the folder can hold a dataset.

    Names the folder that is probably meant: one with a similar name, or one above or below that holds the splits.
    """
    remedy = PREPARE_HELP
    if not os.path.isdir(root):
        if os.path.exists(root):
            return "a file, not a folder", f"name the folder that holds {LISTS}/; {remedy}"
        beside = [path.name for path in _folders_in(root.parent)]
        close = difflib.get_close_matches(root.name, beside, n=1)
        return f"no such folder{place_of(root)}", f"did you mean {root.parent / close[0]}?" if close else remedy
    if os.path.isdir(root / LISTS):
        return None
    below = _folders_in(root)
    above = Path(os.path.abspath(root)).parents[:2]
    two_below = [path for folder in below for path in _folders_in(folder)]
    near = next((path for path in (*below, *above, *two_below) if os.path.isdir(path / LISTS)), None)
    return f"no {LISTS}/ in it", f"did you mean {near}?" if near else remedy


def _folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, sorted; none where it cannot be read."""
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir())
    except OSError:
        return []


def load_data_folder(root: Path) -> DataConfig:
    """The dataset in a folder, with the classes of its classes.yaml.

    Raises UserError: (config) for a mistake in that file or where it is missing, (data) where the folder is missing.
    """
    require_utf8(str(root), root)
    tree, origins = _with_folder_classes({"data": {"root": str(root)}}, {})
    data = tree["data"]
    assert isinstance(data, dict)
    if "classes" not in data and not (root / CLASSES_FILE).exists():
        remedy = "write it, e.g. names: [background, leaf], or give a CONFIG instead of a folder"
        raise config_error(root / CLASSES_FILE, "no such file", remedy)
    return _validated(DataConfig, data, _Source(root / CLASSES_FILE, origins), ("data",))


def _with_folder_classes(tree: Tree, origins: Origins) -> tuple[Tree, Origins]:
    """`tree` with the classes of the data folder's classes.yaml where it names none itself, and the origins of all keys.

    Raises UserError: (config) for a mistake in classes.yaml, (data) where the folder is missing.
    """
    data = tree.get("data")
    if not isinstance(data, dict) or "classes" in data or not isinstance(root := data.get("root"), str):
        return tree, origins
    path = Path(root) / CLASSES_FILE
    if "\0" in root or not os.path.lexists(path):
        if root and (fault := root_fault(Path(root))):
            found, remedy = fault
            where = origins.get(("data", "root"))
            raise data_error(where or root, f"data.root: {root}: {found}" if where else found, remedy)
        return tree, origins
    table, lines = _read_classes_file(path, Path(root))
    added = {key: value for key, value in table.items() if key not in data}
    added_origins = {("data", key): lines[key] for key in added}
    return {**tree, "data": {**data, **added}}, origins | added_origins


def _read_classes_file(path: Path, root: Path) -> tuple[Tree, dict[str, str]]:
    """The values of a classes.yaml under their names in DataConfig, and the file and line of each.

    Raises UserError (config).
    """
    if not is_inside(path, root):
        raise config_error(path, "is a link out of the data folder", "copy the file into the data folder")
    own, lines = read_mapping(path)
    names = {"names": "classes", "colors": "colors", "ignore_index": "ignore_index"}  # from this file's keys to DataConfig's
    for key in own:
        if key == "ignore":
            raise config_error(lines[key,], "ignore: an earlier name", "write ignore_index")
        if key not in names:
            raise _unknown_key_error(lines[key,], key, key, list(names))
    if "names" not in own:
        raise config_error(path, "names: missing", "write names: [background, …] in the order of their ids")
    return {names[key]: value for key, value in own.items()}, {names[key]: lines[key,] for key in own}


def read_stored_config(tree: Tree, path: Path) -> Config:
    """The configuration that a checkpoint or an exported file at `path` holds, also one of an earlier version.

    Raises UserError (config) with all its mistakes.
    """
    return _validated(Config, upgrade(tree), _Source(path, {}))


def _validated(kind: type[_SectionType], tree: Tree, source: _Source, path: tuple[str, ...] = ()) -> _SectionType:
    """`tree`, which stands at `path` in a configuration, as a section. Raises UserError (config) with all its mistakes."""
    try:
        return kind.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        # A list with an invalid item is also reported as too short: the item's own report says more.
        details = [detail for detail in error.errors() if detail["type"] != "too_short" or detail["input"] == []]
        details = [detail for detail in details if not _is_of_another_branch(detail)]
        if any(detail["loc"] == ("data", "root") and detail["type"] != "missing" for detail in details):
            # The classes may stand in that folder.
            details = [detail for detail in details if detail["loc"] != ("data", "classes") or detail["type"] != "missing"]
        first, *others = [_validation_error({**detail, "loc": (*path, *detail["loc"])}, source) for detail in details]
        raise UserError(first.code, first.path, first.found, first.remedy, also=tuple(others)) from None


def _is_of_another_branch(error: ErrorDetails) -> bool:
    """True for the error that a list or mapping is not one of the words that a key takes in place of a list."""
    return isinstance(error["input"], list | dict) and bool(error["loc"]) and str(error["loc"][-1]).startswith("literal[")


def override_config(config: Config, overrides: Sequence[str]) -> Config:
    """`config` with `overrides` such as "inference.flip=true".

    Where they name another data folder, the classes.yaml there gives ignore_index, and must have the same classes.
    Raises UserError (config) for a mistake in the overrides or in that file.
    """
    tree, origins = override_tree(dump_config(config), overrides)
    changed = _validated(Config, tree, _Source(Path("KEY=VALUE"), origins))
    own = _folder_classes(changed.data) if ("data", "root") in origins else None
    if own is None:
        return changed
    expected = config.data.class_set
    odd = difference(own, expected)
    if odd and ("data", "classes") not in origins:
        path = Path(changed.data.root) / CLASSES_FILE
        raise config_error(path, f"{odd} as in the network", _class_remedy(own, expected))
    ignore_index = changed.data.ignore_index if ("data", "ignore_index") in origins else own.ignore_index
    return changed.model_copy(update={"data": changed.data.model_copy(update={"ignore_index": ignore_index})})


def _class_remedy(own: ClassSet, expected: ClassSet) -> str:
    """The remedy for masks whose class table is `own` where `expected` is needed."""
    if set(own.names) == set(expected.names):
        moved = [f"--map {k}={expected.names.index(name)}" for k, name in enumerate(own.names) if expected.names[k] != name]
        names = f"names: [{', '.join(expected.names)}]"
        return f"convert its masks (prepare_data.py convert MASKS --out DIR {' '.join(moved)}) and write {names} into that file"
    return f"name a folder with the classes {', '.join(expected.names)}, or write data.classes=… if its ids mean these"


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The paths and the overrides among the arguments of a command; KEY=VALUE is an override where KEY begins with a known key.

    Raises UserError (config) for an override that is also the name of files, and for one with a misspelled key and no such file.
    """
    paths: list[str] = []
    overrides: list[str] = []
    known = list(Config.model_fields)
    for text in arguments:
        key, separator, _ = text.partition("=")
        section, dot, rest = key.partition(".")
        there = bool(separator) and (os.path.lexists(text) or bool(glob.glob(text, recursive=True)))
        if section in known and there:
            remedy = f"write ./{text} for the files, or go elsewhere for the key"
            raise config_error(text, "sets a key, and is the name of files", remedy)
        close = difflib.get_close_matches(section, known, n=1) if separator and not there else []
        if close and section not in known:
            found = f"no such file, and no key begins with '{section}'"
            raise config_error(text, found, f"did you mean {close[0]}{dot}{rest}=…?")
        (overrides if separator and section in known else paths).append(text)
    return paths, overrides


def class_warnings(data: DataConfig) -> list[UserError]:
    """The differences between the data folder's classes.yaml and `data`, whose values are used."""
    path = Path(data.root) / CLASSES_FILE
    try:
        own = _folder_classes(data)
    except UserError as error:
        return [UserError(error.code, error.path, error.found, "mend it; the classes are those of the configuration")]
    if own is None:
        return []
    found = [difference(own, data.class_set)]
    if own.ignore_index != data.ignore_index:
        found.append(f"ignore_index is {own.ignore_index}, not {data.ignore_index}")
    remedy = "the configuration is used; check that the masks agree with it"
    return [config_error(path, f"{text} as in the configuration", remedy) for text in found if text]


def _folder_classes(data: DataConfig) -> ClassSet | None:
    """The classes in the data folder's classes.yaml; None without that file. Raises UserError (config) for a mistake in it."""
    root = Path(data.root)
    return load_data_folder(root).class_set if os.path.lexists(root / CLASSES_FILE) else None


def dump_config(config: Config) -> Tree:
    """`config` with all its keys as plain values, as a checkpoint holds it."""
    return json.loads(config.model_dump_json())


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
