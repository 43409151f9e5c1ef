"""The lists of a split that are on disk: which of them may be changed, and what was written with which options."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal, NamedTuple

from segnet.data.layout import ALL, split_path
from segnet.data.split_lists import SHOWN, are_apart, overlap_faults, parse_split
from segnet.system.errors import config_error, data_error, raise_first
from segnet.system.files import make_folder, read_json_object, write_text

STATE = "split.json"  # beside the lists: those that this command wrote, and with which options
_FOLD = re.compile(r"(?:train|val)_(\d+)")
Existing = Literal["extend", "keep", "overwrite"]


class SplitOptions(NamedTuple):
    """What is asked for. `val` and `test` are shares of the pictures, 0 for none; `folds` is 0 or at least 2."""

    val: float
    test: float
    folds: int
    group: str | None  # a regular expression, or "folder"; None: every picture is a group of its own
    seed: int


def settings(options: SplitOptions) -> dict[str, dict[str, object]]:
    """The lists to write, each with the options that it depends on."""
    common: dict[str, object] = {"group": options.group, "seed": options.seed}
    shares = {"val": options.val, "test": options.test, **common}
    names = [*(("train", "val") if options.val else ()), *(("test",) if options.test else ())]
    folds = [f"{split}_{fold}" for fold in range(options.folds) for split in ("train", "val")]
    return dict.fromkeys(names, shares) | {name: {"folds": options.folds, **common} for name in folds}


def old_lists(
    root: Path, wanted: Mapping[str, Mapping[str, object]], ids: Sequence[str], existing: Existing
) -> dict[str, list[str]]:
    """The lists whose members stay, and the list of test, where they are there.

    Raises UserError: (config) for lists that may not be changed, (data) for faulty ones.
    """
    known = _read_state(root)
    old = dict[str, list[str]]()
    for name in dict.fromkeys(("test", *wanted)):
        path = split_path(root, name)
        if not os.path.lexists(path) or (existing == "overwrite" and name in wanted):
            continue
        if existing == "extend" and name in wanted and known.get(name) != wanted[name]:
            found = f"written with {_as_options(known[name])}" if name in known else "not written by this command"
            remedy = "keep its pictures and add the new ones with --keep, or begin anew with --overwrite"
            raise config_error(path, f"is there already, {found}", remedy)
        old[name], faults = parse_split(root, name)
        raise_first(faults, limit=SHOWN)
    folds = sum(name.startswith("val_") for name in wanted)
    if existing != "overwrite" and (surplus := surplus_folds(root, folds)):
        raise config_error(surplus[0], f"is a list of more than {folds} folds", "begin anew with --overwrite, which removes it")
    for first, second in combinations(old, 2):
        if is_apart(first, second):
            raise_first(overlap_faults(root, first, old[first], second, old[second]))
    pictures = set(ids)
    for name in old.keys() & wanted.keys():
        gone = [member for member in old[name] if member not in pictures]
        if gone:
            named = ", ".join(gone[:3]) + (", …" if gone[3:] else "")
            where = f"are not in {ALL}.txt" if os.path.lexists(split_path(root, ALL)) else "lack a picture or a mask"
            path = split_path(root, name)
            raise data_error(path, f"{len(gone)} of its pictures {where}: {named}", "restore them, or remove their lines")
    return old


def surplus_folds(root: Path, folds: int) -> list[Path]:
    """The lists of folds from number `folds` on; none where no folds are asked for."""
    found = sorted(split_path(root, ALL).parent.glob("*.txt")) if folds else []
    return [path for path in found if (match := _FOLD.fullmatch(path.stem)) and int(match[1]) >= folds]


def is_apart(first: str, second: str) -> bool:
    """Whether two lists to write share no picture."""
    return are_apart(first, second) or (first.startswith("val_") and second.startswith("val_"))


def _as_options(settings: Mapping[str, object]) -> str:
    return " ".join(f"--{key} {value}" for key, value in settings.items() if value not in (None, 0, 0.0) or key == "seed")


def _read_state(root: Path) -> dict[str, dict[str, object]]:
    """The lists that this command wrote, with their options; none where there is no such file, or it is damaged."""
    state = read_json_object(split_path(root, ALL).parent / STATE)
    return {key: value for key, value in state.items() if isinstance(value, dict)}


def write_lists(root: Path, lists: Mapping[str, Sequence[str]], wanted: Mapping[str, Mapping[str, object]]) -> None:
    """Write the lists that differ from those on disk, and into `STATE` the options of the `wanted` ones."""
    folder = split_path(root, ALL).parent
    make_folder(folder)
    state = {**_read_state(root), **wanted}
    write_text(folder / STATE, json.dumps(state, indent=1) + "\n")  # first: a list without its entry is taken for another's
    for name, members in lists.items():
        text = "".join(f"{member}\n" for member in members)
        path = split_path(root, name)
        if not path.is_file() or path.read_bytes() != text.encode():
            write_text(path, text)
