"""The loop: schedules, groups, the moving average, what a run leaves, and what it refuses."""

import csv
import errno
import itertools
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers import assert_same_run, folder_bytes, needs_compiler, refused, same, write_split

from segnet.config.loading import config_to_yaml, load_config, override_config
from segnet.config.sections import Config, LossConfig, OptimConfig
from segnet.data import dataset
from segnet.data.dataset import Sample
from segnet.data.mask_files import save_mask
from segnet.data.statistics import class_statistics
from segnet.evaluation import scoring
from segnet.inference.loaded_model import load_model
from segnet.losses import CrossEntropy, enet_weights, median_frequency_weights
from segnet.models.initialization import build_model
from segnet.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from segnet.system import devices, files
from segnet.system.errors import ExitCode, UserError
from segnet.tasks.segmentation import Segmentation
from segnet.training import loop
from segnet.training.loop import train
from segnet.training.optimizer import build_ema, build_optimizer
from segnet.training.overfitting import overfit_one_batch
from segnet.training.schedule import due, learning_rate
from segnet.training.step import build_state, train_step


def rates(**optim) -> list[float]:
    return [learning_rate(step, 100, OptimConfig(lr=1.0, **optim)) for step in range(100)]


@pytest.mark.parametrize("schedule", ["polynomial", "cosine"])
def test_schedules_warm_up_peak_and_end_near_zero(schedule):
    found = rates(schedule=schedule, warmup=0.1)
    assert found[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert max(found) == 1.0
    assert all(a > b for a, b in itertools.pairwise(found[10:]))
    assert 0 < found[-1] < 0.03


def test_schedules_equal_their_formulas():
    assert rates(schedule="polynomial", power=0.9)[50] == pytest.approx(0.5**0.9)
    assert rates(schedule="cosine")[25] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert set(rates(schedule="constant")) == {1.0}


def test_one_cycle_equals_torchs(tiny_config):
    """torch.optim.lr_scheduler.OneCycleLR ends its rise one step earlier and its fall at a rate above zero."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=101, pct_start=0.31, cycle_momentum=False, final_div_factor=1e9
    )
    expected = []
    for _ in range(100):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cycle.step()
    assert rates(schedule="one_cycle", warmup=0.3) == pytest.approx(expected, abs=1e-2)


def test_parameter_groups_follow_the_configuration(tiny_config):
    model = build_model(tiny_config.model, 3)
    optimizer = build_optimizer(model, OptimConfig(encoder_lr_factor=0.1, weight_decay=0.3))
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(group_of) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        group = group_of[id(parameter)]
        assert group["lr_factor"] == (0.1 if name.startswith("encoder.") else 1.0)
        assert group["weight_decay"] == (0.3 if "conv.weight" in name or name == "head.weight" else 0.0)


def some_batch(seed: int = 0) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (2, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return Sample(image, torch.randint(0, 3, (2, 16, 16), generator=generator), "")


def test_a_step_equals_torchs_own_sgd(tiny_config):
    """Clipping, encoder factor and weight decay off: one step is p - lr * gradient."""
    config = override_config(tiny_config, ["optim.momentum=0", "optim.weight_decay=0"])
    state, batch = build_state(config, 3, torch.device("cpu")), some_batch()
    before = {name: p.detach().clone() for name, p in state.model.named_parameters()}
    gradients = torch.autograd.grad(CrossEntropy()(state.model(batch.image), batch.truth), list(state.model.parameters()))
    train_step(state, batch, CrossEntropy(), lr=0.5, config=config)
    for (name, parameter), gradient in zip(state.model.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter, before[name] - 0.5 * gradient, rtol=1e-4, atol=1e-6)


def test_gradients_are_shortened_to_the_given_norm(tiny_config):
    config = override_config(tiny_config, ["optim.clip_norm=0.01", "optim.momentum=0", "optim.weight_decay=0"])
    state = build_state(config, 3, torch.device("cpu"))
    before = torch.cat([p.detach().flatten() for p in state.model.parameters()])
    train_step(state, some_batch(), CrossEntropy(), lr=1.0, config=config)
    after = torch.cat([p.detach().flatten() for p in state.model.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_dropout_is_a_function_of_the_step(tiny_config):
    config = override_config(tiny_config, ["model.encoder=[{widths: [4]}, {widths: [8], dropout: 0.5}]"])

    def one_step(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        state = build_state(config, 3, torch.device("cpu"))
        torch.rand(seed)  # whatever was drawn before must not matter
        train_step(state, some_batch(), CrossEntropy(), lr=0.1, config=config)
        return state.model.head.weight.detach().clone()

    assert torch.equal(one_step(1), one_step(5))


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_that_is_not_finite_leaves_the_weights(tiny_config, where, optimizer):
    """A loss of inf, and a finite loss whose gradient is inf."""
    state = build_state(override_config(tiny_config, [f"optim.name={optimizer}"]), 3, torch.device("cpu"))
    train_step(state, some_batch(), CrossEntropy(), lr=0.1, config=tiny_config)
    before = [p.detach().clone() for p in state.model.parameters()]

    class Planted(CrossEntropy):
        def __call__(self, logits, mask, counts=None):
            loss = super().__call__(logits, mask, counts)
            if where == "loss":
                return loss * math.inf
            zero = (loss - loss.detach()).abs()
            return loss + zero.sqrt()  # 0, with an infinite slope there

    train_step(state, some_batch(), Planted(), lr=0.1, config=tiny_config)
    assert all(torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))
    assert int(state.first_bad) == 1
    train_step(state, some_batch(), Planted(), lr=0.1, config=tiny_config)
    assert int(state.first_bad) == 1, "the first one is what the message is about"


def test_float16_takes_an_overflow_in_its_stride(tiny_config):
    """Its scale is lowered, and the run goes on: only a loss that is not finite ends it."""
    config = override_config(tiny_config, ["train.precision=float16", "optim.clip_norm=1"])
    state = build_state(config, 3, torch.device("cpu"))
    state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = [p.detach().clone() for p in state.model.parameters()]
    train_step(state, some_batch(), CrossEntropy(), lr=0.1, config=config)
    assert all(torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))
    assert int(state.first_bad) == -1
    assert state.scaler.get_scale() == 2.0**39
    assert all((buffers["momentum_buffer"] == 0).all() for buffers in state.optimizer.state.values())
    for _ in range(30):
        train_step(state, some_batch(), CrossEntropy(), lr=0.1, config=config)
    assert not torch.equal(before[0], next(state.model.parameters()))


def test_float16_without_a_finite_gradient_at_any_scale_is_an_error(tiny_config):
    """Else every step would be skipped, and the run end well with the network that it began with."""
    config = override_config(tiny_config, ["train.precision=float16"])
    state = build_state(config, 3, torch.device("cpu"))

    class Planted(CrossEntropy):
        def __call__(self, logits, mask, counts=None):
            loss = super().__call__(logits, mask, counts)
            return loss + (loss - loss.detach()).abs().sqrt()  # 0, with an infinite slope there

    for _ in range(30):
        train_step(state, some_batch(), Planted(), lr=0.1, config=config)
    assert int(state.first_bad) == 17, "the scale begins at 2^16 and is halved by each"


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_parts_of_a_batch_have_the_gradient_of_the_whole(tiny_config, monkeypatch, parts):
    """In float64 and without batch normalisation, with ignored pixels and classes spread unevenly over the parts."""
    monkeypatch.setattr(torch.nn, "BatchNorm2d", lambda channels: torch.nn.Identity())
    image = torch.cat([some_batch(seed).image for seed in range(2)])
    mask = torch.cat([some_batch(seed).truth for seed in range(2)])
    mask[0, :9] = 255
    mask[3] = 255
    weights = []
    for accumulate in (1, parts):
        changes = ["train.batch_size=4", f"train.accumulate={accumulate}", "optim.clip_norm=0.5"]
        config = override_config(tiny_config, changes)
        torch.set_default_dtype(torch.float64)
        try:
            state = build_state(config, 3, torch.device("cpu"))
        finally:
            torch.set_default_dtype(torch.float32)
        criterion = CrossEntropy(weight=torch.tensor([0.3, 1.0, 2.0]))
        train_step(state, Sample(image, mask, ""), criterion, lr=0.5, config=config)
        weights.append(torch.cat([p.detach().flatten() for p in state.model.parameters()]))
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=1e-12)


def test_the_moving_average_follows_its_formula():
    model = torch.nn.Linear(1, 1, bias=False)
    ema = build_ema(model, 0.5)
    expected = None
    for step, value in enumerate([4.0, 8.0, 0.0, 2.0]):
        torch.nn.init.constant_(model.weight, value)
        ema.update_parameters(model)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert ema.module.weight.item() == pytest.approx(expected)


# ---- runs -----------------------------------------------------------------------------------------------------------


def read_metrics(run) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_what_the_contract_names(tiny_config, tmp_path, capsys):
    run = tmp_path / "runs" / "tiny"
    train(tiny_config, run)
    left = {p.name for p in run.iterdir() if not p.name.startswith(".")}
    assert left == {"config.yaml", "environment.json", "metrics.csv", "tensorboard", "last.pt", "previous.pt", "best.pt"}
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


def test_resuming_a_finished_run_changes_nothing(tiny_config, tmp_path, capsys):
    run = tmp_path / "run"
    train(tiny_config, run)
    before = folder_bytes(run)
    train(tiny_config, run, resume=True)
    assert folder_bytes(run) == before
    assert "complete" in capsys.readouterr().out


def test_more_epochs_than_a_finished_run_has_are_a_run_from_its_encoder(tiny_config, tmp_path, capsys):
    train(tiny_config, tmp_path / "run")
    way, more = f"model.encoder_weights={tmp_path / 'run'}", override_config(tiny_config, ["train.epochs=3"])
    with refused(ExitCode.CHECKPOINT, "another train.epochs (2.0, now 3.0)", f"start another --run from its encoder: {way}"):
        train(more, tmp_path / "run", resume=True)
    train(tiny_config, tmp_path / "run", resume=True)
    assert f"complete (6 steps); for more, start another --run from its encoder: {way}" in capsys.readouterr().out
    train(override_config(more, [way]), tmp_path / "more")
    assert load_checkpoint(tmp_path / "more" / "last.pt").step == 9


def test_resume_without_a_checkpoint_says_so_and_starts(tiny_config, tmp_path, capsys):
    train(tiny_config, tmp_path / "run", resume=True)
    assert "starting at step 0" in capsys.readouterr().out


def test_a_training_state_that_is_none_is_refused(tiny_config, tmp_path):
    """As a hostile or clumsy hand would write it, with a digest that fits."""
    run = tmp_path / "run"
    train(tiny_config, run)
    last = load_checkpoint(run / "last.pt")
    for name in ("last.pt", "previous.pt"):
        save_checkpoint(run / name, last._replace(training={**last.training, "optimizer": {}}))
    with refused(ExitCode.CHECKPOINT, "holds no usable training state"):
        train(tiny_config, run, resume=True)


def test_resume_with_another_configuration_names_the_key(tiny_config, tmp_path):
    train(tiny_config, tmp_path / "run")
    with refused(ExitCode.CHECKPOINT, "optim.lr", "same configuration"):
        train(override_config(tiny_config, ["optim.lr=0.5", "train.log_every_steps=3"]), tmp_path / "run", resume=True)


def test_resume_with_other_pictures_is_refused(tiny_config, tiny_data, tmp_path):
    train(tiny_config, tmp_path / "run")
    write_split(tiny_data, "train", ["train_1", "train_0", "train_2", "train_3", "train_4", "train_5"])
    with refused(ExitCode.CHECKPOINT, "another list of pictures", str(tiny_data)):
        train(tiny_config, tmp_path / "run", resume=True)


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


def test_resume_with_another_picture_of_the_same_name_and_size_names_it(tiny_config, tiny_data, tmp_path):
    train(tiny_config, tmp_path / "run")
    picture = tiny_data / "JPEGImages" / "train_3.jpg"
    content = bytearray(picture.read_bytes())
    content[-20] ^= 1
    picture.write_bytes(content)
    with refused(ExitCode.CHECKPOINT, "1 pictures or masks in", "train_3"):
        train(tiny_config, tmp_path / "run", resume=True)


def test_a_data_folder_may_move(tiny_config, tiny_data, tmp_path):
    train(tiny_config, tmp_path / "run")
    tiny_data.rename(tmp_path / "moved")
    train(override_config(tiny_config, [f"data.root={tmp_path / 'moved'}"]), tmp_path / "run", resume=True)
    colors = "data.colors=[[1, 1, 1], [2, 2, 2], [3, 3, 3]]"  # nothing is learnt from them
    train(override_config(tiny_config, [f"data.root={tmp_path / 'moved'}", colors]), tmp_path / "run", resume=True)


def test_a_damaged_best_checkpoint_is_replaced(tiny_config, tmp_path, monkeypatch, capsys):
    """It cannot be made again, so the best from here on takes its place."""
    config, run = override_config(tiny_config, ["train.eval_every_epochs=1", "train.save_every_epochs=1"]), tmp_path / "run"
    monkeypatch.setattr(loop, "learning_rate", stop_before_step(4))
    with pytest.raises(InterruptedError):
        train(config, run)
    monkeypatch.undo()
    (run / "best.pt").write_bytes(b"")
    train(config, run, resume=True)
    assert "best.pt: not a readable checkpoint" in capsys.readouterr().out
    assert load_checkpoint(run / "best.pt").step == 6


def stop_before_step(stop: int):
    """A stand-in for `learning_rate` at which the run breaks off, as a kill would."""

    def rate(step: int, total: int, optim: OptimConfig) -> float:
        if step == stop:
            raise InterruptedError
        return learning_rate(step, total, optim)

    return rate


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

    def signalled(*arguments):
        if len(interrupted) < 2:
            interrupted.append(1)
            signal.raise_signal(signal.SIGTERM)
        return predict(*arguments)

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


def test_one_batch_can_be_learnt_and_nothing_is_written(tiny_config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = folder_bytes(tmp_path)
    widths = "[{widths: [16]}, {widths: [16]}]"
    changes = [f"model.encoder={widths}", f"model.decoder={widths}", "optim.name=adamw", "optim.lr=0.01"]
    assert overfit_one_batch(override_config(tiny_config, changes), 150).miou > 0.9
    assert overfit_one_batch(tiny_config, 1).miou < 0.5
    assert folder_bytes(tmp_path) == before
    assert "step 150/150  loss" in capsys.readouterr().out


@pytest.mark.parametrize(("label", "found"), [(2, "show one class alone"), (255, "show no class alone")])
def test_a_batch_of_one_class_proves_nothing(label, found, tiny_config, tiny_data, tiny_classes):
    for index in range(5):
        save_mask(tiny_data / "SegmentationClass" / f"train_{index}.png", torch.full((32, 32), label), tiny_classes)
    outcomes = list[str]()
    for seed in range(9):  # one of them begins with the sixth picture
        try:
            overfit_one_batch(override_config(tiny_config, ["train.batch_size=1", f"seed={seed}"]), 1)
            outcomes.append("learnt")
        except UserError as error:
            outcomes.append(f"{error.code} {error.found}")
    assert "learnt" in outcomes
    assert any(outcome.startswith(f"{ExitCode.DATA} ") and found in outcome for outcome in outcomes)


def test_batches_without_a_scored_pixel_are_counted(tiny_config, tiny_data, tiny_classes, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dataset, "label_faults", lambda *_: [])  # which refuses a whole split of them
    for index in range(6):
        save_mask(tiny_data / "SegmentationClass" / f"train_{index}.png", torch.full((32, 32), 255), tiny_classes)
    train(override_config(tiny_config, ["train.log_every_steps=3"]), tmp_path / "run")
    assert capsys.readouterr().err.count("warning: 3 of the last 3 batches had no scored pixel") == 2
    assert {row["loss"] for row in read_metrics(tmp_path / "run")} == {"0.0", ""}


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
    monkeypatch.setattr("segnet.training.step._forward", fault)
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


@pytest.mark.parametrize("changes", [["data.val_split=train"], []])
def test_scoring_on_pictures_that_are_learnt_is_refused(changes, tiny_config, tiny_data, tmp_path):
    if not changes:
        write_split(tiny_data, "val", ["val_0", "train_0", "train_3"])
    with refused(ExitCode.DATA, "both 'train'" if changes else "val.txt: 2 pictures are in train as well: train_0, train_3"):
        train(override_config(tiny_config, changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_missing_data_is_said_before_the_run_folder_exists(tiny_config, tmp_path):
    with refused(ExitCode.DATA, "no such file"):
        train(override_config(tiny_config, ["data.root=/nowhere"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_val_split_without_a_scored_pixel_is_refused_and_would_still_end_with_a_network(
    tiny_config, tiny_data, tiny_classes, tmp_path, monkeypatch
):
    for name in ("val_0", "val_1", "val_2"):
        save_mask(tiny_data / "SegmentationClass" / f"{name}.png", torch.full((32, 32), 255), tiny_classes)
    with refused(ExitCode.DATA, "val.txt: its masks are 255 everywhere"):
        train(tiny_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(dataset, "label_faults", lambda *_: [])  # as when the masks change under the run
    train(tiny_config, tmp_path / "run")
    assert load_model(tmp_path / "run", ["device=cpu"]).config == tiny_config


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


def test_the_criterion_is_what_the_configuration_says(tiny_config, tiny_data):
    device = torch.device("cpu")
    dataset = Segmentation(tiny_config.data, LossConfig()).open_split("train")
    counted = class_statistics(dataset)
    plain = Segmentation(tiny_config.data, LossConfig(label_smoothing=0.1)).build_criterion(dataset, device)
    assert plain.weight is None
    assert plain.smoothing == 0.1
    for name, weight in (
        ("median_frequency", median_frequency_weights(counted.pixels, counted.pixels_of_pictures, power=0.5)),
        ("enet", enet_weights(counted.pixels, power=0.5)),
    ):
        loss = LossConfig.model_validate({"class_weights": name, "weight_power": 0.5})
        found = Segmentation(tiny_config.data, loss).build_criterion(dataset, device).weight
        assert found is not None
        assert torch.equal(found, weight)


def test_a_resumed_run_needs_no_pretrained_file(tiny_config, tmp_path):
    weights = {f"features.{place}.{kind}": torch.randn(shape) for place, kind, shape in VGG_OF_TINY}
    torch.save(weights, tmp_path / "vgg.pt")
    config = override_config(tiny_config, [f"model.encoder_weights={tmp_path / 'vgg.pt'}"])
    train(config, tmp_path / "run")
    (tmp_path / "vgg.pt").unlink()
    train(config, tmp_path / "run", resume=True)


VGG_OF_TINY = [(0, "weight", (4, 3, 3, 3)), (0, "bias", (4,)), (3, "weight", (8, 4, 3, 3)), (3, "bias", (8,))]


def test_an_optimizer_state_that_is_not_finite_is_not_saved(tiny_config, tmp_path):
    weights = build_model(tiny_config.model, 3).state_dict()
    training = {"optimizer": {"state": {0: {"momentum_buffer": torch.tensor([float("inf")])}}}}
    with refused(ExitCode.NUMERIC, "training.optimizer.state.0.momentum_buffer"):
        save_checkpoint(tmp_path / "last.pt", Checkpoint(tiny_config, 1, None, weights, training))
    assert not (tmp_path / "last.pt").exists()


def test_a_batch_that_leaves_batch_normalisation_one_value_is_refused(tiny_config):
    changes = ["augment.crop_size=[16, 16]", "train.batch_size=1", "model.encoder=[{widths: [1]}, {widths: [1]}]"]
    override_config(tiny_config, [*changes, "model.decoder=[{widths: [1]}, {widths: [1]}]"])
    with refused(ExitCode.CONFIG, "batch normalisation"):
        four = "[{widths: [1]}, {widths: [1]}, {widths: [1]}, {widths: [1]}]"
        override_config(tiny_config, [*changes[:2], f"model.encoder={four}", f"model.decoder={four}"])


@pytest.fixture
def bfloat16_instructions(monkeypatch):
    """Says whether the processor has them."""

    def pretend(there: bool) -> None:
        monkeypatch.setattr(devices, "_has_bfloat16_instructions", lambda: there)
        devices._fast_precision.cache_clear()

    yield pretend
    devices._fast_precision.cache_clear()


@pytest.mark.parametrize(("there", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_the_run_holds_the_precision_that_auto_chose(tiny_config, tmp_path, bfloat16_instructions, there, expected):
    bfloat16_instructions(there)
    config = override_config(tiny_config, ["train.precision=auto", "inference.precision=auto", "train.epochs=1"])
    train(config, tmp_path / "run")
    written = load_config(tmp_path / "run" / "config.yaml")
    assert (written.train.precision, written.inference.precision) == (expected, expected)
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["precision"] == {"train": expected, "inference": expected}
    train(override_config(tiny_config, [f"train.precision={expected}", "train.epochs=1"]), tmp_path / "explicit")
    auto, explicit = (load_checkpoint(tmp_path / name / "last.pt") for name in ("run", "explicit"))
    assert same(auto.weights, explicit.weights)
    bfloat16_instructions(not there)  # evaluation and prediction choose for the machine that they run on
    assert load_model(tmp_path / "run").config.inference.precision == "auto"


def test_a_resumed_run_keeps_its_precision_on_another_processor(tiny_config, tmp_path, bfloat16_instructions, capsys):
    config = override_config(tiny_config, ["train.precision=auto", "inference.precision=auto", "train.save_every_epochs=1"])
    bfloat16_instructions(True)
    train(config, tmp_path / "whole")
    first_half = override_config(config, ["train.max_minutes=1e-9"])
    train(first_half, tmp_path / "moved")
    capsys.readouterr()
    bfloat16_instructions(False)
    train(config, tmp_path / "moved", resume=True)
    said = capsys.readouterr()
    assert "in bfloat16" in said.out
    assert said.err.count("train.precision=bfloat16 is emulated") == 1
    assert_same_run(tmp_path / "whole", tmp_path / "moved")


def test_another_precision_than_that_of_the_run_is_refused(tiny_config, tmp_path):
    train(override_config(tiny_config, ["train.max_minutes=1e-9"]), tmp_path / "run")
    with refused(ExitCode.CHECKPOINT, "train.precision (float32, now bfloat16)"):
        train(override_config(tiny_config, ["train.precision=bfloat16"]), tmp_path / "run", resume=True)


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_median_frequency_weights_and_moving_average_train(tiny_config, tmp_path, precision):
    config: Config = override_config(
        tiny_config, ["loss.class_weights=median_frequency", "train.ema_decay=0.9", f"train.precision={precision}"]
    )
    train(config, tmp_path / "run")
    loaded = load_model(tmp_path / "run", ["device=cpu"])
    assert loaded.config == config


def test_nothing_is_done_twice_at_the_end():
    assert [step for step in range(1, 332) if due(step, 331, 165)] == [165, 331]
    assert [step for step in range(1, 11) if due(step, 10, 4)] == [4, 8, 10]
    assert [step for step in range(1, 4) if due(step, 3, 100)] == [3]


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
