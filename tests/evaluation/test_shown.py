"""The pictures of a report are kept from the one pass over the split, and no more of them than it may show."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT

from segnet.classes import ClassSet
from segnet.data.dataset import Sample, SegmentationDataset
from segnet.data.loader import build_loader
from segnet.evaluation import scoring
from segnet.evaluation.gallery import LONGEST_SIDE, predicted, worst_and_best, worst_of_classes
from segnet.evaluation.scoring import count_split
from segnet.evaluation.shown import ShownPictures
from segnet.inference.loaded_model import load_model
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.tasks.segmentation import ClassProbabilities
from segnet.tasks.segmentation_score import EvaluationCounts, Maps


def maps_of(mask: torch.Tensor) -> Maps:
    flat = torch.zeros(mask.shape)
    return Maps(mask, flat, flat, flat, None, None, None)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 8, 40])
def test_those_that_the_report_chooses_are_kept(count: int) -> None:
    rng = np.random.default_rng(count)
    truths = torch.from_numpy(rng.integers(0, 2, (30, 1, 2, 4), dtype=np.uint8))
    truths[::7] = 255  # nothing to score
    ids = [str(number) for number in range(30)]
    shown = ShownPictures(EvaluationCounts(ids, 2), count)
    for number in rng.permutation(30).tolist():
        mask = torch.from_numpy(rng.integers(0, 2, (1, 2, 4), dtype=np.uint8))
        shown.add(Sample(torch.zeros(1, 3, 2, 4, dtype=torch.uint8), truths[number], (ids[number],)), maps_of(mask))
        assert len(shown.kept) <= 2.5 * count
    chosen = worst_and_best(shown.counts.evaluation().pictures, count)
    assert {picture.id for picture in chosen} <= shown.kept.keys()
    assert all(shown.kept[picture.id].score == picture for picture in chosen)


def test_the_worst_of_each_class_is_kept_too() -> None:
    rng = np.random.default_rng(3)
    truths, masks = torch.from_numpy(rng.integers(0, 4, (2, 30, 1, 2, 8), dtype=np.uint8))
    ids = [str(number) for number in range(30)]
    shown = ShownPictures(EvaluationCounts(ids, 4), 2, of_classes=True)
    for name, truth, mask in zip(ids, truths, masks, strict=True):
        shown.add(Sample(torch.zeros(1, 3, 2, 8, dtype=torch.uint8), truth, (name,)), maps_of(mask))
        assert len(shown.kept) <= 2.5 * 2 + 4
    scores = shown.counts.evaluation().pictures
    chosen = worst_and_best(scores, 2)
    others = worst_of_classes(scores, 4)
    assert {picture.id for picture in (*chosen, *others)} <= shown.kept.keys()
    assert {picture.id for picture in others} - {picture.id for picture in chosen}


def test_a_large_picture_is_kept_as_small_as_it_is_shown() -> None:
    shown = ShownPictures(EvaluationCounts(["a"], 2), 1)
    mask = torch.ones(1, 4, 3 * LONGEST_SIDE, dtype=torch.uint8)
    shown.add(Sample(torch.zeros(1, 3, *mask.shape[1:], dtype=torch.uint8), mask, ("a",)), maps_of(mask))
    assert {tensor.shape[-1] for tensor in shown.kept["a"][1:]} == {LONGEST_SIDE}


def test_what_another_rank_scored_is_predicted_again(tiny_run: Path, tiny_data: Path, tiny_classes: ClassSet) -> None:
    model, _, config, *_ = load_model(tiny_run)
    dataset = SegmentationDataset(tiny_data, "val", tiny_classes)
    counts = EvaluationCounts(dataset.ids, 3)
    shown = ShownPictures(counts, 3)
    count_split(model, build_loader(dataset, workers=0), config.inference, ClassProbabilities(), shown)
    pictures = worst_and_best(counts.evaluation().pictures, 3)
    some = {key: value for key, value in shown.kept.items() if key != "val_1"}
    found = {picture.score.id: picture for picture in predicted(model, dataset, pictures, config.inference, some)}
    assert found["val_0"] is shown.kept["val_0"]
    assert found["val_1"] is not shown.kept["val_1"]
    assert all(torch.equal(a, b) for a, b in zip(found["val_1"][1:], shown.kept["val_1"][1:], strict=True))


@pytest.mark.parametrize("options", [[], ["--suspects"]])
def test_evaluate_sees_each_picture_once(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    seen = []

    def counting(self: EncoderDecoder, image: torch.Tensor) -> torch.Tensor:
        seen.append(image.shape)
        return original(self, image)

    original = EncoderDecoder.forward
    monkeypatch.setattr(EncoderDecoder, "forward", counting)
    monkeypatch.setattr(sys, "argv", ["evaluate.py", str(tiny_run), "--out", str(tmp_path / "out"), "device=cpu", *options])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts" / "evaluate.py"), run_name="__main__")
    assert ended.value.code == 0
    assert len(seen) == 3
    report = (tmp_path / "out" / "report.html").read_text()
    assert report.count('alt="Prediction for') == 3
    assert ("Suspect labels" in report) == (tmp_path / "out" / "suspects.csv").exists() == bool(options)


def test_without_a_terminal_the_progress_is_lines(
    model: EncoderDecoder, tiny_data: Path, tiny_classes: ClassSet, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    loader = build_loader(SegmentationDataset(tiny_data, "val", tiny_classes), workers=0)
    scoring.evaluate(model, loader)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(scoring, "LINE_EVERY", 0)
    scoring.evaluate(model, loader)
    assert capsys.readouterr().err == "".join(f"evaluate: {done} of 3 pictures\n" for done in range(3))
