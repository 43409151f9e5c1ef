"""Picture files before their pixels are decoded: the format, what a decoder would drop, the chunks of a PNG."""

from __future__ import annotations

import io
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from segnet.system.errors import first_line

Source = Path | io.BytesIO
"""A picture as a file on disk, or as the bytes of one."""

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF")  # Pillow's names; files of other formats are refused unread
UNREAD_TIFF = "a TIFF that is damaged, or whose depth or bands are not read"
MAX_PIXELS = 100_000_000
TiffTags = TiffImagePlugin.ImageFileDirectory_v2
_WARNING_FILTERS = threading.Lock()  # the filters belong to the whole process: one thread at a time may change them


@contextmanager
def reading(source: Source) -> Iterator[BinaryIO]:
    """The source as a binary file, at its start."""
    if isinstance(source, io.BytesIO):
        source.seek(0)
        yield source
    else:
        with source.open("rb") as file:
            yield file


def read_header(source: Source, formats: tuple[str, ...], silent: type[Warning]) -> Image.Image:
    """An open picture that is not decoded yet. Warnings of the class `silent` are suppressed; raises what Pillow raises."""
    with _WARNING_FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", silent)
        return Image.open(source, formats=formats)


def format_of(source: Source) -> str | None:
    """The format that the first bytes announce; None when it is not one of `FORMATS`."""
    try:
        with read_header(source, FORMATS, Warning) as picture:
            return picture.format
    except Exception:  # decoders fail on damaged bytes with exceptions of every kind
        return None


def reason_unread(error: Exception, source: Source) -> str:
    """The reason why no picture could be read, in a few words, from the exception of the decoder."""
    if not isinstance(error, UnidentifiedImageError):
        return first_line(error)
    kind = format_of(source)
    if kind:
        return f"a {kind}"
    start = first_bytes(source)
    if start == PNG_SIGNATURE:
        return "a damaged PNG"
    return UNREAD_TIFF if start[:4] in TiffImagePlugin.PREFIXES else "unknown format"


def first_bytes(source: Source, count: int = 8) -> bytes:
    """The first bytes; none where the file cannot be read."""
    try:
        with reading(source) as file:
            return file.read(count)
    except OSError:
        return b""


# Tags of TIFF 6.0.
BITS_TAG = 258
PHOTOMETRIC_TAG = 262
SAMPLE_FORMAT_TAG = 339
_SAMPLES_TAG = 277
ORIENTATION_TAG = 274
NODATA_TAG = 42113  # of GDAL: a text
EXTRA_SAMPLES_TAG = 338
_TIFF_BANDS = {2: 3, 5: 4, 6: 3, 8: 3}  # photometric interpretation (RGB, CMYK, YCbCr, Lab) -> bands; all others have one
TIFF_ALPHA = ((1,), (2,), (999,))  # extra samples that are alpha; 999 is written by Corel Draw


def what_is_cut(picture: Image.Image) -> str | None:
    """A description of the data that decoding would drop from an open, undecoded picture; None when it drops nothing.

    Pillow holds at most four bands of 8 bits. It silently keeps only the upper 8 bits of deeper colours.
    """
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        return what_is_cut_of_tiff(picture.tag_v2)
    if not isinstance(picture, ImageFile.ImageFile) or not picture.tile:
        return None
    if picture.format == "BMP" and picture.mode in ("1", "L"):
        bits = _bits_of_bmp(picture)
        if bits != (8 if picture.mode == "L" else 1):
            return f"a BMP of {bits} bits whose grey palette makes a decoder take it for another depth"
    stored = picture.tile[0].args  # PNG: the raw mode; PPM: the raw mode, or a pair of it and the largest value
    if picture.format == "PNG" and picture.mode != "I;16" and str(stored).endswith(";16B"):
        bands = "grey with alpha" if str(stored).startswith("L") else str(stored).split(";")[0]
        return f"{bands} of 16 bits a band"
    if picture.format == "PPM" and picture.mode == "RGB" and isinstance(stored, tuple) and int(str(stored[1])) > 255:
        return "RGB of 16 bits a band"
    return None


def _bits_of_bmp(picture: ImageFile.ImageFile) -> int:
    """Bits per pixel of an undecoded BMP."""
    assert picture.fp
    picture.fp.seek(0)
    start = picture.fp.read(30)
    is_os2_header = start[14] == 12
    return start[24] if is_os2_header else start[28]


def read_tiff_tags(source: Source) -> TiffTags | None:
    """The tags of the first picture in a TIFF, also of depths that Pillow does not open; None when they cannot be read."""
    try:
        with _WARNING_FILTERS, warnings.catch_warnings(), reading(source) as file:
            warnings.simplefilter("ignore")
            header = file.read(8)
            if header[2:4] == b"+\0":  # BigTIFF
                header += file.read(8)
            tags = TiffTags(header)
            file.seek(tags.next)
            tags.load(file)
            for number in list(tags):
                tags.get(number)  # decodes it, which may warn
            return tags
    except MemoryError:
        raise
    except Exception:  # Pillow fails on damaged tags with exceptions of every kind
        return None


def bands_of_tiff(tags: TiffTags) -> int:
    """The number of bands of a TIFF, alpha among them."""
    return max(tags.get(_SAMPLES_TAG, 1), _TIFF_BANDS.get(tags.get(PHOTOMETRIC_TAG, 0), 1))


def what_is_cut_of_tiff(tags: TiffTags) -> str | None:
    """`what_is_cut` from the tags of a TIFF."""
    photometric = tags.get(PHOTOMETRIC_TAG, 0)
    bits = max(tags.get(BITS_TAG, (1,)))
    bands = _TIFF_BANDS.get(photometric, 1)
    samples = bands_of_tiff(tags)
    has_alpha = tags.get(EXTRA_SAMPLES_TAG, ())[:1] in TIFF_ALPHA
    if samples > bands + has_alpha:
        return f"{samples} bands, which are not grey, RGB or CMYK, nor one of them with alpha"
    if samples > 1 and bits > 8:
        return f"{samples} bands of {bits} bits"
    if bits == 8 and max(tags.get(SAMPLE_FORMAT_TAG, (1,))) == 2:
        return "signed integers of 8 bits"
    if photometric == 0 and bits > 8:
        return f"grey of {bits} bits whose smallest value is white"
    return None


def raw_mode_of(picture: Image.Image) -> str:
    """Pillow's name for the samples as an undecoded file stores them, such as "L;2"; empty when there is none."""
    if not isinstance(picture, ImageFile.ImageFile) or not picture.tile:
        return ""
    stored = picture.tile[0].args
    return stored if isinstance(stored, str) else ""


class PpmHeader(NamedTuple):
    """The header of a PPM, PGM or PBM."""

    coding: str  # Pillow's name of the decoder: raw, ppm (binary, scaled) or ppm_plain
    start: int  # offset of the samples in bytes
    largest: int  # the largest sample value that the file announces


def read_ppm_header(path: Path) -> PpmHeader:
    """The header of a file whose format is known to be PPM."""
    with read_header(path, ("PPM",), Warning) as picture:
        assert isinstance(picture, ImageFile.ImageFile)
        tile = picture.tile[0]
        largest: object = 65535 if picture.mode == "I" else 255
        if tile.codec_name != "raw" and isinstance(tile.args, tuple):
            largest = tile.args[1]
        return PpmHeader(tile.codec_name, tile.offset, int(str(largest)))


PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_PNG_METADATA = frozenset(  # chunks that define neither the pixels of the first frame nor, except for texts, its orientation
    {*_PNG_TEXT, b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"pHYs", b"tIME", b"bKGD", b"hIST", b"sPLT"}
    | {b"sBIT", b"oFFs", b"pCAL", b"sCAL", b"acTL", b"fcTL", b"fdAT"}
)
_PNG_ORIENTATION = (b"XML:com.adobe.xmp", b"Raw profile type exif", b"exif", b"xmp")  # keywords of texts with an orientation
_MAX_TEXT_BYTES = 16 << 20  # of one such text, uncompressed


def has_png_end(picture: Image.Image) -> bool:
    """Whether the file of an open, undecoded PNG ends with a whole IEND chunk. Its reading position is restored."""
    assert isinstance(picture, ImageFile.ImageFile)
    assert picture.fp
    before = picture.fp.tell()
    try:
        picture.fp.seek(len(PNG_SIGNATURE))
        while len(start := picture.fp.read(8)) == 8:
            length, kind = int.from_bytes(start[:4], "big"), start[4:]
            if kind == b"IEND":
                return len(picture.fp.read(4)) == 4
            picture.fp.seek(length + 4, io.SEEK_CUR)
        return False
    finally:
        picture.fp.seek(before)


def png_without_metadata(source: Source) -> io.BytesIO | None:
    """A PNG without its metadata, except texts that may hold an orientation; None when it is not a PNG.

    The chunks left out are skipped unread, so that a compressed text of gigabytes takes no memory.
    Raises ValueError when a text that may hold an orientation is larger than 16 MiB.
    """
    with reading(source) as file:
        if file.read(len(PNG_SIGNATURE)) != PNG_SIGNATURE:
            return None
        kept = io.BytesIO()
        kept.write(PNG_SIGNATURE)
        while len(start := file.read(8)) == 8:
            length, kind = int.from_bytes(start[:4], "big"), start[4:]
            place = file.tell()
            keyword = file.read(min(length, 80)).partition(b"\0")[0] if kind in _PNG_TEXT else b""
            file.seek(place)
            if kind not in _PNG_METADATA:  # unknown chunks are kept: one may be a palette whose name is damaged
                kept.write(start + file.read(length + 4))
            elif keyword in _PNG_ORIENTATION:
                kept.write(_uncompressed_text(kind, file.read(length)))
            file.seek(place + length + 4)
    kept.seek(0)
    return kept


def _uncompressed_text(kind: bytes, content: bytes) -> bytes:
    """A text chunk of a PNG with its text uncompressed, which Pillow reads at any size. Raises ValueError above 16 MiB."""
    keyword, _, text = content.partition(b"\0")
    if kind == b"zTXt":
        kind = b"tEXt"
        content = keyword + b"\0" + _decompress(text[1:], keyword)
    elif kind == b"iTXt" and text[:1] == b"\1":
        language, translated, compressed = (text[2:].split(b"\0", 2) + [b""] * 2)[:3]
        content = b"\0".join([keyword, b"\0\0" + language, translated, _decompress(compressed, keyword)])
    check = zlib.crc32(kind + content)
    return len(content).to_bytes(4, "big") + kind + content + check.to_bytes(4, "big")


def _decompress(compressed: bytes, name: bytes) -> bytes:
    decoder = zlib.decompressobj()
    try:
        text = decoder.decompress(compressed, _MAX_TEXT_BYTES)
    except zlib.error:  # Pillow takes a damaged text for an empty one, too
        return b""
    if decoder.unconsumed_tail:
        raise ValueError(f"its metadata '{name.decode('latin-1')}' is larger than {_MAX_TEXT_BYTES >> 20} MiB; strip it")
    return text
