"""Pictures made from pictures, masks and predictions, as uint8 arrays; charts, as SVG. No files."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segnet.calibration import Reliability
from segnet.classes import ClassSet


def to_array(image: Tensor) -> np.ndarray:
    """(3, H, W) uint8 -> (H, W, 3) uint8."""
    return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())


def colorize(mask: Tensor, classes: ClassSet) -> np.ndarray:
    """(H, W) class ids -> (H, W, 3): each pixel in the colour of its class."""
    palette = np.asarray(classes.palette, dtype=np.uint8).reshape(256, 3)
    return palette[mask.cpu().numpy()]


_BAND = 1 << 18  # pixels that are worked on at a time, so that memory does not grow with the picture


def overlay(image: Tensor, mask: Tensor, classes: ClassSet, *, opacity: float = 0.55) -> np.ndarray:
    """The picture (3, H, W) under its mask (H, W) -> (H, W, 3). Black classes and ignored pixels stay transparent.

    Edges between classes are drawn in full colour.
    """
    palette = np.asarray(classes.palette, dtype=np.uint8).reshape(256, 3)
    seen = palette.any(axis=1) & (np.arange(256) != classes.ignore_index)
    alpha = np.where(seen, opacity, 0.0)
    mixed = np.arange(256) * (1 - alpha)[:, None] + (palette.T * alpha)[..., None]  # (3, 256 ids, 256 values): every answer
    answers = mixed.round().astype(np.uint8).reshape(3, -1)
    shown = np.array(image.permute(1, 2, 0).cpu().numpy(), order="C")  # a copy, whatever the memory order
    ids = mask.cpu().numpy()
    rows = max(1, _BAND // ids.shape[1])
    for top in range(0, len(ids), rows):
        band, part = ids[top : top + rows], shown[top : top + rows]
        first = band.astype(np.intp) * 256  # of the answers for each pixel's id
        for channel in range(3):
            part[..., channel] = answers[channel].take(first + part[..., channel])
        edge = _edges(ids[max(0, top - 1) : top + rows])[min(1, top) :] & seen[band]
        part[edge] = palette[band[edge]]
    return shown


def _edges(ids: np.ndarray) -> np.ndarray:
    """(H, W) class ids -> (H, W) bool: where the pixel above or to the left is of another class."""
    edge = np.zeros(ids.shape, dtype=bool)
    edge[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    edge[1:, :] |= ids[1:, :] != ids[:-1, :]
    return edge


def grid(rows: Sequence[Sequence[np.ndarray]], *, gap: int = 4) -> np.ndarray:
    """Pictures in rows and columns, each column as wide as its widest, on white: one (H, W, 3) picture."""
    heights = [max(cell.shape[0] for cell in row) for row in rows]
    widths = [max(row[column].shape[1] for row in rows) for column in range(len(rows[0]))]
    canvas = np.full((sum(heights) + gap * (len(rows) - 1), sum(widths) + gap * (len(widths) - 1), 3), 255, dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            top, left = sum(heights[:i]) + gap * i, sum(widths[:j]) + gap * j
            canvas[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    return canvas


def activation_grid(image: Tensor, stages: Sequence[tuple[Tensor, Tensor]], *, height: int = 120) -> np.ndarray:
    """A picture and, column by column, what each decoder stage makes of it: unpooled above, deconvolved below.

    Of each (C, h, w) the channel with the largest sum of the stage's output is shown, brightest = its maximum.
    """
    size = (height, round(height * image.shape[2] / image.shape[1]))
    columns = [[to_array(image), np.full((*image.shape[1:], 3), 255, np.uint8)]]
    for stage in stages:
        columns.append([_heat(activation[activation.abs().sum(dim=(1, 2)).argmax()]) for activation in stage])
    rows = [[_resize(cells[row], size) for cells in columns] for row in (0, 1)]
    return grid(rows)


def _heat(values: Tensor) -> np.ndarray:
    """(h, w) numbers -> (h, w, 3): black over red and yellow to white, by their size."""
    x = (values.abs() / values.abs().max().clamp(min=1e-12)).numpy()[..., None]
    return (255 * np.clip(3 * x - np.arange(3), 0, 1)).round().astype(np.uint8)


def enlarge(picture: np.ndarray, factor: int) -> np.ndarray:
    """(H, W, 3) -> (factor·H, factor·W, 3), every pixel a square."""
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def _resize(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """To (height, width) without smoothing, so that single pixels stay visible."""
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.NEAREST))


def contact_sheet(samples: Sequence[tuple[Tensor, Tensor]], classes: ClassSet, *, pairs_per_row: int = 4) -> np.ndarray:
    """Pictures (3, H, W), all of one size, each beside its overlay in which ignored pixels are hatched in white."""
    cells = []
    for image, mask in samples:
        shown = overlay(image, mask, classes)
        rows, columns = np.indices(mask.shape)
        shown[((rows + columns) % 8 < 2) & (mask.cpu().numpy() == classes.ignore_index)] = 255
        cells += [to_array(image), shown]
    blank = np.full_like(cells[0], 255)
    across = 2 * min(pairs_per_row, len(samples))
    cells += [blank] * (-len(cells) % across)
    return grid([cells[start : start + across] for start in range(0, len(cells), across)])


def comparison(image: Tensor, truth: Tensor, prediction: Tensor, classes: ClassSet) -> list[np.ndarray]:
    """One row of a grid: picture | truth | prediction."""
    return [to_array(image), colorize(truth, classes), colorize(prediction.to(torch.uint8), classes)]


# ---- layers of a report ----------------------------------------------------------------------------------------------

WRONG, STRIPES = (224, 54, 36), ((235, 235, 235), (150, 150, 150))
UNCERTAINTY_COLORS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))  # evenly brighter, 0 to 1


def cut_out(mask: Tensor, classes: ClassSet) -> np.ndarray:
    """(H, W) class ids -> (H, W, 4): each pixel in the colour of its class, transparent where it is not scored."""
    scored = mask.cpu().numpy() != classes.ignore_index
    return np.dstack([colorize(mask, classes) * scored[..., None], scored * np.uint8(255)])


def error_map(truth: Tensor, prediction: Tensor, classes: ClassSet) -> np.ndarray:
    """Two (H, W) masks -> (H, W, 4): WRONG where they differ, striped where the truth is ignored, elsewhere transparent."""
    true, predicted = truth.cpu().numpy(), prediction.cpu().numpy()
    ignored = true == classes.ignore_index
    shown = np.zeros((*true.shape, 4), np.uint8)
    shown[true != predicted] = (*WRONG, 255)
    rows, columns = np.nonzero(ignored)
    shown[ignored] = np.array([(*stripe, 255) for stripe in STRIPES], np.uint8)[(rows + columns) // 3 % 2]
    return shown


def uncertainty_map(uncertainty: Tensor) -> np.ndarray:
    """(H, W) numbers 0..1 -> (H, W, 3): black over violet and orange to pale yellow; NaN counts as 1."""
    values = np.nan_to_num(uncertainty.cpu().numpy(), nan=1.0).clip(0, 1)
    stops = np.linspace(0, 1, len(UNCERTAINTY_COLORS))
    channels = [np.interp(values, stops, channel) for channel in zip(*UNCERTAINTY_COLORS, strict=True)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


# ---- charts, as SVG whose colours and fonts a page's style sheet gives by class --------------------------------------

Point = tuple[float, float]
_SIZE = (460, 300)  # width and height of a chart
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 434.0, 12.0, 250.0  # of the area between its axes


class Chart(NamedTuple):
    """What a chart says in words: `title` and `description` are its text for who does not see it."""

    title: str
    description: str
    x_label: str
    y_label: str


class _Axes(NamedTuple):
    """Ticks of two axes that begin at 0, and where a value stands in the drawing."""

    x_ticks: list[float]
    y_ticks: list[float]

    def x(self, value: float) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * value / self.x_ticks[-1], 1)

    def y(self, value: float) -> float:
        return round(_BOTTOM - (_BOTTOM - _TOP) * value / self.y_ticks[-1], 1)


def line_chart(chart: Chart, points: Sequence[Point], *, marked: Point | None = None) -> str:
    """An SVG of a curve through finite `points`, none below 0; those that share a pixel are averaged. `marked` has a dot."""
    axes = _Axes(_ticks(max(x for x, _ in points)), _ticks(max(y for _, y in points)))
    drawn = [(axes.x(x), axes.y(y)) for x, y in points]
    columns = [list(group) for _, group in groupby(drawn, key=lambda point: round(point[0]))]
    corners = [tuple(math.fsum(values) / len(column) for values in zip(*column, strict=True)) for column in columns]
    shapes = [f'<polyline class="curve" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in corners)}"/>']
    dots = [marked] if marked else points if len(corners) == 1 else []
    shapes += [f'<circle class="dot" cx="{axes.x(x)}" cy="{axes.y(y)}" r="4"/>' for x, y in dots]
    return _draw(chart, axes, shapes)


def reliability_chart(chart: Chart, reliability: Reliability) -> str:
    """An SVG of the share of correct pixels in each bin of confidence, in percent, beside the diagonal where both agree.

    Bins with less than a thousandth of the pixels are pale.
    """
    axes, bins, total = _Axes(_ticks(100.0), _ticks(100.0)), len(reliability.pixels), sum(reliability.pixels)
    shapes = []
    for index, (pixels, correct) in enumerate(zip(reliability.pixels, reliability.correct, strict=True)):
        if pixels:
            left, right, top = axes.x(100 * index / bins), axes.x(100 * (index + 1) / bins), axes.y(100 * correct / pixels)
            kind = "column few" if pixels < total / 1000 else "column"
            size = f'width="{right - left - 2:.1f}" height="{_BOTTOM - top:.1f}"'
            shapes.append(f'<rect class="{kind}" x="{left + 1:.1f}" y="{top}" {size}/>')
    shapes.append(f'<line class="diagonal" x1="{_LEFT}" y1="{_BOTTOM}" x2="{_RIGHT}" y2="{_TOP}"/>')
    return _draw(chart, axes, shapes)


def _ticks(highest: float) -> list[float]:
    """0 and about five more round numbers, the last of them not below `highest`."""
    if highest <= 0:
        return [0.0, 1.0]
    power = 10 ** math.floor(math.log10(highest / 5))
    step = next(step for step in (power, 2 * power, 2.5 * power, 5 * power, 10 * power) if step * 5.001 >= highest)
    return [step * count for count in range(math.ceil(highest / step - 1e-9) + 1)]


def _draw(chart: Chart, axes: _Axes, shapes: Sequence[str]) -> str:
    title, description, x_label, y_label = map(html.escape, chart)
    parts = [f'<svg class="chart" viewBox="0 0 {_SIZE[0]} {_SIZE[1]}" role="img">', f"<title>{title}</title>"]
    parts.append(f"<desc>{description}</desc>")
    for tick in axes.y_ticks:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{axes.y(tick)}" y2="{axes.y(tick)}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{axes.y(tick) + 4:.1f}" text-anchor="end">{tick:,.6g}</text>')
    for tick in axes.x_ticks:
        parts.append(f'<line class="axis" x1="{axes.x(tick)}" x2="{axes.x(tick)}" y1="{_BOTTOM}" y2="{_BOTTOM + 5}"/>')
        parts.append(f'<text x="{axes.x(tick)}" y="{_BOTTOM + 20}" text-anchor="middle">{tick:,.6g}</text>')
    parts += shapes
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_RIGHT}" y1="{_BOTTOM}" y2="{_BOTTOM}"/>')
    middle = (_TOP + _BOTTOM) / 2
    parts.append(f'<text x="{(_LEFT + _RIGHT) / 2}" y="{_BOTTOM + 42}" text-anchor="middle">{x_label}</text>')
    parts.append(f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{y_label}</text>')
    return "\n".join([*parts, "</svg>"])
