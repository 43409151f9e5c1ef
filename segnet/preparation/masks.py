"""The conversion of masks of other conventions (colours, 0 and 255, other ids) to palette PNGs, exact or refused.

Masks that a lossy format or a scaling has spoilt are converted only when asked, by a threshold or to the nearest class colour.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from segnet.classes import VOC, ClassSet
from segnet.data.listing import list_pictures
from segnet.data.mask_files import Labels, encode_mask, open_labels
from segnet.data.palettes import Rules, id_of_colors, palette_means_colors, shown_colors
from segnet.data.sample_files import merge_alike
from segnet.system.errors import UserError, config_error, data_error
from segnet.system.files import atomic_write, is_inside, make_folder

_Found = TypeVar("_Found")
GREY = 48  # largest difference of R, G and B of a pixel that a lossy format may make of a grey one
_RANGE = re.compile(r"(\d+)-(\d+)")


class Moved(NamedTuple):
    """What a conversion with loss changed in a mask."""

    path: Path
    pixels: int
    moved: int  # pixels that are not exactly 0 or 255, or of no class colour


class Conversion(NamedTuple):
    """The result of converting a folder of masks."""

    written: int  # masks
    same: int  # masks whose output was there already, byte for byte
    failed: list[UserError]
    moved: tuple[Moved, ...] = ()  # one for each mask, of a conversion with loss


def parse_rules(
    classes: ClassSet | None,
    mapping: Sequence[str],
    *,
    palette: Literal["index", "color"] | None = None,
    threshold: int | None = None,
    nearest: bool = False,
) -> Rules:
    """Rules from texts such as "255=1", "1-254=1", "*=1" or "0,0,0=255". Raises UserError (config) for other texts.

    A single id counts before a range that holds it.
    """
    ranges = dict[int, int]()
    rules = Rules(classes, {}, {}, palette, threshold=threshold, nearest=nearest)
    for text in mapping:
        old, _, new = text.partition("=")
        number = int(new) if new.isascii() and new.isdecimal() else -1
        values = tuple(int(part) for part in old.split(",")) if re.fullmatch(r"\d+(,\d+,\d+)?", old, re.ASCII) else ()
        bounds = _RANGE.fullmatch(old)
        span = range(int(bounds[1]), int(bounds[2]) + 1) if bounds and int(bounds[2]) < 1 << 20 else range(0)
        if not 0 <= number <= 255 or not (values or span or old == "*"):
            remedy = "write e.g. 255=1, a range: 1-254=1, all other values: '*=1', or a colour: 0,0,0=255"
            raise config_error(f"--map {text}", "not OLD=NEW", remedy)
        twice = old == "*" and rules.others is not None
        twice = twice or (values in rules.colors if len(values) == 3 else bool(values) and values[0] in rules.ids)
        twice = twice or any(value in ranges for value in span)
        if twice:
            raise config_error(f"--map {text}", f"{old} stands there twice", "keep one of them")
        if old == "*":
            rules = rules._replace(others=number)
        elif len(values) == 3:
            rules.colors[values[0], values[1], values[2]] = number
        else:
            (rules.ids if values else ranges).update(dict.fromkeys(values or span, number))
    rules.ids.update({value: number for value, number in ranges.items() if value not in rules.ids})
    if classes and len(set(classes.colors)) < len(classes):
        raise config_error("--classes", "two classes have the same colour", "give each its own")
    if threshold is not None and (mapping or nearest or palette):
        raise config_error("--threshold", "makes ids 0 and 1 by itself", "leave out --map, --nearest and --palette")
    if nearest and not (classes or rules.colors):
        raise config_error("--nearest", "no colours to choose from", "give --classes CONFIG, or --map R,G,B=ID")
    return rules


def convert_masks(folder: Path, out: Path, rules: Rules, *, overwrite: bool = False, keep_going: bool = False) -> Conversion:
    """Convert every mask <path> below `folder` to `out`/<path>.png. The originals are not changed.

    When a mask cannot be converted by the rules, nothing is written; with `keep_going` the others are.
    Raises UserError (data) when there is no mask, (config) when one of `out` and `folder` contains the other.
    """
    if is_inside(out, folder) or is_inside(folder, out):
        raise config_error(out, f"lies in {folder} or around it", "choose another --out")
    masks = masks_in(folder)
    source_of = dict[Path, Path]()
    for path in masks:
        source_of.setdefault(path.relative_to(folder).with_suffix(".png"), path)

    def convert(path: Path) -> tuple[Path, bytes, Moved]:
        """The file to write, its content and what was changed. Raises UserError (data)."""
        target = path.relative_to(folder).with_suffix(".png")
        if source_of[target] != path:
            raise data_error(path, f"has the output of {source_of[target].name} too", "rename or remove one of them")
        if not is_inside(path, folder):
            raise data_error(path, "is a link out of the folder", "copy the file")
        labels = open_labels(path, with_loss=rules.nearest or rules.threshold is not None)
        mask, moved = _convert(labels, rules, path)
        content = encode_mask(mask, rules.classes or VOC)
        if not overwrite:
            _require_same_or_none(out / target, content)
        return out / target, content, Moved(path, mask.size, moved)

    def try_out(path: Path) -> UserError | Moved:
        try:
            return convert(path)[2]
        except UserError as error:
            return error

    def write(path: Path) -> UserError | bool:
        try:
            target, content, _ = convert(path)
            return _write(target, content)
        except UserError as error:
            return error

    tried = _each(try_out, masks, "check")  # first without writing: masks are converted twice, since they may not fit into memory
    failed = [found for found in tried if isinstance(found, UserError)]
    if failed and not keep_going:
        return Conversion(0, 0, failed)
    moved = [found for found in tried if isinstance(found, Moved)]
    written = _each(write, [path for path, found in zip(masks, tried, strict=True) if isinstance(found, Moved)], "convert")
    failed += [found for found in written if isinstance(found, UserError)]
    lossy = rules.nearest or rules.threshold is not None
    return Conversion(written.count(True), written.count(False), failed, tuple(moved) if lossy else ())


def conversion_lines(done: Conversion, folder: Path, *, verbose: bool) -> list[str]:
    """What a conversion with loss changed, and the failures: those with one cause are one line, unless `verbose`."""
    lines = []
    if done.moved:
        moved, pixels = sum(mask.moved for mask in done.moved), sum(mask.pixels for mask in done.moved)
        worst = max(done.moved, key=lambda mask: mask.moved / max(1, mask.pixels))
        most = f"{100 * worst.moved / max(1, worst.pixels):.2f} % in {worst.path}"
        share = 100 * moved / max(1, pixels)
        lines.append(f"warning: {moved:,} of {pixels:,} pixels ({share:.2f} %) were moved to the nearest value, at most {most}")
    failed = done.failed if verbose else merge_alike(done.failed, lambda _: folder)
    return [*lines, *(f"error: {error}" for error in failed)]


def conversion_json(done: Conversion) -> str:
    """The result of a conversion for programs: every failure, and the pixels that were moved in each mask."""
    failed = [{"path": error.path, "found": error.found, "remedy": error.remedy} for error in done.failed]
    moved = [{"path": str(mask.path), "pixels": mask.pixels, "moved": mask.moved} for mask in done.moved]
    return json.dumps({"written": done.written, "same": done.same, "failed": failed, "moved": moved}, indent=1) + "\n"


def masks_in(folder: Path) -> list[Path]:
    """The masks below a folder, sorted. Raises UserError (data) without any."""
    masks = list_pictures(folder, arrays=False).pictures if folder.is_dir() else []
    if not masks:
        found = "no masks in it" if folder.is_dir() else "no such folder"
        raise data_error(folder, found, "give a folder of masks")
    return masks


def _each(function: Callable[[Path], _Found], paths: Sequence[Path], title: str) -> list[_Found]:
    """The results for all `paths`, in their order, computed by threads: decoders release the interpreter's lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(tqdm(pool.map(function, paths), title, len(paths), unit="mask", leave=False, disable=None))


def _require_same_or_none(path: Path, content: bytes) -> None:
    """Raise UserError (data) when a different file is at `path`."""
    if os.path.lexists(path) and not _holds(path, content):
        raise data_error(path, "exists and is different", "choose another --out, or give --overwrite")


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and not path.is_symlink() and path.read_bytes() == content


def _write(path: Path, content: bytes) -> bool:
    """Write a mask; False when it was there already. Raises UserError (data) for a folder in its place."""
    if _holds(path, content):
        return False
    if path.is_dir():
        raise data_error(path, "is a folder", "choose another --out")
    make_folder(path.parent)
    with atomic_write(path) as file:
        file.write(content)
    return True


def _convert(labels: Labels, rules: Rules, path: Path) -> tuple[np.ndarray, int]:
    """(H, W) uint8 class ids, and the number of pixels that were changed with loss. Raises UserError (data)."""
    if rules.threshold is not None:
        return _by_threshold(labels, rules.threshold, path)
    if rules.nearest:
        return _by_nearest(labels, rules, path)
    return convert_labels(labels.values, rules, path, labels.palette), 0


def convert_labels(labels: np.ndarray, rules: Rules, path: Path, palette: np.ndarray | None = None) -> np.ndarray:
    """(H, W) ids or (H, W, 3) colours as (H, W) uint8 class ids. `palette` (N, 4) holds the RGBA that each id shows.

    Raises UserError (data) naming the ids or colours without a rule.
    """
    if palette is not None and palette_means_colors(np.unique(labels).tolist(), palette, rules, path):
        labels = shown_colors(labels, palette, path)
    numbers = (rules.ids or rules.others is not None) and not rules.colors
    if labels.ndim == 3 and numbers and bool((labels == labels[..., :1]).all()):
        labels = labels[..., 0].astype(np.int64)  # grey that is stored as RGB
    if labels.ndim == 3:
        return _from_colors(labels, rules, path)
    values, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    new = [_new_id(value, rules) for value in values.tolist()]
    classes = rules.classes
    allowed = {*range(len(classes)), classes.ignore_index} if classes else set(range(256))
    unknown = [i for i, value in enumerate(new) if value not in allowed]
    if unknown:
        named = ", ".join(f"{values[i]} ({counts[i]:,} pixels)" for i in unknown[:5])
        expected = f"0..{len(classes) - 1} or {classes.ignore_index}" if classes else "0..255"
        raise data_error(path, f"ids {named}; expected {expected}", "give --map OLD=NEW for each")
    return np.array(new, dtype=np.uint8)[places].reshape(labels.shape)


def _new_id(value: int, rules: Rules) -> int:
    """The id that `value` becomes; itself without a rule."""
    if value in rules.ids or rules.others is None or value == 0:
        return rules.ids.get(value, value)
    return rules.others


def _from_colors(labels: np.ndarray, rules: Rules, path: Path) -> np.ndarray:
    """(H, W, 3) colours as (H, W) uint8 class ids. Raises UserError (data) naming the colours without a rule."""
    classes = rules.classes
    if not classes and not rules.colors and rules.others is None:
        raise data_error(path, "a mask of colours", "give --classes CONFIG, so that their ids are known, or --map R,G,B=ID")
    id_of = id_of_colors(rules)
    values, places, counts = np.unique(pack_colors(labels), return_inverse=True, return_counts=True)
    colors = unpack_colors(values)
    if rules.others is not None:
        id_of = dict.fromkeys(colors, rules.others) | {(0, 0, 0): 0} | id_of
    unknown = sorted((i for i, color in enumerate(colors) if color not in id_of), key=lambda i: -counts[i])
    if unknown:
        named = ", ".join(f"{colors[i]} ({counts[i]:,} pixels)" for i in unknown[:3])
        remedy = "mend the mask, give --map R,G,B=ID, or --nearest where they are blends of class colours"
        raise data_error(path, f"{len(unknown)} colours are of no class: {named}", remedy)
    return np.array([id_of[color] for color in colors], dtype=np.uint8)[places].reshape(labels.shape[:2])


def pack_colors(colors: np.ndarray) -> np.ndarray:
    """(…, 3) uint8 R, G, B as (…) int64, one number a colour."""
    return colors.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])


def unpack_colors(packed: np.ndarray) -> list[tuple[int, int, int]]:
    """The colours of `pack_colors`."""
    return [(value >> 16, value >> 8 & 255, value & 255) for value in packed.tolist()]


def _by_threshold(labels: Labels, threshold: int, path: Path) -> tuple[np.ndarray, int]:
    """(H, W) uint8: 1 where the grey is `threshold` or more, else 0; and the number of pixels that are not exactly 0 or 255.

    Raises UserError (data) for a mask with colours.
    """
    grey = labels.values
    if grey.ndim == 3:
        spread = grey.max(axis=2).astype(int) - grey.min(axis=2)  # (H, W)
        colored = int((spread > GREY).sum())
        if colored:
            raise data_error(path, f"{colored:,} pixels are not grey", "give --nearest and the class colours instead")
        grey = np.rint(grey.mean(axis=2)).astype(np.int64)
    return (grey >= threshold).astype(np.uint8), int(((grey != 0) & (grey != 255)).sum())


def _by_nearest(labels: Labels, rules: Rules, path: Path) -> tuple[np.ndarray, int]:
    """(H, W) uint8 ids of the nearest colours that have a rule, and the number of pixels of other colours.

    Raises UserError (data) for ids without a palette that are no greys.
    """
    colors = labels.values
    if colors.ndim == 2 and labels.palette is not None:
        colors = shown_colors(colors, labels.palette, path)
    elif colors.ndim == 2:
        if int(colors.max(initial=0)) > 255:
            raise data_error(path, f"greys up to {colors.max()}, above 255", "export it with 8 bits")
        colors = np.repeat(colors[..., None], 3, axis=2)
    own = {*rules.colors, *(rules.classes.colors if rules.classes else ())}
    id_of = {color: number for color, number in id_of_colors(rules).items() if color in own}
    values, places, counts = np.unique(pack_colors(colors), return_inverse=True, return_counts=True)
    shown = np.array(unpack_colors(values), dtype=np.int32)  # (U, 3)
    best = np.full(len(shown), np.iinfo(np.int32).max)
    ids = np.zeros(len(shown), np.uint8)
    for color, number in id_of.items():
        distance = ((shown - np.array(color, dtype=np.int32)) ** 2).sum(axis=1)
        ids[distance < best] = number
        best = np.minimum(best, distance)
    return ids[places].reshape(colors.shape[:2]), int(counts[best > 0].sum())
