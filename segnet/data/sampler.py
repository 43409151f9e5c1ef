"""The order of the training images: a function of the seed and the step, so that a run can be resumed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch.utils.data import Sampler

from segnet.system.digests import derive_seed
from segnet.system.distributed import this_ranks_part


class SampleKey(NamedTuple):
    """Which picture, and when: all that a worker needs to know to make a sample."""

    epoch: int
    picture: int  # its place in the split
    shrink: float = 1.0  # what crop and zoom are multiplied by, see AugmentConfig.shrink


class ResumableSampler(Sampler[list[SampleKey]]):
    """The keys of batch `start`, `start + 1`, …, `total - 1`: a function of (seed, step) alone.

    The stream is one permutation of the data set after the other, cut into full batches; a batch may span two epochs,
    so each picture is seen exactly once per epoch and no batch is short. Under torchrun each rank gets its share of every batch.
    The run from step 0 to `total` has as many parts of equal steps as there are `shrink`; the keys of a part have its size.
    """

    def __init__(
        self, length: int, batch_size: int, *, seed: int, start: int, total: int, shrink: Sequence[float] = (1.0,)
    ) -> None:
        self.length, self.batch_size, self.seed, self.start, self.total = length, batch_size, seed, start, total
        self.shrink = shrink
        self._epoch, self._order = -1, list[int]()

    def __len__(self) -> int:
        return self.total - self.start

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for step in range(self.start, self.total):
            yield this_ranks_part(self.batch(step))

    def batch(self, step: int) -> list[SampleKey]:
        """The whole batch of a step, over all ranks."""
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)
        size = self.shrink[step * len(self.shrink) // self.total]
        return [self._key(*divmod(position, self.length), size) for position in positions]

    def _key(self, epoch: int, place: int, size: float) -> SampleKey:
        if epoch != self._epoch:
            self._epoch, self._order = epoch, list(range(self.length))
            random.Random(derive_seed(self.seed, "order", epoch)).shuffle(self._order)
        return SampleKey(epoch, self._order[place], size)
