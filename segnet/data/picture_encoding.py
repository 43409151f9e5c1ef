"""Pictures of any depth and number of bands as the content of files: PNG, TIFF, arrays of NumPy."""

from __future__ import annotations

import importlib
import io
import struct
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np

from segnet.data.georeference import Georeference
from segnet.data.image_headers import NODATA_TAG, PNG_SIGNATURE
from segnet.data.images import encode_image
from segnet.system.errors import config_error, environment_error

_COLOR_TYPES = {1: 0, 3: 2}  # of PNG, by the number of bands: grey and RGB


def fits_png(kind: np.dtype, bands: int) -> bool:
    """Whether a PNG holds values of this type and so many bands: grey or RGB of 8 or 16 bits, unsigned."""
    return kind in (np.uint8, np.uint16) and bands in _COLOR_TYPES


def encode_png(array: np.ndarray) -> bytes:
    """(H, W, 1) or (H, W, 3) of uint8 or uint16 as a PNG of that depth.

    Pillow writes no RGB of 16 bits: that depth is written here, by section 11 of the PNG specification (third edition).
    """
    if not fits_png(array.dtype, array.shape[2]):
        raise ValueError(f"a PNG does not hold {array.dtype} of shape {array.shape}")
    if array.dtype == np.uint8:
        return encode_image(array[..., 0] if array.shape[2] == 1 else array, ".png")
    height, width, bands = array.shape
    rows = array.astype(">u2").reshape(height, -1).view(np.uint8)
    differences = np.zeros((height, 1 + rows.shape[1]), np.uint8)
    differences[:, 0] = 2  # filter type "Up": each byte minus the one above it
    differences[0, 1:] = rows[0]
    differences[1:, 1:] = rows[1:] - rows[:-1]
    header = struct.pack(">IIBBBBB", width, height, 16, _COLOR_TYPES[bands], 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(differences.tobytes(), 6)), (b"IEND", b"")
    return PNG_SIGNATURE + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def encode_array(array: np.ndarray) -> bytes:
    """(H, W, C) as the content of an .npy file; (H, W) where C is 1."""
    file = io.BytesIO()
    np.save(file, array[..., 0] if array.shape[2] == 1 else array)
    return file.getvalue()


def encode_tiff(array: np.ndarray, georeference: Georeference | None = None, nodata: float | None = None) -> bytes:
    """(H, W, C) as a TIFF of the array's type, at the place of `georeference`. Raises as `require_tifffile`."""
    places = georeference.tags if georeference else {}
    tags = [(number, kind, _count(value), value, True) for number, (kind, value) in places.items()]
    if nodata is not None:
        tags.append((NODATA_TAG, 2, 0, f"{nodata:.17g}", True))  # 2: a text
    file = io.BytesIO()
    photometric = "rgb" if array.shape[2] == 3 else "minisblack"
    array = array[..., 0] if array.shape[2] == 1 else array
    options = {"photometric": photometric, "planarconfig": "contig", "metadata": None, "extratags": tags}
    require_tifffile().imwrite(file, array, compression="zlib", **options)
    return file.getvalue()


def _count(value: object) -> int:
    """The number of values of a tag; 0 for a text, whose length is counted."""
    return len(value) if isinstance(value, tuple) else 0 if isinstance(value, str) else 1


def require_tifffile() -> ModuleType:
    """The module tifffile. Raises UserError (environment) where it is not installed."""
    try:
        return importlib.import_module("tifffile")
    except ImportError:
        found = "needs the package tifffile, which is not installed here"
        raise environment_error("tiff", found, "pip install tifffile, or write array") from None


def encode_picture(path: Path, array: np.ndarray) -> bytes:
    """(H, W, C) as the file that the suffix of `path` names: .npy, .tif or .tiff, .jpg; a PNG for any other.

    Raises UserError (config) where it cannot hold the values.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return encode_array(array)
    if suffix in (".tif", ".tiff"):
        return encode_tiff(array)
    is_jpeg = suffix in (".jpg", ".jpeg")
    if not fits_png(array.dtype, array.shape[2]) or (is_jpeg and array.dtype != np.uint8):
        found = f"{'a JPEG' if is_jpeg else 'a PNG'} does not hold {describe_values(array.dtype, array.shape[2])}"
        raise config_error(path, found, "let the name end in .npy or .tif")
    if is_jpeg:
        return encode_image(array[..., 0] if array.shape[2] == 1 else array, suffix)
    return encode_png(array)


def describe_values(kind: np.dtype, bands: int) -> str:
    """The type and the number of bands in words, e.g. "float32 of 4 bands"."""
    return f"{kind} of {bands} band{'' if bands == 1 else 's'}"
