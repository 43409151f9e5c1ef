"""Pictures and masks in folders: how they are paired, and that values which do not name their classes are asked about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from label_exports import lists_in, masks_in, names_in, photo, run_import, write_array, zipped
from PIL import Image

from segnet.system.errors import ExitCode

BINARY = np.zeros((24, 32), dtype=np.uint8)
BINARY[3:9, 4:20] = 1


def pair(folder: Path, picture: str, mask: str, values: object = BINARY) -> Path:
    photo(folder / picture)
    write_array(folder / mask, values)
    return folder


PAIRS = [
    ("images/a.jpg", "masks/a.png", "a"),
    ("images/a.jpg", "labels/a_mask.png", "a"),
    ("PNGImages/a.png", "PedMasks/a_mask.png", "a"),
    ("JPEGImages/a.jpg", "annotations/a.bmp", "a"),
    ("a.jpg", "a_mask.png", "a"),
    ("a.jpg", "a-seg.png", "a"),
    ("x/a.jpg", "x/a_L.png", "a"),
    ("horse/a.jpg", "gt/a.png", "a"),
    ("images/v1/a.jpg", "masks/v1/a.png", "a"),
    ("train_images/a.jpg", "train_masks/a.png", "a"),
    ("images/my_seg.jpg", "masks/my_seg.png", "my_seg"),
]


@pytest.mark.parametrize(("picture", "mask", "name"), PAIRS)
def test_pairs_are_found(tmp_path: Path, picture: str, mask: str, name: str) -> None:
    result = run_import(pair(tmp_path / "in", picture, mask), tmp_path / "out")
    assert result.title == "pairs of pictures and masks"
    masks = masks_in(tmp_path / "out")
    assert list(masks) == [name]
    assert np.array_equal(masks[name], BINARY)
    assert names_in(tmp_path / "out") == ["background", "foreground"]


def test_a_pattern_says_where_masks_are(tmp_path: Path) -> None:
    folder = pair(tmp_path / "in", "raw/b/a.jpg", "truth/b/a.truth.png")
    run_import(folder, tmp_path / "out", masks="truth/{name}.truth.png")
    assert list(masks_in(tmp_path / "out")) == ["a"]
    run_import(zipped(folder, "inner/x"), tmp_path / "zip", masks="truth/{name}.truth.png")
    assert np.array_equal(masks_in(tmp_path / "zip")["a"], BINARY)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("truth/x.png", "holds {name} 0 times"), ("{name}/{name}.png", "2 times"), ("no/{name}.png", "no file")],
)
def test_a_pattern_in_error_is_refused(tmp_path: Path, pattern: str, found: str) -> None:
    with refused(ExitCode.CONFIG, "--masks", found):
        run_import(pair(tmp_path / "in", "raw/a.jpg", "truth/a.png"), tmp_path / "out", masks=pattern)


def test_the_same_name_in_two_splits_stays_apart(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        photo(tmp_path / "in" / "images" / split / "1.jpg", seed=len(split))
        write_array(tmp_path / "in" / "masks" / split / "1.png", BINARY * (split == "train"))
    run_import(tmp_path / "in", tmp_path / "out")
    assert lists_in(tmp_path / "out") == {"train": ["train/1"], "val": ["valid/1"]}
    assert masks_in(tmp_path / "out")["train/1"].any()
    assert not masks_in(tmp_path / "out")["valid/1"].any()


def test_pictures_elsewhere(tmp_path: Path) -> None:
    write_array(tmp_path / "in" / "a.png", BINARY)
    photo(tmp_path / "photos" / "a.jpg")
    run_import(tmp_path / "in", tmp_path / "out", pictures=tmp_path / "photos")
    assert np.array_equal(masks_in(tmp_path / "out")["a"], BINARY)


def test_0_and_255_are_two_classes(tmp_path: Path) -> None:
    result = run_import(pair(tmp_path / "in", "images/a.jpg", "masks/a.png", BINARY * 255), tmp_path / "out")
    assert np.array_equal(masks_in(tmp_path / "out")["a"], BINARY)
    assert [row.origin for row in result.classes] == ["0 and 255"] * 2


def test_0_and_255_have_the_names_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("soil\nplant\n")
    folder = pair(tmp_path / "in", "images/a.jpg", "masks/a.png", BINARY * 255)
    run_import(folder, tmp_path / "out", classes=tmp_path / "names.txt")
    assert names_in(tmp_path / "out") == ["soil", "plant"]
    assert np.array_equal(masks_in(tmp_path / "out")["a"], BINARY)


def test_black_and_white_stored_as_colors_are_two_classes(tmp_path: Path) -> None:
    white = np.repeat((BINARY * 255)[..., None], 3, axis=2)
    run_import(pair(tmp_path / "in", "images/a.jpg", "masks/a.png", white), tmp_path / "out")
    assert np.array_equal(masks_in(tmp_path / "out")["a"], BINARY)


def test_instance_masks_are_asked_about_and_become_one_class(tmp_path: Path) -> None:
    instances = BINARY.copy()
    instances[12:20, 3:9] = 2
    folder = pair(tmp_path / "in", "images/a.jpg", "masks/a.png", instances)
    with refused(ExitCode.DATA, "the ids 0, 1, 2", "--classes FILE", "--foreground"):
        run_import(folder, tmp_path / "no")
    run_import(folder, tmp_path / "out", foreground=True)
    assert np.array_equal(masks_in(tmp_path / "out")["a"], instances > 0)


def test_instances_of_16_bits(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "images" / "a.jpg")
    (tmp_path / "in" / "masks").mkdir()
    Image.fromarray(BINARY.astype(np.uint16) * 40000).save(tmp_path / "in" / "masks" / "a.png")
    run_import(tmp_path / "in", tmp_path / "out", foreground=True)
    assert np.array_equal(masks_in(tmp_path / "out")["a"], BINARY)


def test_colors_are_asked_about_and_become_the_classes_of_a_file(tmp_path: Path) -> None:
    colored = np.array([[0, 0, 0], [60, 180, 75]], dtype=np.uint8)[BINARY]
    folder = pair(tmp_path / "in", "images/a.jpg", "masks/a.png", colored)
    with refused(ExitCode.DATA, "(60, 180, 75) (96 pixels)", "--classes FILE"):
        run_import(folder, tmp_path / "no")
    (folder / "classes.txt").write_text("soil\nplant\n")
    with refused(ExitCode.DATA, "the 2 declared classes have no colours"):
        run_import(folder, tmp_path / "no")
    (folder / "class_dict.csv").write_text("name,r,g,b\nsoil,0,0,0\nplant,60,180,75\n")
    run_import(folder, tmp_path / "out")
    assert names_in(tmp_path / "out") == ["soil", "plant"]
    assert np.array_equal(masks_in(tmp_path / "out")["a"], BINARY)


def test_ids_with_the_names_of_a_file_keep_255(tmp_path: Path) -> None:
    mask = BINARY * 2
    mask[0] = 255
    folder = pair(tmp_path / "in", "images/a.jpg", "masks/a.png", mask)
    (folder / "classes.txt").write_text("soil\nleaf\nstem\n")
    run_import(folder, tmp_path / "out")
    assert np.array_equal(masks_in(tmp_path / "out")["a"], mask)


def test_a_palette_in_the_order_of_an_editor_is_read_by_its_colors(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "images" / "a.jpg")
    (tmp_path / "in" / "masks").mkdir()
    picture = Image.fromarray(1 - BINARY)
    picture.putpalette([60, 180, 75, 0, 0, 0])
    picture.save(tmp_path / "in" / "masks" / "a.png")
    (tmp_path / "in" / "classes.yaml").write_text("names: [soil, plant]\ncolors: [[0, 0, 0], [60, 180, 75]]\n")
    run_import(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(masks_in(tmp_path / "out")["a"], BINARY)


@pytest.mark.parametrize(
    ("picture", "mask", "found"),
    [
        ("images/a.jpg", "masks/b.png", "is a mask without a picture"),
        ("images/a.jpg", "masks/a.jpg", "JPEG changes the ids"),
        ("images/a.png", "masks/a.jpg", "JPEG changes the ids"),
    ],
)
def test_masks_that_cannot_be_used_are_named(tmp_path: Path, picture: str, mask: str, found: str) -> None:
    folder = pair(tmp_path / "in", "images/z.png", "masks/z.png")
    with refused(ExitCode.DATA, Path(mask).name, found):
        run_import(pair(folder, picture, mask), tmp_path / "out")


def test_two_masks_of_a_picture_and_two_pictures_of_a_mask_are_named(tmp_path: Path) -> None:
    folder = pair(tmp_path / "in", "images/a.jpg", "masks/a.png")
    write_array(folder / "masks" / "a_mask.png", BINARY)
    with refused(ExitCode.DATA, "a.jpg", "has the masks"):
        run_import(folder, tmp_path / "out")
    folder = pair(tmp_path / "two", "images/a.jpg", "masks/a.png")
    photo(folder / "images" / "a.webp")
    with refused(ExitCode.DATA, "a.png", "may be the mask of"):
        run_import(folder, tmp_path / "out")


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    folder = pair(tmp_path / "in", "images/a.jpg", "masks/a.png", BINARY[:20])
    with refused(ExitCode.DATA, "masks/a.png", "32×20"):
        run_import(folder, tmp_path / "out")


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_ids_survive_to_the_bit(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    tmp_path = tmp_path_factory.mktemp("trip")
    mask = np.random.default_rng(seed).integers(0, 5, (24, 32), dtype=np.uint8)
    mask[mask == 4] = 255
    folder = pair(tmp_path / "in", "images/a.jpg", "masks/a.png", mask)
    (folder / "classes.txt").write_text("a\nb\nc\nd\n")
    run_import(folder, tmp_path / "out")
    assert np.array_equal(masks_in(tmp_path / "out")["a"], mask)


def test_masks_that_number_objects_are_neither_pictures_nor_masks(tmp_path: Path) -> None:
    folder = pair(tmp_path / "in", "set/JPEGImages/a.jpg", "set/SegmentationClass/a.png")
    pair(folder, "other/JPEGImages/b.jpg", "other/SegmentationClass/b.png")
    write_array(folder / "set" / "SegmentationObject" / "a.png", BINARY * 7)
    result = run_import(folder, tmp_path / "out", unlabelled="background")
    assert sorted(masks_in(tmp_path / "out")) == ["other/JPEGImages/b", "set/JPEGImages/a"]
    assert result.notes == ["1 files in SegmentationObject number objects and are left out"]
