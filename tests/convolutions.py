"""Random 3×3 convolutions and maps for them, and how exact a kernel's result must be."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

SIZES = list(itertools.product(range(1, 71), range(1, 71)))
CHANNELS = (1, 3, 7, 11, 20, 37, 64)
CASES = list(itertools.product(CHANNELS, CHANNELS, (1, 3)))  # input channels, output channels, images
LARGEST_ERROR = 1e-5  # of the largest value


def random_weights(channels: int, outputs: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The weight (K, C, 3, 3) and the bias (K,) of a layer whose output is about as large as its input."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, channels, 3, 3, generator=generator) / (3 * channels**0.5)
    return weight, torch.randn(outputs, generator=generator)


def random_map(*shape: int, seed: int = 0) -> Tensor:
    """A (B, C, H, W) map of normal values, in channels_last."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).contiguous(memory_format=torch.channels_last)


def expected(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The convolution with padding 1, in float64."""
    return F.conv2d(x.double(), weight.double(), bias.double(), padding=1)


def assert_close(found: Tensor, exact: Tensor, what: str = "") -> None:
    """`found` is float32, and `exact` up to rounding."""
    assert found.dtype == torch.float32
    assert found.shape == exact.shape
    error = (found - exact).abs().max().item() / max(1.0, exact.abs().max().item())
    assert error <= LARGEST_ERROR, f"{what}: {error:.2g}"
