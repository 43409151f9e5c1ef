"""Pictures of every kind become upright RGB by a documented rule, masks stay bit for bit, damage is refused by name."""

from __future__ import annotations

import gc
import io
import os
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import png_chunk, refused, tiny_mask, write_png, write_tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from segnet.classes import VOC, ClassSet, class_set
from segnet.errors import ExitCode, UserError
from segnet.images import SUFFIXES, encode_webp, image_to_tensor, open_image, open_mask, save_image, save_mask

Data = ExitCode.DATA
HEIGHT, WIDTH = 7, 5


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def rgb(image: torch.Tensor) -> np.ndarray:
    """(3, H, W) -> (H, W, 3)."""
    return image.permute(1, 2, 0).numpy()


# ---------------------------------------------------------------------------------------------------------------------
# Modes
# ---------------------------------------------------------------------------------------------------------------------

COLOR = noise(HEIGHT, WIDTH, 3)
GREY = noise(HEIGHT, WIDTH)
ALPHA = noise(HEIGHT, WIDTH, seed=1)
DEEP = np.linspace(1000, 3000, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)


def stretched(values: np.ndarray) -> np.ndarray:
    """Smallest..largest -> 0..255, computed with exact fractions of the range."""
    low, high = values.min(), values.max()
    return np.rint((values.astype(np.float64) - low) / (high - low) * 255).astype(np.uint8)


def palette_picture(transparency: int | bytes | None = None) -> Image.Image:
    picture = Image.fromarray(GREY % 4)
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    if transparency is not None:
        picture.info["transparency"] = transparency
    return picture


PALETTE = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]], dtype=np.uint8)
CASES: dict[str, tuple[Image.Image, np.ndarray]] = {  # a picture, and the RGB that the rule of `open_image` gives
    "1": (Image.fromarray(GREY > 127), np.where(GREY > 127, 255, 0)[..., None].repeat(3, 2)),
    "L": (Image.fromarray(GREY), GREY[..., None].repeat(3, 2)),
    "LA": (Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]), GREY[..., None].repeat(3, 2)),
    "P": (palette_picture(), PALETTE[GREY % 4]),
    "P transparent entry": (palette_picture(2), PALETTE[GREY % 4]),
    "P transparent table": (palette_picture(bytes([0, 255, 7, 255])), PALETTE[GREY % 4]),
    "PA": (palette_picture(2).convert("PA"), PALETTE[GREY % 4]),
    "RGB": (Image.fromarray(COLOR), COLOR),
    "RGBA": (Image.merge("RGBA", [*Image.fromarray(COLOR).split(), Image.fromarray(ALPHA)]), COLOR),
    "CMYK": (Image.fromarray(COLOR).convert("CMYK"), COLOR),
    "I;16": (Image.fromarray(DEEP.astype(np.uint16)), stretched(DEEP.astype(np.uint16))[..., None].repeat(3, 2)),
    "I": (Image.fromarray(DEEP.astype(np.int32) - 2000), stretched(DEEP.astype(np.int32))[..., None].repeat(3, 2)),
    "F": (Image.fromarray(DEEP.astype(np.float32) - 2000.5), stretched(DEEP.astype(np.float32))[..., None].repeat(3, 2)),
    "I;16 of one value": (Image.new("I;16", (WIDTH, HEIGHT), 700), np.zeros((HEIGHT, WIDTH, 3), np.uint8)),
}
FORMAT_OF = {"CMYK": "tif", "I": "tif", "F": "tif"}  # the rest fits into a PNG; a palette with alpha into no file


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("error")
def test_every_mode_becomes_rgb_by_its_rule(case: str, tmp_path: Path) -> None:
    picture, expected = CASES[case]
    assert picture.mode == case.split()[0]
    image = image_to_tensor(picture)
    assert (image.dtype, image.shape) == (torch.uint8, (3, HEIGHT, WIDTH))
    assert np.array_equal(rgb(image), expected)
    if picture.mode == "PA":
        return
    path = tmp_path / f"picture.{FORMAT_OF.get(picture.mode, 'png')}"
    picture.save(path, **{"transparency": picture.info["transparency"]} if "transparency" in picture.info else {})
    assert np.array_equal(rgb(open_image(path)), expected)


def test_values_that_are_not_finite_do_not_spoil_a_float_picture() -> None:
    values = np.array([[np.nan, np.inf, -np.inf], [0, 0.5, 1]], dtype=np.float32)
    assert rgb(image_to_tensor(Image.fromarray(values)))[1, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("suffix", sorted(SUFFIXES - {".gif", ".pgm", ".pbm", ".pfm"}))  # which have no colours
def test_every_announced_suffix_is_read(suffix: str, tmp_path: Path) -> None:
    path, flat = tmp_path / f"picture{suffix}", np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    Image.fromarray(flat).save(path, {".jfi": "JPEG", ".jif": "JPEG", ".dib": "BMP"}.get(suffix))
    assert np.abs(rgb(open_image(path)).astype(int) - flat).max() <= 2  # JPEG and WebP are lossy


def test_the_first_picture_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("L", (WIDTH, HEIGHT), value) for value in (50, 100, 150)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert torch.all(open_image(tmp_path / "moving.gif") == 50)


# ---------------------------------------------------------------------------------------------------------------------
# Depth and bands
# ---------------------------------------------------------------------------------------------------------------------

BANDS = np.arange(HEIGHT * WIDTH * 6, dtype=np.uint8).reshape(HEIGHT, WIDTH, 6)
WIDE = BANDS.astype(np.uint16) * 16  # of a camera of 12 bits
CUT: dict[str, tuple[Callable[[Path], object], str]] = {  # what a decoder would cut, and what is said of it
    "PNG RGB 16": (lambda p: write_png(p, WIDE[..., :3], 16, 2), "RGB of 16 bits a band"),
    "PNG grey with alpha 16": (lambda p: write_png(p, WIDE[..., :2], 16, 4), "grey with alpha of 16 bits a band"),
    "PNG RGBA 16": (lambda p: write_png(p, WIDE[..., :4], 16, 6), "RGBA of 16 bits a band"),
    "TIFF RGB 16": (lambda p: write_tiff(p, WIDE[..., :3], 16, 2), "3 bands of 16 bits"),
    "TIFF RGBA 16": (lambda p: write_tiff(p, WIDE[..., :4], 16, 2, extra=(2,)), "4 bands of 16 bits"),
    "TIFF CMYK 16": (lambda p: write_tiff(p, WIDE[..., :4], 16, 5), "4 bands of 16 bits"),
    "TIFF grey with alpha 16": (lambda p: write_tiff(p, WIDE[..., :2], 16, 1, extra=(2,)), "a TIFF that is damaged, or"),
    "TIFF RGB and infrared": (lambda p: write_tiff(p, BANDS[..., :4], 8, 2, extra=(0,)), "4 bands, which are not grey, RGB"),
    "TIFF of 4 bands": (lambda p: write_tiff(p, BANDS[..., :4], 8, 2), "4 bands, which are not grey, RGB"),
    "TIFF of 5 bands": (lambda p: write_tiff(p, BANDS[..., :5], 8, 2, extra=(0, 0)), "5 bands, which are not grey, RGB"),
    "TIFF of 6 bands": (lambda p: write_tiff(p, BANDS, 8, 2, extra=(2, 0, 0)), "6 bands, which are not grey, RGB"),
    "TIFF CMYK and one": (lambda p: write_tiff(p, BANDS[..., :5], 8, 5, extra=(0,)), "5 bands, which are not grey, RGB"),
    "TIFF of 2 bands": (lambda p: write_tiff(p, BANDS[..., :2], 8, 1, extra=(0,)), "2 bands, which are not grey, RGB"),
    "TIFF of 7 bands": (lambda p: write_tiff(p, noise(4, 4, 7), 8, 1, extra=(0,) * 6), "a TIFF that is damaged, or"),
    "TIFF signed 8": (lambda p: write_tiff(p, GREY.view(np.int8), 8, 1, kind=2), "signed integers of 8 bits"),
    "TIFF white is zero 16": (lambda p: write_tiff(p, WIDE[..., 0], 16, 0), "grey of 16 bits whose smallest value is white"),
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
    if "damaged" not in found:
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


def test_unsigned_integers_of_32_bits_are_scaled_as_such(tmp_path: Path) -> None:
    values = np.array([[0, 1 << 31, 0xFFFFFFFF]], dtype=np.uint32)
    assert rgb(open_image(write_tiff(tmp_path / "a.tif", values, 32, 1)))[0, :, 0].tolist() == [0, 128, 255]


# ---------------------------------------------------------------------------------------------------------------------
# Metadata
# ---------------------------------------------------------------------------------------------------------------------

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


def test_metadata_do_not_stop_a_mask(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("history", "x" * 3_000_000, zip=True)
    Image.fromarray(GREY % 4).save(tmp_path / "mask.png", pnginfo=text)
    assert np.array_equal(open_mask(tmp_path / "mask.png", VOC).numpy(), GREY % 4)


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


# ---------------------------------------------------------------------------------------------------------------------
# Orientation
# ---------------------------------------------------------------------------------------------------------------------

UPRIGHT = {  # EXIF orientation -> how the stored pixels become upright (EXIF 2.3, tag 0x0112)
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "TIFF of two pages", "JPEG", "WEBP"])
def test_pictures_are_turned_upright(kind: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pages = {"save_all": True, "append_images": [Image.new("RGB", (3, 3))]} if kind.endswith("pages") else {}
    stored = np.zeros((16, 24, 3), np.uint8)
    stored[:8, 12:], stored[8:, :12] = 250, 100
    Image.fromarray(stored).save(tmp_path / "turned", kind.split()[0], exif=exif, **pages)
    image, expected = rgb(open_image(tmp_path / "turned")).astype(int), UPRIGHT[orientation](stored)
    assert image.shape == expected.shape
    assert np.abs(image - expected).mean() < 3  # JPEG and WebP are lossy


@settings(max_examples=40)
@given(st.binary(max_size=40))
def test_spoilt_exif_does_not_stop_a_picture(tail: bytes) -> None:
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "JPEG", exif=b"Exif\0\0" + tail)
    assert image_to_tensor(Image.open(file)).shape == (3, 4, 4)


# ---------------------------------------------------------------------------------------------------------------------
# Damage
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [1, 0.2])
@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF"])
def test_no_file_stays_open(share: float, kind: str, tmp_path: Path) -> None:
    file = io.BytesIO()
    frames = [Image.fromarray(noise(30, 30, seed=seed)) for seed in (0, 1)]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    path, whole = tmp_path / "picture", file.getvalue()
    path.write_bytes(whole[: int(len(whole) * share)])
    gc.disable()  # a leak that only the collector mends is one
    try:
        refusal = read_or_refusal(open_image, path)
        assert [link for link in Path("/proc/self/fd").iterdir() if os.path.realpath(link) == str(path)] == []
    finally:
        gc.enable()
    assert (refusal is None) == (share == 1)


def read_or_refusal(read: Callable[[Path], torch.Tensor], path: Path) -> UserError | None:
    """None when the picture can be read."""
    try:
        assert read(path).dtype == torch.uint8
    except UserError as error:
        return error
    return None


@pytest.mark.parametrize("share", [0, 1, 10, 50, 90, 99])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_truncated_picture_is_refused(suffix: str, share: int, tmp_path: Path) -> None:
    path = tmp_path / f"cut.{suffix}"
    save_image(path, noise(64, 64, 3))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * share // 100])
    with refused(Data, str(path), "not a readable picture", "expected JPEG, PNG"):
        open_image(path)


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


@pytest.mark.timeout(20)
def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path, tmp_path / "pipe.jpg", Path("/dev/zero")):
        with refused(Data, str(path), "not a file"):
            open_image(path)
    with refused(Data, "none.jpg", "no such file"):
        open_image(tmp_path / "none.jpg")


def write_huge_png(path: Path, width: int, height: int) -> None:
    """A valid one-bit black PNG of any size in a few kilobytes."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    pixels = b"".join([*(packer.compress(row * 100) for _ in range(height // 100)), packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    parts = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize("side", [20_000, 13_000])  # Pillow's own limits: an error, and only a warning
@pytest.mark.filterwarnings("error")
def test_too_many_pixels_are_refused_from_the_header(side: int, tmp_path: Path) -> None:
    write_huge_png(tmp_path / "huge.png", side, side)
    started = time.process_time()
    for read in (open_image, lambda path: open_mask(path, VOC)):
        with refused(Data, "huge.png", "more than 100,000,000 pixels", "make it smaller"):
            read(tmp_path / "huge.png")
    assert time.process_time() - started < 1


@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
@settings(max_examples=60)
@given(st.data())
def test_a_mutated_picture_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "WEBP"]))
    file = io.BytesIO()
    Image.fromarray(noise(9, 8, 3)).save(file, kind)
    content = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "mutated.jpg"
    path.write_bytes(content)
    for read in (open_image, lambda path: open_mask(path, VOC)):
        refusal = read_or_refusal(read, path)
        assert refusal is None or (refusal.code, refusal.path) == (Data, str(path))


# ---------------------------------------------------------------------------------------------------------------------
# Masks
# ---------------------------------------------------------------------------------------------------------------------


def test_a_mask_comes_back_bit_for_bit_in_the_format_of_voc(tmp_path: Path) -> None:
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    save_mask(tmp_path / "mask.png", mask, VOC)
    picture = Image.open(tmp_path / "mask.png")
    assert (picture.mode, picture.size, picture.getpalette()) == ("P", (16, 16), VOC.palette)
    assert np.array_equal(np.asarray(picture), mask)
    everything = class_set(tuple(map(str, range(255))))
    assert np.array_equal(open_mask(tmp_path / "mask.png", everything).numpy(), mask)


@settings(max_examples=30)
@given(height=st.integers(1, 12), width=st.integers(1, 12), seed=st.integers(0, 9))
def test_masks_of_any_size_survive(tmp_path_factory: pytest.TempPathFactory, height: int, width: int, seed: int) -> None:
    mask = torch.from_numpy(np.random.default_rng(seed).choice([0, 1, 20, 255], (height, width)).astype(np.uint8))
    path = tmp_path_factory.getbasetemp() / "mask.png"
    save_mask(path, mask, VOC)
    assert torch.equal(open_mask(path, VOC), mask)


@pytest.mark.parametrize("mode", ["L", "P", "1"])
@pytest.mark.parametrize("palette_size", [2, 256])
def test_single_channel_masks_keep_their_values(mode: str, palette_size: int, tmp_path: Path) -> None:
    mask = (GREY % 2).astype(np.uint8)
    picture = Image.fromarray(mask.astype(bool)) if mode == "1" else Image.fromarray(mask)
    if mode == "P":
        picture.putpalette([9] * 3 * palette_size)  # colours do not matter; two of them are stored in one bit a pixel
    picture.save(tmp_path / "mask.png", "PNG")
    assert np.array_equal(open_mask(tmp_path / "mask.png", VOC).numpy(), mask)


@pytest.mark.parametrize("picture", [Image.fromarray(COLOR), CASES["RGBA"][0], CASES["LA"][0], CASES["I;16"][0]])
def test_a_mask_with_colours_alpha_or_sixteen_bits_is_refused(picture: Image.Image, tmp_path: Path) -> None:
    picture.save(tmp_path / "mask.png")
    with refused(Data, "mask.png", f"a mask in mode {picture.mode}", "whose values are class ids"):
        open_mask(tmp_path / "mask.png", VOC)


def test_a_lossy_mask_is_refused(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "mask.png", "JPEG")
    with refused(Data, "mask.png", "not a readable picture", "expected PNG"):
        open_mask(tmp_path / "mask.png", VOC)


def test_ids_without_a_class_are_named(tmp_path: Path, tiny_classes: ClassSet) -> None:
    save_mask(tmp_path / "mask.png", np.array([[0, 2, 255], [3, 7, 254]]), tiny_classes)
    remedy = "add the class to data.classes, or renumber the mask: python scripts/prepare_data.py convert"
    hint = "--out NEW --map 3=ID (--classes CONFIG instead, if its colours are right)"
    with refused(Data, "mask.png", "label 3, 7, 254; expected 0..2 or 255", remedy, hint):
        open_mask(tmp_path / "mask.png", tiny_classes)


def test_another_ignored_id_becomes_255_and_255_is_then_no_label(tmp_path: Path) -> None:
    classes = class_set(("a", "b"), ignore_id=11)
    save_mask(tmp_path / "mask.png", np.array([[0, 1, 11]]), classes)
    assert open_mask(tmp_path / "mask.png", classes).tolist() == [[0, 1, 255]]
    save_mask(tmp_path / "mask.png", np.array([[0, 1, 255]]), classes)
    with refused(Data, "label 255; expected 0..1 or 11"):
        open_mask(tmp_path / "mask.png", classes)


def test_a_failed_save_leaves_the_old_mask(tmp_path: Path, tiny_classes: ClassSet) -> None:
    path = tmp_path / "mask.png"
    save_mask(path, tiny_mask(seed=0), tiny_classes)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="empty image"):
        save_mask(path, np.zeros((1, 0), np.uint8), tiny_classes)
    assert (path.read_bytes(), os.listdir(tmp_path)) == (before, ["mask.png"])


@pytest.mark.parametrize(("name", "kind"), [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.JPEG", "JPEG")])
@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH, 3), (HEIGHT, WIDTH)])
def test_the_suffix_says_how_a_picture_is_saved(name: str, kind: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    save_image(tmp_path / name, np.full(shape, 120, np.uint8))
    assert Image.open(tmp_path / name).format == kind
    assert (open_image(tmp_path / name).int() - 120).abs().max() <= 1


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_grey_mask_of_few_bits_keeps_its_ids(bits: int, tmp_path: Path) -> None:
    """Pillow spreads 2 and 4 bits over 0..255; the ids are what the file holds."""
    ids = np.array([[0, 1], [2**bits - 1, 0]], dtype=np.uint8)
    write_png(tmp_path / "mask.png", ids, bits, 0)
    assert open_mask(tmp_path / "mask.png", VOC).tolist() == ids.tolist()


def test_webp_without_a_quality_is_exact_and_with_one_is_smaller() -> None:
    smooth = np.stack([np.add.outer(np.arange(60), np.arange(80)) + shift for shift in (0, 40, 80)], axis=-1).astype(np.uint8)
    for picture in (COLOR, np.dstack([COLOR, GREY | 1])):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_webp(picture)))), picture)
    assert len(encode_webp(noise(60, 80, 3), quality=40)) < len(encode_webp(noise(60, 80, 3), quality=90)) < 60 * 80 * 3
    shown = np.asarray(Image.open(io.BytesIO(encode_webp(smooth, quality=75)))).astype(int)
    assert np.abs(shown - smooth).mean() < 4
