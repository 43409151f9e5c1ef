"""Masks come back bit for bit in the format of Pascal VOC; other files are refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import refused, tiny_mask, write_png
from hypothesis import given, settings
from hypothesis import strategies as st
from image_cases import CASES, COLOR, GREY
from PIL import Image, PngImagePlugin

from segnet.classes import VOC, ClassSet, class_set
from segnet.data.mask_files import open_mask, save_mask
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
    with refused(Data, "mask.png", "not a readable picture", "expected PNG"):
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
