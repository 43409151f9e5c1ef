"""Pillow images of every mode, and the RGB that each becomes."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

HEIGHT, WIDTH = 7, 5


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def rgb(image: torch.Tensor) -> np.ndarray:
    """(3, H, W) -> (H, W, 3)."""
    return image.permute(1, 2, 0).numpy()


COLOR = noise(HEIGHT, WIDTH, 3)


GREY = noise(HEIGHT, WIDTH)


ALPHA = noise(HEIGHT, WIDTH, seed=1)


DEEP = np.linspace(1000, 3000, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)


def stretched(values: np.ndarray) -> np.ndarray:
    """Smallest..largest -> 0..255, computed with exact fractions of the range."""
    low, high = values.min(), values.max()
    return np.rint((values.astype(np.float64) - low) / (high - low) * 255).astype(np.uint8)


def palette_picture(transparency: int | bytes | None = None) -> Image.Image:
    picture = Image.fromarray(GREY % 4)
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    if transparency is not None:
        picture.info["transparency"] = transparency
    return picture


PALETTE = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]], dtype=np.uint8)


CASES: dict[str, tuple[Image.Image, np.ndarray]] = {  # a picture, and the RGB that the rule of `open_image` gives
    "1": (Image.fromarray(GREY > 127), np.where(GREY > 127, 255, 0)[..., None].repeat(3, 2)),
    "L": (Image.fromarray(GREY), GREY[..., None].repeat(3, 2)),
    "LA": (Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]), GREY[..., None].repeat(3, 2)),
    "P": (palette_picture(), PALETTE[GREY % 4]),
    "P transparent entry": (palette_picture(2), PALETTE[GREY % 4]),
    "P transparent table": (palette_picture(bytes([0, 255, 7, 255])), PALETTE[GREY % 4]),
    "PA": (palette_picture(2).convert("PA"), PALETTE[GREY % 4]),
    "RGB": (Image.fromarray(COLOR), COLOR),
    "RGBA": (Image.merge("RGBA", [*Image.fromarray(COLOR).split(), Image.fromarray(ALPHA)]), COLOR),
    "CMYK": (Image.fromarray(COLOR).convert("CMYK"), COLOR),
    "I;16": (Image.fromarray(DEEP.astype(np.uint16)), stretched(DEEP.astype(np.uint16))[..., None].repeat(3, 2)),
    "I": (Image.fromarray(DEEP.astype(np.int32) - 2000), stretched(DEEP.astype(np.int32))[..., None].repeat(3, 2)),
    "F": (Image.fromarray(DEEP.astype(np.float32) - 2000.5), stretched(DEEP.astype(np.float32))[..., None].repeat(3, 2)),
    "I;16 of one value": (Image.new("I;16", (WIDTH, HEIGHT), 700), np.zeros((HEIGHT, WIDTH, 3), np.uint8)),
}


FORMAT_OF = {"CMYK": "tif", "I": "tif", "F": "tif"}  # the rest fits into a PNG; a palette with alpha into no file


UPRIGHT = {  # EXIF orientation -> how the stored pixels become upright (EXIF 2.3, tag 0x0112)
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}
