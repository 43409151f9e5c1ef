"""Masks of other conventions – colours, 0 and 255, other ids – become the layout's palette PNGs, exactly or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from segnet.classes import IGNORE_INDEX, VOC, ClassSet, Color
from segnet.errors import ExitCode, UserError
from segnet.files import atomic_write, is_inside, make_folder
from segnet.images import encode_mask, open_labels
from segnet.listing import list_pictures

VOID_COLOR = (224, 224, 192)  # of the border that VOC's masks show
NEAR = 8  # steps of 255 in each of R, G and B, within which a colour is taken for another


class Rules(NamedTuple):
    """What becomes of the values in a mask."""

    classes: ClassSet | None  # their colours become their ids, and no other ids may be left; None: any id 0..255
    ids: dict[int, int]  # old -> new; the others stay
    colors: dict[Color, int]  # further colours -> id
    palette: Literal["index", "color"] | None = None  # what is meant where a palette's numbers and colours disagree


class Conversion(NamedTuple):
    """What became of each mask of a folder."""

    written: int
    same: int  # the output was there already, byte for byte
    failed: list[UserError]


def parse_rules(classes: ClassSet | None, mapping: Sequence[str], *, palette: Literal["index", "color"] | None = None) -> Rules:
    """Rules from texts such as "255=1" or "0,0,0=255". Raises UserError (config) for a text that is none."""
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
    """Convert every mask below `folder` to OUT/<its path there>.png; the originals stay as they are.

    A mask that cannot be converted exactly does not stop the others.
    Raises UserError (data) when there are none, (config) when `out` and `folder` are one inside the other.
    """
    if is_inside(out, folder) or is_inside(folder, out):
        raise UserError(ExitCode.CONFIG, out, f"lies in {folder} or around it", "choose another --out")
    masks = list_pictures(folder).pictures if folder.is_dir() else []
    if not masks:
        found = "no masks in it" if folder.is_dir() else "no such folder"
        raise UserError(ExitCode.DATA, folder, found, "give a folder of masks")
    source_of = dict[Path, Path]()
    for path in masks:
        source_of.setdefault(path.relative_to(folder).with_suffix(".png"), path)

    def convert(path: Path) -> bool | UserError:
        target = path.relative_to(folder).with_suffix(".png")
        try:
            if source_of[target] != path:
                raise _bad(path, f"has the output of {source_of[target].name} too", "rename or remove one of them")
            if not is_inside(path, folder):
                raise _bad(path, "is a link out of the folder", "copy the file")
            labels = open_labels(path)
            return _write(out / target, convert_labels(labels.values, rules, path, labels.palette), rules, overwrite=overwrite)
        except UserError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = list(tqdm(pool.map(convert, masks), "convert", len(masks), unit="mask", leave=False, disable=None))
    failed = [error for error in done if isinstance(error, UserError)]
    return Conversion(done.count(True), done.count(False), failed)


def _write(path: Path, mask: np.ndarray, rules: Rules, *, overwrite: bool) -> bool:
    """Write a mask; False when it was there already. Raises UserError (data) when another one is there."""
    content = encode_mask(mask, rules.classes or VOC)
    if os.path.lexists(path):
        if path.is_file() and not path.is_symlink() and path.read_bytes() == content:
            return False
        if not overwrite or path.is_dir():
            raise _bad(path, "exists and is different", "choose another --out, or give --overwrite")
    make_folder(path.parent)
    with atomic_write(path) as file:
        file.write(content)
    return True


def convert_labels(labels: np.ndarray, rules: Rules, path: Path, palette: np.ndarray | None = None) -> np.ndarray:
    """(H, W) ids or (H, W, 3) colours -> (H, W) uint8 ids. Raises UserError (data) naming what has no rule.

    `palette`, (N, 4) RGBA, says which colour each id shows.
    """
    if palette is not None and palette_means_colors(np.unique(labels).tolist(), palette, rules, path):
        labels = _shown_colors(labels, palette, path)
    if labels.ndim == 3 and rules.ids and not rules.colors and bool((labels == labels[..., :1]).all()):
        labels = labels[..., 0].astype(np.int64)  # grey kept in three channels
    if labels.ndim == 3:
        return _from_colors(labels, rules, path)
    values, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    new = [rules.ids.get(value, value) for value in values.tolist()]
    classes = rules.classes
    allowed = {*range(len(classes)), classes.ignore_id} if classes else set(range(256))
    unknown = [i for i, value in enumerate(new) if value not in allowed]
    if unknown:
        named = ", ".join(f"{values[i]} ({counts[i]:,} pixels)" for i in unknown[:5])
        expected = f"0..{len(classes) - 1} or {classes.ignore_id}" if classes else "0..255"
        raise _bad(path, f"ids {named}; expected {expected}", "give --map OLD=NEW for each")
    return np.array(new, dtype=np.uint8)[places].reshape(labels.shape)


def palette_means_colors(used: Sequence[int], palette: np.ndarray, rules: Rules, path: Path) -> bool:
    """Whether the ids that a mask uses are but places in its palette, and the colours there say the classes.

    So editors and optimisers leave a mask. False where the colours agree with the ids, or are of no class.
    Raises UserError (data) when ids and colours disagree, and nothing says which of them is meant.
    """
    if rules.palette or not (rules.classes or rules.colors):
        return rules.palette == "color"
    if not (rules.classes or rules.ids):
        return True  # colours are all that was asked for
    id_of, shown = _id_of_colors(rules), [_rgb(color) for color in palette.tolist()]
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
    raise _bad(path, found, "say what is meant: --palette index, or --palette color")


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
        raise _bad(path, f"{seen}; its palette may be in another order", remedy)


def _nearest(shown: Color, colors: Iterable[Color]) -> Color | None:
    """The only one of `colors` that is near; None where there is none, or several."""
    found = [color for color in colors if max(abs(a - b) for a, b in zip(color, shown, strict=True)) <= NEAR]
    return found[0] if len(found) == 1 else None


def _agrees(index: int, said: int, rules: Rules) -> bool:
    """Whether an id in a mask and the colour that it shows may mean the same."""
    unscored = index == (rules.classes.ignore_id if rules.classes else IGNORE_INDEX)  # often beyond the palette's end: black
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


def _shown_colors(labels: np.ndarray, palette: np.ndarray, path: Path) -> np.ndarray:
    """(H, W) ids -> (H, W, 3) colours. Raises UserError (data) for an id without one, and for a transparent one."""
    beyond = int((labels >= len(palette)).sum())
    if beyond:
        raise _bad(path, f"{beyond:,} pixels have no colour in its palette", "mend the mask, or give --palette index")
    colors = palette[labels]  # (H, W, 4)
    clear = int((colors[..., 3] != 255).sum())
    if clear:
        raise _bad(path, f"{clear:,} pixels are transparent", "fill them with a class colour")
    return colors[..., :3]


def _rgb(color: Sequence[int]) -> Color:
    return color[0], color[1], color[2]


def _id_of_colors(rules: Rules) -> dict[Color, int]:
    """What each colour that has a rule becomes."""
    classes = rules.classes
    id_of = {VOID_COLOR: classes.ignore_id if classes else IGNORE_INDEX}
    if classes:
        id_of |= {color: rules.ids.get(i, i) for i, color in enumerate(classes.colors)}
    return id_of | rules.colors


def _from_colors(labels: np.ndarray, rules: Rules, path: Path) -> np.ndarray:
    classes = rules.classes
    if not classes and not rules.colors:
        raise _bad(path, "a mask of colours", "give --classes CONFIG, so that their ids are known, or --map R,G,B=ID")
    id_of = _id_of_colors(rules)
    packed = labels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])  # (H, W)
    values, places, counts = np.unique(packed, return_inverse=True, return_counts=True)
    colors = [(value >> 16, value >> 8 & 255, value & 255) for value in values.tolist()]
    unknown = sorted((i for i, color in enumerate(colors) if color not in id_of), key=lambda i: -counts[i])
    if unknown:
        named = ", ".join(f"{colors[i]} ({counts[i]:,} pixels)" for i in unknown[:3])
        raise _bad(path, f"{len(unknown)} colours are of no class: {named}", "mend the mask, or give --map R,G,B=ID")
    return np.array([id_of[color] for color in colors], dtype=np.uint8)[places].reshape(packed.shape)


def _bad(path: Path, found: str, remedy: str) -> UserError:
    return UserError(ExitCode.DATA, path, found, remedy)
