"""The compiled kernel with products in bfloat16, on processors that have instructions for them."""

import pytest
import torch
import torch.nn.functional as F
from convolutions import random_map
from torch import Tensor, nn

from segnet.layers.native import find_kernel, is_usable
from segnet.layers.pooling import Pooled, max_pool, max_unpool
from segnet.models.native_blocks import ConvolutionAndPooling, NativeConvolution, UnpoolingAndConvolution

KERNEL = find_kernel().kernel
REASON = "no compiled kernel, or no instructions for bfloat16"
pytestmark = pytest.mark.skipif(KERNEL is None or not KERNEL.has_bfloat16, reason=REASON)

SIZES = [(1, 1), (3, 5), (4, 4), (33, 41), (70, 24)]


def random_convolution(channels: int, outputs: int) -> nn.Conv2d:
    torch.manual_seed(channels)
    return nn.Conv2d(channels, outputs, 3, padding=1).requires_grad_(False)


def transformed(convolution: nn.Conv2d) -> Tensor:
    return KERNEL.transform(convolution.weight, convolution.bias, dtype=torch.bfloat16)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("channels", "outputs"), [(2, 3), (20, 11), (64, 130), (130, 64), (512, 37)])
def test_close_to_float64_and_not_to_float32_alone(channels, outputs, size):
    convolution, x = random_convolution(channels, outputs), random_map(2, channels, *size)
    found = KERNEL.convolve(x, transformed(convolution), outputs, relu=False)
    exact = F.conv2d(x.double(), convolution.weight.double(), convolution.bias.double(), padding=1)
    error = (found - exact).abs().max() / exact.abs().max()
    assert found.dtype == torch.float32
    assert 1e-5 < error < 0.04  # a factor of bfloat16 has eight bits; the transforms make their error a few times as large


@pytest.mark.parametrize("size", SIZES)
def test_pooling_and_unpooling_inside_it_change_no_bit(size):
    convolution = random_convolution(20, 11)
    kernels, x = transformed(convolution), random_map(2, 20, *size)
    pooled = KERNEL.convolve_and_pool(x, kernels, 11, relu=True)
    assert all(map(torch.equal, pooled, max_pool(KERNEL.convolve(x, kernels, 11, relu=True))))
    values, codes = max_pool(x)
    found = KERNEL.unpool_and_convolve(Pooled(values, codes), size, kernels, 11, relu=False)
    assert torch.equal(found, KERNEL.convolve(max_unpool(values, codes, size), kernels, 11, relu=False))


def test_the_number_of_threads_changes_no_bit():
    convolution, x = random_convolution(64, 130), random_map(3, 64, 37, 41)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(KERNEL.convolve(x, transformed(convolution), 130, relu=True))
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_stays_visible_and_in_its_tiles(value):
    # 20 channels: the vector with the last of them also reads some of the next pixel
    convolution, x = random_convolution(20, 11), random_map(1, 20, 16, 16)
    x[0, 7, 5, 5] = value
    finite = KERNEL.convolve(x, transformed(convolution), 11, relu=False).isfinite()[0].all(dim=0)
    assert not finite[4:7, 4:7].any()
    assert finite[8:].all()
    assert finite[:, 8:].all()


def test_a_layer_with_an_odd_number_of_channels_is_computed_in_float32():
    assert not KERNEL.multiplies_in_bfloat16(3)
    convolution, x = random_convolution(3, 64), random_map(1, 3, 33, 41)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = NativeConvolution(convolution, relu=False, dtype=torch.bfloat16)(x)
    assert torch.equal(found, KERNEL.convolve(x, KERNEL.transform(convolution.weight, convolution.bias), 64, relu=False))


def test_the_blocks_use_it_under_autocast_and_only_there():
    convolution, x = random_convolution(64, 64), random_map(1, 64, 33, 41)
    kernels = transformed(convolution)
    with torch.inference_mode():
        block = NativeConvolution(convolution, relu=True, dtype=torch.bfloat16)
        assert torch.equal(block(x), F.conv2d(x, convolution.weight, convolution.bias, padding=1).relu())
        with torch.autocast("cpu", torch.bfloat16):
            expected = KERNEL.convolve(x, kernels, 64, relu=True)
            assert torch.equal(block(x), expected)
            assert torch.equal(block(x.bfloat16()), KERNEL.convolve(x.bfloat16().float(), kernels, 64, relu=True))
            values, winners = ConvolutionAndPooling(convolution, relu=True, dtype=torch.bfloat16)(x)
            assert torch.equal(values, max_pool(expected).values)
            unpooled = max_unpool(values, winners.codes, winners.size)
            block = UnpoolingAndConvolution(convolution, relu=True, dtype=torch.bfloat16)
            assert torch.equal(block(values, winners), KERNEL.convolve(unpooled, kernels, 64, relu=True))
            assert not is_usable(x, convolution.weight)
