"""A network with its first weights: He initialisation, pretrained encoders, mirrored decoders."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from segnet.config.architectures import load_architecture
from segnet.config.sections import ModelConfig, Range
from segnet.layers.convolution import flipped
from segnet.layers.deconvolution import Deconvolution
from segnet.models.encoder_decoder import IN_CHANNELS, EncoderDecoder
from segnet.models.pretrained import load_encoder


def build_model(
    config: ModelConfig | str,
    num_classes: int,
    in_channels: int = IN_CHANNELS,
    *,
    ranges: Sequence[Range] = (),
    rgb: Sequence[int] = (),
) -> EncoderDecoder:
    """A network with its first weights, in channels_last memory format. `config` may be a name, such as "segnet_basic".

    `ranges` are the values of each channel that become 0 and 255, see `Normalize`; `rgb` are the numbers, from 1, of the channels
    that get the pretrained kernels of R, G, B, see `load_encoder`.

    All layers get He's; then encoder and neck get those of `config.encoder_weights`, unless that is null; then the decoder
    gets the transposed kernels of the encoder, if `config.decoder_weights` is "mirrored". Those of `config.weights` are not read
    here: see `runs.transfer.take_weights`.
    Raises UserError: (checkpoint) when the encoder's weights are missing or do not fit; (config) for an unknown name.
    """
    config = load_architecture(config) if isinstance(config, str) else config
    model = EncoderDecoder(config, num_classes, in_channels, ranges)
    _initialize(model)
    if config.encoder_weights is not None:
        load_encoder(model.encoder, model.neck, config.encoder_weights, rgb=rgb)
    if config.decoder_weights == "mirrored":
        mirror_encoder(model)
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
def mirror_encoder(model: EncoderDecoder) -> None:
    """Give each decoder layer the transpose of the encoder convolution that it mirrors, if the shapes fit.

    A deconvolution with the kernel of a convolution is its transpose; a convolution with the flipped kernel is, too.
    """
    for stage, mirror in zip(model.decoder, reversed(model.encoder), strict=True):
        for layer, twin in zip(_convolutions(stage), reversed(_convolutions(mirror)), strict=False):
            transposed = twin.weight if isinstance(layer, Deconvolution) else flipped(twin.weight)
            if layer.weight.shape == transposed.shape:
                layer.weight.copy_(transposed)


def _convolutions(stage: nn.Module) -> list[nn.Conv2d | Deconvolution]:
    """The convolutions and deconvolutions of a stage, in order."""
    return [module for module in stage.modules() if isinstance(module, nn.Conv2d | Deconvolution)]
