"""A run before its next step: at step 0 with its first weights, or at the newest checkpoint of its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from segnet.config.loading import config_to_yaml
from segnet.config.sections import Config
from segnet.data.dataset import SplitDataset
from segnet.runs.environment import record_environment
from segnet.runs.folder import newest_checkpoint
from segnet.runs.transfer import Transfer, take_weights
from segnet.system.files import write_text
from segnet.tasks.choice import build_task
from segnet.tasks.task import Task
from segnet.training.data import resolve_scale
from segnet.training.precision import resolve_precisions
from segnet.training.resuming import RunPictures, restore, start_from
from segnet.training.schedule import patience_is_over, total_steps
from segnet.training.step import TrainState, build_state


class Run(NamedTuple):
    """All that a run trains with."""

    folder: Path
    config: Config  # to compute with
    stored: Config  # to write into checkpoints
    task: Task[Any]
    train_set: SplitDataset
    val_set: SplitDataset
    pictures: RunPictures  # of both sets
    state: TrainState
    resumed_from: Path | None  # the checkpoint; None: it starts at step 0
    transfer: Transfer | None  # what was taken from an earlier run; None: nothing

    @property
    def steps_per_epoch(self) -> float:
        """The number of batches that have as many images as the train split."""
        return len(self.train_set) / self.config.train.batch_size

    @property
    def total_steps(self) -> int:
        """The number of steps from the beginning of the run to its end."""
        return total_steps(self.config, self.train_set)

    @property
    def epoch(self) -> float:
        """The epochs that are done."""
        return self.state.step * self.config.train.batch_size / len(self.train_set)

    def why_complete(self) -> str:
        """The reason, in words, that no step is left; empty while there is one."""
        step = self.state.step
        if step >= self.total_steps and self.state.scored_step == step:
            return f"the run is complete ({step} steps); for more, {start_from(self.folder)}"
        if reason := self.end_of_patience():
            return f"the run has ended: {reason}; to go on, set a longer train.patience, or 0"
        return ""

    def end_of_patience(self) -> str:
        """The reason, in words, to end the run before its last step by train.patience; empty while there is none."""
        steps = self.state.scored_step - self.state.best_step
        if not patience_is_over(steps, self.steps_per_epoch, self.config.train.patience):
            return ""
        epochs = f"{steps / self.steps_per_epoch:.3g} epochs"
        return f"no better score for {epochs} (train.patience), the best is that of step {self.state.best_step}"


def prepare_run(
    config: Config, folder: Path, train_set: SplitDataset, val_set: SplitDataset, device: torch.device, *, resume: bool
) -> Run:
    """The run of `config` in `folder`, with what "auto" and "train" mean there; with `resume`, at its newest checkpoint.

    Raises UserError: (checkpoint) when every checkpoint is damaged or of another configuration or data, (data) for a damaged
    picture.
    """
    pictures = RunPictures.of(train_set, val_set)
    path, checkpoint = (newest_checkpoint(folder) if resume else None) or (None, None)
    config = resolve_scale(config, train_set, checkpoint.config if checkpoint else None)
    config, stored = resolve_precisions(config, device, checkpoint)
    task = build_task(config)
    state = build_state(config, task.channels, device, pretrained=checkpoint is None)
    transfer = None
    if path and checkpoint:
        restore(state, path, checkpoint, stored, pictures)
    else:
        transfer = take_weights(state.model, config.model, config.data.class_set.names, config.data.bands.rgb)
    return Run(folder, config, stored, task, train_set, val_set, pictures, state, path, transfer)


def record_start(run: Run, device: torch.device) -> None:
    """Write config.yaml and environment.json into the run's folder. For rank 0 alone."""
    config, transfer = run.config, run.transfer
    write_text(run.folder / "config.yaml", config_to_yaml(config))
    record_environment(
        run.folder / "environment.json",
        device,
        precision={"train": config.train.precision, "inference": config.inference.precision},
        resumed_at=run.state.step if run.resumed_from else None,
        weights=transfer.record() if transfer else None,
        data=run.pictures.record(config.data, len(run.train_set)),
    )
