"""The memory that a forward pass keeps for the backward pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from segnet.benchmarks.timing import Facts
from segnet.models.compilation import CompiledPerSize
from segnet.system.devices import autocast


class LiveBytes(TorchDispatchMode):
    """A count of the bytes of the storages that are made inside and still alive, without those of the `known` tensors."""

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
        """The bytes of the new storages that are still alive."""
        return sum(size for storage, size in self.storages.items() if not storage.expired() and storage not in self.known)


def saved_bytes(network: nn.Module, image: Tensor, precision: str) -> int:
    """The bytes in memory between forward and backward pass, without weights, images and logits."""
    with LiveBytes(image, *network.parameters(), *network.buffers()) as live, autocast(image.device, precision):
        logits = network(image)
    return live.count() - logits.untyped_storage().nbytes()


def saved_facts(network: nn.Module, image: Tensor, precision: str) -> Facts:
    """`saved_bytes` per image: those of three minus those of two. None for a compiled network, whose buffers are not counted."""
    if isinstance(network, CompiledPerSize):
        return {"saved_bytes": None}
    two, three = (saved_bytes(network, image[[0] * count], precision) for count in (2, 3))
    return {"saved_bytes": three - two}
