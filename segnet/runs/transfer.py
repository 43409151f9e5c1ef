"""The first weights of a network from an earlier run, which may have other classes, bands or another decoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from segnet.config.sections import ModelConfig
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.models.folding import Weights, convert_decoder_weights
from segnet.models.initialization import mirror_encoder
from segnet.models.pretrained import describe_bands, kernels_of_bands
from segnet.runs.checkpoint import Checkpoint, find_checkpoint, load_checkpoint
from segnet.system.digests import sha256_of
from segnet.system.errors import UserError, checkpoint_error

_FIRST = "encoder.0.0"  # the first layer of every network


class Transfer(NamedTuple):
    """The layers of a network, a convolution with its batch normalisation each, by the origin of their first weights."""

    path: Path  # of the checkpoint that they were taken from
    step: int  # of its training
    sha256: str  # of the whole file
    taken: dict[str, str]  # by layer of this network; a remark where only a part of it was taken
    new: dict[str, str]  # by layer of this network: why
    left: dict[str, str]  # by layer of the checkpoint: why it was not used

    def table(self) -> str:
        """Lines for people: what was taken, counted by part of the network, then each layer that is new or was left."""
        lines = [f"weights of {self.path} (step {self.step}):"]
        lines += [f"  taken  {text}" for text in _counted(self.taken)]
        lines += [f"  new    {layer}: {why}" for layer, why in self.new.items()]
        lines += [f"  left   {layer}: {why}" for layer, why in self.left.items()]
        return "\n".join(lines)

    def record(self) -> dict[str, object]:
        """The same as JSON values, for environment.json."""
        return {**self._asdict(), "path": str(self.path)}


def take_weights(model: EncoderDecoder, config: ModelConfig, classes: Sequence[str], rgb: Sequence[int] = ()) -> Transfer | None:
    """Copy into `model`, in place, the layers of `config.weights` that fit it; None where that is null.

    A layer, a convolution with its batch normalisation, is taken whole or not at all. Decoder stages are matched by the
    encoder stage that they mirror. Of the head, the rows of those `classes` are taken that have the same name in both; without
    classes it is a layer as others. A first layer for R, G, B becomes one for the bands of `model`, of which `rgb` are the
    numbers of R, G, B, see `kernels_of_bands`. The normalisation of the input stays that of `config`. A decoder that is to mirror
    the encoder mirrors the one that was taken.
    Raises UserError (checkpoint) where the file is missing or damaged, or no layer of it fits.
    """
    if config.weights is None:
        return None
    path = find_checkpoint(Path(config.weights))
    checkpoint = load_checkpoint(path)
    weights = convert_decoder_weights(checkpoint.weights, checkpoint.config.model, config)
    shift = len(config.decoder) - len(checkpoint.config.model.decoder)
    theirs = _layers({_renumbered(name, shift): value for name, value in weights.items()})
    own = _layers(model.state_dict())
    theirs[_FIRST], of_first = _for_bands(theirs[_FIRST], checkpoint, model.in_channels, tuple(rgb))
    taken, new, copies = dict[str, str](), dict[str, str](), list[tuple[Tensor, Tensor]]()
    for layer, tensors in own.items():
        if layer == "normalize":
            continue
        if (
            layer == "head"
            and classes
            and (rows := _rows_of_classes(tensors, theirs.get(layer, {}), checkpoint, classes)) is not None
        ):
            copies += rows.copies
            (taken if rows.copies else new)[layer] = rows.remark
        elif difference := _difference(tensors, theirs.get(layer, {})):
            new[layer] = difference
        else:
            taken[layer] = of_first if layer == _FIRST else ""
            copies += [(tensors[name], theirs[layer][name]) for name in tensors]
    if not taken:
        raise _nothing_fits(path, own, theirs)
    left = {_renumbered(layer, -shift): "no such layer here" for layer in theirs if layer not in own}
    left |= {_renumbered(layer, -shift): "it does not fit" for layer in theirs if layer in new}
    _copy(copies)
    if config.decoder_weights == "mirrored":
        mirror_encoder(model)
        _copy(copies)  # again: the mirrored kernels have replaced those of the decoder
    return Transfer(path, checkpoint.step, sha256_of(path), taken, new, left)


def _for_bands(layer: Weights, checkpoint: Checkpoint, channels: int, rgb: tuple[int, ...]) -> tuple[Weights, str]:
    """(the first layer for images of so many channels, of which `rgb` are R, G, B, how it was made); "" where it is as it was.

    It is made from one for three channels: R, G, B, unless the checkpoint's configuration names another order.
    """
    bands = checkpoint.config.data.bands
    theirs, own = (order or ((1, 2, 3) if count == 3 else ()) for order, count in ((bands.rgb, bands.channels), (rgb, channels)))
    if bands.channels != 3 or theirs == own:
        return layer, ""
    kernels = layer["conv.weight"][:, [band - 1 for band in theirs]]
    return {**layer, "conv.weight": kernels_of_bands(kernels, channels, own)}, describe_bands(channels, own)


def _renumbered(name: str, shift: int) -> str:
    """The name of a tensor or layer with `shift` added to the number of its decoder stage.

    Stages that mirror the same encoder stage have the same number in both networks then, negative where one has more stages.
    """
    part, _, rest = name.partition(".")
    if part not in ("decoder", "upsampling"):
        return name
    stage, _, inside = rest.partition(".")
    return f"{part}.{int(stage) + shift}" + (f".{inside}" if inside else "")


def _layers(weights: Weights) -> dict[str, Weights]:
    """The tensors of each layer by the rest of their names: {"encoder.0.1": {"conv.weight": …, "norm.bias": …}, "head": …}."""
    layers = dict[str, Weights]()
    for name, value in weights.items():
        parts = name.split(".")
        place = -2 if parts[-2] in ("conv", "norm") else -1
        layers.setdefault(".".join(parts[:place]), {})[".".join(parts[place:])] = value
    return layers


def _difference(own: Weights, theirs: Weights) -> str:
    """The first tensor of a layer that does not fit, in words; empty where the layers fit."""
    if not theirs:
        return "no such layer there"
    for name in [*own, *theirs]:
        shapes = [_shape(layer.get(name)) for layer in (own, theirs)]
        if shapes[0] != shapes[1]:
            return f"{name} is {shapes[0]} here, {shapes[1]} there"
    return ""


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else str(tuple(tensor.shape))


class _Rows(NamedTuple):
    """The rows of a head that are taken."""

    copies: list[tuple[Tensor, Tensor]]  # (of this network, of the checkpoint)
    remark: str


def _rows_of_classes(own: Weights, theirs: Weights, checkpoint: Checkpoint, classes: Sequence[str]) -> _Rows | None:
    """The rows of the classes with the same names; None where the whole head fits, or no row of it can."""
    before = checkpoint.config.data.class_set.names
    rows_fit = own.keys() == theirs.keys() and all(own[name].shape[1:] == theirs[name].shape[1:] for name in own)
    if tuple(before) == tuple(classes) or not rows_fit:
        return None
    same = [name for name in classes if name in before]
    if not same:
        return _Rows([], "no class has the same name there")
    copies = [(own[part][classes.index(name)], theirs[part][before.index(name)]) for part in own for name in same]
    others = [name for name in classes if name not in same]
    return _Rows(copies, f"the rows of {', '.join(same)}" + (f"; new: {', '.join(others)}" if others else ""))


@torch.no_grad()
def _copy(copies: Iterable[tuple[Tensor, Tensor]]) -> None:
    for target, source in copies:
        target.copy_(source)


def _nothing_fits(path: Path, own: dict[str, Weights], theirs: dict[str, Weights]) -> UserError:
    layer = next((layer for layer in own if layer != "normalize"), "")
    found = f"no layer of it fits this network; '{layer}': {_difference(own[layer], theirs.get(layer, {}))}"
    return checkpoint_error(path, found, "name a run with layers of the same widths, or set model.weights to null")


def _counted(taken: dict[str, str]) -> list[str]:
    """The layers without a remark, counted by part of the network, and those with one."""
    parts = dict[str, int]()
    for layer in (layer for layer, remark in taken.items() if not remark):
        parts[layer.partition(".")[0]] = parts.get(layer.partition(".")[0], 0) + 1
    plain = [f"{part}: {count} {'layer' if count == 1 else 'layers'}" for part, count in parts.items()]
    return [*plain, *(f"{layer}: {remark}" for layer, remark in taken.items() if remark)]
