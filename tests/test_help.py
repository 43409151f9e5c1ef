"""Help texts fit into the terminal that shows them."""

import pytest

from segnet.commands import evaluate, import_labels, predict, prepare, show, train

COMMANDS = {"evaluate": evaluate, "import": import_labels, "predict": predict, "prepare": prepare, "show": show, "train": train}


@pytest.mark.parametrize("name", COMMANDS)
def test_paragraphs_are_wrapped_and_examples_are_not(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = COMMANDS[name].build_parser().format_help()
    examples = text.partition("examples:\n")[2].partition("\n\n")[0].splitlines()
    assert len(examples) >= 3
    assert all(line.startswith("  ") for line in examples)
    assert [line for line in text.splitlines() if len(line) > 80 and line not in examples] == []
