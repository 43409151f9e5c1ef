"""Segmentation behind the seam: what it averages and answers, and the criterion that it builds."""

import math

import pytest
import torch

from segnet.config.sections import InferenceConfig, LossConfig
from segnet.data.statistics import class_statistics
from segnet.losses import enet_weights, median_frequency_weights
from segnet.tasks.segmentation import ClassProbabilities, Segmentation
from segnet.tasks.segmentation_score import Maps
from segnet.tasks.task import Spread


def test_the_criterion_is_what_the_configuration_says(tiny_config, tiny_data):
    device = torch.device("cpu")
    dataset = Segmentation(tiny_config.data, LossConfig()).open_split("train")
    counted = class_statistics(dataset)
    plain = Segmentation(tiny_config.data, LossConfig(label_smoothing=0.1)).build_criterion(dataset, device)
    assert plain.weight is None
    assert plain.smoothing == 0.1
    for name, weight in (
        ("median_frequency", median_frequency_weights(counted.pixels, counted.pixels_of_pictures, power=0.5)),
        ("enet", enet_weights(counted.pixels, power=0.5)),
    ):
        loss = LossConfig.model_validate({"class_weights": name, "weight_power": 0.5})
        found = Segmentation(tiny_config.data, loss).build_criterion(dataset, device).weight
        assert found is not None
        assert torch.equal(found, weight)


def test_the_mask_is_the_class_with_the_highest_mean_probability():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).T.reshape(1, 2, 1, 2)  # (B, K, H, W)
    answers = ClassProbabilities()
    mean = answers.of_outputs(logits)
    maps = answers.finish(mean, None, keep_mean=True)
    assert maps.mask.tolist() == [[[0, 1]]]
    assert maps.confidence.flatten().tolist() == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-1))])
    assert torch.equal(maps.probabilities, mean)
    assert (maps.variance, maps.mutual_information) == (None, None)
    assert torch.equal(maps.uncertainty, maps.entropy / math.log(2))


def test_mutual_information_is_the_entropy_of_the_mean_without_the_mean_entropy():
    answers = ClassProbabilities()
    samples = [torch.tensor([p, 1 - p]).reshape(1, 2, 1, 1) for p in (0.1, 0.9)]
    mean, statistic = sum(samples) / 2, sum(map(answers.statistic, samples)) / 2
    maps = answers.finish(mean, Spread(torch.zeros(1, 1, 1, 1), statistic), keep_mean=False)
    entropy = -(0.1 * math.log(0.1) + 0.9 * math.log(0.9))
    assert maps.mutual_information.item() == pytest.approx(math.log(2) - entropy)
    assert maps.probabilities is None


def test_a_whole_mask_is_cleaned_up_by_the_settings():
    mask = torch.zeros(1, 6, 6, dtype=torch.uint8)
    mask[0, 1, 1], mask[0, 3:5, 3:5] = 1, 1
    maps = Maps(mask, *[torch.rand(1, 6, 6)] * 3, None, None, None)
    assert ClassProbabilities().complete(maps) is maps
    cleaned = ClassProbabilities().under(InferenceConfig(min_region=2)).complete(maps)
    assert cleaned.mask.sum() == 4
    assert mask.sum() == 5
    assert cleaned.confidence is maps.confidence
