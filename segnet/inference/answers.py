"""The one way from a picture to class probabilities: validation, evaluation and prediction all call it."""

from __future__ import annotations

import math
import sys
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

WINDOW = 1536  # pixels: the side of a window where nothing else is asked for; its square is what is seen whole
FADE = 32  # pixels over which windows that agree are blended
SMALLEST_WINDOW = 256  # pixels


class Maps(NamedTuple):
    """The answer for B pictures, on the CPU, at their own size."""

    mask: Tensor  # (B, H, W) uint8 class ids
    confidence: Tensor  # (B, H, W) float32, probability of the predicted class
    entropy: Tensor  # (B, H, W) float32, of the probabilities, in nats: 0..log K
    variance: Tensor | None  # (B, H, W) float32 between dropout samples, mean over the classes; None without samples
    mutual_information: Tensor | None  # (B, H, W) float32, nats, of class and dropout; None without samples
    probabilities: Tensor | None  # (B, K, H, W) float32, sums to 1 over the classes; where asked for

    def uncertainty(self, num_classes: int) -> Tensor:
        """(B, H, W) float32, 0 certain .. 1: entropy / log K."""
        return (self.entropy / math.log(max(2, num_classes))).clamp_(0, 1)


def resolve_precision(config: InferenceConfig, device: torch.device) -> InferenceConfig:
    """`config` with the precision that its "auto" means on `device`."""
    return config.model_copy(update={"precision": choose_precision(config.precision, device).name})


def prepare_to_predict(model: Network, config: InferenceConfig) -> Network:
    """A copy of the network that only predicts, in the precision of `config`, compiled where asked; an exported one as it is."""
    model = fold(model, resolve_precision(config, model.device).precision)
    if config.compile and isinstance(model, EncoderDecoder):
        return cast(EncoderDecoder, CompiledPerSize(model))
    return model


def predict_maps(model: Network, image: Tensor, config: InferenceConfig, *, probabilities: bool = False) -> Maps:
    """(B, 3, H, W) RGB 0..255, on any device -> class ids and how sure they are, at the picture's own size.

    The picture is seen at each scale of `config`, mirrored too if asked, and all that `dropout_samples` times with
    dropout on (Monte-Carlo dropout: Kendall et al., BMVC 2017, section 4); the probabilities are averaged. Batch
    normalisation always keeps its statistics. The samples are seeded: the same batch has the same answer. Large pictures
    are seen through windows, on a GPU that runs out of memory through smaller ones. Leaves the model in evaluation mode.
    Raises UserError (config) for dropout in an exported network, which has none.
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
    """(B, 3, H, W) RGB 0..255 -> (B, K, H, W) float32 probabilities, as `predict_maps` has them."""
    found = predict_maps(model, image, config, probabilities=True).probabilities
    assert found is not None
    return found


def choose_windows(model: Network, size: tuple[int, int], config: InferenceConfig) -> Windows:
    """The windows through which a picture of `size` is seen; one, where it is seen whole.

    At scale 1 they give the whole picture's answer where the overlap has room for the network's reach; else neighbours
    differ, and are blended over all of their overlap.
    """

    def rounded(length: int) -> int:  # windows start where the poolings of the whole picture would have theirs
        return -(-length // model.total_stride) * model.total_stride

    side = rounded(config.window or (max(size) if size[0] * size[1] <= WINDOW**2 else WINDOW))
    exact = rounded(2 * model.field_of_view + FADE)
    overlap = rounded(config.overlap) if config.overlap is not None else exact if 2 * exact <= side else rounded(side // 4)
    overlap = min(overlap, side // 2 // model.total_stride * model.total_stride)
    agreeing = config.scales == (1.0,) and overlap > 2 * model.field_of_view
    return Windows(side, overlap, margin=model.field_of_view if agreeing else 0)


@torch.inference_mode()
def _assemble(model: Network, image: Tensor, config: InferenceConfig, windows: Windows, probabilities: bool) -> Maps:
    model.eval()
    batch, _, *size = image.shape
    device, classes = model.device, model.num_classes
    mask = torch.empty(batch, *size, dtype=torch.uint8)
    confidence, entropy = torch.empty(batch, *size), torch.empty(batch, *size)
    variance, information = (torch.empty(batch, *size) for _ in range(2)) if config.dropout_samples else (None, None)
    kept = torch.empty(batch, classes, *size) if probabilities else None

    def answer(rows: slice, columns: slice) -> Tensor:
        beyond = (size[1] - columns.stop) % model.total_stride if config.flip else 0  # see `_mean_over_views`
        window = image[..., rows, columns.start : columns.stop + beyond].to(device)
        return _answer(model, window, config, beyond)

    for rows, columns, values in blend_windows((size[0], size[1]), windows, answer):
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


def _answer(model: nn.Module, image: Tensor, config: InferenceConfig, beyond: int) -> Tensor:
    """(B, K, H, W) mean probabilities; with samples (B, K + 2, H, W): also their variance, and the samples' mean entropy."""
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

    The last `beyond` columns of a window are for the mirrored views alone, so that their poolings, too, start where those
    of the whole mirrored picture would.
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
    """float32 logits of the picture resized by `scale`; `precision` is that of the network, and not "auto"."""
    if scale != 1.0:
        size = [max(1, round(side * scale)) for side in image.shape[-2:]]
        image = F.interpolate(image.float(), size, mode="bilinear", align_corners=False, antialias=True)
    image = image.contiguous(memory_format=torch.channels_last)
    with autocast(image.device, precision):
        return model(image).float()
