"""A pretended GPU on a machine without one, and the rules that the program has to keep on it.

A tensor on `cuda` is a fake tensor of torch: it has shape, type, strides and device, and no values. Tensors on the CPU are real.
Operations on fake tensors run no kernel, so this shows which operations run, on what and in which layout. It does not show
numbers, speed, the algorithms that cuDNN chooses, streams, the use of memory, NCCL and DDP.

It needs private names of torch: see `missing_names`.
"""

from __future__ import annotations

import contextlib
import heapq
import linecache
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import segnet

GPU = torch.device("cuda", 0)
PACKAGE = str(Path(segnet.__file__).parent)
STEPS = {"train_step", "to_device", "Training.train"}  # in these functions the host must not wait for the GPU, except in reports
REPORTS = {f"Training.{name}" for name in ("_require_finite", "_validate", "_save")} | {"Reporter.start", "Reporter.progress"}
NOT_DETERMINISTIC = (
    "max_unpool",
    "upsample_bilinear2d_backward",
    "reflection_pad2d_backward",
    "put_",
    "histc",
    "kthvalue",
    "median",
    "avg_pool2d_backward",
)
IN_CHANNELS_LAST = ("convolution", "native_batch_norm", "cudnn_batch_norm", "relu", "native_dropout", "threshold_backward")
SMALL = 64  # pixels, up to which the layout does not matter
ONLY_WRITING = ("copy_.", "zero_.", "fill_.", "new_zeros", "new_full", "zeros_like", "ones_like", "full_like")
WITHOUT_KERNEL = ("empty", "new_empty", "detach", "lift", "prim.")  # beside views


def missing_names() -> list[str]:
    """The private names of torch that this file needs and that this version of torch lacks."""
    needed = {
        "torch._C": ("_ensureCUDADeviceGuardSet", "_set_only_lift_cpu_tensors", "_select_conv_backend", "_ConvBackend"),
        "torch._subclasses.fake_tensor": ("FakeTensor", "FakeTensorMode"),
        "torch.utils._python_dispatch": ("_disable_current_modes",),
    }
    missing = []
    for module, names in needed.items():
        with contextlib.suppress(ImportError):
            __import__(module)
        missing += [f"{module}.{name}" for name in names if not hasattr(sys.modules.get(module), name)]
    node = torch.ones((), requires_grad=True).exp().grad_fn
    return missing + [f"Node.{name}" for name in ("_input_metadata", "_sequence_nr") if not hasattr(node, name)]


class PretendedGpu(TorchDispatchMode):
    """While it is entered, tensors can be made on `cuda`. `findings` are the rules that were broken, in words."""

    def __init__(self) -> None:
        super().__init__()
        from torch._subclasses.fake_tensor import FakeTensorMode

        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.findings = set[str]()
        self.convolutions_in: torch.dtype | None = None  # the type in which convolutions have to compute
        self.any_layout = False  # channels_last is not required
        self.waits = 0  # of the host for the GPU, in steps of training
        self.pooling_launches = 0  # kernels of pooling and unpooling, forward and backward
        self.pooling_bytes = 0  # that these read and write, each tensor once

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        from torch.utils._python_dispatch import _disable_current_modes

        kwargs = kwargs or {}
        name = str(func).removeprefix("aten.")
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        device = kwargs.get("device") or (inputs[0].device if inputs else "cpu")
        target = torch.device(device).type
        if target != "cuda" and not any(tensor.is_cuda for tensor in inputs):
            with _disable_current_modes():
                return func(*args, **kwargs)
        if name.startswith(("_local_scalar_dense", "is_nonzero", "equal.")):
            self.wait("reads a number")
            return {torch.bool: True, torch.float32: 1.0, torch.float64: 1.0}.get(inputs[0].dtype, -1)
        if name.startswith(("copy_.", "_to_copy.")):
            source = args[1] if name.startswith("copy_") else args[0]
            waits = not (kwargs.get("non_blocking") or args[2:] == (True,))
            if target == "cpu":
                return self._copy_back(source, args[0] if name.startswith("copy_") else None, kwargs.get("dtype"), waits)
            if waits and not source.is_cuda:
                self.wait("a blocking copy to the GPU")
        if name.startswith(("nonzero", "masked_select", "unique")) or (name.startswith("index") and _has_mask(args[1])):
            self.wait("counts what a mask selects")
        if name.startswith("index") and target == "cpu":  # torch refuses it, its fakes do not
            raise RuntimeError(f"{name}: a CPU tensor meets an index on the GPU")
        self._require_deterministic(name, args)
        if name.startswith("_fused_"):
            self._require_fused(name, args, kwargs)
        made = None if name.startswith("_fused_sgd") else self._run(func, args, kwargs)  # torch has no fake of fused SGD
        self._require_layout_and_type(name, args, made)
        self._count(func, name, inputs, made)
        return made

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The fake result of an operation. Torch's fakes raise RuntimeError where a CPU tensor meets one of the GPU."""
        from torch._subclasses.fake_tensor import FakeTensor

        def as_fake(leaf: object) -> object:
            return self.fake.from_tensor(leaf) if isinstance(leaf, Tensor) and not isinstance(leaf, FakeTensor) else leaf

        args, kwargs = tree_map(as_fake, (args, kwargs))
        with self.fake:
            return func(*args, **kwargs)

    def _copy_back(self, source: Tensor, target: Tensor | None, dtype: torch.dtype | None, waits: bool) -> Tensor:
        """Zeros on the CPU in place of the values of `source`, into `target` where there is one."""
        from torch.utils._python_dispatch import _disable_current_modes

        if waits:
            self.wait("a copy from the GPU")
        with _disable_current_modes():
            if target is not None:
                return target.zero_()
            return torch.empty_strided(source.shape, source.stride(), dtype=dtype or source.dtype).zero_()

    def wait(self, what: str) -> None:
        """Record that the host waits for the GPU, if it does so in a step of training."""
        frames = list(_package_frames())
        functions = {frame.f_code.co_qualname for frame in frames}
        if functions & STEPS and not functions & REPORTS:
            self.waits += 1
            self._find(f"the host waits: {what}")

    def _find(self, rule: str) -> None:
        """Record a broken rule, with the line of the program that broke it."""
        frame = next(_package_frames(), None)
        if frame is None:
            self.findings.add(rule)
            return
        path = frame.f_code.co_filename
        line = linecache.getline(path, frame.f_lineno).strip()
        self.findings.add(f"{rule} ({path.removeprefix(PACKAGE)[1:]}: {line})")

    def _require_deterministic(self, name: str, args: tuple[Any, ...]) -> None:
        refused = name.startswith(NOT_DETERMINISTIC) or (name.startswith("nll_loss2d_forward") and args[3] != 0)
        if refused and torch.are_deterministic_algorithms_enabled():
            self._find(f"{name} has no deterministic form on a GPU")

    def _require_fused(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The conditions of the kernels of fused optimizers: lists alike in type, device, shape and strides; steps in float32."""
        lists = [argument for argument in args if isinstance(argument, list) and argument]
        steps = list(lists.pop()) if "adam" in name else []
        if kwargs.get("found_inf") is not None:
            steps.append(kwargs["found_inf"])
        wrong = any((step.device, step.dtype) != (GPU, torch.float32) for step in steps)
        wrong = wrong or any(_kind(tensor) != _kind(alike[0]) for alike in zip(*lists, strict=True) for tensor in alike)
        if wrong:
            self._find(f"{name} refuses its tensors")

    def _require_layout_and_type(self, name: str, args: tuple[Any, ...], made: Any) -> None:
        if not name.startswith(IN_CHANNELS_LAST) or any(_is_in(frame, "data/colors.py") for frame in _package_frames()):
            return  # a change of colour and sharpness is no part of the network
        read = args[1] if name.startswith("convolution_backward") else args[0]  # not the gradient of the logits, which is NCHW
        images = [x for x in (read, tree_leaves(made)[0]) if isinstance(x, Tensor) and x.dim() == 4 and x[0, 0].numel() > SMALL]
        if not self.any_layout and not all(x.is_contiguous(memory_format=torch.channels_last) for x in images):
            self._find(f"{name.split('.')[0]} is not in channels_last")
        if name.startswith("convolution") and self.convolutions_in not in (None, args[0].dtype):
            self._find(f"{name.split('.')[0]} computes in {args[0].dtype}")

    def _count(self, func: Any, name: str, inputs: list[Tensor], made: Any) -> None:
        if getattr(func, "is_view", False) or name.startswith(WITHOUT_KERNEL):
            return
        if not any(_is_in(frame, "layers/pooling.py") for frame in _package_frames()):
            return
        arguments = func._schema.arguments
        only_written = inputs[:1] if name.startswith(ONLY_WRITING) else []
        only_written += inputs[-1:] if arguments and arguments[-1].is_out else []
        outputs = [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
        read = {id(tensor): tensor for tensor in inputs if all(tensor is not written for written in only_written)}
        written = {id(tensor): tensor for tensor in outputs}
        self.pooling_launches += 1
        self.pooling_bytes += sum(map(_bytes, [*read.values(), *written.values()]))


def _package_frames() -> Iterator[FrameType]:
    """The running calls of functions of `segnet`, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame:
        if frame.f_code.co_filename.startswith(PACKAGE):
            yield frame
        frame = frame.f_back


def _is_in(frame: FrameType, path: str) -> bool:
    return frame.f_code.co_filename == f"{PACKAGE}/{path}"


def _has_mask(indices: Any) -> bool:
    return any(isinstance(index, Tensor) and index.dtype == torch.bool for index in tree_leaves(indices))


def _kind(tensor: Tensor) -> tuple[Any, ...]:
    """What the tensors of a fused optimizer have to share."""
    strides = [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size != 1]
    return tensor.dtype, tensor.device, tensor.shape, strides


def _bytes(tensor: Tensor) -> int:
    """The bytes of a tensor, with what is repeated by a stride of 0 once."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride else 1
    return count * tensor.element_size()


@torch.no_grad()
def run_backward(root: Tensor) -> None:
    """`Tensor.backward` without the engine of autograd, which needs a driver: the node that was made last runs first."""
    assert root.grad_fn is not None
    gradients: dict[Any, dict[int, Tensor | None]] = defaultdict(dict, {root.grad_fn: {root.output_nr: torch.ones_like(root)}})
    ready: list[tuple[int, int, Any]] = [(0, 0, root.grad_fn)]
    while ready:
        node = heapq.heappop(ready)[2]
        passed = _call(node, gradients.pop(node))
        for (following, number), gradient in zip(node.next_functions, passed, strict=False):
            if following is None or gradient is None:
                continue
            expected = following._input_metadata[number]
            if gradient.device != expected.device:
                raise RuntimeError(f"{following.name()} gets a gradient on {gradient.device}")
            if following not in gradients:
                order = sys.maxsize if "AccumulateGrad" in following.name() else -following._sequence_nr()
                heapq.heappush(ready, (order, id(following), following))
            gradient = gradient.sum_to_size(tuple(expected.shape)).to(expected.dtype)
            earlier = gradients[following].get(number)
            gradients[following][number] = gradient if earlier is None else earlier + gradient


def _call(node: Any, gradients: dict[int, Tensor | None]) -> tuple[Tensor | None, ...]:
    """The gradients that a node of the graph gives, for those of its outputs; zeros replace missing ones where it wants them."""
    function = getattr(node, "apply", None)  # of a subclass of torch.autograd.Function
    for number, expected in enumerate(node._input_metadata):
        if number not in gradients:
            zeros = function is not None and getattr(node, "wants_zeros", True)
            shape = tuple(expected.shape)
            gradients[number] = torch.zeros(shape, dtype=expected.dtype, device=expected.device) if zeros else None
    given = [gradients[number] for number in sorted(gradients)]
    passed = function(*given) if function else node(*given)
    return passed if isinstance(passed, tuple) else (passed,)


@contextlib.contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """The machine seems to have a GPU while the body runs. For a process of its own, since some of it remains in torch."""
    gpu = PretendedGpu()
    functions = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_bf16_supported": lambda including_emulation=True: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda device=None: "pretended GPU",
        "get_device_capability": lambda device=None: (8, 0),
        "max_memory_allocated": lambda device=None: 0,
        "synchronize": lambda device=None: gpu.wait("synchronizes"),
        "empty_cache": lambda: gpu.wait("empties the allocator's cache"),
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "set_rng_state": lambda state, device=None: None,
        "manual_seed_all": lambda seed: None,
        "_lazy_init": lambda: None,
    }
    backends: Any = torch._C._ConvBackend  # type: ignore[attr-defined]

    def choose_backend(*arguments: object, transposed: bool = False, **options: object) -> object:
        return backends.CudnnTranspose if transposed else backends.Cudnn

    def remember(node: Any, wants_zeros: bool) -> None:  # torch keeps it where it cannot be read
        node.wants_zeros = wants_zeros

    with contextlib.ExitStack() as held, warnings.catch_warnings(action="ignore"):
        held.enter_context(mock.patch.multiple(torch.cuda, **functions))
        held.enter_context(mock.patch.object(torch._C, "_select_conv_backend", choose_backend))
        held.enter_context(mock.patch.object(torch.utils, "swap_tensors", lambda a, b: setattr(a, "data", b.data)))
        held.enter_context(mock.patch.object(Tensor, "backward", run_backward))
        held.enter_context(mock.patch.object(torch.autograd.function.FunctionCtx, "set_materialize_grads", remember))
        held.enter_context(mock.patch.object(Tensor, "pin_memory", lambda tensor, *_: tensor))
        held.enter_context(mock.patch.object(torch.accelerator, "current_accelerator", return_value=GPU))
        torch._C._ensureCUDADeviceGuardSet()  # type: ignore[attr-defined]
        torch._C._set_only_lift_cpu_tensors(True)  # type: ignore[attr-defined]
        held.callback(torch._C._set_only_lift_cpu_tensors, False)  # type: ignore[attr-defined]
        held.callback(torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled())
        yield held.enter_context(gpu)
