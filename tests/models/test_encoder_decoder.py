"""The networks against the papers' parameter counts and against a plain composition of torch operations."""

import json
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from helpers import model_config
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from segnet.benchmarks.memory import saved_bytes
from segnet.benchmarks.plain import PlainEncoderDecoder
from segnet.config.sections import ModelConfig, NormalizationConfig, Recompute
from segnet.export import largest_difference, trace
from segnet.inference.answers import compute_logits
from segnet.layers.deconvolution import Deconvolution
from segnet.models.encoder_decoder import EncoderDecoder, StridedDeconvolution, Unpooling, Winners
from segnet.models.folding import convert_decoder_weights, fold
from segnet.models.initialization import build_model
from segnet.models.inspection import summarize

SMALL = ModelConfig.model_validate_json(
    '{"encoder": [{"widths": [4, 5]}, {"widths": [6]}], "decoder": [{"widths": [6, 5]}, {"widths": [4]}]}'
)


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
    ("name", "size", "expected"),
    [("segnet", (360, 480), "106.7"), ("segnet", (224, 224), "30.9"), ("segnet_basic", (360, 480), "59.2")],
)
def test_multiply_adds_are_the_known_ones(name, size, expected):
    parts = summarize(model_config(name), 11, size)
    assert f"{sum(part.multiply_adds for part in parts) / 1e9:.1f}" == expected


def test_winners_of_a_camvid_picture_take_five_megabytes():
    assert sum(part.winner_bytes for part in summarize(model_config("segnet"), 11, (360, 480))) == 5_283_840


def narrow(config: ModelConfig) -> ModelConfig:
    """The same architecture at an eighth of its width, so that double precision takes no time."""
    tree = config.model_dump(mode="json")
    for stage in [*tree["encoder"], *tree["decoder"]]:
        stage["widths"] = [max(1, width // 8) for width in stage["widths"]]
    for layer in tree["neck"]:
        layer["width"] //= 8 if layer["operation"] == "deconvolution" else 64
    return ModelConfig.model_validate_json(json.dumps(tree))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("segnet", (37, 50)),
        ("segnet_basic", (37, 50)),
        ("bayesian_segnet", (37, 50)),
        ("deconvnet", (224, 251)),
        ("segnet_basic_bilinear", (19, 33)),
        ("segnet_basic_deconvolution", (19, 33)),
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


def test_a_deconvolution_decoder_loads_as_a_convolution_decoder_and_back():
    torch.manual_seed(0)
    convolution = SMALL.model_copy(update={"decoder_operation": "convolution"})
    original, converted, back = (build_model(config, 3).eval() for config in (SMALL, convolution, SMALL))
    converted.load_state_dict(convert_decoder_weights(original.state_dict(), SMALL, convolution))
    back.load_state_dict(convert_decoder_weights(converted.state_dict(), convolution, SMALL))
    image = torch.randint(0, 256, (1, 3, 13, 22), dtype=torch.uint8)
    assert torch.equal(original(image), converted(image))
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in original.state_dict().items())
    assert any(m.__class__ is Deconvolution for m in original.modules())
    assert not any(m.__class__ is Deconvolution for m in converted.modules())


@pytest.mark.parametrize("operation", ["deconvolution", "convolution"])
def test_a_mirrored_decoder_starts_as_the_transpose_of_its_encoder(operation):
    """<A x, y> = <x, B y> says that B is the transpose of A; all twelve layers of SegNet that have a twin of their shape are."""
    changes = {"decoder_operation": operation, "decoder_weights": "mirrored"}
    model = build_model(narrow(model_config("segnet")).model_copy(update=changes), 4)
    pairs = list(zip(convolutions(model.decoder), reversed(convolutions(model.encoder)), strict=False))  # conv1_1 has none
    assert len(pairs) == 12
    for layer, twin in pairs:
        x, y = torch.randn(1, twin.weight.shape[1], 7, 9), torch.randn(1, twin.weight.shape[0], 7, 9)
        torch.testing.assert_close((twin(x) * y).sum(), (x * layer(y)).sum(), rtol=1e-4, atol=1e-4)
        assert layer.weight.data_ptr() != twin.weight.data_ptr()  # a start in common, then each learns for itself


def test_a_layer_without_a_mirror_of_its_shape_keeps_its_start():
    torch.manual_seed(0)
    fresh = build_model(SMALL, 3)
    torch.manual_seed(0)
    mirrored = build_model(SMALL.model_copy(update={"decoder_weights": "mirrored"}), 3)
    changed = {name for name, value in fresh.state_dict().items() if not torch.equal(value, mirrored.state_dict()[name])}
    assert changed == {"decoder.1.0.conv.weight"}


def convolutions(part):
    return [module for module in part.modules() if isinstance(module, nn.Conv2d | Deconvolution)]


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


def training_step(config: ModelConfig, recompute: Recompute, size: tuple[int, int], precision: torch.dtype) -> dict[str, Tensor]:
    """Loss, gradients and buffers after forward and backward of a network with fixed weights."""
    torch.manual_seed(0)
    model = build_model(config, 5)
    model.recompute = recompute
    image = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        logits = model(image)
    loss = F.cross_entropy(logits.float(), torch.randint(0, 5, (2, *size)))
    loss.backward()
    gradients = {f"gradient of {name}": p.grad for name, p in model.named_parameters()}
    return {"loss": loss.detach(), "next random number": torch.rand(())} | gradients | dict(model.named_buffers())


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("segnet", (37, 50)),
        ("segnet_basic", (37, 50)),
        ("bayesian_segnet", (37, 50)),
        ("deconvnet", (40, 51)),
        ("segnet_basic_bilinear", (19, 33)),
        ("segnet_basic_deconvolution", (19, 33)),
    ],
)
def test_recomputing_changes_no_bit_of_a_training_step(name, size, precision):
    """Gradients, batch statistics and their counter, dropout, and the random numbers that come after."""
    plain, *others = (training_step(narrow(model_config(name)), recompute, size, precision) for recompute in get_args(Recompute))
    for other in others:
        assert plain.keys() == other.keys()
        assert not [key for key, value in plain.items() if not torch.equal(value, other[key])]


def kept_bytes(model: EncoderDecoder, recompute: Recompute, pictures: int) -> int:
    model.recompute = recompute
    return saved_bytes(model, torch.randint(0, 256, (pictures, 3, 64, 80), dtype=torch.uint8), "bfloat16")


def test_each_choice_keeps_what_it_says():
    config = narrow(model_config("segnet"))
    model = build_model(config, 5)
    kept = {
        recompute: kept_bytes(model, recompute, 2) - kept_bytes(model, recompute, 1) for recompute in get_args(Recompute)
    }  # per picture
    *parts, _ = summarize(config, 5, (64, 80))
    areas = [part.shape[1] * part.shape[2] for part in parts]
    widths = [sum(stage.widths) for stage in (*config.encoder, *config.decoder)]
    winners = sum(part.winner_bytes for part in parts)
    outputs = [part.shape[0] * area for part, area in zip(parts[5:-1], areas[5:-1], strict=True)]  # of decoder stages
    assert kept["activations"] == 2 * sum(w * area for w, area in zip(widths, areas, strict=True)) + winners
    assert kept["stages"] == 4 * 3 * 64 * 80 + 2 * winners + 2 * sum(outputs) + winners  # a winner for each pooled value
    assert kept["nothing"] > 2 * kept["activations"] > 6 * kept["stages"]


def test_recomputing_activations_computes_no_convolution_again():
    def flops(recompute: Recompute) -> int:
        with FlopCounterMode(display=False) as counter:
            training_step(SMALL, recompute, (16, 16), torch.bfloat16)
        return counter.get_total_flops()

    assert flops("activations") == flops("nothing") < flops("stages")


@pytest.mark.parametrize("recompute", ["activations", "stages"])
def test_memory_is_a_matter_of_training_alone(recompute):
    model = build_model(SMALL, 3)
    keys = model.state_dict().keys()
    assert kept_bytes(model, recompute, 1) < kept_bytes(model, "nothing", 1)
    assert kept_bytes(model.eval(), recompute, 1) == kept_bytes(model.eval(), "nothing", 1)
    with torch.no_grad():
        assert kept_bytes(model.train(), recompute, 1) == 0
    assert model.state_dict().keys() == keys


NARROW = (
    '"encoder": [{"widths": [1, 1]}, {"widths": [1]}, {"widths": [1]}], '
    '"decoder": [{"widths": [1]}, {"widths": [1]}, {"widths": [1]}]'
)
NECK = '"neck": [{"width": 1, "kernel_size": 3}, {"operation": "deconvolution", "width": 1, "kernel_size": 3}]'


@pytest.mark.parametrize("more", ['"upsampling": "unpool"', '"upsampling": "bilinear"', '"upsampling": "deconvolution"', NECK])
def test_no_pixel_is_seen_from_beyond_the_field_of_view(more):
    """One side of a line changes: outputs farther away than `field_of_view` stay, and some about that far do not."""
    model = EncoderDecoder(ModelConfig.model_validate_json(f"{{{NARROW}, {more}}}"), 1).eval().double()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 1 / 9)  # positive: nothing is hidden by a ReLU or cancelled
    farthest = 0
    for line in range(96, 96 + model.total_stride):
        image = torch.rand(1, 3, 16, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(line))
        left, right = image.clone(), image.clone()
        left[..., :line] += 100
        right[..., line:] += 100
        with torch.no_grad():
            seen_right, seen_left = ((model(image) != model(x)).any(dim=2).flatten().nonzero() for x in (left, right))
        farthest = max(farthest, int(seen_right.max()) - line + 1, line - int(seen_left.min()))
    assert 0.85 * model.field_of_view <= farthest <= model.field_of_view


@pytest.mark.parametrize("changes", ['"decoder_operation": "deconvolution"', '"decoder_operation": "convolution"', NECK])
@pytest.mark.parametrize("size", [(33, 31), (64, 48)])
def test_a_folded_network_computes_the_same(changes, size):
    """In float64, with batch statistics of its own and channels that differ and that are equal; nothing of it is shared."""
    torch.manual_seed(0)
    widths = '"encoder": [{"widths": [4, 5]}, {"widths": [5], "dropout": 0.5}], "decoder": [{"widths": [5, 5]}, {"widths": [4]}]'
    model = build_model(ModelConfig.model_validate_json(f"{{{widths}, {changes.replace('1,', '5,')}}}"), 3).double().train()
    for _ in range(3):
        model(torch.rand(2, 3, 48, 48, dtype=torch.float64) * 255)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            nn.init.uniform_(parameter, -2, 2)
        elif name.endswith("bias"):
            nn.init.uniform_(parameter, -1, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    small = fold(model)
    assert not [module for module in small.modules() if isinstance(module, nn.BatchNorm2d | Deconvolution)]
    image = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    with torch.no_grad():
        for network in (small, fold(small)):
            torch.testing.assert_close(network(image), model.eval()(image), rtol=1e-9, atol=1e-9)
        small.head.weight.zero_()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["segnet", "segnet_basic", "segnet_basic_deconvolution", "bayesian_segnet"])
def test_kernels_rounded_once_give_the_bits_of_autocast(name):
    torch.manual_seed(0)
    model = build_model(narrow(model_config(name)), 3)
    image = torch.randint(0, 256, (2, 3, 33, 40), dtype=torch.uint8)
    with torch.inference_mode():
        once, always = (compute_logits(fold(model, kernels), image, 1.0, "bfloat16") for kernels in ("bfloat16", "float32"))
    assert once.dtype == torch.float32
    assert torch.equal(once, always)
    assert fold(model, "bfloat16").head.weight.dtype == torch.bfloat16
