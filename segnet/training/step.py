"""One step of training, and the state that it changes."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from segnet.config.sections import Config
from segnet.data.colors import Change, change_batch
from segnet.data.dataset import Sample
from segnet.models.compilation import CompiledPerSize
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.models.initialization import build_model
from segnet.system.devices import autocast
from segnet.system.digests import derive_seed
from segnet.system.distributed import is_main, rank, sum_over_ranks, world_size
from segnet.tasks.task import Criterion
from segnet.training.optimizer import MovingAverage, build_optimizer


@dataclass
class TrainState:
    """Everything that changes during training: what a checkpoint holds for resuming."""

    model: EncoderDecoder
    network: nn.Module  # what a step calls: the model, compiled where asked, its gradients averaged over the ranks
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: MovingAverage | None
    loss_sum: Tensor  # over the steps since the last log line
    blank_steps: Tensor  # of those steps, how many had no scored pixel
    first_bad: Tensor  # the first step whose loss or gradient was not finite; -1: none
    loss_steps: int = 0
    step: int = 0  # steps done
    scored_step: int = 0  # the steps that were done when the val split was scored last
    best_score: float = -math.inf  # `Best.rank` of the best validation
    best_step: int = 0  # the steps that were done at that validation
    rows: int = 0  # of metrics.csv, when the checkpoint was written

    @property
    def scored_model(self) -> EncoderDecoder:
        """The network that is validated and kept as best: the moving average where there is one, else the model."""
        return cast(EncoderDecoder, self.ema.module) if self.ema else self.model


def train_step(state: TrainState, batch: Sample, criterion: Criterion, *, lr: float, config: Config) -> None:
    """Update weights, optimizer and moving average once, from this rank's part of a batch, which is on the model's device.

    The loss is a mean over the whole batch: the sums of all parts and ranks are divided by the counts of all of them.
    Where it or its gradient is not finite, the weights stay as they are and `state.first_bad` remembers the step.
    """
    for group in state.optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
    counts = sum_over_ranks(criterion.counts(batch.truth))
    loss = _compute_gradients(state, batch, criterion, counts, config)
    state.scaler.unscale_(state.optimizer)
    norm = _clip_gradients(state.model, config.optim.clip_norm)
    finite = _is_finite(loss, norm, state.scaler)
    state.first_bad = torch.where(finite | (state.first_bad >= 0), state.first_bad, state.step)
    if not state.scaler.is_enabled():  # an enabled one decides itself whether the optimizer skips the step
        state.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]  # then it skips the step, on the device
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()
    if state.ema:
        state.ema.update_parameters(state.model)
    state.loss_sum += loss
    state.blank_steps += counts == 0
    state.loss_steps += 1
    state.step += 1


def _compute_gradients(state: TrainState, batch: Sample, criterion: Criterion, counts: Tensor, config: Config) -> Tensor:
    """This rank's part of the loss, a scalar. The gradients are those of the whole loss, times the scale of `state.scaler`."""
    loss, parts = torch.zeros_like(state.loss_sum), config.train.accumulate
    for part, (image, truth) in enumerate(zip(batch.image.tensor_split(parts), batch.truth.tensor_split(parts), strict=True)):
        torch.manual_seed(derive_seed(config.seed, "step", state.step, rank(), part))  # dropout is a function of the step
        with _exchanging_gradients(state.network, part == parts - 1):
            with autocast(image.device, config.train.precision):
                outputs = state.network(image)
            part_loss = criterion(outputs, truth, counts)
            state.scaler.scale(part_loss * world_size()).backward()  # gradients are averaged over the ranks, not summed
        loss += part_loss.detach()
    return loss


def _clip_gradients(model: nn.Module, most: float) -> Tensor:
    """The L2 norm of the gradient, a scalar. A gradient with a norm above `most` is scaled to that; 0 clips none."""
    norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    if most:
        nn.utils.clip_grads_with_norm_(model.parameters(), most, norm)
    return norm


def _is_finite(loss: Tensor, norm: Tensor, scaler: torch.amp.GradScaler) -> Tensor:
    """Whether the loss of all ranks and the norm of the gradient are finite: a bool on the device, which nothing waits for.

    An overflow of a scaled gradient does not count: the scaler skips the step and lowers its scale. Below 1 that is no cure.
    """
    finite = sum_over_ranks(loss).isfinite()  # the ranks decide alike: a loss may be infinite on one, with finite gradients
    if scaler.is_enabled():
        return finite & (norm.isfinite() | (scaler.scale(torch.ones_like(loss)) >= 1))
    return finite & norm.isfinite()


def _exchanging_gradients(network: nn.Module, now: bool) -> AbstractContextManager[None]:
    """A context in which the backward pass averages gradients over the ranks if `now`: once a step, with its last part."""
    return nullcontext() if now or not isinstance(network, DistributedDataParallel) else network.no_sync()


def build_state(config: Config, channels: int, device: torch.device, *, pretrained: bool = True) -> TrainState:
    """A fresh network with so many output channels and its optimizer, a function of the seed.

    Without `pretrained`, `model.encoder_weights` are not read.
    """
    torch.manual_seed(derive_seed(config.seed, "weights"))
    architecture = config.model if pretrained else config.model.model_copy(update={"encoder_weights": None})
    bands = config.data.bands
    model = build_model(architecture, channels, bands.channels, ranges=bands.ranges, rgb=bands.rgb).to(device)
    model.recompute = config.train.recompute
    model.use_kernel(config.train.kernel == "native")
    if world_size() > 1 and device.type == "cuda":
        model = cast(EncoderDecoder, nn.SyncBatchNorm.convert_sync_batchnorm(model))  # there is none for CPUs
    if config.optim.encoder_lr_factor == 0:
        model.freeze_encoder()
        if pretrained and is_main() and config.model.encoder_weights is None and config.model.weights is None:
            remedy = "name model.weights or model.encoder_weights, or raise optim.encoder_lr_factor"
            print(f"warning: the encoder is frozen with random weights – {remedy}", file=sys.stderr)
    return TrainState(
        model=model,
        network=CompiledPerSize(model, graph=config.train.accumulate == 1) if config.train.compile else model,
        optimizer=build_optimizer(model, config.optim),
        scaler=torch.amp.GradScaler(device.type, enabled=config.train.precision == "float16"),
        ema=MovingAverage(model, config.train.ema_decay) if config.train.ema_decay else None,
        loss_sum=torch.zeros((), device=device),
        blank_steps=torch.tensor(0, device=device),
        first_bad=torch.tensor(-1, device=device),
    )


def to_device(batch: Sample, device: torch.device) -> Sample:
    """The batch on `device`, with the changes of colour that were left to do there."""
    image = batch.image.to(device, non_blocking=True, memory_format=torch.channels_last)
    if batch.colors:
        change_batch(image, cast(Sequence[Sequence[Change]], batch.colors))
    return Sample(image, batch.truth.to(device, non_blocking=True), batch.id)
