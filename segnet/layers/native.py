"""Convolutions and their gradients by `native.cpp`, compiled at its first use. Without a C++ compiler torch computes them.

The compiled library is kept in the user's cache folder ($XDG_CACHE_HOME or ~/.cache, in segnet/), under a name that depends on
the source, the compiler and the instruction set. A digest protects every byte of it: what a power cut or a full disk left is
compiled anew. Before a library is used its results are compared with torch's. Variables of the environment: SEGNET_NATIVE=0
turns it off, with what replaces it in prediction (`winograd.py`); CXX names a compiler; SEGNET_NATIVE_FLAGS are more flags for
it, which tests use.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from segnet.layers.pooling import Pooled, Size, max_pool, max_unpool, pooled_size
from segnet.system.devices import processor_features
from segnet.system.distributed import is_main
from segnet.system.errors import UserError, first_line, printable
from segnet.system.files import DIGEST_MARK, require_digest

SOURCE = Path(__file__).with_name("native.cpp")
_FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fPIC", "-shared")
_INSTRUCTIONS = {  # by what torch says that it uses
    "AVX2": ("-mavx2", "-mfma"),
    "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"),
}
_BFLOAT16_INSTRUCTIONS = ("-mavx512bf16",)  # where the processor has them, too
_COMPILERS = ("c++", "g++", "clang++")
_SECONDS = 300  # for the compiler, before it is given up
_SECONDS_WITHOUT_NOTE = 30  # for the compiler, before a note says that it still works
_FEWEST_PAIRS = 192  # of an input channel and an output channel, and
_FEWEST_TILES = 4  # of 4×4 pixels in a batch, from which the kernel is as fast as torch or faster (measured)
_MOST_FEW_TILES = 128  # up to which, with so many pairs, the weights are transformed in parts (measured)
_FEWEST_PAIRS_OF_PARTS = 16384
_FEWEST_TILES_IN_TRAINING = 8  # the same, where the weights are transformed each time,
_FEWEST_CHANNELS = 16  # with so many input channels
_FEWEST_TILES_OF_GRADIENT = 8  # the same for the gradient of the weights


class NativeError(Exception):
    """The kernel cannot be used. The text says why."""


class Kernel:
    """The compiled functions, called with tensors on the CPU. Several threads may call it at once.

    One call uses torch.get_num_threads() threads of torch's own pool; results do not depend on their number, to the bit.
    """

    def __init__(self, path: Path) -> None:
        """Load the library at `path`. Raises OSError or AttributeError where it is not one, NativeError without OpenMP."""
        library = ctypes.CDLL(os.fspath(path))
        pointer, number = ctypes.c_void_p, ctypes.c_long
        self.has_bfloat16 = bool(library.segnet_has_bfloat16())
        self._size = library.segnet_kernel_size
        self._size.argtypes, self._size.restype = [number] * 3, number
        self._transform = library.segnet_transform_kernel
        self._transform.argtypes, self._transform.restype = [pointer] * 3 + [number] * 9 + [pointer], None
        self._convolve = library.segnet_convolve
        self._convolve.argtypes, self._convolve.restype = [pointer] * 5 + [number] * 8 + [pointer], ctypes.c_int
        self._few_tiles = library.segnet_convolve_few_tiles
        self._few_tiles.argtypes, self._few_tiles.restype = [pointer] * 4 + [number] * 12 + [pointer], ctypes.c_int
        self._gradient_size = library.segnet_gradient_size
        self._gradient_size.argtypes, self._gradient_size.restype = [number] * 5, number
        self._gradient = library.segnet_kernel_gradient
        self._gradient.argtypes, self._gradient.restype = [pointer] * 5 + [number] * 7 + [pointer], ctypes.c_int
        self._memory = threading.local()
        self._parallel = _parallel()

    def transform(
        self, weight: Tensor, bias: Tensor | None, *, flipped: bool = False, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """The weight (K, C, 3, 3) and the bias (K,) in the form that `convolve` reads: four times as many numbers of `dtype`.

        None is a bias of zeros. With `flipped`, the rows and the columns of the kernels are in reverse order. `dtype` is that of
        the factors in the products of `convolve`, which are summed in float32: bfloat16 if `multiplies_in_bfloat16`.
        """
        outputs, channels = weight.shape[:2]
        kernels = torch.empty(self._size(channels, outputs, dtype == torch.bfloat16), device="cpu", dtype=torch.float32)
        return self._transformed(weight, bias, kernels.view(dtype), flipped=flipped)

    def _transformed(self, weight: Tensor, bias: Tensor | None, kernels: Tensor, *, flipped: bool) -> Tensor:
        """`kernels`, with the result of `transform` written into it."""
        outputs, channels = weight.shape[:2]
        weight, bias = weight.detach(), bias.detach().contiguous() if bias is not None else None
        self._transform(
            *(tensor.data_ptr() if tensor is not None else None for tensor in (weight, bias, kernels)),
            *(channels, outputs, *weight.stride(), flipped, kernels.dtype == torch.bfloat16, torch.get_num_threads()),
            self._parallel,
        )
        return kernels

    def multiplies_in_bfloat16(self, channels: int) -> bool:
        """True where `transform` and `convolve` can use bfloat16 for a layer with so many input channels."""
        return self.has_bfloat16 and channels % 2 == 0

    def convolve(self, x: Tensor, kernels: Tensor, outputs: int, *, relu: bool) -> Tensor:
        """(B, C, H, W) -> (B, K, H, W), with K = `outputs`: the convolution with padding 1, then ReLU if `relu`."""
        return self._run(x, None, (x.shape[-2], x.shape[-1]), kernels, outputs, relu=relu, pools=False).values

    def convolve_and_pool(self, x: Tensor, kernels: Tensor, outputs: int, *, relu: bool) -> Pooled:
        """`convolve`, then `max_pool`, to the bit; the map between them is not stored."""
        return self._run(x, None, (x.shape[-2], x.shape[-1]), kernels, outputs, relu=relu, pools=True)

    def unpool_and_convolve(self, pooled: Pooled, size: Size, kernels: Tensor, outputs: int, *, relu: bool) -> Tensor:
        """`max_unpool` to `size`, then `convolve`, to the bit; the map between them is not stored."""
        return self._run(*pooled, size, kernels, outputs, relu=relu, pools=False).values

    def convolve_by_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None, *, flipped: bool = False) -> Tensor:
        """`transform`, then `convolve` without ReLU, to the bit. Raises MemoryError.

        Where x is small, each part of the weight is transformed where it is used, which takes less time.
        """
        outputs = weight.shape[0]
        if _tiles(x) > _MOST_FEW_TILES or weight.shape[0] * weight.shape[1] < _FEWEST_PAIRS_OF_PARTS:
            kernels = self._kept(self._size(weight.shape[1], outputs, False))
            return self.convolve(x, self._transformed(weight, bias, kernels, flipped=flipped), outputs, relu=False)
        x = x.contiguous(memory_format=torch.channels_last)
        weight, bias = weight.detach(), bias.detach().contiguous() if bias is not None else None
        batch, channels, *size = x.shape
        out = torch.empty((batch, outputs, *size), device="cpu", dtype=torch.float32, memory_format=torch.channels_last)
        failed = self._few_tiles(
            *(tensor.data_ptr() if tensor is not None else None for tensor in (x, weight, bias, out)),
            *(batch, *size, channels, outputs, *weight.stride(), flipped, False, torch.get_num_threads()),
            self._parallel,
        )
        if failed:
            raise MemoryError("no memory for the buffers of a convolution")
        return out

    def kernel_gradient(self, x: Tensor, grad: Tensor, *, bias_of_input: bool = False) -> tuple[Tensor, Tensor]:
        """The gradients of weight (K, C, 3, 3) and bias (K,), from x (B, C, H, W) and that of the output, `grad` (B, K, H, W).

        That of the bias is the sum of `grad` over images and pixels; with `bias_of_input` that of x, (C,). Raises MemoryError.
        """
        channels_last = torch.channels_last
        x, grad = x.contiguous(memory_format=channels_last), grad.contiguous(memory_format=channels_last)
        batch, channels, *size = x.shape
        outputs = grad.shape[1]
        memory = self._kept(self._gradient_size(batch, *size, channels, outputs))
        weight = torch.empty((outputs, channels, 3, 3), device="cpu", dtype=torch.float32, memory_format=channels_last)
        bias = torch.empty(channels if bias_of_input else outputs, device="cpu", dtype=torch.float32)
        failed = self._gradient(
            *(tensor.data_ptr() for tensor in (x, grad, memory, weight, bias)),
            *(batch, *size, channels, outputs, bias_of_input, torch.get_num_threads()),
            self._parallel,
        )
        if failed:
            raise MemoryError("no memory for the buffers of a convolution")
        return weight, bias

    def _kept(self, floats: int) -> Tensor:
        """Memory for one call, which the thread keeps for its next one: the first use of new memory takes long."""
        kept = getattr(self._memory, "tensor", None)
        if kept is None or len(kept) < floats:
            kept = self._memory.tensor = torch.empty(floats, device="cpu", dtype=torch.float32)
        return cast(Tensor, kept)

    def _run(
        self, x: Tensor, places: Tensor | None, size: Size, kernels: Tensor, outputs: int, *, relu: bool, pools: bool
    ) -> Pooled:
        """The output, and where it `pools` the winners, else an empty tensor. Raises MemoryError."""
        channels_last = torch.channels_last
        batch, channels = x.shape[:2]
        x = x.contiguous(memory_format=channels_last)
        places = places.contiguous(memory_format=channels_last) if places is not None else None
        shape = (batch, outputs, *(pooled_size(size) if pools else size))
        out = torch.empty(shape, device="cpu", dtype=torch.float32, memory_format=channels_last)
        winners = torch.empty(shape if pools else (0, 0, 0, 0), device="cpu", dtype=torch.uint8, memory_format=channels_last)
        pointers = (x, places, kernels, out, winners if pools else None)
        threads = torch.get_num_threads()
        failed = self._convolve(
            *(tensor.data_ptr() if tensor is not None else None for tensor in pointers),
            *(batch, *size, channels, outputs, relu, kernels.dtype == torch.bfloat16, threads),
            self._parallel,
        )
        if failed:
            raise MemoryError("no memory for the buffers of a convolution")
        return Pooled(out, winners)


class Found(NamedTuple):
    """The kernel, or why there is none."""

    kernel: Kernel | None
    text: str  # what it was compiled for, or why there is none


@cache
def find_kernel() -> Found:
    """The kernel for this processor, compiled unless an earlier process did.

    Where it cannot be compiled or computes wrongly, prints a note; where it is off or is not made for the processor, it does not.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    if os.environ.get("SEGNET_NATIVE") == "0":
        return Found(None, "SEGNET_NATIVE=0 turns it off")
    if capability not in _INSTRUCTIONS:
        return Found(None, f"it is made for AVX2 and AVX-512, torch uses {capability} here")
    try:
        return Found(open_kernel(), f"compiled for {capability}")
    except (NativeError, OSError, RuntimeError, AttributeError) as error:
        text = printable(first_line(error) if str(error) else type(error).__name__)
    if is_main():
        print(f"note: float32 convolutions are torch's, which are slower: {text}", file=sys.stderr)
    return Found(None, text)


def open_kernel() -> Kernel:
    """The kernel from the cache folder; where that has none that works, it is compiled into it.

    Raises NativeError, or OSError where the compiler cannot be started or the disk is full.
    """
    command = [*_compiler(), *_words("SEGNET_NATIVE_FLAGS"), *_FLAGS]
    capability = torch.backends.cpu.get_cpu_capability()
    command += _INSTRUCTIONS[capability]
    if capability == "AVX512" and "avx512_bf16" in processor_features():
        command += _BFLOAT16_INSTRUCTIONS
    folder = _cache_folder()
    path = folder / f"native-{_key(command)}.so"
    if path.exists():
        try:
            require_digest(path)  # first: to load a library of which a part is missing ends the process
            return _checked(path)
        except (UserError, NativeError, OSError, AttributeError):
            pass  # damaged: it is replaced
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(suffix=".so", prefix=".native-", dir=folder)
    except OSError as error:
        found = f"{folder}: {error.strerror}; let XDG_CACHE_HOME name a folder that can be written"
        raise NativeError(found) from None
    os.close(descriptor)
    temporary = Path(name)
    try:
        _compile([*command, os.fspath(SOURCE), "-o", name])
        with temporary.open("rb+") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.write(DIGEST_MARK + digest.encode())
        kernel = _checked(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return kernel


def _cache_folder() -> Path:
    """$XDG_CACHE_HOME/segnet, or ~/.cache/segnet where that is not a whole path. Raises NativeError without a home folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (cache if cache.is_absolute() else Path.home() / ".cache") / "segnet"
    except RuntimeError:
        raise NativeError("there is no home folder; let XDG_CACHE_HOME name a folder that can be written") from None


def is_faster(x: Tensor, outputs: int, size: Size) -> bool:
    """True where the kernel is faster than torch for a map of `size`, computed from x, with so many output channels."""
    tiles = x.shape[0] * -(-size[0] // 4) * -(-size[1] // 4)
    return tiles >= _FEWEST_TILES and x.shape[1] * outputs >= _FEWEST_PAIRS


def training_is_faster(x: Tensor, outputs: int) -> bool:
    """`is_faster` in a training step, where the weights are transformed each time, for a map of the size of x."""
    return _tiles(x) >= _FEWEST_TILES_IN_TRAINING and x.shape[1] >= _FEWEST_CHANNELS and x.shape[1] * outputs >= _FEWEST_PAIRS


def gradient_is_faster(x: Tensor, outputs: int) -> bool:
    """True where the gradient of the weights is computed faster than by torch, from x and so many output channels."""
    return _tiles(x) >= _FEWEST_TILES_OF_GRADIENT and x.shape[1] * outputs >= _FEWEST_PAIRS


def _tiles(x: Tensor) -> int:
    """The number of tiles of 4×4 pixels in a (B, C, H, W) batch."""
    return x.shape[0] * -(-x.shape[2] // 4) * -(-x.shape[3] // 4)


def is_usable(x: Tensor, weight: Tensor, *, autocast: bool = False) -> bool:
    """True where the kernel computes what torch would: float32 on a CPU, without gradients or compilation.

    With `autocast` it does so under autocast alone, where x may be bfloat16, too. In torch's deterministic mode torch's own
    operations are used, as everywhere.
    """
    return (
        x.device.type == "cpu"
        and x.dtype in ((torch.float32, torch.bfloat16) if autocast else (torch.float32,))
        and weight.dtype == torch.float32
        and x.numel() > 0
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        and torch.is_autocast_enabled("cpu") == autocast
        and not torch.compiler.is_compiling()
        and not torch.are_deterministic_algorithms_enabled()
    )


def find_compiler() -> str:
    """The command of the C++ compiler, or that there is none."""
    try:
        return shlex.join(_compiler())
    except NativeError as error:
        return str(error)


def _compiler() -> list[str]:
    """The command of the C++ compiler: $CXX, or the first that is found. Raises NativeError."""
    named = _words("CXX")
    for name in [named[0]] if named else _COMPILERS:
        if found := shutil.which(name):
            return [found, *named[1:]]
    raise NativeError(f"no C++ compiler ({named[0]}, from CXX)" if named else f"no C++ compiler ({', '.join(_COMPILERS)})")


def _words(variable: str) -> list[str]:
    """The words of a variable of the environment, split as by a shell. Raises NativeError."""
    try:
        return shlex.split(os.environ.get(variable, ""))
    except ValueError as error:
        raise NativeError(f"{variable}: {error}") from None


def _key(command: list[str]) -> str:
    """A digest of the source, the compiler and its flags."""
    compiler = os.stat(command[0])  # of the file itself, where links lead to one
    identity = repr((command, compiler.st_size, compiler.st_mtime_ns)).encode()
    return hashlib.sha256(SOURCE.read_bytes() + identity).hexdigest()[:16]


def _compile(command: list[str]) -> None:
    """Run the compiler. Raises NativeError with its first error."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as compiler:
        try:
            messages = _messages_of(compiler, command[0])
        except subprocess.TimeoutExpired:
            raise NativeError(f"{command[0]} took longer than {_SECONDS} seconds") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(compiler.pid, signal.SIGKILL)  # a compiler starts others, which hold the pipe
    if compiler.returncode:
        lines = [line for line in messages if "error" in line] or messages
        reason = lines[0] if lines else f"it ended with {compiler.returncode}"
        raise NativeError(f"{command[0]} cannot compile {SOURCE.name}: {reason}")


def _messages_of(compiler: subprocess.Popen[str], name: str) -> list[str]:
    """The lines that a compiler prints until it ends, with a note where it takes long. Raises subprocess.TimeoutExpired."""
    try:
        return compiler.communicate(timeout=_SECONDS_WITHOUT_NOTE)[1].splitlines()
    except subprocess.TimeoutExpired:
        if is_main():
            text = f"{name} still compiles {SOURCE.name}, once for all; it is given up after {_SECONDS} seconds"
            print(f"note: {printable(text)} (SEGNET_NATIVE=0 leaves it out)", file=sys.stderr, flush=True)
    return compiler.communicate(timeout=_SECONDS - _SECONDS_WITHOUT_NOTE)[1].splitlines()


def _checked(path: Path) -> Kernel:
    """The kernel at `path`. Raises NativeError unless it computes what torch computes, on a small map with odd sides."""
    kernel = Kernel(path)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 9, 7, generator=generator, device="cpu", dtype=torch.float32)
    weight = torch.randn(11, 6, 3, 3, generator=generator, device="cpu", dtype=torch.float32)
    bias = torch.randn(11, generator=generator, device="cpu", dtype=torch.float32)
    kernels, pooled = kernel.transform(weight, bias), max_pool(x)
    found = kernel.convolve(x, kernels, 11, relu=True)
    found_pooled = kernel.convolve_and_pool(x, kernels, 11, relu=True)
    found_unpooled = kernel.unpool_and_convolve(pooled, (9, 7), kernels, 11, relu=True)
    agree = [
        _agree(found, x, weight, bias),
        _agree(found_unpooled, max_unpool(*pooled, (9, 7)), weight, bias),
        all(map(torch.equal, found_pooled, max_pool(found))),
    ]
    expected = torch.ops.aten.convolution_backward(
        *(found.double(), x.double(), weight.double(), [11], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True] * 3)
    )
    found_x = kernel.convolve(found, kernel.transform(weight.transpose(0, 1), None, flipped=True), 6, relu=False)
    agree += map(_close, (found_x, *kernel.kernel_gradient(x, found)), expected)
    if kernel.has_bfloat16:
        found = kernel.convolve(x, kernel.transform(weight, bias, dtype=torch.bfloat16), 11, relu=True)
        agree.append(_agree(found, x, weight, bias, tolerance=0.05))
    if not all(agree):
        raise NativeError("the compiled kernel computes wrongly")
    return kernel


def _agree(found: Tensor, x: Tensor, weight: Tensor, bias: Tensor, tolerance: float = 1e-4) -> bool:
    """True where `found` is the convolution of x, with ReLU, up to rounding."""
    return _close(found, F.conv2d(x.double(), weight.double(), bias.double(), padding=1).relu(), tolerance)


def _close(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> bool:
    """True where both are equal up to rounding: to so much of the largest value."""
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())


def _parallel() -> int | None:
    """The address of the function that runs another in the threads of torch's OpenMP. Raises NativeError without one."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        function = ctypes.CDLL(os.fspath(library)).GOMP_parallel  # also looks in the libraries that it was linked with
    except (OSError, AttributeError):
        raise NativeError("this build of torch has no OpenMP that can be shared") from None
    return ctypes.cast(function, ctypes.c_void_p).value
