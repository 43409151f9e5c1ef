"""The encoder-decoder: one mirrored builder reads every architecture in configs/model/."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnet.config.sections import ModelConfig, NeckLayerConfig, NormalizationConfig, Recompute, StageConfig
from segnet.layers.convolution import Convolution
from segnet.layers.deconvolution import Deconvolution, deconvolve
from segnet.layers.pooling import Size, max_pool, max_unpool
from segnet.models.recomputation import Operation, Recomputation, apply


class Normalize(nn.Module):
    """RGB 0..255, uint8 or float -> what the first convolution expects. Part of the model, so that all users of it agree."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: NormalizationConfig) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1))
        self.local_response = config.local_response

    def forward(self, image: Tensor) -> Tensor:
        x = (image - self.mean) / self.std
        return F.local_response_norm(x, size=5, alpha=1e-4, beta=0.75) if self.local_response else x


class Unpooling(nn.Module):
    """Back to the places that the encoder's pooling remembered: SegNet and DeconvNet."""

    def forward(self, x: Tensor, winner: Tensor, size: Size) -> Tensor:
        return max_unpool(x, winner, size)


class BilinearUpsampling(nn.Module):
    """Fixed interpolation, which ignores the winners: "Bilinear-Interpolation" in SegNet's table 1."""

    def forward(self, x: Tensor, winner: Tensor, size: Size) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)[..., : size[0], : size[1]]


class StridedDeconvolution(nn.Module):
    """A learnt 4×4 deconvolution with stride 2, which ignores the winners; it starts as bilinear interpolation, as FCN's does."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        side = torch.tensor([0.25, 0.75, 0.75, 0.25])
        self.weight = nn.Parameter(torch.eye(channels)[:, :, None, None] * torch.outer(side, side))

    def forward(self, x: Tensor, winner: Tensor, size: Size) -> Tensor:
        x = deconvolve(x, self.weight, stride=2, crop=1)  # even sides
        return _crop(x, size)


class Neck(nn.Sequential):
    """Unpadded convolutions and the deconvolutions that undo their loss of size, each with batch normalisation and ReLU.

    DeconvNet (Noh, Hong & Han, ICCV 2015, section 3): 7×7 to a single pixel at 224×224, and back. Smaller inputs are
    padded with zeros to what the kernels need, so every picture size works.
    """

    def __init__(self, in_channels: int, layers: tuple[NeckLayerConfig, ...]) -> None:
        super().__init__()
        side = self.smallest = 1
        for layer in layers:
            grows = layer.operation == "deconvolution"
            side += layer.kernel_size - 1 if not grows else 1 - layer.kernel_size
            self.smallest = max(self.smallest, side)
            operation = Deconvolution if grows else Convolution
            self.append(_build_block(operation, in_channels, layer.width, layer.kernel_size, padding=0, relu=True))
            in_channels = layer.width

    def forward(self, x: Tensor, run: Operation = apply) -> Tensor:
        if not len(self):
            return x
        size = x.shape[-2:]
        x = run(F.pad, x, (0, max(0, self.smallest - size[1]), 0, max(0, self.smallest - size[0])))
        for block in self:
            x = run(block, x)
        return run(_crop, x, size)


def _crop(x: Tensor, size: Size) -> Tensor:
    """The first rows and columns of x; narrowed, not sliced, since the exporter then knows the size without a doubt."""
    return x.narrow(-2, 0, size[0]).narrow(-1, 0, size[1])


class EncoderDecoder(nn.Module):
    """SegNet and its relatives (Badrinarayanan, Kendall & Cipolla, PAMI 2017, section 3).

    Every encoder stage ends with a max-pooling that remembers its winners; its mirror in the decoder unpools to exactly
    those places, at exactly the size that was pooled, so any input size works.

    `recompute` says what the backward pass computes again instead of keeping it; set it at any time. A window of an image gives
    the same logits as the whole image where it reaches `field_of_view` pixels beyond them and starts at a multiple of
    `total_stride`.
    """

    recompute: Recompute = "nothing"

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        self.normalize = Normalize(config.normalization)
        self.encoder = nn.ModuleList()
        self.encoder_dropout = nn.ModuleList()
        self.upsampling = nn.ModuleList()
        self.decoder = nn.ModuleList()
        width = 3
        for stage in config.encoder:
            self.encoder.append(_build_stage(Convolution, width, stage, config.kernel_size, relu=True))
            self.encoder_dropout.append(nn.Dropout(stage.dropout))
            width = stage.widths[-1]
        self.neck = Neck(width, config.neck)
        width = config.neck[-1].width if config.neck else width
        operation = _OPERATIONS[config.decoder_operation]
        for stage in config.decoder:
            self.upsampling.append(_build_upsampling(config, width))
            decoder_stage = _build_stage(operation, width, stage, config.kernel_size, relu=config.decoder_relu)
            self.decoder.append(decoder_stage.append(nn.Dropout(stage.dropout)))
            width = stage.widths[-1]
        self.head = Convolution(width, num_classes, config.head_kernel_size, padding=config.head_kernel_size // 2)
        self.num_classes = num_classes
        self.field_of_view, self.total_stride = field_of_view(config), 2 ** len(config.encoder)

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in 0..255 -> (B, K, H, W) logits."""
        run = self._runner()  # run(operation, x, …) is operation(x, …)
        x, winners = run(self.normalize, image), []
        for stage, dropout in zip(self.encoder, self.encoder_dropout, strict=True):
            x = run(stage, x)
            size = x.shape[-2:]
            x, winner = run(max_pool, x)  # (B, C, h, w) -> (B, C, ⌈h/2⌉, ⌈w/2⌉) and one byte per window
            x = run(dropout, x)
            winners.append((winner, size))
        x = self.neck(x, run)  # nothing, or DeconvNet's 7×7 bottleneck
        for upsample, stage in zip(self.upsampling, self.decoder, strict=True):
            x = run(upsample, x, *winners.pop())  # back to the size that this stage's twin pooled from
            x = run(stage, x)
        return run(self.head, x)

    def _runner(self) -> Operation:
        """What runs the parts in `forward`: in training it may keep only some tensors and compute the others again."""
        idle = not self.training or not torch.is_grad_enabled()  # there will be no backward pass to save for
        if self.recompute == "nothing" or idle or torch.compiler.is_compiling():  # the compiler itself plans what is kept
            return apply
        if self.recompute == "activations":  # what a convolution gives is what a normalisation takes
            return Recomputation({module for module in self.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)})
        return Recomputation({*self.encoder, *self.upsampling})  # what stands between two stages


_OPERATIONS: dict[str, type[Convolution] | type[Deconvolution]] = {"convolution": Convolution, "deconvolution": Deconvolution}


def _build_upsampling(config: ModelConfig, channels: int) -> nn.Module:
    if config.upsampling == "deconvolution":
        return StridedDeconvolution(channels)
    return Unpooling() if config.upsampling == "unpool" else BilinearUpsampling()


def _build_block(
    operation: type[Convolution] | type[Deconvolution], inputs: int, outputs: int, kernel_size: int, *, padding: int, relu: bool
) -> nn.Sequential:
    """A convolution or deconvolution, batch normalisation and, where asked, a ReLU."""
    layers = OrderedDict[str, nn.Module](
        conv=operation(inputs, outputs, kernel_size, padding=padding), norm=nn.BatchNorm2d(outputs)
    )
    if relu:
        layers["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def _build_stage(
    operation: type[Convolution] | type[Deconvolution], inputs: int, stage: StageConfig, kernel_size: int, *, relu: bool
) -> nn.Sequential:
    """The blocks of one stage, which keep its size."""
    blocks = nn.Sequential()
    for width in stage.widths:
        blocks.append(_build_block(operation, inputs, width, kernel_size, padding=kernel_size // 2, relu=relu))
        inputs = width
    return blocks


def field_of_view(config: ModelConfig) -> int:
    """How many pixels away, along an axis, a pixel of the input may still change an output: half the receptive field.

    The interval of inputs behind an output, followed from the head back to the picture. Poolings make it depend on where
    the output lies in the grid of the lowest resolution; this is the largest.
    """
    half, stages = config.kernel_size // 2, len(config.encoder)
    spread = 1 if config.upsampling != "unpool" else 0  # interpolation also looks at a neighbour
    farthest = 0
    for position in range(2**stages):
        low, high = (position + sign * (config.head_kernel_size // 2) for sign in (-1, 1))
        for stage in reversed(config.decoder):
            low, high = low - len(stage.widths) * half, high + len(stage.widths) * half
            low, high = (low - spread) // 2, (high + spread) // 2
        for layer in config.neck:
            grows = layer.operation == "deconvolution"
            low, high = (low - layer.kernel_size + 1, high) if grows else (low, high + layer.kernel_size - 1)
        for stage in reversed(config.encoder):
            low, high = 2 * low, 2 * high + 1
            low, high = low - len(stage.widths) * half, high + len(stage.widths) * half
        farthest = max(farthest, position - low, high - position)
    return farthest
