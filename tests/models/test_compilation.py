"""A compiled network predicts the same, and one that cannot be compiled runs all the same."""

import json
from functools import partial

import pytest
import torch
from helpers import needs_compiler
from small_networks import in_float32, noise_image

from segnet.config.sections import ModelConfig
from segnet.inference.answers import predict_probabilities, prepare_to_predict
from segnet.models.compilation import CompiledPerSize
from segnet.models.initialization import build_model


@needs_compiler
def test_a_compiled_network_predicts_the_same_at_any_number_of_sizes(monkeypatch, capsys):
    """Stages of equal channels: inductor gets them wrong where it folds batch normalisation into deconvolutions itself."""
    monkeypatch.setattr(CompiledPerSize, "LIMIT", 2)
    stages = {"encoder": [{"widths": [8]}, {"widths": [8]}], "decoder": [{"widths": [8]}, {"widths": [8]}]}
    model = build_model(ModelConfig.model_validate_json(json.dumps(stages)), 3)
    with torch.no_grad():
        model(torch.cat([noise_image(16, 16)] * 4))  # so that batch normalisation has seen something
    torch._dynamo.utils.counters.clear()
    networks = [prepare_to_predict(model, in_float32(compile=compiled)) for compiled in (False, True)]
    for batch, size in ((1, (17, 24)), (3, (16, 13)), (1, (9, 11)), (1, (17, 24)), (2, (5, 5))):
        image = torch.cat([noise_image(*size)] * batch)
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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_outputs_on_a_gpu_outlive_the_next_run_of_the_graph(model):
    compiled = CompiledPerSize(model.cuda().eval())
    images = [torch.rand(2, 3, 32, 48, device="cuda") for _ in range(4)]
    with torch.no_grad():
        outputs = [compiled(image) for image in images]
        for image, output in zip(images, outputs, strict=True):
            torch.testing.assert_close(output, model(image), rtol=1e-2, atol=1e-2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("parts", [1, 2])
def test_a_compiled_run_on_a_gpu_learns_the_same(parts):
    """Also with a validation between two steps; the gradients of two parts add up, without a graph."""
    losses = {compiled: losses_of_steps(compiled, parts) for compiled in (False, True)}
    torch.testing.assert_close(losses[True], losses[False], rtol=2e-2, atol=0)


def losses_of_steps(compiled: bool, parts: int) -> torch.Tensor:
    torch.manual_seed(0)
    stages = {"encoder": [{"widths": [8]}, {"widths": [16]}], "decoder": [{"widths": [8]}, {"widths": [8]}]}
    network = build_model(ModelConfig.model_validate_json(json.dumps(stages)), 3).cuda()
    run = CompiledPerSize(network, graph=parts == 1) if compiled else network
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    image = (torch.rand(4, 3, 32, 32, generator=generator) * 255).cuda()
    truth = (image.mean(1) > 128).long()
    losses = []
    for step in range(12):
        loss = torch.zeros((), device="cuda")
        for pictures, masks in zip(image.tensor_split(parts), truth.tensor_split(parts), strict=True):
            part_loss = torch.nn.functional.cross_entropy(run(pictures), masks) / parts
            part_loss.backward()
            loss += part_loss.detach()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss)
        if step == 5:
            predict_probabilities(network.eval(), image[:1], in_float32())
            network.train()
    return torch.stack(losses).cpu()
