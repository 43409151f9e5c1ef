"""Curves and bars end where their values do, at few ticks."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from segnet.evaluation.charts import Chart, line_chart, reliability_chart
from segnet.metrics.calibration import Reliability


def _chart(drawing: str) -> tuple[ElementTree.Element, list[str]]:
    root = ElementTree.fromstring(drawing)
    return root, [text.text or "" for text in root.iter("text")]


def test_a_curve_ends_at_its_ticks() -> None:
    root, texts = _chart(line_chart(Chart("a <title>", "&", "step", "loss"), [(0, 0), (50, 2), (100, 1)], marked=(50, 2)))
    assert (root.findtext("title"), root.findtext("desc")) == ("a <title>", "&")
    assert texts == ["0", "0.5", "1", "1.5", "2", "0", "20", "40", "60", "80", "100", "step", "loss"]
    curve, dot = root.find("polyline"), root.find("circle")
    assert curve is not None
    assert dot is not None
    assert curve.attrib["points"] == "56.0,250.0 245.0,12.0 434.0,131.0"
    assert (dot.attrib["cx"], dot.attrib["cy"]) == ("245.0", "12.0")


def test_a_long_curve_has_a_corner_a_pixel_the_mean_of_those_on_it() -> None:
    root, _ = _chart(line_chart(Chart("", "", "", ""), [(step, step % 2) for step in range(100_001)]))
    curve = root.find("polyline")
    assert curve is not None
    heights = [float(corner.split(",")[1]) for corner in curve.attrib["points"].split()]
    assert len(heights) <= 434 - 56 + 1
    assert all(abs(height - 131) < 1 for height in heights)


@pytest.mark.parametrize("highest", [1e-9, 0.0, 0.03, 1.0, 7.3, 99.9, 100.0, 123_456.0, 3e9])
def test_ticks_are_few_and_hold_every_value(highest: float) -> None:
    root, texts = _chart(line_chart(Chart("", "", "", ""), [(highest, highest)]))
    ticks = [float(text.replace(",", "")) for text in texts if text]
    assert 4 <= len(ticks) <= 2 * 7
    assert max(ticks) >= highest * (1 - 1e-5)
    assert len(set(ticks)) == len(ticks) / 2
    assert root.find("circle") is not None  # a single point is seen


def test_bars_of_a_reliability_diagram_are_the_share_of_correct_pixels() -> None:
    reliability = Reliability((0, 10_000, 5, 1000), (0, 2500, 5, 500), (math.nan, 0.4, 0.6, 0.9), 0.1)
    root, _ = _chart(reliability_chart(Chart("", "", "", ""), reliability))
    bars = root.findall("rect")
    assert [round(float(bar.attrib["height"]) / 238, 3) for bar in bars] == [0.25, 1.0, 0.5]
    assert [bar.attrib["class"] for bar in bars] == ["column", "column few", "column"]
    assert not re.search("nan", ElementTree.tostring(root, "unicode"))
