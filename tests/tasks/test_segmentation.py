"""Segmentation behind the seam: what it averages, what it answers, which measure it calls the best."""

import math

import pytest
import torch

from segnet.tasks.choice import build_task
from segnet.tasks.segmentation import ClassProbabilities, Segmentation
from segnet.tasks.task import Best, Measure, Spread


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


@pytest.mark.parametrize(("higher", "better", "worse"), [(True, 0.6, 0.5), (False, 0.5, 0.6)])
def test_the_best_measure_ranks_scores_either_way_and_nan_below_all(higher, better, worse):
    best = Best("error", higher_is_better=higher)
    good, bad, none = (best.rank([Measure("other", "", 9.0), Measure("error", "", value)]) for value in (better, worse, math.nan))
    assert good > bad > none > -math.inf


def test_the_task_of_a_configuration_is_segmentation_with_its_classes(tiny_config):
    task = build_task(tiny_config)
    assert isinstance(task, Segmentation)
    assert task.channels == 3
    assert task.best.name in task.logged
    assert {measure.name for measure in task.validation_counts().measures()} >= set(task.logged)
    assert len(task.open_split("val")) == 3
