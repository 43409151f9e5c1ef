"""The section of a report with suspect labels: crops of the picture, of its label and of the prediction."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence

import torch

from segnet.classes import ClassSet
from segnet.data.dataset import SegmentationDataset
from segnet.data.images import encode_webp
from segnet.evaluation.markup import text_of, with_unit
from segnet.evaluation.suspects import LEAST_PIXELS, Crop, Suspect
from segnet.visualization import draw_outline, overlay, preview, to_array

SHOWN = 24  # regions in a report


def suspect_section(found: int, figures: Iterable[str]) -> str:
    """The section about `found` suspect regions, of which `figures` show the first, each an item of a list."""
    items = "".join(figures)
    listed = "suspects.csv lists all of them." if found else ""
    words = (
        f"{found:,} connected regions of at least {LEAST_PIXELS} pixels have one label and another prediction, of which "
        f"the network is at least as sure as it is of that class on average. The network may be wrong, or the label. {listed}"
    )
    heading = '<section id="suspects" aria-labelledby="suspects-heading"><h2 id="suspects-heading">Suspect labels</h2>'
    shown = f'<p class="note">Each from left to right: picture, label, prediction.</p>\n<ol>{items}</ol>' if items else ""
    return f"{heading}\n<p>{words}</p>\n{shown}\n</section>"


def suspect_figures(suspects: Sequence[tuple[Suspect, Crop]], dataset: SegmentationDataset) -> Iterator[str]:
    """Suspect regions of a split as items of an HTML list. Their pictures and masks are read again."""
    row_of = {name: row for row, name in enumerate(dataset.ids)}
    for suspect, crop in suspects:
        sample = dataset.read(row_of[suspect.picture])
        rows, columns = crop.window
        image = preview(sample.image[:, rows, columns], dataset.bands)
        truth, mask = sample.truth[rows, columns].contiguous(), torch.tensor(crop.mask)
        region = (truth == suspect.label) & (mask == suspect.predicted) & _inside(suspect, crop)
        drawn = {
            "picture": draw_outline(to_array(image), region.numpy()),
            "label": overlay(image, truth, dataset.classes),
            "prediction": overlay(image, mask, dataset.classes),
        }
        yield _figure(suspect, {name: encode_webp(array, quality=70) for name, array in drawn.items()}, dataset.classes)


def _inside(suspect: Suspect, crop: Crop) -> torch.Tensor:
    """(h, w) bool: the pixels of a crop that are in the box of the region."""
    height, width = crop.mask.shape
    rows = crop.top + crop.every * torch.arange(height)[:, None] - suspect.top
    columns = crop.left + crop.every * torch.arange(width) - suspect.left
    return (rows >= 0) & (rows < suspect.height) & (columns >= 0) & (columns < suspect.width)


def _figure(suspect: Suspect, crops: dict[str, bytes], classes: ClassSet) -> str:
    name, label, predicted = map(text_of, (suspect.picture, classes.names[suspect.label], classes.names[suspect.predicted]))
    words = {"picture": f"Part of {name}", "label": f"Labelled {label}", "prediction": f"Predicted {predicted}"}
    tags = [
        f'<img alt="{words[part]}" src="data:image/webp;base64,{base64.b64encode(content).decode()}">'
        for part, content in crops.items()
    ]
    place = f"{suspect.pixels:,} pixels, {suspect.width} × {suspect.height} at x {suspect.left}, y {suspect.top}"
    classes_text = f"<bdi>{label}</bdi> or <bdi>{predicted}</bdi>? {with_unit(suspect.probability)}"
    caption = f"<strong>{classes_text}</strong> <span><bdi>{name}</bdi>, {place}</span>"
    return f'<li><figure><div class="crops">{"".join(tags)}</div><figcaption>{caption}</figcaption></figure></li>'
