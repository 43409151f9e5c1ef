"""Pictures of every kind become upright RGB by a documented rule; damage is refused by name."""

from __future__ import annotations

import gc
import io
import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import refused, write_tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from image_cases import CASES, COLOR, FORMAT_OF, GREY, HEIGHT, UPRIGHT, WIDTH, noise, rgb
from PIL import Image

from segnet.classes import VOC
from segnet.data.images import SUFFIXES, encode_webp, image_to_tensor, open_image, save_image
from segnet.data.mask_files import open_mask
from segnet.system.errors import ExitCode, UserError

Data = ExitCode.DATA


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


@pytest.mark.parametrize("suffix", sorted(SUFFIXES - {".gif", ".pgm", ".pbm", ".pfm", ".npy"}))  # which have no colours
def test_every_announced_suffix_is_read(suffix: str, tmp_path: Path) -> None:
    path, flat = tmp_path / f"picture{suffix}", np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    Image.fromarray(flat).save(path, {".jfi": "JPEG", ".jif": "JPEG", ".dib": "BMP"}.get(suffix))
    assert np.abs(rgb(open_image(path)).astype(int) - flat).max() <= 2  # JPEG and WebP are lossy


def test_the_first_picture_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("L", (WIDTH, HEIGHT), value) for value in (50, 100, 150)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert torch.all(open_image(tmp_path / "moving.gif") == 50)


def test_unsigned_integers_of_32_bits_are_scaled_as_such(tmp_path: Path) -> None:
    values = np.array([[0, 1 << 31, 0xFFFFFFFF]], dtype=np.uint32)
    assert rgb(open_image(write_tiff(tmp_path / "a.tif", values, 32, 1)))[0, :, 0].tolist() == [0, 128, 255]


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


@pytest.mark.parametrize(("name", "kind"), [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.JPEG", "JPEG")])
@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH, 3), (HEIGHT, WIDTH)])
def test_the_suffix_says_how_a_picture_is_saved(name: str, kind: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    save_image(tmp_path / name, np.full(shape, 120, np.uint8))
    assert Image.open(tmp_path / name).format == kind
    assert (open_image(tmp_path / name).int() - 120).abs().max() <= 1


def test_webp_without_a_quality_is_exact_and_with_one_is_smaller() -> None:
    smooth = np.stack([np.add.outer(np.arange(60), np.arange(80)) + shift for shift in (0, 40, 80)], axis=-1).astype(np.uint8)
    for picture in (COLOR, np.dstack([COLOR, GREY | 1])):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_webp(picture)))), picture)
    assert len(encode_webp(noise(60, 80, 3), quality=40)) < len(encode_webp(noise(60, 80, 3), quality=90)) < 60 * 80 * 3
    shown = np.asarray(Image.open(io.BytesIO(encode_webp(smooth, quality=75)))).astype(int)
    assert np.abs(shown - smooth).mean() < 4
