"""The description of a public dataset, and the ids that a prepared folder lists or lacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from segnet.classes import ClassSet
from segnet.data.layout import MASKS, PICTURES, split_path
from segnet.data.split_lists import read_split
from segnet.preparation.archives import Contents
from segnet.preparation.downloads import Archive
from segnet.system.errors import data_error


class Plan(NamedTuple):
    """The use of an archive for a dataset."""

    splits: dict[str, list[str]]  # ids
    targets: dict[str, Path]  # name of a member -> the file that it becomes


class PublicSet(NamedTuple):
    """A dataset that is downloaded: the facts known beforehand, and the functions that read its archive."""

    archive: Archive
    used: str  # regular expression for the folder of the archive that is read
    classes: ClassSet
    counts: dict[str, int]  # pictures per split
    plan: Callable[[Contents, Path], Plan]
    convert: Callable[[bytes, Path], None] | None = None  # writes the mask in a member to a path; None: copy the bytes
    require: Callable[[Path], None] | None = None  # raises UserError when something that the set depends on is absent


class Prepared(NamedTuple):
    """The result of a preparation."""

    counts: dict[str, int]  # pictures per split
    changed: bool  # False: the dataset was complete before


def listed_splits(public: PublicSet, root: Path) -> dict[str, list[str]]:
    """The ids of each split of a set in `root`; empty unless all its lists are there.

    Raises UserError (data) when a list has another number of ids than the set.
    """
    present = {split: read_split(root, split) for split in public.counts if split_path(root, split).exists()}
    for split, ids in present.items():
        require_count(split_path(root, split), len(ids), public.counts[split])
    return present if present.keys() == public.counts.keys() else {}


def require_count(path: Path, count: int, expected: int) -> None:
    """Raise UserError (data) unless the list at `path` has as many ids as expected."""
    if count != expected:
        remedy = "use the set's own archive, and a --root without another set"
        raise data_error(path, f"{count:,} pictures, expected {expected:,}", remedy)


def pictures_in(root: Path) -> dict[str, Path]:
    """The picture of each id that has one."""
    return {path.stem: path for path in (root / PICTURES).glob("[!.]*")}


def incomplete_ids(root: Path, splits: dict[str, list[str]]) -> set[str]:
    """The ids that lack a picture or a mask."""
    masks = {path.stem for path in (root / MASKS).glob("[!.]*.png")}
    return {sample_id for ids in splits.values() for sample_id in ids} - (masks & pictures_in(root).keys())
