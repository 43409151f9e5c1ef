"""A measure that `Evaluation` names is in the table, in metrics.json, in the report and in the model card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluations import Page, evaluation_of_pictures, report_pictures, save_examined, write_page

from segnet.classes import ClassSet
from segnet.evaluation.model_card import CARD, renew_model_card
from segnet.evaluation.results import evaluation_table, save_evaluation
from segnet.tasks.segmentation_score import ClassMeasure, Evaluation
from segnet.tasks.task import Measure

MEASURES, CLASS_MEASURES = Evaluation.measures, Evaluation.class_measures


@pytest.fixture(autouse=True)
def _novelty(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more measure of the split, and one of each class."""
    column = ClassMeasure("new_of_class", "novelty", (0.111, 0.222, 0.333))
    monkeypatch.setattr(Evaluation, "measures", lambda self: [*MEASURES(self), Measure("new", "mean novelty", 0.222)])
    monkeypatch.setattr(Evaluation, "class_measures", lambda self: [*CLASS_MEASURES(self), column])


def test_it_is_in_the_table_the_file_and_the_report(tmp_path: Path, tiny_classes: ClassSet) -> None:
    pictures = report_pictures(["a"], tiny_classes)
    evaluation = evaluation_of_pictures(pictures, tiny_classes)
    table = evaluation_table(evaluation, tiny_classes).splitlines()
    assert table[0].split()[-4:] == ["novelty", "share", "of", "pixels"]
    assert [line.split()[-2] for line in table[1:4]] == ["11.10", "22.20", "33.30"]
    assert any("mean novelty 22.20" in line for line in table)
    save_evaluation(tmp_path, evaluation, tiny_classes, split="val")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["new"] == 0.222
    assert [entry["new_of_class"] for entry in metrics["classes"]] == [0.111, 0.222, 0.333]
    text = Page(write_page(tmp_path, pictures, tiny_classes)).text
    for shown in ("Mean novelty22.2", "Novelty %", "11.1", "33.3"):
        assert shown in text


def test_it_is_in_the_model_card_under_its_title(tiny_run: Path) -> None:
    save_examined(tiny_run, tiny_run / "evaluation" / "val")
    renew_model_card(tiny_run)
    lines = (tiny_run / CARD).read_text().splitlines()
    assert any(line.startswith("| mean novelty | 22.20 |") for line in lines)
    assert any(line.startswith("| class average accuracy |") for line in lines)
    heading = next(line for line in lines if line.startswith("| class | "))
    assert heading.endswith(" | boundary IoU | novelty | share of pixels | 95 % interval of the IoU |")
    row = next(line for line in lines if line.startswith("| box | "))
    assert row.split(" | ")[heading.split(" | ").index("novelty")] == "22.20"
