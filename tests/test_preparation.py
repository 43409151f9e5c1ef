"""The sample data set: a function of its seed, in VOC's layout, whole or completed by the next call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segnet.classes import SAMPLE
from segnet.errors import ExitCode, UserError
from segnet.preparation import generate_sample
from segnet.scenes import _outline, render_scene

COUNT = 10


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "sample"
    assert generate_sample(root, seed=3, count=COUNT) == {"train": 8, "val": 2}
    return root


@pytest.fixture(scope="module")
def masks() -> list[np.ndarray]:
    return [render_scene(0, index)[1] for index in range(24)]


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def split_names(root: Path, split: str) -> list[str]:
    return (root / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()


def test_layout_is_whole_and_splits_share_nothing(sample: Path) -> None:
    train, val = split_names(sample, "train"), split_names(sample, "val")
    assert (len(train), len(val)) == (8, 2)
    assert len({*train, *val}) == COUNT
    expected = {f"JPEGImages/{name}.jpg" for name in train + val} | {f"SegmentationClass/{name}.png" for name in train + val}
    expected |= {"ImageSets/Segmentation/train.txt", "ImageSets/Segmentation/val.txt", "sample.json"}
    assert set(contents(sample)) == expected


def test_masks_fit_their_pictures_and_are_palette_pngs(sample: Path) -> None:
    for name in split_names(sample, "train") + split_names(sample, "val"):
        picture = Image.open(sample / "JPEGImages" / f"{name}.jpg")
        mask = Image.open(sample / "SegmentationClass" / f"{name}.png")
        assert (picture.mode, mask.mode, mask.size) == ("RGB", "P", picture.size)
        assert mask.getpalette() == SAMPLE.palette


def test_same_seed_same_bytes_and_pictures_do_not_depend_on_count(sample: Path, tmp_path: Path) -> None:
    generate_sample(tmp_path, seed=3, count=6)
    again, before = contents(tmp_path), contents(sample)
    pictures = [name for name in again if name.endswith((".jpg", ".png"))]
    assert len(pictures) == 12
    assert all(again[name] == before[name] for name in pictures)
    assert not np.array_equal(render_scene(3, 0)[0], render_scene(4, 0)[0])


def test_second_call_touches_nothing(sample: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in sample.rglob("*")}
    assert generate_sample(sample, seed=3, count=COUNT) == {"train": 8, "val": 2}
    assert {path: path.stat().st_mtime_ns for path in sample.rglob("*")} == before


def test_interrupted_call_is_completed_by_the_next(tmp_path: Path) -> None:
    generate_sample(tmp_path, count=5)
    whole = contents(tmp_path)
    kept = tmp_path / "JPEGImages" / "sample_00000.jpg"
    for name in ("JPEGImages/sample_00001.jpg", "SegmentationClass/sample_00002.png", "ImageSets/Segmentation/train.txt"):
        (tmp_path / name).unlink()
    before = kept.stat().st_mtime_ns
    assert generate_sample(tmp_path, count=5) == {"train": 4, "val": 1}
    assert contents(tmp_path) == whole
    assert kept.stat().st_mtime_ns == before


def test_no_list_before_the_last_picture(tmp_path: Path) -> None:
    generate_sample(tmp_path, count=2)
    for path in [*tmp_path.rglob("*.txt"), *tmp_path.rglob("sample_00001.*")]:
        path.unlink()
    (tmp_path / "SegmentationClass" / "sample_00001.png").mkdir()  # a file cannot take its place
    with pytest.raises(OSError, match="sample_00001"):
        generate_sample(tmp_path, count=2)
    assert not list(tmp_path.rglob("*.txt"))


@pytest.mark.parametrize(("seed", "count"), [(1, 3), (0, 2)])
def test_another_seed_or_count_leaves_nothing_old(tmp_path: Path, seed: int, count: int) -> None:
    generate_sample(tmp_path / "changed", count=3)
    generate_sample(tmp_path / "changed", seed=seed, count=count)
    generate_sample(tmp_path / "fresh", seed=seed, count=count)
    assert contents(tmp_path / "changed") == contents(tmp_path / "fresh")


def test_a_folder_with_another_data_set_is_left_alone(tmp_path: Path) -> None:
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_000032\n")
    with pytest.raises(UserError, match="not the sample") as caught:
        generate_sample(tmp_path, count=5)
    assert caught.value.code == ExitCode.DATA
    assert (lists / "train.txt").read_text() == "2007_000032\n"


def test_scenes_are_uint8_of_one_size_with_known_labels() -> None:
    for index in range(4):
        picture, mask = render_scene(5, index)
        assert picture.dtype == mask.dtype == np.uint8
        assert picture.shape == (*mask.shape, 3)
        assert set(np.unique(mask)) <= {*range(len(SAMPLE)), SAMPLE.ignore_index}
        assert picture.std() > 15  # neither black nor blown out


def test_classes_are_common_and_sizes_vary(masks: list[np.ndarray]) -> None:
    for class_id in range(1, len(SAMPLE)):
        assert np.mean([np.any(mask == class_id) for mask in masks]) >= 0.3, SAMPLE.names[class_id]
    assert len({mask.shape for mask in masks}) > 1


def test_a_border_separates_every_object(masks: list[np.ndarray]) -> None:
    for mask in masks:
        for a, b in ((mask[1:], mask[:-1]), (mask[:, 1:], mask[:, :-1])):
            assert np.all((a == b) | (a == SAMPLE.ignore_index) | (b == SAMPLE.ignore_index))


def test_outline_is_one_pixel_on_each_side_even_between_objects_of_a_class() -> None:
    owner = np.array([[0, 0, 0, 1, 1, 1, 2, 2, 2]], np.uint8)
    assert _outline(owner, [4, 4]).tolist() == [[0, 0, 255, 255, 4, 255, 255, 4, 4]]
    assert _outline(owner.T, [4, 4]).tolist() == [[i] for i in [0, 0, 255, 255, 4, 255, 255, 4, 4]]


def test_the_mask_shows_what_the_picture_shows() -> None:
    """Each outline of the mask has an edge in the picture more often than a place without an outline has."""
    on_edges, elsewhere = [], []
    for index in range(5):
        picture, mask = render_scene(0, index)
        grey = picture.mean(2)
        slope = np.hypot(*np.gradient(grey))
        on_edges.append(slope[mask == SAMPLE.ignore_index].mean())
        elsewhere.append(slope[mask == 0].mean())
    assert np.mean(on_edges) > 2 * np.mean(elsewhere)


def test_a_folder_with_files_of_others_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "JPEGImages" / "sample_00001.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match="holds files that are not the sample's"):
        generate_sample(tmp_path, count=COUNT)
    assert contents(tmp_path) == {"JPEGImages/sample_00001.jpg": b"mine"}
