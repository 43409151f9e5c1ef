"""A folded network whose compiled kernel is replaced by torch's matrix products against the same network on convolutions."""

import pytest
import torch
from small_networks import network_of_two_stages as network
from small_networks import two_images as picture

from segnet.inference.answers import compute_logits
from segnet.layers import winograd
from segnet.layers.native import Found
from segnet.layers.winograd import TorchKernel
from segnet.models import folding
from segnet.models.folding import fold
from segnet.models.native_blocks import NativeConvolution


@pytest.fixture
def calls(monkeypatch):
    """The compiled kernel is missing and replaced in layers of any size. The names of the functions that are called."""
    monkeypatch.delenv("SEGNET_NATIVE", raising=False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    for user in (winograd, folding):
        monkeypatch.setattr(user, "find_kernel", lambda: Found(None, "no C++ compiler"))
    monkeypatch.setattr(winograd, "_FEWEST_CHANNELS", 1)
    monkeypatch.setattr(winograd, "_FEWEST_TILES", 4)
    called = []
    convolve = TorchKernel.convolve
    monkeypatch.setattr(TorchKernel, "convolve", lambda *args, **options: called.append(1) or convolve(*args, **options))
    return called


@pytest.mark.parametrize("more", ['"decoder_operation": "deconvolution"', '"upsampling": "bilinear"', '"skips": "add"'])
def test_it_computes_the_same(more, calls):
    model = network(more)
    with torch.inference_mode():
        expected = fold(model, native=False)(picture(33, 31))
        assert calls == []
        found = fold(model)(picture(33, 31))
        assert len(calls) == 7
        alone = fold(model)(picture(33, 31)[1:])
    assert (found - expected).norm() < 1e-3 * expected.norm()  # a near-tied winner may move
    torch.testing.assert_close(alone, found[1:])


def test_torch_computes_where_the_kernel_may_not(calls, monkeypatch):
    """Gradients, autocast, other precisions, deterministic mode, compilation and export, and tiny maps."""
    model = network()
    ours, by_torch, image = fold(model), fold(model, native=False), picture(33, 31)
    assert torch.equal(ours(image), by_torch(image))  # with gradients
    assert not any(isinstance(module, NativeConvolution) for module in fold(model, "bfloat16").modules())
    with torch.inference_mode():
        assert torch.equal(compute_logits(ours, image, 1.0, "bfloat16"), compute_logits(by_torch, image, 1.0, "bfloat16"))
        assert torch.equal(ours(image[..., :4, :4]), by_torch(image[..., :4, :4]))
        torch.use_deterministic_algorithms(True)
        try:
            assert torch.equal(ours(image), by_torch(image))
        finally:
            torch.use_deterministic_algorithms(False)
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        torch.testing.assert_close(ours(image), by_torch(image))
    assert calls == []


def test_it_is_not_used_where_torch_alone_shall_compute(calls, monkeypatch):
    monkeypatch.setenv("SEGNET_NATIVE", "0")
    assert not any(isinstance(module, NativeConvolution) for module in fold(network()).modules())
