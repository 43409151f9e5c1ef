"""The compiled kernel in a training step: weights that it transforms in parts, and memory that it keeps for its next call."""

import threading

import pytest
import torch

from segnet.layers import native
from segnet.layers.native import find_kernel

FOUND = find_kernel()
pytestmark = pytest.mark.skipif(FOUND.kernel is None, reason=f"no compiled kernel: {FOUND.text}")


@pytest.fixture
def calls(monkeypatch):
    """Any layer is computed from parts; how often one was."""
    monkeypatch.setattr(native, "_FEWEST_PAIRS_OF_PARTS", 1)
    counted = []
    few_tiles = FOUND.kernel._few_tiles
    monkeypatch.setattr(FOUND.kernel, "_few_tiles", lambda *arguments: counted.append(1) or few_tiles(*arguments))
    return counted


@pytest.mark.parametrize(("channels", "outputs", "size"), [(1, 1, (1, 1)), (3, 70, (5, 9)), (150, 133, (30, 32))])
@pytest.mark.parametrize("flipped", [False, True])
def test_parts_of_weights_change_no_bit_whatever_the_number_of_threads(channels, outputs, size, flipped, calls):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, *size, generator=generator)
    weight = torch.randn(channels, outputs, 3, 3, generator=generator).transpose(0, 1)
    bias = torch.randn(outputs, generator=generator)
    for kernels in (weight, weight.contiguous(), weight.contiguous(memory_format=torch.channels_last)):
        for b in (bias, None):
            expected = FOUND.kernel.convolve(x, FOUND.kernel.transform(kernels, b, flipped=flipped), outputs, relu=False)
            for threads in (1, 2, 3, 7):
                torch.set_num_threads(threads)
                assert torch.equal(FOUND.kernel.convolve_by_weight(x, kernels, b, flipped=flipped), expected)
    assert len(calls) == 24


def test_many_tiles_and_few_channels_are_transformed_first(monkeypatch):
    monkeypatch.setattr(FOUND.kernel, "_few_tiles", None)  # is not called
    for channels, side in ((128, 48), (8, 8)):
        x, weight = torch.randn(1, channels, side, side), torch.randn(channels, channels, 3, 3)
        assert FOUND.kernel.convolve_by_weight(x, weight, None).shape == x.shape


def test_the_error_of_a_wide_layer_is_that_of_a_few_channels():
    """As sums are of some channels at a time; in one sum of 512 channels it is twice as large."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 512, 12, 12, generator=generator), torch.randn(64, 512, 3, 3, generator=generator)
    exact = torch.nn.functional.conv2d(x.double(), weight.double(), padding=1)
    found = FOUND.kernel.convolve_by_weight(x, weight, None)
    assert (found - exact).norm() <= 1.1e-6 * exact.norm()


def test_each_thread_keeps_its_own_memory():
    generator = torch.Generator().manual_seed(0)
    layers = [
        (torch.randn(1, channels, 36, 40, generator=generator), torch.randn(1, 20, 36, 40, generator=generator))
        for channels in (5, 70)
    ]
    expected = [FOUND.kernel.kernel_gradient(*layer) for layer in layers]
    wrong = []

    def run(number: int) -> None:
        torch.set_num_threads(1)
        for _ in range(30):
            if not all(map(torch.equal, FOUND.kernel.kernel_gradient(*layers[number]), expected[number])):
                wrong.append(number)

    workers = [threading.Thread(target=run, args=(number % 2,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
