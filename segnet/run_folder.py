"""What stands in a run folder beside the networks: who holds it, where it goes on, its log, and what it ran on."""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch.utils.tensorboard import SummaryWriter

from segnet.checkpoint import Checkpoint, load_checkpoint
from segnet.devices import describe_device
from segnet.distributed import is_main, world_size
from segnet.errors import ExitCode, UserError, printable
from segnet.files import atomic_write, lock_folder, make_folder, remove_stale_temporaries, sync_to_disk, write_text

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
_LONGEST_ROW = 10_000  # characters; what is longer is no row of a log
_SECONDS_FOR_GIT = 10


@contextmanager
def hold_run_folder(run: Path, *, resume: bool) -> Iterator[None]:
    """Make the folder, for the body alone to write in, without what a killed run left half written.

    Raises UserError (config) when it holds a run that is not to be resumed, (environment) when another run is writing there.
    """
    _require_new_or_resumed(run, resume)
    make_folder(run)
    with lock_folder(run) as held:
        _require_new_or_resumed(run, resume)  # another may have come in between
        if held:  # or they may be another's that writes now
            remove_stale_temporaries(run)
        yield


def _require_new_or_resumed(run: Path, resume: bool) -> None:
    if not resume and any((run / name).exists() for name in (LAST, PREVIOUS, "metrics.csv")):
        raise UserError(ExitCode.CONFIG, run, "holds a run already", "add --resume to continue it, or choose another --run")


def newest_checkpoint(run: Path) -> tuple[Path, Checkpoint] | None:
    """Of last.pt and previous.pt the intact one with the most steps; None where there is neither.

    Says so when one is damaged. Raises UserError (checkpoint) when all are: a run never starts anew unasked.
    """
    intact: list[tuple[Path, Checkpoint]] = []
    damaged: list[UserError] = []
    for path in (run / LAST, run / PREVIOUS):
        if path.exists():
            try:
                intact.append((path, load_checkpoint(path)))
            except UserError as error:
                damaged.append(error)
    if damaged and not intact:
        first, *others = damaged
        remedy = "restore it from a copy, or start anew in another --run"
        raise UserError(first.code, first.path, first.found, remedy, also=tuple(others))
    for one in damaged if is_main() else ():
        print(f"warning: {one.path}: {one.found}; going on from {intact[0][0].name}", file=sys.stderr)
    return max(intact, key=lambda found: found[1].step, default=None)


class RunLog:
    """metrics.csv – a row per log line and per evaluation, each on disk when written – and the same as TensorBoard scalars.

    Its minutes are those of training and evaluation together, without those between a stop and a resumption.
    A log that cannot be written (a full disk) is one warning, and training goes on.
    """

    COLUMNS = ("step", "epoch", "learning_rate", "loss", "val_miou", "val_global_accuracy", "val_mean_accuracy", "minutes")

    def __init__(self, run: Path, *, step: int, rows: int) -> None:
        """Open the log of a run that continues after `step`, with the first `rows` rows; what a killed run wrote later is cut."""
        self.path, self.warned = run / "metrics.csv", False
        kept = self._earlier_lines()[:rows] if rows else []
        content = "".join(line + "\n" for line in [",".join(self.COLUMNS), *kept])
        with atomic_write(self.path) as file:
            file.write(content.encode("utf-8", "surrogateescape"))
        self.rows = len(kept)
        spent = max((row["minutes"] for row in read_log(self.path) if math.isfinite(row.get("minutes", math.nan))), default=0.0)
        self.started = time.perf_counter() - 60 * spent
        self.board = _open_board(run / "tensorboard", purge_step=step + 1)

    def _earlier_lines(self) -> list[str]:
        """The lines below the heading, without blank ones. A file with another heading is moved aside, with a warning."""
        if not self.path.is_file():
            return []
        heading, *lines = [line for line in _text_of(self.path).splitlines() if line.strip()] or [""]
        columns = tuple(heading.split(","))
        if columns == self.COLUMNS[: len(columns)]:  # earlier versions had fewer
            return lines
        aside = self.path.with_name("metrics.csv.edited")
        os.replace(self.path, aside)
        print(f"warning: {self.path}: not the columns of a log; it is now {aside.name}, and a new log begins", file=sys.stderr)
        return []

    def write(self, step: int, values: dict[str, float], **only_on_board: float) -> None:
        """A row of metrics.csv, and each of its values and of the others as a TensorBoard scalar."""
        minutes = round((time.perf_counter() - self.started) / 60, 3)
        with self._warning():
            length = self.path.stat().st_size
            try:
                with open(self.path, "a", newline="") as file:
                    csv.DictWriter(file, self.COLUMNS, lineterminator="\n").writerow({"step": step, **values, "minutes": minutes})
                    sync_to_disk(file)  # a checkpoint never knows more than this file
                self.rows += 1
            except OSError:
                with open(self.path, "r+b") as file:
                    file.truncate(length)  # half a row is none
                raise
        with self._warning():
            for name, value in {**values, **only_on_board}.items():
                tag = f"val/{name.removeprefix('val_')}" if name.startswith("val_") else f"train/{name}"
                if self.board:
                    self.board.add_scalar(tag, value, step)

    def picture(self, tag: str, image: np.ndarray, step: int) -> None:
        """A picture (H, W, 3) for TensorBoard."""
        with self._warning():
            if self.board:
                self.board.add_image(tag, image, step, dataformats="HWC")

    def text(self, tag: str, text: str, step: int) -> None:
        """Markdown for TensorBoard."""
        with self._warning():
            if self.board:
                self.board.add_text(tag, text, step)

    def close(self) -> None:
        """Finish TensorBoard's file."""
        with self._warning():
            if self.board:
                self.board.close()

    @contextmanager
    def _warning(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.board = None  # its writing thread has ended
            if not self.warned:
                print(f"warning: {self.path.parent}: {error.strerror}; training goes on with gaps in its log", file=sys.stderr)
            self.warned = True


def _open_board(folder: Path, *, purge_step: int) -> SummaryWriter | None:
    """TensorBoard's writer; None, with a warning, where it cannot take the folder's name."""
    try:
        return SummaryWriter(str(folder), purge_step=purge_step)
    except UnicodeEncodeError:  # names the folder in UTF-8, whatever the file system has
        why = "TensorBoard takes no name that is not UTF-8; training goes on without it, metrics.csv has the numbers"
        print(f"warning: {printable(str(folder))}: {why}", file=sys.stderr)
        return None


def read_log(path: Path) -> list[dict[str, float]]:
    """The numbers in each row of a metrics.csv, by column. Empty cells, and what people made unreadable, are left out."""
    lines = [line for line in _text_of(path).splitlines() if len(line) < _LONGEST_ROW]
    return [dict(_numbers(row)) for row in csv.DictReader(lines)]


def _numbers(row: dict[str, str]) -> Iterator[tuple[str, float]]:
    for column, cell in row.items():
        with suppress(TypeError, ValueError):  # no text, as where a row is short or long, or no number
            yield column, float(cell)


def _text_of(path: Path) -> str:
    """A text that people may have edited: with any line ends, with a BOM, and with bytes that are not UTF-8."""
    return path.read_bytes().decode("utf-8-sig", "surrogateescape").replace("\0", "")


def record_environment(path: Path, device: torch.device, *, precision: Mapping[str, str], resumed_at: int | None) -> None:
    """Write what a number needs beside it to be believed, or add it for a resumption: versions, device, precision of training
    and inference, commit, command.

    Says so when a run goes on under another version of torch or on another device, since its bits may then differ.
    """
    now = {
        "command": " ".join(sys.argv),
        "commit": _commit(),
        "device": describe_device(device),
        "precision": precision,
        "ranks": world_size(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
    record = _earlier_record(path) if resumed_at is not None else {}
    for key in ("torch", "device", "ranks"):
        if record.get(key, now[key]) != now[key]:
            print(f"note: the run began with {key} {record[key]}; its numbers may differ in the last digits from here on")
    record = {**record, "resumed": [*record["resumed"], {"step": resumed_at, **now}]} if record else {**now, "resumed": []}
    write_text(path, json.dumps(record, indent=1) + "\n")


def _earlier_record(path: Path) -> dict[str, Any]:
    """What stands in environment.json; nothing where it is gone or was edited into something else: the record begins anew."""
    try:
        record = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("resumed"), list) else {}


def _commit() -> str:
    """The commit of this program, or "unknown": a machine needs no git, no repository and no answer from it to train."""
    command = ["git", "describe", "--always", "--dirty"]
    here = Path(__file__).parent
    try:
        told = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, cwd=here, check=True, timeout=_SECONDS_FOR_GIT
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return told.stdout.decode(errors="replace").strip() or "unknown"
