"""Training with the compiled kernel, from the configuration to the weights: gradients, bits, resuming, ranks, and without it."""

import csv
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same_run, refused, same
from ranks import Ranks
from small_networks import SMALL

from segnet.config.loading import override_config
from segnet.config.sections import Config
from segnet.layers import native
from segnet.layers.native import Found
from segnet.models.initialization import build_model
from segnet.runs.checkpoint import load_checkpoint
from segnet.system import devices
from segnet.system.errors import ExitCode
from segnet.training import precision
from segnet.training.loop import train
from segnet.training.precision import choose_train_precision, describe_arithmetic, resolve_precisions

CPU, GPU = torch.device("cpu"), torch.device("cuda")
NATIVE = ["train.kernel=native", "train.epochs=1"]


@pytest.fixture
def everywhere(monkeypatch):
    """The compiled kernel trains layers of any size."""
    if native.find_kernel().kernel is None:
        pytest.skip(f"no compiled kernel: {native.find_kernel().text}")
    for name in ("_FEWEST_TILES_IN_TRAINING", "_FEWEST_CHANNELS", "_FEWEST_TILES_OF_GRADIENT", "_FEWEST_PAIRS"):
        monkeypatch.setattr(native, name, 1)


def gradient(*, kernel: bool, recompute: str = "nothing", dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The gradient of a small network with odd sizes, as one vector."""
    torch.manual_seed(0)
    model = build_model(SMALL, 5).to(dtype)
    model.recompute = recompute
    model.use_kernel(kernel)
    logits = model(torch.randint(0, 256, (2, 3, 37, 50)).to(dtype))
    F.cross_entropy(logits, torch.randint(0, 5, (2, 37, 50))).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def test_a_networks_gradient_is_as_close_to_float64_as_torchs(everywhere):
    found, torchs, exact = gradient(kernel=True), gradient(kernel=False), gradient(kernel=False, dtype=torch.float64)
    assert not torch.equal(found, torchs)
    assert (found - exact).norm() <= 3 * (torchs - exact).norm()


def test_neither_another_run_nor_recomputation_changes_a_bit(everywhere):
    expected = gradient(kernel=True)
    assert torch.equal(gradient(kernel=True), expected)
    for recompute in ("activations", "stages"):
        assert torch.equal(gradient(kernel=True, recompute=recompute), expected)


def test_a_run_says_and_keeps_its_kernel(tiny_config, tmp_path, everywhere):
    config = override_config(tiny_config, [*NATIVE, "train.precision=auto", "train.epochs=2", "train.save_every_epochs=1"])
    assert choose_train_precision(config.train, CPU).name == "float32"
    train(config, tmp_path / "whole")
    train(override_config(config, ["train.max_minutes=1e-9"]), tmp_path / "stopped")
    train(override_config(config, ["train.kernel=auto"]), tmp_path / "stopped", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
    stored = load_checkpoint(tmp_path / "stopped" / "last.pt").config.train
    assert (stored.kernel, stored.precision) == ("native", "float32")
    train(override_config(config, ["train.kernel=auto", "train.precision=float32"]), tmp_path / "auto")
    assert_same_run(tmp_path / "whole", tmp_path / "auto")
    train(override_config(config, ["train.kernel=torch", "train.precision=float32"]), tmp_path / "torchs")
    torchs = load_checkpoint(tmp_path / "torchs" / "last.pt")
    assert not same(torchs.weights, load_checkpoint(tmp_path / "whole" / "last.pt").weights)


COMPILED, NOT_COMPILED = Found(object(), ""), Found(None, "there is no compiler")


@pytest.mark.parametrize(
    ("settings", "fast", "found", "device", "expected"),
    [
        ([], "float32", COMPILED, CPU, "native"),
        ([], "bfloat16", COMPILED, CPU, "torch"),
        (["train.precision=float32"], "bfloat16", COMPILED, CPU, "native"),
        (["train.precision=bfloat16"], "float32", COMPILED, CPU, "torch"),
        (["train.compile=true"], "float32", COMPILED, CPU, "torch"),
        (["train.kernel=torch"], "float32", COMPILED, CPU, "torch"),
        ([], "float32", NOT_COMPILED, CPU, "torch"),
        ([], "float32", COMPILED, GPU, "torch"),
    ],
)
def test_auto_is_the_kernel_where_a_step_is_in_float32(tiny_config, monkeypatch, settings, fast, found, device, expected):
    monkeypatch.setattr(precision, "find_kernel", lambda: found)
    monkeypatch.setattr(devices, "_fast_precision", lambda device: devices.Precision(fast, "its instructions"))
    config = override_config(tiny_config, ["train.precision=auto", "train.kernel=auto", *settings])
    computed, stored = resolve_precisions(config, device, None)
    assert (computed.train.kernel, stored.train.kernel) == (expected, expected)
    assert describe_arithmetic(config.train, device).endswith(", by the compiled kernel") == (expected == "native")


def test_another_kernel_than_that_of_the_run_is_refused(tiny_config, tmp_path):
    train(override_config(tiny_config, ["train.max_minutes=1e-9"]), tmp_path / "run")
    with refused(ExitCode.CHECKPOINT, "train.kernel (torch, now native)"):
        train(override_config(tiny_config, ["train.kernel=native"]), tmp_path / "run", resume=True)


def test_without_a_kernel_torch_trains_and_says_so(tiny_config, monkeypatch, capsys):
    monkeypatch.setattr(precision, "find_kernel", lambda: Found(None, "there is no compiler"))
    monkeypatch.setattr(devices, "_fast_precision", lambda device: devices.Precision("float32", ""))
    config = override_config(tiny_config, NATIVE)
    for device, reason in ((CPU, "there is no compiler"), (GPU, "it is made for processors")):
        resolve_precisions(config, device, None)
        assert capsys.readouterr().err == f"warning: train.kernel=native: torch computes the convolutions, because {reason}\n"
    resolve_precisions(tiny_config, CPU, None)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("change", ["train.compile=true", "train.precision=bfloat16", "train.precision=float16"])
def test_what_it_cannot_do_is_refused(tiny_config, change):
    with refused(ExitCode.CONFIG, "kernel native"):
        override_config(tiny_config, [*NATIVE, change])


def losses(run: Path) -> list[float]:
    with (run / "metrics.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]


def test_ranks_train_with_it(tiny_config: Config, tmp_path, everywhere):
    """Two ranks learn what they learn with torch's operations, up to rounding."""
    for kernel in ("native", "torch"):
        config = override_config(tiny_config, [f"train.kernel={kernel}", "train.epochs=1", "train.batch_size=2"])
        ranks = Ranks(2, lambda config=config, kernel=kernel: train(config, tmp_path / kernel), tmp_path)
        assert ranks.wait() == [0, 0], ranks.text()
    assert losses(tmp_path / "native") == pytest.approx(losses(tmp_path / "torch"), rel=1e-3)
    assert losses(tmp_path / "native") != losses(tmp_path / "torch")
