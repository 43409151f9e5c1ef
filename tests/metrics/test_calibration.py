"""Reliability against a plain loop, and the same integers in any order."""

import math
import random
from fractions import Fraction

import pytest
import torch

from segnet.metrics.calibration import BINS, Reliability, count_reliability, reliability


def by_a_loop(confidence: list[float], correct: list[bool]) -> Reliability:
    """Guo et al. 2017, equations 1 to 3, in exact fractions."""
    bins: list[list[int]] = [[] for _ in range(BINS)]
    for pixel, value in enumerate(confidence):
        bins[max(0, math.ceil(Fraction(value) * BINS) - 1)].append(pixel)
    right = [sum(correct[pixel] for pixel in pixels) for pixels in bins]
    sure = [sum(Fraction(confidence[pixel]) for pixel in pixels) for pixels in bins]
    gap = sum(abs(hits - sums) for hits, sums in zip(right, sure, strict=True))
    means = [float(total / len(pixels)) if pixels else math.nan for total, pixels in zip(sure, bins, strict=True)]
    return Reliability(tuple(map(len, bins)), tuple(right), tuple(means), float(gap / len(confidence)))


@pytest.mark.parametrize("number", range(100))
def test_it_equals_a_plain_loop(number):
    dice = random.Random(number)
    pixels = dice.randint(1, 200)
    edges = [dice.randint(0, 15) / 16 for _ in range(pixels)]
    confidence = torch.tensor([dice.choice([edge, 1.0, dice.random()]) for edge in edges])
    correct = torch.tensor([dice.random() < 0.5 for _ in range(pixels)])
    found, expected = reliability(count_reliability(confidence, correct)), by_a_loop(confidence.tolist(), correct.tolist())
    assert found[:2] == expected[:2]
    assert found.confidence == pytest.approx(expected.confidence, abs=1e-7, nan_ok=True)
    assert found.error == pytest.approx(expected.error, abs=1e-7)


def test_any_order_and_batching_give_the_same_integers():
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(60, 71, generator=generator)
    correct = torch.rand(60, 71, generator=generator) < confidence
    whole = count_reliability(confidence, correct)
    order = torch.randperm(60, generator=generator)
    parts = sum(count_reliability(confidence[rows], correct[rows]) for rows in order.split(7))
    assert torch.equal(whole, parts)
    assert whole[:, 0].sum() == 60 * 71


def test_a_calibrated_network_has_no_error_and_an_overconfident_one_has():
    confidence, correct = torch.full((1000,), 0.75), torch.arange(1000) < 750
    assert reliability(count_reliability(confidence, correct)).error == 0
    assert reliability(count_reliability(torch.ones(1000), correct)).error == 0.25


def test_a_rounding_error_above_one_is_in_the_last_bin_and_nothing_has_no_error():
    counts = count_reliability(torch.tensor([0.0, 1.0000002]), torch.tensor([True, True]))
    assert counts[:, 0].tolist() == [1] + [0] * 13 + [1]
    assert math.isnan(reliability(torch.zeros_like(counts)).error)
