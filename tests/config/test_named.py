"""Configurations by name, from any folder."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from config_files import write_config
from helpers import ROOT, refused

from segnet.commands.sources import is_folder
from segnet.config.data_folder import root_fault
from segnet.config.loading import load_config
from segnet.config.named import FOLDER, find_config, recipes
from segnet.system.errors import ExitCode

OWN = "data: {root: here, classes: [a, b]}\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_recipe_and_a_network_are_found_by_their_names(elsewhere: Path) -> None:
    there = load_config(ROOT / "configs" / "sample_denoise.yaml")
    assert load_config("sample_denoise") == there
    base = write_config(elsewhere, "base: segnet_small\n" + OWN)
    path = write_config(elsewhere, f"base: {FOLDER}/model/segnet_small.yaml\n{OWN}", "other.yaml")
    assert load_config(base) == load_config(path)
    assert load_config("segnet_small", ["data.root=here", "data.classes=[a,b]"]).model == load_config(base).model


def test_an_own_file_wins_over_a_recipe_and_a_recipe_over_a_folder(elsewhere: Path) -> None:
    (elsewhere / "sample").mkdir()
    assert find_config("sample") == recipes()["sample"]
    assert is_folder(Path("sample"))
    (elsewhere / "sample").rmdir()
    assert not is_folder(Path("sample"))
    assert is_folder(Path("leaves"))
    (elsewhere / "sample").write_text(OWN)
    assert find_config("sample") == Path("sample")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("sampel", "no configuration of this name – did you mean sample?"),
        ("x", "or one of these: bayesian_segnet, deconvnet"),
        ("configs/sample.yaml", "configs/sample.yaml: no such file – name a YAML file, or a configuration of the program"),
        ("", "not a file"),
        ("template", "no configuration of this name"),
    ],
)
def test_an_unknown_name_lists_those_known(name: str, told: str) -> None:
    with refused(ExitCode.CONFIG, told):
        load_config(name)


def test_a_missing_base_tells_the_rule_of_its_path(elsewhere: Path) -> None:
    with refused(ExitCode.CONFIG, "none.yaml: no such file, a base of", "relative to the file that names it"):
        load_config(write_config(elsewhere, "base: none.yaml\n"))
    with refused(ExitCode.CONFIG, "did you mean segnet_small?"):
        load_config(write_config(elsewhere, "base: segnet_smal\n"))


def test_missing_data_that_a_command_makes_names_the_command() -> None:
    assert root_fault(Path("data/sample")) == (
        f"no such folder in the working folder {Path.cwd()}",
        "prepare the data (segnet prepare sample), or set data.root",
    )


def test_the_package_declares_every_file_that_is_no_python() -> None:
    """A wheel holds them; segnet/configs is a link in the repository."""
    package = ROOT / "segnet"
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packed = {path for name, patterns in declared.items() for pattern in patterns for path in folder_of(name).glob(pattern)}
    there = {path for path in package.rglob("*.*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    there |= {package / path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yaml")}
    assert there - packed == set()


def folder_of(package: str) -> Path:
    return ROOT / package.replace(".", "/")
