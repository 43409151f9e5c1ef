"""The device, its arithmetic and its memory."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from segnet.system.distributed import is_main, local_rank
from segnet.system.errors import config_error, environment_error, first_line

Value = TypeVar("Value")


def choose_device(name: str) -> torch.device:
    """The device that a configuration's `device` names: "cpu", "cuda", or "auto", which is the GPU when there is one.

    Under torchrun each process of a machine has a GPU of its own. Raises UserError (environment) for "cuda" without a GPU, for
    more processes than GPUs, and for "mps", which has no float64.
    """
    if name == "mps":
        found = "an Apple GPU has no float64, in which losses and scores are summed, and its pooling is untested"
        raise environment_error("device=mps", found, "write device=cpu: on a Mac the processor computes")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    index, count = local_rank(), torch.cuda.device_count()
    if not torch.cuda.is_available():
        raise environment_error("device=cuda", "no usable GPU here", "write device=cpu, or install a CUDA driver")
    if index >= count:
        raise environment_error(f"local rank {index}", f"{count} GPUs here", "lower --nproc-per-node to that")
    return torch.device("cuda", index)


def peak_memory(device: torch.device) -> float:
    """The peak memory of this process in GB: the GPU's, or for the CPU the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


class Memory(NamedTuple):
    """Memory of a device, GB."""

    free: float
    total: float


def memory_of(device: torch.device) -> Memory:
    """The memory of a GPU, or of the machine; all of it is called free where the system does not tell."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return Memory(free / 1e9, total / 1e9)
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        (available,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError):  # another system than Linux
        return Memory(whole, whole)
    return Memory(int(available) * 1024 / 1e9, whole)


def usable_cores() -> int:
    """The number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def copy_to_cpu(value: Value) -> Value:
    """`value`, with copies on the CPU of the GPU's tensors in its dicts, at any depth. The host waits for the GPU once."""
    copied = _copied(value)
    if torch.cuda.is_initialized():  # not in a run on the CPU of a machine with a GPU
        torch.cuda.synchronize()
    return cast(Value, copied)


def _copied(value: Any) -> Any:
    """`copy_to_cpu` without the wait: until then the copies have no values yet."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", non_blocking=True) if value.is_cuda else value
    if isinstance(value, dict):
        copied = copy(value)  # of the same kind, with the attributes of a state_dict
        copied.update({name: _copied(inner) for name, inner in value.items()})
        return copied
    return value


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees for its next allocations. Does nothing unless the C library is glibc.

    Each training step allocates the same large tensors. Memory that was returned to the kernel is cleared, page by page, when it
    is allocated again.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_MMAP_MAX, 0)  # large blocks come from the heap, not from a mapping each
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)  # and the end of the heap is not returned


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from glibc's malloc.h


def use_deterministic_algorithms(on: bool) -> None:
    """Let torch use only algorithms that give the same bits every time, where `on`, else any.

    torch raises RuntimeError for an operation that has no such algorithm.
    """
    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it, and reads it when CUDA starts
    torch.use_deterministic_algorithms(on)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # NaN in each new tensor, in vain


class Precision(NamedTuple):
    """The arithmetic of convolutions on one device."""

    name: str  # "float32", "bfloat16" or "float16"
    reason: str  # why this one, printed
    emulated: bool = False  # the device has no instructions for it, which makes it several times slower than float32

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


def choose_precision(name: str, device: torch.device) -> Precision:
    """The precision that a configuration's `name` means on `device`.

    "auto" is bfloat16 where the device has instructions for it, float16 on older GPUs with tensor cores, else float32. Any other
    name is taken as it is, also where a processor emulates it.
    Raises UserError (config) for bfloat16 on a GPU that is older than it: cuDNN has no such convolutions there.
    """
    fast = _fast_precision(device)
    if name == "auto":
        return fast
    if name == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        found = "this GPU has no convolutions in bfloat16"
        remedy = f"write train.precision=auto and inference.precision=auto, which is {fast.name} here"
        raise config_error("precision=bfloat16", found, f"{remedy}; a run that began in bfloat16 resumes on a newer GPU")
    emulated = device.type == "cpu" and name not in ("float32", fast.name)
    return Precision(name, "as configured, and emulated here" if emulated else "as configured", emulated)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """A context in which convolutions compute in "bfloat16" or "float16"; for another precision, an empty context."""
    return torch.autocast(device.type, getattr(torch, precision)) if precision in ("bfloat16", "float16") else nullcontext()


def warn_if_emulated(precision: Precision, key: str) -> None:
    """Print a warning on rank 0 where the device emulates `precision`, which the configuration's `key` asks for."""
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
    if sys.platform == "darwin" and (ratio := _speedup_of_bfloat16()) < 1.1:  # there may be no kernels for the instructions
        return Precision("float32", f"a convolution in bfloat16 had {ratio:.1f} times its speed")
    return Precision("bfloat16", "the processor has instructions for it")


def _has_bfloat16_instructions() -> bool:
    """True where the processor has bfloat16 instructions and oneDNN, torch's library of convolutions, may use them.

    Both are asked: oneDNN also accepts bfloat16 where it emulates it with AVX-512, and the processor's flags do not show that
    ONEDNN_MAX_CPU_ISA forbids the instructions.
    """
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # private in torch, so it may be missing
    if supported is None or not supported():
        return False
    return not processor_features().isdisjoint({"avx512_bf16", "amx_bf16", "bf16", "arm_bf16", "sve_bf16"})


def processor_features() -> set[str]:
    """The names of the processor's instruction sets, such as "avx2", "avx512_bf16" (x86) or "bf16" (Arm)."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch lack it
    features = {name for name, value in capabilities.items() if value is True}
    return features or {word for line in _cpuinfo("flags", "Features") for word in line.split()}


def _cpuinfo(*keys: str) -> list[str]:
    """The values of `keys` in /proc/cpuinfo; none on systems without that file."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return [value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() in keys]


def _speedup_of_bfloat16() -> float:
    """The time of a convolution in float32 divided by that in bfloat16, each the best of five."""
    image, kernel = torch.ones(1, 64, 64, 64), torch.ones(64, 64, 3, 3)
    best = dict[torch.dtype, float]()
    for dtype in (torch.float32, torch.bfloat16) * 5:
        x, weight = image.to(dtype), kernel.to(dtype)
        started = time.perf_counter()
        F.conv2d(x, weight, padding=1)
        best[dtype] = min(best.get(dtype, float("inf")), time.perf_counter() - started)
    return best[torch.float32] / best[torch.bfloat16]


def describe_device(device: torch.device) -> str:
    """One line to print: the GPU's name, or the processor's name and the number of threads."""
    if device.type == "cuda":
        return f"GPU ({torch.cuda.get_device_name(device)})"
    name = next(iter(_cpuinfo("model name")), "") or platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f"CPU ({name}, {threads} thread{'' if threads == 1 else 's'})"


def describe_instructions() -> str:
    """The instruction sets that torch and oneDNN use on this processor, to print beside a measured time."""
    bfloat16 = "bfloat16 instructions" if _has_bfloat16_instructions() else "no bfloat16 instructions"
    return f"{torch.backends.cpu.get_cpu_capability()}, {bfloat16}"


def gpu_facts(device: torch.device) -> dict[str, object]:
    """What a GPU's numbers and speed depend on: its compute capability, the versions of its software, the use of TF32."""
    if device.type != "cuda":
        return {}
    return {
        "capability": "{}.{}".format(*torch.cuda.get_device_capability(device)),
        "driver": driver_version() or "unknown",
        "cuda": torch.version.cuda or f"HIP {torch.version.hip}",
        "cudnn": torch.backends.cudnn.version(),
        "tf32": {"convolutions": torch.backends.cudnn.allow_tf32, "matrices": torch.backends.cuda.matmul.allow_tf32},
    }


_DRIVER = Path("/proc/driver/nvidia/version")


def driver_version() -> str | None:
    """The version of NVIDIA's driver as it names itself; None without one."""
    return _DRIVER.read_text().partition("\n")[0] if _DRIVER.exists() else None


def memory_is_full(error: BaseException) -> bool:
    """True for an error that says, in any wording of torch and its libraries, that the GPU's or the machine's memory is full."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _FULL_MEMORY)


_FULL_MEMORY = (
    "can't allocate memory",  # torch's allocator on a CPU
    "not enough memory",  # the same
    "out of memory",  # CUDA and HIP, outside torch's allocator
    "STATUS_ALLOC_FAILED",  # cuBLAS, and cuDNN up to version 8
    "ALLOCATION_FAILED",  # cuDNN since version 9
    "unable to find an engine",  # cuDNN, where the memory that each of its algorithms needs is not free
)


@contextmanager
def explain_full_memory(remedy: str) -> Iterator[None]:
    """Raises UserError (environment) with `remedy` where the body runs out of the GPU's or the machine's memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not memory_is_full(error):
            raise
        found = first_line(error) if str(error) else "out of memory"
        raise environment_error("memory", found, remedy) from None
