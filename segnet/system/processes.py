"""Child processes, and the signals that stop a command."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from types import FrameType

from segnet.system.terminal import redraws


def kill_children() -> None:
    """Kill the child processes of this process, such as hung data workers, for which an orderly exit would wait."""
    for child in multiprocessing.active_children():
        child.kill()


@contextmanager
def stopping_pool(pool: Executor) -> Iterator[Executor]:
    """The pool `pool`, whose pending tasks are cancelled, and whose processes are killed, when an exception leaves the body."""
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        kill_children()
        raise
    pool.shutdown()


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU)


def heard_stop_signals() -> list[signal.Signals]:
    """The STOP_SIGNALS that this process handles.

    SIGINT and SIGTERM always; SIGHUP (a closed session), SIGUSR1 and SIGXCPU (sent by Slurm and by limits on processor time)
    unless the parent process ignores them, as nohup does.
    """
    always = (signal.SIGINT, signal.SIGTERM)
    return [number for number in STOP_SIGNALS if number in always or signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Block the stop signals in processes that the body starts.

    A terminal or a cluster sends a signal to the whole process group; child processes are to be ended by this process instead.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


PATIENCE = 9.0  # seconds from SIGTERM to the end of the process; clusters send SIGKILL 10 seconds or more after SIGTERM


@contextmanager
def stop_signals(received: list[int]) -> Iterator[None]:
    """Append the stop signals that arrive in the body to `received`. Does nothing outside the main thread.

    A SIGINT after another signal raises KeyboardInterrupt, and so does a SIGTERM after SIGINT or SIGTERM. The other signals may
    come several times: a cluster may repeat its warning before it stops a job. `PATIENCE` seconds after SIGTERM the process ends
    where it is, and only the steps since the last save are lost; after the other signals there is no time limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only the main thread handle signals
        return
    from segnet.system.distributed import is_main  # it imports torch, which a command that prints its help does not need

    def note(number: int, _: FrameType | None) -> None:
        earlier = received[-1:]
        received.append(number)
        if earlier and (number == signal.SIGINT or {*earlier, number} <= {signal.SIGINT, signal.SIGTERM}):
            raise KeyboardInterrupt
        if is_main() and not earlier:
            with suppress(RuntimeError):  # the signal interrupted a write to stderr
                below_bar = "\n" if redraws(sys.stderr) else ""
                print(f"{below_bar}stopping after this step; a second signal stops at once, without saving", file=sys.stderr)

    last_words = "the running step takes too long: leaving without it; --resume continues from the last checkpoint"
    with _leaving_after_sigterm(last_words), _handling(heard_stop_signals(), note):
        yield


@contextmanager
def stop_signals_interrupt(last_words: str = "stopping takes too long: leaving at once") -> Iterator[None]:
    """Raise SystemExit where a stop signal arrives in the body; SIGINT raises KeyboardInterrupt as usual.

    `PATIENCE` seconds after SIGTERM the process prints `last_words` and ends.
    """

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    numbers = [number for number in heard_stop_signals() if number != signal.SIGINT]
    with _leaving_after_sigterm(last_words), _handling(numbers, leave):
        yield


@contextmanager
def _handling(numbers: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle the signals `numbers` with `handler` in the body, and as before afterwards."""
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)


@contextmanager
def _leaving_after_sigterm(last_words: str) -> Iterator[None]:
    """End the process `PATIENCE` seconds after a SIGTERM that arrives in the body, also while its main thread is busy.

    Python runs a signal handler only when the main thread returns from torch, which may be in a long step or waiting for a rank
    that hangs. So another thread reads the pipe into which Python writes the number of each signal when it arrives.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    patience = threading.Timer(PATIENCE, _leave_at_once, [last_words])
    patience.daemon = True

    def watch() -> None:
        while number := os.read(reading, 1)[0]:
            if number == signal.SIGTERM:
                patience.start()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    previous = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        os.write(writing, b"\0")
        watcher.join()
        patience.cancel()
        os.close(reading)
        os.close(writing)


def _leave_at_once(last_words: str) -> None:
    """Print `last_words` and end this process and its children with the exit code of SIGTERM."""
    print(last_words, file=sys.stderr)
    kill_children()
    os._exit(128 + signal.SIGTERM)
