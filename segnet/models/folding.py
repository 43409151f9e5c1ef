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
from segnet.layers.winograd import replaces_kernel
from segnet.models.encoder_decoder import BatchNorm, EncoderDecoder, Pooling, Unpooling
from segnet.models.native_blocks import ConvolutionAndPooling, NativeConvolution, UnpoolingAndConvolution
from segnet.system.devices import processor_features

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
    If `native`, it uses the compiled kernel on a CPU, or what replaces it (`layers/winograd.py`): in float32, and in bfloat16
    where the kernel is faster than torch. At a `precision` below float32 the copy must run under autocast; the kernels of
    torch's convolutions are rounded once, which autocast would do in every call.
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
    model = model.to(memory_format=torch.channels_last)
    weight = model.head.weight
    if native and weight.dtype == torch.float32 and weight.device.type == "cpu" and _kernel_is_faster(precision):
        _use_kernel(model, getattr(torch, precision))
    if precision != "float32":
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and not isinstance(module, NativeConvolution):
                module.to(getattr(torch, precision))
    return model


def _kernel_is_faster(precision: str) -> bool:
    """True where there is a kernel for `precision` that is faster than torch; torch is faster with the instructions of AMX."""
    kernel = find_kernel().kernel
    if precision == "float32":
        return kernel is not None or replaces_kernel()
    has_bfloat16 = kernel is not None and kernel.has_bfloat16
    return precision == "bfloat16" and has_bfloat16 and "amx_bf16" not in processor_features()


def _use_kernel(model: EncoderDecoder, dtype: torch.dtype) -> None:
    """Let the compiled kernel, or what replaces it, compute the 3×3 convolutions of a folded network.

    Each takes over the ReLU that follows it. A pooling module also takes over the convolution before it, and an unpooling module
    the one after it, unless a skip starts or ends between the two.
    """
    if any(isinstance(module, NativeConvolution) for module in model.modules()):
        return
    for stage in (*model.encoder, *model.decoder):
        for name, block in stage.named_children():
            if isinstance(block, nn.Sequential) and NativeConvolution.fits(conv := cast(nn.Module, block.conv)):
                setattr(stage, name, NativeConvolution(conv, relu=hasattr(block, "relu"), dtype=dtype))
    for number, stage in enumerate(cast(Iterable[nn.Sequential], model.encoder)):
        pools = isinstance(model.pooling[number], Pooling) and not model.has_skip[number]
        if pools and isinstance(last := stage[-1], NativeConvolution):
            model.encoder[number] = stage[:-1]
            model.pooling[number] = ConvolutionAndPooling(last, relu=last.relu, dtype=dtype)
    for number, stage in enumerate(cast(Iterable[nn.Sequential], model.decoder)):
        unpools = isinstance(model.upsampling[number], Unpooling) and not model.has_skip[-1 - number]
        if unpools and isinstance(first := stage[0], NativeConvolution):
            model.upsampling[number] = UnpoolingAndConvolution(first, relu=first.relu, dtype=dtype)
            model.decoder[number] = stage[1:]
    if NativeConvolution.fits(head := model.head):
        model.head = NativeConvolution(head, relu=False, dtype=dtype)
