"""A plan from end to end: what it writes loads as it was measured, trains, and can be compared with the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_sets import run_in_process
from helpers import CLASSES, ROOT, refused

from segnet.config.architectures import read_architecture
from segnet.config.data_folder import load_data_folder
from segnet.config.loading import load_config, override_config
from segnet.config.named import architectures
from segnet.models.initialization import build_model
from segnet.planning import planner
from segnet.planning.machine import BatchCost, Measurements, RunCost, measure_batches, measure_run
from segnet.planning.planner import NETWORKS, Budget, build_config, make_plan, with_stages
from segnet.planning.review import review
from segnet.planning.writing import plan_table, plan_yaml
from segnet.system.errors import ExitCode
from segnet.training.loop import train


def costs(*paces: float) -> Measurements:
    """Measurements of networks that take so many seconds a picture, in turn, and 0.1 GB for each picture."""
    left = iter(paces)

    def batches(_: object) -> list[BatchCost]:
        pace = next(left)
        return [BatchCost(1, pace, 1.0), BatchCost(2, 2 * pace, 1.1)]

    return Measurements(batches, lambda _: RunCost(start=1.0, step=0.5, evaluation=2.0, save=0.1, memory=1.4))


@pytest.fixture
def data(tiny_data: Path) -> Path:
    (tiny_data / "classes.yaml").write_text(f"names: {json.dumps(CLASSES)}\n")
    return tiny_data


@pytest.fixture
def tiny_network(tmp_path: Path) -> Path:
    path = tmp_path / "tiny_network.yaml"
    path.write_text("model:\n  encoder: [{widths: [4]}, {widths: [8]}]\n  decoder: [{widths: [4]}, {widths: [4]}]\n")
    return path


def test_what_is_measured_here_loads_trains_and_is_reviewed(data, tiny_network, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    measure = Measurements(measure_batches, measure_run)
    plan = make_plan(data, Budget(hours=0.01), networks=[tiny_network], measure=measure)
    path = tmp_path / "planned.yaml"
    path.write_text(plan_yaml(plan, data))
    config = load_config(path)
    assert config == build_config(config.data, plan.choices)
    short = override_config(config, ["train.epochs=2", "train.eval_every_epochs=1", "data.workers=0"])
    monkeypatch.setattr("sys.argv", ["scripts/train.py", "planned.yaml"])
    train(short, tmp_path / "run")
    capsys.readouterr()
    assert run_in_process("plan", "--check", tmp_path / "run") == ""
    first, minutes, memory = capsys.readouterr().out.splitlines()
    assert first.split() == ["forecast", "took", "difference"]
    assert float(minutes.split()[1]) == pytest.approx(plan.length.minutes, abs=0.006)
    assert float(memory.split()[2]) > 0.1
    with refused(ExitCode.CONFIG, "no forecast in it", "scripts/plan.py"):
        review(tmp_path / "run", tmp_path / "run" / "config.yaml")
    (tmp_path / "planned.yaml").unlink()
    with refused(ExitCode.CONFIG, "names no file with a forecast", "before --check"):
        review(tmp_path / "run", None)
    with refused(ExitCode.CONFIG, "no metrics.csv in it"):
        review(tmp_path / "none", None)


def test_the_command_prints_the_file_on_stdout_and_the_table_beside_it(data, monkeypatch, capsys) -> None:
    asked = []
    plan = make_plan(data, Budget(1, 99), measure=costs(0.31, 0.3))
    monkeypatch.setattr(planner, "make_plan", lambda root, budget: asked.append((root, budget)) or plan)
    said = run_in_process("plan", data, "--hours", "0.5", "--memory", "3")
    assert asked == [(data, Budget(0.5, 3.0))]
    assert capsys.readouterr().out == plan_yaml(plan, data)
    assert said == plan_table(plan) + "\n"


@pytest.mark.parametrize(
    ("paces", "network"),
    [((0.29,), "segnet"), ((0.31, 0.02), "segnet_small"), ((0.5, 0.4), "segnet_small")],  # 12,000 pictures in 3,600 s
)
def test_the_largest_network_that_sees_enough_is_chosen(data, paces, network) -> None:
    plan = make_plan(data, Budget(hours=1, memory=99), measure=costs(*paces))
    model = build_config(load_data_folder(data), plan.choices).model
    assert model.encoder == read_architecture(ROOT / "configs" / "model" / f"{network}.yaml").encoder[: len(model.encoder)]


def test_weights_make_the_network_segnet_and_are_tried(data, tmp_path) -> None:
    with refused(ExitCode.CHECKPOINT, "no such file"):
        make_plan(data, Budget(1, 99, str(tmp_path / "none.pt")), measure=costs(9.0))


@pytest.mark.parametrize(
    ("budget", "code", "found"),
    [
        (Budget(1, 0.9), ExitCode.ENVIRONMENT, "1.00 GB for a single picture, 0.90 GB are free"),
        (Budget(0.001, 99), ExitCode.CONFIG, "--hours: 0.001: one evaluation takes 0.0 minutes, and a step 0.5 seconds"),
    ],
)
def test_what_does_not_fit_is_said(data, budget, code, found) -> None:
    with refused(code, found):
        make_plan(data, budget, measure=costs(0.31, 0.3))


@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: path.stem)
def test_networks_with_fewer_stages_can_be_built(path) -> None:
    model = read_architecture(path)
    for stages in range(3, len(model.encoder)):
        assert build_model(with_stages(model, stages), 2).total_stride == 2**stages


def test_the_networks_come_with_the_program() -> None:
    """An installation has no configs/ beside the package."""
    assert set(NETWORKS) <= set(architectures().values())
