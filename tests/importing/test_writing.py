"""An import is whole or not there: the same bytes every time, finished when it was cut short, never over another set."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import folder_bytes, refused
from label_exports import lists_in, masks_in, names_in, photo, run_import, write_array, zipped
from PIL import Image

from segnet.classes import class_set
from segnet.config.data_folder import load_data_folder
from segnet.data.checking import check_dataset, list_splits
from segnet.system.errors import ExitCode, UserError

MASK = np.zeros((24, 32), dtype=np.uint8)
MASK[3:9, 4:20] = 1


def pairs(folder: Path, count: int = 3) -> Path:
    for number in range(count):
        photo(folder / "images" / f"{number}.jpg", seed=number)
        write_array(folder / "masks" / f"{number}.png", np.roll(MASK, number, axis=0))
    return folder


def test_what_is_written_passes_the_check(tmp_path: Path) -> None:
    run_import(pairs(tmp_path / "in"), tmp_path / "out")
    out = tmp_path / "out"
    assert list_splits(out) == ["all"]
    report = check_dataset(out, ["all"], load_data_folder(out).class_set)
    assert (report.faults, report.warnings) == ([], [])
    assert sorted(path.name for path in out.iterdir() if path.name != ".lock") == [
        "ImageSets",
        "JPEGImages",
        "SegmentationClass",
        "classes.yaml",
        "import.json",
    ]


def test_pictures_are_copied_byte_for_byte_whatever_their_format(tmp_path: Path) -> None:
    names = ["a.jpg", "b.png", "c.webp", "d.JPG", "e.bmp"]
    for name in names:
        photo(tmp_path / "in" / "images" / name, seed=ord(name[0]), orientation=6 if name == "a.jpg" else 1)
        write_array(tmp_path / "in" / "masks" / f"{name[0]}.png", MASK.T if name == "a.jpg" else MASK)
    run_import(tmp_path / "in", tmp_path / "out")
    for name in names:
        assert (tmp_path / "out/JPEGImages" / name).read_bytes() == (tmp_path / "in/images" / name).read_bytes()


def test_masks_have_the_palette_of_the_classes(tmp_path: Path) -> None:
    folder = pairs(tmp_path / "in")
    (folder / "classes.yaml").write_text("names: [soil, leaf]\ncolors: [[1, 2, 3], [60, 180, 75]]\n")
    run_import(folder, tmp_path / "out")
    picture = Image.open(tmp_path / "out/SegmentationClass/0.png")
    expected = class_set(("soil", "leaf"), ((1, 2, 3), (60, 180, 75))).palette
    assert (picture.mode, picture.getpalette()) == ("P", expected)
    assert load_data_folder(tmp_path / "out").class_set.colors == ((1, 2, 3), (60, 180, 75))


def test_the_record_tells_the_source_the_rules_and_the_counts(tmp_path: Path) -> None:
    run_import(pairs(tmp_path / "in"), tmp_path / "out")
    record = json.loads((tmp_path / "out/import.json").read_text())
    assert (record["format"], record["source"], record["pictures"]) == ("pairs of pictures and masks", "in", 3)
    assert record["rules"] == {"masks": "ids"}
    assert record["classes"][1] == {
        "id": 1,
        "name": "foreground",
        "color": [128, 0, 0],
        "pictures": 3,
        "pixels": 288,
        "origin": "0 and 1",
    }
    assert str(tmp_path) not in json.dumps(record), "a path would differ from computer to computer"


def test_the_digest_depends_on_pictures_and_labels(tmp_path: Path) -> None:
    digests = set()
    for number in range(3):
        folder = pairs(tmp_path / str(number) / "in")
        if number == 1:
            write_array(folder / "masks" / "0.png", np.roll(MASK, 1, axis=1))
        if number == 2:
            photo(folder / "images" / "0.jpg", seed=99)
        run_import(folder, tmp_path / str(number) / "out")
        digests.add(json.loads((tmp_path / str(number) / "out/import.json").read_text())["digest"])
    assert len(digests) == 3


def test_the_same_set_gives_the_same_bytes_from_a_folder_elsewhere(tmp_path: Path) -> None:
    run_import(pairs(tmp_path / "x" / "in"), tmp_path / "one")
    run_import(pairs(tmp_path / "y" / "in"), tmp_path / "two")
    assert folder_bytes(tmp_path / "one") == folder_bytes(tmp_path / "two")


@pytest.mark.parametrize(
    "lost", ["JPEGImages/1.jpg", "SegmentationClass/1.png", "ImageSets/Segmentation/all.txt", "classes.yaml", "JPEGImages"]
)
def test_a_second_run_writes_what_is_missing_and_nothing_else(tmp_path: Path, lost: str) -> None:
    run_import(pairs(tmp_path / "in"), tmp_path / "out")
    before = folder_bytes(tmp_path / "out")
    assert run_import(tmp_path / "in", tmp_path / "out").written == 0
    path = tmp_path / "out" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    run_import(tmp_path / "in", tmp_path / "out")
    assert folder_bytes(tmp_path / "out") == before


def test_a_killed_run_is_finished(tmp_path: Path) -> None:
    """A kill leaves masks in the folder for temporary files and a part of the pictures."""
    run_import(pairs(tmp_path / "in"), tmp_path / "whole")
    (tmp_path / "out" / ".import" / "masks").mkdir(parents=True)
    (tmp_path / "out" / ".import" / "masks" / "0.png").write_bytes(b"half")
    (tmp_path / "out" / "JPEGImages").mkdir()
    (tmp_path / "out" / "JPEGImages" / ".0.jpg.123.tmp").write_bytes(b"half")
    run_import(tmp_path / "in", tmp_path / "out")
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "whole")


def test_lists_that_were_divided_stay(tmp_path: Path) -> None:
    run_import(pairs(tmp_path / "in"), tmp_path / "out")
    (tmp_path / "out/ImageSets/Segmentation/train.txt").write_text("0\n1\n")
    run_import(tmp_path / "in", tmp_path / "out")
    assert lists_in(tmp_path / "out")["train"] == ["0", "1"]


def test_another_set_is_never_overwritten(tmp_path: Path) -> None:
    run_import(pairs(tmp_path / "in"), tmp_path / "out")
    before = folder_bytes(tmp_path / "out")
    with refused(ExitCode.DATA, "import.json", "another source"):
        run_import(pairs(tmp_path / "other", 4), tmp_path / "out")
    with refused(ExitCode.DATA, "import.json", "other choices"):
        run_import(tmp_path / "in", tmp_path / "out", foreground=True)
    assert folder_bytes(tmp_path / "out") == before


def test_files_that_were_changed_are_not_overwritten(tmp_path: Path) -> None:
    run_import(pairs(tmp_path / "in"), tmp_path / "out")
    (tmp_path / "out/SegmentationClass/1.png").write_bytes(b"mine")
    with refused(ExitCode.DATA, "1.png", "is there and is different"):
        run_import(tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out/SegmentationClass/1.png").read_bytes() == b"mine"


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with refused(ExitCode.DATA, "holds files that no import made"):
        run_import(pairs(tmp_path / "in"), tmp_path / "out")
    assert folder_bytes(tmp_path / "out") == {"thesis.txt": b"years of work"}


@pytest.mark.parametrize("out", ["in/out", ".", "in"])
def test_source_and_result_lie_apart(tmp_path: Path, out: str) -> None:
    with refused(ExitCode.CONFIG, "choose another --out"):
        run_import(pairs(tmp_path / "in"), tmp_path / out)


def test_nothing_is_written_when_a_picture_is_at_fault(tmp_path: Path) -> None:
    folder = pairs(tmp_path / "in")
    (folder / "images" / "1.jpg").write_bytes((folder / "images" / "1.jpg").read_bytes()[:200])
    write_array(folder / "masks" / "2.png", MASK[:5])
    with pytest.raises(UserError) as caught:
        run_import(folder, tmp_path / "out")
    assert "1.jpg" in str(caught.value)
    assert "2.png" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_that_was_there_stays(tmp_path: Path) -> None:
    folder = pairs(tmp_path / "in")
    (folder / "images" / "1.jpg").write_bytes(b"")
    (tmp_path / "out").mkdir()
    with refused(ExitCode.DATA, "1.jpg"):
        run_import(folder, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] in ([], [".lock"])
    photo(folder / "images" / "1.jpg", seed=1)
    run_import(folder, tmp_path / "out")


def test_two_pictures_of_one_id_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for picture in ("a.jpg", "a.png"):
        photo(folder / "images" / picture)
    write_array(folder / "masks" / "b.png", MASK)
    photo(folder / "images" / "b.jpg")
    with refused(ExitCode.DATA, "a.png", "has the id 'a'", "a.jpg too"):
        run_import(folder, tmp_path / "out", unlabelled="ignore")


def test_names_that_no_list_can_hold_are_refused(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "images" / " a.jpg")
    write_array(tmp_path / "in" / "masks" / " a.png", MASK)
    photo(tmp_path / "in" / "images" / "b\u200b.jpg")
    write_array(tmp_path / "in" / "masks" / "b\u200b.png", MASK)
    with refused(ExitCode.DATA, "' a' is a name that no list can hold", "2 faults"):
        run_import(tmp_path / "in", tmp_path / "out")


def test_a_set_needs_two_classes(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("leaf\n")
    with refused(ExitCode.DATA, "1 in the set (leaf)", "2 to 255"):
        run_import(pairs(tmp_path / "in"), tmp_path / "out", classes=tmp_path / "names.txt")


def test_background_for_unlabelled_pictures_needs_such_a_class(tmp_path: Path) -> None:
    folder = pairs(tmp_path / "in")
    photo(folder / "images" / "bare.jpg", seed=9)
    (folder / "classes.txt").write_text("soil\nleaf\n")
    with refused(ExitCode.CONFIG, "no class is called background"):
        run_import(folder, tmp_path / "out", unlabelled="background")
    run_import(folder, tmp_path / "out", unlabelled="ignore")
    assert set(masks_in(tmp_path / "out")["bare"].reshape(-1).tolist()) == {255}


def test_pictures_in_no_list_of_a_set_with_lists_are_listed_apart(tmp_path: Path) -> None:
    for place in ("train/", "val/", ""):
        photo(tmp_path / "in" / "images" / f"{place}a.jpg", seed=len(place))
        write_array(tmp_path / "in" / "masks" / f"{place}a.png", MASK)
    run_import(tmp_path / "in", tmp_path / "out")
    assert lists_in(tmp_path / "out") == {"train": ["train/a"], "unlisted": ["a"], "val": ["val/a"]}


def test_files_of_an_archive_are_named_by_the_archive(tmp_path: Path) -> None:
    folder = pairs(tmp_path / "in")
    write_array(folder / "masks" / "2.png", MASK[:5])
    with refused(ExitCode.DATA, f"{tmp_path / 'in.zip'}/masks/2.png"):
        run_import(zipped(folder), tmp_path / "out")


def test_zip_and_folder_give_the_same_masks(tmp_path: Path) -> None:
    folder = pairs(tmp_path / "in")
    run_import(folder, tmp_path / "one")
    run_import(zipped(folder, "some/where"), tmp_path / "two")
    one, two = folder_bytes(tmp_path / "one"), folder_bytes(tmp_path / "two")
    assert {name: data for name, data in one.items() if name != "import.json"} == {
        name: data for name, data in two.items() if name != "import.json"
    }
    assert names_in(tmp_path / "two") == ["background", "foreground"]
