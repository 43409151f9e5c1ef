"""The only place that decodes or encodes a picture. Pictures are RGB, upright, uint8; masks are class ids, uint8."""

from __future__ import annotations

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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below decides
            with Image.open(path, formats=formats) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise _bad(path, f"{picture.width}×{picture.height}, more than {MAX_PIXELS:,} pixels", "make it smaller")
                if decode:
                    picture.load()
                return picture
    except (UserError, MemoryError):
        raise
    except Image.DecompressionBombError:  # Pillow looks at the header before we can, and has a limit of its own
        raise _bad(path, f"more than {MAX_PIXELS:,} pixels", "make it smaller") from None
    except Exception as error:  # decoders fail on damaged bytes in every way there is
        if isinstance(error, PermissionError):
            raise
        raise _bad(path, f"not a readable picture ({_reason(error)})", f"expected {', '.join(formats)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "unknown format"
    return (str(error).splitlines() or [type(error).__name__])[0]


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
    values = np.nan_to_num(np.asarray(picture, dtype=np.float64), posinf=0.0, neginf=0.0)
    low, high = values.min(), values.max()
    scaled = (values - low) * (255.0 / (high - low)) if high > low else np.zeros_like(values)
    return Image.fromarray(scaled.round().astype(np.uint8))


def open_mask(path: Path, classes: ClassSet) -> Tensor:
    """A mask as (H, W) uint8 of class ids 0..K-1 and the ignored label.

    Raises UserError (data) for a mask that is not single-channel 8-bit or has ids that the class set lacks.
    """
    picture = _open(path, ("PNG",))
    if picture.mode not in _MASK_MODES:
        raise _bad(
            path, f"a mask in mode {picture.mode}; expected a palette or grey PNG whose values are class ids", "convert it"
        )
    mask = torch.from_numpy(np.array(picture, dtype=np.uint8))  # (H, W)
    if (step := _grey_step(path)) != 1:
        mask //= step
    ids = torch.bincount(mask.flatten(), minlength=256).nonzero().flatten().tolist()
    unknown = [i for i in ids if i >= len(classes) and i != classes.ignore_index]
    if unknown:
        raise _bad(
            path,
            f"label {', '.join(map(str, unknown[:5]))}; expected 0..{len(classes) - 1} or {classes.ignore_index}",
            "renumber the mask, or add the class to data.classes",
        )
    return mask


def _grey_step(path: Path) -> int:
    """The distance of neighbouring grey values once decoded: Pillow spreads 2 and 4 bits of grey over 0..255."""
    with path.open("rb") as file:
        depth, color_type = file.read(26)[24:26]  # of the PNG's first chunk, IHDR
    return {2: 85, 4: 17}.get(depth, 1) if color_type == 0 else 1


def save_mask(path: Path, mask: Tensor | np.ndarray, classes: ClassSet) -> None:
    """Write (H, W) class ids as a palette PNG – Pascal VOC's own format – atomically."""
    picture = Image.fromarray(np.asarray(mask, dtype=np.uint8))
    picture.putpalette(classes.palette)  # mode P
    with atomic_write(path) as file:
        picture.save(file, "PNG")


def save_image(path: Path, image: Tensor | np.ndarray) -> None:
    """Write (H, W, 3) or (H, W) uint8 as JPEG or PNG, by the suffix of `path`, atomically."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    with atomic_write(path) as file:
        if path.suffix.lower() in (".jpg", ".jpeg"):
            picture.save(file, "JPEG", quality=92)
        else:
            picture.save(file, "PNG")
