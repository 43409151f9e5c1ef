"""Line charts drawn as SVG."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from segnet.metrics.calibration import Reliability

Point = tuple[float, float]
_SIZE = (460, 300)  # width and height of a chart
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 434.0, 12.0, 250.0  # of the area between its axes


class Chart(NamedTuple):
    """The words of a chart. Screen readers speak `title` and `description` in place of the drawing."""

    title: str
    description: str
    x_label: str
    y_label: str


class _Axes(NamedTuple):
    """The ticks of two axes that begin at 0, and the place of a value in the drawing."""

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
