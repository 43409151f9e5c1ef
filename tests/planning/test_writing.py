"""The file of a plan: a reason above each key, the same values when it is read, whatever the folder is called."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from helpers import refused

from segnet.planning.choices import Choice, Length
from segnet.planning.planner import Plan
from segnet.planning.writing import Forecast, plan_table, plan_yaml, read_forecast
from segnet.system.errors import ExitCode

STAGES = [{"widths": [4, 5]}, {"widths": [6], "dropout": 0.5}]
PLAN = Plan(
    [
        Choice("", None, "crop is in 2 of 9 training pictures", "label more"),
        Choice("model.encoder", STAGES, "fast", "enough"),
        Choice("train.epochs", 3.5, "0.5 s a step", "what fits"),
        Choice("optim.lr", 1e-05, "9 parameters", "as in a recipe"),
        Choice("optim.name", "adamw", "9 parameters", "as in a recipe"),
        Choice("augment.scale", [0.25, 1.0], "large", "a very " + "long " * 40 + "reason"),
    ],
    "CPU",
    Length(7, 3.5, 1, 12.345),
    1.5,
)


@pytest.mark.parametrize("name", ["data/leaves", "a: b #c", 'it\'s "so"', "größe"])
def test_the_values_are_read_again(name: str) -> None:
    text = plan_yaml(PLAN, Path(name))
    assert yaml.safe_load(text.replace("1.0e-05", "0.00001")) == {
        "model": {"encoder": STAGES},
        "data": {"root": name},
        "augment": {"scale": [0.25, 1.0]},
        "optim": {"lr": 1e-05, "name": "adamw"},
        "train": {"epochs": 3.5},
    }
    assert max(map(len, text.splitlines())) <= 128


def test_each_reason_stands_above_its_key_and_once() -> None:
    lines = plan_yaml(PLAN, Path("d")).splitlines()
    assert lines[lines.index("  epochs: 3.5") - 1] == "  # 0.5 s a step: what fits"
    assert lines.count("  # 9 parameters: as in a recipe") == 1
    assert "# crop is in 2 of 9 training pictures: label more" in lines


def test_the_table_shows_fact_choice_and_reason_of_what_was_measured() -> None:
    table = plan_table(PLAN)
    assert "fast → model.encoder 4+5 6 → enough" in table
    assert "crop is in 2 of 9 training pictures → a remark → label more" in table
    assert "optim" not in table
    assert table.endswith("forecast: 12.3 minutes, 1.50 GB")


def test_the_forecast_is_read_from_the_file_or_missed(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(plan_yaml(PLAN, tmp_path))
    assert read_forecast(path) == Forecast(12.35, 1.5) or read_forecast(path) == Forecast(12.34, 1.5)
    for other in (tmp_path / "none.yaml", tmp_path):
        with refused(ExitCode.CONFIG, "no forecast in it"):
            read_forecast(other)
