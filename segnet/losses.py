"""Cross-entropy over the pixels that count, and class weights measured from the data."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from segnet.classes import IGNORE_INDEX

Criterion = Callable[[Tensor, Tensor], Tensor]  # logits (B, K, H, W), mask (B, H, W) -> scalar


def cross_entropy(logits: Tensor, mask: Tensor, *, weight: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of (B, K, H, W) logits against (B, H, W) class ids, over the pixels that are not ignored.

    With weights the mean is weighted: divided by the sum of the pixels' weights (as torch does, unlike Caffe, which
    divides by the pixel count). Without a single pixel the loss is 0, not NaN. Pixels are flattened first because the
    2-D form is not deterministic on CUDA.
    """
    logits = logits.float().permute(0, 2, 3, 1).flatten(0, 2)  # (B*H*W, K)
    target = mask.long().flatten()
    total = F.cross_entropy(logits, target, weight, ignore_index=IGNORE_INDEX, reduction="sum", label_smoothing=smoothing)
    scored = target != IGNORE_INDEX
    weights = scored.float() if weight is None else weight[target.where(scored, 0)] * scored
    return total / weights.sum().clamp(min=torch.finfo(total.dtype).tiny)


def median_frequency_weights(pixels: Sequence[int], pixels_of_pictures: Sequence[int], power: float = 1.0) -> Tensor:
    """Class weights (K,) float32: median(freq) / freq, to the `power` (Eigen & Fergus 2015, section 6.3.2).

    freq(c) = pixels of c / all pixels, ignored ones too, of the pictures in which c occurs. A class that never occurs
    weighs 0 and has no part in the median.
    """
    frequencies = [p / n if p else 0.0 for p, n in zip(pixels, pixels_of_pictures, strict=True)]
    median = statistics.median([f for f in frequencies if f] or [1.0])
    return torch.tensor([(median / f) ** power if f else 0.0 for f in frequencies], dtype=torch.float32)
