"""Pictures made from pictures, masks and predictions, as (H, W, 3) uint8 arrays. No files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from segnet.classes import ClassSet


def to_array(image: Tensor) -> np.ndarray:
    """(3, H, W) uint8 -> (H, W, 3) uint8."""
    return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())


def colorize(mask: Tensor, classes: ClassSet) -> np.ndarray:
    """(H, W) class ids -> (H, W, 3): each pixel in the colour of its class."""
    palette = np.asarray(classes.palette, dtype=np.uint8).reshape(256, 3)
    return palette[mask.cpu().numpy()]


def overlay(image: Tensor, mask: Tensor, classes: ClassSet, *, opacity: float = 0.55) -> np.ndarray:
    """The picture (3, H, W) under its mask (H, W) -> (H, W, 3). Black classes and ignored pixels stay transparent.

    Edges between classes are drawn in full colour.
    """
    picture, color = to_array(image).astype(np.float32), colorize(mask, classes).astype(np.float32)
    ids = mask.cpu().numpy()
    alpha = np.where(color.any(axis=2) & (ids != classes.ignore_index), opacity, 0.0)
    edge = np.zeros(ids.shape, dtype=bool)
    edge[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    edge[1:, :] |= ids[1:, :] != ids[:-1, :]
    alpha = np.where(edge & (alpha > 0), 1.0, alpha)[..., None]
    return (picture * (1 - alpha) + color * alpha).round().astype(np.uint8)


def grid(rows: Sequence[Sequence[np.ndarray]], *, gap: int = 4) -> np.ndarray:
    """Pictures in rows and columns, each column as wide as its widest, on white: one (H, W, 3) picture."""
    heights = [max(cell.shape[0] for cell in row) for row in rows]
    widths = [max(row[column].shape[1] for row in rows) for column in range(len(rows[0]))]
    canvas = np.full((sum(heights) + gap * (len(rows) - 1), sum(widths) + gap * (len(widths) - 1), 3), 255, dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            top, left = sum(heights[:i]) + gap * i, sum(widths[:j]) + gap * j
            canvas[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    return canvas


def comparison(image: Tensor, truth: Tensor, prediction: Tensor, classes: ClassSet) -> list[np.ndarray]:
    """One row of a grid: picture | truth | prediction."""
    return [to_array(image), colorize(truth, classes), colorize(prediction.to(torch.uint8), classes)]
