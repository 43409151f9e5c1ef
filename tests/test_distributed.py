"""Several ranks learn and score what one process does: real processes, joined by gloo on this machine."""

import csv
import faulthandler
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from helpers import ROOT, assert_same_run, refused, steps_logged
from torch import nn
from torch.distributed import TCPStore

from segnet import stopping, training
from segnet.checkpoint import load_checkpoint, load_model
from segnet.config import Config, override_config
from segnet.datasets import ResumableSampler, SampleKey, SegmentationDataset, build_loader
from segnet.devices import choose_device
from segnet.distributed import gather, is_main, local_rank, process_group, rank, share, world_size
from segnet.errors import ExitCode, UserError
from segnet.evaluation import evaluate, examine
from segnet.models import build_model

LONG = ["train.epochs=4", "train.batch_size=4", "train.eval_every=2", "train.save_every=1"]
HUNG = 120  # seconds, after which a rank says where it stands and ends


class Ranks:
    """Processes of which each runs `body` as one of `count` ranks, forked from this one."""

    def __init__(self, count: int, body: Callable[[], object], folder: Path) -> None:
        self.outputs = [folder / f"rank{number}.txt" for number in range(count)]
        told, tell = os.pipe()
        self.processes = [self._start(number, count, told, body) for number in range(count)]
        self.store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)  # as torchrun has: no race for a port
        os.write(tell, f"{self.store.port:5}".encode() * count)  # only now, since the store's thread may hold a lock in a fork
        os.close(told)
        os.close(tell)

    def _start(self, number: int, count: int, told: int, body: Callable[[], object]) -> int:
        process = os.fork()
        if process:
            return process
        status = 1
        try:
            faulthandler.dump_traceback_later(HUNG, exit=True, file=self.outputs[number].open("w"))
            port = os.read(told, 5).decode().strip()
            os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(count)}
            os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": "True"}
            torch.set_num_threads(1)  # after a fork torch mends its thread pool once, which two threads must not do at a time
            sys.stdout = sys.stderr = self.outputs[number].open("a", buffering=1)
            try:
                body()
                status = 0
            except UserError as error:
                print(f"error: {error}")
                status = error.code
            except SystemExit as leaving:
                status = int(leaving.code or 0)
            except BaseException:
                import traceback

                traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)

    def wait(self) -> list[int]:
        """The exit status of each; negative for a signal."""
        return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in self.processes]

    def text(self) -> str:
        return "\n".join(path.read_text() for path in self.outputs)


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
        monkeypatch.setattr("segnet.datasets.share", lambda batch, number=number: batch[number::ranks])
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


@pytest.mark.parametrize("changes", [["loss.hardest=0.4"], ["loss.class_weights=median_frequency"]])
def test_the_loss_curve_is_the_same_for_any_split_of_the_batch(tiny_config, tmp_path, no_batch_norm, changes):
    """Ranks × parts of a step: 1, 2, 4 ranks, parts, both, and 3 ranks that get 2, 1 and 1 pictures."""
    for ranks, parts in ((1, 1), (2, 1), (4, 1), (3, 1), (1, 2), (1, 4), (2, 2)):
        config = override_config(tiny_config, [*LONG, *changes, f"train.accumulate={parts}"])
        run_ranks(ranks, lambda config=config, name=f"{ranks}x{parts}": training.train(config, tmp_path / name), tmp_path)
        assert losses(tmp_path / f"{ranks}x{parts}") == pytest.approx(losses(tmp_path / "1x1"), rel=1e-9), (ranks, parts)


def test_without_the_global_count_the_split_would_matter(tiny_config, tmp_path, no_batch_norm, monkeypatch):
    """The negative control: each rank divides by its own count."""
    config = override_config(tiny_config, [*LONG, "loss.class_weights=median_frequency"])
    run_ranks(1, lambda: training.train(config, tmp_path / "one"), tmp_path)
    step = training.train_step

    def planted(*arguments, **options) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "sum_over_ranks", lambda counts: counts * 2)  # as if all ranks had this one's counts
            step(*arguments, **options)

    monkeypatch.setattr(training, "train_step", planted)
    run_ranks(2, lambda: training.train(config, tmp_path / "two"), tmp_path)
    assert losses(tmp_path / "two") != pytest.approx(losses(tmp_path / "one"), rel=1e-9)


def test_a_run_resumes_on_another_number_of_ranks(tiny_config, tmp_path, no_batch_norm):
    config = override_config(tiny_config, LONG)
    run_ranks(1, lambda: training.train(config, tmp_path / "whole"), tmp_path)
    stop_after(2, lambda: training.train(config, tmp_path / "moved"), tmp_path, step=3)
    assert 0 < load_checkpoint(tmp_path / "moved" / "last.pt").step < 6
    run_ranks(4, lambda: training.train(config, tmp_path / "moved", resume=True), tmp_path)
    assert losses(tmp_path / "moved") == pytest.approx(losses(tmp_path / "whole"), rel=1e-9)


def stop_after(count: int, body: Callable[[], object], folder: Path, *, step: int, number: int = signal.SIGTERM) -> None:
    """Send a signal to the last rank after `step`, and expect all to stop in order."""
    original = training.train_step

    def stopping(state, *arguments, **options) -> None:
        original(state, *arguments, **options)
        if state.step == step and rank() == count - 1:
            os.kill(os.getpid(), number)

    training.train_step = stopping
    try:
        ranks = Ranks(count, body, folder)
        assert ranks.wait() == [128 + number] * count, ranks.text()
    finally:
        training.train_step = original


def test_two_ranks_that_were_stopped_end_with_the_same_bits(tiny_config, tmp_path):
    """With batch normalisation and a moving average, and a signal that only one of the ranks receives."""
    config = override_config(tiny_config, [*LONG, "train.ema_decay=0.9"])
    run_ranks(2, lambda: training.train(config, tmp_path / "whole"), tmp_path)
    stop_after(2, lambda: training.train(config, tmp_path / "stopped"), tmp_path, step=2)
    assert load_checkpoint(tmp_path / "stopped" / "last.pt").step == 2
    run_ranks(2, lambda: training.train(config, tmp_path / "stopped", resume=True), tmp_path)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU])
def test_a_warning_to_one_rank_saves_and_ends_both(number: int, tiny_config: Config, tmp_path: Path) -> None:
    config = override_config(tiny_config, LONG)
    stop_after(2, lambda: training.train(config, tmp_path / "run"), tmp_path, step=2, number=number)
    assert load_checkpoint(tmp_path / "run" / "last.pt").step == 2


def test_a_bad_picture_of_one_rank_ends_all_with_one_message(tiny_config, tiny_data, tmp_path):
    (tiny_data / "JPEGImages" / "train_2.jpg").write_bytes(b"<html>")
    ranks = Ranks(2, lambda: training.train(override_config(tiny_config, LONG), tmp_path / "run"), tmp_path)
    assert ranks.wait() == [3, 3]
    assert ranks.text().count("train_2.jpg: not a readable picture") == 1


def test_a_rank_that_sees_other_data_is_named(tiny_config, tmp_path):
    original = training.content_digests

    def digests(dataset) -> torch.Tensor:  # what another machine's files would give
        return original(dataset) + rank()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "content_digests", digests)
        ranks = Ranks(2, lambda: training.train(override_config(tiny_config, LONG), tmp_path / "run"), tmp_path)
        assert ranks.wait() == [3, 3]
    assert ranks.text().count("rank 1: has other pictures or masks than rank 0") == 1


def test_a_killed_rank_is_exit_8(tiny_config, tmp_path):
    original = training.train_step

    def dying(state, *arguments, **options) -> None:
        if state.step == 2 and rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        original(state, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train_step", dying)
        ranks = Ranks(3, lambda: training.train(override_config(tiny_config, LONG), tmp_path / "run"), tmp_path)
        assert ranks.wait() == [8, -signal.SIGKILL, 8], ranks.text()
    assert "rank 0: another rank was lost" in ranks.text()


def test_more_ranks_than_pictures_in_a_batch_are_refused(tiny_config, tmp_path):
    ranks = Ranks(3, lambda: training.train(tiny_config, tmp_path / "run"), tmp_path)
    assert ranks.wait() == [2, 2, 2]
    assert ranks.text().count("train.batch_size: 2 pictures for 3 parts") == 1
    assert not (tmp_path / "run").exists()


LAUNCHED = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.fixture
def launched(monkeypatch):
    """Sets all that torchrun sets, with changes; None: not set."""

    def launch(**changes: str | None) -> None:
        for name, value in {**LAUNCHED, **changes}.items():
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, value)

    return launch


def test_a_gpu_that_a_rank_does_not_have_is_named(launched, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    launched(WORLD_SIZE="3", LOCAL_RANK="1")
    assert choose_device("auto") == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="local rank 2: 2 GPUs here"):
        choose_device("cuda")


NONE = dict.fromkeys(LAUNCHED)


@pytest.mark.parametrize(
    "left",
    [
        {"WORLD_SIZE": "1"},
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"WORLD_SIZE": "1", "RANK": "3", "LOCAL_RANK": "x"},
        {"WORLD_SIZE": ""},
        {"RANK": "5", "LOCAL_RANK": "2", "MASTER_ADDR": "gone"},
        {"MASTER_PORT": "none"},
    ],
)
def test_what_clusters_leave_in_the_environment_makes_no_ranks(launched, left):
    launched(**{**NONE, **left})
    assert (rank(), local_rank(), is_main()) == (0, 0, True)
    with process_group(torch.device("cpu")):
        assert world_size() == 1


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"RANK": None}, "WORLD_SIZE=2: RANK not set"),
        ({"MASTER_ADDR": "", "MASTER_PORT": None}, "WORLD_SIZE=2: MASTER_ADDR, MASTER_PORT not set"),
        ({"RANK": "2"}, "RANK=2: expected 0 to 1 where WORLD_SIZE=2"),
        ({"RANK": "-1"}, "RANK=-1: expected 0 to 1"),
        ({"LOCAL_RANK": "first"}, "LOCAL_RANK=first: expected 0 to 1"),
        ({"MASTER_PORT": "99999"}, "MASTER_PORT=99999: expected 0 to 65535"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two: not a number of ranks"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0: not a number of ranks"),
        ({"WORLD_SIZE": "-4"}, "WORLD_SIZE=-4: not a number of ranks"),
    ],
)
def test_an_incomplete_launch_is_named_with_its_cure(launched, changes, named):
    launched(**changes)
    with refused(ExitCode.CONFIG, named, "torchrun", "unset WORLD_SIZE"), process_group(torch.device("cpu")):
        pass


def test_ranks_that_cannot_meet_are_named_with_the_place(launched):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        launched(RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(taken.getsockname()[1]))
        with refused(ExitCode.ENVIRONMENT, "cannot meet the other ranks at 127.0.0.1:"), process_group(torch.device("cpu")):
            pass


def test_a_machine_that_nobody_knows_is_named(launched):
    launched(MASTER_ADDR="nowhere.invalid")
    with refused(ExitCode.ENVIRONMENT, "cannot meet the other ranks at nowhere.invalid:"), process_group(torch.device("cpu")):
        pass


def test_alone_a_share_is_everything(monkeypatch):
    monkeypatch.setenv("RANK", "1")  # of something else than torchrun
    assert share([3, 1, 2]) == [3, 1, 2]
    assert rank() == 0


def test_lean_memory_knows_the_batch_normalisation_of_several_gpus(tiny_config):
    model = build_model(tiny_config.model, 3)
    model.memory = "lean"
    alone = len(model._runner()._kept)
    assert len(nn.SyncBatchNorm.convert_sync_batchnorm(model)._runner()._kept) == alone == 4


def test_sigterm_ends_a_rank_that_waits_for_one_that_hangs(tiny_config, tmp_path):
    """Its main thread is inside torch, where no signal handler of Python runs."""
    original = training.train_step

    def hanging(state, *arguments, **options) -> None:
        if state.step == 2 and rank() == 1:
            time.sleep(60)
        original(state, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train_step", hanging)
        patch.setattr(stopping, "PATIENCE", 0.5)
        ranks = Ranks(2, lambda: training.train(override_config(tiny_config, LONG), tmp_path / "run"), tmp_path)
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
            model = load_model(tiny_run, ["device=cpu"]).model
            found = examine(model, build_loader(SegmentationDataset(tiny_data, "val", tiny_classes), workers=0))
            (tmp_path / f"examined-{len(gather(0))}-{rank()}").write_text(repr(found))

    for count in (1, 2, 4):
        run_ranks(count, look, tmp_path)
    found = [path.read_text() for path in tmp_path.glob("examined-*")]
    assert len(found) == 7
    assert len(set(found)) == 1
    assert [part in found[0] for part in ("val_0", "val_1", "val_2")] == [True] * 3
