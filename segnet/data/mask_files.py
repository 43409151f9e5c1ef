"""Mask files to class ids and back: the palette PNGs of a dataset, and masks of other conventions as they are stored."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, TiffImagePlugin
from torch import Tensor

from segnet.classes import IGNORE_INDEX, ClassSet
from segnet.data.image_headers import BITS_TAG, PHOTOMETRIC_TAG, format_of, read_ppm_header
from segnet.data.images import OpenPicture, open_picture, read_numbers
from segnet.data.remedies import convert_command
from segnet.system.errors import UserError, data_error
from segnet.system.files import atomic_write

_SINGLE_CHANNEL = ("P", "L", "1")  # Pillow's modes
_EXACT_FORMATS = ("PNG", "BMP", "TIFF", "GIF", "PPM")  # those that keep ids and colours
_LOSSY_TIFF = ("jpeg", "webp", "sgilog")  # parts of the names of compressions
_EXPORT = "export it as palette, grey or RGB PNG of 8 bits"
_SPREAD = {2: 85, 4: 17}  # bits of grey -> the factor by which Pillow spreads the values over 0..255


_WITH_LOSS = {  # formats that are no masks, and why
    "JPEG": "a JPEG, and JPEG changes the ids and colours of a mask",
    "WEBP": "a WebP, and WebP may change the ids and colours of a mask",
}


def open_mask(path: Path, classes: ClassSet) -> Tensor:
    """The mask at `path` as (H, W) uint8 class ids 0..K-1 and `IGNORE_INDEX`, which the file stores as `classes.ignore_index`.

    Ids of merged classes become those of the classes that they belong to.
    Reads PNGs of 1, 2, 4 or 8 bits in grey or with a palette, interlaced or not; the colours of the palette are not used.
    Raises UserError (data) for every other file and for ids without a class.
    """
    return _mask_of(_open_exact(path, ("PNG",)), path, classes)


def decode_mask(content: bytes, classes: ClassSet, path: Path) -> Tensor:
    """`open_mask` for a file in memory. `path` is the name of the mask in error messages."""
    return _mask_of(_open_exact(path, ("PNG",), content=content), path, classes)


def _open_exact(path: Path, formats: tuple[str, ...], *, content: bytes | None = None, labels: bool = False) -> OpenPicture:
    """`open_picture` for a mask; a picture that is no mask because of its format is named so.

    With `labels` the mask is one of another convention, which `convert` reads.
    """
    try:
        return open_picture(path, formats, content=content, remedy_if_cut=_EXPORT if labels else None)
    except UserError:
        if content is None and not path.is_file():  # a pipe would be waited for
            raise
        kind = format_of(path if content is None else io.BytesIO(content))
        if kind not in _WITH_LOSS or kind in formats:
            raise
    ways = "--threshold 128 for two classes, or --nearest for the nearest class colours"
    remedy = f"export it as PNG, or give {ways}" if labels else f"export it as PNG, or: {convert_command(path)} with {ways}"
    raise data_error(path, _WITH_LOSS[kind], remedy)


def _mask_of(opened: OpenPicture, path: Path, classes: ClassSet) -> Tensor:
    if opened.picture.mode not in _SINGLE_CHANNEL:
        found = f"a mask in mode {opened.picture.mode}; expected a palette or grey PNG whose values are class ids"
        raise data_error(path, found, f"convert it: {convert_command(path)} --classes CONFIG")
    mask = torch.from_numpy(_ids_of_png(opened))  # (H, W)
    ids = torch.bincount(mask.flatten(), minlength=256).nonzero().flatten().tolist()
    count = len(classes.class_of_stored) or len(classes)
    unknown = [i for i in ids if i >= count and i != classes.ignore_index]
    if unknown:
        found = f"label {', '.join(map(str, unknown[:5]))}; expected 0..{count - 1} or {classes.ignore_index}"
        remedy = f"add the class to data.classes, or renumber the mask: {convert_command(path)} --map {unknown[0]}=ID"
        if opened.picture.mode == "P":
            remedy += " (--classes CONFIG instead, if its colours are right)"
        raise data_error(path, found, remedy)
    if classes.class_of_stored:
        class_of = torch.full((256,), IGNORE_INDEX, dtype=torch.uint8)
        class_of[:count] = torch.tensor(classes.class_of_stored, dtype=torch.uint8)
        return class_of[mask.int()]
    if classes.ignore_index != IGNORE_INDEX:
        mask[mask == classes.ignore_index] = IGNORE_INDEX
    return mask


def _ids_of_png(opened: OpenPicture) -> np.ndarray:
    """(H, W) uint8 values of a single-channel PNG as its file stores them."""
    values = np.array(opened.picture, dtype=np.uint8)
    factor = {"L;2": _SPREAD[2], "L;4": _SPREAD[4]}.get(opened.raw_mode, 1)
    return values if factor == 1 else values // np.uint8(factor)


class Labels(NamedTuple):
    """A mask of another convention as its file stores it."""

    values: np.ndarray  # (H, W) int64 ids, or (H, W, 3) uint8 colours
    palette: np.ndarray | None = None  # (N, 4) uint8 RGBA of each id


def open_labels(path: Path, *, with_loss: bool = False) -> Labels:
    """The mask of another convention at `path`; its ids are the stored numbers, not the brightness that they show.

    Raises UserError (data) when it cannot be read exactly: transparent, float, of colours of more than 8 bits, or, unless
    `with_loss`, of a format that changes what it stores.
    """
    opened = _open_exact(path, (*_EXACT_FORMATS, *_WITH_LOSS) if with_loss else _EXACT_FORMATS, labels=True)
    picture = opened.picture
    if not with_loss and any(name in str(picture.info.get("compression")) for name in _LOSSY_TIFF):
        raise data_error(path, "compressed with loss", "export the mask as PNG")
    if picture.mode in _SINGLE_CHANNEL or picture.mode.startswith("I"):
        return Labels(_stored_ids(opened, path).astype(np.int64), _palette_of(picture))
    if picture.mode not in ("RGB", "RGBA", "LA"):
        raise data_error(path, f"a mask in mode {picture.mode}", _EXPORT)
    if picture.format == "PPM" and (largest := read_ppm_header(path).largest) != 255:
        raise data_error(path, f"colours of 0..{largest}, which a decoder scales to 0..255", _EXPORT)
    if "transparency" in picture.info:
        picture = picture.convert("RGBA")
    pixels = np.asarray(picture)
    transparent = int((pixels[..., -1] != 255).sum()) if picture.mode != "RGB" else 0
    if transparent:
        raise data_error(path, f"{transparent:,} pixels are transparent", "fill them with a class colour")
    return Labels(pixels[..., 0].astype(np.int64) if picture.mode == "LA" else pixels[..., :3])


def open_palette(path: Path) -> np.ndarray | None:
    """(N, 3) uint8 RGB of each id in the palette of a mask, from the header alone; None when it has no palette.

    Raises UserError (data) when the header cannot be read.
    """
    picture = open_picture(path, ("PNG",), decode=False).picture
    if picture.mode != "P" or picture.palette is None:
        return None
    content = picture.palette.getdata()[1]
    return np.frombuffer(content[: len(content) // 3 * 3], dtype=np.uint8).reshape(-1, 3)


def _palette_of(picture: Image.Image) -> np.ndarray | None:
    """(N, 4) uint8 RGBA of each id; None without a palette."""
    if picture.mode != "P":
        return None
    colors = np.array(picture.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    alpha = np.full(len(colors), 255, np.uint8)
    transparency = picture.info.get("transparency", b"")  # the id that is transparent, or the alpha of each id
    if isinstance(transparency, int):
        alpha[transparency : transparency + 1] = 0
    else:
        alpha[: len(transparency)] = np.frombuffer(transparency, np.uint8)[: len(alpha)]
    return np.column_stack([colors, alpha])


def _stored_ids(opened: OpenPicture, path: Path) -> np.ndarray:
    """(H, W) integers as the file stores them.

    Raises UserError (data) for a PPM with a value above the largest that it announces, and for a TIFF whose 0 is white:
    some programs mean its numbers, others the grey that it shows.
    """
    picture = opened.picture
    if picture.format == "PNG" and picture.mode in _SINGLE_CHANNEL:
        return _ids_of_png(opened)
    if picture.format == "PPM":
        return _ids_of_ppm(picture, path)
    values = np.array(picture, dtype=np.uint8) if picture.mode in _SINGLE_CHANNEL else read_numbers(picture)
    if not isinstance(picture, TiffImagePlugin.TiffImageFile) or picture.mode not in ("1", "L"):
        return values
    if picture.tag_v2.get(PHOTOMETRIC_TAG, 0) == 0:
        raise data_error(path, "a TIFF in which 0 is white, so that its numbers and what it shows are opposite", _EXPORT)
    return values // np.uint8(_SPREAD.get(max(picture.tag_v2.get(BITS_TAG, (1,))), 1))


def _ids_of_ppm(picture: Image.Image, path: Path) -> np.ndarray:
    """(H, W) integers as the file stores them; Pillow spreads them over 0..255 or 0..65535, and inverts single bits."""
    header = read_ppm_header(path)
    values = np.array(picture)
    if picture.mode == "1":
        return ~values
    if header.coding == "ppm_plain":  # exact: the range is never narrower than the values that were spread over it
        return np.rint(values * (header.largest / (65535 if picture.mode == "I" else 255)))
    if header.coding == "ppm":
        sample = np.dtype("u1" if header.largest < 256 else ">u2")
        values = np.fromfile(path, sample, values.size, offset=header.start).reshape(values.shape)
        if int(values.max(initial=0)) > header.largest:
            found = f"holds {values.max()}, although it says that its largest value is {header.largest}"
            raise data_error(path, found, _EXPORT)
    return values


def encode_mask(mask: Tensor | np.ndarray, classes: ClassSet) -> bytes:
    """(H, W) class ids as a palette PNG, the format of Pascal VOC."""
    file = io.BytesIO()
    palette_picture(mask, classes).save(file, "PNG")
    return file.getvalue()


def palette_picture(mask: Tensor | np.ndarray, classes: ClassSet) -> Image.Image:
    """(H, W) class ids as a Pillow picture of mode P in the colours of the classes."""
    picture = Image.fromarray(np.asarray(mask, dtype=np.uint8))
    picture.putpalette(classes.palette)  # makes it mode P
    return picture


def save_mask(path: Path, mask: Tensor | np.ndarray, classes: ClassSet) -> None:
    """Write (H, W) class ids as a palette PNG, atomically."""
    content = encode_mask(mask, classes)
    with atomic_write(path) as file:
        file.write(content)
