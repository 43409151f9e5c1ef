"""One path from picture to probabilities: size, averaging, and independence from the mode the model was in."""

import json
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers import model_config, needs_compiler

from segnet.config.loading import override_config
from segnet.config.sections import InferenceConfig, ModelConfig
from segnet.inference import answers
from segnet.inference.answers import choose_windows, predict_maps, predict_probabilities, prepare_to_predict
from segnet.models.compilation import CompiledPerSize
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.models.initialization import build_model
from segnet.models.inspection import decoder_activations
from segnet.system.devices import Precision


def in_float32(**changes) -> InferenceConfig:
    """How to infer, with the same arithmetic on every processor."""
    return InferenceConfig(precision="float32", **changes)


@pytest.fixture
def model(tiny_config):
    torch.manual_seed(0)
    return build_model(tiny_config.model, 3)


def picture(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scales", [(1.0,), (0.5,), (0.5, 1.0, 1.5)])
@pytest.mark.parametrize("size", [(1, 1), (1, 13), (20, 17)])
def test_probabilities_have_the_pictures_size_and_sum_to_one(model, scales, size):
    probabilities = predict_probabilities(model, picture(*size), in_float32(scales=scales, flip=True))
    assert probabilities.shape == (1, 3, *size)
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(1, *size))


def test_a_single_view_is_the_softmax_of_the_network_in_evaluation_mode(model):
    image = picture(20, 17)
    model.train()
    found = predict_probabilities(model, image, in_float32())
    assert not model.training
    with torch.no_grad():
        torch.testing.assert_close(found, model(image).softmax(dim=1))


@needs_compiler
def test_a_compiled_network_predicts_the_same_at_any_number_of_sizes(monkeypatch, capsys):
    """Stages of equal channels: inductor gets them wrong where it folds batch normalisation into deconvolutions itself."""
    monkeypatch.setattr(CompiledPerSize, "LIMIT", 2)
    stages = {"encoder": [{"widths": [8]}, {"widths": [8]}], "decoder": [{"widths": [8]}, {"widths": [8]}]}
    model = build_model(ModelConfig.model_validate_json(json.dumps(stages)), 3)
    with torch.no_grad():
        model(torch.cat([picture(16, 16)] * 4))  # so that batch normalisation has seen something
    torch._dynamo.utils.counters.clear()
    networks = [prepare_to_predict(model, in_float32(compile=compiled)) for compiled in (False, True)]
    for batch, size in ((1, (17, 24)), (3, (16, 13)), (1, (9, 11)), (1, (17, 24)), (2, (5, 5))):
        image = torch.cat([picture(*size)] * batch)
        eager, compiled = (predict_probabilities(network, image, in_float32()) for network in networks)
        torch.testing.assert_close(compiled, eager)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    assert capsys.readouterr().err.count("compiled for 2 sizes; others run uncompiled") == 1


def test_a_network_that_cannot_be_compiled_runs_uncompiled_and_says_so(model, monkeypatch, capsys):
    def refuse(*_):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr("torch.compile", partial(torch.compile, backend=refuse))
    compiled, image = CompiledPerSize(model.eval()), torch.rand(1, 3, 16, 16)
    for _ in range(2):
        assert torch.equal(compiled(image), model(image))
    assert capsys.readouterr().err.count("cannot compile the network, which now runs uncompiled") == 1


def test_auto_is_what_the_device_computes_fast(model, monkeypatch):
    image = picture(20, 17)
    for name in ("float32", "bfloat16"):
        monkeypatch.setattr(answers, "choose_precision", lambda asked, device, name=name: Precision(name, ""))
        network = prepare_to_predict(model, InferenceConfig())
        assert network.head.weight.dtype == getattr(torch, name)
        found = predict_probabilities(network, image, InferenceConfig())
        monkeypatch.undo()
        expected = predict_probabilities(
            prepare_to_predict(model, InferenceConfig(precision=name)), image, InferenceConfig(precision=name)
        )
        assert torch.equal(found, expected)


def test_views_are_averaged(model):
    image = picture(20, 18)
    found = predict_probabilities(model, image, in_float32(scales=(1.0, 0.5), flip=True))
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
    image, config = picture(16, 16), in_float32(flip=True)
    mirrored = predict_probabilities(model, image.flip(-1), config)
    torch.testing.assert_close(mirrored, predict_probabilities(model, image, config).flip(-1))


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
    first = predict_maps(bayesian, image, in_float32(dropout_samples=5), probabilities=True)
    torch.rand(7)  # what was drawn before does not matter
    again = predict_maps(bayesian, image, in_float32(dropout_samples=5), probabilities=True)
    assert all(map(torch.equal, first, again))
    torch.testing.assert_close(first.probabilities.sum(dim=1), torch.ones(1, 20, 17))
    assert first.variance.shape == (1, 20, 17)
    assert first.variance.max() > 1e-4


def test_bayesian_segnet_drops_in_six_places():
    model = EncoderDecoder(model_config("bayesian_segnet"), 2)
    assert [dropout.p for dropout in model.encoder_dropout] == [0, 0, 0.5, 0.5, 0.5]
    assert [stage[-1].p for stage in model.decoder] == [0.5, 0.5, 0.5, 0, 0]


def test_mean_and_variance_are_those_of_single_samples(bayesian):
    """An independent computation: dropout switched on by hand, one seeded pass per sample."""
    image = picture(12, 12)
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
    predict_probabilities(bayesian, picture(16, 16), in_float32(dropout_samples=3))
    assert all(torch.equal(before[name], value) for name, value in bayesian.state_dict().items())
    assert not any(module.training for module in bayesian.modules())


def test_dropout_is_off_without_samples(bayesian):
    image = picture(16, 16)
    found = predict_maps(bayesian, image, in_float32(), probabilities=True)
    assert found.variance is found.mutual_information is None
    with torch.no_grad():
        torch.testing.assert_close(found.probabilities, bayesian.eval()(image).softmax(dim=1))


def test_activations_through_the_decoder_start_sparse_and_are_filled_in(model):
    stages = decoder_activations(model, picture(20, 17))
    assert [stage.upsampled.shape for stage in stages] == [(8, 10, 9), (4, 20, 17)]
    assert [stage.deconvolved.shape for stage in stages] == [(4, 10, 9), (4, 20, 17)]
    for stage in stages:
        windows = F.pad(stage.upsampled, (0, 1, 0, 1)).unfold(1, 2, 2).unfold(2, 2, 2)
        assert (windows != 0).sum(dim=(-1, -2)).max() <= 1, "unpooling places at most one value in each window"


# ---- Windows --------------------------------------------------------------------------------------------------------


def trained_network(tiny_config, upsampling: str):
    """A network with batch statistics of its own, so that every pixel's answer is its own."""
    torch.manual_seed(0)
    model = build_model(override_config(tiny_config, [f"model.upsampling={upsampling}"]).model, 3).train()
    for _ in range(3):
        model(picture(64, 64))
    return model.eval()


@pytest.fixture
def trained(tiny_config):
    model = trained_network(tiny_config, "unpool")
    assert model.field_of_view == 10
    return model


@pytest.mark.parametrize("size", [(150, 131), (97, 300), (40, 411), (7, 200), (64, 64), (65, 64)])
@pytest.mark.parametrize("window", [64, 80])
def test_windows_give_what_the_whole_picture_gives(trained, monkeypatch, size, window):
    monkeypatch.setattr(answers, "FADE", 2)  # overlap 24, of which 10 pixels on each side are the other's
    whole = predict_maps(trained, picture(*size), in_float32(), probabilities=True)
    config = in_float32(window=window)
    if window == 80:
        config = in_float32(window=window, overlap=40)
    assert choose_windows(trained, size, config).margin == 10
    cut = predict_maps(trained, picture(*size), config, probabilities=True)
    torch.testing.assert_close(cut.probabilities, whole.probabilities, rtol=0, atol=1e-6)
    torch.testing.assert_close(cut.entropy, whole.entropy, rtol=0, atol=1e-5)
    assert (cut.mask != whole.mask).sum() == 0


@pytest.mark.parametrize("upsampling", ["unpool", "bilinear", "deconvolution"])
@pytest.mark.parametrize("width", [221, 222, 223, 224])
def test_mirrored_windows_give_what_the_mirrored_picture_gives(tiny_config, upsampling, width):
    model, config = trained_network(tiny_config, upsampling), in_float32(flip=True)
    whole = predict_maps(model, picture(97, width), config, probabilities=True)
    cut = in_float32(flip=True, window=96, overlap=48)
    assert choose_windows(model, (97, width), cut).margin == model.field_of_view
    found = predict_maps(model, picture(97, width), cut, probabilities=True)
    torch.testing.assert_close(found.probabilities, whole.probabilities, rtol=0, atol=1e-6)
    assert torch.equal(found.mask, whole.mask)


def test_windows_that_see_less_than_the_network_would_are_blended(trained):
    """Neighbours disagree, and the answer goes from one to the other without a jump."""
    image, config = picture(64, 200), in_float32(window=64, overlap=16)
    windows = choose_windows(trained, (64, 200), config)
    assert (windows.size, windows.overlap, windows.margin, windows.fade) == (64, 16, 0, 16)
    found = predict_probabilities(trained, image, config)
    left, right = (predict_probabilities(trained, image[..., s], in_float32()) for s in (slice(0, 64), slice(48, 112)))
    torch.testing.assert_close(found[..., :48], left[..., :48])
    torch.testing.assert_close(found[..., 64:96], right[..., 16:48])
    share = (torch.arange(16) + 0.5) / 16
    torch.testing.assert_close(found[..., 48:64], left[..., 48:] * (1 - share) + right[..., :16] * share)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(1, 64, 200))
    assert (left[..., 48:] - right[..., :16]).abs().max() > 1e-3


def test_large_pictures_are_cut_by_themselves_and_small_ones_are_not(trained):
    assert choose_windows(trained, (1536, 1536), in_float32()).size == 1536
    assert choose_windows(trained, (1, 2_000_000), in_float32()).size == 2_000_000
    cut = choose_windows(trained, (1537, 1537), in_float32())
    assert (cut.size, cut.overlap, cut.margin) == (1536, 52, 10)


@pytest.mark.parametrize("changes", [{"scales": (0.5, 1.0)}, {"dropout_samples": 30}])
def test_views_and_samples_of_windows_are_near_those_of_the_whole(bayesian, changes):
    image = picture(96, 224).float().mean(dim=1, keepdim=True).expand(1, 3, 96, 224)
    whole = predict_maps(bayesian, image, in_float32(**changes), probabilities=True)
    cut = predict_maps(bayesian, image, in_float32(**changes, window=96), probabilities=True)
    torch.testing.assert_close(cut.probabilities.sum(dim=1), torch.ones(1, 96, 224))
    assert (cut.probabilities - whole.probabilities).abs().mean() < 0.05
    if whole.variance is not None:
        assert 0.5 < cut.variance.mean() / whole.variance.mean() < 2
        assert 0.5 < cut.mutual_information.mean() / whole.mutual_information.mean() < 2


def test_a_full_gpu_gets_smaller_windows(trained, monkeypatch, capsys):
    """As if the GPU had room for 360×360 pixels."""
    values = answers._values

    def limited(model, whole, config, rule, rows, columns):
        if (rows.stop - rows.start) * (columns.stop - columns.start) > 360 * 360:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return values(model, whole, config, rule, rows, columns)

    image = picture(700, 500)
    whole = predict_maps(trained, image, in_float32())
    monkeypatch.setattr(answers, "_values", limited)
    cut = predict_maps(trained, image, in_float32())
    assert torch.equal(cut.mask, whole.mask)
    assert "windows of 352 pixels" in capsys.readouterr().err
