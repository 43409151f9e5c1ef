"""Clean-up sees the whole picture, also where it was predicted in windows, and the same one in evaluation and prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from segnet.classes import ClassSet
from segnet.config.loading import override_config
from segnet.data.dataset import SegmentationDataset
from segnet.data.loader import build_loader
from segnet.evaluation.scoring import evaluate
from segnet.inference.predictor import Predictor
from segnet.metrics.confusion import ConfusionMatrix
from segnet.regions.cleanup import clean_up
from segnet.regions.labelling import find_regions

RULE = {"min_region": 20, "fill_holes": 40}
SETTINGS = [f"inference.{key}={value}" for key, value in RULE.items()]


def test_windows_are_cleaned_up_together(tiny_run: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    plain = Predictor(tiny_run, ["device=cpu"]).predict(noise).mask
    whole = Predictor(tiny_run, ["device=cpu", *SETTINGS]).predict(noise)
    in_windows = Predictor(tiny_run, ["device=cpu", "inference.window=48", "inference.overlap=24", *SETTINGS]).predict(noise)
    assert not np.array_equal(whole.mask, plain)
    assert np.array_equal(whole.mask, clean_up(plain, **RULE))
    assert np.array_equal(in_windows.mask, whole.mask)
    assert find_regions(whole.mask).sizes.min() >= 20


def test_evaluation_scores_the_masks_that_prediction_gives(tiny_run: Path, tiny_data: Path, tiny_classes: ClassSet) -> None:
    predictor, matrix = Predictor(tiny_run, ["device=cpu", *SETTINGS]), ConfusionMatrix(3)
    dataset = SegmentationDataset(tiny_data, "val", tiny_classes)
    for index in range(3):
        sample = dataset.read(index)
        matrix.update(sample.truth, torch.from_numpy(predictor.predict(sample.image).mask))
    config = override_config(predictor.config, SETTINGS).inference
    assert evaluate(predictor.model, build_loader(dataset, workers=0), config) == matrix.scores()
