"""The parts of a network and their cost, and the activations of its decoder stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from segnet.config.sections import ModelConfig
from segnet.layers.pooling import Size, pooled_size
from segnet.models.encoder_decoder import IN_CHANNELS, EncoderDecoder


class Part(NamedTuple):
    """A row of a network's summary."""

    name: str
    shape: tuple[int, ...]  # of its output: (C, h, w)
    parameters: int
    multiply_adds: int
    winner_bytes: int


def summarize(config: ModelConfig, num_classes: int, size: Size, in_channels: int = IN_CHANNELS) -> list[Part]:
    """The parts of the network and their cost for one image of `size` (height, width); nothing is computed or allocated.

    Multiply-adds are those of convolutions and deconvolutions, counted by torch's FLOP counter (two FLOPs each).
    """
    with torch.device("meta"):
        model = EncoderDecoder(config, num_classes, in_channels).eval()
        image = torch.zeros(1, in_channels, *size)
    modules = {f"encoder {i}": [f"encoder.{i}"] for i in range(len(config.encoder))}
    if config.neck:
        modules["neck"] = ["neck"]
    modules |= {f"decoder {i}": [f"upsampling.{i}", f"decoder.{i}"] for i in range(len(config.decoder))}
    modules["head"] = ["head"]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        outputs = _outputs_of(model, image, [model.get_submodule(paths[-1]) for paths in modules.values()])
    flops = {path: sum(counts.values()) for path, counts in counter.get_flop_counts().items()}
    parts = []
    pooling = {f"encoder {i}": stage.pool for i, stage in enumerate(config.encoder)}
    for (name, paths), output in zip(modules.items(), outputs, strict=True):
        channels, height, width = output.shape[1:]
        rows, columns = pooled_size((height, width))
        parts.append(
            Part(
                name=name,
                shape=(channels, height, width),
                parameters=sum(p.numel() for path in paths for p in model.get_submodule(path).parameters()),
                multiply_adds=sum(flops.get(f"EncoderDecoder.{path}", 0) for path in paths) // 2,
                winner_bytes=channels * rows * columns if pooling.get(name) else 0,
            )
        )
    return parts


class StageActivations(NamedTuple):
    """The activations of one decoder stage for one image, each (C, h, w) float32 on the CPU."""

    upsampled: Tensor  # values at the winners' places, zeros elsewhere
    deconvolved: Tensor  # the output of the stage


@torch.inference_mode()
def decoder_activations(model: EncoderDecoder, image: Tensor) -> list[StageActivations]:
    """The activations of each decoder stage for a (1, C, H, W) image, lowest resolution first (as in DeconvNet's figure 4)."""
    modules = [module for pair in zip(model.upsampling, model.decoder, strict=True) for module in pair]
    outputs = [output[0].float().cpu() for output in _outputs_of(model.eval(), image, modules)]
    return [StageActivations(*pair) for pair in zip(outputs[::2], outputs[1::2], strict=True)]


def _outputs_of(model: nn.Module, image: Tensor, modules: Sequence[nn.Module]) -> list[Tensor]:
    """The outputs of `modules`, which `model` calls in this order."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
        outputs.append(output)

    hooks = [module.register_forward_hook(keep) for module in modules]
    try:
        model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs
