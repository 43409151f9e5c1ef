"""How wide the objects in a mask are: its connected components, and the pixels across each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segnet.classes import IGNORE_INDEX


class Objects(NamedTuple):
    """The connected components of a mask, or of several, without those that are ignored."""

    classes: NDArray[np.int64]  # (N,) class id
    pixels: NDArray[np.int64]  # (N,)
    widths: NDArray[np.float64]  # (N,) pixels across, see `find_objects`


def find_objects(mask: NDArray[np.uint8]) -> Objects:
    """The components of a mask (H, W) of class ids, joined over sides and corners.

    A pixel is as many pixels across as the shorter one of the row and the column of its class through it. The width of a
    component is the mean of that: 3 for a straight crack of 3 pixels, the side of a square, 0.75 diameters of a disc.
    """
    rows = _runs(mask)
    columns = np.ascontiguousarray(_runs(np.ascontiguousarray(mask.T)).T)
    across = np.minimum(np.bincount(rows.ravel())[rows], np.bincount(columns.ravel())[columns])
    component = _joined(rows, mask)[rows].ravel()
    pixels = np.bincount(component)
    first = np.flatnonzero(pixels)
    class_of = np.zeros(len(pixels), np.int64)
    class_of[component] = mask.ravel()
    widths = np.bincount(component, weights=across.ravel())[first] / pixels[first]
    kept = class_of[first] != IGNORE_INDEX
    return Objects(class_of[first][kept], pixels[first][kept], widths[kept])


def _runs(mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(H, W): the number of the run, along its row, that each pixel belongs to."""
    starts = np.ones(mask.shape, bool)
    starts[:, 1:] = mask[:, 1:] != mask[:, :-1]
    return starts.cumsum().reshape(mask.shape) - 1


def _joined(rows: NDArray[np.int64], mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(R,): for each run of `rows` the lowest number of a run in its component."""
    pairs, width, count = [], mask.shape[1], int(rows[-1, -1]) + 1
    for shift in (-1, 0, 1):  # from a pixel to the one below it, and to both beside that
        here = slice(max(0, -shift), width - max(0, shift))
        there = slice(max(0, shift), width - max(0, -shift))
        same = mask[:-1, here] == mask[1:, there]
        pairs.append(rows[:-1, here][same] * count + rows[1:, there][same])
    a, b = np.divmod(np.unique(np.concatenate(pairs)), count)
    labels = np.arange(count)
    while True:
        low = np.minimum(labels[a], labels[b])
        lower_labels = labels.copy()
        np.minimum.at(lower_labels, labels[a], low)  # hook whole components, by their present label
        np.minimum.at(lower_labels, labels[b], low)
        lower_labels = lower_labels[lower_labels]
        if np.array_equal(lower_labels, labels):
            return labels
        labels = lower_labels


def width_below(objects: Objects, class_id: int, share: float) -> float:
    """The width in pixels below which the objects of a class hold `share` of its pixels; NaN for a class without pixels."""
    own = objects.classes == class_id
    if not own.any():
        return float("nan")
    order = np.argsort(objects.widths[own])
    held = objects.pixels[own][order].cumsum()
    return float(objects.widths[own][order][np.searchsorted(held, share * held[-1])])
