"""Class statistics equal a count by hand, are kept beside the data, and are counted again once it has changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_sets import change_mask, mirrored_train_set
from helpers import tiny_mask, write_pair, write_split

from segnet.classes import ClassSet, class_set
from segnet.data.dataset import SegmentationDataset
from segnet.data.layout import split_path
from segnet.data.statistics import ClassStatistics, class_statistics, count_classes, pictures_of_classes


def test_class_statistics_equal_a_count_by_hand(tiny_data: Path, tiny_classes: ClassSet) -> None:
    only_ground = np.zeros((10, 7), np.uint8)
    only_ground[0, :3] = 255
    write_pair(tiny_data, "flat", only_ground, tiny_classes)
    write_split(tiny_data, "train", ["train_0", "train_1", "flat"])
    masks = [tiny_mask(seed=0), tiny_mask(seed=1), only_ground]
    statistics = class_statistics(SegmentationDataset(tiny_data, "train", tiny_classes))
    assert statistics.pixels == [sum(int((mask == i).sum()) for mask in masks) for i in range(3)]
    assert statistics.pixels_of_pictures == [sum(mask.size for mask in masks if (mask == i).any()) for i in range(3)]
    assert statistics.pixels_of_pictures == [2 * 1024 + 70, 2 * 1024, 2 * 1024]


def statistics_file(root: Path) -> Path:
    return root / ".segnet" / "train.statistics.json"


def test_statistics_are_counted_once(mixed_data: Path, tiny_classes: ClassSet, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = mirrored_train_set(mixed_data, tiny_classes)
    counted = class_statistics(dataset)
    assert counted == count_classes(dataset)
    monkeypatch.setattr("segnet.data.statistics.count_classes", lambda _: ClassStatistics([0], [0]))
    assert class_statistics(mirrored_train_set(mixed_data, tiny_classes)) == counted


@pytest.mark.parametrize("change", [change_mask, lambda root: write_split(root, "train", ["odd", "train_1"])])
def test_statistics_of_changed_masks_are_counted_again(
    change: Callable[[Path], None], mixed_data: Path, tiny_classes: ClassSet
) -> None:
    before = class_statistics(mirrored_train_set(mixed_data, tiny_classes))
    change(mixed_data)
    dataset = mirrored_train_set(mixed_data, tiny_classes)
    assert before != class_statistics(dataset) == count_classes(dataset)


def test_statistics_of_other_classes_are_counted_again(mixed_data: Path, tiny_classes: ClassSet) -> None:
    class_statistics(mirrored_train_set(mixed_data, tiny_classes))
    more = class_set((*tiny_classes.names, "cloud"))
    assert class_statistics(mirrored_train_set(mixed_data, more)).pixels[3:] == [0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:50],
        lambda text: "",
        lambda text: "[1]",
        lambda text: json.dumps({**json.loads(text), "pixels": [1, 2, 3]}),
        lambda text: json.dumps({**json.loads(text), "pixels": "many"}),
        lambda text: json.dumps({**json.loads(text), "digest": "0" * 32}),
    ],
)
def test_damaged_statistics_are_counted_again(damage: Callable[[str], str], mixed_data: Path, tiny_classes: ClassSet) -> None:
    dataset = mirrored_train_set(mixed_data, tiny_classes)
    counted, path = class_statistics(dataset), statistics_file(mixed_data)
    text = path.read_text()
    path.write_text(damage(text))
    assert class_statistics(dataset) == counted
    assert path.read_text() == text


def test_read_only_data_is_counted_and_nothing_is_written(mixed_data: Path, tiny_classes: ClassSet) -> None:
    mixed_data.chmod(0o555)
    dataset = mirrored_train_set(mixed_data, tiny_classes)
    assert class_statistics(dataset) == count_classes(dataset)
    assert not (mixed_data / ".segnet").exists()
    mixed_data.chmod(0o755)


def test_splits_in_folders_have_files_of_their_own(mixed_data: Path, tiny_classes: ClassSet) -> None:
    path = split_path(mixed_data, "city/train")
    path.parent.mkdir()
    path.write_text("odd\n")
    class_statistics(SegmentationDataset(mixed_data, "city/train", tiny_classes))
    assert [path.name for path in (mixed_data / ".segnet").iterdir()] == ["city_train.statistics.json"]


def test_pictures_of_classes_are_listed_and_kept(
    tiny_data: Path, tiny_classes: ClassSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = SegmentationDataset(tiny_data, "train", tiny_classes)
    expected = [[i for i in range(6) if (dataset.read_mask(i) == class_id).any()] for class_id in range(3)]
    assert pictures_of_classes(dataset) == expected
    monkeypatch.setattr(SegmentationDataset, "read_mask", None)  # no mask is read again
    assert pictures_of_classes(dataset) == expected
    write_split(tiny_data, "train", ["train_0", "train_1"])
    with pytest.raises(TypeError):
        pictures_of_classes(SegmentationDataset(tiny_data, "train", tiny_classes))
