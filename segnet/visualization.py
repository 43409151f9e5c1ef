"""Drawings of images, masks and predictions as uint8 arrays. No files."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from segnet.classes import IGNORE_INDEX, ClassSet
from segnet.config.sections import RGB, Bands


def to_array(image: Tensor) -> np.ndarray:
    """(3, H, W) uint8 -> (H, W, 3) uint8."""
    return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())


def preview(image: Tensor, bands: Bands = RGB) -> Tensor:
    """An image (C, H, W) as (3, H, W) uint8 R, G, B to look at: the bands of `bands.rgb`, the first three, or the first one.

    Values that the network scales are scaled as it does; where that is not known yet, by their own smallest and largest.
    """
    count = len(image)
    shown = [band - 1 for band in bands.rgb] if bands.rgb else [0, 1, 2] if count >= 3 else [0, 0, 0]
    image = image if shown == [0, 1, 2] == list(range(count)) else image[shown]
    if image.dtype == torch.uint8:
        return image
    if bands.ranges:
        low, high = torch.tensor([bands.ranges[band] for band in shown])[..., None, None].unbind(1)
    elif bands.scale == "dtype":
        low, high = torch.tensor([0.0, 255.0])
    else:
        low, high = image.min(), image.max() + 1e-12
    return ((image.cpu() - low) * (255 / (high - low))).clamp(0, 255).round().to(torch.uint8)


_GAIN = 5


def draw_difference(image: Tensor, truth: Tensor) -> Tensor:
    """(C, H, W) uint8: the difference of two images in 0..255, five times as large, on grey of 128."""
    return (128 + _GAIN * (image.float() - truth.float())).round().clamp(0, 255).byte()


def colorize(mask: Tensor, classes: ClassSet) -> np.ndarray:
    """The mask (H, W) in the colours of its classes, (H, W, 3) uint8."""
    palette = np.asarray(classes.palette, dtype=np.uint8).reshape(256, 3)
    return palette[mask.cpu().numpy()]


_BAND = 1 << 18  # pixels that are drawn at a time, so that memory does not grow with the image


def overlay(image: Tensor, mask: Tensor, classes: ClassSet, *, opacity: float = 0.55) -> np.ndarray:
    """The image (3, H, W) with its mask (H, W) over it, (H, W, 3) uint8. Black classes and ignored pixels stay transparent.

    Edges between classes are drawn in full colour.
    """
    palette = np.asarray(classes.palette, dtype=np.uint8).reshape(256, 3)
    seen = palette.any(axis=1) & (np.arange(256) != IGNORE_INDEX)
    alpha = np.where(seen, opacity, 0.0)
    mixed = np.arange(256) * (1 - alpha)[:, None] + (palette.T * alpha)[..., None]  # (3, 256 ids, 256 values): every answer
    answers = mixed.round().astype(np.uint8).reshape(3, -1)
    shown = np.array(image.permute(1, 2, 0).cpu().numpy(), order="C")  # a copy, whatever the memory order
    ids = mask.cpu().numpy()
    rows = max(1, _BAND // ids.shape[1])
    for top in range(0, len(ids), rows):
        band, part = ids[top : top + rows], shown[top : top + rows]
        first = band.astype(np.intp) * 256  # of the answers for each pixel's id
        for channel in range(3):
            part[..., channel] = answers[channel].take(first + part[..., channel])
        edge = _edges(ids[max(0, top - 1) : top + rows])[min(1, top) :] & seen[band]
        part[edge] = palette[band[edge]]
    return shown


def _edges(ids: np.ndarray) -> np.ndarray:
    """(H, W) bool: True where the pixel above or to the left is of another class."""
    edge = np.zeros(ids.shape, dtype=bool)
    edge[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    edge[1:, :] |= ids[1:, :] != ids[:-1, :]
    return edge


def grid(rows: Sequence[Sequence[np.ndarray]], *, gap: int = 4) -> np.ndarray:
    """One (H, W, 3) array with the given arrays in rows and columns on white; a column is as wide as its widest cell."""
    heights = [max(cell.shape[0] for cell in row) for row in rows]
    widths = [max(row[column].shape[1] for row in rows) for column in range(len(rows[0]))]
    canvas = np.full((sum(heights) + gap * (len(rows) - 1), sum(widths) + gap * (len(widths) - 1), 3), 255, dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            top, left = sum(heights[:i]) + gap * i, sum(widths[:j]) + gap * j
            canvas[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    return canvas


def activation_grid(image: Tensor, stages: Sequence[tuple[Tensor, Tensor]]) -> np.ndarray:
    """An image and one column for each decoder stage: its unpooled input above, its deconvolved output below.

    Shown of each is the channel with the largest sum of magnitudes, scaled to its own maximum, 120 pixels high.
    """
    size = (120, round(120 * image.shape[2] / image.shape[1]))
    columns = [[to_array(image), np.full((*image.shape[1:], 3), 255, np.uint8)]]
    for stage in stages:
        columns.append([_heat(activation[activation.abs().sum(dim=(1, 2)).argmax()]) for activation in stage])
    rows = [[_resize(cells[row], size) for cells in columns] for row in (0, 1)]
    return grid(rows)


def _heat(values: Tensor) -> np.ndarray:
    """(h, w) numbers -> (h, w, 3): black over red and yellow to white, by their size."""
    x = (values.abs() / values.abs().max().clamp(min=1e-12)).numpy()[..., None]
    return (255 * np.clip(3 * x - np.arange(3), 0, 1)).round().astype(np.uint8)


def enlarge(picture: np.ndarray, factor: int) -> np.ndarray:
    """(H, W, 3) -> (factor·H, factor·W, 3), every pixel a square."""
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def _resize(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The array resized to (height, width) by the nearest pixel, so that single pixels stay visible."""
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.NEAREST))


def contact_sheet(samples: Sequence[tuple[Tensor, Tensor]], classes: ClassSet) -> np.ndarray:
    """Images (3, H, W) of one size, four in a row, each beside its overlay, on which ignored pixels are hatched in white."""
    cells = []
    for image, mask in samples:
        shown = overlay(image, mask, classes)
        rows, columns = np.indices(mask.shape)
        shown[((rows + columns) % 8 < 2) & (mask.cpu().numpy() == IGNORE_INDEX)] = 255
        cells += [to_array(image), shown]
    blank = np.full_like(cells[0], 255)
    across = 2 * min(4, len(samples))
    cells += [blank] * (-len(cells) % across)
    return grid([cells[start : start + across] for start in range(0, len(cells), across)])


def comparison_row(image: Tensor, truth: Tensor, prediction: Tensor, classes: ClassSet) -> list[np.ndarray]:
    """The cells of one row of a grid: image, truth, prediction."""
    return [to_array(image), colorize(truth, classes), colorize(prediction.to(torch.uint8), classes)]


WRONG, STRIPES = (224, 54, 36), ((235, 235, 235), (150, 150, 150))
UNCERTAINTY_COLORS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))  # evenly brighter, 0 to 1


def cut_out(mask: Tensor, classes: ClassSet) -> np.ndarray:
    """The mask (H, W) in the colours of its classes, (H, W, 4) uint8, transparent where it is ignored."""
    scored = mask.cpu().numpy() != IGNORE_INDEX
    return np.dstack([colorize(mask, classes) * scored[..., None], scored * np.uint8(255)])


def error_map(truth: Tensor, prediction: Tensor, classes: ClassSet) -> np.ndarray:
    """(H, W, 4) uint8: WRONG where two masks differ, stripes where the truth is ignored, transparent elsewhere."""
    true, predicted = truth.cpu().numpy(), prediction.cpu().numpy()
    ignored = true == IGNORE_INDEX
    shown = np.zeros((*true.shape, 4), np.uint8)
    shown[true != predicted] = (*WRONG, 255)
    rows, columns = np.nonzero(ignored)
    shown[ignored] = np.array([(*stripe, 255) for stripe in STRIPES], np.uint8)[(rows + columns) // 3 % 2]
    return shown


OUTLINE = (255, 240, 0)


def draw_outline(image: np.ndarray, region: np.ndarray) -> np.ndarray:
    """A copy of the image (H, W, 3) uint8 on which the outermost pixels of a region (H, W) bool are yellow."""
    wide = np.pad(region, 1)
    inner = wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    shown = image.copy()
    shown[region & ~inner] = OUTLINE
    return shown


def uncertainty_map(uncertainty: Tensor) -> np.ndarray:
    """(H, W) numbers 0..1 -> (H, W, 3): black over violet and orange to pale yellow; NaN counts as 1."""
    values = np.nan_to_num(uncertainty.cpu().numpy(), nan=1.0).clip(0, 1)
    stops = np.linspace(0, 1, len(UNCERTAINTY_COLORS))
    channels = [np.interp(values, stops, channel) for channel in zip(*UNCERTAINTY_COLORS, strict=True)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


_CELL, _LETTERS = 34, 13  # pixels: the side of a cell of a confusion matrix, the height of its texts
_NAMED = 40  # classes at most in a confusion matrix with texts


def draw_confusion(counts: Tensor, names: Sequence[str]) -> np.ndarray:
    """(H, W, 3) uint8: a confusion matrix (K, K), a row for each true class, in percent of the row's pixels.

    Its columns are the predicted classes, in the order of the rows. The row of a class without a pixel is empty. More than 40
    classes have small cells without texts.
    """
    shares = counts.double() / counts.sum(dim=1, keepdim=True)
    if len(names) > _NAMED:
        return enlarge(uncertainty_map(shares.nan_to_num(0)), 6)
    font = ImageFont.load_default(_LETTERS)
    titles = [f"{number} {name:.24}" for number, name in enumerate(names)]
    left = 10 + max(round(font.getlength(title)) for title in titles)
    side = _CELL * len(names)
    picture = Image.new("RGB", (left + side, _CELL + side), "white")
    draw = ImageDraw.Draw(picture)
    for row, title in enumerate(titles):
        middle = _CELL * (row + 1.5)
        draw.text((left - 5, middle), title, "black", font, anchor="rm")
        draw.text((left + middle - _CELL, _CELL / 2), str(row), "black", font, anchor="mm")
        for column, share in enumerate(shares[row].tolist()):
            if math.isnan(share):
                continue
            x, y = left + _CELL * column, _CELL * (row + 1)
            color = uncertainty_map(torch.tensor([[share]]))[0, 0].tolist()
            draw.rectangle((x, y, x + _CELL - 2, y + _CELL - 2), tuple(color))
            draw.text((x + _CELL / 2 - 1, middle), f"{100 * share:.0f}", "white" if share < 0.6 else "black", font, anchor="mm")
    return np.asarray(picture)
