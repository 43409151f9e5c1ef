"""Which classes count as not learnt, what the line about each says, and where it is shown."""

from __future__ import annotations

import pytest
import torch
from data_sets import run_in_process
from evaluations import Page, report_pictures, write_page
from helpers import ROOT, tiny_config_for

from segnet.classes import class_set
from segnet.config.loading import override_config
from segnet.config.sections import Config
from segnet.evaluation.weak_classes import weak_class_lines
from segnet.metrics.confusion import ConfusionMatrix, Scores

FIELD = class_set(("soil", "weed", "crop", "stone"))
PLAIN = tiny_config_for(ROOT)  # no class weights
GENTLE = override_config(PLAIN, ["loss.class_weights=median_frequency", "loss.weight_power=0.5"])


def scores_of(*counts: tuple[int, ...]) -> Scores:
    """The scores of the pixels [truth][prediction]."""
    matrix = ConfusionMatrix(len(counts))
    matrix.counts = torch.tensor(counts, dtype=torch.int64)
    return matrix.scores()


MISSED = scores_of((800, 0, 0, 0), (0, 100, 0, 0), (2, 90, 8, 0), (0, 0, 0, 0))  # IoU of crop 0.08; there is no stone
OVERDONE = scores_of((600, 200, 0, 0), (0, 20, 0, 0), (0, 0, 100, 0), (0, 0, 0, 50))  # IoU of weed 0.09


@pytest.mark.parametrize(
    ("config", "remedy"),
    [
        (PLAIN, "set loss.class_weights=median_frequency, raise data.balance (0), or label more of it"),
        (GENTLE, "raise loss.weight_power (0.5), raise data.balance (0), or label more of it"),
        (override_config(GENTLE, ["data.balance=1"]), "raise loss.weight_power (0.5), or label more of it"),
        (override_config(GENTLE, ["loss.weight_power=1", "data.balance=1"]), "train longer or label more of it"),
    ],
)
def test_a_missed_class_is_told_with_what_it_is_taken_for_and_a_cure_that_is_left(config: Config, remedy: str) -> None:
    assert weak_class_lines(MISSED, FIELD, config, 2000) == [f"crop: IoU 8.0, 90% of it predicted as weed: {remedy}"]


@pytest.mark.parametrize(("scores", "start"), [(MISSED, "crop"), (OVERDONE, "weed")])
def test_after_few_steps_the_cure_is_more_of_them(scores: Scores, start: str) -> None:
    config = override_config(GENTLE, ["train.epochs=2"])
    (line,) = weak_class_lines(scores, FIELD, config, 60)
    assert line.startswith(f"{start}: IoU ")
    assert line.endswith(": train longer, 60 steps are few (train.epochs=2)")
    assert "train longer" not in weak_class_lines(scores, FIELD, config, 2000)[0]
    adapted = override_config(config, ["model.weights=runs/other", "model.encoder_weights=null"])
    assert "train longer" not in weak_class_lines(scores, FIELD, adapted, 60)[0]


def test_a_class_that_others_are_taken_for_gets_no_more_weight() -> None:
    (line,) = weak_class_lines(OVERDONE, FIELD, GENTLE, 2000)
    assert line.startswith(
        "weed: IoU 9.1, 91% of what is predicted as weed is soil: lower loss.weight_power (0.5), label more of soil"
    )
    assert "weight" not in weak_class_lines(OVERDONE, FIELD, PLAIN, 2000)[0]


@pytest.mark.parametrize(("right", "told"), [(29, 1), (31, 0)])
def test_the_bound_is_half_of_the_miou(right: int, told: int) -> None:
    """IoUs of 0.9 or so and right / 100: their mean is 0.6, half of it 0.3."""
    scores = scores_of((640, 0), (100 - right, right))
    assert scores.class_iou[1] == pytest.approx(right / 100)
    assert len(weak_class_lines(scores, class_set(("soil", "crop")), GENTLE, 2000)) == told


def test_the_worst_three_are_named_and_the_others_counted() -> None:
    counts = torch.zeros(7, 7, dtype=torch.int64)
    counts[0, 0] = counts[1, 1] = 10_000
    for k, right in enumerate((4, 0, 2, 1, 3), start=2):
        counts[k, 0], counts[k, k] = 100 - right, right
    lines = weak_class_lines(scores_of(*map(tuple, counts.tolist())), class_set(tuple("abcdefg")), GENTLE, 2000)
    assert [line[:10] for line in lines[:3]] == ["d: IoU 0.0", "f: IoU 1.0", "e: IoU 2.0"]
    assert lines[3] == "2 more of 7 classes have an IoU below half of the mIoU: train longer"
    assert len(lines) == 4


def test_a_network_that_has_learnt_hardly_a_class_is_to_train_longer() -> None:
    counts = torch.zeros(7, 7, dtype=torch.int64)
    counts[:, 0] = 100
    lines = weak_class_lines(scores_of(*map(tuple, counts.tolist())), class_set(tuple("abcdefg")), GENTLE, 2000)
    assert lines == ["6 of 7 classes have an IoU below half of the mIoU: train longer"]


def test_classes_that_are_equally_bad_or_not_in_the_truth_are_not_told() -> None:
    assert weak_class_lines(scores_of((10, 90), (90, 10)), class_set(("a", "b")), GENTLE, 2000) == []
    predicted_alone = scores_of((90, 0, 10), (0, 100, 0), (0, 0, 0))
    assert predicted_alone.class_iou[2] == 0
    assert weak_class_lines(predicted_alone, class_set(("a", "b", "c")), GENTLE, 2000) == []


def test_the_report_lists_the_lines_escaped_and_has_no_heading_without_any(tmp_path, tiny_classes) -> None:
    pictures = report_pictures(["one"], tiny_classes)
    page = Page(write_page(tmp_path, pictures, tiny_classes, advice=["<b>: IoU 0.08"]))
    assert "Not learnt" in page.text
    assert "<b>: IoU 0.08" in page.text  # as a text, not a tag
    assert "Not learnt" not in Page(write_page(tmp_path, pictures, tiny_classes)).text


def test_evaluate_prints_them_and_writes_them_into_the_report(tiny_run, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("segnet.evaluation.weak_classes._SHARE_OF_MIOU", 100)  # every class is far below that
    run_in_process("evaluate", tiny_run, "--out", tmp_path / "scores")
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("not learnt: ")]
    assert len(told) == 3
    page = Page(tmp_path / "scores" / "report.html")
    assert all(line.removeprefix("not learnt: ") in page.text for line in told)
