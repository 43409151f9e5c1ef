"""Cross-entropy against torch's, and class weights against the published numbers."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from segnet.classes import CAMVID
from segnet.datasets import SegmentationDataset, class_statistics
from segnet.losses import cross_entropy, median_frequency_weights

REAL_DATA = Path(__file__).parent.parent.parent / "shared" / "data"


def some_batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 5, 6, generator=generator)
    mask = torch.randint(0, 4, (2, 5, 6), generator=generator).to(torch.uint8)
    mask[torch.rand(mask.shape, generator=generator) < 0.3] = 255
    return logits, mask


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 1.0, 2.0, 0.0])])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_torchs_mean_over_scored_pixels(weight, smoothing):
    logits, mask = some_batch()
    expected = F.cross_entropy(logits, mask.long(), weight, ignore_index=255, label_smoothing=smoothing)
    torch.testing.assert_close(cross_entropy(logits, mask, weight=weight, smoothing=smoothing), expected)


def test_ignored_pixels_have_no_gradient():
    logits, mask = some_batch()
    logits.requires_grad_()
    cross_entropy(logits, mask).backward()
    assert (logits.grad.movedim(1, -1)[mask == 255] == 0).all()
    assert (logits.grad.movedim(1, -1)[mask != 255] != 0).any()


def test_an_all_ignored_batch_is_zero_not_nan():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, 4, 4), 255, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_a_certain_right_answer_costs_nothing():
    """Logits go in, not probabilities: a softmax before the loss would leave 0.55 here."""
    logits = torch.tensor([[50.0, 0.0, 0.0]]).view(1, 3, 1, 1)
    assert cross_entropy(logits, torch.zeros(1, 1, 1, dtype=torch.uint8)).item() < 1e-6


def test_weights_by_hand():
    weights = median_frequency_weights([10, 40, 0], [100, 100, 0])
    assert weights.tolist() == pytest.approx([2.5, 0.625, 0.0])
    assert median_frequency_weights([10, 40], [100, 100], power=0.5).tolist() == pytest.approx([2.5**0.5, 0.625**0.5])


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
