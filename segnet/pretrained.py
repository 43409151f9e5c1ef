"""The weights that an encoder starts from, VGG16's or a run's: found by name, checked by shape, copied all or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import VGG16_BN_Weights, VGG16_Weights

from segnet.errors import ExitCode, UserError
from segnet.files import place_of, verify_digest

_DOWNLOADS = {"vgg16": VGG16_Weights.IMAGENET1K_V1, "vgg16_bn": VGG16_BN_Weights.IMAGENET1K_V1}


def load_encoder(encoder: nn.ModuleList, neck: nn.Sequential, source: str) -> None:
    """Copy weights into an encoder and a neck: those of a run's network, or torchvision's VGG16.

    Of VGG16 the convolutions, and batch normalisation where it has it; the convolutions that open the neck take its fully
    connected layers where the weights hold them (DeconvNet). `source`: "vgg16" or "vgg16_bn" (downloaded once, checksum
    verified, cached by torch), a file with such weights, a run folder (its best checkpoint) or a checkpoint.
    Raises UserError (checkpoint) that names the first parameter that is missing or does not fit; nothing is then copied.
    """
    weights = _read(source)
    if any(name.startswith("encoder.") for name in weights):
        targets = [*_own_names("encoder", encoder), *_own_names("neck", neck)]
    else:
        targets = [*_encoder_names(encoder, with_norm="features.1.weight" in weights)]  # in vgg16 that place holds a ReLU
        targets += _neck_names(neck) if "classifier.0.weight" in weights else []
    pairs = []
    for name, parameter in targets:
        values = weights.get(name)
        if values is None:
            raise _bad(source, f"no '{name}' in it, its first tensor is '{next(iter(weights), '')}'")
        flat = name.startswith("classifier.") and values.numel() == parameter.numel()
        if values.shape != parameter.shape and not flat:
            found, expected = tuple(values.shape), tuple(parameter.shape)
            raise _bad(source, f"'{name}' is {found}, the encoder's is {expected}")
        pairs.append((parameter, values))
    with torch.no_grad():
        for parameter, values in pairs:
            parameter.copy_(values.reshape(parameter.shape))


def _bad(source: str, found: str) -> UserError:
    remedy = "expected torchvision's vgg16 or vgg16_bn, a file with such weights, or a run with the same encoder"
    return UserError(ExitCode.CHECKPOINT, source, found, remedy)


def _read(source: str) -> dict[str, Tensor]:
    """The table of tensors that `source` names. Raises UserError (checkpoint), (environment) where it cannot be downloaded."""
    path = Path(source) / "best.pt" if os.path.isdir(source) else Path(source)
    try:
        if source in _DOWNLOADS:
            return _DOWNLOADS[source].get_state_dict(progress=True, check_hash=True)
        if not path.is_file():
            raise _bad(str(path), f"no such file{place_of(path)}")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except URLError as error:
        remedy = "download it elsewhere, and give model.encoder_weights=FILE"
        raise UserError(ExitCode.ENVIRONMENT, source, f"cannot be downloaded ({error.reason})", remedy) from None
    except OSError as error:
        if source not in _DOWNLOADS:
            raise _bad(source, f"cannot be read: {error.strerror or error}") from None
        found = f"cannot be kept ({error.filename}: {error.strerror})" if error.filename else f"cannot be kept ({error})"
        remedy = "set TORCH_HOME to a folder that can be written, or give model.encoder_weights=FILE"
        raise UserError(ExitCode.ENVIRONMENT, source, found, remedy) from None
    except Exception as error:  # unpickling and downloading fail in many ways
        reason = "it is no table of tensors that torch.save wrote"  # torch would advise to load it unsafely
        if source in _DOWNLOADS:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise _bad(source, f"cannot be read: {reason}") from None
    if not isinstance(content, dict):
        raise _bad(source, "not a table of tensors")
    if "format" in content:  # a checkpoint of this program, under whose digest every byte is
        verify_digest(path)
    inside = next((content[key] for key in ("weights", "state_dict", "model") if isinstance(content.get(key), dict)), content)
    if not all(isinstance(value, Tensor) for value in inside.values()):
        raise _bad(source, f"not a table of tensors but of {', '.join(map(repr, [*inside][:5]))}")
    return inside


def _own_names(part: str, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The names of a module's tensors in the networks of this program."""
    return ((f"{part}.{name}", tensor) for name, tensor in module.state_dict().items())


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
