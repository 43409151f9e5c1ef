"""The numbers of the papers, and what the stages of a decoder do."""

import pytest
import torch.nn.functional as F
from helpers import model_config
from small_networks import noise_image

from segnet.models.inspection import decoder_activations, summarize


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [("segnet", (360, 480), "106.7"), ("segnet", (224, 224), "30.9"), ("segnet_basic", (360, 480), "59.2")],
)
def test_multiply_adds_are_the_known_ones(name, size, expected):
    parts = summarize(model_config(name), 11, size)
    assert f"{sum(part.multiply_adds for part in parts) / 1e9:.1f}" == expected


def test_winners_of_a_camvid_picture_take_five_megabytes():
    assert sum(part.winner_bytes for part in summarize(model_config("segnet"), 11, (360, 480))) == 5_283_840


def test_activations_through_the_decoder_start_sparse_and_are_filled_in(model):
    stages = decoder_activations(model, noise_image(20, 17))
    assert [stage.upsampled.shape for stage in stages] == [(8, 10, 9), (4, 20, 17)]
    assert [stage.deconvolved.shape for stage in stages] == [(4, 10, 9), (4, 20, 17)]
    for stage in stages:
        windows = F.pad(stage.upsampled, (0, 1, 0, 1)).unfold(1, 2, 2).unfold(2, 2, 2)
        assert (windows != 0).sum(dim=(-1, -2)).max() <= 1, "unpooling places at most one value in each window"
