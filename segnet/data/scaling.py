"""From the values that a picture stores to those that the network sees, and back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from segnet.config.sections import Bands
from segnet.data.deep_pictures import Values


class Raster(NamedTuple):
    """A picture as the network sees it, upright."""

    image: Tensor  # (C, H, W): uint8 in 0..255 where `Bands.scale` is "picture", else float32
    valid: Tensor | None = None  # (H, W) bool, False where the picture holds nothing; None: it holds something everywhere
    stretched: tuple[float, float] | None = None  # of a picture that is scaled by its own: the values that became 0 and 255
    stored: str = "uint8"  # the type of the stored values
    limits: tuple[float, float] = (0.0, 255.0)  # of that type, see `Values`
    nodata: float | None = None  # the stored value of a pixel that holds nothing


def scale_values(values: Values, bands: Bands) -> Raster:
    """The raster of stored values, which have the bands that `require_bands` asks for, by the rules of `open_raster`."""
    array = turned_upright(values.array, values.orientation)
    valid = where_valid(array[..., : values.colors], values.nodata)
    stored = str(array.dtype)
    if bands.channels in (1, 3) and array.shape[2] != bands.channels:
        array = array[..., : values.colors]  # without alpha
        if bands.channels == 1 and values.colors == 3:
            array = luma(array)
    stretched = None
    if bands.scale != "picture":
        array = _filled(array, valid)
    elif array.dtype != np.uint8:
        array, stretched = _stretched(array, valid)
    if bands.scale == "dtype":
        low, high = values.limits
        array = ((array - np.float64(low)) * (255.0 / (high - low))).astype(np.float32)
    image = torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)
    image = image if len(image) == bands.channels else image.repeat(3, 1, 1)
    return Raster(image, valid, stretched, stored, values.limits, values.nodata)


def stored_values(image: Tensor, raster: Raster) -> np.ndarray:
    """(H, W, C) of the type that `raster` was stored in: an image (C, H, W) in 0..255 by the inverse of `data.scale` dtype.

    Integers are rounded and clipped to the range of the type; floats are neither. Pixels that hold nothing get the raster's
    nodata value; NaN without one.
    """
    low, high = raster.limits
    kind = np.dtype(raster.stored)
    levels = image.permute(1, 2, 0).numpy()
    array = np.empty(levels.shape, kind)
    for start in range(0, len(array), 256):  # 256 rows at a time bound the memory of the float64 values
        rows = slice(start, start + 256)
        values = levels[rows].astype(np.float64) * ((high - low) / 255) + low
        array[rows] = values if kind.kind == "f" else values.round().clip(low, high)
    if raster.valid is not None:
        array[~raster.valid.numpy()] = np.nan if raster.nodata is None else raster.nodata
    return array


def luma(colors: np.ndarray) -> np.ndarray:
    """(H, W, 1) of R, G, B (H, W, 3) as in Pillow's mode L: 0.299 R + 0.587 G + 0.114 B, which is rounded for integers."""
    weights = np.array([19595, 38470, 7471])
    if colors.dtype.kind == "f":
        return (colors @ (weights / 65536)).astype(colors.dtype)[..., None]
    return ((colors.astype(np.int64) @ weights + 0x8000) >> 16).astype(colors.dtype)[..., None]


def _filled(array: np.ndarray, valid: Tensor | None) -> np.ndarray:
    """(H, W, bands) float32, with the mean of each band where its value is not finite or the pixel holds nothing."""
    array = array.astype(np.float32)
    known = np.isfinite(array)
    if valid is not None:
        known &= valid.numpy()[..., None]
    if not known.all():
        for band, is_known in zip(np.moveaxis(array, 2, 0), np.moveaxis(known, 2, 0), strict=True):
            band[~is_known] = band[is_known].mean(dtype=np.float64) if is_known.any() else 0
    return array


def _stretched(array: np.ndarray, valid: Tensor | None) -> tuple[np.ndarray, tuple[float, float]]:
    """(H, W, bands) uint8, the smallest..largest finite value of all bands scaled to 0..255, and those two values.

    Values that are not finite become 0, and so do pixels that hold nothing.
    """
    known = np.isfinite(array)
    if valid is not None:
        known &= valid.numpy()[..., None]
    low = float(array.min(where=known, initial=array.max(where=known, initial=0)))
    high = float(array.max(where=known, initial=low))
    scaled = np.zeros(array.shape, np.uint8)
    for start in range(0, len(array) if high > low else 0, 256):  # 256 rows at a time bound the memory of the float64 values
        rows = slice(start, start + 256)
        levels = (np.where(known[rows], array[rows], low).astype(np.float64) - low) * (255.0 / (high - low))
        scaled[rows] = levels.round().astype(np.uint8)
    return scaled, (low, high)


def where_valid(stored: np.ndarray, nodata: float | None) -> Tensor | None:
    """(H, W) bool: whether any band of `stored`, (H, W) or (H, W, bands), holds something; None where all pixels do.

    Nothing is the value `nodata`, and every value that is not finite.
    """
    if nodata is None and stored.dtype.kind != "f":
        return None
    empty = ~np.isfinite(stored) if nodata is None else (stored == nodata) | ~np.isfinite(stored)
    empty = empty.all(axis=2) if empty.ndim == 3 else empty
    return torch.from_numpy(~empty) if empty.any() else None


def turned_upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """An array (H, W, bands) after the turn that undoes its EXIF orientation."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return array[::rows, ::columns]
