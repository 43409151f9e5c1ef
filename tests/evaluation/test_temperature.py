"""The fitted temperature makes confidence right, and is not used for another network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import refused

from segnet.config.sections import InferenceConfig
from segnet.data.dataset import Sample
from segnet.evaluation.temperature import TEMPERATURES, TemperatureCounts, TemperatureFit, read_temperature, save_temperature
from segnet.system.errors import ExitCode
from segnet.tasks.segmentation import ClassProbabilities, at_temperature
from segnet.tasks.segmentation_score import Maps


def sample_of(probabilities: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(H, W) ids drawn with their probabilities (K, H, W)."""
    flat = probabilities.flatten(1).T
    return torch.multinomial(flat, 1, generator=generator).reshape(probabilities.shape[1:]).byte()


@pytest.mark.parametrize("times", [0.5, 2.0])
def test_a_network_that_is_too_sure_or_not_sure_enough_is_found_out(times: float) -> None:
    generator, counts = torch.Generator().manual_seed(0), TemperatureCounts()
    for number in range(3):
        logits = 2 * torch.randn(1, 4, 90, 100, generator=generator)
        truth = sample_of(logits[0].softmax(0), generator)[None]
        truth[:, :5] = 255
        maps = ClassProbabilities().finish((times * logits).softmax(1), None, keep_mean=True)
        counts.add(Sample(torch.empty(1, 0), truth, (str(number),)), maps)
    fit = counts.fit()
    assert fit.temperature == pytest.approx(times, rel=0.07)
    assert fit.pixels == 3 * 85 * 100
    assert fit.error_after < 0.02 < fit.error_before


def test_of_a_large_picture_every_nth_pixel_counts_n_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segnet.evaluation.temperature._PIXELS", 100)
    counts = TemperatureCounts()
    maps = Maps(*[torch.zeros(1, 20, 20)] * 4, None, None, torch.full((1, 2, 20, 20), 0.5))
    counts.add(Sample(torch.empty(1, 0), torch.zeros(1, 20, 20, dtype=torch.uint8), ("a",)), maps)
    assert counts.fit().pixels == 400


def test_the_temperature_changes_the_confidence_and_not_the_mask() -> None:
    mean = torch.rand(1, 5, 8, 9, generator=torch.Generator().manual_seed(1)).softmax(1)
    plain = ClassProbabilities().finish(mean, None, keep_mean=True)
    cold = ClassProbabilities().under(InferenceConfig(temperature=0.25)).finish(mean, None, keep_mean=True)
    assert torch.equal(cold.mask, plain.mask)
    assert (cold.confidence > plain.confidence).all()
    assert cold.probabilities is not None
    torch.testing.assert_close(cold.probabilities, mean**4 / (mean**4).sum(1, keepdim=True))
    assert torch.equal(at_temperature(mean, 1.0), mean)
    assert torch.equal(at_temperature(torch.tensor([[1.0, 0.0]]), 2.0), torch.tensor([[1.0, 0.0]]))


def test_it_is_read_again_for_the_same_network_and_views_alone(tmp_path: Path) -> None:
    usual = InferenceConfig()
    with refused(ExitCode.DATA, "temperature.json: no temperature is fitted", "--calibrate"):
        read_temperature(tmp_path, usual, "abc")
    path = save_temperature(tmp_path, TemperatureFit(TEMPERATURES[40], 0.1, 0.01, 5), usual, "abc")
    assert read_temperature(tmp_path, InferenceConfig(window=64, temperature=3.0, min_region=9), "abc") == TEMPERATURES[40]
    with refused(ExitCode.DATA, "fitted for other weights"):
        read_temperature(tmp_path, usual, "abd")
    with refused(ExitCode.DATA, "'flip': 'none'", "'flip': 'horizontal'"):
        read_temperature(tmp_path, InferenceConfig(flip="horizontal"), "abc")
    path.write_text("{}")
    with refused(ExitCode.DATA, "not a temperature"):
        read_temperature(tmp_path, usual, "abc")
