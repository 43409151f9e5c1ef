"""The speed of the network and of the plain network, in inference and in a training step, on this machine.

All ways of doing the same work take turns in one process, so that other programs on the machine slow all of them. Before
that their outputs for the same weights and images are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from segnet.benchmarks.memory import saved_facts
from segnet.benchmarks.plain import PlainEncoderDecoder
from segnet.benchmarks.timing import Facts, Way, compare_ways
from segnet.classes import IGNORE_INDEX
from segnet.config.sections import Config, InferenceConfig, OptimConfig, Recompute
from segnet.data.dataset import Sample
from segnet.inference.answers import compute_logits
from segnet.inference.precision import precision_of
from segnet.layers.native import find_kernel
from segnet.layers.winograd import describe_kernel, replaces_kernel
from segnet.losses import CrossEntropy
from segnet.models.compilation import CompiledPerSize
from segnet.models.encoder_decoder import BatchNorm, EncoderDecoder
from segnet.models.folding import fold
from segnet.system.devices import autocast, choose_device, choose_precision
from segnet.system.errors import ExitCode, UserError
from segnet.tasks.segmentation import criterion_of
from segnet.tasks.task import Criterion
from segnet.training.step import TrainState, build_state, train_step

PLAIN, NATIVE, WINOGRAD = "plain float32", "native float32", "winograd float32"
LARGEST_ERROR = {  # relative, of the norm; a mistake in a layer gives about 1
    ("inference", "float64"): {"logits": 1e-6},
    ("inference", "float32"): {"logits": 0.2},  # rounding changes the winner where two values nearly tie
    ("inference", "bfloat16"): {"logits": 0.9},  # the same, in many more windows; an untrained network amplifies it
    ("training", "float64"): {"logits": 1e-6, "loss": 1e-6, "gradient": 1e-4},
    ("training", "float32"): {"logits": 0.2, "loss": 0.01},  # batch statistics of few values amplify it, too
    ("training", "bfloat16"): {"logits": 0.9, "loss": 0.05},
}


def benchmark_inference(config: Config, *, rounds: int, compiled: bool = False, emulated: bool = False) -> Facts:
    """The speed from `train.batch_size` uint8 images of `augment.crop_size` to float32 logits, as in prediction and evaluation.

    Without `emulated`, bfloat16 is left out where the device emulates it, which may take minutes.
    Raises UserError (numeric) if the logits of a way are not those of the plain network.
    """
    model, plain, image = _networks(config)
    networks: dict[str, tuple[nn.Module, str]] = {}
    precisions = _precisions(image.device, emulated)
    for precision in precisions:
        network: nn.Module = fold(model, precision, native=False)
        networks[f"folded {precision}"] = network, precision
        if compiled:
            networks[f"compiled {precision}"] = CompiledPerSize(network), precision
    kernel = find_kernel().kernel if image.device.type == "cpu" else None
    if kernel or (image.device.type == "cpu" and replaces_kernel()):
        networks[NATIVE if kernel else WINOGRAD] = fold(model), "float32"
    if kernel and kernel.has_bfloat16 and "bfloat16" in precisions:
        networks["native bfloat16"] = fold(model, "bfloat16"), "bfloat16"
    plain_image = image.contiguous()  # NCHW
    ways = [Way(PLAIN, "float32", partial(plain, plain_image), {})]
    with torch.inference_mode():
        side = _side_for_float64(model)
        corner = image[..., :side, :side]
        exact = fold(model.double())(corner), plain.double()(corner.contiguous())  # the folding is in float64, too
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
            ways.append(Way(name, precision, partial(compute_logits, network, image, 1.0, precision), facts))
        measured = compare_ways(ways, counter.get_total_flops(), rounds, image)
        return {**measured, "native_kernel": describe_kernel(), "auto": str(precision_of(InferenceConfig(), model))}


def benchmark_training(config: Config, *, rounds: int, compiled: bool = False, emulated: bool = False) -> Facts:
    """The speed of a training step on `train.batch_size` images of `augment.crop_size`: forward, backward and update.

    The plain step has the same optimizer, but no moving average and no check for finite gradients. The learning rate is 0, so
    that all steps start from the same weights. Without `emulated`, bfloat16 is left out where the device emulates it.
    Raises UserError (numeric) if logits, loss or gradients are not those of the plain network.
    """
    device = choose_device(config.device)
    model, plain, image = _networks(config)
    state = build_state(config, len(config.data.class_set), device, pretrained=False)
    state.model.load_state_dict(model.state_dict())
    del model
    num_classes = len(config.data.class_set)
    coarse = torch.randint(0, num_classes + 1, (len(image), 1, 9, 9), device=device).float()
    mask = F.interpolate(coarse, image.shape[-2:])[:, 0].byte()
    mask[mask == num_classes] = IGNORE_INDEX
    batch, plain_image = Sample(image, mask, ""), image.contiguous()  # NCHW
    weighted = config.loss.class_weights != "none"
    weight = torch.ones(num_classes, device=device) if weighted else None  # they take as long as any others
    criterion = criterion_of(config.loss, weight)
    step = _PlainStep(plain, config.optim, criterion)
    exact = _float64_agreement(state.model, plain, batch, criterion, step)
    with _exact_float32(), FlopCounterMode(display=False) as counter:
        expected = _gradients(plain, plain_image, "float32", lambda logits: step.loss(logits, mask))
    facts = saved_facts(plain, plain_image, "float32")
    ways = [Way(PLAIN, "float32", partial(step, plain_image, mask), facts)]
    kinds = [("ours float32", "float32", "nothing", False)]
    if device.type == "cpu" and find_kernel().kernel:
        kinds.append((NATIVE, "float32", "nothing", False))
    kinds += [(f"ours bfloat16 {recompute}", "bfloat16", recompute, False) for recompute in get_args(Recompute)]
    kinds += [(f"compiled {precision}", precision, "nothing", True) for precision in ("float32", "bfloat16") if compiled]
    measured = _precisions(device, emulated)
    for name, precision, recompute, is_compiled in (kind for kind in kinds if kind[1] in measured):
        network = CompiledPerSize(state.model) if is_compiled else state.model
        state.model.recompute = cast(Recompute, recompute)
        state.model.use_kernel(name == NATIVE)
        with _exact_float32():
            found = _gradients(network, image, precision, lambda logits: criterion(logits, mask))
        pairs = {key: (found[key], expected[key]) for key in expected}
        facts = _agreement(name, ("training", precision), pairs) | saved_facts(network, image, precision)
        facts["float64_relative_error"] = exact[recompute]["relative_error"]
        changed = _changed(config, precision, recompute, "native" if name == NATIVE else "torch")
        run = _our_step(replace(state, network=network), batch, criterion, changed)
        ways.append(Way(name, precision, run, facts))
    return {**compare_ways(ways, counter.get_total_flops(), rounds, image), "native_kernel": find_kernel().text}


def _precisions(device: torch.device, emulated: bool) -> list[str]:
    """The precisions to measure on a device."""
    return [name for name in ("float32", "bfloat16") if emulated or not choose_precision(name, device).emulated]


def _networks(config: Config) -> tuple[EncoderDecoder, PlainEncoderDecoder, Tensor]:
    """Our network and the plain one, with the same initial weights and batch statistics, and a (B, C, H, W) uint8 image."""
    device = choose_device(config.device)
    batch = config.train.batch_size
    config = config.model_copy(update={"data": config.data.model_copy(update={"scale": "picture"})})  # images are in 0..255
    model = build_state(config, len(config.data.class_set), device, pretrained=False).model
    generator = torch.Generator().manual_seed(config.seed)
    coarse = torch.rand(max(2, batch), model.in_channels, 12, 12, generator=generator)
    smooth = F.interpolate(coarse, config.augment.crop_size, mode="bilinear")
    images = (204 * smooth + 51 * torch.rand(smooth.shape, generator=generator)).byte().to(device)  # noise: no ties
    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    for norm in norms:
        norm.momentum = None  # then the running statistics are those of this batch
    with torch.no_grad():
        model.train()(images)
    for norm in norms:
        norm.momentum = 0.1
    plain = PlainEncoderDecoder(config.model, model.num_classes, model.in_channels).to(device)
    plain.load_state_dict(model.state_dict())
    return model.eval(), plain.eval(), images[:batch].contiguous(memory_format=torch.channels_last)


def _side_for_float64(model: EncoderDecoder) -> int:
    """The side of the corner of an image that is compared in float64, pixels: the plain network needs `neck.smallest`."""
    return max(48, model.neck.smallest * model.total_stride)


class _PlainStep:
    """A training step of the plain network, with torch's optimizer, and its cross-entropy where the loss is nothing else."""

    def __init__(self, network: nn.Module, optim: OptimConfig, criterion: Criterion) -> None:
        self.network = network
        self.criterion = criterion
        self.optimizer: torch.optim.Optimizer
        if optim.name == "sgd":
            self.optimizer = torch.optim.SGD(
                network.parameters(), lr=0.0, momentum=optim.momentum, weight_decay=optim.weight_decay
            )
        else:
            self.optimizer = torch.optim.AdamW(network.parameters(), lr=0.0, weight_decay=optim.weight_decay)

    def loss(self, logits: Tensor, mask: Tensor) -> Tensor:
        if not isinstance(self.criterion, CrossEntropy):
            return self.criterion(logits, mask)
        weight = None if self.criterion.weight is None else self.criterion.weight.to(logits.dtype)
        smoothing = self.criterion.smoothing
        return F.cross_entropy(logits, mask.long(), weight, ignore_index=IGNORE_INDEX, label_smoothing=smoothing)

    def __call__(self, image: Tensor, mask: Tensor) -> None:
        self.optimizer.zero_grad()
        self.loss(self.network(image), mask).backward()
        self.optimizer.step()


def _our_step(state: TrainState, batch: Sample, criterion: Criterion, config: Config) -> Callable[[], object]:
    """A call that makes one training step of our network."""

    def run() -> None:
        state.model.recompute = config.train.recompute
        state.model.use_kernel(config.train.kernel == "native")
        train_step(state, batch, criterion, lr=0.0, config=config)

    return run


def _changed(config: Config, precision: str, recompute: str, kernel: str) -> Config:
    """`config` with another `train.precision`, `train.recompute` and `train.kernel`."""
    train = config.train.model_copy(update={"precision": precision, "recompute": recompute, "kernel": kernel})
    return config.model_copy(update={"train": train})


@contextmanager
def _exact_float32() -> Iterator[None]:
    """A context in which a GPU does not round the factors of float32 products to TF32."""
    cudnn, allowed = torch.backends.cudnn, torch.backends.cuda.matmul.allow_tf32
    options = {"enabled": cudnn.enabled, "benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
    with cudnn.flags(**options, allow_tf32=False):
        torch.backends.cuda.matmul.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = allowed


def _gradients(network: nn.Module, image: Tensor, precision: str, loss_of: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Logits, loss and all gradients of one step in training mode, without dropout."""
    network.train()
    dropouts = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    for dropout in dropouts:
        dropout.eval()
    with autocast(image.device, precision):
        logits = network(image)
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
) -> dict[str, Facts]:
    """The relative errors of each choice of `recompute` in float64, on a corner of the images."""
    side = _side_for_float64(model)
    image, mask = batch.image[..., :side, :side], batch.truth[..., :side, :side]
    mask = mask.where(mask != IGNORE_INDEX, 0)  # otherwise a corner may have no scored pixel
    expected = _gradients(plain.double(), image.contiguous(), "float64", lambda logits: step.loss(logits, mask))
    found = {}
    for recompute in get_args(Recompute):
        model.recompute = recompute
        ours = _gradients(model.double(), image, "float64", lambda logits: criterion(logits, mask))
        pairs = {key: (ours[key], expected[key]) for key in expected}
        found[recompute] = _agreement(f"ours float64 {recompute}", ("training", "float64"), pairs)
    plain.float()
    model.float()
    return found


def _agreement(name: str, kind: tuple[str, str], pairs: dict[str, tuple[Tensor, Tensor]]) -> Facts:
    """The relative error of each quantity in `pairs`, (found, expected). Raises UserError (numeric) if one is too large."""
    errors = {}
    for quantity, (found, expected) in pairs.items():
        difference = (found.double() - expected.double()).norm()
        errors[quantity] = (difference / expected.double().norm().clamp(min=1e-30)).item()
        at_most = LARGEST_ERROR[kind].get(quantity, math.inf)
        if not errors[quantity] <= at_most:
            text = f"its {quantity} differs from the plain network's by {errors[quantity]:.2g} (relative; at most {at_most:g})"
            remedy = "its speed is not measured; do not use it on this machine, and report the error"
            raise UserError(ExitCode.NUMERIC, name, text, remedy)
    return {"relative_error": errors}
