"""Every fault of a data set at once, by the rules that training and evaluation stop at, and what its masks hold."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from segnet.classes import ClassSet
from segnet.config import root_fault
from segnet.conversion import Rules, palette_means_colors
from segnet.datasets import (
    find_pictures,
    label_faults,
    label_warnings,
    mask_path,
    merge_alike,
    names_a_picture,
    overlap_faults,
    parse_split,
    require_same_size,
    split_path,
)
from segnet.errors import ExitCode, UserError
from segnet.images import convert_command, open_image, open_mask, open_palette
from segnet.listing import is_hidden

_PART = re.compile("train|val|test|fold|part|split", re.IGNORECASE)
DISJOINT = ("train", "val", "test")  # splits by these names share no picture; others, such as trainval, may unite some


class _Pair(NamedTuple):
    """What reading a picture and its mask showed; nothing but faults when one of them cannot be read."""

    faults: list[UserError]
    size: tuple[int, int] = (0, 0)  # height, width
    pixels: tuple[int, ...] = ()  # of each label 0..255; empty: not read
    content: bytes = b""  # a digest of the picture's file
    reordered: bool = False  # the mask's palette holds the classes' colours in another order


class SplitReport(NamedTuple):
    """What the sound pictures of a split hold."""

    name: str
    ids: tuple[str, ...]
    heights: tuple[int, float, int]  # smallest, median, largest
    widths: tuple[int, float, int]
    class_pictures: tuple[int, ...]  # in how many pictures each class occurs
    class_pixels: tuple[int, ...]
    ignored: int  # pixels


class Report(NamedTuple):
    """A data set as it was found."""

    root: Path
    classes: ClassSet
    splits: list[SplitReport]
    overlaps: dict[tuple[str, str], int]  # pictures that two splits have in common
    faults: list[UserError]
    warnings: list[UserError]  # what may be meant as it is


def list_splits(root: Path) -> list[str]:
    """The names of all splits in a data folder. Raises UserError (data) when there is none.

    Hidden files are none, nor are texts of another kind, such as classes.txt: see `other_texts`.
    """
    folder = split_path(root, "train").parent
    names = sorted({path.stem for path in _texts(root)} - {path.stem for path in other_texts(root)})
    if not names and (fault := root_fault(root)):
        raise UserError(ExitCode.DATA, root, *fault)
    if not names:
        remedy = "give a folder in VOC's layout (data/README.md), or a CONFIG"
        raise UserError(ExitCode.DATA, folder, "no lists of splits", remedy)
    return names


def other_texts(root: Path) -> list[Path]:
    """The texts beside the lists of splits that name no picture in any form, while another one does.

    What is called after a part of a data set, or is in UTF-16, is a list all the same.
    """
    texts = _texts(root)
    naming = {path for path in texts if path.is_file() and names_a_picture(root, path)}
    others = [path for path in texts if path.is_file() and path not in naming and not _PART.search(path.stem)]
    return [path for path in others if path.read_bytes()[:2] not in (b"\xff\xfe", b"\xfe\xff")] if naming else []


def _texts(root: Path) -> list[Path]:
    return [path for path in sorted(split_path(root, "train").parent.glob("*.txt")) if not is_hidden(path.name)]


def check_dataset(
    root: Path, splits: Sequence[str], classes: ClassSet, *, disjoint: Sequence[str] = DISJOINT, train: str = "train"
) -> Report:
    """Read every picture and mask of some splits, of which `train` is learnt from. Two in `disjoint` must not share a picture.

    Nothing is written, and nothing raised for a fault of the data.
    """
    faults, warnings = list[UserError](), list[UserError]()
    ids_of = dict[str, list[str]]()
    for split in dict.fromkeys(splits):
        ids_of[split], found = parse_split(root, split)
        faults += found
    ids = list(dict.fromkeys(name for names in ids_of.values() for name in names))
    pictures, found = find_pictures(root, ids) if ids else ({}, [])
    faults += found
    spoilt = {fault.path for fault in found}
    files = [[path if path and str(path) not in spoilt else None for path in (pictures.get(n), mask_path(root, n))] for n in ids]
    pairs = dict(zip(ids, _read_pairs(files, classes), strict=True)) if (root / "SegmentationClass").is_dir() else {}
    for pair in pairs.values():
        faults += pair.faults
    for first, second in combinations(ids_of, 2):
        if {first, second} <= set(disjoint):
            faults += overlap_faults(root, first, ids_of[first], second, ids_of[second])
    sound = {name: pair for name, pair in pairs.items() if pair.pixels}
    seen_in = {
        split: {k for n in names if n in sound for k, count in enumerate(sound[n].pixels) if count}
        for split, names in ids_of.items()
    }
    for split, names in ids_of.items():
        faults += label_faults(root, split, seen_in[split], classes, train)
        warnings += label_warnings(root, split, seen_in[split], classes, train, seen_in.get(train, set()))
        warnings += _mask_warnings(root, split, {name: sound[name] for name in names if name in sound}, classes)
    warnings += _twin_warnings(root, ids_of, pairs, disjoint)
    reports = [_split_report(split, names, pairs, classes) for split, names in ids_of.items()]
    overlaps = {(a, b): len(set(ids_of[a]) & set(ids_of[b])) for a, b in combinations(ids_of, 2)}
    return Report(root, classes, reports, overlaps, faults, warnings)


def _read_pairs(files: Sequence[Sequence[Path | None]], classes: ClassSet) -> list[_Pair]:
    """Read pictures and masks, None for what is not to be opened, on all cores: decoders let go of the interpreter's lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pairs = pool.map(lambda both: _read_pair(both[0], both[1], classes), files)
        return list(tqdm(pairs, "check", len(files), unit="picture", leave=False, disable=None))


def _read_pair(picture: Path | None, path: Path | None, classes: ClassSet) -> _Pair:
    faults, image, mask, content, palette = list[UserError](), None, None, b"", None
    try:
        if picture:
            image = open_image(picture)
            content = hashlib.blake2b(picture.read_bytes(), digest_size=16).digest()
    except (UserError, OSError) as error:
        faults.append(_fault(error, picture))
    try:
        if path:
            mask = open_mask(path, classes)
            palette = open_palette(path)
        if path and image is not None and mask is not None:
            require_same_size(image, mask, path)
    except (UserError, OSError) as error:
        faults.append(_fault(error, path))
    if faults or image is None or mask is None:
        return _Pair(faults)
    pixels = np.bincount(mask.numpy().reshape(-1), minlength=256)
    reordered = palette is not None and _is_reordered(np.flatnonzero(pixels[: len(classes)]).tolist(), palette, classes)
    return _Pair([], (mask.shape[0], mask.shape[1]), tuple(pixels.tolist()), content, reordered)


def _is_reordered(used: list[int], palette: np.ndarray, classes: ClassSet) -> bool:
    """Whether the colours of a mask's palette say, or may say, other classes than its ids."""
    if len(set(classes.colors)) < len(classes):
        return False
    try:
        return palette_means_colors(used, palette, Rules(classes, {}, {}), Path())
    except UserError:
        return True


def _fault(error: UserError | OSError, path: Path | None) -> UserError:
    if isinstance(error, UserError):
        return error
    return UserError(ExitCode.DATA, path or "", (error.strerror or "cannot be read").lower(), "make it readable")


# ---------------------------------------------------------------------------------------------------------------------
# Warnings
# ---------------------------------------------------------------------------------------------------------------------


def _mask_warnings(root: Path, split: str, pairs: dict[str, _Pair], classes: ClassSet) -> list[UserError]:
    """Masks without a scored pixel, of mostly 0 and 255 or with reordered palettes, and classes that never occur."""
    warnings, ignore, path = list[UserError](), classes.ignore_index, split_path(root, split)
    empty = [name for name, pair in pairs.items() if pair.pixels[ignore] == sum(pair.pixels)]
    if empty and len(empty) < len(pairs):
        for name in empty:
            found = f"is {classes.ignore_id} everywhere, which is not scored"
            warnings.append(UserError(ExitCode.DATA, mask_path(root, name), found, "see whether it is finished"))
    binary = [p for p in pairs.values() if p.pixels[0] and p.pixels[ignore] and p.pixels[0] + p.pixels[ignore] == sum(p.pixels)]
    if len(pairs) // 2 < len(binary) < len(pairs):
        found = f"{len(binary)} of {len(pairs)} masks hold only 0 and {classes.ignore_id}, which is not scored"
        warnings.append(UserError(ExitCode.DATA, path, found, f"see whether {classes.ignore_id} means a class there"))
    reordered = [name for name, pair in pairs.items() if pair.reordered]
    if reordered:
        mask = mask_path(root, reordered[0])
        found = f"{len(reordered)} of {len(pairs)} masks show class colours in another order than their ids, such as {mask.name}"
        remedy = f"the ids count; if the colours are right: {convert_command(mask)} --classes CONFIG"
        warnings.append(UserError(ExitCode.DATA, path, found, remedy))
    absent = [name for k, name in enumerate(classes.names) if not any(pair.pixels[k] for pair in pairs.values())]
    if absent and pairs:
        warnings.append(UserError(ExitCode.DATA, path, f"no pixel of {', '.join(absent)}", "see whether that is so"))
    return warnings


def _twin_warnings(root: Path, ids_of: dict[str, list[str]], pairs: dict[str, _Pair], disjoint: Sequence[str]) -> list[UserError]:
    """Pictures of two splits that are the same file under two ids."""
    warnings, owner = list[UserError](), dict[bytes, tuple[str, str]]()
    for split, names in ids_of.items():
        for name in names:
            if split not in disjoint or name not in pairs or not pairs[name].content:
                continue
            other, twin = owner.setdefault(pairs[name].content, (split, name))
            if other != split and twin != name:
                found = f"'{name}' is the same picture as '{twin}' in {other}"
                warnings.append(UserError(ExitCode.DATA, split_path(root, split), found, "remove one of them"))
    return warnings


# ---------------------------------------------------------------------------------------------------------------------
# The report
# ---------------------------------------------------------------------------------------------------------------------


def _split_report(split: str, ids: Sequence[str], pairs: dict[str, _Pair], classes: ClassSet) -> SplitReport:
    sound = [pairs[name] for name in ids if name in pairs and pairs[name].pixels]
    pixels = np.array([pair.pixels for pair in sound], dtype=np.int64).reshape(-1, 256)
    per_class = pixels[:, : len(classes)]
    return SplitReport(
        split,
        tuple(ids),
        _range(pair.size[0] for pair in sound),
        _range(pair.size[1] for pair in sound),
        tuple((per_class > 0).sum(axis=0).tolist()),
        tuple(per_class.sum(axis=0).tolist()),
        int(pixels[:, classes.ignore_index].sum()),
    )


def _range(values: Iterable[int]) -> tuple[int, float, int]:
    known = list(values) or [0]
    return min(known), median(known), max(known)


def fault_lines(report: Report) -> list[UserError]:
    """The faults for people: those of many files with one cure are one line a split."""
    split_of = {name: split.name for split in reversed(report.splits) for name in split.ids}

    def place(fault: UserError) -> Path:
        below = Path(fault.path).relative_to(report.root).parts[1:]  # JPEGImages or SegmentationClass
        split = split_of.get(os.path.splitext("/".join(below))[0])
        return split_path(report.root, split) if split else Path(fault.path)

    return merge_alike(report.faults, place)


def report_table(report: Report) -> str:
    """The report for people: a table of each split's classes, then its sizes, its ignored pixels, and the overlaps."""
    width = max(map(len, report.classes.names))
    lines = []
    for split in report.splits:
        scored = sum(split.class_pixels)
        lines.append(f"{split.name}: {len(split.ids):,} pictures")
        if not split.ignored + scored:
            lines[-1] += ", none of which can be read"
            continue
        lines.append(f"  {'class':<{width}}  pictures           pixels   share")
        rows = zip(report.classes.names, split.class_pictures, split.class_pixels, strict=True)
        lines += [f"  {name:<{width}}  {n:>8,}  {pixels:>15,}  {_percent(pixels, scored):>6}" for name, n, pixels in rows]
        height, across = (f"{low} / {middle:g} / {high}" for low, middle, high in (split.heights, split.widths))
        lines.append(f"  height {height}, width {across} (smallest / median / largest)")
        lines.append(f"  ignored {_percent(split.ignored, split.ignored + scored)} of {split.ignored + scored:,} pixels")
    sizes = {split.name: len(split.ids) for split in report.splits}
    lines += [f"{a} and {b} share {n:,} pictures" for (a, b), n in report.overlaps.items() if sizes[a] and sizes[b]]
    return "\n".join(lines)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}%" if whole else "–"


def report_json(report: Report) -> str:
    """The report for programs: faults and warnings, and per split the same numbers as in the table."""
    splits = [
        {
            "name": split.name,
            "pictures": len(split.ids),
            "height": dict(zip(("min", "median", "max"), split.heights, strict=True)),
            "width": dict(zip(("min", "median", "max"), split.widths, strict=True)),
            "ignored": split.ignored,
            "classes": [
                {"name": name, "pictures": pictures, "pixels": pixels}
                for name, pictures, pixels in zip(report.classes.names, split.class_pictures, split.class_pixels, strict=True)
            ],
        }
        for split in report.splits
    ]
    overlaps = [{"splits": list(pair), "pictures": count} for pair, count in report.overlaps.items()]
    faults, warnings = (
        [{"path": fault.path, "found": fault.found, "remedy": fault.remedy} for fault in some]
        for some in (report.faults, report.warnings)
    )
    tree = {"root": str(report.root), "splits": splits, "overlaps": overlaps, "faults": faults, "warnings": warnings}
    return json.dumps(tree, indent=1) + "\n"
