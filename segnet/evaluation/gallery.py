"""The pictures of a report: which ones, and their layers."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from string import Template
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from segnet.classes import ClassSet
from segnet.config.sections import InferenceConfig
from segnet.data.dataset import SegmentationDataset
from segnet.data.images import encode_webp
from segnet.evaluation.markup import css_color, figure, part, percent, swatch, text_of, viewer, with_unit
from segnet.inference.answers import predict_maps, prepare_to_predict
from segnet.inference.exported import Network
from segnet.tasks.segmentation_score import Evaluation, PictureScore
from segnet.visualization import UNCERTAINTY_COLORS, WRONG, cut_out, error_map, overlay, preview, to_array, uncertainty_map

USUAL_COUNT = 200  # pictures in a report, where an iterator does not say how many it has
MAX_SHARE = 200_000  # bytes of one picture's layers
MOST_CLASSES = 24  # for each of which a report shows its worst picture
LONGEST_SIDE = 1024  # pixels; a larger picture is reduced


class ReportPicture(NamedTuple):
    """A picture to show, at its own size."""

    score: PictureScore
    image: Tensor  # (3, H, W) uint8
    truth: Tensor  # (H, W) uint8, 255 ignored
    mask: Tensor  # (H, W) uint8, predicted
    uncertainty: Tensor  # (H, W) float32 0..1


def predicted(
    model: Network,
    dataset: SegmentationDataset,
    pictures: Sequence[PictureScore],
    inference: InferenceConfig,
    known: Mapping[str, ReportPicture],
) -> Iterator[ReportPicture]:
    """`pictures` of a split with their images, masks and predictions.

    Those that are not `known` by their ids, because another rank scored them, are predicted again, with the same masks.
    """
    missing = any(score.id not in known for score in pictures)
    model = prepare_to_predict(model, inference) if missing else model
    rows = {name: row for row, name in enumerate(dataset.ids)}
    for score in pictures:
        if score.id in known:
            yield known[score.id]
            continue
        sample = dataset.read(rows[score.id])
        maps = predict_maps(model, sample.image[None], inference)
        yield ReportPicture(score, preview(sample.image, dataset.bands), sample.truth, maps.mask[0], maps.uncertainty[0])


def worst_of_classes(pictures: Sequence[PictureScore], classes: int) -> list[PictureScore]:
    """For each class the picture with the most wrong pixels of it, each picture once; none for more than `MOST_CLASSES`."""
    if classes > MOST_CLASSES:
        return []
    ranked = (worst_of_class(pictures, number, 1) for number in range(classes))
    return list({picture.id: picture for found in ranked for picture in found}.values())


def worst_of_class(pictures: Iterable[PictureScore], number: int, count: int) -> list[PictureScore]:
    """The `count` pictures with the most wrong pixels of a class, the most first; none without one."""
    wrong = [picture for picture in pictures if picture.wrong(number)]
    return sorted(wrong, key=lambda picture: -picture.wrong(number))[:count]


def worst_and_best(pictures: Sequence[PictureScore], count: int) -> list[PictureScore]:
    """The worst and the best `count` pictures by mIoU, half and half, from the worst to the best.

    A picture without a score comes last, and only where the others are fewer than `count`.
    """
    ordered = _worst_first(pictures)
    if len(ordered) >= count:
        return ordered[: count - count // 2] + ordered[len(ordered) - count // 2 :]
    return (ordered + [picture for picture in pictures if math.isnan(picture.miou)])[:count]


def _worst_first(pictures: Sequence[PictureScore]) -> list[PictureScore]:
    return sorted((picture for picture in pictures if not math.isnan(picture.miou)), key=lambda picture: picture.miou)


def picture_rows(pictures: Sequence[PictureScore]) -> str:
    """The rows of the table of all pictures."""
    rows = []
    for picture in pictures:
        cells = "".join(f"<td>{percent(value)}</td>" for value in (picture.miou, picture.accuracy, picture.boundary_f1))
        rows.append(f'<tr><th scope="row"><bdi>{text_of(picture.id)}</bdi></th>{cells}</tr>')
    return "\n".join(rows)


class PictureSection(NamedTuple):
    """The section of a report with its pictures."""

    text: str  # HTML; empty without a picture
    shown: list[PictureScore]

    def anchor_of(self, picture: PictureScore) -> str:
        """The id of the picture's item in the list of pictures."""
        return f"picture-{next(place for place, one in enumerate(self.shown) if one.id == picture.id)}"


def picture_section(
    evaluation: Evaluation, pictures: Iterable[ReportPicture], classes: ClassSet, room: int, *, of_classes: Collection[str] = ()
) -> PictureSection:
    """The section with the viewer and the gallery; `room` is in bytes, `of_classes` are the ids of `worst_of_classes`."""
    gallery, shown = _gallery(evaluation, pictures, classes, room, of_classes)
    if not gallery:
        return PictureSection("", [])
    named = zip(classes.names, classes.colors, strict=True)
    legend = Template(part("report_legend.html")).substitute(
        legend="\n".join(f"<li>{swatch(css_color(color))}<bdi>{text_of(name)}</bdi></li>" for name, color in named),
        wrong=css_color(WRONG),
        uncertainty=",".join(map(css_color, UNCERTAINTY_COLORS)),
    )
    layers = ("picture", "truth", "prediction", "overlay", "error", "uncertainty")
    text = viewer(layers, shown=("picture", "prediction"), legend=legend, gallery=gallery)
    return PictureSection(text, shown)


def reduced(picture: ReportPicture) -> ReportPicture:
    """The picture in the largest size in which a report shows it."""
    height, width = picture.mask.shape
    return _resize(picture, _within((height, width), LONGEST_SIDE))


def largest_fit(encode: Callable[[tuple[int, int]], dict[str, bytes]], size: tuple[int, int], room: int) -> dict[str, bytes]:
    """The layers that `encode` makes for a (height, width), reduced from `size` until they take at most `room` bytes.

    They are not reduced below 16 pixels.
    """
    longest = float(min(LONGEST_SIDE, max(size)))
    while True:
        layers = encode(_within(size, longest))
        total = sum(map(len, layers.values()))
        if total <= room or longest <= 16:
            return layers
        longest *= max(0.5, 0.95 * math.sqrt(room / total))


def _within(size: tuple[int, int], longest: float) -> tuple[int, int]:
    """(height, width) in proportion, where no side is longer than `longest`."""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The image (C, H, W) uint8 in another (height, width), interpolated."""
    if image.shape[1:] == size:
        return image
    return F.interpolate(image[None].float(), size, mode="bilinear", antialias=True)[0].round().byte()


def _gallery(
    evaluation: Evaluation, pictures: Iterable[ReportPicture], classes: ClassSet, room: int, of_classes: Collection[str]
) -> tuple[str, list[PictureScore]]:
    """The figures as HTML lists, and their pictures in order.

    The lists are the worst and the best, or one where no rank between them is left out; then those `of_classes`.
    """
    share = min(MAX_SHARE, room // max(1, operator.length_hint(pictures, USUAL_COUNT)))
    ordered = _worst_first(evaluation.pictures)
    rank_of = {picture.id: rank for rank, picture in enumerate(ordered, start=1)}
    lists: list[list[str]] = [[]]
    worst_of_one: list[str] = []
    shown: list[PictureScore] = []
    before: int | None = None
    for picture in pictures:
        rank = rank_of.get(picture.score.id)
        words = f"rank {rank} of {len(ordered)} from the worst" if rank else "not scored"
        item = _figure(picture, classes, share, words, anchor=f"picture-{len(shown)}")
        shown.append(picture.score)
        if picture.score.id in of_classes:
            worst_of_one.append(item)
            continue
        if rank and before and rank > before + 1:
            lists.append([])
        lists[-1].append(item)
        before = rank
    headings = ("Worst", "Best") if len(lists) == 2 else ("From the worst to the best",) * len(lists)
    parts = []
    for heading, items in zip((*headings, "Worst of a class"), (*lists, worst_of_one), strict=True):
        parts += [f"<h3>{heading}</h3>", "<ol>", *items, "</ol>"] if items else []
    return "\n".join(parts), shown


def _figure(picture: ReportPicture, classes: ClassSet, share: int, rank: str, *, anchor: str) -> str:
    """One picture: all its layers, what they show in words, and its scores. `anchor` is its id in the page."""
    score, (height, width) = picture.score, picture.mask.shape
    name = text_of(score.id)
    words = {
        "picture": f"Picture {name}",
        "truth": f"Truth of {name}: {_largest(score.in_truth, classes)}",
        "prediction": f"Prediction for {name}: {_largest(score.in_prediction, classes)}",
        "overlay": f"Prediction over the picture {name}",
        "error": f"Errors in {name}: {with_unit(1 - score.accuracy)} of the scored pixels",
        "uncertainty": f"Uncertainty in {name}: {with_unit(float(picture.uncertainty.mean()))} on average",
    }
    scores = f"mIoU {with_unit(score.miou)}"
    more = f", accuracy {with_unit(score.accuracy)}, boundary F1 {with_unit(score.boundary_f1)}, {rank}"
    layers = _layers(picture, classes, share)
    return figure(layers, words, size=(height, width), name=name, scores=scores, more=more, anchor=anchor)


def _largest(pixels: Sequence[int], classes: ClassSet) -> str:
    """The three classes with most pixels and their shares, as text for an attribute."""
    ranked = sorted(range(len(pixels)), key=lambda index: -pixels[index])[:3]
    found = [f"{text_of(classes.names[index])} {with_unit(pixels[index] / sum(pixels))}" for index in ranked if pixels[index]]
    return ", ".join(found) or "nothing scored"


def _layers(picture: ReportPicture, classes: ClassSet, room: int) -> dict[str, bytes]:
    """The layers as WebP, all of one size, reduced until they take at most `room` bytes."""
    height, width = picture.mask.shape
    return largest_fit(lambda size: _encode(_resize(picture, size), classes), (height, width), room)


def _resize(picture: ReportPicture, size: tuple[int, int]) -> ReportPicture:
    """The picture at another size: image and uncertainty interpolated, class ids from the nearest pixel."""
    if picture.mask.shape == size:
        return picture
    image = resize_image(picture.image, size)
    uncertainty = F.interpolate(picture.uncertainty.nan_to_num(1.0)[None, None], size, mode="bilinear", antialias=True)[0, 0]
    truth, mask = (F.interpolate(ids[None, None], size, mode="nearest-exact")[0, 0] for ids in (picture.truth, picture.mask))
    return picture._replace(image=image, truth=truth, mask=mask, uncertainty=uncertainty)


def _encode(picture: ReportPicture, classes: ClassSet) -> dict[str, bytes]:
    return {
        "picture": encode_webp(to_array(picture.image), quality=75),
        "truth": encode_webp(cut_out(picture.truth, classes)),
        "prediction": encode_webp(cut_out(picture.mask, classes)),
        "overlay": encode_webp(overlay(picture.image, picture.mask, classes), quality=75),
        "error": encode_webp(error_map(picture.truth, picture.mask, classes)),
        "uncertainty": encode_webp(uncertainty_map(picture.uncertainty), quality=55),
    }
