"""One path from picture to probabilities: size, views, samples of dropout, and independence from the mode the model was in."""

import pytest
import torch
import torch.nn.functional as F
from small_networks import in_float32, noise_image

from segnet.config.sections import InferenceConfig
from segnet.inference import precision
from segnet.inference.answers import predict_maps, predict_probabilities, prepare_to_predict
from segnet.models.native_blocks import NativeConvolution
from segnet.system.devices import Precision


@pytest.mark.parametrize("scales", [(1.0,), (0.5,), (0.5, 1.0, 1.5)])
@pytest.mark.parametrize("size", [(1, 1), (1, 13), (20, 17)])
def test_probabilities_have_the_pictures_size_and_sum_to_one(model, scales, size):
    probabilities = predict_probabilities(model, noise_image(*size), in_float32(scales=scales, flip="horizontal"))
    assert probabilities.shape == (1, 3, *size)
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(1, *size))


def test_a_single_view_is_the_softmax_of_the_network_in_evaluation_mode(model):
    image = noise_image(20, 17)
    model.train()
    found = predict_probabilities(model, image, in_float32())
    assert not model.training
    with torch.no_grad():
        torch.testing.assert_close(found, model(image).softmax(dim=1))


def test_auto_is_what_the_device_computes_fast(model, monkeypatch):
    image = noise_image(20, 17)
    for name in ("float32", "bfloat16"):
        monkeypatch.setattr(precision, "choose_inference_precision", lambda *_, name=name: Precision(name, ""))
        network = prepare_to_predict(model, InferenceConfig())
        head = network.head
        assert (head.dtype if isinstance(head, NativeConvolution) else head.weight.dtype) == getattr(torch, name)
        found = predict_probabilities(network, image, InferenceConfig())
        monkeypatch.undo()
        expected = predict_probabilities(
            prepare_to_predict(model, InferenceConfig(precision=name)), image, InferenceConfig(precision=name)
        )
        assert torch.equal(found, expected)


def test_views_are_averaged(model):
    image = noise_image(20, 18)
    found = predict_probabilities(model, image, in_float32(scales=(1.0, 0.5), flip="horizontal"))
    with torch.no_grad():
        small = F.interpolate(image.float(), (10, 9), mode="bilinear", antialias=True)
        views = [
            model(image),
            model(image.flip(-1)).flip(-1),
            F.interpolate(model(small), (20, 18), mode="bilinear"),
            F.interpolate(model(small.flip(-1)), (20, 18), mode="bilinear").flip(-1),
        ]
    torch.testing.assert_close(found, torch.stack([v.softmax(dim=1) for v in views]).mean(dim=0))


def test_eight_views_are_averaged(model):
    """Against turns and mirrorings of the whole picture, in another order and with another formula."""
    image = noise_image(20, 18)
    found = predict_probabilities(model, image, in_float32(flip="dihedral"))
    with torch.no_grad():
        turned = [model(image.rot90(turns, (2, 3))).rot90(-turns, (2, 3)) for turns in range(4)]
        mirrored = [model(image.flip(-1).rot90(turns, (2, 3))).rot90(-turns, (2, 3)).flip(-1) for turns in range(4)]
    torch.testing.assert_close(found, torch.stack([v.softmax(dim=1) for v in (*turned, *mirrored)]).mean(dim=0))


@pytest.mark.parametrize("flip", ["horizontal", "dihedral"])
def test_mirroring_the_picture_mirrors_the_answer_when_flips_are_averaged(model, flip):
    image, config = noise_image(16, 16), in_float32(flip=flip)
    mirrored = predict_probabilities(model, image.flip(-1), config)
    torch.testing.assert_close(mirrored, predict_probabilities(model, image, config).flip(-1))
    if flip == "dihedral":
        turned = predict_probabilities(model, image.rot90(1, (2, 3)), config)
        torch.testing.assert_close(turned, predict_probabilities(model, image, config).rot90(1, (2, 3)))


def test_samples_are_seeded_and_averaged(bayesian):
    image = noise_image(20, 17)
    first = predict_maps(bayesian, image, in_float32(dropout_samples=5), probabilities=True)
    torch.rand(7)  # what was drawn before does not matter
    again = predict_maps(bayesian, image, in_float32(dropout_samples=5), probabilities=True)
    assert all(map(torch.equal, first, again))
    torch.testing.assert_close(first.probabilities.sum(dim=1), torch.ones(1, 20, 17))
    assert first.variance.shape == (1, 20, 17)
    assert first.variance.max() > 1e-4


def test_mean_and_variance_are_those_of_single_samples(bayesian):
    """An independent computation: dropout switched on by hand, one seeded pass per sample."""
    image = noise_image(12, 12)
    found = predict_maps(bayesian, image, in_float32(dropout_samples=4), probabilities=True)
    passes = []
    for module in bayesian.eval().modules():
        if isinstance(module, torch.nn.Dropout):
            module.train()
    for seed in range(4):
        torch.manual_seed(seed)
        passes.append(bayesian(image).softmax(dim=1).detach().double())
    samples = torch.stack(passes)  # (samples, B, K, H, W)
    mean = samples.mean(dim=0)
    close = {"rtol": 1e-3, "atol": 1e-6, "check_dtype": False}
    torch.testing.assert_close(found.probabilities, mean, **close)
    torch.testing.assert_close(found.variance, samples.var(dim=0, correction=0).mean(dim=1), **close)
    entropy = -(mean * mean.log()).sum(dim=1)
    torch.testing.assert_close(found.entropy, entropy, **close)
    divergence = (samples * (samples / mean).log()).sum(dim=2).mean(dim=0)  # of the samples from their mean
    assert divergence.max() > 1e-3
    torch.testing.assert_close(found.mutual_information, divergence, rtol=1e-3, atol=1e-5, check_dtype=False)


def test_batch_normalisation_keeps_its_statistics_while_dropout_is_on(bayesian):
    before = {name: value.clone() for name, value in bayesian.state_dict().items()}
    predict_probabilities(bayesian, noise_image(16, 16), in_float32(dropout_samples=3))
    assert all(torch.equal(before[name], value) for name, value in bayesian.state_dict().items())
    assert not any(module.training for module in bayesian.modules())


def test_dropout_is_off_without_samples(bayesian):
    image = noise_image(16, 16)
    found = predict_maps(bayesian, image, in_float32(), probabilities=True)
    assert found.variance is found.mutual_information is None
    with torch.no_grad():
        torch.testing.assert_close(found.probabilities, bayesian.eval()(image).softmax(dim=1))
