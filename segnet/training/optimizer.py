"""The optimizer and the moving average of the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from segnet.config.sections import OptimConfig

Tensors = tuple[Tensor, ...] | list[Tensor]


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
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd
    return torch.optim.AdamW(parameters, lr=optim.lr, betas=(optim.momentum, 0.999), fused=True)


def build_ema(model: nn.Module, decay: float) -> AveragedModel:
    """A moving average of weights and batch statistics. Its decay after n updates is min(decay, (1 + n) / (10 + n))."""

    @torch.no_grad()
    def average(averaged: Tensors, current: Tensors, _: Tensor | int) -> None:
        count = int(ema.n_averaged)  # on the CPU; the argument is its copy on the device, and reading it would wait for the GPU
        now = min(decay, (1 + count) / (10 + count))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - now)
        else:
            torch._foreach_copy_(averaged, current)

    ema = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    return ema
