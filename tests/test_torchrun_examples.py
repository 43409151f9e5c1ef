"""torchrun reads each of its commands in the pages and help texts as they stand, with options of the command behind it."""

import re

import pytest
from helpers import ROOT
from torch.distributed.run import parse_args

FILES = [*(ROOT / "docs").glob("*.md"), *(ROOT / "segnet" / "commands").glob("*.py")]
EXAMPLES = [found for path in FILES for found in re.findall(r"`torchrun (--standalone [^`]*?) ?…?`", path.read_text())]


def test_there_are_examples():
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_options_of_the_command_reach_the_command(example: str):
    command = re.search(r"segnet (\w+)", example)[1]
    options = ["CONFIG", "--run", "runs/mine", "--resume", "--out", "masks"]
    given = parse_args([*example.split(), *options])
    assert given.module
    assert given.training_script == "segnet"
    assert given.training_script_args[0] == command
    assert given.training_script_args[-len(options) :] == options
