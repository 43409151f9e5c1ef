"""The pictures of a training split from which objects of rare classes are cut out."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from segnet.data.dataset import Sample

ReadSample = Callable[[int], Sample]
"""Reads a sample of the split by its index, without augmentation."""


class RareClasses:
    """Draws a rare class by its odds, then one of the pictures in which it occurs. See `transforms.Donors`."""

    def __init__(self, read: ReadSample, pictures: Sequence[Sequence[int]], odds: Tensor) -> None:
        """`pictures` are the indices of the pictures of each class, `odds` (K,) are 0 for the classes that are not drawn."""
        self.read = read
        self.pictures = pictures
        self.odds = odds

    def draw(self) -> tuple[Tensor, Tensor, int]:
        """An image (C, H, W), its mask (H, W), and the id of a class in the mask, drawn from torch's global generator."""
        class_id = int(torch.multinomial(self.odds, 1))
        pictures = self.pictures[class_id]
        sample = self.read(pictures[int(torch.randint(len(pictures), ()))])
        return sample.image, sample.truth, class_id


def class_odds(pixels: Sequence[int], power: float) -> Tensor:
    """(K,) float64: (share of the pixels of each class) ** -`power`; 0 for a class without pixels."""
    total = max(1, sum(pixels))
    return torch.tensor([(count / total) ** -power if count else 0.0 for count in pixels], dtype=torch.float64)


def rare_class_odds(pixels: Sequence[int], power: float) -> Tensor:
    """`class_odds` of the classes with fewer pixels than the median class, 0 for the others. A class without any is left out."""
    median = statistics.median([count for count in pixels if count] or [0])
    return class_odds([count if count < median else 0 for count in pixels], power)
