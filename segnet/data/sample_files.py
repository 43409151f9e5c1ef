"""The files of a dataset: the picture and the mask of each id, and what is wrong with them before they are decoded."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Literal, NamedTuple

from segnet.data.layout import file_fault, link_fault, mask_path, masks_folder, picture_path, pictures_folder
from segnet.data.listing import has_foreign_suffix, has_picture_suffix, names_by_stem, names_in
from segnet.data.remedies import rename_command
from segnet.data.split_forms import without_invisible
from segnet.system.errors import UserError, data_error
from segnet.system.files import is_inside

Kind = Literal["picture", "mask"]


def find_pictures(root: Path, ids: Sequence[str]) -> tuple[dict[str, Path], list[UserError]]:
    """The picture of each id that has one, whatever its suffix, and the faults of pictures and masks as files.

    The faults: a folder or a file that is missing, two pictures of one id, and those of `file_fault`. No file is opened.
    """
    pictures, faults = find_unlabelled_pictures(root, ids)
    _, mask_faults = _Search("mask", root).find_all(ids)
    return pictures, faults + mask_faults


def find_unlabelled_pictures(root: Path, ids: Sequence[str]) -> tuple[dict[str, Path], list[UserError]]:
    """`find_pictures` of a dataset without masks."""
    return _Search("picture", root).find_all(ids)


class _Search:
    """A search for the pictures or for the masks of a dataset. Each folder is read once."""

    def __init__(self, kind: Kind, root: Path) -> None:
        self.kind = kind
        self.root = root
        self.folder = pictures_folder(root) if kind == "picture" else masks_folder(root)
        self._names_by_stem = cache(names_by_stem)
        self._similar_names = cache(_read_similar_names)
        self._is_inside = cache(partial(is_inside, folder=root))

    def find_all(self, ids: Sequence[str]) -> tuple[dict[str, Path], list[UserError]]:
        """The file of each id that has one, and the faults."""
        if not self.folder.is_dir():
            return {}, [data_error(self.folder, "no such folder", f"put the {self.kind}s there, or set data.root")]
        if not self._is_inside(self.folder):
            return {}, [link_fault(self.folder)]
        files, faults = dict[str, Path](), list[UserError]()
        for name in ids:
            expected = picture_path(self.root, name) if self.kind == "picture" else mask_path(self.root, name)
            names = self._names_of(expected)
            if not names:
                faults.append(_missing_fault(expected, self.kind, self.folder, self._similar_names))
                continue
            files[name] = expected.with_name(names[0])
            faults += self._faults_of(files[name])
            if len(names) > 1:
                found = f"has the id of {names[0]} too"
                faults.append(data_error(expected.with_name(names[1]), found, "remove or rename one of them"))
        return files, faults

    def _names_of(self, expected: Path) -> list[str]:
        """The names of the files that an id may mean: a picture may have any suffix of a picture."""
        names = self._names_by_stem(expected.parent).get(expected.stem, [])
        return names if self.kind == "picture" else [name for name in names if name == expected.name]

    def _faults_of(self, file: Path) -> list[UserError]:
        if file.is_file() and not file.is_symlink() and self._is_inside(file.parent):
            return []
        fault = file_fault(file, self.root)
        return [fault] if fault else []


_BEFORE_A_WORD = re.compile(r"[-_. ](?=[A-Za-z])")


class _SimilarNames(NamedTuple):
    """The names in a folder by their folded form, in which names that people confuse are equal."""

    whole: dict[str, str]
    stems: dict[str, str]  # of files with the suffix of a picture, read or not: by the name without the suffix
    longer: dict[str, list[str]]  # of the same files: by every beginning that a separator and a word follow, as x of x_mask.png


def _read_similar_names(folder: Path) -> _SimilarNames:
    names = names_in(folder)
    pictures = [name for name in names if has_picture_suffix(name) or has_foreign_suffix(name)]
    stems = {_fold(os.path.splitext(name)[0]): name for name in pictures}
    longer = defaultdict[str, list[str]](list)
    for name in pictures:
        for separator in _BEFORE_A_WORD.finditer(os.path.splitext(name)[0]):
            longer[name[: separator.start()]].append(name)
    return _SimilarNames({_fold(name): name for name in names}, stems, longer)


def _fold(name: str) -> str:
    """A form that is equal for names that differ only in case, in Unicode's form or in invisible characters."""
    stem, suffix = os.path.splitext(name)
    return without_invisible(unicodedata.normalize("NFC", f"{stem.strip()}{suffix}")).casefold()


def _missing_fault(path: Path, kind: Kind, folder: Path, similar_names: Callable[[Path], _SimilarNames]) -> UserError:
    """The fault of a file that is missing. It names the file that was probably meant, where there is one."""
    place = folder
    for part in path.relative_to(folder).parts[:-1]:
        place /= similar_names(place).whole.get(_fold(part), part)
    there = similar_names(place)
    name = there.whole.get(_fold(path.name)) or there.stems.get(_fold(path.stem)) or there.whole.get(_fold(path.stem))
    near = place / (name or "")
    longer = there.longer.get(path.stem, [])
    if not name and len(longer) == 1:
        ending = longer[0][len(path.stem) :]
        found = f"{kind} is missing; only {longer[0]} is there, whose name goes on with '{Path(ending).stem}'"
        return data_error(path, found, rename_command(place, ending))
    if not name or near.is_dir():
        return data_error(path, f"{kind} is missing", "restore it, or remove its id from the split")
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
    return data_error(path, f"{kind} is missing; only {near.relative_to(folder)} is there, {found}", remedy)


def _difference(near: Path, path: Path) -> str:
    """A description of the difference between two names with the same folded form."""
    visible = without_invisible(near.name)
    if visible != near.name or Path(visible).stem.strip() != near.stem:
        return "which differs in spaces or invisible characters"
    there, meant = (str(name.with_suffix("")) for name in (near, path))
    same = unicodedata.normalize("NFC", there) == unicodedata.normalize("NFC", meant) and there != meant
    return "whose name is in another Unicode form" if same else "which differs in case"


def size_faults(picture: tuple[int, int], mask: tuple[int, int], path: Path) -> list[UserError]:
    """The fault of a picture and its mask, the file at `path`, whose sizes (height, width) differ."""
    if picture == mask:
        return []
    found = f"mask {mask[1]}×{mask[0]}, picture {picture[1]}×{picture[0]} (width × height)"
    return [data_error(path, found, "make a mask of the picture's size")]


_CURED_TOGETHER = ("a mask in mode ", "is a link out of the data folder")  # the beginnings of faults that one command cures
_MANY = 4  # faults of one kind, at least, that become one
_EXAMPLES = 3


def merge_alike(faults: Sequence[UserError], place: Callable[[UserError], Path]) -> list[UserError]:
    """`faults`, with those of one kind, one cure and one `place`, such as a split, merged into one with a count and examples.

    Of one kind are faults whose texts differ in numbers, quoted words and the names of their own files alone. Fewer than four
    stay as they are, unless one command cures them.
    """
    alike = defaultdict[tuple[object, Path], list[UserError]](list)
    for fault in faults:
        alike[_kind_of(fault), place(fault)].append(fault)
    merged = list[UserError]()
    for (kind, where), group in alike.items():
        many = len(group) >= (2 if kind in _CURED_TOGETHER else _MANY)
        merged += [_merged(group, where)] if many else group
    return merged


def _kind_of(fault: UserError) -> object:
    """What is equal for faults of one cause: the words of both texts, each once."""
    if start := next((start for start in _CURED_TOGETHER if fault.found.startswith(start)), None):
        return start
    own = re.compile(rf"'[^']*'|{re.escape(Path(fault.path).stem)}", re.IGNORECASE)
    return tuple(tuple(dict.fromkeys(re.findall(r"[^\W\d_]+", own.sub("", text)))) for text in (fault.found, fault.remedy))


def _merged(faults: Sequence[UserError], where: Path) -> UserError:
    first = faults[0]
    paths = list(dict.fromkeys(fault.path for fault in faults))
    if len(paths) == 1:
        shown = "; ".join(fault.found for fault in faults[:_EXAMPLES])
        return UserError(first.code, where, f"{len(faults)} faults, such as {shown}", first.remedy)
    shown = ", ".join([paths[0], *(Path(path).name for path in paths[1:_EXAMPLES])])
    return UserError(first.code, where, f"{len(faults)} files, such as {shown}: {first.found}", first.remedy)
