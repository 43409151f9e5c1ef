"""One self-contained HTML page about the evaluation of a denoising: scores, learning curve, worst and best pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from segnet.config.sections import InferenceConfig
from segnet.data.images import encode_webp
from segnet.evaluation.gallery import MAX_SHARE, largest_fit, resize_image
from segnet.evaluation.learning_curves import learning_curves
from segnet.evaluation.markup import Page, figure, text_of, tiles, viewer
from segnet.evaluation.restoration_results import PROTOCOL, shown, strength
from segnet.inference.answers import predict, prepare_to_predict
from segnet.inference.exported import Network
from segnet.metrics.psnr import to_8_bits
from segnet.system.files import write_text
from segnet.tasks.denoising import RestoredImages
from segnet.tasks.denoising_data import CleanPictures
from segnet.tasks.denoising_score import MEASURES, RestoredEvaluation, RestoredScore
from segnet.visualization import draw_difference, preview, to_array

_SECTIONS = {
    "levels": "Strengths of noise",
    "pictures": "Pictures",
    "training": "Learning curves",
    "all": "Every picture",
    "facts": "Facts",
}  # names by their anchors


class RestoredPicture(NamedTuple):
    """A picture to show, at its own size: (C, H, W) uint8 each."""

    score: RestoredScore
    noisy: Tensor
    restored: Tensor
    clean: Tensor


def restored_pictures(
    model: Network, dataset: CleanPictures, scores: Iterable[RestoredScore], inference: InferenceConfig
) -> Iterator[RestoredPicture]:
    """The pictures of `scores`, restored again: with the values that were scored."""
    model, rows = prepare_to_predict(model, inference), {name: row for row, name in enumerate(dataset.ids)}
    for score in scores:
        sample = dataset.read(rows[score.id])
        answer = predict(model, sample.image[None], inference, RestoredImages())
        yield RestoredPicture(score, to_8_bits(sample.image), to_8_bits(answer.image[0]), sample.truth)


def worst_and_best_restored(pictures: Sequence[RestoredScore], count: int) -> tuple[list[RestoredScore], list[RestoredScore]]:
    """The worst and the best `count` pictures by PSNR, half and half, from the worst to the best; no best where all are shown.

    With several strengths of noise they are those of the strongest.
    """
    strongest = max((picture.level for picture in pictures), default=0.0)
    ordered = sorted((picture for picture in pictures if picture.level == strongest), key=lambda picture: picture.psnr)
    if len(ordered) <= count:
        return ordered, []
    return ordered[: count - count // 2], ordered[len(ordered) - count // 2 :]


def write_restoration_report(
    path: Path,
    evaluation: RestoredEvaluation,
    worst: Sequence[RestoredPicture],
    best: Sequence[RestoredPicture],
    *,
    title: str,
    facts: Mapping[str, str],
    curves: Path | None,
) -> None:
    """Write the page, atomically. Pictures are reduced until the page has at most 10 MB; `curves` is a run's metrics.csv."""
    page = Page("report_restoration.html", title, facts)
    page.parts |= {
        "protocol": text_of(PROTOCOL),
        "tiles": _tiles(evaluation),
        "level_rows": _level_rows(evaluation),
        "curves": learning_curves(curves, "psnr", "PSNR", "dB", factor=1.0),
        "picture_rows": "\n".join(_row(picture) for picture in evaluation.pictures),
    }
    page.parts["pictures"] = _picture_section(worst, best, page.room_for_pictures())
    write_text(path, page.text(_SECTIONS, {"pictures": page.parts["pictures"], "training": page.parts["curves"]}))


def _tiles(evaluation: RestoredEvaluation) -> str:
    means = {measure.title: shown(measure.value, measure.digits) for measure in evaluation.measures()}
    return tiles(means | {"Pictures": f"{len(evaluation.pictures):,}"})


def _level_rows(evaluation: RestoredEvaluation) -> str:
    rows = []
    for level in evaluation.levels():
        cells = "".join(f"<td>{shown(measure.value, measure.digits)}</td>" for measure in evaluation.of_level(level).measures())
        rows.append(f'<tr><th scope="row">{text_of(strength(evaluation.kind, level))}</th>{cells}</tr>')
    return "\n".join(rows)


def _row(picture: RestoredScore) -> str:
    cells = "".join(f"<td>{shown(float(getattr(picture, key)), digits)}</td>" for key, _, digits in MEASURES)
    return f'<tr><th scope="row"><bdi>{text_of(picture.id)}</bdi></th>{cells}</tr>'


def _picture_section(worst: Sequence[RestoredPicture], best: Sequence[RestoredPicture], room: int) -> str:
    if not worst:
        return ""
    share = min(MAX_SHARE, room // (len(worst) + len(best)))
    lists = {"Worst": worst, "Best": best} if best else {"From the worst to the best": worst}
    gallery = [f"<h3>{title}</h3>\n<ol>{''.join(_figure(one, share) for one in each)}</ol>" for title, each in lists.items()]
    layers = ("noisy", "restored", "clean", "difference")
    note = " The difference is that of restored and clean, times 5, on grey."
    return viewer(layers, shown=("noisy", "restored"), note=note, legend="", gallery="\n".join(gallery))


def _figure(picture: RestoredPicture, room: int) -> str:
    """One picture: all its layers, what they show in words, and its scores."""
    score, (height, width) = picture.score, picture.clean.shape[1:]
    name = text_of(score.id)
    words = {
        "noisy": f"Noisy picture {name}, PSNR {shown(score.noisy_psnr, 2)} dB",
        "restored": f"Restored picture {name}, PSNR {shown(score.psnr, 2)} dB",
        "clean": f"Clean picture {name}",
        "difference": f"Difference of the restored and the clean picture {name}",
    }
    scores = f"PSNR {shown(score.psnr, 2)} dB"
    more = f", SSIM {shown(score.ssim, 4)}, noisy PSNR {shown(score.noisy_psnr, 2)} dB"
    return figure(_layers(picture, room), words, size=(height, width), name=name, scores=scores, more=more)


def _layers(picture: RestoredPicture, room: int) -> dict[str, bytes]:
    """The layers as WebP, all of one size, reduced until they take at most `room` bytes."""
    images = {
        "noisy": picture.noisy,
        "restored": picture.restored,
        "clean": picture.clean,
        "difference": draw_difference(picture.restored, picture.clean),
    }

    def encode(size: tuple[int, int]) -> dict[str, bytes]:
        drawn = {name: to_array(preview(resize_image(image, size))) for name, image in images.items()}
        return {name: encode_webp(array, quality=85) for name, array in drawn.items()}

    height, width = picture.clean.shape[1:]
    return largest_fit(encode, (height, width), room)
