"""The one way from a picture to class probabilities: validation, evaluation and prediction all call it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnet.config import InferenceConfig


@torch.inference_mode()
def predict_probabilities(model: nn.Module, image: Tensor, config: InferenceConfig) -> Tensor:
    """(B, 3, H, W) RGB 0..255 -> (B, K, H, W) float32 probabilities at the picture's own size.

    The picture is seen at each scale of `config`, mirrored too if asked; logits are resized to (H, W), and the softmax
    is averaged. The model is put into evaluation mode.
    """
    model.eval()
    size = image.shape[-2:]
    views = [(scale, flip) for scale in config.scales for flip in ((False, True) if config.flip else (False,))]
    total: Tensor | None = None
    for scale, flip in views:
        logits = _logits(model, image.flip(-1) if flip else image, scale, config.precision)
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=False) if logits.shape[-2:] != size else logits
        probabilities = (logits.flip(-1) if flip else logits).softmax(dim=1)  # (B, K, H, W)
        total = probabilities if total is None else total.add_(probabilities)
    assert total is not None
    return total.div_(len(views)) if len(views) > 1 else total


def _logits(model: nn.Module, image: Tensor, scale: float, precision: str) -> Tensor:
    """float32 logits of the picture resized by `scale`."""
    if scale != 1.0:
        size = [max(1, round(side * scale)) for side in image.shape[-2:]]
        image = F.interpolate(image.float(), size, mode="bilinear", align_corners=False, antialias=True)
    image = image.contiguous(memory_format=torch.channels_last)
    with torch.autocast(image.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        return model(image).float()
