"""Pooling, unpooling and deconvolution against torch's own operations, and against sums written by hand."""

import itertools
import math
import os

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segnet.layers.convolution import Convolution, _gradient_in_nchw
from segnet.layers.deconvolution import Deconvolution, as_matrix, deconvolve, flipped, interleave_zeros
from segnet.layers.pooling import max_pool, max_unpool

SIZES = list(itertools.product(range(1, 71), range(1, 71)))
KINDS = ("plain", "ties", "nan", "infinite")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LAYOUTS = (torch.contiguous_format, torch.channels_last)
CASES = list(itertools.product(KINDS, DTYPES, LAYOUTS))


def sizes_of(case: int) -> list[tuple[int, int]]:
    """Every size from 1×1 to 70×70 in one of the 24 cases; with SEGNET_EXHAUSTIVE=1 each size in each case."""
    return SIZES if os.environ.get("SEGNET_EXHAUSTIVE") else SIZES[case :: len(CASES)]


def winner_indices(winner: Tensor, size: tuple[int, int]) -> Tensor:
    """The definition, one window at a time: byte 2*row + column -> flat index into the plane."""
    indices = torch.empty(winner.shape, dtype=torch.int64)
    for place in itertools.product(*map(range, winner.shape)):
        row, column = divmod(int(winner[place]), 2)
        indices[place] = (2 * place[2] + row) * size[1] + 2 * place[3] + column
    return indices


def awkward_values(kind: str, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(sum(size))
    x = torch.randn(2, 3, *size, generator=generator)
    if kind == "ties":
        x = x.sign()
    elif kind == "nan":
        x[torch.rand(x.shape, generator=generator) < 0.4] = float("nan")
    elif kind == "infinite":
        x = torch.where(x > 0, float("-inf"), float("nan"))
    return x.to(dtype)


@pytest.fixture(params=[False, True], ids=["native", "comparing"])
def form(request: pytest.FixtureRequest):
    """Both forms of the operations: deterministic mode selects the comparing one on a CPU."""
    torch.use_deterministic_algorithms(request.param)
    yield
    torch.use_deterministic_algorithms(False)


def as_reference(function, *arguments, **options):
    """A torch operation that deterministic mode refuses, run outside it."""
    mode = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        return function(*arguments, **options)
    finally:
        torch.use_deterministic_algorithms(mode)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("case", range(len(CASES)), ids=["-".join(map(str, case)).replace("torch.", "") for case in CASES])
def test_pool_and_unpool_equal_torch_forward_and_backward(case):
    kind, dtype, layout = CASES[case]
    for size in sizes_of(case):
        x = awkward_values(kind, size, dtype).contiguous(memory_format=layout)
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        values, winner = max_pool(ours)
        expected, indices = F.max_pool2d(theirs, 2, ceil_mode=True, return_indices=True)
        assert winner.dtype == torch.uint8
        torch.testing.assert_close(values, expected, rtol=0, atol=0, equal_nan=True)
        gradient = torch.randn_like(expected)
        values.backward(gradient)
        as_reference(expected.backward, gradient)
        assert torch.equal(ours.grad, theirs.grad)

        small = torch.randn_like(expected)
        ours, theirs = small.clone().requires_grad_(), small.clone().requires_grad_()
        placed = max_unpool(ours, winner, size)
        reference = as_reference(F.max_unpool2d, theirs, indices, 2, output_size=size)
        assert torch.equal(placed, reference)
        gradient = torch.randn_like(reference)
        placed.backward(gradient)
        as_reference(reference.backward, gradient)
        assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (1, 6)])
def test_winner_is_the_place_inside_its_window(size):
    x = awkward_values("plain", size, torch.float32)
    _, indices = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
    assert torch.equal(winner_indices(max_pool(x).winner, size), indices)


def test_the_lecture_example_of_pooling():
    x = torch.tensor([[3.0, 8.0], [6.0, 4.0]]).view(1, 1, 2, 2)
    values, winner = max_pool(x)
    assert values.item() == 8
    assert max_unpool(values, winner, (2, 2)).flatten().tolist() == [0, 8, 0, 0]


@pytest.mark.usefixtures("form")
def test_unpooling_is_the_adjoint_of_picking():
    """<unpool(v), y> = <v, pick(y)>, where pick is what unpooling's gradient computes."""
    x = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    _, winner = max_pool(x)
    values = torch.randn(winner.shape, dtype=torch.float64, requires_grad=True)
    y = torch.randn_like(x)
    inner = (max_unpool(values, winner, (7, 9)) * y).sum()
    (picked,) = torch.autograd.grad(inner, values)
    torch.testing.assert_close(inner, (values * picked).sum())


def test_unpooling_to_an_impossible_size_is_refused():
    values, winner = max_pool(torch.randn(1, 1, 8, 8))
    with pytest.raises(ValueError, match="pools to"):
        max_unpool(values, winner, (9, 8))


def test_one_byte_per_window_is_kept_for_the_backward_pass():
    x = torch.randn(1, 4, 32, 32, requires_grad=True)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        max_unpool(*max_pool(x), (32, 32))
    assert {t.dtype for t in saved} == {torch.uint8}
    assert sum(t.nbytes for t in saved) == 2 * 4 * 16 * 16


@pytest.mark.parametrize("size", [(5, 6), (8, 9)])
def test_compiles_into_one_graph_with_the_same_values_and_gradients(size):
    def pool_and_unpool(x: Tensor) -> Tensor:
        return max_unpool(*max_pool(x.relu()), tuple(x.shape[-2:]))

    compiled = torch.compile(pool_and_unpool, fullgraph=True, backend="aot_eager")
    ours, theirs = (torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(0)).requires_grad_() for _ in range(2))
    upstream = torch.randn(1, 2, *size)
    found, expected = compiled(ours), pool_and_unpool(theirs)
    found.backward(upstream)
    expected.backward(upstream)
    assert torch.equal(found, expected)
    assert torch.equal(ours.grad, theirs.grad)


# ---- deconvolution --------------------------------------------------------------------------------------------------

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
