"""The interval of a score is that of resampled pictures."""

import json
import math

import numpy as np
import pytest
from evaluations import evaluation_of_pictures, report_pictures

from segnet.evaluation.resampling import Counts, score_intervals
from segnet.evaluation.results import evaluation_table, save_evaluation


def counts_of(pixels: list[list[list[int]]]) -> Counts:
    return np.array(pixels, np.float64)


def test_one_picture_has_no_spread():
    found = score_intervals(counts_of([[[30, 40, 35], [5, 10, 15]]]), 50)
    assert found.miou == pytest.approx((0.5 * (30 / 45 + 5 / 20),) * 2)
    assert found.class_iou[1] == pytest.approx((0.25, 0.25))


def test_pictures_all_right_or_all_wrong_spread_as_the_binomial():
    right, wrong = [[10, 10, 10], [0, 0, 0]], [[0, 10, 0], [0, 0, 10]]
    low, high = score_intervals(counts_of([right] * 50 + [wrong] * 50), 4000).global_accuracy
    assert (low + high) / 2 == pytest.approx(0.5, abs=0.02)
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(0.25 / 100), abs=0.02)


def test_a_class_without_a_pixel_has_none():
    assert score_intervals(counts_of([[[10, 10, 10], [0, 0, 0]]] * 3), 20).class_iou[1] is None


def test_table_and_metrics_have_the_interval_of_the_pictures(tmp_path, tiny_classes):
    found = evaluation_of_pictures(report_pictures("abcdef", tiny_classes), tiny_classes)
    counts = [[picture.correct, picture.in_truth, picture.in_prediction] for picture in found.pictures]
    expected = score_intervals(np.moveaxis(counts_of(counts), 1, 2))
    assert expected.miou
    low, high = expected.miou
    assert low < found.scores.miou < high
    line = f"95 % interval of the mIoU: {100 * low:.2f} to {100 * high:.2f} (bootstrap over the pictures)"
    assert evaluation_table(found, tiny_classes).splitlines()[-1] == line
    save_evaluation(tmp_path, found, tiny_classes, split="val")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["intervals"]["miou"] == [low, high]
    assert metrics["intervals"]["global_accuracy"] == list(expected.global_accuracy or ())
    assert [row["iou_interval"] and tuple(row["iou_interval"]) for row in metrics["classes"]] == list(expected.class_iou)
