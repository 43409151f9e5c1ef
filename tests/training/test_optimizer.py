"""Groups of parameters, and the moving average of the weights."""

import pytest
import torch
from helpers import same
from torch import nn
from torch.optim.swa_utils import AveragedModel

from segnet.config.sections import OptimConfig
from segnet.models.initialization import build_model
from segnet.training.optimizer import MovingAverage, build_optimizer


def test_parameter_groups_follow_the_configuration(tiny_config):
    model = build_model(tiny_config.model, 3)
    optimizer = build_optimizer(model, OptimConfig(encoder_lr_factor=0.1, weight_decay=0.3))
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(group_of) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        group = group_of[id(parameter)]
        assert group["lr_factor"] == (0.1 if name.startswith("encoder.") else 1.0)
        assert group["weight_decay"] == (0.3 if "conv.weight" in name or name == "head.weight" else 0.0)


def test_the_moving_average_follows_its_formula():
    model = torch.nn.Linear(1, 1, bias=False)
    ema = MovingAverage(model, 0.5)
    expected = None
    for step, value in enumerate([4.0, 8.0, 0.0, 2.0]):
        torch.nn.init.constant_(model.weight, value)
        ema.update_parameters(model)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert ema.module.weight.item() == pytest.approx(expected)


def averaged_by_torch(model: nn.Module, decay: float) -> AveragedModel:
    def average(averages, values, updates) -> None:
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, values, 1 - min(decay, (1 + int(updates)) / (10 + int(updates))))
        else:
            torch._foreach_copy_(averages, values)

    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)


def test_the_moving_average_has_the_bits_of_torchs_own():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
    ours, theirs = MovingAverage(model, 0.9), averaged_by_torch(model, 0.9)
    for _ in range(30):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(2, 3, 8, 8))  # changes the statistics, and counts the batch
        ours.update_parameters(model)
        theirs.update_parameters(model)
        assert same(ours.state_dict(), theirs.state_dict())
    assert ours.n_averaged == 30
    assert ours.module[1].num_batches_tracked == 30
