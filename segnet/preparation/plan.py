"""What preparing a public data set consists of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from segnet.classes import ClassSet
from segnet.data.layout import read_split, split_path
from segnet.preparation.archives import Contents
from segnet.preparation.downloads import Archive
from segnet.system.errors import ExitCode, UserError

# Public sets


class Plan(NamedTuple):
    """What to make of an archive: the ids of each split, and the file that each needed member becomes."""

    splits: dict[str, list[str]]
    targets: dict[str, Path]


class PublicSet(NamedTuple):
    """A data set that is downloaded: all that is known of it beforehand, and how to read it."""

    archive: Archive
    used: str  # the folder of the archive that is read, as an expression
    classes: ClassSet
    counts: dict[str, int]  # pictures per split
    plan: Callable[[Contents, Path], Plan]
    convert: Callable[[bytes, Path], None] | None = None  # writes a mask; None: the bytes as they are
    require: Callable[[Path], None] | None = None  # raises UserError when what the set builds on is absent


class Prepared(NamedTuple):
    """The pictures of each split, and whether anything had to be done for it."""

    counts: dict[str, int]
    changed: bool


def listed(public: PublicSet, root: Path) -> dict[str, list[str]]:
    """The splits of a root that has all lists of a set, or none. Raises UserError (data) when one is another set's."""
    present = {split: read_split(root, split) for split in public.counts if split_path(root, split).exists()}
    for split, ids in present.items():
        require_count(split_path(root, split), len(ids), public.counts[split])
    return present if present.keys() == public.counts.keys() else {}


def require_count(path: Path, found: int, expected: int) -> None:
    if found != expected:
        remedy = "use the set's own archive, and a --root without another set"
        raise UserError(ExitCode.DATA, path, f"{found:,} pictures, expected {expected:,}", remedy)


def pictures_in(root: Path) -> dict[str, Path]:
    """The picture of each id that has one."""
    return {path.stem: path for path in (root / "JPEGImages").glob("[!.]*")}


def missing(root: Path, splits: dict[str, list[str]]) -> set[str]:
    """The ids that lack a picture or a mask."""
    masks = {path.stem for path in (root / "SegmentationClass").glob("[!.]*.png")}
    return {sample_id for ids in splits.values() for sample_id in ids} - (masks & pictures_in(root).keys())
