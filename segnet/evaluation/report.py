"""One self-contained HTML page about an evaluation: scores, charts, and the worst and best pictures to look into.

`report_start.html`, `report.html` and `report_end.html` are the page; `report_pictures.html`, `base.css`, `report.css`
and `report.js` are put into it, and this module fills in what is known.
Everything that comes from data is escaped, and the page's content security policy runs no script but its own.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from segnet.classes import ClassSet
from segnet.evaluation.charts import Chart, reliability_chart
from segnet.evaluation.gallery import PictureSection, ReportPicture, picture_rows, picture_section, worst_of_class
from segnet.evaluation.learning_curves import learning_curves
from segnet.evaluation.markup import Page, css_color, heading, percent, swatch, text_of, tiles, with_unit
from segnet.metrics.calibration import Reliability
from segnet.metrics.confusion import Scores
from segnet.system.files import write_text
from segnet.tasks.segmentation_score import Evaluation, PictureScore
from segnet.tasks.task import Measure

_LINKED = 3  # pictures in the row of a class
_SECTIONS = {
    "classes": "Classes",
    "pictures": "Pictures",
    "suspects": "Suspect labels",
    "confusion": "Confusion",
    "training": "Learning curves",
    "calibration": "Calibration",
    "all": "Every picture",
    "facts": "Facts",
}  # names by their anchors


def write_report(
    path: Path,
    evaluation: Evaluation,
    pictures: Iterable[ReportPicture],
    classes: ClassSet,
    *,
    title: str,
    facts: Mapping[str, str],
    curves: Path | None,
    advice: Sequence[str] = (),
    suspects: str = "",
    of_classes: Collection[str] = (),
) -> None:
    """Write the page, atomically. `pictures` are shown in their order, that of `worst_and_best`; `curves` is a run's metrics.csv,
    `advice` are the lines of `weak_class_lines`, `suspects` is a section of `suspect_section`. `of_classes` are
    the ids of those `pictures`, the last ones, that `worst_of_classes` adds.

    They are reduced until the page has at most 10 MB: those of a sequence share the room, each of an iterator has a
    two-hundredth of it. An iterator is read one picture at a time.
    """
    page = Page("report.html", title, facts)
    page.parts |= {
        "tiles": _tiles(evaluation),
        "class_columns": _class_columns(evaluation),
        "class_rows": _class_rows(evaluation, classes, PictureSection("", [])),
        "advice": _advice(advice),
        "suspects": suspects,
        "confusion": _confusion(evaluation.scores, classes),
        "curves": learning_curves(curves, "miou", "mIoU", "%", factor=100.0),
        "reliability": _reliability(evaluation.reliability),
        "picture_rows": picture_rows(evaluation.pictures),
    }
    section = picture_section(evaluation, pictures, classes, page.room_for_pictures(), of_classes=of_classes)
    page.parts |= {"pictures": section.text, "class_rows": _class_rows(evaluation, classes, section)}
    optional = {"pictures": section.text, "suspects": suspects, "training": page.parts["curves"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page.text(_SECTIONS, optional))


def _advice(lines: Sequence[str]) -> str:
    """A list of the classes that were not learnt; empty without any."""
    items = "".join(f"<li><bdi>{text_of(line)}</bdi></li>" for line in lines)
    return f'<h3>Not learnt</h3>\n<ul class="advice">{items}</ul>' if lines else ""


def _tiles(evaluation: Evaluation) -> str:
    scores = evaluation.scores
    counts = {
        "Pictures": f"{len(evaluation.pictures):,}",
        "Scored pixels": f"{scores.pixels:,}",
        "Ignored pixels": f"{scores.ignored:,}",
    }
    return tiles({measure.title: _shown(measure) for measure in evaluation.measures()} | counts)


def _shown(measure: Measure) -> str:
    return with_unit(measure.value) if measure.is_share else f"{measure.value:.2f}"


def _class_columns(evaluation: Evaluation) -> str:
    """The heads of the columns that `_class_rows` fills with percentages; the first has a bar beside each number."""
    first, *others = [f"{heading(measure.title)} %" for measure in evaluation.class_measures()]
    return f'<th scope="col" class="meter">{first}</th>' + "".join(f'<th scope="col">{title}</th>' for title in others)


def _class_rows(evaluation: Evaluation, classes: ClassSet, section: PictureSection) -> str:
    """A row for each class, with links to those shown pictures that have the most wrong pixels of it."""
    scores, rows = evaluation.scores, []
    columns = zip(*(measure.values for measure in evaluation.class_measures()), strict=True)
    for index, (iou, *others) in enumerate(columns):
        share = sum(scores.confusion[index]) / scores.pixels if scores.pixels else math.nan
        width = 0.0 if math.isnan(iou) else 100 * iou
        bar = f'<span class="bar"><i style="width:{width:.1f}%;background:{css_color(classes.colors[index])}"></i></span>'
        cells = "".join(f"<td>{percent(value)}</td>" for value in (*others, share))
        meter = f'<td class="meter"><div><span>{percent(iou)}</span>{bar}</div></td>'
        worst = worst_of_class(section.shown, index, _LINKED)
        links = f'<td class="worst">{" ".join(_link(section, picture, index, classes) for picture in worst) or "–"}</td>'
        rows.append(f"<tr>{_class_head(classes, index)}{meter}{cells}{links}</tr>")
    return "\n".join(rows)


def _link(section: PictureSection, picture: PictureScore, index: int, classes: ClassSet) -> str:
    """A link to a picture that says how many pixels of a class are wrong in it."""
    anchor, pixels = section.anchor_of(picture), picture.wrong(index)
    words = f"{text_of(picture.id)}: {pixels:,} wrong pixels of {text_of(classes.names[index])}"
    return f'<a href="#{anchor}" data-shows="{anchor}" title="{words}" aria-label="{words}">{short_count(pixels)}</a>'


def short_count(number: int) -> str:
    """A number in at most four characters, e.g. "640", "6.4k", "64k", "6.4M"."""
    for size, unit in ((1, ""), (1_000, "k"), (1_000_000, "M"), (1_000_000_000, "G")):
        if number < 1000 * size:
            value = number / size
            return f"{number}" if size == 1 else f"{value:.1f}{unit}" if value < 9.95 else f"{min(value, 999):.0f}{unit}"
    return f"{number:.0e}"


def _class_head(classes: ClassSet, index: int) -> str:
    return f'<th scope="row">{swatch(css_color(classes.colors[index]))}<bdi>{text_of(classes.names[index])}</bdi></th>'


def _confusion(scores: Scores, classes: ClassSet) -> str:
    """The head and the rows of the table. A cell shows the percentage of its row; its title holds the pixels."""
    names = "".join(f'<th scope="col"><span><bdi>{text_of(name)}</bdi></span></th>' for name in classes.names)
    lines = [f'<thead><tr><th scope="col">truth ↓ &nbsp; prediction →</th>{names}</tr></thead>', "<tbody>"]
    for truth, counts in enumerate(scores.confusion):
        total = sum(counts)
        cells = [_confusion_cell(count, total, right=truth == index) for index, count in enumerate(counts)]
        lines.append(f"<tr>{_class_head(classes, truth)}{''.join(cells)}</tr>")
    return "\n".join([*lines, "</tbody>"])


def _confusion_cell(count: int, total: int, *, right: bool) -> str:
    if not total:
        return "<td>–</td>"
    if not count:
        return "<td></td>"
    share = 100 * count / total
    shown, kind = f"{share:.0f}" if share >= 0.5 else "&lt;1", ' class="right"' if right else ""
    strength = f"--strength:{100 * math.sqrt(count / total):.0f}%"
    return f'<td{kind} style="{strength}" title="{count:,} pixels"><span>{shown}</span><b>{count:,}</b></td>'


def _reliability(reliability: Reliability) -> str:
    """The diagram, and its numbers as a table."""
    error, bins = with_unit(reliability.error), len(reliability.pixels)
    if not sum(reliability.pixels):
        return "<p>No pixel is scored.</p>"
    description = f"Bars below the diagonal are too sure, bars above it not sure enough. Expected calibration error {error}."
    chart = Chart("Share of correct pixels by confidence", description, "confidence, %", "correct pixels, %")
    rows = []
    for index, (pixels, correct) in enumerate(zip(reliability.pixels, reliability.correct, strict=True)):
        values = (f"{pixels:,}", percent(reliability.confidence[index]), percent(correct / pixels if pixels else math.nan))
        edges = f"{100 * index / bins:.4g}–{100 * (index + 1) / bins:.4g}"
        rows.append(f'<tr><th scope="row">{edges}</th>' + "".join(f"<td>{value}</td>" for value in values) + "</tr>")
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Confidence %", "Pixels", "Mean confidence %", "Correct %"))
    table = f'<table class="numbers"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    caption = f"<figcaption>Expected calibration error <strong>{error}</strong></figcaption>"
    numbers = f'<details><summary>The numbers</summary><div class="scroll" tabindex="0">{table}</div></details>'
    return f"<figure>{reliability_chart(chart, reliability)}{caption}</figure>{numbers}"
