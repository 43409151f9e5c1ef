"""Polygons and other outlines as pixels, by the rules of the programs in which they were drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from segnet.importing.painting import Patch, crop
from segnet.importing.source import Size
from segnet.system.errors import data_error

_FINE = 5  # COCO's rule walks along an outline in steps of a fifth of a pixel
_FARTHEST = 1_000_000  # pixels from the picture's corner; farther points are mistakes, and walking there takes long

_LONGEST = 5_000_000  # pixels of an outline, for the same reason
_AT_ONCE = 1 << 20  # steps along an outline, so that a long one takes no more memory

_CORNERS = 360  # of the polygon that stands for an ellipse
_ANGLES = np.arange(_CORNERS) * (2 * math.pi / _CORNERS)
CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)  # (360, 2): x, y on the circle of radius 1 around 0, 0

Points = np.ndarray  # (N, 2) float64: x, y in pixels; the centre of the first pixel is at 0.5, 0.5 for COCO, at 0, 0 for Pillow


def read_points(values: object, where: Path, what: str) -> Points:
    """Pairs of x, y or a flat list of them as `Points`. Raises UserError (data) for anything else."""
    try:
        flat = np.array(values, dtype=np.float64).reshape(-1)
    except (ValueError, TypeError, OverflowError):
        flat = np.empty(1)
    numbers = isinstance(values, list) and all(
        _is_number(value) or (isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))) for value in values
    )
    if not numbers or len(flat) % 2:
        raise data_error(where, f"{what} is not a list of pairs of numbers x, y", "export the labels again")
    if not bool((np.abs(flat) <= _FARTHEST).all()):
        raise data_error(where, f"{what} has a point more than {_FARTHEST:,} pixels away", "correct or remove the shape")
    points = flat.reshape(-1, 2)
    length = float(np.abs(np.diff(points, axis=0)).max(axis=1, initial=0).sum())
    if length > _LONGEST:
        raise data_error(where, f"{what} has an outline of {length:,.0f} pixels", "correct or remove the shape")
    return points


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def reaches_outside(points: Points, size: Size) -> bool:
    """Whether a point lies outside of a picture of `size`."""
    height, width = size
    return bool(((points < 0) | (points > (width, height))).any())


def turned(points: Points, degrees: float) -> Points:
    """Points turned around 0, 0: clockwise where y points down, as pixels do."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return points @ np.array([[cosine, sine], [-sine, cosine]])


def coco_polygon(parts: Sequence[Points], size: Size) -> Patch:
    """The union of the polygons `parts` by the rule of COCO's tools, bit for bit (cocoapi, maskApi.c: rleFrPoly, rleMerge).

    A polygon that crosses itself is filled by parity. A part of fewer than three points has no pixel.
    """
    drawn = [patch for part in parts if len(part) > 2 and (patch := _coco_part(part, size)).mask.size]
    outside = any(reaches_outside(part, size) for part in parts)
    if not drawn:
        return Patch(np.zeros((0, 0), dtype=bool), outside=outside)
    if len(drawn) == 1:
        return drawn[0]._replace(outside=outside)
    top, left = min(patch.top for patch in drawn), min(patch.left for patch in drawn)
    bottom = max(patch.top + patch.mask.shape[0] for patch in drawn)
    right = max(patch.left + patch.mask.shape[1] for patch in drawn)
    union = np.zeros((bottom - top, right - left), dtype=bool)
    for patch in drawn:
        height, width = patch.mask.shape
        rows = slice(patch.top - top, patch.top - top + height)
        union[rows, patch.left - left : patch.left - left + width] |= patch.mask
    return Patch(union, top, left, outside)


def _coco_part(points: Points, size: Size) -> Patch:
    """One polygon by COCO's rule: pixels between the crossings of its outline with the centre lines of the columns."""
    height, width = size
    columns, rows = _crossings(np.trunc(_FINE * points + 0.5).astype(np.int64))
    inside = (columns >= 0) & (columns < width)
    columns, rows = columns[inside], rows[inside].clip(0, height)
    if not len(columns):
        return Patch(np.zeros((0, 0), dtype=bool))
    first, last = int(columns.min()), int(columns.max())
    places = (columns - first) * height + rows  # a row equal to the height is the first of the next column, as in COCO's runs
    flips = np.bincount(places, minlength=(last - first + 1) * height + 1)[:-1]
    filled = (np.cumsum(flips & 1) & 1).astype(bool)
    return crop(filled.reshape(last - first + 1, height).T, left=first)


def _crossings(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(columns, rows) where the outline through `corners` (N, 2), in fifths of a pixel, passes the middle of a column."""
    start, end = corners, np.roll(corners, -1, axis=0)
    before = np.cumsum(np.abs(end - start).max(axis=1) + 1) // _AT_ONCE
    parts = np.split(np.arange(len(corners)), np.flatnonzero(np.diff(before)) + 1)
    columns, rows = zip(*(_crossings_of_edges(start[part], end[part]) for part in parts), strict=True)
    return np.concatenate(columns), np.concatenate(rows)


def _crossings_of_edges(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`_crossings` of the edges from `start` to `end`, (N, 2) each.

    Each edge is a chain of steps: one for each unit of its longer side, with the other coordinate rounded.
    """
    steps = np.abs(end - start)  # (N, 2)
    wide = steps[:, 0] >= steps[:, 1]  # the longer side is x
    long = np.where(wide, 0, 1)
    edges = np.arange(len(start))
    turned = start[edges, long] > end[edges, long]  # an edge is walked from its smaller end
    low, high = np.where(turned[:, None], end, start), np.where(turned[:, None], start, end)
    count = steps.max(axis=1)
    short = 1 - long
    slope = (high - low)[edges, short] / np.maximum(count, 1)
    edge = np.repeat(edges, count + 1)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(count + 1) - (count + 1), count + 1)
    along = low[edges, long][edge] + step
    across = np.trunc(low[edges, short][edge] + slope[edge] * step + 0.5).astype(np.int64)
    x, y = np.where(wide[edge], along, across), np.where(wide[edge], across, along)
    passes = (edge[1:] == edge[:-1]) & (x[1:] != x[:-1])
    left, upper = np.minimum(x[1:], x[:-1])[passes], np.minimum(y[1:], y[:-1])[passes]
    middle = left % _FINE == _FINE // 2
    return left[middle] // _FINE, -((_FINE // 2 - upper[middle]) // _FINE)  # the first row at or below the crossing


def pillow_polygon(points: Points, size: Size) -> Patch:
    """A polygon with its outline as Pillow's ImageDraw fills it. Fewer than three points have no pixel."""
    if len(points) < 3:
        return Patch(np.zeros((0, 0), dtype=bool), outside=reaches_outside(points, size))
    return _drawn(points, size, lambda draw: draw.polygon(_pairs(points), outline=1, fill=1))


def pillow_rectangle(points: Points, size: Size) -> Patch:
    """The rectangle between two opposite corners, both inclusive, as Pillow's ImageDraw fills it."""
    low, high = points.min(axis=0), points.max(axis=0)
    return _drawn(points, size, lambda draw: draw.rectangle([*low.tolist(), *high.tolist()], outline=1, fill=1))


def pillow_circle(center: Points, radius: float, size: Size) -> Patch:
    """The disc around a point (2,) as Pillow's ImageDraw fills it."""
    corners = np.stack([center - radius, center + radius])
    return _drawn(corners, size, lambda draw: draw.ellipse(corners.reshape(-1).tolist(), outline=1, fill=1))


def pillow_line(points: Points, size: Size, width: int) -> Patch:
    """The lines between successive points as Pillow's ImageDraw draws them, `width` pixels wide."""
    return _drawn(points, size, lambda draw: draw.line(_pairs(points), fill=1, width=width))


def _pairs(points: Points) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points.tolist()]


def _drawn(points: Points, size: Size, draw: Callable[[ImageDraw.ImageDraw], None]) -> Patch:
    """What `draw` leaves of a shape with these points in a picture of `size`."""
    picture = Image.new("L", (size[1], size[0]))
    draw(ImageDraw.Draw(picture))
    outside = reaches_outside(points, size)
    box = picture.getbbox()
    if box is None:
        return Patch(np.zeros((0, 0), dtype=bool), outside=outside)
    return Patch(np.asarray(picture.crop(box)).astype(bool), box[1], box[0], outside)


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """The distance of two points (2,)."""
    return math.hypot(*(first - second).tolist())
