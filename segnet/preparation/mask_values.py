"""The ids or colours that a folder of masks holds, and the command that would convert them."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from segnet.classes import IGNORE_INDEX, ClassSet, Color
from segnet.data.mask_files import open_labels
from segnet.preparation.masks import GREY, masks_in, pack_colors, unpack_colors
from segnet.system.errors import UserError
from segnet.system.invocation import as_started

Value = int | Color  # an id, or R, G, B
_SHOWN = 30  # rows of the table
_MOST = 20  # values to name one by one in a command; more are objects or blends


class MaskValues(NamedTuple):
    """The values in the masks of a folder."""

    folder: Path
    masks: int  # that can be read
    files: Counter[Value]  # in how many masks each value is
    pixels: Counter[Value]
    colors: dict[int, Color]  # the colour of each id in the palettes, where all agree
    lossy: int  # masks of a format that changes ids and colours
    failed: list[UserError]


class _Found(NamedTuple):
    """The values of a mask."""

    pixels: dict[Value, int]
    colors: dict[int, Color]
    lossy: bool


def list_values(folder: Path) -> MaskValues:
    """The values of all masks below `folder`. Raises UserError (data) without any mask."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding releases the interpreter's lock
        paths = masks_in(folder)
        every = list(tqdm(pool.map(_values_of, paths), "list", len(paths), unit="mask", leave=False, disable=None))
    result = MaskValues(folder, 0, Counter(), Counter(), {}, 0, [found for found in every if isinstance(found, UserError)])
    sound = [found for found in every if isinstance(found, _Found)]
    unclear = set[int]()
    for found in sound:
        result.files.update(found.pixels.keys())
        result.pixels.update(found.pixels)
        for number, color in found.colors.items():
            if result.colors.setdefault(number, color) != color:
                unclear.add(number)
    colors = {number: color for number, color in result.colors.items() if number not in unclear}
    return result._replace(masks=len(sound), colors=colors, lossy=sum(found.lossy for found in sound))


def _values_of(path: Path) -> _Found | UserError:
    lossy = False
    try:
        labels = open_labels(path)
    except UserError:
        try:
            labels = open_labels(path, with_loss=True)
        except UserError as error:
            return error
        lossy = True
    values = labels.values
    packed = pack_colors(values) if values.ndim == 3 else values
    found, counts = np.unique(packed, return_counts=True)
    names: Sequence[Value] = unpack_colors(found) if values.ndim == 3 else found.tolist()
    palette = labels.palette
    colors = {} if palette is None or values.ndim == 3 else {i: palette[i] for i in found.tolist() if i < len(palette)}
    shown = {number: (int(red), int(green), int(blue)) for number, (red, green, blue, _) in colors.items()}
    return _Found(dict(zip(names, counts.tolist(), strict=True)), shown, lossy)


def values_table(found: MaskValues) -> str:
    """A table for people: each value, in how many masks it is, and its pixels; the most frequent ones where there are many."""
    total = sum(found.pixels.values())
    rows = sorted(found.pixels, key=_order) if len(found.pixels) <= _SHOWN else [v for v, _ in found.pixels.most_common(_SHOWN)]
    lines = [f"{'id or R,G,B':>14}  {'masks':>7}  {'pixels':>15}   share" + ("  colour in the palette" if found.colors else "")]
    for value in rows:
        shown = f"  {_text(found.colors[value])}" if isinstance(value, int) and value in found.colors else ""
        share = 100 * found.pixels[value] / total
        lines.append(f"{_text(value):>14}  {found.files[value]:>7,}  {found.pixels[value]:>15,}  {share:>5.2f}%{shown}")
    if len(found.pixels) > _SHOWN:
        lines.append(f"… and {len(found.pixels) - _SHOWN:,} more values")
    spoilt = f", {found.lossy:,} of them in a format that changes ids and colours" if found.lossy else ""
    lines.append(f"{found.masks:,} masks{spoilt}")
    return "\n".join(lines)


def _order(value: Value) -> tuple[bool, Value]:
    """Ids before colours, each in their order."""
    return (isinstance(value, tuple), value)


def _text(value: Value) -> str:
    return str(value) if isinstance(value, int) else ",".join(map(str, value))


def proposed_command(found: MaskValues, classes: ClassSet | None, source: str) -> tuple[str, str]:
    """The command that would convert the masks, and why. `source` is the option that gives `classes`, such as --classes DIR.

    Where ids are not known, the most frequent value is taken for the background and the others are numbered in their order.
    """
    options, why = _proposed_options(found, classes)
    given = [source] if classes else []
    command = " ".join([f"segnet convert {shlex.quote(str(found.folder))} --out NEW", *given, *options])
    return as_started(command), why


def _proposed_options(found: MaskValues, classes: ClassSet | None) -> tuple[list[str], str]:
    ids = sorted(value for value in found.pixels if isinstance(value, int))
    colors = sorted(value for value in found.pixels if not isinstance(value, int))
    known = set(classes.colors) if classes else set()
    if found.lossy and all(max(color) - min(color) <= GREY for color in colors):
        return ["--threshold", "128"], "greys that a lossy format has changed: 0 and 1, if they were black and white"
    if colors and set(colors) <= known:
        return [], "all colours are those of classes"
    if found.lossy or len(colors) > _MOST:
        options = ["--nearest"] if classes else ["--classes", "CONFIG", "--nearest"]
        return options, f"{len(colors):,} colours, most of them blends: each becomes the nearest class colour"
    if known & set(colors):
        unknown = [part for color in colors if color not in known for part in ("--map", f"{_text(color)}=ID")]
        return unknown, "the other colours are those of classes; put in the ids that you mean"
    if colors:
        return _numbered(found, colors), "each colour by its own; put in the ids that you mean"
    if set(ids) == {0, 255}:
        return ["--map", "255=1"], "0 and 255 of a single class"
    if _are_class_ids(set(ids), classes):
        return [] if classes else ["--map", "0=0"], "these are class ids already"
    if len(ids) > _MOST:
        return ["--map", "'*=1'"], f"{len(ids):,} ids, as of single objects: all but 0 become class 1"
    return _numbered(found, ids), "each id by its own; put in the ids that you mean"


def _are_class_ids(ids: set[int], classes: ClassSet | None) -> bool:
    """Whether `ids` are 0..K-1 and the ignored id."""
    own = ids - {classes.ignore_index if classes else IGNORE_INDEX}
    return max(own, default=0) < (len(classes) if classes else len(own))


def _numbered(found: MaskValues, values: Sequence[Value]) -> list[str]:
    """--map for each value: black or 0, else the most frequent value, becomes 0, the others 1, 2, … in their order."""
    black = [value for value in values if value in (0, (0, 0, 0))]
    first = black[0] if black else max(values, key=lambda value: found.pixels[value])
    others = [value for value in values if value not in (first, IGNORE_INDEX)]
    pairs = [f"{_text(value)}={number}" for number, value in enumerate([first, *others]) if value != number]
    return [part for pair in pairs for part in ("--map", pair)]
