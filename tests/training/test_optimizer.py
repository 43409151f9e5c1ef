"""Groups of parameters, and the moving average of the weights."""

import pytest
import torch

from segnet.config.sections import OptimConfig
from segnet.models.initialization import build_model
from segnet.training.optimizer import build_ema, build_optimizer


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
    ema = build_ema(model, 0.5)
    expected = None
    for step, value in enumerate([4.0, 8.0, 0.0, 2.0]):
        torch.nn.init.constant_(model.weight, value)
        ema.update_parameters(model)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert ema.module.weight.item() == pytest.approx(expected)
