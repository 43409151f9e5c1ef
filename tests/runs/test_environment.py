"""environment.json says what a run began on, and each resumption."""

import json

import pytest
import torch

from segnet.runs import environment
from segnet.runs.environment import record_environment
from segnet.system import version

CPU = torch.device("cpu")
PRECISION = {"train": "float32", "inference": "bfloat16"}


def test_the_environment_keeps_its_beginning_and_each_resumption(tmp_path, monkeypatch, capsys):
    path = tmp_path / "environment.json"
    record_environment(path, CPU, precision=PRECISION, resumed_at=None)
    begun = json.loads(path.read_text())
    assert {"command", "commit", "device", "ranks", "python", "torch"} <= begun.keys()
    assert begun["precision"] == PRECISION
    path.write_text("\ufeff" + path.read_text())  # as some editors save it
    monkeypatch.setattr(torch, "__version__", "9.9")
    record_environment(path, CPU, precision=PRECISION, resumed_at=7)
    record = json.loads(path.read_text())
    assert {**record, "resumed": []} == begun
    assert [(entry["step"], entry["torch"]) for entry in record["resumed"]] == [(7, "9.9")]
    assert f"the run began with torch {begun['torch']}" in capsys.readouterr().out


def test_the_facts_of_a_gpu_are_recorded_and_another_cudnn_is_said(tmp_path, monkeypatch, capsys):
    path = tmp_path / "environment.json"
    monkeypatch.setattr(environment, "describe_device", lambda device: "GPU (T4)")
    for cudnn, resumed_at in ((91200, None), (91500, 7)):
        monkeypatch.setattr(environment, "gpu_facts", lambda device, cudnn=cudnn: {"capability": "7.5", "cudnn": cudnn})
        record_environment(path, torch.device("cuda"), precision=PRECISION, resumed_at=resumed_at)
    record = json.loads(path.read_text())
    assert (record["capability"], record["cudnn"], record["resumed"][0]["cudnn"]) == ("7.5", 91200, 91500)
    assert "the run began with cudnn 91200" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, "{", ""])
def test_a_lost_environment_begins_again(tmp_path, content):
    path = tmp_path / "environment.json"
    if content is not None:
        path.write_text(content)
    record_environment(path, CPU, precision=PRECISION, resumed_at=3)
    assert json.loads(path.read_text())["resumed"] == []


@pytest.mark.parametrize("content", ["[]", "7", '{"device": "x"}', '{"resumed": 3}', "\x00"])
def test_an_environment_that_people_edited_begins_again(tmp_path, content):
    path = tmp_path / "environment.json"
    path.write_text(content)
    record_environment(path, CPU, precision=PRECISION, resumed_at=3)
    assert json.loads(path.read_text())["resumed"] == []


@pytest.mark.parametrize(
    "git",
    [
        None,
        "",  # no program
        "#!/bin/sh\necho fatal: detected dubious ownership >&2\nexit 128\n",
        "#!/bin/sh\nprintf half\nexit 1\n",
        "#!/bin/sh\nexec /bin/sleep 60\n",
        "#!/bin/sh\nprintf '\\377'\n",
    ],
    ids=["missing", "not a program", "refusing", "failing", "hanging", "not UTF-8"],
)
def test_no_commit_stops_no_run(git, tmp_path, monkeypatch):
    programs = tmp_path / "programs"
    programs.mkdir()
    if git is not None:
        (programs / "git").write_text(git)
        (programs / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(version, "_SECONDS_FOR_GIT", 0.5 if git and "sleep" in git else 60, raising=False)
    record_environment(tmp_path / "environment.json", torch.device("cpu"), precision={}, resumed_at=None)
    commit = json.loads((tmp_path / "environment.json").read_text())["commit"]
    assert commit == ("\ufffd" if git and "377" in git else "unknown")
