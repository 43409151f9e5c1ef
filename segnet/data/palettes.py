"""Palettes of masks of other conventions: the decision whether the ids or the colours that they show name the classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from segnet.classes import IGNORE_INDEX, ClassSet, Color
from segnet.system.errors import data_error

VOID_COLOR = (224, 224, 192)  # the colour of the border in VOC's masks
NEAR = 8  # largest difference in each of R, G and B (0..255) of colours that may be meant to be equal


class Rules(NamedTuple):
    """The rules by which the values of a mask become class ids."""

    classes: ClassSet | None  # their colours become their ids, and no other ids may remain; None: any id 0..255
    ids: dict[int, int]  # old -> new id; others stay
    colors: dict[Color, int]  # further colours -> id
    palette: Literal["index", "color"] | None = None  # what counts where ids and their colours disagree; None: unknown
    others: int | None = None  # id of all values without a rule, except 0 and black, which become 0; None: they are refused
    threshold: int | None = None  # greys from it on become 1, others 0; None: values are what they are
    nearest: bool = False  # a colour means the nearest one that has a rule


def palette_means_colors(used: Sequence[int], palette: np.ndarray, rules: Rules, path: Path) -> bool:
    """Whether the colours in the palette of a mask name the classes, and the ids `used` are only positions in the palette.

    Image editors and PNG optimisers store masks in this way. False when the colours agree with the ids, or are not those
    of classes. Raises UserError (data) when ids and colours disagree and it cannot be decided which of them is meant.
    """
    if rules.palette or not (rules.classes or rules.colors):
        return rules.palette == "color"
    if not (rules.classes or rules.ids):
        return True  # there are rules for colours alone
    id_of = id_of_colors(rules)
    shown = [_rgb(color) for color in palette.tolist()]
    meant = {i: id_of[shown[i]] for i in used if i < len(shown) and shown[i] in id_of}
    first = {i for i in meant if shown.index(shown[i]) == i}  # repeated colours only fill a palette up
    wrong = [i for i, meant_id in meant.items() if i in first and not _agrees(i, meant_id, rules)]
    foreign = any(color not in id_of for color in _without_padding(shown))
    if foreign and _is_grey_ramp(shown):
        return False
    if not wrong:
        _require_not_nearly_reordered(used, shown, id_of, rules, path)
    if not wrong or (len(set(shown)) == 1 and max(used) > 0):
        return False
    distinct = len({shown[i] for i in meant}) == len(used)  # every id shows a colour of its own, and all are those of classes
    chance = len(used) == 1 and (foreign or len(shown) > len(set(shown)) == 1)
    if distinct and not chance and not rules.ids:
        return True
    found = f"id {wrong[0]} shows {shown[wrong[0]]}, the colour of id {meant[wrong[0]]}; its palette may be in another order"
    raise data_error(path, found, "say what is meant: --palette index, or --palette color")


def _require_not_nearly_reordered(
    used: Sequence[int], shown: list[Color], id_of: dict[Color, int], rules: Rules, path: Path
) -> None:
    """Raise UserError (data) when every id shows nearly the colour of a different class, and some that of another id.

    Programs with colour management change the colours of a palette in this way.
    """
    near = {i: _nearest(shown[i], id_of) for i in used if i < len(shown)}
    colors = {color for color in near.values() if color}
    if len(used) < 2 or len(colors) < len(used):
        return
    wrong = [(i, color) for i, color in near.items() if color and not _agrees(i, id_of[color], rules)]
    if wrong:
        index, color = wrong[0]
        found = f"id {index} shows {shown[index]}, nearly the colour {color} of id {id_of[color]}"
        remedy = "save it with the exact colours, or say that its ids are meant: --palette index"
        raise data_error(path, f"{found}; its palette may be in another order", remedy)


def _nearest(shown: Color, colors: Iterable[Color]) -> Color | None:
    """The only one of `colors` within `NEAR` of `shown`; None when there is none, or several."""
    near = [color for color in colors if max(abs(a - b) for a, b in zip(color, shown, strict=True)) <= NEAR]
    return near[0] if len(near) == 1 else None


def _agrees(index: int, meant: int, rules: Rules) -> bool:
    """Whether the id `index` and the colour that it shows, that of the id `meant`, may stand for the same class."""
    ignored = index == (rules.classes.ignore_index if rules.classes else IGNORE_INDEX)  # often past the end of the palette: black
    return ignored or rules.ids.get(index, index) in (meant, rules.ids.get(meant, meant))


def _is_grey_ramp(shown: list[Color]) -> bool:
    """Whether a palette only makes ids visible: grey in equal steps, of one, or between black and white."""
    grey = [red for red, green, blue in shown if red == green == blue]
    steps = {after - before for before, after in pairwise(grey)}
    return len(grey) == len(shown) and len(steps) == 1 and (abs(*steps) == 1 or {grey[0], grey[-1]} == {0, 255})


def _without_padding(shown: list[Color]) -> list[Color]:
    """The colours of a palette without the repetitions of its last colour."""
    end = len(shown)
    while end > 0 and shown[end - 1] == shown[-1]:
        end -= 1
    return shown[:end] if 0 < end < len(shown) - 1 else shown


def shown_colors(labels: np.ndarray, palette: np.ndarray, path: Path) -> np.ndarray:
    """The colours (H, W, 3) that ids (H, W) show. Raises UserError (data) for an id without colour or with a transparent one."""
    beyond = int((labels >= len(palette)).sum())
    if beyond:
        raise data_error(path, f"{beyond:,} pixels have no colour in its palette", "mend the mask, or give --palette index")
    colors = palette[labels]  # (H, W, 4)
    transparent = int((colors[..., 3] != 255).sum())
    if transparent:
        raise data_error(path, f"{transparent:,} pixels are transparent", "fill them with a class colour")
    return colors[..., :3]


def _rgb(color: Sequence[int]) -> Color:
    return color[0], color[1], color[2]


def id_of_colors(rules: Rules) -> dict[Color, int]:
    """The id of each colour that has a rule."""
    classes = rules.classes
    id_of = {VOID_COLOR: classes.ignore_index if classes else IGNORE_INDEX}
    if classes:
        id_of |= {color: rules.ids.get(i, i) for i, color in enumerate(classes.colors)}
    return id_of | rules.colors
