"""Every knob, typed and ranged, and the one door through which a configuration enters: `load_config`."""

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
from segnet.config.yaml_files import (
    Dumper,
    Origins,
    Tree,
    merge,
    override_tree,
    read_mapping,
    read_tree,
    refuse,
    refuse_undecodable,
)
from segnet.system.errors import ExitCode, UserError
from segnet.system.files import is_inside, place_of

_SectionType = TypeVar("_SectionType", bound=BaseModel)


class _Origin(NamedTuple):
    file: Path
    lines: Origins

    def of(self, path: tuple[str, ...]) -> str:
        """The line or override that set the value at `path`, or the nearest value around or inside it."""
        around = (path[:length] for length in range(len(path), 0, -1))
        inside = [line for part, line in self.lines.items() if part[: len(path)] == path]  # of a section that nobody wrote whole
        return next((self.lines[part] for part in around if part in self.lines), inside[0] if inside else str(self.file))


def _known_keys(path: tuple[str, ...]) -> list[str]:
    """The keys that the section at `path` has."""
    section: type[BaseModel] = Config
    for part in path:
        annotation = section.model_fields[part].annotation if part in section.model_fields else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            section = annotation
        elif part in section.model_fields:
            section = NeckLayerConfig if part == "neck" else StageConfig  # the sections that stand in lists
    return list(section.model_fields)


def _unknown_key(where: str, key: str, word: str, known: list[str]) -> UserError:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return refuse(where, f"{key}: unknown key", f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(known)}")


def _mistake(error: ErrorDetails, origin: _Origin) -> UserError:
    path = tuple(str(part) for part in error["loc"] if not str(part).startswith(("tuple[", "literal[")))
    where, key = origin.of(path), ".".join(path)
    if error["type"] == "extra_forbidden" and path in NEW_KEYS:
        return refuse(where, f"{key}: an earlier name", f"write {'.'.join(NEW_KEYS[path])}")
    if error["type"] == "extra_forbidden":
        return _unknown_key(where, key, path[-1], _known_keys(path[:-1]))
    if error["type"] == "missing" and path == ("data", "classes"):
        return refuse(where, f"{key}: missing", f"give it in this file, or write {CLASSES_FILE} into the data folder")
    if error["type"] == "missing":
        return refuse(where, f"{key}: missing", "give it in this file or name a base file that does")
    expected = error["msg"].removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")
    if isinstance(error["input"], dict | list):
        return refuse(where, f"{key}: {expected}" if key else expected)
    is_text = error["type"] == "string_type" and error["input"] is not None  # in YAML no is false, and 2024 a number
    return refuse(where, f"{key}: found {error['input']!r:.100}, {expected}", "put it in quotes" if is_text else "")


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """The validated configuration of a YAML file, its base files and `overrides` such as "train.epochs=5".

    Raises UserError (config) that names every mistake with its file and line, (data) where the classes are those of a data
    folder that is not there.
    """
    lines: Origins = {}
    tree = read_tree(Path(path), lines)
    for override in overrides:
        tree = merge(tree, override_tree(override, lines))
    return validate_config(_with_classes(tree, lines), _Origin(Path(path), lines))


def root_fault(root: Path) -> tuple[str, str] | None:
    """What is found in place of a data folder, and the cure: it is not there, or has no lists, and one above or below has."""
    remedy = "prepare the data (python scripts/prepare_data.py --help), or set data.root"
    if not os.path.isdir(root):
        if os.path.exists(root):
            return "a file, not a folder", f"name the folder that holds {LISTS}/; {remedy}"
        beside = [path.name for path in _folders_in(root.parent)]
        close = difflib.get_close_matches(root.name, beside, n=1)
        return f"no such folder{place_of(root)}", f"did you mean {root.parent / close[0]}?" if close else remedy
    if os.path.isdir(root / LISTS):
        return None
    below = _folders_in(root)
    around = [*below, *Path(os.path.abspath(root)).parents[:2], *(path for folder in below for path in _folders_in(folder))]
    near = next((path for path in around if os.path.isdir(path / LISTS)), None)
    return f"no {LISTS}/ in it", f"did you mean {near}?" if near else remedy


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir())
    except OSError:
        return []


def load_data_folder(root: Path) -> DataConfig:
    """The data set in a folder, with the classes of its classes.yaml. Raises UserError (config), (data) where there is none."""
    lines: Origins = {}
    refuse_undecodable(str(root), root)
    data = _with_classes({"data": {"root": str(root)}}, lines)["data"]
    assert isinstance(data, dict)
    if "classes" not in data and not (root / CLASSES_FILE).exists():
        remedy = "write it, e.g. names: [background, leaf], or give a CONFIG instead of a folder"
        raise refuse(root / CLASSES_FILE, "no such file", remedy)
    return _validated(DataConfig, data, _Origin(root / CLASSES_FILE, lines), ("data",))


def _with_classes(tree: Tree, lines: Origins) -> Tree:
    """`tree` with the classes of the data folder's own file, where it names none; their lines are added to `lines`."""
    data = tree.get("data")
    if not isinstance(data, dict) or "classes" in data or not isinstance(root := data.get("root"), str):
        return tree
    path = Path(root) / CLASSES_FILE
    if "\0" in root or not os.path.lexists(path):
        if root and (fault := root_fault(Path(root))):
            where = lines.get(("data", "root"))
            raise UserError(ExitCode.DATA, where or root, f"data.root: {root}: {fault[0]}" if where else fault[0], fault[1])
        return tree
    if not is_inside(path, Path(root)):
        raise refuse(path, "is a link out of the data folder", "copy the file into the data folder")
    own, own_lines = read_mapping(path)
    keys = {"names": "classes", "colors": "colors", "ignore_index": "ignore_index"}
    for key in own:
        if key not in keys:
            if key == "ignore":
                raise refuse(own_lines[key,], "ignore: an earlier name", "write ignore_index")
            raise _unknown_key(own_lines[key,], key, key, list(keys))
    if "names" not in own:
        raise refuse(path, "names: missing", "write names: [background, …] in the order of their ids")
    for key, value in own.items():
        if keys[key] not in data:
            lines["data", keys[key]] = own_lines[key,]
            data = {**data, keys[key]: value}
    return {**tree, "data": data}


def validate_config(tree: Tree, origin: _Origin | Path) -> Config:
    """`tree` as a Config. Raises UserError (config) with all its mistakes."""
    return _validated(Config, tree, _Origin(origin, {}) if isinstance(origin, Path) else origin)


def read_stored_config(tree: Tree, path: Path) -> Config:
    """The configuration that a checkpoint or an exported file at `path` holds, also one of an earlier version.

    Raises UserError (config) with all its mistakes.
    """
    return validate_config(upgrade(tree), path)


def _validated(kind: type[_SectionType], tree: Tree, origin: _Origin, path: tuple[str, ...] = ()) -> _SectionType:
    """`tree`, which stands at `path` of a configuration, as a section."""
    try:
        return kind.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        details = [d for d in error.errors() if d["type"] != "too_short" or d["input"] == []]  # no echo of a bad item
        details = [d for d in details if not _is_of_another_branch(d)]
        if any(d["loc"] == ("data", "root") and d["type"] != "missing" for d in details):
            details = [
                d for d in details if d["loc"] != ("data", "classes") or d["type"] != "missing"
            ]  # they stand in that folder
        first, *others = [_mistake({**detail, "loc": (*path, *detail["loc"])}, origin) for detail in details]
        raise UserError(first.code, first.path, first.found, first.remedy, also=tuple(others)) from None


def _is_of_another_branch(error: ErrorDetails) -> bool:
    """Whether an error says that a list or mapping is none of the words that a key takes in place of a list."""
    return isinstance(error["input"], list | dict) and bool(error["loc"]) and str(error["loc"][-1]).startswith("literal[")


def override_config(config: Config, overrides: Sequence[str]) -> Config:
    """`config` with `overrides` such as "inference.flip=true". Raises UserError (config) for a mistake in them.

    Where they name another data folder, its classes.yaml says which value its masks ignore, and has to have the same classes.
    """
    tree, origins = dump_config(config), Origins()
    for override in overrides:
        tree = merge(tree, override_tree(override, origins))
    changed = validate_config(tree, _Origin(Path("KEY=VALUE"), origins))
    own = _table_of(changed.data) if ("data", "root") in origins else None
    if own is None:
        return changed
    odd = difference(own, config.data.class_set)
    if odd and ("data", "classes") not in origins:
        raise refuse(Path(changed.data.root) / CLASSES_FILE, f"{odd} as in the network", _way_out(own, config.data.class_set))
    ignore_index = changed.data.ignore_index if ("data", "ignore_index") in origins else own.ignore_index
    return changed.model_copy(update={"data": changed.data.model_copy(update={"ignore_index": ignore_index})})


def _way_out(own: ClassSet, expected: ClassSet) -> str:
    """How masks of one table become masks of another."""
    if set(own.names) == set(expected.names):
        moved = [f"--map {k}={expected.names.index(name)}" for k, name in enumerate(own.names) if expected.names[k] != name]
        names = f"names: [{', '.join(expected.names)}]"
        return f"convert its masks (prepare_data.py convert MASKS --out DIR {' '.join(moved)}) and write {names} into that file"
    return f"name a folder with the classes {', '.join(expected.names)}, or write data.classes=… if its ids mean these"


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Paths and overrides that a command line mixes: KEY=VALUE is an override where KEY begins with a key of a configuration.

    Raises UserError (config) for one that names files as well, and for one that names none and whose KEY is nearly right.
    """
    paths, overrides, known = list[str](), list[str](), list(Config.model_fields)
    for text in arguments:
        first, separator, _ = text.partition("=")
        first, dot, rest = first.partition(".")
        there = bool(separator) and (os.path.lexists(text) or bool(glob.glob(text, recursive=True)))
        if first in known and there:
            raise refuse(
                text, "sets a key, and is the name of files", f"write ./{text} for the files, or go elsewhere for the key"
            )
        close = difflib.get_close_matches(first, known, n=1) if separator and not there else []
        if close and first not in known:
            raise refuse(text, f"no such file, and no key begins with '{first}'", f"did you mean {close[0]}{dot}{rest}=…?")
        (overrides if separator and first in known else paths).append(text)
    return paths, overrides


def class_warnings(data: DataConfig) -> list[UserError]:
    """What the data folder's classes.yaml says otherwise than `data`, which counts."""
    path = Path(data.root) / CLASSES_FILE
    try:
        own = _table_of(data)
    except UserError as error:
        return [UserError(error.code, error.path, error.found, "mend it; the classes are those of the configuration")]
    if own is None:
        return []
    ignored = f"ignore_index is {own.ignore_index}, not {data.ignore_index}" if own.ignore_index != data.ignore_index else ""
    remedy = "what the configuration says counts; see whether its masks are made so"
    return [
        refuse(path, f"{found} as in the configuration", remedy) for found in (difference(own, data.class_set), ignored) if found
    ]


def _table_of(data: DataConfig) -> ClassSet | None:
    """The table of the data folder's own classes.yaml, where there is one. Raises UserError (config) for a mistake in it."""
    root = Path(data.root)
    return load_data_folder(root).class_set if os.path.lexists(root / CLASSES_FILE) else None


def dump_config(config: Config) -> Tree:
    """`config` as plain values, complete: what a checkpoint holds."""
    return json.loads(config.model_dump_json())


def config_to_yaml(config: Config) -> str:
    """`config` as YAML text, complete; `load_config` reads it back to an equal Config."""
    return yaml.dump(dump_config(config), Dumper=Dumper, sort_keys=False, width=120)


def config_schema() -> str:
    """The JSON schema of a configuration file, from which editors complete and check YAML."""
    schema = Config.model_json_schema()
    schema["properties"]["base"] = {"type": "array", "items": {"type": "string"}, "description": "Files below this one."}
    schema["required"] = []  # a file may leave sections to its base files
    schema["$defs"]["DataConfig"]["required"].remove("classes")  # and the classes to the data folder
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
