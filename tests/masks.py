"""Random masks with single pixels, diagonals, rings and holes in holes.

SEGNET_MASK_TRIALS=10000 python -m pytest tests/regions/test_rims.py tests/vectors tries so many in each test of a round trip.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]


def random_masks(count: int, *, seed: int = 0, classes: int = 4) -> Iterator[Mask]:
    """Masks of noise, of blocks, and of smooth blobs, of 1×1 to 24×24 pixels and up to `classes` classes."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        height, width = rng.integers(1, 25, 2).tolist()
        most = int(rng.integers(1, classes + 1))
        if number % 3 == 0:
            yield rng.integers(0, most, (height, width), dtype=np.uint8)
        elif number % 3 == 1:
            blocks = rng.integers(0, most, (height // 3 + 1, width // 3 + 1), dtype=np.uint8)
            yield np.ascontiguousarray(np.kron(blocks, np.ones((3, 3), np.uint8))[:height, :width])
        else:
            yield blobs(height, width, most, rng)


def trials(usual: int) -> int:
    """The number of masks to try: `usual`, or what the environment asks for."""
    return int(os.environ.get("SEGNET_MASK_TRIALS", usual))


def blobs(height: int, width: int, classes: int, rng: np.random.Generator) -> Mask:
    """Waves of random directions, cut into classes."""
    y, x = np.mgrid[:height, :width]
    waves = sum(np.sin(rng.uniform(-0.4, 0.4) * x + rng.uniform(-0.4, 0.4) * y + rng.uniform(0, 6)) for _ in range(4))
    return np.digitize(waves, np.linspace(-2, 2, classes + 1)[1:-1]).astype(np.uint8)
