"""The loss of a split: the criterion of training on the values that the score is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from segnet.data.dataset import Sample
from segnet.inference.answers import Watch
from segnet.system.distributed import sum_over_ranks
from segnet.tasks.task import Criterion


class SplitLoss:
    """Sums and divisors of a criterion, a row for each picture, in float64.

    The rows of pictures that other ranks count are zero. So the loss depends neither on the number of ranks nor on the order.
    """

    def __init__(self, criterion: Criterion, to_outputs: Callable[[Tensor], Tensor], ids: Sequence[str]) -> None:
        """`to_outputs` is that of the task's `Answers`; `ids` are those of the split."""
        self.criterion = criterion
        self.to_outputs = to_outputs
        self.row_of = {name: row for row, name in enumerate(ids)}
        self.rows = torch.zeros(len(ids), 2, dtype=torch.float64)  # the sum over pixels or values, and its divisor

    def watch(self, batch: Sample) -> Watch:
        """What `predict` calls with the values of each region of `batch`."""
        places = [self.row_of[name] for name in batch.id]

        def add(rows: slice, columns: slice, values: Tensor) -> None:
            if not rows.start and not columns.start:  # the first region; of a second attempt, too
                self.rows[places] = 0
            one = torch.ones((), dtype=torch.float64, device=values.device)
            for place, outputs, whole in zip(places, self.to_outputs(values), batch.truth, strict=True):
                truth = whole[None, ..., rows, columns].to(values.device)
                sums = torch.stack([self.criterion(outputs[None], truth, one).double(), self.criterion.counts(truth)])
                self.rows[place] += sums.cpu()

        return add

    def sum_over_ranks(self) -> None:
        """Replace the sums of this rank by those over all ranks."""
        self.rows = sum_over_ranks(self.rows)

    @property
    def value(self) -> float:
        """The loss of the split; NaN where nothing is scored."""
        sums, divisors = self.rows.T.tolist()
        whole = math.fsum(divisors)
        return math.fsum(sums) / whole if whole else math.nan
