"""Write the lists of train, val, test or folds: balanced by class pixels, groups kept together.

examples:
  segnet split data/leaves --val 0.2
  segnet split data/leaves --val 0.2 --test 0.1 --group folder
  segnet split data/leaves --folds 5 --seed 1

DIR is a data folder with a classes.yaml. Existing lists keep their pictures unless --overwrite is given.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from segnet.commands.parsers import Subcommands, add_command, add_overrides, command_parser, complete_configs, parse, share
from segnet.system.command_line import count_up_to
from segnet.system.errors import ExitCode

if TYPE_CHECKING:
    from segnet.preparation.written_lists import Existing


def define(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser, to which the arguments of the command and what it runs are added."""
    source = parser.add_argument("source", type=Path, metavar="DIR", help="a data folder with classes.yaml, or a configuration")
    complete_configs(source)
    add_overrides(parser)
    parser.add_argument(
        "--val", type=share, default=0.0, metavar="SHARE", help="share of the pictures in val, e.g. 0.2; the rest is train"
    )
    parser.add_argument(
        "--test", type=share, default=0.0, metavar="SHARE", help="share of the pictures in test, e.g. 0.1 (default: none)"
    )
    parser.add_argument(
        "--folds",
        type=count_up_to(100, least=2),
        default=0,
        metavar="K",
        help="write K folds: the lists train_0, val_0, train_1, …",
    )
    meant = "what ids that belong together have in common, e.g. a video, a patient: the first group of a regular expression, "
    parser.add_argument(
        "--group", metavar="REGEX|folder", help=meant + "or its whole match; the word folder: the folder of the id"
    )
    parser.add_argument(
        "--seed",
        type=count_up_to(2**31),
        default=0,
        metavar="N",
        help="seed of the division: another one gives other lists (default: 0)",
    )
    lists = parser.add_mutually_exclusive_group()
    lists.add_argument(
        "--keep", action="store_true", help="existing lists keep their pictures, also those that this command did not write"
    )
    lists.add_argument("--overwrite", action="store_true", help="replace existing lists")

    def run(given: argparse.Namespace) -> None:
        from segnet.commands.sources import data_of
        from segnet.config.data_folder import lists_folder
        from segnet.preparation.splitting import split_dataset, split_table
        from segnet.preparation.written_lists import SplitOptions

        if not (given.val or given.folds):
            parser.error("give --val, --folds or both")
        if given.val + given.test >= 1:
            parser.error("--val and --test leave nothing for train")
        data = data_of(given.source, given.overrides)
        options = SplitOptions(given.val, given.test, given.folds, given.group, given.seed)
        existing: Existing = "keep" if given.keep else "overwrite" if given.overwrite else "extend"
        done = split_dataset(Path(data.root), data.class_set, options, existing)
        print(split_table(done, data.class_set))
        counts = ", ".join(f"{name} {len(members):,} (+{done.added[name]:,})" for name, members in done.lists.items())
        print(f"{lists_folder(Path(data.root))}: {counts}", flush=True)
        if done.held_out:
            print(f"test.txt stays as it is, and its {done.held_out:,} pictures are in none of these lists", flush=True)
        for warning in done.warnings:
            print(f"warning: {warning}", file=sys.stderr)

    parser.set_defaults(run=run)
    return parser


def add_to(commands: Subcommands) -> None:
    """Add the command as a subcommand."""
    define(add_command(commands, "split", __doc__))


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command alone."""
    return define(command_parser("split", __doc__))


def main(arguments: list[str] | None = None) -> ExitCode | None:
    """Write the lists of splits."""
    given = parse(build_parser(), arguments)
    return given.run(given)
