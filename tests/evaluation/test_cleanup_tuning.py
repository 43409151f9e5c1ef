"""A clean-up is kept only where it helps by more than the choice of the pictures explains."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from segnet.classes import class_set
from segnet.data.dataset import Sample
from segnet.evaluation import cleanup_tuning
from segnet.evaluation.cleanup_tuning import CleanupCounts, Rule, cleanup_advice, tuning_json
from segnet.tasks.segmentation_score import Maps

CLASSES = class_set(("ground", "box"))


@pytest.fixture(autouse=True)
def _fewer_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = tuple(Rule(*pair) for pair in ((0, 0), (16, 0), (0, 16), (64, 64)))
    monkeypatch.setattr(cleanup_tuning, "RULES", rules)
    monkeypatch.setattr(cleanup_tuning, "SAMPLES", 200)


def counted(truths: list[np.ndarray], masks: list[np.ndarray]) -> CleanupCounts:
    ids = [str(number) for number in range(len(truths))]
    counts = CleanupCounts(ids, CLASSES, "val")
    for name, truth, mask in zip(ids, truths, masks, strict=True):
        flat = torch.zeros(1, *mask.shape)
        maps = Maps(torch.from_numpy(mask)[None], flat, flat, flat, None, None, None)
        counts.add(Sample(flat, torch.from_numpy(truth)[None], (name,)), maps)
    return counts


def test_specks_are_worth_taking_away() -> None:
    rng = np.random.default_rng(0)
    truths, masks = [], []
    for _ in range(12):
        truth = np.zeros((40, 40), dtype=np.uint8)
        truth[10:30, 10:30] = 1
        mask = truth.copy()
        mask[rng.integers(0, 40, 12), rng.integers(0, 40, 12)] ^= 1
        truths.append(truth)
        masks.append(mask)
    tried = counted(truths, masks).tried()
    assert tried[0].rule == Rule(16, 0)
    assert tried[0].miou.b > tried[0].miou.a
    assert tried[0].helps
    assert "helps: inference.min_region=16 inference.fill_holes=0" in cleanup_advice(tried)
    assert json.loads(tuning_json(tried))["kept"] == {"min_region": 16, "fill_holes": 0}


def test_a_rule_that_takes_right_regions_away_is_not_kept() -> None:
    truth = np.zeros((20, 20), dtype=np.uint8)
    truth[5:8, 5:8] = 1  # right, and smaller than what is taken away
    masks = [truth] * 6
    tried = counted([truth] * 6, masks).tried()
    assert not tried[0].helps
    assert "no clean-up helps" in cleanup_advice(tried)
    assert json.loads(tuning_json(tried))["kept"] is None
