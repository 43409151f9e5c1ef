"""Boundary IoU: the IoU of the bands along true and predicted contours, in exact integers until the last division.

Cheng et al., CVPR 2021.

Ignored pixels belong to no band, whatever the network predicts there. A class that ends at ignored pixels has its contour
there, in truth and prediction alike: Pascal VOC outlines every object with them. A distance is measured across ignored pixels
as across all others. The edge of the image is a contour, as in the authors' program.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from segnet.classes import IGNORE_INDEX


def band_overlaps(truth: Tensor, prediction: Tensor, num_classes: int) -> Tensor:
    """Band pixels of each class, (K, 2) int64, from (H, W) uint8 truth (255: ignored) and prediction.

    The columns: pixels in the bands of both truth and prediction; pixels in either. The band of a class are its pixels within
    distance d of a pixel that is not of it, or of the outside of the image. d is 2 % of the diagonal, rounded, at least 1; a
    diagonal step counts 1, as in the authors' program, which erodes d times by a 3×3 square.
    """
    prediction = prediction.where(truth != IGNORE_INDEX, IGNORE_INDEX)
    true, predicted = _band(truth), _band(prediction)
    in_both = true & predicted & (truth == prediction)
    both, of_truth, of_prediction = (
        torch.bincount(ids, minlength=num_classes) for ids in (truth[in_both], truth[true], prediction[predicted])
    )
    return torch.stack([both, of_truth + of_prediction - both], dim=1)


def _band(mask: Tensor) -> Tensor:
    """(H, W) bool: the scored pixels within distance d of another class, an ignored pixel or the outside of the image."""
    distance = max(1, round(0.02 * math.hypot(*mask.shape)))
    band = _window(mask, distance, torch.maximum, 0) != _window(mask, distance, torch.minimum, 255)
    for edge in (band[:distance], band[-distance:], band[:, :distance], band[:, -distance:]):
        edge.fill_(True)
    return band & (mask != IGNORE_INDEX)


def _window(values: Tensor, distance: int, extreme: Callable[[Tensor, Tensor], Tensor], outside: int) -> Tensor:
    """(H, W): the extreme value among the (2 · distance + 1)² pixels around each one; those outside have the value `outside`."""
    values = F.pad(values, [distance] * 4, value=outside)
    for dimension in (0, 1):
        length = 1  # of the runs whose extremes `values` holds
        while length < 2 * distance + 1:
            step = min(length, 2 * distance + 1 - length)
            count = values.shape[dimension] - step
            values = extreme(values.narrow(dimension, 0, count), values.narrow(dimension, step, count))
            length += step
    return values
