"""Several ranks learn and score what one process does: real processes, joined by gloo on this machine."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from evaluations import evaluate_fully
from helpers import ROOT, assert_same_run, steps_logged
from ranks import Ranks
from torch import nn

from segnet.config.loading import override_config
from segnet.config.sections import Config
from segnet.data.dataset import SegmentationDataset
from segnet.data.loader import build_loader
from segnet.data.sampler import ResumableSampler, SampleKey
from segnet.evaluation.scoring import evaluate
from segnet.inference.loaded_model import load_model
from segnet.runs.checkpoint import load_checkpoint
from segnet.system import processes
from segnet.system.distributed import gather, process_group, rank
from segnet.system.processes import STOP_SIGNALS
from segnet.training import loop, resuming, step

LONG = ["train.epochs=4", "train.batch_size=4", "train.eval_every_epochs=2", "train.save_every_epochs=1"]


def run_ranks(count: int, body: Callable[[], object], folder: Path) -> None:
    """Run `body` on `count` ranks, all of which must succeed."""
    ranks = Ranks(count, body, folder)
    assert ranks.wait() == [0] * count, ranks.text()


def losses(run: Path) -> list[float]:
    with (run / "metrics.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]


@pytest.fixture
def no_batch_norm(monkeypatch) -> Iterator[None]:
    """Networks in float64 without batch normalisation, which on a CPU sees one rank's part alone: ranks must not matter at all.

    In float32 they differ in the last digit, and now and then another pixel wins a pooling.
    """
    monkeypatch.setattr(nn, "BatchNorm2d", lambda channels: nn.Identity())
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_each_picture_is_seen_once_per_epoch_whatever_the_ranks(monkeypatch, ranks):
    seen = []
    for number in range(ranks):
        monkeypatch.setattr("segnet.data.sampler.this_ranks_part", lambda batch, number=number: batch[number::ranks])
        seen += [key for batch in ResumableSampler(6, 4, seed=0, start=0, total=9) for key in batch]
    assert sorted(seen) == [SampleKey(epoch, picture) for epoch in range(6) for picture in range(6)]


def test_the_confusion_matrix_is_the_same_for_any_number_of_ranks(tiny_run, tiny_data, tiny_classes, tmp_path):
    """Three pictures over 1, 2 and 4 ranks: uneven, and one rank with none."""

    def score() -> None:
        with process_group(torch.device("cpu")):
            model = load_model(tiny_run, ["device=cpu"]).model
            scores = evaluate(model, build_loader(SegmentationDataset(tiny_data, "val", tiny_classes), workers=0))
            (tmp_path / f"{len(gather(0))}-{rank()}").write_text(repr(scores))

    for count in (1, 2, 4):
        run_ranks(count, score, tmp_path)
    found = {(tmp_path / f"{count}-{number}").read_text() for count in (1, 2, 4) for number in range(count)}
    assert len(found) == 1
    assert "nan" not in found.pop()


@pytest.mark.parametrize("changes", [["loss.label_smoothing=0.1", "loss.lovasz=0.5"], ["loss.class_weights=median_frequency"]])
def test_the_loss_curve_is_the_same_for_any_split_of_the_batch(tiny_config, tmp_path, no_batch_norm, changes):
    """Ranks × parts of a step: 1, 2, 4 ranks, parts, both, and 3 ranks that get 2, 1 and 1 pictures."""
    for ranks, parts in ((1, 1), (2, 1), (4, 1), (3, 1), (1, 2), (1, 4), (2, 2)):
        config = override_config(tiny_config, [*LONG, *changes, f"train.accumulate={parts}"])
        run_ranks(ranks, lambda config=config, name=f"{ranks}x{parts}": loop.train(config, tmp_path / name), tmp_path)
        assert losses(tmp_path / f"{ranks}x{parts}") == pytest.approx(losses(tmp_path / "1x1"), rel=1e-9), (ranks, parts)


def test_without_the_global_count_the_split_would_matter(tiny_config, tmp_path, no_batch_norm, monkeypatch):
    """The negative control: each rank divides by its own count."""
    config = override_config(tiny_config, [*LONG, "loss.class_weights=median_frequency"])
    run_ranks(1, lambda: loop.train(config, tmp_path / "one"), tmp_path)
    original = step.train_step

    def planted(*arguments, **options) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(step, "sum_over_ranks", lambda counts: counts * 2)  # as if all ranks had this one's counts
            original(*arguments, **options)

    monkeypatch.setattr(loop, "train_step", planted)
    run_ranks(2, lambda: loop.train(config, tmp_path / "two"), tmp_path)
    assert losses(tmp_path / "two") != pytest.approx(losses(tmp_path / "one"), rel=1e-9)


def test_a_run_resumes_on_another_number_of_ranks(tiny_config, tmp_path, no_batch_norm):
    config = override_config(tiny_config, LONG)
    run_ranks(1, lambda: loop.train(config, tmp_path / "whole"), tmp_path)
    stop_after(2, lambda: loop.train(config, tmp_path / "moved"), tmp_path, step=3)
    assert 0 < load_checkpoint(tmp_path / "moved" / "last.pt").step < 6
    run_ranks(4, lambda: loop.train(config, tmp_path / "moved", resume=True), tmp_path)
    assert losses(tmp_path / "moved") == pytest.approx(losses(tmp_path / "whole"), rel=1e-9)


def stop_after(count: int, body: Callable[[], object], folder: Path, *, step: int, number: int = signal.SIGTERM) -> None:
    """Send a signal to the last rank after `step`, and expect all to stop in order."""
    original = loop.train_step

    def stopping(state, *arguments, **options) -> None:
        original(state, *arguments, **options)
        if state.step == step and rank() == count - 1:
            os.kill(os.getpid(), number)

    loop.train_step = stopping
    try:
        ranks = Ranks(count, body, folder)
        assert ranks.wait() == [128 + number] * count, ranks.text()
    finally:
        loop.train_step = original


def test_two_ranks_that_were_stopped_end_with_the_same_bits(tiny_config, tmp_path):
    """With batch normalisation and a moving average, and a signal that only one of the ranks receives."""
    config = override_config(tiny_config, [*LONG, "train.ema_decay=0.9"])
    run_ranks(2, lambda: loop.train(config, tmp_path / "whole"), tmp_path)
    stop_after(2, lambda: loop.train(config, tmp_path / "stopped"), tmp_path, step=2)
    assert load_checkpoint(tmp_path / "stopped" / "last.pt").step == 2
    run_ranks(2, lambda: loop.train(config, tmp_path / "stopped", resume=True), tmp_path)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


@pytest.fixture
def heard() -> Iterator[None]:
    """The stop signals are not ignored, as SIGHUP is where the tests run under nohup."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU])
def test_a_warning_to_one_rank_saves_and_ends_both(number: int, tiny_config: Config, tmp_path: Path, heard: None) -> None:
    config = override_config(tiny_config, LONG)
    stop_after(2, lambda: loop.train(config, tmp_path / "run"), tmp_path, step=2, number=number)
    assert load_checkpoint(tmp_path / "run" / "last.pt").step == 2


def test_a_bad_picture_of_one_rank_ends_all_with_one_message(tiny_config, tiny_data, tmp_path):
    (tiny_data / "JPEGImages" / "train_2.jpg").write_bytes(b"<html>")
    ranks = Ranks(2, lambda: loop.train(override_config(tiny_config, LONG), tmp_path / "run"), tmp_path)
    assert ranks.wait() == [3, 3]
    assert ranks.text().count("train_2.jpg: not a readable picture") == 1


def test_a_rank_that_sees_other_data_is_named(tiny_config, tmp_path):
    original = resuming.content_digests

    def digests(dataset) -> torch.Tensor:  # what another machine's files would give
        return original(dataset) + rank()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resuming, "content_digests", digests)
        ranks = Ranks(2, lambda: loop.train(override_config(tiny_config, LONG), tmp_path / "run"), tmp_path)
        assert ranks.wait() == [3, 3]
    assert ranks.text().count("rank 1: has other pictures or masks than rank 0") == 1


def test_a_killed_rank_is_exit_8(tiny_config, tmp_path):
    original = step.train_step

    def dying(state, *arguments, **options) -> None:
        if state.step == 2 and rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        original(state, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", dying)
        ranks = Ranks(3, lambda: loop.train(override_config(tiny_config, LONG), tmp_path / "run"), tmp_path)
        assert ranks.wait() == [8, -signal.SIGKILL, 8], ranks.text()
    assert "rank 0: another rank was lost" in ranks.text()


def test_more_ranks_than_pictures_in_a_batch_are_refused(tiny_config, tmp_path):
    ranks = Ranks(3, lambda: loop.train(tiny_config, tmp_path / "run"), tmp_path)
    assert ranks.wait() == [2, 2, 2]
    assert ranks.text().count("train.batch_size: 2 pictures for 3 parts") == 1
    assert not (tmp_path / "run").exists()


def test_sigterm_ends_a_rank_that_waits_for_one_that_hangs(tiny_config, tmp_path):
    """Its main thread is inside torch, where no signal handler of Python runs."""
    original = step.train_step

    def hanging(state, *arguments, **options) -> None:
        if state.step == 2 and rank() == 1:
            time.sleep(60)
        original(state, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", hanging)
        patch.setattr(processes, "PATIENCE", 0.5)
        ranks = Ranks(2, lambda: loop.train(override_config(tiny_config, LONG), tmp_path / "run"), tmp_path)
    deadline = time.monotonic() + 60
    while steps_logged(tmp_path / "run") < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(ranks.processes[0], signal.SIGTERM)
    started = time.monotonic()
    assert os.waitstatus_to_exitcode(os.waitpid(ranks.processes[0], 0)[1]) == 143
    assert time.monotonic() - started < 20
    os.kill(ranks.processes[1], signal.SIGKILL)
    os.waitpid(ranks.processes[1], 0)
    assert load_checkpoint(tmp_path / "run" / "last.pt").step == 2


def test_torchrun_as_the_help_says(tiny_config: Config, tiny_config_file, tmp_path):
    """torchrun itself, stopped by SIGTERM: both ranks stop at one step, with a checkpoint."""
    run = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--"]
    command = [*torchrun, str(ROOT / "scripts" / "train.py"), str(tiny_config_file), "--run", str(run), "train.epochs=2000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while steps_logged(run) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    output = process.communicate(timeout=60)[0]
    stopped = re.findall(r"stopped at step (\d+); --resume continues", output)
    assert len(stopped) == 1, output
    assert load_checkpoint(run / "last.pt").step == int(stopped[0])


def test_an_examination_is_the_same_for_any_number_of_ranks(tiny_run, tiny_data, tiny_classes, tmp_path):
    """Boundaries, calibration and every picture, to the bit, on every rank; one of four has no picture."""

    def look() -> None:
        with process_group(torch.device("cpu")):
            model, _, config, *_ = load_model(tiny_run, ["device=cpu"])
            found = evaluate_fully(model, SegmentationDataset(tiny_data, "val", tiny_classes), config.inference)
            (tmp_path / f"examined-{len(gather(0))}-{rank()}").write_text(repr(found))

    for count in (1, 2, 4):
        run_ranks(count, look, tmp_path)
    found = [path.read_text() for path in tmp_path.glob("examined-*")]
    assert len(found) == 7
    assert len(set(found)) == 1
    assert [part in found[0] for part in ("val_0", "val_1", "val_2")] == [True] * 3
