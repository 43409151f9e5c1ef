"""How wide the objects in a mask are: its connected components, and the pixels across each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segnet.classes import IGNORE_INDEX
from segnet.regions.labelling import find_regions


class Objects(NamedTuple):
    """The connected components of a mask, or of several, without those that are ignored."""

    classes: NDArray[np.int64]  # (N,) class id
    pixels: NDArray[np.int64]  # (N,)
    widths: NDArray[np.float64]  # (N,) pixels across, see `find_objects`


def find_objects(mask: NDArray[np.uint8]) -> Objects:
    """The components of a mask (H, W) of class ids: the regions of pixels that share sides.

    A pixel is as many pixels across as the shorter one of the row and the column of its class through it. The width of a
    component is the mean of that: 3 for a straight crack of 3 pixels, the side of a square, 0.75 diameters of a disc.
    """
    across = np.minimum(_run_lengths(mask), _run_lengths(mask.T).T)
    regions = find_regions(mask)
    widths = np.bincount(regions.labels.ravel(), weights=across.ravel()) / regions.sizes
    kept = regions.classes != IGNORE_INDEX
    return Objects(regions.classes[kept].astype(np.int64), regions.sizes[kept], widths[kept])


def _run_lengths(mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(H, W): the number of pixels of the run of equal values, along its row, that each pixel belongs to."""
    starts = np.ones(mask.shape, bool)
    starts[:, 1:] = mask[:, 1:] != mask[:, :-1]
    run = starts.ravel().cumsum() - 1
    return np.bincount(run)[run].reshape(mask.shape)


def width_below(objects: Objects, class_id: int, share: float) -> float:
    """The width in pixels below which the objects of a class hold `share` of its pixels; NaN for a class without pixels."""
    own = objects.classes == class_id
    if not own.any():
        return float("nan")
    order = np.argsort(objects.widths[own])
    held = objects.pixels[own][order].cumsum()
    return float(objects.widths[own][order][np.searchsorted(held, share * held[-1])])
