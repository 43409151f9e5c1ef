"""Child processes and the signals that ask a command to stop."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from segnet.system.distributed import is_main


def kill_children() -> None:
    """End the processes that this one started, such as data workers that hang: an orderly exit would wait for them."""
    for child in multiprocessing.active_children():
        child.kill()


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU)


def heard_stop_signals() -> list[signal.Signals]:
    """Those of STOP_SIGNALS that this process is to obey.

    SIGHUP (a closed session), SIGUSR1 and SIGXCPU (what Slurm and limits on processor time send) stay ignored where whoever
    started the process ignored them, as nohup does.
    """
    always = (signal.SIGINT, signal.SIGTERM)
    return [number for number in STOP_SIGNALS if number in always or signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Processes that the body starts never receive a stop signal, which may reach a whole group: this process ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


PATIENCE = 9.0  # seconds between SIGTERM and the end: who sends it does not wait for long


@contextmanager
def stop_signals(received: list[int]) -> Iterator[None]:
    """In the body stop signals (see `processes`) go into `received`. A SIGINT that is not the first interrupts, and so does a
    SIGTERM after SIGINT or SIGTERM; a cluster may warn several times before it stops a job.

    After SIGTERM, which a kill follows soon, the body has `PATIENCE` seconds, then the process ends where it stands: as after
    any kill, nothing is lost but the steps since the last save. The others have no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may take signals in hand
        return

    def note(number: int, _: FrameType | None) -> None:
        earlier = received[-1:]
        received.append(number)
        if earlier and (number == signal.SIGINT or {*earlier, number} <= {signal.SIGINT, signal.SIGTERM}):
            raise KeyboardInterrupt
        if is_main() and not earlier:
            with suppress(RuntimeError):  # the signal came inside a write to stderr
                print("stopping after this step; a second signal stops at once, without saving", file=sys.stderr)

    last_words = "the running step takes too long: leaving without it; --resume continues from the last checkpoint"
    with _leaving_after_sigterm(last_words):
        previous = {number: signal.signal(number, note) for number in heard_stop_signals()}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


@contextmanager
def stop_signals_interrupt(last_words: str = "stopping takes too long: leaving at once") -> Iterator[None]:
    """In the body a stop signal raises SystemExit, as Ctrl-C raises KeyboardInterrupt.

    `PATIENCE` seconds after SIGTERM the process ends with `last_words`.
    """

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    with _leaving_after_sigterm(last_words):
        numbers = [number for number in heard_stop_signals() if number != signal.SIGINT]
        previous = {number: signal.signal(number, leave) for number in numbers}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


@contextmanager
def _leaving_after_sigterm(last_words: str) -> Iterator[None]:
    """End the process `PATIENCE` seconds after a SIGTERM that arrives in the body, whatever its main thread is doing.

    A signal handler waits until torch gives the main thread back – from a long step, or from a rank that hangs – so a thread
    watches the pipe into which Python writes the number of every signal as it arrives.
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
    print(last_words, file=sys.stderr)
    kill_children()
    os._exit(128 + signal.SIGTERM)
