"""What is computed again changes no bit, and each choice keeps what it says."""

import gc
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from helpers import model_config
from small_networks import SMALL, narrow
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.flop_counter import FlopCounterMode

from segnet.benchmarks.memory import saved_bytes
from segnet.config.sections import ModelConfig, Recompute
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.models.initialization import build_model
from segnet.models.inspection import summarize


def training_step(config: ModelConfig, recompute: Recompute, size: tuple[int, int], precision: torch.dtype) -> dict[str, Tensor]:
    """Loss, gradients and buffers after forward and backward of a network with fixed weights."""
    torch.manual_seed(0)
    model = build_model(config, 3)
    model.recompute = recompute
    image = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        logits = model(image)
    loss = F.cross_entropy(logits.float(), torch.randint(0, 3, (2, *size)))
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
        ("denoise_pool2", (19, 33)),
        ("red10", (9, 14)),
    ],
)
def test_recomputing_changes_no_bit_of_a_training_step(name, size, precision):
    """Gradients, batch statistics and their counter, dropout, and the random numbers that come after."""
    plain, *others = (training_step(narrow(model_config(name)), recompute, size, precision) for recompute in get_args(Recompute))
    for other in others:
        assert plain.keys() == other.keys()
        assert not [key for key, value in plain.items() if not torch.equal(value, other[key])]


@pytest.mark.parametrize("output", ["image", "residual"])
def test_recomputing_changes_no_bit_of_the_gradients_of_an_image(output):
    config = SMALL.model_copy(update={"output": output})
    plain, *others = (training_step(config, recompute, (9, 14), torch.float32) for recompute in get_args(Recompute))
    for other in others:
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


@pytest.mark.parametrize("recompute", ["activations", "stages"])
def test_skips_that_are_kept_do_not_outlive_the_logits(recompute):
    """The last one starts and ends between two kept inputs. Nothing must wait for the garbage collector."""
    model = build_model(narrow(model_config("denoise_pool1")), 3)
    model.recompute = recompute
    skips = []
    model.add_skip.register_forward_pre_hook(lambda _, inputs: skips.append(StorageWeakRef(inputs[1].untyped_storage())))
    gc.disable()
    try:
        model(torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8))
        assert len(skips) == 1
        assert all(skip.expired() for skip in skips)
    finally:
        gc.enable()


def test_recomputing_activations_knows_the_batch_normalisation_of_several_gpus(tiny_config):
    model = build_model(tiny_config.model, 3)
    model.recompute = "activations"
    alone = len(model.kept_modules())
    assert len(nn.SyncBatchNorm.convert_sync_batchnorm(model).kept_modules()) == alone == 4
