"""The precision and the kernel with which a run computes, and those that its checkpoints store."""

from __future__ import annotations

import sys
from typing import Literal

import torch

from segnet.config.sections import Config, TrainConfig
from segnet.inference.precision import choose_inference_precision
from segnet.layers.native import find_kernel
from segnet.runs.checkpoint import Checkpoint
from segnet.system.devices import Precision, choose_precision, warn_if_emulated
from segnet.system.distributed import is_main


def choose_train_precision(config: TrainConfig, device: torch.device) -> Precision:
    """The precision that `config.precision` means on `device`: with `config.kernel` native, "auto" is float32.

    Raises UserError as `choose_precision`.
    """
    if config.precision == "auto" and config.kernel == "native" and _why_no_kernel(device) is None:
        return Precision("float32", "train.kernel=native computes in it")
    return choose_precision(config.precision, device)


def choose_train_kernel(config: TrainConfig, device: torch.device) -> Literal["native", "torch"]:
    """The kernel that `config.kernel` means on `device`: "auto" is native where a step is in float32 and there is a kernel.

    Raises UserError as `choose_precision`.
    """
    if config.kernel != "auto":
        return config.kernel
    fits = not config.compile and choose_precision(config.precision, device).name == "float32"
    return "native" if fits and _why_no_kernel(device) is None else "torch"


def describe_arithmetic(config: TrainConfig, device: torch.device) -> str:
    """The precision of a step on `device` with its reason, and the kernel where it is the project's."""
    precision = str(choose_train_precision(config, device))
    compiled = choose_train_kernel(config, device) == "native" and _why_no_kernel(device) is None
    return f"{precision}, by the compiled kernel" if compiled else precision


def resolve_precisions(config: Config, device: torch.device, began: Checkpoint | None) -> tuple[Config, Config]:
    """`config` with what "auto" means here, twice: that to compute with, and that to store in checkpoints.

    This concerns the precisions and `train.kernel`. A resumed run keeps what it `began` with, since other arithmetic gives other
    bits. Checkpoints keep an "auto" of `inference.precision`, so that evaluation and prediction choose for the device that they
    run on. Prints a warning where there is no kernel for `train.kernel` native.
    """
    train, inference, kernel = config.train.precision, config.inference.precision, config.train.kernel
    if began:
        train = began.config.train.precision if train == "auto" else train
        inference = began.config.inference.precision if inference == "auto" else inference
        kernel = began.config.train.kernel if kernel == "auto" else kernel
    else:
        kernel = choose_train_kernel(config.train, device)
    config = config.model_copy(update={"train": config.train.model_copy(update={"precision": train, "kernel": kernel})})
    chosen = choose_train_precision(config.train, device)
    warn_if_emulated(chosen, "train.precision")
    if kernel == "native" and (reason := _why_no_kernel(device)) and is_main():
        print(f"warning: train.kernel=native: torch computes the convolutions, because {reason}", file=sys.stderr)
    stored = _with_precision(config, chosen.name, inference)
    if began and began.training and inference == "auto":
        inference = began.training.get("inference_precision", inference)
    wanted = config.inference.model_copy(update={"precision": inference})
    return _with_precision(config, chosen.name, choose_inference_precision(wanted, config.model, device).name), stored


def _why_no_kernel(device: torch.device) -> str | None:
    """Why the compiled kernel cannot train on `device`; None where it can."""
    if device.type != "cpu":
        return "it is made for processors"
    found = find_kernel()
    return None if found.kernel else found.text


def _with_precision(config: Config, train: str, inference: str) -> Config:
    """`config` with other precisions."""
    sections = {
        "train": config.train.model_copy(update={"precision": train}),
        "inference": config.inference.model_copy(update={"precision": inference}),
    }
    return config.model_copy(update=sections)
