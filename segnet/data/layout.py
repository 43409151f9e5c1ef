"""The folder layout of Pascal VOC: where images, masks and split lists are, and the faults that they may have."""

from __future__ import annotations

import errno
import json
import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from torch import Tensor

from segnet.classes import IGNORE_INDEX, ClassSet
from segnet.config.loading import root_fault
from segnet.config.sections import LISTS
from segnet.data.images import convert_command
from segnet.data.listing import has_foreign_suffix, has_picture_suffix
from segnet.data.split_forms import Form, find_form, invisible, mending_command, without_invisible
from segnet.system.errors import ExitCode, UserError, raise_first
from segnet.system.files import is_inside, is_safe_name, write_text

SHOWN = 10  # lines of faults that stop a command; `prepare_data.py check` shows all
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}


def require_same_size(image: Tensor, mask: Tensor, path: Path) -> None:
    """Raise UserError (data) when a picture and its mask, the file at `path`, differ in size."""
    if image.shape[1:] != mask.shape:
        found = f"mask {mask.shape[1]}×{mask.shape[0]}, picture {image.shape[2]}×{image.shape[1]} (width × height)"
        raise _bad(path, found, "make a mask of the picture's size")


def overlap_faults(root: Path, first: str, first_ids: Sequence[str], second: str, second_ids: Sequence[str]) -> list[UserError]:
    """The fault of two splits that share pictures."""
    common = sorted(set(first_ids) & set(second_ids))
    if not common:
        return []
    named = ", ".join(common[:5]) + (", …" if common[5:] else "")
    found = f"{len(common)} pictures are in {first} as well: {named}"
    return [_bad(split_path(root, second), found, "remove them from one of the lists")]


def label_faults(root: Path, split: str, seen: set[int], classes: ClassSet, train: str) -> list[UserError]:
    """The fault of a split whose masks, all together, hold the values `seen`: nothing to learn in the split `train`, nothing
    to score in any, or 255 where 1 was meant.

    That no mask of a whole split shows an object although 255 occurs is not what borders look like.
    """
    path, ignore, shown = split_path(root, split), classes.ignore_index, seen - {IGNORE_INDEX}
    if seen == {IGNORE_INDEX}:
        return [_bad(path, f"its masks are {ignore} everywhere, which is not scored", "label the pictures")]
    if seen == {0, IGNORE_INDEX}:
        found = f"its masks hold only 0 and {ignore}, and {ignore} is not scored"
        remedy = f"if {ignore} means class 1: {convert_command(mask_path(root, 'ID'))} --map {ignore}=1"
        return [_bad(path, found, remedy)]
    if split == train and len(shown) == 1:
        found = f"its masks show nothing but '{classes.names[shown.pop()]}', which a network learns to answer everywhere"
        return [_bad(path, found, "list pictures that show other classes too, or label them")]
    return []


def label_warnings(root: Path, split: str, seen: set[int], classes: ClassSet, train: str, learnt: set[int]) -> list[UserError]:
    """What a score on the split cannot say, whose masks hold the values `seen`, and those of the split `train` `learnt`.

    `learnt` is empty where that is not known.
    """
    path, shown = split_path(root, split), sorted(seen - {IGNORE_INDEX})
    warnings = list[UserError]()
    if split != train and len(shown) == 1:
        found = f"its masks show nothing but '{classes.names[shown[0]]}': a network that answers it everywhere scores 100"
        warnings.append(_bad(path, found, "list pictures that show other classes too"))
    unknown = [classes.names[k] for k in shown if learnt and k not in learnt]
    if unknown:
        found = f"its masks show {', '.join(unknown)}, and none of {train} does: no network can learn that"
        warnings.append(_bad(path, found, f"list pictures in {train} that show it"))
    return warnings


def split_path(root: Path, split: str) -> Path:
    """The file that lists the ids of a split."""
    return root / LISTS / f"{split}.txt"


def mask_path(root: Path, sample_id: str) -> Path:
    """The mask of a picture."""
    return root / "SegmentationClass" / f"{sample_id}.png"


def read_split(root: Path, split: str) -> list[str]:
    """The ids of a split, in the file's order; blank lines are skipped. Raises UserError (data) for the faults of its list."""
    ids, faults = parse_split(root, split)
    raise_first(faults, limit=SHOWN)
    return ids


def parse_split(root: Path, split: str) -> tuple[list[str], list[UserError]]:
    """The sound ids of a split, each once, and the faults of its list.

    These are: no list, none in UTF-8, an empty one, an id that is repeated, leaves the data folder or is not written plainly,
    and lines that are no plain ids, as `find_form` knows them: one fault for all of them.
    """
    if not is_safe_name(split):
        return [], [_bad(root, f"split '{split}' leaves the data folder", "name a split such as train")]
    path = split_path(root, split)
    try:
        if fault := file_fault(path, root):
            return [], [fault]
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        return [], [_bad(path, f"byte {error.start} is not UTF-8", "save the file as UTF-8, e.g. iconv -f UTF-16 -t UTF-8")]
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
        if wrong := root_fault(root):
            return [], [_bad(root, f"{wrong[0]} ({path}: no such file)", wrong[1])]
        others = ", ".join(sorted(other.stem for other in path.parent.glob("[!.]*.txt")))
        remedy = "prepare the data (python scripts/prepare_data.py --help), or set data.root"
        return [], [_bad(path, "no such file", f"the splits there are {others}" if others else remedy)]
    named = {number: name for number, name in enumerate(map(str.strip, lines), 1) if name}
    exists = _picture_test(root)
    form = find_form(named, exists)
    faults = [_form_fault(path, named, form)] if form else []
    ids = dict[str, int]()
    for number, name in named.items():
        if form and (number in form.ids or number in form.others):
            continue
        if name in ids:
            faults.append(_bad(path, f"line {number}: '{name}' stands in line {ids[name]} already", "remove one"))
        elif wrong := _id_fault(name, exists):
            faults.append(_bad(path, f"line {number}: '{name}' {wrong[0]}", wrong[1]))
        else:
            ids[name] = number
    if not ids and not faults:
        faults.append(_bad(path, "no ids in it", "list one picture id per line"))
    return list(ids), faults


def _id_fault(name: str, exists: Callable[[str], bool]) -> tuple[str, str] | None:
    """What is wrong with an id as such, and the cure. Names of files may hold spaces of other widths, joiners and the like."""
    hidden, visible = invisible(name), without_invisible(name)
    if name.startswith("#") and not exists(name):
        return "is a comment, or an id without a picture", "remove the line"
    if hidden and not (all(unicodedata.category(c) in ("Zs", "Cf") or c.isprintable() for c in name) and exists(name)):
        return f"holds {hidden}, which cannot be seen", f"write '{visible}'"
    if not is_safe_name(visible):
        return "leaves the data folder", "list plain ids"
    if name != (plain := PurePosixPath(name).as_posix()):
        return "is not written plainly", f"write '{plain}'"
    return None


def _form_fault(path: Path, lines: dict[int, str], form: Form) -> UserError:
    number, name = next(iter(form.ids.items()))
    count, beside = len(form.ids) + len(form.others), ", ".join(form.beside)
    found = f"{count} of {len(lines)} lines are no plain ids ({beside}), as line {number}: '{lines[number]}'"
    command = mending_command(path, lines, form)
    remedy = f"write one id a line, without folder and suffix, here '{name}'" + (f": {command}" if command else "")
    return _bad(path, found, remedy)


def _picture_test(root: Path) -> Callable[[str], bool]:
    """Whether there is a file for the picture of an id; folders are read once."""
    listing = cache(_listing)

    def exists(name: str) -> bool:
        path = root / "JPEGImages" / name
        inside = not name.startswith("/") and ".." not in name.split("/") and "\0" not in name
        return inside and path.name in listing(path.parent)

    return exists


def names_a_picture(root: Path, path: Path) -> bool:
    """Whether a text file holds the id of a picture, in whatever form."""
    exists, lines = _picture_test(root), path.read_bytes().decode("utf-8-sig", "replace").splitlines()
    named = {number: name for number, name in enumerate(map(str.strip, lines), 1) if name}
    return any(map(exists, named.values())) or find_form(named, exists) is not None


def find_pictures(root: Path, ids: Sequence[str]) -> tuple[dict[str, Path], list[UserError]]:
    """The picture of each id that has one, whatever its suffix, and the faults of pictures and masks as files.

    These are: a folder or a file that is missing, two pictures of one id, and what `file_fault` says. No file is opened.
    """
    pictures, faults, listing, folded = dict[str, Path](), list[UserError](), cache(_listing), cache(_folded)
    inside = cache(lambda folder: is_inside(folder, root))
    for kind, folder in (("picture", root / "JPEGImages"), ("mask", root / "SegmentationClass")):
        if not folder.is_dir():
            faults.append(_bad(folder, "no such folder", f"put the {kind}s there, or set data.root"))
            continue
        if not inside(folder):
            faults.append(_outside(folder))
            continue
        for name in ids:
            path = folder / f"{name}.{'jpg' if kind == 'picture' else 'png'}"
            found = [n for n in listing(path.parent).get(path.stem, []) if kind == "picture" or n == path.name]
            if not found:
                faults.append(_missing(path, kind, folder, folded))
                continue
            file = path.with_name(found[0])
            if kind == "picture":
                pictures[name] = file
            plain = file.is_file() and not file.is_symlink() and inside(file.parent)
            if not plain and (fault := file_fault(file, root)):
                faults.append(fault)
            if len(found) > 1:
                faults.append(_bad(path.with_name(found[1]), f"has the id of {found[0]} too", "remove or rename one of them"))
    return pictures, faults


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
        return []


def _listing(folder: Path) -> dict[str, list[str]]:
    """What has a picture's suffix in a folder, by its name without the suffix."""
    by_stem = defaultdict[str, list[str]](list)
    for name in _names_in(folder):
        if has_picture_suffix(name):
            by_stem[os.path.splitext(name)[0]].append(name)
    return by_stem


def _fold(name: str) -> str:
    """What two names have in common that differ only in case, in Unicode's form or in what cannot be seen."""
    stem, suffix = os.path.splitext(name)
    return without_invisible(unicodedata.normalize("NFC", f"{stem.strip()}{suffix}")).casefold()


class _Folded(NamedTuple):
    """The names in a folder by what they have in common with those that differ as `_fold` says."""

    whole: dict[str, str]
    stems: dict[str, str]  # of what is, or looks like, a picture: by its name without the suffix


def _folded(folder: Path) -> _Folded:
    names = _names_in(folder)
    pictures = [name for name in names if has_picture_suffix(name) or has_foreign_suffix(name)]
    return _Folded({_fold(name): name for name in names}, {_fold(os.path.splitext(name)[0]): name for name in pictures})


def _missing(path: Path, kind: str, folder: Path, folded: Callable[[Path], _Folded]) -> UserError:
    """The fault of a file that is not there; it names the one that was probably meant."""
    place = folder
    for part in path.relative_to(folder).parts[:-1]:
        place /= folded(place).whole.get(_fold(part), part)
    there = folded(place)
    name = there.whole.get(_fold(path.name)) or there.stems.get(_fold(path.stem)) or there.whole.get(_fold(path.stem))
    near = place / (name or "")
    if not name or near.is_dir():
        return _bad(path, f"{kind} is missing", "restore it, or remove its id from the split")
    suffix = os.path.splitext(without_invisible(name))[1].lower()
    unread = kind == "picture" and not has_picture_suffix(f"name{suffix}")
    if unread and suffix and name != path.stem:
        found, remedy = "which is not read", "convert it to JPEG or PNG"
    elif unread or (name == path.stem and not has_picture_suffix(name)):
        found, remedy = "without a suffix", f"give it the suffix of its format, such as {path.suffix}"
    elif name == path.stem:
        found, remedy = "with a suffix in its id", "list ids without a suffix"
    elif suffix == path.suffix or kind == "picture":
        found, remedy = _difference(near.relative_to(folder), path.relative_to(folder)), "rename it, or correct the id"
    else:
        found, remedy = "which is no PNG", "save masks as PNG; JPEG changes the ids"
    return _bad(path, f"{kind} is missing; only {near.relative_to(folder)} is there, {found}", remedy)


def _difference(near: Path, path: Path) -> str:
    visible = without_invisible(near.name)
    if visible != near.name or Path(visible).stem.strip() != near.stem:
        return "which differs in spaces or invisible characters"
    there, meant = (str(name.with_suffix("")) for name in (near, path))
    same = unicodedata.normalize("NFC", there) == unicodedata.normalize("NFC", meant) and there != meant
    return "whose name is in another Unicode form" if same else "which differs in case"


def _outside(path: Path) -> UserError:
    found = f"is a link out of the data folder, to {os.path.realpath(path)}"
    return _bad(path, found, "copy it into the data folder, or set data.root to a folder that holds both")


def file_fault(path: Path, root: Path) -> UserError | None:
    """Why a file of the data folder is not opened: it lies elsewhere, or is a folder, a pipe, a device."""
    if not is_inside(path, root):
        return _outside(path)
    if path.is_symlink() and not path.exists():
        return _bad(path, "is a link to nothing", "restore what it links to")
    if path.exists() and not path.is_file():
        return _bad(path, "not a file" + (" but a folder" if path.is_dir() else ""), "put a file in its place")
    return None


_CURED_TOGETHER = ("a mask in mode ", "is a link out of the data folder")  # so begin the faults of many files with one cure


def merge_alike(faults: Sequence[UserError], place: Callable[[UserError], Path]) -> list[UserError]:
    """`faults`, where those of one kind with one cure and one place, such as their split, are one line with a count."""
    alike = defaultdict[tuple[str, Path | None], list[UserError]](list)
    for number, fault in enumerate(faults):
        kind = next((start for start in _CURED_TOGETHER if fault.found.startswith(start)), None)
        alike[(kind, place(fault)) if kind else (str(number), None)].append(fault)
    return [_merged(group, where) if where and group[1:] else group[0] for (_, where), group in alike.items()]


def _merged(faults: Sequence[UserError], where: Path) -> UserError:
    first = faults[0]
    return UserError(first.code, where, f"{len(faults)} files, such as {first.path}: {first.found}", first.remedy)


def _bad(path: Path, found: str, remedy: str) -> UserError:
    return UserError(ExitCode.DATA, path, found, remedy)


def write_classes(root: Path, classes: ClassSet) -> None:
    """What the ids mean, for those who name the folder instead of a configuration."""
    path = root / "classes.yaml"
    if not path.exists():
        write_text(path, f"names: {json.dumps(classes.names)}\ncolors: {json.dumps(classes.colors)}\n")


def picture_path(root: Path, sample_id: str, suffix: str = ".jpg") -> Path:
    return root / "JPEGImages" / f"{sample_id}{suffix}"
