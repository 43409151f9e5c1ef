"""A file of every container, kind of bands and depth that is read, with the values that it stores."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from helpers import png_chunk, write_png, write_tiff
from image_cases import HEIGHT, PALETTE, WIDTH, noise
from PIL import Image

HAS_TIFFFILE = importlib.util.find_spec("tifffile") is not None
NUMBERS = np.random.default_rng(0).integers(0, 1 << 31, (HEIGHT, WIDTH, 6))


class Stored(NamedTuple):
    """A file and its values."""

    write: Callable[[Path], object]
    values: np.ndarray  # (H, W, bands)
    colors: int  # bands without alpha
    limits: tuple[float, float]  # of the type
    needs_tifffile: bool = False


def numbers(bits: int, bands: int = 1, *, signed: bool = False) -> np.ndarray:
    """(H, W, bands) integers of so many bits; alpha, the second or fourth band, is never 0."""
    kind = np.dtype(f"{'i' if signed else 'u'}{max(1, 2 ** (bits - 1).bit_length() // 8)}")
    values = (NUMBERS[..., :bands] >> (31 - bits)).astype(np.int64) - (1 << bits - 1 if signed else 0)
    if bands in (2, 4):
        values[..., -1] |= 1
    return values.astype(kind)


def floats(bands: int = 1, kind: str = "f4") -> np.ndarray:
    return (NUMBERS[..., :bands] / (1 << 30) - 0.5).astype(kind)


def _png(bits: int, color: int, bands: int, colors: int) -> Stored:
    values = numbers(bits, bands)
    largest = (1 << bits) - 1
    shown = values if bits >= 8 else values * (255 // largest)
    return Stored(lambda p: write_png(p, values.squeeze(), bits, color), shown, colors, (0, 65535 if bits == 16 else 255))


def _png_palette(bits: int) -> Stored:
    values = numbers(min(bits, 2))
    palette = png_chunk(b"PLTE", PALETTE[: 1 << bits].tobytes())
    return Stored(lambda p: write_png(p, values[..., 0], bits, 3, palette), PALETTE[values[..., 0]], 3, (0, 255))


def _tiff(
    values: np.ndarray, bits: int, light: int, colors: int, *, extra: tuple[int, ...] = (), kind: int = 1, needs: bool = False
) -> Stored:
    shown = values if bits >= 8 else values * (255 // ((1 << bits) - 1))
    limits = (0.0, 1.0) if kind == 3 else (float(np.iinfo(values.dtype).min), float(np.iinfo(values.dtype).max))
    limits = limits if bits >= 8 else (0.0, 255.0)
    if light == 0:
        shown = ~shown
    squeezed = values[..., 0] if values.shape[2] == 1 else values
    return Stored(lambda p: write_tiff(p, squeezed, bits, light, extra=extra, kind=kind), shown, colors, limits, needs)


def _tiff_palette(bits: int) -> Stored:
    values = numbers(min(bits, 2))

    def write(path: Path) -> None:
        picture = Image.fromarray(values[..., 0])
        picture.putpalette(PALETTE.tobytes())
        picture.save(path, "TIFF", bits=bits)

    return Stored(write, PALETTE[values[..., 0]], 3, (0, 255))


def _tiff_of_12_bits() -> Stored:
    values = numbers(12)
    rows = [np.packbits((row >> np.arange(12)[::-1] & 1).reshape(-1)) for row in values]  # (W, 12) bits, filled up to bytes

    def write(path: Path) -> None:
        Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(path, "TIFF")
        _replace_tiff_strip(path, b"".join(row.tobytes() for row in rows), 12)

    return Stored(write, values, 1, (0, 4095))


def _replace_tiff_strip(path: Path, data: bytes, bits: int) -> None:
    """Give an uncompressed TIFF of one strip other samples and another number of bits."""
    content = bytearray(path.read_bytes())
    start = int.from_bytes(content[4:8], "little")
    for entry in range(start + 2, start + 2 + 12 * int.from_bytes(content[start : start + 2], "little"), 12):
        tag = int.from_bytes(content[entry : entry + 2], "little")
        if tag == 258:
            content[entry + 8 : entry + 10] = bits.to_bytes(2, "little")
        if tag in (273, 279):
            content[entry + 2 : entry + 4] = (4).to_bytes(2, "little")
            content[entry + 8 : entry + 12] = (len(content) if tag == 273 else len(data)).to_bytes(4, "little")
    path.write_bytes(bytes(content) + data)


def _pillow(values: np.ndarray, kind: str, mode: str | None = None, colors: int | None = None, **options: object) -> Stored:
    squeezed = values[..., 0] if values.shape[2] == 1 else values
    picture = Image.fromarray(squeezed) if mode is None else Image.frombytes(mode, (WIDTH, HEIGHT), squeezed.tobytes())
    limits = (0.0, 1.0) if values.dtype.kind == "f" else (0.0, float(np.iinfo(values.dtype).max))
    return Stored(lambda p: picture.save(p, kind, **options), values, colors or values.shape[2], limits)


def _array(values: np.ndarray) -> Stored:
    limits = (0.0, 1.0) if values.dtype.kind == "f" else (float(np.iinfo(values.dtype).min), float(np.iinfo(values.dtype).max))

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, values[..., 0] if values.shape[2] == 1 else values)

    return Stored(write, values, values.shape[2], limits)


def _black_and_white() -> np.ndarray:
    return np.where(noise(HEIGHT, WIDTH, 1) > 127, 255, 0).astype(np.uint8)


def _pgm_of_16_bits() -> Stored:
    values = numbers(16)
    head = b"P5 %d %d 65535\n" % (WIDTH, HEIGHT)
    return Stored(lambda p: p.write_bytes(head + values.astype(">u2").tobytes()), values.astype(np.int32), 1, (0, 65535))


FILES: dict[str, Stored] = {
    **{f"PNG grey {bits}": _png(bits, 0, 1, 1) for bits in (1, 2, 4, 8, 16)},
    **{f"PNG palette {bits}": _png_palette(bits) for bits in (2, 4, 8)},
    **{f"PNG grey and alpha {bits}": _png(bits, 4, 2, 1) for bits in (8, 16)},
    **{f"PNG RGB {bits}": _png(bits, 2, 3, 3) for bits in (8, 16)},
    **{f"PNG RGBA {bits}": _png(bits, 6, 4, 3) for bits in (8, 16)},
    "GIF palette 8": _pillow(numbers(8), "GIF", colors=1),
    "WebP RGB 8": _pillow(numbers(8, 3), "WEBP", lossless=True),
    "WebP RGBA 8": _pillow(numbers(8, 4), "WEBP", colors=3, lossless=True, exact=True),
    "BMP grey 8": _pillow(numbers(8), "BMP"),
    "BMP RGB 8": _pillow(numbers(8, 3), "BMP"),
    "PPM grey 8": _pillow(numbers(8), "PPM"),
    "PPM grey 16": _pgm_of_16_bits(),
    "PPM grey 32 float": _pillow(floats(), "PPM"),
    "PPM RGB 8": _pillow(numbers(8, 3), "PPM"),
    **{f"TIFF grey {bits}": _tiff(numbers(bits), bits, 1, 1) for bits in (1, 2, 4, 8, 16, 32)},
    "TIFF grey 12": _tiff_of_12_bits(),
    "TIFF grey 8 signed": _tiff(numbers(8, signed=True), 8, 1, 1, kind=2, needs=True),
    "TIFF grey 16 signed": _tiff(numbers(16, signed=True), 16, 1, 1, kind=2),
    "TIFF grey 32 signed": _tiff(numbers(31).astype(np.int32), 32, 1, 1, kind=2),
    "TIFF grey 32 float": _tiff(floats(), 32, 1, 1, kind=3),
    "TIFF grey 64 float": _tiff(floats(kind="f8"), 64, 1, 1, kind=3, needs=True),
    **{f"TIFF white is zero {bits}": _tiff(numbers(bits), bits, 0, 1) for bits in (1, 2, 4, 8)},
    "TIFF white is zero 16": _tiff(numbers(16), 16, 0, 1, needs=True),
    "TIFF palette 8": _tiff_palette(8),
    "TIFF grey and alpha 8": _tiff(numbers(8, 2), 8, 1, 1, extra=(2,)),
    "TIFF grey and alpha 16": _tiff(numbers(16, 2), 16, 1, 1, extra=(2,), needs=True),
    "TIFF RGB 8": _tiff(numbers(8, 3), 8, 2, 3),
    "TIFF RGB 16": _tiff(numbers(16, 3), 16, 2, 3, needs=True),
    "TIFF RGB 32 float": _tiff(floats(3), 32, 2, 3, kind=3, needs=True),
    "TIFF RGBA 8": _tiff(numbers(8, 4), 8, 2, 3, extra=(2,)),
    "TIFF RGBA 16": _tiff(numbers(16, 4), 16, 2, 3, extra=(2,), needs=True),
    "TIFF CMYK 16": _tiff(numbers(16, 4), 16, 5, 4, needs=True),
    "TIFF two bands 8": _tiff(numbers(8, 2), 8, 1, 2, extra=(0,), needs=True),
    "TIFF RGB and one 8": _tiff(numbers(8, 4), 8, 2, 4, extra=(0,), needs=True),
    "TIFF RGB and one 16": _tiff(numbers(16, 4), 16, 2, 4, extra=(0,), needs=True),
    "TIFF five bands 8": _tiff(numbers(8, 5), 8, 1, 5, extra=(0,) * 4, needs=True),
    "TIFF six bands 8": _tiff(numbers(8, 6), 8, 2, 6, extra=(0,) * 3, needs=True),
    "TIFF six bands 16": _tiff(numbers(16, 6), 16, 1, 6, extra=(0,) * 5, needs=True),
    "TIFF six bands 16 signed": _tiff(numbers(16, 6, signed=True), 16, 1, 6, extra=(0,) * 5, kind=2, needs=True),
    "TIFF six bands 32 float": _tiff(floats(6), 32, 1, 6, extra=(0,) * 5, kind=3, needs=True),
    **{f"NumPy grey {bits}": _array(numbers(bits)) for bits in (8, 16, 32)},
    "NumPy grey 16 signed": _array(numbers(16, signed=True)),
    "NumPy grey 32 float": _array(floats()),
    "NumPy grey 64 float": _array(floats(kind="f8")),
    **{f"NumPy RGB {bits}": _array(numbers(bits, 3)) for bits in (8, 16)},
    "NumPy RGB 32 float": _array(floats(3)),
    **{f"NumPy six bands {bits}": _array(numbers(bits, 6)) for bits in (8, 16)},
    "NumPy six bands 32 float": _array(floats(6)),
}
