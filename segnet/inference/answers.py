"""From an image to the answer of a task: validation, evaluation and prediction all call it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnet.config.sections import InferenceConfig
from segnet.inference.ensemble import as_one, members_of
from segnet.inference.exported import Network, Runtime
from segnet.inference.precision import resolve_precision
from segnet.inference.windows import Windows, blend_windows
from segnet.models.compilation import CompiledPerSize
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.models.folding import fold
from segnet.system.devices import autocast, memory_is_full
from segnet.system.errors import config_error
from segnet.tasks.segmentation import ClassProbabilities
from segnet.tasks.segmentation_score import Maps
from segnet.tasks.task import Answers, AnswerType, Spread

WINDOW = 1536  # pixels: the default side of a window; an image of at most WINDOW² pixels is predicted whole
FADE = 32  # pixels over which two windows with equal answers are blended
SMALLEST_WINDOW = 256  # pixels

Watch: TypeAlias = Callable[[slice, slice, Tensor], None]  # gets rows, columns and averaged values of a finished region


class _View(NamedTuple):
    """One of the eight pictures that mirrorings and quarter turns make of a picture: it is mirrored first, then transposed."""

    rows: bool  # top and bottom are mirrored
    columns: bool  # left and right are mirrored
    transposed: bool

    @property
    def mirrored(self) -> list[int]:
        """The dimensions of a tensor (…, H, W) that are mirrored."""
        return [dimension for dimension, mirrored in ((-2, self.rows), (-1, self.columns)) if mirrored]


_VIEWS = {
    "none": (_View(False, False, False),),
    "horizontal": (_View(False, False, False), _View(False, True, False)),
    "dihedral": tuple(itertools.starmap(_View, itertools.product((False, True), repeat=3))),
}


def prepare_to_predict(model: Network, config: InferenceConfig) -> Network:
    """A copy of the network for prediction only, in the precision of `config`, compiled where `config` says so.

    An exported network is returned as it is. Of an ensemble every network is prepared.
    """
    config = resolve_precision(config, model)
    if len(members := members_of(model)) > 1:
        return as_one([prepare_to_predict(member, config) for member in members])
    model = fold(model, config.precision)
    if config.compile and isinstance(model, EncoderDecoder):
        return cast(EncoderDecoder, CompiledPerSize(model))
    return model


def predict(
    model: Network,
    image: Tensor,
    config: InferenceConfig,
    answers: Answers[AnswerType],
    *,
    keep_mean: bool = False,
    watch: Watch | None = None,
) -> AnswerType:
    """The answer to (B, C, H, W) images in 0..255, on any device: tensors on the CPU, at the images' own size.

    `answers` says which values are averaged over the views, and what the mean becomes. Views are each scale of `config`, mirrored
    and turned as `flip` says, and all of these `dropout_samples` times with dropout on (Monte-Carlo dropout: Kendall et al., BMVC
    2017, section 4). Batch normalisation uses its stored statistics. The dropout samples are seeded: equal batches have equal
    answers. Large images are predicted in windows; where memory is full, in smaller ones, with a note on stderr. The model then
    remembers how many pixels were too many, for the next images. It is left in evaluation mode.
    `watch` gets the averaged values, (B, C, rows, columns) on the model's device, of regions that cover the images once. The
    first region holds the upper left corner; where memory is full, `watch` sees all regions again from there.
    Raises UserError (config) for dropout samples of an exported network, which has no dropout.
    """
    if config.dropout_samples and isinstance(model, Runtime):
        found = "an exported network has no dropout"
        raise config_error("inference.dropout_samples", found, "set it to 0, or use the checkpoint")
    config = resolve_precision(config, model)
    answers = answers.under(config)
    height, width = image.shape[-2:]
    windows = choose_windows(model, (height, width), config)
    failed = False
    while True:
        pixels = len(image) * min(windows.size, height) * min(windows.size, width)
        side = min(windows.size, max(height, width))
        if pixels < model.too_many_pixels or side <= SMALLEST_WINDOW:
            if failed:
                print(f"note: memory is full; windows of {windows.size} pixels instead (inference.window)", file=sys.stderr)
            try:
                return _assemble(model, image, config, windows, answers, keep_mean, watch)
            except (RuntimeError, MemoryError) as error:
                if side <= SMALLEST_WINDOW or not memory_is_full(error):
                    raise
            failed = True
            model.too_many_pixels = pixels
            torch.cuda.empty_cache()  # after the exception, which holds the tensors of the attempt
        smaller = max(SMALLEST_WINDOW, side // 2)
        windows = choose_windows(model, (height, width), config.model_copy(update={"window": smaller}))


def predict_maps(model: Network, image: Tensor, config: InferenceConfig, *, probabilities: bool = False) -> Maps:
    """The masks of (B, C, H, W) images in 0..255 and their confidence: `predict` for a segmentation."""
    return predict(model, image, config, ClassProbabilities(), keep_mean=probabilities)


def predict_probabilities(model: Network, image: Tensor, config: InferenceConfig) -> Tensor:
    """(B, K, H, W) float32 probabilities of (B, C, H, W) images in 0..255, those of `predict_maps`."""
    found = predict_maps(model, image, config, probabilities=True).probabilities
    assert found is not None
    return found


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
def _assemble(
    model: Network,
    image: Tensor,
    config: InferenceConfig,
    windows: Windows,
    answers: Answers[AnswerType],
    keep_mean: bool,
    watch: Watch | None,
) -> AnswerType:
    """The answer, put together from those of the windows."""
    model.eval()
    size = (image.shape[-2], image.shape[-1])
    whole: AnswerType | None = None
    values_in = partial(_mean_over_samples if config.dropout_samples else _mean_over_views, model, image, config, answers)
    for rows, columns, values in blend_windows(size, windows, values_in):
        spread = Spread(values[:, -2:-1], values[:, -1:]) if config.dropout_samples else None
        mean = values[:, :-2] if config.dropout_samples else values
        if watch:
            watch(rows, columns, mean)
        part = answers.finish(mean, spread, keep_mean=keep_mean)
        if whole is None:
            whole = _empty_like(part, size)
        for target, source in zip(whole, part, strict=True):
            if target is not None and source is not None:
                target[..., rows, columns] = source
    assert whole is not None  # there is a window at least
    return answers.complete(whole)


def _empty_like(part: AnswerType, size: tuple[int, int]) -> AnswerType:
    """An answer on the CPU, of `size`, for the values of `part`."""
    tensors = [None if tensor is None else torch.empty(*tensor.shape[:-2], *size, dtype=tensor.dtype) for tensor in part]
    return cast(AnswerType, cast(Any, type(part))(*tensors))


def _mean_over_views(
    model: Network, whole: Tensor, config: InferenceConfig, answers: Answers[AnswerType], rows: slice, columns: slice
) -> Tensor:
    """The values of `answers` in one window of the `whole` image, (B, C, rows, columns), averaged over networks and views."""
    height, width = rows.stop - rows.start, columns.stop - columns.start
    # A mirrored view reads some pixels more: then the pooling grid of its window is that of the whole mirrored image.
    below = (whole.shape[-2] - rows.stop) % model.total_stride if config.flip == "dihedral" else 0
    beside = (whole.shape[-1] - columns.stop) % model.total_stride if config.flip != "none" else 0
    image = whole[..., rows.start : rows.stop + below, columns.start : columns.stop + beside].to(model.device)
    networks, views = members_of(model), _VIEWS[config.flip]
    total = torch.zeros((), device=image.device)
    for network, scale, view in itertools.product(networks, config.scales, views):
        seen = image[..., : None if view.rows else height, : None if view.columns else width].flip(view.mirrored)
        seen = seen.mT if view.transposed else seen
        outputs = compute_logits(network, seen, scale, config.precision)
        if outputs.shape[-2:] != seen.shape[-2:]:
            outputs = F.interpolate(outputs, seen.shape[-2:], mode="bilinear", align_corners=False)
        outputs = outputs.mT if view.transposed else outputs
        total = total + answers.of_outputs(outputs[..., -height:, -width:].flip(view.mirrored))
    return total / (len(networks) * len(config.scales) * len(views))


def _mean_over_samples(
    model: Network, whole: Tensor, config: InferenceConfig, answers: Answers[AnswerType], rows: slice, columns: slice
) -> Tensor:
    """`_mean_over_views`, averaged over dropout samples, and two channels more, (B, C + 2, rows, columns).

    They are the variance between the samples, averaged over the C channels, and the mean statistic of a sample.
    """
    total = squares = statistic = torch.zeros((), device=model.device)
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    try:
        for dropout in dropouts:
            dropout.train()
        with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
            for sample in range(config.dropout_samples):
                torch.manual_seed(sample)
                values = _mean_over_views(model, whole, config, answers, rows, columns)
                total = total + values
                squares = squares + values.square()
                statistic = statistic + answers.statistic(values)
    finally:
        model.eval()
    count = config.dropout_samples
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=0).mean(dim=1, keepdim=True)
    return torch.cat([mean, variance, statistic / count], dim=1)


def compute_logits(model: nn.Module, image: Tensor, scale: float, precision: str) -> Tensor:
    """(B, K, h, w) float32 logits of the image resized by `scale`. `precision` is that of the network, never "auto"."""
    if scale != 1.0:
        size = [max(1, round(side * scale)) for side in image.shape[-2:]]
        image = F.interpolate(image.float(), size, mode="bilinear", align_corners=False, antialias=True)
    image = image.contiguous(memory_format=torch.channels_last)
    with autocast(image.device, precision):
        return model(image).float()
