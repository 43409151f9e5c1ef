"""Mistakes on purpose: the only part that knows the insides of segnet. When those change, adapt it here.

Each is installed in a fork, which ends with it. A comparison that does not notice one of them is worth nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from crash_runs import CHECKPOINTS
from torch.utils.data._utils import signal_handling

from segnet.data.dataset import Sample, SegmentationDataset
from segnet.data.sampler import ResumableSampler
from segnet.runs import checkpoint, folder, log
from segnet.training import loop, schedule, step

Mistake = Callable[[Path], None]


def _replace(owner: Any, name: str, value: Any) -> None:
    assert hasattr(owner, name), f"{owner} has no {name} any more: adapt MISTAKES"
    setattr(owner, name, value)


def _forgets(spoil: Callable[[step.TrainState], object]) -> Mistake:
    """A resumed run whose state is spoilt before its first step, as if a part of it had not been restored."""

    def install(_: Path) -> None:
        original, steps = step.train_step, 0

        def train_step(state: step.TrainState, *arguments: Any, **options: Any) -> Any:
            nonlocal steps
            if state.step and not steps:
                spoil(state)
            steps += 1
            return original(state, *arguments, **options)

        _replace(loop, "train_step", train_step)

    return install


def _forget_loss(state: step.TrainState) -> None:
    state.loss_sum.zero_()
    state.loss_steps = 0


def _forget_statistics(state: step.TrainState) -> None:
    for module in state.model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()


def _restart_learning_rate(_: Path) -> None:
    original, first = schedule.learning_rate, []

    def learning_rate(step: int, *arguments: Any) -> float:
        first.append(step)
        return original(step - first[0], *arguments)

    _replace(loop, "learning_rate", learning_rate)


class _EpochFromItsStart(ResumableSampler):
    def __init__(self, length: int, batch_size: int, *, start: int, total: int, **rest: Any) -> None:
        done = start % (length // batch_size)
        super().__init__(length, batch_size, start=start - done, total=total - done, **rest)


def _count_steps_of_the_process(_: Path) -> None:
    original, steps = step.derive_seed, 0

    def derive_seed(*parts: int | str) -> int:
        nonlocal steps
        steps += "step" in parts
        return original("step of this process", steps) if "step" in parts else original(*parts)

    _replace(step, "derive_seed", derive_seed)


def _augment_from_the_state(_: Path) -> None:
    def item(self: SegmentationDataset, key: Any) -> Sample:
        sample = self.read(key.picture)
        return Sample(*self.transform(sample.image, sample.truth), sample.id)

    _replace(SegmentationDataset, "__getitem__", item)


def _keep_rows(_: Path) -> None:
    original = log.RunLog.__init__

    def init(self: log.RunLog, run: Path, *arguments: Any, **options: Any) -> None:
        path = run / "metrics.csv"
        before = path.read_bytes() if path.exists() else b""
        original(self, run, *arguments, **options)
        if before:
            path.write_bytes(before)

    _replace(log.RunLog, "__init__", init)


def _write_in_place(_: Path) -> None:
    @contextmanager
    def write(path: Path, **_: Any) -> Iterator[Any]:
        with open(path, "wb") as file:
            yield file

    _replace(checkpoint, "atomic_write", write)


def _lose_checkpoints(run: Path) -> None:
    for name in CHECKPOINTS:
        (run / name).unlink(missing_ok=True)


def _start_workers_slowly(_: Path) -> None:
    original = signal_handling._set_worker_signal_handlers  # of torch: from here on SIGTERM would end a worker

    def slowly() -> None:
        original()
        time.sleep(0.5)

    _replace(signal_handling, "_set_worker_signal_handlers", slowly)


MISTAKES: dict[str, Mistake] = {
    # a part of the state is not restored
    "optimizer": _forgets(lambda state: state.optimizer.state.clear()),
    "average's counter": _forgets(lambda state: state.ema.n_averaged.zero_()),
    "average's weights": _forgets(lambda state: state.ema.module.load_state_dict(state.model.state_dict())),
    "network is the average": _forgets(lambda state: state.model.load_state_dict(state.ema.module.state_dict())),
    "best score": _forgets(lambda state: setattr(state, "best_score", -math.inf)),
    "loss since the last row": _forgets(_forget_loss),
    "batch statistics": _forgets(_forget_statistics),
    "learning rate": _restart_learning_rate,
    "place in the epoch": lambda _: _replace(loop, "ResumableSampler", _EpochFromItsStart),
    "rows are not cut": _keep_rows,
    "checkpoints are not found": _lose_checkpoints,
    # randomness is a state
    "dropout counts the steps of its process": _count_steps_of_the_process,
    "augmentation draws from the process's state": _augment_from_the_state,
    # files
    "checkpoints are written in place": _write_in_place,
    "temporaries stay": lambda _: _replace(folder, "remove_stale_temporaries", lambda folder: None),
    "digests are not looked at": lambda _: _replace(checkpoint, "require_digest", lambda path: None),
    # no mistake, but time for a signal to come
    "workers start slowly": _start_workers_slowly,
}
