"""Networks small enough for double precision, and images for them."""

import json

import torch

from segnet.config.sections import InferenceConfig, ModelConfig
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.models.initialization import build_model

SMALL = ModelConfig.model_validate_json(
    '{"encoder": [{"widths": [4, 5]}, {"widths": [6]}], "decoder": [{"widths": [6, 5]}, {"widths": [4]}]}'
)


def narrow(config: ModelConfig) -> ModelConfig:
    """The same architecture at an eighth of its width, so that double precision takes no time."""
    tree = config.model_dump(mode="json")
    for stage in [*tree["encoder"], *tree["decoder"]]:
        stage["widths"] = [max(1, width // 8) for width in stage["widths"]]
    for layer in tree["neck"]:
        layer["width"] //= 8 if layer["operation"] == "deconvolution" else 64
    return ModelConfig.model_validate_json(json.dumps(tree))


NECK = '"neck": [{"width": 1, "kernel_size": 3}, {"operation": "deconvolution", "width": 1, "kernel_size": 3}]'


_TWO_STAGES = (
    '"encoder": [{"widths": [16, 24]}, {"widths": [32], "dropout": 0.5}], "decoder": [{"widths": [32, 24]}, {"widths": [24]}]'
)


def network_of_two_stages(form: str = '"batch_norm": true') -> EncoderDecoder:
    """A network of this form (keys of an architecture) with batch statistics of its own, for prediction."""
    torch.manual_seed(0)
    model = build_model(ModelConfig.model_validate_json(f"{{{_TWO_STAGES}, {form}}}"), 11).train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(2, 3, 48, 48) * 255)
    return model.eval()


def two_images(height: int, width: int) -> torch.Tensor:
    """(2, 3, H, W) uint8, the same at every call."""
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def in_float32(**changes: object) -> InferenceConfig:
    """How to infer, with the same arithmetic on every processor."""
    return InferenceConfig(precision="float32", **changes)


def noise_image(height: int, width: int) -> torch.Tensor:
    """(1, 3, H, W) uint8, the same at every call."""
    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
