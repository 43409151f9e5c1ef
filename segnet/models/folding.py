"""Equivalent forms of a trained network: batch normalisation folded into convolutions, decoders of the other operation."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from segnet.config.sections import ModelConfig
from segnet.layers.convolution import flipped
from segnet.layers.deconvolution import Deconvolution
from segnet.layers.native import find_kernel
from segnet.models.encoder_decoder import BatchNorm, EncoderDecoder, Pooling, Unpooling
from segnet.models.native_blocks import ConvolutionAndPooling, NativeConvolution, UnpoolingAndConvolution

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


def fold(model: _Model, precision: str = "float32", *, native: bool = True) -> _Model:
    """A faster copy of a network for prediction, which computes the same function up to rounding.

    Batch normalisation is multiplied into the convolution before it, and each deconvolution becomes the convolution that it
    equals. A folded network stays as it is; an exported network was folded before its export and is returned itself.
    In float32 on a CPU it uses the compiled kernel where there is one, if `native`.
    At a `precision` below float32 the kernels are rounded once; the copy must then run under autocast, which would
    otherwise round them in every call.
    """
    if not isinstance(model, EncoderDecoder):
        return model
    model = copy.deepcopy(model).eval()
    for stage in (*model.encoder, model.neck, *model.decoder):
        for block in stage.children():
            if not isinstance(block, nn.Sequential):
                continue
            if isinstance(block.conv, Deconvolution):
                block.conv = block.conv.as_convolution()
            if isinstance(block.norm, BatchNorm):
                block.conv = fuse_conv_bn_eval(cast(nn.Conv2d, block.conv), block.norm)
                block.norm = nn.Identity()
    if precision != "float32":
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.to(getattr(torch, precision))
    model = model.to(memory_format=torch.channels_last)
    weight = model.head.weight
    if native and precision == "float32" and weight.dtype == torch.float32 and weight.device.type == "cpu":
        _use_kernel(model)
    return model


def _use_kernel(model: EncoderDecoder) -> None:
    """Let the compiled kernel compute the 3×3 convolutions of a folded network, where there is a kernel.

    Each takes over the ReLU that follows it. A pooling module also takes over the convolution before it, and an unpooling module
    the one after it, unless a skip starts or ends between the two.
    """
    if find_kernel().kernel is None or any(isinstance(module, NativeConvolution) for module in model.modules()):
        return
    for stage in (*model.encoder, *model.decoder):
        for name, block in stage.named_children():
            if isinstance(block, nn.Sequential) and NativeConvolution.fits(conv := cast(nn.Module, block.conv)):
                setattr(stage, name, NativeConvolution(conv, relu=hasattr(block, "relu")))
    for number, stage in enumerate(cast(Iterable[nn.Sequential], model.encoder)):
        pools = isinstance(model.pooling[number], Pooling) and not model.has_skip[number]
        if pools and isinstance(last := stage[-1], NativeConvolution):
            model.encoder[number] = stage[:-1]
            model.pooling[number] = ConvolutionAndPooling(last, relu=last.relu)
    for number, stage in enumerate(cast(Iterable[nn.Sequential], model.decoder)):
        unpools = isinstance(model.upsampling[number], Unpooling) and not model.has_skip[-1 - number]
        if unpools and isinstance(first := stage[0], NativeConvolution):
            model.upsampling[number] = UnpoolingAndConvolution(first, relu=first.relu)
            model.decoder[number] = stage[1:]
    if NativeConvolution.fits(head := model.head):
        model.head = NativeConvolution(head, relu=False)
