"""Entry points for torch.hub: each network of configs/model/ by its name, and `checkpoint` for a trained one.

    network = torch.hub.load(REPOSITORY, "segnet", num_classes=11, source="local")
    trained = torch.hub.load(REPOSITORY, "checkpoint", "runs/mine", source="local")

A network takes images (B, C, H, W) of any size, with values in 0..255 (three channels are red, green and blue), and returns
logits (B, K, H, W).
"""

from collections.abc import Callable as _Callable
from itertools import takewhile as _takewhile

from torch import nn as _nn

from segnet import build_model as _build_model
from segnet import load_model as _load_model
from segnet.config.architectures import architecture_files as _architecture_files
from segnet.config.architectures import load_architecture as _load_architecture

dependencies = ["numpy", "PIL", "pydantic", "torch", "torchvision", "tqdm", "yaml"]


def checkpoint(path: str, *overrides: str) -> _nn.Module:
    """The trained network of a run folder (its best checkpoint), a checkpoint or an exported file, in evaluation mode on the CPU.

    `overrides` change its configuration: "model.decoder_operation=convolution". Raises segnet.UserError where there is no
    intact checkpoint. `segnet.Predictor(path)` also has its classes and makes masks.
    """
    return _load_model(path, overrides).model


def _entry_point(name: str, description: str) -> _Callable[..., _nn.Module]:
    """The function that builds the network with this name."""

    def build(num_classes: int, in_channels: int = 3, encoder_weights: str | None = None) -> _nn.Module:
        changes = {"encoder_weights": encoder_weights}
        return _build_model(_load_architecture(name).model_copy(update=changes), num_classes, in_channels)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"""{description}

    A new network in training mode, from `in_channels` channels to `num_classes`. `encoder_weights` are the initial weights of
    its encoder: "vgg16" or "vgg16_bn" (downloaded by torchvision), a file or a run folder; without them all weights are random.
    Raises segnet.UserError where they do not fit.
    """
    return build


for _name, _path in _architecture_files().items():
    _lines = _path.read_text(encoding="utf-8").splitlines()
    _comment = [_line.lstrip("# ") for _line in _takewhile(lambda _line: _line.startswith("#"), _lines)]
    globals()[_name] = _entry_point(_name, " ".join(_comment))
