"""What the worker processes of a loader need from the system, and how their failures are reported."""

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

from segnet.system.errors import ExitCode, UserError

_FILES_OF_A_WORKER = 4  # held by this process for each: one end of its queue, the other end, and two that tell of its end
_FILES_BESIDE_WORKERS = 24  # the queue of batches, batches on their way, pictures that a worker reads
_LONGEST_SOCKET_FOLDER = 107 - len("/pymp-xxxxxxxx/listener-xxxxxxxx")  # an address of AF_UNIX has up to 107 bytes


def require_open_files(workers: int) -> None:
    """Raise UserError (environment) unless this process may open the files that so many workers need; started ones would end
    half-way."""
    opened: list[int] = []
    try:
        for _ in range(_FILES_OF_A_WORKER * workers + _FILES_BESIDE_WORKERS if workers else 0):
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise too_few_files() from None
    finally:
        for descriptor in opened:
            os.close(descriptor)


def too_few_files() -> UserError:
    limit = os.sysconf("SC_OPEN_MAX")
    found = f"too many open files for the data workers: the limit is {limit}"
    return UserError(ExitCode.ENVIRONMENT, "data.workers", found, "raise it with ulimit -n, or lower data.workers")


def choose_socket_folder() -> None:
    """Let workers put the sockets that hand over batches in a short folder where TMPDIR is too long for a socket's address.

    Workers inherit the folder that multiprocessing has made here. Raises UserError (environment) when there is no short one.
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
    raise UserError(ExitCode.ENVIRONMENT, f"TMPDIR={usual}", found, "set TMPDIR to a shorter folder, or data.workers=0")


def clear_folder(error: OSError) -> None:
    """Let go of an iterator that could not be made, whose end would print a traceback of its own."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        traceback.clear_frames(error.__traceback__)
    finally:
        sys.unraisablehook = before


def tell_errors(_worker: int) -> None:
    """Make errors of a worker's threads known to the main process, which would wait for the batch until its time limit."""
    multiprocessing.queues.Queue._on_queue_feeder_error = _send_error  # type: ignore[attr-defined]
    sys.excepthook = _end_worker


def _send_error(queue: multiprocessing.queues.Queue[tuple[int, Exception]], error: Exception, item: tuple[int, object]) -> None:
    """Send the error of a batch that could not be sent, in place of the batch."""
    number = error.errno if isinstance(error, OSError) else None
    known = OSError(number, os.strerror(number)) if number else RuntimeError(f"DataLoader worker: {error}")
    queue.put((item[0], known))


def _end_worker(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """End this worker with the error's number as exit code: the thread that hands over batches cannot send one."""
    if isinstance(error, ConnectionError | EOFError):
        return  # the main process has ended, or wants no more
    if not isinstance(error, OSError):
        sys.__excepthook__(kind, error, trace)
    os._exit(getattr(error, "errno", None) or 1)


def number_of_exit(error: BaseException) -> int | None:
    """The `errno` with which `_end_worker` ended a worker, from torch's words or those of the cause."""
    found = re.search(r"exited unexpectedly with exit code (\d+)", f"{error} {error.__cause__}")
    return int(found[1]) if found and int(found[1]) > 1 else None


def lost_worker_error(error: BaseException) -> UserError | None:
    """What torch says of a worker that ended; None for any other error."""
    reason, number = (str(error).splitlines() or [""])[0], number_of_exit(error)
    if number:
        reason = os.strerror(number)
        return UserError(ExitCode.WORKER_LOST, "data.workers", f"a data worker was lost ({reason})", "lower data.workers")
    if "DataLoader worker" in reason or "Pin memory thread" in reason:
        remedy = "free memory or /dev/shm, or lower data.workers"
        return UserError(ExitCode.WORKER_LOST, "data.workers", f"a data worker was lost ({reason})", remedy)
    return None


@contextmanager
def explain_lost_worker() -> Iterator[None]:
    """Raises UserError (worker lost) where a worker ends while the body is at something else than its next batch, since torch
    then interrupts whatever runs."""
    try:
        yield
    except RuntimeError as error:
        if lost := lost_worker_error(error):
            raise lost from None
        raise
