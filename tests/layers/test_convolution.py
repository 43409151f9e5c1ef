"""Convolution with the gradient of its kernel in NCHW against torch's own."""

import pytest
import torch

from segnet.layers.convolution import Convolution, _gradient_in_nchw


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
@pytest.mark.parametrize("bias", [True, False])
def test_the_gradients_from_copies_in_nchw_are_those_of_a_convolution(kernel_size, bias, monkeypatch):
    monkeypatch.setattr("segnet.layers.convolution._gradient_in_nchw", lambda x, kernel: True)
    ours = Convolution(5, 4, kernel_size, padding=kernel_size // 2, bias=bias).double().to(memory_format=torch.channels_last)
    torchs = torch.nn.Conv2d(5, 4, kernel_size, padding=kernel_size // 2, bias=bias).double()
    torchs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 9, 12, dtype=torch.float64).to(memory_format=torch.channels_last)
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    for module, image in zip((ours, torchs), inputs, strict=True):
        (module(image) ** 2).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    for mine, theirs in zip(ours.parameters(), torchs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_large_float32_layers_take_nchw_copies_with_avx2_alone(monkeypatch):
    large, small = torch.ones(4, 64, 160, 208), torch.ones(8, 32, 96, 128)
    kernel = torch.ones(64, 64, 3, 3, requires_grad=True)
    for capability, x, expected in (("AVX2", large, True), ("AVX2", small, False), ("AVX512", large, False)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
        assert _gradient_in_nchw(x, kernel[: x.shape[1]]) is expected
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    with torch.autocast("cpu", torch.bfloat16):
        assert not _gradient_in_nchw(large, kernel)
    with torch.no_grad():
        assert not _gradient_in_nchw(large, kernel)
