"""One self-contained HTML page about an evaluation: scores, charts, and the worst and best pictures to look into.

`report.html` is the page's frame; `report_pictures.html`, `report.css` and `report.js` are put into it, and this module
fills in what is known.
Everything that comes from data is escaped, and the page's content security policy runs no script but its own.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from segnet.calibration import Reliability
from segnet.classes import ClassSet, Color
from segnet.config import InferenceConfig
from segnet.datasets import SegmentationDataset
from segnet.evaluation import Evaluation, PictureScore
from segnet.files import write_text
from segnet.images import encode_webp
from segnet.inference import predict_maps, prepared
from segnet.metrics import Scores
from segnet.run_folder import read_log
from segnet.runtime import Network
from segnet.visualization import (
    UNCERTAINTY_COLORS,
    WRONG,
    Chart,
    Point,
    cut_out,
    error_map,
    line_chart,
    reliability_chart,
    to_array,
    uncertainty_map,
)

PAGE, LEAST_ROOM = 9_400_000, 1_000_000  # bytes of the page without the words about pictures; of all pictures at least
USUAL_COUNT, MAX_SHARE = 200, 200_000  # pictures, when their number is not known before; bytes of one
LONGEST_SIDE = 1024  # pixels; a larger picture is reduced


class ReportPicture(NamedTuple):
    """A picture to show, at its own size."""

    score: PictureScore
    image: Tensor  # (3, H, W) uint8
    truth: Tensor  # (H, W) uint8, 255 ignored
    mask: Tensor  # (H, W) uint8, predicted
    uncertainty: Tensor  # (H, W) float32 0..1


def predicted(
    model: Network, dataset: SegmentationDataset, pictures: Iterable[PictureScore], inference: InferenceConfig
) -> Iterator[ReportPicture]:
    """`pictures` of a split with what `evaluation.examine` saw: they are predicted again, which gives the same masks."""
    model, rows = prepared(model, inference), {name: row for row, name in enumerate(dataset.ids)}
    for score in pictures:
        image, truth, _ = dataset.read(rows[score.id])
        maps = predict_maps(model, image[None], inference)
        yield ReportPicture(score, image, truth, maps.mask[0], maps.uncertainty(len(dataset.classes))[0])


def chosen(pictures: Sequence[PictureScore], count: int) -> list[PictureScore]:
    """The worst and the best `count` pictures by mIoU, half and half, from the worst to the best.

    A picture without a score comes last, and only where the others are fewer than `count`.
    """
    ordered = _worst_first(pictures)
    if len(ordered) >= count:
        return ordered[: count - count // 2] + ordered[len(ordered) - count // 2 :]
    return (ordered + [picture for picture in pictures if math.isnan(picture.miou)])[:count]


def _worst_first(pictures: Sequence[PictureScore]) -> list[PictureScore]:
    return sorted((picture for picture in pictures if not math.isnan(picture.miou)), key=lambda picture: picture.miou)


def write_report(
    path: Path,
    evaluation: Evaluation,
    pictures: Iterable[ReportPicture],
    classes: ClassSet,
    *,
    title: str,
    facts: Mapping[str, str],
    curves: Path | None,
) -> None:
    """Write the page, atomically. `pictures` are shown in their order, that of `chosen`; `curves` is a run's metrics.csv.

    They are reduced until the page has at most 10 MB: those of a sequence share the room, each of an iterator has a
    two-hundredth of it. An iterator is read one picture at a time.
    """
    script = _part("report.js")
    parts = {
        "title": _text(title),
        "style": _part("report.css"),
        "script": script,
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "tiles": _tiles(evaluation),
        "class_rows": _class_rows(evaluation, classes),
        "confusion": _confusion(evaluation.scores, classes),
        "curves": _curves(curves),
        "reliability": _reliability(evaluation.reliability),
        "picture_rows": _picture_rows(evaluation.pictures),
        "fact_rows": _fact_rows(facts),
    }
    used = sum(len(part.encode()) for part in parts.values())
    room = max(LEAST_ROOM, (PAGE - used) * 3 // 4)  # base64 makes four bytes of three
    parts["pictures"] = _pictures(evaluation, pictures, classes, room)
    parts["navigation"] = _navigation({"pictures": bool(parts["pictures"]), "training": bool(parts["curves"])})
    page = Template(_part("report.html")).substitute(parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)


def _part(name: str) -> str:
    return resources.files("segnet").joinpath(name).read_text("utf-8")


def _navigation(there: Mapping[str, bool]) -> str:
    """Links to the sections, without those that are said not to be there."""
    sections = {
        "classes": "Classes",
        "pictures": "Pictures",
        "confusion": "Confusion",
        "training": "Learning curves",
        "calibration": "Calibration",
        "all": "Every picture",
        "facts": "Facts",
    }
    return "\n".join(f'<a href="#{anchor}">{name}</a>' for anchor, name in sections.items() if there.get(anchor, True))


def _text(value: str) -> str:
    """`value` for an element or a quoted attribute; what UTF-8 cannot say becomes a question mark."""
    return html.escape(value.encode("utf-8", "replace").decode())


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f}"


def _with_unit(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f}\u202f%"


def _css(color: Color) -> str:
    return f"rgb({color[0]} {color[1]} {color[2]})"


# ---- summary and classes ---------------------------------------------------------------------------------------------


def _fact_rows(facts: Mapping[str, str]) -> str:
    return "\n".join(f'<tr><th scope="row">{_text(key)}</th><td>{_text(value)}</td></tr>' for key, value in facts.items())


def _tiles(evaluation: Evaluation) -> str:
    scores, boundary = evaluation.scores, evaluation.boundary
    tiles = {
        "mIoU": _with_unit(scores.miou),
        "Global accuracy": _with_unit(scores.global_accuracy),
        "Class average accuracy": _with_unit(scores.mean_accuracy),
        "Frequency-weighted IoU": _with_unit(scores.frequency_weighted_iou),
        "Calibration error (ECE)": _with_unit(evaluation.reliability.error),
        "Boundary F1": _with_unit(boundary.f1),
        "Boundary IoU": _with_unit(boundary.iou),
        "Pictures": f"{len(evaluation.pictures):,}",
        "Scored pixels": f"{scores.pixels:,}",
        "Ignored pixels": f"{scores.ignored:,}",
    }
    return "\n".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in tiles.items())


def _class_rows(evaluation: Evaluation, classes: ClassSet) -> str:
    scores, rows = evaluation.scores, []
    for index, iou in enumerate(scores.class_iou):
        share = sum(scores.confusion[index]) / scores.pixels if scores.pixels else math.nan
        width = 0.0 if math.isnan(iou) else 100 * iou
        bar = f'<span class="bar"><i style="width:{width:.1f}%;background:{_css(classes.colors[index])}"></i></span>'
        others = (scores.class_precision[index], scores.class_accuracy[index], evaluation.boundary.class_iou[index], share)
        cells = "".join(f"<td>{_percent(value)}</td>" for value in others)
        meter = f'<td class="meter"><div><span>{_percent(iou)}</span>{bar}</div></td>'
        rows.append(f"<tr>{_class_head(classes, index)}{meter}{cells}</tr>")
    return "\n".join(rows)


def _class_head(classes: ClassSet, index: int) -> str:
    return f'<th scope="row">{_swatch(_css(classes.colors[index]))}<bdi>{_text(classes.names[index])}</bdi></th>'


def _swatch(background: str) -> str:
    return f'<i class="swatch" style="background:{background}"></i>'


def _confusion(scores: Scores, classes: ClassSet) -> str:
    """The head and the rows of the table: percent of the row, and pixels for those who ask for them."""
    names = "".join(f'<th scope="col"><span><bdi>{_text(name)}</bdi></span></th>' for name in classes.names)
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


# ---- charts ----------------------------------------------------------------------------------------------------------


def _reliability(reliability: Reliability) -> str:
    """The diagram, and its numbers as a table."""
    error, bins = _with_unit(reliability.error), len(reliability.pixels)
    if not sum(reliability.pixels):
        return "<p>No pixel is scored.</p>"
    description = f"Bars below the diagonal are too sure, bars above it not sure enough. Expected calibration error {error}."
    chart = Chart("Share of correct pixels by confidence", description, "confidence, %", "correct pixels, %")
    rows = []
    for index, (pixels, correct) in enumerate(zip(reliability.pixels, reliability.correct, strict=True)):
        values = (f"{pixels:,}", _percent(reliability.confidence[index]), _percent(correct / pixels if pixels else math.nan))
        edges = f"{100 * index / bins:.4g}–{100 * (index + 1) / bins:.4g}"
        rows.append(f'<tr><th scope="row">{edges}</th>' + "".join(f"<td>{value}</td>" for value in values) + "</tr>")
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Confidence %", "Pixels", "Mean confidence %", "Correct %"))
    table = f'<table class="numbers"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    caption = f"<figcaption>Expected calibration error <strong>{error}</strong></figcaption>"
    numbers = f'<details><summary>The numbers</summary><div class="scroll" tabindex="0">{table}</div></details>'
    return f"<figure>{reliability_chart(chart, reliability)}{caption}</figure>{numbers}"


def _curves(path: Path | None) -> str:
    """The section about the training, or nothing where there is no log of it."""
    if path is None or not path.is_file():
        return ""
    figures = []
    loss = _logged(path, "loss")
    if loss:
        words = f"From {loss[0][1]:.3g} at step {loss[0][0]:,.0f} to {loss[-1][1]:.3g} at step {loss[-1][0]:,.0f}."
        chart = Chart("Training loss by step", words, "step", "loss")
        figures.append(f"<figure>{line_chart(chart, loss)}<figcaption>Loss. {words}</figcaption></figure>")
    miou = [(step, 100 * share) for step, share in _logged(path, "val_miou")]
    if miou:
        best = max(miou, key=lambda point: point[1])
        words = f"Highest {best[1]:.1f}\u202f% at step {best[0]:,.0f}, last {miou[-1][1]:.1f}\u202f%."
        chart = Chart("Validation mIoU by step", words, "step", "val mIoU, %")
        figures.append(f"<figure>{line_chart(chart, miou, marked=best)}<figcaption>Val mIoU. {words}</figcaption></figure>")
    if not figures:
        return ""
    heading = '<section id="training" aria-labelledby="training-heading"><h2 id="training-heading">Learning curves</h2>'
    return f'{heading}<div class="charts">{"".join(figures)}</div></section>'


def _logged(path: Path, column: str) -> list[Point]:
    """(step, value) of the rows of metrics.csv that have both, finite and not below 0."""
    points = [(row["step"], row[column]) for row in read_log(path) if "step" in row and column in row]
    return [point for point in points if all(math.isfinite(value) and value >= 0 for value in point)]


# ---- pictures --------------------------------------------------------------------------------------------------------


def _picture_rows(pictures: Sequence[PictureScore]) -> str:
    rows = []
    for picture in pictures:
        cells = "".join(f"<td>{_percent(value)}</td>" for value in (picture.miou, picture.accuracy, picture.boundary_f1))
        rows.append(f'<tr><th scope="row"><bdi>{_text(picture.id)}</bdi></th>{cells}</tr>')
    return "\n".join(rows)


def _pictures(evaluation: Evaluation, pictures: Iterable[ReportPicture], classes: ClassSet, room: int) -> str:
    """The section with the viewer and the gallery, or nothing where there is no picture; `room` is in bytes."""
    gallery = _gallery(evaluation, pictures, classes, room)
    if not gallery:
        return ""
    named = zip(classes.names, classes.colors, strict=True)
    return Template(_part("report_pictures.html")).substitute(
        legend="\n".join(f"<li>{_swatch(_css(color))}<bdi>{_text(name)}</bdi></li>" for name, color in named),
        wrong=_css(WRONG),
        uncertainty=",".join(map(_css, UNCERTAINTY_COLORS)),
        gallery=gallery,
    )


def _gallery(evaluation: Evaluation, pictures: Iterable[ReportPicture], classes: ClassSet, room: int) -> str:
    """Lists of figures, one for each side of a gap in the ranks: the worst, and the best."""
    share = min(MAX_SHARE, room // max(1, operator.length_hint(pictures, USUAL_COUNT)))
    ordered = _worst_first(evaluation.pictures)
    rank_of = {picture.id: rank for rank, picture in enumerate(ordered, start=1)}
    lists: list[list[str]] = [[]]
    before: int | None = None
    for picture in pictures:
        rank = rank_of.get(picture.score.id)
        if rank and before and rank > before + 1:
            lists.append([])
        words = f"rank {rank} of {len(ordered)} from the worst" if rank else "not scored"
        lists[-1].append(_figure(picture, classes, share, words))
        before = rank
    headings = ("Worst", "Best") if len(lists) == 2 else ("From the worst to the best",) * len(lists)
    parts = []
    for heading, items in zip(headings, lists, strict=True):
        parts += [f"<h3>{heading}</h3>", "<ol>", *items, "</ol>"] if items else []
    return "\n".join(parts)


def _figure(picture: ReportPicture, classes: ClassSet, share: int, rank: str) -> str:
    """One picture: all its layers, what they show in words, and its scores."""
    score, (height, width) = picture.score, picture.mask.shape
    name = _text(score.id)
    words = {
        "picture": f"Picture {name}",
        "truth": f"Truth of {name}: {_largest(score.in_truth, classes)}",
        "prediction": f"Prediction for {name}: {_largest(score.in_prediction, classes)}",
        "error": f"Errors in {name}: {_with_unit(1 - score.accuracy)} of the scored pixels",
        "uncertainty": f"Uncertainty in {name}: {_with_unit(float(picture.uncertainty.mean()))} on average",
    }
    tags = {}
    for layer, content in _layers(picture, classes, share).items():
        source = f"data:image/webp;base64,{base64.b64encode(content).decode()}"
        tags[layer] = f'<img data-layer="{layer}" alt="{words[layer]}" width="{width}" height="{height}" src="{source}">'
    scores = f"mIoU {_with_unit(score.miou)}"
    more = f", accuracy {_with_unit(score.accuracy)}, boundary F1 {_with_unit(score.boundary_f1)}, {rank}"
    caption = f'<bdi>{name}</bdi> <span>{scores}<span class="more">{more}</span></span>'
    opener, others = f'<button type="button" disabled>{tags.pop("picture")}</button>', "".join(tags.values())
    return f'<li><figure><div class="layers">{opener}{others}</div><figcaption>{caption}</figcaption></figure></li>'


def _largest(pixels: Sequence[int], classes: ClassSet) -> str:
    """The three classes with most pixels and their shares, as text for an attribute."""
    ranked = sorted(range(len(pixels)), key=lambda index: -pixels[index])[:3]
    found = [f"{_text(classes.names[index])} {_with_unit(pixels[index] / sum(pixels))}" for index in ranked if pixels[index]]
    return ", ".join(found) or "nothing scored"


def _layers(picture: ReportPicture, classes: ClassSet, room: int) -> dict[str, bytes]:
    """The layers as WebP, at one size: the largest that this finds with at most `room` bytes in all."""
    sides, scale = picture.mask.shape, min(1.0, LONGEST_SIDE / max(picture.mask.shape))
    while True:
        height, width = (max(1, round(side * scale)) for side in sides)
        layers = _encode(_resize(picture, (height, width)), classes)
        total = sum(map(len, layers.values()))
        if total <= room or max(height, width) <= 16:
            return layers
        scale *= max(0.5, 0.95 * math.sqrt(room / total))


def _resize(picture: ReportPicture, size: tuple[int, int]) -> ReportPicture:
    """Smoothly where values may be mixed, by the nearest pixel where they are class ids."""
    if picture.mask.shape == size:
        return picture
    image = F.interpolate(picture.image[None].float(), size, mode="bilinear", antialias=True)[0].round().byte()
    uncertainty = F.interpolate(picture.uncertainty.nan_to_num(1.0)[None, None], size, mode="bilinear", antialias=True)[0, 0]
    truth, mask = (F.interpolate(ids[None, None], size, mode="nearest-exact")[0, 0] for ids in (picture.truth, picture.mask))
    return picture._replace(image=image, truth=truth, mask=mask, uncertainty=uncertainty)


def _encode(picture: ReportPicture, classes: ClassSet) -> dict[str, bytes]:
    return {
        "picture": encode_webp(to_array(picture.image), quality=75),
        "truth": encode_webp(cut_out(picture.truth, classes)),
        "prediction": encode_webp(cut_out(picture.mask, classes)),
        "error": encode_webp(error_map(picture.truth, picture.mask, classes)),
        "uncertainty": encode_webp(uncertainty_map(picture.uncertainty), quality=55),
    }
