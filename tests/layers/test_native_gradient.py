"""The error of the compiled kernel's gradient of a weight: it sums few tiles at a time, and adds the sums."""

import pytest
import torch

from segnet.layers.native import find_kernel

FOUND = find_kernel()
pytestmark = pytest.mark.skipif(FOUND.kernel is None, reason=f"no compiled kernel: {FOUND.text}")


@pytest.mark.parametrize(("side", "largest"), [(14, 4.5e-7), (28, 5.3e-7)])
def test_the_error_grows_slowly_with_the_number_of_tiles(side, largest):
    """In one sum of all tiles it is 4.7e-7 and 6e-7."""
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(2, 40, side, side, generator=generator) for _ in range(2))
    weight = torch.empty(40, 40, 3, 3, dtype=torch.float64)
    settings = [[40], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False]]
    _, exact, _ = torch.ops.aten.convolution_backward(grad.double(), x.relu().double(), weight, *settings)
    found, _ = FOUND.kernel.kernel_gradient(x.relu(), grad)
    error = ((found - exact).norm() / exact.norm()).item()
    assert error <= largest, f"{error:.2g}"
