"""A prediction that is killed anywhere leaves whole files alone, and the repeated command completes them."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
from helpers import write_picture
from predictions import Fork, output_bytes, run_jobs

from segnet.inference.predictor import Predictor
from segnet.prediction.inputs import plan_jobs
from segnet.prediction.manifest import Manifest, Record
from segnet.prediction.pipeline import predict_jobs
from segnet.prediction.summary import Result
from segnet.system.errors import UserError


class Deadly:
    """Counts what this process does to files, in all threads, and kills it instead of the n-th time."""

    def __init__(self, kill_at: int) -> None:
        self.kill_at, self.count, self.lock = kill_at, 0, threading.Lock()
        for name in ("write", "fsync", "replace", "mkdir", "unlink"):
            setattr(os, name, self.watched(getattr(os, name)))

    def watched(self, function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            with self.lock:
                self.count += 1
                if self.count == self.kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call


class Trials:
    """Kills a prediction of a folder into `out`, looks at what is left, repeats it and compares.

    In `out` are the outputs of an earlier call, when the first picture was another.
    """

    kinds = ("mask", "json")

    def __init__(self, predictor: Predictor, pictures: Path, folder: Path) -> None:
        self.predictor, self.pictures, self.folder, self.out = predictor, pictures, folder, folder / "out"
        first = (pictures / "0.png").read_bytes()
        write_picture(pictures / "0.png", (30, 7))
        list(predict_jobs(predictor, plan_jobs([str(pictures / "0.png")], self.out), self.out, save=self.kinds))
        self.before = output_bytes(self.out)
        self.out.rename(folder / "before")
        (pictures / "0.png").write_bytes(first)
        run_jobs(predictor, pictures, folder / "whole", self.kinds)
        self.whole = output_bytes(folder / "whole")

    def run(self) -> list[Result]:
        return run_jobs(self.predictor, self.pictures, self.out, self.kinds)

    def fork(self, kill_at: int = 0) -> Fork:
        def body() -> None:
            deadly = Deadly(kill_at)
            self.run()
            print(deadly.count)

        shutil.rmtree(self.out, ignore_errors=True)
        shutil.copytree(self.folder / "before", self.out)
        return Fork(body, self.folder / "output.txt")

    def check(self, fork: Fork, what: str) -> int:
        """After its end: nothing but whole files, and the same command completes them. How many pictures were skipped."""
        status = fork.wait()
        assert status in (0, -signal.SIGKILL), f"{what}: {fork.text()}"
        for name, content in output_bytes(self.out).items():
            assert name.endswith(".tmp") or content in (self.whole[name], self.before.get(name)), f"{what}: {name} is not whole"
        results = self.run()
        assert [result.failure for result in results if result.failure] == [], what
        assert output_bytes(self.out) == self.whole, f"{what}: the repeated command ends otherwise"
        return sum(result.skipped for result in results)


@pytest.fixture
def trials(predictor: Predictor, pictures: Path, tmp_path: Path) -> Trials:
    (pictures / "3.png").unlink()
    return Trials(predictor, pictures, tmp_path)


def test_killed_at_every_operation_on_a_file(trials: Trials) -> None:
    whole = trials.fork()
    assert whole.wait() == 0, whole.text()
    operations, skipped = int(whole.text()), []
    assert operations > 3 * 3 * 2
    for number in range(1, operations + 1):
        skipped.append(trials.check(trials.fork(number), f"operation {number} of {operations}"))
    assert (skipped[0], skipped[-1]) == (0, 2)


def test_killed_at_random(trials: Trials) -> None:
    started = time.monotonic()
    trials.check(trials.fork(), "undisturbed")
    seconds, dice, killed = time.monotonic() - started, random.Random(0), 0
    for trial in range(60):
        fork = trials.fork()
        time.sleep(dice.uniform(0, seconds))
        os.kill(fork.process, signal.SIGKILL)
        killed += trials.check(fork, f"trial {trial}") < 3
        if trial >= 12 and killed > 2:
            return
    pytest.fail("no kill came before the end")


@pytest.mark.parametrize("mistake", ["written in place", "not announced", "done before it is written", "temporaries stay"])
def test_kills_find_mistakes(mistake: str, trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control."""
    add = Manifest.add

    @contextmanager
    def in_place(path: Path, **_: object) -> Iterator[BinaryIO]:
        with path.open("wb") as file:
            yield file
            os.fsync(file.fileno())

    def unannounced(self: Manifest, record: Record) -> None:
        if record.done:
            add(self, record)

    def hasty(self: Manifest, record: Record) -> None:
        add(self, record._replace(done=True))

    if mistake == "written in place":
        monkeypatch.setattr("segnet.prediction.pipeline.atomic_write", in_place)
    elif mistake == "temporaries stay":
        monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    else:
        monkeypatch.setattr(Manifest, "add", unannounced if mistake == "not announced" else hasty)
    whole = trials.fork()
    assert whole.wait() == 0, whole.text()
    for number in range(1, int(whole.text()) + 1):
        try:
            trials.check(trials.fork(number), mistake)
        except (AssertionError, UserError):
            return
    pytest.fail("not found")
