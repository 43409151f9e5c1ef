"""The only place that decodes or encodes a picture. Pictures are RGB, upright, uint8; masks are class ids, uint8."""

from __future__ import annotations

import io
import threading
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from segnet.classes import ClassSet
from segnet.errors import ExitCode, UserError
from segnet.files import atomic_write

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF")  # everything else is refused unread
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif"})
MAX_PIXELS = 100_000_000
_FILTERS = threading.Lock()  # filters of warnings belong to the whole process: one thread at a time may change them
_MASK_MODES = ("P", "L", "1")


def _bad(path: Path, found: str, remedy: str) -> UserError:
    return UserError(ExitCode.DATA, path, found, remedy)


def _open(path: Path, formats: tuple[str, ...], *, decode: bool = True) -> Image.Image:
    """The decoded first frame. Raises UserError (data) for anything else than a whole picture of a bounded size.

    Without `decode` only its header is read.
    """
    if not path.is_file():
        raise _bad(path, "not a file" if path.exists() else "no such file", "name an existing picture")
    try:
        with _read_header(path, formats, Image.DecompressionBombWarning) as picture:  # the limit below decides
            if picture.width * picture.height > MAX_PIXELS:
                raise _bad(path, f"{picture.width}×{picture.height}, more than {MAX_PIXELS:,} pixels", "make it smaller")
            if decode:
                picture.load()
                if picture.format == "PNG" and not _has_end(path):  # which Pillow does not miss
                    raise OSError("image file is truncated")
            return picture
    except (UserError, MemoryError):
        raise
    except Image.DecompressionBombError:  # Pillow looks at the header before we can, and has a limit of its own
        raise _bad(path, f"more than {MAX_PIXELS:,} pixels", "make it smaller") from None
    except Exception as error:  # decoders fail on damaged bytes in every way there is
        if isinstance(error, PermissionError):
            raise
        lossy = ", since JPEG changes the ids; export the mask again" if formats == ("PNG",) and _format(path) == "JPEG" else ""
        remedy = f"expected {', '.join(formats)}{lossy}"
        raise _bad(path, f"not a readable picture ({_reason(error, path)})", remedy) from None


def _read_header(path: Path, formats: tuple[str, ...], silent: type[Warning]) -> Image.Image:
    """An open picture that is not decoded yet; `silent` warnings are not given."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", silent)
        return Image.open(path, formats=formats)


def _has_end(path: Path) -> bool:
    """Whether a PNG has its last chunk, whole."""
    with path.open("rb") as file:
        file.seek(8)
        while len(start := file.read(8)) == 8:
            length, kind = int.from_bytes(start[:4], "big"), start[4:]
            if kind == b"IEND":
                return len(file.read(4)) == 4
            file.seek(length + 4, 1)
    return False


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"a {_format(path)}" if _format(path) else "unknown format"
    return (str(error).splitlines() or [type(error).__name__])[0]


def _format(path: Path) -> str | None:
    """The format that a file's first bytes announce, if it is a known one."""
    try:
        with _read_header(path, FORMATS, Warning) as picture:
            return picture.format
    except Exception:  # as in `_open`
        return None


def open_image(path: Path | str) -> Tensor:
    """A picture as (3, H, W) uint8 RGB, turned upright by its EXIF orientation.

    Grey is repeated, palettes are resolved, transparency is dropped over its own colour, CMYK is converted, and deeper
    integers or floats are scaled from their smallest..largest value to 0..255.
    Raises UserError (data) when the file is missing, damaged, of another format or larger than 100 million pixels.
    """
    path = Path(path)
    return image_to_tensor(_open(path, FORMATS))


def pixel_count(path: Path) -> int:
    """Height × width of a picture or mask, from its header alone. Raises UserError (data) as opening it does."""
    picture = _open(path, FORMATS, decode=False)
    return picture.width * picture.height


def image_to_tensor(picture: Image.Image) -> Tensor:
    """A Pillow picture as (3, H, W) uint8 RGB, by the rules of `open_image`."""
    if picture.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):
        picture = _to_eight_bits(picture)
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA")  # resolves a transparent palette entry without a warning
    pixels = np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)  # (3, H, W)


def _to_eight_bits(picture: Image.Image) -> Image.Image:
    """Smallest..largest finite value to 0..255; what is not finite becomes 0. In bands, for large pictures."""
    values = np.asarray(picture)
    finite = np.isfinite(values)
    low = float(values.min(where=finite, initial=values.max(where=finite, initial=0)))
    high = float(values.max(where=finite, initial=low))
    scaled = np.zeros(values.shape, np.uint8)
    for start in range(0, len(values) if high > low else 0, 256):
        band = slice(start, start + 256)
        share = (np.where(finite[band], values[band], low).astype(np.float64) - low) * (255.0 / (high - low))
        scaled[band] = share.round().astype(np.uint8)
    return Image.fromarray(scaled)


def open_mask(path: Path, classes: ClassSet) -> Tensor:
    """A mask as (H, W) uint8 of class ids 0..K-1 and `classes.ignore_index`, which the file calls `classes.ignore_id`.

    PNGs of 1, 2, 4 or 8 bits in grey or with a palette, interlaced or not; a palette's colours do not matter.
    Raises UserError (data) for any other mask and for ids that the class set lacks.
    """
    picture = _open(path, ("PNG",))
    if picture.mode not in _MASK_MODES:
        found = f"a mask in mode {picture.mode}; expected a palette or grey PNG whose values are class ids"
        raise _bad(path, found, f"convert it: {convert_command(path)} --classes CONFIG")
    mask = torch.from_numpy(_ids_of(picture, path))  # (H, W)
    ids = torch.bincount(mask.flatten(), minlength=256).nonzero().flatten().tolist()
    unknown = [i for i in ids if i >= len(classes) and i != classes.ignore_id]
    if unknown:
        found = f"label {', '.join(map(str, unknown[:5]))}; expected 0..{len(classes) - 1} or {classes.ignore_id}"
        remedy = f"add the class to data.classes, or renumber the mask: {convert_command(path)} --map {unknown[0]}=ID"
        raise _bad(path, found, remedy)
    if classes.ignore_id != classes.ignore_index:
        mask[mask == classes.ignore_id] = classes.ignore_index
    return mask


def convert_command(mask: Path) -> str:
    """What converts the folder of a mask, but for its last option."""
    return f"python scripts/prepare_data.py convert {mask.parent} --out NEW"


def _ids_of(picture: Image.Image, path: Path) -> np.ndarray:
    """(H, W) uint8: the values of a single-channel picture as its file holds them."""
    values = np.array(picture, dtype=np.uint8)
    depth, color_type = _png_header(path)
    step = {2: 85, 4: 17}.get(depth, 1) if color_type == 0 else 1  # Pillow spreads 2 and 4 bits of grey over 0..255
    return values if step == 1 else values // np.uint8(step)


def _png_header(path: Path) -> tuple[int, int]:
    """Bits per channel and colour type of a PNG. Raises UserError (data) when the file has vanished."""
    try:
        with path.open("rb") as file:
            start = file.read(26)
    except FileNotFoundError:
        raise _bad(path, "vanished while it was read", "restore it") from None
    return (start[24], start[25]) if len(start) == 26 and start[12:16] == b"IHDR" else (8, 3)


_EXACT = ("PNG", "BMP", "TIFF", "GIF", "PPM")  # formats that keep ids and colours


def open_labels(path: Path) -> np.ndarray:
    """A mask of another convention: (H, W) int64 ids as the file holds them, or (H, W, 3) uint8 colours.

    Raises UserError (data) when it cannot be read exactly: lossy, transparent, float, or more than 8 bits a colour.
    """
    picture = _open(path, _EXACT)
    if "jpeg" in str(picture.info.get("compression")):
        raise _bad(path, "compressed with loss", "export the mask as PNG")
    if picture.mode in _MASK_MODES:
        return (_ids_of(picture, path) if picture.format == "PNG" else np.array(picture, dtype=np.uint8)).astype(np.int64)
    if picture.mode.startswith("I"):
        return np.array(picture).astype(np.int64)
    if picture.mode not in ("RGB", "RGBA", "LA") or (picture.format == "PNG" and _png_header(path)[0] == 16):
        depth = " with 16 bits a colour" if picture.mode in ("RGB", "RGBA", "LA") else ""
        raise _bad(path, f"a mask in mode {picture.mode}{depth}", "export it as palette, grey or RGB PNG of 8 bits")
    pixels = np.asarray(picture)
    clear = int((pixels[..., -1] != 255).sum()) if picture.mode != "RGB" else 0
    if clear:
        raise _bad(path, f"{clear:,} pixels are transparent", "fill them with a class colour")
    return pixels[..., 0].astype(np.int64) if picture.mode == "LA" else pixels[..., :3]


def encode_mask(mask: Tensor | np.ndarray, classes: ClassSet) -> bytes:
    """(H, W) class ids as a palette PNG, Pascal VOC's own format."""
    picture, file = Image.fromarray(np.asarray(mask, dtype=np.uint8)), io.BytesIO()
    picture.putpalette(classes.palette)  # mode P
    picture.save(file, "PNG")
    return file.getvalue()


def encode_webp(picture: np.ndarray, *, quality: int | None = None) -> bytes:
    """(H, W, 3) or (H, W, 4) uint8 as WebP of a quality 0..100; without one exact, but for the colour of transparent pixels."""
    file = io.BytesIO()
    options = {"lossless": True, "method": 2} if quality is None else {"quality": quality}
    Image.fromarray(picture).save(file, "WEBP", **options)
    return file.getvalue()


def save_mask(path: Path, mask: Tensor | np.ndarray, classes: ClassSet) -> None:
    """Write (H, W) class ids as a palette PNG – Pascal VOC's own format – atomically."""
    content = encode_mask(mask, classes)
    with atomic_write(path) as file:
        file.write(content)


def save_image(path: Path, image: Tensor | np.ndarray) -> None:
    """Write (H, W, 3) or (H, W) uint8 as JPEG or PNG, by the suffix of `path`, atomically."""
    picture, content = Image.fromarray(np.ascontiguousarray(image)), io.BytesIO()  # Pillow hides why it cannot write a file
    if path.suffix.lower() in (".jpg", ".jpeg"):
        picture.save(content, "JPEG", quality=92)
    else:
        picture.save(content, "PNG")
    with atomic_write(path) as file:
        file.write(content.getbuffer())
