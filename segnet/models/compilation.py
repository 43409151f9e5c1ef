"""A network compiled by torch, one program for each size of its input."""

from __future__ import annotations

import sys
from typing import Any, cast

import torch
from torch import Tensor, nn


class CompiledPerSize(nn.Module):
    """A network that torch compiles once for each size of its input, for up to `LIMIT` sizes; other sizes run uncompiled.

    On a GPU the program of a size is recorded as a CUDA graph, which one call launches: the hundreds of launches of a small
    network take the processor longer than the GPU needs to run them. Where torch cannot compile, as without a C++ compiler, all
    sizes run uncompiled, after one warning.

    It is not compiled for all sizes at once. With dynamic=True torch 2.14.1 fails at sorting the strides of pooled activations,
    whose sizes are rounded up ("truth value of Relational"), and with mark_dynamic at their guards ("not simple sympy type").
    Other attributes than a module's are those of the network.
    """

    LIMIT = 8  # torch's own, after which it stops compiling a function

    def __init__(self, network: nn.Module, *, graph: bool = True) -> None:
        """`graph` is off where gradients of several calls add up: those of a graph are overwritten by its next run."""
        super().__init__()
        self.network = network
        self._sizes = set[torch.Size]()
        self._said, self._failed = False, False
        self._program = torch.compile(network.forward, dynamic=False)
        self._recorded = torch.compile(network.forward, dynamic=False, mode="reduce-overhead") if graph else None

    def forward(self, image: Tensor) -> Tensor:
        """The network's output for an image of any size. The first of a size beyond the limit prints a note."""
        if self._failed:
            return cast(Tensor, self.network(image))
        if image.shape not in self._sizes and len(self._sizes) == self.LIMIT:
            self._say_limit()
            return cast(Tensor, self.network(image))
        self._sizes.add(image.shape)
        try:
            if not (self._recorded and image.is_cuda):
                return cast(Tensor, self._program(image))
            torch.compiler.cudagraph_mark_step_begin()
            return cast(Tensor, self._recorded(image).clone())  # the graph's own output is overwritten by its next run
        except torch._dynamo.exc.BackendCompilerFailed as error:  # before anything was computed
            reason = next(line for line in f"{error}\n{type(error).__name__}".splitlines() if line.strip())
            print(f"warning: cannot compile the network, which now runs uncompiled: {reason}", file=sys.stderr)
            self._failed = True
            return cast(Tensor, self.network(image))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("network"), name)

    def _say_limit(self) -> None:
        if not self._said:
            print(f"note: compiled for {self.LIMIT} sizes; others run uncompiled", file=sys.stderr)
        self._said = True
