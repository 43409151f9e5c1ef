"""Palettes in another order: colours count where they name the classes, numbers where they do not, and a doubt is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conversions import convert, converted, in_colors
from helpers import RunScript
from PIL import Image

from segnet.classes import VOC, ClassSet, class_set
from segnet.data.palettes import VOID_COLOR
from segnet.system.errors import UserError

BLACK, RED, GOLD, GREEN, WHITE = (0, 0, 0), (230, 75, 60), (240, 180, 40), (60, 170, 90), (255, 255, 255)
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
