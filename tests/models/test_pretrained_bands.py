"""The first layer of pretrained weights for other bands than R, G, B."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from segnet.config.loading import override_config
from segnet.config.sections import Config, ModelConfig
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.models.initialization import build_model
from segnet.models.pretrained import kernels_of_bands
from segnet.runs.checkpoint import Checkpoint, save_checkpoint
from segnet.training.step import build_state

SMALL = ModelConfig.model_validate_json('{"encoder": [{"widths": [5]}], "decoder": [{"widths": [5]}]}')
KERNELS = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def vgg(tmp_path: Path) -> ModelConfig:
    """`SMALL`, starting from a file with the names of torchvision's VGG16."""
    torch.save({"features.0.weight": KERNELS, "features.0.bias": torch.arange(5.0)}, tmp_path / "vgg.pt")
    return SMALL.model_copy(update={"encoder_weights": str(tmp_path / "vgg.pt")})


def first_kernels(model: EncoderDecoder) -> torch.Tensor:
    return model.state_dict()["encoder.0.0.conv.weight"]


@pytest.mark.parametrize(
    ("channels", "rgb", "words"),
    [
        (1, (), "its kernels for R, G, B are summed for the one band"),
        (2, (), "the mean of its kernels for R, G, B goes to all 2 bands, times 3/2"),
        (4, (3, 2, 1), "its kernels for R, G, B go to bands 3, 2, 1, their mean to the others, all times 3/4"),
        (3, (3, 2, 1), "its kernels for R, G, B go to bands 3, 2, 1"),
    ],
)
def test_a_picture_of_equal_bands_gives_what_it_gave_as_rgb(
    channels: int, rgb: tuple[int, ...], words: str, vgg: ModelConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    kernels = first_kernels(build_model(vgg, 2, channels, rgb=rgb))
    assert kernels.shape == (5, channels, 3, 3)
    grey = torch.rand(1, 1, 9, 9)
    expected = F.conv2d(grey.expand(-1, 3, -1, -1), KERNELS)
    torch.testing.assert_close(F.conv2d(grey.expand(-1, channels, -1, -1), kernels), expected, rtol=1e-4, atol=1e-5)
    assert words in capsys.readouterr().out


def test_named_bands_keep_their_kernels_and_others_get_the_mean(vgg: ModelConfig, capsys: pytest.CaptureFixture[str]) -> None:
    kernels = kernels_of_bands(KERNELS, 5, (4, 2, 1))
    for place, band in enumerate((4, 2, 1)):
        torch.testing.assert_close(kernels[:, band - 1], KERNELS[:, place] * 3 / 5)
    for band in (3, 5):
        torch.testing.assert_close(kernels[:, band - 1], KERNELS.mean(dim=1) * 3 / 5)
    assert torch.equal(first_kernels(build_model(vgg, 2)), KERNELS)  # RGB stays as it is, and nothing is said
    assert capsys.readouterr().out == ""


def test_a_run_of_ones_own_gives_its_first_layer_to_other_bands(tiny_config: Config, tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = build_model(SMALL, 2)
    save_checkpoint(tmp_path / "best.pt", Checkpoint(tiny_config, 1, None, dict(own.state_dict())))
    start = SMALL.model_copy(update={"encoder_weights": str(tmp_path / "best.pt")})
    assert torch.equal(first_kernels(build_model(start, 2, 3, rgb=(3, 2, 1))), first_kernels(own))  # its order is that of the run
    torch.testing.assert_close(first_kernels(build_model(start, 2, 1)), first_kernels(own).sum(dim=1, keepdim=True))


def test_a_run_names_its_bands(tiny_config: Config, vgg: ModelConfig, capsys: pytest.CaptureFixture[str]) -> None:
    config = override_config(tiny_config, ["data.channels=4", "data.rgb=[4, 2, 1]"]).model_copy(update={"model": vgg})
    kernels = first_kernels(build_state(config, 3, torch.device("cpu")).model)
    torch.testing.assert_close(kernels[:, 3], KERNELS[:, 0] * 3 / 4)
    assert "go to bands 4, 2, 1" in capsys.readouterr().out
