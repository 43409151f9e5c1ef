"""Predict a folder, and look at its outputs; the command in a fork of this process."""

from __future__ import annotations

import faulthandler
import gc
import os
import runpy
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from helpers import ROOT, folder_bytes

from segnet.inference.predictor import Predictor
from segnet.prediction.inputs import plan_jobs
from segnet.prediction.manifest import NAME
from segnet.prediction.outputs import OUTPUTS
from segnet.prediction.pipeline import predict_jobs
from segnet.prediction.summary import Result

ANYWHERE = [kind for kind, output in OUTPUTS.items() if not output.needs_georeference]  # of pictures without a place


def run_jobs(
    predictor: Predictor, folder: Path, out: Path, save: Sequence[str] = ("mask",), *, overwrite: bool = False
) -> list[Result]:
    """Predict a folder."""
    return list(predict_jobs(predictor, plan_jobs([str(folder)], out), out, save=save, overwrite=overwrite))


def predict_all(
    predictor: Predictor, folder: Path, out: Path, save: Sequence[str] = ("mask",), *, overwrite: bool = False
) -> list[str]:
    """Predict a folder; the mistakes, as text."""
    return [str(result.failure) for result in run_jobs(predictor, folder, out, save, overwrite=overwrite) if result.failure]


def output_bytes(out: Path) -> dict[str, bytes]:
    """Every output and its content, without the manifest, which tells how they came about, and the lock."""
    return {name: content for name, content in folder_bytes(out).items() if name not in (NAME, ".lock")}


def written(results: Sequence[Result]) -> list[str]:
    """The pictures that were predicted; none failed."""
    assert [result.failure for result in results if result.failure] == []
    return [result.job.picture.stem for result in results if not result.skipped]


class Fork:
    """A process that runs `body`, forked from this one; its exit status is that of a script."""

    def __init__(self, body: Callable[[], object], output: Path) -> None:
        self.output = output
        self.process = os.fork()
        if not self.process:
            status: object = 70
            try:
                faulthandler.dump_traceback_later(120, exit=True)  # should it hang, it says where
                signal.signal(signal.SIGINT, signal.default_int_handler)
                gc.callbacks.clear()  # hypothesis leaves one: a Ctrl-C that is raised in there is lost
                torch.set_num_threads(1)  # after a fork torch mends its thread pool once, which two threads must not do at a time
                sys.stdout = sys.stderr = output.open("w", buffering=1)
                body()
                status = 0
            except SystemExit as leaving:
                status = leaving.code or 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(status if isinstance(status, int) else 1)

    def wait(self) -> int:
        """Its exit status, or minus the signal that killed it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])

    def text(self) -> str:
        return self.output.read_text()


RunInFork = Callable[..., Fork]


def predict_script(arguments: Sequence[object]) -> None:
    """scripts/predict.py in this process."""
    sys.argv = ["predict.py", *map(str, arguments), "device=cpu"]
    runpy.run_path(str(ROOT / "scripts" / "predict.py"), run_name="__main__")
