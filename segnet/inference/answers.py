"""Class probabilities of images, by one path for validation, evaluation and prediction."""

from __future__ import annotations

import math
import sys
from functools import partial
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnet.config.sections import InferenceConfig
from segnet.inference.exported import Network, Runtime
from segnet.inference.windows import Windows, blend_windows
from segnet.models.compilation import CompiledPerSize
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.models.folding import fold
from segnet.system.devices import autocast, choose_precision
from segnet.system.errors import ExitCode, UserError

WINDOW = 1536  # pixels: the default side of a window; an image of at most WINDOW² pixels is predicted whole
FADE = 32  # pixels over which two windows with equal answers are blended
SMALLEST_WINDOW = 256  # pixels


class Maps(NamedTuple):
    """The answer for a batch of B images, on the CPU, at their own size."""

    mask: Tensor  # (B, H, W) uint8 class ids
    confidence: Tensor  # (B, H, W) float32, probability of the predicted class
    entropy: Tensor  # (B, H, W) float32, of the probabilities, in nats: 0..log K
    variance: Tensor | None  # (B, H, W) float32 between dropout samples, mean over the classes; None without samples
    mutual_information: Tensor | None  # (B, H, W) float32, nats, of class and dropout; None without samples
    probabilities: Tensor | None  # (B, K, H, W) float32, sums to 1 over the classes; None unless requested

    def uncertainty(self, num_classes: int) -> Tensor:
        """(B, H, W) float32 from 0 (certain) to 1: entropy / log K."""
        return (self.entropy / math.log(max(2, num_classes))).clamp_(0, 1)


def resolve_precision(config: InferenceConfig, device: torch.device) -> InferenceConfig:
    """`config` with the precision that its "auto" means on `device`."""
    return config.model_copy(update={"precision": choose_precision(config.precision, device).name})


def prepare_to_predict(model: Network, config: InferenceConfig) -> Network:
    """A copy of the network for prediction only, in the precision of `config`, compiled where `config` says so.

    An exported network is returned as it is.
    """
    model = fold(model, resolve_precision(config, model.device).precision)
    if config.compile and isinstance(model, EncoderDecoder):
        return cast(EncoderDecoder, CompiledPerSize(model))
    return model


def predict_maps(model: Network, image: Tensor, config: InferenceConfig, *, probabilities: bool = False) -> Maps:
    """The maps of (B, 3, H, W) RGB images 0..255, on any device.

    Probabilities are averaged over views: each scale of `config`, with `flip` also mirrored, and all of these
    `dropout_samples` times with dropout on (Monte-Carlo dropout: Kendall et al., BMVC 2017, section 4). Batch normalisation
    uses its stored statistics. The dropout samples are seeded: equal batches have equal answers. Large images are predicted
    in windows; when a GPU runs out of memory, in smaller ones, with a note on stderr. The model is left in evaluation mode.
    Raises UserError (config) for dropout samples of an exported network, which has no dropout.
    """
    if config.dropout_samples and isinstance(model, Runtime):
        found = "an exported network has no dropout"
        raise UserError(ExitCode.CONFIG, "inference.dropout_samples", found, "set it to 0, or use the checkpoint")
    config = resolve_precision(config, model.device)
    windows = choose_windows(model, (image.shape[-2], image.shape[-1]), config)
    while True:
        try:
            return _assemble(model, image, config, windows, probabilities)
        except torch.OutOfMemoryError:
            side = min(windows.size, max(image.shape[-2:]))
            if side <= SMALLEST_WINDOW:
                raise
            side = max(SMALLEST_WINDOW, side // 2)
        torch.cuda.empty_cache()
        windows = choose_windows(model, (image.shape[-2], image.shape[-1]), config.model_copy(update={"window": side}))
        print(f"note: the GPU's memory is full; windows of {windows.size} pixels instead (inference.window)", file=sys.stderr)


def predict_probabilities(model: Network, image: Tensor, config: InferenceConfig) -> Tensor:
    """`predict_maps(…).probabilities`: (B, K, H, W) float32."""
    probabilities = predict_maps(model, image, config, probabilities=True).probabilities
    assert probabilities is not None
    return probabilities


def choose_windows(model: Network, size: tuple[int, int], config: InferenceConfig) -> Windows:
    """The windows for an image of `size` (H, W); a single one when it is predicted whole.

    At scale 1, windows whose overlap is larger than twice the field of view have the answer of the whole image: they discard
    the margins. Otherwise neighbours differ and are blended over their whole overlap.
    """

    def rounded(length: int) -> int:  # up to a multiple of the stride: each window's pooling grid is then that of the image
        return -(-length // model.total_stride) * model.total_stride

    is_whole = size[0] * size[1] <= WINDOW**2
    side = rounded(config.window or (max(size) if is_whole else WINDOW))
    exact = rounded(2 * model.field_of_view + FADE)
    if config.overlap is not None:
        overlap = rounded(config.overlap)
    elif 2 * exact <= side:
        overlap = exact
    else:
        overlap = rounded(side // 4)
    overlap = min(overlap, side // 2 // model.total_stride * model.total_stride)
    agreeing = config.scales == (1.0,) and overlap > 2 * model.field_of_view
    return Windows(side, overlap, margin=model.field_of_view if agreeing else 0)


@torch.inference_mode()
def _assemble(model: Network, image: Tensor, config: InferenceConfig, windows: Windows, probabilities: bool) -> Maps:
    model.eval()
    batch, _, *size = image.shape
    classes = model.num_classes
    mask = torch.empty(batch, *size, dtype=torch.uint8)
    confidence, entropy = torch.empty(batch, *size), torch.empty(batch, *size)
    variance, information = (torch.empty(batch, *size) for _ in range(2)) if config.dropout_samples else (None, None)
    kept = torch.empty(batch, classes, *size) if probabilities else None
    for rows, columns, values in blend_windows((size[0], size[1]), windows, partial(_answer, model, image, config)):
        mean, where = values[:, :classes], (..., rows, columns)
        highest, ids = mean.max(dim=1)
        mask[where], confidence[where] = ids.to(torch.uint8), highest
        entropy[where] = torch.special.entr(mean).sum(dim=1)
        if variance is not None and information is not None:
            variance[where] = values[:, classes]
            information[where] = (entropy[where] - values[:, classes + 1].cpu()).clamp(min=0)
        if kept is not None:
            kept[where] = mean
    return Maps(mask, confidence, entropy, variance, information, kept)


def _answer(model: Network, whole: Tensor, config: InferenceConfig, rows: slice, columns: slice) -> Tensor:
    """The answer of one window of the `whole` image: (B, K, rows, columns) mean probabilities.

    With dropout samples (B, K + 2, rows, columns): then the variance between the samples, mean over the classes, and the mean
    entropy of a sample.
    """
    beyond = (whole.shape[-1] - columns.stop) % model.total_stride if config.flip else 0  # see `_mean_over_views`
    image = whole[..., rows, columns.start : columns.stop + beyond].to(model.device)
    if not config.dropout_samples:
        return _mean_over_views(model, image, config, beyond)
    total = squares = entropy = torch.zeros((), device=image.device)
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    try:
        for dropout in dropouts:
            dropout.train()
        with torch.random.fork_rng(devices=[image.device] if image.is_cuda else []):
            for sample in range(config.dropout_samples):
                torch.manual_seed(sample)
                probabilities = _mean_over_views(model, image, config, beyond)
                total = total + probabilities
                squares = squares + probabilities.square()
                entropy = entropy + torch.special.entr(probabilities).sum(dim=1, keepdim=True)
    finally:
        model.eval()
    count = config.dropout_samples
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=0).mean(dim=1, keepdim=True)
    return torch.cat([mean, variance, entropy / count], dim=1)


def _mean_over_views(model: nn.Module, image: Tensor, config: InferenceConfig, beyond: int) -> Tensor:
    """(B, K, H, W - beyond): softmax of the logits, averaged over scales and flips.

    The last `beyond` columns of a window are read by the mirrored views only: with them the pooling grid of a mirrored window
    is that of the whole mirrored image.
    """
    plain = image[..., : image.shape[-1] - beyond]
    views = [(scale, flip) for scale in config.scales for flip in ((False, True) if config.flip else (False,))]
    total = torch.zeros((), device=image.device)
    for scale, flip in views:
        seen = image.flip(-1) if flip else plain
        size = seen.shape[-2:]
        logits = compute_logits(model, seen, scale, config.precision)
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=False) if logits.shape[-2:] != size else logits
        total = total + (logits[..., beyond:].flip(-1) if flip else logits).softmax(dim=1)
    return total / len(views)


def compute_logits(model: nn.Module, image: Tensor, scale: float, precision: str) -> Tensor:
    """(B, K, h, w) float32 logits of the image resized by `scale`. `precision` is that of the network, never "auto"."""
    if scale != 1.0:
        size = [max(1, round(side * scale)) for side in image.shape[-2:]]
        image = F.interpolate(image.float(), size, mode="bilinear", align_corners=False, antialias=True)
    image = image.contiguous(memory_format=torch.channels_last)
    with autocast(image.device, precision):
        return model(image).float()
