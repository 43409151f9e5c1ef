"""Pooling and unpooling against torch's own operations and against a definition written as a loop."""

import itertools
import os

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segnet.layers import pooling
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


@pytest.fixture(params=["native", "comparing", "fusing"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """The three forms of the operations: deterministic mode selects the comparing one on a CPU, a compiler the fusing one."""
    torch.use_deterministic_algorithms(request.param == "comparing")
    if request.param == "fusing":
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
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


def test_no_gradient_is_made_for_the_winner(monkeypatch):
    """Torch would make one of zeros, as large as the winner, for every pooling."""
    gradients: list[Tensor | None] = []
    backward = pooling._MaxPool.backward

    def recording(ctx, *given):
        gradients.extend(given)
        return backward(ctx, *given)

    monkeypatch.setattr(pooling._MaxPool, "backward", staticmethod(recording))
    max_pool(torch.randn(1, 2, 4, 6, requires_grad=True)).values.sum().backward()
    assert [gradient is None for gradient in gradients] == [False, True]


@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_the_comparing_form_keeps_channels_last(size):
    x = torch.randn(2, 3, *size).contiguous(memory_format=torch.channels_last).requires_grad_()
    torch.use_deterministic_algorithms(True)
    try:
        values, winner = max_pool(x)
        placed = max_unpool(values, winner, size)
        placed.backward(torch.randn(placed.shape).contiguous(memory_format=torch.channels_last))
    finally:
        torch.use_deterministic_algorithms(False)
    for tensor in (values, winner, placed, x.grad):
        assert tensor.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_pooling_and_unpooling_on_the_gpu_equal_the_cpus():
    from segnet.layers.pooling import max_pool, max_unpool

    x = torch.randn(2, 5, 33, 47)
    on_cpu, on_gpu = max_pool(x), max_pool(x.cuda())
    assert torch.equal(on_gpu.winner.cpu(), on_cpu.winner)
    assert torch.equal(max_unpool(*on_gpu, (33, 47)).cpu(), max_unpool(*on_cpu, (33, 47)))
