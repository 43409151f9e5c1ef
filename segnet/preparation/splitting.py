"""The lists of train, val, test and of folds of a data folder, and what is said of them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from segnet.classes import ClassSet
from segnet.data.layout import ALL, mask_path, masks_folder, pictures_folder, split_path
from segnet.data.listing import list_pictures
from segnet.data.mask_files import open_mask
from segnet.data.sample_files import find_pictures, merge_alike
from segnet.data.split_lists import SHOWN, parse_split
from segnet.preparation.division import Pool, divide, in_order, pixels_of
from segnet.preparation.written_lists import (
    Existing,
    SplitOptions,
    is_apart,
    old_lists,
    settings,
    surplus_folds,
    write_lists,
)
from segnet.system.errors import UserError, config_error, data_error, raise_first

REST = ""  # the pictures outside of test, where only folds and test are asked for; not written


class SplitLists(NamedTuple):
    """The result of `split_dataset`."""

    pool: Pool
    lists: dict[str, list[str]]  # by the name of the split
    added: dict[str, int]  # pictures that the list on disk did not have before
    held_out: int  # pictures of a test list that stays as it is
    warnings: list[UserError]


def split_dataset(root: Path, classes: ClassSet, options: SplitOptions, existing: Existing = "extend") -> SplitLists:
    """Divide the pictures of a data folder and write the lists. The same pictures and options give the same lists.

    The pictures are those of the list `ALL`, else all that have a mask, without those of a test list that is not asked for.
    `existing` says what becomes of lists that are there:
    "extend" keeps their members and adds the pictures that none has, where this command wrote them with the same options;
    "keep" does so for all lists; "overwrite" ignores them.
    Raises UserError, and writes nothing: (data) for faults of pictures, masks and lists, and where a list would be empty,
    (config) for a group that a name does not tell, and for lists that "extend" may not change.
    """
    ids, warnings = _ids_to_divide(root)
    wanted = settings(options)
    old = old_lists(root, wanted, ids, existing)
    group_of = dict(zip(ids, group_names(ids, options.group), strict=True))
    held_out = [] if "test" in wanted else old.pop("test", [])
    ids = sorted(set(ids) - set(held_out))
    _, faults = find_pictures(root, ids)
    raise_first(faults, limit=SHOWN)
    pool = Pool(ids, _count_pixels(root, ids, classes), [group_of[name] for name in ids])
    lists = _divide_all(pool, options, old)
    for name, members in lists.items():
        if not members:
            found = f"no picture is left for it: {len(set(pool.groups))} groups for {len(lists)} lists"
            raise data_error(split_path(root, name), found, "give more pictures, larger shares or smaller groups")
    warnings += _group_warnings(root, group_of, {"test": held_out, **lists}) + _class_warnings(root, pool, lists, classes)
    added = {name: len(set(members) - set(old.get(name, ()))) for name, members in lists.items()}
    write_lists(root, lists, wanted)
    for path in surplus_folds(root, options.folds):  # with "overwrite" alone: the others refuse them
        path.unlink()
    return SplitLists(pool, lists, added, len(held_out), warnings)


def _ids_to_divide(root: Path) -> tuple[list[str], list[UserError]]:
    """The ids, sorted, and warnings of pictures and masks that have no partner. Raises UserError (data) without any id."""
    if os.path.lexists(split_path(root, ALL)):
        ids, faults = parse_split(root, ALL)
        raise_first(faults, limit=SHOWN)
        return sorted(ids), []
    folders = (pictures_folder(root), masks_folder(root))
    for folder, what in zip(folders, ("pictures", "masks"), strict=True):
        if not folder.is_dir():
            raise data_error(folder, "no such folder", f"put the {what} there")
    pictures, masks = ({_id_of(path, folder) for path in list_pictures(folder).pictures} for folder in folders)
    warnings = []
    for folder, alone, lacks in ((folders[0], pictures - masks, "mask"), (folders[1], masks - pictures, "picture")):
        if alone:
            named = ", ".join(sorted(alone)[:3]) + (", …" if len(alone) > 3 else "")
            warnings.append(data_error(folder, f"{len(alone)} files have no {lacks} and are in no list: {named}"))
    if not pictures & masks:
        _, faults = find_pictures(root, sorted(pictures))  # they name the files that were probably meant
        raise_first(merge_alike(faults, lambda _: folders[1]), limit=SHOWN)
        raise data_error(folders[0], "no pictures in it", "put the pictures there")
    return sorted(pictures & masks), warnings


def _id_of(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def group_names(ids: Sequence[str], group: str | None) -> list[str]:
    """The group of each id: the first group of the regular expression `group`, or its whole match; "folder": the id's folder.

    Raises UserError (config) for a pattern that is none, and for ids that it does not match.
    """
    where = f"--group {group}"
    if group is None:
        return list(ids)
    if group == "folder":
        if not any("/" in name for name in ids):
            raise config_error(where, "no picture lies in a folder of its own", "give a regular expression of the ids")
        return [str(PurePosixPath(name).parent) for name in ids]
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise config_error(where, f"not a regular expression ({error})", r"write e.g. --group '^(.*?)\d+$'") from None
    matches = [pattern.search(name) for name in ids]
    unmatched = [name for name, match in zip(ids, matches, strict=True) if not match]
    if unmatched:
        named = ", ".join(f"'{name}'" for name in unmatched[:3])
        raise config_error(where, f"does not match {len(unmatched)} of {len(ids)} ids: {named}", "every picture needs a group")
    return [(match[1] if pattern.groups and match[1] is not None else match[0]) for match in matches if match]


def _count_pixels(root: Path, ids: Sequence[str], classes: ClassSet) -> NDArray[np.int64]:
    """(N, K) pixels of each class. Raises UserError (data) with the faults of the masks."""

    def count(name: str) -> NDArray[np.int64] | UserError:
        try:
            mask = open_mask(mask_path(root, name), classes)
        except UserError as error:
            return error
        return np.bincount(mask.numpy().reshape(-1), minlength=256)[: len(classes)]

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding releases the interpreter's lock
        counted = list(tqdm(pool.map(count, ids), "masks", len(ids), unit="mask", leave=False, disable=None))
    raise_first([found for found in counted if isinstance(found, UserError)], limit=SHOWN)
    return np.array(counted, dtype=np.int64).reshape(len(ids), len(classes))


def _divide_all(pool: Pool, options: SplitOptions, old: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The members of every list: the old ones in their order, then the new ones, sorted."""
    lists = dict[str, list[str]]()
    if options.val or options.test:
        rest = 1 - options.val - options.test
        shares = {"train": rest, "val": options.val} if options.val else {REST: rest}
        if options.test:
            shares["test"] = options.test
        lists |= divide(pool, shares, old, options.seed)
        lists.pop(REST, None)
    if options.folds:
        test = set(lists.get("test", ()))
        rows = [row for row, name in enumerate(pool.ids) if name not in test]
        outside = Pool([pool.ids[row] for row in rows], pool.pixels[rows], [pool.groups[row] for row in rows])
        folds = divide(outside, {f"val_{fold}": 1 / options.folds for fold in range(options.folds)}, old, options.seed)
        for fold in range(options.folds):
            others = {name for other, members in folds.items() if other != f"val_{fold}" for name in members}
            lists[f"train_{fold}"] = in_order(others, old.get(f"train_{fold}", ()))
            lists[f"val_{fold}"] = folds[f"val_{fold}"]
    return lists


def _group_warnings(root: Path, group_of: Mapping[str, str], lists: Mapping[str, Sequence[str]]) -> list[UserError]:
    """Warnings of groups that old lists divide."""
    warnings = []
    for first, second in combinations([name for name in lists if not name.startswith("train_")], 2):
        of_first, of_second = ({group_of[name] for name in lists[split] if name in group_of} for split in (first, second))
        common = sorted(of_first & of_second)
        if common and is_apart(first, second):
            named = ", ".join(common[:3]) + (", …" if common[3:] else "")
            found = f"{len(common)} groups are in {first} as well, where the old lists have them: {named}"
            warnings.append(data_error(split_path(root, second), found, "begin anew with --overwrite"))
    return warnings


def _class_warnings(root: Path, pool: Pool, lists: Mapping[str, Sequence[str]], classes: ClassSet) -> list[UserError]:
    """Warnings of classes without a pixel in one of the lists, or in all."""
    everywhere = pool.pixels.sum(axis=0)
    warnings = []
    if absent := [name for name, pixels in zip(classes.names, everywhere, strict=True) if not pixels]:
        warnings.append(data_error(root, f"no mask has a pixel of {', '.join(absent)}", "check whether this is intended"))
    for split, members in lists.items():
        pixels = pixels_of(pool, members)
        missing = [name for k, name in enumerate(classes.names) if everywhere[k] and not pixels[k]]
        if missing:
            groups = {k: len({g for g, row in zip(pool.groups, pool.pixels, strict=True) if row[k]}) for k in range(len(classes))}
            counts = ", ".join(f"{name} (in {groups[classes.names.index(name)]} groups)" for name in missing)
            warnings.append(data_error(split_path(root, split), f"no pixel of {counts}", "label more pictures that show it"))
    return warnings


def split_table(result: SplitLists, classes: ClassSet) -> str:
    """A table for people: pictures and groups of each list, and the share of each class in its pixels. "–": no pixel.

    The train lists of folds are left out: each is the union of the other folds.
    """
    pool = result.pool
    group_of = dict(zip(pool.ids, pool.groups, strict=True))
    lists = {"all": pool.ids} | {name: members for name, members in result.lists.items() if not name.startswith("train_")}
    width = max(8, *map(len, classes.names))
    cell = max(8, *map(len, lists))

    def line(title: str, cells: Sequence[str]) -> str:
        return f"{title:<{width}}" + "".join(f"  {text:>{cell}}" for text in cells)

    lines = [line("", list(lists)), line("pictures", [f"{len(members):,}" for members in lists.values()])]
    if pool.groups != pool.ids:
        lines.append(line("groups", [f"{len({group_of[name] for name in members}):,}" for members in lists.values()]))
    pixels = [pixels_of(pool, members) for members in lists.values()]
    for k, name in enumerate(classes.names):
        lines.append(line(name, [f"{100 * of_list[k] / of_list.sum():.2f}%" if of_list[k] else "–" for of_list in pixels]))
    return "\n".join(lines)
