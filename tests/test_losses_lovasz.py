"""Lovász-softmax against its definition, against the IoU of certain answers, and where float32 has few digits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segnet.config.sections import LossConfig
from segnet.losses import CrossEntropy, WithLovasz, lovasz_softmax
from segnet.tasks.segmentation import criterion_of


def by_definition(probabilities: Tensor, mask: Tensor) -> float:
    """Of one picture, (K, H, W) and (H, W): the IoU of each set of wrong pixels is counted anew."""
    scored = mask != 255
    losses = []
    for k in set(mask[scored].tolist()):
        truth = [number for number, value in enumerate(mask[scored].tolist()) if value == k]
        values = probabilities[k][scored].tolist()
        errors = [1 - value if number in truth else value for number, value in enumerate(values)]
        order = sorted(range(len(errors)), key=lambda number: -errors[number])
        ious = [1.0]
        for end in range(1, len(order) + 1):
            found = set(truth) ^ set(order[:end])
            ious.append(len(found & set(truth)) / len(found | set(truth)))
        losses.append(sum(errors[number] * (ious[i] - ious[i + 1]) for i, number in enumerate(order)))
    return sum(losses) / len(losses) if losses else 0.0


@pytest.mark.parametrize("seed", range(5))
def test_it_equals_its_definition(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(4, 4, 5, 6, generator=generator, dtype=torch.float64)
    mask = torch.randint(0, 4, (4, 5, 6), generator=generator).byte()
    mask[0][mask[0] == 2] = 1  # a class that this picture does not have
    mask[1][torch.rand(5, 6, generator=generator) < 0.4] = 255
    mask[2] = 255
    mask[3] = 0
    expected = [by_definition(*pair) for pair in zip(logits.softmax(dim=1), mask, strict=True)]
    assert lovasz_softmax(logits, mask).tolist() == pytest.approx(expected, abs=1e-12)
    assert expected[2] == 0 < min(expected[0], expected[1], expected[3])


def test_of_certain_answers_it_is_one_minus_the_mean_iou() -> None:
    truth = torch.tensor([[[0, 0, 1, 1, 1, 255]], [[0, 0, 0, 0, 0, 0]]], dtype=torch.uint8)
    found = torch.tensor([[[0, 1, 1, 1, 0, 0]], [[0, 0, 2, 0, 0, 0]]])
    logits = 100 * F.one_hot(found, 3).movedim(-1, 1).double()
    expected = [1 - (1 / 3 + 2 / 4) / 2, 1 - 5 / 6]
    assert lovasz_softmax(logits, truth).tolist() == pytest.approx(expected)
    criterion = WithLovasz(cross_entropy=CrossEntropy(), fraction=1)
    assert criterion(logits, truth).item() == pytest.approx((5 * expected[0] + 6 * expected[1]) / 11)


def test_float32_keeps_its_digits_in_a_large_picture() -> None:
    """Differences of two IoUs of 200,000 pixels would be wrong by a hundredth of each pixel's weight."""
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(1, 400, 500, generator=generator) < 0.01).byte()
    logits = torch.randn(1, 2, 400, 500, generator=generator, dtype=torch.float64).requires_grad_()
    gradients = {}
    for dtype in (torch.float32, torch.float64):
        given = logits.detach().float().to(dtype).requires_grad_()
        gradients[dtype] = torch.autograd.grad(lovasz_softmax(given, mask).sum(), given)[0].double()
    error = (gradients[torch.float32] - gradients[torch.float64]).abs()
    assert (error <= 1e-4 * gradients[torch.float64].abs() + 1e-12).double().mean() > 0.999


def test_the_configuration_says_its_fraction() -> None:
    weight = torch.ones(3)
    criterion = criterion_of(LossConfig(lovasz=0.25, label_smoothing=0.1), weight)
    assert isinstance(criterion, WithLovasz)
    assert criterion.fraction == 0.25
    assert criterion.cross_entropy.smoothing == 0.1
    assert criterion.cross_entropy.weight is weight
    assert isinstance(criterion_of(LossConfig(), None), CrossEntropy)
    with pytest.raises(ValueError, match="label_smoothing: a part of cross-entropy, of which lovasz: 1 leaves nothing"):
        LossConfig(lovasz=1, label_smoothing=0.1)
