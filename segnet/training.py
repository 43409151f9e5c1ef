"""The training loop. A run is a function of its configuration: stop it anywhere, resume it, and the weights are the same."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from segnet.checkpoint import Checkpoint, load_checkpoint, load_weights, save_checkpoint
from segnet.config import Config, InferenceConfig, LossConfig, OptimConfig, class_warnings, config_to_yaml, dump_config
from segnet.datasets import (
    ResumableSampler,
    Sample,
    SegmentationDataset,
    build_loader,
    class_statistics,
    content_digests,
    derive_seed,
    explain_lost_worker,
    open_split,
    require_open_files,
    warn,
)
from segnet.devices import (
    autocast,
    choose_device,
    choose_precision,
    explain_full_memory,
    peak_memory,
    use_deterministic_algorithms,
    warn_if_emulated,
)
from segnet.distributed import (
    agreed,
    is_main,
    max_over_ranks,
    process_group,
    rank,
    refuse_difference,
    share_buffers,
    sum_over_ranks,
    world_size,
)
from segnet.errors import ExitCode, UserError
from segnet.evaluation import EvaluationStopped, evaluate
from segnet.files import write_text
from segnet.inference import predict_maps
from segnet.losses import Criterion, enet_weights, median_frequency_weights
from segnet.metrics import ConfusionMatrix, Scores
from segnet.models import CompiledPerSize, EncoderDecoder, build_model
from segnet.run_folder import BEST, LAST, PREVIOUS, RunLog, hold_run_folder, newest_checkpoint, record_environment
from segnet.stopping import stop_signals
from segnet.transforms import TrainTransform
from segnet.visualization import comparison, grid

# ---------------------------------------------------------------------------------------------------------------------
# The step
# ---------------------------------------------------------------------------------------------------------------------

Bar: TypeAlias = "tqdm[Any]"
Tensors = tuple[Tensor, ...] | list[Tensor]


@dataclass
class TrainState:
    """Everything that changes while training, and all that a checkpoint needs to continue."""

    model: EncoderDecoder
    network: nn.Module  # what a step calls: the model, compiled where asked, its gradients averaged over the ranks
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: AveragedModel | None
    loss_sum: Tensor  # over the steps since the last log line
    blank_steps: Tensor  # of those steps, how many had no scored pixel
    first_bad: Tensor  # the first step whose loss or gradient was not finite; -1: none
    loss_steps: int = 0
    step: int = 0  # steps done
    scored_step: int = 0  # the steps that were done when the val split was scored last
    best_miou: float = -math.inf
    rows: int = 0  # of metrics.csv, when the checkpoint was written

    @property
    def scored_model(self) -> EncoderDecoder:
        """The network that is evaluated and kept: the moving average, where there is one."""
        return cast(EncoderDecoder, self.ema.module) if self.ema else self.model


def learning_rate(step: int, total_steps: int, optim: OptimConfig) -> float:
    """The rate of step 0..total_steps-1: a warm-up to `optim.lr`, then the schedule down towards zero.

    The warm-up is linear from zero; that of one_cycle (Smith & Topin 2018) follows a cosine from a twenty-fifth of the peak.
    """
    warmup = round(optim.warmup * total_steps)
    if step < warmup:
        rise = 0.5 * (1 - math.cos(math.pi * step / warmup))
        return optim.lr * ((1 + 24 * rise) / 25 if optim.schedule == "one_cycle" else (step + 1) / warmup)
    progress = (step - warmup) / max(1, total_steps - warmup)
    if optim.schedule == "constant":
        return optim.lr
    if optim.schedule in ("cosine", "one_cycle"):
        return optim.lr * 0.5 * (1 + math.cos(math.pi * progress))
    return optim.lr * (1 - progress) ** optim.power


def build_optimizer(model: nn.Module, optim: OptimConfig) -> torch.optim.Optimizer:
    """SGD or AdamW in four groups: encoder or not × kernels (decayed) or biases and batch normalisation (not)."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault((name.startswith("encoder."), parameter.dim() > 1), []).append(parameter)
    parameters = [
        {
            "params": group,
            "lr_factor": optim.encoder_lr_factor if encoder else 1.0,
            "weight_decay": optim.weight_decay if kernel else 0.0,
        }
        for (encoder, kernel), group in groups.items()
    ]
    if optim.name == "sgd":
        sgd = torch.optim.SGD(parameters, lr=optim.lr, momentum=optim.momentum, fused=True)
        if optim.momentum:  # a first step that is skipped would leave torch's own buffers without any value
            for parameter in model.parameters():
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd
    return torch.optim.AdamW(parameters, lr=optim.lr, betas=(optim.momentum, 0.999), fused=True)


def train_step(state: TrainState, batch: Sample, criterion: Criterion, *, lr: float, config: Config) -> None:
    """One update of the weights, the optimizer and the moving average, on this rank's part of a batch, on the model's device.

    The loss is a mean over the whole batch: the sums of all parts and ranks are divided by the counts of all of them.
    Where it or its gradient is not finite, the weights stay as they are and `state.first_bad` remembers the step.
    """
    for group in state.optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
    counts = sum_over_ranks(criterion.counts(batch.mask))
    loss, parts = torch.zeros_like(state.loss_sum), config.train.accumulate
    for part, (image, mask) in enumerate(zip(batch.image.tensor_split(parts), batch.mask.tensor_split(parts), strict=True)):
        torch.manual_seed(derive_seed(config.seed, "step", state.step, rank(), part))  # dropout is a function of the step
        with _exchanging_gradients(state.network, part == parts - 1):
            part_loss = criterion(_forward(state.network, image, config.train.precision), mask, counts)
            state.scaler.scale(part_loss * world_size()).backward()  # gradients are averaged over the ranks, not summed
        loss += part_loss.detach()
    state.scaler.unscale_(state.optimizer)
    gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if config.optim.clip_norm:
        nn.utils.clip_grads_with_norm_(state.model.parameters(), config.optim.clip_norm, norm)
    finite = loss.isfinite()
    if state.scaler.is_enabled():  # it skips steps itself, and lowers its scale; below 1 that is no cure any more
        finite &= norm.isfinite() | (state.scaler.scale(torch.ones_like(loss)) >= 1)
    else:
        finite &= norm.isfinite()
        state.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]  # then it skips the step, on the device
    state.first_bad = torch.where(finite | (state.first_bad >= 0), state.first_bad, state.step)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()
    if state.ema:
        state.ema.update_parameters(state.model)
    state.loss_sum += loss
    state.blank_steps += counts == 0
    state.loss_steps += 1
    state.step += 1


def _forward(network: nn.Module, image: Tensor, precision: str) -> Tensor:
    with autocast(image.device, precision):
        return network(image)


def _exchanging_gradients(network: nn.Module, now: bool) -> AbstractContextManager[None]:
    """Whether the backward pass averages gradients over the ranks; with several parts, the last one does for all."""
    return nullcontext() if now or not isinstance(network, DistributedDataParallel) else network.no_sync()


def build_ema(model: nn.Module, decay: float) -> AveragedModel:
    """A moving average of weights and batch statistics; its decay grows over the first steps, (1 + n) / (10 + n), to `decay`."""

    @torch.no_grad()
    def average(averaged: Tensors, current: Tensors, _: Tensor | int) -> None:
        count = int(ema.n_averaged)  # on the CPU; the argument is its copy on the device, and reading it would wait for the GPU
        now = min(decay, (1 + count) / (10 + count))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - now)
        else:
            torch._foreach_copy_(averaged, current)

    ema = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    return ema


def build_criterion(loss: LossConfig, dataset: SegmentationDataset, device: torch.device) -> Criterion:
    """The loss that `loss` asks for, its class weights measured on the masks of `dataset`."""
    weight: Tensor | None = None
    if loss.class_weights != "none":
        counted = class_statistics(dataset)
        if loss.class_weights == "median_frequency":
            weight = median_frequency_weights(counted.pixels, counted.pixels_of_pictures, loss.weight_power).to(device)
        else:
            weight = enet_weights(counted.pixels, loss.weight_power).to(device)
    return Criterion(weight=weight, smoothing=loss.label_smoothing, hardest=loss.hardest)


def build_state(config: Config, device: torch.device, *, pretrained: bool = True) -> TrainState:
    """A fresh network and optimizer, a function of the seed; without `pretrained`, `model.encoder_weights` are not read."""
    torch.manual_seed(derive_seed(config.seed, "weights"))
    architecture = config.model if pretrained else config.model.model_copy(update={"encoder_weights": None})
    model = build_model(architecture, len(config.data.class_set)).to(device)
    model.memory = config.train.memory
    if world_size() > 1 and device.type == "cuda":
        model = cast(EncoderDecoder, nn.SyncBatchNorm.convert_sync_batchnorm(model))  # there is none for CPUs
    return TrainState(
        model=model,
        network=CompiledPerSize(model) if config.train.compile else model,
        optimizer=build_optimizer(model, config.optim),
        scaler=torch.amp.GradScaler(device.type, enabled=config.train.precision == "float16"),
        ema=build_ema(model, config.train.ema_decay) if config.train.ema_decay else None,
        loss_sum=torch.zeros((), device=device),
        blank_steps=torch.tensor(0, device=device),
        first_bad=torch.tensor(-1, device=device),
    )


def overfit_one_batch(config: Config, steps: int) -> Scores:
    """Train on the first batch alone, at the constant rate `optim.lr`, and score the network on that batch. Nothing is written.

    The sanity check of a new data set or network: an mIoU near 1, or pictures, masks and network do not belong together.
    Raises UserError (data) for a fault of the data set, (numeric) when the loss is not finite.
    """
    device = choose_device(config.device)
    config, _ = _resolve_precision(config, device, None)
    train_set, _ = _open_data(config)
    sampler = ResumableSampler(len(train_set), config.train.batch_size, seed=config.seed, start=0, total=1)
    batch = _to_device(next(iter(build_loader(train_set, sampler, workers=0))), device)
    shown = set(torch.unique(batch.mask).tolist()) - {train_set.classes.ignore_index}
    if len(shown) < 2:
        found = f"the masks of the first batch show {'one class' if shown else 'no class'} alone ({', '.join(batch.id)})"
        raise UserError(ExitCode.DATA, config.data.root, found, "raise train.batch_size, or set another seed")
    state, criterion = build_state(config, device), build_criterion(config.loss, train_set, device)
    for step in range(steps):
        train_step(state, batch, criterion, lr=config.optim.lr, config=config)
        if due(step + 1, steps, max(1, steps // 10)):
            _say(f"step {step + 1}/{steps}  loss {float(state.loss_sum) / state.loss_steps:.4f}")
            state.loss_sum, state.loss_steps = torch.zeros_like(state.loss_sum), 0
    if state.first_bad >= 0:
        found = f"step {int(state.first_bad) + 1}: the loss or its gradient is not finite (pictures {', '.join(batch.id)})"
        raise UserError(ExitCode.NUMERIC, config.data.root, found, "lower optim.lr")
    predicted = predict_maps(state.model, batch.image, InferenceConfig()).mask
    return ConfusionMatrix(len(train_set.classes)).update(batch.mask.cpu(), predicted).scores()


# ---------------------------------------------------------------------------------------------------------------------
# The run
# ---------------------------------------------------------------------------------------------------------------------


def train(config: Config, run: Path, *, resume: bool = False) -> Path:
    """Train as `config` says into the run folder `run`, and return the path of its best checkpoint.

    With `resume` it continues from the newest intact checkpoint, or starts at step 0 where there is none, and says which.
    Under torchrun the ranks divide each batch among them; all need to see the same data and the same run folder.
    SIGINT, SIGTERM, SIGHUP, SIGUSR1 and SIGXCPU end it (SystemExit 128 + number) after the running step, with a checkpoint;
    after SIGTERM a step that takes longer than nine seconds is given up, and the process with it.
    Raises UserError: (data) for a fault of the data set, (config) when `run` holds a run and `resume` is off,
    (checkpoint) when every checkpoint is damaged or of another configuration, (numeric) when a loss or a gradient is not
    finite, (worker lost) when a data worker or a rank died.
    """
    device = choose_device(config.device)
    use_deterministic_algorithms(config.train.deterministic)
    with process_group(device), ExitStack() as held:
        with agreed():
            train_set, val_set = _open_data(config)
            if is_main():
                held.enter_context(hold_run_folder(run, resume=resume))
        with agreed():
            pictures = _Pictures.of(train_set, val_set)
            found = newest_checkpoint(run) if resume else None
            config, stored = _resolve_precision(config, device, found[1] if found else None)
            state = build_state(config, device, pretrained=found is None)
            if found:
                _restore(state, *found, stored, pictures)
        refuse_difference(pictures.digest, "pictures or masks")
        refuse_difference(state.step, "checkpoints")
        if world_size() > 1:
            state.network = DistributedDataParallel(state.network, device_ids=[device] if device.type == "cuda" else None)
        if resume:
            where = f"resuming {found[0]} at step {state.step}, in {config.train.precision}" if found else ""
            _say(where or f"no checkpoint in {run} yet: starting at step 0")
        if found and is_main() and found[0].name == PREVIOUS:
            os.replace(found[0], run / LAST)  # or the next save would put a damaged last.pt in its place
        if state.step >= total_steps(config, train_set) and state.scored_step == state.step:
            _say(f"the run is complete ({state.step} steps); for more, {_start_from(run)}")
            return run / BEST
        with agreed():
            if is_main():
                write_text(run / "config.yaml", config_to_yaml(config))
                precision = {"train": config.train.precision, "inference": config.inference.precision}
                resumed_at = state.step if found else None
                record_environment(run / "environment.json", device, precision=precision, resumed_at=resumed_at)
        with _explained():
            _Run(config, stored, run, state, train_set, val_set, pictures).train()
    return run / BEST


def _resolve_precision(config: Config, device: torch.device, began: Checkpoint | None) -> tuple[Config, Config]:
    """`config` twice, with the precisions that its "auto" means: to compute with, and to be stored in checkpoints.

    A resumed run keeps what it `began` with, since other arithmetic gives other bits. Checkpoints keep an "auto" of
    `inference.precision`, so that evaluation and prediction choose for the device that they run on.
    """
    train, inference = config.train.precision, config.inference.precision
    if began:
        train = began.config.train.precision if train == "auto" else train
        inference = began.config.inference.precision if inference == "auto" else inference
    chosen = choose_precision(train, device)
    warn_if_emulated(chosen, "train.precision")
    stored = _with_precision(config, chosen.name, inference)
    if began and began.training and inference == "auto":
        inference = began.training.get("inference_precision", inference)
    return _with_precision(config, chosen.name, choose_precision(inference, device).name), stored


def _with_precision(config: Config, train: str, inference: str) -> Config:
    """`config` with other precisions."""
    sections = {
        "train": config.train.model_copy(update={"precision": train}),
        "inference": config.inference.model_copy(update={"precision": inference}),
    }
    return config.model_copy(update=sections)


def total_steps(config: Config, train_set: SegmentationDataset) -> int:
    """How many steps the run has: enough for every epoch, at least one."""
    return max(1, math.ceil(config.train.epochs * len(train_set) / config.train.batch_size))


def due(step: int, total_steps: int, every: int) -> bool:
    """Whether something that happens every so many steps, and at the end, happens after `step` steps.

    Not shortly before the end, where the end would only repeat it.
    """
    return step == total_steps or (step % every == 0 and total_steps - step >= every / 2)


class _Pictures(NamedTuple):
    """What a run learns from and is scored on: the pictures of both splits, by name and by content."""

    ids: list[str]
    names: int  # a digest of both lists
    content: Tensor  # (N,) int64: a digest of each picture and its mask

    @classmethod
    def of(cls, train_set: SegmentationDataset, val_set: SegmentationDataset) -> _Pictures:
        content = torch.cat([content_digests(train_set), content_digests(val_set)])
        return cls([*train_set.ids, *val_set.ids], derive_seed(*train_set.ids, "/", *val_set.ids), content)

    @property
    def digest(self) -> int:
        return derive_seed(self.names, *self.content.tolist())


_TIME_IS_UP = 1000  # a reason to stop beside the numbers of signals


class _Run:
    """One run: the loop, and what it writes. Only rank 0 writes."""

    def __init__(
        self,
        config: Config,
        stored: Config,
        folder: Path,
        state: TrainState,
        train_set: SegmentationDataset,
        val_set: SegmentationDataset,
        pictures: _Pictures,
    ) -> None:
        self.config, self.stored = config, stored  # to compute with, and to write into checkpoints
        self.folder, self.state = folder, state
        self.train_set, self.val_set, self.pictures = train_set, val_set, pictures
        self.device = state.loss_sum.device
        per_epoch = len(train_set) / config.train.batch_size
        self.total_steps = total_steps(config, train_set)
        self.eval_every = max(1, round(config.train.eval_every * per_epoch))
        self.save_every = max(1, round(config.train.save_every * per_epoch))
        self.sampler = ResumableSampler(
            len(train_set),
            config.train.batch_size,
            seed=config.seed,
            start=state.step,
            total=self.total_steps,
            sizes=config.augment.sizes,
        )
        self.log = RunLog(folder, step=state.step, rows=state.rows) if is_main() else None
        hidden = None if is_main() else True  # None: hidden where there is no terminal
        self.bar: Bar = tqdm(total=self.total_steps, initial=state.step, unit="step", disable=hidden, file=sys.stderr)
        self.signals: list[int] = []
        self.started = self.clock = time.perf_counter()
        self.clock_step, self.waited = state.step, 0.0

    def train(self) -> None:
        """Train until the last step, a signal, or the time limit."""
        config, state = self.config, self.state
        parameters, pictures = sum(p.numel() for p in state.model.parameters()), (len(self.train_set), len(self.val_set))
        ranks = f", {world_size()} ranks" if world_size() > 1 else ""
        _say(f"{parameters:,} parameters, {pictures[0]} train and {pictures[1]} val pictures, {self.total_steps} steps{ranks}")
        if self.log:
            self.log.text("config", f"```yaml\n{config_to_yaml(config)}```", state.step)
        with agreed():
            criterion = build_criterion(config.loss, self.train_set, self.device)
        with stop_signals(self.signals), self.bar, closing(self.log) if self.log else nullcontext():
            if state.step and due(state.step, self.total_steps, self.eval_every) and state.scored_step < state.step:
                self._score()  # the signal that stopped the run came before its evaluation
                self._save()
            stop = self._told_to_stop()
            with closing(self._batches()) as batches:
                while state.step < self.total_steps and not stop:
                    lr = learning_rate(state.step, self.total_steps, config.optim)
                    train_step(state, self._next(batches), criterion, lr=lr, config=config)
                    self.bar.update()
                    if self.device.type == "cpu":
                        self._refuse_non_finite()  # costs nothing here; on a GPU it waits for the step to end
                    if due(state.step, self.total_steps, config.train.log_every):
                        self._log(lr)  # the only host sync in the loop
                    if due(state.step, self.total_steps, self.eval_every):
                        self._score()
                    stop = self._told_to_stop()
                    if due(state.step, self.total_steps, self.save_every) or stop:
                        self._save()
            if stop and not (state.step == self.total_steps == state.scored_step):
                self._leave(stop)

    def _batches(self) -> Generator[Sample, None, None]:
        data, pin = self.config.data, self.device.type == "cuda"
        yield from build_loader(self.train_set, self.sampler, workers=data.workers, timeout=data.worker_timeout, pin_memory=pin)

    def _next(self, batches: Iterator[Sample]) -> Sample:
        """This rank's part of the next batch, on the device."""
        started = time.perf_counter()
        with agreed():
            batch = next(batches)
        self.waited += time.perf_counter() - started
        return _to_device(batch, self.device)

    def _told_to_stop(self) -> int:
        """The signal that a rank received, or that the time is up; 0: go on. A step is always made, so that any limit gets on."""
        limit, begun = 60 * self.config.train.max_minutes, self.state.step > self.sampler.start
        up = begun and limit and time.perf_counter() - self.started > limit
        return max_over_ranks(self.signals[0] if self.signals else _TIME_IS_UP if up else 0)

    def _leave(self, reason: int) -> None:
        after = f" after {self.config.train.max_minutes:g} minutes" if reason == _TIME_IS_UP else ""
        _say(f"stopped{after} at step {self.state.step}; --resume continues from here")
        if reason != _TIME_IS_UP:
            sys.exit(128 + reason)

    def _refuse_non_finite(self) -> None:
        """Raises UserError (numeric) with the pictures of the first step whose loss or gradient was not finite."""
        with agreed():
            step = int(self.state.first_bad)
            if step >= 0:
                ids = ", ".join(self.train_set.ids[key.picture] for key in self.sampler.batch(step))
                found = f"step {step + 1}: the loss or its gradient is not finite (pictures {ids})"
                remedy = "look at them and their masks, or start a new --run with a lower optim.lr or with optim.clip_norm"
                raise UserError(ExitCode.NUMERIC, self.folder, found, remedy)

    def _log(self, lr: float) -> None:
        self._refuse_non_finite()
        state = self.state
        loss = float(sum_over_ranks(state.loss_sum)) / max(1, state.loss_steps)
        blank, steps = int(state.blank_steps), state.loss_steps
        state.loss_sum.zero_()
        state.blank_steps.zero_()
        state.loss_steps = 0
        now = time.perf_counter()
        elapsed = max(1e-9, now - self.clock)
        speed, waiting = (state.step - self.clock_step) * self.config.train.batch_size / elapsed, self.waited / elapsed
        self.clock, self.clock_step, self.waited = now, state.step, 0.0
        if not self.log:
            return
        if blank:
            print(f"warning: {blank} of the last {steps} batches had no scored pixel (masks of 255 alone)", file=sys.stderr)
        memory = peak_memory(self.device)
        speeds = {"pictures_per_second": speed, "waiting_for_data": waiting, "memory_gb": memory}
        self.log.write(state.step, {"epoch": self._epoch(), "learning_rate": lr, "loss": loss}, **speeds)
        if self.bar.disable:
            left = (self.total_steps - state.step) * self.config.train.batch_size / max(1e-9, speed)
            _say(
                f"step {state.step}/{self.total_steps}  epoch {self._epoch():.2f}  loss {loss:.4f}  lr {lr:.2e}  "
                f"{speed:.1f} pictures/s  data {waiting:.0%}  {memory:.1f} GB  {left / 60:.1f} min left"
            )
        else:
            self.bar.set_postfix(loss=f"{loss:.4f}", lr=f"{lr:.1e}", pictures_per_second=f"{speed:.1f}", data=f"{waiting:.0%}")

    def _score(self) -> None:
        """Evaluate on the val split; keep the network as best.pt when it beats the best so far. A signal leaves it unscored."""
        self._refuse_non_finite()
        started = time.perf_counter()
        state, data = self.state, self.config.data
        share_buffers(state.scored_model)
        loader = build_loader(self.val_set, workers=data.workers, timeout=data.worker_timeout)
        try:
            scores = evaluate(state.scored_model, loader, self.config.inference, stop=lambda: self.signals)
        except EvaluationStopped:
            return
        miou = -1.0 if math.isnan(scores.miou) else scores.miou  # NaN: the split has no scored pixel
        improved = miou > state.best_miou
        with agreed():
            if improved and is_main():
                save_checkpoint(self.folder / BEST, self._checkpoint(scores.miou))
            state.best_miou, state.scored_step = max(miou, state.best_miou), state.step
            self._report(scores, "  best so far" if improved else "")
        state.model.train()
        self.clock += time.perf_counter() - started  # evaluation is not training time

    def _report(self, scores: Scores, remark: str) -> None:
        if not self.log:
            return
        step = self.state.step
        accuracies = {"val_global_accuracy": scores.global_accuracy, "val_mean_accuracy": scores.mean_accuracy}
        self.log.write(step, {"epoch": self._epoch(), "val_miou": scores.miou, **accuracies})
        rows = []
        for index in range(min(3, len(self.val_set))):
            sample = self.val_set.read(index)
            image = sample.image[None].to(self.device)
            prediction = predict_maps(self.state.scored_model, image, self.config.inference).mask[0]
            rows.append(comparison(sample.image, sample.mask, prediction, self.val_set.classes))
        self.log.picture("val/picture, truth, prediction", grid(rows), step)
        self.bar.write(f"step {step}  epoch {self._epoch():.2f}  val mIoU {100 * scores.miou:.2f}{remark}", file=sys.stdout)
        sys.stdout.flush()

    def _epoch(self) -> float:
        return self.state.step * self.config.train.batch_size / len(self.train_set)

    def _checkpoint(self, miou: float | None) -> Checkpoint:
        return Checkpoint(self.stored, self.state.step, miou, self.state.scored_model.state_dict())

    def _save(self) -> None:
        """Write last.pt: the network, and all that training needs to continue to the bit."""
        self._refuse_non_finite()
        state = self.state
        total = sum_over_ranks(state.loss_sum)
        state.loss_sum.copy_(total if is_main() else torch.zeros_like(total))
        share_buffers(state.model)
        with agreed():
            if not self.log:
                return
            training = {
                "optimizer": state.optimizer.state_dict(),
                "scaler": state.scaler.state_dict(),
                "ema": {"updates": state.ema.n_averaged, "model": state.model.state_dict()} if state.ema else None,
                "best_miou": state.best_miou,
                "scored_step": state.scored_step,
                "loss_sum": state.loss_sum,
                "loss_steps": state.loss_steps,
                "rows": self.log.rows,
                "names": self.pictures.names,
                "content": self.pictures.content,
                "inference_precision": self.config.inference.precision,
            }
            last = self._checkpoint(None)._replace(training=training)
            save_checkpoint(self.folder / LAST, last, keep=self.folder / PREVIOUS)


def _to_device(batch: Sample, device: torch.device) -> Sample:
    image = batch.image.to(device, non_blocking=True, memory_format=torch.channels_last)
    return Sample(image, batch.mask.to(device, non_blocking=True), batch.id)


def _open_data(config: Config) -> tuple[SegmentationDataset, SegmentationDataset]:
    """The train and the val split. Raises UserError (data) for a fault of theirs, (config) when ranks would have no pictures."""
    data, parts = config.data, config.train.accumulate * world_size()
    if config.train.batch_size < parts:
        found = f"{config.train.batch_size} pictures for {parts} parts (ranks × train.accumulate)"
        raise UserError(ExitCode.CONFIG, "train.batch_size", found, "raise it, or use fewer ranks or parts")
    if data.val_split == data.train_split:
        found = f"data.train_split and data.val_split are both '{data.val_split}'"
        raise UserError(ExitCode.DATA, data.root, found, "score on pictures that training does not see")
    require_open_files(2 * data.workers)  # those of an evaluation are there beside those of training
    train_set, val_set = open_train_set(config), open_split(data, data.val_split)
    warn(class_warnings(data))
    if data.cache == "disk":
        for dataset in (train_set, val_set):
            dataset.keep_decoded(Path(data.cache_folder) if data.cache_folder else None)
    return train_set, val_set


def open_train_set(config: Config) -> SegmentationDataset:
    """The train split, augmented as `config` says. Raises UserError (data) for a fault of its."""
    return open_split(config.data, config.data.train_split, transform=TrainTransform(config.augment), seed=config.seed)


def _restore(state: TrainState, path: Path, checkpoint: Checkpoint, config: Config, pictures: _Pictures) -> None:
    """Bring `state` to where a checkpoint stands. Raises UserError (checkpoint) when it is of other configuration or data."""
    training = checkpoint.training
    if training is None:
        raise UserError(ExitCode.CHECKPOINT, path, "holds no training state", "resume from a last.pt")
    changed = _changed_keys(checkpoint.config, config)
    if changed:
        found = f"was trained with another {', '.join(changed)}"
        remedy = f"resume with the same configuration, on which the schedule depends, or {_start_from(path.parent)}"
        raise UserError(ExitCode.CHECKPOINT, path, found, remedy)
    if training["names"] != pictures.names:
        found = f"was trained with another list of pictures than the splits in {config.data.root} hold now"
        raise UserError(ExitCode.CHECKPOINT, path, found, "restore the lists, or choose another --run")
    others = [pictures.ids[index] for index in (training["content"] != pictures.content).nonzero().flatten().tolist()]
    if others:
        found = f"{len(others)} pictures or masks in {config.data.root} have changed since: {', '.join(others[:10])}"
        raise UserError(ExitCode.CHECKPOINT, path, found, "restore them, or choose another --run")
    try:
        _restore_values(state, checkpoint, training, path)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):
        raise UserError(ExitCode.CHECKPOINT, path, "holds no usable training state", "resume from another last.pt") from None


def _restore_values(state: TrainState, checkpoint: Checkpoint, training: dict[str, Any], path: Path) -> None:
    if state.ema:
        load_weights(state.ema.module, checkpoint.weights, path)
        load_weights(state.model, training["ema"]["model"], path)
        state.ema.n_averaged.copy_(training["ema"]["updates"])
    else:
        load_weights(state.model, checkpoint.weights, path)
    state.optimizer.load_state_dict(training["optimizer"])
    state.scaler.load_state_dict(training["scaler"])
    state.step, state.scored_step, state.rows = checkpoint.step, training["scored_step"], training["rows"]
    state.best_miou = training["best_miou"] if _intact(path.with_name(BEST)) else -math.inf
    state.loss_sum.copy_(training["loss_sum"] if is_main() else torch.zeros(()))
    state.loss_steps = training["loss_steps"]


def _intact(best: Path) -> bool:
    """Whether the best checkpoint can be read; where not, the next evaluation makes a new one."""
    try:
        load_checkpoint(best)
    except UserError as error:
        if best.exists():
            _say(f"warning: {error.path}: {error.found}; the best network from here on takes its place")
        return False
    return True


def _start_from(run: Path) -> str:
    """How what a run has learnt is of use to one with another configuration."""
    return f"start another --run from its encoder: model.encoder_weights={run}"


_FREE_TO_CHANGE = {"device", "data.root", "data.workers", "data.worker_timeout", "data.cache", "data.cache_folder"}
_FREE_TO_CHANGE |= {"data.colors", "train.memory", "train.max_minutes", "train.log_every", "train.eval_every", "train.save_every"}


def _changed_keys(old: Config, new: Config) -> list[str]:
    """The keys that differ and change what is learnt, each with its old and its new value."""

    def flatten(value: object, path: str = "") -> dict[str, object]:
        if not isinstance(value, dict):
            return {path: value}
        return {k: v for key, item in value.items() for k, v in flatten(item, f"{path}.{key}" if path else key).items()}

    before, after = flatten(dump_config(old)), flatten(dump_config(new))
    changed = [key for key in after if before.get(key) != after[key] and key not in _FREE_TO_CHANGE]
    return [f"{key} ({before.get(key)}, now {after[key]})" for key in changed]


@contextmanager
def _explained() -> Iterator[None]:
    """What torch says of a full memory, a lost worker, or an operation that is not deterministic, with what to change."""
    remedy = "set train.memory=lean, raise train.accumulate, or lower train.batch_size or augment.crop_size"
    try:
        with explain_full_memory(remedy), explain_lost_worker():
            yield
    except RuntimeError as error:
        found = (str(error).splitlines() or [""])[0]
        if "deterministic implementation" in found:
            raise UserError(ExitCode.CONFIG, "train.deterministic", found, "choose a network without it, or give it up") from None
        raise


def _say(text: str) -> None:
    if is_main():
        print(text, flush=True)
