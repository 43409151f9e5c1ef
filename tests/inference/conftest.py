"""Fixtures of the inference tests."""

import pytest
import torch
from small_networks import noise_image

from segnet.config.loading import override_config
from segnet.models.initialization import build_model


@pytest.fixture
def bayesian(tiny_config):
    """A network with dropout whose batch statistics are not the initial ones."""
    torch.manual_seed(0)
    config = override_config(tiny_config, ["model.encoder=[{widths: [4]}, {widths: [8], dropout: 0.5}]"])
    model = build_model(config.model, 3).train()
    model(noise_image(32, 32))
    return model
