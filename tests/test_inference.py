"""One path from picture to probabilities: size, averaging, and independence from the mode the model was in."""

import pytest
import torch
import torch.nn.functional as F
from helpers import model_config

from segnet.config import InferenceConfig, override_config
from segnet.inference import decoder_activations, predict_probabilities
from segnet.models import EncoderDecoder, build_model


@pytest.fixture
def model(tiny_config):
    torch.manual_seed(0)
    return build_model(tiny_config.model, 3)


def picture(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scales", [(1.0,), (0.5,), (0.5, 1.0, 1.5)])
@pytest.mark.parametrize("size", [(1, 1), (1, 13), (20, 17)])
def test_probabilities_have_the_pictures_size_and_sum_to_one(model, scales, size):
    probabilities = predict_probabilities(model, picture(*size), InferenceConfig(scales=scales, flip=True)).mean
    assert probabilities.shape == (1, 3, *size)
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(1, *size))


def test_a_single_view_is_the_softmax_of_the_network_in_evaluation_mode(model):
    image = picture(20, 17)
    model.train()
    found = predict_probabilities(model, image, InferenceConfig()).mean
    assert not model.training
    with torch.no_grad():
        torch.testing.assert_close(found, model(image).softmax(dim=1))


def test_views_are_averaged(model):
    image = picture(20, 18)
    found = predict_probabilities(model, image, InferenceConfig(scales=(1.0, 0.5), flip=True)).mean
    with torch.no_grad():
        small = F.interpolate(image.float(), (10, 9), mode="bilinear", antialias=True)
        views = [
            model(image),
            model(image.flip(-1)).flip(-1),
            F.interpolate(model(small), (20, 18), mode="bilinear"),
            F.interpolate(model(small.flip(-1)), (20, 18), mode="bilinear").flip(-1),
        ]
    torch.testing.assert_close(found, torch.stack([v.softmax(dim=1) for v in views]).mean(dim=0))


def test_mirroring_the_picture_mirrors_the_answer_when_flips_are_averaged(model):
    image, config = picture(16, 16), InferenceConfig(flip=True)
    mirrored = predict_probabilities(model, image.flip(-1), config).mean
    torch.testing.assert_close(mirrored, predict_probabilities(model, image, config).mean.flip(-1))


# ---- Monte-Carlo dropout --------------------------------------------------------------------------------------------


@pytest.fixture
def bayesian(tiny_config):
    """A network with dropout whose batch statistics are not the initial ones."""
    torch.manual_seed(0)
    config = override_config(tiny_config, ["model.encoder=[{widths: [4]}, {widths: [8], dropout: 0.5}]"])
    model = build_model(config.model, 3).train()
    model(picture(32, 32))
    return model


def test_samples_are_seeded_and_averaged(bayesian):
    image = picture(20, 17)
    first = predict_probabilities(bayesian, image, InferenceConfig(dropout_samples=5))
    torch.rand(7)  # what was drawn before does not matter
    again = predict_probabilities(bayesian, image, InferenceConfig(dropout_samples=5))
    assert torch.equal(first.mean, again.mean)
    torch.testing.assert_close(first.mean.sum(dim=1), torch.ones(1, 20, 17))
    assert first.variance is not None
    assert first.variance.shape == (1, 20, 17)
    assert first.variance.max() > 1e-4


def test_bayesian_segnet_drops_in_six_places():
    model = EncoderDecoder(model_config("bayesian_segnet"), 2)
    assert [dropout.p for dropout in model.encoder_dropout] == [0, 0, 0.5, 0.5, 0.5]
    assert [stage[-1].p for stage in model.decoder] == [0.5, 0.5, 0.5, 0, 0]


def test_mean_and_variance_are_those_of_single_samples(bayesian):
    """An independent computation: dropout switched on by hand, one seeded pass per sample."""
    image = picture(12, 12)
    found = predict_probabilities(bayesian, image, InferenceConfig(dropout_samples=4))
    passes = []
    for module in bayesian.eval().modules():
        if isinstance(module, torch.nn.Dropout):
            module.train()
    for seed in range(4):
        torch.manual_seed(seed)
        passes.append(bayesian(image).softmax(dim=1).detach())
    torch.testing.assert_close(found.mean, torch.stack(passes).mean(dim=0))
    expected = torch.stack(passes).var(dim=0, correction=0).mean(dim=1)
    torch.testing.assert_close(found.variance, expected, rtol=1e-3, atol=1e-6)


def test_batch_normalisation_keeps_its_statistics_while_dropout_is_on(bayesian):
    before = {name: value.clone() for name, value in bayesian.state_dict().items()}
    predict_probabilities(bayesian, picture(16, 16), InferenceConfig(dropout_samples=3))
    assert all(torch.equal(before[name], value) for name, value in bayesian.state_dict().items())
    assert not any(module.training for module in bayesian.modules())


def test_dropout_is_off_without_samples(bayesian):
    image = picture(16, 16)
    found = predict_probabilities(bayesian, image, InferenceConfig())
    assert found.variance is None
    with torch.no_grad():
        torch.testing.assert_close(found.mean, bayesian.eval()(image).softmax(dim=1))


def test_activations_through_the_decoder_start_sparse_and_are_filled_in(model):
    stages = decoder_activations(model, picture(20, 17))
    assert [stage.upsampled.shape for stage in stages] == [(8, 10, 9), (4, 20, 17)]
    assert [stage.deconvolved.shape for stage in stages] == [(4, 10, 9), (4, 20, 17)]
    for stage in stages:
        windows = F.pad(stage.upsampled, (0, 1, 0, 1)).unfold(1, 2, 2).unfold(2, 2, 2)
        assert (windows != 0).sum(dim=(-1, -2)).max() <= 1, "unpooling places at most one value in each window"
