"""Where to compute, decided in one place."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from segnet.errors import ExitCode, UserError


def choose_device(name: str) -> torch.device:
    """"auto" (the GPU when there is one), "cpu" or "cuda". Raises UserError (environment) for a GPU that is not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(ExitCode.ENVIRONMENT, "device=cuda", "no usable GPU here", "write device=cpu, or install a CUDA driver")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def use_deterministic_algorithms(on: bool) -> None:
    """Let torch use only algorithms that give the same bits every time, and refuse what has none; or let it choose."""
    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for; read when CUDA starts
    torch.use_deterministic_algorithms(on)


def describe_device(device: torch.device) -> str:
    """One line for people: the GPU's name, or the processor and its threads."""
    if device.type == "cuda":
        return f"GPU ({torch.cuda.get_device_name(device)})"
    cpuinfo = Path("/proc/cpuinfo")  # on Linux; elsewhere Python knows the name
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"CPU ({name}, {torch.get_num_threads()} threads)"
