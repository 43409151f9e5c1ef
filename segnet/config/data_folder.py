"""The data folder that a configuration names: whether it can hold a dataset, and the classes in its classes.yaml."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from segnet.classes import ClassSet, difference
from segnet.config.sections import CLASSES_FILE, LISTS, PLAIN_PICTURES, DataConfig
from segnet.config.validation import Source, unknown_key_error, validate
from segnet.config.yaml_files import Origins, Tree, read_mapping, require_utf8
from segnet.system.errors import UserError, config_error, data_error
from segnet.system.files import is_inside, place_of

PREPARE_HELP = "prepare the data (segnet prepare --help), or set data.root"  # the remedy for a missing data folder
_PREPARED = ("sample", "voc", "camvid")  # folders that segnet prepare makes


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
        if root.name in _PREPARED and root.parent.name == "data":
            remedy = f"prepare the data (segnet prepare {root.name}), or set data.root"
        return f"no such folder{place_of(root)}", f"did you mean {root.parent / close[0]}?" if close else remedy
    if _has_lists(root):
        return None
    below = _folders_in(root)
    above = Path(os.path.abspath(root)).parents[:2]
    two_below = [path for folder in below for path in _folders_in(folder)]
    near = next((path for path in (*below, *above, *two_below) if _has_lists(path)), None)
    return f"no {LISTS}/ in it", f"did you mean {near}?" if near else remedy


def lists_folder(root: Path) -> Path:
    """The folder of the lists of splits: `LISTS`, or the data folder itself where that is missing and the names are plain."""
    plain = os.path.isfile(root / "train.txt") or os.path.isdir(root / PLAIN_PICTURES)
    return root if plain and not os.path.isdir(root / LISTS) else root / LISTS


def _has_lists(root: Path) -> bool:
    return os.path.isdir(root / LISTS) or lists_folder(root) == root


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
    tree, origins = with_folder_classes({"data": {"root": str(root)}}, {})
    data = tree["data"]
    assert isinstance(data, dict)
    if "classes" not in data and not (root / CLASSES_FILE).exists():
        remedy = "write it, e.g. names: [background, leaf], or give a CONFIG instead of a folder (task denoise has no classes)"
        raise config_error(root / CLASSES_FILE, "no such file", remedy)
    return validate(DataConfig, data, Source(root / CLASSES_FILE, origins), ("data",))


def with_folder_classes(tree: Tree, origins: Origins) -> tuple[Tree, Origins]:
    """`tree` with the classes of the data folder's classes.yaml where it names none itself, and the origins of all keys.

    A task without classes has none.
    Raises UserError: (config) for a mistake in classes.yaml, (data) where the folder is missing.
    """
    data = tree.get("data")
    if not isinstance(data, dict) or "classes" in data or not isinstance(root := data.get("root"), str):
        return tree, origins
    if tree.get("task") == "denoise":
        return {**tree, "data": {**data, "classes": "none"}}, origins
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
            raise unknown_key_error(lines[key,], key, key, list(names))
    if "names" not in own:
        raise config_error(path, "names: missing", "write names: [background, …] in the order of their ids")
    return {names[key]: value for key, value in own.items()}, {names[key]: lines[key,] for key in own}


def class_warnings(data: DataConfig) -> list[UserError]:
    """The differences between the data folder's classes.yaml and `data`, whose values are used."""
    path = Path(data.root) / CLASSES_FILE
    try:
        own = folder_classes(data)
    except UserError as error:
        return [UserError(error.code, error.path, error.found, "mend it; the classes are those of the configuration")]
    if own is None:
        return []
    found = [difference(own, data.mask_classes)]
    if own.ignore_index != data.ignore_index:
        found.append(f"ignore_index is {own.ignore_index}, not {data.ignore_index}")
    remedy = "the configuration is used; check that the masks agree with it"
    return [config_error(path, f"{text} as in the configuration", remedy) for text in found if text]


def folder_classes(data: DataConfig) -> ClassSet | None:
    """The classes in the data folder's classes.yaml; None without that file, or for a task without classes.

    Raises UserError (config) for a mistake in it.
    """
    root = Path(data.root)
    named = data.classes != "none" and os.path.lexists(root / CLASSES_FILE)
    return load_data_folder(root).class_set if named else None


def class_remedy(own: ClassSet, expected: ClassSet) -> str:
    """The remedy for masks whose class table is `own` where `expected` is needed."""
    if set(own.names) == set(expected.names):
        moved = [f"--map {k}={expected.names.index(name)}" for k, name in enumerate(own.names) if expected.names[k] != name]
        names = f"names: [{', '.join(expected.names)}]"
        return f"convert its masks (segnet convert MASKS --out DIR {' '.join(moved)}) and write {names} into that file"
    return f"name a folder with the classes {', '.join(expected.names)}, or write data.classes=… if its ids mean these"
