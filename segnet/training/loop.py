"""The training loop. A run is a function of its configuration: stopped and resumed anywhere, it gives the same weights."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from segnet.config.loading import config_to_yaml
from segnet.config.sections import Config
from segnet.data.dataset import Sample, SplitDataset
from segnet.data.loader import build_loader
from segnet.data.sampler import ResumableSampler
from segnet.data.workers import explain_lost_worker
from segnet.evaluation.model_card import renew_model_card
from segnet.evaluation.scoring import EvaluationStopped, count_split
from segnet.evaluation.split_loss import SplitLoss
from segnet.runs.checkpoint import BEST, LAST, PREVIOUS, Checkpoint, save_checkpoint
from segnet.runs.environment import record_environment
from segnet.runs.folder import hold_run_folder, newest_checkpoint
from segnet.runs.observers import require_observers
from segnet.runs.transfer import take_weights
from segnet.system.devices import choose_device, explain_full_memory, use_deterministic_algorithms
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
from segnet.system.errors import ExitCode, UserError, first_line
from segnet.system.files import write_text
from segnet.system.processes import stop_signals
from segnet.tasks.choice import build_task
from segnet.tasks.task import AnswerType, Task
from segnet.training.data import open_data, resolve_scale
from segnet.training.precision import resolve_precisions
from segnet.training.reporting import Reporter, Validation
from segnet.training.resuming import RunPictures, restore, start_from, training_values
from segnet.training.schedule import due, learning_rate, patience_is_over, total_steps
from segnet.training.step import TrainState, build_state, to_device, train_step


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
    task = build_task(config)
    with process_group(device), ExitStack() as held:
        with agreed():
            train_set, val_set = open_data(config, task)
            if is_main():
                require_observers(config.train.observers)
                held.enter_context(hold_run_folder(run, resume=resume))
        with agreed():
            pictures = RunPictures.of(train_set, val_set)
            found = newest_checkpoint(run) if resume else None
            config = resolve_scale(config, train_set, found[1].config if found else None)
            task = build_task(config)
            config, stored = resolve_precisions(config, device, found[1] if found else None)
            state = build_state(config, task.channels, device, pretrained=found is None)
            if found:
                restore(state, *found, stored, pictures)
            transfer = (
                None if found else take_weights(state.model, config.model, config.data.class_set.names, config.data.bands.rgb)
            )
        require_same_on_all_ranks(pictures.digest, "pictures or masks")
        require_same_on_all_ranks(state.step, "checkpoints")
        if world_size() > 1:
            state.network = average_over_ranks(state.network, device)
        if resume:
            where = f"resuming {found[0]} at step {state.step}, in {config.train.precision}" if found else ""
            say(where or f"no checkpoint in {run} yet: starting at step 0")
        if found and is_main() and found[0].name == PREVIOUS:
            os.replace(found[0], run / LAST)  # or the next save would put a damaged last.pt in its place
        if state.step >= total_steps(config, train_set) and state.scored_step == state.step:
            say(f"the run is complete ({state.step} steps); for more, {start_from(run)}")
            return finished(run)
        if reason := end_of_patience(state, config, train_set):
            say(f"the run has ended: {reason}; to go on, set a longer train.patience, or 0")
            return finished(run)
        with agreed():
            if is_main():
                write_text(run / "config.yaml", config_to_yaml(config))
                precision = {"train": config.train.precision, "inference": config.inference.precision}
                resumed_at = state.step if found else None
                weights = transfer.record() if transfer else None
                record_environment(
                    run / "environment.json",
                    device,
                    precision=precision,
                    resumed_at=resumed_at,
                    weights=weights,
                    data=pictures.record(config.data, len(train_set)),
                )
        if transfer:
            say(transfer.table())
        with _explained():
            training = Training(config, stored, run, task, state, train_set, val_set, pictures)
            if transfer:
                training.reporter.text("weights", transfer.table())
            training.train()
        return finished(run)


def finished(run: Path) -> Path:
    """The path of the best checkpoint of a run that has ended. Rank 0 writes its model card."""
    if is_main():
        renew_model_card(run)
    return run / BEST


def end_of_patience(state: TrainState, config: Config, train_set: SplitDataset) -> str:
    """The reason, in words, to end a run before its last step by train.patience; empty while there is none."""
    per_epoch = len(train_set) / config.train.batch_size
    steps = state.scored_step - state.best_step
    if not patience_is_over(steps, per_epoch, config.train.patience):
        return ""
    return f"no better score for {steps / per_epoch:.3g} epochs (train.patience), the best is that of step {state.best_step}"


def average_over_ranks(network: nn.Module, device: torch.device) -> DistributedDataParallel:
    """A network whose backward pass averages gradients over the ranks. Its buffers are left to `share_buffers`."""
    ids = [device] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True)


class Stop(NamedTuple):
    """The reason to end a run before its last step: the signal that a rank received, or None when the time is up."""

    signal: int | None


_TIME_IS_UP = 1000  # what ranks exchange in place of a signal's number


class Training:
    """One run: the loop, and the checkpoints that it writes."""

    def __init__(
        self,
        config: Config,
        stored: Config,
        folder: Path,
        task: Task[AnswerType],
        state: TrainState,
        train_set: SplitDataset,
        val_set: SplitDataset,
        pictures: RunPictures,
    ) -> None:
        self.config = config  # to compute with
        self.stored = stored  # to write into checkpoints
        self.folder = folder
        self.task = task
        self.state = state
        self.train_set = train_set
        self.val_set = val_set
        self.pictures = pictures
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
        self.loader = build_loader(
            train_set,
            self.sampler,
            workers=config.data.workers,
            timeout=config.data.worker_timeout,
            for_gpu=self.device.type == "cuda",
        )
        self.signals: list[int] = []
        self.started = time.perf_counter()
        self.reporter = Reporter(config, task, folder, state, self.total_steps)

    def train(self) -> None:
        """Train until the last step, a signal, or the time limit."""
        config, state, total = self.config, self.state, self.total_steps
        self.reporter.start(self.train_set, self.val_set)
        with agreed():
            self.criterion = self.task.build_criterion(self.train_set, self.device)
        with stop_signals(self.signals), self.reporter:
            if state.step and due(state.step, total, self.eval_every) and state.scored_step < state.step:
                self._validate()  # the signal that stopped the run came before its evaluation
                self._save()
            stop, ended = self._stop(), end_of_patience(state, config, self.train_set)
            with closing(iter(self.loader)) as batches:
                while state.step < total and not stop and not ended:
                    lr = learning_rate(state.step, total, config.optim)
                    train_step(state, self._next(batches), self.criterion, lr=lr, config=config)
                    self.reporter.bar.update()
                    if self.device.type == "cpu":
                        self._require_finite()  # costs nothing here; on a GPU it waits for the step to end
                    if due(state.step, total, config.train.log_every_steps):
                        self._require_finite()
                        self.reporter.progress(lr, self._epoch())  # waits for the GPU, which a step never does
                    if due(state.step, total, self.eval_every):
                        self._validate()
                    stop, ended = self._stop(), end_of_patience(state, config, self.train_set)
                    if due(state.step, total, self.save_every) or stop or ended:
                        self._save()
            if ended and state.step < total:
                self._say_end(ended)
            elif stop and not (state.step == total == state.scored_step):
                self._leave(stop)

    def _next(self, batches: Iterator[Sample]) -> Sample:
        """This rank's part of the next batch, on the device."""
        started = time.perf_counter()
        with agreed():
            batch = next(batches)
        self.reporter.waited += time.perf_counter() - started
        return to_device(batch, self.device)

    def _stop(self) -> Stop | None:
        """The reason to end the run now, or None. At least one step is made, so a run advances under any time limit."""
        limit = 60 * self.config.train.max_minutes
        time_is_up = limit > 0 and self.state.step > self.sampler.start and time.perf_counter() - self.started > limit
        own = self.signals[0] if self.signals else _TIME_IS_UP if time_is_up else 0
        reason = max_over_ranks(own)
        if not reason:
            return None
        return Stop(None if reason == _TIME_IS_UP else reason)

    def _leave(self, stop: Stop) -> None:
        """Say that the run can be continued; after a signal, raise SystemExit."""
        after = "" if stop.signal else f" after {self.config.train.max_minutes:g} minutes"
        say(f"stopped{after} at step {self.state.step}; --resume continues from here")
        if stop.signal:
            sys.exit(128 + stop.signal)

    def _say_end(self, reason: str) -> None:
        """Say why the run ends before its last step, and what that means for the learning rate."""
        optim, step = self.config.optim, self.state.step
        say(f"stopped at step {step} of {self.total_steps}: {reason}")
        if optim.schedule != "constant":
            lr = learning_rate(step, self.total_steps, optim)
            say(f"the schedule was cut at a learning rate of {lr:.2e}; with train.epochs={self._epoch():.3g} it would end here")

    def _require_finite(self) -> None:
        """Raises UserError (numeric) with the pictures of the first step whose loss or gradient was not finite."""
        with agreed():
            step = int(self.state.first_bad)
            if step >= 0:
                ids = ", ".join(self.train_set.ids[key.picture] for key in self.sampler.batch(step))
                found = f"step {step + 1}: the loss or its gradient is not finite (pictures {ids})"
                remedy = "look at them and their masks, or start a new --run with a lower optim.lr or with optim.clip_norm"
                raise UserError(ExitCode.NUMERIC, self.folder, found, remedy)

    def _validate(self) -> None:
        """Score the network on the val split and keep it as best.pt when it is the best so far. A signal leaves it unscored."""
        self._require_finite()
        started = time.perf_counter()
        state, data, task = self.state, self.config.data, self.task
        share_buffers(state.scored_model)
        loader = build_loader(self.val_set, workers=data.workers, timeout=data.worker_timeout)
        counts = task.validation_counts(self.val_set)
        loss = SplitLoss(self.criterion, task.answers.to_outputs, self.val_set.ids)
        inference = self.config.inference
        try:
            count_split(state.scored_model, loader, inference, task.answers, counts, watch=loss.watch, stop=lambda: self.signals)
        except EvaluationStopped:
            return
        loss.sum_over_ranks()
        found = Validation(counts.measures(), task.parts(counts), loss.value, task.draw_counts(counts))
        rank = task.best.rank(found.measures)
        improved = rank > state.best_score
        with agreed():
            if improved and is_main():
                save_checkpoint(self.folder / BEST, self._checkpoint(task.best.of(found.measures).value))
            if improved:
                state.best_score, state.best_step = rank, state.step
            state.scored_step = state.step
            self.reporter.validation(task, found, self.val_set, epoch=self._epoch(), improved=improved)
        state.model.train()
        self.reporter.clock += time.perf_counter() - started  # evaluation is not training time

    def _epoch(self) -> float:
        return self.state.step * self.config.train.batch_size / len(self.train_set)

    def _checkpoint(self, score: float | None) -> Checkpoint:
        return Checkpoint(self.stored, self.state.step, score, self.state.scored_model.state_dict())

    def _save(self) -> None:
        """Write last.pt: the network, and all that training needs to continue to the bit."""
        self._require_finite()
        state = self.state
        total = sum_over_ranks(state.loss_sum)
        state.loss_sum.copy_(total if is_main() else torch.zeros_like(total))  # rank 0 holds the sum, which the next log adds up
        share_buffers(state.model)
        with agreed():
            if is_main():
                training = training_values(state, self.reporter.rows, self.pictures, self.config.inference.precision)
                last = self._checkpoint(None)._replace(training=training)
                save_checkpoint(self.folder / LAST, last, keep=self.folder / PREVIOUS)


@contextmanager
def _explained() -> Iterator[None]:
    """Raises UserError, with what to change, where memory is full, a data worker died or an operation is not deterministic."""
    remedy = "set train.recompute=activations, raise train.accumulate, or lower train.batch_size or augment.crop_size"
    try:
        with explain_full_memory(remedy), explain_lost_worker():
            yield
    except RuntimeError as error:
        found = first_line(error)
        if "deterministic implementation" in found:
            raise UserError(
                ExitCode.CONFIG, "train.deterministic", found, "choose a network without it, or set it to false"
            ) from None
        raise
