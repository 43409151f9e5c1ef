"""What the shell is offered behind `segnet`: commands, configurations by name, YAML files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from segnet.__main__ import COMMANDS, answer_shell
from segnet.commands import parsers


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[argparse.ArgumentParser]:
    """The parsers of which argcomplete would print the completions; it ends the process."""
    seen: list[argparse.ArgumentParser] = []

    def autocomplete(parser: argparse.ArgumentParser) -> None:
        seen.append(parser)
        raise SystemExit(0)

    module = ModuleType("argcomplete")
    module.__dict__.update(autocomplete=autocomplete, __spec__=argparse.__spec__)
    monkeypatch.setitem(sys.modules, "argcomplete", module)
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    return seen


def offered(action: argparse.Action) -> Callable[..., list[str]]:
    completer: Callable[..., list[str]] = action.completer  # type: ignore[attr-defined]
    return completer


@pytest.mark.parametrize("line", ["segnet ", "segnet tr"])
def test_the_first_word_is_a_command(line: str, asked: list[argparse.ArgumentParser]) -> None:
    with pytest.raises(SystemExit):
        answer_shell(line)
    assert asked[0]._actions[-1].choices == list(COMMANDS)


@pytest.mark.parametrize("line", ["segnet train ", "segnet train sam", "segnet check sam"])
def test_a_configuration_is_completed_by_name_and_by_file(
    line: str, asked: list[argparse.ArgumentParser], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit):
        answer_shell(line)
    source = next(action for action in asked[0]._actions if action.dest in ("config", "source"))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.yaml").touch()
    (tmp_path / "own" / "a.txt").touch()
    monkeypatch.chdir(tmp_path)
    assert {"sample", "camvid_segnet", "segnet_small", "own/"} <= set(offered(source)("sam"))
    assert "own/a.yaml" in (found := offered(source)("own/"))
    assert "own/a.txt" not in found


def test_without_argcomplete_nothing_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsers.importlib.util, "find_spec", lambda name: None)
    parsers.complete(argparse.ArgumentParser())
