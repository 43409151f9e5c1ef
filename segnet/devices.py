"""Where to compute, decided in one place."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from segnet.errors import ExitCode, UserError


def choose_device(name: str) -> torch.device:
    """"auto" (the GPU when there is one), "cpu" or "cuda"; under torchrun each process of a machine has a GPU of its own.

    Raises UserError (environment) for a GPU that is not there.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    index, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if not torch.cuda.is_available():
        raise UserError(ExitCode.ENVIRONMENT, "device=cuda", "no usable GPU here", "write device=cpu, or install a CUDA driver")
    if index >= count:
        raise UserError(ExitCode.ENVIRONMENT, f"local rank {index}", f"{count} GPUs here", "lower --nproc-per-node to that")
    return torch.device("cuda", index)


def peak_memory(device: torch.device) -> float:
    """GB that this process has had in use at most: of the GPU's memory, or of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


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


@contextmanager
def explain_full_memory(remedy: str) -> Iterator[None]:
    """Raises UserError (environment) with `remedy` where the body finds the GPU's or the machine's memory full."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        found = (str(error).splitlines() or ["out of memory"])[0]
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "can't allocate memory" not in found:
            raise
        raise UserError(ExitCode.ENVIRONMENT, "memory", found, remedy) from None
