"""A finished run beside its plan: what the forecast said, and what the run took."""

from __future__ import annotations

import json
import math
from pathlib import Path

from segnet.config.loading import load_config
from segnet.planning.writing import Forecast, read_forecast
from segnet.runs.log import read_log
from segnet.system.errors import UserError, config_error


def review(run: Path, plan: Path | None) -> str:
    """The forecast of `plan` (default: the file that the run was started with) beside what the run took, a line for each.

    Raises UserError (config) where the run or the plan is missing.
    """
    log = run / "metrics.csv"
    if not log.is_file():
        raise config_error(run, "no metrics.csv in it", "name a run folder that segnet train wrote")
    forecast = read_forecast(plan or _plan_of(run))
    rows = read_log(log)
    minutes = max((row["minutes"] for row in rows if "minutes" in row), default=math.nan)
    epochs = max((row["epoch"] for row in rows if "epoch" in row), default=0.0)
    planned = load_config(run / "config.yaml").train.epochs
    lines = [f"{'':<10}{'forecast':>10}{'took':>10}{'difference':>12}"]
    taken = Forecast(minutes, _peak_of(run / "tensorboard"))
    for name, unit in (("minutes", "minutes"), ("memory", "GB")):
        expected, found = getattr(forecast, name), getattr(taken, name)
        lines.append(f"{unit:<10}{expected:>10.2f}{found:>10.2f}{found / expected - 1:>+12.0%}")
    if epochs < planned - 1e-6:
        lines.append(f"the run has made {epochs:.3g} of {planned:g} epochs")
    return "\n".join(lines)


def _plan_of(run: Path) -> Path:
    """The first file with a forecast among the arguments of the command that began the run."""
    path = run / "environment.json"
    try:
        command = str(json.loads(path.read_text("utf-8-sig"))["command"])
    except (OSError, ValueError, LookupError, TypeError):
        command = ""
    for word in command.split():
        try:
            read_forecast(Path(word))
        except UserError:
            continue
        return Path(word)
    raise config_error(path, "names no file with a forecast", "give the file that segnet plan wrote before --check")


def _peak_of(folder: Path) -> float:
    """The largest memory in GB that a run noted for TensorBoard; NaN where it noted none."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # takes a second

    events = EventAccumulator(str(folder))
    events.Reload()
    tag = "train/memory_gb"
    return max((event.value for event in events.Scalars(tag)), default=math.nan) if tag in events.Tags()["scalars"] else math.nan
