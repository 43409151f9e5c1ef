"""Networks of every form, and the files that they are exported to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers import CLASSES, tiny_config_for

from segnet.config.sections import Config, ModelConfig
from segnet.export import export_model
from segnet.inference.exported import Metadata
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.models.initialization import build_model

SUFFIX = {"onnxruntime": ".onnx", "openvino": ".xml"}
FORMATS = list(SUFFIX)
SIZES = [(1, 1), (2, 3), (7, 50), (16, 24), (33, 47)]


def noise(batch: int, size: tuple[int, int]) -> torch.Tensor:
    return torch.randint(0, 256, (batch, 3, *size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def trained(config: ModelConfig) -> EncoderDecoder:
    """A network whose batch normalisation has seen something, so that folding it does something."""
    torch.manual_seed(0)
    model = build_model(config, len(CLASSES)).train()
    with torch.no_grad():
        for _ in range(3):
            model(noise(2, (64, 64)).float())
    return model.eval()


def network(**parts: object) -> ModelConfig:
    """Two stages of 4 and 8 channels, whose decoder keeps its channels: the case that inductor's freezing gets wrong."""
    plain = {"encoder": [{"widths": [4]}, {"widths": [8]}], "decoder": [{"widths": [8, 4]}, {"widths": [4]}]}
    return ModelConfig.model_validate_json(json.dumps({**plain, **parts}))


NECK = [{"width": 6, "kernel_size": 3}, {"operation": "deconvolution", "width": 8, "kernel_size": 3}]
NETWORKS = {
    "deconvolution": network(),
    "convolution": network(decoder_operation="convolution", decoder_relu=False, normalization={"local_response": True}),
    "neck": network(neck=NECK),
    "bilinear": network(upsampling="bilinear"),
    "strided": network(upsampling="deconvolution"),
    "skips": network(skips="add", batch_norm=False, encoder=[{"widths": [4]}, {"widths": [8], "pool": False}]),
}
WITH_DROPOUT = network(encoder=[{"widths": [4]}, {"widths": [8], "dropout": 0.5}])


def config_of(name: str) -> Config:
    """The configuration of one of NETWORKS, or of "dropout"."""
    return tiny_config_for(Path("data")).model_copy(update={"model": {**NETWORKS, "dropout": WITH_DROPOUT}[name]})


class Exporter:
    """Exports each network once for each package that runs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[tuple[str, str], tuple[EncoderDecoder, Path]] = {}

    def __call__(self, package: str, name: str = "deconvolution") -> tuple[EncoderDecoder, Path]:
        """The network and its file. Skips the test where the package is not installed."""
        pytest.importorskip(package)
        if (package, name) not in self.made:
            config, path = config_of(name), self.folder / f"{name}{SUFFIX[package]}"
            model = trained(config.model)
            export_model(model, Metadata(config, 7, 0.5), path)
            self.made[package, name] = model, path
        return self.made[package, name]
