"""The order of the training images. It is a function of seed and step alone, so that a run can be resumed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from torch.utils.data import Sampler

from segnet.system.digests import derive_seed
from segnet.system.distributed import this_ranks_part


class SampleKey(NamedTuple):
    """All that a worker needs to read and augment one sample."""

    epoch: int
    picture: int  # index in the split
    shrink: float = 1.0  # factor of crop size and zoom, see AugmentConfig.shrink


def steps_left(step: int, total: int, shrink: Sequence[float]) -> float:
    """The steps from `step` (1 to `total`) on, counted in steps as large as the one before it.

    A step with the factor s in `shrink` has the work of s² steps of full size. The time left is this number × the seconds that
    the last step took.
    """
    firsts = [-(-part * total // len(shrink)) for part in range(len(shrink) + 1)]
    parts = zip(shrink, pairwise(firsts), strict=True)
    work = sum(factor**2 * max(0, end - max(first, step)) for factor, (first, end) in parts)
    return work / shrink[_part_of(step - 1, total, shrink)] ** 2


def _part_of(step: int, total: int, shrink: Sequence[float]) -> int:
    """The place in `shrink` of the factor of a step: the steps are divided into equal parts, one for each factor."""
    return step * len(shrink) // total


class ResumableSampler(Sampler[list[SampleKey]]):
    """The keys of the batches of steps `start` to `total - 1`, each a function of (seed, step) alone.

    The stream of pictures is one permutation of the dataset after the other. It is cut into full batches, so a batch may
    span two epochs. Under torchrun each rank gets its part of every batch.
    The steps 0 to `total` are divided into equal parts, one for each factor in `shrink`, which all keys of the part get.
    """

    def __init__(
        self, length: int, batch_size: int, *, seed: int, start: int, total: int, shrink: Sequence[float] = (1.0,)
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.start = start
        self.total = total
        self.shrink = shrink
        self._epoch = -1  # of the permutation that is kept
        self._order = list[int]()

    def __len__(self) -> int:
        return self.total - self.start

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for step in range(self.start, self.total):
            yield this_ranks_part(self.batch(step))

    def batch(self, step: int) -> list[SampleKey]:
        """The batch of a step, of all ranks together."""
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)
        shrink = self.shrink[_part_of(step, self.total, self.shrink)]
        return [self._key(*divmod(position, self.length), shrink) for position in positions]

    def _key(self, epoch: int, place: int, shrink: float) -> SampleKey:
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = list(range(self.length))
            random.Random(derive_seed(self.seed, "order", epoch)).shuffle(self._order)
        return SampleKey(epoch, self._order[place], shrink)
