"""How fast the network is beside the plain one, in inference and in a training step, on the machine at hand.

All ways of doing the same work take turns in one process, so what else the machine does meets them alike. Before that their
answers are compared, with the same weights and pictures. A few large convolutions take turns with them: the machine's peak.
"""

from __future__ import annotations

import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from segnet.classes import IGNORE_INDEX
from segnet.config import Config, Memory, OptimConfig
from segnet.datasets import Sample
from segnet.devices import autocast, choose_device, choose_precision
from segnet.errors import ExitCode, UserError
from segnet.inference import compute_logits
from segnet.losses import Criterion
from segnet.models import CompiledPerSize, EncoderDecoder, folded
from segnet.reference import PlainEncoderDecoder
from segnet.training import TrainState, build_state, train_step

PLAIN = "plain float32"
LARGEST_ERROR = {  # relative, of the norm; a mistake makes errors of about 1
    ("inference", "float64"): {"logits": 1e-6},
    ("inference", "float32"): {"logits": 0.2},  # rounding decides between winners that nearly tie
    ("inference", "bfloat16"): {"logits": 0.9},  # fresh networks answer to chance: rounding moves winners, and those the rest
    ("training", "float64"): {"logits": 1e-6, "loss": 1e-6, "gradient": 1e-4},
    ("training", "float32"): {"logits": 0.2, "loss": 0.01},  # and batch statistics of few values amplify it
    ("training", "bfloat16"): {"logits": 0.9, "loss": 0.05},
}
Report = dict[str, Any]  # of a JSON document


class Way(NamedTuple):
    """One way of doing the work."""

    name: str
    precision: str  # of its convolutions
    run: Callable[[], object]
    facts: Report  # what is known of it beside its speed


class Spread(NamedTuple):
    """What the middle half of the rounds found."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Spread:
        return cls(*statistics.quantiles(rounds, n=4, method="inclusive")) if len(rounds) > 1 else cls(*3 * tuple(rounds))


# ---------------------------------------------------------------------------------------------------------------------
# The two benchmarks
# ---------------------------------------------------------------------------------------------------------------------


def benchmark_inference(config: Config, *, rounds: int, compiled: bool = False, emulated: bool = False) -> Report:
    """`train.batch_size` pictures of `augment.crop_size`, uint8, to float32 logits, as prediction and evaluation have them.

    bfloat16 is left out where the device emulates it, which may take minutes, unless `emulated`.

    Raises UserError (numeric) where a way's answer is not the plain network's.
    """
    model, plain, image = _networks(config)
    networks: dict[str, tuple[nn.Module, str]] = {}
    for precision in _precisions(image.device, emulated):
        network: nn.Module = folded(model, precision)
        networks[f"folded {precision}"] = network, precision
        if compiled:
            networks[f"compiled {precision}"] = CompiledPerSize(network), precision
    plain_image = image.contiguous()  # NCHW
    ways = [Way(PLAIN, "float32", _calling(plain, plain_image), {})]
    with torch.inference_mode():
        side = max(48, model.neck.smallest * model.stride)
        corner = image[..., :side, :side]
        exact = folded(model.double())(corner), plain.double()(corner.contiguous())  # folded in float64, too
        exact_facts = _agreement("folded float64", ("inference", "float64"), {"logits": exact})
        plain.float()
        with _exact_float32(), FlopCounterMode(display=False) as counter:
            expected = plain(plain_image)
        for name, (network, precision) in networks.items():
            with _exact_float32():
                logits = compute_logits(network, image, 1.0, precision)
            facts = _agreement(name, ("inference", precision), {"logits": (logits, expected)})
            facts["float64_relative_error"] = exact_facts["relative_error"]
            facts["same_class"] = (logits.argmax(dim=1) == expected.argmax(dim=1)).double().mean().item()
            ways.append(Way(name, precision, _calling(compute_logits, network, image, 1.0, precision), facts))
        return _compare(ways, counter.get_total_flops(), rounds, image)


def benchmark_training(config: Config, *, rounds: int, compiled: bool = False, emulated: bool = False) -> Report:
    """A step of `train.batch_size` pictures of `augment.crop_size`: forward, backward and update, as a run makes it.

    The plain step has the same optimizer, no moving average and no check for finite gradients; both count every pixel, as at
    hardest=1. The learning rate is 0, so all steps are made at the same weights. bfloat16 is left out where the device emulates
    it, unless `emulated`.
    Raises UserError (numeric) where loss or gradients are not the plain network's.
    """
    batch_size, device = config.train.batch_size, choose_device(config.device)
    model, plain, image = _networks(config)
    state = build_state(config, device, pretrained=False)
    state.model.load_state_dict(model.state_dict())
    del model
    num_classes = len(config.data.class_set)
    coarse = torch.randint(0, num_classes + 1, (batch_size, 1, 9, 9), device=device).float()
    mask = F.interpolate(coarse, image.shape[-2:])[:, 0].byte()
    mask[mask == num_classes] = IGNORE_INDEX
    batch, plain_image = Sample(image, mask, ""), image.contiguous()  # NCHW
    weighted = config.loss.class_weights != "none"  # by ones, which take as long as any
    weight = torch.ones(num_classes, device=device) if weighted else None
    criterion = Criterion(weight=weight, smoothing=config.loss.label_smoothing)
    step = _PlainStep(plain, config.optim, criterion)
    exact = _float64_agreement(state.model, plain, batch, criterion, step)
    with _exact_float32(), FlopCounterMode(display=False) as counter:
        expected = _gradients(plain, plain_image, "float32", lambda logits: step.loss(logits, mask))
    facts = _saved(plain, plain_image, "float32")
    ways = [Way(PLAIN, "float32", _calling(step, plain_image, mask), facts)]
    kinds = [("ours float32", "float32", "plain", False)]
    kinds += [(f"ours bfloat16 {memory}", "bfloat16", memory, False) for memory in get_args(Memory)]
    kinds += [(f"compiled {precision}", precision, "plain", True) for precision in ("float32", "bfloat16") if compiled]
    measured = _precisions(device, emulated)
    for name, precision, memory, is_compiled in (kind for kind in kinds if kind[1] in measured):
        network = CompiledPerSize(state.model) if is_compiled else state.model
        state.model.memory = cast(Memory, memory)
        with _exact_float32():
            found = _gradients(network, image, precision, lambda logits: criterion(logits, mask))
        pairs = {key: (found[key], expected[key]) for key in expected}
        facts = _agreement(name, ("training", precision), pairs) | _saved(network, image, precision)
        facts["float64_relative_error"] = exact[memory]["relative_error"]
        run = _our_step(replace(state, network=network), batch, criterion, _changed(config, precision, memory))
        ways.append(Way(name, precision, run, facts))
    return _compare(ways, counter.get_total_flops(), rounds, image)


def _precisions(device: torch.device, emulated: bool) -> list[str]:
    """The precisions to measure on a device."""
    return [name for name in ("float32", "bfloat16") if emulated or not choose_precision(name, device).emulated]


def _networks(config: Config) -> tuple[EncoderDecoder, PlainEncoderDecoder, Tensor]:
    """Ours and the plain one with the same fresh weights and measured batch statistics, and (B, 3, H, W) uint8 pictures."""
    device, batch = choose_device(config.device), config.train.batch_size
    model, num_classes = build_state(config, device, pretrained=False).model, len(config.data.class_set)
    generator = torch.Generator().manual_seed(config.seed)
    height, width = config.augment.crop_size
    smooth = F.interpolate(torch.rand(max(2, batch), 3, 12, 12, generator=generator), (height, width), mode="bilinear")
    pictures = (204 * smooth + 51 * torch.rand(smooth.shape, generator=generator)).byte().to(device)  # noise: no ties
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = None  # a plain mean
    with torch.no_grad():
        model.train()(pictures)
    for norm in norms:
        norm.momentum = 0.1
    plain = PlainEncoderDecoder(config.model, num_classes).to(device)
    plain.load_state_dict(model.state_dict())
    return model.eval(), plain.eval(), pictures[:batch].contiguous(memory_format=torch.channels_last)


class _PlainStep:
    """A training step as most scripts have it."""

    def __init__(self, network: nn.Module, optim: OptimConfig, criterion: Criterion) -> None:
        self.network, self.weight, self.smoothing = network, criterion.weight, criterion.smoothing
        self.optimizer: torch.optim.Optimizer
        parameters, decay = network.parameters(), optim.weight_decay
        if optim.name == "sgd":
            self.optimizer = torch.optim.SGD(parameters, lr=0.0, momentum=optim.momentum, weight_decay=decay)
        else:
            self.optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=decay)

    def loss(self, logits: Tensor, mask: Tensor) -> Tensor:
        weight = None if self.weight is None else self.weight.to(logits.dtype)
        return F.cross_entropy(logits, mask.long(), weight, ignore_index=IGNORE_INDEX, label_smoothing=self.smoothing)

    def __call__(self, image: Tensor, mask: Tensor) -> None:
        self.optimizer.zero_grad()
        self.loss(self.network(image), mask).backward()
        self.optimizer.step()


def _our_step(state: TrainState, batch: Sample, criterion: Criterion, config: Config) -> Callable[[], object]:
    """A training step as `training` makes it."""

    def run() -> None:
        state.model.memory = config.train.memory
        train_step(state, batch, criterion, lr=0.0, config=config)

    return run


def _changed(config: Config, precision: str, memory: str) -> Config:
    train = config.train.model_copy(update={"precision": precision, "memory": memory})
    return config.model_copy(update={"train": train})


def _calling(function: Callable[..., object], *arguments: object) -> Callable[[], object]:
    return lambda: function(*arguments)


# ---------------------------------------------------------------------------------------------------------------------
# Do they agree?
# ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def _exact_float32() -> Iterator[None]:
    """Float32 convolutions and products in float32: a GPU rounds the factors to TF32 where allowed."""
    cudnn, allowed = torch.backends.cudnn, torch.backends.cuda.matmul.allow_tf32
    options = {"enabled": cudnn.enabled, "benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
    with cudnn.flags(**options, allow_tf32=False):
        torch.backends.cuda.matmul.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = allowed


def _forward(network: nn.Module, image: Tensor, precision: str) -> Tensor:
    with autocast(image.device, precision):
        return network(image)


def _gradients(network: nn.Module, image: Tensor, precision: str, loss_of: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Logits, loss and all gradients of one step in training mode, without dropout."""
    network.train()
    dropouts = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    for dropout in dropouts:
        dropout.eval()
    logits = _forward(network, image, precision)
    loss = loss_of(logits)
    loss.backward()
    gradients = {name.removeprefix("network."): parameter.grad for name, parameter in network.named_parameters()}
    gradient = torch.cat([cast(Tensor, gradients[name]).flatten() for name in sorted(gradients)])
    network.zero_grad()
    for dropout in dropouts:
        dropout.train()
    return {"logits": logits.detach(), "loss": loss.detach(), "gradient": gradient}


def _float64_agreement(
    model: EncoderDecoder, plain: nn.Module, batch: Sample, criterion: Criterion, step: _PlainStep
) -> dict[str, Report]:
    """Each memory mode against the plain network in float64, on a corner of the pictures: nothing hides behind rounding."""
    side = max(48, model.neck.smallest * model.stride)
    image, mask = batch.image[..., :side, :side], batch.mask[..., :side, :side]
    mask = mask.where(mask != IGNORE_INDEX, 0)  # a corner may have no other
    expected = _gradients(plain.double(), image.contiguous(), "float64", lambda logits: step.loss(logits, mask))
    found = {}
    for memory in get_args(Memory):
        model.memory = memory
        ours = _gradients(model.double(), image, "float64", lambda logits: criterion(logits, mask))
        pairs = {key: (ours[key], expected[key]) for key in expected}
        found[memory] = _agreement(f"ours float64 {memory}", ("training", "float64"), pairs)
    plain.float()
    model.float()
    return found


def _agreement(name: str, kind: tuple[str, str], pairs: dict[str, tuple[Tensor, Tensor]]) -> Report:
    """The relative error of each quantity, (found, expected). Raises UserError (numeric) where one is too large."""
    errors = {}
    for quantity, (found, expected) in pairs.items():
        difference = (found.double() - expected.double()).norm()
        errors[quantity] = (difference / expected.double().norm().clamp(min=1e-30)).item()
        at_most = LARGEST_ERROR[kind].get(quantity, math.inf)
        if not errors[quantity] <= at_most:
            text = f"its {quantity} differs from the plain network's by {errors[quantity]:.2g} (relative; at most {at_most:g})"
            raise UserError(ExitCode.NUMERIC, name, text, "its speed means nothing; do not use it here, and report it")
    return {"relative_error": errors}


# ---------------------------------------------------------------------------------------------------------------------
# Memory
# ---------------------------------------------------------------------------------------------------------------------


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages made inside that are still alive, but for those of `known` tensors."""

    def __init__(self, *known: Tensor) -> None:
        super().__init__()
        self.known = {StorageWeakRef(tensor.untyped_storage()) for tensor in known}
        self.storages: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for output in result if isinstance(result, tuple | list) else [result]:
            if isinstance(output, Tensor):
                self.storages[StorageWeakRef(output.untyped_storage())] = output.untyped_storage().nbytes()
        return result

    def count(self) -> int:
        return sum(size for storage, size in self.storages.items() if not storage.expired() and storage not in self.known)


def saved_bytes(network: nn.Module, image: Tensor, precision: str) -> int:
    """What stands in memory between forward and backward, besides weights, pictures and logits."""
    with LiveBytes(image, *network.parameters(), *network.buffers()) as live:
        logits = _forward(network, image, precision)
    return live.count() - logits.untyped_storage().nbytes()


def _saved(network: nn.Module, image: Tensor, precision: str) -> Report:
    """Per picture: what a third one adds to two. A compiler plans memory where this count cannot see it."""
    if hasattr(network, "_orig_mod"):
        return {"saved_bytes": None}
    two, three = (saved_bytes(network, image[[0] * count], precision) for count in (2, 3))
    return {"saved_bytes": three - two}


# ---------------------------------------------------------------------------------------------------------------------
# Speed
# ---------------------------------------------------------------------------------------------------------------------


def _compare(ways: list[Way], flops: int, rounds: int, image: Tensor) -> Report:
    """Let all take turns, `rounds` times after two that do not count, print a table, and return its numbers."""
    device = image.device
    slow = {way.precision for way in ways if choose_precision(way.precision, device).emulated}
    precisions = sorted({way.precision for way in ways} - slow)  # a large convolution that is emulated takes a minute
    peaks = [peak for precision in precisions for peak in _peak_convolutions(precision, device)]
    gpu, batch = device.type == "cuda", len(image)
    calls = 5 if gpu else 1  # of a GPU's rounds, so that it does not wait for the first launch alone
    seconds: dict[str, list[float]] = {way.name: [] for way in (*ways, *peaks)}
    memory: dict[str, int | None] = {way.name: _peak_bytes(way, device) if gpu else None for way in ways}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    for number in range(rounds + 2):
        turn = number % len(ways)
        for way in (*ways[turn:], *ways[:turn], *peaks):
            seconds[way.name].append(_seconds(way.run, calls, device))
    counted = {name: found[2:] for name, found in seconds.items()}
    rates: dict[str, list[float]] = {}  # of the fastest convolution in each round
    for precision in precisions:
        found = [[peak.facts["flops"] / time for time in counted[peak.name]] for peak in peaks if peak.precision == precision]
        rates[precision] = [max(round_) for round_ in zip(*found, strict=True)]
    report: Report = {}
    for way in ways:
        mine, plain, peak = counted[way.name], counted[ways[0].name], rates.get(way.precision, rates["float32"])
        median = statistics.median(mine)
        report[way.name] = {
            "precision": way.precision,
            "emulated": way.precision in slow,
            "seconds": Spread.of(mine)._asdict(),
            "times_plain": Spread.of([a / b for a, b in zip(plain, mine, strict=True)])._asdict(),
            "pictures_per_second": batch / median,
            "gflop_per_second": flops / median / 1e9,
            "share_of_peak": Spread.of([flops / a / b for a, b in zip(mine, peak, strict=True)])._asdict(),
            "peak_bytes": memory[way.name],
            **way.facts,
        }
    return {
        "size": list(image.shape[-2:]),
        "batch": batch,
        "rounds": rounds,
        "load": load,
        "gflop_per_picture": flops / batch / 1e9,
        "peak_gflop_per_second": {precision: max(rate) / 1e9 for precision, rate in rates.items()},
        "ways": report,
    }


def _seconds(run: Callable[[], object], calls: int, device: torch.device) -> float:
    """What one call takes, on the device's own clock."""
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - started) / calls
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record()
    for _ in range(calls):
        run()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1000 / calls


def _peak_bytes(way: Way, device: torch.device) -> int:
    """How much more GPU memory a call has in use at most than what stands before it."""
    way.run()
    gc.collect()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    way.run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _peak_convolutions(precision: str, device: torch.device) -> list[Way]:
    """Large 3×3 convolutions, forward: the fastest of them in a round is the machine's peak."""
    batch = 64 if device.type == "cuda" else 1
    dtype = getattr(torch, precision)
    ways = []
    for channels, side in ((128, 128), (256, 96), (512, 48)):
        x = torch.rand(batch, channels, side, side, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
        kernel = torch.rand(channels, channels, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
        run = torch.inference_mode()(_calling(F.conv2d, x, kernel, None, 1, 1))
        flops = 2 * batch * channels**2 * 9 * side**2
        ways.append(Way(f"{precision} {channels} channels", precision, run, {"flops": flops}))
    return ways


def print_table(document: Report) -> None:
    """The ways of a benchmark's document, a line each."""
    rates = ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in document["peak_gflop_per_second"].items())
    print(f"{document['gflop_per_picture']:.1f} GFLOP a picture; fastest 3×3 convolutions here: {rates}")
    titles = f"{'seconds':>9}{'× plain':>9}{'quartiles':>12}{'pictures/s':>12}{'GFLOP/s':>9}{'of peak':>9}"
    print(f"{'pictures at once: ' + str(document['batch']):<28}{titles}{'saved MB':>10}{'peak MB':>9}{'error':>9}")
    for name, way in document["ways"].items():
        times, error = way["times_plain"], max(way.get("relative_error", {}).values(), default=0.0)
        quartiles = f"{times['low']:.2f}–{times['high']:.2f}"
        saved, peak = (f"{way[key] / 1e6:.0f}" if way.get(key) is not None else "–" for key in ("saved_bytes", "peak_bytes"))
        speeds = f"{way['seconds']['median']:>9.4f}{times['median']:>9.2f}{quartiles:>12}{way['pictures_per_second']:>12.2f}"
        rate = f"{way['gflop_per_second']:>9.0f}{way['share_of_peak']['median']:>9.0%}"
        print(f"{name + ' (emulated)' * way['emulated']:<28}{speeds}{rate}{saved:>10}{peak:>9}{error:>9.1e}")
    if all(way["precision"] == "float32" for way in document["ways"].values()):
        print("bfloat16 is left out: this device emulates it, several times slower than float32 (--emulated measures it)")
