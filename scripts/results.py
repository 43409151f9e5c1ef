"""Train recipes with several seeds, score them, and write the table of results: mean ± standard deviation, and what it cost.

examples:
  python scripts/results.py configs/camvid.yaml configs/camvid_plain.yaml --seeds 0 1 2
  python scripts/results.py configs/camvid_cpu.yaml --splits val test --tta
  python scripts/results.py configs/camvid.yaml --minutes 9

Everything that it does is a command that it prints, and what is done stays done: give the same command again to go on, or to
add recipes, seeds and splits. With --minutes it stops in time and says how much is left. Choose recipes on val; score test once.
Under --out: <recipe>/seed<N>, the run folders; results.json, with every number and the curves; results.md, the table.
"""

import argparse
import json
import math
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from segnet.config import Config, load_config
from segnet.errors import ExitCode, UserError, count_up_to, run_command
from segnet.files import make_folder, write_text
from segnet.run_folder import BEST, LAST, read_log

SCRIPTS = Path(__file__).parent
ZOOMS = (0.75, 1.0, 1.25)  # of test-time augmentation, times the recipe's own scales
MEASURES = ("miou", "global_accuracy", "mean_accuracy")


class Row(NamedTuple):
    """A recipe, scored in one way."""

    recipe: Path
    split: str
    tta: bool


class TimeIsUp(Exception):
    """What is left waits for the next call."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", type=Path, nargs="+", metavar="CONFIG", help="YAML files")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", dest="overrides", help="overrides, for all of them")
    parser.add_argument("--seeds", type=count_up_to(2**31), nargs="+", default=[0], metavar="N", help="0 if left out")
    parser.add_argument("--splits", nargs="+", default=["val"], metavar="NAME", help="to score on (val)")
    parser.add_argument("--tta", action="store_true", help="score at three scales and mirrored, too")
    parser.add_argument("--minutes", type=float, default=float("inf"), metavar="N", help="stop in time, to go on another time")
    parser.add_argument("--out", type=Path, default=Path("runs/results"), metavar="DIR", help="where (runs/results)")
    arguments = parser.parse_args()
    configs = {recipe: load_config(recipe, arguments.overrides) for recipe in arguments.recipes}  # all mistakes before the work
    rows = [Row(recipe, split, tta) for recipe in configs for split in arguments.splits for tta in sorted({False, arguments.tta})]
    deadline = time.monotonic() + 60 * arguments.minutes
    make_folder(arguments.out)
    left = 0
    for seed in arguments.seeds:
        for recipe, config in configs.items():
            run = run_folder(arguments.out, recipe, seed)
            try:
                train(run, recipe, config, [*arguments.overrides, f"seed={seed}"], deadline)
                for row in rows:
                    if row.recipe == recipe:
                        score(run, row, config, deadline)
            except TimeIsUp:
                left += 1
    document = [result for row in rows if (result := collect(arguments.out, row, arguments.seeds))]
    write_text(arguments.out / "results.json", json.dumps(document, indent=1) + "\n")
    write_text(arguments.out / "results.md", table(document))
    print(table(document), end="")
    print(f"{left} of {len(configs) * len(arguments.seeds)} runs wait: give the command again" if left else "complete")


# ---------------------------------------------------------------------------------------------------------------------
# Doing
# ---------------------------------------------------------------------------------------------------------------------


def run_folder(out: Path, recipe: Path, seed: int) -> Path:
    return out / recipe.stem / f"seed{seed}"


def train(run: Path, recipe: Path, config: Config, overrides: Sequence[str], deadline: float) -> None:
    """Train to the end. Raises TimeIsUp when that is not reached, UserError when the command fails."""
    if is_trained(run, config):
        return
    minutes = (deadline - time.monotonic()) / 60
    if minutes < 0.2:
        raise TimeIsUp
    limit = [f"train.max_minutes={minutes:.2f}"] if minutes != float("inf") else []
    call("train", recipe, *overrides, *limit, "--run", run, "--resume")
    if not is_trained(run, config):
        raise TimeIsUp


def is_trained(run: Path, config: Config) -> bool:
    """Whether the last step was scored and saved."""
    epochs = [line["epoch"] for line in log_of(run) if {"epoch", "val_miou"} <= line.keys()]
    return max(epochs, default=0.0) >= config.train.epochs - 1e-6 and (run / LAST).exists()


def score(run: Path, row: Row, config: Config, deadline: float) -> None:
    """Evaluate the best checkpoint, unless that was done. Raises TimeIsUp, UserError."""
    metrics = metrics_file(run, row)
    if metrics.exists() and metrics.stat().st_mtime >= (run / BEST).stat().st_mtime:
        return
    if time.monotonic() > deadline:
        raise TimeIsUp
    scales = [round(zoom * scale, 4) for zoom in ZOOMS for scale in config.inference.scales]
    views = [f"inference.scales={scales}", "inference.flip=true"] if row.tta else []
    call("evaluate", run, *views, "--split", row.split, "--out", metrics.parent)


def call(script: str, *arguments: object) -> None:
    command = [sys.executable, SCRIPTS / f"{script}.py", *arguments]
    print("$ " + shlex.join(["python", f"scripts/{script}.py", *map(str, arguments)]), flush=True)
    status = subprocess.run([str(part) for part in command], check=False).returncode
    if status:
        code = ExitCode(status) if status in set(ExitCode) else ExitCode.ENVIRONMENT
        raise UserError(code, f"scripts/{script}.py", f"ended with exit code {status}", "mend what it says above, and go on")


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


def metrics_file(run: Path, row: Row) -> Path:
    return run / "evaluation" / (row.split + "-tta" * row.tta) / "metrics.json"


def log_of(run: Path) -> list[dict[str, float]]:
    path = run / "metrics.csv"
    return read_log(path) if path.exists() else []


def read_json(path: Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    """The object in a JSON file, which has all `keys`. Raises UserError (data) for anything else."""
    try:
        document = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or not document.keys() >= set(keys):
        expected = "a JSON object" + (f" with {', '.join(keys)}" if keys else "")
        raise UserError(ExitCode.DATA, path, f"not {expected}", "restore the file, or delete it and give the command again")
    return document


def collect(out: Path, row: Row, seeds: Sequence[int]) -> dict[str, Any] | None:
    """What the finished runs of a row found; None where there is none."""
    runs = {seed: run_folder(out, row.recipe, seed) for seed in seeds}
    runs = {seed: run for seed, run in runs.items() if metrics_file(run, row).exists()}
    if not runs:
        return None
    scores = [read_json(metrics_file(run, row), MEASURES) for run in runs.values()]
    logs = [log_of(run) for run in runs.values()]
    environment = read_json(runs[min(runs)] / "environment.json")
    return {
        "recipe": str(row.recipe),
        "split": row.split,
        "tta": row.tta,
        "seeds": list(runs),
        **{measure: [score[measure] for score in scores] for measure in MEASURES},
        "minutes": [max((row["minutes"] for row in log if "minutes" in row), default=math.nan) for log in logs],
        "curves": [[[row["minutes"], row["val_miou"]] for row in log if {"minutes", "val_miou"} <= row.keys()] for log in logs],
        "environment": {key: environment.get(key, "unknown") for key in ("device", "torch", "commit", "ranks")},
    }


def table(document: Sequence[dict[str, Any]]) -> str:
    """The results as Markdown, in per cent."""
    lines = ["| recipe | split | mIoU | G | C | seeds | minutes | device, torch, commit |", "|---|---|---|---|---|---|---|---|"]
    for result in document:
        name = f"`{result['recipe']}`" + ", 3 scales, mirrored" * result["tta"]
        values = " | ".join(spread([100 * value for value in result[measure]], 2) for measure in MEASURES)
        where = ", ".join(str(result["environment"][key]) for key in ("device", "torch", "commit"))
        minutes = spread(result["minutes"], 1)
        lines.append(f"| {name} | {result['split']} | {values} | {len(result['seeds'])} | {minutes} | {where} |")
    return "\n".join(lines) + "\n"


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation of a sample; the mean alone of a single value."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


if __name__ == "__main__":
    run_command(main)
