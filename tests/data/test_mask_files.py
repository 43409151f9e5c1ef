"""Masks come back bit for bit in the format of Pascal VOC; a label is a number, never a brightness; other files are refused."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conversions import convert
from helpers import png_chunk, refused, tiny_mask, write_png, write_tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from image_cases import CASES, COLOR, GREY
from PIL import Image, PngImagePlugin

from segnet.classes import VOC, ClassSet, class_set
from segnet.data.mask_files import open_labels, open_mask, save_mask
from segnet.system.errors import ExitCode

Data = ExitCode.DATA


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
    with refused(Data, "mask.png: a JPEG, and JPEG changes the ids", "export it as PNG, or: python scripts", "--threshold 128"):
        open_mask(tmp_path / "mask.png", VOC)


def test_ids_without_a_class_are_named(tmp_path: Path, tiny_classes: ClassSet) -> None:
    save_mask(tmp_path / "mask.png", np.array([[0, 2, 255], [3, 7, 254]]), tiny_classes)
    remedy = "add the class to data.classes, or renumber the mask: python scripts/prepare_data.py convert"
    hint = "--out NEW --map 3=ID (--classes CONFIG instead, if its colours are right)"
    with refused(Data, "mask.png", "label 3, 7, 254; expected 0..2 or 255", remedy, hint):
        open_mask(tmp_path / "mask.png", tiny_classes)


def test_another_ignored_id_becomes_255_and_255_is_then_no_label(tmp_path: Path) -> None:
    classes = class_set(("a", "b"), ignore_index=11)
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


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_grey_mask_of_few_bits_keeps_its_ids(bits: int, tmp_path: Path) -> None:
    """Pillow spreads 2 and 4 bits over 0..255; the ids are what the file holds."""
    ids = np.array([[0, 1], [2**bits - 1, 0]], dtype=np.uint8)
    write_png(tmp_path / "mask.png", ids, bits, 0)
    assert open_mask(tmp_path / "mask.png", VOC).tolist() == ids.tolist()


def test_metadata_do_not_stop_a_mask(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("history", "x" * 3_000_000, zip=True)
    Image.fromarray(GREY % 4).save(tmp_path / "mask.png", pnginfo=text)
    assert np.array_equal(open_mask(tmp_path / "mask.png", VOC).numpy(), GREY % 4)


BLACK, RED, GREEN, WHITE = (0, 0, 0), (230, 75, 60), (60, 170, 90), (255, 255, 255)
IDS = np.array([[0, 1, 1, 0, 1], [1, 0, 0, 1, 1]], np.uint8)
IDS4 = np.array([[0, 1, 2, 3, 0], [3, 2, 1, 0, 1]], np.uint8)


def as_text(kind: str, ids: np.ndarray, largest: int | None = None) -> bytes:
    height, width = ids.shape[:2]
    return " ".join(map(str, [kind, width, height, *([largest] if largest else []), *ids.ravel().tolist()])).encode() + b"\n"


def as_binary(ids: np.ndarray, largest: int) -> bytes:
    return b"P5 %d %d %d\n" % (ids.shape[1], ids.shape[0], largest) + ids.astype(">u2" if largest > 255 else "u1").tobytes()


@pytest.mark.parametrize("largest", [3, 5, 100, 254, 255, 256, 1000, 65534, 65535])
def test_a_pgm_keeps_its_numbers_whatever_its_largest_value(largest: int, tmp_path: Path) -> None:
    ids = np.concatenate([IDS4, np.full((1, 5), largest)])
    for name, content in (("text", as_text("P2", ids, largest)), ("binary", as_binary(ids, largest))):
        (tmp_path / f"{name}.pgm").write_bytes(content)
        assert open_labels(tmp_path / f"{name}.pgm").values.tolist() == ids.tolist(), name


def test_every_number_of_a_pgm_in_words_comes_back(tmp_path: Path) -> None:
    for largest in [*range(1, 256), 4095]:
        ids = np.arange(largest + 1)[None]
        (tmp_path / "a.pgm").write_bytes(as_text("P2", ids, largest))
        assert np.array_equal(open_labels(tmp_path / "a.pgm").values, ids), largest


def test_a_bitmap_keeps_its_numbers(tmp_path: Path) -> None:
    """PBM, whose 1 is black; and the file names of other programs."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "text.pbm").write_bytes(as_text("P1", IDS))
    (tmp_path / "in" / "binary.pnm").write_bytes(b"P4 5 2\n" + np.packbits(IDS, axis=1).tobytes())
    (tmp_path / "in" / "one.pgm").write_bytes(as_binary(IDS, 1))
    assert convert(tmp_path / "in", class_set(("ground", "leaf")))[:3] == (3, 0, [])
    assert [np.asarray(Image.open(path)).tolist() for path in sorted((tmp_path / "out").iterdir())] == [IDS.tolist()] * 3


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_tiff_whose_numbers_are_the_opposite_of_what_it_shows_is_refused(bits: int, tmp_path: Path) -> None:
    with refused(ExitCode.DATA, "a.tif: a TIFF in which 0 is white", "export it as palette, grey or RGB PNG"):
        open_labels(write_tiff(tmp_path / "a.tif", IDS if bits == 1 else IDS4, bits, 0))


@pytest.mark.parametrize("light", [1, 3])  # black is zero, palette
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_tiff_keeps_its_numbers_whatever_they_look_like(bits: int, light: int, tmp_path: Path) -> None:
    ids = IDS if bits == 1 else IDS4
    assert open_labels(write_tiff(tmp_path / "a.tif", ids, bits, light)).values.tolist() == ids.tolist()


def test_a_compressed_tiff_keeps_its_numbers(tmp_path: Path) -> None:
    Image.fromarray(IDS.astype(bool)).save(tmp_path / "a.tif", compression="group4")
    assert open_labels(tmp_path / "a.tif").values.tolist() == IDS.tolist()
    for kind in (np.uint16, np.int16, np.uint32, np.int32):
        signed = 2 if np.issubdtype(kind, np.signedinteger) else 1
        deep = write_tiff(tmp_path / "b.tif", IDS4.astype(kind) * 300, 8 * kind().itemsize, 1, kind=signed)
        assert open_labels(deep).values.tolist() == (IDS4.astype(int) * 300).tolist()


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("kind", ["grey", "palette"])
def test_a_png_keeps_its_numbers(bits: int, kind: str, tmp_path: Path) -> None:
    ids = IDS if bits == 1 else IDS4
    if kind == "grey":
        written = write_png(tmp_path / "a.png", ids.astype(np.uint16 if bits == 16 else np.uint8), bits, 0)
        assert open_labels(written).values.tolist() == ids.tolist()
        return
    picture = Image.fromarray(ids)
    picture.putpalette([200, 100, 50] * 4 + [1, 2, 3])
    picture.save(tmp_path / "a.png", bits=min(bits, 8))
    assert open_labels(tmp_path / "a.png").values.tolist() == ids.tolist()


def bmp(bits: int, palette: list[tuple[int, int, int]], ids: np.ndarray) -> bytes:
    rows = [np.packbits((row[:, None] >> np.arange(bits)[::-1] & 1).reshape(-1)).tobytes() for row in ids[::-1]]
    data = b"".join(row.ljust(-(-len(row) // 4) * 4, b"\0") for row in rows)
    header = struct.pack("<IiiHHIIiiII", 40, ids.shape[1], ids.shape[0], 1, bits, 0, len(data), 0, 0, len(palette), len(palette))
    colors = b"".join(bytes([blue, green, red, 0]) for red, green, blue in palette)
    return b"BM" + struct.pack("<IHHI", 54 + len(colors) + len(data), 0, 0, 54 + len(colors)) + header + colors + data


@pytest.mark.parametrize("palette", [[(255, 255, 255), (0, 0, 0)], [(9, 8, 7), (1, 2, 3)], [(0, 0, 0), (9, 9, 9)]])
def test_a_bmp_of_few_bits_keeps_its_numbers(palette: list[tuple[int, int, int]], tmp_path: Path) -> None:
    for bits, ids in ((1, IDS), (4, IDS), (4, IDS4), (8, IDS4)):
        (tmp_path / "a.bmp").write_bytes(bmp(bits, palette * (2 if ids is IDS4 else 1), ids))
        assert open_labels(tmp_path / "a.bmp").values.tolist() == ids.tolist()


INEXACT: dict[str, tuple[Callable[[Path], object], str]] = {  # what has no exact numbers, and what is said of it
    "JPEG": (lambda p: Image.fromarray(IDS).save(p, "JPEG"), "a JPEG, and JPEG changes the ids and colours of a mask –"),
    "WebP": (lambda p: Image.fromarray(IDS).save(p, "WEBP"), "a WebP, and WebP may change the ids and colours of a"),
    "JPEG in TIFF": (lambda p: Image.fromarray(IDS).save(p, "TIFF", compression="jpeg"), "compressed with loss"),
    "float": (lambda p: Image.fromarray(IDS.astype(np.float32)).save(p, "TIFF"), "a mask in mode F"),
    "signed": (lambda p: write_tiff(p, IDS.view(np.int8), 8, 1, kind=2), "signed integers of 8 bits"),
    "colours of 16 bits": (lambda p: write_tiff(p, np.dstack([IDS] * 3).astype(np.uint16), 16, 2), "3 bands of 16 bits"),
    "a fourth band": (lambda p: write_tiff(p, np.dstack([IDS] * 4), 8, 2, extra=(0,)), "4 bands, which are not grey, RGB"),
    "dim colours": (lambda p: p.write_bytes(as_text("P3", np.dstack([IDS] * 3), 100)), "colours of 0..100"),
    "BMP of 4 bits": (lambda p: p.write_bytes(bmp(4, [BLACK, WHITE], IDS)), "a BMP of 4 bits whose grey palette"),
    "BMP of 8 bits": (lambda p: p.write_bytes(bmp(8, [BLACK, WHITE], IDS)), "a BMP of 8 bits whose grey palette"),
    "a number above the largest": (lambda p: p.write_bytes(as_binary(IDS4, 1)), "holds 3, although it says"),
    "transparent colour": (
        lambda p: Image.fromarray(np.dstack([IDS] * 3)).save(p, "PNG", transparency=(1, 1, 1)),
        "6 pixels are transparent",
    ),
}


@pytest.mark.parametrize("case", INEXACT)
def test_labels_without_exact_numbers_are_refused_by_name(case: str, tmp_path: Path) -> None:
    write, found = INEXACT[case]
    write(tmp_path / "a.png")
    with refused(Data, "a.png", found):
        open_labels(tmp_path / "a.png")


def test_a_transparent_place_beyond_the_palette_says_nothing(tmp_path: Path) -> None:
    extra = png_chunk(b"PLTE", bytes([*GREEN, *RED])) + png_chunk(b"tRNS", b"\xff" * 5 + b"\0")
    labels = open_labels(write_png(tmp_path / "a.png", np.array([[0, 1]], np.uint8), 8, 3, extra))
    assert labels.palette is not None
    assert labels.palette.tolist() == [[*GREEN, 255], [*RED, 255]]
