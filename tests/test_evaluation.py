"""What evaluate.py writes is what the written masks say."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import refused
from PIL import Image

from segnet.checkpoint import load_model
from segnet.datasets import SegmentationDataset, build_loader
from segnet.errors import ExitCode
from segnet.evaluation import evaluate, save_scores, scores_table
from segnet.metrics import ConfusionMatrix

REAL_CAMVID = Path(__file__).parent.parent.parent / "shared" / "data" / "camvid"


def confusion_of_files(truths: Path, predictions: Path, ids: list[str], classes: int) -> np.ndarray:
    """An independent count: numpy, Pillow and the PNG files."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    for name in ids:
        truth = np.asarray(Image.open(truths / f"{name}.png"))
        prediction = np.asarray(Image.open(predictions / f"{name}.png"))
        for t in range(classes):
            for p in range(classes):
                counts[t, p] += np.count_nonzero((truth == t) & (prediction == p))
    return counts


def test_the_score_is_that_of_the_predicted_masks(run_script, tiny_run, tiny_data, tmp_path):
    evaluated = run_script("evaluate", tiny_run)
    assert evaluated.returncode == 0, evaluated.stderr
    predicted = run_script("predict", tiny_run, tiny_data / "JPEGImages", "--out", tmp_path / "masks")
    assert predicted.returncode == 0, predicted.stderr
    ids = (tiny_data / "ImageSets/Segmentation/val.txt").read_text().split()
    counts = confusion_of_files(tiny_data / "SegmentationClass", tmp_path / "masks", ids, 3)
    folder = tiny_run / "evaluation" / "val"
    with (folder / "confusion.csv").open() as file:
        rows = list(csv.reader(file))[1:]
    assert [[int(v) for v in row[1:]] for row in rows] == counts.tolist()
    metrics = json.loads((folder / "metrics.json").read_text())
    iou = [counts[k, k] / (counts[k].sum() + counts[:, k].sum() - counts[k, k]) for k in range(3)]
    assert [c["iou"] for c in metrics["classes"]] == pytest.approx(iou, abs=1e-12)
    assert metrics["miou"] == pytest.approx(np.mean(iou), abs=1e-12)
    assert metrics["pixels"] == counts.sum()
    assert metrics["pixels"] + metrics["ignored"] == 3 * 32 * 32


def test_evaluating_changes_no_input(run_script, tiny_run, tiny_data):
    from helpers import folder_bytes

    before = folder_bytes(tiny_data)
    assert run_script("evaluate", tiny_run, "--split", "train", "inference.flip=true").returncode == 0
    assert folder_bytes(tiny_data) == before
    assert (tiny_run / "evaluation" / "train" / "metrics.json").exists()


def test_absent_classes_are_null_in_the_file_and_a_dash_in_the_table(tmp_path, tiny_classes):
    scores = ConfusionMatrix(3).update(torch.tensor([0, 0, 1, 255]), torch.tensor([0, 1, 1, 2])).scores()
    save_scores(tmp_path, scores, tiny_classes)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert [c["iou"] for c in metrics["classes"]] == [0.5, 0.5, None]
    assert (metrics["miou"], metrics["pixels"], metrics["ignored"]) == (0.5, 3, 1)
    assert "–" in scores_table(scores, tiny_classes).splitlines()[3]


def test_a_wholly_ignored_split_has_no_score(tmp_path, tiny_classes):
    scores = ConfusionMatrix(3).update(torch.full((2, 2), 255), torch.zeros(2, 2, dtype=torch.int64)).scores()
    assert math.isnan(scores.miou)
    save_scores(tmp_path, scores, tiny_classes)
    assert json.loads((tmp_path / "metrics.json").read_text())["miou"] is None


def test_workers_do_not_change_the_score(tiny_run, tiny_data, tiny_classes):
    model = load_model(tiny_run).model
    dataset = SegmentationDataset(tiny_data, "train", tiny_classes)
    assert evaluate(model, build_loader(dataset, workers=0)) == evaluate(model, build_loader(dataset, workers=2))


def test_a_missing_split_is_named(tiny_data, tiny_classes):
    with refused(ExitCode.DATA, "holdout.txt", "no such file"):
        SegmentationDataset(tiny_data, "holdout", tiny_classes)
