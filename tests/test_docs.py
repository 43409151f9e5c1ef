"""The pages name and link only what exists, and name all that they should. `tests/test_pages.py` runs their commands."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from helpers import ROOT

from segnet.__main__ import COMMANDS
from segnet.classes import class_set
from segnet.commands.import_labels import build_parser as build_import_parser
from segnet.config.key_page import configuration_page
from segnet.config.loading import load_config

README = (ROOT / "README.md").read_text()
PAGES = {path.stem: path.read_text() for path in (ROOT / "docs").glob("*.md")}


def code_blocks(page: str, language: str) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [text for name, text in blocks if name == language]


def as_segnet(text: str) -> str:
    """`text` with `python scripts/NAME.py` spelled as `segnet NAME`, which does the same."""
    text = re.sub(r"python scripts/prepare_data\.py (check|convert|split|import)\b", r"segnet \1", text)
    return re.sub(r"python scripts/(\w+)\.py", r"segnet \1", text.replace("python scripts/prepare_data.py", "segnet prepare"))


def test_the_configuration_of_an_own_data_set_is_complete(tmp_path, monkeypatch):
    classes, recipe = code_blocks(PAGES["data"], "yaml")
    shutil.copytree(ROOT / "configs" / "model", tmp_path / "configs" / "model")
    (tmp_path / "data" / "leaves").mkdir(parents=True)
    (tmp_path / "data" / "leaves" / "classes.yaml").write_text(classes)
    (tmp_path / "configs" / "leaves.yaml").write_text(recipe)
    monkeypatch.chdir(tmp_path)
    config = load_config(tmp_path / "configs" / "leaves.yaml")
    assert config.data.class_set == class_set(("background", "leaf", "spot"), ((0, 0, 0), (60, 170, 90), (230, 75, 60)))


def test_the_page_of_labels_gives_options_that_the_import_has():
    """The formats have tests of their own; here each command line is parsed, and each value that is proposed is one."""
    page = PAGES["labels"]
    lines = [as_segnet(line) for block in code_blocks(page, "bash") for line in block.splitlines() if " import " in line]
    assert len(lines) == 4
    proposed = re.findall(r"`(--[a-z]+ \w+)`", page)
    assert len(proposed) == 3
    for more in proposed:
        build_import_parser().parse_args(shlex.split(f"{lines[0]} {more}")[2:])
    for line in lines:
        assert build_import_parser().parse_args(shlex.split(line)[2:]).out == Path("data/leaves")


@pytest.mark.parametrize(
    "path", ["README.md", "CONTRIBUTING.md", "data/README.md", *(f"docs/{name}.md" for name in sorted(PAGES))]
)
def test_every_file_that_is_linked_or_named_exists(path):
    page = (ROOT / path).read_text()
    linked = [(ROOT / path).parent / target for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page)]
    named = [ROOT / name for name in re.findall(r"`((?:segnet|configs|scripts|tests)/[\w/.]+)`", page)]
    to_be_written = {ROOT / f"configs/{name}" for name in ("leaves.yaml", "pedestrians.yaml", "schema.json")}  # by the reader
    assert [path for path in [*linked, *named] if not path.exists() and path not in to_be_written] == []


def test_every_architecture_has_a_row():
    names = [path.stem for path in (ROOT / "configs" / "model").glob("*.yaml")]
    assert [name for name in names if f"`{name}`" not in PAGES["models"]] == []


def test_every_command_is_named_on_a_page():
    pages = as_segnet("".join(PAGES.values()))
    assert [name for name in COMMANDS if f"segnet {name}" not in pages] == []


def test_the_readme_is_short_and_links_every_page():
    assert len(README.split()) <= 900
    assert [name for name in PAGES if f"(docs/{name}.md)" not in README] == []


def test_the_page_of_keys_is_that_of_the_sections():
    assert PAGES["configuration"] == configuration_page()
