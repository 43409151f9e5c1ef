"""Deconvolution against torch's own operations and against sums written by hand."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from segnet.layers.convolution import flipped
from segnet.layers.deconvolution import Deconvolution, as_matrix, deconvolve, interleave_zeros

A, B, C = 2.0, 3.0, 5.0
KERNEL = torch.tensor([A, B, C]).view(1, 1, 3)  # the lecture's (a, b, c) as a deconvolution throws it: a to the left


def test_stride_one_on_n_samples_gives_n_plus_two_cropped_to_n():
    x = torch.tensor([1.0, 10.0, 100.0]).view(1, 1, 3)
    whole = deconvolve(x, KERNEL)
    assert whole.flatten().tolist() == [A, B + 10 * A, C + 10 * B + 100 * A, 10 * C + 100 * B, 100 * C]
    assert torch.equal(deconvolve(x, KERNEL, crop=1), whole[..., 1:-1])


def test_stride_two_gives_five_from_three():
    x = torch.tensor([1.0, 10.0, 100.0]).view(1, 1, 3)
    assert deconvolve(x, KERNEL, stride=2).numel() == 7
    assert deconvolve(x, KERNEL, stride=2, crop=1).flatten().tolist() == [B, C + 10 * A, 10 * B, 10 * C + 100 * A, 100 * B]


@pytest.mark.parametrize(("stride", "crop", "side"), list(itertools.product((1, 2, 3), (0, 1, 2), (1, 3, 5))))
@pytest.mark.parametrize("dimensions", [1, 2])
def test_equals_torchs_transposed_convolution(dimensions, stride, crop, side):
    sides = (6, 7)[:dimensions]
    if any((n - 1) * stride + side - 2 * crop < 1 for n in sides):
        pytest.skip("nothing is left after the crop")
    x, kernel = torch.randn(2, 3, *sides), torch.randn(3, 4, *[side] * dimensions)
    transposed = F.conv_transpose1d if dimensions == 1 else F.conv_transpose2d
    expected = transposed(x, kernel, stride=stride, padding=crop)
    torch.testing.assert_close(deconvolve(x, kernel, stride=stride, crop=crop), expected)


@pytest.mark.parametrize(("stride", "crop"), [(1, 0), (1, 1), (2, 0), (2, 1)])
@pytest.mark.parametrize("dimensions", [1, 2])
def test_its_matrix_is_the_transpose_of_the_convolutions(dimensions, stride, crop):
    kernel = torch.randn(1, 1, *[3] * dimensions, dtype=torch.float64)
    small = (4, 3)[:dimensions]
    large = tuple((n - 1) * stride + 3 - 2 * crop for n in small)
    convolve = F.conv1d if dimensions == 1 else F.conv2d
    throws = as_matrix(lambda x: deconvolve(x, kernel, stride=stride, crop=crop), small)
    gathers = as_matrix(lambda x: convolve(x, kernel, stride=stride, padding=crop), large)
    assert throws.shape == (math.prod(large), math.prod(small))
    torch.testing.assert_close(throws, gathers.T)


def test_the_lectures_convolution():
    """y0 = b·x0 + c·x1, y1 = a·x0 + b·x1 + c·x2, …; with stride 2 three samples remain of five."""
    x = torch.tensor([1.0, 10.0, 100.0, 1e3, 1e4]).view(1, 1, 5)
    whole = F.conv1d(x, KERNEL, padding=1).flatten().tolist()
    assert whole[:2] == [B + 10 * C, A + 10 * B + 100 * C]
    assert F.conv1d(x, KERNEL, padding=1, stride=2).flatten().tolist() == whole[::2]


@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize("stride", [2, 3])
def test_subpixel_convolution_equals_strided_deconvolution(dimensions, stride):
    x, kernel = torch.randn(2, 3, *(5, 4)[:dimensions]), torch.randn(3, 2, *(3, 3)[:dimensions])
    torch.testing.assert_close(deconvolve(interleave_zeros(x, stride), kernel), deconvolve(x, kernel, stride=stride))


def test_strided_convolution_misses_a_maximum_that_pooling_keeps():
    x, kernel = torch.tensor([0.0, 9.0, 0.0, 0.0, 0.0]).view(1, 1, 5), torch.tensor([0.0, 1.0, 0.0]).view(1, 1, 3)
    strided = F.conv1d(x, kernel, stride=2, padding=1)
    pooled = F.max_pool1d(F.conv1d(x, kernel, padding=1), 2, ceil_mode=True)
    assert strided.max() == 0
    assert pooled.max() == 9


def test_the_layer_equals_torchs_and_shares_its_parameters():
    theirs = torch.nn.ConvTranspose2d(3, 5, 3, padding=1)
    ours = Deconvolution(3, 5, 3, padding=1)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 9, 8)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours(x), F.conv2d(x, flipped(theirs.weight), theirs.bias, padding=1))


class Devices(TorchDispatchMode):
    """Records the devices of the tensors that operations make."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = set[str]()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.seen |= {leaf.device.type for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor)}
        return made


def test_the_equal_convolution_is_made_on_the_device_of_the_weights():
    layer = Deconvolution(3, 4, 3, padding=1).to("meta")
    with Devices() as devices:
        assert layer.as_convolution().weight.is_meta
    assert devices.seen == {"meta"}
