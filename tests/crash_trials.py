"""Trainings that die: a process that has imported torch once forks each one, and kills it where it is told to.

`ForkServer().run(Trial(…))` trains in a fork and gives back how it ended. A trial may be killed after some seconds, or by
itself at its n-th operation on the run folder's files (`Watch`), and may carry a mistake on purpose (`MISTAKES`).
"""

from __future__ import annotations

import gc
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from crash_files import Watch
from crash_mistakes import MISTAKES
from crash_runs import load_damaged

from segnet.config.sections import Config
from segnet.system.errors import UserError
from segnet.training import loop

BUG = 70  # exit status of a trial that raised what it should not
TIMEOUT = 90  # seconds, after which a trial counts as hung


@dataclass
class Trial:
    """One process that trains – or, with `damage`, that tries to load damaged copies of the checkpoint `run`."""

    config: str  # JSON
    run: str
    resume: bool = False
    mistake: str = ""  # a key of MISTAKES
    signal_after: float | None = None  # seconds from its start
    signal_once: str = ""  # from when this was printed instead
    signal: int = signal.SIGKILL
    to_group: bool = False  # the signal also reaches its data workers
    kill_at: int = 0  # SIGKILL instead of this operation on the run folder's files, counted from 1
    half: bool = False  # and if that is a write, half of its bytes are written first
    record: str = ""  # the operations go to this file
    damage: tuple[int, int] | None = None  # numbers of bit flips and truncations
    seed: int = 0  # of the damage


class Outcome(NamedTuple):
    status: int  # exit status, or minus the signal
    seconds: float
    output: str  # stdout and stderr


class ForkServer:
    """A process of its own, without a GPU and with one thread, so that a fork of it may train."""

    def __enter__(self) -> ForkServer:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )
        self.trials = 0
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()  # processes forked meanwhile may hold its standard input open, so it would see no end
        self.process.communicate()

    def run(self, trial: Trial) -> Outcome:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asdict(trial)) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the fork server died"
        self.trials += 1
        return Outcome(*json.loads(answer))


def _serve() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(1)
    gc.freeze()  # or a collection in a fork would copy all pages
    for line in sys.stdin:
        print(json.dumps(_fork(Trial(**json.loads(line)))), file=answers, flush=True)


def _fork(trial: Trial) -> Outcome:
    with tempfile.TemporaryFile() as output:
        started = time.monotonic()
        pid = os.fork()
        if not pid:
            _child(trial, output.fileno())
        status, seconds = _wait(pid, trial, started, output.fileno())
        output.seek(0)
        text = output.read().decode(errors="replace")
    return Outcome(status, seconds, text)


def _wait(pid: int, trial: Trial, started: float, output: int) -> tuple[int, float]:
    """Exit status and duration of the child `pid`, which gets its signal on the way."""
    waiting, hung = trial.signal_after is not None, False
    due = math.inf if not waiting or trial.signal_once else trial.signal_after
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        seconds = time.monotonic() - started
        if ended:
            break
        if waiting and due == math.inf and trial.signal_once.encode() in os.pread(output, 1 << 16, 0):
            due = seconds + trial.signal_after
        if seconds >= due:
            (os.killpg if trial.to_group else os.kill)(pid, trial.signal)
            waiting, due = False, math.inf
        if seconds > TIMEOUT and not hung:
            os.kill(pid, signal.SIGKILL)
            hung = True
        time.sleep(0.0005)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # its data workers, if it was killed
    assert not hung, f"hung for {TIMEOUT} s: {trial}"
    return os.waitstatus_to_exitcode(status), seconds


def _child(trial: Trial, output: int) -> None:
    """Train as `trial` says; never returns."""
    status = BUG
    try:
        os.setpgid(0, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        status = _status(trial)
        gc.collect()  # data workers end with their loader
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _status(trial: Trial) -> int:
    if trial.mistake:
        MISTAKES[trial.mistake](Path(trial.run))
    config = Config.model_validate_json(trial.config)
    if trial.damage is not None:
        return load_damaged(Path(trial.run), *trial.damage, seed=trial.seed)
    watch = Watch(Path(trial.run), kill_at=trial.kill_at, half=trial.half, recording=bool(trial.record))
    try:
        with watch.installed() if trial.kill_at or trial.record else nullcontext():
            loop.train(config, Path(trial.run), resume=trial.resume)
    except SystemExit as stopped:
        return int(stopped.code or 0)
    except KeyboardInterrupt:  # before the run takes signals in hand; the scripts end likewise
        return 128 + signal.SIGINT
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.code)
    if trial.record:
        Path(trial.record).write_bytes(pickle.dumps([tuple(operation) for operation in watch.operations]))
    return 0


if __name__ == "__main__":
    _serve()
