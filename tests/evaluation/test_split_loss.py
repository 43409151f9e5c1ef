"""The loss of a split is that of the criterion over all its pixels, however they are predicted."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import tiny_config_for

from segnet.config.loading import override_config
from segnet.data.loader import build_loader
from segnet.evaluation.scoring import count_split
from segnet.evaluation.split_loss import SplitLoss
from segnet.inference import answers as answering
from segnet.inference.answers import predict
from segnet.models.initialization import build_model
from segnet.tasks.segmentation import Segmentation

WEIGHT = torch.tensor([0.5, 2.0, 1.0])


@pytest.fixture
def scored(tiny_data):
    """A task with class weights and label smoothing, its val split, a network and the criterion."""
    config = override_config(tiny_config_for(tiny_data), ["loss.label_smoothing=0.1"])
    task = Segmentation(config.data, config.loss)
    torch.manual_seed(0)
    model = build_model(config.model, 3).eval()
    criterion = task.build_criterion(task.open_split("train"), torch.device("cpu"))
    return task, task.open_split("val"), model, type(criterion)(weight=WEIGHT, smoothing=0.1), config.inference


def loss_of(scored, **changes: object) -> float:
    task, dataset, model, criterion, inference = scored
    loss = SplitLoss(criterion, task.answers.to_outputs, dataset.ids)
    loader = build_loader(dataset, workers=0)
    config = inference.model_copy(update=changes)
    count_split(model, loader, config, task.answers, task.validation_counts(dataset), watch=loss.watch)
    return loss.value


def test_it_is_the_criterion_over_all_scored_pixels(scored):
    _, dataset, model, _, _ = scored
    samples = [dataset.read(index) for index in range(len(dataset))]
    with torch.no_grad():
        logits = model(torch.stack([sample.image for sample in samples]))
    truth = torch.stack([sample.truth for sample in samples]).long()
    expected = F.cross_entropy(logits, truth, WEIGHT, ignore_index=255, label_smoothing=0.1)
    assert loss_of(scored) == pytest.approx(float(expected), rel=1e-5)


def test_of_several_views_it_is_that_of_the_mean_probabilities(scored):
    _, dataset, model, criterion, _ = scored
    sums = []
    for sample in (dataset.read(index) for index in range(len(dataset))):
        images = torch.stack([sample.image, sample.image.flip(-1)])
        with torch.no_grad():
            probabilities = model(images).softmax(1)
        mean = (probabilities[0] + probabilities[1].flip(-1)) / 2
        sums.append((criterion(mean.log()[None], sample.truth[None]) * criterion.counts(sample.truth[None]), sample.truth))
    divisor = sum(float(criterion.counts(truth[None])) for _, truth in sums)
    expected = sum(float(value) for value, _ in sums) / divisor
    assert loss_of(scored, flip="horizontal", temperature=3.0) == pytest.approx(expected, rel=1e-5)
    assert loss_of(scored) != pytest.approx(expected, rel=1e-5)


def test_windows_and_a_second_attempt_count_each_pixel_once(scored, monkeypatch):
    task, dataset, model, criterion, inference = scored
    loss = SplitLoss(criterion, task.answers.to_outputs, dataset.ids)
    batch = next(iter(build_loader(dataset, workers=0)))
    predict(model, batch.image, inference, task.answers, watch=loss.watch(batch))
    whole = loss.rows.clone()
    real, attempts = answering.blend_windows, []

    def full_once(*arguments):
        attempts.append(len(attempts))
        for number, region in enumerate(real(*arguments)):
            if number == 2 and len(attempts) == 1:
                raise MemoryError
            yield region

    monkeypatch.setattr(answering, "SMALLEST_WINDOW", 1)
    monkeypatch.setattr(answering, "blend_windows", full_once)
    windows = inference.model_copy(update={"window": 16, "overlap": 4})
    predict(model, batch.image, windows, task.answers, watch=loss.watch(batch))
    assert len(attempts) == 2
    assert loss.rows[0, 1] == whole[0, 1] > 0
    assert loss.rows[0, 0] == pytest.approx(float(whole[0, 0]), rel=0.2)
    assert loss.rows[1:].abs().sum() == 0


def test_without_a_scored_pixel_there_is_none(scored):
    task, dataset, _, criterion, _ = scored
    assert math.isnan(SplitLoss(criterion, task.answers.to_outputs, dataset.ids).value)
