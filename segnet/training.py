"""The training loop. A run is a function of its configuration: stop it anywhere, resume it, and the weights are the same."""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

import torch
import torchvision
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from segnet.checkpoint import Checkpoint, load_checkpoint, load_weights, save_checkpoint
from segnet.config import Config, LossConfig, OptimConfig, config_to_yaml, dump_config
from segnet.datasets import (
    ResumableSampler,
    Sample,
    SegmentationDataset,
    build_loader,
    class_statistics,
    derive_seed,
)
from segnet.devices import choose_device, describe_device, use_deterministic_algorithms
from segnet.errors import ExitCode, UserError
from segnet.evaluation import evaluate
from segnet.files import lock_folder, remove_stale_temporaries, write_text
from segnet.inference import predict_probabilities
from segnet.losses import Criterion, cross_entropy, median_frequency_weights
from segnet.metrics import Scores
from segnet.models import build_model
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

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: AveragedModel | None
    step: int = 0  # steps done
    best_miou: float = -math.inf
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros(()))  # over the steps since the last log line
    loss_steps: int = 0

    @property
    def scored_model(self) -> nn.Module:
        """The network that is evaluated and kept: the moving average, where there is one."""
        return self.ema.module if self.ema else self.model


def learning_rate(step: int, total_steps: int, optim: OptimConfig) -> float:
    """The rate of step 0..total_steps-1: a linear warm-up to `optim.lr`, then the schedule down towards zero."""
    warmup = round(optim.warmup * total_steps)
    if step < warmup:
        return optim.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    if optim.schedule == "constant":
        return optim.lr
    if optim.schedule == "cosine":
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
        return torch.optim.SGD(parameters, lr=optim.lr, momentum=optim.momentum, fused=True)
    return torch.optim.AdamW(parameters, lr=optim.lr, betas=(optim.momentum, 0.999), fused=True)


def train_step(state: TrainState, batch: Sample, criterion: Criterion, *, lr: float, config: Config) -> None:
    """One update of the weights, the optimizer and the moving average, on a batch that is on the model's device."""
    torch.manual_seed(derive_seed(config.seed, "step", state.step))  # dropout is a function of the step
    for group in state.optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
    precision = getattr(torch, config.train.precision)
    with torch.autocast(batch.image.device.type, precision, enabled=precision is not torch.float32):
        logits = state.model(batch.image)
    loss = criterion(logits, batch.mask)
    state.scaler.scale(loss).backward()
    if config.optim.clip_norm:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), config.optim.clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()
    if state.ema:
        state.ema.update_parameters(state.model)
    state.loss_sum += loss.detach()
    state.loss_steps += 1
    state.step += 1


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
    """Cross-entropy with the weights that `loss` asks for, measured on the masks of `dataset`."""
    weight: Tensor | None = None
    if loss.class_weights == "median_frequency":
        counted = class_statistics(dataset)
        weight = median_frequency_weights(counted.pixels, counted.pixels_of_pictures, loss.weight_power).to(device)

    def criterion(logits: Tensor, mask: Tensor) -> Tensor:
        return cross_entropy(logits, mask, weight=weight, smoothing=loss.label_smoothing)

    return criterion


# ---------------------------------------------------------------------------------------------------------------------
# The run
# ---------------------------------------------------------------------------------------------------------------------


def train(config: Config, run: Path, *, resume: bool = False) -> Path:
    """Train as `config` says into the run folder `run`, and return the path of its best checkpoint.

    With `resume` it continues from last.pt, or starts at step 0 where there is none, and says which.
    Raises UserError: (data) for a fault of the data set, (config) when `run` holds a run and `resume` is off,
    (checkpoint) when last.pt is damaged or of another configuration, (numeric) when the loss is not finite.
    """
    device = choose_device(config.device)
    use_deterministic_algorithms(config.train.deterministic)
    classes, root = config.data.class_set, Path(config.data.root)
    transform = TrainTransform(config.augment)
    train_set = SegmentationDataset(root, config.data.train_split, classes, transform=transform, seed=config.seed)
    val_set = SegmentationDataset(root, config.data.val_split, classes)
    if not resume and any((run / name).exists() for name in ("last.pt", "metrics.csv")):
        raise UserError(ExitCode.CONFIG, run, "holds a run already", "add --resume to continue it, or choose another --run")
    run.mkdir(parents=True, exist_ok=True)
    with lock_folder(run):
        remove_stale_temporaries(run)
        resumes = resume and (run / "last.pt").exists()
        if resume and not resumes:
            print(f"no checkpoint in {run} yet: starting at step 0")
        fingerprint = derive_seed(*train_set.ids, "/", *val_set.ids)
        state = build_state(config, device, pretrained=not resumes)
        if resumes:
            _resume(state, config, run / "last.pt", fingerprint)
        if state.step >= total_steps(config, train_set):
            print(f"the run is complete ({state.step} steps)")
            return run / "best.pt"
        write_text(run / "config.yaml", config_to_yaml(config))
        write_text(run / "environment.json", json.dumps(environment(device), indent=1) + "\n")
        _Run(config, run, state, train_set, val_set, fingerprint).train()
    return run / "best.pt"


def build_state(config: Config, device: torch.device, *, pretrained: bool = True) -> TrainState:
    """A fresh network and optimizer, a function of the seed; without `pretrained`, `model.encoder_weights` are not read."""
    torch.manual_seed(derive_seed(config.seed, "weights"))
    network = config.model if pretrained else config.model.model_copy(update={"encoder_weights": None})
    model = build_model(network, len(config.data.class_set)).to(device)
    return TrainState(
        model=model,
        optimizer=build_optimizer(model, config.optim),
        scaler=torch.amp.GradScaler(device.type, enabled=config.train.precision == "float16"),
        ema=build_ema(model, config.train.ema_decay) if config.train.ema_decay else None,
        loss_sum=torch.zeros((), device=device),
    )


def total_steps(config: Config, train_set: SegmentationDataset) -> int:
    """How many steps the run has: enough for every epoch, at least one."""
    return max(1, math.ceil(config.train.epochs * len(train_set) / config.train.batch_size))


def due(step: int, total_steps: int, every: int) -> bool:
    """Whether something that happens every so many steps, and at the end, happens after `step` steps.

    Not shortly before the end, where the end would only repeat it.
    """
    return step == total_steps or (step % every == 0 and total_steps - step >= every / 2)


class _Run:
    """One run: the loop, and what it writes."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        state: TrainState,
        train_set: SegmentationDataset,
        val_set: SegmentationDataset,
        fingerprint: int,
    ) -> None:
        self.config, self.folder, self.state = config, folder, state
        self.train_set, self.val_set, self.fingerprint = train_set, val_set, fingerprint
        self.device = next(state.model.parameters()).device
        per_epoch = len(train_set) / config.train.batch_size
        self.total_steps = total_steps(config, train_set)
        self.eval_every = max(1, round(config.train.eval_every * per_epoch))
        self.save_every = max(1, round(config.train.save_every * per_epoch))
        self.metrics = MetricsFile(folder / "metrics.csv", state.step)
        self.clock, self.clock_step = time.perf_counter(), state.step

    def train(self) -> None:
        config, state = self.config, self.state
        parameters, pictures = sum(p.numel() for p in state.model.parameters()), (len(self.train_set), len(self.val_set))
        print(f"{parameters:,} parameters, {pictures[0]} train and {pictures[1]} val pictures, {self.total_steps} steps")
        criterion = build_criterion(config.loss, self.train_set, self.device)
        board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=state.step + 1)
        board.add_text("config", f"```yaml\n{config_to_yaml(config)}```", state.step)
        bar: Bar = tqdm(total=self.total_steps, initial=state.step, unit="step", disable=None, file=sys.stderr)
        with _stop_signals() as stop, board, bar:
            batches = iter(self._loader())
            while state.step < self.total_steps:
                lr = learning_rate(state.step, self.total_steps, config.optim)
                train_step(state, _to_device(next(batches), self.device), criterion, lr=lr, config=config)
                bar.update()
                if due(state.step, self.total_steps, config.train.log_every):
                    self._log(board, bar, lr)  # the only host sync in the loop
                if due(state.step, self.total_steps, self.eval_every):
                    self._score(board, bar)
                if due(state.step, self.total_steps, self.save_every) or stop:
                    self._save()
                if stop:
                    print(f"stopped at step {state.step}; --resume continues from here", file=sys.stderr)
                    sys.exit(128 + stop[0])

    def _loader(self) -> torch.utils.data.DataLoader[Sample]:
        sampler = ResumableSampler(
            len(self.train_set),
            self.config.train.batch_size,
            seed=self.config.seed,
            start=self.state.step,
            total=self.total_steps,
        )
        workers, pin = self.config.data.workers, self.device.type == "cuda"
        return build_loader(self.train_set, sampler, workers=workers, pin_memory=pin)

    def _mean_loss(self) -> float:
        """The mean loss since the last log line. Raises UserError (numeric) when a step's was not finite."""
        mean = float(self.state.loss_sum) / max(1, self.state.loss_steps)
        if not math.isfinite(mean):
            found = f"the loss was not finite between steps {self.state.step - self.state.loss_steps} and {self.state.step}"
            raise UserError(ExitCode.NUMERIC, self.folder, found, "start a new --run with a lower optim.lr")
        return mean

    def _log(self, board: SummaryWriter, bar: Bar, lr: float) -> None:
        state, loss = self.state, self._mean_loss()
        now = time.perf_counter()
        speed = (state.step - self.clock_step) * self.config.train.batch_size / max(1e-9, now - self.clock)
        self.clock, self.clock_step = now, state.step
        state.loss_sum.zero_()
        state.loss_steps = 0
        self.metrics.append(step=state.step, epoch=self._epoch(), learning_rate=lr, loss=loss)
        board.add_scalar("train/loss", loss, state.step)
        board.add_scalar("train/learning_rate", lr, state.step)
        board.add_scalar("train/pictures_per_second", speed, state.step)
        if bar.disable:
            left = (self.total_steps - state.step) * self.config.train.batch_size / max(1e-9, speed)
            print(
                f"step {state.step}/{self.total_steps}  epoch {self._epoch():.2f}  loss {loss:.4f}  lr {lr:.2e}  "
                f"{speed:.1f} pictures/s  {left / 60:.1f} min left",
                flush=True,
            )
        else:
            bar.set_postfix(loss=f"{loss:.4f}", lr=f"{lr:.1e}", pictures_per_second=f"{speed:.1f}")

    def _score(self, board: SummaryWriter, bar: Bar) -> None:
        """Evaluate on the val split; keep the network as best.pt when it beats the best so far."""
        self._mean_loss()
        started = time.perf_counter()
        state, inference = self.state, self.config.inference
        loader = build_loader(self.val_set, workers=self.config.data.workers)
        scores = evaluate(state.scored_model, loader, inference)
        miou = -1.0 if math.isnan(scores.miou) else scores.miou  # NaN: the split has no scored pixel
        improved = miou > state.best_miou
        if improved:
            state.best_miou = miou
            save_checkpoint(self.folder / "best.pt", self._checkpoint(scores.miou))
        self._report(board, bar, scores, "  best so far" if improved else "")
        state.model.train()
        self.clock += time.perf_counter() - started  # evaluation is not training time

    def _report(self, board: SummaryWriter, bar: Bar, scores: Scores, remark: str) -> None:
        step = self.state.step
        self.metrics.append(
            step=step,
            epoch=self._epoch(),
            val_miou=scores.miou,
            val_global_accuracy=scores.global_accuracy,
            val_mean_accuracy=scores.mean_accuracy,
        )
        board.add_scalar("val/miou", scores.miou, step)
        board.add_scalar("val/global_accuracy", scores.global_accuracy, step)
        rows = []
        for index in range(min(3, len(self.val_set))):
            sample = self.val_set.read(index)
            image = sample.image[None].to(self.device)
            prediction = predict_probabilities(self.state.scored_model, image, self.config.inference).mean.argmax(dim=1)[0]
            rows.append(comparison(sample.image, sample.mask, prediction, self.val_set.classes))
        board.add_image("val/picture, truth, prediction", grid(rows), step, dataformats="HWC")
        bar.write(f"step {step}  epoch {self._epoch():.2f}  val mIoU {100 * scores.miou:.2f}{remark}", file=sys.stdout)
        sys.stdout.flush()

    def _epoch(self) -> float:
        return self.state.step * self.config.train.batch_size / len(self.train_set)

    def _checkpoint(self, miou: float | None) -> Checkpoint:
        return Checkpoint(self.config, self.state.step, miou, self.state.scored_model.state_dict())

    def _save(self) -> None:
        """Write last.pt: the network, and all that training needs to continue to the bit."""
        self._mean_loss()
        state = self.state
        training = {
            "optimizer": state.optimizer.state_dict(),
            "scaler": state.scaler.state_dict(),
            "ema": {"updates": state.ema.n_averaged, "model": state.model.state_dict()} if state.ema else None,
            "best_miou": state.best_miou,
            "loss_sum": state.loss_sum,
            "loss_steps": state.loss_steps,
            "pictures": self.fingerprint,
        }
        save_checkpoint(self.folder / "last.pt", self._checkpoint(None)._replace(training=training))


def _resume(state: TrainState, config: Config, path: Path, fingerprint: int) -> None:
    """Bring `state` to where a checkpoint stands. Raises UserError (checkpoint) when it is of other configuration or data."""
    checkpoint = load_checkpoint(path)
    training = checkpoint.training
    if training is None:
        raise UserError(ExitCode.CHECKPOINT, path, "holds no training state", "resume from a last.pt")
    changed = _changed_keys(checkpoint.config, config)
    if changed:
        found = f"was trained with another {', '.join(changed)}"
        raise UserError(ExitCode.CHECKPOINT, path, found, "resume with the same configuration, or choose another --run")
    if training["pictures"] != fingerprint:
        found = f"was trained with another list of pictures than the splits in {config.data.root} hold now"
        raise UserError(ExitCode.CHECKPOINT, path, found, "restore the lists, or choose another --run")
    if state.ema:
        load_weights(state.ema.module, checkpoint.weights, path)
        load_weights(state.model, training["ema"]["model"], path)
        state.ema.n_averaged.copy_(training["ema"]["updates"])
    else:
        load_weights(state.model, checkpoint.weights, path)
    state.optimizer.load_state_dict(training["optimizer"])
    state.scaler.load_state_dict(training["scaler"])
    state.step, state.best_miou = checkpoint.step, training["best_miou"]
    state.loss_sum.copy_(training["loss_sum"])
    state.loss_steps = training["loss_steps"]
    print(f"resuming {path} at step {state.step}")


_FREE_TO_CHANGE = {"device", "data.root", "data.workers", "train.log_every", "train.eval_every", "train.save_every"}


def _changed_keys(old: Config, new: Config) -> list[str]:
    """The keys that differ and change what is learnt."""

    def flatten(value: object, path: str = "") -> dict[str, object]:
        if not isinstance(value, dict):
            return {path: value}
        return {k: v for key, item in value.items() for k, v in flatten(item, f"{path}.{key}" if path else key).items()}

    before, after = flatten(dump_config(old)), flatten(dump_config(new))
    return [key for key in after if before.get(key) != after[key] and key not in _FREE_TO_CHANGE]


class MetricsFile:
    """metrics.csv: one row per log line and per evaluation. Rows after the step that is resumed from are dropped."""

    COLUMNS = ("step", "epoch", "learning_rate", "loss", "val_miou", "val_global_accuracy", "val_mean_accuracy")

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept = [",".join(self.COLUMNS)]
        if step and path.exists():
            rows = path.read_text().split("\n")[1:-1]  # what stands behind the last line break was cut off by a kill
            kept += [row for row in rows if row.split(",")[0].isdecimal() and int(row.split(",")[0]) <= step]
        write_text(path, "".join(line + "\n" for line in kept))

    def append(self, **values: float) -> None:
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, self.COLUMNS, lineterminator="\n").writerow(values)
            file.flush()
            os.fsync(file.fileno())  # a checkpoint never knows more than this file


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that receives the first SIGINT or SIGTERM; the loop looks at it after each step. A second one interrupts."""
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        print("stopping after this step; a second signal stops at once, without saving", file=sys.stderr)

    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    previous = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _to_device(batch: Sample, device: torch.device) -> Sample:
    image = batch.image.to(device, non_blocking=True, memory_format=torch.channels_last)
    return Sample(image, batch.mask.to(device, non_blocking=True), batch.id)


def environment(device: torch.device) -> dict[str, str]:
    """What a number needs beside it to be believed: versions, device, commit and command."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    return {
        "command": " ".join(sys.argv),
        "commit": commit.stdout.strip() or "unknown",
        "device": describe_device(device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
