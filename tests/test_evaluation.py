"""What evaluate.py writes is what the written masks say."""

import json
import math

import numpy as np
import torch
from helpers import folder_bytes, refused
from independent_score import differences
from PIL import Image

from segnet.checkpoint import load_model
from segnet.datasets import SegmentationDataset, build_loader
from segnet.errors import ExitCode
from segnet.evaluation import evaluate, save_scores, scores_table
from segnet.metrics import ConfusionMatrix


def test_the_score_is_that_of_the_written_masks(run_script, tiny_run, tiny_data, tmp_path):
    evaluated = run_script("evaluate", tiny_run)
    assert evaluated.returncode == 0, evaluated.stderr
    predicted = run_script("predict", tiny_run, tiny_data / "JPEGImages", "--out", tmp_path / "masks")
    assert predicted.returncode == 0, predicted.stderr
    metrics = tiny_run / "evaluation" / "val" / "metrics.json"
    assert differences(tiny_data, "val", tmp_path / "masks", metrics) == []
    written = json.loads(metrics.read_text())
    assert written["pixels"] + written["ignored"] == 3 * 32 * 32

    mask = tmp_path / "masks" / "val_0.png"  # the negative control: one pixel changes the score
    pixels = np.array(Image.open(mask))
    scored = np.argwhere(np.array(Image.open(tiny_data / "SegmentationClass" / "val_0.png")) != 255)[0]
    pixels[tuple(scored)] = (pixels[tuple(scored)] + 1) % 3
    Image.fromarray(pixels).save(mask)
    assert differences(tiny_data, "val", tmp_path / "masks", metrics) != []


def test_evaluating_changes_no_input(run_script, tiny_run, tiny_data):
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
