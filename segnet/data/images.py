"""Picture files to tensors and back. With `mask_files` the only place that decodes or encodes a picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from segnet.config.sections import RGB, Bands
from segnet.data.image_headers import (
    BITS_TAG,
    FORMATS,
    SAMPLE_FORMAT_TAG,
    UNREAD_TIFF,
    Source,
    format_of,
    has_png_end,
    png_without_metadata,
    raw_mode_of,
    read_header,
    reason_unread,
    what_is_cut,
)
from segnet.system.errors import UserError, data_error
from segnet.system.files import atomic_write

SUFFIXES = frozenset(  # of files in one of `FORMATS`, in lower case
    {".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".png", ".apng", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".pfm"}
)
MAX_PIXELS = 100_000_000
_LOSSY = {"JPEG": "JPEG changes", "WEBP": "WebP may change"}
_CONVERT_DEPTH = "convert it to grey, RGB or RGBA of 8 bits a band"


def open_image(path: Path | str, content: bytes | None = None, *, bands: Bands = RGB) -> Tensor:
    """The picture at `path` as (C, H, W) uint8, turned upright by its EXIF orientation.

    `content` is used in place of the bytes of the file; error messages still name `path`.

    Three channels are R, G, B: grey is repeated, palettes are resolved, transparency is dropped and leaves the colour under it,
    CMYK is converted. One channel is grey: colours become their luma, (299 R + 587 G + 114 B) / 1000 as in Pillow's mode L.
    Any other number are the bands of the picture, alpha among them.
    Deeper grey integers and floats are scaled from smallest..largest value to 0..255.
    Raises UserError (data) when the file is missing, damaged, of another format, of more than 100 million pixels, of
    colours of more than 8 bits, of bands that are not grey, RGB or CMYK with or without alpha, or of another number of bands
    than `bands.channels`, where that is not 1 or 3.
    """
    path = Path(path)
    picture = open_picture(path, FORMATS, content=content, remedy_if_cut=_CONVERT_DEPTH).picture
    return image_to_tensor(picture, path, bands=bands)


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) of a picture or mask as stored, before its EXIF orientation, from the header alone.

    Raises UserError (data) when the file is missing, of another format, or of more than 100 million pixels.
    """
    picture = open_picture(path, FORMATS, decode=False).picture
    return picture.height, picture.width


def pixel_count(path: Path) -> int:
    """Height × width of a picture or mask, from the header alone. Raises UserError (data) as `picture_size`."""
    height, width = picture_size(path)
    return height * width


class OpenPicture(NamedTuple):
    """A picture and the way in which its file stores the samples, which Pillow forgets when it decodes."""

    picture: Image.Image
    raw_mode: str  # Pillow's name of it, such as "L;2"; empty when there is none


def open_picture(
    path: Path, formats: tuple[str, ...], *, content: bytes | None = None, decode: bool = True, remedy_if_cut: str | None = None
) -> OpenPicture:
    """The first frame of a picture file, decoded and the file closed; without `decode` only the header is read.

    `content` is used in place of the bytes of the file; error messages still name `path`. With `remedy_if_cut` a picture
    of which a decoder would drop bits or bands is refused with this remedy; without it they are dropped.
    Raises UserError (data) when the file is missing, not whole, of a format not in `formats`, or of too many pixels.
    """
    if content is None and not path.is_file():
        raise data_error(path, "not a file" if path.exists() else "no such file", "name an existing picture")
    source: Source = path if content is None else io.BytesIO(content)
    try:
        try:
            return _open(path, source, formats, decode, remedy_if_cut)
        except (ValueError, UnidentifiedImageError):  # Pillow raises them for a PNG with texts or profiles that it does not read
            bare = png_without_metadata(source)
            if bare is None:
                raise
        return _open(path, bare, formats, decode, remedy_if_cut)
    except Image.DecompressionBombError:  # Pillow checks the size first, against a higher limit
        raise data_error(path, f"more than {MAX_PIXELS:,} pixels", "make it smaller") from None
    except Exception as error:  # decoders fail on damaged bytes with exceptions of every kind
        if isinstance(error, UserError | MemoryError | PermissionError):
            raise
        reason = reason_unread(error, source)
        remedy = f"expected {', '.join(formats)}"
        kind = format_of(source)
        if kind in _LOSSY and kind not in formats:
            remedy += f", since {_LOSSY[kind]} the ids; export the mask again"
        if remedy_if_cut and reason == UNREAD_TIFF:
            remedy = remedy_if_cut
        raise data_error(path, f"not a readable picture ({reason})", remedy) from None


def _open(path: Path, source: Source, formats: tuple[str, ...], decode: bool, remedy_if_cut: str | None) -> OpenPicture:
    """`open_picture` without its translation of exceptions: raises what the decoder raises."""
    with read_header(source, formats, Image.DecompressionBombWarning) as picture:  # MAX_PIXELS decides in place of the warning
        if picture.width * picture.height > MAX_PIXELS:
            found = f"{picture.width}×{picture.height}, more than {MAX_PIXELS:,} pixels"
            raise data_error(path, found, "make it smaller")
        if remedy_if_cut and (cut := what_is_cut(picture)):
            raise data_error(path, cut, remedy_if_cut)
        raw_mode = raw_mode_of(picture)
        if decode:
            is_whole = picture.format != "PNG" or has_png_end(picture)  # Pillow decodes a PNG without its last chunk
            picture.load()
            if not is_whole:
                raise OSError("image file is truncated")
        if isinstance(picture.info.get("transparency"), str):
            del picture.info["transparency"]  # a text chunk of that name, which Pillow would take for a colour
        return OpenPicture(picture, raw_mode)


def image_to_tensor(picture: Image.Image, path: Path | None = None, *, bands: Bands = RGB) -> Tensor:
    """A Pillow picture as (C, H, W) uint8, by the rules of `open_image`. Error messages name `path`.

    Raises UserError (data) when it is not decoded yet and decoding would drop bits or bands, or when it has other bands.
    """
    path = path or Path(str(getattr(picture, "filename", "")) or "picture")
    if isinstance(picture, ImageFile.ImageFile) and picture.tile and (cut := what_is_cut(picture)):
        raise data_error(path, cut, _CONVERT_DEPTH)
    turn = _TURN_UPRIGHT.get(_orientation(picture))
    if turn is not None:
        picture = picture.transpose(turn)
    if picture.mode.startswith(("I", "F")):
        picture = _to_eight_bits(picture)
    if picture.mode == "La":
        picture = picture.convert("LA")  # Pillow cannot convert La to RGB in one step
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA")  # resolves a transparent palette entry without a warning
    if bands.channels not in (1, 3):
        return _all_bands(picture, path, bands.channels)
    if bands.channels == 3 or picture.mode not in ("1", "L", "LA", "RGB", "RGBA"):
        picture = picture if picture.mode == "RGB" else picture.convert("RGB")
    if bands.channels == 1:
        picture = picture if picture.mode == "L" else picture.convert("L")
        return torch.from_numpy(np.array(picture))[None]  # (1, H, W)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)  # (C, H, W)


def _all_bands(picture: Image.Image, path: Path, channels: int) -> Tensor:
    """(C, H, W) uint8: all bands of a decoded picture. Raises UserError (data) when their number is not `channels`."""
    count = len(picture.getbands())
    if count != channels:
        found = f"{_plural(count, 'band')} ({', '.join(picture.getbands())}), where data.channels is {channels}"
        raise data_error(path, found, f"give pictures of {_plural(channels, 'band')}, or set data.channels={count}")
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


_TURN_UPRIGHT = {  # EXIF orientation (EXIF 2.3, tag 0x0112) -> the transposition that undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation of a picture; 1 (upright) when it has none that can be read."""
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except MemoryError:
        raise
    except Exception:  # Pillow fails on damaged metadata with exceptions of every kind
        return 1
    return orientation if isinstance(orientation, int) else 1


def _to_eight_bits(picture: Image.Image) -> Image.Image:
    """A picture of mode I or F with smallest..largest finite value scaled to 0..255; values that are not finite become 0."""
    values = read_numbers(picture)
    finite = np.isfinite(values)
    low = float(values.min(where=finite, initial=values.max(where=finite, initial=0)))
    high = float(values.max(where=finite, initial=low))
    scaled = np.zeros(values.shape, np.uint8)
    for start in range(0, len(values) if high > low else 0, 256):  # 256 rows at a time bound the memory of the float64 values
        rows = slice(start, start + 256)
        levels = (np.where(finite[rows], values[rows], low).astype(np.float64) - low) * (255.0 / (high - low))
        scaled[rows] = levels.round().astype(np.uint8)
    return Image.fromarray(scaled)


def read_numbers(picture: Image.Image) -> np.ndarray:
    """(H, W) values of a decoded picture of mode I or F; Pillow reads unsigned 32-bit integers of a TIFF as signed ones."""
    values = np.asarray(picture)
    if picture.mode != "I" or not isinstance(picture, TiffImagePlugin.TiffImageFile):
        return values
    unsigned = picture.tag_v2.get(BITS_TAG) == (32,) and picture.tag_v2.get(SAMPLE_FORMAT_TAG, (1,)) == (1,)
    return values.view(np.uint32) if unsigned else values


def encode_webp(picture: np.ndarray, *, quality: int | None = None) -> bytes:
    """(H, W, 3) or (H, W, 4) uint8 as WebP of a quality 0..100; None: lossless, except for the colour of transparent pixels."""
    file = io.BytesIO()
    options = {"lossless": True, "method": 2} if quality is None else {"quality": quality}
    Image.fromarray(picture).save(file, "WEBP", **options)
    return file.getvalue()


def encode_image(image: Tensor | np.ndarray, suffix: str, *, full_color: bool = False) -> bytes:
    """(H, W, 3) or (H, W) uint8 as the content of a JPEG or, for any other `suffix` than JPEG's, of a PNG.

    With `full_color` a JPEG keeps the resolution of its colours (4:4:4); without it, half of it in each direction (4:2:0).
    """
    picture = Image.fromarray(np.ascontiguousarray(image))
    file = io.BytesIO()  # Pillow would hide the reason why a file cannot be written
    if suffix.lower() in (".jpg", ".jpeg"):
        options = {"subsampling": "4:4:4"} if full_color else {}  # Pillow's default differs between colour and grey
        picture.save(file, "JPEG", quality=92, **options)
    else:
        picture.save(file, "PNG")
    return file.getvalue()


def save_image(path: Path, image: Tensor | np.ndarray, *, full_color: bool = False) -> None:
    """Write `encode_image`, in the format of the suffix of `path`, atomically."""
    content = encode_image(image, path.suffix, full_color=full_color)
    with atomic_write(path) as file:
        file.write(content)
