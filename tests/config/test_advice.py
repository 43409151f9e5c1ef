"""A configuration whose training and inference see other sizes is warned about, once, wherever it is read."""

from __future__ import annotations

import pytest
from config_files import SAMPLE_CONFIG
from data_sets import run_in_process
from helpers import ROOT, recipes

from segnet.config.advice import zoom_to_see, zoom_warnings
from segnet.config.loading import load_config, override_config


@pytest.mark.parametrize(
    ("scale", "scales", "shrink", "warned"),
    [
        ("[0.5, 2]", "[1]", "[1]", False),
        ("[0.25, 0.6]", "[0.4]", "[1]", False),
        ("[0.25, 0.6]", "[1]", "[1]", True),
        ("[1, 1]", "[0.4]", "[1]", True),
        ("[0.5, 0.5]", "[1]", "[1]", False),  # twice is still right
        ("[1, 1]", "[0.5, 1, 2]", "[1]", False),  # the middle of several views
        ("[1, 1]", "[1]", "[1, 0.4]", True),  # the last part of the run
        ("[1, 1]", "[1]", "[0.4, 1]", False),
    ],
)
def test_the_middles_of_both_zooms_may_differ_by_two(scale: str, scales: str, shrink: str, warned: bool) -> None:
    changes = [f"augment.scale={scale}", f"inference.scales={scales}", f"augment.shrink={shrink}"]
    assert bool(zoom_warnings(override_config(SAMPLE_CONFIG, changes))) == warned


def test_the_warning_says_both_zooms_and_a_cure() -> None:
    (warning,) = zoom_warnings(override_config(SAMPLE_CONFIG, ["augment.scale=[0.25, 0.6]", "inference.scales=[1]"]))
    assert "at 0.39 of their size, inference.scales at 1 " in str(warning)
    assert "by a factor of 2.6; try inference.scales=[0.39]" in str(warning)


def test_no_recipe_is_warned_about() -> None:
    whole = [path for path in recipes() if path.parent == ROOT / "configs"]
    assert [path.name for path in whole if zoom_warnings(load_config(path))] == []


def test_train_check_and_show_warn_once(tiny_config_file, tmp_path) -> None:
    text = tiny_config_file.read_text().replace("- 0.5\n  - 2.0", "- 4.0\n  - 4.0")
    tiny_config_file.write_text(text)
    for command in (
        ("train", tiny_config_file, "--run", tmp_path / "run", "train.epochs=0.1"),
        ("prepare_data", "check", tiny_config_file),
        ("show", "config", tiny_config_file),
    ):
        said = run_in_process(*command)
        assert said.count("warning: augment.scale: training sees the pictures at 4 of") == 1, command


def test_a_picture_is_seen_at_the_size_of_the_field_of_view_and_never_enlarged() -> None:
    assert [zoom_to_see(side, least=0.4) for side in (100, 224, 448, 500, 4000)] == [1, 1, 0.5, 0.45, 0.4]
