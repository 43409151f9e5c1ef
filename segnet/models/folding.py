"""Equivalent forms of a trained network: batch normalisation folded into convolutions, decoders of the other operation."""

from __future__ import annotations

import copy
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from segnet.config.sections import ModelConfig
from segnet.layers.deconvolution import Deconvolution, flipped
from segnet.models.encoder_decoder import BatchNorm, EncoderDecoder

Weights = dict[str, Tensor]
_Model = TypeVar("_Model", bound=nn.Module)


def convert_decoder_weights(weights: Weights, old: ModelConfig, new: ModelConfig) -> Weights:
    """The weights of a network of `old` for a network of `new`, which may differ in `decoder_operation` alone.

    With stride 1 a deconvolution is a convolution with flipped kernels, so both networks compute the same function.
    """
    if old.decoder_operation == new.decoder_operation:
        return weights
    return {
        name: flipped(value) if name.startswith("decoder.") and name.endswith("conv.weight") else value
        for name, value in weights.items()
    }


def fold(model: _Model, precision: str = "float32") -> _Model:
    """A faster copy of a network for prediction, which computes the same function up to rounding.

    Batch normalisation is multiplied into the convolution before it, and each deconvolution becomes the convolution that it
    equals. A folded network stays as it is; an exported network was folded before its export and is returned itself.
    At a `precision` below float32 the kernels are rounded once; the copy must then run under autocast, which would
    otherwise round them in every call.
    """
    if not isinstance(model, EncoderDecoder):
        return model
    model = copy.deepcopy(model).eval()
    for stage in (*model.encoder, model.neck, *model.decoder):
        for block in stage.children():
            if isinstance(block, nn.Sequential) and isinstance(block.norm, BatchNorm):
                conv = block.conv.as_convolution() if isinstance(block.conv, Deconvolution) else cast(nn.Conv2d, block.conv)
                block.conv = fuse_conv_bn_eval(conv, block.norm)
                block.norm = nn.Identity()
    if precision != "float32":
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.to(getattr(torch, precision))
    return model.to(memory_format=torch.channels_last)
