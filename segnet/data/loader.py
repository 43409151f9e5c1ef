"""Batches of a split, read by worker processes."""

from __future__ import annotations

import errno
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from segnet.data.colors import Change
from segnet.data.dataset import Sample, SplitDataset
from segnet.data.sampler import SampleKey
from segnet.data.workers import (
    choose_socket_folder,
    end_workers,
    lost_worker_error,
    number_of_exit,
    open_files_error,
    release_frames,
    report_thread_errors,
    require_open_files,
)
from segnet.system.distributed import this_ranks_part
from segnet.system.errors import ExitCode, UserError, environment_error, first_line
from segnet.system.processes import kill_children, stop_signals_blocked


class _ErrorsAsValues(Dataset[Sample]):
    """`dataset`, with the error of a sample as a value. Torch would turn one that is raised in a worker into a RuntimeError."""

    def __init__(self, dataset: SplitDataset, colors_later: bool) -> None:
        self.dataset = dataset
        self.colors_later = colors_later

    def __getitem__(self, key: SampleKey) -> Sample | Exception:  # type: ignore[override]
        try:
            return self.dataset.before_colors(key) if self.colors_later else self.dataset[key]
        except (UserError, OSError) as error:
            return error


def _collate(samples: list[Sample | Exception]) -> Sample | Exception:
    """The batch of `samples`, or the first error among them. Images are (B, C, H, W) and lie in memory as (B, H, W, C)."""
    whole: list[tuple[Tensor, Tensor, str]] = []
    colors: list[Sequence[Change]] = []
    for sample in samples:
        if isinstance(sample, Exception):
            return sample
        whole.append((sample.image.permute(1, 2, 0), sample.truth, sample.id))
        colors.append(cast(Sequence[Change], sample.colors))
    image, truth, ids = default_collate(whole)
    return Sample(image.permute(0, 3, 1, 2), truth, ids, colors if any(colors) else ())  # (B, C, H, W)


class Loader(DataLoader[Sample]):
    """A loader that raises the errors of samples and of workers as UserErrors."""

    def check_worker_number_rationality(self) -> None:
        """Nothing: torch would warn at each pass over a split where a recipe has more workers than there are cores."""

    def __iter__(self) -> Generator[Sample, None, None]:  # type: ignore[override]
        try:
            yield from self._batches()
        except (RuntimeError, OSError, EOFError) as error:
            explained = self._user_error(error)
            if explained is None:
                raise
            raise explained from None

    def _user_error(self, error: RuntimeError | OSError | EOFError) -> UserError | None:
        """The UserError for an error of the workers; None for any other error."""
        reason = first_line(error)
        number = error.errno if isinstance(error, OSError) else number_of_exit(error)
        if number in (errno.EMFILE, errno.ENFILE) or "Too many open files" in reason or "items of ancdata" in reason:
            return open_files_error()
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
            except OSError as error:  # a pipe, a lock or a process cannot be made
                release_frames(error)
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    raise
                found, remedy = f"no worker can be started ({error.strerror})", "free memory or /dev/shm, or lower data.workers"
                raise environment_error("data.workers", found, remedy) from None
        try:
            for batch in batches:
                if isinstance(batch, Exception):
                    raise batch
                yield batch
        finally:
            if self.num_workers:
                end_workers(batches)


def build_loader(
    dataset: SplitDataset,
    batches: Sampler[list[SampleKey]] | None = None,
    *,
    workers: int,
    timeout: float = 0,
    for_gpu: bool = False,
) -> Loader:
    """A loader of the given batches; without them, of each sample of the split in order, at its own size and by itself.

    With `for_gpu` batches lie in pinned memory, and their changes of colour are left to the GPU, see `Sample.colors`.
    Under torchrun each rank gets its part of the split. Iterating raises UserError (data) for a damaged picture or mask with
    any number of workers, (worker lost) when one died or gave no batch for `timeout` seconds (0: no limit), (environment)
    when workers may not open enough files.
    """
    if batches is None:
        in_order = this_ranks_part(list(range(len(dataset))))
        sampler: Iterable[list[SampleKey]] = [[SampleKey(0, index)] for index in in_order]
    else:
        sampler = batches
    return Loader(
        _ErrorsAsValues(dataset, colors_later=for_gpu),
        batch_sampler=sampler,
        collate_fn=_collate,
        num_workers=workers,
        timeout=timeout if workers else 0,
        pin_memory=for_gpu and torch.cuda.is_available(),
        worker_init_fn=report_thread_errors,
    )
