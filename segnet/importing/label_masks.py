"""Masks that a labelling tool wrote as pictures: colours or ids that become the positions of classes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segnet.classes import IGNORE_INDEX, Color, class_set
from segnet.data.mask_files import open_labels
from segnet.data.palettes import Rules
from segnet.importing.class_file import ClassLine
from segnet.importing.source import BACKGROUND, Drawn, Size, require_size
from segnet.preparation.masks import convert_labels, pack_colors, unpack_colors
from segnet.system.errors import UserError, data_error

_NO_ID = 256  # more than any mask holds
_REMEDY = "declare it: --classes FILE, or change the masks first: segnet convert"


class MaskValues(NamedTuple):
    """The values in masks and their numbers of pixels."""

    ids: Counter[int]
    colors: Counter[Color]


def color_rules(classes: Sequence[ClassLine]) -> Rules:
    """The rules by which the colours of classes, all of which have one, become their positions."""
    colors: dict[Color, int] = {line.color: i for i, line in enumerate(classes) if line.color}
    return Rules(None, {}, colors, "color")


def id_rules(count: int, ids: dict[int, int]) -> Rules:
    """The rules by which the ids in `ids` become positions 0..count-1 or 255, 255 stays, and all others are refused."""
    refused = dict.fromkeys(range(IGNORE_INDEX), _NO_ID)
    return Rules(class_set(tuple(map(str, range(count)))), refused | ids, {}, "index")


def mask_drawer(path: Path, rules: Rules, remedy: str = "") -> partial[Drawn]:
    """The function that draws the mask in a file for `Item.draw`. `remedy` is for values without a rule."""
    return partial(_draw_mask, path, rules, remedy)


def _draw_mask(path: Path, rules: Rules, remedy: str, size: Size) -> Drawn:
    """The mask in a file. Raises UserError (data) for values without a rule, and where its size is not the picture's."""
    try:
        labels = open_labels(path)
        require_size(labels.values.shape[:2], size, path)
        return Drawn(convert_labels(labels.values, rules, path, labels.palette))
    except UserError as error:
        if "--map" in error.remedy or "--palette" in error.remedy:
            found = error.found.partition("; expected ")[0]  # the ids of the data folder, which are not those of the source
            raise data_error(path, found, remedy or _REMEDY) from None
        raise


def foreground_drawer(path: Path) -> partial[Drawn]:
    """The function that draws the mask in a file with 1 for every value above 0, and for every colour except black."""
    return partial(_draw_foreground, path)


def _draw_foreground(path: Path, size: Size) -> Drawn:
    labels = open_labels(path)
    require_size(labels.values.shape[:2], size, path)
    values = labels.values if labels.values.ndim == 2 else labels.values.max(axis=2)
    return Drawn((values > 0).astype(np.uint8))


def read_values(masks: Iterable[Path], faults: list[UserError]) -> MaskValues:
    """The values in all masks that can be read; the others are faults."""

    def read(path: Path) -> MaskValues | UserError:
        try:
            return _values_in(open_labels(path).values)
        except UserError as error:
            return error

    total = MaskValues(Counter(), Counter())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for values in pool.map(read, masks):
            if isinstance(values, UserError):
                faults.append(values)
            else:
                total.ids.update(values.ids)
                total.colors.update(values.colors)
    return total


def _values_in(labels: np.ndarray) -> MaskValues:
    if labels.ndim == 2:
        values, counts = np.unique(labels, return_counts=True)
        return MaskValues(Counter(dict(zip(values.tolist(), counts.tolist(), strict=True))), Counter())
    packed, counts = np.unique(pack_colors(labels), return_counts=True)
    return MaskValues(Counter(), Counter(dict(zip(unpack_colors(packed), counts.tolist(), strict=True))))


def choose_rules(declared: Sequence[ClassLine], seen: MaskValues, where: Path) -> tuple[list[ClassLine], Rules, str]:
    """The classes of masks, the rules for their values, and these rules as text."""
    grey = all(red == green == blue for red, green, blue in seen.colors)
    ids = seen.ids.keys() | ({red for red, _, _ in seen.colors} if grey else set())
    has_colors = bool(declared) and all(line.color for line in declared)
    if declared and has_colors and not (len(declared) == 2 and grey and 255 in ids):
        colors = tuple(line.color for line in declared if line.color)
        rules = Rules(class_set(tuple(line.name for line in declared), colors), {}, {})
        return list(declared), rules, "colours of the classes, or their ids"
    if seen.colors and not grey:
        shown = ", ".join(f"{color} ({count:,} pixels)" for color, count in seen.colors.most_common(5))
        more = f" and {len(seen.colors) - 5} more" if len(seen.colors) > 5 else ""
        remedy = "give --classes FILE with a line R G B NAME for each, the background first"
        lacking = f"the {len(declared)} declared classes have no colours" if declared else "no file names their classes"
        raise data_error(where, f"its masks hold the colours {shown}{more}, and {lacking}", remedy)
    if ids <= {0, 255} and 255 in ids and len(declared) in (0, 2):
        return list(declared) or two_classes("0 and 255"), id_rules(2, {0: 0, 255: 1}), "255 is class 1"
    if declared:
        return list(declared), id_rules(len(declared), {i: i for i in range(len(declared))}), "ids"
    if ids == {0, 1}:
        return two_classes("0 and 1"), id_rules(2, {0: 0, 1: 1}), "ids"
    shown = ", ".join(map(str, sorted(ids)[:8])) + (", …" if len(ids) > 8 else "")
    remedy = (
        "give --classes FILE with one name a line in the order of the ids; where every value above 0 is one class, --foreground"
    )
    raise data_error(where, f"its masks hold the ids {shown or 'of no pixel'}, and no file names their classes", remedy)


def two_classes(origin: str) -> list[ClassLine]:
    """The classes of masks that tell one object from all else; `origin` says where they come from."""
    return [ClassLine(BACKGROUND, None, origin), ClassLine("foreground", None, origin)]
