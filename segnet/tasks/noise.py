"""The kinds of noise, and how much of it a sample has."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segnet.config.sections import NoiseConfig
from segnet.data.images import compress

Random = np.random.RandomState | np.random.Generator


def draw_level(noise: NoiseConfig, random: Random) -> float:
    """The strength of one sample of training: sigma, or the quality of a JPEG."""
    levels = noise.quality if noise.kind == "jpeg" else noise.sigma
    if not isinstance(levels, tuple):
        return levels
    level = random.uniform(*levels)
    return round(level) if noise.kind == "jpeg" else level


def scored_levels(noise: NoiseConfig) -> tuple[float, ...]:
    """The strengths at which each picture is scored."""
    levels = noise.quality if noise.kind == "jpeg" else noise.sigma
    middle = sum(levels) / 2 if isinstance(levels, tuple) else levels
    return noise.scored or (round(middle) if noise.kind == "jpeg" else middle,)


def add_noise(clean: Tensor, kind: str, level: float, random: Random) -> Tensor:
    """A noisy (C, H, W) float32 of an image in 0..255: not clipped, not rounded.

    Numbers are drawn in the order rows, columns, channels. `level` is the standard deviation, in levels of 255, at each value for
    gaussian, and of white for poisson and speckle; of jpeg it is the quality.
    """
    values = clean.permute(1, 2, 0).numpy().astype(np.float32)  # (H, W, C)
    return torch.from_numpy(np.ascontiguousarray(_noisy(values, kind, level, random).transpose(2, 0, 1), dtype=np.float32))


def _noisy(values: NDArray[np.float32], kind: str, level: float, random: Random) -> NDArray[np.floating]:
    if not level:
        return values
    match kind:
        case "gaussian":
            return values + random.normal(0.0, level, values.shape)
        case "speckle":
            return values * (1 + random.normal(0.0, level / 255, values.shape))
        case "poisson":
            photons = 255 / level**2  # for each level: a count of n has the variance n, and white 255² / level² photons
            return random.poisson(values * photons) / photons
        case "jpeg":
            return compress(values.round().astype(np.uint8), round(level)).astype(np.float32)
        case _:
            raise ValueError(kind)
