"""The commands in help texts and messages are spelled as the process was started."""

from __future__ import annotations

import sys

import pytest

from segnet.system.invocation import as_started


@pytest.mark.parametrize(
    ("started", "expected"),
    [
        ("scripts/train.py", "python scripts/prepare_data.py check x, python scripts/train.py x and segnet is"),
        ("/usr/bin/segnet", "segnet check x, segnet train x and segnet is"),
        ("/lib/segnet/__main__.py", "segnet check x, segnet train x and segnet is"),
    ],
)
def test_a_command_is_spelled_as_the_process_was_started(started: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    assert as_started("segnet check x, segnet train x and segnet is") == expected


def test_a_script_that_prepares_names_itself_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["prepare_data.py"])
    assert as_started("segnet prepare sample") == "python scripts/prepare_data.py sample"


def test_a_module_that_torchrun_starts_keeps_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["scripts/train.py"])
    for command in ("torchrun -m segnet train x", "torchrun -m -- segnet train x"):
        assert as_started(command) == command
