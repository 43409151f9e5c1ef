"""The picture and the mask of each id are found, or what is there in their place is named."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers import refused, tiny_mask, write_pair, write_split
from PIL import Image

from segnet.classes import ClassSet
from segnet.data.dataset import SegmentationDataset
from segnet.data.layout import mask_path
from segnet.data.mask_files import save_mask
from segnet.data.sample_files import find_pictures, merge_alike
from segnet.system.errors import ExitCode, data_error

Data = ExitCode.DATA


def test_pictures_may_have_any_suffix_and_stand_in_folders(tmp_path: Path, tiny_classes: ClassSet) -> None:
    names = ["city/a.b", "city/c", "d"]
    for index, name in enumerate(names):
        write_pair(tmp_path, name, tiny_mask(seed=index), tiny_classes)
    (tmp_path / "JPEGImages" / "d.jpg").rename(tmp_path / "JPEGImages" / "d.JPEG")
    write_split(tmp_path, "train", names)
    dataset = SegmentationDataset(tmp_path, "train", tiny_classes)
    assert [path.name for path in dataset.pictures] == ["a.b.jpg", "c.jpg", "d.JPEG"]


@pytest.mark.parametrize("suffix", [".jfif", ".JPE", ".jif", ".pnm"])
def test_a_picture_is_found_whatever_its_suffix_is_called(suffix: str, tiny_data: Path, tiny_classes: ClassSet) -> None:
    path = tiny_data / "JPEGImages" / "train_1.jpg"
    path.rename(path.with_suffix(suffix))
    assert SegmentationDataset(tiny_data, "train", tiny_classes).read(1).id == "train_1"


def test_an_id_that_no_file_can_have_is_missing(tiny_data: Path, tiny_classes: ClassSet) -> None:
    write_split(tiny_data, "train", ["a" * 300, "b" * 300 + "/c", "train_0/d"])
    with refused(Data, "picture is missing (6 faults in all)"):
        SegmentationDataset(tiny_data, "train", tiny_classes)


def test_folders_may_be_linked_inside_the_data_folder_alone(tiny_data: Path, tiny_classes: ClassSet) -> None:
    (tiny_data / "JPEGImages").rename(tiny_data / "pictures")
    (tiny_data / "JPEGImages").symlink_to("pictures")
    assert SegmentationDataset(tiny_data, "train", tiny_classes).read(0).id == "train_0"
    (tiny_data / "pictures").rename(tiny_data.parent / "pictures")
    (tiny_data / "JPEGImages").unlink()
    (tiny_data / "JPEGImages").symlink_to("../pictures")
    with refused(Data, f"JPEGImages: is a link out of the data folder, to {tiny_data.parent}/pictures"):
        SegmentationDataset(tiny_data, "train", tiny_classes)


def test_everything_that_is_missing_is_listed(tiny_data: Path, tiny_classes: ClassSet) -> None:
    (tiny_data / "JPEGImages" / "train_1.jpg").unlink()
    (tiny_data / "JPEGImages" / "train_4.jpg").rename(tiny_data / "JPEGImages" / "TRAIN_4.jpg")
    mask_path(tiny_data, "train_2").unlink()
    lost = ["JPEGImages/train_1.jpg: picture is missing", "JPEGImages/train_4.jpg: picture is missing"]
    with refused(Data, *lost, "SegmentationClass/train_2.png: mask is missing", "which differs in case", "3 faults in all"):
        SegmentationDataset(tiny_data, "train", tiny_classes)
    SegmentationDataset(tiny_data, "val", tiny_classes)


@pytest.mark.parametrize(
    ("folder", "name", "found", "remedy"),
    [
        ("JPEGImages", "Train_1.JPG", "which differs in case", "rename it, or correct the id"),
        ("JPEGImages", "train_1 .jpg", "which differs in spaces or invisible characters", "rename it, or correct the id"),
        ("JPEGImages", "train_1\u200b.png", "which differs in spaces or invisible characters", "rename it, or correct the id"),
        ("JPEGImages", "train_1.jpg ", "which differs in spaces or invisible characters", "rename it, or correct the id"),
        ("JPEGImages", "train_1.HEIC", "which is not read", "convert it to JPEG or PNG"),
        ("JPEGImages", "train_1", "without a suffix", "give it the suffix of its format, such as .jpg"),
        ("SegmentationClass", "train_1.npy", "which is no PNG", "save masks as PNG; JPEG changes the ids"),
        ("SegmentationClass", "train_1.bmp", "which is no PNG", "save masks as PNG; JPEG changes the ids"),
        ("SegmentationClass", "train_1", "without a suffix", "give it the suffix of its format, such as .png"),
        ("SegmentationClass", "train_1.png ", "which differs in spaces or invisible characters", "rename it, or correct the id"),
    ],
)
def test_a_missing_file_names_what_was_meant(
    folder: str, name: str, found: str, remedy: str, tiny_data: Path, tiny_classes: ClassSet
) -> None:
    kind, suffix = ("picture", ".jpg") if folder == "JPEGImages" else ("mask", ".png")
    (tiny_data / folder / f"train_1{suffix}").rename(tiny_data / folder / name)
    (tiny_data / folder / "train_1.json").touch()
    (_, faults) = find_pictures(tiny_data, ["train_0", "train_1", "train_2"])
    assert [(Path(fault.path).name, fault.found, fault.remedy) for fault in faults] == [
        (f"train_1{suffix}", f"{kind} is missing; only {name} is there, {found}", remedy)
    ]


def test_a_mask_in_another_unicode_form_is_named(tiny_data: Path, tiny_classes: ClassSet) -> None:
    write_pair(tiny_data, "gr\u00f6\u00dfe", tiny_mask(seed=1), tiny_classes)
    mask_path(tiny_data, "gr\u00f6\u00dfe").rename(mask_path(tiny_data, "gro\u0308\u00dfe"))
    (_, (fault,)) = find_pictures(tiny_data, ["gr\u00f6\u00dfe"])
    assert fault.found == "mask is missing; only gro\u0308\u00dfe.png is there, whose name is in another Unicode form"


@pytest.mark.parametrize("size", [(32, 31), (16, 64)])
def test_a_mask_of_another_size_is_refused_with_both_sizes(
    size: tuple[int, int], tiny_data: Path, tiny_classes: ClassSet
) -> None:
    save_mask(mask_path(tiny_data, "val_1"), np.zeros(size, np.uint8), tiny_classes)
    dataset = SegmentationDataset(tiny_data, "val", tiny_classes)
    with refused(Data, "val_1.png", f"mask {size[1]}×{size[0]}, picture 32×32 (width × height)"):
        dataset.read(1)


def test_a_mask_that_lies_on_its_side_is_refused(tmp_path: Path, tiny_classes: ClassSet) -> None:
    mask = tiny_mask(seed=0, size=(24, 40))
    write_pair(tmp_path, "a", mask, tiny_classes)
    save_mask(mask_path(tmp_path, "a"), mask.T, tiny_classes)
    write_split(tmp_path, "train", ["a"])
    with refused(Data, "a.png", "mask 24×40, picture 40×24"):
        SegmentationDataset(tmp_path, "train", tiny_classes).read(0)


def test_two_pictures_of_one_id_are_refused(tiny_data: Path, tiny_classes: ClassSet) -> None:
    picture = tiny_data / "JPEGImages" / "train_0.jpg"
    Image.open(picture).save(picture.with_suffix(".png"))
    with refused(ExitCode.DATA, "train_0.png", "has the id of train_0.jpg too"):
        SegmentationDataset(tiny_data, "train", tiny_classes)


def test_a_mask_whose_name_goes_on_is_found(tiny_data: Path) -> None:
    masks = tiny_data / "SegmentationClass"
    for path in sorted(masks.iterdir()):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    (masks / "train_0-label.png").write_bytes(b"")  # which of the two is meant is not clear
    _, faults = find_pictures(tiny_data, ["train_0", "train_1"])
    assert [fault.found for fault in faults] == [
        "mask is missing",
        "mask is missing; only train_1_mask.png is there, whose name goes on with '_mask'",
    ]
    (masks / "train_0-label.png").unlink()
    subprocess.run(["sh", "-c", faults[1].remedy.partition("all: ")[2]], check=True)
    assert find_pictures(tiny_data, ["train_0", "train_1"])[1] == []


def test_faults_of_one_kind_are_merged_from_four_on() -> None:
    faults = [
        data_error(f"data/{name}.png", f"label {number}; only {name}.bmp, 'x'", f"--map {number}=ID")
        for number, name in enumerate(("a1", "b2", "c3", "d4"))
    ]
    other = data_error("data/e.png", "mask is missing", "restore it")
    place = Path("data/train.txt")
    assert merge_alike([*faults[:3], other], lambda _: place) == [*faults[:3], other]
    merged, kept = merge_alike([*faults, other], lambda _: place)
    assert str(merged) == "data/train.txt: 4 files, such as data/a1.png, b2.png, c3.png: label 0; only a1.bmp, 'x' – --map 0=ID"
    assert kept is other
    lines = [
        data_error("data/train.txt", f"line {number}: '{number}' leaves the data folder", "list plain ids") for number in range(9)
    ]
    (merged,) = merge_alike(lines, lambda fault: Path(fault.path))
    assert merged.found.startswith("9 faults, such as line 0: '0' leaves the data folder; line 1: ")
    assert len(merge_alike(faults, lambda fault: Path(fault.path))) == 4  # of different places
