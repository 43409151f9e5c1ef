"""A trained network from a run folder, a checkpoint or an exported file, ready to predict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from segnet.classes import ClassSet, difference
from segnet.config.loading import override_config
from segnet.config.sections import Config
from segnet.inference.ensemble import as_one
from segnet.inference.exported import SUFFIXES, Network, Runtime, read_exported
from segnet.inference.precision import choose_inference_precision
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.models.folding import convert_decoder_weights
from segnet.runs.checkpoint import find_checkpoint, load_checkpoint, load_weights
from segnet.system.errors import config_error
from segnet.tasks.choice import build_task


class LoadedModel(NamedTuple):
    """A network in evaluation mode, and what is known of it."""

    model: Network
    classes: ClassSet
    config: Config
    path: Path  # of the checkpoint or the exported file
    step: int  # of training
    score: float | None  # on the val split, by the measure that chose the best checkpoint; None: never scored


def load_model(path: Path | str, overrides: Sequence[str] = ()) -> LoadedModel:
    """The network of a run folder (its best checkpoint), a checkpoint or an exported file, ready to predict, on the CPU.

    `overrides` change its configuration, e.g. "inference.flip=horizontal"; "model.decoder_operation=convolution" converts the
    weights exactly. The device of the training is replaced by "auto".
    Raises UserError (checkpoint) when there is no intact checkpoint or its weights do not fit, (config) for a mistake in an
    override.
    """
    path = find_checkpoint(Path(path))
    if path.suffix in SUFFIXES:
        return _load_exported(path, overrides)
    checkpoint = load_checkpoint(path)
    config = override_config(checkpoint.config, ["device=auto", *overrides])
    classes = config.data.class_set
    _require_trained_classes(classes, checkpoint.config, path)
    _require_trained_bands(config, checkpoint.config, path)
    with torch.device("meta"):  # allocates no memory before the shapes are known to fit
        model = EncoderDecoder(config.model, build_task(config).channels, config.data.channels, config.data.bands.ranges)
    load_weights(model, convert_decoder_weights(checkpoint.weights, checkpoint.config.model, config.model), path)
    model.to(memory_format=torch.channels_last).eval()
    return LoadedModel(model, classes, config, path, checkpoint.step, checkpoint.score)


def load_models(paths: Sequence[Path | str], overrides: Sequence[str] = ()) -> LoadedModel:
    """`load_model` for one path; for several the ensemble of their networks, with the configuration of the first.

    Raises UserError (config) where they differ in their classes or in how they see a picture, and for an exported network.
    """
    first, *others = [load_model(path, overrides) for path in paths]
    for loaded in (first, *others) if others else ():
        found = ""
        if isinstance(loaded.model, Runtime):
            found = "an exported network cannot be averaged with others"
        elif odd := difference(loaded.classes, first.classes):
            found = f"has other classes than {first.path}: {odd}"
        elif loaded.config.data.bands != first.config.data.bands:
            found = f"sees pictures as {loaded.config.data.bands}, {first.path} as {first.config.data.bands}"
        if found:
            raise config_error(loaded.path, found, "name runs that were trained for the same task")
    return first._replace(model=as_one([loaded.model for loaded in (first, *others)]))


def _load_exported(path: Path, overrides: Sequence[str]) -> LoadedModel:
    """`load_model` for an exported file. Raises UserError (config) also for overrides of the network or of the device."""
    file = read_exported(path)
    metadata = file.metadata
    config = override_config(metadata.config, ["device=cpu", *overrides])
    _require_trained_classes(config.data.class_set, metadata.config, path)
    _require_trained_bands(config, metadata.config, path)
    if config.model != metadata.config.model:
        raise config_error(path, "the network of an exported file cannot be changed", "override the checkpoint's")
    if config.device == "cuda":
        raise config_error(path, "an exported file runs on the CPU", "write device=cpu, or use the checkpoint")
    model = file.start(choose_inference_precision(config.inference, None, torch.device("cpu")).name)
    config = config.model_copy(update={"device": "cpu"})
    return LoadedModel(model, config.data.class_set, config, path, metadata.step, metadata.score)


def _require_trained_bands(config: Config, trained: Config, path: Path) -> None:
    """Raise UserError (config) when `config` asks for other bands than those that the network was trained on.

    Denoising has pictures of 8 bits where `data.scale` is picture, whose values dtype leaves as they are: both are one network.
    """
    for key in ("channels",) if config.task == "denoise" else ("channels", "scale"):
        own, given = getattr(trained.data, key), getattr(config.data, key)
        if given != own:
            found = f"was trained with data.{key} {own}, not {given}"
            raise config_error(path, found, f"leave data.{key} out, or train another network")


def _require_trained_classes(classes: ClassSet, trained: Config, path: Path) -> None:
    """Raise UserError (config) when `classes` differ from those of the training in number or order; they may be renamed."""
    own = trained.data.class_set
    if len(classes) != len(own) or (set(classes.names) == set(own.names) and classes.names != own.names):
        found = f"the network has other classes than data.classes: {difference(classes, own)}"
        raise config_error(path, found, "leave data.classes and data.merge out")
