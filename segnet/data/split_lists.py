"""The list of a split: its ids, and the faults of the list."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path, PurePosixPath

from segnet.config.data_folder import PREPARE_HELP, root_fault
from segnet.data.layout import file_fault, pictures_folder, split_path
from segnet.data.listing import ABSENT, names_by_stem
from segnet.data.remedies import split_command
from segnet.data.split_forms import Form, find_form, invisible, mending_command, without_invisible
from segnet.system.errors import UserError, data_error, raise_first
from segnet.system.files import is_safe_name

SHOWN = 10  # lines of faults that stop a command; `segnet check` shows all


def read_split(root: Path, split: str) -> list[str]:
    """The ids of a split, in the order of its list; blank lines are skipped. Raises UserError (data) for faults of the list."""
    ids, faults = parse_split(root, split)
    raise_first(faults, limit=SHOWN)
    return ids


def parse_split(root: Path, split: str) -> tuple[list[str], list[UserError]]:
    """The sound ids of a split, each once, and the faults of its list.

    The faults: no list; a list that is empty or not UTF-8; an id that is repeated, leaves the data folder or has another
    spelling than its path; and one fault for all lines that hold more than an id, as `find_form` recognises them.
    """
    lines = _lines_of(root, split)
    if isinstance(lines, UserError):
        return [], [lines]
    path = split_path(root, split)
    named = _names_by_line(lines)
    exists = _picture_test(root)
    form = find_form(named, exists)
    faults = [_form_fault(path, named, form)] if form else []
    ids = dict[str, int]()  # id -> its line
    for number, name in named.items():
        if form and (number in form.ids or number in form.others):
            continue
        if name in ids:
            faults.append(data_error(path, f"line {number}: '{name}' stands in line {ids[name]} already", "remove one"))
        elif fault := _id_fault(name, exists):
            found, remedy = fault
            faults.append(data_error(path, f"line {number}: '{name}' {found}", remedy))
        else:
            ids[name] = number
    if not ids and not faults:
        faults.append(data_error(path, "no ids in it", "list one picture id per line"))
    return list(ids), faults


def _lines_of(root: Path, split: str) -> list[str] | UserError:
    """The lines of a list, or the fault for which it cannot be read."""
    if not is_safe_name(split):
        return data_error(root, f"split '{split}' leaves the data folder", "name a split such as train")
    path = split_path(root, split)
    try:
        return file_fault(path, root) or path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        return data_error(path, f"byte {error.start} is not UTF-8", "save the file as UTF-8, e.g. iconv -f UTF-16 -t UTF-8")
    except OSError as error:
        if error.errno not in ABSENT:
            raise
    if wrong_root := root_fault(root):
        return data_error(root, f"{wrong_root[0]} ({path}: no such file)", wrong_root[1])
    others = ", ".join(sorted(other.stem for other in path.parent.glob("[!.]*.txt")))
    there = f"the splits there are {others}; this one is written by: " if others else f"{PREPARE_HELP}; lists are written by: "
    return data_error(path, "no such file", there + split_command(root))


def _names_by_line(lines: Iterable[str]) -> dict[int, str]:
    """The lines that are not blank, without the space around them, by their numbers from 1."""
    stripped = (line.strip() for line in lines)
    return {number: name for number, name in enumerate(stripped, 1) if name}


def _id_fault(name: str, exists: Callable[[str], bool]) -> tuple[str, str] | None:
    """(fault, remedy) of an id by itself. File names may contain spaces of other widths, joiners and the like."""
    hidden = invisible(name)
    visible = without_invisible(name)
    if name.startswith("#") and not exists(name):
        return "is a comment, or an id without a picture", "remove the line"
    if hidden:
        may_be_in_a_name = all(unicodedata.category(c) in ("Zs", "Cf") or c.isprintable() for c in name)
        if not (may_be_in_a_name and exists(name)):
            return f"holds {hidden}, which cannot be seen", f"write '{visible}'"
    if not is_safe_name(visible):
        return "leaves the data folder", "list plain ids"
    plain = PurePosixPath(name).as_posix()
    if name != plain:
        return "is not written plainly", f"write '{plain}'"
    return None


def _form_fault(path: Path, lines: dict[int, str], form: Form) -> UserError:
    """The fault of the lines that hold more than an id."""
    number, name = next(iter(form.ids.items()))
    count = len(form.ids) + len(form.others)
    found = f"{count} of {len(lines)} lines are no plain ids ({', '.join(form.beside)}), as line {number}: '{lines[number]}'"
    command = mending_command(path, lines, form)
    remedy = f"write one id a line, without folder and suffix, here '{name}'" + (f": {command}" if command else "")
    return data_error(path, found, remedy)


def _picture_test(root: Path) -> Callable[[str], bool]:
    """A function that says whether an id has a picture. It reads each folder once."""
    listing = cache(names_by_stem)
    folder = pictures_folder(root)

    def exists(name: str) -> bool:
        path = folder / name
        inside = not name.startswith("/") and ".." not in name.split("/") and "\0" not in name
        return inside and path.name in listing(path.parent)

    return exists


def names_a_picture(root: Path, path: Path) -> bool:
    """Whether a text file contains the id of a picture, in any form that `find_form` recognises."""
    exists = _picture_test(root)
    named = _names_by_line(path.read_bytes().decode("utf-8-sig", "replace").splitlines())
    return any(map(exists, named.values())) or find_form(named, exists) is not None


_DISJOINT = ("train", "val", "test")
_FOLD = re.compile(r"(train|val)_(\d+)")  # the lists of a fold


def are_apart(first: str, second: str) -> bool:
    """Whether two splits must not share pictures, by their names: train, val and test, or train_3, val_3 and test.

    Other lists, such as trainval, may be unions.
    """
    folds = [match for name in (first, second) if (match := _FOLD.fullmatch(name))]
    if len(folds) == 2:
        return folds[0][2] == folds[1][2] and first != second
    return {first, second} <= set(_DISJOINT) or (len(folds) == 1 and "test" in (first, second))


def overlap_faults(root: Path, first: str, first_ids: Sequence[str], second: str, second_ids: Sequence[str]) -> list[UserError]:
    """The fault of two splits that share pictures."""
    common = sorted(set(first_ids) & set(second_ids))
    if not common:
        return []
    named = ", ".join(common[:5]) + (", …" if common[5:] else "")
    found = f"{len(common)} pictures are in {first} as well: {named}"
    return [data_error(split_path(root, second), found, "remove them from one of the lists")]
