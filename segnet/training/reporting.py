"""The reports of a run: lines on the terminal, metrics.csv and its observers. Rank 0 alone writes them."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import MutableMapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from segnet.config.loading import config_to_yaml, flat_config
from segnet.config.sections import Config
from segnet.data.dataset import SplitDataset
from segnet.data.sampler import steps_left
from segnet.inference.answers import predict, prepare_to_predict
from segnet.runs.checkpoint import BEST, load_checkpoint
from segnet.runs.log import RunLog, read_log
from segnet.runs.transfer import Transfer
from segnet.system.devices import peak_memory
from segnet.system.distributed import is_main, say, sum_over_ranks, world_size
from segnet.system.terminal import print_above_bars, redraws, styled
from segnet.tasks.task import AnswerType, Best, Measure, Task
from segnet.training.step import TrainState
from segnet.visualization import grid

BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{left}{postfix}]"  # fits into 80 columns
DRAWN = 3  # images of the val split in each picture for observers
NAMED = 3  # classes in the line of a validation, those with the lowest IoU


class Bar(tqdm):  # type: ignore[type-arg]  # tqdm is generic in its stubs alone
    """A progress bar of steps that differ in their work, for which tqdm's own estimate of the time left does not hold."""

    left = "?"  # the time left, in words

    @property
    def format_dict(self) -> MutableMapping[str, Any]:
        """What stands in the bar."""
        return {**super().format_dict, "left": self.left}


class Validation(NamedTuple):
    """What a validation measured."""

    measures: list[Measure]
    parts: list[Measure]  # of the classes, or none
    loss: float  # of the criterion of training, on the val split
    drawings: dict[str, np.ndarray]  # (H, W, 3) uint8 each, by the tag for observers


class Reporter:
    """The log and the progress bar of a run, which it closes at the end of a `with` statement."""

    def __init__(self, config: Config, task: Task[AnswerType], folder: Path, state: TrainState, total_steps: int) -> None:
        self.config = config
        self.state = state
        self.total_steps = total_steps
        self.device = state.loss_sum.device
        self.log: RunLog | None = None
        if is_main():
            self.log = RunLog(
                folder,
                ("loss", *task.logged, *task.logged_parts),
                step=state.step,
                rows=state.rows,
                observers=config.train.observers,
                settings=settings_of(config),
            )
        hidden = not (is_main() and redraws(sys.stderr))
        self.bar = Bar(total=total_steps, initial=state.step, disable=hidden, file=sys.stderr, bar_format=BAR)
        self.clock = time.perf_counter()
        self.clock_step = state.step
        self.waited = 0.0  # seconds for data, since the last log line

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.close()
        if self.log:
            self.log.close("finished" if kind is None else "stopped" if issubclass(kind, SystemExit) else "failed")

    @property
    def rows(self) -> int:
        """The rows of metrics.csv; 0 on ranks other than 0."""
        return self.log.rows if self.log else 0

    def start(self, train_set: SplitDataset, val_set: SplitDataset, transfer: Transfer | None) -> None:
        """Say what the weights were taken from and how large the work is; show that and the configuration to the observers."""
        if transfer:
            say(transfer.table())
            self._text("weights", transfer.table())
        parameters = sum(parameter.numel() for parameter in self.state.model.parameters())
        frozen = sum(parameter.numel() for parameter in self.state.model.parameters() if not parameter.requires_grad)
        ranks = f", {world_size()} ranks" if world_size() > 1 else ""
        pictures = f"{len(train_set)} {train_set.split} and {len(val_set)} {val_set.split} pictures"
        of_them = f" ({frozen:,} of them frozen)" if frozen else ""
        say(f"{parameters:,} parameters{of_them}, {pictures}, {self.total_steps} steps{ranks}")
        self._text("config", f"```yaml\n{config_to_yaml(self.config)}```")

    def _text(self, tag: str, text: str) -> None:
        """Show a text in Markdown to the observers."""
        if self.log:
            self.log.observers.text(tag, text, self.state.step)

    def progress(self, lr: float, epoch: float) -> None:
        """Log the mean loss and the speed since the last call. All ranks call it: the loss is summed over them."""
        state = self.state
        loss = float(sum_over_ranks(state.loss_sum)) / max(1, state.loss_steps)
        blank, since = int(state.blank_steps), state.loss_steps
        state.loss_sum.zero_()
        state.blank_steps.zero_()
        state.loss_steps = 0
        speed, waiting = self._lap()
        if not self.log:
            return
        if blank:
            found = f"{blank} of the last {since} batches had no scored pixel (masks of 255 alone)"
            print_above_bars(f"warning: {found}", sys.stderr)
        memory = peak_memory(self.device)
        speeds = {"pictures_per_second": speed, "waiting_for_data": waiting, "memory_gb": memory}
        self.log.write(state.step, {"epoch": epoch, "learning_rate": lr, "loss": loss}, **speeds)
        steps = steps_left(state.step, self.total_steps, self.config.augment.shrink)
        left = steps * self.config.train.batch_size / max(1e-9, speed)  # seconds
        if self.bar.disable:
            say(
                f"step {state.step}/{self.total_steps}  epoch {epoch:.2f}  loss {loss:.4f}  lr {lr:.2e}  "
                f"{speed:.1f} pictures/s  data {waiting:.0%}  {memory:.1f} GB  {left / 60:.1f} min left"
            )
        else:
            self.bar.left = Bar.format_interval(left)
            self.bar.set_postfix_str(f"loss {loss:.4f}, {speed:.1f} pictures/s, data {waiting:.0%}")

    def _lap(self) -> tuple[float, float]:
        """Pictures per second, and the share of the time spent on waiting for data, since the last call."""
        now = time.perf_counter()
        elapsed = max(1e-9, now - self.clock)
        speed = (self.state.step - self.clock_step) * self.config.train.batch_size / elapsed
        waiting = self.waited / elapsed
        self.clock = now
        self.clock_step = self.state.step
        self.waited = 0.0
        return speed, waiting

    def validation(
        self,
        task: Task[AnswerType],
        found: Validation,
        val_set: SplitDataset,
        *,
        epoch: float,
        improved: bool,
    ) -> None:
        """Log a validation, with the first images of the val split as the scored network answers them, and its drawings."""
        if not self.log:
            return
        step = self.state.step
        values = {f"val_{measure.name}": measure.value for measure in found.measures if measure.name in task.logged}
        present = [part for part in found.parts if not math.isnan(part.value)]
        values |= {"val_loss": found.loss, **{f"val_{part.name}": part.value for part in present}}
        self.log.write(step, {"epoch": epoch, **values}, memory_gb=peak_memory(self.device))
        for tag, drawn in {"val/picture, truth, prediction": self._draw(task, val_set), **found.drawings}.items():
            self.log.observers.picture(tag, drawn, step)
        best = task.best.of(found.measures)
        remark = "  best so far" if improved else ""
        score = styled(best.text, "bold", sys.stdout) if improved else best.text
        line = f"step {step}  epoch {epoch:.2f}  {val_set.split} {score}  loss {found.loss:.4f}{remark}"
        lowest = sorted(present, key=lambda part: part.value)[:NAMED]
        names = f"\n  lowest: {', '.join(part.text for part in lowest)}" if lowest else ""
        self.bar.write(line + names, file=sys.stdout)
        sys.stdout.flush()

    def _draw(self, task: Task[AnswerType], dataset: SplitDataset) -> np.ndarray:
        """(H, W, 3) uint8: a row for each of the first images, as the scored network answers them."""
        inference = self.config.inference
        model = prepare_to_predict(self.state.scored_model, inference)
        rows = []
        for index in range(min(DRAWN, len(dataset))):
            sample = dataset.read(index)
            answer = predict(model, sample.image[None].to(self.device), inference, task.answers)
            rows.append(task.draw(sample, answer))
        return grid(rows)


def describe_best(run: Path, best: Best) -> str:
    """The score, the epoch and the step of the best network of a run, e.g. "val mIoU 51.23, epoch 12.00, step 3600".

    The epoch is that of metrics.csv and is left out where its row is missing. Raises UserError (checkpoint) for a damaged file.
    """
    checkpoint = load_checkpoint(run / BEST)
    if checkpoint.score is None:
        return f"step {checkpoint.step}"
    score = Measure(best.name, best.title, checkpoint.score, is_share=best.is_share)
    path = run / "metrics.csv"
    rows = read_log(path) if path.is_file() else []
    epoch = next((row["epoch"] for row in rows if row.get("step") == checkpoint.step and "epoch" in row), None)
    when = f"step {checkpoint.step}" if epoch is None else f"epoch {epoch:.2f}, step {checkpoint.step}"
    return f"{checkpoint.config.data.val_split} {score.text}, {when}"


def settings_of(config: Config) -> dict[str, str | float | bool]:
    """The values of `config` by their keys, such as "optim.lr", for a table that compares runs; lists are texts."""
    return {
        name: value if isinstance(value, str | float | int | bool) else json.dumps(value, ensure_ascii=False)
        for name, value in flat_config(config).items()
    }
