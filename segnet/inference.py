"""The one way from a picture to class probabilities: validation, evaluation and prediction all call it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnet.config import InferenceConfig
from segnet.models import EncoderDecoder


class Probabilities(NamedTuple):
    """The answer for B pictures, averaged over all passes (scales × flips × dropout samples)."""

    mean: Tensor  # (B, K, H, W) float32, sums to 1 over the classes
    variance: Tensor | None  # (B, H, W) float32 between dropout samples, mean over the classes; None without samples


@torch.inference_mode()
def predict_probabilities(model: nn.Module, image: Tensor, config: InferenceConfig) -> Probabilities:
    """(B, 3, H, W) RGB 0..255 -> class probabilities at the picture's own size.

    The picture is seen at each scale of `config`, mirrored too if asked, and all that `dropout_samples` times with
    dropout on (Monte-Carlo dropout: Kendall et al., BMVC 2017, section 4). Batch normalisation always keeps its
    statistics. The samples are seeded: the same picture has the same answer. Leaves the model in evaluation mode.
    """
    model.eval()
    if not config.dropout_samples:
        return Probabilities(_mean_over_views(model, image, config), None)
    total = total_of_squares = torch.zeros((), device=image.device)
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    try:
        for dropout in dropouts:
            dropout.train()
        with torch.random.fork_rng(devices=[image.device] if image.is_cuda else []):
            for sample in range(config.dropout_samples):
                torch.manual_seed(sample)
                probabilities = _mean_over_views(model, image, config)
                total = total + probabilities
                total_of_squares = total_of_squares + probabilities.square()
    finally:
        model.eval()
    mean = total / config.dropout_samples
    variance = total_of_squares / config.dropout_samples - mean.square()  # (B, K, H, W)
    return Probabilities(mean, variance.clamp(min=0).mean(dim=1))


def _mean_over_views(model: nn.Module, image: Tensor, config: InferenceConfig) -> Tensor:
    """(B, K, H, W): softmax of the logits, averaged over scales and flips."""
    size = image.shape[-2:]
    views = [(scale, flip) for scale in config.scales for flip in ((False, True) if config.flip else (False,))]
    total = torch.zeros((), device=image.device)
    for scale, flip in views:
        logits = _logits(model, image.flip(-1) if flip else image, scale, config.precision)
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=False) if logits.shape[-2:] != size else logits
        total = total + (logits.flip(-1) if flip else logits).softmax(dim=1)
    return total / len(views)


def _logits(model: nn.Module, image: Tensor, scale: float, precision: str) -> Tensor:
    """float32 logits of the picture resized by `scale`."""
    if scale != 1.0:
        size = [max(1, round(side * scale)) for side in image.shape[-2:]]
        image = F.interpolate(image.float(), size, mode="bilinear", align_corners=False, antialias=True)
    image = image.contiguous(memory_format=torch.channels_last)
    with torch.autocast(image.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        return model(image).float()


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
