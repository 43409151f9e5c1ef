"""Training in less memory: the forward pass keeps a few tensors, and the backward pass computes the others again from them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call


@contextmanager
def recomputing(network: nn.Module, kept: Collection[nn.Module]) -> Iterator[None]:
    """A context for one forward pass of `network`: of all activations, only the inputs of the `kept` modules stay in memory.

    The network must be a chain: its modules without children run one after the other, the first argument of each is the first
    output of the one before, and no other operation stands between them. Their other arguments, such as skips, stay in memory,
    too. Nothing may change these or a kept input in place.
    Gradients, batch statistics and dropout are those without recomputation, bit for bit if the operations are deterministic.
    """
    recording = _Recording(kept)
    hooks = [module.register_forward_pre_hook(recording.begin) for module in network.modules()]
    try:
        with saved_tensors_hooks(recording.forget, _recall):
            yield
    finally:
        for hook in hooks:
            hook.remove()


class _Recording:
    """The spans of one forward pass: each kept input starts a new one."""

    def __init__(self, kept: Collection[nn.Module]) -> None:
        self.kept = kept
        self.span: _Span | None = None

    def begin(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Record a call of `module`, before it runs."""
        x, *arguments = inputs
        if self.span is None or module in self.kept:
            self.span = _Span(x)
        if next(module.children(), None) is None:
            draws = isinstance(module, nn.Dropout) and module.p > 0
            others = tuple(argument.detach() if isinstance(argument, Tensor) else argument for argument in arguments)
            self.span.steps.append(_Step(module, others, _random_state(x.device) if draws else None))

    def forget(self, tensor: Tensor) -> tuple[_Span, int]:
        """The span and number of a tensor that autograd saves, in its place."""
        assert self.span is not None
        self.span.saved += 1
        return self.span, self.span.saved - 1


def _recall(saved: tuple[_Span, int]) -> Tensor:
    """The tensor that `_Recording.forget` replaced."""
    span, number = saved
    return span.recall(number)


class _Complete(Exception):
    """All saved tensors exist again; the last step need not be finished."""


class _Span:
    """Consecutive steps and the tensor that they start from. What the steps save is computed again when autograd asks for it."""

    def __init__(self, start: Tensor) -> None:
        self.start = start.detach().requires_grad_(start.requires_grad)
        self.steps: list[_Step] = []
        self.saved = 0
        self.again: dict[int, Tensor] = {}
        device = start.device.type
        self.autocast = torch.autocast(device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))

    def recall(self, number: int) -> Tensor:
        if number not in self.again:
            self.again = self._recompute()
        return self.again.pop(number)

    def _recompute(self) -> dict[int, Tensor]:
        """All tensors that the steps saved, by number.

        A convolution at the end of a span is not computed again: torch saves its input first, and then all is complete. The
        exceptions are the two autograd functions of `layers.convolution`, whose inputs torch saves after the call.
        """
        again: dict[int, Tensor] = {}

        def save(tensor: Tensor) -> Tensor:
            again[len(again)] = tensor.detach()
            if len(again) == self.saved:
                raise _Complete
            return tensor.new_empty(0)  # nothing runs backward through this second graph

        with suppress(_Complete), torch.enable_grad(), self.autocast, saved_tensors_hooks(save, lambda empty: empty):
            x = self.start
            for step in self.steps:
                x = step.repeat(x)
        return again


class _Step(NamedTuple):
    """A call of a module: its arguments after x, and the state of the random numbers before it if it draws any."""

    module: nn.Module
    arguments: tuple[object, ...]
    random_state: Tensor | None

    def repeat(self, x: Tensor) -> Tensor:
        """The first output of the module for x."""
        if self.random_state is None:
            output = self._call(x)
        else:
            with torch.random.fork_rng([x.device] if x.is_cuda else []):
                _set_random_state(x.device, self.random_state)
                output = self._call(x)
        return output if isinstance(output, Tensor) else output[0]

    def _call(self, x: Tensor) -> Any:
        buffers = {name: buffer.clone() for name, buffer in self.module.named_buffers()}  # so that no statistic is updated twice
        if not buffers:
            return self.module(x, *self.arguments)
        return functional_call(self.module, buffers, (x, *self.arguments))


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
