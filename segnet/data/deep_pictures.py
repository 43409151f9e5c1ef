"""Pictures that Pillow does not hold whole: PNGs with colours of 16 bits, TIFFs of other depths and bands, arrays of NumPy."""

from __future__ import annotations

import importlib
import io
import logging
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from PIL import Image, TiffImagePlugin

from segnet.config.sections import MAX_CHANNELS
from segnet.data.image_headers import (
    BITS_TAG,
    EXTRA_SAMPLES_TAG,
    MAX_PIXELS,
    NODATA_TAG,
    ORIENTATION_TAG,
    PHOTOMETRIC_TAG,
    SAMPLE_FORMAT_TAG,
    TIFF_ALPHA,
    Source,
    TiffTags,
    bands_of_tiff,
    first_bytes,
    format_of,
    read_tiff_tags,
    reading,
    what_is_cut_of_tiff,
)
from segnet.system.errors import data_error, first_line

ARRAY_SUFFIX = ".npy"
CONVERT_DEPTH = "convert it to grey, RGB or RGBA of 8 bits a band"
_ARRAY_MAGIC = b"\x93NUMPY"


class Values(NamedTuple):
    """The values of a picture as its file stores them."""

    array: np.ndarray  # (H, W, bands), as stored
    colors: int  # the first bands, which are not alpha
    limits: tuple[float, float]  # the smallest and the largest value of the type; 0 and 1 of floats
    orientation: int = 1  # of EXIF
    nodata: float | None = None  # the value that says that a pixel holds nothing


def limits_of(kind: np.dtype) -> tuple[float, float]:
    """The smallest and the largest value of a type: those of integers, and 0 and 1 for floats."""
    if kind.kind == "f":
        return 0.0, 1.0
    return float(np.iinfo(kind).min), float(np.iinfo(kind).max)


def read_deep_values(path: Path, source: Source, start: bytes, channels: int) -> Values | None:
    """The values of a picture that Pillow would cut, for a network of `channels`; None where Pillow reads all of it.

    `start` are its first bytes, eight at least.

    PNGs of 16-bit colours are decoded by Pillow, whose decoder is asked for either byte; arrays of NumPy need nothing else;
    TIFFs need the package tifffile. Raises UserError (data) when the picture is damaged, has more than 100 million pixels or
    other bands than `channels`, or where the package is missing.
    """
    if start.startswith(_ARRAY_MAGIC):
        return _read_array(path, source, channels)
    if start[:4] in TiffImagePlugin.PREFIXES:
        try:
            tags = read_tiff_tags(source)
            return _read_tiff(path, source, tags, channels) if tags is not None and _is_cut(source, tags, channels) else None
        except (LookupError, TypeError, ValueError):  # a damaged tag has a value of another type; Pillow says that it is damaged
            return None
    return None


def size_of_deep(source: Source) -> tuple[int, int] | None:
    """(height, width) as stored of an array or of a TIFF that Pillow does not know; None for other pictures."""
    start = first_bytes(source)
    if start.startswith(_ARRAY_MAGIC):
        try:
            with reading(source) as file:
                shape = _array_header(file)[0]
        except ValueError:
            return None
        return (shape[0], shape[1]) if len(shape) in (2, 3) else None
    if start[:4] in TiffImagePlugin.PREFIXES and format_of(source) is None:
        tags = read_tiff_tags(source)
        try:
            return _size_of(tags) if tags is not None else None
        except (TypeError, ValueError):
            return None
    return None


def require_bands(path: Path, bands: int, colors: int, channels: int, found: str | None = None) -> None:
    """Raise UserError (data) when a picture of so many bands, of which `colors` are not alpha, has no `channels`.

    Three channels come from three colours or from grey, one channel from grey or from three colours, and any other number from
    as many bands. `found` describes the picture in place of the number of its bands.
    """
    if channels == bands or (channels in (1, 3) and colors in (1, 3)):
        return
    found = found or f"{bands} band{'' if bands == 1 else 's'}"
    other = CONVERT_DEPTH if channels in (1, 3) else f"give pictures of {channels} bands"
    remedy = f"set data.channels={bands} for all of its bands, or {other}" if bands <= MAX_CHANNELS else other
    raise data_error(path, f"{found}, where data.channels is {channels}", remedy)


def _read_array(path: Path, source: Source, channels: int) -> Values:
    """The array in an .npy file: (H, W) or (H, W, bands) of integers or floats. No object in it is read."""
    try:
        with reading(source) as file:
            shape, by_columns, kind = _array_header(file)
            content = file.read()
    except ValueError as error:
        raise data_error(path, f"not a readable array ({first_line(error)})", "save it with numpy.save") from None
    if kind.kind not in "uif" or kind.itemsize > (8 if kind.kind == "f" else 4):
        raise data_error(path, f"an array of {kind}", "save it as uint8, uint16, int16 or float32")
    if len(shape) not in (2, 3) or not all(shape):
        raise data_error(path, f"an array of shape {shape}", "save it as (height, width) or (height, width, bands)")
    bands = shape[2] if len(shape) == 3 else 1
    if len(shape) == 3 and bands != channels and shape[0] == channels:
        raise data_error(path, f"an array of shape {shape}, its bands first", "save numpy.moveaxis(array, 0, -1)")
    require_bands(path, bands, bands, channels)
    require_few_pixels(path, (shape[0], shape[1]))
    if len(content) != int(np.prod(shape)) * kind.itemsize:
        raise data_error(path, "not a readable array (it is not whole)", "save it again")
    array = np.frombuffer(content, kind).reshape(shape, order="F" if by_columns else "C")
    return Values(array.reshape(*shape[:2], bands).astype(kind.newbyteorder("=")), bands, limits_of(kind))


def _array_header(file: io.BufferedIOBase | object) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns are stored one after the other, and type. Raises ValueError for another header."""
    version = np.lib.format.read_magic(file)  # type: ignore[arg-type]
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)  # type: ignore[arg-type]


def _is_cut(source: Source, tags: TiffTags, channels: int) -> bool:
    """Whether Pillow would not give `channels` of a TIFF as it stores them."""
    premultiplied = tags.get(EXTRA_SAMPLES_TAG, ())[:1] == (1,)  # Pillow divides the bands by it
    needs_all = channels not in (1, 3)
    return what_is_cut_of_tiff(tags) is not None or (needs_all and premultiplied) or format_of(source) is None


def _read_tiff(path: Path, source: Source, tags: TiffTags, channels: int) -> Values:
    found = what_is_cut_of_tiff(tags)
    photometric, bits = tags.get(PHOTOMETRIC_TAG, 0), max(tags.get(BITS_TAG, (1,)))
    bands = bands_of_tiff(tags)
    alpha = tags.get(EXTRA_SAMPLES_TAG, ())[:1] in TIFF_ALPHA
    require_bands(path, bands, bands - alpha, channels, found)
    require_few_pixels(path, _size_of(tags))
    is_signed_or_float = max(tags.get(SAMPLE_FORMAT_TAG, (1,))) != 1
    if photometric not in (0, 1, 2, 5) or (photometric == 0 and is_signed_or_float) or bits not in (8, 16, 32, 64):
        raise data_error(path, found or "a TIFF whose depth or bands are not read", CONVERT_DEPTH)
    array = _decode_tiff(path, source, (*_size_of(tags), bands), found or f"{bands} bands of {bits} bits")
    if photometric == 0:
        array = ~array  # the smallest value is white
    return Values(array, bands - alpha, limits_of(array.dtype), tags.get(ORIENTATION_TAG, 1), nodata_of(tags))


def _decode_tiff(path: Path, source: Source, shape: tuple[int, int, int], found: str) -> np.ndarray:
    """The first picture of a TIFF as an array (H, W, bands) of `shape`."""
    tifffile = _tifffile(path, found)
    try:
        with reading(source) as file, tifffile.TiffFile(file) as tiff:
            page = tiff.pages[0]
            ends = [start + length for start, length in zip(page.dataoffsets, page.databytecounts, strict=True)]
            if max(ends) > tiff.filehandle.size:
                raise ValueError("image file is truncated")
            array = page.asarray()
    except MemoryError:
        raise
    except Exception as error:  # its decoders fail on damaged bytes with exceptions of every kind
        reason = first_line(error)
        remedy = "pip install imagecodecs, which decompresses it" if "imagecodecs" in reason else CONVERT_DEPTH
        raise data_error(path, f"not a readable picture ({reason})", remedy) from None
    if array.ndim == 3 and array.shape == (shape[2], *shape[:2]) != shape:
        array = np.moveaxis(array, 0, -1)  # one plane after the other
    if array.shape not in (shape, shape[:2]) or array.dtype.kind not in "uif":
        raise data_error(path, f"not a readable picture ({array.dtype} of shape {array.shape})", CONVERT_DEPTH)
    return array.reshape(shape)


def _tifffile(path: Path, found: str) -> ModuleType:
    """The module tifffile. Raises UserError (data) where it is not installed."""
    try:
        module = importlib.import_module("tifffile")
    except ImportError:
        remedy = f"pip install tifffile, which is not installed here, or {CONVERT_DEPTH}"
        raise data_error(path, found, remedy) from None
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it logs of a damaged file is raised as well
    return module


def nodata_of(tags: TiffTags) -> float | None:
    """The value of pixels that hold nothing, which GDAL stores as a text; None without one."""
    try:
        return float(str(tags.get(NODATA_TAG)).strip("\0 "))
    except ValueError:
        return None


def _size_of(tags: TiffTags) -> tuple[int, int]:
    return int(tags.get(257, 0)), int(tags.get(256, 0))


def require_few_pixels(path: Path, size: tuple[int, int]) -> None:
    """Raise UserError (data) for a picture of more than 100 million pixels."""
    if size[0] * size[1] > MAX_PIXELS:
        raise data_error(path, f"{size[1]}×{size[0]}, more than {MAX_PIXELS:,} pixels", "make it smaller")


def merge_bytes(kind: str, high: Image.Image, low: Image.Image) -> np.ndarray:
    """(H, W, bands) uint16 of a PNG with 16-bit colours, from its decoding by either byte; see `other_byte`."""
    if kind == "LA;16B":  # all four bytes of a pixel as one decoding
        return np.ascontiguousarray(np.asarray(low)).view(">u2").astype(np.uint16)
    return (np.asarray(high).astype(np.uint16) << 8) | np.asarray(low)


def other_byte(kind: str) -> str:
    """The raw mode by which Pillow decodes the lower byte of 16-bit colours, where `kind` gives the upper one.

    Pillow has no mode for them and keeps the upper byte. The raw mode for the other byte order keeps the other byte; grey with
    alpha has none, but has the bytes of RGBA.
    """
    return "RGBA" if kind == "LA;16B" else kind.replace("16B", "16L")
