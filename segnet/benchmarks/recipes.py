"""Recipes trained with several seeds, scored, and compared in one table. What is done already is not done again."""

from __future__ import annotations

import json
import math
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from segnet.config.sections import Config
from segnet.runs.checkpoint import BEST, LAST
from segnet.runs.log import read_log
from segnet.system.errors import ExitCode, UserError
from segnet.system.files import make_folder, write_text

ZOOMS = (0.75, 1.0, 1.25)  # of test-time augmentation, multiplied by the recipe's own scales
MEASURES = ("miou", "global_accuracy", "mean_accuracy")


class Row(NamedTuple):
    """A row of the table: a recipe, scored on one split, with or without test-time augmentation."""

    recipe: Path
    split: str
    tta: bool


class TimeIsUp(Exception):
    """The deadline has passed before the work was done."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The runs of some recipes, and their folder.

    Under `out` stand <recipe>/seed<N>, the run folders; results.json, with every number and the curves; results.md, the table.
    """

    configs: Mapping[Path, Config]  # by the recipe's file
    overrides: Sequence[str]  # for all of them
    seeds: Sequence[int]
    rows: Sequence[Row]
    out: Path
    scripts: Path  # the folder of train.py and evaluate.py

    def run(self, deadline: float) -> int:
        """Train and score until `deadline` (of time.monotonic), write the results and print the table.

        The number of runs that are not complete. Raises UserError with the code of a command that fails.
        """
        make_folder(self.out)
        waiting = 0
        for seed in self.seeds:
            for recipe in self.configs:
                try:
                    self._train(recipe, seed, deadline)
                    for row in self.rows:
                        if row.recipe == recipe:
                            self._score(row, seed, deadline)
                except TimeIsUp:
                    waiting += 1
        results = [result for row in self.rows if (result := collect(self.out, row, self.seeds))]
        write_text(self.out / "results.json", json.dumps(results, indent=1) + "\n")
        write_text(self.out / "results.md", table(results))
        print(table(results), end="")
        return waiting

    def _train(self, recipe: Path, seed: int, deadline: float) -> None:
        """Train to the last epoch. Raises TimeIsUp if that is not reached by `deadline`, UserError if the command fails."""
        run = run_folder(self.out, recipe, seed)
        if is_trained(run, self.configs[recipe]):
            return
        minutes = (deadline - time.monotonic()) / 60
        if minutes < 0.2:
            raise TimeIsUp
        limit = [f"train.max_minutes={minutes:.2f}"] if math.isfinite(minutes) else []
        self._call("train", recipe, *self.overrides, f"seed={seed}", *limit, "--run", run, "--resume")
        if not is_trained(run, self.configs[recipe]):
            raise TimeIsUp

    def _score(self, row: Row, seed: int, deadline: float) -> None:
        """Evaluate the best checkpoint, unless its score is there. Raises TimeIsUp, or UserError if the command fails."""
        run = run_folder(self.out, row.recipe, seed)
        metrics = metrics_file(run, row)
        if metrics.exists() and metrics.stat().st_mtime >= (run / BEST).stat().st_mtime:
            return
        if time.monotonic() > deadline:
            raise TimeIsUp
        scales = [round(zoom * scale, 4) for zoom in ZOOMS for scale in self.configs[row.recipe].inference.scales]
        views = [f"inference.scales={scales}", "inference.flip=true"] if row.tta else []
        self._call("evaluate", run, *views, "--split", row.split, "--out", metrics.parent)

    def _call(self, script: str, *arguments: object) -> None:
        """Print and run a command. Raises UserError with its exit code if it fails."""
        command = [sys.executable, self.scripts / f"{script}.py", *arguments]
        print("$ " + shlex.join(["python", f"scripts/{script}.py", *map(str, arguments)]), flush=True)
        status = subprocess.run([str(part) for part in command], check=False).returncode
        if status:
            code = ExitCode(status) if status in set(ExitCode) else ExitCode.ENVIRONMENT
            remedy = "mend the error that it printed above, and give the command again"
            raise UserError(code, f"scripts/{script}.py", f"ended with exit code {status}", remedy)


def run_folder(out: Path, recipe: Path, seed: int) -> Path:
    return out / recipe.stem / f"seed{seed}"


def metrics_file(run: Path, row: Row) -> Path:
    folder = f"{row.split}-tta" if row.tta else row.split
    return run / "evaluation" / folder / "metrics.json"


def is_trained(run: Path, config: Config) -> bool:
    """True if the last epoch was scored and saved."""
    epochs = [line["epoch"] for line in _log_of(run) if {"epoch", "val_miou"} <= line.keys()]
    return max(epochs, default=0.0) >= config.train.epochs - 1e-6 and (run / LAST).exists()


def collect(out: Path, row: Row, seeds: Sequence[int]) -> dict[str, Any] | None:
    """The numbers of a row from the runs that are scored; None if there is none."""
    runs = {seed: run_folder(out, row.recipe, seed) for seed in seeds}
    runs = {seed: run for seed, run in runs.items() if metrics_file(run, row).exists()}
    if not runs:
        return None
    scores = [_read_json(metrics_file(run, row), MEASURES) for run in runs.values()]
    logs = [_log_of(run) for run in runs.values()]
    environment = _read_json(runs[min(runs)] / "environment.json")
    return {
        "recipe": str(row.recipe),
        "split": row.split,
        "tta": row.tta,
        "seeds": list(runs),
        **{measure: [score[measure] for score in scores] for measure in MEASURES},
        "minutes": [max((line["minutes"] for line in log if "minutes" in line), default=math.nan) for log in logs],
        "curves": [_curve_of(log) for log in logs],
        "environment": {key: environment.get(key, "unknown") for key in ("device", "torch", "commit", "ranks")},
    }


def _curve_of(log: list[dict[str, float]]) -> list[list[float]]:
    """[minutes, val mIoU] of each evaluation."""
    return [[line["minutes"], line["val_miou"]] for line in log if {"minutes", "val_miou"} <= line.keys()]


def _log_of(run: Path) -> list[dict[str, float]]:
    """The rows of a run's metrics.csv; none if there is no such file."""
    path = run / "metrics.csv"
    return read_log(path) if path.exists() else []


def _read_json(path: Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError (data) for other content, and if one of `keys` is missing."""
    try:
        document = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or not document.keys() >= set(keys):
        expected = "a JSON object" + (f" with {', '.join(keys)}" if keys else "")
        raise UserError(ExitCode.DATA, path, f"not {expected}", "restore the file, or delete it and give the command again")
    return document


def table(results: Sequence[dict[str, Any]]) -> str:
    """The results as a Markdown table, scores in per cent."""
    lines = ["| recipe | split | mIoU | G | C | seeds | minutes | device, torch, commit |", "|---|---|---|---|---|---|---|---|"]
    for result in results:
        name = f"`{result['recipe']}`" + (", 3 scales, mirrored" if result["tta"] else "")
        values = " | ".join(spread([100 * value for value in result[measure]], 2) for measure in MEASURES)
        where = ", ".join(str(result["environment"][key]) for key in ("device", "torch", "commit"))
        minutes = spread(result["minutes"], 1)
        lines.append(f"| {name} | {result['split']} | {values} | {len(result['seeds'])} | {minutes} | {where} |")
    return "\n".join(lines) + "\n"


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation of a sample; the mean alone of a single value."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean
