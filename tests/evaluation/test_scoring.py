"""What evaluate.py scores is what the written masks say, for any number of workers and ranks."""

import csv
import json

import numpy as np
import pytest
import torch
from evaluations import evaluate_fully
from helpers import folder_bytes, refused, write_split
from independent_score import differences
from PIL import Image
from ranks import Ranks

from segnet.commands import evaluate as command_of_evaluate
from segnet.data.dataset import SegmentationDataset
from segnet.data.loader import build_loader
from segnet.evaluation import scoring
from segnet.evaluation.results import save_evaluation
from segnet.evaluation.scoring import evaluate
from segnet.inference.answers import predict_probabilities
from segnet.inference.loaded_model import load_model
from segnet.metrics.boundary_iou import band_overlaps
from segnet.metrics.calibration import count_reliability, reliability
from segnet.models.folding import fold
from segnet.system.errors import ExitCode
from segnet.tasks.segmentation_score import boundary_scores


def test_the_score_is_that_of_the_written_masks(run_script, tiny_run, tiny_data, tmp_path):
    evaluated = run_script("evaluate", tiny_run)
    assert evaluated.returncode == 0, evaluated.stderr
    report = (tiny_run / "evaluation" / "val" / "report.html").read_text()
    assert "run on val" in report
    assert [report.count(f'data-layer="{layer}"') for layer in ("picture", "uncertainty")] == [3, 3]
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
    assert run_script("evaluate", tiny_run, "--split", "train", "inference.flip=horizontal").returncode == 0
    assert folder_bytes(tiny_data) == before
    assert (tiny_run / "evaluation" / "train" / "metrics.json").exists()


def test_every_picture_is_scored_as_if_alone_and_they_add_up(tiny_run, tiny_data, tiny_classes, tmp_path):
    model, _, config, *_ = load_model(tiny_run)
    dataset = SegmentationDataset(tiny_data, "train", tiny_classes)
    found = evaluate_fully(model, dataset, config.inference)
    assert found.scores == evaluate(model, build_loader(dataset, workers=0), config.inference)
    assert [picture.id for picture in found.pictures] == dataset.ids
    sums = np.array([picture[1:4] for picture in found.pictures]).sum(0)  # (3, K)
    confusion = np.array(found.scores.confusion)
    assert sums.tolist() == [confusion.diagonal().tolist(), confusion.sum(1).tolist(), confusion.sum(0).tolist()]
    assert sum(picture.ignored for picture in found.pictures) == found.scores.ignored
    assert found.boundary.f1 == pytest.approx(np.mean([picture.boundary_f1 for picture in found.pictures]), abs=1e-15)

    bins, overlaps = torch.zeros(15, 3, dtype=torch.int64), torch.zeros(3, 2, dtype=torch.int64)
    for index, name in enumerate(dataset.ids):
        write_split(tiny_data, "alone", [name])
        alone = evaluate_fully(model, SegmentationDataset(tiny_data, "alone", tiny_classes), config.inference)
        assert alone.pictures == (found.pictures[index],)
        in_truth = [iou for iou, row in zip(alone.scores.class_iou, alone.scores.confusion, strict=True) if sum(row)]
        assert found.pictures[index].miou == pytest.approx(np.mean(in_truth), abs=1e-15)
        assert alone.scores.global_accuracy == found.pictures[index].accuracy
        image, mask = dataset.read(index)[:2]
        probabilities = predict_probabilities(fold(model), image[None], config.inference)[0]
        scored = mask != 255
        bins += count_reliability(probabilities.amax(0)[scored], (probabilities.argmax(0) == mask)[scored])
        overlaps += band_overlaps(mask, probabilities.argmax(0).byte(), 3)
    assert found.boundary[1:] == boundary_scores([], overlaps)[1:]
    assert found.reliability == reliability(bins)

    save_evaluation(tmp_path, found, tiny_classes, split="train")
    with (tmp_path / "pictures.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["miou"]) for row in rows] == [picture.miou for picture in found.pictures]
    assert [int(row["box: truth"]) for row in rows] == [picture.in_truth[1] for picture in found.pictures]
    assert [int(row["disc: predicted"]) for row in rows] == [picture.in_prediction[2] for picture in found.pictures]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB.\nMore."), MemoryError()])
def test_a_full_memory_is_one_line_that_says_what_to_lower(tiny_run, tiny_data, tiny_classes, monkeypatch, error):
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(scoring, "predict", full)
    loader = build_loader(SegmentationDataset(tiny_data, "val", tiny_classes), workers=0)
    with refused(ExitCode.ENVIRONMENT, "memory: ", "out of memory", "inference.window", "device=cpu") as _:
        evaluate(load_model(tiny_run).model, loader)


def test_two_ranks_say_a_mistake_once(tiny_run, tiny_data, tmp_path):
    """Before the first picture, where both find it, and at a picture that one of them has."""

    def errors(name: str, *arguments: str) -> list[str]:
        (tmp_path / name).mkdir()
        ranks = Ranks(2, lambda: command_of_evaluate.main([str(tiny_run), *arguments]), tmp_path / name)
        assert all(ranks.wait())
        return [line for line in ranks.text().splitlines() if line.startswith("error: ")]

    (missing,) = errors("missing", "--split", "holdout")
    assert "holdout.txt: no such file" in missing
    (tiny_data / "JPEGImages" / "val_1.jpg").write_bytes(b"<html>")
    (broken,) = errors("broken")
    assert "val_1.jpg: not a readable picture" in broken


def test_workers_do_not_change_the_score(tiny_run, tiny_data, tiny_classes):
    model = load_model(tiny_run).model
    dataset = SegmentationDataset(tiny_data, "train", tiny_classes)
    assert evaluate(model, build_loader(dataset, workers=0)) == evaluate(model, build_loader(dataset, workers=2))
