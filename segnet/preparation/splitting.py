"""The lists of train, val, test and of folds: balanced by class pixels, groups together, old members kept in place."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from segnet.classes import ClassSet
from segnet.data.layout import mask_path, masks_folder, pictures_folder, split_path
from segnet.data.listing import list_pictures
from segnet.data.mask_files import open_mask
from segnet.data.sample_files import find_pictures, merge_alike
from segnet.data.split_lists import SHOWN, are_apart, overlap_faults, parse_split
from segnet.system.errors import UserError, config_error, data_error, raise_first
from segnet.system.files import make_folder, write_text

ALL = "all"  # the list of the pictures to divide, if there is one
STATE = "split.json"  # beside the lists: those that this command wrote, and with which options
REST = ""  # the pictures outside of test, where only folds and test are asked for; not written
_FOLD = re.compile(r"(?:train|val)_(\d+)")
Existing = Literal["extend", "keep", "overwrite"]


class SplitOptions(NamedTuple):
    """What is asked for. `val` and `test` are shares of the pictures, 0 for none; `folds` is 0 or at least 2."""

    val: float
    test: float
    folds: int
    group: str | None  # a regular expression, or "folder"; None: every picture is a group of its own
    seed: int


class Pool(NamedTuple):
    """The N pictures to divide."""

    ids: list[str]
    pixels: NDArray[np.int64]  # (N, K) pixels of each class
    groups: list[str]  # the name of each picture's group


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
    wanted = _settings(options)
    old = _old_lists(root, wanted, ids, existing)
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
    _write_lists(root, lists, wanted)
    for path in _surplus_folds(root, options.folds):  # with "overwrite" alone: the others refuse them
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


# ---------------------------------------------------------------------------------------------------------------------
# Lists that are there
# ---------------------------------------------------------------------------------------------------------------------


def _settings(options: SplitOptions) -> dict[str, dict[str, object]]:
    """The lists to write, each with the options that it depends on."""
    common: dict[str, object] = {"group": options.group, "seed": options.seed}
    shares = {"val": options.val, "test": options.test, **common}
    names = [*(("train", "val") if options.val else ()), *(("test",) if options.test else ())]
    folds = [f"{split}_{fold}" for fold in range(options.folds) for split in ("train", "val")]
    return dict.fromkeys(names, shares) | {name: {"folds": options.folds, **common} for name in folds}


def _old_lists(
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
    if existing != "overwrite" and (surplus := _surplus_folds(root, folds)):
        raise config_error(surplus[0], f"is a list of more than {folds} folds", "begin anew with --overwrite, which removes it")
    for first, second in combinations(old, 2):
        if _is_apart(first, second):
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


def _surplus_folds(root: Path, folds: int) -> list[Path]:
    """The lists of folds from number `folds` on; none where no folds are asked for."""
    found = sorted(split_path(root, ALL).parent.glob("*.txt")) if folds else []
    return [path for path in found if (match := _FOLD.fullmatch(path.stem)) and int(match[1]) >= folds]


def _is_apart(first: str, second: str) -> bool:
    """Whether two lists to write share no picture."""
    return are_apart(first, second) or (first.startswith("val_") and second.startswith("val_"))


def _as_options(settings: Mapping[str, object]) -> str:
    return " ".join(f"--{key} {value}" for key, value in settings.items() if value not in (None, 0, 0.0) or key == "seed")


def _read_state(root: Path) -> dict[str, dict[str, object]]:
    """The lists that this command wrote, with their options; none where there is no such file, or it is damaged."""
    try:
        state = json.loads((split_path(root, ALL).parent / STATE).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {key: value for key, value in state.items() if isinstance(value, dict)} if isinstance(state, dict) else {}


def _write_lists(root: Path, lists: Mapping[str, Sequence[str]], wanted: Mapping[str, Mapping[str, object]]) -> None:
    folder = split_path(root, ALL).parent
    make_folder(folder)
    state = {**_read_state(root), **wanted}
    write_text(folder / STATE, json.dumps(state, indent=1) + "\n")  # first: a list without its entry is taken for another's
    for name, members in lists.items():
        text = "".join(f"{member}\n" for member in members)
        path = split_path(root, name)
        if not path.is_file() or path.read_bytes() != text.encode():
            write_text(path, text)


# ---------------------------------------------------------------------------------------------------------------------
# The division
# ---------------------------------------------------------------------------------------------------------------------


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
            lists[f"train_{fold}"] = _in_order(others, old.get(f"train_{fold}", ()))
            lists[f"val_{fold}"] = folds[f"val_{fold}"]
    return lists


def _in_order(members: set[str], old: Sequence[str]) -> list[str]:
    """`members`: those of the `old` list in its order, then the others, sorted."""
    kept = [name for name in old if name in members]
    return kept + sorted(members - set(kept))


def divide(pool: Pool, shares: Mapping[str, float], old: Mapping[str, Sequence[str]], seed: int) -> dict[str, list[str]]:
    """The members of each part of `shares`, which sum to 1, with about its share of every class's pixels and of the pictures.

    The members of `old` stay in their parts, and a group with an old member follows its first one. The other groups are placed
    one by one, those with the rarest class first (Sechidis et al. 2011), within a class the larger before the smaller, by
    powers of two, and then by a hash of seed and group. Each goes to the part whose lack it fills best, in the sense of
    least squares; the last groups of a class go to the parts that have none of it.
    """
    names = list(shares)
    wanted = np.array(list(shares.values()))  # (P,)
    part_of_old = {member: part for part, name in enumerate(names) for member in old.get(name, ())}
    members_of = defaultdict[str, list[int]](list)
    for row, group in enumerate(pool.groups):
        members_of[group].append(row)
    groups = sorted(members_of, key=lambda group: hashlib.sha256(f"{seed}/{group}".encode("utf-8", "surrogatepass")).digest())
    amounts = np.column_stack([pool.pixels, np.ones(len(pool.ids), np.int64)])  # (N, K + 1): the last column counts pictures
    scale = np.maximum(amounts.sum(axis=0), 1)
    lack = np.repeat(wanted[:, None], amounts.shape[1], axis=1)  # (P, K + 1), shares of the whole
    parts = dict[str, int]()  # group -> part
    lists: list[set[str]] = [set() for _ in names]

    def place(rows: Sequence[int], part: int) -> None:
        lack[part] -= amounts[rows].sum(axis=0) / scale
        lists[part].update(pool.ids[row] for row in rows)

    for group in groups:
        rows = members_of[group]
        known = [part_of_old[pool.ids[row]] for row in rows if pool.ids[row] in part_of_old]
        if known:
            parts[group] = known[0]
            for row in rows:
                place([row], part_of_old.get(pool.ids[row], known[0]))
    of_group = np.array([amounts[members_of[group]].sum(axis=0) for group in groups])  # (G, K + 1)
    for column in [*np.argsort(amounts[:, :-1].sum(axis=0), kind="stable").tolist(), amounts.shape[1] - 1]:
        waiting = [row for row, group in enumerate(groups) if group not in parts and of_group[row, column]]
        waiting.sort(key=lambda row: -math.floor(math.log2(of_group[row, column])))  # stable: equal ones stay in hash order
        for position, row in enumerate(waiting):
            share = of_group[row] / scale
            gain = (2 * lack @ share - share @ share) / wanted  # the fall of the squared lacks, relative to the part's share
            without = [part for part in range(len(names)) if lack[part, column] >= wanted[part]]
            if without and len(waiting) - position <= len(without):
                gain[[part for part in range(len(names)) if part not in without]] = -np.inf
            parts[groups[row]] = int(np.argmax(gain))
            place(members_of[groups[row]], parts[groups[row]])
    return {name: _in_order(lists[part], old.get(name, ())) for part, name in enumerate(names)}


# ---------------------------------------------------------------------------------------------------------------------
# What is said of it
# ---------------------------------------------------------------------------------------------------------------------


def _group_warnings(root: Path, group_of: Mapping[str, str], lists: Mapping[str, Sequence[str]]) -> list[UserError]:
    """Warnings of groups that old lists divide."""
    warnings = []
    for first, second in combinations([name for name in lists if not name.startswith("train_")], 2):
        of_first, of_second = ({group_of[name] for name in lists[split] if name in group_of} for split in (first, second))
        common = sorted(of_first & of_second)
        if common and _is_apart(first, second):
            named = ", ".join(common[:3]) + (", …" if common[3:] else "")
            found = f"{len(common)} groups are in {first} as well, where the old lists have them: {named}"
            warnings.append(data_error(split_path(root, second), found, "begin anew with --overwrite"))
    return warnings


def _class_warnings(root: Path, pool: Pool, lists: Mapping[str, Sequence[str]], classes: ClassSet) -> list[UserError]:
    """Warnings of classes without a pixel in one of the lists, or in all."""
    everywhere = pool.pixels.sum(axis=0)
    warnings = []
    if absent := [name for name, pixels in zip(classes.names, everywhere, strict=True) if not pixels]:
        warnings.append(data_error(root, f"no mask has a pixel of {', '.join(absent)}", "see whether that is so"))
    for split, members in lists.items():
        pixels = pixels_of(pool, members)
        missing = [name for k, name in enumerate(classes.names) if everywhere[k] and not pixels[k]]
        if missing:
            groups = {k: len({g for g, row in zip(pool.groups, pool.pixels, strict=True) if row[k]}) for k in range(len(classes))}
            counts = ", ".join(f"{name} (in {groups[classes.names.index(name)]} groups)" for name in missing)
            warnings.append(data_error(split_path(root, split), f"no pixel of {counts}", "label more pictures that show it"))
    return warnings


def pixels_of(pool: Pool, members: Sequence[str]) -> NDArray[np.int64]:
    """(K,) pixels of each class in the pictures `members`."""
    chosen = set(members)
    pixels: NDArray[np.int64] = pool.pixels[[row for row, name in enumerate(pool.ids) if name in chosen]].sum(axis=0)
    return pixels


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
