"""What a configuration costs on this machine, measured: the time of steps and of an evaluation, and the memory."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from segnet.config.sections import Config
from segnet.data.dataset import Sample, SegmentationDataset, SplitDataset
from segnet.data.loader import build_loader
from segnet.data.sampler import ResumableSampler
from segnet.evaluation.scoring import count_split
from segnet.runs.checkpoint import LAST, Checkpoint, save_checkpoint
from segnet.system.devices import choose_device, keep_freed_memory, peak_memory
from segnet.system.errors import environment_error
from segnet.tasks.choice import build_task
from segnet.tasks.task import AnswerType, Task
from segnet.training.data import open_train_set, resolve_scale
from segnet.training.precision import resolve_precisions
from segnet.training.reporting import DRAWN
from segnet.training.step import TrainState, build_state, to_device, train_step

_WARM_UP = 2  # steps that are not timed
_STEPS = 10  # that are timed
_MOST_SECONDS = 40.0  # of steps; where one takes long, fewer are timed
_SCORED = 16  # pictures of the val split, after a first one

Result = TypeVar("Result")


class BatchCost(NamedTuple):
    """A training step with a batch of one size, without reading it."""

    pictures: int
    seconds: float
    memory: float  # GB: the peak of the process, or of the GPU


class RunCost(NamedTuple):
    """The parts of a run."""

    start: float  # seconds before the first step: class weights, the first batch
    step: float  # seconds, with reading
    evaluation: float  # seconds, of the whole val split
    save: float  # seconds, of all that a run writes after an evaluation
    memory: float  # GB: the peak of the process, or of the GPU

    def seconds(self, steps: int, evaluations: int) -> float:
        """The time of a run."""
        return self.start + steps * self.step + evaluations * (self.evaluation + self.save)


def in_new_process(measure: Callable[[Config], Result], config: Config) -> Result:
    """`measure(config)` in a process of its own, whose peak of memory is that of the measurement alone.

    Raises UserError (environment) when the process is killed, which the system does where memory is full.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(measure, config).result()
        except BrokenProcessPool:
            remedy = "give --memory what is free, or a set of smaller pictures"
            raise environment_error("memory", "the process of a measurement was killed", remedy) from None


def measure_batches(config: Config) -> list[BatchCost]:
    """The cost of a step with one and with two pictures."""
    prepared = _Prepared(config)
    costs = []
    for pictures in (1, 2):
        sampler = ResumableSampler(len(prepared.train_set), pictures, seed=config.seed, start=0, total=1)
        batch = to_device(next(iter(build_loader(prepared.train_set, sampler, workers=0))), prepared.device)
        seconds = [prepared.timed(partial(prepared.step, batch)) for _ in range(_WARM_UP + 1)]
        costs.append(BatchCost(pictures, min(seconds[1:]), peak_memory(prepared.device)))
    return costs


def measure_run(config: Config) -> RunCost:
    """The cost of the parts of a run with this configuration: its own steps, evaluation and checkpoint, without a run folder."""
    prepared = _Prepared(config)
    train_set, data = prepared.train_set, config.data
    start = prepared.timed(prepared.build_criterion)  # the second time, as after a preparation that kept the counts
    sampler = ResumableSampler(len(train_set), config.train.batch_size, seed=config.seed, start=0, total=_WARM_UP + _STEPS)
    loader = build_loader(
        train_set, sampler, workers=data.workers, timeout=data.worker_timeout, for_gpu=prepared.device.type == "cuda"
    )
    seconds: list[float] = []
    with closing(iter(loader)) as batches:
        start += prepared.timed(lambda: prepared.step(to_device(next(batches), prepared.device)))
        while len(seconds) < _WARM_UP - 1 + _STEPS and sum(seconds) < _MOST_SECONDS:
            seconds.append(prepared.timed(lambda: prepared.step(to_device(next(batches), prepared.device))))
    timed = seconds[_WARM_UP - 1 :] or seconds
    evaluation = _evaluation_seconds(prepared.config, prepared.task, prepared.state)
    save = prepared.timed(lambda: _save(prepared.config, prepared.state))
    return RunCost(start, sum(timed) / len(timed), evaluation, save, peak_memory(prepared.device))


class Measurements(NamedTuple):
    """The two measurements that a plan needs."""

    batches: Callable[[Config], list[BatchCost]]
    run: Callable[[Config], RunCost]


IN_NEW_PROCESSES = Measurements(partial(in_new_process, measure_batches), partial(in_new_process, measure_run))


class _Prepared:
    """A network and its data, ready for steps."""

    def __init__(self, config: Config) -> None:
        keep_freed_memory()
        self.device = choose_device(config.device)
        config, _ = resolve_precisions(config, self.device, None)
        self.train_set = open_train_set(config, build_task(config))
        self.config = resolve_scale(config, self.train_set)
        self.task = build_task(self.config)
        self.build_criterion()
        self.state = build_state(self.config, self.task.channels, self.device, pretrained=False)

    def build_criterion(self) -> None:
        self.criterion = self.task.build_criterion(self.train_set, self.device)

    def step(self, batch: Sample) -> None:
        train_step(self.state, batch, self.criterion, lr=self.config.optim.lr, config=self.config)

    def timed(self, work: Callable[[], object]) -> float:
        """The seconds that `work` takes, with what it starts on a GPU."""
        started = time.perf_counter()
        work()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - started


def _evaluation_seconds(config: Config, task: Task[AnswerType], state: TrainState) -> float:
    """The seconds of a validation, from one picture and from several more all over the val split."""
    val_set = task.open_split(config.data.val_split)
    total = len(val_set)
    places = [total * number // min(total, _SCORED) for number in range(min(total, _SCORED))]
    first = _seconds_of_validation(config, task, state, _part_of(val_set, places[:1]))
    if total == 1:
        return first
    several = _seconds_of_validation(config, task, state, _part_of(task.open_split(config.data.val_split), places))
    each = max(0.0, several - first) / max(1, len(places) - 1)
    return first + each * (total - 1 + min(DRAWN, total))  # some are drawn for TensorBoard, and predicted again for that


def _part_of(dataset: SplitDataset, places: list[int]) -> SegmentationDataset:
    """`dataset`, left with the samples at these places alone."""
    assert isinstance(dataset, SegmentationDataset)
    dataset.ids = [dataset.ids[place] for place in places]
    dataset.pictures = [dataset.pictures[place] for place in places]
    return dataset


def _seconds_of_validation(config: Config, task: Task[AnswerType], state: TrainState, dataset: SegmentationDataset) -> float:
    loader = build_loader(dataset, workers=config.data.workers, timeout=config.data.worker_timeout)
    started = time.perf_counter()
    count_split(state.scored_model, loader, config.inference, task.answers, task.validation_counts(dataset))
    return time.perf_counter() - started


def _save(config: Config, state: TrainState) -> None:
    """Write what a run writes after an evaluation: the weights, and the weights with all that training needs to go on."""
    weights = state.scored_model.state_dict()
    averaged = state.model.state_dict() if state.ema else None
    training = {"optimizer": state.optimizer.state_dict(), "ema": averaged}
    with tempfile.TemporaryDirectory() as folder:
        for kept in (None, training):
            save_checkpoint(Path(folder) / LAST, Checkpoint(config, state.step, None, weights, kept))
