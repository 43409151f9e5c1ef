"""Where to compute, decided in one place."""

from __future__ import annotations

import platform

import torch

from segnet.errors import ExitCode, UserError


def choose_device(name: str) -> torch.device:
    """"auto" (the GPU when there is one), "cpu" or "cuda". Raises UserError (environment) for a GPU that is not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(ExitCode.ENVIRONMENT, "device=cuda", "no usable GPU here", "write device=cpu, or install a CUDA driver")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def describe_device(device: torch.device) -> str:
    """One line for people: the GPU's name, or the processor and its threads."""
    if device.type == "cuda":
        return f"GPU ({torch.cuda.get_device_name(device)})"
    return f"CPU ({platform.processor() or platform.machine()}, {torch.get_num_threads()} threads)"
