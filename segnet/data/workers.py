"""Worker processes of a loader: the files and sockets that they need, the reports of their errors, their end."""

from __future__ import annotations

import errno
import multiprocessing.queues
import multiprocessing.util
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from segnet.system.errors import ExitCode, UserError, environment_error, first_line

_FILES_OF_A_WORKER = 4  # open in this process for each worker: both ends of its queue, and two that report its end
_FILES_BESIDE_WORKERS = 24  # the queue of batches, the batches in it, the pictures that a worker reads
_LONGEST_SOCKET_FOLDER = 107 - len("/pymp-xxxxxxxx/listener-xxxxxxxx")  # an AF_UNIX address has 107 bytes at most


def require_open_files(workers: int) -> None:
    """Raise UserError (environment) unless this process may open the files that so many workers need; they would fail later."""
    opened: list[int] = []
    try:
        for _ in range(_FILES_OF_A_WORKER * workers + _FILES_BESIDE_WORKERS if workers else 0):
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise open_files_error() from None
    finally:
        for descriptor in opened:
            os.close(descriptor)


def open_files_error() -> UserError:
    """The error that this process may not open enough files."""
    limit = os.sysconf("SC_OPEN_MAX")
    found = f"too many open files for the data workers: the limit is {limit}"
    return environment_error("data.workers", found, "raise it with ulimit -n, or lower data.workers")


def choose_socket_folder() -> None:
    """Let multiprocessing make its folder of sockets in /tmp or the like when TMPDIR is too long for a socket's address.

    Workers, which hand over batches through these sockets, inherit the folder.
    Raises UserError (environment) when no folder with a short path can be written.
    """
    usual = tempfile.gettempdir()
    if len(os.fsencode(usual)) <= _LONGEST_SOCKET_FOLDER:
        return
    before = tempfile.tempdir
    for tempfile.tempdir in ("/tmp", "/var/tmp", "/dev/shm"):
        try:
            multiprocessing.util.get_temp_dir()
            return
        except OSError:
            continue
        finally:
            tempfile.tempdir = before
    found = f"too long for a socket's address: {len(os.fsencode(usual))} bytes, expected {_LONGEST_SOCKET_FOLDER} at most"
    raise environment_error(f"TMPDIR={usual}", found, "set TMPDIR to a shorter folder, or data.workers=0")


def release_frames(error: OSError) -> None:
    """Destroy a half-made iterator that only the traceback of `error` refers to, without the traceback that its end prints."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        traceback.clear_frames(error.__traceback__)
    finally:
        sys.unraisablehook = before


def report_thread_errors(_worker: int) -> None:
    """Report errors in the threads of this worker to the main process, which would else wait for the batch until its timeout."""
    multiprocessing.queues.Queue._on_queue_feeder_error = _send_error  # type: ignore[attr-defined]
    sys.excepthook = _end_worker


def _send_error(queue: multiprocessing.queues.Queue[tuple[int, Exception]], error: Exception, item: tuple[int, object]) -> None:
    """Send an error in place of the batch that could not be sent."""
    number = error.errno if isinstance(error, OSError) else None
    known = OSError(number, os.strerror(number)) if number else RuntimeError(f"DataLoader worker: {error}")
    queue.put((item[0], known))


def _end_worker(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """End this worker with `errno` as exit code, since the thread that hands over batches cannot send an error."""
    if isinstance(error, ConnectionError | EOFError):
        return  # the main process has ended, or needs no more batches
    if not isinstance(error, OSError):
        sys.__excepthook__(kind, error, trace)
    os._exit(getattr(error, "errno", None) or 1)


def number_of_exit(error: BaseException) -> int | None:
    """The `errno` with which `_end_worker` ended a worker, from the text of torch's error or of its cause; None without one."""
    match = re.search(r"exited unexpectedly with exit code (\d+)", f"{error} {error.__cause__}")
    return int(match[1]) if match and int(match[1]) > 1 else None


def lost_worker_error(error: BaseException) -> UserError | None:
    """The UserError for torch's error that a worker ended; None for any other error."""
    reason = first_line(error)
    number = number_of_exit(error)
    remedy = "free memory or /dev/shm, or lower data.workers"
    if number:
        reason = os.strerror(number)
        remedy = "lower data.workers"
    elif "DataLoader worker" not in reason and "Pin memory thread" not in reason:
        return None
    return UserError(ExitCode.WORKER_LOST, "data.workers", f"a data worker was lost ({reason})", remedy)


@contextmanager
def explain_lost_worker() -> Iterator[None]:
    """Raises UserError (worker lost) when a worker ends during the body: torch then interrupts whatever runs."""
    try:
        yield
    except RuntimeError as error:
        lost = lost_worker_error(error)
        if lost:
            raise lost from None
        raise


def end_workers(batches: Any) -> None:
    """End the workers of an iterator of `torch.utils.data.DataLoader` now.

    Torch ends them when the iterator is deleted, which an exception in flight delays: its traceback refers to the iterator.
    It has no public function for this (2.x).
    """
    batches._shutdown_workers()
