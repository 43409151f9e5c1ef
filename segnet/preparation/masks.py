"""The conversion of masks of other conventions (colours, 0 and 255, other ids) to palette PNGs, exact or refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from segnet.classes import VOC, ClassSet
from segnet.data.listing import list_pictures
from segnet.data.mask_files import encode_mask, open_labels
from segnet.data.palettes import Rules, id_of_colors, palette_means_colors, shown_colors
from segnet.system.errors import ExitCode, UserError, data_error
from segnet.system.files import atomic_write, is_inside, make_folder


class Conversion(NamedTuple):
    """The result of converting a folder of masks."""

    written: int  # masks
    same: int  # masks whose output was there already, byte for byte
    failed: list[UserError]


def parse_rules(classes: ClassSet | None, mapping: Sequence[str], *, palette: Literal["index", "color"] | None = None) -> Rules:
    """Rules from texts such as "255=1" or "0,0,0=255". Raises UserError (config) for a text of another form."""
    rules = Rules(classes, {}, {}, palette)
    for text in mapping:
        old, _, new = text.partition("=")
        try:
            number, values = int(new), tuple(map(int, old.split(",")))
        except ValueError:
            number, values = -1, ()
        if len(values) not in (1, 3) or not 0 <= number <= 255 or min(values) < 0:
            raise UserError(ExitCode.CONFIG, f"--map {text}", "not OLD=NEW", "write e.g. 255=1, or a colour: 0,0,0=255")
        known = values[0] in rules.ids if len(values) == 1 else values in rules.colors
        if known:
            raise UserError(ExitCode.CONFIG, f"--map {text}", f"{old} stands there twice", "keep one of them")
        if len(values) == 1:
            rules.ids[values[0]] = number
        else:
            rules.colors[values[0], values[1], values[2]] = number
    if classes and len(set(classes.colors)) < len(classes):
        raise UserError(ExitCode.CONFIG, "--classes", "two classes have the same colour", "give each its own")
    return rules


def convert_masks(folder: Path, out: Path, rules: Rules, *, overwrite: bool = False) -> Conversion:
    """Convert every mask <path> below `folder` to `out`/<path>.png. The originals are not changed.

    A mask that cannot be converted exactly does not stop the others.
    Raises UserError (data) when there is no mask, (config) when one of `out` and `folder` contains the other.
    """
    if is_inside(out, folder) or is_inside(folder, out):
        raise UserError(ExitCode.CONFIG, out, f"lies in {folder} or around it", "choose another --out")
    masks = list_pictures(folder).pictures if folder.is_dir() else []
    if not masks:
        found = "no masks in it" if folder.is_dir() else "no such folder"
        raise data_error(folder, found, "give a folder of masks")
    source_of = dict[Path, Path]()
    for path in masks:
        source_of.setdefault(path.relative_to(folder).with_suffix(".png"), path)

    def convert(path: Path) -> bool | UserError:
        target = path.relative_to(folder).with_suffix(".png")
        try:
            if source_of[target] != path:
                raise data_error(path, f"has the output of {source_of[target].name} too", "rename or remove one of them")
            if not is_inside(path, folder):
                raise data_error(path, "is a link out of the folder", "copy the file")
            labels = open_labels(path)
            return _write(out / target, convert_labels(labels.values, rules, path, labels.palette), rules, overwrite=overwrite)
        except UserError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = list(tqdm(pool.map(convert, masks), "convert", len(masks), unit="mask", leave=False, disable=None))
    failed = [error for error in done if isinstance(error, UserError)]
    return Conversion(done.count(True), done.count(False), failed)


def _write(path: Path, mask: np.ndarray, rules: Rules, *, overwrite: bool) -> bool:
    """Write a mask; False when it was there already. Raises UserError (data) when a different file is there."""
    content = encode_mask(mask, rules.classes or VOC)
    if os.path.lexists(path):
        if path.is_file() and not path.is_symlink() and path.read_bytes() == content:
            return False
        if not overwrite or path.is_dir():
            raise data_error(path, "exists and is different", "choose another --out, or give --overwrite")
    make_folder(path.parent)
    with atomic_write(path) as file:
        file.write(content)
    return True


def convert_labels(labels: np.ndarray, rules: Rules, path: Path, palette: np.ndarray | None = None) -> np.ndarray:
    """(H, W) ids or (H, W, 3) colours as (H, W) uint8 class ids. `palette` (N, 4) holds the RGBA that each id shows.

    Raises UserError (data) naming the ids or colours without a rule.
    """
    if palette is not None and palette_means_colors(np.unique(labels).tolist(), palette, rules, path):
        labels = shown_colors(labels, palette, path)
    if labels.ndim == 3 and rules.ids and not rules.colors and bool((labels == labels[..., :1]).all()):
        labels = labels[..., 0].astype(np.int64)  # grey that is stored as RGB
    if labels.ndim == 3:
        return _from_colors(labels, rules, path)
    values, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    new = [rules.ids.get(value, value) for value in values.tolist()]
    classes = rules.classes
    allowed = {*range(len(classes)), classes.ignore_index} if classes else set(range(256))
    unknown = [i for i, value in enumerate(new) if value not in allowed]
    if unknown:
        named = ", ".join(f"{values[i]} ({counts[i]:,} pixels)" for i in unknown[:5])
        expected = f"0..{len(classes) - 1} or {classes.ignore_index}" if classes else "0..255"
        raise data_error(path, f"ids {named}; expected {expected}", "give --map OLD=NEW for each")
    return np.array(new, dtype=np.uint8)[places].reshape(labels.shape)


def _from_colors(labels: np.ndarray, rules: Rules, path: Path) -> np.ndarray:
    """(H, W, 3) colours as (H, W) uint8 class ids. Raises UserError (data) naming the colours without a rule."""
    classes = rules.classes
    if not classes and not rules.colors:
        raise data_error(path, "a mask of colours", "give --classes CONFIG, so that their ids are known, or --map R,G,B=ID")
    id_of = id_of_colors(rules)
    packed = labels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])  # (H, W)
    values, places, counts = np.unique(packed, return_inverse=True, return_counts=True)
    colors = [(value >> 16, value >> 8 & 255, value & 255) for value in values.tolist()]
    unknown = sorted((i for i, color in enumerate(colors) if color not in id_of), key=lambda i: -counts[i])
    if unknown:
        named = ", ".join(f"{colors[i]} ({counts[i]:,} pixels)" for i in unknown[:3])
        raise data_error(path, f"{len(unknown)} colours are of no class: {named}", "mend the mask, or give --map R,G,B=ID")
    return np.array([id_of[color] for color in colors], dtype=np.uint8)[places].reshape(packed.shape)
