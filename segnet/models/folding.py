"""Equivalent forms of a trained network: batch normalisation folded into convolutions, decoders of either operation."""

from __future__ import annotations

import copy
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from segnet.config.sections import ModelConfig
from segnet.layers.deconvolution import Deconvolution, flipped
from segnet.models.encoder_decoder import EncoderDecoder

Weights = dict[str, Tensor]
_Model = TypeVar("_Model", bound=nn.Module)


def convert_decoder(weights: Weights, old: ModelConfig, new: ModelConfig) -> Weights:
    """`weights` of a network built by `old` for one built by `new` that differs in `decoder_operation` alone.

    With stride 1 a deconvolution is a convolution with flipped kernels, so both networks compute the same function.
    """
    if old.decoder_operation == new.decoder_operation:
        return weights
    return {
        name: flipped(value) if name.startswith("decoder.") and name.endswith("conv.weight") else value
        for name, value in weights.items()
    }


def fold(model: _Model, precision: str = "float32") -> _Model:
    """A copy that only predicts, faster: batch normalisation is multiplied into the convolution before it, and a deconvolution
    is the convolution that it equals. The same function up to rounding; what is folded already stays as it is, and so does
    an exported network, which was folded before.

    At a lower precision than float32 the kernels are rounded once, instead of by autocast in every call, under which such a
    network must run.
    """
    if not isinstance(model, EncoderDecoder):
        return model
    model = copy.deepcopy(model).eval()
    for block in [block for stage in (*model.encoder, model.neck, *model.decoder) for block in stage]:
        if isinstance(block, nn.Sequential) and isinstance(block.norm, nn.modules.batchnorm._BatchNorm):
            conv = block.conv.as_convolution() if isinstance(block.conv, Deconvolution) else cast(nn.Conv2d, block.conv)
            block.conv, block.norm = fuse_conv_bn_eval(conv, block.norm), nn.Identity()
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and precision != "float32":
            module.to(getattr(torch, precision))
    return model.to(memory_format=torch.channels_last)
