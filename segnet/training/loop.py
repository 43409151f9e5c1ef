"""The training loop. A run is a function of its configuration: stop it anywhere, resume it, and the weights are the same."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from segnet.config.loading import config_to_yaml
from segnet.config.sections import Config
from segnet.data.dataset import Sample, SegmentationDataset
from segnet.data.loader import build_loader
from segnet.data.sampler import ResumableSampler
from segnet.evaluation.scoring import EvaluationStopped, evaluate
from segnet.inference.answers import predict_maps
from segnet.metrics.confusion import Scores
from segnet.runs.checkpoint import BEST, LAST, PREVIOUS, Checkpoint, save_checkpoint
from segnet.runs.environment import record_environment
from segnet.runs.folder import hold_run_folder, newest_checkpoint
from segnet.runs.log import RunLog
from segnet.system.devices import choose_device, explain_full_memory, peak_memory, use_deterministic_algorithms
from segnet.system.distributed import (
    agreed,
    is_main,
    max_over_ranks,
    process_group,
    require_same_on_all_ranks,
    say,
    share_buffers,
    sum_over_ranks,
    world_size,
)
from segnet.system.errors import ExitCode, UserError
from segnet.system.files import write_text
from segnet.system.processes import stop_signals
from segnet.training.criterion import build_criterion
from segnet.training.data import open_data
from segnet.training.precision import resolve_precisions
from segnet.training.resuming import RunPictures, restore, start_from
from segnet.training.schedule import due, learning_rate, total_steps
from segnet.training.step import TrainState, build_state, to_device, train_step
from segnet.visualization import comparison_row, grid

Bar: TypeAlias = "tqdm[Any]"


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
            train_set, val_set = open_data(config)
            if is_main():
                held.enter_context(hold_run_folder(run, resume=resume))
        with agreed():
            pictures = RunPictures.of(train_set, val_set)
            found = newest_checkpoint(run) if resume else None
            config, stored = resolve_precisions(config, device, found[1] if found else None)
            state = build_state(config, device, pretrained=found is None)
            if found:
                restore(state, *found, stored, pictures)
        require_same_on_all_ranks(pictures.digest, "pictures or masks")
        require_same_on_all_ranks(state.step, "checkpoints")
        if world_size() > 1:
            state.network = DistributedDataParallel(state.network, device_ids=[device] if device.type == "cuda" else None)
        if resume:
            where = f"resuming {found[0]} at step {state.step}, in {config.train.precision}" if found else ""
            say(where or f"no checkpoint in {run} yet: starting at step 0")
        if found and is_main() and found[0].name == PREVIOUS:
            os.replace(found[0], run / LAST)  # or the next save would put a damaged last.pt in its place
        if state.step >= total_steps(config, train_set) and state.scored_step == state.step:
            say(f"the run is complete ({state.step} steps); for more, {start_from(run)}")
            return run / BEST
        with agreed():
            if is_main():
                write_text(run / "config.yaml", config_to_yaml(config))
                precision = {"train": config.train.precision, "inference": config.inference.precision}
                resumed_at = state.step if found else None
                record_environment(run / "environment.json", device, precision=precision, resumed_at=resumed_at)
        with _explained():
            Training(config, stored, run, state, train_set, val_set, pictures).train()
    return run / BEST


_TIME_IS_UP = 1000  # a reason to stop beside the numbers of signals


class Training:
    """One run: the loop, and what it writes. Only rank 0 writes."""

    def __init__(
        self,
        config: Config,
        stored: Config,
        folder: Path,
        state: TrainState,
        train_set: SegmentationDataset,
        val_set: SegmentationDataset,
        pictures: RunPictures,
    ) -> None:
        self.config, self.stored = config, stored  # to compute with, and to write into checkpoints
        self.folder, self.state = folder, state
        self.train_set, self.val_set, self.pictures = train_set, val_set, pictures
        self.device = state.loss_sum.device
        per_epoch = len(train_set) / config.train.batch_size
        self.total_steps = total_steps(config, train_set)
        self.eval_every = max(1, round(config.train.eval_every_epochs * per_epoch))
        self.save_every = max(1, round(config.train.save_every_epochs * per_epoch))
        self.sampler = ResumableSampler(
            len(train_set),
            config.train.batch_size,
            seed=config.seed,
            start=state.step,
            total=self.total_steps,
            shrink=config.augment.shrink,
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
        say(f"{parameters:,} parameters, {pictures[0]} train and {pictures[1]} val pictures, {self.total_steps} steps{ranks}")
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
                    if due(state.step, self.total_steps, config.train.log_every_steps):
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
        return to_device(batch, self.device)

    def _told_to_stop(self) -> int:
        """The signal that a rank received, or that the time is up; 0: go on. A step is always made, so that any limit gets on."""
        limit, begun = 60 * self.config.train.max_minutes, self.state.step > self.sampler.start
        up = begun and limit and time.perf_counter() - self.started > limit
        return max_over_ranks(self.signals[0] if self.signals else _TIME_IS_UP if up else 0)

    def _leave(self, reason: int) -> None:
        after = f" after {self.config.train.max_minutes:g} minutes" if reason == _TIME_IS_UP else ""
        say(f"stopped{after} at step {self.state.step}; --resume continues from here")
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
            say(
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
            rows.append(comparison_row(sample.image, sample.mask, prediction, self.val_set.classes))
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


@contextmanager
def _explained() -> Iterator[None]:
    """What torch says of a memory that is full, or of an operation that is not deterministic, with what to change."""
    try:
        with explain_full_memory(
            "set train.recompute=activations, raise train.accumulate, or lower train.batch_size or augment.crop_size"
        ):
            yield
    except RuntimeError as error:
        found = (str(error).splitlines() or [""])[0]
        if "deterministic implementation" in found:
            raise UserError(ExitCode.CONFIG, "train.deterministic", found, "choose a network without it, or give it up") from None
        raise
