"""The counts of a split: the score of each picture by hand, and the same numbers in any order of pictures."""

import math

import pytest
import torch
from helpers import same

from segnet.data.dataset import Sample
from segnet.tasks.segmentation_score import EvaluationCounts, Maps, PictureScore


def test_the_score_of_a_picture_is_over_the_classes_of_its_truth():
    """Class 0: 6 of 8 found; class 1: 3 of 4 found, and 1 of class 0 taken for it; class 2 is predicted alone."""
    picture = PictureScore("a", correct=(6, 3, 0), in_truth=(8, 4, 0), in_prediction=(6, 4, 2), ignored=5, boundary_f1=0.5)
    assert picture.miou == pytest.approx((6 / 8 + 3 / 5) / 2)
    assert picture.accuracy == 9 / 12


def test_a_picture_of_which_nothing_is_scored_has_no_score():
    picture = PictureScore("a", correct=(0, 0), in_truth=(0, 0), in_prediction=(3, 0), ignored=9, boundary_f1=math.nan)
    assert math.isnan(picture.miou)
    assert math.isnan(picture.accuracy)


def answered(name: str, seed: int) -> tuple[Sample, Maps]:
    """A batch of one picture with an ignored corner, and an answer that is wrong in some places."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, 3, (1, 9, 8), generator=generator).byte()
    mask = torch.where(torch.rand(1, 9, 8, generator=generator) < 0.3, 0, truth).byte()
    truth[0, 0, :seed] = 255
    confidence = torch.rand(1, 9, 8, generator=generator)
    return Sample(torch.empty(1, 3, 9, 8), truth, [name]), Maps(mask, confidence, confidence, confidence, None, None, None)


def test_pictures_stand_in_the_order_of_the_split_whatever_came_first():
    found = []
    for order in ([0, 1, 2], [2, 0, 1]):
        counts = EvaluationCounts(["a", "b", "c"], 3)
        for seed in order:
            counts.add(*answered("abc"[seed], seed))
        found.append(counts.evaluation())
    assert [(picture.id, picture.ignored) for picture in found[0].pictures] == [("a", 0), ("b", 1), ("c", 2)]
    assert same(*found)
    assert found[0].scores.global_accuracy == sum(sum(p.correct) for p in found[0].pictures) / (3 * 72 - 3)
    assert [measure.name for measure in counts.measures()] == [measure.name for measure in found[0].measures()]
