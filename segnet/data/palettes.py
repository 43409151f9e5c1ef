"""Palettes of label files: whether their indices or their colours name the classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from segnet.classes import IGNORE_INDEX, ClassSet, Color
from segnet.system.errors import ExitCode, UserError

VOID_COLOR = (224, 224, 192)  # of the border that VOC's masks show
NEAR = 8  # steps of 255 in each of R, G and B, within which a colour is taken for another


class Rules(NamedTuple):
    """What becomes of the values in a mask."""

    classes: ClassSet | None  # their colours become their ids, and no other ids may be left; None: any id 0..255
    ids: dict[int, int]  # old -> new; the others stay
    colors: dict[Color, int]  # further colours -> id
    palette: Literal["index", "color"] | None = None  # what is meant where a palette's numbers and colours disagree


def palette_means_colors(used: Sequence[int], palette: np.ndarray, rules: Rules, path: Path) -> bool:
    """Whether the ids that a mask uses are but places in its palette, and the colours there say the classes.

    So editors and optimisers leave a mask. False where the colours agree with the ids, or are of no class.
    Raises UserError (data) when ids and colours disagree, and nothing says which of them is meant.
    """
    if rules.palette or not (rules.classes or rules.colors):
        return rules.palette == "color"
    if not (rules.classes or rules.ids):
        return True  # colours are all that was asked for
    id_of, shown = id_of_colors(rules), [_rgb(color) for color in palette.tolist()]
    said = {i: id_of[shown[i]] for i in used if i < len(shown) and shown[i] in id_of}
    first = {i for i in said if shown.index(shown[i]) == i}  # the same colour again fills a palette up, and says nothing
    wrong = [i for i, said_id in said.items() if i in first and not _agrees(i, said_id, rules)]
    foreign = any(color not in id_of for color in _without_padding(shown))
    if foreign and _is_grey_ramp(shown):
        return False
    if not wrong:
        _refuse_nearly_reordered(used, shown, id_of, rules, path)
    if not wrong or (len(set(shown)) == 1 and max(used) > 0):
        return False
    distinct = len({shown[i] for i in said}) == len(used)  # every id shows a colour of its own, and all are of classes
    chance = len(used) == 1 and (foreign or len(shown) > len(set(shown)) == 1)
    if distinct and not chance and not rules.ids:
        return True
    found = f"id {wrong[0]} shows {shown[wrong[0]]}, the colour of id {said[wrong[0]]}; its palette may be in another order"
    raise conversion_error(path, found, "say what is meant: --palette index, or --palette color")


def _refuse_nearly_reordered(used: Sequence[int], shown: list[Color], id_of: dict[Color, int], rules: Rules, path: Path) -> None:
    """Raise UserError (data) where every id shows nearly the colour of a class of its own, and not all of their own one.

    So a program with managed colours leaves a palette.
    """
    near = {i: _nearest(shown[i], id_of) for i in used if i < len(shown)}
    colors = {color for color in near.values() if color}
    if len(used) < 2 or len(colors) < len(used):
        return
    wrong = [(i, color) for i, color in near.items() if color and not _agrees(i, id_of[color], rules)]
    if wrong:
        index, color = wrong[0]
        seen = f"id {index} shows {shown[index]}, nearly the colour {color} of id {id_of[color]}"
        remedy = "save it with the exact colours, or say that its ids are meant: --palette index"
        raise conversion_error(path, f"{seen}; its palette may be in another order", remedy)


def _nearest(shown: Color, colors: Iterable[Color]) -> Color | None:
    """The only one of `colors` that is near; None where there is none, or several."""
    found = [color for color in colors if max(abs(a - b) for a, b in zip(color, shown, strict=True)) <= NEAR]
    return found[0] if len(found) == 1 else None


def _agrees(index: int, said: int, rules: Rules) -> bool:
    """Whether an id in a mask and the colour that it shows may mean the same."""
    unscored = index == (rules.classes.ignore_index if rules.classes else IGNORE_INDEX)  # often beyond the palette's end: black
    return unscored or rules.ids.get(index, index) in (said, rules.ids.get(said, said))


def _is_grey_ramp(shown: list[Color]) -> bool:
    """Whether a palette only makes ids visible: grey in even steps, of one or from black to white or back."""
    grey = [red for red, green, blue in shown if red == green == blue]
    steps = {after - before for before, after in pairwise(grey)}
    return len(grey) == len(shown) and len(steps) == 1 and (abs(*steps) == 1 or {grey[0], grey[-1]} == {0, 255})


def _without_padding(shown: list[Color]) -> list[Color]:
    """A palette without the repeated last colour that fills it up."""
    end = len(shown)
    while end > 0 and shown[end - 1] == shown[-1]:
        end -= 1
    return shown[:end] if 0 < end < len(shown) - 1 else shown


def shown_colors(labels: np.ndarray, palette: np.ndarray, path: Path) -> np.ndarray:
    """(H, W) ids -> (H, W, 3) colours. Raises UserError (data) for an id without one, and for a transparent one."""
    beyond = int((labels >= len(palette)).sum())
    if beyond:
        raise conversion_error(path, f"{beyond:,} pixels have no colour in its palette", "mend the mask, or give --palette index")
    colors = palette[labels]  # (H, W, 4)
    clear = int((colors[..., 3] != 255).sum())
    if clear:
        raise conversion_error(path, f"{clear:,} pixels are transparent", "fill them with a class colour")
    return colors[..., :3]


def _rgb(color: Sequence[int]) -> Color:
    return color[0], color[1], color[2]


def id_of_colors(rules: Rules) -> dict[Color, int]:
    """What each colour that has a rule becomes."""
    classes = rules.classes
    id_of = {VOID_COLOR: classes.ignore_index if classes else IGNORE_INDEX}
    if classes:
        id_of |= {color: rules.ids.get(i, i) for i, color in enumerate(classes.colors)}
    return id_of | rules.colors


def conversion_error(path: Path, found: str, remedy: str) -> UserError:
    return UserError(ExitCode.DATA, path, found, remedy)
