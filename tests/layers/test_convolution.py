"""Convolution with the gradient of its kernel in NCHW against torch's own."""

import pytest
import torch

from segnet.layers import native
from segnet.layers.convolution import Convolution, _gradient_in_nchw
from segnet.layers.deconvolution import Deconvolution


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


@pytest.fixture
def everywhere(monkeypatch):
    """The compiled kernel trains layers of any size."""
    if native.find_kernel().kernel is None:
        pytest.skip(f"no compiled kernel: {native.find_kernel().text}")
    for name in ("_FEWEST_TILES_IN_TRAINING", "_FEWEST_CHANNELS", "_FEWEST_TILES_OF_GRADIENT", "_FEWEST_PAIRS"):
        monkeypatch.setattr(native, name, 1)


def gradients(layer: Convolution | Deconvolution, x: torch.Tensor, *, by_kernel: bool) -> list[torch.Tensor]:
    """The output, and the gradients of x, weight and bias."""
    layer.native = by_kernel
    x = x.detach().requires_grad_()
    y = layer(x)
    y.square().sum().backward()
    found = [y.detach(), x.grad, layer.weight.grad, layer.bias.grad]
    layer.zero_grad()
    return found


@pytest.mark.parametrize("operation", [Convolution, Deconvolution])
@pytest.mark.parametrize(("channels", "outputs", "size"), [(1, 1, (1, 1)), (3, 7, (5, 9)), (20, 11, (13, 6)), (64, 37, (21, 30))])
def test_the_compiled_kernel_trains_within_rounding_of_float64(operation, channels, outputs, size, everywhere):
    layer = operation(channels, outputs, 3, padding=1).to(memory_format=torch.channels_last)
    torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(1)).to(memory_format=torch.channels_last)
    found = gradients(layer, x, by_kernel=True)
    torchs = gradients(layer, x, by_kernel=False)
    exact = gradients(layer.double(), x.double(), by_kernel=False)
    assert not torch.equal(found[2], torchs[2])  # the kernel did compute it
    for ours, theirs, expected in zip(found, torchs, exact, strict=True):
        assert (ours - expected).norm() <= 6 * (theirs - expected).norm() + 1e-6 * expected.norm()


@pytest.mark.parametrize("operation", [Convolution, Deconvolution])
def test_small_layers_and_other_precisions_are_torchs(operation):
    for layer, x in (
        (operation(64, 20, 3, padding=1), torch.randn(1, 64, 8, 8)),  # few tiles
        (operation(2, 20, 3, padding=1), torch.randn(4, 2, 40, 40)),  # few channels
        (operation(20, 20, 5, padding=2), torch.randn(4, 20, 40, 40)),
        (operation(20, 20, 3, padding=1).double(), torch.randn(4, 20, 40, 40).double()),
    ):
        torch.nn.init.normal_(layer.weight)
        assert all(map(torch.equal, gradients(layer, x, by_kernel=True), gradients(layer, x, by_kernel=False)))


@pytest.mark.parametrize("operation", [Convolution, Deconvolution])
def test_gradients_that_nobody_needs_are_not_computed(operation, everywhere):
    layer, x = operation(3, 7, 3, padding=1), torch.ones(1, 3, 5, 9)
    layer.native = True
    torch.nn.init.ones_(layer.weight)
    layer.bias.requires_grad_(False)
    layer(x).sum().backward()
    assert x.grad is None
    assert layer.bias.grad is None
    torch.testing.assert_close(layer.weight.grad[..., 1, 1], torch.full(layer.weight.shape[:2], 45.0))
