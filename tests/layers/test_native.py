"""The compiled kernel against torch in float64, its exact parts against pooling and unpooling, and what happens without it."""

import itertools
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import torch
from convolutions import CASES, LARGEST_ERROR, SIZES, assert_close, expected, random_map, random_weights
from helpers import ROOT
from torch import Tensor

from segnet.layers.native import SOURCE, find_kernel, is_faster, is_usable, open_kernel
from segnet.layers.pooling import max_pool, max_unpool

FOUND = find_kernel()
pytestmark = pytest.mark.skipif(FOUND.kernel is None, reason=f"no compiled kernel: {FOUND.text}")


def sizes_of(case: int) -> list[tuple[int, int]]:
    """A quarter of the sizes from 1×1 to 70×70, each in one of the 98 cases; with SEGNET_EXHAUSTIVE=1 all in each case."""
    return SIZES if os.environ.get("SEGNET_EXHAUSTIVE") else SIZES[case :: 4 * len(CASES)]


def random_layer(channels: int, outputs: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Weight and bias, and the weight and the bias in the kernel's form."""
    weight, bias = random_weights(channels, outputs, seed)
    return weight, bias, FOUND.kernel.transform(weight, bias)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_all_operations_at_many_sizes(case):
    """The convolution within rounding of float64; pooling and unpooling inside it change no bit."""
    channels, outputs, batch = CASES[case]
    weight, bias, kernels = random_layer(channels, outputs)
    for size in sizes_of(case):
        what = f"{batch} × {channels} -> {outputs} at {size}"
        x = random_map(batch, channels, *size)
        plain = FOUND.kernel.convolve(x, kernels, outputs, relu=False)
        assert_close(plain, expected(x, weight, bias), what)
        rectified = FOUND.kernel.convolve(x, kernels, outputs, relu=True)
        assert torch.equal(rectified, plain.relu()), what
        for relu, fine in ((False, plain), (True, rectified)):  # after a ReLU zeros tie
            values, winner = FOUND.kernel.convolve_and_pool(x, kernels, outputs, relu=relu)
            exact_values, exact_winner = max_pool(fine)
            assert torch.equal(values, exact_values), what
            assert torch.equal(winner, exact_winner), what
        pooled = max_pool(x)
        unpooled = FOUND.kernel.unpool_and_convolve(pooled, size, kernels, outputs, relu=True)
        assert torch.equal(unpooled, FOUND.kernel.convolve(max_unpool(*pooled, size), kernels, outputs, relu=True)), what


@pytest.mark.parametrize(("channels", "outputs"), [(512, 512), (130, 70), (3, 200)])
def test_wide_layers_and_more_tiles_than_a_block_has(channels, outputs):
    weight, bias, kernels = random_layer(channels, outputs)
    x = random_map(2, channels, 37, 45)
    assert_close(FOUND.kernel.convolve(x, kernels, outputs, relu=False), expected(x, weight, bias))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_any_memory_layout_is_read(layout):
    weight, bias, kernels = random_layer(7, 5)
    x = random_map(2, 7, 9, 22).contiguous(memory_format=layout)
    for view in (x, x[..., 1::2], x[..., :4, :], x.expand(2, 7, 9, 22), x.transpose(2, 3)):
        assert_close(FOUND.kernel.convolve(view, kernels, 5, relu=False), expected(view, weight, bias))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_spoils_its_tile_and_all_that_depends_on_it_and_nothing_else(value):
    _, _, kernels = random_layer(20, 11)
    x = random_map(1, 20, 24, 24)
    clean = FOUND.kernel.convolve(x, kernels, 11, relu=True)
    for row, column in itertools.product(range(8, 12), (8, 9, 11)):
        x_bad = x.clone()
        x_bad[0, 13, row, column] = value
        found = FOUND.kernel.convolve(x_bad, kernels, 11, relu=False)
        spoilt = ~found.isfinite()
        assert spoilt[..., 8:12, 8:12].all()
        assert spoilt[..., row - 1 : row + 2, column - 1 : column + 2].all()
        assert not spoilt[..., :7, :].any()
        assert not spoilt[..., 13:].any()
        assert torch.equal(found.relu()[~spoilt], clean[~spoilt])
        rectified = FOUND.kernel.convolve(x_bad, kernels, 11, relu=True)
        assert torch.equal(rectified.isnan(), found.isnan())
        values, winner = FOUND.kernel.convolve_and_pool(x_bad, kernels, 11, relu=True)
        exact_values, exact_winner = max_pool(rectified)
        assert torch.equal(values.nan_to_num(), exact_values.nan_to_num())
        assert torch.equal(values.isnan(), exact_values.isnan())
        assert torch.equal(winner, exact_winner)
        assert values[..., 4:6, 4:6].isnan().any()


@pytest.mark.parametrize("scale", [1e-44, 1e-40, 1e-36, 1e30, 1e35])
def test_denormal_and_huge_values(scale):
    weight, _, _ = random_layer(20, 11)
    bias = torch.zeros(11)
    x = random_map(1, 20, 13, 15) * scale
    found = FOUND.kernel.convolve(x, FOUND.kernel.transform(weight, bias), 11, relu=False)
    exact = expected(x, weight, bias)
    smallest = 2.0**-149  # in which denormal numbers are rounded; each of 36 · 20 products adds at most a few
    assert (found - exact).abs().max() <= LARGEST_ERROR * exact.abs().max() + 1000 * smallest


def test_values_that_overflow_are_not_finite_and_stay_visible():
    _, _, kernels = random_layer(20, 11)
    found = FOUND.kernel.convolve(torch.full((1, 20, 8, 8), 3e38), kernels, 11, relu=False)
    assert not found.isfinite().any(dim=1).any()


def test_the_number_of_threads_changes_no_bit():
    for channels, outputs, size in [(3, 64, (50, 60)), (64, 64, (37, 41)), (200, 130, (5, 9)), (64, 11, (4, 4))]:
        _, _, kernels = random_layer(channels, outputs)
        x = random_map(3, channels, *size)
        results = []
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            results.append(FOUND.kernel.convolve_and_pool(x, kernels, outputs, relu=True))
        assert all(torch.equal(a, b) for result in results[1:] for a, b in zip(result, results[0], strict=True))


def test_several_python_threads_at_once():
    _, _, small = random_layer(20, 11)
    _, _, large = random_layer(64, 130)
    x, y = random_map(1, 20, 33, 31), random_map(2, 64, 40, 50)
    expected_x = FOUND.kernel.convolve(x, small, 11, relu=True)
    expected_y = FOUND.kernel.convolve(y, large, 130, relu=True)
    wrong = []

    def run(threads: int) -> None:
        torch.set_num_threads(threads)
        for _ in range(20):
            if not torch.equal(FOUND.kernel.convolve(x, small, 11, relu=True), expected_x):
                wrong.append("x")
            if not torch.equal(FOUND.kernel.convolve(y, large, 130, relu=True), expected_y):
                wrong.append("y")

    workers = [threading.Thread(target=run, args=(1 + number % 2,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


def in_a_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own."""
    start = "import os, sys, torch\nfrom segnet.layers.native import find_kernel\n"
    settings = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-c", start + textwrap.dedent(code)]
    return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=120)


def test_a_forked_process_uses_it_with_one_thread_as_data_workers_do():
    """With more threads torch's own operations hang there, too: OpenMP's threads do not survive a fork."""
    code = """
        kernel = find_kernel().kernel
        x, weight = torch.randn(1, 64, 40, 40), torch.randn(64, 64, 3, 3)
        kernels = kernel.transform(weight, torch.zeros(64))
        torch.set_num_threads(2)
        before = kernel.convolve(x, kernels, 64, relu=True)
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)
            os._exit(0 if torch.equal(kernel.convolve(x, kernels, 64, relu=True), before) else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert torch.equal(kernel.convolve(x, kernels, 64, relu=True), before)
        """
    done = in_a_process(code)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    """A cache folder of the test's own, and nothing found yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SEGNET_NATIVE_FLAGS", "-O1")  # compiles sooner
    monkeypatch.setattr("segnet.layers.native._SECONDS_WITHOUT_NOTE", 250)  # no note, however slow the machine is
    find_kernel.cache_clear()
    yield tmp_path / "cache" / "segnet"
    find_kernel.cache_clear()


def assert_torchs_after_one_note(capsys, reason: str) -> None:
    """No kernel is found; one note says why, however often it is asked for."""
    for _ in range(3):
        found = find_kernel()
        assert found.kernel is None
        assert reason in found.text
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert errors.startswith("note: float32 convolutions are torch's, which are slower: ")
    assert reason in errors


def test_without_a_compiler(empty_cache, monkeypatch, capsys):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert_torchs_after_one_note(capsys, "no C++ compiler (c++, g++, clang++)")


def test_a_compiler_that_is_named_and_missing(empty_cache, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler -m64")
    assert_torchs_after_one_note(capsys, "no C++ compiler (no-such-compiler, from CXX)")


def test_source_that_does_not_compile(empty_cache, monkeypatch, capsys):
    monkeypatch.setenv("SEGNET_NATIVE_FLAGS", "-Dfloat=no_such_type")
    assert_torchs_after_one_note(capsys, "cannot compile native.cpp: ")
    assert list(empty_cache.iterdir()) == []


@pytest.mark.parametrize("part", ["b * t * difference_b", "(b / n) * difference_b"])  # of the output, of a gradient
def test_a_kernel_that_computes_wrongly(empty_cache, monkeypatch, capsys, tmp_path, part):
    wrong = tmp_path / "native.cpp"
    wrong.write_text(SOURCE.read_text().replace(part, f"0.9f * {part}"))
    monkeypatch.setattr("segnet.layers.native.SOURCE", wrong)
    assert_torchs_after_one_note(capsys, "the compiled kernel computes wrongly")
    assert list(empty_cache.iterdir()) == []


def test_a_cache_folder_that_cannot_be_written(empty_cache, monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert_torchs_after_one_note(capsys, "Not a directory; let XDG_CACHE_HOME name a folder that can be written")


def test_the_cache_folder_is_a_whole_path(empty_cache, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("CXX", "false")
    assert find_kernel().kernel is None
    assert (tmp_path / "home" / ".cache" / "segnet").is_dir()
    assert not (tmp_path / "relative").exists()


@pytest.mark.parametrize("variable", ["CXX", "SEGNET_NATIVE_FLAGS"])
def test_a_variable_that_no_shell_could_read(empty_cache, monkeypatch, capsys, variable):
    monkeypatch.setenv(variable, "g++ '")
    assert_torchs_after_one_note(capsys, f"{variable}: No closing quotation")


def state_in(stat: Path) -> str:
    """The state letter of a process's file `stat` ("Z": it ended and nobody has asked how); "" where it is gone."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_compiler_that_hangs_is_said_and_given_up_with_what_it_started(empty_cache, monkeypatch, capsys, tmp_path):
    compiler = tmp_path / "hangs"
    compiler.write_text(f"#!/bin/sh\nsleep 1000 &\necho $! > {tmp_path}/child\nwait\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr("segnet.layers.native._SECONDS_WITHOUT_NOTE", 0.2)
    monkeypatch.setattr("segnet.layers.native._SECONDS", 1.2)
    assert find_kernel().text == f"{compiler} took longer than 1.2 seconds"
    said, given_up = capsys.readouterr().err.splitlines()
    assert said.startswith(f"note: {compiler} still compiles native.cpp")
    assert "slower" in given_up
    started = tmp_path / "child"
    child = started.read_text().strip() if started.exists() else ""  # a slow machine may not have started it in that time
    stat = Path("/proc", child or "none", "stat")
    deadline = time.monotonic() + 60  # a killed process ends when the machine next runs it
    while state_in(stat) not in ("", "Z"):
        assert time.monotonic() < deadline, f"process {child} still runs"
        time.sleep(0.01)
    assert list(empty_cache.iterdir()) == []


def test_turned_off(empty_cache, monkeypatch, capsys):
    monkeypatch.setenv("SEGNET_NATIVE", "0")
    assert find_kernel() == (None, "SEGNET_NATIVE=0 turns it off")
    assert capsys.readouterr().err == ""


def test_it_is_compiled_once_and_a_damaged_library_is_replaced(empty_cache):
    open_kernel()
    (library,) = empty_cache.iterdir()
    first = library.stat().st_ino
    open_kernel()
    assert library.stat().st_ino == first
    whole = library.read_bytes()
    for damage in (
        b"",
        whole[: len(whole) // 2],
        whole[:4096] + bytes(4096) + whole[8192:],
    ):  # loaded, the last two end a process
        library.unlink()
        library.write_bytes(damage)
        kernel = open_kernel()
        assert list(empty_cache.iterdir()) == [library]
        weight, bias, _ = random_layer(3, 5)
        x = random_map(1, 3, 8, 9)
        assert_close(kernel.convolve(x, kernel.transform(weight, bias), 5, relu=False), expected(x, weight, bias))


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (24, 24), (33, 41)])
@pytest.mark.parametrize(("channels", "outputs"), [(1, 1), (3, 20), (37, 11), (64, 130)])
def test_gradients_within_rounding_of_float64(channels, outputs, size):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, channels, 3, 3, generator=generator)
    x, grad = random_map(2, channels, *size), random_map(2, outputs, *size, seed=1)
    settings = [[outputs], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True] * 3]
    exact = torch.ops.aten.convolution_backward(grad.double(), x.double(), weight.double(), *settings)
    torchs = torch.ops.aten.convolution_backward(grad, x, weight, *settings)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        back = FOUND.kernel.transform(weight.transpose(0, 1), None, flipped=True)
        found = (FOUND.kernel.convolve(grad, back, channels, relu=False), *FOUND.kernel.kernel_gradient(x, grad))
        results.append(found)
        assert all(map(torch.equal, found, results[0]))
    for found, by_torch, truth in zip(results[0], torchs, exact, strict=True):
        assert found.shape == truth.shape
        assert (found - truth).norm() <= 6 * (by_torch - truth).norm() + 1e-6 * truth.norm()
    _, sum_of_input = FOUND.kernel.kernel_gradient(x, grad, bias_of_input=True)
    torch.testing.assert_close(sum_of_input, x.sum((0, 2, 3)), atol=1e-4, rtol=1e-5)


def test_weights_may_have_any_strides():
    weight, bias, _ = random_layer(20, 33)
    x = random_map(1, 20, 9, 22)
    last, transposed = weight.contiguous(memory_format=torch.channels_last), weight.transpose(0, 1).contiguous().transpose(0, 1)
    for other in (weight, last, transposed):
        found = FOUND.kernel.convolve(x, FOUND.kernel.transform(other, bias), 33, relu=False)
        assert_close(found, expected(x, weight, bias))


def test_the_library_depends_on_source_compiler_and_instructions(empty_cache, monkeypatch):
    open_kernel()
    monkeypatch.setenv("SEGNET_NATIVE_FLAGS", "-O1 -DANOTHER")
    open_kernel()
    assert len(list(empty_cache.iterdir())) == 2


def test_it_is_used_only_where_it_computes_what_torch_would():
    x, weight = torch.randn(1, 64, 32, 32), torch.randn(64, 64, 3, 3)
    assert is_usable(x, weight)
    assert is_faster(x, 64, (32, 32))
    assert not is_faster(x, 64, (3, 4))
    assert not is_faster(x, 2, (32, 32))
    assert not is_usable(x.double(), weight.double())
    assert not is_usable(x.bfloat16(), weight)
    assert not is_usable(x[:0], weight)
    assert not is_usable(x.requires_grad_(), weight)
    with torch.no_grad():
        assert is_usable(x, weight)
        with torch.autocast("cpu", torch.bfloat16):
            assert not is_usable(x, weight)
        torch.use_deterministic_algorithms(True)
        try:
            assert not is_usable(x, weight)
        finally:
            torch.use_deterministic_algorithms(False)


def test_the_package_contains_the_source():
    assert SOURCE.exists()
    assert '"native.cpp"' in (ROOT / "pyproject.toml").read_text()
