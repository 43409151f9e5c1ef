"""Each format that is recognised stands in the help of import and in the table of data/README.md."""

from __future__ import annotations

import re

import pytest
from helpers import ROOT

from segnet.commands import import_labels
from segnet.importing.recognition import FORMATS


@pytest.mark.parametrize("title", [known.title for known in FORMATS.values()])
def test_it_is_named_in_the_help_and_has_a_row(title: str) -> None:
    assert title in " ".join((import_labels.__doc__ or "").split()), "name it in the docstring of commands/import_labels.py"
    table = (ROOT / "data" / "README.md").read_text().partition("| format | recognised by |")[2]
    rows = re.findall(r"^\| ([^|]*) \| ", table, re.MULTILINE)
    assert any(title == row or title.startswith(f"{row} ") for row in rows), f"{title}: add a row to data/README.md"
