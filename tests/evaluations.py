"""Evaluations made by hand, and the pages and files that are written of them."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from segnet.classes import ClassSet
from segnet.config.sections import InferenceConfig
from segnet.data.dataset import SegmentationDataset
from segnet.data.loader import build_loader
from segnet.evaluation.gallery import ReportPicture
from segnet.evaluation.report import write_report
from segnet.evaluation.results import save_evaluation
from segnet.evaluation.scoring import count_split
from segnet.inference.exported import Network
from segnet.inference.loaded_model import load_model
from segnet.metrics.calibration import Reliability
from segnet.metrics.confusion import ConfusionMatrix
from segnet.tasks.segmentation import ClassProbabilities
from segnet.tasks.segmentation_score import BoundaryScores, Evaluation, EvaluationCounts, PictureScore

HOSTILE = "</script><img src=x onerror=window.stolen=1>\"'&$title é漢\u202e"
CURVES = """step,epoch,learning_rate,loss,val_miou,val_global_accuracy,val_mean_accuracy
10,0.5,0.1,2.5,,,
20,1.0,0.1,nan,,,
20,1.0,,,0.25,0.5,0.4
30,1.5,0.1,1.5,,,
40,2.0,,,0.5,0.7,0.6
40,2.0,0.1
"""


def picture_score(name: str, truth: torch.Tensor, mask: torch.Tensor, classes: ClassSet) -> PictureScore:
    """The score of one picture, with a boundary F1 of 0.5 where anything is right."""
    matrix = ConfusionMatrix(len(classes)).update(truth, mask)
    counts = [tuple(values.tolist()) for values in (matrix.counts.diagonal(), matrix.counts.sum(1), matrix.counts.sum(0))]
    return PictureScore(name, *counts, matrix.ignored, 0.5 if sum(counts[0]) else math.nan)


def report_pictures(names: Sequence[str], classes: ClassSet, *, size: tuple[int, int] = (24, 32)) -> list[ReportPicture]:
    """Noise, a truth of two halves with an ignored row, and predictions that are worse from picture to picture."""
    made = []
    for index, name in enumerate(names):
        rng = torch.Generator().manual_seed(index)
        truth = torch.zeros(size, dtype=torch.uint8)
        truth[:, size[1] // 2 :], truth[0] = 1, 255
        mask = torch.where(truth == 255, 0, truth)
        mask[: 2 + index * (size[0] - 2) // len(names)] = 0
        image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=rng)
        score = picture_score(name, truth, mask, classes)
        made.append(ReportPicture(score, image, truth, mask, torch.rand(size, generator=rng)))
    return made


def evaluation_of_pictures(pictures: Sequence[ReportPicture], classes: ClassSet) -> Evaluation:
    """The evaluation of a split that has these pictures alone, with made-up numbers for outlines and calibration."""
    matrix = ConfusionMatrix(len(classes))
    for picture in pictures:
        matrix.update(picture.truth, picture.mask)
    scores = matrix.scores()
    right = sum(matrix.counts.diagonal().tolist())
    reliability = Reliability((0, scores.pixels), (0, right), (math.nan, 0.75), 0.125 if scores.pixels else math.nan)
    boundary = BoundaryScores(0.5 if scores.pixels else math.nan, scores.miou, scores.class_iou)
    return Evaluation(scores, boundary, reliability, tuple(picture.score for picture in pictures))


def evaluate_fully(model: Network, dataset: SegmentationDataset, inference: InferenceConfig) -> Evaluation:
    """All scores of a network on a split, and those of every picture."""
    counts = EvaluationCounts(dataset.ids, len(dataset.classes))
    count_split(model, build_loader(dataset, workers=0), inference, ClassProbabilities(), counts)
    return counts.evaluation()


def write_page(
    folder: Path, pictures: Sequence[ReportPicture], classes: ClassSet, curves: str | None = CURVES, **changes: Any
) -> Path:
    """The report of `pictures` in `folder`; `curves` is the text of metrics.csv, None: there is none."""
    path, log = folder / "report.html", folder / "metrics.csv"
    folder.mkdir(exist_ok=True)
    if curves is not None:
        log.write_text(curves)
    options = {"title": "SegNet on toys", "facts": {"split": "val"}, "curves": log, **changes}
    write_report(path, evaluation_of_pictures(pictures, classes), pictures, classes, **options)
    return path


class Page(HTMLParser):
    """Every tag with its attributes, and the text, of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def layers_of(page: Page) -> dict[str, np.ndarray]:
    """The pixels of the layers of the first picture shown."""
    found = {}
    for picture in page.all("img"):
        if picture.get("data-layer") and picture["data-layer"] not in found:
            content = base64.b64decode((picture["src"] or "").removeprefix("data:image/webp;base64,"))
            found[picture["data-layer"] or ""] = np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))
    return found


def save_examined(run: Path, out: Path, split: str = "val", *overrides: str) -> None:
    """What scripts/evaluate.py does."""
    model, classes, config, *_ = load_model(run, overrides)
    dataset = SegmentationDataset(Path(config.data.root), split, classes)
    save_evaluation(out, evaluate_fully(model, dataset, config.inference), classes, split=split)
