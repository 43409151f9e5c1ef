"""What the parsers of all commands share."""

from __future__ import annotations

import argparse
import importlib.util
import os
from pathlib import Path
from typing import TypeAlias

from segnet.system.invocation import as_started, is_segnet

Subcommands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # what add_subparsers returns


class HelpFormatter(argparse.HelpFormatter):
    """Fits the paragraphs of a description into the terminal; one with an indented line, such as examples, stays as it is."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.strip("\n").split("\n\n")
        return "\n\n".join(
            part if "\n " in part else super(HelpFormatter, self)._fill_text(part, width, indent) for part in paragraphs
        )


def complete(parser: argparse.ArgumentParser) -> None:
    """Where the shell asks for completions of a line, print them and end the process, if argcomplete is installed."""
    if "_ARGCOMPLETE" in os.environ and importlib.util.find_spec("argcomplete"):
        import argcomplete  # type: ignore[import-not-found, unused-ignore]

        argcomplete.autocomplete(parser)


def complete_configs(argument: argparse.Action) -> None:
    """Let the shell complete an argument by the names of configurations and by YAML files."""

    def offered(prefix: str, **_: object) -> list[str]:
        from segnet.config.named import architectures, recipes

        folder = Path(prefix if prefix.endswith("/") else Path(prefix).parent)
        files = [path for path in folder.glob("*") if path.suffix == ".yaml" or path.is_dir()]
        return [*recipes(), *architectures(), *(f"{path}/" if path.is_dir() else str(path) for path in files)]

    argument.completer = offered  # type: ignore[attr-defined]


def command_parser(name: str, docstring: str | None) -> argparse.ArgumentParser:
    """The parser of the command `segnet NAME`, or of its script; its help is the docstring of the command's file."""
    return argparse.ArgumentParser(
        prog=f"segnet {name}" if is_segnet() else None,
        description=as_started(docstring or ""),
        formatter_class=HelpFormatter,
    )


def add_command(commands: Subcommands, name: str, docstring: str | None) -> argparse.ArgumentParser:
    """The parser of a subcommand, whose help is the docstring of the file of the command of this name."""
    about = (docstring or "").partition("\n")[0].removesuffix(".")
    return commands.add_parser(
        name,
        help=about[:1].lower() + about[1:],
        description=as_started(docstring or ""),
        formatter_class=HelpFormatter,
    )


def add_overrides(parser: argparse.ArgumentParser, example: str = "train.epochs=5") -> None:
    """Add KEY=VALUE, which stands behind the other positional arguments; `parse` finds it behind options, too."""
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="KEY=VALUE", help=f"overrides of the configuration, e.g. {example}"
    )


def parse(parser: argparse.ArgumentParser, arguments: list[str] | None, *, mixed: bool = False) -> argparse.Namespace:
    """The arguments of a command, whose KEY=VALUE may also stand behind options; if `mixed`, all positional arguments may."""
    complete(parser)
    given, others = (parser.parse_known_intermixed_args if mixed else parser.parse_known_args)(arguments)
    if others:
        if not hasattr(given, "overrides") or any(text.startswith("-") or "=" not in text for text in others):
            parser.error(f"unrecognized arguments: {' '.join(others)}")
        given.overrides = [*given.overrides, *others]
    return given


def above_zero(text: str) -> float:
    """An argparse type: a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected a number above 0")
    return number


def share(text: str) -> float:
    """An argparse type: a share above 0 and below 1."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a share between 0 and 1, such as 0.2")
    return number
