"""The first weights of an encoder, those of VGG16 or of an earlier run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import VGG16_BN_Weights, VGG16_Weights

from segnet.system.distributed import say
from segnet.system.errors import UserError, checkpoint_error, environment_error, first_line
from segnet.system.files import place_of, require_digest

_DOWNLOADS = {"vgg16": VGG16_Weights.IMAGENET1K_V1, "vgg16_bn": VGG16_BN_Weights.IMAGENET1K_V1}


def load_encoder(encoder: nn.ModuleList, neck: nn.Sequential, source: str, *, rgb: Sequence[int] = ()) -> None:
    """Copy the weights of a checkpoint's encoder and neck, or of torchvision's VGG16, into an encoder and a neck.

    `source` is "vgg16" or "vgg16_bn" (downloaded once, verified by checksum, cached by torch), a file with such weights, a run
    folder (its best checkpoint) or a checkpoint. VGG16 gives its convolutions, its batch normalisation (vgg16_bn), and its
    fully connected layers, if the file holds them, as the first convolutions of the neck (DeconvNet).
    Where the encoder has other than the weights' three channels, or `rgb` names those for VGG16's R, G, B, the kernels of its
    first layer are those of `kernels_of_bands`, and a line says so.
    Raises UserError (checkpoint) for the first parameter that is missing or has another shape, and for weights of layers with
    batch normalisation where these layers have none; then nothing was copied.
    """
    weights = _read_weights(source)
    if any(name.endswith("running_mean") for name in weights) and not any(True for _ in encoder.buffers()):
        raise _source_error(source, "its layers have batch normalisation, those of this network have none (model.batch_norm)")
    is_own = any(name.startswith("encoder.") for name in weights)
    if is_own:
        targets = [*_own_names("encoder", encoder), *_own_names("neck", neck)]
    else:
        targets = [*_encoder_names(encoder, with_norm="features.1.weight" in weights)]  # in vgg16 that place holds a ReLU
        targets += _neck_names(neck) if "classifier.0.weight" in weights else []
    pairs = []
    first = targets[0][0]
    for name, parameter in targets:
        values = weights.get(name)
        other_order = bool(rgb) and not is_own
        if name == first and values is not None and values.shape[1:2] == (3,) and (other_order or parameter.shape[1] != 3):
            values = kernels_of_bands(values, parameter.shape[1], rgb)
            say(f"{source}: {describe_bands(parameter.shape[1], rgb)}")
        if values is None:
            raise _source_error(source, f"no '{name}' in it, its first tensor is '{next(iter(weights), '')}'")
        flat = name.startswith("classifier.") and values.numel() == parameter.numel()
        if values.shape != parameter.shape and not flat:
            found, expected = tuple(values.shape), tuple(parameter.shape)
            raise _source_error(source, f"'{name}' is {found}, the encoder's is {expected}")
        pairs.append((parameter, values))
    with torch.no_grad():
        for parameter, values in pairs:
            parameter.copy_(values.reshape(parameter.shape))


def kernels_of_bands(kernels: Tensor, channels: int, rgb: Sequence[int] = ()) -> Tensor:
    """The first layer (K, channels, k, k) of a network for other bands, from `kernels` (K, 3, k, k) for R, G, B.

    One channel gets the sum over R, G, B: for a grey picture the layer then gives what it gave for the picture as RGB. Otherwise
    the channels whose numbers, from 1, are in `rgb` get the kernels of R, G, B, and the others the mean of the three; all are
    multiplied by 3 / channels, so that a picture with equal bands gives what it gave as RGB.
    """
    mean = kernels.mean(dim=1, keepdim=True)
    bands = mean.repeat(1, channels, 1, 1)
    for place, band in enumerate(rgb):
        bands[:, band - 1] = kernels[:, place]
    return bands * (3 / channels)


def describe_bands(channels: int, rgb: Sequence[int]) -> str:
    """What `kernels_of_bands` does, in words."""
    if channels == 1:
        return "its kernels for R, G, B are summed for the one band"
    if not rgb:
        return f"the mean of its kernels for R, G, B goes to all {channels} bands, times 3/{channels}"
    others = "" if channels == 3 else f", their mean to the others, all times 3/{channels}"
    return f"its kernels for R, G, B go to bands {', '.join(map(str, rgb))}{others}"


def _source_error(source: str, found: str) -> UserError:
    remedy = "expected torchvision's vgg16 or vgg16_bn, a file with such weights, or a run with the same encoder"
    return checkpoint_error(source, found, remedy)


def _read_weights(source: str) -> dict[str, Tensor]:
    """The tensors of a `source` by name.

    Raises UserError: (checkpoint) if it is missing, damaged or of another form, (environment) if it cannot be downloaded.
    """
    path = Path(source) / "best.pt" if os.path.isdir(source) else Path(source)
    try:
        if source in _DOWNLOADS:
            return _DOWNLOADS[source].get_state_dict(progress=True, check_hash=True)
        if not path.is_file():
            raise _source_error(str(path), f"no such file{place_of(path)}")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except URLError as error:
        remedy = "download it elsewhere, and give model.encoder_weights=FILE"
        raise environment_error(source, f"cannot be downloaded ({error.reason})", remedy) from None
    except OSError as error:
        if source not in _DOWNLOADS:
            raise _source_error(source, f"cannot be read: {error.strerror or error}") from None
        found = f"cannot be kept ({error.filename}: {error.strerror})" if error.filename else f"cannot be kept ({error})"
        remedy = "set TORCH_HOME to a folder that can be written, or give model.encoder_weights=FILE"
        raise environment_error(source, found, remedy) from None
    except Exception as error:  # unpickling and downloading fail in many ways
        reason = "it is no table of tensors that torch.save wrote"  # torch would advise to load it unsafely
        if source in _DOWNLOADS:
            reason = first_line(error)
        raise _source_error(source, f"cannot be read: {reason}") from None
    if not isinstance(content, dict):
        raise _source_error(source, "not a table of tensors")
    if "format" in content:  # a checkpoint of this program: its digest covers every byte
        require_digest(path)
    inside = next((content[key] for key in ("weights", "state_dict", "model") if isinstance(content.get(key), dict)), content)
    if not all(isinstance(value, Tensor) for value in inside.values()):
        raise _source_error(source, f"not a table of tensors but of {', '.join(map(repr, [*inside][:5]))}")
    return inside


def _own_names(part: str, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Each tensor of a part of the network, with its name in a checkpoint."""
    return ((f"{part}.{name}", tensor) for name, tensor in module.state_dict().items())


def _encoder_names(encoder: nn.ModuleList, *, with_norm: bool) -> Iterator[tuple[str, Tensor]]:
    """Each tensor of the encoder with its name in torchvision's VGG16.

    There a convolution, a batch normalisation (vgg16_bn), a ReLU and a pooling each count as one place.
    """
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
    """Each tensor of the neck's first two convolutions with its name in VGG16: fc6 and fc7 hold the same numbers in 2-D."""
    blocks = [block for block in neck if isinstance(block, nn.Sequential)]
    convolutions = [block.conv for block in blocks if isinstance(block.conv, nn.Conv2d)]
    for place, conv in zip((0, 3), convolutions, strict=False):
        for kind in ("weight", "bias"):
            yield f"classifier.{place}.{kind}", getattr(conv, kind)
