"""Training in less memory: the backward pass keeps a few tensors and computes the rest again from them.

A network is a chain of steps. `apply` takes a step; `Recomputation` takes it too, but forgets what autograd would save of it
until the backward pass asks. Then it takes the same steps once more, from the last tensor that was kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

Operation = Callable[..., Any]  # a module or a function; of several outputs, the first goes on to the next


def apply(operation: Operation, x: Tensor, *arguments: object) -> Any:
    """`operation(x, *arguments)`: autograd saves what it wants."""
    return operation(x, *arguments)


class Recomputation:
    """Used in place of `apply` on each step of one forward pass: of all tensors, the inputs of `kept` alone stay in memory.

    Each step's x is what the step before gave; a sequence counts as the steps that are its members. Nothing may change a
    kept input in place. Gradients, batch statistics and dropout are those of `apply`, bit for bit where the operations give
    the same bits every time.
    """

    def __init__(self, kept: Collection[nn.Module]) -> None:
        self._kept = kept
        self._span: _Span | None = None

    def __call__(self, operation: Operation, x: Tensor, *arguments: object) -> Any:
        if self._span is None or operation in self._kept:
            self._span = _Span(x)
        if type(operation) is nn.Sequential:
            for member in operation:
                x = self(member, x)
            return x
        return self._span.run(operation, x, *arguments)


class _Complete(Exception):
    """Everything that was saved is there again; the last operation need not be finished."""


class _Span:
    """Steps in a row, and the tensor that they start from. What they save is a number until the backward pass wants it."""

    def __init__(self, start: Tensor) -> None:
        self.start = start.detach().requires_grad_(start.requires_grad)
        self.steps: list[_Step] = []
        self.saved = 0
        self.again: dict[int, Tensor] = {}
        device = start.device.type
        self.autocast = torch.autocast(device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))

    def run(self, operation: Operation, x: Tensor, *arguments: object) -> Any:
        draws = isinstance(operation, nn.Dropout) and operation.p > 0
        self.steps.append(_Step(operation, arguments, _random_state(x.device) if draws else None))
        with saved_tensors_hooks(self._forget, self._recall):
            return operation(x, *arguments)

    def _forget(self, tensor: Tensor) -> int:
        self.saved += 1
        return self.saved - 1

    def _recall(self, number: int) -> Tensor:
        if number not in self.again:
            self.again = self._recompute()
        return self.again.pop(number)

    def _recompute(self) -> dict[int, Tensor]:
        """All that the steps saved, in order. A convolution saves its input before it computes, so a last one costs nothing."""
        again: dict[int, Tensor] = {}

        def remember(tensor: Tensor) -> Tensor:
            again[len(again)] = tensor.detach()
            if len(again) == self.saved:
                raise _Complete
            return tensor.new_empty(0)  # nobody goes back through this second graph

        with suppress(_Complete), torch.enable_grad(), self.autocast, saved_tensors_hooks(remember, lambda empty: empty):
            x = self.start
            for step in self.steps:
                x = step.repeat(x)
        return again


class _Step(NamedTuple):
    """What was done once, and the state of the random numbers before it if it draws any."""

    operation: Operation
    arguments: tuple[object, ...]
    random_state: Tensor | None

    def repeat(self, x: Tensor) -> Tensor:
        if self.random_state is None:
            output = self._call(x)
        else:
            with torch.random.fork_rng([x.device] if x.is_cuda else []):
                _set_random_state(x.device, self.random_state)
                output = self._call(x)
        return output if isinstance(output, Tensor) else output[0]

    def _call(self, x: Tensor) -> Any:
        if not isinstance(self.operation, nn.Module) or not (buffers := dict(self.operation.named_buffers())):
            return self.operation(x, *self.arguments)
        copies = {name: buffer.clone() for name, buffer in buffers.items()}  # so that no statistic is updated twice
        return functional_call(self.operation, copies, (x, *self.arguments))


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
