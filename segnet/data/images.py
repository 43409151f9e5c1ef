"""Picture files to tensors and back. With `mask_files` the only place that decodes or encodes a picture."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from segnet.config.sections import RGB, Bands
from segnet.data.deep_pictures import (
    ARRAY_SUFFIX,
    CONVERT_DEPTH,
    Values,
    limits_of,
    merge_bytes,
    nodata_of,
    other_byte,
    read_deep_values,
    require_bands,
    require_few_pixels,
    size_of_deep,
)
from segnet.data.image_headers import (
    BITS_TAG,
    FORMATS,
    MAX_PIXELS,
    PNG_SIGNATURE,
    SAMPLE_FORMAT_TAG,
    UNREAD_TIFF,
    Source,
    first_bytes,
    format_of,
    has_png_end,
    png_without_metadata,
    raw_mode_of,
    read_header,
    reason_unread,
    what_is_cut,
)
from segnet.data.scaling import Raster, scale_values, where_valid
from segnet.system.errors import UserError, data_error
from segnet.system.files import atomic_write

SUFFIXES = frozenset(  # of files in one of `FORMATS` and of arrays, in lower case
    {".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".png", ".apng", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ARRAY_SUFFIX}
)
_LOSSY = {"JPEG": "JPEG changes", "WEBP": "WebP may change"}


def open_image(path: Path | str, content: bytes | None = None, *, bands: Bands = RGB) -> Tensor:
    """The image of `open_raster`, (C, H, W)."""
    return open_raster(path, content, bands=bands).image


def open_raster(path: Path | str, content: bytes | None = None, *, bands: Bands = RGB) -> Raster:
    """The picture at `path`, turned upright by its EXIF orientation, with the channels that `bands` asks for.

    `content` is used in place of the bytes of the file; error messages still name `path`.

    Three channels are R, G, B: grey is repeated, palettes are resolved, transparency is dropped and leaves the colour under it,
    CMYK is converted. One channel is grey: colours become their luma, 0.299 R + 0.587 G + 0.114 B as in Pillow's mode L. Any
    other number are the bands of the picture, alpha among them.

    `bands.scale` says what becomes of the values. picture: 8 bits stay as they are; deeper integers and floats are scaled from
    the smallest..largest value of the picture to 0..255 and rounded. dtype: the range of the stored type, 0..1 for floats,
    becomes 0..255. stored: none is changed; the network scales them. Pixels without a value (NaN, infinity, or GDAL's nodata in
    all bands) get the mean of the others, 0 where the values become 8 bits.
    Raises UserError (data) when the file is missing, damaged, of another format, of more than 100 million pixels, of a depth
    that is not read, or of other bands than `bands.channels`.
    """
    path = Path(path)
    _require_file(path, content)
    source: Source = path if content is None else io.BytesIO(content)
    start = first_bytes(source, 26)
    values = _read_deep_png(path, source, start) or read_deep_values(path, source, start, bands.channels)
    if values is None:
        picture = open_picture(path, FORMATS, content=content, remedy_if_cut=CONVERT_DEPTH).picture
        return _raster_of(picture, path, bands)
    require_bands(path, values.array.shape[2], values.colors, bands.channels)
    return scale_values(values, bands)


def _require_file(path: Path, content: bytes | None) -> None:
    if content is None and not path.is_file():
        raise data_error(path, "not a file" if path.exists() else "no such file", "name an existing picture")


def _read_deep_png(path: Path, source: Source, start: bytes) -> Values | None:
    """The values of a PNG with colours of 16 bits; None for another picture. `start` are its first 26 bytes."""
    if not start.startswith(PNG_SIGNATURE) or start[24:25] != b"\x10" or start[25:26] not in (b"\2", b"\4", b"\6"):
        return None
    content = source.getvalue() if isinstance(source, io.BytesIO) else source.read_bytes()
    opened = open_picture(path, ("PNG",), content=content)
    low = open_picture(path, ("PNG",), content=content, raw_mode=other_byte(opened.raw_mode)).picture
    array = merge_bytes(opened.raw_mode, opened.picture, low)
    colors = {2: 1, 3: 3, 4: 3}[array.shape[2]]
    return Values(array, colors, limits_of(array.dtype), _orientation(opened.picture))


def require_8_bits(path: Path | str, content: bytes | None = None) -> None:
    """Raise UserError (data) when a picture has more than 8 bits a band, by its header; see `open_raster` for other faults."""
    path = Path(path)
    _require_file(path, content)
    start = first_bytes(path if content is None else io.BytesIO(content), 26)
    deep = start.startswith(PNG_SIGNATURE) and start[24:25] == b"\x10"
    if not deep:
        picture = open_picture(path, FORMATS, content=content, decode=False).picture
        deep = picture.mode.startswith(("I", "F")) or bool(what_is_cut(picture))
    if deep:
        remedy = "write data.scale=dtype, by which the range of its type becomes 0 to 255, or convert it to 8 bits"
        raise data_error(path, "more than 8 bits a band", remedy)


def is_turned(path: Path, content: bytes) -> bool:
    """Whether the EXIF orientation of a picture turns it. Raises as `open_picture`."""
    return _orientation(open_picture(path, FORMATS, content=content, decode=False).picture) != 1


def picture_size(path: Path, content: bytes | None = None) -> tuple[int, int]:
    """(height, width) of a picture or mask as stored, before its EXIF orientation, from the header alone.

    `content` is used in place of the bytes of the file; error messages still name `path`.
    Raises UserError (data) when the file is missing, of another format, or of more than 100 million pixels.
    """
    try:
        picture = open_picture(path, FORMATS, content=content, decode=False).picture
    except UserError:
        source: Source = path if content is None else io.BytesIO(content)
        size = size_of_deep(source) if content is not None or path.is_file() else None
        if size is None:
            raise
        require_few_pixels(path, size)
        return size
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
    path: Path,
    formats: tuple[str, ...],
    *,
    content: bytes | None = None,
    decode: bool = True,
    remedy_if_cut: str | None = None,
    raw_mode: str | None = None,
) -> OpenPicture:
    """The first frame of a picture file, decoded and the file closed; without `decode` only the header is read.

    `content` is used in place of the bytes of the file; error messages still name `path`. With `remedy_if_cut` a picture
    of which a decoder would drop bits or bands is refused with this remedy; without it they are dropped. A `raw_mode` replaces
    Pillow's own, which says which bits of the file it keeps.
    Raises UserError (data) when the file is missing, not whole, of a format not in `formats`, or of too many pixels.
    """
    _require_file(path, content)
    source: Source = path if content is None else io.BytesIO(content)
    open_it = partial(_open, path, formats=formats, decode=decode, remedy_if_cut=remedy_if_cut, raw_mode=raw_mode)
    try:
        try:
            return open_it(source)
        except (ValueError, UnidentifiedImageError):  # Pillow raises them for a PNG with texts or profiles that it does not read
            bare = png_without_metadata(source)
            if bare is None:
                raise
        return open_it(bare)
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


def _open(
    path: Path, source: Source, formats: tuple[str, ...], decode: bool, remedy_if_cut: str | None, raw_mode: str | None
) -> OpenPicture:
    """`open_picture` without its translation of exceptions: raises what the decoder raises."""
    with read_header(source, formats, Image.DecompressionBombWarning) as picture:  # MAX_PIXELS decides in place of the warning
        if picture.width * picture.height > MAX_PIXELS:
            found = f"{picture.width}×{picture.height}, more than {MAX_PIXELS:,} pixels"
            raise data_error(path, found, "make it smaller")
        if remedy_if_cut and (cut := what_is_cut(picture)):
            raise data_error(path, cut, remedy_if_cut)
        stored_as = raw_mode_of(picture)
        if raw_mode and isinstance(picture, ImageFile.ImageFile):
            picture.tile = [tile._replace(args=raw_mode) for tile in picture.tile]
        if decode:
            is_whole = picture.format != "PNG" or has_png_end(picture)  # Pillow decodes a PNG without its last chunk
            picture.load()
            if not is_whole:
                raise OSError("image file is truncated")
        if isinstance(picture.info.get("transparency"), str):
            del picture.info["transparency"]  # a text chunk of that name, which Pillow would take for a colour
        return OpenPicture(picture, stored_as)


def image_to_tensor(picture: Image.Image, *, bands: Bands = RGB) -> Tensor:
    """The image of a Pillow picture, by the rules of `open_raster`.

    Raises UserError (data) when it is not decoded yet and decoding would drop bits or bands, or when it has other bands.
    """
    path = Path(str(getattr(picture, "filename", "")) or "picture")
    if isinstance(picture, ImageFile.ImageFile) and picture.tile and (cut := what_is_cut(picture)):
        raise data_error(path, cut, CONVERT_DEPTH)
    return _raster_of(picture, path, bands).image


def _raster_of(picture: Image.Image, path: Path, bands: Bands) -> Raster:
    """The raster of a decoded picture whose values Pillow holds."""
    tags = picture.tag_v2 if isinstance(picture, TiffImagePlugin.TiffImageFile) else None
    nodata = nodata_of(tags) if tags is not None else None
    if picture.mode.startswith(("I", "F")):
        require_bands(path, 1, 1, bands.channels)
        array = read_numbers(picture)[..., None]
        if picture.format == "PPM" and picture.mode == "I":  # Pillow holds its 16 bits as 32
            array = array.astype(np.uint16)
        return scale_values(Values(array, 1, _limits_of(picture, array), _orientation(picture), nodata), bands)
    turn = _TURN_UPRIGHT.get(_orientation(picture))
    if turn is not None:
        picture = picture.transpose(turn)
    valid = None
    if nodata is not None:
        stored = np.asarray(picture)
        valid = where_valid(stored[..., :-1] if picture.mode.endswith(("A", "a")) else stored, nodata)
    if picture.mode == "La":
        picture = picture.convert("LA")  # Pillow cannot convert La to RGB in one step
    if bands.channels in (1, 3):
        pixels = _colors_of(picture, bands.channels)
    else:
        names = picture.getbands()
        found = f"{len(names)} band{'' if len(names) == 1 else 's'} ({', '.join(names)})"
        require_bands(path, len(names), 0, bands.channels, found)
        pixels = np.array(picture)
    image = torch.from_numpy(pixels).permute(2, 0, 1)  # (C, H, W)
    return Raster(image if bands.scale == "picture" else image.float(), valid, nodata=nodata)


def _colors_of(picture: Image.Image, channels: int) -> np.ndarray:
    """(H, W, 3) or (H, W, 1) uint8: the colours of a picture or its luma."""
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA")  # resolves a transparent palette entry without a warning
    if channels == 3 or picture.mode not in ("1", "L", "LA", "RGB", "RGBA"):
        picture = picture if picture.mode == "RGB" else picture.convert("RGB")
    if channels == 3:
        return np.array(picture)
    return np.array(picture if picture.mode == "L" else picture.convert("L"))[..., None]


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


def _limits_of(picture: Image.Image, array: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest value that the file of a picture of mode I or F can hold, 0 and 1 for floats."""
    if isinstance(picture, TiffImagePlugin.TiffImageFile) and picture.tag_v2.get(BITS_TAG) == (12,):
        return 0.0, 4095.0
    return limits_of(array.dtype)


def read_numbers(picture: Image.Image) -> np.ndarray:
    """(H, W) values of a decoded picture of mode I or F in the type of its file, where that is a TIFF of 16 or 32 bits.

    Pillow reads unsigned 32-bit integers as signed ones, and holds signed 16-bit integers as 32-bit ones.
    """
    values = np.asarray(picture)
    if picture.mode != "I" or not isinstance(picture, TiffImagePlugin.TiffImageFile):
        return values
    bits, unsigned = picture.tag_v2.get(BITS_TAG), picture.tag_v2.get(SAMPLE_FORMAT_TAG, (1,)) == (1,)
    if bits == (32,) and unsigned:
        return values.view(np.uint32)
    return values.astype(np.int16) if bits == (16,) and not unsigned else values


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


def compress(pixels: np.ndarray, quality: int) -> np.ndarray:
    """(H, W, C) uint8 as a JPEG of a quality 1..100 shows it: in colour for three bands, else each band by itself, in grey."""
    if pixels.shape[2] == 3:
        return _compress_picture(pixels, quality)
    return np.stack([_compress_picture(band, quality) for band in np.moveaxis(pixels, 2, 0)], axis=2)


def _compress_picture(picture: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, "JPEG", quality=quality)
    with Image.open(file) as compressed:
        return np.array(compressed)
