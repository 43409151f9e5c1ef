"""VGG16's weights as the start of an encoder: found by name, checked by shape, copied all or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import VGG16_BN_Weights, VGG16_Weights

from segnet.errors import ExitCode, UserError

_DOWNLOADS = {"vgg16": VGG16_Weights.IMAGENET1K_V1, "vgg16_bn": VGG16_BN_Weights.IMAGENET1K_V1}


def load_vgg16(encoder: nn.ModuleList, neck: nn.Sequential, source: str) -> None:
    """Copy torchvision's VGG16 into an encoder: its convolutions, and batch normalisation where VGG has it.

    The convolutions that open the neck take VGG's fully connected layers where the weights hold them (DeconvNet). `source`:
    "vgg16" or "vgg16_bn" (downloaded once, checksum verified, cached by torch) or a file with such weights.
    Raises UserError (checkpoint) that names the first parameter that is missing or does not fit; nothing is then copied.
    """
    weights = _read(source)
    targets = [*_encoder_names(encoder, with_norm="features.1.weight" in weights)]  # in vgg16 that place holds a ReLU
    if "classifier.0.weight" in weights:
        targets += _neck_names(neck)
    pairs = []
    for name, parameter in targets:
        values = weights.get(name)
        if values is None:
            raise UserError(ExitCode.CHECKPOINT, source, f"no '{name}' in it", "expected torchvision's vgg16 or vgg16_bn")
        flat = name.startswith("classifier.") and values.numel() == parameter.numel()
        if values.shape != parameter.shape and not flat:
            found, expected = tuple(values.shape), tuple(parameter.shape)
            raise UserError(ExitCode.CHECKPOINT, source, f"'{name}' is {found}, the encoder's is {expected}", "use VGG16")
        pairs.append((parameter, values))
    with torch.no_grad():
        for parameter, values in pairs:
            parameter.copy_(values.reshape(parameter.shape))


def _read(source: str) -> dict[str, Tensor]:
    try:
        if source in _DOWNLOADS:
            return _DOWNLOADS[source].get_state_dict(progress=True, check_hash=True)
        if not Path(source).is_file():
            raise UserError(ExitCode.CHECKPOINT, source, "no such file", "write vgg16, vgg16_bn or the path of a weights file")
        weights = torch.load(source, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except URLError as error:
        remedy = "download it elsewhere, and give model.encoder_weights=FILE"
        raise UserError(ExitCode.ENVIRONMENT, source, f"cannot be downloaded ({error.reason})", remedy) from None
    except Exception as error:  # unpickling and downloading fail in many ways
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(ExitCode.CHECKPOINT, source, f"cannot be read ({reason})", "expected a VGG16 state dict") from None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(ExitCode.CHECKPOINT, source, "not a table of tensors", "expected a VGG16 state dict")
    return weights


def _encoder_names(encoder: nn.ModuleList, *, with_norm: bool) -> Iterator[tuple[str, Tensor]]:
    """torchvision's name of each encoder tensor: conv, (norm,) ReLU take a place each, and so does every pooling."""
    place = 0
    for stage in encoder:
        assert isinstance(stage, nn.Sequential)
        for block in stage:
            for kind in ("weight", "bias"):
                yield f"features.{place}.{kind}", getattr(block.conv, kind)
            if with_norm:
                for kind in ("weight", "bias", "running_mean", "running_var"):
                    yield f"features.{place + 1}.{kind}", getattr(block.norm, kind)
            place += 3 if with_norm else 2
        place += 1


def _neck_names(neck: nn.Sequential) -> Iterator[tuple[str, Tensor]]:
    """torchvision's name of the neck's convolutions: VGG's fc6 and fc7 are the same numbers in another shape."""
    convolutions = [block.conv for block in neck if isinstance(block.conv, nn.Conv2d)]
    for place, conv in zip((0, 3), convolutions, strict=False):
        for kind in ("weight", "bias"):
            yield f"classifier.{place}.{kind}", getattr(conv, kind)
