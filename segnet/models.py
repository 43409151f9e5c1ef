"""The encoder-decoder: one mirrored builder reads every architecture in configs/model/."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VGG16_BN_Weights, VGG16_Weights

from segnet.config import ModelConfig, NormalizationConfig, StageConfig
from segnet.errors import ExitCode, UserError
from segnet.layers import Deconvolution, max_pool, max_unpool


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


class EncoderDecoder(nn.Module):
    """SegNet and its relatives (Badrinarayanan, Kendall & Cipolla, PAMI 2017, section 3).

    Every encoder stage ends with a max-pooling that remembers its winners; its mirror in the decoder unpools to exactly
    those places, at exactly the size that was pooled, so any input size works.
    """

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        self.normalize = Normalize(config.normalization)
        self.encoder = nn.ModuleList()
        self.encoder_dropout = nn.ModuleList()
        self.decoder = nn.ModuleList()
        width = 3
        for stage in config.encoder:
            self.encoder.append(_build_stage(width, stage, nn.Conv2d, config.kernel_size, relu=True))
            self.encoder_dropout.append(nn.Dropout(stage.dropout))
            width = stage.widths[-1]
        operation = Deconvolution if config.decoder_operation == "deconvolution" else nn.Conv2d
        for stage in config.decoder:
            decoder_stage = _build_stage(width, stage, operation, config.kernel_size, relu=config.decoder_relu)
            decoder_stage.append(nn.Dropout(stage.dropout))
            self.decoder.append(decoder_stage)
            width = stage.widths[-1]
        self.head = nn.Conv2d(width, num_classes, config.head_kernel_size, padding=config.head_kernel_size // 2)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in 0..255 -> (B, K, H, W) logits."""
        x, winners = self.normalize(image), []
        for stage, dropout in zip(self.encoder, self.encoder_dropout, strict=True):
            x = stage(x)
            size = tuple(x.shape[-2:])
            x, winner = max_pool(x)  # (B, C, h, w) -> (B, C, ⌈h/2⌉, ⌈w/2⌉) and one byte per window
            x = dropout(x)
            winners.append((winner, size))
        for stage in self.decoder:
            x = stage(max_unpool(x, *winners.pop()))  # back to the size that this stage's twin pooled from
        return self.head(x)


def _build_stage(
    in_channels: int, stage: StageConfig, operation: type[nn.Conv2d] | type[Deconvolution], kernel_size: int, *, relu: bool
) -> nn.Sequential:
    """The convolutions (or deconvolutions) of one stage, each with batch normalisation and, where asked, a ReLU."""
    blocks = nn.Sequential()
    for width in stage.widths:
        if operation is Deconvolution:
            conv: nn.Module = Deconvolution(in_channels, width, kernel_size)
        else:
            conv = nn.Conv2d(in_channels, width, kernel_size, padding=kernel_size // 2)
        layers = OrderedDict(conv=conv, norm=nn.BatchNorm2d(width))
        if relu:
            layers["relu"] = nn.ReLU(inplace=True)
        blocks.append(nn.Sequential(layers))
        in_channels = width
    return blocks


def build_model(config: ModelConfig, num_classes: int) -> EncoderDecoder:
    """A network with fresh weights: He initialisation, then `config.encoder_weights` over the encoder if given.

    Raises UserError (checkpoint) when those weights are missing or do not fit.
    """
    model = EncoderDecoder(config, num_classes)
    _initialize(model)
    if config.encoder_weights is not None:
        load_encoder_weights(model, config.encoder_weights)
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


# ---------------------------------------------------------------------------------------------------------------------
# VGG16 weights for the encoder
# ---------------------------------------------------------------------------------------------------------------------

_DOWNLOADS = {"vgg16": VGG16_Weights.IMAGENET1K_V1, "vgg16_bn": VGG16_BN_Weights.IMAGENET1K_V1}


def load_encoder_weights(model: EncoderDecoder, source: str) -> None:
    """Copy the convolutions (and batch normalisation, where there is one) of torchvision's VGG16 into the encoder.

    `source`: "vgg16" or "vgg16_bn" (downloaded once, checksum verified, cached by torch) or a file with such weights.
    Raises UserError (checkpoint) that names the first parameter that is missing or has another shape; nothing is then
    copied.
    """
    weights = _read_vgg(source)
    with_norm = "features.1.weight" in weights  # in vgg16 that place holds a ReLU
    pairs = []
    for name, parameter in _vgg_names(model, with_norm=with_norm):
        if name not in weights:
            raise UserError(ExitCode.CHECKPOINT, source, f"no '{name}' in it", "expected torchvision's vgg16 or vgg16_bn")
        if weights[name].shape != parameter.shape:
            found, expected = tuple(weights[name].shape), tuple(parameter.shape)
            raise UserError(ExitCode.CHECKPOINT, source, f"'{name}' is {found}, the encoder's is {expected}", "use VGG16")
        pairs.append((parameter, weights[name]))
    with torch.no_grad():
        for parameter, values in pairs:
            parameter.copy_(values)


def _read_vgg(source: str) -> dict[str, Tensor]:
    try:
        if source in _DOWNLOADS:
            return _DOWNLOADS[source].get_state_dict(progress=True, check_hash=True)
        if not Path(source).is_file():
            raise UserError(ExitCode.CHECKPOINT, source, "no such file", "write vgg16, vgg16_bn or the path of a weights file")
        weights = torch.load(source, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # unpickling and downloading fail in many ways
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(ExitCode.CHECKPOINT, source, f"cannot be read ({reason})", "expected a VGG16 state dict") from None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(ExitCode.CHECKPOINT, source, "not a table of tensors", "expected a VGG16 state dict")
    return weights


def _vgg_names(model: EncoderDecoder, *, with_norm: bool) -> Iterator[tuple[str, Tensor]]:
    """torchvision's name of each encoder tensor: conv, (norm,) ReLU take a place each, and so does every pooling."""
    place = 0
    for stage in model.encoder:
        assert isinstance(stage, nn.Sequential)
        for block in stage:
            for kind in ("weight", "bias"):
                yield f"features.{place}.{kind}", getattr(block.conv, kind)
            if with_norm:
                for kind in ("weight", "bias", "running_mean", "running_var"):
                    yield f"features.{place + 1}.{kind}", getattr(block.norm, kind)
            place += 3 if with_norm else 2
        place += 1
