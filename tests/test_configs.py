"""The files in configs/: they load, no file undoes another, and each value has its reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from config_files import write_config
from helpers import ROOT, recipes

from segnet.config.loading import config_to_yaml, load_config
from segnet.config.yaml_files import Tree, read_mapping

YAML_FILES = recipes()
RECIPES = [path for path in YAML_FILES if path.parent == ROOT / "configs"]
MODELS = [path for path in YAML_FILES if path.parent == ROOT / "configs" / "model"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_survives_a_round_trip(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    assert load_config(write_config(tmp_path, config_to_yaml(config))) == config


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_every_model_file_is_whole(path: Path, tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path, f"base: {path}\ndata: {{root: here, classes: voc}}\n"))
    assert len(config.model.encoder) == len(config.model.decoder)


def keys_of_files(path: Path) -> list[str]:
    """The keys that a file and its base files set, one entry for each time that one is set."""
    tree, _ = read_mapping(path)
    bases = tree.pop("base", [])
    below = [key for base in (bases if isinstance(bases, list) else [bases]) for key in keys_of_files(path.parent / str(base))]
    return below + keys_in(tree)


def keys_in(tree: Tree, path: str = "") -> list[str]:
    return [
        key
        for name, value in tree.items()
        for key in (keys_in(value, f"{path}{name}.") if isinstance(value, dict) else [path + name])
    ]


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.stem)
def test_no_file_undoes_what_its_base_files_set(path: Path) -> None:
    keys = keys_of_files(path)
    assert sorted(keys) == sorted(set(keys))


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.stem)
def test_every_value_has_a_line_of_its_own_and_a_reason(path: Path) -> None:
    free = {"root", "classes", "widths", "width", "kernel_size", "dropout"}  # without a default, or of a published network
    for line in path.read_text().splitlines():
        assert not re.match(r"[^#]*\{", line), line
        value = re.match(r"[ -]+(\w+): *([^#]*)(#.+)?$", line)
        assert not value or not value[2] or value[3] or value[1] in free, line


def test_every_recipe_names_its_source_and_command():
    for path in RECIPES:
        comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
        assert any("python scripts/train.py" in line or "segnet train" in line for line in comment), path.name
        assert any("Expected" in line for line in comment), path.name
        assert any("Cost" in line for line in comment), path.name
