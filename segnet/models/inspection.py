"""What a network consists of, and what its decoder stages compute."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from segnet.config.sections import ModelConfig
from segnet.layers.pooling import Size
from segnet.models.encoder_decoder import EncoderDecoder


class Part(NamedTuple):
    """A line of a network's summary."""

    name: str
    shape: tuple[int, ...]  # of its output: (C, h, w)
    parameters: int
    multiply_adds: int
    winner_bytes: int


def summarize(config: ModelConfig, num_classes: int, size: Size) -> list[Part]:
    """The network part by part for one picture of `size` (height, width), without computing or allocating anything.

    Multiply-adds are those of convolutions and deconvolutions, counted by torch's FLOP counter (two FLOPs each).
    """
    with torch.device("meta"):
        model, image = EncoderDecoder(config, num_classes), torch.zeros(1, 3, *size)
    shapes: dict[str, tuple[int, ...]] = {}
    stages = {f"encoder.{i}": f"encoder {i}" for i in range(len(config.encoder))} | {"neck": "neck"}
    stages |= {f"decoder.{i}": f"decoder {i}" for i in range(len(config.decoder))} | {"head": "head"}
    model.eval()
    for path in stages:
        model.get_submodule(path).register_forward_hook(
            lambda module, inputs, output, path=path: shapes.__setitem__(path, tuple(output.shape[1:]))
        )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    flops = {path: sum(counts.values()) for path, counts in counter.get_flop_counts().items()}
    parts = []
    for path, name in stages.items():
        modules = [path, path.replace("decoder", "upsampling")] if path.startswith("decoder") else [path]
        channels, height, width = shapes[path]
        parameters = sum(p.numel() for m in modules for p in model.get_submodule(m).parameters())
        multiply_adds = sum(flops.get(f"EncoderDecoder.{m}", 0) for m in modules) // 2
        winners = channels * -(-height // 2) * -(-width // 2) if path.startswith("encoder") else 0
        parts.append(Part(name, shapes[path], parameters, multiply_adds, winners))
    return [part for part in parts if part.name != "neck" or config.neck]


class StageActivations(NamedTuple):
    """What one decoder stage makes of a picture: two times (C, h, w) float32 on the CPU."""

    upsampled: Tensor  # values at the winners' places, zeros elsewhere
    deconvolved: Tensor  # filled in by the stage


@torch.inference_mode()
def decoder_activations(model: EncoderDecoder, image: Tensor) -> list[StageActivations]:
    """The activations of a (1, 3, H, W) picture through the decoder, lowest resolution first (as in DeconvNet's figure 4)."""
    model.eval()
    outputs: list[Tensor] = []
    modules = [module for pair in zip(model.upsampling, model.decoder, strict=True) for module in pair]
    hooks = [m.register_forward_hook(lambda module, inputs, output: outputs.append(output[0].float().cpu())) for m in modules]
    try:
        model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return [StageActivations(*pair) for pair in zip(outputs[::2], outputs[1::2], strict=True)]
