"""The questions that training, prediction and evaluation ask a task: what the network answers, and how good an answer is."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from segnet.config.sections import InferenceConfig
from segnet.data.dataset import Sample, SplitDataset

AnswerType = TypeVar("AnswerType", bound=tuple[Tensor | None, ...])  # a NamedTuple of tensors (B, …, H, W)
Taken = TypeVar("Taken", bound=tuple[Tensor | None, ...], contravariant=True)


class Measure(NamedTuple):
    """One number of a score: a row of its table, an entry of metrics.json, a tile of its report."""

    name: str  # in files, e.g. "miou"
    title: str  # for people, e.g. "mIoU"
    value: float  # NaN where there is nothing to measure
    is_share: bool = True  # 0..1, shown in percent
    digits: int = 2  # behind the point, where it is not a share

    @property
    def text(self) -> str:
        """Title and value for people, e.g. "mIoU 51.23"."""
        return f"{self.title} {100 * self.value:.2f}" if self.is_share else f"{self.title} {self.value:.{self.digits}f}"


class Best(NamedTuple):
    """The measure that chooses the best checkpoint, that of the highest value."""

    name: str
    title: str  # for people, as in `Measure`
    is_share: bool = True

    def of(self, measures: Sequence[Measure]) -> Measure:
        """This measure among `measures`."""
        return next(measure for measure in measures if measure.name == self.name)

    def rank(self, measures: Sequence[Measure]) -> float:
        """Its value, by which checkpoints are ranked; the lowest finite number where it is NaN."""
        value = self.of(measures).value
        return -sys.float_info.max if math.isnan(value) else value


class Spread(NamedTuple):
    """The differences between the answers of several dropout samples."""

    variance: Tensor  # (B, 1, H, W): the variance between samples, averaged over the channels
    statistic: Tensor  # (B, 1, H, W): `Answers.statistic` of a sample, averaged over the samples


class Answers(Protocol[AnswerType]):
    """The way from a network's outputs to an answer."""

    def under(self, config: InferenceConfig) -> Answers[AnswerType]:
        """The same, with the settings of `config` that concern the answer alone."""
        ...

    def of_outputs(self, outputs: Tensor) -> Tensor:
        """(B, C, H, W) float32: the values that are averaged over scales, flips, windows and dropout samples."""
        ...

    def statistic(self, values: Tensor) -> Tensor:
        """(B, 1, H, W): a number of the values of one dropout sample that `finish` needs averaged over all of them."""
        ...

    def to_outputs(self, values: Tensor) -> Tensor:
        """(B, C, H, W): outputs of which `of_outputs` gives `values`, for a criterion."""
        ...

    def finish(self, mean: Tensor, spread: Spread | None, *, keep_mean: bool) -> AnswerType:
        """The answer, from averaged values of a window; `spread` is None without dropout samples."""
        ...

    def agree(self, outputs: Tensor, others: Tensor) -> Tensor:
        """(B, H, W) bool: where two networks, such as one and its quantised copy, give the same answer by their outputs."""
        ...

    def complete(self, answer: AnswerType) -> AnswerType:
        """The answer of whole images, from those of their windows put together."""
        ...


class Criterion(Protocol):
    """A loss that is a sum over pixels or images divided by a count, so that the parts of a batch and the ranks add up.

    There is one divisor: a sum of two losses needs the same count for both. A loss of whole images, such as Dice, is multiplied
    by the count of each image; over the pixels of a whole batch it does not add up. Validation takes a large image in regions
    and adds up the losses of these.
    """

    def counts(self, truth: Tensor, /) -> Tensor:
        """The divisor, a float64 scalar: a function of the truth alone, additive over the parts of a batch."""
        ...

    def __call__(self, outputs: Tensor, truth: Tensor, counts: Tensor | None = None, /) -> Tensor:
        """The sum over `outputs` and `truth`, divided by `counts` of the whole batch."""
        ...


class Counts(Protocol[Taken]):
    """Counts over a split, exact and independent of the order of its samples and of the number of ranks."""

    def add(self, batch: Sample, answer: Taken) -> None:
        """Count a batch and its answer, both on the CPU."""
        ...

    def sum_over_ranks(self) -> None:
        """Replace the counts of this rank by the sum over all ranks."""
        ...

    def measures(self) -> list[Measure]:
        """The numbers that follow from the counts."""
        ...


class Score(Protocol):
    """The score of a network on a split, and of every picture."""

    def measures(self) -> list[Measure]:
        """The rows of the score's table, the entries of metrics.json and the tiles of the report."""
        ...

    def warnings(self) -> list[str]:
        """What is odd about the score, each with a remedy."""
        ...


class FullCounts(Counts[Taken], Protocol[Taken]):
    """All counts of an evaluation."""

    def evaluation(self) -> Score:
        """The score that follows from the counts."""
        ...


class Task(Protocol[AnswerType]):
    """A purpose of a network. Training, prediction and evaluation know nothing else of it."""

    channels: int  # of the network's output
    answers: Answers[AnswerType]
    best: Best
    logged: tuple[str, ...]  # the names of the measures that metrics.csv holds, without the "val_" before each
    logged_parts: tuple[str, ...]  # likewise of `parts`

    def open_split(self, split: str, *, training: bool = False, seed: int = 0) -> SplitDataset:
        """The samples of a split, checked: to be scored or to be trained on. Raises UserError (data) for its faults."""
        ...

    def build_criterion(self, dataset: SplitDataset, device: torch.device) -> Criterion:
        """The loss that the configuration asks for; what it needs to know of the training set is measured on `dataset`."""
        ...

    def validation_counts(self, dataset: SplitDataset) -> Counts[AnswerType]:
        """Empty counts of the logged measures, for a split to be scored."""
        ...

    def parts(self, counts: Counts[AnswerType]) -> list[Measure]:
        """The measures of the parts of a validation, such as the IoU of each class; empty where there are none.

        `counts` are those of `validation_counts`.
        """
        ...

    def evaluation_counts(self, dataset: SplitDataset) -> FullCounts[AnswerType]:
        """Empty counts of all measures, for a split to be scored."""
        ...

    def draw(self, sample: Sample, answer: AnswerType) -> list[np.ndarray]:
        """(H, W, 3) uint8 each: a sample, its truth and the answer, for one row of a picture. `answer` is of a batch of one."""
        ...

    def draw_doubt(self, sample: Sample, answer: AnswerType) -> np.ndarray:
        """(H, W, 3) uint8: where the answer may be, or is, wrong, beside those of `draw`."""
        ...

    def draw_counts(self, counts: Counts[AnswerType]) -> dict[str, np.ndarray]:
        """(H, W, 3) uint8 each, by the tag for observers: what a validation counted. `counts` are of `validation_counts`."""
        ...

    def draw_samples(self, samples: Sequence[Sample]) -> np.ndarray:
        """(H, W, 3) uint8: a sheet of samples of training with their truth."""
        ...

    def has_learnt(self, batch: Sample, answer: AnswerType) -> tuple[Measure, bool]:
        """How well a batch was answered that a network was trained on alone, and whether it has learnt it."""
        ...

    def batch_fault(self, batch: Sample) -> str:
        """Why a batch has nothing to learn; empty where it has."""
        ...
