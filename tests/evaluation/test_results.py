"""The files of an evaluation: absent classes are null, and files of others are read or refused by name."""

import json
import math

import numpy as np
import pytest
import torch
from evaluations import save_examined
from helpers import refused, write_split

from segnet.evaluation.results import evaluation_table, find_evaluation, read_counts, save_evaluation
from segnet.metrics.boundary_f1 import boundary_f1, contour_matches
from segnet.metrics.boundary_iou import band_overlaps
from segnet.metrics.calibration import count_reliability, reliability
from segnet.metrics.confusion import ConfusionMatrix
from segnet.system.errors import ExitCode
from segnet.tasks.segmentation_score import Evaluation, PictureScore, boundary_scores


def evaluation_of(truth: torch.Tensor, prediction: torch.Tensor) -> Evaluation:
    """What `evaluate_fully` says of one picture and three classes, predicted with confidence 0.8."""
    matrix = ConfusionMatrix(3).update(truth, prediction)
    pixels = (tuple(count.tolist()) for count in (matrix.counts.diagonal(), matrix.counts.sum(1), matrix.counts.sum(0)))
    picture = PictureScore("one", *pixels, matrix.ignored, boundary_f1(contour_matches(truth, prediction, 3), [1, 1, 1]))
    boundary = boundary_scores([picture.boundary_f1], band_overlaps(truth, prediction, 3))
    scored = truth != 255
    bins = count_reliability(torch.full(truth.shape, 0.8)[scored], (truth == prediction)[scored])
    return Evaluation(matrix.scores(), boundary, reliability(bins), (picture,))


def test_absent_classes_are_null_in_the_file_and_a_dash_in_the_table(tmp_path, tiny_classes):
    truth, prediction = torch.tensor([[0, 0, 1, 255]]).byte(), torch.tensor([[0, 1, 1, 2]]).byte()
    found = evaluation_of(truth, prediction)
    save_evaluation(tmp_path, found, tiny_classes, split="val")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert [c["iou"] for c in metrics["classes"]] == [0.5, 0.5, None]
    assert [c["dice"] for c in metrics["classes"]] == [2 / 3, 2 / 3, None]
    assert metrics["mean_dice"] == 2 / 3
    assert [c["precision"] for c in metrics["classes"]] == [1.0, 0.5, None]
    assert [c["recall"] for c in metrics["classes"]] == [0.5, 1.0, None]
    assert [c["boundary_iou"] for c in metrics["classes"]] == [0.5, 0.5, None]
    assert (metrics["miou"], metrics["pixels"], metrics["ignored"]) == (0.5, 3, 1)
    assert metrics["frequency_weighted_iou"] == 0.5
    assert metrics["expected_calibration_error"] == pytest.approx(0.8 - 2 / 3, abs=1e-7)
    assert [bin["pixels"] for bin in metrics["reliability"]] == [0] * 12 + [3, 0, 0]  # 0.8 as float32 is above 12/15
    assert "null, and no mean counts it" in metrics["absent_classes"]
    table = evaluation_table(found, tiny_classes).splitlines()
    assert table[3].split() == ["disc", "–", "–", "–", "–", "–", "0.00"]
    assert table[1].split() == ["ground", "50.00", "66.67", "100.00", "50.00", "50.00", "66.67"]


def test_a_wholly_ignored_split_has_no_score(tmp_path, tiny_classes):
    found = evaluation_of(torch.full((2, 2), 255).byte(), torch.zeros(2, 2).byte())
    assert math.isnan(found.scores.miou)
    assert math.isnan(found.pictures[0].miou)
    assert math.isnan(found.pictures[0].accuracy)
    save_evaluation(tmp_path, found, tiny_classes, split="val")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    names = ("miou", "frequency_weighted_iou", "mean_dice", "boundary_f1", "boundary_iou", "expected_calibration_error")
    assert [metrics[name] for name in names] == [None] * 6
    assert (tmp_path / "pictures.csv").read_text().splitlines()[1].startswith("one,,,,4,0,0,0,")


def test_another_split_than_asked_for_is_refused(tiny_run, tmp_path):
    save_examined(tiny_run, tmp_path / "scores", "val")
    assert read_counts(tmp_path / "scores", None).split == "val"
    with refused(ExitCode.DATA, "is of the split 'val', not 'train'", "leave out --split train"):
        read_counts(tmp_path / "scores", "train")
    with refused(ExitCode.DATA, "none: no such folder"):
        read_counts(tmp_path / "none", None)


def test_a_run_is_compared_on_the_split_by_which_it_was_scored(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for text, split in (("data: {val_split: val_0}\n", "val_0"), ("data: {root: x}\n", "val"), ("seed: 1\n", "val")):
        (run / "config.yaml").write_text(text)
        with refused(ExitCode.DATA, f"evaluation/{split}: not evaluated yet", f"{run} --split {split}"):
            find_evaluation(run, None)


def test_damaged_files_are_refused(tiny_run, tiny_data):
    write_split(tiny_data, "val", ["val_0"])
    folder = tiny_run / "evaluation" / "val"
    save_examined(tiny_run, folder)
    whole = (folder / "pictures.csv").read_text()
    for text in (whole.splitlines()[0] + "\n", whole[:-9], whole.replace("val_0", "val_0,1"), whole + "x\n", "\0"):
        (folder / "pictures.csv").write_text(text)
        with refused(ExitCode.DATA, "not files of an evaluation", "evaluate again"):
            read_counts(tiny_run, None)
    (folder / "pictures.csv").unlink()
    with refused(ExitCode.DATA, "no pictures.csv", "evaluate again"):
        read_counts(folder, None)


def test_files_that_other_programs_saved_are_read_or_refused_by_their_columns(tiny_run, tiny_data):
    write_split(tiny_data, "val", ["val_0"])
    folder = tiny_run / "evaluation" / "val"
    save_examined(tiny_run, folder)
    expected = read_counts(folder, None).pixels
    for name in ("metrics.json", "pictures.csv"):
        text = (folder / name).read_text()
        (folder / name).write_bytes(("\ufeff" + text + "\n\n").replace("\n", "\r\n").encode())
    assert np.array_equal(read_counts(folder, None).pixels, expected)
    (folder / "pictures.csv").write_text(text.replace(",", ";"))
    with refused(ExitCode.DATA, "pictures.csv has a row of 1 columns between commas, expected 14", "evaluate again"):
        read_counts(folder, None)
