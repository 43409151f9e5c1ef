"""The signals that ask a command to stop, and who hears them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

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
