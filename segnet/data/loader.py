"""Batches of a split, read by worker processes."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import cast

from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from segnet.data.dataset import Sample, SegmentationDataset
from segnet.data.sampler import SampleKey
from segnet.data.workers import (
    choose_socket_folder,
    clear_folder,
    lost_worker_error,
    number_of_exit,
    require_open_files,
    tell_errors,
    too_few_files,
)
from segnet.system.distributed import this_ranks_part
from segnet.system.errors import ExitCode, UserError
from segnet.system.processes import kill_children, stop_signals_blocked


class _Reading(Dataset[Sample]):
    """`dataset`, with the refusal of a picture as a value: torch would make a RuntimeError of one raised in a worker."""

    def __init__(self, dataset: SegmentationDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: SampleKey) -> Sample | Exception:  # type: ignore[override]
        try:
            return self.dataset[key]
        except (UserError, OSError) as error:
            return error


def _collate(samples: list[Sample | Exception]) -> Sample | Exception:
    """A batch; its images lie in memory as (B, H, W, 3), the way each was decoded and the network wants them."""
    whole: list[Sample] = []
    for sample in samples:
        if isinstance(sample, Exception):
            return sample
        whole.append(sample._replace(image=sample.image.permute(1, 2, 0)))
    batch: Sample = default_collate(whole)
    return batch._replace(image=batch.image.permute(0, 3, 1, 2))  # (B, 3, H, W)


class _Loader(DataLoader[Sample]):
    """Batches; a picture that was refused, here or in a worker, raises its UserError here."""

    def __iter__(self) -> Iterator[Sample]:  # type: ignore[override]
        try:
            yield from self._batches()
        except (RuntimeError, OSError, EOFError) as error:
            mistake = self._explain(error)
            if mistake is None:
                raise
            raise mistake from None

    def _explain(self, error: RuntimeError | OSError | EOFError) -> UserError | None:
        """What the user can mend of an error of the workers; None for any other error."""
        reason = (str(error).splitlines() or [""])[0]
        number = error.errno if isinstance(error, OSError) else number_of_exit(error)
        if number in (errno.EMFILE, errno.ENFILE) or "Too many open files" in reason or "items of ancdata" in reason:
            return too_few_files()
        if "DataLoader timed out" in reason:
            kill_children()
            found, remedy = f"no batch for {self.timeout:g} seconds", "see whether the disk hangs, or raise data.worker_timeout"
        elif lost := lost_worker_error(error):
            return lost
        elif isinstance(error, ConnectionError | EOFError):
            found, remedy = "a data worker was lost (it closed its connection)", "lower data.workers"
        else:
            return None
        return UserError(ExitCode.WORKER_LOST, "data.workers", found, remedy)

    def _batches(self) -> Iterator[Sample]:
        if self.num_workers:
            require_open_files(self.num_workers)
            choose_socket_folder()
        with stop_signals_blocked():
            try:
                batches = super().__iter__()
            except OSError as error:  # of a pipe, a lock or a process
                clear_folder(error)
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    raise
                found, remedy = f"no worker can be started ({error.strerror})", "free memory or /dev/shm, or lower data.workers"
                raise UserError(ExitCode.ENVIRONMENT, "data.workers", found, remedy) from None
        try:
            for batch in batches:
                if isinstance(batch, Exception):
                    raise batch
                yield batch
        finally:
            if self.num_workers:  # its workers end now, not when the collector finds frames that an exception holds
                batches._shutdown_workers()  # type: ignore[attr-defined]


def build_loader(
    dataset: SegmentationDataset,
    batches: Sampler[list[SampleKey]] | None = None,
    *,
    workers: int,
    timeout: float = 0,
    pin_memory: bool = False,
) -> DataLoader[Sample]:
    """Samples in the given batches; without them, the whole split in order, one picture at a time at its own size.

    Under torchrun each rank gets its share of the split. Iterating raises UserError (data) for a damaged picture or mask,
    whatever the number of workers, (worker lost) for one that died or gave nothing for `timeout` seconds (0: no limit), and
    (environment) where workers may not open enough files.
    """
    return _Loader(
        _Reading(dataset),
        batch_sampler=[[SampleKey(0, index)] for index in this_ranks_part(list(range(len(dataset))))]
        if batches is None
        else batches,
        collate_fn=_collate,
        num_workers=workers,
        timeout=timeout if workers else 0,
        pin_memory=pin_memory,
        worker_init_fn=tell_errors,
    )


def split_of(loader: DataLoader[Sample]) -> SegmentationDataset:
    """The whole split that a loader of `build_loader` reads, of which it gives this rank's share."""
    return cast(_Reading, loader.dataset).dataset
