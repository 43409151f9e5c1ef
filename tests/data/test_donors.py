"""Which classes are rare, how often each is drawn, and from which pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from segnet.classes import ClassSet
from segnet.data.dataset import SegmentationDataset
from segnet.data.donors import RareClasses, class_odds, rare_class_odds


def test_odds_are_a_power_of_the_share() -> None:
    assert class_odds([100, 0, 300], 0.5).tolist() == pytest.approx([2, 0, (4 / 3) ** 0.5])
    assert class_odds([100, 0, 300], 0.0).tolist() == [1, 0, 1]
    assert class_odds([0, 0], 1.0).tolist() == [0, 0]


def test_rare_are_the_classes_below_the_median_of_those_that_exist() -> None:
    odds = rare_class_odds([900, 50, 0, 40, 10], 1.0)
    assert odds.nonzero().flatten().tolist() == [3, 4]
    assert odds[4] / odds[3] == pytest.approx(4)
    assert rare_class_odds([70, 30], 1.0).nonzero().flatten().tolist() == [1]
    for equal in ([50, 50], [100, 0], [0, 0]):
        assert not rare_class_odds(equal, 1.0).any()


def test_a_picture_of_the_drawn_class_is_read(tiny_data: Path, tiny_classes: ClassSet) -> None:
    dataset = SegmentationDataset(tiny_data, "train", tiny_classes)
    rare = RareClasses(dataset.read, [[], [2], [0, 5]], torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64))
    torch.manual_seed(0)
    drawn = [rare.draw() for _ in range(40)]
    expected = {(class_id, index): dataset.read(index).image for class_id, index in ((1, 2), (2, 0), (2, 5))}
    seen = set()
    for image, mask, class_id in drawn:
        assert bool((mask == class_id).any())
        seen |= {key for key, own in expected.items() if key[0] == class_id and torch.equal(own, image)}
    assert seen == expected.keys()
