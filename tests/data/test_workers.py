"""A worker that is lost, or cannot start or send, is said with what to do."""

from __future__ import annotations

import errno
import multiprocessing.util
import os
import resource
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, islice
from multiprocessing.connection import Listener
from pathlib import Path

import pytest
import torch
from helpers import refused

from segnet.classes import ClassSet
from segnet.data import loader
from segnet.data.dataset import SegmentationDataset
from segnet.data.loader import build_loader
from segnet.system.errors import ExitCode


def hang(image: torch.Tensor, mask: torch.Tensor, size: float) -> tuple[torch.Tensor, torch.Tensor]:
    """As a network disk does."""
    time.sleep(60)
    return image, mask


def die(image: torch.Tensor, mask: torch.Tensor, size: float) -> tuple[torch.Tensor, torch.Tensor]:
    """As the system does with a process when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
    return image, mask


@pytest.mark.parametrize(
    ("fate", "timeout", "message"), [(hang, 1, "no batch for 1 seconds"), (die, 600, "a data worker was lost")]
)
def test_a_lost_worker_is_said(fate, timeout: float, message: str, tiny_data: Path, tiny_classes: ClassSet) -> None:
    dataset = SegmentationDataset(tiny_data, "val", tiny_classes, transform=fate)
    with refused(ExitCode.WORKER_LOST, "data.workers", message):
        list(build_loader(dataset, workers=1, timeout=timeout))


def batches_of(workers: int, root: Path, classes: ClassSet) -> int:
    return len(list(build_loader(SegmentationDataset(root, "val", classes), workers=workers, timeout=600)))


@contextmanager
def few_files(more: int) -> Iterator[None]:
    """No more than so many files may be open beside those that are."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = set(map(int, os.listdir("/proc/self/fd")))
    free = (number for number in count() if number not in opened)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(islice(free, more, None)), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("more", [1, 12, 20])
def test_too_few_files_for_the_workers_are_said(more: int, workers: int, tiny_data, tiny_classes, capfd) -> None:
    with refused(ExitCode.ENVIRONMENT, "data.workers: too many open files", "ulimit -n", "lower data.workers"), few_files(more):
        batches_of(workers, tiny_data, tiny_classes)
    assert "Traceback" not in capfd.readouterr().err


def test_no_worker_needs_no_more_files(tiny_data: Path, tiny_classes: ClassSet) -> None:
    whole = batches_of(0, tiny_data, tiny_classes)
    with few_files(8):
        assert batches_of(0, tiny_data, tiny_classes) == whole > 0


def without_socket_folder(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    folder.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setitem(multiprocessing.current_process()._config, "tempdir", None)


@pytest.mark.parametrize("length", [1, 60, 120, 200])
def test_a_long_folder_for_temporary_files_hinders_no_worker(length: int, tiny_data, tiny_classes, tmp_path, monkeypatch) -> None:
    without_socket_folder(monkeypatch, tmp_path / ("x" * length))
    assert batches_of(2, tiny_data, tiny_classes) == batches_of(0, tiny_data, tiny_classes)
    assert tempfile.gettempdir() == str(tmp_path / ("x" * length))


def test_no_short_folder_for_sockets_is_said(tiny_data, tiny_classes, tmp_path, monkeypatch) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    without_socket_folder(monkeypatch, tmp_path / ("x" * 100))
    monkeypatch.setattr(multiprocessing.util, "get_temp_dir", full)
    with refused(ExitCode.ENVIRONMENT, "TMPDIR=", "too long for a socket's address", "shorter folder"):
        batches_of(1, tiny_data, tiny_classes)


def test_an_error_of_sending_a_batch_does_not_wait_for_the_time_limit(tiny_data, tiny_classes, tmp_path, monkeypatch) -> None:
    without_socket_folder(monkeypatch, tmp_path / ("x" * 100))
    monkeypatch.setattr(loader, "choose_socket_folder", lambda: None)
    with refused(ExitCode.WORKER_LOST, "data.workers", "AF_UNIX path too long"):
        batches_of(2, tiny_data, tiny_classes)


@pytest.mark.parametrize(("number", "code"), [(errno.EMFILE, ExitCode.ENVIRONMENT), (errno.ENOSPC, ExitCode.WORKER_LOST)])
def test_an_error_of_handing_over_memory_is_said(number: int, code: ExitCode, tiny_data, tiny_classes, monkeypatch) -> None:
    def fail(_: Listener) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Listener, "accept", fail)
    with refused(code, "data.workers", os.strerror(number).lower() if number == errno.EMFILE else os.strerror(number)):
        batches_of(1, tiny_data, tiny_classes)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EAGAIN, errno.EACCES])
def test_a_worker_that_cannot_be_started_is_said(number: int, tiny_data, tiny_classes, monkeypatch, capfd) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fork", fail)
    with refused(ExitCode.ENVIRONMENT, "data.workers: no worker can be started", os.strerror(number), "/dev/shm"):
        batches_of(1, tiny_data, tiny_classes)
    assert "Traceback" not in capfd.readouterr().err
