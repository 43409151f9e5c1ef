"""The facts are those of the check, and the widths those of the objects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import refused, write_pair, write_split
from PIL import Image

from segnet.config.loading import override_config
from segnet.data.checking import check_dataset
from segnet.planning import survey as module
from segnet.planning.machine import measure_run
from segnet.planning.survey import PictureFacts, survey
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


def replace_pictures(root: Path, change: Callable[[np.ndarray], np.ndarray], suffix: str = ".npy") -> None:
    """Other pictures in the place of those of train and val, from their (H, W, 3) uint8."""
    for path in sorted((root / "JPEGImages").glob("*.jpg")):
        with Image.open(path) as picture:
            pixels = change(np.asarray(picture))
        path.unlink()
        if suffix == ".npy":
            np.save(path.with_suffix(suffix), pixels)
        else:
            Image.fromarray(pixels).save(path.with_suffix(suffix))


@pytest.mark.parametrize(
    ("change", "suffix", "expected"),
    [
        (lambda rgb: rgb, ".png", PictureFacts(6, 3, grey=False, deep=False)),
        (lambda rgb: rgb[..., 0], ".png", PictureFacts(6, 3, grey=True, deep=False)),
        (lambda rgb: rgb[..., 0], ".tif", PictureFacts(6, 3, grey=True, deep=False)),
        (lambda rgb: np.dstack([rgb, rgb[..., 0]]), ".tif", PictureFacts(6, 3, grey=False, deep=False)),  # RGBA
        (lambda rgb: rgb[..., 0].astype(np.uint16) * 9, ".png", PictureFacts(6, 3, grey=True, deep=True)),
        (lambda rgb: np.dstack([rgb, rgb]).astype(np.uint16), ".npy", PictureFacts(6, 6, grey=False, deep=True)),
        (lambda rgb: rgb[..., :2], ".npy", PictureFacts(6, 2, grey=False, deep=False)),
    ],
)
def test_bands_and_depth_are_those_of_the_files(tiny_config, tiny_data: Path, change, suffix, expected) -> None:
    replace_pictures(tiny_data, change, suffix)
    assert survey(tiny_config.data).pictures == expected


def test_pictures_of_six_deep_bands_are_measured_as_they_will_be_trained(tiny_config, tiny_data: Path) -> None:
    replace_pictures(tiny_data, lambda rgb: np.dstack([rgb, rgb]).astype(np.uint16) * 200)
    config = override_config(tiny_config, ["data.channels=6", "data.scale=train"])
    assert min(measure_run(config)) > 0
