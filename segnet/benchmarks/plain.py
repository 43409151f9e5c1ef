"""The same networks, written with torch's own operations: the reference for results, speed and memory.

NCHW, float32, eager; pooling with int64 indices, `F.max_unpool2d`, transposed convolutions, then batch normalisation and ReLU.
Parameters and buffers have the names and shapes of `models.EncoderDecoder`, so each loads the other's weights.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnet.config.sections import ModelConfig, NormalizationConfig, StageConfig
from segnet.models.encoder_decoder import IN_CHANNELS

Layer = nn.Conv2d | nn.ConvTranspose2d
Operation = type[nn.Conv2d] | type[nn.ConvTranspose2d]


class PlainEncoderDecoder(nn.Module):
    """SegNet and its relatives.

    With a neck, images must be large enough for its kernels (DeconvNet: 193×193); `EncoderDecoder` takes any size.
    """

    def __init__(self, config: ModelConfig, num_classes: int, in_channels: int = IN_CHANNELS) -> None:
        super().__init__()
        decoder = nn.ConvTranspose2d if config.decoder_operation == "deconvolution" else nn.Conv2d
        self.normalize = _Normalize(config.normalization, in_channels)
        self.encoder = nn.ModuleList()
        self.neck = nn.Sequential()
        self.upsampling = nn.ModuleList()
        self.decoder = nn.ModuleList()
        self.kind = config.upsampling
        self.pools = [stage.pool for stage in config.encoder]
        self.skips = config.has_skip
        self.output = config.output
        width = in_channels
        for stage in config.encoder:
            self.encoder.append(_stage(nn.Conv2d, width, stage, config, relu=True))
            width = stage.widths[-1]
        for layer in config.neck:
            operation: Operation = nn.ConvTranspose2d if layer.operation == "deconvolution" else nn.Conv2d
            self.neck.append(_block(operation(width, layer.width, layer.kernel_size), config, relu=True))
            width = layer.width
        for layers, mirror in zip(config.decoder, reversed(config.encoder), strict=True):
            learnt = config.upsampling == "deconvolution" and mirror.pool
            self.upsampling.append(nn.ConvTranspose2d(width, width, 4, 2, 1, bias=False) if learnt else nn.Identity())
            self.decoder.append(_stage(decoder, width, layers, config, relu=config.decoder_relu))
            width = layers.widths[-1]
        self.encoder_dropout = nn.ModuleList(nn.Dropout(stage.dropout) for stage in config.encoder)
        self.decoder_dropout = nn.ModuleList(nn.Dropout(stage.dropout) for stage in config.decoder)
        self.head = nn.Conv2d(width, num_classes, config.head_kernel_size, padding=config.head_kernel_size // 2)

    def forward(self, image: Tensor) -> Tensor:
        """The (B, K, H, W) logits of a (B, C, H, W) image in 0..255, or the image that the configuration asks for."""
        x, passed = self.normalize(image), []
        for stage, dropout, pool, skip in zip(self.encoder, self.encoder_dropout, self.pools, self.skips, strict=True):
            x = stage(x)
            size, full, indices = x.shape[-2:], x if skip else None, None
            if pool:
                x, indices = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)  # (B, C, ⌈h/2⌉, ⌈w/2⌉), int64
            x = dropout(x)
            passed.append((indices, size, full))
        x = self.neck(x)
        for upsample, stage, dropout in zip(self.upsampling, self.decoder, self.decoder_dropout, strict=True):
            indices, size, full = passed.pop()
            if indices is not None:
                x = self._upsampled(upsample, x, indices, size)
            if full is not None:
                x = x + full
            x = dropout(stage(x))
        x = self.head(x)
        match self.output:
            case "logits":
                return x
            case "image":
                return self.normalize.mean + self.normalize.std * x
            case "residual":
                return image - self.normalize.std * x

    def _upsampled(self, upsample: nn.Module, x: Tensor, indices: Tensor, size: torch.Size) -> Tensor:
        match self.kind:
            case "unpool":
                return F.max_unpool2d(x, indices, [2, 2], output_size=size)
            case "bilinear":
                return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)[..., : size[0], : size[1]]
            case "deconvolution":
                return upsample(x)[..., : size[0], : size[1]]


class _Normalize(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, config: NormalizationConfig, channels: int) -> None:
        super().__init__()
        mean, std = config.of(channels)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        self.local_response = config.local_response

    def forward(self, image: Tensor) -> Tensor:
        x = (image.to(self.mean.dtype) - self.mean) / self.std
        if not self.local_response:
            return x
        square = F.pad((x**2)[:, None], (0, 0, 0, 0, 2, 2))  # two zeros on each side of the channels
        return x / (1 + 1e-4 * F.avg_pool3d(square, (5, 1, 1), stride=1)[:, 0]) ** 0.75


def _block(convolution: Layer, config: ModelConfig, *, relu: bool) -> nn.Sequential:
    norm = nn.BatchNorm2d(convolution.out_channels) if config.batch_norm else nn.Identity()
    layers = OrderedDict[str, nn.Module](conv=convolution, norm=norm)
    if relu:
        layers["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def _stage(operation: Operation, inputs: int, stage: StageConfig, config: ModelConfig, *, relu: bool) -> nn.Sequential:
    pairs = pairwise((inputs, *stage.widths))
    convolutions = (operation(*pair, config.kernel_size, padding=config.kernel_size // 2) for pair in pairs)
    return nn.Sequential(*(_block(convolution, config, relu=relu) for convolution in convolutions))
