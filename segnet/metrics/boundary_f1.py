"""Boundary F1: how much of the true and the predicted contours lie near each other, in exact integers until the last division.

Csurka et al., BMVC 2013, section 3.2, as SegNet's paper uses it (section 4.1).

Ignored pixels belong to no contour, whatever the network predicts there. A class that ends at ignored pixels has its contour
there, in truth and prediction alike: Pascal VOC outlines every object with them. A distance is measured across ignored pixels
as across all others. The edge of the image is no contour: an object that is cut off there has no boundary
that a network could miss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from segnet.classes import IGNORE_INDEX
from segnet.metrics.confusion import mean_of_present

_BITS = 31  # classes that are matched at a time: the bits of an int32 without its sign


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
            columns[2 * own] += torch.bincount(masks[own][bits[own] != 0], minlength=num_classes)
            columns[2 * own + 1] += torch.bincount(masks[own][near], minlength=num_classes)
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
