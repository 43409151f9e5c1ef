"""How fast the network is beside the plain one, in inference and in a training step, on the machine at hand.

All ways of doing the same work take turns in one process, so what else the machine does meets them alike. Before that their
answers are compared, with the same weights and pictures. A few large convolutions take turns with them: the machine's peak.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from segnet.benchmarks.memory import forward_in, saved_facts
from segnet.benchmarks.plain import PlainEncoderDecoder
from segnet.benchmarks.timing import Report, Way, calling, compare_ways
from segnet.classes import IGNORE_INDEX
from segnet.config.sections import Config, OptimConfig, Recompute
from segnet.data.dataset import Sample
from segnet.inference.answers import compute_logits
from segnet.losses import Criterion
from segnet.models.compilation import CompiledPerSize
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.models.folding import fold
from segnet.system.devices import choose_device, choose_precision
from segnet.system.errors import ExitCode, UserError
from segnet.training.step import TrainState, build_state, train_step

PLAIN = "plain float32"
LARGEST_ERROR = {  # relative, of the norm; a mistake makes errors of about 1
    ("inference", "float64"): {"logits": 1e-6},
    ("inference", "float32"): {"logits": 0.2},  # rounding decides between winners that nearly tie
    ("inference", "bfloat16"): {"logits": 0.9},  # fresh networks answer to chance: rounding moves winners, and those the rest
    ("training", "float64"): {"logits": 1e-6, "loss": 1e-6, "gradient": 1e-4},
    ("training", "float32"): {"logits": 0.2, "loss": 0.01},  # and batch statistics of few values amplify it
    ("training", "bfloat16"): {"logits": 0.9, "loss": 0.05},
}


def benchmark_inference(config: Config, *, rounds: int, compiled: bool = False, emulated: bool = False) -> Report:
    """`train.batch_size` pictures of `augment.crop_size`, uint8, to float32 logits, as prediction and evaluation have them.

    bfloat16 is left out where the device emulates it, which may take minutes, unless `emulated`.

    Raises UserError (numeric) where a way's answer is not the plain network's.
    """
    model, plain, image = _networks(config)
    networks: dict[str, tuple[nn.Module, str]] = {}
    for precision in _precisions(image.device, emulated):
        network: nn.Module = fold(model, precision)
        networks[f"folded {precision}"] = network, precision
        if compiled:
            networks[f"compiled {precision}"] = CompiledPerSize(network), precision
    plain_image = image.contiguous()  # NCHW
    ways = [Way(PLAIN, "float32", calling(plain, plain_image), {})]
    with torch.inference_mode():
        side = max(48, model.neck.smallest * model.total_stride)
        corner = image[..., :side, :side]
        exact = fold(model.double())(corner), plain.double()(corner.contiguous())  # folded in float64, too
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
            ways.append(Way(name, precision, calling(compute_logits, network, image, 1.0, precision), facts))
        return compare_ways(ways, counter.get_total_flops(), rounds, image)


def benchmark_training(config: Config, *, rounds: int, compiled: bool = False, emulated: bool = False) -> Report:
    """A step of `train.batch_size` pictures of `augment.crop_size`: forward, backward and update, as a run makes it.

    The plain step has the same optimizer, no moving average and no check for finite gradients. The
    learning rate is 0, so all steps are made at the same weights. bfloat16 is left out where the device emulates
    it, unless `emulated`.
    Raises UserError (numeric) where loss or gradients are not the plain network's.
    """
    batch_size, device = config.train.batch_size, choose_device(config.device)
    model, plain, image = _networks(config)
    state = build_state(config, len(config.data.class_set), device, pretrained=False)
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
    facts = saved_facts(plain, plain_image, "float32")
    ways = [Way(PLAIN, "float32", calling(step, plain_image, mask), facts)]
    kinds = [("ours float32", "float32", "plain", False)]
    kinds += [(f"ours bfloat16 {recompute}", "bfloat16", recompute, False) for recompute in get_args(Recompute)]
    kinds += [(f"compiled {precision}", precision, "plain", True) for precision in ("float32", "bfloat16") if compiled]
    measured = _precisions(device, emulated)
    for name, precision, recompute, is_compiled in (kind for kind in kinds if kind[1] in measured):
        network = CompiledPerSize(state.model) if is_compiled else state.model
        state.model.recompute = cast(Recompute, recompute)
        with _exact_float32():
            found = _gradients(network, image, precision, lambda logits: criterion(logits, mask))
        pairs = {key: (found[key], expected[key]) for key in expected}
        facts = _agreement(name, ("training", precision), pairs) | saved_facts(network, image, precision)
        facts["float64_relative_error"] = exact[recompute]["relative_error"]
        run = _our_step(replace(state, network=network), batch, criterion, _changed(config, precision, recompute))
        ways.append(Way(name, precision, run, facts))
    return compare_ways(ways, counter.get_total_flops(), rounds, image)


def _precisions(device: torch.device, emulated: bool) -> list[str]:
    """The precisions to measure on a device."""
    return [name for name in ("float32", "bfloat16") if emulated or not choose_precision(name, device).emulated]


def _networks(config: Config) -> tuple[EncoderDecoder, PlainEncoderDecoder, Tensor]:
    """Ours and the plain one with the same fresh weights and measured batch statistics, and (B, 3, H, W) uint8 pictures."""
    device, batch = choose_device(config.device), config.train.batch_size
    model, num_classes = (
        build_state(config, len(config.data.class_set), device, pretrained=False).model,
        len(config.data.class_set),
    )
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
        state.model.recompute = config.train.recompute
        train_step(state, batch, criterion, lr=0.0, config=config)

    return run


def _changed(config: Config, precision: str, recompute: str) -> Config:
    train = config.train.model_copy(update={"precision": precision, "recompute": recompute})
    return config.model_copy(update={"train": train})


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


def _gradients(network: nn.Module, image: Tensor, precision: str, loss_of: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Logits, loss and all gradients of one step in training mode, without dropout."""
    network.train()
    dropouts = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    for dropout in dropouts:
        dropout.eval()
    logits = forward_in(network, image, precision)
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
    """Each choice of `recompute` against the plain network in float64, on a corner of the images."""
    side = max(48, model.neck.smallest * model.total_stride)
    image, mask = batch.image[..., :side, :side], batch.mask[..., :side, :side]
    mask = mask.where(mask != IGNORE_INDEX, 0)  # a corner may have no other
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
