"""A header tells what a decoder would cut; metadata of any size or damage do not stop a PNG; other formats stay unread."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import png_chunk, refused, write_png, write_tiff
from image_cases import COLOR, GREY, HEIGHT, PALETTE, UPRIGHT, WIDTH, noise, rgb, stretched
from PIL import Image

from segnet.data.images import image_to_tensor, open_image
from segnet.system.errors import ExitCode

Data = ExitCode.DATA
BANDS = np.arange(HEIGHT * WIDTH * 6, dtype=np.uint8).reshape(HEIGHT, WIDTH, 6)
WIDE = BANDS.astype(np.uint16) * 16  # of a camera of 12 bits
CUT: dict[str, tuple[Callable[[Path], object], str]] = {  # what a decoder would cut, and what is said of it
    "TIFF CMYK 16": (lambda p: write_tiff(p, WIDE[..., :4], 16, 5), "4 bands of 16 bits"),
    "TIFF RGB and infrared": (lambda p: write_tiff(p, BANDS[..., :4], 8, 2, extra=(0,)), "4 bands, which are not grey, RGB"),
    "TIFF of 4 bands": (lambda p: write_tiff(p, BANDS[..., :4], 8, 2), "4 bands, which are not grey, RGB"),
    "TIFF of 5 bands": (lambda p: write_tiff(p, BANDS[..., :5], 8, 2, extra=(0, 0)), "5 bands, which are not grey, RGB"),
    "TIFF of 6 bands": (lambda p: write_tiff(p, BANDS, 8, 2, extra=(2, 0, 0)), "6 bands, which are not grey, RGB"),
    "TIFF CMYK and one": (lambda p: write_tiff(p, BANDS[..., :5], 8, 5, extra=(0,)), "5 bands, which are not grey, RGB"),
    "TIFF of 2 bands": (lambda p: write_tiff(p, BANDS[..., :2], 8, 1, extra=(0,)), "2 bands, which are not grey, RGB"),
    "TIFF of 7 bands": (lambda p: write_tiff(p, noise(4, 4, 7), 8, 1, extra=(0,) * 6), "7 bands, which are not grey, RGB"),
    "PPM 65535": (lambda p: p.write_bytes(b"P6 1 1 65535\n" + bytes(6)), "RGB of 16 bits a band"),
    "PPM 1000": (lambda p: p.write_bytes(b"P6 1 1 1000\n" + bytes(6)), "RGB of 16 bits a band"),
    "PPM in words": (lambda p: p.write_bytes(b"P3 1 1 1000\n0 999 5\n"), "RGB of 16 bits a band"),
    "BMP of 4 bits": (lambda p: write_grey_bmp(p), "a BMP of 4 bits whose grey palette"),
}


def write_grey_bmp(path: Path) -> None:
    """Two pixels, 3 and 0, of 4 bits with a palette that shows each number as itself."""
    header = struct.pack("<IHHI", 122, 0, 0, 118) + struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 4, 0, 4, 0, 0, 16, 16)
    path.write_bytes(b"BM" + header + b"".join(bytes([i, i, i, 0]) for i in range(16)) + b"\x30\0\0\0")


@pytest.mark.parametrize("case", CUT)
def test_a_picture_that_a_decoder_would_cut_is_refused(case: str, tmp_path: Path) -> None:
    write, found = CUT[case]
    write(tmp_path / "deep.jpg")
    with refused(Data, "deep.jpg", found, "convert it to grey, RGB or RGBA of 8 bits a band"):
        open_image(tmp_path / "deep.jpg")
    if not found.startswith("7"):
        with Image.open(tmp_path / "deep.jpg") as picture, refused(Data, "deep.jpg", found):
            image_to_tensor(picture)


def test_bands_that_fit_are_read(tmp_path: Path) -> None:
    grey, color = BANDS[..., :1].repeat(3, 2), BANDS[..., :3]
    alpha = np.dstack([color, np.full((HEIGHT, WIDTH), 255, np.uint8)])
    path = tmp_path / "a.tif"
    for written, expected in [
        (write_tiff(path, BANDS[..., 0], 8, 1), grey),
        (write_tiff(tmp_path / "b.tif", BANDS[..., 0], 8, 0), 255 - grey),
        (write_tiff(tmp_path / "c.tif", BANDS[..., :2], 8, 1, extra=(2,)), grey),
        (write_tiff(tmp_path / "d.tif", color, 8, 2), color),
        (write_tiff(tmp_path / "e.tif", alpha, 8, 2, extra=(1,)), color),
        (write_tiff(tmp_path / "f.tif", BANDS[..., :4], 8, 2, extra=(2,)), color),
        (write_tiff(tmp_path / "g.tif", alpha[..., [0, 3]], 8, 1, extra=(1,)), grey),  # grey times alpha: once a traceback
        (write_png(tmp_path / "h.png", BANDS[..., :4], 8, 6), color),
        (write_png(tmp_path / "i.png", WIDE[..., 0], 16, 0), stretched(WIDE[..., :1]).repeat(3, 2)),
    ]:
        assert np.array_equal(rgb(open_image(written)), expected), written


LONG = zlib.compress(b"x" * 3_000_000)
TURNED = b'<x tiff:Orientation="6"/>'
METADATA = {  # chunks, and whether they say that the picture lies on its side
    "compressed text": (png_chunk(b"zTXt", b"history\0\0" + LONG), False),
    "international text": (png_chunk(b"iTXt", b"history\0\1\0\0\0" + LONG), False),
    "colour profile": (png_chunk(b"iCCP", b"p\0\0" + LONG), False),
    "plain text": (png_chunk(b"tEXt", b"h\0" + b"x" * 70_000_000), False),
    "many texts": (b"".join(png_chunk(b"zTXt", b"%d\0\0" % i + zlib.compress(b"x" * 1_000_000)) for i in range(70)), False),
    "XMP beside text": (png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + TURNED) + png_chunk(b"zTXt", b"h\0\0" + LONG), True),
    "XMP": (png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(TURNED + b" " * 3_000_000)), True),
    "EXIF beside text": (
        png_chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0") + png_chunk(b"zTXt", b"h\0\0" + LONG),
        True,
    ),
}


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("case", METADATA)
def test_metadata_of_any_size_do_not_stop_a_png(case: str, place: str, tmp_path: Path) -> None:
    chunks, turned = METADATA[case]
    write_png(tmp_path / "a.png", COLOR, 8, 2, chunks if place == "before" else b"")
    if place == "after":
        whole = (tmp_path / "a.png").read_bytes()
        (tmp_path / "a.png").write_bytes(whole[:-12] + chunks + whole[-12:])
    assert np.array_equal(rgb(open_image(tmp_path / "a.png")), UPRIGHT[6](COLOR) if turned else COLOR)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"eXIf", b"garbage"),
        png_chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
        png_chunk(b"tEXt", b"Raw profile type exif\0garbage"),
        png_chunk(b"tEXt", b"exif\0garbage"),
        png_chunk(b"tEXt", b"xmp\0garbage"),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0tiff:Orientation='x'"),
        png_chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0tiff:Orientation="9"'),
        png_chunk(b"tEXt", b"transparency\0garbage"),
        png_chunk(b"tEXt", b"history\0garbage")[:-1] + b"?",
        png_chunk(b"zTXt", b"history\0\7of an unknown compression"),
        png_chunk(b"iCCP", b""),
        png_chunk(b"iCCP", b"name\0\7of an unknown compression"),
        png_chunk(b"gAMA", b"\0"),
    ],
)
def test_spoilt_metadata_say_nothing(chunk: bytes, tmp_path: Path) -> None:
    assert np.array_equal(rgb(open_image(write_png(tmp_path / "a.png", COLOR, 8, 2, chunk))), COLOR)
    palette = png_chunk(b"PLTE", PALETTE.tobytes())
    assert np.array_equal(rgb(open_image(write_png(tmp_path / "b.png", GREY % 4, 8, 3, palette + chunk))), PALETTE[GREY % 4])


@pytest.mark.parametrize("damaged", [b"pLTE", b"PLTe", b"tRNs"])
def test_a_png_whose_colours_are_damaged_is_refused(damaged: bytes, tmp_path: Path) -> None:
    chunks = png_chunk(b"PLTE", PALETTE.tobytes()) + png_chunk(b"tRNS", b"\0" * 4)
    write_png(tmp_path / "a.png", GREY % 4, 8, 3, chunks.replace(damaged.upper().replace(b"TRNS", b"tRNS"), damaged))
    with refused(Data, "a.png", "not a readable picture (a damaged PNG)"):
        open_image(tmp_path / "a.png")


def test_metadata_that_inflate_to_gigabytes_take_no_memory(tmp_path: Path) -> None:
    packer = zlib.compressobj(9)
    bomb = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(256)), packer.flush()])
    tracemalloc.start()
    try:
        write_png(tmp_path / "a.png", COLOR, 8, 2, png_chunk(b"zTXt", b"h\0\0" + bomb))
        assert np.array_equal(rgb(open_image(tmp_path / "a.png")), COLOR)
        write_png(tmp_path / "a.png", COLOR, 8, 2, png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb))
        with refused(Data, "a.png", "its metadata 'XML:com.adobe.xmp' is larger than 16 MiB; strip it"):
            open_image(tmp_path / "a.png")
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_a_png_cut_in_its_metadata_is_refused(share: float, tmp_path: Path) -> None:
    whole = write_png(tmp_path / "a.png", COLOR, 8, 2, METADATA["XMP beside text"][0]).read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: int(len(whole) * share)])
    with refused(Data, "a.png", "not a readable picture"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"no picture", b"<!doctype html>", b"%PDF-1.4\n", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\0" * 99])
def test_something_else_named_jpg_is_refused_unread(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_bytes(content)
    with refused(Data, "page.jpg", "not a readable picture (unknown format)"):
        open_image(tmp_path / "page.jpg")


def test_a_format_that_runs_code_is_refused_although_pillow_knows_it(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "script.jpg", "EPS")
    assert Image.open(tmp_path / "script.jpg").format == "EPS"
    with refused(Data, "script.jpg", "unknown format"):
        open_image(tmp_path / "script.jpg")
