"""The memory that a forward pass keeps for the backward pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from segnet.benchmarks.timing import Report
from segnet.system.devices import autocast


def forward_in(network: nn.Module, image: Tensor, precision: str) -> Tensor:
    with autocast(image.device, precision):
        return network(image)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages made inside that are still alive, but for those of `known` tensors."""

    def __init__(self, *known: Tensor) -> None:
        super().__init__()
        self.known = {StorageWeakRef(tensor.untyped_storage()) for tensor in known}
        self.storages: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for output in result if isinstance(result, tuple | list) else [result]:
            if isinstance(output, Tensor):
                self.storages[StorageWeakRef(output.untyped_storage())] = output.untyped_storage().nbytes()
        return result

    def count(self) -> int:
        return sum(size for storage, size in self.storages.items() if not storage.expired() and storage not in self.known)


def saved_bytes(network: nn.Module, image: Tensor, precision: str) -> int:
    """What stands in memory between forward and backward, besides weights, pictures and logits."""
    with LiveBytes(image, *network.parameters(), *network.buffers()) as live:
        logits = forward_in(network, image, precision)
    return live.count() - logits.untyped_storage().nbytes()


def saved_facts(network: nn.Module, image: Tensor, precision: str) -> Report:
    """Per picture: what a third one adds to two. A compiler plans memory where this count cannot see it."""
    if hasattr(network, "_orig_mod"):
        return {"saved_bytes": None}
    two, three = (saved_bytes(network, image[[0] * count], precision) for count in (2, 3))
    return {"saved_bytes": three - two}
