"""Recipes trained with several seeds or on k folds, scored, and compared in one table. What is done is not done again."""

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

import torch

from segnet.config.sections import Config
from segnet.data.layout import split_path
from segnet.data.remedies import split_command
from segnet.evaluation.results import read_confusion
from segnet.metrics.confusion import ConfusionMatrix
from segnet.runs.checkpoint import BEST, LAST
from segnet.runs.log import read_log
from segnet.system.errors import ExitCode, UserError, data_error
from segnet.system.files import make_folder, write_text
from segnet.system.invocation import as_started

ZOOMS = (0.75, 1.0, 1.25)  # of test-time augmentation, multiplied by the recipe's own scales
MEASURES = ("miou", "global_accuracy", "mean_accuracy")


class Row(NamedTuple):
    """A row of the table: a recipe, scored on one split, with or without test-time augmentation."""

    recipe: Path
    split: str
    tta: bool


class Trial(NamedTuple):
    """A run of a recipe: with one seed, on the lists train and val of the recipe or on those of a fold."""

    seed: int
    fold: int | None = None

    def split(self, name: str) -> str:
        """The split that a row's `name` means here: val is the part that the fold leaves out of training."""
        return name if self.fold is None or name not in ("train", "val") else f"{name}_{self.fold}"

    @property
    def overrides(self) -> list[str]:
        """The configuration's keys that make this trial."""
        lists = [] if self.fold is None else [f"data.{name}_split={self.split(name)}" for name in ("train", "val")]
        return [*lists, f"seed={self.seed}"]


class TimeIsUp(Exception):
    """The deadline has passed before the work was done."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The runs of some recipes, and their folder.

    With `folds` each seed is trained as many times, on train_0, train_1, … of the recipe's data.
    Under `out` stand <recipe>/seed<N> or <recipe>/seed<N>-fold<F>, the run folders; results.json, with every number and the
    curves; results.md, the table.
    """

    configs: Mapping[Path, Config]  # by the recipe's file
    overrides: Sequence[str]  # for all of them
    seeds: Sequence[int]
    rows: Sequence[Row]
    out: Path
    folds: int = 0

    @property
    def trials(self) -> list[Trial]:
        """All runs of a recipe."""
        return trials_of(self.seeds, self.folds)

    def run(self, deadline: float) -> int:
        """Train and score until `deadline` (of time.monotonic), write the results and print the table.

        The number of runs that are not complete. Raises UserError with the code of a command that fails.
        """
        if self.folds:
            for config in self.configs.values():
                require_folds(Path(config.data.root), self.folds)
        make_folder(self.out)
        waiting = 0
        for trial in self.trials:
            for recipe in self.configs:
                try:
                    self._train(recipe, trial, deadline)
                    for row in self.rows:
                        if row.recipe == recipe:
                            self._score(row, trial, deadline)
                except TimeIsUp:
                    waiting += 1
        results = [result for row in self.rows if (result := collect(self.out, row, self.seeds, self.folds))]
        write_text(self.out / "results.json", json.dumps(results, indent=1) + "\n")
        write_text(self.out / "results.md", table(results))
        print(table(results), end="")
        return waiting

    def _train(self, recipe: Path, trial: Trial, deadline: float) -> None:
        """Train to the last epoch. Raises TimeIsUp if that is not reached by `deadline`, UserError if the command fails."""
        run = run_folder(self.out, recipe, trial)
        if is_trained(run, self.configs[recipe]):
            return
        minutes = (deadline - time.monotonic()) / 60
        if minutes < 0.2:
            raise TimeIsUp
        limit = [f"train.max_minutes={minutes:.2f}"] if math.isfinite(minutes) else []
        self._call("train", recipe, *self.overrides, *trial.overrides, *limit, "--run", run, "--resume")
        if not is_trained(run, self.configs[recipe]):
            raise TimeIsUp

    def _score(self, row: Row, trial: Trial, deadline: float) -> None:
        """Evaluate the best checkpoint, unless its score is there. Raises TimeIsUp, or UserError if the command fails."""
        run = run_folder(self.out, row.recipe, trial)
        metrics = metrics_file(run, row, trial)
        if metrics.exists() and metrics.stat().st_mtime >= (run / BEST).stat().st_mtime:
            return
        if time.monotonic() > deadline:
            raise TimeIsUp
        scales = [round(zoom * scale, 4) for zoom in ZOOMS for scale in self.configs[row.recipe].inference.scales]
        views = [f"inference.scales={scales}", "inference.flip=horizontal"] if row.tta else []
        self._call("evaluate", run, *views, "--split", trial.split(row.split), "--out", metrics.parent)

    def _call(self, name: str, *arguments: object) -> None:
        """Print and run a command. Raises UserError with its exit code if it fails."""
        words = [str(argument) for argument in arguments]
        print(f"$ {as_started(f'segnet {name}')} {shlex.join(words)}", flush=True)
        status = subprocess.run([sys.executable, "-m", "segnet", name, *words], check=False).returncode
        if status:
            code = ExitCode(status) if status in set(ExitCode) else ExitCode.ENVIRONMENT
            remedy = "mend the error that it printed above, and give the command again"
            raise UserError(code, as_started(f"segnet {name}"), f"ended with exit code {status}", remedy)


def trials_of(seeds: Sequence[int], folds: int) -> list[Trial]:
    """The runs of a recipe: one for each seed, or for each seed and fold."""
    return [Trial(seed, fold) for seed in seeds for fold in (range(folds) if folds else (None,))]


def require_folds(root: Path, folds: int) -> None:
    """Raise UserError (data) unless the data folder has the lists of `folds` folds, and of no more."""
    for name in (f"{split}_{fold}" for fold in range(folds) for split in ("train", "val")):
        if not split_path(root, name).is_file():
            remedy = f"write the lists: {split_command(root, f'--folds {folds}')}"
            raise data_error(split_path(root, name), "no such file", remedy)
    if split_path(root, f"val_{folds}").exists():
        found = f"is of a division into more than {folds} folds, so that {folds} of them leave pictures out"
        raise data_error(split_path(root, f"val_{folds}"), found, "give --folds the number of its lists")


def run_folder(out: Path, recipe: Path, trial: Trial) -> Path:
    """The folder below `out` of the run of a trial."""
    return out / recipe.stem / (f"seed{trial.seed}" if trial.fold is None else f"seed{trial.seed}-fold{trial.fold}")


def metrics_file(run: Path, row: Row, trial: Trial) -> Path:
    """The file that the evaluation of a run for a row of the table writes."""
    split = trial.split(row.split)
    folder = f"{split}-tta" if row.tta else split
    return run / "evaluation" / folder / "metrics.json"


def is_trained(run: Path, config: Config) -> bool:
    """True if the last epoch was scored and saved."""
    epochs = [line["epoch"] for line in _log_of(run) if {"epoch", "val_miou"} <= line.keys()]
    return max(epochs, default=0.0) >= config.train.epochs - 1e-6 and (run / LAST).exists()


def collect(out: Path, row: Row, seeds: Sequence[int], folds: int = 0) -> dict[str, Any] | None:
    """The numbers of a row from the runs that are scored; None if there is none.

    Lists hold a value for each run. With `folds` and the split val there is "pooled" as well.
    """
    runs = {trial: run_folder(out, row.recipe, trial) for trial in trials_of(seeds, folds)}
    runs = {trial: run for trial, run in runs.items() if metrics_file(run, row, trial).exists()}
    if not runs:
        return None
    scores = [_read_json(metrics_file(run, row, trial), MEASURES) for trial, run in runs.items()]
    logs = [_log_of(run) for run in runs.values()]
    environment = _read_json(runs[min(runs)] / "environment.json")
    result = {
        "recipe": str(row.recipe),
        "split": row.split,
        "tta": row.tta,
        "seeds": [trial.seed for trial in runs],
        **{measure: [score[measure] for score in scores] for measure in MEASURES},
        "minutes": [max((line["minutes"] for line in log if "minutes" in line), default=math.nan) for log in logs],
        "curves": [_curve_of(log) for log in logs],
        "environment": {key: environment.get(key, "unknown") for key in ("device", "torch", "commit", "ranks")},
    }
    if folds:
        result["folds"] = [trial.fold for trial in runs]
        result["pooled"] = pool_folds(row, runs, folds)
    return result


def pool_folds(row: Row, runs: Mapping[Trial, Path], folds: int) -> dict[str, list[Any]]:
    """The measures of the sum of the confusion matrices of all folds. Every picture counts once, scored by a network that did not
    train on it.

    Lists hold a value for each seed whose folds are all scored; empty lists for a split other than val.
    """
    whole = [seed for seed in {trial.seed: None for trial in runs} if sum(trial.seed == seed for trial in runs) == folds]
    pooled: dict[str, list[Any]] = {key: [] for key in ("seeds", *MEASURES, "class_iou", "confusion")}
    for seed in whole if row.split == "val" else ():
        files = [metrics_file(run, row, trial).with_name("confusion.csv") for trial, run in runs.items() if trial.seed == seed]
        counts = [read_confusion(file) for file in files]
        matrix = ConfusionMatrix(len(counts[0]))
        matrix.counts = torch.stack(counts).sum(dim=0)
        scores = matrix.scores()
        pooled["seeds"].append(seed)
        for measure in MEASURES:
            pooled[measure].append(getattr(scores, measure))
        pooled["class_iou"].append([None if math.isnan(iou) else iou for iou in scores.class_iou])
        pooled["confusion"].append(matrix.counts.tolist())
    return pooled


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
        raise data_error(path, f"not {expected}", "restore the file, or delete it and give the command again")
    return document


def table(results: Sequence[dict[str, Any]]) -> str:
    """The results as a Markdown table, scores in per cent."""
    lines = ["| recipe | split | mIoU | G | C | seeds | minutes | device, torch, commit |", "|---|---|---|---|---|---|---|---|"]
    for result in results:
        name = f"`{result['recipe']}`" + (", 3 scales, mirrored" if result["tta"] else "")
        where = ", ".join(str(result["environment"][key]) for key in ("device", "torch", "commit"))
        minutes = spread(result["minutes"], 1)
        folds = len(set(result.get("folds", ())))
        split = f"{result['split']} of {folds} folds" if folds else result["split"]
        lines.append(f"| {name} | {split} | {_shares(result)} | {len(set(result['seeds']))} | {minutes} | {where} |")
        if pooled := result.get("pooled", {}).get("seeds"):
            lines.append(f"| the same, one matrix of all folds | {split} | {_shares(result['pooled'])} | {len(pooled)} | | |")
    return "\n".join(lines) + "\n"


def _shares(values: Mapping[str, Any]) -> str:
    """The cells of the measures, in per cent."""
    return " | ".join(spread([100 * value for value in values[measure]], 2) for measure in MEASURES)


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation of a sample; the mean alone of a single value."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean
