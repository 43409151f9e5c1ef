"""Winograd's algorithm by torch's matrix products against torch's convolution in float64, and where it is used."""

import itertools
import os
import threading

import pytest
import torch
import torch.nn.functional as F
from convolutions import CASES, LARGEST_ERROR, SIZES, assert_close, expected, random_map, random_weights
from torch import Tensor

from segnet.layers import winograd
from segnet.layers.native import Found, find_kernel
from segnet.layers.pooling import max_pool, max_unpool
from segnet.layers.winograd import TorchKernel, describe_kernel, find_faster, replaces_kernel

KERNEL = TorchKernel()


def sizes_of(case: int) -> list[tuple[int, int]]:
    """One or two of the sizes from 1×1 to 70×70, others in each case; with SEGNET_EXHAUSTIVE=1 all."""
    return SIZES if os.environ.get("SEGNET_EXHAUSTIVE") else SIZES[case :: 35 * len(CASES)]


def random_layer(channels: int, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weight and bias, and both in the kernel's form."""
    weight, bias = random_weights(channels, outputs)
    return weight, bias, KERNEL.transform(weight, bias)


def assert_convolved(found: Tensor, x: Tensor, weight: Tensor, bias: Tensor, what: str = "") -> None:
    assert_close(found, expected(x, weight, bias), what)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_all_operations_at_many_sizes(case):
    """The convolution within rounding of float64, the same alone and in a batch; the other operations are made of it."""
    channels, outputs, batch = CASES[case]
    weight, bias, kernels = random_layer(channels, outputs)
    for size in sizes_of(case):
        what = f"{batch} × {channels} -> {outputs} at {size}"
        x = random_map(batch, channels, *size)
        found = KERNEL.convolve(x, kernels, outputs, relu=False)
        assert_convolved(found, x, weight, bias, what)
        assert torch.equal(KERNEL.convolve(x[-1:], kernels, outputs, relu=False), found[-1:]), what
        assert torch.equal(KERNEL.convolve(x, kernels, outputs, relu=True), found.relu()), what
        pooled = KERNEL.convolve_and_pool(x, kernels, outputs, relu=False)
        assert all(map(torch.equal, pooled, max_pool(found))), what
        pooled = max_pool(x)
        unpooled = KERNEL.unpool_and_convolve(pooled, size, kernels, outputs, relu=False)
        assert torch.equal(unpooled, KERNEL.convolve(max_unpool(*pooled, size), kernels, outputs, relu=False)), what


@pytest.mark.parametrize(("channels", "outputs"), [(512, 64), (130, 70)])
def test_wide_layers_of_several_blocks(channels, outputs):
    weight, bias, kernels = random_layer(channels, outputs)
    x = random_map(1, channels, 37, 89)
    assert_convolved(KERNEL.convolve(x, kernels, outputs, relu=False), x, weight, bias)


@pytest.mark.parametrize("most", [1, 5, 12, 13, 1000])
def test_blocks_cover_all_tiles_once_and_none_is_larger_than_allowed(most, monkeypatch):
    monkeypatch.setattr(winograd, "_MOST_TILES", most)
    weight, bias, kernels = random_layer(7, 5)
    for size in ((1, 1), (4, 50), (17, 51), (52, 3)):
        blocks = list(winograd._blocks(size))
        tiles = [tile for rows, columns in blocks for tile in itertools.product(rows, columns)]
        assert sorted(tiles) == list(itertools.product(range(-(-size[0] // 4)), range(-(-size[1] // 4))))
        assert all(0 < len(rows) * len(columns) <= most for rows, columns in blocks)
        x = random_map(2, 7, *size)
        assert_convolved(KERNEL.convolve(x, kernels, 5, relu=False), x, weight, bias)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_any_memory_layout_is_read(layout):
    weight, bias, kernels = random_layer(7, 5)
    x = random_map(2, 7, 9, 22).contiguous(memory_format=layout)
    for view in (x, x[..., 1::2], x[..., :4, :], x.transpose(2, 3)):
        assert_convolved(KERNEL.convolve(view, kernels, 5, relu=False), view, weight, bias)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_makes_the_tiles_nan_that_depend_on_it_and_no_other(value):
    _, _, kernels = random_layer(20, 11)
    x = random_map(1, 20, 24, 24)
    clean = KERNEL.convolve(x, kernels, 11, relu=True)
    for row, column in itertools.product((8, 9, 11), (8, 10)):
        x_bad = x.clone()
        x_bad[0, 13, row, column] = value
        found = KERNEL.convolve(x_bad, kernels, 11, relu=True)
        spoilt = torch.zeros(24, 24, dtype=torch.bool)
        for r, c in itertools.product((row - 1, row + 1), (column - 1, column + 1)):  # pixels that depend on it
            spoilt[r // 4 * 4 :, c // 4 * 4 :][:4, :4] = True
        assert torch.equal(found.isnan(), spoilt.expand_as(found))
        assert torch.equal(found[..., ~spoilt], clean[..., ~spoilt])


@pytest.mark.parametrize("scale", [1e-44, 1e-40, 1e-36, 1e30, 1e35])
def test_denormal_and_huge_values(scale):
    weight, _, _ = random_layer(20, 11)
    bias = torch.zeros(11)
    x = random_map(1, 20, 13, 15) * scale
    found = KERNEL.convolve(x, KERNEL.transform(weight, bias), 11, relu=False)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    smallest = 2.0**-149  # in which denormal numbers are rounded
    assert (found - exact).abs().max() <= LARGEST_ERROR * exact.abs().max() + 1000 * smallest


def test_values_that_overflow_are_not_finite_and_stay_visible():
    _, _, kernels = random_layer(20, 11)
    assert not KERNEL.convolve(torch.full((1, 20, 8, 8), 3e38), kernels, 11, relu=True).isfinite().any(dim=1).any()


def test_several_threads_at_once():
    layers = []
    for channels, outputs, size in ((20, 11, (33, 31)), (64, 130, (40, 50))):
        _, _, kernels = random_layer(channels, outputs)
        x = random_map(1, channels, *size)
        layers.append((x, kernels, outputs, KERNEL.convolve(x, kernels, outputs, relu=True)))
    wrong = []

    def run() -> None:
        for _ in range(4):
            wrong.extend(n for x, kernels, n, y in layers if not torch.equal(KERNEL.convolve(x, kernels, n, relu=True), y))

    workers = [threading.Thread(target=run) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


def test_its_memory_serves_calls_in_inference_mode_and_outside(monkeypatch):
    monkeypatch.setattr(winograd, "_memory", threading.local())
    weight, bias, _ = random_layer(7, 5)
    x = random_map(1, 7, 9, 22)
    with torch.inference_mode():
        kernels = KERNEL.transform(weight, bias)
        found = KERNEL.convolve(x, kernels, 5, relu=False)
    assert torch.equal(KERNEL.convolve(x, kernels, 5, relu=False), found)


def test_it_replaces_a_kernel_that_is_missing_on_processors_without_avx512(monkeypatch):
    def processor(capability: str, found: Found, switch: str = "1") -> None:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        monkeypatch.setattr(winograd, "find_kernel", lambda: found)
        monkeypatch.setenv("SEGNET_NATIVE", switch)

    missing, compiled = Found(None, "no C++ compiler"), Found(object(), "compiled for AVX2")
    x = torch.empty(2, 64, 24, 32)
    for capability, replaces in (("AVX2", True), ("DEFAULT", True), ("AVX512", False)):
        processor(capability, missing)
        assert replaces_kernel() is replaces
        assert isinstance(find_faster(x, 64, (24, 32)), TorchKernel) is replaces
        assert describe_kernel().startswith("no C++ compiler")
        assert ("matrix products" in describe_kernel()) is replaces
    processor("AVX2", missing)
    assert find_faster(x[:, :63], 64, (24, 32)) is None
    assert find_faster(x, 63, (24, 32)) is None
    assert find_faster(x, 64, (24, 28)) is None  # 42 tiles in each of two images: their number does not count
    processor("AVX2", missing, "0")
    assert not replaces_kernel()
    assert find_faster(x, 64, (24, 32)) is None
    processor("AVX2", compiled)
    assert not replaces_kernel()
    assert find_faster(x, 64, (24, 32)) is compiled.kernel
    assert find_faster(x, 64, (1, 1)) is None
    assert describe_kernel() == "compiled for AVX2"


def test_its_points_are_those_of_the_compiled_kernel():
    """Both round alike, so a network has the same accuracy with either."""
    if find_kernel().kernel is None:
        pytest.skip(f"no compiled kernel: {find_kernel().text}")
    weight, bias, kernels = random_layer(64, 64)
    x = random_map(1, 64, 40, 40)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    compiled = find_kernel().kernel.convolve(x, find_kernel().kernel.transform(weight, bias), 64, relu=False)
    assert (KERNEL.convolve(x, kernels, 64, relu=False) - exact).norm() < 1.5 * (compiled - exact).norm()
