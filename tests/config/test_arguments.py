"""Overrides are told from paths."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import refused

from segnet.config.arguments import split_overrides
from segnet.system.errors import ExitCode

Usage = ExitCode.CONFIG


def test_overrides_are_told_from_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fps=10").mkdir()
    (tmp_path / "seed=3").mkdir()
    (tmp_path / "seed=3" / "a.jpg").touch()
    paths = ["fps=10", "fps=10/*.jpg", "fps=11/*.jpg", "./seed=3/*.jpg", "runs/lr=0.1", "a.jpg", "", "=", "x.seed=3", "Seed"]
    overrides = ["seed=4", "inference.flip=horizontal", "train.epoch=3", "data={root: a=b}", "device="]
    assert split_overrides([*paths, *overrides]) == (paths, overrides)
    for text in ("seed=3", "seed=3/*.jpg", "seed=3/**/a.jpg"):
        with refused(Usage, f"{text}: sets a key, and is the name of files", f"./{text}"):
            split_overrides([text])
    with refused(
        Usage, "inferense.flip=true: no such file, and no key begins with 'inferense'", "did you mean inference.flip=…?"
    ):
        split_overrides(["inferense.flip=true"])
