"""Masks of other conventions become exactly the ids that were meant, or are refused by name; originals stay."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import CLASSES, RunScript, folder_bytes, png_chunk, refused, tiny_mask, write_png, write_tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segnet.classes import CAMVID, VOC, ClassSet, class_set
from segnet.data.checking import check_dataset
from segnet.data.layout import mask_path
from segnet.data.mask_files import open_labels, open_mask
from segnet.data.palettes import VOID_COLOR
from segnet.preparation.masks import Conversion, convert_labels, convert_masks, parse_rules
from segnet.system.errors import ExitCode, UserError

Data = ExitCode.DATA


def in_colors(mask: np.ndarray, classes: ClassSet) -> np.ndarray:
    table = np.array([*classes.colors, *[VOID_COLOR] * (256 - len(classes))], dtype=np.uint8)
    return table[mask]


def convert(folder: Path, classes: ClassSet | None = None, *mapping: str, overwrite: bool = False) -> Conversion:
    before = folder_bytes(folder)
    try:
        return convert_masks(folder, folder.parent / "out", parse_rules(classes, mapping), overwrite=overwrite)
    finally:
        assert folder_bytes(folder) == before


def converted(picture: Image.Image, tmp_path: Path, classes: ClassSet | None = None, *mapping: str) -> list[list[int]]:
    """The ids that one mask becomes. Raises what refuses it."""
    (tmp_path / "in").mkdir(exist_ok=True)
    picture.save(tmp_path / "in" / "a.png")
    done = convert(tmp_path / "in", classes, *mapping, overwrite=True)
    for error in done.failed:
        raise error
    out = Image.open(tmp_path / "out" / "a.png")
    assert (out.mode, out.getpalette()) == ("P", (classes or VOC).palette)
    return np.asarray(out).tolist()


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


@pytest.mark.parametrize("text", ["", "a=b", "1=256", "1=-1", "-1=1", "1,2=3", "1", "1=2=3", "0,0,0,0=1"])
def test_a_mapping_that_is_none_is_refused(text: str) -> None:
    with refused(ExitCode.CONFIG, f"--map {text}: not OLD=NEW"):
        parse_rules(None, [text])


def test_contradictions_are_refused(tmp_path: Path) -> None:
    with refused(ExitCode.CONFIG, "1 stands there twice"):
        parse_rules(None, ["1=2", "1=3"])
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
    damaged = "not a readable picture "
    assert failed == [("b.png", "has the output of b.bmp too"), ("c.png", damaged), ("d.jpg", damaged)]
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
    done = run_script("prepare_data", "convert", tmp_path / "colors", "--out", out, "--classes", tiny_data)
    assert (done.returncode, done.stdout) == (7, f"{out}: 9 masks written, 0 were there already, 1 failed\n")
    assert done.stderr.startswith(f"error: {tmp_path}/colors/bad.png: not a readable picture")
    assert check_dataset(tiny_data, ["train", "val"], tiny_classes).faults == []
    assert np.array_equal(Image.open(mask_path(tiny_data, "train_3")), tiny_mask(seed=3))


# ---------------------------------------------------------------------------------------------------------------------
# A label is a number, never a brightness
# ---------------------------------------------------------------------------------------------------------------------

BLACK, RED, GOLD, GREEN, WHITE = (0, 0, 0), (230, 75, 60), (240, 180, 40), (60, 170, 90), (255, 255, 255)
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
    assert convert(tmp_path / "in", class_set(("ground", "leaf"))) == (3, 0, [])
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
    "JPEG": (lambda p: Image.fromarray(IDS).save(p, "JPEG"), "(a JPEG) – expected PNG, BMP, TIFF, GIF, PPM, since JPEG changes"),
    "WebP": (lambda p: Image.fromarray(IDS).save(p, "WEBP"), "(a WEBP) – expected PNG, BMP, TIFF, GIF, PPM, since WebP may"),
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


# ---------------------------------------------------------------------------------------------------------------------
# Palettes in another order
# ---------------------------------------------------------------------------------------------------------------------

TOYS = class_set(("background", "ball", "crate", "cone"), (BLACK, RED, GOLD, GREEN))
TRUTH = np.array([[0, 0, 0, 3, 3], [1, 2, 2, 3, 0]], np.uint8)


def with_palette(ids: list[int], *colors: tuple[int, int, int], padding: int = 0) -> Image.Image:
    picture = Image.fromarray(np.array([ids], np.uint8))
    picture.putpalette([channel for color in colors for channel in color] + [0] * 3 * padding)
    return picture


def outcome(picture: Image.Image, tmp_path: Path, classes: ClassSet | None, *mapping: str) -> list[int] | str:
    try:
        (ids,) = converted(picture, tmp_path, classes, *mapping)
    except UserError as error:
        return str(error)
    return ids


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("truth", [TRUTH, TRUTH % 2, TRUTH * 0 + 2, TRUTH * 0 + 3])
def test_what_editors_save_is_read_by_its_colours(kind: str, truth: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    colored = Image.fromarray(in_colors(truth, TOYS))
    for name, picture in {
        "frequency": colored.quantize(256),
        "adaptive": colored.convert("P", palette=Image.Palette.ADAPTIVE, colors=16),
        "colours": colored,
    }.items():
        picture.save(tmp_path / "in" / f"{name}.{kind.lower()}", kind)
    done = convert(tmp_path / "in", TOYS)
    assert [str(error) for error in done.failed] == []
    for path in (tmp_path / "out").iterdir():
        assert np.array_equal(np.asarray(Image.open(path)), truth), path


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (with_palette([0, 1, 2, 3], GREEN, RED, BLACK, GOLD), [3, 1, 0, 2]),
        (with_palette([0, 1, 255], GREEN, BLACK, *[VOID_COLOR] * 254), [3, 0, 255]),  # VOC's border colour
        (with_palette([0, 1, 2, 3], BLACK, (9, 8, 7), padding=254), [0, 1, 2, 3]),  # black where no colour was given
        (with_palette([0, 1, 2, 3, 255], BLACK, RED, GOLD, GREEN, padding=252), [0, 1, 2, 3, 255]),  # 255 is black, too
        (with_palette([0, 1, 2, 255], *[(i, i, i) for i in range(256)]), [0, 1, 2, 255]),
        (with_palette([1, 1], *[(255 - i, 255 - i, 255 - i) for i in range(256)]), [1, 1]),
        (with_palette([1, 1], WHITE, BLACK), [1, 1]),
        (with_palette([0, 1, 2, 3], padding=256), [0, 1, 2, 3]),  # no colours
        (with_palette([2, 2], padding=256), [2, 2]),
        (with_palette([0, 1, 2], *[(i, 2 * i, 7) for i in range(9)]), [0, 1, 2]),
        (with_palette([0, 1, 3], BLACK, (9, 9, 8), (9, 9, 7), GREEN), [0, 1, 3]),  # nothing contradicts
        (with_palette([0, 1], GREEN, (9, 8, 7)), "id 0 shows (60, 170, 90), the colour of id 3"),
        (with_palette([0, 1, 2], GREEN, RED, RED), "say what is meant: --palette index, or --palette color"),
        (with_palette([1, 1], (9, 8, 7), BLACK), "id 1 shows (0, 0, 0), the colour of id 0"),
        (with_palette([0, 1, 2, 3], *[(r + 1, g + 1, b + 1) for r, g, b in (GREEN, RED, BLACK, GOLD)]), "id 0 shows (61, 171,"),
        (with_palette([0, 1], BLACK, (1, 1, 1)), [0, 1]),  # nearly black, both of them
        (with_palette([0, 1, 2, 3], *[(r + 2, g + 2, b + 2) for r, g, b in (BLACK, RED, GOLD, GREEN)]), [0, 1, 2, 3]),
    ],
)
def test_numbers_and_colours_that_disagree(picture: Image.Image, expected: list[int] | str, tmp_path: Path) -> None:
    found = outcome(picture, tmp_path, TOYS)
    assert expected in found if isinstance(expected, str) else found == expected


def test_the_arbitrary_palette_of_which_only_black_is_known(tmp_path: Path) -> None:
    assert "say what is meant" in str(outcome(with_palette([0, 1, 2], (9, 8, 7), BLACK, WHITE), tmp_path, TOYS))


def test_a_class_set_without_black_keeps_grey_ramps(tmp_path: Path) -> None:
    classes = class_set(("road", "sky"), ((128, 128, 128), BLACK))
    ramp = with_palette([0, 0, 0], *[(i, i, i) for i in range(256)])
    assert outcome(ramp, tmp_path, classes) == [0, 0, 0]
    assert outcome(with_palette([0, 1], BLACK, (128, 128, 128)), tmp_path, classes) == [1, 0]
    assert "say what is meant" in str(outcome(with_palette([0, 0], padding=256), tmp_path, classes))


def test_a_mapping_of_ids_and_a_reordered_palette_need_a_word(tmp_path: Path) -> None:
    reordered = with_palette([0, 1, 2, 3], GREEN, RED, BLACK, GOLD)
    assert "say what is meant" in str(outcome(reordered, tmp_path, TOYS, "2=1"))
    voc = with_palette([0, 1, 15], *[VOC.colors[i] for i in range(16)])
    assert outcome(voc, tmp_path, class_set(("ground", "person")), "1=0", "15=1") == [0, 0, 1]


def test_colours_that_are_mapped_hold_for_palettes(tmp_path: Path) -> None:
    reordered = with_palette([0, 1, 1], GREEN, RED)
    assert outcome(reordered, tmp_path, None, "60,170,90=7", "230,75,60=8") == [7, 8, 8]
    assert "1 colours are of no class: (230, 75, 60) (2 pixels)" in str(outcome(reordered, tmp_path, None, "60,170,90=7"))
    assert outcome(with_palette([0, 1, 2], GREEN, RED, (9, 9, 8)), tmp_path, TOYS, "9,9,8=255") == [3, 1, 255]
    assert outcome(reordered, tmp_path, None, "1=5") == [0, 5, 5]  # numbers alone were asked for


@pytest.mark.parametrize("clear", [1, b"\xff\x80"])
def test_transparent_places_of_a_reordered_palette_are_refused(clear: int | bytes, tmp_path: Path) -> None:
    reordered = with_palette([0, 1, 1], GREEN, RED)
    reordered.info["transparency"] = clear
    assert "2 pixels are transparent" in str(outcome(reordered, tmp_path, TOYS))


def test_a_transparent_place_beyond_the_palette_says_nothing(tmp_path: Path) -> None:
    extra = png_chunk(b"PLTE", bytes([*GREEN, *RED])) + png_chunk(b"tRNS", b"\xff" * 5 + b"\0")
    labels = open_labels(write_png(tmp_path / "a.png", np.array([[0, 1]], np.uint8), 8, 3, extra))
    assert labels.palette is not None
    assert labels.palette.tolist() == [[*GREEN, 255], [*RED, 255]]


@pytest.mark.parametrize(("meant", "expected"), [("index", [0, 1, 2]), ("color", [3, 1, 1])])
def test_an_option_says_what_is_meant(meant: str, expected: list[int], run_script: RunScript, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with_palette([0, 1, 2], GREEN, RED, RED).save(tmp_path / "in" / "a.png")
    (tmp_path / "classes.yaml").write_text(
        f"names: [{', '.join(TOYS.names)}]\ncolors: [{', '.join(str(list(color)) for color in TOYS.colors)}]\n"
    )
    done = run_script(
        "prepare_data", "convert", tmp_path / "in", "--out", tmp_path / "out", "--classes", tmp_path, "--palette", meant
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert np.asarray(Image.open(tmp_path / "out" / "a.png")).tolist() == [expected]


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
