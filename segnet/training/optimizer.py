"""The optimizer and the moving average of the weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from segnet.config.sections import OptimConfig


def build_optimizer(model: nn.Module, optim: OptimConfig) -> torch.optim.Optimizer:
    """SGD or AdamW with four groups of parameters: encoder or not, and kernels or others. Weight decay acts on kernels alone."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault((name.startswith("encoder."), parameter.dim() > 1), []).append(parameter)
    parameters = [
        {
            "params": group,
            "lr_factor": optim.encoder_lr_factor if encoder else 1.0,
            "weight_decay": optim.weight_decay if kernel else 0.0,
        }
        for (encoder, kernel), group in groups.items()
    ]
    if optim.name == "sgd":
        sgd = torch.optim.SGD(parameters, lr=optim.lr, momentum=optim.momentum, fused=True)
        if optim.momentum:  # a first step that is skipped would leave torch's own buffers without any value
            for parameter in model.parameters():
                if parameter.requires_grad:
                    sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd
    return torch.optim.AdamW(parameters, lr=optim.lr, betas=(optim.momentum, 0.999), fused=True)


class MovingAverage(AveragedModel):
    """A moving average of weights and batch statistics. Its decay after n updates is min(decay, (1 + n) / (10 + n)).

    The counter of updates is on the CPU. Torch's own method copies it to the GPU in each update, and waits there.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Add the weights and statistics of `model`. The first update copies them."""
        updates = int(self.n_averaged)
        averages, values = _floats_and_counts(self.module), _floats_and_counts(model)
        if updates:
            torch._foreach_lerp_(averages.floats, values.floats, 1 - min(self.decay, (1 + updates) / (10 + updates)))
        else:
            torch._foreach_copy_(averages.floats, values.floats)
        if values.counts:  # a network without batch normalisation has none
            torch._foreach_copy_(averages.counts, values.counts)
        self.n_averaged += 1


class _Tensors(NamedTuple):
    """The parameters and buffers of a network."""

    floats: list[Tensor]
    counts: list[Tensor]  # int64


def _floats_and_counts(model: nn.Module) -> _Tensors:
    tensors = [*model.parameters(), *model.buffers()]
    return _Tensors([t for t in tensors if t.is_floating_point()], [t for t in tensors if not t.is_floating_point()])
