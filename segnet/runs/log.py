"""The log of a run: metrics.csv, and the same numbers for its observers."""

from __future__ import annotations

import csv
import io
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from segnet.runs.observers import Observers, Outcome, Settings
from segnet.system.files import atomic_write, sync_to_disk
from segnet.system.terminal import print_above_bars

_LONGEST_ROW = 100_000  # characters; a longer line is not a row of a log


class RunLog:
    """metrics.csv, with a row per log line and per evaluation, and the same values for the observers, such as TensorBoard.

    A row is on disk when `write` returns. The column `minutes` counts the time of training and evaluation, not the time
    between a stop and a resumption. When the log cannot be written (a full disk), one warning is printed and training goes on.
    """

    def __init__(
        self,
        run: Path,
        measures: Sequence[str],
        *,
        step: int,
        rows: int,
        observers: Sequence[str] = ("tensorboard",),
        settings: Settings | None = None,
    ) -> None:
        """Open the log of a run that continues after `step`, with the first `rows` rows; later ones are of a killed run.

        `measures` are the names of what a validation measures; their columns begin with "val_". They may hold commas. `observers`
        are those of train.observers, to which `settings` are shown.
        """
        self.path = run / "metrics.csv"
        self.columns = ("step", "epoch", "learning_rate", "loss", *(f"val_{name}" for name in measures), "minutes")
        self.warned = False
        kept = self._earlier_lines()[:rows] if rows else []
        content = "".join(line + "\n" for line in [_heading(self.columns), *kept])
        with atomic_write(self.path) as file:
            file.write(content.encode("utf-8", "surrogateescape"))
        self.rows = len(kept)
        spent = max((row["minutes"] for row in read_log(self.path) if math.isfinite(row.get("minutes", math.nan))), default=0.0)
        self.started = time.perf_counter() - 60 * spent
        tags = [_tag_of(f"val_{name}") for name in measures]
        self.observers = Observers(observers, run, settings or {}, tags, step=step)

    def _earlier_lines(self) -> list[str]:
        """The lines below the heading, without blank ones.

        The rows of a version that measured less get empty cells. A file with other columns is moved aside, with a warning.
        """
        if not self.path.is_file():
            return []
        heading, *lines = [line for line in _text_of(self.path).splitlines() if line.strip()] or [""]
        columns = tuple(next(csv.reader([heading[:_LONGEST_ROW]]), ("",)))
        if columns == self.columns[: len(columns)]:
            return lines
        if columns[0] == "step" and set(columns) <= set(self.columns):
            rows = csv.DictReader(lines, columns)
            return [",".join(row.get(column) or "" for column in self.columns) for row in rows]
        aside = self.path.with_name("metrics.csv.edited")
        os.replace(self.path, aside)
        print(f"warning: {self.path}: not the columns of a log; it is now {aside.name}, and a new log begins", file=sys.stderr)
        return []

    def write(self, step: int, values: dict[str, float], **only_observed: float) -> None:
        """Add a row to metrics.csv, and show its values and those of `only_observed` to the observers.

        A measure "iou_…" is "val_iou/…" there, so that those of all classes stand in a group of their own.
        """
        minutes = round((time.perf_counter() - self.started) / 60, 3)
        with self._warning():
            length = self.path.stat().st_size
            try:
                with open(self.path, "a", newline="") as file:
                    csv.DictWriter(file, self.columns, lineterminator="\n").writerow({"step": step, **values, "minutes": minutes})
                    sync_to_disk(file)  # before the checkpoint that counts this row
                self.rows += 1
            except OSError:
                with open(self.path, "r+b") as file:
                    file.truncate(length)  # removes a row that was written in part
                raise
        self.observers.scalars({_tag_of(name): value for name, value in {**values, **only_observed}.items()}, step)

    def close(self, outcome: Outcome = "finished") -> None:
        """Tell the observers how the run ended."""
        self.observers.close(outcome)

    @contextmanager
    def _warning(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self.warned:
                line = f"warning: {self.path.parent}: {error.strerror}; training goes on with gaps in its log"
                print_above_bars(line, sys.stderr)
            self.warned = True


def _tag_of(column: str) -> str:
    """The tag, for observers, of a column of metrics.csv."""
    for start, group in (("val_iou_", "val_iou"), ("val_", "val")):
        if column.startswith(start):
            return f"{group}/{column.removeprefix(start)}"
    return f"train/{column}"


def _heading(columns: Sequence[str]) -> str:
    """The first line of a CSV file with these columns."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(columns)
    return line.getvalue()


def read_log(path: Path) -> list[dict[str, float]]:
    """The numbers in each row of a metrics.csv, by column. Empty cells and cells that hold no number are left out."""
    lines = [line for line in _text_of(path).splitlines() if len(line) < _LONGEST_ROW]
    return [dict(_numbers(row)) for row in csv.DictReader(lines)]


def _numbers(row: dict[str, str]) -> Iterator[tuple[str, float]]:
    for column, cell in row.items():
        with suppress(TypeError, ValueError):  # not a text, where a row is short or long, or not a number
            yield column, float(cell)


def _text_of(path: Path) -> str:
    """The text of a file that people may have edited: a BOM, bytes that are not UTF-8 and NULs are accepted."""
    return path.read_bytes().decode("utf-8-sig", "surrogateescape").replace("\0", "")
