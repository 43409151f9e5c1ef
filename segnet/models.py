"""The encoder-decoder: one mirrored builder reads every architecture in configs/model/."""

from __future__ import annotations

import copy
import sys
from collections import OrderedDict
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.flop_counter import FlopCounterMode

from segnet.config import Memory, ModelConfig, NeckLayerConfig, NormalizationConfig, StageConfig
from segnet.layers import Convolution, Deconvolution, Size, deconvolve, flipped, max_pool, max_unpool
from segnet.memory import Operation, Recomputation, apply
from segnet.pretrained import load_encoder

Weights = dict[str, Tensor]
_Model = TypeVar("_Model", bound=nn.Module)


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

    `memory` says what training keeps for the backward pass; set it at any time. `reach` and `stride` say what a window of a
    picture needs to give the whole picture's answer: so many pixels around, and a start at a multiple.
    """

    memory: Memory = "plain"

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
        self.reach, self.stride = reach(config), 2 ** len(config.encoder)

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
        if self.memory == "plain" or idle or torch.compiler.is_compiling():  # the compiler itself plans what is kept
            return apply
        if self.memory == "lean":  # what a convolution gives is what a normalisation takes
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


def reach(config: ModelConfig) -> int:
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


def folded(model: _Model, precision: str = "float32") -> _Model:
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


class CompiledPerSize(nn.Module):
    """A network that torch compiles once for each size of its input, up to `LIMIT` sizes; others run uncompiled, said once,
    and so do all where torch cannot compile, as without a C++ compiler.

    Not once for all sizes: torch 2.14 cannot compile the ceilings in the sizes of pooled maps ("truth value of Relational").
    What is asked of it beside a forward pass, the network answers.
    """

    LIMIT = 8  # torch's own, after which it stops compiling a function

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._sizes = set[torch.Size]()
        self._said, self._failed = False, False
        self._compiled = torch.compile(network.forward, dynamic=False)

    def forward(self, image: Tensor) -> Tensor:
        """What the network gives, for an image of any size."""
        if self._failed:
            return cast(Tensor, self.network(image))
        if image.shape not in self._sizes and len(self._sizes) == self.LIMIT:
            self._say_limit()
            return cast(Tensor, self.network(image))
        self._sizes.add(image.shape)
        try:
            return cast(Tensor, self._compiled(image))
        except torch._dynamo.exc.BackendCompilerFailed as error:  # before anything was computed
            reason = next(line for line in f"{error}\n{type(error).__name__}".splitlines() if line.strip())
            print(f"warning: cannot compile the network, which now runs uncompiled: {reason}", file=sys.stderr)
            self._failed = True
            return cast(Tensor, self.network(image))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("network"), name)

    def _say_limit(self) -> None:
        if not self._said:
            print(f"note: compiled for {self.LIMIT} sizes; others run uncompiled", file=sys.stderr)
        self._said = True


class Part(NamedTuple):
    """A line of a network's summary."""

    name: str
    shape: tuple[int, ...]  # of its output: (C, h, w)
    parameters: int
    multiply_adds: int
    winner_bytes: int


def summarize(config: ModelConfig, num_classes: int, size: Size) -> list[Part]:
    """The network part by part for one picture of `size` (height, width), without computing or allocating anything.

    Multiply-adds are those of convolutions and deconvolutions, counted by torch's FLOP counter (two FLOPs each).
    """
    with torch.device("meta"):
        model, image = EncoderDecoder(config, num_classes), torch.zeros(1, 3, *size)
    shapes: dict[str, tuple[int, ...]] = {}
    stages = {f"encoder.{i}": f"encoder {i}" for i in range(len(config.encoder))} | {"neck": "neck"}
    stages |= {f"decoder.{i}": f"decoder {i}" for i in range(len(config.decoder))} | {"head": "head"}
    model.eval()
    for path in stages:
        model.get_submodule(path).register_forward_hook(
            lambda module, inputs, output, path=path: shapes.__setitem__(path, tuple(output.shape[1:]))
        )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    flops = {path: sum(counts.values()) for path, counts in counter.get_flop_counts().items()}
    parts = []
    for path, name in stages.items():
        modules = [path, path.replace("decoder", "upsampling")] if path.startswith("decoder") else [path]
        channels, height, width = shapes[path]
        parameters = sum(p.numel() for m in modules for p in model.get_submodule(m).parameters())
        multiply_adds = sum(flops.get(f"EncoderDecoder.{m}", 0) for m in modules) // 2
        winners = channels * -(-height // 2) * -(-width // 2) if path.startswith("encoder") else 0
        parts.append(Part(name, shapes[path], parameters, multiply_adds, winners))
    return [part for part in parts if part.name != "neck" or config.neck]
