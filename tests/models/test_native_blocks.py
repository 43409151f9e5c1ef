"""A folded network on the compiled kernel against the same network on torch's operations."""

import copy

import pytest
import torch
from small_networks import network_of_two_stages as network
from small_networks import two_images as picture
from torch import nn

from segnet.inference.answers import compute_logits
from segnet.layers.native import find_kernel
from segnet.models.encoder_decoder import Unpooling
from segnet.models.folding import fold
from segnet.models.native_blocks import ConvolutionAndPooling, NativeConvolution, UnpoolingAndConvolution

FOUND = find_kernel()
pytestmark = pytest.mark.skipif(FOUND.kernel is None, reason=f"no compiled kernel: {FOUND.text}")
FORMS = [
    '"decoder_operation": "deconvolution"',
    '"decoder_relu": false',
    '"upsampling": "bilinear"',
    '"upsampling": "deconvolution"',
    '"kernel_size": 7',
    '"head_kernel_size": 1',
    '"skips": "add"',
    '"batch_norm": false',
]


def count_calls(monkeypatch) -> list[str]:
    """The names of the kernel's functions that are called from now on."""
    calls = []
    for name in ("convolve", "convolve_and_pool", "unpool_and_convolve"):
        function = getattr(type(FOUND.kernel), name)

        def counting(*arguments, function=function, name=name, **options):
            calls.append(name)
            return function(*arguments, **options)

        monkeypatch.setattr(type(FOUND.kernel), name, counting)
    return calls


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(33, 31), (64, 48), (3, 5)])
def test_it_computes_the_same(form, size):
    model = network(form)
    by_torch, native = fold(model, native=False), fold(model)
    with torch.inference_mode():
        expected, found = by_torch(picture(*size)), native(picture(*size))
        error = (found - expected).norm() / expected.norm()
        assert torch.equal(native(picture(*size)), found)
        assert torch.equal(fold(native)(picture(*size)), found)
    assert error < 1e-3  # a near-tied winner may move
    assert not any(isinstance(module, NativeConvolution) for module in by_torch.modules())


def test_every_layer_of_the_right_form_is_the_kernels(monkeypatch):
    calls = count_calls(monkeypatch)
    model = fold(network(FORMS[0]))
    with torch.inference_mode():
        model(picture(33, 31))
    decoder = ["unpool_and_convolve", "convolve", "unpool_and_convolve"]
    assert calls == ["convolve_and_pool", "convolve_and_pool", *decoder, "convolve"]  # 3 -> 16 channels are too few
    assert not any(isinstance(module, nn.ReLU | Unpooling) for module in model.modules())
    assert [type(module) for module in model.pooling] == [ConvolutionAndPooling] * 2
    assert [type(module) for module in model.upsampling] == [UnpoolingAndConvolution] * 2


@pytest.mark.skipif(not FOUND.kernel or not FOUND.kernel.has_bfloat16, reason="no instructions for bfloat16")
def test_every_such_layer_is_the_kernels_in_bfloat16(monkeypatch):
    model, image = network(FORMS[0]), picture(33, 31)
    by_torch = fold(model, "bfloat16", native=False)
    calls = count_calls(monkeypatch)
    native = fold(model, "bfloat16")
    with torch.inference_mode():
        exact = model(image)
        found, expected = (compute_logits(each, image, 1.0, "bfloat16") for each in (native, by_torch))
    assert len(calls) == 6
    error, error_of_torch = ((logits - exact).norm() / exact.norm() for logits in (found, expected))
    assert 1e-4 < error < 2 * error_of_torch


def test_the_kernel_neither_pools_nor_unpools_where_a_skip_needs_the_map(monkeypatch):
    calls = count_calls(monkeypatch)
    model = fold(network('"skips": "add"'))
    with torch.inference_mode():
        model(picture(33, 31))
    assert calls == ["convolve"] * 6


def test_torch_computes_where_the_kernel_may_not(monkeypatch):
    """Gradients, autocast, deterministic mode, compilation and tiny maps: no call of the kernel, the same function."""
    model = network(FORMS[0])
    native, by_torch = fold(model), fold(model, native=False)
    image = picture(33, 31)
    calls = count_calls(monkeypatch)
    assert torch.equal(native(image), by_torch(image))  # with gradients
    assert native(image).requires_grad
    with torch.inference_mode():
        assert torch.equal(compute_logits(native, image, 1.0, "bfloat16"), compute_logits(by_torch, image, 1.0, "bfloat16"))
        assert torch.equal(native(image[..., :2, :2]), by_torch(image[..., :2, :2]))
        torch.use_deterministic_algorithms(True)
        try:
            assert torch.equal(native(image), by_torch(image))
        finally:
            torch.use_deterministic_algorithms(False)
    with torch.no_grad():
        program = torch.export.export(native, (image,)).module()
        torch.testing.assert_close(program(image), by_torch(image))
        torch.testing.assert_close(copy.deepcopy(native).double()(image), model.double()(image), rtol=1e-4, atol=1e-4)
    assert calls == []


def test_without_the_kernel_the_network_is_folded_only(monkeypatch):
    monkeypatch.setenv("SEGNET_NATIVE", "0")
    find_kernel.cache_clear()
    try:
        assert not any(isinstance(module, NativeConvolution) for module in fold(network(FORMS[0])).modules())
    finally:
        find_kernel.cache_clear()


def test_other_precisions_are_not_the_kernels():
    model = network(FORMS[0])
    for other in (fold(model, "float16"), fold(model.double())):
        assert not any(isinstance(module, NativeConvolution) for module in other.modules())


def test_an_infinite_activation_stays_visible():
    model = network(FORMS[0])
    with torch.no_grad():
        model.encoder[0][0].conv.weight[3, 1, 1, 1] = float("nan")
    with torch.inference_mode():
        assert not fold(model)(picture(33, 31)).isfinite().all()
