"""The first hour with a GPU, tried on a CPU at tiny size: every part gives numbers, or says what it left out."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from helpers import RunScript, refused

from segnet.benchmarks import gpu
from segnet.benchmarks.gpu import PARTS, Plan, as_markdown, earlier_parts, pytest_outcome, run_parts, unfinished_parts
from segnet.config.loading import override_config
from segnet.config.sections import Config
from segnet.system.errors import ExitCode

PLAN = Plan(Path("nowhere"), steps=4, rounds=1, megapixels=0.01)


def measured(config: Config, *parts: str) -> dict[str, dict]:
    done: dict[str, dict] = {}
    assert run_parts(config, PLAN, parts, minutes=5, done=done, save=lambda _: None) == []
    return done


def test_the_command_measures_every_part(run_script: RunScript, tiny_config_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    arguments = ["gpu", tiny_config_file, "--json", path, "--rounds", 1, "--steps", 4, "--megapixels", 0.01]
    found = run_script("benchmark", *arguments)
    assert (found.returncode, "Traceback" in found.stderr) == (0, False), found.stderr
    document = json.loads(path.read_text())
    assert json.loads(found.stdout.splitlines()[-1]) == document
    parts = document["parts"]
    assert list(parts) == list(PARTS)
    for name in ("tests", "profile", "losses", "training", "large-picture"):
        assert any(words in parts[name]["summary"] for words in ("left out", "no device")), parts[name]
    assert parts["deterministic"]["equal"] == {"nothing": True, "activations": True, "stages": True}
    assert len(parts["losses"]["losses"]["cpu"]) == 4
    assert parts["profile"]["slowest"]
    page = path.with_suffix(".md").read_text()
    assert all(f"| {name} |" in page for name in PARTS)
    assert "| training | ours float32 |" in page


def test_what_is_left_or_failed_is_measured_again_and_nothing_begins_late(tiny_config: Config) -> None:
    done = {name: {"summary": ""} for name in PARTS if name not in ("profile", "losses")}
    done["tests"]["error"] = "it failed"
    left = unfinished_parts(done)
    assert left == ["tests", "profile", "losses"]
    assert run_parts(tiny_config, PLAN, left, minutes=0, done=done, save=lambda _: None) == left


def test_only_parts_of_the_same_conditions_are_kept(tmp_path: Path) -> None:
    path, conditions = tmp_path / "gpu.json", {"device": "GPU (X)", "overrides": ["seed=5"]}
    assert earlier_parts(path, conditions) == {}
    path.write_text(json.dumps({**conditions, "parts": {"tests": {}}}))
    assert earlier_parts(path, conditions) == {"tests": {}}
    with refused(ExitCode.CONFIG, "gpu.json", "was measured with another overrides"):
        earlier_parts(path, {**conditions, "overrides": []})
    for content in ("[]", "{}", "{", '{"parts": 3}'):
        path.write_text(content)
        with refused(ExitCode.CONFIG, "gpu.json", "is not a document of"):
            earlier_parts(path, conditions)


def test_a_part_that_fails_keeps_its_traceback_and_the_others_go_on(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> dict:
        raise RuntimeError("an illegal memory access\nwas encountered")

    parts = {"first": fail, "second": lambda *_: {"summary": "2"}}
    monkeypatch.setattr(gpu, "PARTS", parts)
    done = measured(tiny_config, "first", "second")
    assert done["first"]["summary"] == "failed: an illegal memory access"
    assert "RuntimeError" in done["first"]["error"]
    assert done["second"]["summary"] == "2"
    assert unfinished_parts(done) == ["first"]


def test_a_part_that_takes_too_long_is_given_up(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "PARTS", {"long": lambda *_: time.sleep(60), "next": lambda *_: {"summary": ""}})
    done: dict[str, dict] = {}
    assert run_parts(tiny_config, PLAN, ["long", "next"], minutes=0.005, done=done, save=lambda _: None) == ["next"]
    assert "the time is up" in done["long"]["summary"]


def test_a_step_with_other_bits_is_named(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = gpu.build_state, list[object]()

    def other_weights(config: Config, *arguments: object, **options: object) -> object:
        calls.append(config)
        return original(override_config(config, [f"seed={int(len(calls) == 4)}"]), *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(gpu, "build_state", other_weights)
    assert measured(tiny_config, "deterministic")["deterministic"]["summary"] == "other bits with activations"


def test_losses_are_those_of_each_step(tiny_config: Config) -> None:
    few, many = (gpu._losses(tiny_config, count) for count in (2, 3))
    assert len(many) == 3
    assert many[:2] == pytest.approx(few)
    assert min(many) > 0.1


def test_tests_marked_gpu_are_run_and_their_failures_named(tmp_path: Path) -> None:
    mark = "import pytest\n@pytest.mark.gpu\ndef test_{}(): assert {}\ndef test_unmarked(): assert 0\n"
    for name, outcome in (("good", 1), ("bad", 0)):
        (tmp_path / f"test_{name}.py").write_text(mark.format(name, outcome))
    (tmp_path / "test_unreadable.py").write_text("import no_such_package")
    found = pytest_outcome(tmp_path)
    assert found["exit_code"] == 1
    assert sorted(name.rpartition("/")[2] for name in found["failed"]) == ["test_bad.py::test_bad", "test_unreadable.py"]
    assert "1 failed, 1 passed" in found["summary"]


def test_the_page_shows_a_gpus_memory_and_no_bar_of_a_table() -> None:
    way = {"pictures_per_second": 2.0, "times_plain": {"low": 1, "median": 2, "high": 3}, "peak_bytes": 5e6}
    parts = {"training": {"taken_seconds": 1, "summary": "a|b", "ways": {"ours": way}}}
    page = as_markdown({"device": "GPU (X)", "config": "c.yaml", "versions": {"torch": "1"}, "parts": parts})
    assert "| training | 1 | a/b |" in page
    assert "| training | ours | 2.0 | 2.00 (1.00–3.00) | 5 |" in page
