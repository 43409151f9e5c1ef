"""From an image to the answer of a task: validation, evaluation and prediction all call it."""

from __future__ import annotations

import sys
from typing import Any, cast

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
from segnet.tasks.segmentation import ClassProbabilities
from segnet.tasks.segmentation_score import Maps
from segnet.tasks.task import Answers, AnswerType, Spread

WINDOW = 1536  # pixels: the side of a window where nothing else is asked for; its square is what is seen whole
FADE = 32  # pixels over which windows that agree are blended
SMALLEST_WINDOW = 256  # pixels


def resolve_precision(config: InferenceConfig, device: torch.device) -> InferenceConfig:
    """`config` with the precision that its "auto" means on `device`."""
    return config.model_copy(update={"precision": choose_precision(config.precision, device).name})


def prepare_to_predict(model: Network, config: InferenceConfig) -> Network:
    """A copy of the network that only predicts, in the precision of `config`, compiled where asked; an exported one as it is."""
    model = fold(model, resolve_precision(config, model.device).precision)
    if config.compile and isinstance(model, EncoderDecoder):
        return cast(EncoderDecoder, CompiledPerSize(model))
    return model


def predict(
    model: Network, image: Tensor, config: InferenceConfig, answers: Answers[AnswerType], *, keep_mean: bool = False
) -> AnswerType:
    """The answer to (B, C, H, W) images in 0..255, on any device: tensors on the CPU, at the images' own size.

    The network sees the images at each scale of `config`, mirrored too if asked, and all that `dropout_samples` times with
    dropout on (Monte-Carlo dropout: Kendall et al., BMVC 2017, section 4); `answers` says which values are averaged and
    what they become. Batch normalisation always uses its running statistics. The samples are seeded: the same batch has the
    same answer. Large images are seen through windows; on a GPU that runs out of memory the windows become smaller. The
    model is left in evaluation mode.
    Raises UserError (config) for dropout in an exported network, which has none.
    """
    if config.dropout_samples and isinstance(model, Runtime):
        found = "an exported network has no dropout"
        raise UserError(ExitCode.CONFIG, "inference.dropout_samples", found, "set it to 0, or use the checkpoint")
    config = resolve_precision(config, model.device)
    windows = choose_windows(model, (image.shape[-2], image.shape[-1]), config)
    while True:
        try:
            return _assemble(model, image, config, windows, answers, keep_mean)
        except torch.OutOfMemoryError:
            side = min(windows.size, max(image.shape[-2:]))
            if side <= SMALLEST_WINDOW:
                raise
            side = max(SMALLEST_WINDOW, side // 2)
        torch.cuda.empty_cache()
        windows = choose_windows(model, (image.shape[-2], image.shape[-1]), config.model_copy(update={"window": side}))
        print(f"note: the GPU's memory is full; windows of {windows.size} pixels instead (inference.window)", file=sys.stderr)


def predict_maps(model: Network, image: Tensor, config: InferenceConfig, *, probabilities: bool = False) -> Maps:
    """The masks of (B, 3, H, W) RGB images in 0..255 and their confidence: `predict` for a segmentation."""
    return predict(model, image, config, ClassProbabilities(), keep_mean=probabilities)


def predict_probabilities(model: Network, image: Tensor, config: InferenceConfig) -> Tensor:
    """(B, K, H, W) float32 probabilities of (B, 3, H, W) RGB images in 0..255, those of `predict_maps`."""
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
def _assemble(
    model: Network,
    image: Tensor,
    config: InferenceConfig,
    windows: Windows,
    answers: Answers[AnswerType],
    keep_mean: bool,
) -> AnswerType:
    """The answer, put together from those of the windows."""
    model.eval()
    height, width = image.shape[-2:]

    def values_in(rows: slice, columns: slice) -> Tensor:
        beyond = (width - columns.stop) % model.total_stride if config.flip else 0  # see `_mean_over_views`
        window = image[..., rows, columns.start : columns.stop + beyond].to(model.device)
        return _values(model, window, config, answers, beyond)

    whole: AnswerType | None = None
    for rows, columns, values in blend_windows((height, width), windows, values_in):
        spread = Spread(values[:, -2:-1], values[:, -1:]) if config.dropout_samples else None
        mean = values[:, :-2] if config.dropout_samples else values
        part = answers.finish(mean, spread, keep_mean=keep_mean)
        if whole is None:
            whole = _empty_like(part, (height, width))
        for target, source in zip(whole, part, strict=True):
            if target is not None and source is not None:
                target[..., rows, columns] = source
    assert whole is not None  # there is a window at least
    return whole


def _empty_like(part: AnswerType, size: tuple[int, int]) -> AnswerType:
    """An answer on the CPU, of `size`, for the values of `part`."""
    tensors = [None if tensor is None else torch.empty(*tensor.shape[:-2], *size, dtype=tensor.dtype) for tensor in part]
    return cast(AnswerType, cast(Any, type(part))(*tensors))


def _values(model: nn.Module, image: Tensor, config: InferenceConfig, answers: Answers[AnswerType], beyond: int) -> Tensor:
    """(B, C, H, W) mean values; with dropout samples (B, C + 2, H, W): also their variance and their mean statistic."""
    if not config.dropout_samples:
        return _mean_over_views(model, image, config, answers, beyond)
    total = squares = statistic = torch.zeros((), device=image.device)
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    try:
        for dropout in dropouts:
            dropout.train()
        with torch.random.fork_rng(devices=[image.device] if image.is_cuda else []):
            for sample in range(config.dropout_samples):
                torch.manual_seed(sample)
                values = _mean_over_views(model, image, config, answers, beyond)
                total = total + values
                squares = squares + values.square()
                statistic = statistic + answers.statistic(values)
    finally:
        model.eval()
    count = config.dropout_samples
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=0).mean(dim=1, keepdim=True)
    return torch.cat([mean, variance, statistic / count], dim=1)


def _mean_over_views(
    model: nn.Module, image: Tensor, config: InferenceConfig, answers: Answers[AnswerType], beyond: int
) -> Tensor:
    """(B, C, H, W - beyond): the values of `answers`, averaged over scales and flips.

    The last `beyond` columns of a window are for the mirrored views alone, so that their poolings, too, start where those
    of the whole mirrored image would.
    """
    plain = image[..., : image.shape[-1] - beyond]
    flips = (False, True) if config.flip else (False,)
    total = torch.zeros((), device=image.device)
    for scale in config.scales:
        for flip in flips:
            seen = image.flip(-1) if flip else plain
            size = seen.shape[-2:]
            outputs = compute_logits(model, seen, scale, config.precision)
            if outputs.shape[-2:] != size:
                outputs = F.interpolate(outputs, size, mode="bilinear", align_corners=False)
            total = total + answers.of_outputs(outputs[..., beyond:].flip(-1) if flip else outputs)
    return total / (len(config.scales) * len(flips))


def compute_logits(model: nn.Module, image: Tensor, scale: float, precision: str) -> Tensor:
    """float32 logits of the picture resized by `scale`; `precision` is that of the network, and not "auto"."""
    if scale != 1.0:
        size = [max(1, round(side * scale)) for side in image.shape[-2:]]
        image = F.interpolate(image.float(), size, mode="bilinear", align_corners=False, antialias=True)
    image = image.contiguous(memory_format=torch.channels_last)
    with autocast(image.device, precision):
        return model(image).float()
