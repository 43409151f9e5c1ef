"""The network: one class builds every architecture of configs/model/ from its configuration."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnet.config.sections import ModelConfig, NeckLayerConfig, NormalizationConfig, Range, Recompute, StageConfig
from segnet.layers.convolution import Convolution
from segnet.layers.deconvolution import Deconvolution, deconvolve
from segnet.layers.pooling import Size, max_pool, max_unpool
from segnet.models.field_of_view import field_of_view
from segnet.models.recomputation import recomputing

IN_CHANNELS = 3  # of an image, unless the network is told otherwise: red, green, blue
BatchNorm = nn.BatchNorm2d | nn.SyncBatchNorm  # on one device, and over the ranks
Operation = type[Convolution] | type[Deconvolution]


class EncoderDecoder(nn.Module):
    """SegNet and its relatives (Badrinarayanan, Kendall & Cipolla, PAMI 2017, section 3).

    Each encoder stage ends with a max-pooling that returns its winners. The decoder stage that mirrors it starts with the
    unpooling to exactly those places, at exactly the size that was pooled, so any input size works. A stage and its mirror may
    also do without both.

    With skips, a decoder stage's convolutions see the sum of the upsampled values and of what its encoder stage gave before its
    pooling. That is the place of REDNet's skips (Mao, Shen & Yang, NIPS 2016, section 3.1): both are estimates of the same map.
    As there, the sum is not negative where the decoder has ReLUs.

    `recompute` says which activations the backward pass computes again instead of keeping them; it can be set at any time.
    A window of an image gives the logits of the whole image at `field_of_view` pixels and more from the window's borders, if
    the window starts at a multiple of `total_stride`.
    """

    recompute: Recompute = "nothing"
    encoder_is_frozen = False  # see `freeze_encoder`
    too_many_pixels: float = math.inf  # of the images of one call, for which memory was too small

    def __init__(
        self, config: ModelConfig, num_classes: int, in_channels: int = IN_CHANNELS, ranges: Sequence[Range] = ()
    ) -> None:
        super().__init__()
        self.architecture = config
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.field_of_view = field_of_view(config)
        self.total_stride = config.total_stride
        self.has_skip = config.has_skip  # by encoder stage
        self.output = config.output
        self.normalize = Normalize(config.normalization, in_channels, ranges)
        self.encoder = nn.ModuleList()
        self.pooling = nn.ModuleList()
        self.encoder_dropout = nn.ModuleList()
        self.upsampling = nn.ModuleList()
        self.decoder = nn.ModuleList()
        width = in_channels
        for stage in config.encoder:
            self.encoder.append(_build_stage(Convolution, width, stage, config, relu=True))
            self.pooling.append(Pooling() if stage.pool else NoPooling())
            self.encoder_dropout.append(nn.Dropout(stage.dropout))
            width = stage.widths[-1]
        self.neck = Neck(width, config.neck, batch_norm=config.batch_norm)
        width = config.neck[-1].width if config.neck else width
        operation = Deconvolution if config.decoder_operation == "deconvolution" else Convolution
        self.add_skip = Addition()
        for layers, mirror in zip(config.decoder, reversed(config.encoder), strict=True):
            self.upsampling.append(_build_upsampling(config, width) if mirror.pool else NoUpsampling())
            decoder_stage = _build_stage(operation, width, layers, config, relu=config.decoder_relu)
            self.decoder.append(decoder_stage.append(nn.Dropout(layers.dropout)))
            width = layers.widths[-1]
        self.head = Convolution(width, num_classes, config.head_kernel_size, padding=config.head_kernel_size // 2)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.head.weight.device

    def freeze_encoder(self) -> None:
        """Keep the encoder's weights and batch statistics as they are from now on: no gradients, evaluation mode for good."""
        self.encoder_is_frozen = True
        self.encoder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules except a frozen encoder. The dropout after its stages is no part of it."""
        super().train(mode)
        if self.encoder_is_frozen:
            self.encoder.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """The (B, K, H, W) logits of a (B, C, H, W) image, uint8 or float: in 0..255, or any values where it has ranges.

        With another `output` it is the image that this asks for.
        """
        with self._recomputation():
            x = self.normalize(image)
            pooled, skips = [], []
            for stage, pool, dropout, skip in zip(self.encoder, self.pooling, self.encoder_dropout, self.has_skip, strict=True):
                x = stage(x)
                skips.append(x if skip else None)
                x, winners = pool(x)  # (B, C, h, w) -> (B, C, ⌈h/2⌉, ⌈w/2⌉)
                x = dropout(x)
                pooled.append(winners)
            x = self.neck(x)
            for upsample, stage in zip(self.upsampling, self.decoder, strict=True):
                x = upsample(x, pooled.pop())  # back to the size before the pooling that this stage mirrors
                x = self.add_skip(x, skips.pop())
                x = stage(x)
            values = self.head(x)
        return self._finish(image, values)  # outside: `recomputing` knows operations of modules alone

    def _finish(self, image: Tensor, values: Tensor) -> Tensor:
        """The output of the network, from the values of the head."""
        match self.output:
            case "logits":
                return values
            case "image":
                return values * self.normalize.std + self.normalize.mean
            case "residual":
                return image - values * self.normalize.std

    def use_kernel(self, on: bool) -> None:
        """Let the compiled kernel compute 3×3 convolutions of training where it is faster, or never. See `convolve_natively`."""
        for module in self.modules():
            if isinstance(module, Convolution | Deconvolution):
                module.native = on

    def _recomputation(self) -> AbstractContextManager[None]:
        """A context in which `forward` keeps for the backward pass what `recompute` leaves."""
        no_backward = not self.training or not torch.is_grad_enabled()
        if self.recompute == "nothing" or no_backward or torch.compiler.is_compiling():  # a compiler plans itself what is kept
            return nullcontext()
        return recomputing(self, self.kept_modules())

    def kept_modules(self) -> set[nn.Module]:
        """The modules whose inputs are kept for the backward pass with `recompute` "activations" or "stages"."""
        if self.recompute == "activations":  # a batch normalisation's input is a convolution's output
            return {module for module in self.modules() if isinstance(module, BatchNorm)}
        return {*self.encoder, *self.upsampling}


class Normalize(nn.Module):
    """(image - mean) / std for each channel, of values in 0..255. A part of the network, so that all users of it agree.

    With `ranges`, a pair (low, high) for each channel, low..high becomes 0..255 before, and values outside become 0 or 255.
    Local response normalisation, if `config` asks for it, follows (Krizhevsky, Sutskever & Hinton, NIPS 2012, section 3.3),
    with the numbers of SegNet-Basic's code.
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, config: NormalizationConfig, channels: int, ranges: Sequence[Range] = ()) -> None:
        super().__init__()
        self.has_ranges = bool(ranges)
        if ranges:
            low, high = zip(*ranges, strict=True)
            self.register_buffer("low", torch.tensor(low).view(1, -1, 1, 1))
            self.register_buffer("high", torch.tensor(high).view(1, -1, 1, 1))
        mean, std = config.of(channels)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        self.local_response = config.local_response

    def forward(self, image: Tensor) -> Tensor:
        x = image
        if self.has_ranges:
            x = ((x - self.low) * (255 / (self.high - self.low))).clamp(0, 255)
        x = (x - self.mean) / self.std
        return F.local_response_norm(x, size=5, alpha=1e-4, beta=0.75) if self.local_response else x


class Winners(NamedTuple):
    """The places of the maxima of one pooling, for the unpooling that mirrors it."""

    codes: Tensor  # (B, C, ⌈h/2⌉, ⌈w/2⌉) uint8, see `max_pool`
    size: Size  # (h, w), which was pooled


class Pooling(nn.Module):
    """2×2 max-pooling: the maxima (B, C, ⌈h/2⌉, ⌈w/2⌉) and their places."""

    def forward(self, x: Tensor) -> tuple[Tensor, Winners]:
        values, codes = max_pool(x)
        return values, Winners(codes, (x.shape[-2], x.shape[-1]))


class NoPooling(nn.Module):
    """The end of an encoder stage without pooling: x, and no winners."""

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return x, None


class NoUpsampling(nn.Module):
    """The start of the decoder stage that mirrors an encoder stage without pooling: x."""

    def forward(self, x: Tensor, winners: None) -> Tensor:
        return x


class Addition(nn.Module):
    """x + skip, or x where there is no skip. A module, so that `recomputing` sees it."""

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        return x if skip is None else x + skip


class Unpooling(nn.Module):
    """Each value at the place of its winner, zeros elsewhere: the upsampling of SegNet and DeconvNet."""

    def forward(self, x: Tensor, winners: Winners) -> Tensor:
        return max_unpool(x, winners.codes, winners.size)


class BilinearUpsampling(nn.Module):
    """Fixed interpolation to the size before pooling: "Bilinear-Interpolation" in SegNet's table 1."""

    def forward(self, x: Tensor, winners: Winners) -> Tensor:
        height, width = winners.size
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]


class StridedDeconvolution(nn.Module):
    """A learnt 4×4 deconvolution with stride 2 to the size before pooling. It starts as bilinear interpolation, as in FCN."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        side = torch.tensor([0.25, 0.75, 0.75, 0.25])
        self.weight = nn.Parameter(torch.eye(channels)[:, :, None, None] * torch.outer(side, side))

    def forward(self, x: Tensor, winners: Winners) -> Tensor:
        x = deconvolve(x, self.weight, stride=2, crop=1)  # (B, C, 2h, 2w)
        return _first_pixels(x, winners.size)


class Neck(nn.Sequential):
    """DeconvNet's layers at the lowest resolution (Noh, Hong & Han, ICCV 2015, section 3); without layers, nothing.

    Unpadded convolutions reduce the size, at 224×224 to a single pixel, and deconvolutions restore it. Batch normalisation,
    if `batch_norm`, and ReLU follow each. A smaller x is padded with zeros to `smallest`, the side that the kernels need.
    """

    def __init__(self, in_channels: int, layers: tuple[NeckLayerConfig, ...], *, batch_norm: bool = True) -> None:
        super().__init__()
        blocks = []
        side = self.smallest = 1
        for layer in layers:
            grows = layer.operation == "deconvolution"
            side += 1 - layer.kernel_size if grows else layer.kernel_size - 1  # of an x that is one pixel after this layer
            self.smallest = max(self.smallest, side)
            operation = Deconvolution if grows else Convolution
            convolution = operation(in_channels, layer.width, layer.kernel_size)
            blocks.append(_build_block(convolution, layer.width, batch_norm=batch_norm, relu=True))
            in_channels = layer.width
        if blocks:
            self.add_module("pad", _Pad(self.smallest))
            for number, block in enumerate(blocks):
                self.add_module(str(number), block)
            self.add_module("crop", _Crop())

    def forward(self, x: Tensor) -> Tensor:
        if not len(self):
            return x
        size = x.shape[-2:]
        pad, *blocks, crop = self
        x = pad(x)
        for block in blocks:
            x = block(x)
        return crop(x, size)


class _Pad(nn.Module):
    """x with zeros below and to the right, so that both sides have at least `smallest` pixels."""

    def __init__(self, smallest: int) -> None:
        super().__init__()
        self.smallest = smallest

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        return F.pad(x, (0, max(0, self.smallest - width), 0, max(0, self.smallest - height)))


class _Crop(nn.Module):
    """The first rows and columns of x, as many as `size` says."""

    def forward(self, x: Tensor, size: Size) -> Tensor:
        return _first_pixels(x, size)


def _first_pixels(x: Tensor, size: Size) -> Tensor:
    """x[..., :height, :width], written with `narrow`, from which torch.export can tell the size of the result."""
    height, width = size
    return x.narrow(-2, 0, height).narrow(-1, 0, width)


def _build_upsampling(config: ModelConfig, channels: int) -> nn.Module:
    match config.upsampling:
        case "unpool":
            return Unpooling()
        case "bilinear":
            return BilinearUpsampling()
        case "deconvolution":
            return StridedDeconvolution(channels)


def _build_stage(operation: Operation, inputs: int, stage: StageConfig, config: ModelConfig, *, relu: bool) -> nn.Sequential:
    """The blocks of one stage, which keep the size of x."""
    blocks = nn.Sequential()
    for width in stage.widths:
        convolution = operation(inputs, width, config.kernel_size, padding=config.kernel_size // 2)
        blocks.append(_build_block(convolution, width, batch_norm=config.batch_norm, relu=relu))
        inputs = width
    return blocks


def _build_block(convolution: Convolution | Deconvolution, width: int, *, batch_norm: bool, relu: bool) -> nn.Sequential:
    """A convolution or deconvolution with `width` output channels, batch normalisation and a ReLU, if it has them."""
    layers = OrderedDict[str, nn.Module]()
    layers["conv"] = convolution
    layers["norm"] = nn.BatchNorm2d(width) if batch_norm else nn.Identity()
    if relu:
        layers["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)
