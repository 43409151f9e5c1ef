"""Trainings that die: a process that has imported torch once forks each one, and kills it where it is told to.

`ForkServer().run(Trial(…))` trains in a fork and gives back how it ended. A trial may be killed after some seconds, or by
itself at its n-th operation on the run folder's files (`Watch`), and may carry a mistake on purpose (`MISTAKES`).
`Disk` is a model of what a power cut leaves of the operations that were recorded.
"""

from __future__ import annotations

import builtins
import gc
import io
import json
import math
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data._utils import signal_handling

from segnet.config.sections import Config
from segnet.data.dataset import Sample, SegmentationDataset
from segnet.data.sampler import ResumableSampler
from segnet.runs import checkpoint, folder, log
from segnet.runs.checkpoint import load_checkpoint
from segnet.system.errors import ExitCode, UserError
from segnet.training import loop, schedule, step

CHECKPOINTS = ("last.pt", "previous.pt")  # what --resume may continue from
BUG = 70  # exit status of a trial that raised what it should not
TIMEOUT = 90  # seconds, after which a trial counts as hung

# ---------------------------------------------------------------------------------------------------------------------
# A trial and how it ended
# ---------------------------------------------------------------------------------------------------------------------


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
        return _damage(Path(trial.run), *trial.damage, seed=trial.seed)
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


# ---------------------------------------------------------------------------------------------------------------------
# File operations: counted, recorded, deadly
# ---------------------------------------------------------------------------------------------------------------------


class Operation(NamedTuple):
    """What a process did to a file; names are relative to the run folder, and the process id in them is PID."""

    kind: str  # create append write truncate fsync rename link unlink mkdir failed
    name: str
    target: str = ""  # of a rename or link
    data: bytes = b""

    def __str__(self) -> str:
        return " ".join(part for part in (self.kind, self.name, self.target) if part)


def load_record(path: Path) -> list[Operation]:
    """What a trial recorded."""
    return [Operation(*values) for values in pickle.loads(path.read_bytes())]


class Watch:
    """Sees what the main thread does to the files of a run folder – not to tensorboard/, which nothing is resumed from."""

    def __init__(self, run: Path, *, kill_at: int, half: bool, recording: bool) -> None:
        self.run, self.kill_at, self.half, self.recording = os.path.realpath(run), kill_at, half, recording
        self.count = 0
        self.operations: list[Operation] = []

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Python's own ways to a file lead through this object."""
        changed: list[tuple[object, str, Any]] = []

        def patch(owner: object, name: str, function: Callable[..., Any]) -> None:
            changed.append((owner, name, getattr(owner, name)))
            setattr(owner, name, function)

        self.real_open, self.real_os_open = builtins.open, os.open
        patch(builtins, "open", self._open)
        patch(io, "open", self._open)
        patch(os, "open", self._os_open)
        patch(os, "write", self._through("write", os.write))
        for kind, names in {
            "fsync": ("fsync", "fdatasync"),
            "rename": ("rename", "replace"),
            "link": ("link",),
            "unlink": ("unlink", "remove"),
            "mkdir": ("mkdir",),
            "truncate": ("truncate", "ftruncate"),
        }.items():
            for name in names:
                patch(os, name, self._through(kind, getattr(os, name)))
        try:
            yield
        finally:
            for owner, name, value in reversed(changed):
                setattr(owner, name, value)

    def note(self, kind: str, file: Any, perform: Callable[[], Any], *, target: Any = None, data: bytes = b"") -> Any:
        """Do it, unless this is the operation to die at."""
        name = self._name(file)
        if name is None or threading.current_thread() is not threading.main_thread():
            return perform()
        self.count += 1
        if self.count == self.kill_at:
            if not (self.half and kind == "write"):
                os.kill(os.getpid(), signal.SIGKILL)
            return None  # the writer writes half of it, and dies
        try:
            result = perform()
        except OSError:  # e.g. a folder that is there already: an operation like any other
            self.operations.append(Operation("failed", name))
            raise
        if self.recording:
            self.operations.append(Operation(kind, name, "" if target is None else self._name(target) or str(target), data))
        return result

    def _name(self, file: Any) -> str | None:
        """The name below the run folder, ".." for the folder that it is in, None for what is no business of ours."""
        path = os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else os.path.abspath(os.fsdecode(file))
        name = os.path.relpath(path, self.run)
        if name.startswith("../") or name.split("/")[0] == "tensorboard":
            return None
        return re.sub(r"\.\d+\.tmp$", ".PID.tmp", name)

    def _through(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(file: Any, *arguments: Any, **options: Any) -> Any:
            target = arguments[0] if kind in ("rename", "link") else None
            data = bytes(arguments[0]) if kind == "write" else b""
            done = self.note(kind, file, lambda: function(file, *arguments, **options), target=target, data=data)
            if done is None and kind == "write":
                function(file, data[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return watched

    def _os_open(self, file: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if not flags & (os.O_WRONLY | os.O_RDWR):
            return self.real_os_open(file, flags, *arguments, **options)
        kind = "append" if flags & os.O_APPEND or not flags & os.O_TRUNC else "create"
        return self.note(kind, file, lambda: self.real_os_open(file, flags, *arguments, **options))

    def _open(self, file: Any, mode: str = "r", buffering: int = -1, *texts: Any, **text: Any) -> Any:
        if not set(mode) & set("wax+") or isinstance(file, int) or self._name(file) is None:
            return self.real_open(file, mode, buffering, *texts, **text)
        assert "+" not in mode, f"Watch does not know mode {mode}"
        watch = self

        class Watched(io.FileIO):
            def write(self, data: Any) -> int:
                data = bytes(data)
                done = watch.note("write", self.fileno(), lambda: super(Watched, self).write(data), data=data)
                if done is None:
                    super().write(data[: len(data) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                return done

        kind, raw_mode = "append" if "a" in mode else "create", mode.strip("bt")
        raw = self.note(kind, file, lambda: Watched(file, raw_mode))
        if "b" in mode:
            return raw if buffering == 0 else io.BufferedWriter(raw)
        return io.TextIOWrapper(io.BufferedWriter(raw), *texts, **text)


# ---------------------------------------------------------------------------------------------------------------------
# A power cut
# ---------------------------------------------------------------------------------------------------------------------


class _Content:
    """An inode: what a process reads from it, and what is on the platter for sure."""

    def __init__(self) -> None:
        self.data, self.durable = b"", b""


class Disk:
    """A run folder on a disk that keeps only what was synced, plus any part of the rest.

    Contents are safe after fsync of the file, names (created, renamed, removed) after fsync of the folder. What is not safe
    may be there or not: names up to any moment or all but one change; contents wholly, half, as zeros or not at all.
    """

    def __init__(self) -> None:
        self.names: dict[str, _Content] = {}
        self.durable_names: dict[str, _Content] = {}
        self.pending: list[tuple[str, str, _Content | None]] = []  # changes of names: (removed, added, content)

    def apply(self, operation: Operation) -> None:
        kind, name, target, data = operation
        if kind in ("create", "append"):
            if name not in self.names:
                self._change("", name, _Content())
            elif kind == "create":
                self.names[name].data = b""
        elif kind == "write":
            self.names[name].data += data
        elif kind == "fsync" and name == ".":
            self.durable_names, self.pending = dict(self.names), []
        elif kind == "fsync" and name != "..":
            self.names[name].durable = self.names[name].data
        elif kind == "rename":
            self._change(name, target, self.names[name])
        elif kind == "link":
            self._change("", target, self.names[name])
        elif kind == "unlink":
            self._change(name, "", None)
        else:
            assert kind in ("mkdir", "fsync", "failed"), f"Disk does not know {operation}"

    def _change(self, removed: str, added: str, content: _Content | None) -> None:
        self.pending.append((removed, added, content))
        _rename(self.names, *self.pending[-1])

    def after_a_power_cut(self) -> Iterator[dict[str, bytes]]:
        """Every folder that may be found."""
        count = len(self.pending)
        histories = [self.pending[:length] for length in range(count + 1)]
        histories += [self.pending[:gone] + self.pending[gone + 1 :] for gone in range(count - 1)]
        for history in histories:
            names = dict(self.durable_names)
            for change in history:
                _rename(names, *change)
            for left in (_all, _nothing, _half, _zeros):
                yield {name: left(content) for name, content in names.items()}


def _rename(names: dict[str, _Content], removed: str, added: str, content: _Content | None) -> None:
    names.pop(removed, None)
    if content is not None:
        names[added] = content


def _all(content: _Content) -> bytes:
    return content.data


def _nothing(content: _Content) -> bytes:
    return content.durable


def _half(content: _Content) -> bytes:
    return content.data[: (len(content.durable) + len(content.data)) // 2]


def _zeros(content: _Content) -> bytes:
    return content.durable + bytes(max(0, len(content.data) - len(content.durable)))


# ---------------------------------------------------------------------------------------------------------------------
# Damage
# ---------------------------------------------------------------------------------------------------------------------


def flip(data: bytes, bit: int) -> bytes:
    """`data` with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _damage(path: Path, flips: int, truncations: int, *, seed: int) -> int:
    """Load damaged copies of `path`; prints each that is not refused as it should be. Exit status 0: all were."""
    dice, data, status = random.Random(seed), path.read_bytes(), 0
    damages = [(f"bit {bit} flipped", flip(data, bit)) for bit in (dice.randrange(8 * len(data)) for _ in range(flips))]
    damages += [(f"cut to {size} bytes", data[:size]) for size in (dice.randrange(len(data)) for _ in range(truncations))]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "last.pt"
        for what, damaged in damages:
            copy.write_bytes(damaged)
            try:
                load_checkpoint(copy)
                print(f"loaded: {what} of {len(data)} bytes")
                status = 1
            except UserError as error:
                if error.code != ExitCode.CHECKPOINT or str(copy) not in str(error):
                    print(f"refused wrongly: {what}: {error}")
                    status = 2
            if sorted(os.listdir(folder)) != ["last.pt"] or copy.read_bytes() != damaged:
                print(f"folder changed: {what}")
                status = 2
    return status


# ---------------------------------------------------------------------------------------------------------------------
# Mistakes on purpose. The only part that knows the insides of segnet: when those change, adapt it here.
# Each is installed in a fork, which ends with it. A comparison that does not notice one of them is worth nothing.
# ---------------------------------------------------------------------------------------------------------------------

Mistake = Callable[[Path], None]


def _replace(owner: Any, name: str, value: Any) -> None:
    assert hasattr(owner, name), f"{owner} has no {name} any more: adapt MISTAKES"
    setattr(owner, name, value)


def _forgets(spoil: Callable[[step.TrainState], object]) -> Mistake:
    """A resumed run whose state is spoilt before its first step, as if a part of it had not been restored."""

    def install(_: Path) -> None:
        original, steps = step.train_step, 0

        def train_step(state: step.TrainState, *arguments: Any, **options: Any) -> Any:
            nonlocal steps
            if state.step and not steps:
                spoil(state)
            steps += 1
            return original(state, *arguments, **options)

        _replace(loop, "train_step", train_step)

    return install


def _forget_loss(state: step.TrainState) -> None:
    state.loss_sum.zero_()
    state.loss_steps = 0


def _forget_statistics(state: step.TrainState) -> None:
    for module in state.model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()


def _restart_learning_rate(_: Path) -> None:
    original, first = schedule.learning_rate, []

    def learning_rate(step: int, *arguments: Any) -> float:
        first.append(step)
        return original(step - first[0], *arguments)

    _replace(loop, "learning_rate", learning_rate)


class _EpochFromItsStart(ResumableSampler):
    def __init__(self, length: int, batch_size: int, *, start: int, total: int, **rest: Any) -> None:
        done = start % (length // batch_size)
        super().__init__(length, batch_size, start=start - done, total=total - done, **rest)


def _count_steps_of_the_process(_: Path) -> None:
    original, steps = step.derive_seed, 0

    def derive_seed(*parts: int | str) -> int:
        nonlocal steps
        steps += "step" in parts
        return original("step of this process", steps) if "step" in parts else original(*parts)

    _replace(step, "derive_seed", derive_seed)


def _augment_from_the_state(_: Path) -> None:
    def item(self: SegmentationDataset, key: Any) -> Sample:
        sample = self.read(key.picture)
        return Sample(*self.transform(sample.image, sample.truth), sample.id)

    _replace(SegmentationDataset, "__getitem__", item)


def _keep_rows(_: Path) -> None:
    original = log.RunLog.__init__

    def init(self: log.RunLog, run: Path, *arguments: Any, **options: Any) -> None:
        path = run / "metrics.csv"
        before = path.read_bytes() if path.exists() else b""
        original(self, run, *arguments, **options)
        if before:
            path.write_bytes(before)

    _replace(log.RunLog, "__init__", init)


def _write_in_place(_: Path) -> None:
    @contextmanager
    def write(path: Path, **_: Any) -> Iterator[Any]:
        with open(path, "wb") as file:
            yield file

    _replace(checkpoint, "atomic_write", write)


def _lose_checkpoints(run: Path) -> None:
    for name in CHECKPOINTS:
        (run / name).unlink(missing_ok=True)


def _start_workers_slowly(_: Path) -> None:
    original = signal_handling._set_worker_signal_handlers  # of torch: from here on SIGTERM would end a worker

    def slowly() -> None:
        original()
        time.sleep(0.5)

    _replace(signal_handling, "_set_worker_signal_handlers", slowly)


MISTAKES: dict[str, Mistake] = {
    # a part of the state is not restored
    "optimizer": _forgets(lambda state: state.optimizer.state.clear()),
    "average's counter": _forgets(lambda state: state.ema.n_averaged.zero_()),
    "average's weights": _forgets(lambda state: state.ema.module.load_state_dict(state.model.state_dict())),
    "network is the average": _forgets(lambda state: state.model.load_state_dict(state.ema.module.state_dict())),
    "best score": _forgets(lambda state: setattr(state, "best_score", -math.inf)),
    "loss since the last row": _forgets(_forget_loss),
    "batch statistics": _forgets(_forget_statistics),
    "learning rate": _restart_learning_rate,
    "place in the epoch": lambda _: _replace(loop, "ResumableSampler", _EpochFromItsStart),
    "rows are not cut": _keep_rows,
    "checkpoints are not found": _lose_checkpoints,
    # randomness is a state
    "dropout counts the steps of its process": _count_steps_of_the_process,
    "augmentation draws from the process's state": _augment_from_the_state,
    # files
    "checkpoints are written in place": _write_in_place,
    "temporaries stay": lambda _: _replace(folder, "remove_stale_temporaries", lambda folder: None),
    "digests are not looked at": lambda _: _replace(checkpoint, "require_digest", lambda path: None),
    # no mistake, but time for a signal to come
    "workers start slowly": _start_workers_slowly,
}

# ---------------------------------------------------------------------------------------------------------------------
# What must hold
# ---------------------------------------------------------------------------------------------------------------------


def newest_valid(run: Path) -> int | None:
    """The step of the newest checkpoint that --resume can continue from; None: there is none."""
    steps = []
    for name in CHECKPOINTS:
        try:
            steps.append(load_checkpoint(run / name).step)
        except UserError:
            continue
    return max(steps, default=None)


def damaged(run: Path) -> list[str]:
    """The checkpoints in `run` that cannot be loaded: a kill leaves none."""
    bad = []
    for path in sorted(run.glob("*.pt")):
        try:
            load_checkpoint(path)
        except UserError as error:
            bad.append(str(error))
    return bad


def temporaries(run: Path) -> list[str]:
    """What unfinished writes left."""
    return [path.name for path in run.glob("*.tmp")] + [path.name for path in run.glob(".*.tmp")]


def first_step_printed(output: str) -> int | None:
    """The first step of which a run printed its loss."""
    found = re.search(r"^step (\d+)/", output, re.MULTILINE)
    return int(found[1]) if found else None


def copy_run(source: Path, target: Path) -> Path:
    """A copy of a run folder, to try something on."""
    return Path(shutil.copytree(source, target))


if __name__ == "__main__":
    _serve()
