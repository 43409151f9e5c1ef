"""The score against an independent computation in exact fractions."""

import math
import random
from fractions import Fraction
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from segnet.metrics.confusion import ConfusionMatrix

CASES = 1000


Share = Fraction | None


class ExactScores(NamedTuple):
    iou: list[Share]
    accuracy: list[Share]
    precision: list[Share]
    dice: list[Share]
    correct: Share
    frequency_weighted_iou: Share


def exact_scores(truth: list[int], prediction: list[int], classes: int) -> ExactScores:
    """Shares per class and over all pixels, pixel by pixel and without a matrix; None where undefined."""
    pixels = [(t, p) for t, p in zip(truth, prediction, strict=True) if t != 255]
    both = [sum(t == k and p == k for t, p in pixels) for k in range(classes)]
    either = [sum(t == k or p == k for t, p in pixels) for k in range(classes)]
    in_truth = [sum(t == k for t, _ in pixels) for k in range(classes)]
    in_prediction = [sum(p == k for _, p in pixels) for k in range(classes)]

    def shares(parts: list[int], wholes: list[int]) -> list[Share]:
        return [Fraction(part, whole) if whole else None for part, whole in zip(parts, wholes, strict=True)]

    iou = shares(both, either)
    return ExactScores(
        iou,
        shares(both, in_truth),
        shares(both, in_prediction),
        shares([2 * n for n in both], [t + p for t, p in zip(in_truth, in_prediction, strict=True)]),
        correct=Fraction(sum(t == p for t, p in pixels), len(pixels)) if pixels else None,
        frequency_weighted_iou=mean([iou[t] for t, _ in pixels]),
    )


def mean(values: list[Share]) -> Share:
    present = [v for v in values if v is not None]
    return sum(present, Fraction()) / len(present) if present else None


def agree(found: float, expected: Share) -> bool:
    return math.isnan(found) if expected is None else abs(Fraction(found) - expected) < Fraction(1, 10**12)


def random_case(number: int) -> tuple[int, list[Tensor], list[Tensor]]:
    """A few pictures of different sizes; classes are often absent, pictures often all ignored."""
    dice = random.Random(number)
    classes = dice.choice([1, 2, 3, 6, 21])
    present = dice.sample(range(classes), dice.randint(1, classes))
    truths, predictions = [], []
    for _ in range(dice.randint(1, 4)):
        size = (dice.randint(1, 9), dice.randint(1, 9))
        labels = [255] if dice.random() < 0.2 else [*present, 255]
        truths.append(torch.tensor(dice.choices(labels, k=size[0] * size[1]), dtype=torch.uint8).view(size))
        predictions.append(torch.tensor(dice.choices(present, k=size[0] * size[1]), dtype=torch.uint8).view(size))
    return classes, truths, predictions


@pytest.mark.parametrize("block", range(10))
def test_scores_equal_exact_fractions(block):
    for number in range(block * CASES // 10, (block + 1) * CASES // 10):
        classes, truths, predictions = random_case(number)
        matrix = ConfusionMatrix(classes)
        for truth, prediction in zip(truths, predictions, strict=True):
            matrix.update(truth, prediction)
        scores = matrix.scores()
        truth = [int(v) for t in truths for v in t.flatten()]
        prediction = [int(v) for p in predictions for v in p.flatten()]
        exact = exact_scores(truth, prediction, classes)
        assert all(map(agree, scores.class_iou, exact.iou))
        assert all(map(agree, scores.class_accuracy, exact.accuracy))
        assert all(map(agree, scores.class_precision, exact.precision))
        assert all(map(agree, scores.class_dice, exact.dice))
        assert agree(scores.mean_dice, mean(exact.dice))
        assert agree(scores.miou, mean(exact.iou))
        assert agree(scores.mean_accuracy, mean(exact.accuracy))
        assert agree(scores.global_accuracy, exact.correct)
        assert agree(scores.frequency_weighted_iou, exact.frequency_weighted_iou)
        assert scores.pixels + scores.ignored == len(truth)
        assert sum(map(sum, scores.confusion)) == scores.pixels


def test_any_order_batching_and_merging_give_the_same_matrix():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 4, (8, 5, 6), generator=generator)
    truth[torch.rand(truth.shape, generator=generator) < 0.2] = 255
    prediction = torch.randint(0, 4, truth.shape, generator=generator)
    whole = ConfusionMatrix(4).update(truth, prediction)
    parts = [ConfusionMatrix(4).update(truth[i], prediction[i]) for i in (5, 1, 7, 0, 2, 6, 4, 3)]
    merged = ConfusionMatrix(4)
    for part in parts:
        merged.merge(part)
    assert torch.equal(merged.counts, whole.counts)
    assert merged.ignored == whole.ignored


def test_counts_stay_exact_beyond_what_float32_holds():
    matrix = ConfusionMatrix(2)
    matrix.counts[0, 0] = 2**24
    matrix.update(torch.zeros(1, 1, dtype=torch.uint8), torch.zeros(1, 1, dtype=torch.uint8))
    assert matrix.scores().pixels == 2**24 + 1


def test_a_class_with_iou_zero_counts_and_an_absent_one_does_not():
    scores = ConfusionMatrix(3).update(torch.tensor([0, 0, 1]), torch.tensor([0, 0, 0])).scores()
    assert scores.class_iou[1] == 0
    assert math.isnan(scores.class_iou[2])
    assert scores.miou == (2 / 3 + 0) / 2


@pytest.mark.parametrize(
    ("truth", "prediction", "complaint"),
    [([3], [0], "truth has ids 3"), ([0], [3], "prediction has ids 3"), ([0, 1], [0], "differ in"), ([0], [255], "ids 255")],
)
def test_impossible_ids_are_refused(truth, prediction, complaint):
    with pytest.raises(ValueError, match=complaint):
        ConfusionMatrix(3).update(torch.tensor(truth), torch.tensor(prediction))
