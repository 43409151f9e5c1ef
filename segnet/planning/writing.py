"""A plan as a configuration file with its reasons as comments, and as a table for people."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import yaml

from segnet.config.sections import Config
from segnet.config.yaml_files import Dumper, Value
from segnet.planning.choices import Choice
from segnet.planning.planner import Plan
from segnet.system.errors import config_error
from segnet.system.invocation import as_started

_WIDTH = 120  # columns
_FORECAST = re.compile(r"^# forecast: ([0-9.]+) minutes, ([0-9.]+) GB$", re.MULTILINE)


class Forecast(NamedTuple):
    """What a plan says that a run will take."""

    minutes: float
    memory: float  # GB


def plan_yaml(plan: Plan, root: Path) -> str:
    """The text of the configuration."""
    lines = [
        as_started(f"# Planned by segnet plan for {root} on {plan.device}."),
        f"# forecast: {plan.length.minutes:.2f} minutes, {plan.memory:.2f} GB",
        as_started("#   segnet train THIS_FILE"),
    ]
    lines += [line for choice in plan.choices if not choice.key for line in _comment(choice)]
    root_choice = Choice("data.root", str(root), "the folder that was measured", "its classes are those of its classes.yaml")
    for section in Config.model_fields:
        own = [choice for choice in [root_choice, *plan.choices] if choice.key.startswith(f"{section}.")]
        if own:
            lines += [f"{section}:", *textwrap.indent("\n".join(_keys(own)), "  ").splitlines()]
    return "\n".join(lines) + "\n"


def _keys(choices: Sequence[Choice]) -> list[str]:
    """The lines of the keys of a section, each with its reason above it; one that is repeated is written once."""
    lines: list[str] = []
    before: list[str] = []
    for choice in choices:
        comment = _comment(choice)
        if comment != before:
            lines += comment
        before = comment
        lines += _key(choice.key.split(".")[1], choice.value)
    return lines


def _key(key: str, value: Value) -> list[str]:
    """A key with its value on one line; a list of stages has a line for each."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [f"{key}:", *(f"  {line}" for line in _dump(value, flow=None).splitlines())]
    return [f"{key}: {_dump([value], flow=True)[1:-1]}"]


def _dump(value: Value, flow: bool | None) -> str:
    return yaml.dump(value, Dumper=Dumper, sort_keys=False, default_flow_style=flow, width=math.inf).strip()


def _comment(choice: Choice) -> list[str]:
    text = f"{choice.fact}: {choice.reason}"
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ")


def plan_table(plan: Plan) -> str:
    """The plan for people, a line for each key: fact → choice → because."""
    lines = []
    measured = [choice for choice in plan.choices if not choice.key.startswith("optim.")]
    for (fact, reason), group in groupby(measured, lambda choice: (choice.fact, choice.reason)):
        values = ", ".join(f"{choice.key} {_short(choice.value)}" for choice in group if choice.key)
        lines.append(f"{fact} → {values or 'a remark'} → {reason}")
    lines.append(f"forecast: {plan.length.minutes:.1f} minutes, {plan.memory:.2f} GB")
    return "\n".join(lines)


def _short(value: Value) -> str:
    """A value in a few characters; of a list of stages, the widths."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return " ".join("+".join(map(str, stage["widths"])) for stage in value)  # type: ignore[index, call-overload, arg-type]
    return str(value)


def read_forecast(path: Path) -> Forecast:
    """The forecast in a file of `plan_yaml`. Raises UserError (config) where there is none."""
    found = _FORECAST.search(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None
    if not found:
        raise config_error(path, "no forecast in it", "name the file that segnet plan wrote")
    return Forecast(float(found[1]), float(found[2]))
