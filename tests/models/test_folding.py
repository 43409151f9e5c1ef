"""Forms of a network that compute the same: folded, or with convolutions in place of deconvolutions."""

import pytest
import torch
from helpers import model_config
from small_networks import NECK, SMALL, narrow
from torch import nn

from segnet.config.sections import ModelConfig
from segnet.inference.answers import compute_logits
from segnet.layers.deconvolution import Deconvolution
from segnet.models.folding import convert_decoder_weights, fold
from segnet.models.initialization import build_model


def test_a_deconvolution_decoder_loads_as_a_convolution_decoder_and_back():
    torch.manual_seed(0)
    convolution = SMALL.model_copy(update={"decoder_operation": "convolution"})
    original, converted, back = (build_model(config, 3).eval() for config in (SMALL, convolution, SMALL))
    converted.load_state_dict(convert_decoder_weights(original.state_dict(), SMALL, convolution))
    back.load_state_dict(convert_decoder_weights(converted.state_dict(), convolution, SMALL))
    image = torch.randint(0, 256, (1, 3, 13, 22), dtype=torch.uint8)
    assert torch.equal(original(image), converted(image))
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in original.state_dict().items())
    assert any(m.__class__ is Deconvolution for m in original.modules())
    assert not any(m.__class__ is Deconvolution for m in converted.modules())


FORMS = ['"decoder_operation": "deconvolution"', '"decoder_operation": "convolution"', NECK]
FORMS += ['"skips": "add"', '"skips": "add", "batch_norm": false']


@pytest.mark.parametrize("changes", FORMS)
@pytest.mark.parametrize("size", [(33, 31), (64, 48)])
def test_a_folded_network_computes_the_same(changes, size):
    """In float64, with batch statistics of its own and channels that differ and that are equal; nothing of it is shared."""
    torch.manual_seed(0)
    widths = '"encoder": [{"widths": [4, 5]}, {"widths": [5], "dropout": 0.5}], "decoder": [{"widths": [5, 5]}, {"widths": [4]}]'
    model = build_model(ModelConfig.model_validate_json(f"{{{widths}, {changes.replace('1,', '5,')}}}"), 3).double().train()
    for _ in range(3):
        model(torch.rand(2, 3, 48, 48, dtype=torch.float64) * 255)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            nn.init.uniform_(parameter, -2, 2)
        elif name.endswith("bias"):
            nn.init.uniform_(parameter, -1, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    small = fold(model)
    assert not [module for module in small.modules() if isinstance(module, nn.BatchNorm2d | Deconvolution)]
    image = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    with torch.no_grad():
        for network in (small, fold(small)):
            torch.testing.assert_close(network(image), model.eval()(image), rtol=1e-9, atol=1e-9)
        small.head.weight.zero_()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["segnet", "segnet_basic", "segnet_basic_deconvolution", "bayesian_segnet"])
def test_kernels_rounded_once_give_the_bits_of_autocast(name):
    torch.manual_seed(0)
    model = build_model(narrow(model_config(name)), 3)
    image = torch.randint(0, 256, (2, 3, 33, 40), dtype=torch.uint8)
    with torch.inference_mode():
        folded = [fold(model, kernels, native=False) for kernels in ("bfloat16", "float32")]
        once, always = (compute_logits(network, image, 1.0, "bfloat16") for network in folded)
    assert once.dtype == torch.float32
    assert torch.equal(once, always)
    assert folded[0].head.weight.dtype == torch.bfloat16
