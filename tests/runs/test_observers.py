"""The programs that show a run get its numbers and pictures, a resumed run goes on in the same remote run, and none stops it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import refused
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segnet.config.loading import override_config
from segnet.runs.observers import Observers, require_observers
from segnet.system.errors import ExitCode
from segnet.training.loop import train

CALLS = """
import json, os, pathlib

def call(called, /, *args, **named):
    path = pathlib.Path(os.environ["CALLS"])
    kept = [str(value) if type(value).__name__ in ("Image", "ndarray") else value for value in args]
    with path.open("a") as file:
        file.write(json.dumps([called, kept, named], default=str) + "\\n")
"""
MLFLOW = (
    CALLS
    + """
class Started:
    class info:
        run_id = "remote-1"

def start_run(**named):
    call("start_run", **named)
    return Started

def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return lambda *args, **named: call(name, *args, **named)
"""
)
WANDB = (
    CALLS
    + """
class Run:
    id = "remote-2"
    summary = {}
    def __getattr__(self, name):
        return lambda *args, **named: call(name, *args, **named)

def init(**named):
    call("init", **named)
    return Run()

class Settings:
    def __init__(self, **named):
        pass

class Image:
    def __init__(self, array):
        pass
"""
)
BROKEN = """
def start_run(**_):
    raise RuntimeError("no answer from the server\\nand more lines")
"""


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """A function that installs stand-ins for packages, and one that reads what was called in them."""
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.syspath_prepend(tmp_path / "packages")

    def install(**packages: str) -> None:
        for name, code in packages.items():
            (tmp_path / "packages" / name).mkdir(parents=True)
            (tmp_path / "packages" / name / "__init__.py").write_text(code)
            monkeypatch.delitem(sys.modules, name, raising=False)

    def read() -> list[tuple[str, list, dict]]:
        return [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]

    return install, read


def read_board(run: Path) -> EventAccumulator:
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    return board


def test_tensorboard_has_the_settings_the_scores_and_the_confusion_matrix(tiny_config, tmp_path):
    run = tmp_path / "run"
    train(tiny_config, run)
    board = read_board(run)
    assert {"train/learning_rate", "train/loss", "val/miou"} <= set(board.Tags()["scalars"])
    assert {"val/confusion", "val/picture, truth, prediction"} <= set(board.Tags()["images"])
    content = b"".join(path.read_bytes() for path in (run / "tensorboard").iterdir())
    assert b"_hparams_/experiment" in content
    assert b"optim.lr" in content


def test_remote_runs_get_all_and_are_resumed(tiny_config, tmp_path, calls, capsys):
    install, read = calls
    install(mlflow=MLFLOW, wandb=WANDB)
    run = tmp_path / "run"
    config = override_config(tiny_config, ["train.observers=[mlflow, wandb]", "train.max_minutes=1e-9"])
    train(config, run)  # one step, and a checkpoint
    assert not (run / "tensorboard").exists()
    assert json.loads((run / "observers.json").read_text()) == {"mlflow": "remote-1", "wandb": "remote-2"}
    first = read()
    started = {name: named for name, _, named in first if name in ("start_run", "init")}
    assert started["start_run"] == {"run_id": None, "run_name": "run"}
    assert (started["init"]["id"], started["init"]["project"], started["init"]["config"]["train.batch_size"]) == (
        None,
        "segnet",
        2,
    )
    train(override_config(config, ["train.max_minutes=0"]), run, resume=True)
    again = read()[len(first) :]
    assert [named for name, _, named in again if name == "start_run"] == [{"run_id": "remote-1", "run_name": None}]
    assert next(named for name, _, named in again if name == "init")["id"] == "remote-2"
    assert [name for name, *_ in first].count("log_params") == 1
    assert "log_params" not in [name for name, *_ in again]  # those of a run cannot be changed
    steps = [named["step"] for name, _, named in first + again if name == "log_metrics"]
    assert steps == [1, 2, 3, 3, 4, 5, 6, 6]
    assert {"train/loss", "val/miou"} <= {key for name, args, _ in again if name == "log_metrics" for key in args[0]}
    assert "val/confusion/step_0000003.png" in [args[1] for name, args, _ in again if name == "log_image"]
    assert again[-2:] == [["end_run", ["FINISHED"], {}], ["finish", [], {"exit_code": 0}]]
    assert "warning" not in capsys.readouterr().err


def test_a_tracker_that_fails_is_one_warning_and_training_goes_on(tiny_config, tmp_path, calls, capsys):
    install, _ = calls
    install(mlflow=BROKEN)
    best = train(override_config(tiny_config, ["train.observers=[mlflow, tensorboard]"]), tmp_path / "run")
    assert best.exists()
    assert "val/miou" in read_board(tmp_path / "run").Tags()["scalars"]
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert "mlflow: no answer from the server; training goes on without it" in warnings[0]


def test_one_that_fails_later_is_left_out_and_the_others_go_on(tmp_path, calls, capsys):
    install, read = calls
    install(mlflow=MLFLOW, wandb=WANDB)
    observers = Observers(["mlflow", "wandb"], tmp_path, {}, [], step=0)
    del observers.active["mlflow"].mlflow
    for step in (1, 2):
        observers.scalars({"train/loss": 0.5}, step)
        observers.picture("val/picture, truth", np.zeros((2, 2, 3), np.uint8), step)
    observers.close("stopped")
    assert [args[0] for name, args, _ in read() if name == "log"][::2] == [{"train/loss": 0.5, "step": step} for step in (1, 2)]
    assert capsys.readouterr().err.count("warning") == 1


def test_a_package_that_is_missing_is_refused_before_the_run(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with refused(ExitCode.ENVIRONMENT, "train.observers", "mlflow", "pip install mlflow"):
        train(override_config(tiny_config, ["train.observers=[mlflow]"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    require_observers(["tensorboard"])
