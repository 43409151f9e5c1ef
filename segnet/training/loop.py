"""The training loop. A run is a function of its configuration: stopped and resumed anywhere, it gives the same weights."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from segnet.config.sections import Config
from segnet.data.dataset import Sample
from segnet.data.loader import build_loader
from segnet.data.sampler import ResumableSampler
from segnet.data.workers import explain_lost_worker
from segnet.evaluation.model_card import renew_model_card
from segnet.evaluation.scoring import EvaluationStopped, count_split
from segnet.evaluation.split_loss import SplitLoss
from segnet.runs.checkpoint import BEST, LAST, PREVIOUS, Checkpoint, save_checkpoint
from segnet.runs.folder import hold_run_folder
from segnet.runs.observers import require_observers
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
from segnet.system.errors import ExitCode, UserError, config_error, first_line
from segnet.system.processes import stop_signals
from segnet.tasks.choice import build_task
from segnet.training.data import open_data
from segnet.training.reporting import Reporter, Validation
from segnet.training.resuming import training_values
from segnet.training.schedule import due, learning_rate
from segnet.training.starting import Run, prepare_run, record_start
from segnet.training.step import to_device, train_step


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
            train_set, val_set = open_data(config, build_task(config))
            if is_main():
                require_observers(config.train.observers)
                held.enter_context(hold_run_folder(run, resume=resume))
        with agreed():
            prepared = prepare_run(config, run, train_set, val_set, device, resume=resume)
        require_same_on_all_ranks(prepared.pictures.digest, "pictures or masks")
        require_same_on_all_ranks(prepared.state.step, "checkpoints")
        if resume:
            _say_where(prepared)
        if reason := prepared.why_complete():
            say(reason)
            return finished(run)
        with agreed():
            if is_main():
                record_start(prepared, device)
        with _explained():
            Training(prepared, device).train()
        return finished(run)


def _say_where(run: Run) -> None:
    """Say at which step a run resumes. Rank 0 moves the checkpoint to the place of the newest, where that is damaged."""
    path = run.resumed_from
    if not path:
        say(f"no checkpoint in {run.folder} yet: starting at step 0")
        return
    say(f"resuming {path} at step {run.state.step}, in {run.config.train.precision}")
    if is_main() and path.name == PREVIOUS:
        os.replace(path, run.folder / LAST)  # or the next save would put a damaged last.pt in its place


def finished(run: Path) -> Path:
    """The path of the best checkpoint of a run that has ended. Rank 0 writes its model card."""
    if is_main():
        renew_model_card(run)
    return run / BEST


def average_over_ranks(network: nn.Module, device: torch.device) -> DistributedDataParallel:
    """A network whose backward pass averages gradients over the ranks. Its buffers are left to `share_buffers`."""
    ids = [device] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True)


_TIME_IS_UP = 1000  # a reason to stop, where else the number of a signal stands


class Training:
    """The steps of a run, its validations, and the checkpoints that it writes."""

    def __init__(self, run: Run, device: torch.device) -> None:
        config = run.config
        self.run = run
        self.config = config
        self.device = device
        self.state = run.state
        self.total_steps = run.total_steps
        self.eval_every = max(1, round(config.train.eval_every_epochs * run.steps_per_epoch))
        self.save_every = max(1, round(config.train.save_every_epochs * run.steps_per_epoch))
        if world_size() > 1:
            self.state.network = average_over_ranks(self.state.network, device)
        self.sampler = ResumableSampler(
            len(run.train_set),
            config.train.batch_size,
            seed=config.seed,
            start=self.state.step,
            total=self.total_steps,
            shrink=config.augment.shrink,
        )
        self.loader = build_loader(
            run.train_set,
            self.sampler,
            workers=config.data.workers,
            timeout=config.data.worker_timeout,
            for_gpu=device.type == "cuda",
        )
        self.signals: list[int] = []
        self.started = time.perf_counter()
        self.reporter = Reporter(config, run.task, run.folder, self.state, self.total_steps)

    def train(self) -> None:
        """Train until the last step, a signal, the time limit, or the end of the patience."""
        config, state, total = self.config, self.state, self.total_steps
        self.reporter.start(self.run.train_set, self.run.val_set, self.run.transfer)
        with agreed():
            self.criterion = self.run.task.build_criterion(self.run.train_set, self.device)
        with stop_signals(self.signals), self.reporter:
            if state.step and due(state.step, total, self.eval_every) and state.scored_step < state.step:
                self._validate()  # the signal that stopped the run came before its evaluation
                self._save()
            stop, ended = self._stop(), self.run.end_of_patience()
            with closing(iter(self.loader)) as batches:
                while state.step < total and not stop and not ended:
                    lr = learning_rate(state.step, total, config.optim)
                    train_step(state, self._next(batches), self.criterion, lr=lr, config=config)
                    self.reporter.bar.update()
                    if self.device.type == "cpu":
                        self._require_finite()  # costs nothing here; on a GPU it waits for the step to end
                    if due(state.step, total, config.train.log_every_steps):
                        self._require_finite()
                        self.reporter.progress(lr, self.run.epoch)  # waits for the GPU, which a step never does
                    if due(state.step, total, self.eval_every):
                        self._validate()
                    stop, ended = self._stop(), self.run.end_of_patience()
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

    def _stop(self) -> int:
        """Why all ranks end the run now: the number of a signal that one of them received, `_TIME_IS_UP`, or 0, not at all.

        At least one step is made, so a run advances under any time limit.
        """
        limit = 60 * self.config.train.max_minutes
        time_is_up = limit > 0 and self.state.step > self.sampler.start and time.perf_counter() - self.started > limit
        return max_over_ranks(self.signals[0] if self.signals else _TIME_IS_UP if time_is_up else 0)

    def _leave(self, stop: int) -> None:
        """Say that the run can be continued; after a signal, raise SystemExit."""
        after = f" after {self.config.train.max_minutes:g} minutes" if stop == _TIME_IS_UP else ""
        say(f"stopped{after} at step {self.state.step}; --resume continues from here")
        if stop != _TIME_IS_UP:
            sys.exit(128 + stop)

    def _say_end(self, reason: str) -> None:
        """Say why the run ends before its last step, and what that means for the learning rate."""
        optim, step = self.config.optim, self.state.step
        say(f"stopped at step {step} of {self.total_steps}: {reason}")
        if optim.schedule != "constant":
            lr = learning_rate(step, self.total_steps, optim)
            say(f"the schedule was cut at a learning rate of {lr:.2e}; with train.epochs={self.run.epoch:.3g} it would end here")

    def _require_finite(self) -> None:
        """Raises UserError (numeric) with the pictures of the first step whose loss or gradient was not finite."""
        with agreed():
            step = int(self.state.first_bad)
            if step >= 0:
                ids = ", ".join(self.run.train_set.ids[key.picture] for key in self.sampler.batch(step))
                found = f"step {step + 1}: the loss or its gradient is not finite (pictures {ids})"
                remedy = "look at them and their masks, or start a new --run with a lower optim.lr or with optim.clip_norm"
                raise UserError(ExitCode.NUMERIC, self.run.folder, found, remedy)

    def _validate(self) -> None:
        """Score the network on the val split and keep it as best.pt when it is the best so far. A signal leaves it unscored."""
        self._require_finite()
        started = time.perf_counter()
        state, data, task = self.state, self.config.data, self.run.task
        share_buffers(state.scored_model)
        loader = build_loader(self.run.val_set, workers=data.workers, timeout=data.worker_timeout)
        counts = task.validation_counts(self.run.val_set)
        loss = SplitLoss(self.criterion, task.answers.to_outputs, self.run.val_set.ids)
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
                save_checkpoint(self.run.folder / BEST, self._checkpoint(task.best.of(found.measures).value))
            if improved:
                state.best_score, state.best_step = rank, state.step
            state.scored_step = state.step
            self.reporter.validation(task, found, self.run.val_set, epoch=self.run.epoch, improved=improved)
        state.model.train()
        self.reporter.clock += time.perf_counter() - started  # evaluation is not training time

    def _checkpoint(self, score: float | None) -> Checkpoint:
        return Checkpoint(self.run.stored, self.state.step, score, self.state.scored_model.state_dict())

    def _save(self) -> None:
        """Write last.pt: the network, and all that training needs to continue to the bit."""
        self._require_finite()
        state = self.state
        total = sum_over_ranks(state.loss_sum)
        state.loss_sum.copy_(total if is_main() else torch.zeros_like(total))  # rank 0 holds the sum, which the next log adds up
        share_buffers(state.model)
        with agreed():
            if is_main():
                training = training_values(state, self.reporter.rows, self.run.pictures, self.config.inference.precision)
                last = self._checkpoint(None)._replace(training=training)
                save_checkpoint(self.run.folder / LAST, last, keep=self.run.folder / PREVIOUS)


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
            remedy = "choose a network without it, or set it to false"
            raise config_error("train.deterministic", found, remedy) from None
        raise
