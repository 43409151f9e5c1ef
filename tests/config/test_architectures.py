"""Networks by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import ROOT, model_config, refused

import segnet
from segnet.config import named
from segnet.config.architectures import load_architecture
from segnet.system.errors import ExitCode


def test_every_file_is_a_name() -> None:
    for path in (ROOT / "configs" / "model").glob("*.yaml"):
        assert load_architecture(path.stem) == model_config(path.stem)
    with refused(ExitCode.CONFIG, "segnet_basik: no such architecture", "did you mean 'segnet_basic'?"):
        load_architecture("segnet_basik")


def test_a_network_is_built_by_its_name() -> None:
    model = segnet.build_model("segnet_basic", num_classes=11)
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_416_587
    with pytest.raises(segnet.UserError, match="there are"):
        segnet.build_model("vit", num_classes=2)


def test_an_installation_without_the_files_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named, "MODELS", tmp_path / "gone")
    with refused(ExitCode.CONFIG, "not here"):
        load_architecture("b")
