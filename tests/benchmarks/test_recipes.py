"""The table of results: every row is made by commands, goes on where it stopped, and says what it cost."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import CLASSES, RunScript, refused

from segnet.benchmarks import recipes
from segnet.benchmarks.recipes import Row, Trial, collect, require_folds, run_folder, spread, table
from segnet.classes import class_set
from segnet.commands import results as command_of_results
from segnet.evaluation.results import read_confusion
from segnet.preparation.splitting import split_dataset
from segnet.preparation.written_lists import SplitOptions
from segnet.system.errors import ExitCode


def test_a_spread_is_a_mean_and_the_deviation_of_a_sample():
    assert spread([50.0], 2) == "50.00"
    assert spread([1.0, 3.0], 1) == "2.0 ± 1.4"


def finished_run(run: Path, miou: float, minutes: float, split: str = "val") -> None:
    """A run folder with the files that `collect` reads."""
    (run / "evaluation" / split).mkdir(parents=True)
    scores = {"miou": miou, "global_accuracy": 0.9, "mean_accuracy": 0.8}
    (run / "evaluation" / split / "metrics.json").write_text(json.dumps(scores))
    (run / "metrics.csv").write_text(f"step,epoch,val_miou,minutes\n1,1.0,0.25,1.5\n2,2.0,,2.0\n3,3.0,{miou},{minutes}\n")
    (run / "environment.json").write_text(json.dumps({"device": "CPU", "torch": "2.15", "commit": "abc", "ranks": 1}))


def test_a_row_has_the_mean_over_the_seeds_that_are_done(tmp_path):
    finished_run(tmp_path / "tiny" / "seed0", 0.5, 10.0)
    finished_run(tmp_path / "tiny" / "seed2", 0.6, 12.0)
    found = collect(tmp_path, Row(Path("configs/tiny.yaml"), "val", False), [0, 1, 2])
    assert (found["seeds"], found["miou"], found["minutes"]) == ([0, 2], [0.5, 0.6], [10.0, 12.0])
    assert found["curves"][0] == [[1.5, 0.25], [10.0, 0.5]]
    assert table([found]).splitlines()[2] == (
        "| `configs/tiny.yaml` | val | 55.00 ± 7.07 | 90.00 ± 0.00 | 80.00 ± 0.00 | 2 | 11.0 ± 1.4 | CPU, 2.15, abc |"
    )
    assert collect(tmp_path, Row(Path("configs/tiny.yaml"), "test", False), [0, 2]) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"miou": 0.5}', "{", "\x00"])
@pytest.mark.parametrize("name", ["evaluation/val/metrics.json", "environment.json"])
def test_files_that_people_edited_are_named_or_unknown(tmp_path, name, content):
    run = tmp_path / "tiny" / "seed0"
    finished_run(run, 0.5, 10.0)
    (run / name).write_text(content)
    row = Row(Path("configs/tiny.yaml"), "val", False)
    if name == "environment.json" and content[-1:] == "}":
        assert set(collect(tmp_path, row, [0])["environment"].values()) == {"unknown"}
    else:
        with refused(ExitCode.DATA, str(run / name), "not a JSON object"):
            collect(tmp_path, row, [0])


@pytest.fixture
def results(run_script: RunScript, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """results(…): what results.py prints with these arguments. It runs in this process, and what it starts runs in forks."""

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        assert command[1:3] == ["-m", "segnet"]
        done = run_script(command[3], *command[4:])
        assert done.returncode == 0, done.stderr
        return done

    def main(*arguments: object) -> str:
        command_of_results.main([str(argument) for argument in arguments])
        return capsys.readouterr().out

    monkeypatch.setattr(recipes, "subprocess", SimpleNamespace(run=run))
    return main


def test_recipes_are_trained_scored_and_not_done_twice(results, tiny_config_file, tmp_path):
    arguments = (tiny_config_file, "--out", tmp_path / "out", "--set", "train.epochs=1", "--tta")
    assert "1 of 1 runs wait" in results(*arguments, "--minutes", "0")
    done = results(*arguments)
    commands = [line for line in done.splitlines() if line.startswith("$")]
    assert [line.split()[2] for line in commands] == ["scripts/train.py", "scripts/evaluate.py", "scripts/evaluate.py"]
    assert "inference.flip=horizontal" in commands[2]
    assert "complete" in done
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(row["split"], row["tta"], row["seeds"]) for row in found] == [("val", False, [0]), ("val", True, [0])]
    assert (tmp_path / "out" / "results.md").read_text() in done
    assert "$" not in results(*arguments)
    best = tmp_path / "out" / "tiny" / "seed0" / "best.pt"
    os.utime(best)  # a better network has come
    assert results(*arguments[:-1]).count("$ python scripts/evaluate.py") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{tmp}/tiny.yaml", "{tmp}/none.yaml"], 2, "none.yaml: no such file"),
        (["{tmp}/tiny.yaml", "--set", "data.root={tmp}/nowhere"], 3, "scripts/train.py: ended with exit code 3"),
    ],
)
def test_a_command_that_fails_ends_it_with_its_code(run_script, tiny_config_file, tmp_path, arguments, code, message):
    texts = [text.format(tmp=tmp_path) for text in arguments]
    found = run_script("results", *texts, "--out", tmp_path / "out")
    assert (found.returncode, message in found.stderr) == (code, True), found.stderr


def test_folds_are_trained_scored_and_pooled(results, tiny_config_file: Path, tiny_data: Path, tmp_path: Path):
    arguments = (tiny_config_file, "--out", tmp_path / "out", "--set", "train.epochs=1", "--folds", "2")
    split_dataset(tiny_data, class_set(CLASSES), SplitOptions(0.0, 0.25, 2, None, 0))
    done = results(*arguments)
    commands = [line for line in done.splitlines() if line.startswith("$")]
    assert "data.train_split=train_1 data.val_split=val_1" in commands[2]
    assert [line.split("--split ")[1].split()[0] for line in commands if "evaluate" in line] == ["val_0", "val_1"]
    (on_val,) = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (on_val["folds"], on_val["seeds"], len(on_val["miou"])) == ([0, 1], [0, 0], 2)
    matrices = [
        read_confusion(tmp_path / "out" / "tiny" / f"seed0-fold{fold}" / "evaluation" / f"val_{fold}" / "confusion.csv")
        for fold in range(2)
    ]
    total = matrices[0] + matrices[1]
    assert on_val["pooled"]["confusion"] == [total.tolist()]
    ious = total.diagonal() / (total.sum(0) + total.sum(1) - total.diagonal())
    assert on_val["pooled"]["miou"] == pytest.approx([float(ious.mean())])
    lines = done[done.index("| recipe") :].splitlines()
    assert [line.split(" | ")[:2] for line in lines[2:4]] == [
        [f"| `{tiny_config_file}`", "val of 2 folds"],
        ["| the same, one matrix of all folds", "val of 2 folds"],
    ]


def test_lists_of_more_folds_would_leave_pictures_out(tiny_data: Path):
    with refused(ExitCode.DATA, f"train_0.txt: no such file – write the lists: python scripts/prepare_data.py split {tiny_data}"):
        require_folds(tiny_data, 3)
    split_dataset(tiny_data, class_set(CLASSES), SplitOptions(0.0, 0.0, 3, None, 0))
    require_folds(tiny_data, 3)
    with refused(ExitCode.DATA, "val_2.txt: is of a division into more than 2 folds"):
        require_folds(tiny_data, 2)


def test_a_seed_without_all_of_its_folds_is_not_pooled(tmp_path: Path):
    for fold in range(2):
        run = run_folder(tmp_path, Path("tiny.yaml"), Trial(0, fold))
        finished_run(run, 0.5, 10.0, f"val_{fold}")
        (run / "evaluation" / f"val_{fold}" / "confusion.csv").write_text("t,a,b\na,3,1\nb,0,4\n")
    row = Row(Path("tiny.yaml"), "val", False)
    assert collect(tmp_path, row, [0], 3)["pooled"]["miou"] == []
    finished_run(run, 0.5, 10.0, "test")
    assert collect(tmp_path, row._replace(split="test"), [0], 2)["pooled"]["miou"] == []  # several networks, the same pictures
    pooled = collect(tmp_path, row, [0], 2)["pooled"]
    assert (pooled["seeds"], pooled["confusion"]) == ([0], [[[6, 2], [0, 8]]])
    assert pooled["miou"] == [pytest.approx((6 / 8 + 8 / 10) / 2)]
    for content in ("", "t,a\n", "t,a,b\na,1,x\nb,1,1\n", "t,a,b\na,1,2\n"):
        (run / "evaluation" / "val_1" / "confusion.csv").write_text(content)
        with refused(ExitCode.DATA, "confusion.csv: not a confusion matrix"):
            collect(tmp_path, row, [0], 2)
