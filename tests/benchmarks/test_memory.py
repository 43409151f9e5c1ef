"""Bytes that a forward pass keeps, against a count by hand."""

import torch
from torch import nn

from segnet.benchmarks.memory import saved_bytes, saved_facts
from segnet.models.compilation import CompiledPerSize


def test_what_is_kept_is_what_the_backward_pass_reads():
    """The input of the second convolution, which the ReLU keeps too; neither the image nor the logits count."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    image = torch.rand(2, 3, 6, 8)
    assert saved_bytes(network, image, "float32") == 4 * 2 * 4 * 6 * 8
    assert saved_facts(network, image, "float32") == {"saved_bytes": 4 * 4 * 6 * 8}
    with torch.no_grad():
        assert saved_bytes(network, image, "float32") == 0


def test_a_compiled_network_has_buffers_that_nobody_counts():
    assert saved_facts(CompiledPerSize(nn.Conv2d(3, 2, 1)), torch.rand(1, 3, 4, 4), "float32") == {"saved_bytes": None}
