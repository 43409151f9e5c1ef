"""The only place that decodes or encodes a picture. Pictures are RGB, upright, uint8; masks are class ids, uint8."""

from __future__ import annotations

import io
import threading
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from segnet.classes import ClassSet
from segnet.errors import ExitCode, UserError
from segnet.files import atomic_write

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF")  # everything else is refused unread
SUFFIXES = frozenset(  # all that files of these formats are called, in lower case
    {".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".png", ".apng", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".pfm"}
)
MAX_PIXELS = 100_000_000
_FILTERS = threading.Lock()  # filters of warnings belong to the whole process: one thread at a time may change them
_MASK_MODES = ("P", "L", "1")
_UNREAD_TIFF = "a TIFF that is damaged, or whose depth or bands are not read"
_LOSSY = {"JPEG": "JPEG changes", "WEBP": "WebP may change"}


def _bad(path: Path, found: str, remedy: str) -> UserError:
    return UserError(ExitCode.DATA, path, found, remedy)


def _open(path: Path, formats: tuple[str, ...], *, decode: bool = True, whole: str | None = None) -> Image.Image:
    """The decoded first frame. Raises UserError (data) for anything else than a whole picture of a bounded size.

    Without `decode` only its header is read. `whole` is the cure for a picture whose depth or bands a decoder would cut;
    without it they are cut.
    """
    if not path.is_file():
        raise _bad(path, "not a file" if path.exists() else "no such file", "name an existing picture")
    try:
        try:
            return _decoded(path, path, formats, decode=decode, whole=whole)
        except (ValueError, UnidentifiedImageError):  # so Pillow says that a PNG holds texts or profiles that it does not read
            essence = _png_essence(path)
            if not essence:
                raise
        return _decoded(path, essence, formats, decode=decode, whole=whole)
    except (UserError, MemoryError):
        raise
    except Image.DecompressionBombError:  # Pillow looks at the header before we can, and has a limit of its own
        raise _bad(path, f"more than {MAX_PIXELS:,} pixels", "make it smaller") from None
    except Exception as error:  # decoders fail on damaged bytes in every way there is
        if isinstance(error, PermissionError):
            raise
        kind, reason = _format(path), _reason(error, path)
        if whole and reason == _UNREAD_TIFF:
            raise _bad(path, f"not a readable picture ({reason})", whole) from None
        lossy = f", since {_LOSSY[kind]} the ids; export the mask again" if kind in _LOSSY and kind not in formats else ""
        raise _bad(path, f"not a readable picture ({reason})", f"expected {', '.join(formats)}{lossy}") from None


def _decoded(path: Path, source: Path | io.BytesIO, formats: tuple[str, ...], *, decode: bool, whole: str | None) -> Image.Image:
    """The picture that `source` holds, which is the file of `path` or what matters of it. Raises what the decoder raises."""
    with _read_header(source, formats, Image.DecompressionBombWarning) as picture:  # the limit below decides
        if picture.width * picture.height > MAX_PIXELS:
            raise _bad(path, f"{picture.width}×{picture.height}, more than {MAX_PIXELS:,} pixels", "make it smaller")
        if whole and (cut := _what_is_cut(picture)):
            raise _bad(path, cut, whole)
        if decode:
            picture.load()
            if picture.format == "PNG" and not _has_end(path):  # which Pillow does not miss
                raise OSError("image file is truncated")
        if isinstance(picture.info.get("transparency"), str):
            del picture.info["transparency"]  # a text of that name, which Pillow would take for its own
        return picture


def _read_header(source: Path | io.BytesIO, formats: tuple[str, ...], silent: type[Warning]) -> Image.Image:
    """An open picture that is not decoded yet; `silent` warnings are not given."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", silent)
        return Image.open(source, formats=formats)


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"a {_format(path)}" if _format(path) else _unknown(path)
    return (str(error).splitlines() or [type(error).__name__])[0]


def _unknown(path: Path) -> str:
    """What can be said of a file that no decoder takes."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError:
        start = b""
    if start == _PNG_SIGNATURE:
        return "a damaged PNG"
    return _UNREAD_TIFF if start[:4] in TiffImagePlugin.PREFIXES else "unknown format"


def _format(path: Path) -> str | None:
    """The format that a file's first bytes announce, if it is a known one."""
    try:
        with _read_header(path, FORMATS, Warning) as picture:
            return picture.format
    except Exception:  # as in `_open`
        return None


# ---------------------------------------------------------------------------------------------------------------------
# What a header says
# ---------------------------------------------------------------------------------------------------------------------

_BITS, _PHOTOMETRIC, _SAMPLES, _EXTRA, _SAMPLE_FORMAT = 258, 262, 277, 338, 339  # TIFF 6.0
_TIFF_BANDS = {2: 3, 5: 4, 6: 3, 8: 3}  # of RGB, CMYK, YCbCr and Lab; else one
_TIFF_ALPHA = ((1,), (2,), (999,))  # kinds of an extra band; 999 is Corel Draw's


def _what_is_cut(picture: Image.Image) -> str | None:
    """What decoding would cut from a picture that is open and not decoded yet, in words; None: nothing.

    Pillow holds bands of 8 bits, four at most, and keeps the upper 8 bits of deeper colours without a word.
    """
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        return _what_is_cut_of_tiff(picture.tag_v2)
    if not isinstance(picture, ImageFile.ImageFile) or not picture.tile:
        return None
    if picture.format == "BMP" and picture.mode in ("1", "L") and _bits_of_bmp(picture) != (8 if picture.mode == "L" else 1):
        return f"a BMP of {_bits_of_bmp(picture)} bits whose grey palette makes a decoder take it for another depth"
    stored = picture.tile[0].args  # PNG: the raw mode; PPM: the raw mode, or that and the largest value
    if picture.format == "PNG" and picture.mode != "I;16" and str(stored).endswith(";16B"):
        return f"{'grey with alpha' if str(stored).startswith('L') else str(stored).split(';')[0]} of 16 bits a band"
    if picture.format == "PPM" and picture.mode == "RGB" and isinstance(stored, tuple) and int(str(stored[1])) > 255:
        return "RGB of 16 bits a band"
    return None


def _bits_of_bmp(picture: ImageFile.ImageFile) -> int:
    """Bits of a pixel, of a BMP that is not decoded yet."""
    assert picture.fp
    picture.fp.seek(0)
    start = picture.fp.read(30)
    return start[24] if start[14] == 12 else start[28]  # OS/2's header, or Windows'


def _what_is_cut_of_tiff(tags: TiffImagePlugin.ImageFileDirectory_v2) -> str | None:
    light, bits, extra = tags.get(_PHOTOMETRIC, 0), max(tags.get(_BITS, (1,))), tags.get(_EXTRA, ())
    bands = _TIFF_BANDS.get(light, 1)
    samples = max(tags.get(_SAMPLES, 1), bands)
    if samples > bands + (extra[:1] in _TIFF_ALPHA):
        return f"{samples} bands, which are not grey, RGB or CMYK, nor one of them with alpha"
    if samples > 1 and bits > 8:
        return f"{samples} bands of {bits} bits"
    if bits == 8 and max(tags.get(_SAMPLE_FORMAT, (1,))) == 2:
        return "signed integers of 8 bits"
    if light == 0 and bits > 8:
        return f"grey of {bits} bits whose smallest value is white"
    return None


# ---------------------------------------------------------------------------------------------------------------------
# The chunks of a PNG
# ---------------------------------------------------------------------------------------------------------------------


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


_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_PNG_METADATA = frozenset(  # chunks that say nothing of the first frame's pixels, nor, but for texts, which side is up
    {*_PNG_TEXT, b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"pHYs", b"tIME", b"bKGD", b"hIST", b"sPLT"}
    | {b"sBIT", b"oFFs", b"pCAL", b"sCAL", b"acTL", b"fcTL", b"fdAT"}
)
_PNG_ORIENTATION = (b"XML:com.adobe.xmp", b"Raw profile type exif", b"exif", b"xmp")  # texts that may say it, too
_MAX_TEXT = 16 << 20  # bytes of one such text


def _png_essence(path: Path) -> io.BytesIO | None:
    """A PNG without its metadata, but for those that may say an orientation; None when it is no PNG.

    What is left out is not read, so no compressed text of gigabytes takes the memory.
    Raises ValueError when a text that may say an orientation is larger than 16 MiB.
    """
    with path.open("rb") as file:
        signature = file.read(8)
        if signature != _PNG_SIGNATURE:
            return None
        essence = io.BytesIO()
        essence.write(signature)
        while len(start := file.read(8)) == 8:
            length, kind, place = int.from_bytes(start[:4], "big"), start[4:], file.tell()
            keyword = file.read(min(length, 80)).partition(b"\0")[0] if kind in _PNG_TEXT else b""
            file.seek(place)
            if kind not in _PNG_METADATA:  # even an unknown one: it may be a palette whose name is damaged
                essence.write(start + file.read(length + 4))
            elif keyword in _PNG_ORIENTATION:
                essence.write(_inflated_text(kind, file.read(length)))
            file.seek(place + length + 4)
    essence.seek(0)
    return essence


def _inflated_text(kind: bytes, content: bytes) -> bytes:
    """A PNG's chunk of text, uncompressed, which Pillow reads at any size. Raises ValueError above 16 MiB."""
    keyword, _, text = content.partition(b"\0")
    if kind == b"zTXt":
        kind, content = b"tEXt", keyword + b"\0" + _inflated(text[1:], keyword)
    elif kind == b"iTXt" and text[:1] == b"\1":
        language, translated, compressed = (text[2:].split(b"\0", 2) + [b""] * 2)[:3]
        content = b"\0".join([keyword, b"\0\0" + language, translated, _inflated(compressed, keyword)])
    check = zlib.crc32(kind + content)
    return len(content).to_bytes(4, "big") + kind + content + check.to_bytes(4, "big")


def _inflated(compressed: bytes, name: bytes) -> bytes:
    decoder = zlib.decompressobj()
    try:
        text = decoder.decompress(compressed, _MAX_TEXT)
    except zlib.error:  # as Pillow does
        return b""
    if decoder.unconsumed_tail:
        raise ValueError(f"its metadata '{name.decode('latin-1')}' is larger than {_MAX_TEXT >> 20} MiB; strip it")
    return text


# ---------------------------------------------------------------------------------------------------------------------
# Pictures
# ---------------------------------------------------------------------------------------------------------------------

_EIGHT_BITS = "convert it to grey, RGB or RGBA of 8 bits a band"


def open_image(path: Path | str) -> Tensor:
    """A picture as (3, H, W) uint8 RGB, turned upright by its EXIF orientation.

    Grey is repeated, palettes are resolved, transparency is dropped over its own colour, CMYK is converted, and deeper
    grey integers or floats are scaled from their smallest..largest value to 0..255.
    Raises UserError (data) when the file is missing, damaged, of another format, larger than 100 million pixels, of colours
    of more than 8 bits, or of bands that are not grey, RGB or CMYK with or without alpha.
    """
    path = Path(path)
    return image_to_tensor(_open(path, FORMATS, whole=_EIGHT_BITS))


def pixel_count(path: Path) -> int:
    """Height × width of a picture or mask, from its header alone. Raises UserError (data) as opening it does."""
    picture = _open(path, FORMATS, decode=False)
    return picture.width * picture.height


def image_to_tensor(picture: Image.Image) -> Tensor:
    """A Pillow picture as (3, H, W) uint8 RGB, by the rules of `open_image`.

    Raises UserError (data) when it is not decoded yet, and its file holds more than a decoder keeps.
    """
    if isinstance(picture, ImageFile.ImageFile) and picture.tile and (cut := _what_is_cut(picture)):
        raise _bad(Path(str(picture.filename) or "picture"), cut, _EIGHT_BITS)
    turn = _UPRIGHT.get(_orientation(picture))
    if turn is not None:
        picture = picture.transpose(turn)
    if picture.mode.startswith(("I", "F")):
        picture = _to_eight_bits(picture)
    if picture.mode == "La":
        picture = picture.convert("LA")  # Pillow knows no shorter way
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA")  # resolves a transparent palette entry without a warning
    pixels = np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)  # (3, H, W)


_UPRIGHT = {  # EXIF orientation -> what undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(picture: Image.Image) -> int:
    """A picture's EXIF orientation; 1, upright, when it has none that can be read."""
    try:
        found = picture.getexif().get(ExifTags.Base.Orientation)
    except MemoryError:
        raise
    except Exception:  # spoilt metadata, on which Pillow fails in many ways, say nothing
        return 1
    return found if isinstance(found, int) else 1


def _to_eight_bits(picture: Image.Image) -> Image.Image:
    """Smallest..largest finite value to 0..255; what is not finite becomes 0. In bands, for large pictures."""
    values = _numbers(picture)
    finite = np.isfinite(values)
    low = float(values.min(where=finite, initial=values.max(where=finite, initial=0)))
    high = float(values.max(where=finite, initial=low))
    scaled = np.zeros(values.shape, np.uint8)
    for start in range(0, len(values) if high > low else 0, 256):
        band = slice(start, start + 256)
        share = (np.where(finite[band], values[band], low).astype(np.float64) - low) * (255.0 / (high - low))
        scaled[band] = share.round().astype(np.uint8)
    return Image.fromarray(scaled)


def _numbers(picture: Image.Image) -> np.ndarray:
    """(H, W) numbers of a picture of mode I or F; Pillow takes a TIFF's unsigned 32 bits for signed ones."""
    values = np.asarray(picture)
    if picture.mode != "I" or not isinstance(picture, TiffImagePlugin.TiffImageFile):
        return values
    unsigned = picture.tag_v2.get(_BITS) == (32,) and picture.tag_v2.get(_SAMPLE_FORMAT, (1,)) == (1,)
    return values.view(np.uint32) if unsigned else values


# ---------------------------------------------------------------------------------------------------------------------
# Masks
# ---------------------------------------------------------------------------------------------------------------------


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
        if picture.mode == "P":
            remedy += " (--classes CONFIG instead, if its colours are right)"
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


# ---------------------------------------------------------------------------------------------------------------------
# Masks of other conventions
# ---------------------------------------------------------------------------------------------------------------------

_EXACT = ("PNG", "BMP", "TIFF", "GIF", "PPM")  # formats that keep ids and colours
_LOSSY_TIFF = ("jpeg", "webp", "sgilog")
_EXPORT = "export it as palette, grey or RGB PNG of 8 bits"


class Labels(NamedTuple):
    """A mask of another convention, as its file holds it."""

    values: np.ndarray  # (H, W) int64 ids, or (H, W, 3) uint8 colours
    palette: np.ndarray | None = None  # (N, 4) uint8: the RGBA that each id shows


def open_labels(path: Path) -> Labels:
    """A mask of another convention: ids are the numbers in the file, whatever brightness they stand for.

    Raises UserError (data) when it cannot be read exactly: lossy, transparent, float, or more than 8 bits a colour.
    """
    picture = _open(path, _EXACT, whole=_EXPORT)
    if any(name in str(picture.info.get("compression")) for name in _LOSSY_TIFF):
        raise _bad(path, "compressed with loss", "export the mask as PNG")
    if picture.mode in _MASK_MODES or picture.mode.startswith("I"):
        return Labels(_stored_ids(picture, path).astype(np.int64), _palette_of(picture))
    if picture.mode not in ("RGB", "RGBA", "LA"):
        raise _bad(path, f"a mask in mode {picture.mode}", _EXPORT)
    if picture.format == "PPM" and (largest := _ppm_header(path).largest) != 255:
        raise _bad(path, f"colours of 0..{largest}, which a decoder scales to 0..255", _EXPORT)
    if "transparency" in picture.info:
        picture = picture.convert("RGBA")
    pixels = np.asarray(picture)
    clear = int((pixels[..., -1] != 255).sum()) if picture.mode != "RGB" else 0
    if clear:
        raise _bad(path, f"{clear:,} pixels are transparent", "fill them with a class colour")
    return Labels(pixels[..., 0].astype(np.int64) if picture.mode == "LA" else pixels[..., :3])


def open_palette(path: Path) -> np.ndarray | None:
    """(N, 3) uint8: the RGB of each id in a mask's palette, from its header alone; None when it has none.

    Raises UserError (data) as opening it does.
    """
    picture = _open(path, ("PNG",), decode=False)
    if picture.mode != "P" or picture.palette is None:
        return None
    content = picture.palette.getdata()[1]
    return np.frombuffer(content[: len(content) // 3 * 3], dtype=np.uint8).reshape(-1, 3)


def _palette_of(picture: Image.Image) -> np.ndarray | None:
    if picture.mode != "P":
        return None
    colors = np.array(picture.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    alpha, clear = np.full(len(colors), 255, np.uint8), picture.info.get("transparency", b"")
    if isinstance(clear, int):
        alpha[clear : clear + 1] = 0
    else:
        alpha[: len(clear)] = np.frombuffer(clear, np.uint8)[: len(alpha)]
    return np.column_stack([colors, alpha])


def _stored_ids(picture: Image.Image, path: Path) -> np.ndarray:
    """(H, W) integers as the file holds them.

    Raises UserError (data) for a PPM that breaks its own limit, and for a TIFF whose 0 is white: some programs mean its numbers,
    others what it shows.
    """
    if picture.format == "PNG" and picture.mode in _MASK_MODES:
        return _ids_of(picture, path)
    if picture.format == "PPM":
        return _stored_in_ppm(picture, path)
    values = np.array(picture, dtype=np.uint8) if picture.mode in _MASK_MODES else _numbers(picture)
    if not isinstance(picture, TiffImagePlugin.TiffImageFile) or picture.mode not in ("1", "L"):
        return values
    if picture.tag_v2.get(_PHOTOMETRIC, 0) == 0:
        raise _bad(path, "a TIFF in which 0 is white, so that its numbers and what it shows are opposite", _EXPORT)
    return values // np.uint8({2: 85, 4: 17}.get(max(picture.tag_v2.get(_BITS, (1,))), 1))  # spread over 0..255, too


class _PpmHeader(NamedTuple):
    coding: str  # Pillow's name of the decoder: raw, ppm (binary, scaled) or ppm_plain
    start: int  # of the samples, in bytes
    largest: int  # value


def _ppm_header(path: Path) -> _PpmHeader:
    with _read_header(path, ("PPM",), Warning) as picture:
        assert isinstance(picture, ImageFile.ImageFile)
        tile = picture.tile[0]
        plain = 65535 if picture.mode == "I" else 255
        largest = tile.args[1] if tile.codec_name != "raw" and isinstance(tile.args, tuple) else plain
        return _PpmHeader(tile.codec_name, tile.offset, int(str(largest)))


def _stored_in_ppm(picture: Image.Image, path: Path) -> np.ndarray:
    """(H, W) integers; Pillow spreads them over 0..255 or 0..65535, and inverts one bit."""
    header, values = _ppm_header(path), np.array(picture)
    if picture.mode == "1":
        return ~values
    if header.coding == "ppm_plain":  # exact: the spread is never narrower than what it spreads
        return np.rint(values * (header.largest / (65535 if picture.mode == "I" else 255)))
    if header.coding == "ppm":
        kind = np.dtype("u1" if header.largest < 256 else ">u2")
        values = np.fromfile(path, kind, values.size, offset=header.start).reshape(values.shape)
        if int(values.max(initial=0)) > header.largest:
            raise _bad(path, f"holds {values.max()}, although it says that its largest value is {header.largest}", _EXPORT)
    return values


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------


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
