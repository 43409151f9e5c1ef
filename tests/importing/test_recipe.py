"""The configuration that an import writes: measured sizes, valid, and never over another file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import refused
from label_exports import photo, run_import, write_array

from segnet.config.advice import zoom_warnings
from segnet.config.loading import load_config
from segnet.importing.recipe import write_recipe
from segnet.system.errors import ExitCode


def pairs(folder: Path, count: int = 3, size: tuple[int, int] = (24, 32)) -> Path:
    for number in range(count):
        photo(folder / "images" / f"{number}.jpg", size, seed=number)
        write_array(folder / "masks" / f"{number}.png", np.indices(size).sum(axis=0) % 2)
    return folder


@pytest.mark.parametrize(
    ("size", "crop", "zoom"),
    [((24, 32), (16, 32), 1.0), ((375, 500), (160, 224), 0.45), ((2000, 10), (480, 16), 0.4), ((480, 480), (224, 224), 0.47)],
)
def test_the_configuration_has_measured_sizes_and_is_valid(
    tmp_path: Path, size: tuple[int, int], crop: tuple[int, int], zoom: float
) -> None:
    result = run_import(pairs(tmp_path / "in", 2, size), tmp_path / "out")
    write_recipe(tmp_path / "configs" / "x.yaml", tmp_path / "out", result)
    config = load_config(tmp_path / "configs" / "x.yaml")
    assert config.augment.crop_size == crop
    assert config.augment.scale == pytest.approx((0.75 * zoom, 1.5 * zoom), abs=0.01)
    assert config.inference.scales == (zoom,)
    assert zoom_warnings(config) == []
    assert (config.data.root, config.data.classes) == (str(tmp_path / "out"), ("background", "foreground"))
    assert "split" in (tmp_path / "configs" / "x.yaml").read_text(), "a set without lists is divided first"


def test_another_configuration_is_not_overwritten(tmp_path: Path) -> None:
    result = run_import(pairs(tmp_path / "in"), tmp_path / "out")
    (tmp_path / "x.yaml").write_text("mine\n")
    with refused(ExitCode.CONFIG, "x.yaml", "is there and is different"):
        write_recipe(tmp_path / "x.yaml", tmp_path / "out", result)
    assert (tmp_path / "x.yaml").read_text() == "mine\n"


def test_pictures_of_different_sizes_are_scaled_more(tmp_path: Path) -> None:
    folder = pairs(tmp_path / "in", 2)
    photo(folder / "images" / "big.jpg", (96, 128), seed=5)
    write_array(folder / "masks" / "big.png", np.ones((96, 128)))
    write_recipe(tmp_path / "x.yaml", tmp_path / "out", run_import(folder, tmp_path / "out"))
    assert load_config(tmp_path / "x.yaml").augment.scale == (0.5, 2.0)
