"""Networks through torch.hub, from this folder."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers import CLASSES, ROOT, refused

import segnet
from segnet.config.sections import Config
from segnet.models.initialization import build_model
from segnet.runs.checkpoint import Checkpoint, save_checkpoint
from segnet.system.errors import ExitCode

load = partial(torch.hub.load, str(ROOT), source="local")


@pytest.fixture(scope="module")
def hubconf() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hubconf", ROOT / "hubconf.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_architecture_is_an_entry_point_and_says_what_it_is(hubconf: ModuleType) -> None:
    """An entry point is what torch.hub.list prints: a name without an underscore that can be called."""
    entry_points = {name for name in dir(hubconf) if callable(getattr(hubconf, name)) and not name.startswith("_")}
    assert entry_points == {path.stem for path in (ROOT / "configs" / "model").glob("*.yaml")} | {"checkpoint"}
    assert hubconf.segnet.__doc__.startswith("SegNet: VGG16's thirteen convolutions and their mirror (Badrinarayanan")
    assert hubconf.red10.__doc__ != hubconf.segnet.__doc__
    assert hubconf.segnet.__name__ == "segnet"


def test_a_network_is_built_by_its_name() -> None:
    network = load("segnet_basic", num_classes=11)
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_416_587
    small = load("segnet_small", 2, in_channels=1).eval()
    assert small(torch.zeros(1, 1, 21, 17, dtype=torch.uint8)).shape == (1, 2, 21, 17)
    with pytest.raises(segnet.UserError, match="missing_weights"):
        load("segnet_small", 2, encoder_weights="missing_weights.pt")


def test_a_trained_network_is_loaded_from_its_checkpoint(tiny_config: Config, tmp_path: Path) -> None:
    trained = build_model(tiny_config.model, len(CLASSES)).eval()
    save_checkpoint(tmp_path / "best.pt", Checkpoint(tiny_config, 1, None, trained.state_dict()))
    image = torch.randint(0, 256, (1, 3, 17, 19), dtype=torch.uint8)
    for path in (tmp_path, tmp_path / "best.pt"):
        assert torch.equal(load("checkpoint", str(path))(image), trained(image))
    changed = load("checkpoint", str(tmp_path), "model.decoder_operation=convolution")
    torch.testing.assert_close(changed(image), trained(image))
    with refused(ExitCode.CHECKPOINT, "gone"):
        load("checkpoint", str(tmp_path / "gone"))
