"""Warnings about a configuration that is valid and seldom meant."""

from __future__ import annotations

import math
from collections.abc import Sequence

from segnet.config.sections import Config
from segnet.system.errors import UserError, config_error

_LARGEST_RATIO = 2.0  # between the zoom of training and that of inference
_SEEN_SIDE = 224  # pixels: SegNet sees 211 to each side; CamVid was best at 240, pedestrians of 500 pixels at 200


def zoom_warnings(config: Config) -> list[UserError]:
    """A warning where training and inference see the pictures at sizes that differ by more than a factor of two.

    A zoom is the geometric middle: that of `inference.scales`, and that of `augment.scale` in the last part of `augment.shrink`.
    """
    trained = middle_zoom(config.augment.scale) * config.augment.shrink[-1]
    applied = middle_zoom(config.inference.scales)
    ratio = max(trained / applied, applied / trained)
    if ratio <= _LARGEST_RATIO:
        return []
    found = f"training sees the pictures at {trained:.2g} of their size, inference.scales at {applied:.2g}"
    cure = f"try inference.scales=[{trained:.2g}], or another augment.scale"
    remedy = f"objects then differ in size by a factor of {ratio:.1f}; {cure}"
    return [config_error("augment.scale", found, remedy)]


def middle_zoom(zooms: Sequence[float]) -> float:
    """The geometric mean of zooms; of a range, its middle on a logarithmic scale."""
    return math.exp(sum(map(math.log, zooms)) / len(zooms))


def zoom_to_see(side: float, *, least: float) -> float:
    """The zoom, from `least` to 1, at which a picture whose longer side is `side` pixels fits into the field of view."""
    return round(max(least, min(1.0, _SEEN_SIDE / side)), 2)
