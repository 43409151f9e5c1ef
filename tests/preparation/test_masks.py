"""Masks of other conventions become exactly the ids that were meant, or are refused by name; originals stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversions import convert, converted, in_colors
from helpers import CLASSES, RunScript, folder_bytes, refused, tiny_mask
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segnet.classes import CAMVID, VOC, ClassSet, class_set
from segnet.data.checking import check_dataset
from segnet.data.layout import mask_path
from segnet.data.mask_files import open_mask
from segnet.data.palettes import VOID_COLOR
from segnet.preparation.masks import (
    Conversion,
    Moved,
    conversion_json,
    conversion_lines,
    convert_labels,
    convert_masks,
    parse_rules,
)
from segnet.system.errors import ExitCode

Data = ExitCode.DATA


@pytest.mark.parametrize("classes", [VOC, CAMVID])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@settings(max_examples=10)
@given(seed=st.integers(0, 99), height=st.integers(1, 9), width=st.integers(1, 9))
def test_colours_of_the_class_set_come_back_as_ids(
    tmp_path_factory: pytest.TempPathFactory, mode: str, classes: ClassSet, seed: int, height: int, width: int
) -> None:
    mask = np.random.default_rng(seed).choice([*range(len(classes)), 255], (height, width)).astype(np.uint8)
    picture = Image.fromarray(in_colors(mask, classes)).convert(mode)
    assert converted(picture, tmp_path_factory.getbasetemp(), classes) == mask.tolist()


GREY = Image.fromarray(np.array([[0, 255, 0], [255, 255, 0]], np.uint8))
BINARY = [[0, 1, 0], [1, 1, 0]]


@pytest.mark.parametrize("picture", [GREY, GREY.convert("P"), GREY.convert("RGB"), GREY.convert("RGBA"), GREY.convert("LA")])
def test_255_becomes_1(picture: Image.Image, tmp_path: Path) -> None:
    assert converted(picture, tmp_path, None, "255=1") == BINARY
    assert converted(picture, tmp_path, class_set(("ground", "leaf")), "255=1") == BINARY


def test_other_ids_become_ours(tmp_path: Path) -> None:
    deep = Image.fromarray(np.array([[0, 7, 1000], [7, 11, 33]], np.uint16))
    assert converted(deep, tmp_path, None, "1000=2", "7=1", "1=7") == [[0, 1, 2], [1, 11, 33]]
    two_bits = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8))
    assert converted(two_bits, tmp_path, None, "1=2", "2=1") == [[0, 2], [1, 3]]
    swapped = Image.fromarray(np.array([[[0, 0, 0], [1, 2, 3]]], np.uint8))
    assert converted(swapped, tmp_path, None, "0,0,0=255", "1,2,3=0") == [[255, 0]]


def test_ranges_and_all_other_values_become_one_id(tmp_path: Path) -> None:
    objects = Image.fromarray(np.array([[0, 1, 7], [200, 254, 255]], np.uint8))
    assert converted(objects, tmp_path, None, "1-254=1") == [[0, 1, 1], [1, 1, 255]]
    assert converted(objects, tmp_path, None, "*=1") == [[0, 1, 1], [1, 1, 1]]
    assert converted(objects, tmp_path, None, "255=255", "7=3", "1-254=2") == [[0, 2, 3], [2, 2, 255]]
    assert converted(objects, tmp_path, None, "0=9", "*=1", "255=0") == [[9, 1, 1], [1, 1, 0]]
    assert converted(objects.convert("RGB"), tmp_path, None, "*=1") == [[0, 1, 1], [1, 1, 1]]
    colored = Image.fromarray(np.array([[[0, 0, 0], [9, 8, 7], [1, 2, 3]]], np.uint8))
    assert converted(colored, tmp_path, None, "*=1") == [[0, 1, 1]]
    assert converted(colored, tmp_path, None, "9,8,7=2", "*=1", "0,0,0=5") == [[5, 2, 1]]
    deep = Image.fromarray(np.array([[0, 1000, 60000]], np.uint16))
    assert converted(deep, tmp_path, None, "1-65535=1") == [[0, 1, 1]]


SPOILT = np.repeat(np.repeat(np.array([[0, 1, 0], [1, 1, 0]], np.uint8), 13, 0), 13, 1)


def with_loss(
    picture: Image.Image, tmp_path: Path, classes: ClassSet | None = None, **options: Any
) -> tuple[np.ndarray, Conversion]:
    """The ids that a JPEG becomes, and the conversion."""
    (tmp_path / "in").mkdir(exist_ok=True)
    picture.save(tmp_path / "in" / "a.jpg", quality=80)
    done = convert_masks(tmp_path / "in", tmp_path / "out", parse_rules(classes, [], **options), overwrite=True)
    for error in done.failed:
        raise error
    return np.asarray(Image.open(tmp_path / "out" / "a.png")), done


def test_two_classes_come_back_from_a_jpeg_by_a_threshold(tmp_path: Path) -> None:
    for picture in (Image.fromarray(SPOILT * 255), Image.fromarray(SPOILT * 255).convert("RGB")):
        mask, done = with_loss(picture, tmp_path, threshold=128)
        assert np.array_equal(mask, SPOILT)
    stored = np.asarray(Image.open(tmp_path / "in" / "a.jpg").convert("L"))
    assert done.moved == (Moved(tmp_path / "in" / "a.jpg", SPOILT.size, int(((stored > 0) & (stored < 255)).sum())),)
    assert 0 < done.moved[0].moved < SPOILT.size
    with refused(Data, "a.jpg: ", "pixels are not grey – give --nearest"):
        with_loss(Image.fromarray(in_colors(SPOILT, VOC)), tmp_path, threshold=128)


def test_colours_come_back_from_a_jpeg_as_the_nearest_ones(tmp_path: Path) -> None:
    classes = class_set(("ground", "leaf", "spot"), ((0, 0, 0), (250, 20, 30), (20, 30, 250)))
    mask, done = with_loss(Image.fromarray(in_colors(SPOILT * 2, classes)), tmp_path, classes, nearest=True)
    assert np.array_equal(mask, SPOILT * 2)
    assert 0 < done.moved[0].moved <= SPOILT.size
    (tmp_path / "in" / "a.jpg").unlink()
    in_palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    in_palette.putpalette([3, 0, 0, 240, 30, 30, 20, 30, 250])
    in_palette.save(tmp_path / "in" / "b.png")
    done = convert_masks(tmp_path / "in", tmp_path / "out", parse_rules(classes, [], nearest=True))
    assert np.asarray(Image.open(tmp_path / "out" / "b.png")).tolist() == [[0, 1, 2]]
    assert done.moved == (Moved(tmp_path / "in" / "b.png", 3, 2),)


def test_nothing_is_written_where_a_mask_fails_unless_asked(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for index in range(6):
        GREY.save(tmp_path / "in" / f"{index}.png")
        GREY.save(tmp_path / "in" / f"{index}0.jpg")
    rules = parse_rules(None, ["255=1"])
    done = convert_masks(tmp_path / "in", tmp_path / "out", rules)
    assert (done[:2], len(done.failed), (tmp_path / "out").exists()) == ((0, 0), 6, False)
    (line,) = conversion_lines(done, tmp_path / "in", verbose=False)
    assert line.startswith(f"error: {tmp_path}/in: 6 files, such as {tmp_path}/in/00.jpg, 10.jpg, 20.jpg: a JPEG, and JPEG ")
    assert len(conversion_lines(done, tmp_path / "in", verbose=True)) == 6
    assert len(json.loads(conversion_json(done))["failed"]) == 6
    assert convert_masks(tmp_path / "in", tmp_path / "out", rules, keep_going=True)[:2] == (6, 0)


def test_a_set_whose_ignored_id_is_11_stays_so(tmp_path: Path) -> None:
    classes = class_set(CAMVID.names, CAMVID.colors, ignore_index=11)
    assert converted(Image.fromarray(np.array([[0, 11]], np.uint8)), tmp_path, classes) == [[0, 11]]
    colored = Image.fromarray(np.array([[CAMVID.colors[3], VOID_COLOR]], np.uint8))
    assert converted(colored, tmp_path, classes) == [[3, 11]]
    assert open_mask(tmp_path / "out" / "a.png", classes).tolist() == [[3, 255]]


@pytest.mark.parametrize(
    ("pixels", "classes", "mapping", "found"),
    [
        ([[[9, 9, 9], [0, 0, 0], [9, 9, 9]]], VOC, [], "1 colours are of no class: (9, 9, 9) (2 pixels)"),
        ([[[9, 9, 8]]], None, ["255=1"], "a mask of colours – give --classes CONFIG"),
        ([[0, 77]], VOC, [], "ids 77 (1 pixels); expected 0..20 or 255 – give --map OLD=NEW"),
        ([[0, 1]], VOC, ["1=30"], "ids 1 (1 pixels); expected 0..20 or 255"),
    ],
)
def test_what_has_no_rule_is_named_with_its_pixels(
    pixels: list, classes: ClassSet | None, mapping: list[str], found: str, tmp_path: Path
) -> None:
    with refused(Data, "a.png", found):
        converted(Image.fromarray(np.array(pixels, np.uint8)), tmp_path, classes, *mapping)


def test_ids_beyond_a_byte_are_refused() -> None:
    with refused(Data, "ids 300 (1 pixels); expected 0..255"):
        convert_labels(np.array([[300, 1]]), parse_rules(None, []), Path("a.png"))


def test_transparent_pixels_are_refused(tmp_path: Path) -> None:
    with refused(Data, "a.png: 2 pixels are transparent"):
        converted(Image.fromarray(np.array([[[0, 0, 0, 0], [0, 0, 0, 9], [0, 0, 0, 255]]], np.uint8)), tmp_path, VOC)


@pytest.mark.parametrize(
    "text", ["", "a=b", "1=256", "1=-1", "-1=1", "1,2=3", "1", "1=2=3", "0,0,0,0=1", "5-4=1", "1-=1", "*", "*=x", "**=1", "²=1"]
)
def test_a_mapping_that_is_none_is_refused(text: str) -> None:
    with refused(ExitCode.CONFIG, f"--map {text}: not OLD=NEW"):
        parse_rules(None, [text])


def test_contradictions_are_refused(tmp_path: Path) -> None:
    with refused(ExitCode.CONFIG, "1 stands there twice"):
        parse_rules(None, ["1=2", "1=3"])
    for twice in (["*=1", "*=2"], ["1-4=1", "4-9=2"], ["0,0,0=1", "0,0,0=2"]):
        with refused(ExitCode.CONFIG, f"--map {twice[1]}: {twice[1].partition('=')[0]} stands there twice"):
            parse_rules(None, twice)
    with refused(ExitCode.CONFIG, "--threshold: makes ids 0 and 1 by itself"):
        parse_rules(None, ["1=2"], threshold=128)
    with refused(ExitCode.CONFIG, "--nearest: no colours to choose from"):
        parse_rules(None, ["1=2"], nearest=True)
    with refused(ExitCode.CONFIG, "two classes have the same colour"):
        parse_rules(class_set(("a", "b"), ((1, 1, 1), (1, 1, 1))), [])
    (tmp_path / "in").mkdir()
    for out in (tmp_path / "in", tmp_path / "in" / "deep", tmp_path):
        with refused(ExitCode.CONFIG, "choose another --out"):
            convert_masks(tmp_path / "in", out, parse_rules(None, []))
    for folder, found in ((tmp_path / "in", "no masks in it"), (tmp_path / "gone", "no such folder")):
        with refused(Data, found):
            convert_masks(folder, tmp_path / "out", parse_rules(None, []))


def test_one_bad_mask_does_not_stop_the_others_and_outputs_are_kept(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.png", "deep/b.bmp", "c.png"):
        GREY.save(folder / name)
    GREY.save(folder / "d.jpg")
    (folder / "c.png").write_bytes(b"<html>")
    done = convert(folder, None, "255=1")
    failed = sorted((Path(error.path).name, error.found.split("(")[0]) for error in done.failed)
    spoilt = "a JPEG, and JPEG changes the ids and colours of a mask"
    assert failed == [("b.png", "has the output of b.bmp too"), ("c.png", "not a readable picture "), ("d.jpg", spoilt)]
    assert (done.written, done.same) == (2, 0)
    assert sorted(folder_bytes(out)) == ["a.png", "deep/b.png"]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert convert(folder, None, "255=1")[:2] == (0, 2)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    again = convert(folder, None, "255=2")
    assert again[:2] == (0, 0)
    assert "exists and is different" in str(again.failed[0])
    assert convert(folder, None, "255=2", overwrite=True)[:2] == (2, 0)


def test_hidden_masks_are_left_alone_and_other_formats_named(tmp_path: Path, run_script: RunScript) -> None:
    for name in ("a.PNG", "deep/b.pnm", ".ipynb_checkpoints/a-checkpoint.png", "@eaDir/a.png", "__MACOSX/._a.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        GREY.save(tmp_path / "in" / name)
    (tmp_path / "in" / "._a.png").write_bytes(b"\0\5\x16\7")
    np.save(tmp_path / "in" / "c.npy", np.asarray(GREY))
    found = run_script("prepare_data", "convert", tmp_path / "in", "--out", tmp_path / "out", "--map", "255=1")
    assert found.returncode == 0, found.stderr
    assert sorted(folder_bytes(tmp_path / "out")) == ["a.png", "deep/b.png"]
    assert found.stderr.startswith(f"warning: left out: 1 file ({tmp_path}/in/c.npy: NPY is not read) – convert ")


def test_a_link_is_not_followed_for_writing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    GREY.save(tmp_path / "in" / "a.png")
    (tmp_path / "precious").write_bytes(b"mine")
    (tmp_path / "out" / "a.png").symlink_to(tmp_path / "precious")
    assert len(convert(tmp_path / "in", None, "255=1").failed) == 1
    assert convert(tmp_path / "in", None, "255=1", overwrite=True).written == 1
    assert (tmp_path / "precious").read_bytes() == b"mine"


def test_refused_masks_pass_once_converted(
    run_script: RunScript, tiny_data: Path, tiny_classes: ClassSet, tmp_path: Path
) -> None:
    """The cure that the message names works, and its exit code is 0; a bad mask makes it 7."""
    (tiny_data / "SegmentationClass").rename(tmp_path / "colors")
    for path in sorted((tmp_path / "colors").iterdir()):
        Image.fromarray(in_colors(np.asarray(Image.open(path)), tiny_classes)).save(path)
    (tmp_path / "colors" / "bad.png").write_bytes(b"")
    (tiny_data / "classes.yaml").write_text(f"names: [{', '.join(CLASSES)}]\n")
    out = tiny_data / "SegmentationClass"
    arguments = ("convert", tmp_path / "colors", "--out", out, "--classes", tiny_data)
    stopped = run_script("prepare_data", *arguments)
    counts = "0 masks written, 0 were there already, 1 failed; nothing was written"
    assert (stopped.returncode, stopped.stdout) == (3, f"{out}: {counts}: mend them, or write the others with --keep-going\n")
    assert not out.exists()
    done = run_script("prepare_data", *arguments, "--keep-going")
    assert (done.returncode, done.stdout) == (7, f"{out}: 9 masks written, 0 were there already, 1 failed\n")
    assert done.stderr.startswith(f"error: {tmp_path}/colors/bad.png: not a readable picture")
    assert check_dataset(tiny_data, ["train", "val"], tiny_classes).faults == []
    assert np.array_equal(Image.open(mask_path(tiny_data, "train_3")), tiny_mask(seed=3))


@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
@settings(max_examples=150)
@given(st.data())
def test_mutated_masks_are_converted_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "mutated"
    folder.mkdir(exist_ok=True)
    Image.fromarray(in_colors(tiny_mask(seed=0, size=(20, 20)), VOC)).save(folder / "a.png")
    content = bytearray((folder / "a.png").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "a.png").write_bytes(content)
    done = convert(folder, VOC, overwrite=True)
    assert all((error.code, error.path) == (Data, str(folder / "a.png")) for error in done.failed)
    assert done.written + done.same + len(done.failed) == 1
