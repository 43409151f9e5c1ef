"""The precision in which a run computes, and the one that its checkpoints store."""

from __future__ import annotations

import torch

from segnet.config.sections import Config
from segnet.inference.precision import choose_inference_precision
from segnet.runs.checkpoint import Checkpoint
from segnet.system.devices import choose_precision, warn_if_emulated


def resolve_precisions(config: Config, device: torch.device, began: Checkpoint | None) -> tuple[Config, Config]:
    """`config` with the precision that "auto" means here, twice: the one to compute with, and the one to store in checkpoints.

    A resumed run keeps what it `began` with, since other arithmetic gives other bits. Checkpoints keep an "auto" of
    `inference.precision`, so that evaluation and prediction choose for the device that they run on.
    """
    train, inference = config.train.precision, config.inference.precision
    if began:
        train = began.config.train.precision if train == "auto" else train
        inference = began.config.inference.precision if inference == "auto" else inference
    chosen = choose_precision(train, device)
    warn_if_emulated(chosen, "train.precision")
    stored = _with_precision(config, chosen.name, inference)
    if began and began.training and inference == "auto":
        inference = began.training.get("inference_precision", inference)
    wanted = config.inference.model_copy(update={"precision": inference})
    return _with_precision(config, chosen.name, choose_inference_precision(wanted, config.model, device).name), stored


def _with_precision(config: Config, train: str, inference: str) -> Config:
    """`config` with other precisions."""
    sections = {
        "train": config.train.model_copy(update={"precision": train}),
        "inference": config.inference.model_copy(update={"precision": inference}),
    }
    return config.model_copy(update=sections)
