"""All faults of a dataset at once, by the rules of training and evaluation, and the classes in its masks."""

from __future__ import annotations

import hashlib
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

from segnet.classes import IGNORE_INDEX, ClassSet
from segnet.config.data_folder import root_fault
from segnet.config.sections import RGB, Bands
from segnet.data.images import open_raster
from segnet.data.label_faults import label_faults, label_warnings
from segnet.data.layout import mask_path, masks_folder, split_path
from segnet.data.listing import is_hidden
from segnet.data.mask_files import open_mask, open_palette
from segnet.data.palettes import Rules, palette_means_colors
from segnet.data.remedies import convert_command
from segnet.data.sample_files import find_pictures, size_faults
from segnet.data.split_lists import are_apart, names_a_picture, overlap_faults, parse_split
from segnet.data.twins import Look, difference_hash, near_twin_warnings, same_file_warnings
from segnet.system.errors import UserError, data_error
from segnet.visualization import preview

_PART_OF_DATASET = re.compile("train|val|test|fold|part|split", re.IGNORECASE)


class _Pair(NamedTuple):
    """A picture and its mask after reading. Only `faults` is set when one of them cannot be read."""

    faults: list[UserError]
    size: tuple[int, int] = (0, 0)  # height, width
    pixels: tuple[int, ...] = ()  # pixels of each label 0..255; empty: not read
    look: Look | None = None  # of the picture
    reordered: bool = False  # the palette of the mask holds the class colours in another order
    stretched: tuple[float, float] | None = None  # the range of values by which a deep picture is scaled on its own


class SplitReport(NamedTuple):
    """Sizes and classes of the sound pictures of a split."""

    name: str
    ids: tuple[str, ...]
    heights: tuple[int, float, int]  # smallest, median, largest
    widths: tuple[int, float, int]
    class_pictures: tuple[int, ...]  # number of pictures in which each class occurs
    class_pixels: tuple[int, ...]
    ignored: int  # pixels


class CheckReport(NamedTuple):
    """The result of `check_dataset`."""

    root: Path
    classes: ClassSet
    splits: list[SplitReport]
    overlaps: dict[tuple[str, str], int]  # number of pictures that two splits share
    faults: list[UserError]
    warnings: list[UserError]  # what may be intended


def list_splits(root: Path) -> list[str]:
    """The names of all splits in a data folder, without hidden files and `other_texts`. Raises UserError (data) without any."""
    folder = split_path(root, "train").parent
    names = sorted({path.stem for path in _texts(root)} - {path.stem for path in other_texts(root)})
    if not names and (fault := root_fault(root)):
        raise data_error(root, *fault)
    if not names:
        remedy = "give a folder in VOC's layout (data/README.md), or a CONFIG"
        raise data_error(folder, "no lists of splits", remedy)
    return names


def lists_that_lack(names: Sequence[str]) -> list[str]:
    """The val lists that train lists among `names` need: val for train, unless any list is of val, and val_3 for train_3."""
    needed = [name.replace("train", "val", 1) for name in names if re.fullmatch(r"train(_\d+)?", name)]
    has_val = any(name.startswith("val") for name in names)
    return [name for name in needed if name not in names and not (name == "val" and has_val)]


def other_texts(root: Path) -> list[Path]:
    """The text files beside the lists of splits that are no lists, such as classes.txt.

    These are the ones that name no picture, if another file does. A file in UTF-16, or with a name such as train2.txt,
    counts as a list, so that its faults are reported.
    """
    files = [path for path in _texts(root) if path.is_file()]
    naming = {path for path in files if names_a_picture(root, path)}
    if not naming:
        return []
    others = [path for path in files if path not in naming and not _PART_OF_DATASET.search(path.stem)]
    return [path for path in others if path.read_bytes()[:2] not in (b"\xff\xfe", b"\xfe\xff")]


def _texts(root: Path) -> list[Path]:
    """The text files, not hidden, in the folder of the lists."""
    return [path for path in sorted(split_path(root, "train").parent.glob("*.txt")) if not is_hidden(path.name)]


def check_dataset(
    root: Path,
    splits: Sequence[str],
    classes: ClassSet,
    *,
    bands: Bands = RGB,
    disjoint: Sequence[str] = (),
    train: str = "train",
) -> CheckReport:
    """Read every picture and mask of `splits`, the pictures with the channels of `bands`. `train` is the split to learn from.
    Two splits in `disjoint` share no picture, nor do those of which `are_apart` says so.

    Faults of the data are returned, not raised; of a `root` that cannot hold a dataset that fault alone. Nothing is written.
    """
    if wrong_root := root_fault(root):
        return CheckReport(root, classes, [], {}, [data_error(root, *wrong_root)], [])

    def apart(first: str, second: str) -> bool:
        return {first, second} <= set(disjoint) or are_apart(first, second)

    faults = list[UserError]()
    ids_of = dict[str, list[str]]()
    for split in dict.fromkeys(splits):
        ids_of[split], list_faults = parse_split(root, split)
        faults += list_faults
    pairs, pair_faults = _read_all(root, ids_of, classes, bands)
    faults += pair_faults
    for first, second in combinations(ids_of, 2):
        if apart(first, second):
            faults += overlap_faults(root, first, ids_of[first], second, ids_of[second])
    sound = {split: {name: pairs[name] for name in ids if name in pairs and pairs[name].pixels} for split, ids in ids_of.items()}
    seen_in = {split: _values_in(of_split.values()) for split, of_split in sound.items()}
    warnings = list[UserError]()
    for split, seen in seen_in.items():
        faults += label_faults(root, split, seen, classes, train)
        warnings += label_warnings(root, split, seen, classes, train, seen_in.get(train, set()))
        warnings += _mask_warnings(root, split, sound[split], classes)
        warnings += _scale_warnings(root, split, sound[split])
    looks = {name: pair.look for name, pair in pairs.items() if pair.look}
    warnings += same_file_warnings(root, ids_of, looks, apart) + near_twin_warnings(root, ids_of, looks, apart, train)
    reports = [_split_report(split, ids, pairs, classes) for split, ids in ids_of.items()]
    overlaps = {(a, b): len(set(ids_of[a]) & set(ids_of[b])) for a, b in combinations(ids_of, 2)}
    return CheckReport(root, classes, reports, overlaps, faults, warnings)


def _read_all(
    root: Path, ids_of: dict[str, list[str]], classes: ClassSet, bands: Bands
) -> tuple[dict[str, _Pair], list[UserError]]:
    """The pair of each id of all splits, and the faults of the files and of their content."""
    ids = list(dict.fromkeys(name for names in ids_of.values() for name in names))
    if not ids:
        return {}, []
    pictures, faults = find_pictures(root, ids)
    if not masks_folder(root).is_dir():
        return {}, faults
    spoilt = {fault.path for fault in faults}
    files = list[tuple[Path | None, Path | None]]()
    for name in ids:
        picture = pictures.get(name)
        mask = mask_path(root, name)
        files.append((None if picture is None or str(picture) in spoilt else picture, None if str(mask) in spoilt else mask))
    pairs = dict(zip(ids, _read_pairs(files, classes, bands), strict=True))
    return pairs, faults + [fault for pair in pairs.values() for fault in pair.faults]


def _values_in(pairs: Iterable[_Pair]) -> set[int]:
    """The set of all values in the masks of `pairs`."""
    return {value for pair in pairs for value, count in enumerate(pair.pixels) if count}


def _read_pairs(files: Sequence[tuple[Path | None, Path | None]], classes: ClassSet, bands: Bands) -> list[_Pair]:
    """The pairs of (picture, mask), None for a file not to open. Threads suffice: decoders release the interpreter lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pairs = pool.map(lambda both: _read_pair(both[0], both[1], classes, bands), files)
        return list(tqdm(pairs, "check", len(files), unit="picture", leave=False, disable=None))


def _read_pair(picture: Path | None, path: Path | None, classes: ClassSet, bands: Bands) -> _Pair:
    faults = list[UserError]()
    image = mask = palette = valid = stretched = None
    look = None
    try:
        if picture:
            image, valid, stretched, *_ = open_raster(picture, bands=bands)
            content = hashlib.blake2b(picture.read_bytes(), digest_size=16).digest()
            look = Look(content, difference_hash(preview(image, bands).numpy()))
    except (UserError, OSError) as error:
        faults.append(_fault(error, picture))
    try:
        if path:
            mask = open_mask(path, classes)
            palette = open_palette(path)
        if path and image is not None and mask is not None:
            faults += size_faults((image.shape[1], image.shape[2]), (mask.shape[0], mask.shape[1]), path)
    except (UserError, OSError) as error:
        faults.append(_fault(error, path))
    if faults or image is None or mask is None:
        return _Pair(faults)
    if valid is not None:
        mask = mask.where(valid, IGNORE_INDEX)
    pixels = np.bincount(mask.numpy().reshape(-1), minlength=256)
    reordered = palette is not None and _is_reordered(np.flatnonzero(pixels[: len(classes)]).tolist(), palette, classes)
    return _Pair([], (mask.shape[0], mask.shape[1]), tuple(pixels.tolist()), look, reordered, stretched)


def _is_reordered(used: list[int], palette: np.ndarray, classes: ClassSet) -> bool:
    """Whether the colours in the palette of a mask mean, or may mean, other classes than its ids."""
    if len(set(classes.colors)) < len(classes) or classes.class_of_stored:  # merged classes have other ids than the palette
        return False
    try:
        return palette_means_colors(used, palette, Rules(classes, {}, {}), Path())
    except UserError:
        return True


def _fault(error: UserError | OSError, path: Path | None) -> UserError:
    """The fault of a file that could not be read."""
    if isinstance(error, UserError):
        return error
    return data_error(path or "", (error.strerror or "cannot be read").lower(), "make it readable")


def _mask_warnings(root: Path, split: str, pairs: dict[str, _Pair], classes: ClassSet) -> list[UserError]:
    """Warnings of masks without a scored pixel, mostly of 0 and 255 or with reordered palettes, and of absent classes."""
    path = split_path(root, split)
    ignored = classes.ignore_index
    warnings = list[UserError]()
    empty = [name for name, pair in pairs.items() if pair.pixels[IGNORE_INDEX] == sum(pair.pixels)]
    if len(empty) < len(pairs):  # else it is a fault of the split
        for name in empty:
            found = f"is {ignored} everywhere, which is not scored"
            warnings.append(data_error(mask_path(root, name), found, "check whether it is finished"))
    binary = sum(_is_binary(pair) for pair in pairs.values())
    if len(pairs) // 2 < binary < len(pairs):
        found = f"{binary} of {len(pairs)} masks hold only 0 and {ignored}, which is not scored"
        warnings.append(data_error(path, found, f"see whether {ignored} means a class there"))
    reordered = [name for name, pair in pairs.items() if pair.reordered]
    if reordered:
        mask = mask_path(root, reordered[0])
        found = f"{len(reordered)} of {len(pairs)} masks show class colours in another order than their ids, such as {mask.name}"
        remedy = f"the ids count; if the colours are right: {convert_command(mask)} --classes CONFIG"
        warnings.append(data_error(path, found, remedy))
    absent = [name for k, name in enumerate(classes.names) if not any(pair.pixels[k] for pair in pairs.values())]
    if absent and pairs:
        warnings.append(data_error(path, f"no pixel of {', '.join(absent)}", "check whether this is intended"))
    return warnings


def _scale_warnings(root: Path, split: str, pairs: dict[str, _Pair]) -> list[UserError]:
    """The warning of deep pictures that are scaled by their own values, where these differ: a value then means many things."""
    ranges = {name: pair.stretched for name, pair in pairs.items() if pair.stretched}
    if len(set(ranges.values())) < 2:
        return []
    widths = {name: high - low for name, (low, high) in ranges.items()}
    extremes = (min(widths, key=widths.__getitem__), max(widths, key=widths.__getitem__))
    shown = ", ".join(f"'{name}' {ranges[name][0]:g}..{ranges[name][1]:g}" for name in extremes)
    found = f"{len(ranges)} of {len(pairs)} pictures are deeper than 8 bits, and each is scaled by its own values: {shown}"
    remedy = "set data.scale=train, so that a value means the same in all of them; data.scale=picture is the default"
    return [data_error(split_path(root, split), found, remedy)]


def _is_binary(pair: _Pair) -> bool:
    """Whether a mask holds both 0 and the ignored label, and nothing else."""
    zero, ignored = pair.pixels[0], pair.pixels[IGNORE_INDEX]
    return zero > 0 and ignored > 0 and zero + ignored == sum(pair.pixels)


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
        int(pixels[:, IGNORE_INDEX].sum()),
    )


def _range(values: Iterable[int]) -> tuple[int, float, int]:
    """Smallest, median and largest value; zeros without any."""
    known = list(values) or [0]
    return min(known), median(known), max(known)
