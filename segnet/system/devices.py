"""Where to compute, decided in one place."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F

from segnet.system.distributed import is_main, local_rank
from segnet.system.errors import ExitCode, UserError


def choose_device(name: str) -> torch.device:
    """ "auto" (the GPU when there is one), "cpu" or "cuda"; under torchrun each process of a machine has a GPU of its own.

    Raises UserError (environment) for a GPU that is not there, and for "mps", which lacks what training and scoring need.
    """
    if name == "mps":
        found = "an Apple GPU has no float64, in which losses and scores are summed, and its pooling is untested"
        raise UserError(ExitCode.ENVIRONMENT, "device=mps", found, "write device=cpu: on a Mac the processor computes")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    index, count = local_rank(), torch.cuda.device_count()
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


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for what it allocates next; with another C library than glibc, do nothing.

    Each step of training allocates the same large tensors; memory that went back to the kernel is cleared, page by page, when it
    comes again.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_MMAP_MAX, 0)  # large blocks from the heap too, not each from a mapping of its own
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)  # and no end of the heap is given back


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def use_deterministic_algorithms(on: bool) -> None:
    """Let torch use only algorithms that give the same bits every time, and refuse what has none; or let it choose."""
    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for; read when CUDA starts
    torch.use_deterministic_algorithms(on)


class Precision(NamedTuple):
    """The arithmetic of convolutions on one device."""

    name: str  # "float32", "bfloat16" or "float16"
    reason: str  # why this one, for people
    emulated: bool = False  # the device lacks instructions for it: several times slower than float32

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


def choose_precision(name: str, device: torch.device) -> Precision:
    """The precision that `name` means on `device`; "auto" is the fastest one that the device has instructions for.

    bfloat16 where there are some, float16 on older GPUs with tensor cores, else float32. Any other name is obeyed.
    """
    fast = _fast_precision(device)
    if name == "auto":
        return fast
    if device.type == "cuda":
        emulated = name == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        emulated = name not in ("float32", fast.name)
    return Precision(name, f"as configured; {'emulated' if emulated else 'not emulated'} here", emulated)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """A context in which convolutions compute in "bfloat16" or "float16"; at another precision, in that of their weights."""
    return torch.autocast(device.type, getattr(torch, precision)) if precision in ("bfloat16", "float16") else nullcontext()


def warn_if_emulated(precision: Precision, key: str) -> None:
    """Print a warning, once for all ranks, where the device emulates the precision that the configuration's `key` asks for."""
    if precision.emulated and is_main():
        cure = f"{key}=auto chooses what this device computes fast"
        print(f"warning: {key}={precision.name} is emulated on this device, several times slower – {cure}", file=sys.stderr)


@cache
def _fast_precision(device: torch.device) -> Precision:
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision("bfloat16", "the GPU computes in it")
        if torch.cuda.get_device_capability(device) >= (7, 0):  # the first with tensor cores
            return Precision("float16", "the GPU computes in it, and not in bfloat16")
        return Precision("float32", "the GPU has no faster one")
    if not _has_bfloat16_instructions():
        return Precision("float32", "the processor has no bfloat16 instructions")
    if sys.platform == "darwin" and (ratio := _speedup_of_bfloat16()) < 1.1:  # the instructions are there, kernels may not be
        return Precision("float32", f"a convolution in bfloat16 had {ratio:.1f} times its speed")
    return Precision("bfloat16", "the processor has instructions for it")


def _has_bfloat16_instructions() -> bool:
    """Whether oneDNN, torch's library of convolutions, finds bfloat16 arithmetic on this processor and may use it.

    oneDNN alone says yes, too, where it imitates bfloat16 by AVX-512; the processor's flags alone do not know of
    ONEDNN_MAX_CPU_ISA.
    """
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # a private name: it may go
    if supported is None or not supported():
        return False
    return not processor_features().isdisjoint({"avx512_bf16", "amx_bf16", "bf16", "arm_bf16", "sve_bf16"})


def processor_features() -> set[str]:
    """The names of the processor's instruction sets, such as "avx2", "avx512_bf16" (x86) or "bf16" (Arm)."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch lack it
    features = {name for name, value in capabilities.items() if value is True}
    return features or {word for line in _cpuinfo("flags", "Features") for word in line.split()}


def _cpuinfo(*keys: str) -> list[str]:
    """The values of some keys in Linux's list of processors; nothing on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return [value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() in keys]


def _speedup_of_bfloat16() -> float:
    """Seconds of a convolution in float32 / those in bfloat16, the best of five each."""
    image, kernel = torch.ones(1, 64, 64, 64), torch.ones(64, 64, 3, 3)
    best = dict[torch.dtype, float]()
    for dtype in (torch.float32, torch.bfloat16) * 5:
        x, weight = image.to(dtype), kernel.to(dtype)
        started = time.perf_counter()
        F.conv2d(x, weight, padding=1)
        best[dtype] = min(best.get(dtype, float("inf")), time.perf_counter() - started)
    return best[torch.float32] / best[torch.bfloat16]


def describe_device(device: torch.device) -> str:
    """One line for people: the GPU's name, or the processor and its threads."""
    if device.type == "cuda":
        return f"GPU ({torch.cuda.get_device_name(device)})"
    name = next(iter(_cpuinfo("model name")), "") or platform.processor() or platform.machine()
    return f"CPU ({name}, {torch.get_num_threads()} threads)"


def describe_instructions() -> str:
    """The instruction sets with which torch and oneDNN compute on this processor, for the note beside a measured time."""
    bfloat16 = "bfloat16 instructions" if _has_bfloat16_instructions() else "no bfloat16 instructions"
    return f"{torch.backends.cpu.get_cpu_capability()}, {bfloat16}"


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
