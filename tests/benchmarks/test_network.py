"""The benchmark's numbers that are facts, and that a wrong answer is not timed. How long anything takes is not asserted."""

import json
import os

import pytest
import torch
from helpers import refused
from torch import Tensor, nn

from segnet.benchmarks import network, timing
from segnet.benchmarks.network import benchmark_inference, benchmark_training
from segnet.config.loading import config_to_yaml, override_config
from segnet.config.sections import Config
from segnet.layers import deconvolution, pooling
from segnet.layers.native import find_kernel
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.models.inspection import summarize
from segnet.system.devices import Precision, choose_precision
from segnet.system.errors import ExitCode


@pytest.fixture
def config(tiny_config: Config) -> Config:
    return override_config(tiny_config, ["augment.crop_size=[17,24]", "optim.momentum=0.5", "train.ema_decay=0.9"])


EMULATED = choose_precision("bfloat16", torch.device("cpu")).emulated
NATIVE = ["native float32"] if find_kernel().kernel else []
TRAINING = ["plain float32", "ours float32", *NATIVE]
TRAINING += ["ours bfloat16 nothing", "ours bfloat16 activations", "ours bfloat16 stages"]
INFERENCE = ["plain float32", "folded float32", "folded bfloat16", *NATIVE]
INFERENCE += ["native bfloat16"] if NATIVE and find_kernel().kernel.has_bfloat16 else []


@pytest.mark.parametrize(("command", "names", "batch"), [("inference", INFERENCE, 1), ("train", TRAINING, 3)])
def test_the_command_ends_with_its_numbers_as_json(run_script, config, tmp_path, command, names, batch):
    path, copy = tmp_path / "tiny.yaml", tmp_path / "found.json"
    path.write_text(config_to_yaml(config))
    options = ["--size", 16, 20, "--rounds", 2, "--json", copy, *(["--batch", 3] if command == "train" else [])]
    os.environ["MALLOC_TRIM_THRESHOLD_"] = "100000000"
    try:
        found = run_script("benchmark", command, path, "data.root=nowhere", *options)
    finally:
        del os.environ["MALLOC_TRIM_THRESHOLD_"]
    assert (found.returncode, found.stderr) == (0, "")
    document = json.loads(found.stdout.splitlines()[-1])
    assert document == json.loads(copy.read_text())
    assert (document["benchmark"], document["batch"], document["rounds"]) == (command, batch, 2)
    assert document["overrides"] == ["data.root=nowhere"]
    assert document["size"] == [16, 20]
    assert document["versions"]["torch"] == torch.__version__
    assert document["environment"]["MALLOC_TRIM_THRESHOLD_"] == "100000000"
    assert list(document["ways"]) == [name for name in names if not (EMULATED and "bfloat16" in name)]
    assert document["peak_gflop_per_second"].keys() == ({"float32"} if EMULATED else {"float32", "bfloat16"})
    assert ("bfloat16 is left out" in found.stdout) == EMULATED
    assert torch.backends.cpu.get_cpu_capability() in document["device"]
    if command == "inference":
        text = find_kernel().text if find_kernel().kernel else "SEGNET_NATIVE=0 turns it off"  # as the tests do without one
        assert document["native_kernel"] == text
        assert f"native kernel: {text}\n" in found.stdout
        assert f"inference.precision=auto: {document['auto']}\n" in found.stdout
    for name, way in document["ways"].items():
        assert name in found.stdout
        assert not way["emulated"]
        assert way["seconds"]["low"] <= way["seconds"]["median"] <= way["seconds"]["high"]
        assert way["pictures_per_second"] == pytest.approx(batch / way["seconds"]["median"])
        assert way["gflop_per_second"] == pytest.approx(way["pictures_per_second"] * document["gflop_per_picture"])
        assert way["share_of_peak"]["median"] > 0
        assert way["peak_bytes"] is None  # a CPU's is not known per way
    assert document["ways"]["plain float32"]["times_plain"] == {"low": 1, "median": 1, "high": 1}


def test_what_the_device_emulates_is_left_out_or_marked(config, monkeypatch, capsys):
    for user in (network, timing):
        monkeypatch.setattr(user, "choose_precision", lambda name, device: Precision(name, "", emulated=name != "float32"))
    for measure, names in ((benchmark_inference, INFERENCE), (benchmark_training, TRAINING)):
        document = measure(config, rounds=1)
        assert list(document["ways"]) == [name for name in names if "bfloat16" not in name]
        document = measure(config, rounds=1, emulated=True)
        assert list(document["ways"]) == names
        assert document["peak_gflop_per_second"].keys() == {"float32"}
        timing.print_table(document)
        assert capsys.readouterr().out.count("(emulated)") == sum("bfloat16" in name for name in names)


def test_work_is_counted_as_the_summary_counts_it(config):
    document = benchmark_inference(config, rounds=1, emulated=True)
    parts = summarize(config.model, 3, config.augment.crop_size)
    assert document["gflop_per_picture"] * 1e9 == 2 * sum(part.multiply_adds for part in parts)
    assert document["ways"]["folded float32"]["same_class"] == 1
    assert document["ways"]["folded float32"]["relative_error"]["logits"] < 1e-5
    assert document["ways"]["folded float32"]["float64_relative_error"]["logits"] < 1e-6
    assert 1e-5 < document["ways"]["folded bfloat16"]["relative_error"]["logits"] < 0.5


@pytest.mark.parametrize("loss", ["lovasz=0.5", "{class_weights: enet, label_smoothing: 0.1}"])
def test_a_training_step_is_compared_and_its_memory_counted(config, loss):
    changes = [f"loss.{loss}" if loss[0] != "{" else f"loss={loss}", "optim.name=adamw"]
    ways = benchmark_training(override_config(config, changes), rounds=1, emulated=True)["ways"]
    assert ways["ours float32"]["relative_error"].keys() == {"logits", "loss", "gradient"}
    assert max(ways["ours float32"]["relative_error"].values()) < 1e-4
    plain, lean, checkpoint = (ways[f"ours bfloat16 {recompute}"] for recompute in ("nothing", "activations", "stages"))
    assert max(lean["float64_relative_error"].values()) < 1e-6
    assert plain["relative_error"] == lean["relative_error"] == checkpoint["relative_error"]  # the same bits
    assert lean["saved_bytes"] < plain["saved_bytes"] < ways["ours float32"]["saved_bytes"]
    assert ways["ours float32"]["saved_bytes"] < ways["plain float32"]["saved_bytes"]


def test_steps_leave_the_weights_as_they_are(config, monkeypatch):
    models: list[EncoderDecoder] = []
    real = network.build_state

    def remembering(*arguments, **options):
        state = real(*arguments, **options)
        models.append(state.model)
        return state

    monkeypatch.setattr(network, "build_state", remembering)
    benchmark_training(config, rounds=2)
    before, after = (dict(model.named_parameters()) for model in models)  # it gave the weights; it trained
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_wrong_kernel_is_refused_in_inference(config, monkeypatch):
    """A deconvolution whose kernel is not flipped when it becomes a convolution."""
    monkeypatch.setattr(deconvolution, "flipped", lambda kernel: kernel.transpose(0, 1))
    with refused(ExitCode.NUMERIC, "folded float64", "logits differs"):
        benchmark_inference(config, rounds=1)


@pytest.mark.parametrize("bit", [1, 2])
def test_wrong_winners_are_refused_in_training(config, monkeypatch, bit):
    real = pooling._place

    def misplaced(values: Tensor, winner: Tensor, size: tuple[int, int]) -> Tensor:
        return real(values, winner ^ bit, (size[0] + size[0] % 2, size[1] + size[1] % 2))[..., : size[0], : size[1]]

    monkeypatch.setattr(pooling, "_place", misplaced)
    with refused(ExitCode.NUMERIC, "ours float64 nothing", "logits differs"):
        benchmark_training(config, rounds=1)


def test_a_wrong_gradient_is_refused(config, monkeypatch):
    real = pooling._pick
    monkeypatch.setattr(pooling, "_pick", lambda x, winner: real(x, winner) * 1.01)
    with refused(ExitCode.NUMERIC, "ours float64 nothing", "gradient differs"):
        benchmark_training(config, rounds=1)


def test_a_memory_mode_with_other_gradients_is_refused(config, monkeypatch):
    real = EncoderDecoder.forward

    def scaled(model: EncoderDecoder, image: Tensor) -> Tensor:
        logits = real(model, image)
        return logits.detach() + 0.99 * (logits - logits.detach()) if model.recompute == "activations" else logits

    monkeypatch.setattr(EncoderDecoder, "forward", scaled)
    with refused(ExitCode.NUMERIC, "ours float64 activations", "gradient differs"):
        benchmark_training(config, rounds=1)


def test_bfloat16_that_gives_nothing_is_refused(config, monkeypatch):
    real = network.compute_logits

    def blank(network: nn.Module, image: Tensor, scale: float, precision: str) -> Tensor:
        return real(network, image, scale, precision) * (precision == "float32")

    monkeypatch.setattr(network, "compute_logits", blank)
    with refused(ExitCode.NUMERIC, "folded bfloat16", "logits differs"):
        benchmark_inference(config, rounds=1, emulated=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_knows_the_peak_of_each_way(config):
    on_gpu = override_config(config, ["device=cuda"])
    for document in (benchmark_inference(on_gpu, rounds=1), benchmark_training(on_gpu, rounds=1)):
        assert all(way["peak_bytes"] > 0 for way in document["ways"].values())
