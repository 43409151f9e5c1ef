"""The kinds of noise: what their numbers mean, and the protocol of the published results."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segnet.config.sections import NoiseConfig
from segnet.tasks.noise import add_noise, draw_level, scored_levels


def test_gaussian_noise_is_that_of_the_published_protocol() -> None:
    """In units of 0..1: seed 0 for the picture, then N(0, σ / 255) of the shape (H, W, C), and no clipping."""
    clean = torch.randint(0, 256, (3, 9, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    np.random.seed(0)
    expected = clean.permute(1, 2, 0).numpy().astype(np.float32) / 255
    expected += np.random.normal(0, 50 / 255, expected.shape)
    found = add_noise(clean, "gaussian", 50, np.random.RandomState(0))
    assert found.dtype == torch.float32
    assert np.abs(found.permute(1, 2, 0).numpy() - 255 * expected).max() < 1e-3
    assert found.min() < 0
    assert torch.equal(add_noise(clean, "poisson", 0, np.random.default_rng(0)), clean.float())
    assert found.max() > 255


@pytest.mark.parametrize(("kind", "at_grey"), [("gaussian", 25), ("poisson", 25 * np.sqrt(64 / 255)), ("speckle", 25 * 64 / 255)])
def test_sigma_is_the_standard_deviation_of_white(kind: str, at_grey: float) -> None:
    for value, expected in ((255, 25), (64, at_grey)):
        clean = torch.full((1, 200, 200), value, dtype=torch.uint8)
        noise = add_noise(clean, kind, 25, np.random.default_rng(1)) - value
        assert noise.std().item() == pytest.approx(expected, rel=0.02)
        assert noise.mean().item() == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_jpeg_of_low_quality_is_further_away(channels: int) -> None:
    clean = torch.randint(0, 256, (channels, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    errors = [float((add_noise(clean, "jpeg", level, np.random.default_rng(0)) - clean).square().mean()) for level in (5, 95)]
    assert errors[0] > 1.5 * errors[1] > 0


def test_a_strength_is_drawn_between_two_and_scored_at_the_middle_or_where_asked() -> None:
    assert NoiseConfig(sigma=(0.0, 55.0)).scored == ()
    noise = NoiseConfig(sigma=(5.0, 55.0))
    random = np.random.default_rng(0)
    drawn = [draw_level(noise, random) for _ in range(200)]
    assert 5 <= min(drawn) < 10 < 50 < max(drawn) <= 55
    assert scored_levels(noise) == (30,)
    assert scored_levels(NoiseConfig(sigma=(5.0, 55.0), scored=(15.0, 25.0))) == (15, 25)
    assert draw_level(NoiseConfig(sigma=15.0), random) == 15
    qualities = {draw_level(NoiseConfig(kind="jpeg", quality=(10, 12)), random) for _ in range(50)}
    assert qualities == {10, 11, 12}
    assert scored_levels(NoiseConfig(kind="jpeg", quality=10)) == (10,)
