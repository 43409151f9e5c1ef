"""The table of results: every row is made by commands, goes on where it stopped, and says what it cost."""

import json
import os
from pathlib import Path

import pytest
from helpers import refused

from segnet.benchmarks.recipes import Row, collect, spread, table
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


def test_recipes_are_trained_scored_and_not_done_twice(run_script, tiny_config_file, tmp_path):
    arguments = (tiny_config_file, "--out", tmp_path / "out", "--set", "train.epochs=1", "--tta")
    stopped = run_script("results", *arguments, "--minutes", "0")
    assert (stopped.returncode, "1 of 1 runs wait" in stopped.stdout) == (0, True), stopped.stderr
    done = run_script("results", *arguments)
    assert done.returncode == 0, done.stderr
    commands = [line for line in done.stdout.splitlines() if line.startswith("$")]
    assert [line.split()[2] for line in commands] == ["scripts/train.py", "scripts/evaluate.py", "scripts/evaluate.py"]
    assert "inference.flip=true" in commands[2]
    assert "complete" in done.stdout
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(row["split"], row["tta"], row["seeds"]) for row in found] == [("val", False, [0]), ("val", True, [0])]
    assert (tmp_path / "out" / "results.md").read_text() in done.stdout
    again = run_script("results", *arguments)
    assert "$" not in again.stdout
    best = tmp_path / "out" / "tiny" / "seed0" / "best.pt"
    os.utime(best)  # a better network has come
    assert run_script("results", *arguments[:-1]).stdout.count("$ python scripts/evaluate.py") == 1


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
