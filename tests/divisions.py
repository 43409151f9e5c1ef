"""How well a division balances the classes."""

from __future__ import annotations

import numpy as np


def largest_deviation(pixels: np.ndarray, chosen: np.ndarray) -> float:
    """Of a class's share of val's pixels from its share of train's, relative to it."""
    train, val = (pixels[rows].sum(axis=0) / pixels[rows].sum() for rows in (~chosen, chosen))
    return float(np.abs(val / train - 1).max())
