"""The facts are those of the check, and the widths those of the objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from helpers import refused, write_pair, write_split
from PIL import Image

from segnet.data.checking import check_dataset
from segnet.planning import survey as module
from segnet.planning.survey import survey
from segnet.system.errors import ExitCode


def test_the_counts_are_those_of_the_check(tiny_config, tiny_data) -> None:
    found = survey(tiny_config.data)
    report, _ = check_dataset(tiny_data, ["train", "val"], tiny_config.data.class_set).splits
    assert (found.train, found.val, found.size, found.measured) == (6, 3, (32, 32), 6)
    assert tuple(facts.pixels for facts in found.classes) == report.class_pixels
    assert tuple(facts.pictures for facts in found.classes) == report.class_pictures


def test_widths_and_sizes_are_measured_on_a_part_of_many_masks(tiny_config, tiny_data, tiny_classes, monkeypatch) -> None:
    names = [f"made_{index}" for index in range(9)]
    for index, name in enumerate(names):
        mask = np.zeros((40 + index, 50), np.uint8)
        mask[3:10, 3:40] = 1  # 7 pixels wide
        if index % 2:
            mask[20:22, 5:45] = 2  # in masks that are not measured
        write_pair(tiny_data, name, mask, tiny_classes)
    write_split(tiny_data, "train", names)
    monkeypatch.setattr(module, "_MEASURED_MASKS", 5)
    monkeypatch.setattr(module, "_LARGEST_SIDE", 45)
    found = survey(tiny_config.data)
    assert (found.measured, found.size) == (5, (44, 50))
    _, box, disc = found.classes
    assert box.narrow == box.middle == 7
    assert (disc.pictures, disc.pixels, np.isnan(disc.middle)) == (4, 4 * 80, True)


def test_a_set_that_training_refuses_is_refused(tiny_config, tiny_data: Path) -> None:
    (tiny_data / "ImageSets" / "Segmentation" / "val.txt").unlink()
    with refused(ExitCode.DATA, "val.txt: no such file", "prepare_data.py split"):
        survey(tiny_config.data)


def test_pictures_are_grey_where_all_of_them_are(tiny_config, tiny_data: Path) -> None:
    assert survey(tiny_config.data).grey == 0
    for path in (tiny_data / "JPEGImages").glob("train_*"):
        with Image.open(path) as picture:
            picture.convert("L").save(path)
    assert survey(tiny_config.data).grey == 6
