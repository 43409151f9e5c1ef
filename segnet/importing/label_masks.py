"""Masks that a labelling tool wrote as pictures: colours or ids that become the positions of classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from segnet.classes import IGNORE_INDEX, Color, class_set
from segnet.data.mask_files import open_labels
from segnet.data.palettes import Rules
from segnet.importing.class_file import ClassLine
from segnet.importing.source import Drawn, Size, require_size
from segnet.preparation.masks import convert_labels
from segnet.system.errors import UserError, data_error

_NO_ID = 256  # more than any mask holds
_REMEDY = "declare it: --classes FILE, or change the masks first: python scripts/prepare_data.py convert"


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
