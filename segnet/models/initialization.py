"""Build a network with its first weights: He's initialisation, pretrained encoders, mirrored decoders."""

from __future__ import annotations

import torch
from torch import nn

from segnet.config.sections import ModelConfig
from segnet.layers.deconvolution import Deconvolution, flipped
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.models.pretrained import load_encoder


def build_model(config: ModelConfig, num_classes: int) -> EncoderDecoder:
    """A network with fresh weights: He initialisation, then `config.encoder_weights` over the encoder if given, and then its
    mirror image over the decoder if `config.decoder_weights` says so.

    Raises UserError (checkpoint) when those weights are missing or do not fit.
    """
    model = EncoderDecoder(config, num_classes)
    _initialize(model)
    if config.encoder_weights is not None:
        load_encoder(model.encoder, model.neck, config.encoder_weights)
    if config.decoder_weights == "mirrored":
        _mirror_encoder(model)
    return model.to(memory_format=torch.channels_last)


def _initialize(model: EncoderDecoder) -> None:
    """He initialisation (He et al. 2015): normal with variance 2 / fan-in; biases 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, Deconvolution):  # each output sees in_channels * k * k inputs, as in a convolution
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


@torch.no_grad()
def _mirror_encoder(model: EncoderDecoder) -> None:
    """Give each layer of the decoder the transpose of the convolution that it mirrors, where the two have mirrored shapes.

    A deconvolution with the very tensor of a convolution is its transpose; a convolution needs the kernels turned around.
    """
    for stage, mirror in zip(model.decoder, reversed(model.encoder), strict=True):
        for layer, twin in zip(_convolutions(stage), reversed(_convolutions(mirror)), strict=False):
            transposed = twin.weight if isinstance(layer, Deconvolution) else flipped(twin.weight)
            if layer.weight.shape == transposed.shape:
                layer.weight.copy_(transposed)


def _convolutions(stage: nn.Module) -> list[nn.Conv2d | Deconvolution]:
    return [module for module in stage.modules() if isinstance(module, nn.Conv2d | Deconvolution)]
