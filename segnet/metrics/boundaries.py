"""Boundary F1 and boundary IoU: the agreement of predicted contours with the true ones, exact integers until the last division.

Ignored pixels belong to no contour and to no band, whatever the network predicts there. A class that ends at ignored pixels
has its contour there, in truth and prediction alike: Pascal VOC outlines every object with them. A distance is measured
across ignored pixels as across all others.

Boundary IoU counts the edge of the image as contour, as its authors' program does. Boundary F1 does not: an object that is
cut off there has no boundary that a network could miss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segnet.classes import IGNORE_INDEX
from segnet.metrics.confusion import mean_of_present, ratio

_BITS = 31  # classes that are matched at a time: the bits of an int32 without its sign


class BoundaryScores(NamedTuple):
    """Shares 0..1; NaN where there is nothing to compare, which the means leave out."""

    f1: float  # mean over pictures of `boundary_f1`
    iou: float  # mean over classes of `class_iou`
    class_iou: tuple[float, ...]  # each class's bands summed over the split, then divided


def boundary_scores(picture_f1: Sequence[float], overlaps: Tensor) -> BoundaryScores:
    """The scores of a split, from `boundary_f1` of its pictures and the sum of their `band_overlaps`."""
    class_iou = tuple(ratio(both, either) for both, either in overlaps.tolist())
    return BoundaryScores(mean_of_present(picture_f1), mean_of_present(class_iou), class_iou)


# ---------------------------------------------------------------------------------------------------------------------
# Boundary F1: Csurka et al., BMVC 2013, section 3.2, as SegNet's paper uses it (section 4.1)
# ---------------------------------------------------------------------------------------------------------------------


def boundary_f1(matches: Tensor, in_truth: Sequence[int]) -> float:
    """BF of one picture, from its `contour_matches`: the mean F1 over the classes with a pixel in the truth.

    A class without a contour in truth and prediction has no F1. A class with a contour in only one of them has F1 0.
    """
    return mean_of_present([_f1(*row) for row, pixels in zip(matches.tolist(), in_truth, strict=True) if pixels])


def _f1(true: int, found: int, predicted: int, confirmed: int) -> float:
    """2PR / (P + R) with precision P = confirmed / predicted and recall R = found / true."""
    if not found or not confirmed:
        return 0.0 if true or predicted else math.nan
    return 2 * confirmed * found / (confirmed * true + found * predicted)


def contour_matches(truth: Tensor, prediction: Tensor, num_classes: int) -> Tensor:
    """Contour pixels of each class, (K, 4) int64, from (H, W) uint8 truth (255: ignored) and prediction.

    The columns: pixels of the true contour; those of them near the predicted contour; pixels of the predicted contour; those
    of them near the true contour. A pixel is on the contour of its class when one of its four neighbours is of another class.
    Near means closer than 0.75 % of the image's diagonal, in a straight line.
    """
    disc = _disc(*truth.shape)
    masks = (truth, prediction.where(truth != IGNORE_INDEX, IGNORE_INDEX))
    contours = [_contour(mask) for mask in masks]
    columns = torch.zeros(4, num_classes, dtype=torch.int64)
    for first in range(0, num_classes, _BITS):
        bit_of = torch.zeros(256, dtype=torch.int32)
        bit_of[first : first + _BITS] = 1 << torch.arange(min(_BITS, 256 - first), dtype=torch.int32)
        bits = [bit_of[mask.int()] * contour for mask, contour in zip(masks, contours, strict=True)]
        for own, other in ((0, 1), (1, 0)):
            near = (bits[own] & _dilate(bits[other], disc)) != 0
            columns[2 * own] += _count(masks[own][bits[own] != 0], num_classes)
            columns[2 * own + 1] += _count(masks[own][near], num_classes)
    return columns.T.contiguous()


def _contour(mask: Tensor) -> Tensor:
    """(H, W) bool: the scored pixels with a neighbour that is of another class or ignored."""
    contour = torch.zeros_like(mask, dtype=torch.bool)
    for dimension in (0, 1):
        length = mask.shape[dimension] - 1
        here, there = (mask.narrow(dimension, start, length) for start in (0, 1))
        for start in (0, 1):
            contour.narrow(dimension, start, length).logical_or_(here != there)
    return contour & (mask != IGNORE_INDEX)


def _disc(height: int, width: int) -> list[int]:
    """The half width of the disc of radius 0.75 % of the diagonal, in the row 0, 1, 2, … rows from its centre."""
    farthest = (9 * (height**2 + width**2) - 1) // 160_000  # the largest square of a distance below 0.0075² · diagonal²
    return [math.isqrt(farthest - rows**2) for rows in range(math.isqrt(farthest) + 1)]


def _dilate(bits: Tensor, disc: list[int]) -> Tensor:
    """(H, W) int32: the bits of all pixels in the disc around each pixel."""
    near, reach, widened = bits.clone(), 0, bits.clone()
    for rows in reversed(range(len(disc))):  # the narrowest row first
        while reach < disc[rows]:
            reach += 1
            widened[:, reach:] |= bits[:, :-reach]
            widened[:, :-reach] |= bits[:, reach:]
        left = max(0, len(bits) - rows)
        near[rows:] |= widened[:left]
        near[:left] |= widened[rows:]
    return near


# ---------------------------------------------------------------------------------------------------------------------
# Boundary IoU: Cheng et al., CVPR 2021
# ---------------------------------------------------------------------------------------------------------------------


def band_overlaps(truth: Tensor, prediction: Tensor, num_classes: int) -> Tensor:
    """Band pixels of each class, (K, 2) int64, from (H, W) uint8 truth (255: ignored) and prediction.

    The columns: pixels in the bands of both truth and prediction; pixels in either. The band of a class are its pixels within
    distance d of a pixel that is not of it, or of the outside of the image. d is 2 % of the diagonal, rounded, at least 1; a
    diagonal step counts 1, as in the authors' program, which erodes d times by a 3×3 square.
    """
    prediction = prediction.where(truth != IGNORE_INDEX, IGNORE_INDEX)
    true, predicted = _band(truth), _band(prediction)
    both = _count(truth[true & predicted & (truth == prediction)], num_classes)
    total = _count(truth[true], num_classes) + _count(prediction[predicted], num_classes)
    return torch.stack([both, total - both], dim=1)


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


def _count(ids: Tensor, num_classes: int) -> Tensor:
    """The number of pixels of each class, (K,) int64, among (N,) uint8 class ids."""
    return torch.bincount(ids, minlength=num_classes)
