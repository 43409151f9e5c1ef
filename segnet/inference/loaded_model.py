"""A trained network from a run folder, a checkpoint or an exported file, ready to predict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from segnet.classes import ClassSet, difference
from segnet.config.loading import override_config
from segnet.config.sections import Config
from segnet.inference.exported import SUFFIXES, Network, load_exported
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.models.folding import convert_decoder_weights
from segnet.runs.checkpoint import find_checkpoint, load_checkpoint, load_weights
from segnet.system.devices import choose_precision
from segnet.system.errors import ExitCode, UserError


class LoadedModel(NamedTuple):
    """A network in evaluation mode with everything that prediction needs."""

    model: Network
    classes: ClassSet
    config: Config


def load_model(path: Path | str, overrides: Sequence[str] = ()) -> LoadedModel:
    """The network of a run folder (its best checkpoint), a checkpoint or an exported file, ready to predict, on the CPU.

    `overrides` change its configuration, e.g. "inference.flip=true"; "model.decoder_operation=convolution" converts the
    weights exactly. The device it was trained on is forgotten.
    Raises UserError (checkpoint) when there is none or its weights do not fit, (config) for a mistake in an override.
    """
    found = find_checkpoint(Path(path))
    if found.suffix in SUFFIXES:
        return _load_exported(found, overrides)
    checkpoint = load_checkpoint(found)
    config = override_config(checkpoint.config, ["device=auto", *overrides])
    classes = config.data.class_set
    _require_its_classes(classes, checkpoint.config, found)
    with torch.device("meta"):  # nothing is allocated before the shapes are known to fit
        model = EncoderDecoder(config.model, len(classes))
    load_weights(model, convert_decoder_weights(checkpoint.weights, checkpoint.config.model, config.model), found)
    model.to(memory_format=torch.channels_last).eval()
    return LoadedModel(model, classes, config)


def _load_exported(path: Path, overrides: Sequence[str]) -> LoadedModel:
    """`load_model` for an exported file, whose network cannot be changed and which runs on the CPU."""
    stored = load_exported(path).metadata.config
    config = override_config(stored, ["device=cpu", *overrides])
    _require_its_classes(config.data.class_set, stored, path)
    if config.model != stored.model:
        raise UserError(ExitCode.CONFIG, path, "the network of an exported file cannot be changed", "override the checkpoint's")
    if config.device == "cuda":
        raise UserError(ExitCode.CONFIG, path, "an exported file runs on the CPU", "write device=cpu, or use the checkpoint")
    model = load_exported(path, choose_precision(config.inference.precision, torch.device("cpu")).name).model
    return LoadedModel(model, config.data.class_set, config.model_copy(update={"device": "cpu"}))


def _require_its_classes(classes: ClassSet, trained: Config, path: Path) -> None:
    """Raises UserError (config) for another number or order of classes than the network answers; names may be others."""
    own = trained.data.class_set
    if len(classes) != len(own) or (set(classes.names) == set(own.names) and classes.names != own.names):
        found = f"the network has other classes than data.classes: {difference(classes, own)}"
        raise UserError(ExitCode.CONFIG, path, found, "leave data.classes out")
