"""The criterion against torch's cross-entropy and brute-force loops, and class weights against the published numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from helpers import ROOT
from torch import Tensor

from segnet.classes import CAMVID
from segnet.data.dataset import SegmentationDataset
from segnet.data.statistics import class_statistics
from segnet.losses import CrossEntropy, WithLovasz, enet_weights, median_frequency_weights

REAL_DATA = ROOT.parent / "shared" / "data"
WEIGHT = torch.tensor([0.5, 1.0, 2.0, 0.0])
CRITERIA = {
    "plain": CrossEntropy(),
    "weighted": CrossEntropy(weight=WEIGHT),
    "smoothed": CrossEntropy(weight=WEIGHT, smoothing=0.1),
    "lovasz": WithLovasz(cross_entropy=CrossEntropy(), fraction=1),
    "with lovasz": WithLovasz(cross_entropy=CrossEntropy(weight=WEIGHT, smoothing=0.1), fraction=0.3),
}
every_criterion = pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA.keys())


def some_batch(pictures: int = 4) -> tuple[Tensor, Tensor]:
    """float64 logits and a mask whose pictures have more and fewer ignored pixels; the third has nothing but such."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(pictures, 4, 5, 6, generator=generator, dtype=torch.float64)
    mask = torch.randint(0, 4, (pictures, 5, 6), generator=generator).to(torch.uint8)
    mask[0][mask[0] == 2] = 1  # a class that this picture does not have
    mask[torch.rand(mask.shape, generator=generator) < torch.tensor([0.1, 0.5, 1.1, 0.3]).view(4, 1, 1)[:pictures]] = 255
    return logits, mask


def with_gradient(criterion: CrossEntropy, logits: Tensor, mask: Tensor, counts: Tensor | None = None) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    loss = criterion(logits, mask, counts)
    return loss.detach(), torch.autograd.grad(loss, logits)[0]


def moved(criterion: CrossEntropy, device: str) -> CrossEntropy:
    """`criterion`, and those that it is made of, with their tensors on a device."""
    values = {field.name: getattr(criterion, field.name) for field in fields(criterion)}
    tensors = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
    parts = {name: moved(value, device) for name, value in values.items() if is_dataclass(value)}
    return replace(criterion, **tensors, **parts)


@pytest.mark.parametrize("size", [1, 2, 4])
@every_criterion
def test_the_parts_of_a_batch_add_up_to_the_whole(criterion, size):
    logits, mask = some_batch()
    loss, gradient = with_gradient(criterion, logits, mask)
    pieces = list(zip(logits.split(size), mask.split(size), strict=True))
    counts = sum(criterion.counts(part) for _, part in pieces)
    parts = [with_gradient(criterion, *piece, counts) for piece in pieces]
    torch.testing.assert_close(sum(part for part, _ in parts), loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.cat([part for _, part in parts]), gradient, rtol=1e-12, atol=1e-12)
    assert loss > 0.1


@every_criterion
def test_ignored_pixels_change_nothing_and_have_no_gradient(criterion):
    logits, mask = some_batch()
    loss, gradient = with_gradient(criterion, logits, mask)
    assert (gradient.movedim(1, -1)[mask == 255] == 0).all()
    assert (gradient.movedim(1, -1)[mask != 255] != 0).any()
    elsewhere = torch.where((mask == 255)[:, None], 100 * logits.flip(1), logits)
    torch.testing.assert_close(criterion(elsewhere, mask), loss)


@every_criterion
def test_an_all_ignored_batch_is_zero_not_nan(criterion):
    logits, mask = some_batch()
    for counts in (None, criterion.counts(mask)):
        loss, gradient = with_gradient(criterion, logits, torch.full_like(mask, 255), counts)
        assert loss == 0
        assert (gradient == 0).all()


@every_criterion
def test_the_gradient_is_that_of_the_loss(criterion):
    logits, mask = some_batch(2)
    assert torch.autograd.gradcheck(lambda logits: criterion(logits, mask), logits.requires_grad_())


@every_criterion
def test_half_precision_is_summed_in_single(criterion):
    logits, mask = some_batch()
    expected = criterion(logits.bfloat16().float(), mask)
    assert torch.equal(criterion(logits.bfloat16(), mask), expected)
    assert expected.dtype == torch.float32


@pytest.fixture
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_deterministic")
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@every_criterion
def test_deterministic_mode_refuses_nothing(criterion, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    criterion = moved(criterion, device)
    logits, mask = (tensor.to(device) for tensor in some_batch())
    first, second = (with_gradient(criterion, logits, mask) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


@every_criterion
def test_nothing_waits_for_the_device(criterion):
    """Tensors without values: whatever looks at one raises."""
    logits, mask = (tensor.to("meta") for tensor in some_batch())
    assert with_gradient(moved(criterion, "meta"), logits, mask)[1].shape == logits.shape


def test_counts_by_hand():
    mask = torch.tensor([[[0, 0, 1, 255]], [[255, 255, 255, 255]], [[2, 2, 2, 2]]], dtype=torch.uint8)
    weight = torch.tensor([1.0, 4.0, 0.5])
    assert CrossEntropy().counts(mask).item() == 7
    assert CrossEntropy(weight=weight).counts(mask).item() == 8


@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_torchs_mean_over_scored_pixels(weight, smoothing):
    logits, mask = some_batch()
    double = None if weight is None else weight.double()
    expected = F.cross_entropy(logits, mask.long(), double, ignore_index=255, label_smoothing=smoothing)
    torch.testing.assert_close(CrossEntropy(weight=weight, smoothing=smoothing)(logits, mask), expected)


def test_a_certain_right_answer_costs_nothing():
    """Logits go in, not probabilities: a softmax before the loss would leave 0.55 here."""
    logits = torch.tensor([[50.0, 0.0, 0.0]]).view(1, 3, 1, 1)
    assert CrossEntropy()(logits, torch.zeros(1, 1, 1, dtype=torch.uint8)).item() < 1e-6


def test_weights_by_hand():
    weights = median_frequency_weights([10, 40, 0], [100, 100, 0])
    assert weights.tolist() == pytest.approx([2.5, 0.625, 0.0])
    assert median_frequency_weights([10, 40], [100, 100], power=0.5).tolist() == pytest.approx([2.5**0.5, 0.625**0.5])


def test_enet_weights_by_hand():
    assert enet_weights([10, 30, 0]).tolist() == pytest.approx([1 / math.log(1.27), 1 / math.log(1.77), 0.0])
    assert enet_weights([10, 30], power=0.5).tolist() == pytest.approx([math.log(1.27) ** -0.5, math.log(1.77) ** -0.5])
    assert enet_weights([0, 0]).tolist() == [0, 0]


@pytest.mark.skipif(not (REAL_DATA / "camvid").exists(), reason="CamVid is not on this machine")
def test_camvids_weights_are_the_known_ones():
    counted = class_statistics(SegmentationDataset(REAL_DATA / "camvid", "train", CAMVID))
    weights = median_frequency_weights(counted.pixels, counted.pixels_of_pictures)
    known = [0.2793, 0.2017, 4.7865, 0.1490, 1.0, 0.4217, 3.8467, 1.9736, 0.7889, 6.3747, 8.8587]
    assert [round(w, 4) for w in weights.tolist()] == known


@pytest.mark.skipif(not (REAL_DATA / "voc").exists(), reason="Pascal VOC is not on this machine")
def test_vocs_class_order_is_ours():
    """The published pixel counts name person (15) as the most frequent class after background."""
    pixels = json.loads((REAL_DATA / "voc" / "official_train_class_stats.json").read_text())["pixels"]
    assert sorted(range(21), key=lambda k: -pixels[k])[:2] == [0, 15]
