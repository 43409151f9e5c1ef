"""Pictures that look alike in two splits are found by their pixels and by the numbers in their names; others are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import CLASSES, tiny_mask, write_split
from PIL import Image

from segnet.classes import class_set
from segnet.data.checking import check_dataset
from segnet.data.images import save_image
from segnet.data.mask_files import save_mask
from segnet.data.split_lists import are_apart
from segnet.data.twins import NEAR, NEXT, Look, difference_hash, near_twin_warnings, similar_pairs


def scene(seed: int, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """(H, W, 3) uint8: smooth light and dark places."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def hash_of(picture: np.ndarray) -> int | None:
    return difference_hash(np.ascontiguousarray(picture.transpose(2, 0, 1)))


def bits(first: np.ndarray, second: np.ndarray) -> int:
    a, b = hash_of(first), hash_of(second)
    assert a is not None
    assert b is not None
    return (a ^ b).bit_count()


def as_jpeg(picture: np.ndarray, path: Path) -> np.ndarray:
    Image.fromarray(picture).save(path, quality=60)
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("seed", range(5))
def test_a_picture_stays_near_when_it_is_stored_again_resized_or_lighter(seed: int, tmp_path: Path) -> None:
    picture = scene(seed)
    assert bits(picture, as_jpeg(picture, tmp_path / "a.jpg")) <= NEAR
    assert bits(picture, np.asarray(Image.fromarray(picture).resize((100, 75), Image.Resampling.BILINEAR))) <= NEAR
    assert bits(picture, (picture * 0.8 + 20).astype(np.uint8)) <= NEAR
    assert bits(picture, scene(seed + 100)) > NEXT


def test_the_bits_are_those_of_a_loop() -> None:
    picture = scene(3, (64, 72))  # every pixel counts
    grey = picture.astype(int).sum(axis=2)
    cells = [[grey[r * 8 : r * 8 + 8, c * 8 : c * 8 + 8].mean() for c in range(9)] for r in range(8)]
    expected = "".join("1" if row[c + 1] > row[c] else "0" for row in cells for c in range(8))
    assert f"{hash_of(picture):064b}" == expected


def test_pictures_without_structure_have_no_hash() -> None:
    assert hash_of(np.full((40, 40, 3), 9, np.uint8)) is None
    assert hash_of(np.broadcast_to(np.arange(40, dtype=np.uint8)[None, :, None], (40, 40, 3)).copy()) is None  # one slope
    assert hash_of(scene(0)[:7]) is None


def look(value: int) -> Look:
    return Look(str(value).encode(), value)


def test_near_twins_and_neighbouring_frames_are_counted_apart() -> None:
    base = 0x0F0F_F0F0_3C3C_C3C3
    far = base ^ 0xFFFF_FFFF
    looks = {
        "a_010": look(base),
        "a_020": look(base ^ 0b1111),  # 4 bits: a near twin of a_010
        "a_040": look(far),
        "a_050": look(far ^ 0xFFF),  # 12 bits, and the next number
        "a_090": look(far ^ 0x1FFF),  # 13 bits
        "b_041": look(far ^ 0xFFF0),  # 12 bits, but of another video
        "same": Look(str(base).encode(), base),  # an equal file
    }
    train, val = ["a_010", "a_040"], ["a_020", "a_050", "a_090", "b_041", "same"]
    assert similar_pairs(val, train, looks) == {"a_020": ("a_010", 4), "a_050": ("a_040", 12)}
    ids_of = {"train": train, "val": val, "trainval": train + val}
    (warning,) = near_twin_warnings(Path("data"), ids_of, looks, are_apart)
    assert warning.path == "data/ImageSets/Segmentation/val.txt"
    assert warning.found.startswith(
        "2 of 5 pictures look like pictures of train (1 near twins, 1 neighbouring frames), such as 'a_0"
    )
    assert warning.remedy.endswith(r"split data --val 0.2 --group '^(.*?)\d+[^\d/]*$' --overwrite")


@pytest.mark.parametrize(
    ("names", "remedy"),
    [(("p1/x", "p1/y"), "--group folder"), (("x", "y"), "with a --group that they share"), (("1", "2"), r"'^(.*?)\d+[^\d/]*$'")],
)
def test_the_group_that_would_mend_it_is_named(names: tuple[str, str], remedy: str) -> None:
    looks = {name: Look(name.encode(), 0x0F0F_F0F0_3C3C_C3C3) for name in names}
    (warning,) = near_twin_warnings(Path("data"), {"train": [names[0]], "val": [names[1]]}, looks, are_apart)
    assert remedy in warning.remedy


def test_check_warns_of_a_video_that_is_in_both(tmp_path: Path) -> None:
    for index in range(8):
        picture = scene(index // 4).astype(int) + index  # two videos of four frames
        (tmp_path / "JPEGImages").mkdir(exist_ok=True)
        (tmp_path / "SegmentationClass").mkdir(exist_ok=True)
        save_image(tmp_path / "JPEGImages" / f"v{index // 4}_{index}.jpg", picture.clip(0, 255).astype(np.uint8))
        mask = tiny_mask(seed=index, size=(96, 128))
        save_mask(tmp_path / "SegmentationClass" / f"v{index // 4}_{index}.png", mask, class_set(CLASSES))
    write_split(tmp_path, "train", [f"v{index // 4}_{index}" for index in (0, 1, 2, 4, 5)])
    write_split(tmp_path, "val", [f"v{index // 4}_{index}" for index in (3, 6, 7)])
    report = check_dataset(tmp_path, ["train", "val"], class_set(CLASSES))
    assert report.faults == []
    assert [w.found.split(",")[0] for w in report.warnings] == ["3 of 3 pictures look like pictures of train (3 near twins"]
    write_split(tmp_path, "train", [f"v0_{index}" for index in range(4)])
    write_split(tmp_path, "val", [f"v1_{index}" for index in range(4, 8)])
    assert check_dataset(tmp_path, ["train", "val"], class_set(CLASSES)).warnings == []
