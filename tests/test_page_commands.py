"""Every command line of every page and recipe has a command, options and keys that exist; nothing is run here.

`tests/test_pages.py` runs those that can be run. This reads the others, too, and each over the networks and sizes of its recipe.
"""

import itertools
import re
import shlex
import sys
from pathlib import Path

import pytest
from helpers import ROOT

from segnet.__main__ import COMMANDS
from segnet.commands.predict import parse_arguments
from segnet.config.loading import load_config

PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md")), *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted(path for path in (ROOT / "configs").glob("*.yaml") if path.name != "template.yaml")
WRITTEN_BY_THE_READER = {"configs/leaves.yaml", "configs/pedestrians.yaml", "configs/mine.yaml", "planned.yaml", "CONFIG"}


class Read(Exception):
    """Carries the arguments as the command reads them, in place of its work."""


def commands_in(lines: list[str]) -> list[list[str]]:
    """The words behind `segnet`, of each command of these lines of a shell."""
    found = []
    for line in lines:
        try:
            lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
            lexer.whitespace_split = True
            words = list(lexer)
        except ValueError:  # a line of a quoted script of several lines; tests/test_slurm.py runs that of docs/slurm.md
            continue
        ends = [index for index, word in enumerate(words) if word and set(word) <= set(";&|")]
        for start, end in zip([0, *(index + 1 for index in ends)], [*ends, len(words)], strict=True):
            part = list(itertools.takewhile(lambda word: not word.startswith((">", "<")), words[start:end]))
            part = part[part.index("segnet", 1) :] if part[:2] == ["docker", "run"] else part
            if part[:1] == ["segnet"]:
                found.append(part[1:])
    return found


def commands_of(path: Path) -> list[list[str]]:
    """The commands in the blocks of a page, or in the comments of a recipe."""
    text = path.read_text()
    if path.suffix == ".md":
        fences = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        text = "".join(block for language, block in fences if language in ("", "bash"))
    else:
        text = "\n".join(re.findall(r"^#   (segnet .*)$", text, re.MULTILINE))
    return commands_in(text.replace("\\\n", " ").splitlines())


def check(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the arguments as the command does, and its KEY=VALUE over the recipe that it names."""
    if words[0].startswith("--"):
        assert words in (["--help"], ["--version"])
        return
    assert words[0] in COMMANDS, f"segnet has no command {words[0]}"
    module = sys.modules[COMMANDS[words[0]].__module__]
    parse = module.parse

    def read(parser, *arguments, **options):
        parser.allow_abbrev = False
        raise Read(parse(parser, *arguments, **options))

    monkeypatch.setattr(module, "parse", read)
    with pytest.raises(Read) as raised:
        COMMANDS[words[0]](words[1:])
    monkeypatch.undo()
    (given,) = raised.value.args
    if words[0] == "predict":
        parse_arguments(words[1:])  # the kinds after --save
    recipes = [word for word in words if word.endswith(".yaml") and word not in WRITTEN_BY_THE_READER]
    assert [name for name in recipes if not (ROOT / name).exists()] == []
    named = [ROOT / "configs" / f"{Path(word).name}.yaml" for word in words if word.startswith("runs/")]
    known = [ROOT / name for name in recipes] or [path for path in named if path.exists()] or [ROOT / "configs" / "sample.yaml"]
    overrides = [text for text in getattr(given, "overrides", []) if not text.startswith("runs/")]  # the runs of an ensemble
    for recipe in known:
        load_config(recipe, overrides)


@pytest.mark.parametrize("path", [*PAGES, *RECIPES], ids=lambda path: str(path.relative_to(ROOT)))
def test_each_command_can_be_read(path, monkeypatch):
    for words in commands_of(path):
        try:
            check(words, monkeypatch)
        except (Exception, SystemExit, pytest.fail.Exception) as error:
            pytest.fail(f"segnet {shlex.join(words)}: {error}")


def test_the_commands_of_the_pages_are_found():
    """A change of how pages are written shall not leave the test above without work."""
    assert sum(len(commands_of(path)) for path in PAGES) > 80
    assert all(commands_of(path) for path in RECIPES)


@pytest.mark.parametrize(
    "line",
    [
        "segnet trian configs/sample.yaml",
        "segnet train configs/sample.yaml --rum runs/mine",
        "segnet train configs/sampel.yaml",
        "segnet train configs/sample.yaml train.epoch=5",
        "segnet split data/leaves --vall 0.2",
        "segnet evaluate runs/mine --calibrat",
        "segnet predict runs/mine photos --out masks --save maks",
        "ls && segnet evaluate runs/mine inference.scale=[1.0] | cat",
    ],
)
def test_a_misspelled_word_is_found(line, monkeypatch):
    (words,) = commands_in([line])
    with pytest.raises((Exception, SystemExit, pytest.fail.Exception)):
        check(words, monkeypatch)


def test_every_picture_is_shown_and_every_shown_picture_exists():
    shown = {(path.parent / name).resolve() for path in PAGES for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", path.read_text())}
    assert shown == {path.resolve() for path in (ROOT / "docs").glob("*.png")}
