"""The section of a report with the learning curves of a run."""

from __future__ import annotations

import math
from pathlib import Path

from segnet.evaluation.charts import Chart, Point, line_chart
from segnet.runs.log import read_log


def learning_curves(path: Path | None, name: str, title: str, unit: str, *, factor: float) -> str:
    """The section with the curves of the loss and of a measure, or nothing without a log.

    `name` is the measure's in metrics.csv, whose values times `factor` are in `unit`.
    """
    if path is None or not path.is_file():
        return ""
    figures = []
    loss = _logged(path, "loss")
    if loss:
        words = f"From {loss[0][1]:.3g} at step {loss[0][0]:,.0f} to {loss[-1][1]:.3g} at step {loss[-1][0]:,.0f}."
        chart = Chart("Training loss by step", words, "step", "loss")
        figures.append(f"<figure>{line_chart(chart, loss)}<figcaption>Loss. {words}</figcaption></figure>")
    values = [(step, factor * value) for step, value in _logged(path, f"val_{name}")]
    if values:
        best = max(values, key=lambda point: point[1])
        words = f"Highest {best[1]:.1f}\u202f{unit} at step {best[0]:,.0f}, last {values[-1][1]:.1f}\u202f{unit}."
        chart = Chart(f"Validation {title} by step", words, "step", f"val {title}, {unit}")
        figures.append(f"<figure>{line_chart(chart, values, marked=best)}<figcaption>Val {title}. {words}</figcaption></figure>")
    if not figures:
        return ""
    heading = '<section id="training" aria-labelledby="training-heading"><h2 id="training-heading">Learning curves</h2>'
    return f'{heading}<div class="charts">{"".join(figures)}</div></section>'


def _logged(path: Path, column: str) -> list[Point]:
    """(step, value) of the rows of metrics.csv that have both, finite and not below 0."""
    points = [(row["step"], row[column]) for row in read_log(path) if "step" in row and column in row]
    return [point for point in points if all(math.isfinite(value) and value >= 0 for value in point)]
