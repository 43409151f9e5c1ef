"""One form of override on every command, and arguments that are refused."""

from __future__ import annotations

import argparse

import pytest

from segnet.commands import benchmark, check, evaluate, prepare, show, split
from segnet.commands.parsers import above_zero, parse
from segnet.commands.train import build_parser, with_steps

KEY = "train.epochs=5"


@pytest.mark.parametrize(
    ("parser", "arguments"),
    [
        (build_parser, ["sample", KEY]),
        (build_parser, ["sample", "--run", "r", KEY]),
        (check.build_parser, ["sample", "--split", "val", KEY]),
        (split.build_parser, ["sample", "--val", "0.2", KEY]),
        (prepare.build_parser, ["check", "sample", KEY]),
        (show.build_parser, ["augment", "sample", "--out", "a.png", KEY]),
        (benchmark.build_parser, ["train", "sample", "--size", "96", "128", KEY]),
    ],
)
def test_overrides_stand_behind_the_arguments_or_the_options(parser, arguments: list[str]) -> None:
    given = parse(parser(), arguments)
    assert given.overrides == [KEY]


@pytest.mark.parametrize("arguments", [["sample", "--run", "r", "other"], ["sample", "--what", KEY], ["sample", "--what=5"]])
def test_other_words_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(build_parser(), arguments)
    assert "unrecognized arguments" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        (["sample", "--overfit-one-batch", KEY], 200),
        (["sample", KEY, "--overfit-one-batch"], 200),
        (["sample", "--overfit-one-batch", "30", KEY], 30),
        (["--overfit-one-batch=30", "sample", KEY], 30),
        (["sample", KEY], None),
    ],
)
def test_an_override_is_not_read_as_steps(arguments: list[str], steps: int | None) -> None:
    given = parse(build_parser(), with_steps(arguments))
    assert (str(given.config), given.overrides) == ("sample", [KEY])
    assert given.overfit_one_batch == steps


def test_a_number_above_zero_is_asked_for() -> None:
    assert above_zero("0.5") == 0.5
    for text in ("0", "-1", "inf", "nan", "x"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a number above 0"):
            above_zero(text)


@pytest.mark.parametrize("parser", [build_parser, evaluate.build_parser, check.build_parser, split.build_parser])
def test_what_is_required_does_not_name_overrides(parser, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(parser(), [], mixed=parser is evaluate.build_parser)
    assert "are required: " in (said := capsys.readouterr().err)
    assert "KEY=VALUE" not in said.splitlines()[-1]
