"""A run as a whole: what it leaves, what stops it, and that it learns."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers import assert_same_run, folder_bytes, needs_compiler, read_metrics, refused

from segnet.config.loading import config_to_yaml, override_config
from segnet.config.sections import Config
from segnet.evaluation import scoring
from segnet.inference.loaded_model import load_model
from segnet.runs.checkpoint import load_checkpoint
from segnet.system import files
from segnet.system.errors import ExitCode
from segnet.training import loop
from segnet.training.loop import train


def test_a_run_leaves_what_the_contract_names(tiny_config, tmp_path, capsys):
    run = tmp_path / "runs" / "tiny"
    train(tiny_config, run)
    left = {p.name for p in run.iterdir() if not p.name.startswith(".")}
    assert left == {
        "config.yaml",
        "environment.json",
        "metrics.csv",
        "tensorboard",
        "last.pt",
        "previous.pt",
        "best.pt",
        "model_card.md",
    }
    assert [int(row["step"]) for row in read_metrics(run) if row["loss"]] == [1, 2, 3, 4, 5, 6]
    scored = [float(row["val_miou"]) for row in read_metrics(run) if row["val_miou"]]
    assert len(scored) == 2
    assert load_checkpoint(run / "best.pt").score == pytest.approx(max(scored))
    assert {"command", "commit", "device", "torch"} <= json.loads((run / "environment.json").read_text()).keys()
    assert "val mIoU" in capsys.readouterr().out


def test_it_learns(tiny_config, tmp_path):
    """A wider network tells three colours apart after 120 steps; an untrained one scores about 0.2."""
    widths = "[{widths: [16]}, {widths: [16]}]"
    changes = ["train.epochs=40", "train.eval_every_epochs=40", "train.log_every_steps=40", "optim.name=adamw", "optim.lr=0.02"]
    train(override_config(tiny_config, [f"model.encoder={widths}", f"model.decoder={widths}", *changes]), tmp_path / "run")
    assert load_checkpoint(tmp_path / "run" / "best.pt").score > 0.7


def test_an_existing_run_is_refused_and_untouched(tiny_config, tmp_path):
    run = tmp_path / "run"
    train(tiny_config, run)
    before = folder_bytes(run)
    with refused(ExitCode.CONFIG, "holds a run already", "--resume"):
        train(tiny_config, run)
    assert folder_bytes(run) == before


def test_a_loss_that_is_not_finite_stops_the_run_and_spares_the_checkpoint(tiny_config, tmp_path):
    run = tmp_path / "run"
    config = override_config(tiny_config, ["optim.lr=1e30", "train.save_every_epochs=0.1", "train.eval_every_epochs=100"])
    with refused(ExitCode.NUMERIC, "not finite"):
        train(config, run)
    if (run / "last.pt").exists():
        assert all(t.isfinite().all() for t in load_checkpoint(run / "last.pt").weights.values() if t.is_floating_point())


def test_a_non_finite_loss_names_step_and_pictures(tiny_config, tmp_path):
    with refused(ExitCode.NUMERIC, "step 2: the loss or its gradient is not finite (pictures train_", "optim.lr"):
        train(override_config(tiny_config, ["optim.lr=1e30", "train.log_every_steps=100"]), tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.pt"))


def test_a_time_limit_stops_with_a_checkpoint_and_the_rest_is_the_same(tiny_config, tmp_path, capsys):
    config = override_config(tiny_config, ["train.eval_every_epochs=1"])
    train(config, tmp_path / "whole")
    limited = override_config(config, ["train.max_minutes=1e-9"])
    for _ in range(7):  # one step at a time
        train(limited, tmp_path / "limited", resume=True)
        capsys.readouterr()
    train(config, tmp_path / "limited", resume=True)
    assert "complete" in capsys.readouterr().out
    assert_same_run(tmp_path / "whole", tmp_path / "limited")


def test_a_signal_during_an_evaluation_leaves_it_to_the_resumed_run(tiny_config, tmp_path, monkeypatch):
    """At the last step too, where nothing is left to train."""
    config = override_config(tiny_config, ["train.eval_every_epochs=1", "train.ema_decay=0.5"])
    train(config, tmp_path / "whole")
    predict, interrupted = scoring.predict, []

    def signalled(*arguments, **options):
        if len(interrupted) < 2:
            interrupted.append(1)
            signal.raise_signal(signal.SIGTERM)
        return predict(*arguments, **options)

    monkeypatch.setattr(scoring, "predict", signalled)
    steps = []
    for _ in range(2):
        with pytest.raises(SystemExit) as leaving:
            train(config, tmp_path / "stopped", resume=True)
        assert leaving.value.code == 143
        steps.append(load_checkpoint(tmp_path / "stopped" / "last.pt").training["scored_step"])
    assert steps == [0, 0], "each signal came in the evaluation of step 3"
    train(config, tmp_path / "stopped", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


ENDLESS_STEP = """
import os, signal, sys, time
from pathlib import Path
from segnet.config import load_config
from segnet.system import processes
from segnet.training import loop

step = loop.train_step

def endless(state, *arguments, **options):
    if state.step == 3:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)
    step(state, *arguments, **options)

loop.train_step = endless
processes.PATIENCE = 0.2
loop.train(load_config(Path(sys.argv[1])), Path(sys.argv[2]))
"""


def test_a_step_that_outlasts_the_patience_is_given_up(tiny_config, tmp_path):
    """In a process of its own, as it ends without unwinding; not in a fork, since a compiler may have begun threads here."""
    config = override_config(tiny_config, ["train.save_every_epochs=0.34", "data.workers=1"])
    train(config, tmp_path / "whole")
    path = tmp_path / "config.yaml"
    path.write_text(config_to_yaml(config))
    command = [sys.executable, "-c", ENDLESS_STEP, path, tmp_path / "stopped"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # other numbers of threads give other bits
    assert subprocess.run(command, env=environment, timeout=300, check=False).returncode == 143
    assert load_checkpoint(tmp_path / "stopped" / "last.pt").step == 3
    train(config, tmp_path / "stopped", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_a_full_disk_ends_the_run_and_spares_the_checkpoint(tiny_config, tmp_path, monkeypatch):
    run = tmp_path / "run"
    save, saved = loop.save_checkpoint, []

    def full(path, checkpoint, **options) -> None:
        saved.append(path.name)
        if saved.count("last.pt") == 2:
            monkeypatch.setattr(files, "sync_to_disk", refuse_space)
        save(path, checkpoint, **options)

    def refuse_space(file) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loop, "save_checkpoint", full)
    with refused(ExitCode.ENVIRONMENT, "last.pt: the disk is full: a checkpoint needs", "--resume"):
        train(override_config(tiny_config, ["train.save_every_epochs=0.34"]), run)
    assert load_checkpoint(run / "last.pt").step == 1
    assert list(run.glob(".*.tmp")) == []


def raise_out_of_memory(*_) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore.")


def do_what_is_not_deterministic(*_) -> None:
    torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))


@pytest.mark.parametrize(
    ("fault", "code", "parts"),
    [
        (
            raise_out_of_memory,
            ExitCode.ENVIRONMENT,
            ("memory: CUDA out of memory.", "train.recompute=activations", "train.batch_size"),
        ),
        (do_what_is_not_deterministic, ExitCode.CONFIG, ("train.deterministic: put_ does not have a deterministic",)),
    ],
)
def test_what_torch_cannot_do_comes_with_what_to_change(tiny_config, tmp_path, monkeypatch, fault, code, parts):
    monkeypatch.setattr("segnet.models.encoder_decoder.EncoderDecoder.forward", fault)
    try:
        with refused(code, *parts):
            train(override_config(tiny_config, ["train.deterministic=true"]), tmp_path / "run")
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("recompute", ["nothing", "activations", "stages"])
def test_deterministic_mode_gives_the_same_weights_on_a_gpu(tiny_config, tmp_path, recompute):
    """Twice in one piece, and once in two."""
    changes = ["device=cuda", "train.deterministic=true", f"train.recompute={recompute}"]
    changes += ["train.precision=bfloat16", "train.ema_decay=0.9", "train.save_every_epochs=1"]
    config = override_config(tiny_config, changes)
    try:
        for name in ("a", "b"):
            train(config, tmp_path / name)
        train(override_config(config, ["train.max_minutes=1e-9"]), tmp_path / "c")
        train(config, tmp_path / "c", resume=True)
    finally:
        torch.use_deterministic_algorithms(False)
    for name in ("b", "c"):
        assert_same_run(tmp_path / "a", tmp_path / name)


def test_deterministic_mode_trains_and_gives_the_same_weights(tiny_config, tmp_path):
    config = override_config(tiny_config, ["train.deterministic=true"])
    try:
        for name in ("a", "b"):
            train(config, tmp_path / name)
    finally:
        torch.use_deterministic_algorithms(False)
    a, b = (load_checkpoint(tmp_path / name / "last.pt").weights for name in ("a", "b"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_what_is_kept_is_the_moving_average(tiny_config, tmp_path):
    train(override_config(tiny_config, ["train.ema_decay=0.9"]), tmp_path / "run")
    last = load_checkpoint(tmp_path / "run" / "last.pt")
    assert not torch.equal(last.weights["head.weight"], last.training["ema"]["model"]["head.weight"])


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_median_frequency_weights_and_moving_average_train(tiny_config, tmp_path, precision):
    config: Config = override_config(
        tiny_config, ["loss.class_weights=median_frequency", "train.ema_decay=0.9", f"train.precision={precision}"]
    )
    train(config, tmp_path / "run")
    loaded = load_model(tmp_path / "run", ["device=cpu"])
    assert loaded.config == config


def test_a_data_worker_that_dies_during_a_step_is_said(tiny_config, tmp_path, monkeypatch):
    def killing(*_, **__) -> None:
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, signal.SIGKILL)
        time.sleep(60)  # which torch interrupts

    monkeypatch.setattr(loop, "train_step", killing)
    with refused(ExitCode.WORKER_LOST, "data.workers: a data worker was lost (DataLoader worker", "lower data.workers"):
        train(override_config(tiny_config, ["data.workers=1"]), tmp_path / "run")


@needs_compiler
def test_a_compiled_network_learns_the_same(tiny_config, tmp_path):
    growing = ["train.epochs=2", "augment.shrink=[0.5,1.0]"]
    for name, changes in (("eager", []), ("compiled", ["train.compile=true"])):
        train(override_config(tiny_config, [*growing, *changes]), tmp_path / name)
    eager, compiled = ([float(row["loss"]) for row in read_metrics(tmp_path / n) if row["loss"]] for n in ("eager", "compiled"))
    assert compiled == pytest.approx(eager, abs=1e-4)
    weights = [load_checkpoint(tmp_path / name / "last.pt").weights for name in ("eager", "compiled")]
    assert weights[0].keys() == weights[1].keys()
