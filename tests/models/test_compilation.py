"""A compiled network predicts the same, and one that cannot be compiled runs all the same."""

import json
from functools import partial

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
