"""The lecture runs from top to bottom and prints what is stored in it; its page and its drawings are those that it makes."""

import importlib.util
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from helpers import ROOT

FOLDER = ROOT / "docs" / "lecture"
REMEDY = "run `python docs/lecture/build.py`"


@pytest.fixture(scope="module")
def build():
    """The module docs/lecture/build.py."""
    spec = importlib.util.spec_from_file_location("lecture_build", FOLDER / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebook_prints_and_draws_what_is_stored(build, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = build.read_notebook()
    stored = [(cell["id"], build.stored_output(cell)) for cell in cells if cell["cell_type"] == "code"]
    printed = build.run_cells(cells)
    for (name, expected), text in zip(stored, printed, strict=True):
        assert text == expected, f"cell {name}: {REMEDY}"
        assert "False" not in text, f"cell {name}: project, torch and NumPy do not agree"
    drawn = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert drawn == {path.name: path.read_bytes() for path in FOLDER.glob("*.svg")}, REMEDY


def test_the_page_is_made_from_the_notebook(build):
    assert build.PAGE.read_text() == build.page(build.read_notebook()), REMEDY


def test_the_page_shows_every_drawing_and_links_to_files_that_exist(build):
    page = build.PAGE.read_text()
    pictures = re.findall(r"!\[[^\]]{20,}\]\((\S+)\)", page)  # with a description for screen readers
    assert sorted(pictures) == sorted(path.name for path in FOLDER.glob("*.svg"))
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", page)
    assert len(links) > len(pictures)
    assert [link for link in links if not (FOLDER / link).exists()] == []


def test_every_question_has_an_answer(build):
    questions, _, answers = build.PAGE.read_text().partition("## Answers")
    asked = re.findall(r"\*\*Question (\d+)\.\*\*", questions)
    assert asked == [str(number) for number in range(1, len(re.findall(r"^## \d+\.", questions, re.MULTILINE)) + 1)]
    assert re.findall(r"^\*\*(\d+)\.\*\*", answers, re.MULTILINE) == asked


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.svg")), ids=lambda path: path.stem)
def test_a_drawing_is_small_has_a_title_and_colours_for_dark_pages(path: Path):
    svg = "{http://www.w3.org/2000/svg}"
    root = ElementTree.parse(path).getroot()
    assert root.tag == f"{svg}svg"
    assert len(root.findtext(f"{svg}title") or "") > 20
    assert "prefers-color-scheme:dark" in (root.findtext(f"{svg}style") or "")
    assert path.stat().st_size < 10_000
