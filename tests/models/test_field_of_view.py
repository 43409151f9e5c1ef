"""No pixel is seen from beyond the field of view."""

import pytest
import torch
from small_networks import NECK
from torch import nn

from segnet.config.sections import ModelConfig
from segnet.models.encoder_decoder import EncoderDecoder

NARROW = (
    '"encoder": [{"widths": [1, 1]}, {"widths": [1]}, {"widths": [1]}], '
    '"decoder": [{"widths": [1]}, {"widths": [1]}, {"widths": [1]}]'
)


UNPOOLED = NARROW.replace("[1]}, {", '[1], "pool": false}, {', 1)
FORMS = ['"upsampling": "unpool"', '"upsampling": "bilinear"', '"upsampling": "deconvolution"', NECK, '"skips": "add"']


@pytest.mark.parametrize("stages", [NARROW, UNPOOLED])
@pytest.mark.parametrize("more", FORMS)
def test_no_pixel_is_seen_from_beyond_the_field_of_view(more, stages):
    """One side of a line changes: outputs farther away than `field_of_view` stay, and some about that far do not."""
    model = EncoderDecoder(ModelConfig.model_validate_json(f"{{{stages}, {more}}}"), 1).eval().double()
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
