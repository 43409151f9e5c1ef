"""A mirrored decoder starts as the transpose of its encoder."""

import pytest
import torch
from helpers import model_config
from small_networks import SMALL, narrow
from torch import nn

from segnet.layers.deconvolution import Deconvolution
from segnet.models.initialization import build_model


@pytest.mark.parametrize("operation", ["deconvolution", "convolution"])
def test_a_mirrored_decoder_starts_as_the_transpose_of_its_encoder(operation):
    """<A x, y> = <x, B y> says that B is the transpose of A; all twelve layers of SegNet that have a twin of their shape are."""
    changes = {"decoder_operation": operation, "decoder_weights": "mirrored"}
    model = build_model(narrow(model_config("segnet")).model_copy(update=changes), 4)
    pairs = list(zip(convolutions(model.decoder), reversed(convolutions(model.encoder)), strict=False))  # conv1_1 has none
    assert len(pairs) == 12
    for layer, twin in pairs:
        x, y = torch.randn(1, twin.weight.shape[1], 7, 9), torch.randn(1, twin.weight.shape[0], 7, 9)
        torch.testing.assert_close((twin(x) * y).sum(), (x * layer(y)).sum(), rtol=1e-4, atol=1e-4)
        assert layer.weight.data_ptr() != twin.weight.data_ptr()  # a start in common, then each learns for itself


def test_a_layer_without_a_mirror_of_its_shape_keeps_its_start():
    torch.manual_seed(0)
    fresh = build_model(SMALL, 3)
    torch.manual_seed(0)
    mirrored = build_model(SMALL.model_copy(update={"decoder_weights": "mirrored"}), 3)
    changed = {name for name, value in fresh.state_dict().items() if not torch.equal(value, mirrored.state_dict()[name])}
    assert changed == {"decoder.1.0.conv.weight"}


def convolutions(part):
    return [module for module in part.modules() if isinstance(module, nn.Conv2d | Deconvolution)]
