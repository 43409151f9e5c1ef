"""The networks against the papers' parameter counts and against a plain composition of torch operations."""

import pytest
import torch
import torch.nn.functional as F
from helpers import model_config
from small_networks import SMALL, narrow
from torch import nn

from segnet.benchmarks.plain import PlainEncoderDecoder
from segnet.config.sections import NormalizationConfig
from segnet.export import largest_difference, trace
from segnet.models.encoder_decoder import EncoderDecoder, StridedDeconvolution, Unpooling, Winners
from segnet.models.folding import fold
from segnet.models.initialization import build_model
from segnet.models.inspection import summarize


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("segnet", 11, 29_449_355),
        ("segnet", 21, 29_455_125),
        ("segnet_basic", 11, 1_416_587),
        ("bayesian_segnet", 11, 29_449_355),
        ("deconvnet", 21, 251_805_653),
    ],
)
def test_parameter_counts_are_the_published_ones(name, classes, expected):
    with torch.device("meta"):
        model = EncoderDecoder(model_config(name), classes)
    assert sum(p.numel() for p in model.parameters()) == expected
    assert sum(part.parameters for part in summarize(model_config(name), classes, (64, 64))) == expected


@pytest.mark.parametrize(
    ("name", "layers", "norms", "strides"),
    [
        ("red10", 10, 0, 1),
        ("red20", 20, 0, 1),
        ("red30", 30, 0, 1),
        ("denoise_pool1", 12, 11, 2),
        ("denoise_pool2", 12, 11, 4),
        ("denoise_pool3", 12, 11, 8),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_parameters_of_networks_of_64_maps(name, layers, norms, strides, channels):
    """3×3 kernels and a bias for each map; the first and last layer see or give the picture's channels."""
    with torch.device("meta"):
        model = EncoderDecoder(model_config(name), channels, channels)
    ends = (9 * channels + 1) * 64 + (9 * 64 + 1) * channels
    assert sum(p.numel() for p in model.parameters()) == ends + (layers - 2) * (9 * 64 + 1) * 64 + norms * 2 * 64
    assert model.total_stride == strides


def test_rednets_skips_span_two_four_and_more_layers():
    """The outputs of convolutions 2, 4, … of RED30 are added to those of deconvolutions 13, 11, …, which have their place."""
    model = EncoderDecoder(model_config("red30"), 1)
    starts = [sum(len(stage) for stage in model.encoder[: number + 1]) for number in range(8)]
    assert starts == [2, 4, 6, 8, 10, 12, 14, 15]
    ends = [sum(len(stage) - 1 for stage in model.decoder[: 7 - number]) for number in range(8)]  # each ends with a dropout
    assert ends == [13, 11, 9, 7, 5, 3, 1, 0]
    assert model.has_skip == (*[True] * 7, False)  # the last map would be added to itself


@pytest.mark.parametrize("name", ["red10", "denoise_pool2"])
def test_a_skip_carries_what_the_lower_layers_do_not(name):
    """Where all layers of the decoder but the last give zeros, the output depends on the image through the first skip alone."""
    torch.manual_seed(0)
    config = narrow(model_config(name))
    images = torch.randint(0, 256, (2, 3, 8, 8)).float()

    def same(config):
        model = build_model(config, 3).eval()
        for stage in model.decoder[:-1]:
            for parameter in stage.parameters():
                nn.init.zeros_(parameter)
        return torch.equal(*model(images))

    assert not same(config)
    assert same(config.model_copy(update={"skips": "none"}))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("segnet", (37, 50)),
        ("segnet_basic", (37, 50)),
        ("bayesian_segnet", (37, 50)),
        ("deconvnet", (224, 251)),
        ("segnet_basic_bilinear", (19, 33)),
        ("segnet_basic_deconvolution", (19, 33)),
        ("denoise_pool3", (19, 33)),
        ("red10", (9, 14)),
    ],
)
def test_forward_and_backward_equal_a_plain_composition(name, size):
    torch.manual_seed(0)
    config = narrow(model_config(name))
    model = build_model(config, 5).double()
    plain = PlainEncoderDecoder(config, 5).double()
    plain.load_state_dict(model.state_dict())
    for module in (*model.modules(), *plain.modules()):
        if isinstance(module, nn.Dropout):
            module.eval()
    image = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    upstream = torch.randn(2, 5, *size, dtype=torch.float64)
    outputs = [network(image) for network in (model, plain)]
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)
    for output in outputs:
        (output * upstream).sum().backward()
    expected = dict(plain.named_parameters())
    for parameter_name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[parameter_name].grad, rtol=1e-6, atol=1e-8)
    for buffer_name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, plain.get_buffer(buffer_name))


@pytest.mark.parametrize("output", ["image", "residual"])
def test_an_image_has_the_scale_of_the_input(output):
    config = SMALL.model_copy(update={"output": output})
    model, plain = build_model(config, 3).double().eval(), PlainEncoderDecoder(config, 3).double().eval()
    plain.load_state_dict(model.state_dict())
    image = torch.randint(0, 256, (2, 3, 9, 14), dtype=torch.uint8)
    torch.testing.assert_close(model(image), plain(image))
    nn.init.zeros_(model.head.weight)
    expected = image if output == "residual" else model.normalize.mean.expand_as(image)  # where the head gives zeros
    torch.testing.assert_close(model(image), expected, check_dtype=False)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (15, 17), (33, 31)])
def test_any_input_size_gives_logits_of_that_size(size):
    model = build_model(SMALL, 7).eval()
    assert model(torch.zeros(2, 3, *size, dtype=torch.uint8)).shape == (2, 7, *size)


def test_the_winners_matter():
    """Moving the maxima inside their windows moves the output: the indices are used."""
    torch.manual_seed(0)
    model = build_model(SMALL, 3).eval()
    image = torch.randint(0, 256, (1, 3, 16, 16)).float()
    mirrored_windows = image.unflatten(3, (8, 2)).flip(4).flatten(3)
    a, b = model(image), model(mirrored_windows)
    assert (a - b).abs().max() > 1e-3


def test_uint8_and_float_pictures_give_the_same_logits():
    model = build_model(SMALL, 3).eval()
    image = torch.randint(0, 256, (1, 3, 12, 12), dtype=torch.uint8)
    assert torch.equal(model(image), model(image.float()))


@pytest.mark.parametrize("channels", [1, 5])
def test_an_image_may_have_any_number_of_channels(channels):
    normalization = NormalizationConfig.model_construct(mean=(120.0,) * channels, std=(60.0,) * channels, local_response=False)
    config = SMALL.model_copy(update={"normalization": normalization})
    model = build_model(config, 3, channels).eval()
    plain = PlainEncoderDecoder(config, 3, channels).eval()
    plain.load_state_dict(model.state_dict())
    image = torch.randint(0, 256, (2, channels, 9, 14), dtype=torch.uint8)
    torch.testing.assert_close(model(image), plain(image), rtol=1e-3, atol=1e-3)
    assert model.in_channels == channels
    assert summarize(config, 3, (16, 16), channels)[0].parameters == sum(p.numel() for p in model.encoder[0].parameters())
    program = trace(fold(model)).module(check_guards=False)
    assert largest_difference(fold(model), program, smallest=model.total_stride) < 1e-3


def test_no_parameter_is_shared_or_idle():
    model = build_model(SMALL, 3)
    model(torch.randint(0, 256, (1, 3, 16, 16)).float()).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert len({p.data_ptr() for p in model.parameters()}) == len(list(model.parameters()))


def test_logits_can_be_negative():
    """No ReLU after the head: without it half of the logits of a fresh network are below zero."""
    torch.manual_seed(0)
    logits = build_model(SMALL, 8)(torch.randint(0, 256, (1, 3, 32, 32)).float())
    assert 0.2 < (logits < 0).float().mean() < 0.8


@pytest.mark.parametrize("size", [(1, 1), (32, 200), (224, 224), (230, 97)])
def test_deconvnet_takes_any_size(size):
    model = build_model(narrow(model_config("deconvnet")), 4).eval()
    assert model(torch.zeros(1, 3, *size, dtype=torch.uint8)).shape == (1, 4, *size)


@pytest.mark.parametrize("name", ["segnet_basic_bilinear", "segnet_basic_deconvolution"])
@pytest.mark.parametrize("size", [(16, 16), (19, 33)])
def test_ablations_forget_the_winners_and_keep_the_size(name, size):
    model = build_model(narrow(model_config(name)), 4).eval()
    assert not any(isinstance(module, Unpooling) for module in model.modules())
    assert model(torch.zeros(1, 3, *size, dtype=torch.uint8)).shape == (1, 4, *size)


def test_a_learnt_upsampling_starts_as_bilinear_interpolation():
    x = torch.randn(1, 3, 6, 7)
    ours = StridedDeconvolution(3)(x, Winners(torch.empty(0), (12, 14)))
    theirs = F.interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(ours[..., 1:-1, 1:-1], theirs[..., 1:-1, 1:-1])


def test_bayesian_segnet_drops_in_six_places():
    model = EncoderDecoder(model_config("bayesian_segnet"), 2)
    assert [dropout.p for dropout in model.encoder_dropout] == [0, 0, 0.5, 0.5, 0.5]
    assert [stage[-1].p for stage in model.decoder] == [0.5, 0.5, 0.5, 0, 0]
