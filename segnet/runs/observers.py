"""The programs in which people watch a run: TensorBoard, MLflow and Weights & Biases."""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from segnet.system.errors import environment_error, first_line, printable
from segnet.system.files import read_json_object, write_text
from segnet.system.terminal import print_above_bars

Settings = Mapping[str, str | float | bool]
Outcome = Literal["finished", "stopped", "failed"]
RUN_IDS = "observers.json"  # in the run folder: the ids of the remote runs, which a resumed run continues
PACKAGES = {"mlflow": "mlflow", "wandb": "wandb"}  # what each optional observer needs

_PARAMETERS = 100  # that MLflow takes at a time


class Observer(Protocol):
    """One program that shows a run. Whatever its methods raise ends it, and not the run."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Show numbers by their tags, such as "val/miou"."""
        ...

    def picture(self, tag: str, image: np.ndarray, step: int) -> None:
        """Show an image, (H, W, 3) uint8."""
        ...

    def text(self, tag: str, text: str, step: int) -> None:
        """Show a text in Markdown."""
        ...

    def close(self, outcome: Outcome) -> None:
        """Finish what is written, and say how the run ended."""
        ...


def require_observers(names: Sequence[str]) -> None:
    """Raises UserError (environment) where the package of an observer is missing or cannot be imported."""
    for name in names:
        if name in PACKAGES:
            _module(PACKAGES[name])


def _module(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        found = f"{package} cannot be imported ({first_line(error, 100)})"
        raise environment_error("train.observers", found, f"pip install {package}, or leave it out") from None


class Observers:
    """All observers of a run. One that fails is left out from then on, with one warning."""

    def __init__(self, names: Sequence[str], run: Path, settings: Settings, measures: Sequence[str], *, step: int) -> None:
        """`settings` are those of the run, `measures` the tags of its scores, `step` the one after which it continues.

        Raises UserError (environment) as `require_observers` does.
        """
        require_observers(names)
        openers: dict[str, Callable[[], Observer]] = {
            "tensorboard": lambda: TensorBoard(run, settings, measures, step=step),
            "mlflow": lambda: MLflow(run, settings),
            "wandb": lambda: WeightsAndBiases(run, settings),
        }
        self.run = run
        self.active = dict[str, Observer]()
        for name in names:
            try:
                self.active[name] = openers[name]()
            except Exception as error:
                self._warn(name, error)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Show numbers by their tags."""
        self._each(lambda observer: observer.scalars(values, step))

    def picture(self, tag: str, image: np.ndarray, step: int) -> None:
        """Show an image, (H, W, 3) uint8."""
        self._each(lambda observer: observer.picture(tag, image, step))

    def text(self, tag: str, text: str, step: int) -> None:
        """Show a text in Markdown."""
        self._each(lambda observer: observer.text(tag, text, step))

    def close(self, outcome: Outcome) -> None:
        """Say how the run ended."""
        self._each(lambda observer: observer.close(outcome))

    def _each(self, action: Callable[[Observer], None]) -> None:
        for name, observer in list(self.active.items()):
            try:
                action(observer)
            except Exception as error:
                del self.active[name]
                self._warn(name, error)

    def _warn(self, name: str, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or first_line(error, 200)
        line = f"{self.run}: {name}: {reason}; training goes on without it, metrics.csv has the numbers"
        print_above_bars(f"warning: {printable(line)}", sys.stderr)


class TensorBoard:
    """Event files in `tensorboard/` of the run folder. Its page HPARAMS compares runs by their settings."""

    def __init__(self, run: Path, settings: Settings, measures: Sequence[str], *, step: int) -> None:
        try:
            self.writer = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
        except UnicodeEncodeError:
            raise ValueError("the name of the folder is not UTF-8") from None
        experiment, start, self.end = hparams(dict(settings), dict.fromkeys(measures, 0.0))
        self._add(experiment)
        self._add(start)

    def _add(self, summary: Any) -> None:
        if file := self.writer.file_writer:
            file.add_summary(summary)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for tag, value in values.items():
            self.writer.add_scalar(tag, value, step)

    def picture(self, tag: str, image: np.ndarray, step: int) -> None:
        self.writer.add_image(tag, image, step, dataformats="HWC")

    def text(self, tag: str, text: str, step: int) -> None:
        self.writer.add_text(tag, text, step)

    def close(self, outcome: Outcome) -> None:
        self._add(self.end)
        self.writer.close()


class MLflow:
    """A run of MLflow, on the server and in the experiment that MLflow's own variables name (MLFLOW_TRACKING_URI, …).

    A server that does not answer is given up after seconds, unless these variables say otherwise.
    """

    def __init__(self, run: Path, settings: Settings) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        self.mlflow = _module("mlflow")
        known = _run_ids(run).get("mlflow")
        started = self.mlflow.start_run(run_id=known, run_name=None if known else run.resolve().name)
        _keep_run_id(run, "mlflow", started.info.run_id)
        if not known:  # those of a run cannot be changed
            values = [(_plain(name), value) for name, value in settings.items()]
            for start in range(0, len(values), _PARAMETERS):
                self.mlflow.log_params(dict(values[start : start + _PARAMETERS]))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self.mlflow.log_metrics({_plain(tag): value for tag, value in values.items()}, step=step)

    def picture(self, tag: str, image: np.ndarray, step: int) -> None:
        self.mlflow.log_image(Image.fromarray(image), f"{_plain(tag)}/step_{step:07d}.png")

    def text(self, tag: str, text: str, step: int) -> None:
        self.mlflow.log_text(text, f"{_plain(tag)}.md")

    def close(self, outcome: Outcome) -> None:
        self.mlflow.end_run({"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}[outcome])


class WeightsAndBiases:
    """A run of Weights & Biases, in the project WANDB_PROJECT (default: segnet); WANDB_MODE=offline needs no account.

    Its own step counter only rises. After a resumption steps are shown again, so the step is a number among the others.
    """

    def __init__(self, run: Path, settings: Settings) -> None:
        self.wandb = _module("wandb")
        self.run = self.wandb.init(
            project=os.environ.get("WANDB_PROJECT", "segnet"),
            id=_run_ids(run).get("wandb"),
            resume="allow",
            name=run.resolve().name,
            dir=str(run),
            config=dict(settings),
            allow_val_change=True,
            settings=self.wandb.Settings(console="off"),
        )
        _keep_run_id(run, "wandb", self.run.id)
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self.run.log({**values, "step": step})

    def picture(self, tag: str, image: np.ndarray, step: int) -> None:
        self.run.log({tag: self.wandb.Image(image), "step": step})

    def text(self, tag: str, text: str, step: int) -> None:
        self.run.summary[tag] = text

    def close(self, outcome: Outcome) -> None:
        self.run.finish(exit_code={"finished": 0, "stopped": 255, "failed": 1}[outcome])


def _plain(tag: str) -> str:
    """`tag` with the characters alone that MLflow accepts in a name."""
    return re.sub(r"[^/\w.\- ]", "_", tag)


def _run_ids(run: Path) -> dict[str, str]:
    """The ids of the remote runs; empty where the file is missing or not of this program, and then new ones begin."""
    return {name: value for name, value in read_json_object(run / RUN_IDS).items() if isinstance(value, str)}


def _keep_run_id(run: Path, name: str, run_id: str) -> None:
    ids = _run_ids(run)
    if ids.get(name) != run_id:
        write_text(run / RUN_IDS, json.dumps({**ids, name: run_id}, indent=1) + "\n")
